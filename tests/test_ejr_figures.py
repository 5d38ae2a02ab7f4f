"""The plots of explicit regularization show the runs' numbers, told apart without colour."""

import dataclasses

import numpy as np
import pytest
from figure_checks import card, curves, draws, labelled, points
from synthetic_runs import arm_run

from ijrlib import ejr_figures
from ijrlib.ejr_table import ALTERNATIVES

EJR = {"regularizer": "ejr", "ejr_weight": 0.01}
RATES = (0.03, 0.1, 0.3)


def with_curvature(run):
    level = run.config.lr * run.series["test_accuracy"] * (1 + run.series["step"])
    columns = {
        name: factor * level
        for factor, name in enumerate(("sharpness", "jacobian_norm_sq", "impurity_mean"), 1)
    }
    return dataclasses.replace(run, series=run.series.assign(**columns))


RUNS = [
    with_curvature(arm_run("simple_cnn", 0.4 + 0.1 * k + 0.01 * seed, lr=lr, seed=seed, **arm))
    for seed in (0, 1)
    for lr in RATES
    for k, arm in enumerate(({}, EJR))
]
WIDE = [
    arm_run("wrn10_2", 0.5 + level, loss=1 + level, seed=seed, fall=0.01, **arm)
    for seed in (0, 1)
    for k, arm in enumerate(({}, {"regularizer": "ejr_v1", "rho": 2.0}))
    for level in [0.1 * k + 0.02 * seed]
]
ARMS = [{}, EJR, *ALTERNATIVES]
BESIDE = [
    dataclasses.replace(run, config=run.config.replace(**arm))
    for seed in (0, 1)
    for k, arm in enumerate(ARMS)
    for run in [with_curvature(arm_run("simple_cnn", 0.4 + 0.1 * k + 0.02 * seed, seed=seed))]
]
FIGURES = {
    "beside": ejr_figures.beside(BESIDE),
    "accuracy_by_lr": ejr_figures.accuracy_by_lr(RUNS),
    "along_training": ejr_figures.along_training(RUNS),
    "over_epochs": ejr_figures.over_epochs(WIDE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_styled_and_labelled(name):
    card(FIGURES[name])
    labelled(FIGURES[name])


def test_accuracies_are_means_over_seeds_with_a_point_for_each():
    (axes,) = FIGURES["accuracy_by_lr"].axes
    lines = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    assert len(lines) == 2
    for k, line in enumerate(lines):
        x, y = points(line)
        np.testing.assert_allclose(x, RATES)
        np.testing.assert_allclose(y, [40.5 + 10 * k] * 3)
    dots = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert sorted(round(float(v), 6) for dot in dots for v in points(dot)[1]) == sorted(
        [40, 41, 50, 51] * 3
    )
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({line.get_marker() for line in lines}) == 2


def test_beside_each_other_each_regularizer_is_a_line_through_means_with_the_range_of_its_seeds():
    names = ("test_accuracy", "sharpness", "jacobian_norm_sq", "impurity_mean")
    for axes, name in zip(FIGURES["beside"].axes, names, strict=True):
        lines = curves(axes)
        assert len(lines) == len(axes.collections) == len(ARMS)
        for k, (line, band) in enumerate(zip(lines, axes.collections, strict=True)):
            seeds = np.array([BESIDE[k + seed * len(ARMS)].series[name] for seed in (0, 1)])
            seeds = 100 * seeds if name == "test_accuracy" else seeds
            np.testing.assert_allclose(points(line)[1], seeds.mean(0))
            edges = band.get_paths()[0].vertices[:, 1]
            np.testing.assert_allclose((edges.min(), edges.max()), (seeds.min(), seeds.max()))
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(ARMS)
        assert len({line.get_color() for line in lines}) == 4
        flat = [points(line)[1][0] for line in axes.get_lines() if len(points(line)[0]) == 2]
        assert flat == [2 / 0.1] * (name == "sharpness")
    (legend,) = FIGURES["beside"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "none",
        r"EJR, $\lambda_{\mathrm{reg}}$ = 0.01",
        "weight decay 0.0005",
        "weight decay 0.0015",
        "weight decay 0.005",
        "SAM, ρ = 0.05",
        "SAM, ρ = 0.1",
        "SAM, ρ = 0.2",
    ]


def test_along_training_every_run_is_drawn_against_the_step_times_the_learning_rate():
    panels = np.reshape(FIGURES["along_training"].axes, (3, 4))
    names = ("test_accuracy", "sharpness", "jacobian_norm_sq", "impurity_mean")
    for row, lr in zip(panels, RATES, strict=True):
        runs = [run for run in RUNS if run.config.lr == lr]
        for axes, name in zip(row, names, strict=True):
            scale = 100 if name == "test_accuracy" else 1
            for line, run in zip(curves(axes), runs, strict=True):
                draws(line, lr * run.series["step"], scale * run.series[name])
                assert line.get_linestyle() == ("-" if run.config.regularizer == "none" else "--")
            if name == "sharpness":
                (dotted,) = (line for line in axes.get_lines() if line.get_linestyle() == ":")
                assert points(dotted)[1][0] == pytest.approx(2 / lr)
        assert [axes.get_yscale() for axes in row] == ["linear", "log", "log", "linear"]


def test_over_epochs_every_run_is_drawn_accuracy_in_per_cent():
    accuracy, loss = FIGURES["over_epochs"].axes
    for axes, name, scale in ((accuracy, "test_accuracy", 100), (loss, "test_loss", 1)):
        for line, run in zip(curves(axes), WIDE, strict=True):
            draws(line, run.series["step"] / (1000 // 128), scale * run.series[name])
            assert line.get_linestyle() == ("-" if run.config.regularizer == "none" else "--")


def test_epochs_are_marked_where_the_learning_rate_decays():
    accuracy, loss = FIGURES["over_epochs"].axes
    epochs = 100 / (1000 // 128)
    for axes in (accuracy, loss):
        places = {
            round(float(line.get_xdata()[0]), 6)
            for line in axes.get_lines()
            if line.get_linestyle() == ":"
        }
        assert places == {round(share * epochs, 6) for share in (0.3, 0.6, 0.8)}
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == [
        "without EJR",
        "with EJR",
    ]


def test_the_axes_over_epochs_hold_what_comes_after_the_first_decay():
    early = dataclasses.replace(WIDE[0], series=WIDE[0].series.copy())
    early.series.loc[early.series["step"] <= 30, ["test_accuracy", "test_loss"]] = 50.0
    accuracy, loss = ejr_figures.over_epochs([early, *WIDE[1:]]).axes
    for axes, name, scale in ((accuracy, "test_accuracy", 100), (loss, "test_loss", 1)):
        late = [run.series.loc[run.series["step"] > 30, name] * scale for run in (early, *WIDE[1:])]
        low, high = axes.get_ylim()
        assert low < min(values.min() for values in late)
        assert max(values.max() for values in late) < high < 50 * scale

    first = dataclasses.replace(early, series=early.series.iloc[:1])
    assert ejr_figures.over_epochs([first]).axes  # nothing comes after a decay
