"""Plots of the companion paper on the sharpest directions (Jastrzebski et al. 2019).

As in :mod:`ijrlib.figures`: each function takes stored runs and returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ijrlib import phases
from ijrlib.conventions import STEP_FACTORS, SURFACE_DIRECTIONS, SURFACE_POINTS
from ijrlib.criteria import NotMeasured
from ijrlib.evolution_figures import COLORS, STYLES, values_of
from ijrlib.evolution_figures import setting as plain_setting
from ijrlib.figures import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    array,
    plain_if_few,
    plain_ticks,
    styled,
)
from ijrlib.sharpest_criteria import (
    EARLY,
    alignment,
    changes,
    eigenvalue,
    frobenius_error,
    loss,
    random_alignment,
)

TIME = r"time $\eta t$"


def setting(run: Any, by: str) -> str:
    """Such as "η = 0.04", "S = 128", "K = 5" or the name of an update rule."""
    if by == "regularizer":
        names = {"none": "SGD", "sharpest_only": r"only along $e_1$", "nudged": r"without $e_1$"}
        return names[run.config.regularizer]
    if by == "sharpest":
        return f"K = {run.config.sharpest}" if run.config.sharpest else "SGD"
    if by == "gamma":
        return rf"$\gamma$ = {run.config.gamma:g}" if run.config.sharpest else r"SGD ($\gamma$ = 1)"
    if by == "lr_decay_at":
        return f"first stage {run.config.lr_decay_at} steps"
    if by == "momentum":
        return rf"$\beta$ = {run.config.momentum:g}"
    return plain_setting(run, by).replace("B =", "S =")


def _first_seed(runs: Sequence[Any]) -> list[Any]:
    return [run for run in runs if run.config.seed == min(r.config.seed for r in runs)]


def _curve(axes: Axes, run: Any, values: pd.Series, **style: Any) -> None:
    axes.plot(run.config.lr * values.index.to_numpy(dtype=float), values.to_numpy(), **style)


def _accuracies(axes: Axes, run: Any, labelled: bool = True, **style: Any) -> None:
    """Accuracy in training and test, in percent."""
    for name, color, line in (("train", BLUE, "-"), ("test", VERMILION, "--")):
        values = 100 * phases.column(run, f"{name}_accuracy")
        label = ("training" if name == "train" else "test") if labelled else None
        _curve(axes, run, values, color=color, linestyle=line, label=label, **style)


@styled
def eigenvalues(runs: Sequence[Any]) -> Figure:
    """A column for each η, its first seed: above, the largest eigenvalues of H, from dark to light,
    and 2/η, dotted; in the middle, their beginning; below, accuracy in training and test."""
    chosen = _first_seed(runs)
    figure, grid = plt.subplots(3, len(chosen), figsize=(8.4, 7.0), squeeze=False)
    for column, run in zip(grid.T, chosen, strict=True):
        whole, beginning, accuracy = column
        count = array(run, "top_values").shape[1]
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, count))
        for i in range(1, count + 1):
            values = eigenvalue(run, i)
            _curve(whole, run, values, color=colors[i - 1], linewidth=1)
            early = values.loc[values.index <= EARLY * run.config.steps]
            _curve(beginning, run, early, color=colors[i - 1], linewidth=1, marker=".", ms=3)
        for axes in (whole, beginning):
            axes.set_yscale("log")
            axes.set_ylabel("eigenvalues of H")
        whole.axhline(2 / run.config.lr, color=GREY, linestyle=":", label=r"2/$\eta$")
        whole.legend()
        whole.set_title(setting(run, "lr"))
        _accuracies(accuracy, run)
        accuracy.set(xlabel=TIME, ylabel="accuracy (%)")
        accuracy.legend()
    return figure


@styled
def instability(runs: Sequence[Any]) -> Figure:
    """‖H‖ in units of 2/η and accuracy in training and test against time, a column for each η, the
    seeds after the first in a lighter colour."""
    lrs = values_of(runs, "lr")
    figure, grid = plt.subplots(2, len(lrs), figsize=(8.4, 4.4), sharey="row", squeeze=False)
    for (above, below), lr in zip(grid.T, lrs, strict=True):
        some = sorted((r for r in runs if r.config.lr == lr), key=lambda r: -r.config.seed)
        for run in some:  # the first seed on top
            style = {"alpha": 1.0 if run is some[-1] else 0.4, "linewidth": 0.8}
            sharpness = phases.column(run, "sharpness") * lr / 2
            _curve(above, run, sharpness, color=BLUE, **style)
            _accuracies(below, run, labelled=run is some[-1], **style)
        above.axhline(1, color=GREY, linestyle=":")
        above.set_title(setting(some[-1], "lr"))
        below.set_xlabel(TIME)
    grid[0, 0].set_ylabel(r"$\|H\|$ in units of 2/$\eta$")
    grid[1, 0].set_ylabel("accuracy (%)")
    grid[1, -1].legend()
    return figure


@styled
def normalized(runs: Sequence[Any]) -> Figure:
    """λ_1 in units of 2/η, logarithmic, and training accuracy against time, a column for each η, a
    colour for either network, a line for each seed."""
    lrs = values_of(runs, "lr")
    figure, grid = plt.subplots(
        2, len(lrs), figsize=(8.4, 4.6), sharex="col", sharey="row", squeeze=False
    )
    for (above, below), lr in zip(grid.T, lrs, strict=True):
        seen = set()
        for run in (r for r in runs if r.config.lr == lr):
            normal = run.config.network.endswith("_bn")
            label = "with batch normalization" if normal else "without"
            style = {"color": ORANGE if normal else BLUE, "linewidth": 1}
            style["linestyle"] = STYLES[int(normal)]
            first = None if label in seen else label
            seen.add(label)
            _curve(above, run, eigenvalue(run, 1) * lr / 2, label=first, **style)
            _curve(below, run, 100 * phases.column(run, "train_accuracy"), **style)
        above.axhline(1, color=GREY, linestyle=":")
        above.set(yscale="log", title=rf"$\eta$ = {lr:g}")
        below.set_xlabel(TIME)
    grid[0, 0].set_ylabel(r"$\lambda_1$ in units of 2/$\eta$")
    grid[1, 0].set_ylabel("training accuracy (%)")
    grid[0, 0].legend()
    return figure


@styled
def peaks(runs: Sequence[Any], by: str) -> Figure:
    """λ_1 (left) and λ_2 (right) against time ηt, a colour for each value of η or S, a line for
    each seed; both axes logarithmic, time from the first measurement after the start.  Dotted, the
    threshold 2(1 + β)/η."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.3), sharey=True)
    for i, axes in enumerate(panels, 1):
        _compared(axes, runs, by, lambda run, i=i: eigenvalue(run, i).loc[1:])
        axes.set(xscale="log", yscale="log", xlabel=TIME, ylabel=rf"$\lambda_{i}$")
        plain_ticks(axes.xaxis)
    _thresholds(panels[0], runs, by)
    panels[0].legend()
    return figure


