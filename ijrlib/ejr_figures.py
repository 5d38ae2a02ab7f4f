"""Plots of training with and without an explicit regularizer: Figures 7 and 33, Tables 1 and 3.

As in :mod:`ijrlib.figures`: each function takes stored runs and returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from ijrlib.config import DECAY_AT
from ijrlib.ejr_criteria import by_arm, by_lr, final, weights
from ijrlib.figures import BLUE, GREEN, GREY, PURPLE, QUANTITIES, VERMILION, measured, styled

COLORS = (BLUE, VERMILION, GREEN, PURPLE)
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
LABELS = {  # column of the series: label of its axis
    **{name: quantity.label for name, quantity in QUANTITIES.items()},
    "train_accuracy": "training accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "test_loss": "test loss",
}
SHOWN = ("test_accuracy", "sharpness", "jacobian_norm_sq", "impurity_mean")  # along training
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "pairs of MNIST digits"}


def _shown(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column, accuracies in per cent."""
    return pd.Series(frame[name] * (100 if name.endswith("accuracy") else 1))


@styled
def accuracy_by_lr(runs: Sequence[Any]) -> Figure:
    """Test accuracy at the end of training against η, a line through the means over seeds for each
    λ_reg, a point for each run."""
    figure, axes = plt.subplots(figsize=(5.4, 3.4))
    groups = by_lr(runs)
    for k, weight in enumerate([0.0, *weights(runs)]):
        color, style, marker = COLORS[k % 4], STYLES[k % 4], MARKERS[k % 4]
        found = {
            lr: [100 * final(r, "test_accuracy") for r in group if r.config.ejr_weight == weight]
            for lr, group in groups.items()
        }
        found = {lr: values for lr, values in found.items() if values}
        means = [np.mean(values) for values in found.values()]
        label = rf"$\lambda_{{reg}}$ = {weight:g}"
        axes.plot(list(found), means, color=color, linestyle=style, marker=marker, label=label)
        for lr, values in found.items():
            axes.plot([lr] * len(values), values, color=color, marker=marker, ls="none", ms=3)
    axes.set_xscale("log")
    axes.set_xticks(list(groups))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=r"learning rate $\eta$", ylabel="test accuracy (%)")
    axes.legend()
    return figure


@styled
def along_training(runs: Sequence[Any]) -> Figure:
    """A row for each learning rate, a column for each quantity, against time ηt; solid without
    and dashed with the regularizer, a line for each seed.  Sharpness with 2/η, dotted."""
    groups = by_lr(runs)
    figure, grid = plt.subplots(
        len(groups), len(SHOWN), figsize=(8.4, 1.7 * len(groups) + 0.5), sharex="row", squeeze=False
    )
    for row, (lr, group) in zip(grid, groups.items(), strict=True):
        for axes, name in zip(row, SHOWN, strict=True):
            for run in group:
                k = int(run.config.regularizer != "none")
                frame = measured(run, name)
                label = ("without EJR", "with EJR")[k] if run.config.seed == 0 else None
                style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1.0}
                axes.plot(lr * frame["step"], _shown(frame, name), label=label, **style)
            if name in ("sharpness", "jacobian_norm_sq"):
                axes.set_yscale("log")
            if name == "sharpness":
                axes.axhline(2 / lr, color=GREY, linestyle=":", linewidth=1.1)
            axes.set_ylabel(LABELS[name], fontsize=8)
        row[0].set_title(rf"$\eta$ = {lr:g}")
    for axes in grid[-1]:
        axes.set_xlabel(r"time $\eta t$")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


@styled
def beside(runs: Sequence[Any]) -> Figure:
    """A panel for each quantity, against the step: for each regularizer a line through the means
    over seeds, with their range shaded; a colour for each method, a line style for each of its
    strengths.  Sharpness with 2/η, dotted."""
    groups = {label: list(by_seed.values()) for label, by_seed in by_arm(runs).items()}
    methods: dict[tuple[str, bool], list[str]] = {}
    for label, (run, *_) in groups.items():
        method = (run.config.regularizer, run.config.weight_decay > 0)
        methods.setdefault(method, []).append(label)
    styles = {
        label: {"color": COLORS[k % 4], "linestyle": STYLES[j % 4]}
        for k, labels in enumerate(methods.values())
        for j, label in enumerate(labels)
    }
    figure, grid = plt.subplots(2, 2, figsize=(8.4, 6.0), sharex=True)
    for axes, name in zip(grid.flat, SHOWN, strict=True):
        for label, members in groups.items():
            columns = {
                k: _shown(measured(run, name).set_index("step"), name)
                for k, run in enumerate(members)
            }
            values = pd.DataFrame(columns)
            told = label.replace("λ_reg", r"$\lambda_{\mathrm{reg}}$")
            first = label == next(iter(groups))  # without a regularizer, on top of the others
            width = {"lw": 1.8, "zorder": 3} if first else {"lw": 1.2}
            axes.plot(values.index, values.mean(axis=1), label=told, **width, **styles[label])
            if len(members) > 1:
                low, high = values.min(axis=1).to_numpy(), values.max(axis=1).to_numpy()
                color = styles[label]["color"]
                axes.fill_between(values.index, low, high, color=color, alpha=0.15, linewidth=0)
        if name in ("sharpness", "jacobian_norm_sq"):
            axes.set_yscale("log")
        if name == "sharpness":
            for lr in {run.config.lr for run in runs}:
                axes.axhline(2 / lr, color=GREY, linestyle=":", linewidth=1.1)
        axes.set(ylabel=LABELS[name])
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@styled
def over_epochs(
    runs: Sequence[Any], names: tuple[str, str] = ("test_accuracy", "test_loss")
) -> Figure:
    """Two quantities against epochs, a column for each data set: solid without and dashed with the
    regularizer, a line for each seed; vertical lines where η decays.  The axes hold what comes
    after the first decay."""
    datasets = list(dict.fromkeys(run.config.dataset for run in runs))
    figure, grid = plt.subplots(
        2, len(datasets), figsize=(4.2 * len(datasets), 4.6), sharex="col", squeeze=False
    )
    for column, dataset in zip(grid.T, datasets, strict=True):
        limits: dict[str, list[float]] = {name: [] for name in names}
        for run in (run for run in runs if run.config.dataset == dataset):
            k = int(run.config.regularizer != "none")
            epoch = run.config.examples // run.config.batch_size
            label = ("without EJR", "with EJR")[k] if run.config.seed == 0 else None
            for axes, name in zip(column, names, strict=True):
                frame = measured(run, name)
                style = {"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1.0}
                values = _shown(frame, name)
                axes.plot(frame["step"] / epoch, values, label=label, **style)
                late = values[frame["step"] > run.config.steps * DECAY_AT[0]]
                limits[name] += list(late[np.isfinite(late)])
                axes.set_ylabel(LABELS[name])
                for share in DECAY_AT:
                    place = share * run.config.steps / epoch
                    axes.axvline(place, color=GREY, linestyle=":", linewidth=0.8)
        for axes, name in zip(column, names, strict=True):
            low, high = min(limits[name], default=0.0), max(limits[name], default=0.0)
            if low < high:
                axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        column[0].set_title(TITLES.get(dataset, dataset))
        column[0].legend()
        column[1].set_xlabel("epoch")
    return figure
