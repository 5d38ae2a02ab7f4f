"""Plots of eigenvectors, class means and alignments draw what the run holds."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from figure_checks import card, draws, fills, labelled, line, points
from matplotlib.collections import PathCollection
from synthetic_runs import PHASE_PEAK, phase_run
from test_claims import with_outliers

from ijrlib import conventions, subspace_criteria, subspace_figures

COSINES = ("mean", "q25", "q75", "correct")
RUN, RANDOM = phase_run(), np.random.default_rng(0)
for name in (
    "gradient_alignment",
    *(f"descent_cosine_{part}" for part in COSINES),
    "subspace_alignment_gradient",
    "subspace_alignment_top",
):
    RUN.series[name] = RANDOM.uniform(0.1, 0.9, len(RUN.series))
for name in ("class_mean_cosines", "stretch_counts", "cos_sq_counts"):
    RUN.arrays[name] = RANDOM.uniform(0.1, 0.9, RUN.arrays[name].shape)
SIX = (500, 1000, 1500, 2000, 3000, 4000)
FIGURES = {
    "scaled_eigenvectors": subspace_figures.scaled_eigenvectors(RUN),
    "class_planes": subspace_figures.class_planes(RUN, [1, 2, 3, 4]),
    "class_mean_cosines": subspace_figures.class_mean_cosines(RUN, SIX),
    "mean_resultant_lengths": subspace_figures.mean_resultant_lengths(RUN),
    "alignment": subspace_figures.alignment(RUN),
    "eigenvector_images": subspace_figures.eigenvector_images(RUN),
    "largest_eigenvalues": subspace_figures.largest_eigenvalues(with_outliers(10, 5)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_opaque_card(name):
    card(FIGURES[name])


@pytest.mark.parametrize(
    "name",
    [
        "class_planes",
        "mean_resultant_lengths",
        "alignment",
        "eigenvector_images",
        "largest_eigenvalues",
    ],
)
def test_axes_are_labelled(name):
    labelled(FIGURES[name])


def image(axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array(), dtype=float)


def test_the_heat_map_is_the_matrix_at_the_peak_with_its_entries_printed():
    axes = FIGURES["scaled_eigenvectors"].axes[0]
    at_peak = PHASE_PEAK // 10
    np.testing.assert_array_equal(image(axes), RUN.arrays["q_sqrt_lambda"][at_peak])
    assert axes.get_title(loc="left").startswith(f"step {PHASE_PEAK}:\npeak")
    printed = [t.get_text() for t in axes.texts]
    assert printed[0] == ".44" and "−.27" in printed and len(printed) == 18
    assert len(axes.patches) == 9


def test_several_stages_show_their_matrices_on_one_color_scale():
    panels = [a for a in FIGURES["class_mean_cosines"].axes if a.get_images()]
    for axes, paper_step in zip(panels, SIX, strict=True):
        matrix, step = subspace_criteria.at_stage(RUN, "class_mean_cosines", paper_step)
        np.testing.assert_array_equal(image(axes), matrix)
        assert axes.get_title(loc="left").startswith(f"step {step}:")
    assert {a.get_images()[0].get_clim() for a in panels} == {(-1, 1)}
    assert all("peak" in a.get_title(loc="left") for a in panels)


def test_a_stage_that_is_not_reached_is_said_and_left_empty():
    run = phase_run()
    run.series["impurity_mean"] = 1.0 + run.series["step"]  # no fall from the peak
    for draw in (subspace_figures.scaled_eigenvectors, subspace_figures.class_mean_cosines):
        panels = draw(run, (1000, 2000)).axes[:2]
        assert len(panels[0].get_images()) == 1 and not panels[1].get_images()
        assert panels[1].get_title(loc="left") == "½ of the peak:\nnot reached"


def test_an_empty_class_is_left_white():
    run = phase_run()
    run.arrays["class_mean_cosines"][:, 3] = np.nan
    run.arrays["class_mean_cosines"][:, :, 3] = np.nan
    figure = subspace_figures.class_mean_cosines(run)
    masked = np.ma.getmaskarray(figure.axes[0].get_images()[0].get_array())
    assert masked[3].all() and masked[:, 3].all() and masked.sum() == 19


def test_each_plane_shows_the_examples_of_its_two_classes():
    k_peak = PHASE_PEAK // 10
    for axes, k in zip(FIGURES["class_planes"].axes, [1, 2, 3, 4], strict=True):
        clouds = [c for c in axes.collections if isinstance(c, PathCollection)]
        for cloud, label in zip(clouds, conventions.PAIRS[k], strict=True):
            members = RUN.arrays["probable_class"][k_peak] == label
            expected = RUN.arrays["plane_coordinates"][k_peak, k][members]
            np.testing.assert_allclose(cloud.get_offsets(), expected)
            assert conventions.CIFAR10[label] in cloud.get_label()
            assert "0.55" in cloud.get_label()  # ρ = √0.3


def test_resultant_lengths_are_square_roots_of_the_diagonal():
    _, values = line(FIGURES["mean_resultant_lengths"], "dog")
    np.testing.assert_allclose(values, np.sqrt(0.3))
    _, random = line(FIGURES["mean_resultant_lengths"], "random")
    assert random[0] == pytest.approx(1 / np.sqrt(50))


def test_alignments_are_drawn_as_measured():
    left, middle, right = FIGURES["alignment"].axes
    series = RUN.series
    step = series["step"]
    mean, low, high, correct = (series[f"descent_cosine_{part}"] for part in COSINES)
    draws(left.get_lines()[0], step, series["gradient_alignment"])
    for drawn, values in zip(middle.get_lines(), (mean, correct), strict=True):
        draws(drawn, step, values)
    fills(middle.collections[0], step, low, high)
    empty = series["classes_present"] < 10
    solid, filled, hollow = (right.get_lines()[k::3] for k in range(3))
    for k, name in enumerate(("subspace_alignment_gradient", "subspace_alignment_top")):
        draws(solid[k], step, series[name])
        draws(filled[k], step[~empty], series[name][~empty])
        draws(hollow[k], step[empty], series[name][empty])


def test_alignment_is_hollow_where_a_class_is_empty():
    figure = FIGURES["alignment"]
    _, dashed = line(figure, "random")
    assert dashed[0] == pytest.approx(511_926**-0.5)
    markers = [x for x in figure.axes[2].get_lines() if x.get_linestyle() == "None"]
    hollow = [x for x in markers if x.get_markerfacecolor() == "white"]
    assert len(hollow) == 2 and all(points(x)[0].max() == 49 for x in hollow)


def test_histograms_are_shares_of_all_values():
    left, right = FIGURES["eigenvector_images"].axes
    stretch, cos_sq = RUN.arrays["stretch_counts"], RUN.arrays["cos_sq_counts"]
    for stairs, counts, bins in zip(
        (*left.patches, *right.patches),
        (stretch.sum((0, 1)), stretch[:, 0].sum(0), cos_sq.sum(0)),
        (conventions.STRETCH_BINS, conventions.STRETCH_BINS, conventions.COS_SQ_BINS),
        strict=True,
    ):
        values, edges, _ = stairs.get_data()
        np.testing.assert_allclose(values, counts / counts.sum())
        np.testing.assert_array_equal(edges, bins)
    assert [stairs.get_label() for stairs in left.patches] == ["all $i < C$", "$i = 1$"]


def test_the_largest_eigenvalues_of_g_are_drawn_by_rank_a_line_for_each_step():
    axes = FIGURES["largest_eigenvalues"].axes[0]
    *curves, dashed = axes.get_lines()
    for drawn, values in zip(curves, with_outliers(10, 5).arrays["outlier_values"], strict=True):
        rank, y = points(drawn)
        np.testing.assert_array_equal(rank, np.arange(1, 21))
        np.testing.assert_array_equal(y, values)
    assert axes.get_yscale() == "log"
    assert set(points(dashed)[0]) == {10}
