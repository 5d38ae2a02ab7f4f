"""What a chapter shows besides plots: tables that are true to the verdicts, links that hold the
data."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_runs import gd_run, sgd_run

from ijrlib import claims, experiments, report, store, theorems

GD, SGD = gd_run(), sgd_run()
VOID = {"br"}


class Balanced(HTMLParser):
    """Collects the text and fails on a tag that is closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def text_of(block: report.Block) -> str:
    parser = Balanced()
    parser.feed(block.html)
    parser.close()
    assert not parser.open
    return " ".join(parser.words)


# -- claims ----------------------------------------------------------------------------------------


def test_the_table_of_claims_shows_each_verdict_with_its_criterion_and_reason():
    text = text_of(report.claims("fig03", [SGD], "laptop"))
    for verdict in claims.evaluate("fig03", [SGD], "laptop"):
        for part in (verdict.claim.id, verdict.claim.criterion, verdict.claim.reason):
            assert part in text
        assert verdict.measured in text and verdict.verdict in text


def test_smoke_scale_says_that_no_verdict_is_drawn():
    assert "no verdict is drawn" in text_of(report.claims("fig03", [SGD], "smoke"))
    assert "no verdict is drawn" not in text_of(report.claims("fig03", [SGD], "laptop"))


def test_every_verdict_has_a_badge_that_is_legible_without_its_color():
    assert set(report.BADGES) == set(claims.VERDICTS)
    assert report.BADGES["reproduced"][0] != report.BADGES["not reproduced"][0]


def test_terminals_get_text():
    block = report.claims("fig03", [], "laptop")
    assert repr(block).count("not run") == len(claims.evaluate("fig03", [], "laptop"))


def test_the_scoreboard_counts_every_claim_once(tmp_path):
    board = claims.scoreboard("laptop", str(tmp_path))
    text = text_of(report.scoreboard(board))
    assert str(len(board)) in text
    assert all(claim_id in text for claim_id in board["id"])
    assert "Figure 3" in text and "Table 1" in text and "Theorem 2" in text


def test_counts_add_up_over_parts_and_verdicts(tmp_path):
    board = claims.scoreboard("laptop", str(tmp_path))
    header, *rows = [line.split(" | ") for line in report.counts(board).text.splitlines()]
    assert header[0] == "part of the book" and header[-1] == "claims"
    numbers = {row[0]: [int(cell) for cell in row[1:]] for row in rows}
    total = numbers.pop("all")
    assert total[-1] == len(board)
    assert [sum(column) for column in zip(*numbers.values(), strict=True)] == total
    assert all(sum(row[:-1]) == row[-1] for row in numbers.values())


def test_the_scoreboard_has_filters_links_to_chapters_and_the_commands(tmp_path):
    board = claims.scoreboard("laptop", str(tmp_path))
    page = report.scoreboard(board).html
    for part in dict.fromkeys(board["part"]):
        assert f"<option>{part}</option>" in page
    assert page.count("data-verdict=") == len(board)
    for figure in ("fig03", "thm1"):
        path = Path(report.chapter(figure)).relative_to("chapters").with_suffix(".html")
        assert f'<a href="{path}">' in page
    assert "make run FIG=fig03" in page and "make run FIG=thm1" not in page


def test_the_scoreboard_s_parts_are_those_of_the_book():
    toc = yaml.safe_load((store.root() / "_toc.yml").read_text())
    for chapters in toc["parts"]:
        for page in chapters["chapters"]:
            figure = Path(page["file"]).name.split("_")[0]
            if figure in claims.figures():
                assert claims.part(figure) == chapters["caption"], figure


def test_compute_adds_up_runs_seeds_updates_and_hours():
    again = dataclasses.replace(GD, config=GD.config.replace(seed=1))
    other = dataclasses.replace(SGD, config=SGD.config.replace(dataset="cifar10"))
    text = report.compute([GD, again, other]).text.splitlines()
    assert text[0] == "data | network | runs | seeds | updates | hours | on"
    assert text[1].startswith("cifar10 | 6cnn | 1 | 1 | 1,700 | 0.0 | cpu, 1 thread(s)")
    assert text[2].startswith("digits | 6cnn | 2 | 2 | 600 | 0.1 | ")
    assert text[3].startswith("all |  | 3 | 2 | 2,300 | 0.1 | ")


