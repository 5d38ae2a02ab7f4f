"""One function for each kind of plot; each returns a matplotlib Figure in the book's style.

Functions take stored runs (:class:`ijrlib.store.Run`) or arrays, draw what was measured and compute
nothing that a claim rests on.  A quantity has the same colour and symbol in every figure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from ijrlib import benchmarks, logits

STYLE = Path(__file__).with_name("ijr.mplstyle")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
GREY = "#57606A"
FAR = 10
FEW = 60
"""A curve of at most this many points gets markers."""


class Quantity(NamedTuple):
    """How a column of a run's series is written and coloured."""

    label: str
    color: str


QUANTITIES = {
    "sharpness": Quantity(r"sharpness $\|H\|$", BLUE),
    "jacobian_norm_sq": Quantity(r"Jacobian norm $\|\langle J\rangle\|^2$", VERMILION),
    "jacobian_ones_sq": Quantity(r"$\|\langle J\rangle\hat 1\|^2$", ORANGE),
    "impurity_mean": Quantity(r"impurity $\langle\lambda^{(1)}\rangle$", GREEN),
    "gauss_newton_norm": Quantity(r"$\|G\|$", SKY),
    "theorem_2_mean": Quantity(r"$\langle\lambda^*\|J\|^2\rangle$", "#000000"),
    "theorem_2_bound": Quantity(r"$\langle\lambda^{(1)}\|J\|^2\rangle$", PURPLE),
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the book's style sheet, and close the figure, so that a notebook shows it once."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with plt.style.context(STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return drawn


def measured(run: Any, *names: str) -> Any:
    """Rows of the series in which all the named columns are finite.

    Raises:
        ValueError: where a column is absent or holds no finite value.
    """
    absent = [name for name in names if name not in run.series.columns]
    if absent:
        raise ValueError(
            f"{run.config.name} has no column {', '.join(absent)}; "
            f"columns: {', '.join(run.series.columns)}"
        )
    frame = run.series[["step", *names]]
    frame = frame[np.isfinite(frame.to_numpy(dtype=float)).all(axis=1)]
    if frame.empty:
        raise ValueError(f"{run.config.name} has no step with finite {', '.join(names)}")
    return frame


def array(run: Any, name: str) -> np.ndarray:
    """An array of the run, as numbers.

    Raises:
        ValueError: where the run has none of this name.
    """
    if name not in run.arrays:
        raise ValueError(
            f"{run.config.name} has no array {name}; arrays: {', '.join(sorted(run.arrays))}"
        )
    return np.asarray(run.arrays[name], dtype=float)


def curve(axes: Axes, frame: Any, name: str, **style: Any) -> None:
    """A column against the step in the colour of its quantity."""
    quantity = QUANTITIES[name]
    defaults = {
        "color": quantity.color,
        "label": quantity.label,
        "marker": "." if len(frame) <= FEW else None,
    }
    axes.plot(frame["step"], frame[name], **{**defaults, **style})


def threshold(axes: Axes, lr: float, label: str = r"$2/\eta$") -> None:
    """2/η, dashed."""
    axes.axhline(2 / lr, color=GREY, linestyle="--", linewidth=1.1, label=label)


@styled
def overview(run: Any) -> Figure:
    """Training loss (logarithmic), ‖H‖ with 2/η and ⟨λ^(1)⟩ against the step; a panel without
    measurements says so."""
    names = ("train_loss", "sharpness", "impurity_mean")
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.8))
    for axes, name in zip(panels, names, strict=True):
        label = QUANTITIES[name].label if name in QUANTITIES else "training loss"
        axes.set(xlabel="step", ylabel=label)
        if name not in run.series:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            continue
        values = run.series[["step", name]].dropna()
        if name == "train_loss":
            axes.plot(values["step"], values[name], color=GREY)
            axes.set_yscale("log")
        else:
            curve(axes, values, name)
    threshold(panels[1], run.config.lr)
    return figure


