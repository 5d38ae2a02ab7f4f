"""Measuring functions of the claims on the sharpest directions, on runs made up so that the answer
is known."""

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import phase_run, sharpest_run

from ijrlib import sharpest_criteria as d
from ijrlib.criteria import NotMeasured

RUN = sharpest_run()


def test_what_is_read_of_a_run():
    step = np.arange(0, 101, 2)
    assert list(d.eigenvalue(RUN, 2).index) == list(step)
    np.testing.assert_allclose(d.eigenvalue(RUN, 2), RUN.arrays["top_values"][:, 1])
    np.testing.assert_allclose(d.loss(RUN), np.exp((100 - step) / 25))
    np.testing.assert_allclose(d.alignment(RUN), 0.2)
    np.testing.assert_allclose(d.changes(RUN)[2.0], 0.1 * d.loss(RUN))
    # 1 + 0.1·x² at x = ±2
    np.testing.assert_allclose(d.rise(RUN, 1), 0.4 * d.loss(RUN))
    np.testing.assert_allclose(d.rise(RUN, 4), 0.04 * d.loss(RUN))


def test_a_random_vector_has_the_mean_cosine_of_the_sphere():
    """E|u_1| for u uniform on the sphere of R^m, by 20,000 draws at m = 500."""
    draws = np.random.default_rng(0).standard_normal((20_000, 500))
    mean = np.abs(draws[:, 0] / np.linalg.norm(draws, axis=1)).mean()
    few = sharpest_run()
    few.provenance["parameters"] = 500
    # standard error of the mean: 0.6 of it over √20,000; the formula is good to 1/(4m)
    assert d.random_alignment(few) == pytest.approx(mean, rel=3 * 0.76 / 20_000**0.5 + 1e-3)


def test_alignment_is_told_in_units_of_a_random_vector_s():
    expected = 0.2 / (2 / (np.pi * 266_610)) ** 0.5
    assert d.aligned([RUN]).value == f"at least × {expected:.3g} a random vector's, 1 runs"


def test_steps_are_too_long_only_from_the_first_one_that_is():
    late = sharpest_run()
    late.arrays["loss_changes"][:40] = -1.0  # up to step 78 of 100
    assert not d.too_long([late]).holds
    early = sharpest_run()
    early.arrays["loss_changes"][:20] = -1.0
    assert d.too_long([early]).holds
    text = d.too_long([early]).value
    assert "at 100% to 100% of the measurements" in text and "at 40% to 40% of the run" in text
    never = sharpest_run()
    never.arrays["loss_changes"][:] = -1.0
    with pytest.raises(NotMeasured, match="at no measured step"):
        d.too_long([never])


def test_the_largest_fall_of_accuracy_is_told_before_and_after_the_edge():
    run = phase_run()
    step = run.series["step"]
    run.series["train_accuracy"] = 0.5 - 0.02 * (step == 50) - 0.3 * (step == 200)
    found = d.instability([run])
    assert found.holds and "2.0 and 30.0 points" in found.value
    run.series["train_accuracy"] = 0.5 - 0.06 * (step == 50) - 0.3 * (step == 200)
    assert not d.instability([run]).holds


def test_variants_are_compared_with_the_run_of_their_seed_and_need_two():
    late = {"sharpest": 1, "regularizer_from": 50}
    runs = [
        sharpest_run(seed=seed, **fields)
        for seed in (0, 1)
        for fields in ({}, {"regularizer": "nudged", "height": 3.0, **late})
    ]
    assert d.all_but_the_projection(runs).value.startswith(
        "λ_1 and the loss over SGD's: × 3.00, × 1.00; × 3.00, "
    )
    with pytest.raises(NotMeasured, match="one seed only"):
        d.all_but_the_projection(runs[:2])
    with pytest.raises(NotMeasured, match="no run with regularizer = sharpest_only"):
        d.only_the_projection(runs)


def test_the_level_of_the_loss_is_that_of_the_second_half():
    rules = ({}, {"regularizer": "nudged", "sharpest": 5, "level": 0.5})
    runs = [sharpest_run(seed=seed, **rule) for seed in (0, 1) for rule in rules]
    found = d.faster(runs)
    middle = float(np.median(np.exp((100 - np.arange(50, 101, 2)) / 25)))
    assert f"K = 0: {middle:.3g} to {1.01 * middle:.3g}" in found.value and found.holds


def test_alignment_is_over_the_five_sharpest_and_a_rise_the_mean_of_both_sides():
    run = sharpest_run()
    run.arrays["gradient_cosines"] = np.tile(np.arange(10.0), (51, 1))
    np.testing.assert_allclose(d.alignment(run), 2.0)
    run.arrays["surfaces"][:, :, -1] += 1.0
    np.testing.assert_allclose(d.rise(run, 1), 0.4 * d.loss(run) + 0.5)


def test_late_is_the_median_of_the_last_quarter():
    step = np.arange(0, 101, 2)
    assert d._late(sharpest_run(), pd.Series(step**3, index=step)) == 88**3


def test_a_variant_from_the_start_on_is_no_variant():
    runs = [
        sharpest_run(seed=s, **f)
        for s in (0, 1)
        for f in ({}, {"regularizer": "nudged", "sharpest": 1})
    ]
    with pytest.raises(NotMeasured, match="one seed only"):
        d.all_but_the_projection(runs)


def test_the_start_does_not_count_for_the_rises():
    run = sharpest_run()
    share = np.where(np.arange(51) % 2, 0.4, 0.6)
    x, losses = np.linspace(-2, 2, 9), d.loss(run).to_numpy()
    run.arrays["surfaces"][:, 1] = losses[:, None] * (1 + 0.1 * share[:, None] * x**2)
    assert d.rise_shares(run)[0] == pytest.approx(0.5)
