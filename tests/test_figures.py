"""Plots draw what the runs hold, in the book's style, and say what is missing where they cannot."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_checks import card, fills, line, points
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from synthetic_runs import gd_run, sgd_run

from ijrlib import figures

GD, SGD = gd_run(), sgd_run()
P = np.array([0.42, 0.27, 0.17, 0.09, 0.05])
OKABE_ITO = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"}


def drawn() -> dict[str, Figure]:
    errors = 0.5 ** np.arange(1, 20)
    return {
        "secular_function": figures.secular_function(P),
        "theorem_2": figures.theorem_2(GD),
        "convergence": figures.convergence(
            {"one": errors, "many": [errors, errors**2]}, "error", 1e-3
        ),
        "iterations_against_gap": figures.iterations_against_gap([0.9, 0.1], [9, 2], [8, 1]),
        "impurity_path": figures.impurity_path(GD),
        "impurity_evolution": figures.impurity_evolution(GD),
        "sharpness_and_jacobian": figures.sharpness_and_jacobian(SGD),
    }


FIGURES = drawn()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_on_an_opaque_near_white_card(name):
    card(FIGURES[name])


@pytest.mark.parametrize("name", FIGURES)
def test_the_axes_are_labelled(name):
    first, last = FIGURES[name].axes[0], FIGURES[name].axes[-1]
    assert first.get_xlabel() and first.get_ylabel() and last.get_ylabel()


def test_a_notebook_shows_each_figure_once():
    """A figure left open is shown a second time by the inline backend."""
    figures.impurity_evolution(GD)
    assert not plt.get_fignums()


def test_drawing_leaves_the_callers_style_alone():
    before = dict(mpl.rcParams)
    figures.secular_function(P)
    assert dict(mpl.rcParams) == before


def test_colors_are_those_of_okabe_and_ito_and_a_quantity_keeps_its_own():
    colors = [quantity.color for quantity in figures.QUANTITIES.values()]
    assert set(colors) <= OKABE_ITO and len(set(colors)) == len(colors)


def test_text_colors_have_enough_contrast_on_the_card():
    """WCAG asks for 3 : 1 between large text or graphics and the background."""

    def luminance(color):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
        ]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    for color in (figures.BLUE, figures.VERMILION, figures.GREEN, figures.GREY):
        assert (luminance("#FCFCFA") + 0.05) / (luminance(color) + 0.05) >= 3, color


# -- theory ----------------------------------------------------------------------------------------


def test_figure_1_has_a_pole_at_every_probability_and_a_root_at_every_eigenvalue():
    axes = FIGURES["secular_function"].axes[0]
    verticals = {
        points(x)[0][0] for x in axes.get_lines() if to_hex(x.get_color()).upper() == "#D55E00"
    }
    assert verticals == set(P)
    roots, _ = line(FIGURES["secular_function"], "roots")
    np.testing.assert_allclose(
        roots, np.linalg.eigvalsh(np.diag(P) - np.outer(P, P))[::-1], atol=1e-15
    )


def test_figure_1_draws_no_line_across_a_pole():
    for branch in FIGURES["secular_function"].axes[0].get_lines():
        x, v = points(branch)
        if len(x) > 10:
            assert not any(x[0] < pole < x[-1] for pole in P)
            assert np.nanmax(np.abs(v)) <= 3
            seen = v[np.isfinite(v)]
            assert (np.diff(seen) < 0).all()


@pytest.mark.parametrize(
    ("p", "labels", "deflated"),
    [
        ([0.35, 0.3, 0.35], {0.35: 1, 0.3: 3}, [0.35]),
        ([0.3, 0.4, 0.3], {0.4: 1, 0.3: 2}, [0.3]),
        ([0.25] * 4, {0.25: 1}, [0.25] * 3),
    ],
)
def test_figure_1_ranks_its_poles_and_sets_deflated_eigenvalues_apart(p, labels, deflated):
    figure = figures.secular_function(p)
    texts = {text.get_text(): text.xy[0] for text in figure.axes[0].texts}
    for pole, rank in labels.items():
        assert texts[f"$p_{{({rank})}}$"] == pole
    assert sum("p_" in text for text in texts) == len(labels)
    np.testing.assert_array_equal(line(figure, "deflated")[0], deflated)
    roots, _ = line(figure, "roots")
    every = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(np.sort([*roots, *deflated]), every, atol=1e-15)
    markers = [x.get_marker() for x in figure.axes[0].get_lines() if x.get_marker() != "None"]
    assert len(set(markers)) == 2


def test_figure_1_has_no_entry_for_deflation_where_there_is_none():
    legend = FIGURES["secular_function"].axes[0].get_legend()
    assert not any("deflated" in text.get_text() for text in legend.get_texts())


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.3, 0.2, 0.0], "expected positive probabilities, but entry 3 is 0"),
        ([[0.5, 0.5]], r"expected one probability vector, got shape \(1, 2\)"),
        ([0.5, 0.4], "expected a sum of 1"),
    ],
)
def test_figure_1_refuses_what_is_no_positive_probability_vector(p, message):
    with pytest.raises(ValueError, match=message):
        figures.secular_function(p)


def test_theorem_2_draws_the_norm_the_mean_and_the_bound_where_they_were_measured():
    measured = GD.series.dropna(subset=["gauss_newton_norm"])
    for label, name in (("$\\|G\\|$", "gauss_newton_norm"), ("{(1)}", "theorem_2_bound")):
        steps, values = line(FIGURES["theorem_2"], label)
        np.testing.assert_array_equal(steps, measured["step"])
        np.testing.assert_array_equal(values, measured[name])


def test_theorem_2_shows_every_probe_example_at_three_steps():
    clouds = [c for c in FIGURES["theorem_2"].axes[1].collections if isinstance(c, PathCollection)]
    assert [c.get_label() for c in clouds] == ["step 0", "step 150", "step 300"]
    points = np.asarray(clouds[1].get_offsets())
    np.testing.assert_array_equal(points[:, 0], GD.arrays["lambda_1"][5])
    np.testing.assert_array_equal(points[:, 1], GD.arrays["lambda_star"][5])


def test_convergence_draws_the_median_over_cases_against_the_iteration():
    errors = np.array([[1e-1, 1e-2], [1e-3, 1e-4], [1e-2, 1e-3]])
    figure = figures.convergence({"cases": errors}, "error")
    iterations, medians = line(figure, "cases")
    np.testing.assert_array_equal(iterations, [1, 2])
    np.testing.assert_allclose(medians, [1e-2, 1e-3])


# -- impurity --------------------------------------------------------------------------------------


def test_the_typical_example_is_the_median_of_the_tracked_ones():
    impurity = np.array([[0.1, 0.5, 0.3, 0.2], [0.1, 0.5, 0.3, 0.2]])
    run = dataclasses.replace(GD, arrays={"tracked_impurity": impurity})
    assert figures.typical_example(run) == 3  # of .1 .2 .3 .5 the lower middle one is .2


def test_figure_2_left_draws_the_typical_path_between_its_bounds():
    index = figures.typical_example(GD)
    axes = FIGURES["impurity_path"].axes[0]
    cloud = next(c for c in axes.collections if isinstance(c, PathCollection))
    points = np.asarray(cloud.get_offsets())
    np.testing.assert_array_equal(points[:, 0], GD.arrays["tracked_p1"][:, index])
    np.testing.assert_array_equal(points[:, 1], GD.arrays["tracked_impurity"][:, index])
    upper, lower = line(FIGURES["impurity_path"], "min"), line(FIGURES["impurity_path"], "frac")
    assert np.interp(0.3, *upper) == pytest.approx(0.3)
    assert np.interp(0.8, *upper) == pytest.approx(0.32)
    assert np.interp(0.5, *lower) == pytest.approx(0.25)


def test_figure_2_right_draws_the_mean_and_the_quartiles():
    _, mean = line(FIGURES["impurity_evolution"], "mean")
    np.testing.assert_array_equal(mean, GD.series["impurity_mean"])
    (band,) = FIGURES["impurity_evolution"].axes[0].collections
    fills(band, GD.series["step"], GD.series["impurity_q25"], GD.series["impurity_q75"])


# -- sharpness and Jacobian ------------------------------------------------------------------------


def test_figure_3_has_a_panel_for_each_window_with_two_axes_of_its_own():
    figure = FIGURES["sharpness_and_jacobian"]
    left, right = figure.axes[:3], figure.axes[3:]
    assert [a.get_title(loc="left") for a in left] == [
        "steps 0–200",
        "steps 1000–1200",
        "steps 1500–1700",
    ]
    assert len({a.get_ylim()[1] for a in right}) == 3
    assert to_hex(left[0].yaxis.label.get_color()).upper() == figures.BLUE
    assert to_hex(right[-1].yaxis.label.get_color()).upper() == figures.VERMILION


def test_figure_3_draws_the_threshold_at_two_over_the_learning_rate():
    for axes in FIGURES["sharpness_and_jacobian"].axes[:3]:
        dashed = [x for x in axes.get_lines() if x.get_linestyle() == "--"]
        assert [points(x)[1][0] for x in dashed] == [2 / SGD.config.lr]


def test_figure_3_draws_every_measured_step_of_its_window():
    figure = FIGURES["sharpness_and_jacobian"]
    steps, _ = line(figure, "sharpness", axes=1)
    np.testing.assert_array_equal(steps, np.arange(1000, 1201))


def test_figure_3_leaves_out_windows_that_a_run_has_not_come_to():
    short = dataclasses.replace(SGD, series=SGD.series[SGD.series["step"] < 1100])
    figure = figures.sharpness_and_jacobian(short)
    assert len(figure.axes) == 2 * 2
    (first, *_) = SGD.config.windows("curvature")
    later = SGD.series[~SGD.series["step"].between(first[0], 1700)]
    with pytest.raises(ValueError, match="no curvature within its schedule"):
        figures.sharpness_and_jacobian(dataclasses.replace(
            SGD, series=pd.concat([later, SGD.series[:1].assign(step=5000)])))  # fmt: skip


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "run", "message"),
    [
        (figures.impurity_evolution, SGD, r"no column impurity_mean.*columns: step"),
        (figures.impurity_path, SGD, r"no array tracked_impurity"),
        (figures.sharpness_and_jacobian, dataclasses.replace(
            SGD, series=SGD.series.assign(sharpness=np.nan)), r"no step with finite sharpness"),
        (figures.theorem_2, SGD, r"no column gauss_newton_norm"),
    ],
)  # fmt: skip
def test_a_run_without_the_data_is_refused_with_what_is_missing(draw, run, message):
    with pytest.raises(ValueError, match=message):
        draw(run)


def test_an_overview_draws_loss_sharpness_and_impurity_or_says_that_there_is_none():
    loss, sharpness, impurity = figures.overview(GD).axes
    for axes, name in ((loss, "train_loss"), (sharpness, "sharpness"), (impurity, "impurity_mean")):
        x, y = points(axes.get_lines()[0])
        expected = GD.series[["step", name]].dropna()
        np.testing.assert_array_equal(x, expected["step"])
        np.testing.assert_array_equal(y, expected[name])
    assert set(points(sharpness.get_lines()[1])[1]) == {2 / GD.config.lr}
    assert loss.get_yscale() == "log" and len(impurity.get_lines()) == 1
    missing = figures.overview(SGD).axes[2]
    assert not missing.get_lines() and missing.texts[0].get_text() == "not measured"