@styled
def monitored(frame: Any) -> Figure:
    """What :class:`ijrlib.monitor.CurvatureMonitor` has recorded: sharpness with the threshold,
    ‖⟨J⟩‖² and ⟨λ^(1)⟩ against the step; a quantity without numbers says so.  The sharpness is on a
    logarithmic axis where the threshold is ``FAR`` times as high.

    Args:
        frame: its ``frame()``.
    """
    names = ("sharpness", "jacobian_norm_sq", "impurity_mean")
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.8))
    for axes, name in zip(panels, names, strict=True):
        axes.set(xlabel="step", ylabel=QUANTITIES[name].label)
        if frame[name].isna().all():
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        else:
            curve(axes, frame, name)
    limit = frame["threshold"].replace(np.inf, np.nan)  # infinite where η = 0
    if limit.notna().any():
        dashed = {"color": GREY, "linestyle": "--", "linewidth": 1.1, "drawstyle": "steps-post"}
        panels[0].plot(frame["step"], limit, label="threshold", **dashed)
        if limit.max() > FAR * frame["sharpness"].max() > 0:
            panels[0].set_yscale("log")
        panels[0].legend()
    return figure


def _colored_axis(axes: Axes, side: str, quantity: Quantity) -> None:
    axes.set_ylabel(quantity.label, color=quantity.color)
    axes.tick_params(axis="y", labelcolor=quantity.color, color=quantity.color)
    axes.spines[side].set_visible(True)
    axes.spines[side].set_color(quantity.color)


