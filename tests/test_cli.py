"""The command line as a user meets it."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ijrlib import cli, experiments, store, theorems
from ijrlib.cli import app
from ijrlib.config import RunConfig
from ijrlib.theorems import Check

GOOD = Check("Theorem 1 (d): λ^(1) ≤ Gini(p_(1))", 0.25, "C = 3", True, 10, 1e-15)
BAD = Check("Theorem 2: λ* ≤ λ^(1)", -0.5, "6cnn, example 3", False, 4, 1e-6)


def ijr(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def reports(monkeypatch):
    """Replace the two reports by given checks."""

    def set_reports(one, two):
        monkeypatch.setattr(theorems, "theorem_1_report", lambda seed: one)
        monkeypatch.setattr(theorems, "theorem_2_report", lambda seed: two)

    return set_reports


def test_verify_prints_each_statement_and_exits_zero_when_all_hold(reports):
    reports([GOOD], [GOOD])
    done = ijr("verify")
    assert done.exit_code == 0
    assert GOOD.statement in done.stdout
    assert "every statement holds" in done.stdout


def test_verify_prints_brackets_as_they_are_and_says_exact_for_an_identity(reports):
    exact = dataclasses.replace(GOOD, statement="Theorem 1 (a) [certified]", slack=float("inf"))
    reports([exact], [GOOD])
    done = ijr("verify")
    assert "[certified]" in done.stdout
    assert "exact" in done.stdout
    assert json.loads(ijr("verify", "--json").stdout)["checks"][0]["slack"] is None


def test_verify_exits_one_on_a_violation_and_names_it(reports):
    reports([GOOD], [BAD])
    done = ijr("verify")
    assert done.exit_code == 1
    assert re.search(r"λ\* ≤ λ\^\(1\).*VIOLATED", done.stdout)


def test_verify_prints_json_that_says_the_same(reports):
    reports([GOOD], [BAD])
    done = ijr("verify", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert document["passed"] is False
    assert [c["passed"] for c in document["checks"]] == [True, False]
    assert document["checks"][1]["slack"] == BAD.slack


def test_verify_without_torch_checks_theorem_1_and_says_what_theorem_2_needs():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ijrlib import theorems\n"
        "theorems.theorem_1_report = lambda seed: []\n"
        "from ijrlib.cli import app\n"
        "app(['verify'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Theorem 2: needs torch; not checked" in done.stdout


def test_run_trains_what_is_missing_and_a_second_call_loads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("IJR_DATA", str(tmp_path / "none"))
    arguments = ("run", "fig03", "--scale", "smoke", "--runs-dir", str(tmp_path))
    first = ijr(*arguments)
    assert first.exit_code == 0, first.output
    assert "complete" in first.stdout
    (folder,) = (p for p in tmp_path.iterdir() if p.name.startswith("digits"))
    stamp = (folder / "run.json").stat().st_mtime_ns
    assert ijr(*arguments).exit_code == 0
    assert (folder / "run.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "fig99"), "figure: expected one of"),
        (("run", "fig03", "--scale", "huge"), "smoke, laptop, paper"),
        (("run", "fig03", "--scale", "smoke", "--device", "gpu"), "auto, cpu, cuda"),
        (("run", "fig03", "--scale", "smoke", "--device", "mps"), "auto, cpu, cuda"),
        (("show", "a" * 300), "File name too long"),
        (("claims", "--scale", "huge"), "smoke, laptop, paper"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(arguments, message, tmp_path):
    done = ijr(*arguments, "--runs-dir", str(tmp_path))
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_the_device_is_looked_at_when_all_runs_are_stored_too():
    done = ijr("run", "fig03", "--device", "gpu")
    assert done.exit_code == 2 and "device: expected auto, cpu, cuda or cuda:N" in done.output


def test_each_run_of_a_figure_is_told_when_it_is_there(monkeypatch, capsys):
    told = []

    def run(config, *others):
        told.append(capsys.readouterr().out)
        return store.Run(config, pd.DataFrame(), {}, {"status": "complete"}, Path(config.name))

    monkeypatch.setattr(experiments, "run", run)
    app(["run", "fig15", "--scale", "smoke"], standalone_mode=False)
    names = [config.name for config in experiments.configs("fig15", "smoke")]
    assert len(names) > 1
    assert told == ["", *(f"complete: {name}\n" for name in names[:-1])]


def test_a_name_that_does_not_fit_into_the_terminal_goes_on_in_the_next_line(monkeypatch, capsys):
    name = "digits-1-6cnn-gd-lr0.1-s0-0123456789ab"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli._print_table(["run", "figures"], [[name, "fig02 fig03 fig04 fig05"]])
    shown = "".join(re.findall(r"│ (\S+) +│ ", capsys.readouterr().out))
    assert shown == name


def test_list_tells_of_each_run_its_figures_and_what_is_stored(tmp_path):
    done = ijr("list")
    assert done.exit_code == 0
    stored = next(line for line in done.stdout.splitlines() if "cifar10-50000-6cnn-sgd128" in line)
    assert re.search(r"fig03.*complete.*1,700.*MB.*min", stored)
    done = ijr("list", "--scale", "paper", "--runs-dir", str(tmp_path))
    assert "fig03" in done.stdout and "complete" not in done.stdout
    done = ijr("list", "--scale", "huge")
    assert done.exit_code == 2 and "smoke, laptop, paper" in done.output


def save(folder, seed=0, **columns):
    config = RunConfig("digits", 10, "6cnn", 0.1, 2, probe=5, seed=seed)
    series = pd.DataFrame({"step": [0, 1, 2], **columns})
    arrays = {"q": np.array([[3.0, 4], [0, 0]]), "q.steps": np.array([0, 2])}
    return store.save(store.Run(config, series, arrays, {"status": "complete"}), folder)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "fig02", "--threads", "0"], "threads: expected at least 1, got 0"),
        (["verify", "--seed", "-1"], "greater than or equal to 0"),
        (["show", ""], "expected a folder or the beginning of a name"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_expected(arguments, reason):
    done = ijr(*arguments)
    assert done.exit_code != 0 and reason in done.output


def test_show_prints_configuration_provenance_and_what_was_measured(tmp_path):
    folder = save(tmp_path, sharpness=[1.5, np.nan, 2.5])
    for name in (str(folder), "digits-10"):
        done = ijr("show", name, "--runs-dir", str(tmp_path))
        assert done.exit_code == 0, done.output
        assert '"network": "6cnn"' in done.stdout and '"status": "complete"' in done.stdout
        assert re.search(r"sharpness .*2 .*1.5 .*2.5 .*1.5 .*2.5", done.stdout)
        assert re.search(r"q .*\(2, 2\)", done.stdout)


def test_columns_and_runs_without_numbers_are_shown_and_listed(tmp_path):
    folder = save(tmp_path, sharpness=[np.nan] * 3, loss=[1.0, 1.0, 1.0])
    done = ijr("show", str(folder))
    assert done.exit_code == 0 and re.search(r"sharpness .* 0 ", done.stdout)
    (config,) = set(experiments.configs("fig02", "smoke")[:1])
    rows = pd.DataFrame({"step": pd.Series(dtype=int), "train_loss": pd.Series(dtype=float)})
    store.save(store.Run(config, rows, {}, {"status": "diverged", "wall_seconds": None}), tmp_path)
    done = ijr("list", "--scale", "smoke", "--runs-dir", str(tmp_path))
    assert done.exit_code == 0 and re.search(r"diverged .*none.* unknown ", done.stdout)


def test_bench_refuses_a_folder_that_is_none_before_it_begins(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        done = ijr("bench", "--out", str(out))
        assert done.exit_code == 2 and f"out: expected a folder, got {out}" in done.output


def test_diff_tells_the_fields_and_the_largest_relative_difference_of_each_quantity(tmp_path):
    one = save(tmp_path, train_loss=[2.0, 1.0, 0.5], sharpness=[1.0, 2.0, 3.0])
    two = save(tmp_path, seed=1, train_loss=[2.0, 0.8, 0.5], norm=[1.0, 1.0, 1.0])
    done = ijr("diff", str(one), str(two))
    assert done.exit_code == 0, done.output
    assert re.search(r"seed .*0 .*1", done.stdout)
    assert re.search(r"train_loss .*3 .*0\.2 .*1 .*1 .*0\.8", done.stdout)
    assert re.search(r"q .*2 .*0 ", done.stdout)
    assert "only in the first: sharpness" in done.stdout
    assert "only in the second: norm" in done.stdout
    same = ijr("diff", str(one), str(one))
    assert "the configurations agree" in same.stdout


def test_a_run_that_is_not_there_or_not_one_is_told(tmp_path):
    for seed in (0, 1):
        save(tmp_path, seed=seed, loss=[1.0, 1.0, 1.0])
    for name, message in (
        ("cifar", "none below"),
        ("digits", "expected the beginning of one"),
        (str(tmp_path / "nothing"), "none below"),
        ("*", "none below"),
    ):
        done = ijr("show", name, "--runs-dir", str(tmp_path))
        assert done.exit_code == 2 and message in done.output


def test_claims_prints_the_scoreboard(tmp_path):
    done = ijr("claims", "--scale", "smoke", "--runs-dir", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "not run" in done.stdout