def _in_order(runs: Sequence[Any], by: str) -> list[Any]:
    """The values of a field: learning rates and batch sizes rising, γ falling from SGD's 1 on."""
    found = values_of(runs, by)
    if by == "gamma":
        return sorted(found, key=lambda gamma: -(gamma or 1))
    return sorted(found) if by in ("lr", "batch_size") else found


def _thresholds(axes: Axes, runs: Sequence[Any], by: str) -> None:
    """2(1 + β)/η of SGD, dotted, in the colour of the value where it differs between them."""
    found = _in_order(runs, by)
    for run in _one_of_each(runs):
        color = COLORS[found.index(getattr(run.config, by))] if by in ("lr", "momentum") else GREY
        level = 2 * (1 + run.config.momentum) / run.config.lr
        axes.axhline(level, color=color, linestyle=":", linewidth=0.9)


def _one_of_each(runs: Sequence[Any]) -> list[Any]:
    """The first run of each learning rate and momentum."""
    return list({(r.config.lr, r.config.momentum): r for r in reversed(runs)}.values())


def _compared(
    axes: Axes,
    runs: Sequence[Any],
    by: str,
    values: Callable[[Any], pd.Series],
    draw: Callable[..., None] = _curve,
) -> None:
    """A colour and a style for each value of a field, a line for each seed."""
    for k, value in enumerate(_in_order(runs, by)):
        for seed, run in enumerate(r for r in runs if getattr(r.config, by) == value):
            style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1}
            label = setting(run, by) if seed == 0 else None
            with suppress(NotMeasured):
                draw(axes, run, values(run), label=label, **style)