def plain_if_few(axes: Axes) -> None:
    """:func:`plain_ticks` of a logarithmic y axis with too few powers of ten to read numbers from,
    and evenly spaced ones where there are too few of these."""
    low, high = axes.get_ylim()
    if high < 100 * low:
        plain_ticks(axes.yaxis)
    if high < 4 * low:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def plain_ticks(axis: Axis) -> None:
    """1, 2 and 5 times powers of ten on a logarithmic axis, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


# -- theory ----------------------------------------------------------------------------------------


def positive_probabilities(p: Any) -> np.ndarray:
    """p as an array of shape (C,): what Figure 1 can draw, since v has no pole at a zero of p.

    Raises:
        ValueError: where p is no vector of positive probabilities.
    """
    p = np.asarray(p, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"expected one probability vector, got shape {p.shape}")
    logits.check_probabilities(p)
    if (p == 0).any():
        raise ValueError(f"expected positive probabilities, but entry {int(p.argmin())} is 0")
    return p


@styled
def secular_function(p: Any) -> Figure:
    """Figure 1: v(λ) = 1 − Σ p_i²/(p_i − λ), its poles at the p_(i) and its roots, the λ^(i).

    Equal entries share one pole, where λ^(i) = p_(i) = p_(i+1) is deflated (Theorem 1) and no root
    of v: a square in place of a dot.  What shares a place has one label, with its smallest rank i.

    Args:
        p: positive probabilities, shape (C,).

    Raises:
        ValueError: where p is no vector of positive probabilities.
    """
    p = np.sort(positive_probabilities(p))[::-1]
    poles = np.unique(p)[::-1]
    values, _ = logits.eigensystem(p)
    deflated = np.append(p[:-1] == p[1:], False)
    clip, largest = 3.0, float(poles[0])
    edges = [-0.12 * largest, *(float(pole) for pole in poles[::-1]), 1.4 * largest]
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    for left, right in pairwise(edges):
        # cosine spacing: dense beside the poles, where v runs off to infinity
        grid = left + (right - left) * (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 1500)))[1:-1]
        v = logits.secular(p, grid)
        v = np.where(np.abs(v) <= clip, v, np.nan)
        axes.plot(grid, v, color=BLUE, label=r"$v(\lambda)$" if left == edges[0] else None)
    for pole in poles:
        i = 1 + int((p > pole).sum())
        label = r"poles $p_{(i)}$" if i == 1 else None
        axes.axvline(pole, color=VERMILION, linewidth=1.0, label=label)
        place = (pole, 1.02)
        axes.annotate(
            f"$p_{{({i})}}$",
            place,
            xycoords=("data", "axes fraction"),
            ha="center",
            color=VERMILION,
        )
    axes.axhline(0, color=GREY, linewidth=0.8)
    for marker, kind, chosen in (("o", "roots", ~deflated), ("s", "deflated", deflated)):
        if chosen.any():
            label = rf"{kind} $\lambda^{{(i)}}$"
            place = values[chosen]
            axes.plot(place, 0 * place, marker, color="black", ms=4.5, ls="none", label=label)
    for value in np.unique(values):
        i = 1 + int((values > value).sum())
        axes.annotate(
            rf"$\lambda^{{({i})}}$", (value, 0), xytext=(4, 5), textcoords="offset points"
        )
    axes.set(
        xlabel=r"$\lambda$",
        ylabel=r"$v(\lambda)$",
        ylim=(-clip, clip),
        xlim=(edges[0], edges[-1]),
    )
    axes.grid(False)
    axes.legend(loc="lower right")
    return figure


@styled
def theorem_2(run: Any) -> Figure:
    """Theorem 2 along a run: left, ‖H‖, ‖G‖, ⟨λ*‖J‖²⟩ and the bound ⟨λ^(1)‖J‖²⟩ against the step;
    right, λ* against λ^(1) for every probe example at the first, a middle and the last such
    step."""
    names = ("gauss_newton_norm", "theorem_2_mean", "theorem_2_bound")
    frame = measured(run, *names)
    star, top = array(run, "lambda_star"), array(run, "lambda_1")
    steps = np.asarray(run.arrays["lambda_star.steps"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), width_ratios=(1.2, 1))
    if "sharpness" in run.series:
        curve(left, measured(run, "sharpness"), "sharpness", linewidth=0.8, marker=None)
    only = {"linestyle": "none", "zorder": 3}  # measured at few steps: no line suggests more
    curve(left, frame, "theorem_2_bound", marker="s", markersize=4, **only)
    curve(left, frame, "gauss_newton_norm", marker="o", markersize=7, **only)
    curve(left, frame, "theorem_2_mean", marker="o", markersize=2.5, **only)
    threshold(left, run.config.lr)
    left.set(xlabel="step", ylabel="largest eigenvalue", yscale="log")
    left.legend(ncols=2)

    chosen = sorted({0, len(steps) // 2, len(steps) - 1})
    for index, color, marker in zip(chosen, (SKY, ORANGE, GREEN), ("o", "s", "^"), strict=False):
        right.scatter(
            top[index], star[index], s=9, color=color, marker=marker, alpha=0.6, linewidths=0,
            label=f"step {steps[index]}",
        )  # fmt: skip
    shown = star[chosen][star[chosen] > 0]
    low = max(shown.min(), 1e-9) if shown.size else 1e-9
    ends = np.array([min(low, top[chosen].min(initial=low)), 0.6])
    right.plot(
        ends, ends, color=GREY, linestyle="--", linewidth=1.1, label=r"$\lambda^*=\lambda^{(1)}$"
    )
    right.set(xscale="log", yscale="log", xlabel=r"$\lambda^{(1)}_x$", ylabel=r"$\lambda^*_x$")
    right.legend(loc="lower right")
    return figure


@styled
def convergence(errors: Mapping[str, Any], ylabel: str, tolerance: float | None = None) -> Figure:
    """Relative error of an iteration against the number of iterations, on a log scale.

    Args:
        errors: label → errors after iteration 1, 2, …; shape (K,), or (n, K) for n cases, of which
            the median and the 10–90% range are drawn.
        ylabel: what the error is of.
        tolerance: drawn as a dashed line.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    for label, values in errors.items():
        values = np.atleast_2d(np.maximum(np.asarray(values, dtype=float), np.finfo(float).eps))
        iterations = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(iterations, np.median(values, axis=0), marker=".", label=label)
        if len(values) > 1:
            low, high = np.quantile(values, (0.1, 0.9), axis=0)
            axes.fill_between(
                iterations, low, high, color=line.get_color(), alpha=0.15, linewidth=0
            )
    if tolerance is not None:
        axes.axhline(tolerance, color=GREY, linestyle="--", linewidth=1.1, label="tolerance")
    axes.set(xlabel="iteration", ylabel=ylabel, yscale="log")
    axes.legend()
    return figure


@styled
def iterations_against_gap(ratio: Any, iterations: Any, predicted: Any) -> Figure:
    """Iterations that power iteration needed against λ^(2)/λ^(1), beside the predicted number.

    Args:
        ratio: λ^(2)/λ^(1) of each case, shape (n,).
        iterations: measured number of iterations, shape (n,); NaN where the limit was hit.
        predicted: number predicted from the ratio, shape (n,).
    """
    ratio, iterations = np.asarray(ratio, dtype=float), np.asarray(iterations, dtype=float)
    order = np.argsort(ratio)
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    axes.scatter(ratio, iterations, s=10, color=BLUE, alpha=0.5, linewidths=0, label="measured")
    axes.plot(
        ratio[order], np.asarray(predicted)[order], color=VERMILION, label="predicted from the gap"
    )
    axes.set(xlabel=r"$\lambda^{(2)}/\lambda^{(1)}$", ylabel="iterations", yscale="log")
    axes.legend(loc="upper left")
    return figure


