"""How far two runs agree, by hand."""

import numpy as np
import pandas as pd
import pytest

from ijrlib import comparison
from ijrlib.config import RunConfig
from ijrlib.store import Run

CONFIG = RunConfig("digits", 10, "6cnn", 0.1, 3, probe=5)


def run(config=CONFIG, arrays=None, **columns):
    return Run(config, pd.DataFrame({"step": [0, 1, 2, 3], **columns}), arrays or {})


def test_fields_that_differ_are_listed_with_both_values():
    two = CONFIG.replace(lr=0.2, measures={"norms": [(0, 1, 1)]})
    assert comparison.fields(CONFIG, CONFIG) == []
    assert comparison.fields(CONFIG, two) == [
        ("lr", 0.1, 0.2),
        ("measures", (), (("norms", ((0, 1, 1),)),)),
    ]


def test_a_column_is_compared_at_common_steps_and_the_largest_difference_comes_first():
    one = run(loss=[4.0, 2.0, np.nan, 1.0], norm=[0.0, 1.0, 1.0, -1.0])
    two = run(loss=[4.0, 1.5, 7.0, 1.0], norm=[0.0, 1.0, 1.0, 1.0])
    norm, loss = comparison.differences(one, two)
    assert (loss.name, loss.common, loss.step, loss.one, loss.two) == ("loss", 3, 1, 2.0, 1.5)
    assert loss.largest == pytest.approx(0.25)
    assert (norm.largest, norm.step) == (2.0, 3)


def test_equal_runs_differ_by_zero_and_a_nan_on_one_side_differs_most():
    one = run(loss=[1.0, 2.0, 3.0, 4.0])
    assert [d.largest for d in comparison.differences(one, one)] == [0.0]
    odd = {"q": np.array([[1.0, np.nan]]), "q.steps": np.array([0])}
    even = {"q": np.array([[1.0, 1.0]]), "q.steps": np.array([0])}
    (found,) = comparison.differences(run(arrays=odd), run(arrays=even))
    assert np.isnan(found.largest) and found.step == 0
    (same,) = comparison.differences(run(arrays=odd), run(arrays=odd))
    assert same.largest == 0
    endless = run(loss=[1.0, np.inf, -np.inf, 4.0])
    assert [d.largest for d in comparison.differences(endless, endless)] == [0.0]
    (apart,) = comparison.differences(endless, run(loss=[1.0, np.inf, np.inf, 4.0]))
    assert apart.largest != 0 and apart.step == 2


def test_an_array_is_compared_by_norms_and_a_picture_not_at_all():
    arrays = {"q": np.array([[[3.0, 4.0]], [[0.0, 5.0]]]), "q.steps": np.array([0, 2])}
    other = {"q": np.array([[[0.0, 5.0]], [[0.0, 4.0]]]), "q.steps": np.array([2, 3])}
    umap = {"trajectory_umap": np.ones((1, 2)), "trajectory_umap.steps": np.array([0])}
    (found,) = comparison.differences(run(arrays=arrays | umap), run(arrays=other | umap))
    assert (found.common, found.step, found.one, found.two, found.largest) == (1, 2, 5.0, 5.0, 0.0)
    apart = {"q": np.ones((1, 1, 2)), "q.steps": np.array([1])}
    (found,) = comparison.differences(run(arrays=arrays), run(arrays=apart))
    assert found.common == 0 and found.step == -1


def test_what_only_one_run_has_is_named():
    one = run(loss=[1.0] * 4, arrays={"q": np.ones((1, 1)), "q.steps": np.array([0])})
    assert comparison.only(one, run(norm=[1.0] * 4)) == ["loss", "q"]


def test_a_nan_comes_before_all_differences_and_what_has_no_common_step_after_them():
    def with_arrays(value, last, step):
        arrays = {"a": np.array([[1.0, value], [last, 2.0]]), "a.steps": np.array([0, 1])}
        arrays |= {"b": np.ones((1, 2)), "b.steps": np.array([step])}
        return run(arrays=arrays, loss=[1.0, 2.0, 3.0, 4.0 + step])

    found = comparison.differences(with_arrays(2.0, 1.0, 0), with_arrays(3.0, np.nan, 1))
    assert [d.name for d in found] == ["a", "loss", "b"]
    assert found[0].step == 1


def test_arrays_of_other_shapes_have_nothing_in_common():
    one, two = ({"q": np.ones((1, n)), "q.steps": np.array([0])} for n in (2, 3))
    (found,) = comparison.differences(run(arrays=one), run(arrays=two))
    assert (found.common, found.step) == (0, -1)


def test_the_size_of_an_array_is_its_norm():
    one, two = ({"q": np.array([v]), "q.steps": np.array([0])} for v in ([3.0, 4.0], [0.0, 0.0]))
    (found,) = comparison.differences(run(arrays=one), run(arrays=two))
    assert (found.largest, found.one, found.two) == (1.0, 5.0, 0.0)
