"""Plots of paths, phases, comparisons, norms and the relation draw what the runs hold."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from figure_checks import card, curves, draws, labelled, line, points, scatters
from matplotlib.collections import PathCollection
from synthetic_runs import PHASE_ONSET, PHASE_PEAK, phase_run

from ijrlib import embedding, evolution_criteria, evolution_figures
from ijrlib.figures import GREY

RUN = phase_run()
LRS = [phase_run(lr=lr, seed=seed) for seed in (0, 1) for lr in (0.02, 0.04, 0.08)]
SIZES = [
    dataclasses.replace(RUN, config=RUN.config.replace(examples=examples))
    for examples in (3000, 1000)
]
SQUARED = phase_run(loss="squared")
FIGURES = {
    "path": evolution_figures.path(RUN),
    "three_phases": evolution_figures.three_phases(RUN),
    "evolution": evolution_figures.evolution(LRS, "lr"),
    "side_by_side": evolution_figures.side_by_side(SIZES, "examples"),
    "shares": evolution_figures.shares([RUN]),
    "norms": evolution_figures.norms(RUN, until=100, every=10),
    "layer_norms": evolution_figures.layer_norms(RUN),
    "accuracy": evolution_figures.accuracy(RUN),
    "relation": evolution_figures.relation(LRS),
    "relation, squared loss": evolution_figures.relation([SQUARED]),
    "constants": evolution_figures.constants(LRS),
    "looseness": evolution_figures.looseness(LRS),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_opaque_card_with_labelled_axes(name):
    card(FIGURES[name])
    labelled(FIGURES[name])


def test_the_path_shows_the_cosines_of_the_gram_matrix_and_the_onset():
    gram = RUN.arrays["trajectory_gram"]
    steps, cosines = line(FIGURES["path"], "next step", axes=2)
    np.testing.assert_array_equal(cosines, embedding.step_cosines(gram))
    assert steps[0] == 1 and steps[-1] == 299  # between the steps into and out of a point
    _, ahead = line(FIGURES["path"], "ten after", axes=2)
    np.testing.assert_array_equal(ahead, embedding.direction_cosines(gram))
    dashed, _ = line(FIGURES["path"], "eta", axes=2)
    assert set(dashed) == {PHASE_ONSET}
    assert FIGURES["path"].axes[1].get_title(loc="left") == "steps 0–200"


def test_the_path_is_that_of_the_embedding_whole_and_around_the_onset():
    places, steps = RUN.arrays["trajectory_umap"], RUN.arrays["trajectory_umap.steps"]
    for axes, last in zip(FIGURES["path"].axes[:2], (300, 200), strict=True):
        (cloud,) = (x for x in axes.collections if isinstance(x, PathCollection))
        scatters(cloud, *places[: last + 1].T)
        np.testing.assert_array_equal(cloud.get_array(), steps[: last + 1])
        draws(axes.get_lines()[0], *places[: last + 1].T)


def test_a_path_without_onset_is_shown_around_its_middle():
    low = phase_run(lr=0.04)
    low.series["sharpness"] /= 2
    figure = evolution_figures.path(low)
    assert figure.axes[1].get_title(loc="left") == "steps 50–250"
    assert not any(x.get_linestyle() == "--" for x in figure.axes[2].get_lines())


def test_the_band_of_phase_2_is_where_the_phases_are():
    for axes in FIGURES["three_phases"].axes:
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (band.x0, band.x1) == pytest.approx((PHASE_ONSET, PHASE_PEAK))
        assert [t.get_text() for t in axes.texts] == ["I", "II", "III"]


def test_the_phases_are_shown_by_what_was_measured():
    *quantities, losses, accuracies = FIGURES["three_phases"].axes
    names = ("sharpness", "jacobian_norm_sq", "impurity_mean")
    for axes, name in zip(quantities, names, strict=True):
        draws(curves(axes)[0], RUN.series["step"], RUN.series[name])
    for axes, name in ((losses, "loss"), (accuracies, "accuracy")):
        for drawn, part in zip(curves(axes), ("train", "test"), strict=True):
            assert drawn.get_label() == part
            draws(drawn, RUN.series["step"], RUN.series[f"{part}_{name}"])


def test_a_comparison_draws_the_measurements_of_every_run_and_the_median_of_a_first_seed():
    names = ("sharpness", "jacobian_norm_sq", "impurity_mean")
    for axes, name in zip(FIGURES["evolution"].axes, names, strict=True):
        faint = [x for x in axes.get_lines() if x.get_alpha() == 0.2]
        for drawn, run in zip(faint, reversed(LRS), strict=True):
            draws(drawn, run.series["step"], run.series[name])
        strong = [x for x in axes.get_lines() if "eta" in str(x.get_label())]
        for drawn, run in zip(strong, reversed(LRS[:3]), strict=True):
            smooth = evolution_figures.running_median(run.series[name].to_numpy())
            draws(drawn, run.series["step"], smooth)
            assert drawn.get_label() == rf"$\eta$ = {run.config.lr:g}"


def test_a_comparison_draws_every_run_and_smooths_the_first_seed_of_each_setting():
    for axes in FIGURES["evolution"].axes:
        strong = [x for x in axes.get_lines() if "eta" in str(x.get_label())]
        faint = [x for x in axes.get_lines() if x.get_alpha() == 0.2]
        assert (len(strong), len(faint)) == (3, len(LRS))
        assert len({x.get_color() for x in strong}) == len({x.get_linestyle() for x in strong}) == 3
    dotted = {points(x)[1][0] for x in FIGURES["evolution"].axes[0].get_lines()[-3:]}
    assert dotted == {2 / lr for lr in (0.02, 0.04, 0.08)}


def test_runs_side_by_side_are_drawn_as_measured_with_one_threshold():
    names = ("sharpness", "impurity_mean", "jacobian_ones_sq", "train_loss")
    for axes, name in zip(FIGURES["side_by_side"].axes, names, strict=True):
        for run, label in zip(SIZES, ("3,000 images", "1,000 images"), strict=True):
            (drawn,) = [x for x in axes.get_lines() if x.get_label() == label]
            steps, values = points(drawn)
            np.testing.assert_array_equal(steps, run.series["step"])
            np.testing.assert_array_equal(values, run.series[name])
        dashed = axes.get_lines()[len(SIZES) :]
        assert [set(points(x)[1]) for x in dashed] == [{2 / RUN.config.lr}] * (name == "sharpness")


def onset_line(drawn) -> bool:
    return drawn.get_color() == GREY and len(set(points(drawn)[0])) == 1


def test_shares_are_drawn_in_units_of_the_threshold_and_as_parts_of_the_whole():
    above, below = FIGURES["shares"].axes
    steps = RUN.arrays["share_sharpness.steps"]
    values = RUN.arrays["share_sharpness"]
    names = ("5% of the examples", "25% of the examples", "100% of the examples")
    for k, name in enumerate(names):
        (drawn,) = [x for x in above.get_lines() if x.get_label() == name]
        np.testing.assert_array_equal(points(drawn)[0], steps)
        np.testing.assert_allclose(points(drawn)[1], values[:, k] * RUN.config.lr / 2)
    ratios = [points(x)[1] for x in below.get_lines() if x.get_marker() == "."]
    np.testing.assert_allclose(ratios, (values[:, :2] / values[:, 2:]).T)
    for axes in (above, below):
        (onset,) = [x for x in axes.get_lines() if onset_line(x)]
        assert set(points(onset)[0]) == {PHASE_ONSET}
    low = dataclasses.replace(RUN, arrays={**RUN.arrays, "share_sharpness": values / 10})
    never = evolution_figures.shares([low])
    assert not any(onset_line(x) for axes in never.axes for x in axes.get_lines())


def test_a_running_median_has_as_many_values_on_both_sides_and_ends_at_the_ends():
    values = np.random.default_rng(0).normal(size=203)
    smooth = evolution_figures.running_median(values)
    assert smooth[0] == values[0] and smooth[-1] == values[-1]
    assert smooth[1] == sorted(values[:3])[1] and smooth[-2] == sorted(values[-3:])[1]
    for i in (5, 100, 197):
        assert smooth[i] == sorted(values[i - 5 : i + 6])[5]


def test_a_comparison_shows_the_threshold_of_each_learning_rate_though_none_comes_near_it():
    low = [dataclasses.replace(run, series=run.series.copy()) for run in LRS]
    for run in low:
        run.series["sharpness"] /= 100
    axes = evolution_figures.evolution(low, "lr").axes[0]
    drawn = [set(points(x)[1]) for x in axes.get_lines()]
    for run in low:
        assert {2 / run.config.lr} in drawn
        assert axes.get_ylim()[1] > 2 / run.config.lr


def test_a_comparison_has_a_bar_over_phase_2_at_the_median_that_the_claims_compare():
    sharpness, jacobian, impurity = FIGURES["evolution"].axes
    for axes, name in ((sharpness, "sharpness"), (jacobian, "jacobian_norm_sq")):
        bars = [points(x) for x in axes.get_lines() if x.get_linewidth() == 2.5]
        assert len(bars) == len(LRS)
        for (steps, heights), run in zip(bars, reversed(LRS), strict=True):
            assert tuple(steps) == (PHASE_ONSET, PHASE_PEAK)
            assert set(heights) == {evolution_criteria.plateau(run, name)}
    assert not any(x.get_linewidth() == 2.5 for x in impurity.get_lines())
    early = phase_run()
    early.series["impurity_mean"] = 1.0 / (early.series["step"] + 1)
    without = evolution_figures.evolution([early], "lr").axes[0]
    assert not any(x.get_linewidth() == 2.5 for x in without.get_lines())


def test_accuracies_are_those_of_training_and_test():
    (axes,) = FIGURES["accuracy"].axes
    for drawn, name in zip(axes.get_lines(), ("train", "test"), strict=True):
        assert drawn.get_label() == name
        frame = RUN.series[["step", f"{name}_accuracy"]].dropna()
        np.testing.assert_array_equal(np.transpose(points(drawn)), frame.to_numpy())


def test_norms_are_drawn_throughout_or_up_to_a_step_and_every_so_many():
    names = ("logit_norm", "logit_sum", "weight_norm", "distance")
    throughout = evolution_figures.norms(RUN)
    for figure, frame in ((throughout, RUN.series), (FIGURES["norms"], RUN.series[:101:10])):
        for axes, name in zip(figure.axes, names, strict=True):
            draws(axes.get_lines()[0], frame["step"], frame[name])
            assert axes.get_ylabel().startswith(name.replace("_", " "))


def test_each_layer_has_a_panel():
    assert len(FIGURES["layer_norms"].axes) == RUN.arrays["layer_norms"].shape[1]
    _, last = points(FIGURES["layer_norms"].axes[5].get_lines()[0])
    np.testing.assert_array_equal(last, RUN.arrays["layer_norms"][:, 5])


def test_the_relation_has_a_column_for_each_setting_and_the_ratio_of_every_seed():
    axes = FIGURES["relation"].axes
    assert len(axes) == 6
    for k, run in enumerate(LRS[:3]):
        frame = evolution_criteria.relation(run)
        _, sharpness = points(axes[k].get_lines()[0])
        np.testing.assert_array_equal(sharpness, frame["sharpness"])
        ratio = evolution_criteria.ratio(run)
        _, predictor = points(axes[k].get_lines()[1])
        np.testing.assert_allclose(predictor, np.median(ratio) * frame["predictor"])
        ratios = [x for x in axes[3 + k].get_lines() if len(points(x)[0]) > 2]
        assert len(ratios) == 2
        np.testing.assert_allclose(points(ratios[0])[1], ratio / np.median(ratio))


def test_the_relation_of_the_squared_loss_has_no_impurity():
    frame = evolution_criteria.relation(SQUARED)
    np.testing.assert_array_equal(frame["predictor"], SQUARED.series["jacobian_norm_sq"])
    assert "lambda" not in FIGURES["relation, squared loss"].axes[0].get_lines()[1].get_label()


def test_the_weight_is_judged_by_correlations_with_it_and_without_it_in_each_phase():
    ((_, *cells),) = evolution_criteria.weight_table([RUN])[1]
    series = RUN.series.dropna(subset=["sharpness", "jacobian_ones_sq"])
    logs = np.log(series[["sharpness", "jacobian_ones_sq"]])
    step = series["step"]
    parts = (step >= 0, (step >= PHASE_ONSET) & (step <= PHASE_PEAK), step > PHASE_PEAK)
    for cell, part in zip(cells, parts, strict=True):
        with_impurity, alone = cell.replace("−", "-").split(" / ")
        assert with_impurity == "1.00"  # ‖⟨J⟩1̂‖² = ‖H‖/⟨λ^(1)⟩
        assert alone == f"{np.corrcoef(logs[part].to_numpy().T)[0, 1]:.2f}"
    early = dataclasses.replace(RUN, series=RUN.series[RUN.series["step"] < PHASE_ONSET])
    assert evolution_criteria.weight_table([early])[1][0][-1] == "–"


def test_the_constant_of_each_run_is_the_median_ratio():
    medians = [
        points(x)[0][0] for x in FIGURES["constants"].axes[0].get_lines() if x.get_marker() == "o"
    ]
    assert medians[::2] == [pytest.approx(np.median(evolution_criteria.ratio(r))) for r in LRS]
    header, table = evolution_criteria.constants_table(LRS)
    assert len(table) == len(LRS) and all(len(row) == len(header) for row in table)
    assert table[0][0] == "6CNN, digits, full batch, η = 0.02"
    assert table[0][3:] == ["0.9", "2.22"]  # ‖G‖ = 0.9‖H‖, the bound is 2‖H‖


def test_looseness_draws_what_theorem_2_measured():
    for k, (name, expected) in enumerate(
        (("gauss_newton_share", 0.9), ("bound_ratio", 2 / 0.9), ("predictor_ratio", 1 / 0.9))
    ):
        for drawn in FIGURES["looseness"].axes[k].get_lines()[: len(LRS)]:
            share, values = points(drawn)
            assert (share[0], share[-1]) == (0, 1)
            np.testing.assert_allclose(values, expected, err_msg=name)


def test_a_run_that_ends_before_the_bound_is_measured_is_in_the_table_all_the_same():
    early = phase_run()
    early.series.loc[early.series["step"] >= PHASE_ONSET, "theorem_2_bound"] = np.nan
    ((*_, share, bound),) = evolution_criteria.constants_table([early])[1]
    assert (share, bound) == ("–", "–")


def test_a_run_without_phase_2_is_in_the_table_all_the_same():
    early = phase_run()
    early.series["impurity_mean"] = 1.0 / (early.series["step"] + 1)
    ((_, _, active, *_),) = evolution_criteria.constants_table([early])[1]
    assert active == "no phase II"
    evolution_figures.constants([early])
