"""Plots of how runs go: path, phases, comparisons, norms, and ‖H‖ beside its predictor.

As in :mod:`ijrlib.figures`: each function takes stored runs and returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from ijrlib import embedding, phases, share_criteria
from ijrlib.conventions import SHARES
from ijrlib.criteria import NotMeasured
from ijrlib.evolution_criteria import label, plateau, ratio, tightness
from ijrlib.evolution_criteria import relation as related
from ijrlib.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    QUANTITIES,
    SKY,
    VERMILION,
    array,
    curve,
    measured,
    plain_if_few,
    styled,
    threshold,
)

PHASES = ("I", "II", "III")
STYLES = ("-", "--", ":", "-.")
COLORS = (BLUE, VERMILION, GREEN, ORANGE)


def values_of(runs: Sequence[Any], by: str) -> list[Any]:
    """The values of a field of the configuration, in the order of the runs."""
    return list(dict.fromkeys(getattr(run.config, by) for run in runs))


def setting(run: Any, by: str) -> str:
    """Such as "η = 0.04" or "B = 128"."""
    value = getattr(run.config, by)
    if by == "lr":
        return rf"$\eta$ = {value:g}"
    if by == "examples":
        return f"{value:,} images"
    if by == "init":
        default = value == "default"
        return "PyTorch's default" if default else value.replace("_", "-").capitalize()
    return "full batch" if value is None else f"B = {value}"


# -- Figures 4 and 26: the path --------------------------------------------------------------------

AROUND = 100


@styled
def path(run: Any) -> Figure:
    """The recorded path: left, UMAP of all points; middle, UMAP of the same points around the
    onset of 2/η (``AROUND`` steps to both sides; where there is no onset the middle of the path);
    right, the cosine of consecutive steps and of each step with the displacement of the next ten.

    Colour tells the step.  Only the right panel has axes that mean something.
    """
    points = array(run, "trajectory_umap")
    steps = np.asarray(run.arrays["trajectory_umap.steps"])
    gram = array(run, "trajectory_gram")
    reached = phases.reaches_threshold(run)
    middle = phases.onset(run) if reached else int(steps[len(steps) // 2])
    near = (steps >= middle - AROUND) & (steps <= middle + AROUND)
    figure, (whole, part, right) = plt.subplots(1, 3, figsize=(8.4, 3.1), width_ratios=(1, 1, 1.3))
    for axes, chosen in ((whole, np.ones(len(steps), bool)), (part, near)):
        line = {"color": GREY, "linewidth": 0.3, "alpha": 0.6}
        axes.plot(points[chosen, 0], points[chosen, 1], zorder=1, **line)
        dots = axes.scatter(
            points[chosen, 0], points[chosen, 1], c=steps[chosen], cmap="viridis", s=5, zorder=2
        )
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        axes.set_title(f"steps {steps[chosen][0]}–{steps[chosen][-1]}")
        figure.colorbar(dots, ax=axes, location="bottom", label="step", pad=0.02, aspect=30)
    consecutive, ahead = embedding.step_cosines(gram), embedding.direction_cosines(gram)
    dot = {"linestyle": "none", "marker": ".", "markersize": 2.5}
    right.plot(steps[1:-1], consecutive, color=BLUE, label="with the next step", **dot)
    right.plot(steps[: len(ahead)], ahead, color=ORANGE, label="with the ten after it", **dot)
    if reached:
        right.axvline(
            middle, color=GREY, linestyle="--", linewidth=1.1, label=r"$\|H\|$ = 2/$\eta$"
        )
    right.set(xlabel="step", ylabel="cosine of a step", ylim=(-1.05, 1.05))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.62), markerscale=3, fontsize=7.5)
    return figure


# -- Figure 5: phases ------------------------------------------------------------------------------


@styled
def three_phases(run: Any) -> Figure:
    """Above, ‖H‖ (linear) with 2/η, ‖⟨J⟩‖² (logarithmic) and ⟨λ^(1)⟩; below, loss and accuracy in
    training and test.  Phases I, II and III are told by their numbers and grey bands."""
    figure, rows = plt.subplots(2, 3, figsize=(8.4, 4.6), sharex=True)
    (sharpness, jacobian, impurity), (losses, accuracies, empty) = rows
    curve(sharpness, measured(run, "sharpness"), "sharpness", linewidth=0.8)
    threshold(sharpness, run.config.lr)
    sharpness.legend(handles=[sharpness.get_lines()[-1]], loc="upper right")
    curve(jacobian, measured(run, "jacobian_norm_sq"), "jacobian_norm_sq", linewidth=0.8)
    jacobian.set_yscale("log")
    curve(impurity, measured(run, "impurity_mean"), "impurity_mean")
    for axes, name in (
        (sharpness, "sharpness"),
        (jacobian, "jacobian_norm_sq"),
        (impurity, "impurity_mean"),
    ):
        axes.set_ylabel(QUANTITIES[name].label)
    train_and_test(losses, run, "loss", "mean loss")
    train_and_test(accuracies, run, "accuracy", "accuracy")
    losses.set_yscale("log")
    empty.remove()
    impurity.tick_params(labelbottom=True)
    impurity.set_xlabel("step")
    first, last = phases.onset(run), phases.peak(run)
    for axes in (sharpness, jacobian, impurity, losses, accuracies):
        mark_phases(axes, (0, first, last, run.config.steps))
    return figure


@styled
def accuracy(run: Any) -> Figure:
    """Accuracy on the training set and the test set against the step."""
    figure, axes = plt.subplots(figsize=(4.6, 2.6))
    train_and_test(axes, run, "accuracy", "accuracy")
    return figure


def train_and_test(axes: Axes, run: Any, name: str, label: str) -> None:
    """The columns train_<name> and test_<name> against the step."""
    for part, color, line in (("train", BLUE, "-"), ("test", VERMILION, "--")):
        frame = measured(run, f"{part}_{name}")
        axes.plot(frame["step"], frame[f"{part}_{name}"], color=color, linestyle=line, label=part)
    axes.set(ylabel=label, xlabel="step")
    axes.legend()


def mark_phases(axes: Axes, ends: Sequence[int]) -> None:
    """A grey band for phase II, and the number of each phase above the axes."""
    axes.axvspan(ends[1], ends[2], color=GREY, alpha=0.12, linewidth=0, zorder=0)
    for name, start, stop in zip(PHASES, ends, ends[1:], strict=False):
        if stop > start:
            place = ((start + stop) / 2, 1.01)
            axes.annotate(name, place, xycoords=("data", "axes fraction"), ha="center", color=GREY)


# -- Figures 6 and 22 to 25: comparisons -----------------------------------------------------------


@styled
def evolution(runs: Sequence[Any], by: str, jacobian: str = "jacobian_norm_sq") -> Figure:
    """‖H‖, a squared Jacobian norm (logarithmic axis) and ⟨λ^(1)⟩ against the step, one colour and
    line style for each value of a field; the first seed smoothed (running median over a twentieth
    of the run), its measurements and the other seeds faint.  A bar for each run that has a phase II
    spans it, at the median over it: what the claims about plateaus compare.

    Args:
        by: "lr" or "batch_size".
        jacobian: the column in the middle, ``jacobian_norm_sq`` or ``jacobian_ones_sq``.
    """
    names = ("sharpness", jacobian, "impurity_mean")
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.0))
    keys = values_of(runs, by)
    for run in reversed(runs):
        style = keys.index(getattr(run.config, by))
        color, line = COLORS[style], STYLES[style]
        first = run is next(r for r in runs if getattr(r.config, by) == keys[style])
        for axes, name in zip(panels, names, strict=True):
            frame = measured(run, name)
            axes.plot(frame["step"], frame[name], color=color, alpha=0.2, linewidth=0.6)
            if first:
                smooth = running_median(frame[name].to_numpy())
                axes.plot(
                    frame["step"], smooth, color=color, linestyle=line, label=setting(run, by),
                    zorder=2 + 0.1 * style,
                )  # fmt: skip
        with suppress(NotMeasured):
            for axes, name in zip(panels[:2], names, strict=False):
                level = plateau(run, name)
                axes.plot(phases.active_period(run), (level, level), color=color, linewidth=2.5)
    for lr in values_of(runs, "lr"):
        color = COLORS[keys.index(lr)] if by == "lr" else GREY
        panels[0].axhline(2 / lr, color=color, linewidth=0.8, linestyle=(0, (1, 3)))
    for axes, name in zip(panels, names, strict=True):
        axes.set(xlabel="step", ylabel=QUANTITIES[name].label)
        if axes is panels[1]:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(keys))
    return figure


def running_median(values: np.ndarray) -> np.ndarray:
    """Median over a twentieth of the values around each; over as many fewer at the ends as keep it
    in the middle, so that the first and the last value are their own."""
    last, half = len(values) - 1, len(values) // 40
    widths = np.minimum(half, np.minimum(np.arange(last + 1), last - np.arange(last + 1)))
    return np.array([np.median(values[i - k : i + k + 1]) for i, k in enumerate(widths)])


@styled
def side_by_side(runs: Sequence[Any], by: str) -> Figure:
    """‖H‖ with 2/η, ⟨λ^(1)⟩, ‖⟨J⟩1̂‖² (logarithmic axis) and the training loss against the step, as
    measured, one colour and line style for each value of a field; no smoothing, no phases.

    Args:
        by: "lr", "batch_size", "examples" or "init".
    """
    names = ("sharpness", "impurity_mean", "jacobian_ones_sq", "train_loss")
    figure, grid = plt.subplots(2, 2, figsize=(7.6, 5.0), sharex=True)
    keys = values_of(runs, by)
    for axes, name in zip(grid.flat, names, strict=True):
        for run in runs:
            style = keys.index(getattr(run.config, by))
            frame = measured(run, name)
            axes.plot(
                frame["step"], frame[name], color=COLORS[style], linestyle=STYLES[style],
                label=setting(run, by),
            )  # fmt: skip
        axes.set_ylabel(QUANTITIES[name].label if name in QUANTITIES else "training loss")
        if name == "jacobian_ones_sq":
            axes.set_yscale("log")
        elif name != "train_loss":
            axes.set_ylim(bottom=0)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    for lr in values_of(runs, "lr"):
        threshold(grid[0, 0], lr)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


@styled
def shares(runs: Sequence[Any]) -> Figure:
    """A column a run.  Above, ‖H‖ of each share of the training set in units of 2/η against the
    step; below, what that of a part is of that of the whole, with the band that the claim allows.
    Dashed: ‖H‖ of the whole set first reaches 2/η."""
    figure, grid = plt.subplots(
        2, len(runs), figsize=(8.4, 4.6), sharex=True, sharey="row", squeeze=False
    )
    for run, (above, below) in zip(runs, grid.T, strict=True):
        steps, levels = share_criteria.levels(run)
        for share, level, color, line in zip(SHARES, levels.T, COLORS, STYLES, strict=False):
            drawn = {"color": color, "linestyle": line, "marker": ".", "markersize": 3}
            above.plot(steps, level, label=f"{share:.0%} of the examples", **drawn)
            if share != SHARES[-1]:
                below.plot(steps, level / levels[:, -1], **drawn)
        above.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (1, 3)))
        below.axhline(1, color=GREY, linewidth=0.8)
        band = share_criteria.REPRESENTATIVE
        below.axhspan(1 / band, band, color=GREY, alpha=0.15, linewidth=0)
        if (onset := share_criteria.onset(run)) is not None:
            for axes in (above, below):
                axes.axvline(steps[onset], color=GREY, linestyle="--", linewidth=0.9)
        above.set(title=f"seed {run.config.seed}", ylim=(0, None))
        below.set_xlabel("step")
    grid[0, 0].set_ylabel(r"$\|H\|$ / (2/$\eta$)")
    grid[1, 0].set_ylabel("part / whole")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


# -- Figures 12 to 14: norms -----------------------------------------------------------------------

NORMS = {
    "logit_norm": r"logit norm $\langle\|z\|\rangle$",
    "logit_sum": r"logit sum $\langle|1^\top z|\rangle$",
    "weight_norm": r"weight norm $\|\theta\|$",
    "distance": r"distance $\|\theta(t)-\theta(0)\|$",
}


@styled
def norms(run: Any, until: int | None = None, every: int = 1) -> Figure:
    """Logit norm, logit sum, weight norm and distance from θ(0) against the step.

    Args:
        until: last step that is drawn.
        every: draw one step in so many.
    """
    figure, panels = plt.subplots(2, 2, figsize=(7.2, 4.6), sharex=True)
    for axes, (name, text) in zip(panels.flat, NORMS.items(), strict=True):
        frame = measured(run, name)
        frame = frame[(frame["step"] % every == 0) & (frame["step"] <= (until or np.inf))]
        axes.plot(frame["step"], frame[name], color=BLUE)
        axes.set_ylabel(text)
    for axes in panels[-1]:
        axes.set_xlabel("step")
    return figure


@styled
def layer_norms(run: Any, every: int = 10) -> Figure:
    """The norm of each layer's weights against the step, one panel a layer."""
    values = array(run, "layer_norms")
    steps = np.asarray(run.arrays["layer_norms.steps"])
    shown = steps % every == 0
    count = values.shape[1]
    figure, panels = plt.subplots(2, -(-count // 2), figsize=(7.8, 4.2), sharex=True)
    for k, axes in enumerate(panels.flat):
        if k >= count:
            axes.remove()
            continue
        axes.plot(steps[shown], values[shown, k], color=BLUE)
        axes.set_title(f"layer {k + 1}")
        if k % panels.shape[1] == 0:
            axes.set_ylabel("norm of the weights")
        if k + panels.shape[1] >= count:
            axes.set_xlabel("step")
    return figure


# -- Figures 15 to 21 and 32: the relation ---------------------------------------------------------


@styled
def relation(
    runs: Sequence[Any], by: str = "lr", start: int = 0, stop: int | None = None
) -> Figure:
    """‖H‖ and its predictor, and their ratio, a column for each setting (the first seed).

    Above, ‖H‖ and c·⟨λ^(1)⟩‖⟨J⟩1̂‖² (for the squared loss c·‖⟨J⟩‖²) on a logarithmic axis, c being
    the median ratio over the run; 2/η dashed.  Below, the ratio over its median, with the band of a
    factor 2 that the criterion allows; the other seeds faint.

    Args:
        by: the field of the configuration that tells the columns apart, "lr", "batch_size" or
            "examples".
        start, stop: the steps that are drawn.
    """
    keys = values_of(runs, by)
    squared = runs[0].config.loss == "squared"
    name = (
        r"\|\langle J\rangle\|^2"
        if squared
        else (r"\langle\lambda^{(1)}\rangle\|\langle J\rangle\hat 1\|^2")
    )
    figure, panels = plt.subplots(
        2, len(keys), figsize=(max(4.6, 2.8 * len(keys)), 4.4), squeeze=False, sharex="col",
        height_ratios=(2, 1),
    )  # fmt: skip
    for column, key in zip(panels.T, keys, strict=True):
        above, below = column
        group = [run for run in runs if getattr(run.config, by) == key]
        for position, run in enumerate(group):
            frame = related(run)
            relative = frame["sharpness"] / frame["predictor"]
            constant = float(np.median(relative))
            seen = (frame["step"] >= start) & (frame["step"] <= (stop or np.inf))
            frame, relative = frame[seen], relative[seen] / constant
            if position == 0:
                steps = frame["step"]
                above.plot(steps, frame["sharpness"], color=BLUE, linewidth=0.9, label=r"$\|H\|$")
                above.plot(
                    steps, constant * frame["predictor"], color=ORANGE, linewidth=0.9,
                    label=rf"$c\,{name}$",
                )  # fmt: skip
                below.plot(steps, relative, color=PURPLE, linewidth=0.9, zorder=3)
                above.set_title(f"{setting(run, by)}, c = {constant:.2g}")
                threshold(above, run.config.lr)
            else:
                below.plot(frame["step"], relative, color=PURPLE, linewidth=0.5, alpha=0.4)
        above.set_yscale("log")
        below.axhspan(0.5, 2, color=SKY, alpha=0.15, linewidth=0)
        below.set(yscale="log", xlabel="step")
        _powers_of_two(below.yaxis)
    if panels.shape[1] == 1:  # beside others it has the ticks that they have
        plain_if_few(panels[0, 0])
    panels[0, 0].set_ylabel("sharpness, predictor")
    panels[1, 0].set_ylabel("ratio / median")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _powers_of_two(axis: Axis) -> None:
    """Ticks of a logarithmic axis that spans few powers of ten: 1 and powers of two, or of four
    where these would be many."""
    low, high = axis.get_view_interval()
    few = high < 40 * low
    axis.set_major_locator(LogLocator(base=2 if few else 4, numticks=20))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


# -- beyond the paper ------------------------------------------------------------------------------


@styled
def constants(runs: Sequence[Any]) -> Figure:
    """c = ‖H‖/(⟨λ^(1)⟩‖⟨J⟩1̂‖²) , one row for each run: the middle 90% over all steps (thin) and
    over phase II (thick, where there is one), medians as dots."""
    figure, axes = plt.subplots(figsize=(7.4, 0.42 * len(runs) + 1.2))
    for row, run in enumerate(runs):
        frame = related(run)
        steps, c = frame["step"].to_numpy(), ratio(run)
        everywhere = np.ones(len(c), bool)
        spans = [(everywhere, GREY, 1.2, "all steps")]
        first, last = phases.onset(run), phases.peak(run)
        if first < last:
            spans.append(((steps >= first) & (steps <= last), BLUE, 3.5, "phase II"))
        for chosen, color, width, name in spans:
            low, median, high = np.quantile(c[chosen], [0.05, 0.5, 0.95])
            axes.plot([low, high], [row, row], color=color, linewidth=width)
            axes.plot([median], [row], "o", color=color, markersize=6, zorder=3, label=name)
    axes.set_yticks(range(len(runs)), [label(run) for run in runs])
    axes.set(
        xscale="log",
        xlabel=r"$c = \|H\| / (\langle\lambda^{(1)}\rangle\|\langle J\rangle\hat 1\|^2)$",
    )
    _powers_of_two(axes.xaxis)
    axes.set_ylabel("run")
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="best")
    return figure


@styled
def looseness(runs: Sequence[Any]) -> Figure:
    """Where Theorem 2 was measured, against the share of the run that is over: left ‖G‖/‖H‖,
    middle the bound ⟨λ^(1)‖J‖²⟩/‖G‖, right the predictor ⟨λ^(1)⟩‖⟨J⟩1̂‖²/‖G‖."""
    panels = (
        ("gauss_newton_share", r"$\|G\| / \|H\|$", "linear"),
        ("bound_ratio", r"$\langle\lambda^{(1)}\|J\|^2\rangle / \|G\|$", "log"),
        (
            "predictor_ratio",
            r"$\langle\lambda^{(1)}\rangle\|\langle J\rangle\hat 1\|^2 / \|G\|$",
            "log",
        ),
    )
    figure, row = plt.subplots(1, 3, figsize=(8.4, 3.6))
    markers = "os^Dv<>P*X"
    for k, run in enumerate(runs):
        frame = tightness(run)
        color = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)[k % 7]
        style = {"color": color, "marker": markers[k % len(markers)], "markersize": 4}
        style["linestyle"] = "-" if k < 7 else "--"
        for axes, (name, _, _) in zip(row, panels, strict=True):
            axes.plot(
                frame["step"] / run.config.steps, frame[name], linewidth=0.8, label=label(run),
                **style,
            )  # fmt: skip
    for axes, (_, text, scale) in zip(row, panels, strict=True):
        axes.axhline(1, color=GREY, linestyle="--", linewidth=1.0)
        axes.set(xlabel="share of the run", ylabel=text, yscale=scale)
        if scale == "log":
            _powers_of_two(axes.yaxis)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7.5)
    return figure
