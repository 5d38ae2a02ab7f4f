"""Figures to look around in hold the numbers of their run, and nothing that a page must load."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from synthetic_runs import gd_run, phase_run

from ijrlib import embedding, figures, interactive

RUN, PATH = gd_run(), phase_run()
BLOCKS = {
    "secular_function": interactive.secular_function([0.5, 0.3, 0.2]),
    "impurity_path": interactive.impurity_path(RUN),
    "path": interactive.path(PATH),
}


def numbers(name: str) -> dict:
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', BLOCKS[name].html)
    return json.loads(data)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_has_a_label_and_loads_nothing(name):
    page = BLOCKS[name].html
    assert re.search(r'<figure [^>]*aria-label="\w[^"]+"', page)
    assert "src=" not in page and "@import" not in page
    assert re.findall(r"https?://[^\"]+", page) == ["http://www.w3.org/2000/svg"]
    assert "in a browser" in repr(BLOCKS[name])


def test_the_path_of_every_tracked_example_is_there_to_a_thousandth():
    told = numbers("impurity_path")
    assert told["steps"] == RUN.arrays["tracked_p1.steps"].tolist()
    for name, array in (("p1", "tracked_p1"), ("impurity", "tracked_impurity")):
        values = np.array(told[name]).T / 1000
        np.testing.assert_allclose(values, RUN.arrays[array], atol=5.0001e-4)
    assert told["typical"] == figures.typical_example(RUN)


def test_the_path_has_sharpness_and_cosine_of_each_step():
    told = numbers("path")
    steps = PATH.arrays["trajectory_umap.steps"]
    assert told["steps"] == steps.tolist() and told["threshold"] == 2 / PATH.config.lr
    np.testing.assert_allclose(told["points"], PATH.arrays["trajectory_umap"], atol=5.001e-4)
    series = PATH.series.set_index("step")["sharpness"]
    for step, value in zip(steps, told["sharpness"], strict=True):
        expected = series.get(step, np.nan)
        assert value is None if np.isnan(expected) else value == pytest.approx(expected, rel=1e-4)
    cosines = embedding.step_cosines(PATH.arrays["trajectory_gram"])
    assert told["cosines"][0] is None and told["cosines"][-1] is None
    np.testing.assert_allclose(told["cosines"][1:-1], cosines, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    "p, message",
    [
        ([[0.5, 0.5]], "one probability vector"),
        ([0.5, 0.4], "sums to"),
        ([1.0, 0.0], "entry 1 is 0"),
    ],
)
def test_the_secular_function_refuses_what_is_no_positive_probability_vector(p, message):
    with pytest.raises(ValueError, match=message):
        interactive.secular_function(p)


def test_a_path_without_its_map_is_refused_by_name():
    arrays = {"trajectory_gram": PATH.arrays["trajectory_gram"]}
    with pytest.raises(ValueError, match="has no array trajectory_umap"):
        interactive.path(dataclasses.replace(PATH, arrays=arrays))