def test_updates_are_those_of_the_training_and_not_of_what_was_measured():
    none = dataclasses.replace(GD, series=GD.series[:0], provenance={"wall_seconds": None})
    diverged = dataclasses.replace(none, provenance={"status": "diverged", "diverged_at": 7})
    at_once = dataclasses.replace(none, provenance={"status": "diverged", "diverged_at": 0})
    for runs, updates in (([none], GD.config.steps), ([diverged], 7), ([diverged, at_once], 7)):
        assert report.compute(runs).text.splitlines()[-1].split(" | ")[4] == str(updates)


# -- provenance ------------------------------------------------------------------------------------


def test_provenance_shows_the_scale_beside_the_papers_setting_and_where_the_run_was_made():
    text = text_of(report.provenance("fig03", [SGD], "laptop"))
    for part in (
        "scale: laptop",
        experiments.FIGURES["fig03"].paper_setting,
        SGD.config.name,
        "commit 0123456789ab",
        "cpu, 1 thread(s)",
        "1.5 min",
        "made up; no data",
        "B = 128",
        "η = 0.04",
    ):
        assert part in text, part


def test_how_exact_the_eigenvalues_of_a_run_are_is_told():
    series = pd.DataFrame({"step": range(101), "sharpness_residual": [*range(100), np.nan]})
    arrays = {"top_residuals": np.full((3, 4), 0.25)}
    run = dataclasses.replace(SGD, series=series, arrays=arrays)
    told = "relative residuals (95th percentile): ‖H‖ 94, largest eigenvalues of H 0.25"
    assert told in text_of(report.provenance("fig03", [run], "laptop"))
    none = dataclasses.replace(run, series=series[["step"]], arrays={})
    assert "residuals" not in text_of(report.provenance("fig03", [none], "laptop"))


def test_every_residual_that_a_measure_gives_is_told():
    sources = (Path(report.__file__).parent / "measures.py").read_text()
    assert set(re.findall(r'"(\w+_residuals?)"', sources)) <= set(report.RESIDUALS)


def test_a_run_of_several_processes_says_so():
    shared = dataclasses.replace(SGD, provenance=SGD.provenance | {"processes": 2})
    for block in (report.provenance("fig03", [shared], "laptop"), report.compute([shared])):
        assert "cpu, 1 thread(s) in each of 2 processes" in text_of(block)
    assert "processes" not in text_of(report.provenance("fig03", [SGD], "laptop"))


def test_training_passes_in_bfloat16_are_told_with_the_precision():
    assert "bfloat16" not in text_of(report.provenance("fig03", [SGD], "laptop"))
    run = dataclasses.replace(SGD, config=SGD.config.replace(autocast=True))
    text = text_of(report.provenance("fig03", [run], "laptop"))
    assert "float32 (training passes in bfloat16)" in text


def test_what_the_curvature_is_of_is_told():
    text = text_of(report.provenance("fig03", [SGD], "laptop"))
    assert f"curvature on {SGD.config.probe:,} examples" in text
    measures = {"shares": ((0, 3, 1),)}
    shares = SGD.config.replace(batch_size=None, measures=measures)
    text = text_of(report.provenance("shares", [dataclasses.replace(SGD, config=shares)], "laptop"))
    assert "curvature on shares of them: 5%, 25%, 100%, at every step from 0 to 2" in text


def test_how_often_curvature_is_measured_is_told():
    def told(*windows):
        config = SGD.config.replace(steps=40, measures={"curvature": windows})
        run = dataclasses.replace(SGD, config=config)
        return text_of(report.provenance("fig03", [run], "laptop"))

    on = f"curvature on {SGD.config.probe:,} examples"
    assert f"{on}, every 5 steps {SGD.provenance['data']['source']}" in told((0, 41, 5))
    assert f"{on}, at every step {SGD.provenance['data']['source']}" in told((0, 41, 1))
    two = told((0, 11, 1), (20, 41, 4))
    assert f"{on}, at every step from 0 to 10 and every 4 steps from 20 to 40" in two


def test_what_is_not_plain_sgd_with_one_learning_rate_is_told():
    def told(**fields):
        run = dataclasses.replace(SGD, config=SGD.config.replace(**fields))
        return text_of(report.provenance("fig03", [run], "laptop"))

    assert "η = 0.04, 1,700 steps" in told()
    assert "η = 0.04, × 0.1 at step 800, 1,700 steps" in told(lr_decay=0.1, lr_decay_at=800)
    shares = "× 0.2 at 30%, 60%, 80% of the steps, momentum 0.9, weight decay 0.0005, augmentation"
    settings = {"momentum": 0.9, "weight_decay": 5e-4, "augment": True}
    assert shares in told(lr_decay=0.2, **settings)


