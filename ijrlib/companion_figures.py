"""Plots of the companion papers: the model of the break-even point, the early phase, the largest
values along the way, and the three papers on one axis of time.

As in :mod:`ijrlib.figures`: each function takes stored runs and returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from ijrlib import phases
from ijrlib.companion_criteria import (
    ESTIMATED,
    EVENTS,
    NAMES,
    SINGLE,
    WIDTH,
    K,
    departure,
    normalized,
    predictions,
    quantity,
    reference,
    slow_and_fast,
    slowing,
    spacing,
    stability,
    standard_error,
)
from ijrlib.criteria import NotMeasured
from ijrlib.evolution_figures import COLORS, STYLES, setting, values_of
from ijrlib.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    QUANTITIES,
    VERMILION,
    measured,
    plain_if_few,
    styled,
)

LABELS = {
    **{name: q.label for name, q in QUANTITIES.items()},
    K: r"$\lambda_K$",
    SINGLE: r"$\lambda_K$ from single examples",
    "sharpness": r"$\lambda_H = \|H\|$",
    "conditioning": r"$\mathrm{Tr}\,K/\lambda_K$",
    "covariance_trace": r"$\mathrm{Tr}\,K$",
    "hessian_conditioning": r"$\mathrm{Tr}\,H/\lambda_H$",
    "hessian_trace": r"$\mathrm{Tr}\,H$",
    "step_width": r"step width $\alpha^*$",
    "last_scale_norm": r"$\|\gamma\|$ of the last normalization",
    "growth": r"growth of $E[\psi^2]$ a step",
}


@styled
def mean_square_stability(lr: np.ndarray, curves: Mapping[str, Any]) -> Figure:
    """Growth of E[ψ²] a step against the learning rate for several S, exp(2·E log|1 − ηH_B|) of
    single paths dashed, and 1.

    Args:
        lr: shape (n,).
        curves: label → (growth, simulated growth, path exponent), each (n,).
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    for k, (label, (exact, simulated, exponent)) in enumerate(curves.items()):
        color = COLORS[k % len(COLORS)]
        axes.plot(lr, exact, color=color, label=f"{label}: mean square")
        axes.plot(lr, simulated, color=color, linestyle="none", marker=".", markersize=5)
        axes.plot(lr, np.exp(2 * np.asarray(exponent)), color=color, linestyle="--")
    axes.plot([], [], color=GREY, linestyle="--", label="single paths")
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(0.05, 20)
    axes.set(xlabel=r"learning rate $\eta$ in units of $1/\lambda$", ylabel="growth a step")
    axes.legend(fontsize=7.5)
    return figure


