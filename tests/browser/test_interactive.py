"""What the reader can move: figures with sliders, the scoreboard's filters, data to download."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from ijrlib import experiments, logits

FIG01 = "chapters/theory/fig01_secular_function"
FIG02 = "chapters/impurity/fig02_impurity"
FIG04 = "chapters/implicit/fig04_trajectory"


def numbers(figure) -> dict:
    return json.loads(figure.locator("script").first.text_content())


def move(figure, label: str, value: float) -> None:
    figure.get_by_label(label, exact=True).evaluate(
        "(input, value) => {input.value = value; input.dispatchEvent(new Event('input'))}", value
    )


def shown(figure) -> np.ndarray:
    """The table of the secular function: i, p_(i), λ^(i)."""
    rows = figure.locator("tbody tr").all()
    return np.array([[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows])


@pytest.mark.parametrize(
    "weights", [(1, 0.5, 0.25, 0.1, 0.05), (1, 1, 1, 1, 1), (1, 1, 0.3, 0.3, 0.01)]
)
def test_the_secular_function_has_the_eigenvalues_of_the_library(open_page, weights):
    figure = open_page(FIG01).locator("figure[data-ijr-look=secular]")
    before = figure.locator("path.ijr-curve").first.get_attribute("d")
    for i, weight in enumerate(weights, 1):
        move(figure, f"weight {i}", weight)
    p = np.array(weights) / sum(weights)
    values, _ = logits.eigensystem(p)
    np.testing.assert_allclose(shown(figure)[:, 1], np.sort(p)[::-1], atol=5e-7)
    np.testing.assert_allclose(shown(figure)[:, 2], np.sort(values)[::-1], atol=5e-7)
    assert figure.locator("path.ijr-curve").first.get_attribute("d") != before


def test_a_slider_moves_with_the_keyboard(open_page):
    page = open_page(FIG01)
    figure = page.locator("figure[data-ijr-look=secular]")
    before = shown(figure)
    figure.get_by_label("weight 2", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert shown(figure)[0, 1] > before[0, 1]
    figure.get_by_role("button", name="as in the figure").click()
    np.testing.assert_array_equal(shown(figure), before)


def test_the_path_of_an_example_is_that_of_the_stored_run(open_page):
    run = experiments.runs("fig02", "laptop")[0]
    figure = open_page(FIG02).locator("figure[data-ijr-look=impurity]")
    example, at = 4, len(run.arrays["tracked_p1.steps"]) // 2
    move(figure, "example", example + 1)
    move(figure, "step", at)
    text = figure.locator(".ijr-numbers").inner_text()
    values = [run.arrays[name][at, example] for name in ("tracked_p1", "tracked_impurity")]
    found = re.search(r"step (\d+): p₍₁₎ = ([\d.]+), λ⁽¹⁾ = ([\d.]+); bounds", text)
    assert int(found[1]) == run.arrays["tracked_p1.steps"][at]
    np.testing.assert_allclose([float(found[2]), float(found[3])], values, atol=5.1e-4)


def test_the_pointer_chooses_a_step_of_the_path(open_page):
    page = open_page(FIG04)
    figure = page.locator("figure[data-ijr-look=trajectory]")
    told = numbers(figure)
    index = len(told["steps"]) // 2
    figure.locator("circle.ijr-dot").nth(index).hover(force=True)
    text = figure.locator(".ijr-numbers").inner_text()
    chosen = told["steps"].index(int(re.match(r"step (\d+)", text)[1]))
    # several steps may share the place
    near = np.linalg.norm(np.subtract(told["points"][chosen], told["points"][index]))
    assert near < 0.02 * np.ptp(told["points"], axis=0).max()
    assert f"‖H‖ = {told['sharpness'][chosen]:#.4g}".rstrip(".") in text


def test_the_series_downloads_as_it_is_stored(open_page, tmp_path):
    run = experiments.runs("fig02", "laptop")[0]
    page = open_page(FIG02)
    with page.expect_download() as download:
        page.locator(f"a[download='{run.config.name}.csv']").click()
    download.value.save_as(tmp_path / "series.csv")
    frame = pd.read_csv(tmp_path / "series.csv")
    stored = run.series.dropna(axis="columns", how="all")
    pd.testing.assert_frame_equal(frame, stored, check_dtype=False, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("verdict", "not reproduced"), ("reading", "another reading turns it")]
)
def test_the_scoreboard_filters(open_page, name, value):
    page = open_page("chapters/scoreboard")
    rows = page.locator("[data-claims] tr[data-verdict]")
    everything = rows.count()
    choice = page.locator(f"select[data-filter={name}]")
    choice.select_option(value)
    seen = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(seen) < everything
    assert {row.get_attribute(f"data-{name}") for row in seen} == {value}
    assert f"{len(seen)} of {everything}" in page.locator("output[data-shown]").inner_text()
    choice.select_option("")
    assert all(row.is_visible() for row in rows.all())
