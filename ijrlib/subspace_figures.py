"""Plots of eigenvectors, class means and alignments: Figures 8 to 11 and 27 to 31.

As in :mod:`ijrlib.figures`: each function takes stored runs and returns a matplotlib Figure.  The
paper's steps are translated to ours by :mod:`ijrlib.phases`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator

from ijrlib import phases
from ijrlib.conventions import CIFAR10, COS_SQ_BINS, PAIRS, STRETCH_BINS
from ijrlib.criteria import NotMeasured
from ijrlib.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    array,
    measured,
    styled,
)
from ijrlib.subspace_criteria import at_stage, resultant_lengths

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def _grid(count: int, size: float, most: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with so many square panels, at most ``most`` in a row."""
    columns = min(count, most)
    rows = -(-count // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(size * columns + 0.6, size * rows + 0.3), squeeze=False
    )
    for axes in panels.flat[count:]:
        axes.remove()
    return figure, list(panels.flat[:count])


def _at_stages(run: Any, name: str, paper_steps: Sequence[int]) -> list[tuple[Any, str]]:
    """The matrix at each stage with its title; None where the run does not get there."""
    found: list[tuple[Any, str]] = []
    for paper_step in paper_steps:
        try:
            matrix, step = at_stage(run, name, paper_step)
        except NotMeasured:
            found.append((None, f"{phases.STAGES[paper_step]}:\nnot reached"))
        else:
            found.append((matrix, f"step {step}:\n{phases.STAGES[paper_step]}"))
    return found


# -- Figures 8 and 27 ------------------------------------------------------------------------------


@styled
def scaled_eigenvectors(run: Any, paper_steps: Sequence[int] = (1000,)) -> Figure:
    """⟨QΛ^½⟩ in sorted order, a heat map for each of the paper's steps, all on one scale; the
    entries (i, i) and (i + 1, i) are framed.  With a single panel the numbers are printed in it; a
    panel whose stage is not reached is empty."""
    figure, panels = _grid(len(paper_steps), 2.5 if len(paper_steps) > 1 else 4.6)
    matrices = _at_stages(run, "q_sqrt_lambda", paper_steps)
    limit = max((float(np.abs(m).max()) for m, _ in matrices if m is not None), default=1.0)
    for axes, (matrix, title) in zip(panels, matrices, strict=True):
        axes.set_title(title, fontsize=8)
        if matrix is None:
            axes.set_axis_off()
            continue
        axes.imshow(matrix, vmin=-limit, vmax=limit)
        classes = len(matrix)
        ticks = np.arange(classes)
        axes.set_xticks(ticks, [str(i + 1) for i in ticks])
        axes.set_yticks(ticks, [f"({i + 1})" for i in ticks])
        axes.grid(False)
        for i in range(classes - 1):
            frame = {"fill": False, "edgecolor": GREY, "linestyle": "--", "linewidth": 0.7}
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 2, **frame))
        if len(panels) == 1:
            _print_entries(axes, matrix, limit)
            axes.set(xlabel=r"column $i$: $\sqrt{\lambda^{(i)}}\,q^{(i)}$", ylabel="class by rank")
    scale = ScalarMappable(Normalize(-limit, limit))
    figure.colorbar(scale, ax=panels, shrink=0.8, label=r"$\langle Q\Lambda^{1/2}\rangle$")
    return figure


def _print_entries(axes: Axes, matrix: np.ndarray, limit: float) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if abs(value) >= 0.005:
            color = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value:.2f}".replace("0.", ".").replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)


# -- Figures 9 and 28 to 30 ------------------------------------------------------------------------