def test_a_diverged_run_is_announced():
    provenance = {**SGD.provenance, "status": "diverged", "diverged_at": 17}
    run = dataclasses.replace(SGD, provenance=provenance)
    block = report.provenance("fig03", [run], "laptop")
    assert "diverged at step 17" in text_of(block) and 'role="alert"' in block.html
    assert "Warning" not in text_of(report.provenance("fig03", [SGD], "laptop"))


def test_uncommitted_changes_are_shown():
    run = dataclasses.replace(SGD, provenance={**SGD.provenance, "dirty": True})
    assert "(changed)" in text_of(report.provenance("fig03", [run], "laptop"))


def test_many_runs_are_folded_and_all_there():
    runs = [
        dataclasses.replace(SGD, config=SGD.config.replace(seed=seed))
        for seed in range(report.MOST_ROWS + 1)
    ]
    folded = report.provenance("fig03", runs, "laptop")._repr_html_()
    _, _, inside = folded.partition("<details>")
    inside, _, _ = inside.partition("</details>")
    assert f"<summary>{len(runs)} runs" in inside
    assert all(run.config.name in inside for run in runs)
    assert "<details>" not in report.provenance("fig03", runs[:-1], "laptop")._repr_html_()


def test_a_run_with_sparse_provenance_is_shown_all_the_same():
    run = dataclasses.replace(SGD, provenance={})
    assert "time unknown" in text_of(report.provenance("fig03", [run], "laptop"))


def test_text_of_a_run_cannot_break_the_page():
    data = {"source": "<script>alert(1)</script>", "note": "a & b"}
    run = dataclasses.replace(SGD, provenance={**SGD.provenance, "data": data})
    block = report.provenance("fig03", [run], "laptop")
    assert "<script>" not in block.html and "a & b" in text_of(block)


def test_the_csv_link_holds_the_series():
    (data,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', report.csv_link(GD))
    frame = pd.read_csv(io.BytesIO(base64.b64decode(data)))
    pd.testing.assert_frame_equal(frame, GD.series, rtol=1e-5, check_dtype=False)


def test_the_csv_link_leaves_out_what_was_never_measured():
    run = dataclasses.replace(GD, series=GD.series.assign(test_accuracy=float("nan")))
    (data,) = re.findall(r"base64,([^\"]+)", report.csv_link(run))
    assert "test_accuracy" not in base64.b64decode(data).decode()


# -- the command that repeats a chapter ------------------------------------------------------------


def test_the_command_names_the_chapter_below_the_checkout_and_its_parameters():
    words = shlex.split(report.rerun_command("fig03", "laptop", 2, {"lr": 0.02}))
    assert words[0] == ".venv/bin/papermill" and words[2:5] == ["out.ipynb", "-p", "scale"]
    assert (store.root() / words[1]).is_file() and not words[1].startswith("/")
    assert words[5:8] == ["laptop", "-p", "seed"] and words[8] == "2"
    assert json.loads(words[words.index("-y") + 1]) == {"overrides": {"lr": 0.02}}


def test_the_command_of_a_plain_chapter_is_short():
    words = shlex.split(report.rerun_command("fig02", "laptop"))
    assert words[2:] == ["out.ipynb", "-p", "scale", "laptop"]


@pytest.mark.parametrize("lr", [0.02, 2e-5])
def test_the_command_on_the_page_is_the_command(lr):
    block = report.provenance("fig03", [], "laptop", overrides={"lr": lr})
    (shown,) = re.findall(r"<pre><code>(.*?)</code></pre>", block.html)
    assert html.unescape(shown) == report.rerun_command("fig03", "laptop", 0, {"lr": lr})


def test_numbers_in_tables_have_a_minus_sign_at_which_no_line_breaks():
    (_, cells) = text_of(report.table(["value"], [["-2.2 points, 1.1e-15, cifar10-2000"]])).split(
        "value"
    )
    assert cells.strip() == "−2.2 points, 1.1e−15, cifar10-2000"


def test_a_figure_without_a_chapter_is_refused():
    with pytest.raises(ValueError, match="expected one notebook, found 0"):
        report.chapter("fig99")


# -- checks of theorems ----------------------------------------------------------------------------


def test_checks_are_shown_with_their_slack():
    results = theorems.verify_theorem_1(pd.Series([0.5, 0.3, 0.2]).to_numpy()[None])
    text = text_of(report.checks(results))
    assert text.count("✓ holds") == len(results)
    broken = [dataclasses.replace(results[0], slack=-0.5, passed=False)]
    assert "✗ violated" in text_of(report.checks(broken))
    assert "-5.0e-01" in repr(report.checks(broken))
