"""The command line as a user meets it."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ijrlib import theorems
from ijrlib.cli import app
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
        (("claims", "--scale", "huge"), "smoke, laptop, paper"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(arguments, message, tmp_path):
    done = ijr(*arguments, "--runs-dir", str(tmp_path))
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_list_names_every_figure_and_what_is_stored():
    done = ijr("list")
    assert done.exit_code == 0
    assert "fig02" in done.stdout
    assert "cifar10-50000-6cnn-sgd128" in done.stdout
    assert "yes" in done.stdout


def test_claims_prints_the_scoreboard(tmp_path):
    done = ijr("claims", "--scale", "smoke", "--runs-dir", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "not run" in done.stdout
