"""Plots of the companion papers draw what the runs hold."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from figure_checks import card, curves, draws, labelled, points, scatters
from synthetic_runs import break_even_run, path_run

from ijrlib import companion_criteria, companion_figures

PAIR = [break_even_run(lr=lr) for lr in (0.2, 0.02)]
SEEDS = [break_even_run(lr=lr, seed=seed) for seed in (0, 1) for lr in (0.01, 0.1)]
LR = np.linspace(0.1, 3, 5)
NORMALIZED = [break_even_run(lr=lr, network="mlp_300_100_bn") for lr in (1.0, 0.001)]
PLAIN = [break_even_run(lr=lr, network="mlp_300_100") for lr in (1.0, 0.01)]
WAYS = [path_run(lr, seed) for seed in (0, 1) for lr in (0.01, 0.1)]
FIGURES = {
    "paths": companion_figures.paths(WAYS),
    "batch_normalization": companion_figures.batch_normalization(NORMALIZED + PLAIN),
    "stability": companion_figures.mean_square_stability(LR, {"S = 1": (LR, 2 * LR, 0 * LR)}),
    "early_phase": companion_figures.early_phase(PAIR),
    "largest": companion_figures.largest(SEEDS, "lr"),
    "along": companion_figures.along(SEEDS, "lr"),
    "batch_and_single": companion_figures.batch_and_single(PAIR[0]),
    "one_time_axis": companion_figures.one_time_axis(PAIR),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_opaque_card(name):
    card(FIGURES[name])


@pytest.mark.parametrize(
    "name", ["stability", "batch_and_single", "batch_normalization", "along", "paths"]
)
def test_axes_are_labelled(name):
    labelled(FIGURES[name])


def test_single_paths_are_drawn_as_the_growth_of_their_square():
    (axes,) = FIGURES["stability"].axes
    solid, dots, dashed, *_ = axes.get_lines()
    np.testing.assert_allclose(points(solid)[1], LR)
    np.testing.assert_allclose(points(dots)[1], 2 * LR)
    np.testing.assert_allclose(points(dashed)[1], 1)


def test_the_early_phase_is_drawn_against_time_with_two_over_eta():
    small = min(PAIR, key=lambda run: run.config.lr)
    norm, sharpness, growth, width = FIGURES["early_phase"].axes
    for axes, expected in (
        (norm, small.series["covariance_norm"]),
        (sharpness, small.series["sharpness"]),
        (growth, companion_criteria.stability(small)),
        (width, small.series["step_width"]),
    ):
        x, y = points(axes.get_lines()[0])
        np.testing.assert_allclose(x, 0.02 * small.series["step"])
        np.testing.assert_allclose(y, expected)
    dotted = [line for line in sharpness.get_lines() if line.get_linestyle() == ":"]
    assert {round(points(line)[1][0], 6) for line in dotted} >= {10.0, 100.0}


def test_the_early_phase_has_a_colour_for_each_eta_and_a_line_for_each_seed():
    norm = companion_figures.early_phase(SEEDS).axes[0]
    lines = norm.get_lines()
    assert [line.get_color() for line in lines] == [
        c for c in companion_figures.COLORS[:2] for _ in (0, 1)
    ]
    for line, (lr, seed) in zip(lines, [(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)], strict=True):
        (run,) = (r for r in SEEDS if (r.config.lr, r.config.seed) == (lr, seed))
        np.testing.assert_allclose(points(line)[1], run.series["covariance_norm"])
    assert len(norm.get_legend().get_texts()) == 2


def test_the_largest_values_are_points_for_each_run_and_a_line_through_their_means():
    for place, name in ((0, "covariance_norm"), (5, "hessian_trace")):
        axes = FIGURES["largest"].axes[place]
        expected = {
            lr: [r.series[name].max() for r in SEEDS if r.config.lr == lr] for lr in (0.01, 0.1)
        }
        *dots, line = axes.get_lines()
        np.testing.assert_allclose(points(line)[1], [np.mean(v) for v in expected.values()])
        drawn = [(points(dot)[0][0], points(dot)[1][0]) for dot in dots]
        assert drawn == [(run.config.lr, run.series[name].max()) for run in SEEDS]


def test_what_is_estimated_is_drawn_with_its_standard_error():
    assert not FIGURES["largest"].axes[0].collections
    bars = FIGURES["largest"].axes[5].collections
    for bar, run in zip(bars, SEEDS, strict=True):
        at = run.series["hessian_trace"].idxmax()
        value, error = run.series["hessian_trace"][at], run.series["hessian_trace_error"][at]
        (segment,) = bar.get_segments()
        np.testing.assert_allclose(segment[:, 1], (value - error, value + error))


def test_paths_keep_their_distances_in_the_plane_and_departures_are_drawn_against_the_norm():
    plane, away = FIGURES["paths"].axes
    first, _, second, _ = (np.stack(points(entry), axis=1) for entry in plane.get_lines())
    ours, theirs = (companion_criteria.predictions(run).to_numpy() for run in WAYS[:2])
    # made-up predictions move in a plane
    for a, b in ((0, 50), (10, 30)):
        expected = np.linalg.norm(ours[a] - theirs[b])
        assert np.linalg.norm(first[a] - second[b]) == pytest.approx(expected)
    x, y = points(away.get_lines()[0])
    np.testing.assert_allclose(x, WAYS[0].series["covariance_norm"])
    np.testing.assert_allclose(y, companion_criteria.departure(*WAYS[:2]))


def test_quantities_along_training_have_a_line_for_each_run_against_time():
    norm, sharpness, _, accuracy = FIGURES["along"].axes
    first = SEEDS[0]
    x, y = points(norm.get_lines()[0])
    np.testing.assert_allclose(x, 0.01 * first.series["step"])
    np.testing.assert_allclose(y, first.series["covariance_norm"])
    assert len(norm.get_lines()) == len(SEEDS)
    dotted = [line for line in sharpness.get_lines() if line.get_linestyle() == ":"]
    assert {round(points(line)[1][0], 6) for line in dotted} == {20.0, 200.0}
    np.testing.assert_allclose(
        points(accuracy.get_lines()[0])[1], 100 * first.series["train_accuracy"]
    )


def test_batch_normalization_is_drawn_for_every_eta_beside_one_run_without():
    norm, _, conditioning, scale = FIGURES["batch_normalization"].axes
    drawn = [points(entry)[1] for entry in norm.get_lines()]
    np.testing.assert_allclose(drawn[0], NORMALIZED[0].series["covariance_norm"])
    np.testing.assert_allclose(drawn[2], PLAIN[1].series["covariance_norm"])
    assert [len(axes.get_lines()) for axes in (norm, conditioning, scale)] == [3, 3, 2]
    np.testing.assert_allclose(
        points(scale.get_lines()[1])[1], NORMALIZED[1].series["last_scale_norm"]
    )


def test_a_quantity_that_no_run_has_leaves_its_panel_empty():
    run = break_even_run()
    run.series["step_width"] = np.nan
    figure = companion_figures.early_phase([run])
    (two,) = figure.axes[3].get_lines()
    assert set(points(two)[1]) == {2.0}


def test_batches_and_single_examples_are_a_point_for_each_step_beside_the_line_of_equals():
    series = PAIR[0].series
    axes = FIGURES["batch_and_single"].axes[0]
    single, batch = series["covariance_norm_single"], series["covariance_norm"]
    scatters(axes.collections[0], single, batch)
    np.testing.assert_array_equal(axes.collections[0].get_array(), series["step"])
    x, y = points(axes.get_lines()[0])
    np.testing.assert_array_equal(x, y)


def test_on_one_time_axis_each_run_has_a_column_with_its_own_values():
    figure = FIGURES["one_time_axis"]
    _, small = PAIR
    for k, run in enumerate(PAIR):
        values = run.series.assign(growth=companion_criteria.stability(run).to_numpy())
        for row, name in (
            (0, "covariance_norm"),
            (0, "sharpness"),
            (1, "growth"),
            (2, "jacobian_norm_sq"),
            (3, "impurity_mean"),
        ):
            label, axes = companion_figures.LABELS[name], figure.axes[2 * row + k]
            (drawn,) = (x for x in axes.get_lines() if x.get_label() == label)
            draws(drawn, run.config.lr * values["step"], values[name])
    grey, _ = curves(figure.axes[4])  # the first column has that of the small η for comparison
    draws(grey, 0.02 * small.series["step"], small.series["jacobian_norm_sq"])


def test_events_are_marked_at_their_times():
    for k, run in enumerate(PAIR):
        axes = FIGURES["one_time_axis"].axes[4 + k]  # the second row: the criterion
        marks = [line for line in axes.get_lines() if set(points(line)[0]) != {0, 1}]
        places = {
            round(float(points(line)[0][0]), 6) for line in marks if len(line.get_xdata()) == 2
        }
        lr = run.config.lr
        for event in ("break-even", "‖H‖ ≥ 2/η", "largest ⟨λ⁽¹⁾⟩"):
            assert round(lr * companion_criteria.EVENTS[event](run), 6) in places
