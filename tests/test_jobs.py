"""Runs and chapters as jobs, and the Snakefile as a user meets it."""

import math
import os
import re
import subprocess
from pathlib import Path

import pytest

from ijrlib import costs, experiments, jobs, store

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = ROOT / ".venv-workflow" / "bin" / "snakemake"


def snakemake(*arguments, **environment):
    assert SNAKEMAKE.is_file(), "make .venv-workflow/.ready installs Snakemake"
    return subprocess.run(
        [SNAKEMAKE, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("scale", experiments.SCALES)
def test_each_run_is_one_job_in_the_family_of_its_configuration(scale):
    runs = jobs.runs(scale)
    wanted = {c.name for f in experiments.FIGURES for c in experiments.configs(f, scale)}
    assert set(runs) == wanted
    families = jobs.families(scale)
    assert sorted(name for names in families.values() for name in names) == sorted(wanted)
    for family, names in families.items():
        assert re.fullmatch(r"\w+", family)
        assert len({runs[name].replace(seed=0) for name in names}) == 1
    assert len(families) == len({config.replace(seed=0) for config in runs.values()})


def test_chapters_are_the_notebooks_of_the_book_with_their_figures():
    chapters = jobs.chapters()
    assert chapters["implicit/fig03_sharpness_jacobian"] == "fig03"
    assert chapters["implicit/beyond_constant"] == "beyond"
    assert chapters["theory/thm1_eigensystem"] == chapters["scoreboard"] == ""
    assert "run" not in chapters and "notation" not in chapters
    (run,) = jobs.runs_of("implicit/fig03_sharpness_jacobian", "paper")
    assert run == experiments.configs("fig03", "paper")[0].name
    toc = (ROOT / "_toc.yml").read_text().split()
    places = [toc.index(f"chapters/{page}") for page in chapters]
    assert places == sorted(places)


def test_the_chapters_ask_for_every_run_of_a_scale_and_for_no_other():
    asked = {name for page in jobs.chapters() for name in jobs.runs_of(page, "smoke")}
    assert asked == set(jobs.runs("smoke"))
    assert jobs.runs_of("scoreboard", "smoke") == []


def test_resources_grow_with_the_run_and_with_the_attempt():
    small, large = (
        experiments.configs(figure, scale)[0]
        for figure, scale in (("fig21", "smoke"), ("fig16", "paper"))
    )
    for ask in (lambda c, n=1: jobs.minutes(c, 1, n), jobs.megabytes):
        assert 0 < ask(small) < ask(large) < ask(large, 2)
    assert jobs.minutes(large, 0) > jobs.minutes(large, 1)


def test_resources_are_three_times_the_estimate_of_time_and_all_of_the_memory():
    small, large = (
        experiments.configs(figure, scale)[0]
        for figure, scale in (("fig21", "smoke"), ("fig16", "paper"))
    )
    assert [jobs.minutes(small, 1, attempt) for attempt in (1, 2, 3)] == [20, 40, 60]
    minutes = 60 * costs.gpu_hours(large)
    assert minutes > 20, "otherwise the next line says little"
    assert jobs.minutes(large, 1) == math.ceil(3 * minutes)
    assert jobs.minutes(large, 0) == math.ceil(3 * costs.cpu_seconds(large) / 60)
    for config in (small, large):
        spare = 10**6 * jobs.megabytes(config) - costs.memory_bytes(config)
        assert 0 <= spare < 10**6


def test_the_memory_of_a_run_has_room_for_the_gradients_of_its_probe():
    asked = [config for config in jobs.runs("paper").values() if config.windows("covariance")]
    assert asked
    for config in asked:
        kept = 4 * config.probe * costs.PARAMETERS[config.network]
        assert costs.memory_bytes(config) > kept + 2e9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scle": "laptop"}, "unknown setting scle; the settings are scale, device"),
        ({"scale": "huge"}, "scale: expected one of smoke, laptop, paper; got 'huge'"),
        ({"device": "tpu"}, "device: expected auto, cpu, cuda or cuda:N; got 'tpu'"),
        ({"runs_dir": "with blank"}, "runs_dir: expected a path without blanks, got 'with blank'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_planned(given, message):
    with pytest.raises(ValueError, match=message):
        jobs.settings(given)
    assert jobs.settings({"device": "cuda:1"}) == jobs.SETTINGS | {"device": "cuda:1"}


def test_settings_that_would_execute_the_book_again_are_refused(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("execute:\n  execute_notebooks: force\n")
    monkeypatch.setenv("IJR_ROOT", str(tmp_path))
    with pytest.raises(ValueError, match=r"_config.yml: expected the line 'execute_notebooks"):
        jobs.assemble(tmp_path / "book")
    assert not (tmp_path / "book" / "_config.yml").exists()


def test_a_page_that_is_assembled_is_built_without_executing(tmp_path):
    jobs.assemble(tmp_path)
    assert 'execute_notebooks: "off"' in (tmp_path / "_config.yml").read_text()
    pages = [page for ending in ("md", "py") for page in (ROOT / "chapters").rglob(f"*.{ending}")]
    assert {page.suffix for page in pages} == {".md", ".py"}
    for page in pages:
        assert (tmp_path / page.relative_to(ROOT)).read_text() == page.read_text()
    assert (tmp_path / "_toc.yml").read_text() == (ROOT / "_toc.yml").read_text()
    for name in ("_ext", "_static", "references.bib"):
        assert (tmp_path / name).samefile(ROOT / name)
    jobs.assemble(tmp_path)


def test_the_cluster_s_plan_has_a_job_with_gpu_time_and_memory_for_each_run(tmp_path):
    done = snakemake(
        *("--profile", "profiles/slurm", "-n", "--config", "scale=paper", "device=cuda"),
        *(f"runs_dir={tmp_path}", f"out={tmp_path}", "--", "runs"),
    )
    assert done.returncode == 0, done.stderr
    plan = done.stdout + done.stderr
    resources = re.findall(r"^rule run_\w+:.*?resources: ([^\n]*)", plan, re.M | re.S)
    assert len(resources) == len(jobs.runs("paper"))
    for line in resources:
        assert "gres=gpu:1" in line
        assert re.search(r"runtime=\d+", line) and re.search(r"mem_mb=\d+", line)


def test_nothing_that_is_stored_is_trained_again(tmp_path):
    stored = [run.config.name for run in store.find()]
    done = snakemake(
        *("--profile", "profiles/local", "-n", "--config", "scale=laptop", f"out={tmp_path}"),
        *("--", *(f"data/runs/{name}/run.json" for name in stored)),
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_chapter_s_run_is_trained_once_and_its_notebook_kept_beside_it(tmp_path):
    out, runs_dir = tmp_path / "out", tmp_path / "runs"
    page = out / "books" / "smoke" / "chapters" / "implicit" / "fig32_squared_loss.ipynb"
    arguments = (
        *("--profile", "profiles/local", "--config", "scale=smoke", f"runs_dir={runs_dir}"),
        *(f"out={out}", "--", page),
    )
    done = snakemake(*arguments, IJR_DATA=str(tmp_path / "none"), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    (config,) = experiments.configs("fig32", "smoke")
    assert store.load(config, runs_dir).provenance["status"] == "complete"
    record = (runs_dir / config.name / "run.ipynb").read_text()
    assert config.to_json() in record.replace('\\"', '"')
    assert "not judged" in page.read_text()
    again = snakemake(*arguments)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_job_whose_kernel_is_killed_fails_leaves_no_run_and_succeeds_when_repeated(tmp_path):
    """As the kernel of a machine without memory left would be killed."""
    (config,) = experiments.configs("fig32", "smoke")
    killer = tmp_path / "sitecustomize"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text(
        "import os, signal, threading\n"
        "if 'ipykernel_launcher' in ' '.join(__import__('sys').orig_argv):\n"
        "    threading.Timer(3, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
    )
    runs_dir = tmp_path / "runs"
    arguments = (
        *("--profile", "profiles/local", "--config", "scale=smoke", f"runs_dir={runs_dir}"),
        *(f"out={tmp_path / 'out'}", "--", runs_dir / config.name / "run.json"),
    )
    environment = {"IJR_DATA": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    failed = snakemake("--retries", "0", *arguments, PYTHONPATH=str(killer), **environment)
    assert failed.returncode != 0
    assert store.find(runs_dir) == []
    done = snakemake(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert [run.config for run in store.find(runs_dir)] == [config]
