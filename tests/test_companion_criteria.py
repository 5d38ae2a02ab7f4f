"""Measuring functions of the companion papers' claims, on runs made up so that the answer is
known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import PROVENANCE, break_even_run, path_run

from ijrlib import break_even, companion_criteria, phases
from ijrlib.criteria import NotMeasured


def test_the_break_even_point_is_where_the_criterion_first_reaches_one():
    run = break_even_run(lr=0.1, onset=40)
    series = run.series
    growth = break_even.growth(0.1, series["sharpness"], series["curvature_variance"], 1000, 128)
    np.testing.assert_allclose(companion_criteria.stability(run), growth)
    point = companion_criteria.break_even_point(run)
    assert growth[series["step"] == point].item() >= 1
    assert (growth[series["step"] < point] < 1).all()


def test_noise_brings_the_break_even_point_before_the_edge_of_stability():
    run = break_even_run(lr=0.1, onset=40)
    edge = companion_criteria.edge_of_stability(run)
    assert edge == 40
    assert companion_criteria.break_even_point(run) < edge
    quiet = break_even_run(lr=0.1, onset=40)
    quiet.series["curvature_variance"] = 0.0
    assert companion_criteria.break_even_point(quiet) == edge


def test_a_run_that_stays_stable_has_no_break_even_point():
    run = break_even_run(lr=0.1, onset=40)
    run.series["sharpness"] /= 100
    run.series["curvature_variance"] = 0.0
    with pytest.raises(NotMeasured, match="stable throughout"):
        companion_criteria.break_even_point(run)
    with pytest.raises(NotMeasured, match="never reaches 2/η"):
        companion_criteria.edge_of_stability(run)


def test_the_width_of_a_step_has_to_fall_to_about_two():
    run = break_even_run()
    assert companion_criteria.step_width([run]).holds
    for factor in (0.6, 1.6):
        other = break_even_run()
        other.series["step_width"] *= factor
        assert not companion_criteria.step_width([run, other]).holds
    low = break_even_run()
    low.series.loc[0, "step_width"] = 2.5
    assert not companion_criteria.step_width([low]).holds


def test_maxima_have_to_differ_by_more_than_the_seeds():
    runs = [break_even_run(lr=lr, seed=seed) for seed in (0, 1) for lr in (0.01, 0.1)]
    found = companion_criteria.largest(runs, "covariance_norm", "lr", rising=False)
    assert found.holds and "2 seeds" in found.value
    assert not companion_criteria.largest(runs, "covariance_norm", "lr", rising=True).holds
    runs[0].series["covariance_norm"] /= 1000
    assert not companion_criteria.largest(runs, "covariance_norm", "lr", rising=False).holds
    with pytest.raises(NotMeasured, match="one seed only"):
        companion_criteria.largest(runs[:2], "covariance_norm", "lr", rising=False)


def test_the_conditioning_is_the_trace_over_the_norm():
    run = break_even_run()
    found = companion_criteria.quantity(run, "conditioning")
    np.testing.assert_allclose(
        found, run.series["covariance_trace"] / run.series["covariance_norm"]
    )


def test_the_departure_is_the_root_mean_square_distance_to_the_nearest_point():
    slow, fast = path_run(0.01), path_run(0.1)
    found = companion_criteria.departure(slow, fast)
    ours, theirs = slow.arrays["predictions"], fast.arrays["predictions"]
    for row, step in ((0, 0), (20, 40), (50, 100)):
        squares = ((theirs - ours[row]) ** 2).sum(-1).mean(-1)
        assert found[step] == pytest.approx(squares.min() ** 0.5)
    # neighbours of the path differ by a hundredth in two of three entries
    assert companion_criteria.spacing(fast) == pytest.approx(0.01 * 2**0.5)


def test_paths_are_compared_within_one_seed_and_need_two_of_them():
    runs = [path_run(lr, seed) for seed in (0, 1) for lr in (0.1, 0.01)]
    pairs = companion_criteria.slow_and_fast(runs)
    assert [(a.config.lr, b.config.lr) for a, b in pairs] == [(0.01, 0.1)] * 2
    assert all(a.config.seed == b.config.seed for a, b in pairs)
    with pytest.raises(NotMeasured, match="fewer than 2 seeds"):
        companion_criteria.paths_part(runs[:2])
    assert companion_criteria.slow_and_fast(runs[:2], seeds=1) == [(runs[1], runs[0])]


def test_covariances_that_have_nothing_in_common_do_not_correlate():
    run = break_even_run()
    assert companion_criteria.batch_and_single([run]).holds
    rng = np.random.default_rng(0)
    run.series["covariance_norm_single"] = rng.permutation(run.series["covariance_norm_single"])
    assert not companion_criteria.batch_and_single([run]).holds
    assert not companion_criteria.batch_and_single([break_even_run(), run]).holds


def test_without_runs_nothing_is_measured():
    for measure in (
        companion_criteria.rise_together,
        companion_criteria.step_width,
        companion_criteria.reached_early,
        companion_criteria.batch_and_single,
    ):
        with pytest.raises(NotMeasured, match="no run is stored"):
            measure([])


def test_the_jacobian_slows_down_where_its_growth_bends():
    run = break_even_run()
    step = run.series["step"].to_numpy()
    for bend in (20, 40, 60):
        run.series["jacobian_norm_sq"] = np.exp(np.minimum(step, bend) / 5 + step / 50)
        assert companion_criteria.slowing(run) == bend
    run.series["jacobian_norm_sq"] = np.exp((step / 20.0) ** 2)
    with pytest.raises(NotMeasured, match="does not slow down"):
        companion_criteria.slowing(run)


def test_the_table_of_conditioning_leaves_out_the_first_measurement():
    some = [break_even_run(lr=lr) for lr in (0.1, 0.02)]
    for run in some:
        step = run.series["step"]
        run.series["covariance_trace"] = run.series["covariance_norm"] * np.where(step, 7.0, 99.0)
        run.series["covariance_trace_single"] = run.series["covariance_norm_single"] * (
            12.0 / run.config.lr
        )
    header, rows = companion_criteria.conditioning(some)
    assert header == ("run", "from mini-batches", "from single examples")
    assert rows == [("η = 0.02, seed 0", "7", "600"), ("η = 0.1, seed 0", "7", "120")]


def test_the_timeline_has_the_times_of_all_events():
    run = break_even_run(lr=0.1, onset=40)
    run.series["jacobian_norm_sq"] = np.exp(np.minimum(run.series["step"], 20) / 5.0)
    header, (row,) = companion_criteria.timeline([run])
    assert len(header) == len(row) == 1 + len(companion_criteria.EVENTS) + 2
    cells = dict(zip(header, row, strict=True))
    assert cells["run"] == "SimpleCNN, η = 0.1, S = 128, seed 0"
    assert cells["‖H‖ ≥ 2/η"] == "4"
    assert cells["‖⟨J⟩‖² bends"] == "2"
    assert cells["largest ⟨λ⁽¹⁾⟩"] == f"{0.1 * phases.peak(run):.3g}"
    run.series["sharpness"] /= 100
    assert (
        dict(zip(header, companion_criteria.timeline([run])[1][0], strict=True))["‖H‖ ≥ 2/η"] == "–"
    )


def test_the_timeline_is_in_the_order_of_networks_learning_rates_and_seeds():
    some = [
        break_even_run(lr=lr, seed=seed, network=network)
        for seed in (1, 0)
        for network in ("simple_cnn_be", "mlp_300_100")
        for lr in (0.1, 0.02)
    ]
    rows = companion_criteria.timeline(some)[1]
    assert [row[0] for row in rows] == [
        f"{name}, η = {lr}, S = 128, seed {seed}"
        for name in ("SimpleCNN", "perceptron")
        for lr in (0.02, 0.1)
        for seed in (0, 1)
    ]


def test_a_column_that_is_not_there_is_named():
    run = break_even_run()
    bare = type(run)(run.config, pd.DataFrame({"step": [0]}), {}, dict(PROVENANCE))
    with pytest.raises(NotMeasured, match="no column sharpness"):
        companion_criteria.stability(bare)


def test_the_jacobian_parts_where_it_is_half_that_of_the_smallest_learning_rate():
    small, large = break_even_run(lr=0.05), break_even_run(lr=0.1)
    for run in (small, large):
        time = run.config.lr * run.series["step"]
        run.series["jacobian_norm_sq"] = np.exp(time)
    assert companion_criteria.reference(large, [large, small]) is small
    with pytest.raises(NotMeasured, match="does not part"):
        companion_criteria.parting(large, [small, large])
    late = large.series["step"] >= 20
    large.series.loc[late, "jacobian_norm_sq"] *= 0.4
    assert companion_criteria.parting(large, [small, large]) == 20
    with pytest.raises(NotMeasured, match="has the smallest η"):
        companion_criteria.parting(small, [small, large])
    other = break_even_run(lr=0.01, seed=1)
    assert companion_criteria.reference(large, [small, large, other]) is small


def normalized(lr, seed=0, **columns):
    run = break_even_run(lr=lr, seed=seed, network="mlp_300_100_bn")
    return dataclasses.replace(run, series=run.series.assign(**columns))


def test_maxima_with_batch_normalization_leave_out_the_start_that_runs_share():
    runs = [normalized(lr, seed) for seed in (0, 1) for lr in (0.01, 0.1)]
    for run in runs:
        run.series.loc[0, "sharpness"] = 1e6
    assert companion_criteria.largest_normalized(runs, "sharpness", rising=False).holds
    assert not companion_criteria.largest(runs, "sharpness", "lr", rising=False).holds


def test_a_network_without_batch_normalization_diverges_by_status_or_by_chance():
    with_norm = normalized(1.0)
    plain = break_even_run(lr=1.0, network="mlp_300_100")
    assert not companion_criteria.diverges_without([with_norm, plain]).holds
    ended = dataclasses.replace(plain, provenance={**plain.provenance, "status": "diverged"})
    assert companion_criteria.diverges_without([with_norm, ended]).holds
    chance = dataclasses.replace(plain, series=plain.series.assign(train_accuracy=0.1))
    assert companion_criteria.diverges_without([with_norm, chance]).holds
    lost = dataclasses.replace(with_norm, series=with_norm.series.assign(train_accuracy=0.1))
    assert not companion_criteria.diverges_without([lost, chance]).holds


def test_small_and_moderate_eta_are_compared_with_and_without_batch_normalization():
    runs = [normalized(0.001), normalized(1.0), break_even_run(0.01, network="mlp_300_100")]
    found = companion_criteria.conditioned_alike(runs)
    assert found.value.startswith("‖g‖/‖g_5‖ 1.50 with and 1.50 without")
    with pytest.raises(NotMeasured, match="without batch normalization"):
        companion_criteria.conditioned_alike(runs[:2])


def test_lambda_k_that_stays_high_at_the_smallest_eta_alone_has_decayed_as_claimed():
    step = normalized(0.1).series["step"]
    high, low = 60.0 + 0 * step, 60.0 * np.exp(-step / 20)
    small, large = (normalized(lr, covariance_norm=v) for lr, v in ((0.001, high), (1.0, low)))
    assert companion_criteria.starts_high([small, large]).holds
    assert not companion_criteria.starts_high([normalized(0.001, covariance_norm=low), large]).holds
    assert not companion_criteria.starts_high([small, normalized(1.0, covariance_norm=high)]).holds


def test_the_reference_has_the_same_examples_and_batch_size():
    small, large = break_even_run(lr=0.05), break_even_run(lr=0.1)
    for fields in ({"examples": 500}, {"batch_size": 64}):
        other = dataclasses.replace(small, config=small.config.replace(lr=0.01, **fields))
        assert companion_criteria.reference(large, [large, small, other]) is small


def test_between_measurements_the_logarithm_of_the_reference_is_interpolated():
    small, large = break_even_run(lr=0.05), break_even_run(lr=0.1)
    for run in (small, large):
        run.series["jacobian_norm_sq"] = np.exp(2 * run.config.lr * run.series["step"])
    few = dataclasses.replace(small, series=small.series.iloc[::50])
    with pytest.raises(NotMeasured, match="does not part"):
        companion_criteria.parting(large, [few, large])
    large.series.loc[large.series["step"] >= 20, "jacobian_norm_sq"] *= 0.6
    with pytest.raises(NotMeasured, match="does not part"):
        companion_criteria.parting(large, [small, large])


def test_spacing_is_the_median_of_the_steps():
    run = path_run(0.1)
    few = dataclasses.replace(run, arrays={k: v[[0, 1, 2, 3, 50]] for k, v in run.arrays.items()})
    assert companion_criteria.spacing(few) == pytest.approx(0.01 * 2**0.5)


def test_a_bend_after_the_peak_of_the_impurity_does_not_count():
    run = break_even_run()
    step = run.series["step"]
    run.series["jacobian_norm_sq"] = np.exp(
        np.minimum(step, 40) / 10 + step / 10 - np.maximum(0, step - 84)
    )
    assert companion_criteria.slowing(run) == 40


def test_the_width_counts_from_the_break_even_point_on_which_is_before_the_edge():
    run = break_even_run()
    point = companion_criteria.break_even_point(run)
    steps = run.series["step"]
    late = steps[steps >= point]
    run.series.loc[steps >= late.iloc[len(late) // 2 + 1], "step_width"] = 50.0
    run.series.loc[(steps >= point) & (steps < late.iloc[len(late) // 2 + 1]), "step_width"] = 2.0
    assert companion_criteria.step_width([run]).holds


def test_the_size_of_a_batch_is_called_s_as_in_the_companion_papers():
    some = [break_even_run(batch_size=size, seed=seed) for size in (32, 128) for seed in (0, 1)]
    value = companion_criteria.largest(some, companion_criteria.H, "batch_size", True).value
    assert value.startswith("S = 32: ") and "; S = 128: " in value


def test_the_timeline_is_ordered_by_batch_size():
    some = [break_even_run(batch_size=size) for size in (128, 32)]
    rows = companion_criteria.timeline(some)[1]
    assert [row[0].split(", ")[2] for row in rows] == ["S = 32", "S = 128"]
