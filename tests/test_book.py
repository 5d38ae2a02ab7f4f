"""The book as a whole: its sources keep the house rules; it builds without torch and warnings."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from PIL import Image

from ijrlib import experiments

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").rglob("*.ipynb"))
MOST_LINES = 40
MOST_BYTES = 3_000_000
RUN_PARAMETERS = {"scale", "device", "seed", "overrides", "runs_dir"}

sys.path.append(str(ROOT / "_ext"))
import pictures  # noqa: E402
from chapter_cache import fingerprint  # noqa: E402

WITH_RUNS = [path for path in CHAPTERS if "experiments.runs(" in path.read_text()]
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def toc_files():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def test_the_table_of_contents_lists_every_page_once():
    job = ROOT / "chapters" / "run.ipynb"  # Snakemake's notebook for one run
    pages = {*CHAPTERS, *(ROOT / "chapters").rglob("*.md")} - {job}
    listed = toc_files()
    assert sorted(listed) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in pages)


@each_chapter
def test_a_chapter_is_committed_without_results(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    for cell in code_cells(path):
        assert cell.outputs == [] and cell.execution_count is None


@each_chapter
def test_a_chapter_is_thin(path):
    lines = 0
    for cell in code_cells(path):
        tree = ast.parse(cell.source)
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not any(isinstance(node, defined) for node in ast.walk(tree))
        imported = (ast.Import, ast.ImportFrom)
        skip = {
            line
            for node in ast.walk(tree)
            if isinstance(node, imported)
            for line in range(node.lineno, node.end_lineno + 1)
        }
        for number, line in enumerate(cell.source.splitlines(), 1):
            lines += bool(line.strip()) and not line.strip().startswith("#") and number not in skip
    assert lines <= MOST_LINES


@pytest.mark.parametrize("path", WITH_RUNS, ids=lambda path: path.stem)
def test_a_chapter_that_uses_runs_takes_the_parameters_of_a_run(path):
    cells = code_cells(path)
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0] is cells[0]
    targets = [t.id for node in ast.parse(tagged[0].source).body for t in node.targets]
    assert set(targets) >= RUN_PARAMETERS


@each_chapter
def test_a_chapter_with_parameters_refuses_others(path):
    cells = code_cells(path)
    if any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        assert any("experiments.parameters(globals()" in cell.source for cell in cells)


def test_make_run_offers_the_chapters_that_have_a_scale():
    command = ["make", "-o", ".venv/.ready", "run", "FIG=fig01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    offered = set(done.stderr.partition("there are:")[2].split())
    assert "fig03" in offered and not offered & {"fig01", "eq01", "thm1", "ejr"}


@each_chapter
def test_a_figure_has_alt_text_and_a_caption(path):
    for cell in code_cells(path):
        if re.search(r"^(\w+_)?figures\.\w+\(", cell.source, re.MULTILINE):
            shown = cell.metadata.get("mystnb", {})
            assert shown.get("image", {}).get("alt"), f"{cell.id}: no alt text"
            assert shown.get("figure", {}).get("caption"), f"{cell.id}: no caption"


def test_sources_name_no_folder_of_a_machine():
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", ".", ":!data/runs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    machine = re.compile(r"(?<![\w.])/(work|root|home|Users)/")
    for name in filter(None, tracked):
        path = ROOT / name
        if path != Path(__file__) and path.suffix in {".py", ".md", ".ipynb", ".txt", ".toml"}:
            assert not machine.search(path.read_text()), name


def test_the_fingerprint_changes_with_library_and_runs_and_with_nothing_else(tmp_path):
    for name in ("ijrlib/a.py", "data/runs/r/run.json", "data/benchmarks/b.json", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    seen = {fingerprint(tmp_path)}
    for name in ("chapters/c.ipynb", "ijrlib/__pycache__/a.pyc", "data/runs/.r/checkpoint.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
        assert fingerprint(tmp_path) in seen
    changes = ("ijrlib/a.py", "data/runs/r/run.json", "data/benchmarks/b.json", "pyproject.toml")
    for name in (*changes, "ijrlib/b.py"):
        (tmp_path / name).write_text("2")
        assert fingerprint(tmp_path) not in seen
        seen.add(fingerprint(tmp_path))


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_of_the_readme_was_drawn_from_the_runs_that_are_stored(name):
    runs = experiments.runs(pictures.PICTURES[name][0], "laptop")
    with Image.open(pictures.FOLDER / f"{name}.png") as picture:
        assert picture.info["Source"] == pictures.source(runs), "make pictures"
    assert f"(_static/readme/{name}.png)" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def pages():
    """Name below ``_build/html`` → page of the book, which is built if it is not there."""
    book = subprocess.run(["make", "book"], cwd=ROOT, capture_output=True, text=True)
    assert book.returncode == 0, book.stdout[-4000:] + book.stderr[-4000:]
    top = ROOT / "_build/html"
    return {str(path.relative_to(top)): Page(path) for path in sorted(top.rglob("*.html"))}


class Page(HTMLParser):
    """What a page loads, what it links to and the places in it that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.loads, self.links, self.anchors = path, [], [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in {"script", "img", "iframe", "source"} and "src" in given:
            self.loads.append(given["src"])
        elif tag == "link" and given.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loads.append(given["href"])
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])


def test_the_book_builds_without_torch_and_without_warnings(pages):
    torch = subprocess.run(
        [ROOT / ".venv-book/bin/python", "-c", "import torch"], cwd=ROOT, capture_output=True
    )
    assert torch.returncode != 0
    assert set(pages) >= {f"{name}.html" for name in toc_files()}


def test_no_link_within_the_book_is_broken(pages):
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme in {"http", "https", "mailto", "data"}:
                continue
            path = (page.path.parent / unquote(target.path)) if target.path else page.path
            known = pages.get(str(path.resolve().relative_to(ROOT / "_build/html")))
            if not path.is_file() or (known and unquote(target.fragment) not in known.anchors):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_a_page_loads_only_files_of_the_book_and_not_many(pages):
    for name in (f"{name}.html" for name in toc_files()):
        page = pages[name]
        weight = page.path.stat().st_size
        for link in {load.partition("?")[0] for load in page.loads}:
            if not link.startswith("data:"):
                file = page.path.parent / unquote(link)
                assert file.is_file(), f"{name} loads {link}"
                weight += 0 if "mathjax" in link else file.stat().st_size
        assert weight < MOST_BYTES, f"{name} weighs {weight:,} bytes"


def test_the_api_page_shows_what_a_class_takes_whose_base_is_not_installed(pages):
    text = re.sub(r"<[^>]+>", "", pages["chapters/api.html"].path.read_text(encoding="utf-8"))
    assert "networks.LSTM(vocabulary=20000, classes=2, embedding=128, units=100)" in text
    assert "networks.ResidualBlock(inputs, filters, stride, batch_norm=False)" in text
    assert "(*args, **kwargs)" not in text