@styled
def paths(runs: Sequence[Any]) -> Figure:
    """Left, the predictions of the first seed's two runs in the plane of their first two principal
    components, from a common start (black); right, along the path with the smaller η, the distance
    from the other against λ_K, a colour for each seed; both axes logarithmic."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6))
    pairs = slow_and_fast(runs, seeds=1)
    clouds = [predictions(run).to_numpy() for run in pairs[0]]
    centre = np.vstack(clouds).mean(0)
    axes_of_both = np.linalg.svd(np.vstack(clouds) - centre, full_matrices=False)[2][:2]
    for run, cloud, color, style in zip(pairs[0], clouds, COLORS, STYLES, strict=False):
        x, y = ((cloud - centre) @ axes_of_both.T).T
        left.plot(x, y, color=color, linestyle=style, marker=".", ms=3, label=setting(run, "lr"))
        left.plot(x[0], y[0], color="black", marker="o", ms=5, linestyle="none")
    left.set(xlabel="first principal component", ylabel="second principal component")
    left.legend()
    for color, (slow, fast) in zip((GREEN, PURPLE, GREY), pairs, strict=False):
        away = departure(slow, fast)
        norm = quantity(slow, K).reindex(away.index)
        style = {"marker": ".", "ms": 5, "linestyle": "none"}
        right.plot(norm, away, color=color, label=f"seed {slow.config.seed}", **style)
        right.axhline(spacing(fast), color=color, linewidth=0.8, linestyle=":")
    right.set(xscale="log", yscale="log")
    plain_if_few(right)
    right.set(xlabel=LABELS[K], ylabel="distance from the other path")
    right.legend(loc="lower right")
    return figure


@styled
def early_phase(runs: Sequence[Any]) -> Figure:
    """λ_K, λ_H with 2/η (dotted), the growth of the criterion with 1, and α* with 2, against time
    ηt, a colour for each η, a line for each seed."""
    figure, grid = plt.subplots(2, 2, figsize=(8.4, 5.2), sharex=True)
    panels = dict(zip((K, "sharpness", "growth", "step_width"), grid.flat, strict=True))
    for k, lr in enumerate(sorted(values_of(runs, "lr"))):
        for seed, run in enumerate(r for r in runs if r.config.lr == lr):
            style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1}
            label = setting(run, "lr") if seed == 0 else None
            for name, axes in panels.items():
                with suppress(NotMeasured):
                    values = stability(run) if name == "growth" else quantity(run, name)
                    axes.plot(lr * values.index, values, label=label, **style)
        panels["sharpness"].axhline(2 / lr, color=COLORS[k], linestyle=":", linewidth=1)
    for name, axes in panels.items():
        axes.set_yscale("log")
        axes.set_ylabel(LABELS[name])
    panels["growth"].axhline(1, color=GREY, linewidth=1)
    panels["step_width"].axhline(WIDTH, color=GREY, linewidth=1)
    for axes in grid[1]:
        axes.set_xlabel(r"time $\eta t$")
    panels[K].legend()
    return figure


@styled
def largest(runs: Sequence[Any], by: str) -> Figure:
    """The largest λ_K, Tr K/λ_K and Tr K along the way against η or S, and below the same of H, all
    axes logarithmic: a point for each run, with its standard error where it is an estimate, and a
    line through the means over seeds."""
    names = (K, "conditioning", "covariance_trace")
    names += ("sharpness", "hessian_conditioning", "hessian_trace")
    figure, grid = plt.subplots(2, 3, figsize=(8.4, 4.4), sharex=True)
    values = sorted(values_of(runs, by))
    for axes, name in zip(grid.flat, names, strict=True):
        found: dict[Any, list[float]] = {v: [] for v in values}
        for run in runs:
            along, v = quantity(run, name), getattr(run.config, by)
            found[v].append(float(along.max()))
            error = standard_error(run, name, phases.largest(along)) if name in ESTIMATED else None
            axes.errorbar(v, along.max(), error, color=BLUE, marker="o", ms=3, linewidth=0.8)
        axes.plot(values, [np.mean(found[v]) for v in values], color=BLUE, linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(values)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        plain_if_few(axes)
        axes.margins(x=0.2)
        axes.set_title(LABELS[name], fontsize=9)
        axes.tick_params(labelsize=8, which="both")
    for axes in grid[1]:
        axes.set_xlabel(r"$\eta$" if by == "lr" else "batch size S", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("largest along the way", fontsize=9)
    return figure


@styled
def along(runs: Sequence[Any], by: str) -> Figure:
    """λ_K, λ_H with 2/η (dotted), Tr K/λ_K, all three logarithmic, and training accuracy against
    time ηt, a colour for each value of η or S, a line for each seed."""
    figure, grid = plt.subplots(2, 2, figsize=(8.4, 5.2), sharex=True)
    names = (K, "sharpness", "conditioning", "train_accuracy")
    for axes, name in zip(grid.flat, names, strict=True):
        for k, value in enumerate(sorted(values_of(runs, by))):
            for seed, run in enumerate(r for r in runs if getattr(r.config, by) == value):
                values = quantity(run, name) * (100 if name == "train_accuracy" else 1)
                style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1}
                label = setting(run, by).replace("B =", "S =") if seed == 0 else None
                axes.plot(run.config.lr * values.index, values, label=label, **style)
                if name == "sharpness":
                    color = COLORS[k] if by == "lr" else GREY
                    axes.axhline(2 / run.config.lr, color=color, linestyle=":", linewidth=0.8)
        axes.set_yscale("linear" if name == "train_accuracy" else "log")
        if name != "train_accuracy":
            plain_if_few(axes)
        axes.set_ylabel(LABELS.get(name, "training accuracy (%)"))
    for axes in grid[1]:
        axes.set_xlabel(r"time $\eta t$")
    grid[1, 1].legend()
    return figure


@styled
def batch_normalization(runs: Sequence[Any]) -> Figure:
    """λ_K, λ_H, Tr K/λ_K and ‖γ‖ of the last batch normalization against the step, whose axis is
    linear up to ten and logarithmic beyond; a colour for each η, a line for each seed, grey and
    dashed without batch normalization at its smallest η."""
    figure, grid = plt.subplots(2, 2, figsize=(8.4, 5.4), sharex=True)
    names = (K, "sharpness", "conditioning", "last_scale_norm")
    lrs = sorted({run.config.lr for run in normalized(runs)})
    for axes, name in zip(grid.flat, names, strict=True):
        for run in normalized(runs):
            k = lrs.index(run.config.lr)
            values = quantity(run, name)
            label = setting(run, "lr") if run.config.seed == runs[0].config.seed else None
            axes.plot(values.index, values, color=COLORS[k], linestyle=STYLES[k], label=label)
        if name != "last_scale_norm":
            plain = normalized(runs, batch_norm=False)
            lr = min(run.config.lr for run in plain)
            for run in (run for run in plain if run.config.lr == lr):
                values = quantity(run, name)
                label = f"without, {setting(run, 'lr')}" if run is plain[0] else None
                axes.plot(values.index, values, color=GREY, linestyle=(0, (4, 2)), label=label)
        axes.set_xscale("symlog", linthresh=10)
        axes.set_yscale("linear" if name == "last_scale_norm" else "log")
        if name != "last_scale_norm":
            plain_if_few(axes)
        axes.set_ylabel(LABELS[name])
    for axes in grid[1]:
        axes.set_xlabel("step")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7.5)
    return figure


@styled
def batch_and_single(run: Any) -> Figure:
    """λ_K from mini-batches against λ_K from single examples, both logarithmic, a point for each
    measured step; colour tells the step, dashed: equal."""
    frame = measured(run, K, SINGLE)
    figure, axes = plt.subplots(figsize=(4.6, 3.6))
    dots = axes.scatter(frame[SINGLE], frame[K], c=frame["step"], cmap="viridis", s=14)
    ends = [frame[[K, SINGLE]].to_numpy().min(), frame[[K, SINGLE]].to_numpy().max()]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel=LABELS[SINGLE], ylabel=r"$\lambda_K$ from mini-batches")
    figure.colorbar(dots, ax=axes, label="step")
    return figure


@styled
def one_time_axis(runs: Sequence[Any]) -> Figure:
    """A column for each run: λ_K and λ_H with 2/η, the growth of the criterion with 1, ‖⟨J⟩‖²
    (grey: that of the smallest η) and ⟨λ^(1)⟩ against time ηt.

    Vertical lines at the break-even point (solid), where ‖H‖ reaches 2/η (dashed), where ‖⟨J⟩‖²
    bends (dotted) and where ⟨λ^(1)⟩ is largest (dash-dotted).
    """
    figure, grid = plt.subplots(
        4, len(runs), figsize=(2.6 * len(runs), 7.4), sharex="col", squeeze=False
    )
    events = {**EVENTS, "bends": slowing}
    shown = {
        "break-even": "-",
        "‖H‖ ≥ 2/η": "--",
        "bends": ":",
        "largest ⟨λ⁽¹⁾⟩": "-.",
    }
    for column, run in zip(grid.T, runs, strict=True):
        lr = run.config.lr
        curves = (
            (0, quantity(run, K), ORANGE, LABELS[K]),
            (0, quantity(run, "sharpness"), BLUE, LABELS["sharpness"]),
            (1, stability(run), PURPLE, LABELS["growth"]),
            (2, quantity(run, "jacobian_norm_sq"), VERMILION, LABELS["jacobian_norm_sq"]),
            (3, quantity(run, "impurity_mean"), GREEN, LABELS["impurity_mean"]),
        )
        other = reference(run, runs)
        if other is not run:
            theirs = quantity(other, "jacobian_norm_sq")
            column[2].plot(other.config.lr * theirs.index, theirs, color=GREY, linewidth=1)
        for row, values, color, label in curves:
            column[row].plot(lr * values.index, values, color=color, label=label)
        for name, style in shown.items():
            with suppress(NotMeasured):
                at = lr * events[name](run)
                for axes in column:
                    axes.axvline(at, color=GREY, linestyle=style, linewidth=1)
        for axes in column[:3]:
            axes.set_yscale("log")
        column[0].axhline(2 / lr, color=BLUE, linestyle=":", linewidth=1)
        column[1].axhline(1, color=GREY, linewidth=0.8)
        column[0].set_title(f"{NAMES[run.config.network]}, {setting(run, 'lr')}", fontsize=8.5)
        column[3].set_xlabel(r"time $\eta t$")
    grid[0, 0].legend(fontsize=7.5)
    told = ("break-even point", r"$\|H\|$ reaches $2/\eta$", r"$\|\langle J\rangle\|^2$ bends")
    lines = [
        grid[3, 0].plot([], [], color=GREY, linestyle=style, label=name)[0]
        for style, name in zip(shown.values(), (*told, "impurity largest"), strict=True)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8)
    for axes, name in zip(
        grid[1:, 0], ("growth", "jacobian_norm_sq", "impurity_mean"), strict=True
    ):
        axes.set_ylabel(LABELS[name], fontsize=8)
    grid[0, 0].set_ylabel("eigenvalue", fontsize=8)
    return figure