# -- impurity --------------------------------------------------------------------------------------


def typical_example(run: Any) -> int:
    """Index of the tracked example whose impurity, averaged over the measured steps, is the median
    of those tracked (the lower one of two)."""
    means = array(run, "tracked_impurity").mean(axis=0)
    return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])


@styled
def impurity_path(run: Any) -> Figure:
    """Figure 2 left: λ^(1) of the :func:`typical_example` against its p_(1), between the bounds of
    Theorem 1; a dot a step, whose colour tells the step."""
    index = typical_example(run)
    p1, impurity = array(run, "tracked_p1")[:, index], array(run, "tracked_impurity")[:, index]
    steps = np.asarray(run.arrays["tracked_impurity.steps"], dtype=float)
    grid = np.linspace(0, 1, 401)
    lower, upper = grid * (1 - grid), np.minimum(grid, 2 * grid * (1 - grid))
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    axes.fill_between(grid, lower, upper, color=SKY, alpha=0.12, linewidth=0)
    axes.plot(grid, upper, color=VERMILION, label=r"$\min\{p_{(1)},\,\mathrm{Gini}(p_{(1)})\}$")
    axes.plot(grid, lower, color=BLUE, label=r"$\frac{1}{2}\,\mathrm{Gini}(p_{(1)})$")
    dots = axes.scatter(p1, impurity, c=steps, cmap="viridis", s=9, zorder=3, label="one example")
    figure.colorbar(dots, ax=axes, label="step", pad=0.02)
    axes.set(xlabel=r"$p_{(1)}$", ylabel=r"impurity $\lambda^{(1)}$", xlim=(0, 1), ylim=(0, 0.53))
    axes.legend(loc="upper left")
    return figure


@styled
def impurity_evolution(run: Any) -> Figure:
    """Figure 2 right: ⟨λ^(1)⟩ and its 25–75% band against the step."""
    frame = measured(run, "impurity_mean", "impurity_q25", "impurity_q75")
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    axes.fill_between(
        frame["step"], frame["impurity_q25"], frame["impurity_q75"],
        color=SKY, alpha=0.45, linewidth=0, label="25–75% of the examples",
    )  # fmt: skip
    curve(axes, frame, "impurity_mean", color=BLUE, label=r"mean $\langle\lambda^{(1)}\rangle$")
    axes.set(xlabel="step", ylabel=r"impurity $\lambda^{(1)}$")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


# -- sharpness and Jacobian ------------------------------------------------------------------------


@styled
def sharpness_and_jacobian(run: Any) -> Figure:
    """Figure 3: ‖H‖ (left axis) and ‖⟨J⟩‖² (right axis), a panel for each window of the curvature
    schedule that the run has come to; 2/η dashed.  The right axis is the left one times the ratio
    of the two means in the window, so that the curves coincide where the factor ‖H‖/‖⟨J⟩‖² has its
    typical value."""
    frame = measured(run, "sharpness", "jacobian_norm_sq")
    windows = [
        (start, stop)
        for start, stop, _ in run.config.windows("curvature")
        if frame["step"].between(start, stop - 1).any()
    ]
    if not windows:
        raise ValueError(f"{run.config.name} has no curvature within its schedule")
    figure, row = plt.subplots(1, len(windows), figsize=(2.8 * len(windows), 3.0), squeeze=False)
    for axes, (start, stop) in zip(row[0], windows, strict=True):
        part = frame[frame["step"].between(start, stop - 1)]
        ratio = part["jacobian_norm_sq"].mean() / part["sharpness"].mean()
        highest = max(part["sharpness"].max(), part["jacobian_norm_sq"].max() / ratio)
        top = 1.06 * max(highest, 2 / run.config.lr)
        twin = axes.twinx()
        curve(axes, part, "sharpness", linewidth=1.0)
        curve(twin, part, "jacobian_norm_sq", linewidth=1.0)
        threshold(axes, run.config.lr)
        axes.set(xlabel="step", title=f"steps {start}–{min(stop - 1, run.config.steps)}")
        axes.set_ylim(0, top)
        twin.set_ylim(0, top * ratio)
        twin.grid(False)
        _colored_axis(axes, "left", QUANTITIES["sharpness"])
        _colored_axis(twin, "right", QUANTITIES["jacobian_norm_sq"])
        if axes is not row[0][0]:
            axes.set_ylabel("")
        if axes is not row[0][-1]:
            twin.set_ylabel("")
    row[0][0].legend(handles=[row[0][0].get_lines()[-1]], loc="center left")
    return figure


