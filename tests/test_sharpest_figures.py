"""Plots of the sharpest directions draw what the runs hold."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from figure_checks import card, labelled, line, points
from synthetic_runs import phase_run, sharpest_run

from ijrlib import sharpest_criteria, sharpest_figures
from ijrlib.criteria import NotMeasured

LATE = {"regularizer": "sharpest_only", "sharpest": 1, "regularizer_from": 50}
BY_LR = [sharpest_run(lr=lr, seed=seed) for seed in (0, 1) for lr in (0.05, 0.2)]
RULES = [sharpest_run(), sharpest_run(height=0.5, **LATE)]
NUDGED = [
    sharpest_run(),
    *(sharpest_run(height=k, regularizer="nudged", sharpest=k) for k in (1, 5)),
]
NORMALIZED = [
    sharpest_run(lr=lr, network=network)
    for lr in (0.05, 0.2)
    for network in ("mlp_300_100", "mlp_300_100_bn")
]
STAGES = [sharpest_run(lr_decay=0.1, lr_decay_at=at, seed=s) for s in (0, 1) for at in (10, 40)]
GAMMAS = [
    sharpest_run(),
    *(sharpest_run(regularizer="nudged", sharpest=5, gamma=g, height=2) for g in (0.01, 0.1)),
]
FIGURES = {
    "normalized": sharpest_figures.normalized(NORMALIZED),
    "schedules": sharpest_figures.schedules(STAGES),
    "gamma": sharpest_figures.rules(GAMMAS, "gamma"),
    "eigenvalues": sharpest_figures.eigenvalues(BY_LR),
    "instability": sharpest_figures.instability([phase_run(lr=lr) for lr in (0.02, 0.04)]),
    "peaks": sharpest_figures.peaks(BY_LR, "lr"),
    "gradient_alignment": sharpest_figures.gradient_alignment(BY_LR),
    "step_changes": sharpest_figures.step_changes(BY_LR, "lr"),
    "surfaces": sharpest_figures.surfaces(RULES[0]),
    "rules": sharpest_figures.rules(RULES, "regularizer"),
    "against_directions": sharpest_figures.against_directions(NUDGED),
}


def test_surfaces_of_the_start_alone_are_refused():
    run = sharpest_run()
    arrays = {name: run.arrays[name][:1] for name in ("surfaces", "surfaces.steps")}
    with pytest.raises(NotMeasured, match="no surfaces after the start"):
        sharpest_figures.surfaces(dataclasses.replace(run, arrays=arrays))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_opaque_card_with_labelled_axes(name):
    card(FIGURES[name])
    labelled(FIGURES[name])


def test_eigenvalues_are_those_of_the_first_seed_against_time_with_two_over_eta():
    whole, _, beginning, *_ = FIGURES["eigenvalues"].axes
    run = BY_LR[0]
    for i in (1, 10):
        x, y = points(whole.get_lines()[i - 1])
        np.testing.assert_allclose(x, 0.05 * run.arrays["top_values.steps"])
        np.testing.assert_allclose(y, run.arrays["top_values"][:, i - 1])
    assert set(line(FIGURES["eigenvalues"], r"2/$\eta$")[1]) == {40.0}
    assert max(points(beginning.get_lines()[0])[0]) == pytest.approx(0.05 * 10)


def test_the_sharpness_is_drawn_in_units_of_two_over_eta():
    run = phase_run(lr=0.02)
    _, y = points(FIGURES["instability"].axes[0].get_lines()[0])
    np.testing.assert_allclose(y, run.series["sharpness"].dropna() * 0.01)


def test_of_several_seeds_the_first_is_drawn_last_and_the_others_in_a_lighter_colour():
    runs = [phase_run(lr=0.02), phase_run(lr=0.02, seed=1), phase_run(lr=0.04)]
    runs[1].series["sharpness"] *= 2
    above, other, below, _ = sharpest_figures.instability(runs).axes
    lighter, first, _ = above.get_lines()
    assert lighter.get_alpha() < first.get_alpha() == 1 and len(other.get_lines()) == 2
    np.testing.assert_allclose(points(lighter)[1], 2 * points(first)[1])
    assert [text.get_text() for text in other.figure.axes[3].get_legend().get_texts()] == [
        "training",
        "test",
    ]
    assert len(below.get_lines()) == 4


def test_peaks_have_a_line_for_each_run_and_one_label_for_each_value():
    for i, axes in enumerate(FIGURES["peaks"].axes, 1):
        drawn = [points(entry)[1].max() for entry in axes.get_lines()]
        expected = [sharpest_criteria.eigenvalue(run, i).max() for run in BY_LR]
        thresholds = [2 / 0.05, 2 / 0.2] if i == 1 else []
        assert sorted(drawn) == pytest.approx(sorted([*expected, *thresholds]))
    labels = [text.get_text() for text in FIGURES["peaks"].axes[0].get_legend().get_texts()]
    assert labels == [r"$\eta$ = 0.05", r"$\eta$ = 0.2"]


def test_alignment_is_drawn_against_training_accuracy():
    x, y = line(FIGURES["gradient_alignment"], r"$\eta$ = 0.05")
    np.testing.assert_allclose(x, 100 * BY_LR[0].series["train_accuracy"])
    np.testing.assert_allclose(y, 0.2)
    flat = sharpest_criteria.random_alignment(BY_LR[0])
    assert set(line(FIGURES["gradient_alignment"], "random vector")[1]) == {flat}


def test_changes_and_surfaces_are_relative_to_the_loss():
    _, y = line(FIGURES["step_changes"], r"$\alpha$ = 2")
    np.testing.assert_allclose(y, 0.1)
    first, third, fourth, _ = FIGURES["surfaces"].axes
    for axes, steep in ((first, 0.1), (third, 0.02), (fourth, 0.01)):
        x, y = points(axes.get_lines()[0])
        np.testing.assert_allclose(y, steep * x**2, atol=1e-12)


def test_a_rule_is_named_and_marked_where_it_sets_in():
    sharpness, losses, accuracy = FIGURES["rules"].axes
    _, variant, mark, threshold = sharpness.get_lines()
    assert set(points(threshold)[1]) == {2 / 0.05}
    np.testing.assert_allclose(points(variant)[1], RULES[1].arrays["top_values"][:, 0])
    assert points(mark)[0][0] == pytest.approx(0.05 * 50)
    np.testing.assert_allclose(points(losses.get_lines()[0])[1], sharpest_criteria.loss(RULES[0]))
    assert [t.get_text() for t in accuracy.get_legend().get_texts()] == [
        "SGD",
        "only along $e_1$",
    ]


def test_the_largest_values_are_drawn_against_the_number_of_directions():
    left, right = FIGURES["against_directions"].axes
    x, y = points(left.get_lines()[0])
    np.testing.assert_allclose(x, [0, 1, 5])
    np.testing.assert_allclose(y, [run.arrays["top_values"][:, 0].max() for run in NUDGED])
    np.testing.assert_allclose(points(right.get_lines()[0])[1], 70)


def test_networks_with_and_without_normalization_are_in_one_panel_in_units_of_two_over_eta():
    above, _, below, _ = FIGURES["normalized"].axes
    without, with_norm, threshold = above.get_lines()
    assert [entry.get_label() for entry in (without, with_norm)] == [
        "without",
        "with batch normalization",
    ]
    x, y = points(without)
    run = NORMALIZED[0]
    np.testing.assert_allclose(x, 0.05 * run.arrays["top_values.steps"])
    np.testing.assert_allclose(y, run.arrays["top_values"][:, 0] * 0.025)
    assert set(points(threshold)[1]) == {1.0}
    np.testing.assert_allclose(
        points(below.get_lines()[1])[1], 100 * NORMALIZED[1].series["train_accuracy"]
    )


def test_schedules_are_drawn_against_the_step_with_the_thresholds_of_both_stages():
    sharp, *_, accuracy = FIGURES["schedules"].axes
    lines = sharp.get_lines()
    assert len(lines) == len(STAGES) + 2
    np.testing.assert_allclose(points(lines[0])[0], STAGES[0].arrays["top_values.steps"])
    assert [points(entry)[1][0] for entry in lines[-2:]] == pytest.approx([40, 400])
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["first stage 10 steps", "first stage 40 steps"]


def test_nudged_sgd_is_labelled_by_its_factor_and_sgd_as_what_it_is():
    legend = FIGURES["gamma"].axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        r"SGD ($\gamma$ = 1)",
        r"$\gamma$ = 0.1",
        r"$\gamma$ = 0.01",
    ]


def test_norms_by_gamma_are_lambda_1_and_the_frobenius_norm_in_a_column_for_each_momentum():
    heavy = sharpest_run(momentum=0.9)
    still, moving = sharpest_figures.norms_by_gamma([*GAMMAS, heavy]).axes
    assert len(still.get_lines()) == 2 * len(GAMMAS) + 1
    for axes, run, momentum in ((still, GAMMAS[0], 0.0), (moving, heavy, 0.9)):
        top, frobenius, *_, threshold = axes.get_lines()
        for entry, expected in (
            (top, run.arrays["top_values"][:, 0]),
            (frobenius, run.series["hessian_frobenius_sq"] ** 0.5),
        ):
            x, y = points(entry)
            np.testing.assert_allclose(x, 0.05 * run.arrays["top_values.steps"])
            np.testing.assert_allclose(y, expected)
        assert (top.get_linestyle(), frobenius.get_linestyle()) == ("-", "--")
        assert points(threshold)[1][0] == pytest.approx(2 * (1 + momentum) / 0.05)
    labels = [text.get_text() for text in still.get_legend().get_texts()]
    assert labels == [r"SGD ($\gamma$ = 1)", r"$\gamma$ = 0.1", r"$\gamma$ = 0.01"]