@styled
def class_planes(run: Any, pairs: Sequence[int]) -> Figure:
    """The directions m_x/‖m_x‖ of two classes in the plane of their class means, a panel for each
    pair, at the stage of the paper's step 1000; arrows show the two means, the circle has radius 1.

    Args:
        pairs: indices into ``conventions.PAIRS``.
    """
    figure, panels = _grid(len(pairs), 3.1, most=2)
    lengths = resultant_lengths(run)
    for axes, k in zip(panels, pairs, strict=True):
        one, other = PAIRS[k]
        coordinates, step = at_stage(run, "plane_coordinates")
        classes, _ = at_stage(run, "probable_class")
        cosine = float(at_stage(run, "class_mean_cosines")[0][one, other])
        index = phases.nearest(run, "resultant_products", step)
        arrows = ((1.0, 0.0), (cosine, np.sqrt(max(0.0, 1 - cosine**2))))
        for label, color, marker, arrow in zip(
            (one, other), (BLUE, VERMILION), ("o", "^"), arrows, strict=True
        ):
            points = coordinates[k][classes == label]
            axes.scatter(
                points[:, 0], points[:, 1], s=9, color=color, marker=marker, alpha=0.45,
                linewidths=0, label=rf"{CIFAR10[label]}, $\rho$ = {lengths[index, label]:.2f}",
            )  # fmt: skip
            if np.isfinite(arrow).all():
                axes.annotate(
                    "", arrow, (0, 0),
                    arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.4},
                )  # fmt: skip
        axes.add_patch(Circle((0, 0), 1, fill=False, color=GREY, linewidth=0.8))
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
        axes.set(xlabel="along the first mean", ylabel="orthogonal to it")
        axes.set_title(f"step {step}, cosine of the means {cosine:.2f}".replace("-", "−"))
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, markerscale=2
        )
    return figure


@styled
def class_mean_cosines(run: Any, paper_steps: Sequence[int] = (1000,)) -> Figure:
    """Cosines between the ⟨m⟩_{D_i}, a heat map for each of the paper's steps; white where a D_i is
    empty.  With a single panel the numbers are printed in it; a panel whose stage is not
    reached is empty."""
    figure, panels = _grid(len(paper_steps), 2.6 if len(paper_steps) > 1 else 4.6)
    matrices = _at_stages(run, "class_mean_cosines", paper_steps)
    for axes, (matrix, title) in zip(panels, matrices, strict=True):
        axes.set_title(title, fontsize=8)
        if matrix is None:
            axes.set_axis_off()
            continue
        axes.imshow(np.ma.masked_invalid(matrix), vmin=-1, vmax=1)
        ticks = np.arange(len(matrix))
        single = len(panels) == 1
        names = CIFAR10 if single else [name[:2] for name in CIFAR10]
        axes.set_xticks(ticks, names, rotation=90, fontsize=7.5)
        axes.set_yticks(ticks, names, fontsize=7.5)
        axes.grid(False)
        if single:
            _print_entries(axes, np.nan_to_num(matrix), 1.0)
    scale = ScalarMappable(Normalize(-1, 1))
    figure.colorbar(scale, ax=panels, shrink=0.8, label="cosine of the class means")
    return figure


@styled
def mean_resultant_lengths(run: Any) -> Figure:
    """ρ of each D_i against the step (Figure 29), a curve a class; a gap where D_i is empty.
    Dotted: 1/√|D_i| of random directions, for the mean |D_i|."""
    lengths, counts = resultant_lengths(run), array(run, "class_counts")
    steps = np.asarray(run.arrays["resultant_products.steps"])
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    for i in range(lengths.shape[1]):
        style = "-" if i < len(COLORS) else "--"
        axes.plot(
            steps, lengths[:, i], color=COLORS[i % len(COLORS)], linestyle=style, marker=".",
            markersize=4, label=CIFAR10[i],
        )  # fmt: skip
    random = 1 / np.sqrt(counts.sum(1).mean() / counts.shape[1])
    axes.axhline(random, color=GREY, linestyle=":", linewidth=1.2, label="random directions")
    axes.set(xlabel="step", ylabel=r"mean resultant length $\rho$", ylim=(0, 1.02))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


# -- Figures 10, 11 and 31 -------------------------------------------------------------------------