# -- benchmarks ------------------------------------------------------------------------------------

CONTENDERS = {
    "ijrlib": (BLUE, "o"),
    "PyHessian": (VERMILION, "s"),
    "PyHessian, default": (ORANGE, "P"),
    "curvlinops + eigsh": (GREEN, "^"),
    "curvlinops + LOBPCG": (PURPLE, "D"),
}
"""Colour and marker of each tool for the sharpness."""

GROWING = {
    "gradient": (GREY, "."),
    "full measurement, cold": (BLUE, "o"),
    "‖⟨J⟩‖": (VERMILION, "s"),
    "‖J_x‖ of all examples": (PURPLE, "D"),
    "impurity": (GREEN, "^"),
}
"""Colour and marker of what grows."""


@styled
def cost_against_error(documents: Sequence[benchmarks.Document]) -> Figure:
    """Worst error of the sharpness against its median cost in gradients, a panel for each stored
    result; open markers start cold, filled ones from the step before."""
    documents = [d for d in documents if benchmarks.rows_of(d, "sharpness")]
    count = max(len(documents), 1)
    figure, (panels,) = plt.subplots(1, count, figsize=(max(7.2, 3.6 * count), 4), squeeze=False)
    for axes, document in zip(panels, documents, strict=False):
        for found in benchmarks.rows_of(document, "sharpness"):
            if found["gradients"] is None or found["error"] is None:
                continue
            name, warm = found["contender"], found["case"].startswith("warm")
            color, marker = CONTENDERS[name]
            place = found["gradients"][1], max(found["error"][1], 1e-8)
            face = color if warm else "none"
            axes.plot(*place, marker, color=color, markerfacecolor=face, label=name)
        for accuracy in (5e-3, 1e-4):
            axes.axhline(accuracy, color=GREY, linestyle="--", linewidth=1.1)
        axes.set(xscale="log", yscale="log", title=document["provenance"]["machine"])
        plain_ticks(axes.xaxis)
    for axes in panels:
        axes.set(xlabel="cost (gradients)", ylabel=r"worst relative error of $\|H\|$")
    _legend_below(figure)
    return figure


@styled
def growth(documents: Sequence[benchmarks.Document]) -> Figure:
    """Seconds against the number of examples, parameters and classes, a row for each stored
    result."""
    cases = ("examples", "parameters", "classes")
    documents = [d for d in documents if benchmarks.rows_of(d, "growth")]
    count = max(len(documents), 1)
    figure, rows = plt.subplots(count, 3, figsize=(9, 0.6 + 2.9 * count), squeeze=False)
    for row, document in zip(rows, documents, strict=False):
        found = benchmarks.rows_of(document, "growth")
        for axes, case in zip(row, cases, strict=True):
            for name, (color, marker) in GROWING.items():
                sizes_of = [r for r in found if (r["case"], r["contender"]) == (case, name)]
                seconds = [r["seconds"][1] for r in sizes_of]
                sizes = [r["size"] for r in sizes_of]
                told = name.replace("J_x", "$J_x$")
                axes.plot(sizes, seconds, color=color, marker=marker, label=told)
            axes.set(xscale="log", yscale="log")
            plain_ticks(axes.xaxis)
            if case == "parameters":
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        row[0].set_title(document["provenance"]["machine"])
    for row in rows:
        row[0].set_ylabel("seconds")
        for axes, case in zip(row, cases, strict=True):
            axes.set_xlabel(case)
    _legend_below(figure)
    return figure


def _legend_below(figure: Figure) -> None:
    """One legend for all panels, each label once."""
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    named = {str(x.get_label()): x for x in lines if not str(x.get_label()).startswith("_")}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
