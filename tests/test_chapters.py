"""Every chapter executes through papermill at smoke scale, as its reader would re-run it.

One folder of runs serves the module, so that each smoke run is trained once; no data set is needed.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").rglob("*.ipynb"))


def defaults(path: Path) -> dict[str, object]:
    """Names and values of the cell tagged ``parameters``; none where there is no such cell."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            body = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {ast.unparse(s.targets[0]): ast.literal_eval(s.value) for s in body}
    return {}


TAKE_SCALE = [path for path in CHAPTERS if "scale" in defaults(path)]


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """A function that runs a chapter at smoke scale and returns the executed notebook."""
    folder = tmp_path_factory.mktemp("chapters")
    environment = pytest.MonkeyPatch()
    environment.setenv("OMP_NUM_THREADS", "1")
    environment.setenv("IJR_DATA", str(folder / "no data sets here"))

    def run(path: Path, **parameters: object) -> nbformat.NotebookNode:
        if "scale" in defaults(path):
            parameters = {"scale": "smoke", **parameters}
        if "runs_dir" in defaults(path):
            parameters = {"runs_dir": str(folder / "runs"), **parameters}
        if "live" in defaults(path):
            parameters["live"] = True
            if "results_dir" in defaults(path):  # not over the stored ones
                parameters["results_dir"] = str(folder / "results")
        return papermill.execute_notebook(
            path,
            folder / path.name,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=folder,
        )

    yield run
    environment.undo()


def chapter(figure: str) -> Path:
    (path,) = (path for path in CHAPTERS if path.stem.startswith(f"{figure}_"))
    return path


def outputs(notebook: nbformat.NotebookNode, mime: str) -> list[str]:
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return ["".join(out.data[mime]) for out in shown if mime in out.get("data", {})]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_executes_at_smoke_scale(path, execute):
    notebook = execute(path)
    plots = [c for c in notebook.cells if c.cell_type == "code" and "figure" in str(c.metadata)]
    assert len(outputs(notebook, "image/png")) == len(plots), "each plot is shown once"
    if "report.claims(" in path.read_text():
        assert "verdict" in "".join(outputs(notebook, "text/html"))
    for cell in notebook.cells:
        assert not cell.source.startswith("if live:") or cell.outputs


@pytest.mark.parametrize("path", TAKE_SCALE, ids=lambda path: path.stem)
def test_the_chapter_refuses_a_parameter_that_it_does_not_have(path):
    """The cells up to the one that reads the parameters, without the cost of a kernel."""
    namespace = {**defaults(path), "learning_rate": 0.02, "scale": "smoke"}
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    with pytest.raises(ValueError, match="unknown parameter learning_rate; this chapter has"):
        for cell in cells:
            if "parameters" not in cell.metadata.get("tags", []):
                exec(cell.source, namespace)


def test_papermill_fails_for_a_parameter_that_the_chapter_does_not_have(execute):
    with pytest.raises(PapermillExecutionError, match="unknown parameter learning_rate"):
        execute(chapter("fig03"), learning_rate=0.02)


def test_a_chapter_repeats_with_an_override_and_prints_the_command_that_does_so(execute):
    notebook = execute(chapter("fig03"), overrides={"lr": 0.02})
    page = "".join(outputs(notebook, "text/html"))
    assert "η = 0.02" in page
    assert "papermill chapters/implicit/" in page and "&quot;lr&quot;: 0.02" in page