@styled
def alignment(run: Any) -> Figure:
    """Left, |cos(g_D, r)| with the 1/√m of random vectors dashed; middle, cos(−g_x, Jq^(1)): mean
    and 25–75% band over the examples, and the median over those classified right; right, AS of g_D
    and of r in the span of the class means, hollow where some D_i is empty."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.4, 3.6))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
    frame = measured(run, "gradient_alignment")
    left.plot(frame["step"], frame["gradient_alignment"], color=BLUE, linewidth=0.9)
    random = float(run.provenance["parameters"]) ** -0.5
    left.axhline(random, color=GREY, linestyle="--", linewidth=1.1, label=r"random: $1/\sqrt{m}$")
    left.set(xlabel="step", ylabel=r"$|\cos(g_D, r)|$", yscale="log")
    left.legend(**below)

    names = ("descent_cosine_mean", "descent_cosine_q25", "descent_cosine_q75")
    frame = measured(run, *names)
    middle.fill_between(
        frame["step"], frame[names[1]], frame[names[2]], color=SKY, alpha=0.45, linewidth=0,
        label="25–75%",
    )  # fmt: skip
    middle.plot(frame["step"], frame[names[0]], color=BLUE, label="mean")
    correct = measured(run, "descent_cosine_correct")
    middle.plot(
        correct["step"], correct["descent_cosine_correct"], color=VERMILION, linestyle="--",
        label="classified right, median",
    )  # fmt: skip
    middle.set(xlabel="step", ylabel=r"$\cos(-g_x, J q^{(1)})$", ylim=(-1.05, 1.05))
    middle.legend(**below)

    for name, label, color, marker in (
        ("subspace_alignment_gradient", r"$g_D$", BLUE, "o"),
        ("subspace_alignment_top", r"$r$", VERMILION, "^"),
    ):
        frame = measured(run, name, "classes_present")
        full = frame["classes_present"] == len(CIFAR10)
        right.plot(frame["step"], frame[name], color=color, linewidth=0.8)
        dots = {"color": color, "marker": marker, "markersize": 3.5, "linestyle": "none"}
        right.plot(frame["step"][full], frame[name][full], label=label, **dots)
        right.plot(frame["step"][~full], frame[name][~full], markerfacecolor="white", **dots)
    right.set(xlabel="step", ylabel="AS in the class means", ylim=(0, 1.05))
    right.legend(**below)
    return figure


@styled
def largest_eigenvalues(run: Any) -> Figure:
    """The 2C largest eigenvalues of G by rank on a logarithmic axis, a line for each step at which
    they were computed; C dashed."""
    values = array(run, "outlier_values")
    steps = np.asarray(run.arrays["outlier_values.steps"])
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    colors = Normalize(steps.min(), max(steps.max(), steps.min() + 1))
    shades = plt.get_cmap("viridis")
    rank = np.arange(1, values.shape[1] + 1)
    for row, step in zip(values, steps, strict=True):
        axes.plot(rank, row, color=shades(colors(step)), marker="o", markersize=2.5, linewidth=0.9)
    axes.axvline(values.shape[1] // 2, color=GREY, linestyle="--", linewidth=1.1, label="$C$")
    axes.set(xlabel="rank $i$", ylabel=r"$\lambda_i(G)$ on the probe", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    figure.colorbar(ScalarMappable(colors, shades), ax=axes, label="step")
    return figure


@styled
def eigenvector_images(run: Any) -> Figure:
    """Histograms over examples and measured steps of ‖Jq^(i)‖²·C/‖J‖_F² (left; all i < C, and i = 1
    apart) and of cos²(Jq^(i), Jq^(j)), i < j (right), as shares a bin, up to where 99.9% of them
    are; dashed where the paper has them concentrate."""
    stretch = array(run, "stretch_counts").sum(0)
    cos_sq = array(run, "cos_sq_counts").sum(0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    for counts, color, label in (
        (stretch.sum(0), BLUE, r"all $i < C$"),
        (stretch[0], VERMILION, r"$i = 1$"),
    ):
        left.stairs(counts / counts.sum(), STRETCH_BINS, color=color, label=label, linewidth=1.3)
    left.axvline(1, color=GREY, linestyle="--", linewidth=1.1)
    left.set(xlabel=r"$C\,\|Jq^{(i)}\|^2 / \|J\|_F^2$", ylabel="share of the values")
    left.set_xlim(STRETCH_BINS[0], _nearly_all(stretch.sum(0), STRETCH_BINS))
    left.legend()
    right.stairs(cos_sq / cos_sq.sum(), COS_SQ_BINS, color=BLUE, fill=True, alpha=0.6)
    right.axvline(0, color=GREY, linestyle="--", linewidth=1.1)
    right.set(xlabel=r"$\cos^2(Jq^{(i)}, Jq^{(j)})$, $i < j$", ylabel="share of the values")
    right.set_xlim(-0.01, _nearly_all(cos_sq, COS_SQ_BINS))
    return figure


def _nearly_all(counts: np.ndarray, bins: np.ndarray) -> float:
    """The edge of a histogram's bins below which 99.9% of the values lie."""
    shares = np.cumsum(counts) / counts.sum()
    return float(bins[1:][np.searchsorted(shares, 0.999)])