@styled
def gradient_alignment(runs: Sequence[Any]) -> Figure:
    """Mean |cos| of mini-batch gradients with the five sharpest directions against training
    accuracy, a colour for each η, a point for each measurement; grey: a random vector."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    for k, value in enumerate(values_of(runs, "lr")):
        for seed, run in enumerate(r for r in runs if r.config.lr == value):
            values = alignment(run)
            accuracy = phases.column(run, "train_accuracy").reindex(values.index)
            label = setting(run, "lr") if seed == 0 else None
            style = {"color": COLORS[k], "marker": "os^D"[k], "ms": 3, "linestyle": "none"}
            axes.plot(100 * accuracy, values, label=label, **style)
    axes.axhline(random_alignment(runs[0]), color=GREY, label="random vector")
    axes.set(xlabel="training accuracy (%)", ylabel=r"mean |cos|, directions 1 to 5", yscale="log")
    axes.legend()
    return figure


@styled
def step_changes(runs: Sequence[Any], by: str) -> Figure:
    """Mean change of the loss by α times the step along e_1, relative to the loss, against time: a
    column for each value of the field ``by``, a colour for each α, a line for each seed."""
    values = values_of(runs, by)
    figure, grid = plt.subplots(1, len(values), figsize=(8.4, 3.2), sharey=True, squeeze=False)
    for axes, value in zip(grid[0], values, strict=True):
        some = [run for run in runs if getattr(run.config, by) == value]
        for seed, run in enumerate(some):
            relative = changes(run).div(loss(run), axis=0)
            for k, alpha in enumerate(STEP_FACTORS):
                label = rf"$\alpha$ = {alpha:g}" if seed == 0 else None
                style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1}
                _curve(axes, run, relative.loc[:, alpha], label=label, **style)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set(xlabel=TIME, title=setting(some[0], by))
    grid[0, 0].set_ylabel("mean change of the loss / loss")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@styled
def surfaces(run: Any) -> Figure:
    """L(θ + xΔ_i e_i) − L(θ), relative to L(θ), along the first, third and fourth eigenvector, x in
    mean lengths of a step; a line for each measured step after the start, from dark to light."""
    values = array(run, "surfaces")[1:]
    steps = np.asarray(run.arrays["surfaces.steps"])[1:]
    if not len(steps):
        raise NotMeasured(f"{run.config.name} has no surfaces after the start")
    figure, grid = plt.subplots(1, values.shape[1], figsize=(8.4, 3.2), sharey=True, squeeze=False)
    panels = grid[0]
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(steps)))
    middle = len(SURFACE_POINTS) // 2
    for k, (axes, i) in enumerate(zip(panels, SURFACE_DIRECTIONS, strict=False)):
        for surface, color in zip(values[:, k], colors, strict=True):
            relative = surface / surface[middle] - 1
            axes.plot(SURFACE_POINTS, relative, color=color, linewidth=1)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(title=rf"along $e_{i}$", xlabel=rf"steps $x$, of mean length $\Delta_{i}$")
    panels[0].set_ylabel("change of the loss / loss")
    scale = Normalize(0, run.config.lr * steps[-1])
    figure.colorbar(
        plt.cm.ScalarMappable(scale, "viridis"), ax=panels, label=TIME, pad=0.02, aspect=30
    )
    return figure


OUTCOMES = (
    (r"$\lambda_1$", lambda run: eigenvalue(run, 1)),
    ("loss", loss),
    ("test accuracy (%)", lambda run: 100 * phases.column(run, "test_accuracy")),
)


@styled
def schedules(runs: Sequence[Any]) -> Figure:
    """λ_1 with 2/η of either stage, dotted, the loss of the probe, both logarithmic, and test
    accuracy against the step, a colour for each length of the first stage, a line for each seed."""

    def curve(axes: Axes, run: Any, values: pd.Series, **style: Any) -> None:
        axes.plot(values.index.to_numpy(dtype=float), values.to_numpy(), **style)

    figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.2))
    for axes, (label, values) in zip(panels, OUTCOMES, strict=True):
        _compared(axes, runs, "lr_decay_at", values, curve)
        axes.set(xlabel="step", ylabel=label)
    config = runs[0].config
    for rate in (config.lr, config.lr * config.lr_decay):
        panels[0].axhline(2 / rate, color=GREY, linestyle=":")
    _logarithmic(panels[:2])
    panels[2].legend()
    return figure


def _logarithmic(panels: Iterable[Axes]) -> None:
    for axes in panels:
        axes.set_yscale("log")
        plain_if_few(axes)


@styled
def rules(runs: Sequence[Any], by: str) -> Figure:
    """λ_1, the loss of the probe, both logarithmic, and test accuracy against time, a colour for
    each update rule, a line for each seed; a vertical line where the rule sets in; dotted, the
    threshold 2(1 + β)/η of SGD."""
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.2))
    starts = {r.config.lr * r.config.regularizer_from for r in runs if r.config.regularizer_from}
    for axes, (label, values) in zip(panels, OUTCOMES, strict=True):
        _compared(axes, runs, by, values)
        axes.set(xlabel=TIME, ylabel=label)
        for start in starts:
            axes.axvline(start, color=GREY, linewidth=0.8)
    _thresholds(panels[0], runs, by)
    _logarithmic(panels[:2])
    panels[2].legend()
    return figure


@styled
def norms_by_gamma(runs: Sequence[Any]) -> Figure:
    """λ_1 (solid) and ‖H‖_F (dashed) against time, logarithmic: a column for each momentum β, a
    colour for each γ, a line for each seed; dotted, the threshold 2(1 + β)/η of SGD."""
    momenta = values_of(runs, "momentum")
    figure, grid = plt.subplots(1, len(momenta), figsize=(8.4, 3.2), sharey=True, squeeze=False)
    for axes, momentum in zip(grid[0], momenta, strict=True):
        some = [run for run in runs if run.config.momentum == momentum]
        gammas = _in_order(some, "gamma")
        seen = set()
        for run in sorted(some, key=lambda run: gammas.index(run.config.gamma)):
            name = setting(run, "gamma")
            style = {"color": COLORS[gammas.index(run.config.gamma)], "linewidth": 1}
            label = None if name in seen else name
            seen.add(name)
            _curve(axes, run, eigenvalue(run, 1), label=label, **style)
            norm = phases.column(run, "hessian_frobenius_sq") ** 0.5
            _curve(axes, run, norm, linestyle="--", **style)
        lr = some[0].config.lr
        axes.axhline(2 * (1 + momentum) / lr, color=GREY, linestyle=":")
        axes.set_title(rf"$\eta$ = {lr:g}" + (rf", $\beta$ = {momentum:g}" if momentum else ""))
        axes.set(xlabel=TIME, yscale="log")
    grid[0, 0].set_ylabel(r"$\lambda_1$ and $\|H\|_F$")
    grid[0, 0].legend()
    return figure


@styled
def against_directions(runs: Sequence[Any]) -> Figure:
    """Against K, 0 being SGD, a point for each run: the largest λ_1 (blue) and the largest ‖H‖_F
    (red, with its standard error), logarithmic, and right the test accuracy at the end."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.0))
    k = [run.config.sharpest for run in runs]
    dots = {"linestyle": "none", "marker": "o", "ms": 4}
    left.plot(
        k, [eigenvalue(run, 1).max() for run in runs], color=BLUE, label=r"$\lambda_1$", **dots
    )
    squares = [phases.column(run, "hessian_frobenius_sq") for run in runs]
    errors = [
        frobenius_error(run).loc[phases.largest(square)]
        for run, square in zip(runs, squares, strict=True)
    ]
    norms = [square.max() ** 0.5 for square in squares]
    dots["marker"] = "s"
    left.errorbar(k, norms, errors, color=VERMILION, label=r"$\|H\|_F$", **dots)
    left.set(xlabel="directions K", ylabel="largest along the way")
    _logarithmic([left])
    left.legend()
    accuracy = [100 * phases.column(run, "test_accuracy").iloc[-1] for run in runs]
    right.plot(k, accuracy, color=BLUE, linestyle="none", marker="o", ms=4)
    right.set(xlabel="directions K", ylabel="test accuracy at the end (%)")
    for axes in (left, right):
        axes.set_xticks(sorted(set(k)))
    return figure
