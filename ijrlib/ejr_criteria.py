"""Measuring functions behind the claims on explicit regularization: Figures 7 and 33, Tables 1–3.

Two arms are compared that differ in the regularizer alone, each run with that of the same seed: the
same initialization, examples and mini-batches.  Their thresholds were fixed on 2026-11-26, after a
trial of one seed at η = 0.1 and before the runs that are stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ijrlib.config import DECAY_AT
from ijrlib.conventions import described
from ijrlib.costs import UPDATE_GRADIENTS
from ijrlib.criteria import Measurement, NotMeasured, NotRun, number, rows
from ijrlib.ejr_table import NETWORKS, Cell
from ijrlib.store import Run

LAST = 0.1
"""Share of the steps, at the end, over which an accuracy or a loss is averaged."""

FITTED = 0.99
"""Accuracy on the probe, with the full batch on all training examples, from which on a run without
weight decay has fitted its training set."""

REGULARIZER = ("regularizer", "ejr_weight", "rho", "mu")


@dataclass(frozen=True)
class Comparison:
    """Final values of two arms, by seed.

    Attributes:
        baseline, regularized: one value for each seed that both arms have, in the same order.
        error: standard error of the difference for one seed, from the finite number of test images.
    """

    baseline: np.ndarray
    regularized: np.ndarray
    error: float

    @property
    def gain(self) -> float:
        """Mean difference of the arms."""
        return float((self.regularized - self.baseline).mean())

    @property
    def error_reduction(self) -> float:
        """ERR = Δ/(100 − baseline), both in %."""
        return 100 * self.gain / (100 - float(self.baseline.mean()))

    @property
    def p_value(self) -> float:
        """Of the two-sided paired t-test over seeds; NaN for one seed, or equal differences."""
        from scipy.special import stdtr  # slow, and every chapter imports this module

        difference, n = self.regularized - self.baseline, len(self.baseline)
        if n < 2 or np.ptp(difference) == 0:
            return math.nan
        t = difference.mean() / (difference.std(ddof=1) / math.sqrt(n))
        return float(2 * stdtr(n - 1, -abs(t)))

    @property
    def improves(self) -> bool:
        """Every regularized run above every baseline; with one seed, by two standard errors."""
        least = 2 * self.error if len(self.baseline) == 1 else 0.0
        return bool(self.regularized.min() - self.baseline.max() > least)

    def __str__(self) -> str:
        seeds = len(self.baseline)
        chance = "1 seed" if seeds == 1 else f"{seeds} seeds"
        if not math.isnan(self.p_value):
            chance += f", p = {self.p_value:.2g}"
        return (
            f"{self.baseline.mean():.1f} → {self.regularized.mean():.1f} % ({self.gain:+.1f} "
            f"points, ERR {self.error_reduction:.1f} %; {chance})"
        )


def final(run: Run, name: str) -> float:
    """Mean of a column over the last tenth of the steps."""
    frame = rows(run, name)
    return float(frame.loc[frame["step"] >= (1 - LAST) * run.config.steps, name].mean())


def compare(
    runs: Sequence[Run], regularizer: Mapping[str, Any], name: str = "test_accuracy"
) -> Comparison:
    """The arm with the given regularizer against the one with none, an accuracy in %.

    Args:
        runs: of one network, learning rate, batch size and number of steps.
        regularizer: fields of the configuration.

    Raises:
        NotRun: where an arm has no run.
        NotMeasured: where the arms have no seed in common, one diverged or, without weight decay,
            has not fitted its training set.
    """
    arms = [_by_seed(runs, {}), _by_seed(runs, regularizer)]
    if not all(arms):
        raise NotRun("no run with the regularizer" if arms[0] else "no run")
    common = sorted(set(arms[0]) & set(arms[1]))
    if not common:
        raise NotMeasured("no seed that both arms have")
    for run in (arm[seed] for arm in arms for seed in common):
        _check(run)
    return _paired(arms[0], arms[1], name)


def _paired(one: Mapping[int, Run], other: Mapping[int, Run], name: str) -> Comparison:
    """Two arms at the seeds that both have."""
    common = sorted(set(one) & set(other))
    factor = 100.0 if name.endswith("accuracy") else 1.0
    base, changed = (np.array([factor * final(a[s], name) for s in common]) for a in (one, other))
    if not (np.isfinite(base).all() and np.isfinite(changed).all()):
        raise NotMeasured(f"no {name} at the end of some run")
    share = np.array([final(arm[common[0]], "test_accuracy") for arm in (one, other)])
    count = one[common[0]].config.test_examples
    error = 100 * math.sqrt(float((share * (1 - share)).sum()) / count)
    return Comparison(base, changed, error)


def of_cell(runs: Sequence[Run], cell: Cell) -> list[Run]:
    """The runs of both arms of a cell, at whichever scale, and of other strengths there.

    The schedule of 200 epochs is told from that of 400 by its length, half of the longest.
    """
    network = [run for run in runs if run.config.network in NETWORKS[cell.network]]
    longest = max((run.config.steps for run in network), default=0)
    return [
        run
        for run in network
        if math.isclose(run.config.lr, cell.lr)
        and (run.config.batch_size is None) == cell.full_batch
        and (cell.network == "SimpleCNN" or run.config.steps == longest / (1 + cell.half_time))
    ]


def improvement(runs: Sequence[Run], cell: Cell) -> Measurement:
    """Test accuracy of a cell's two arms."""
    chosen = of_cell(runs, cell)
    found = compare(chosen, cell.regularizer)
    if len(found.baseline) == 1 and abs(found.gain) <= 2 * found.error:
        raise NotMeasured(f"one seed, and {found.gain:+.1f} points are within two standard errors")
    fitted = compare(chosen, cell.regularizer, "train_accuracy")
    text = str(found)
    if min(fitted.baseline.min(), fitted.regularized.min()) < 100 * FITTED:
        text += (
            f"; training accuracy {fitted.baseline.mean():.1f} → {fitted.regularized.mean():.1f} %"
        )
    return Measurement(text, found.improves)


HEADER = (
    "setting",
    "baseline in print",
    "with EJR",
    "Δ",
    "baseline here",
    "with EJR",
    "Δ",
    "seeds",
)


def table_rows(runs: Sequence[Run], cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """The paper's accuracies beside ours, a row a cell under ``HEADER``; in %, ours with the range
    over seeds, and why there is none where there is none."""
    table = []
    for cell in cells:
        before, after = cell.printed
        printed = (f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}")
        try:
            found = compare(of_cell(runs, cell), cell.regularizer)
        except NotMeasured as reason:
            table.append((cell.setting, *printed, "–", "–", "–", str(reason)))
            continue
        arms = (_spread(found.baseline), _spread(found.regularized))
        table.append(
            (cell.setting, *printed, *arms, f"{found.gain:+.1f}", str(len(found.baseline)))
        )
    return table


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"


# -- beside weight decay and SAM -------------------------------------------------------------------

ALTERNATIVES_HEADER = (
    "regularizer",
    "gradients a step",
    "training accuracy",
    "test accuracy",
    "Δ",
    "p",
    "best",
    "at the baseline's cost",
)
ENDS_HEADER = ("regularizer", "test loss", "‖H‖ / (2/η)", "‖⟨J⟩‖²", "⟨λ⁽¹⁾⟩")


def arm(run: Run) -> str:
    """The regularizer of a run, with its strength."""
    config = run.config
    if config.regularizer == "none":
        return f"weight decay {config.weight_decay:g}" if config.weight_decay else "none"
    if config.regularizer == "ejr":
        return f"EJR, λ_reg = {config.ejr_weight:g}"
    return f"{config.regularizer.upper()}, ρ = {config.rho:g}"


def at_cost(run: Run) -> float:
    """Test accuracy when a run has taken as many gradients as the baseline has steps: the last one
    measured by then."""
    frame = rows(run, "test_accuracy")
    last = run.config.steps / UPDATE_GRADIENTS[run.config.regularizer]
    return float(frame.loc[frame["step"] <= last, "test_accuracy"].iloc[-1])


def by_arm(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by regularizer, then by seed."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(arm(run), {})[run.config.seed] = run
    return groups


def alternatives_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A row under ``ALTERNATIVES_HEADER`` for each arm: means over seeds of means over the last
    tenth of the steps, in % with the range over seeds.  Δ, in points, and p (paired t-test) are
    against the runs without regularizer of the same seeds; "best" is the largest test accuracy
    along a run, a bound to what stopping early can give."""
    groups = by_arm(runs)
    baseline = groups.get("none", {})
    table = []
    for name, by_seed in groups.items():
        members = list(by_seed.values())
        gain = p = "–"
        if name != "none" and set(baseline) & set(by_seed):
            found = _paired(baseline, by_seed, "test_accuracy")
            gain = f"{found.gain:+.1f}"
            p = "–" if math.isnan(found.p_value) else f"{found.p_value:.2g}"
        train, test, best, cost = (
            _spread(np.array([100 * of(run) for run in members]))
            for of in (
                lambda run: final(run, "train_accuracy"),
                lambda run: final(run, "test_accuracy"),
                lambda run: float(rows(run, "test_accuracy")["test_accuracy"].to_numpy().max()),
                at_cost,
            )
        )
        gradients = f"{UPDATE_GRADIENTS[members[0].config.regularizer]:g}"
        table.append((name, gradients, train, test, gain, p, best, cost))
    return table


def ends_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """A row under ``ENDS_HEADER`` for each arm: means over seeds of means over the last tenth of
    the steps."""
    columns = ("test_loss", "sharpness", "jacobian_norm_sq", "impurity_mean")
    table = []
    for name, by_seed in by_arm(runs).items():
        ends = np.array([[final(run, column) for column in columns] for run in by_seed.values()])
        ends[:, 1] *= [run.config.lr / 2 for run in by_seed.values()]
        table.append((name, *(number(value) for value in ends.mean(0))))
    return table


# -- Figure 33 -------------------------------------------------------------------------------------

LEARNING_RATES = 3


def by_lr(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """SimpleCNN's runs with B = 128 by learning rate, the smallest first."""
    groups: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.config.lr):
        if run.config.network == "simple_cnn" and run.config.batch_size is not None:
            groups.setdefault(run.config.lr, []).append(run)
    if len(groups) < LEARNING_RATES:
        raise NotMeasured(f"expected {LEARNING_RATES} learning rates, got {len(groups)}")
    return groups


def weights(runs: Sequence[Run]) -> list[float]:
    """The λ_reg > 0 of some runs."""
    return sorted({run.config.ejr_weight for run in runs} - {0.0})


def at_every_lr(runs: Sequence[Run]) -> Measurement:
    """The best λ_reg > 0 against none, at every η."""
    texts, holds = [], []
    for lr, group in by_lr(runs).items():
        best = max((_ejr(group, weight) for weight in weights(group)), key=lambda c: c.gain)
        texts.append(f"η = {lr:g}: {best}")
        holds.append(best.improves)
    return Measurement("; ".join(texts), all(holds))


def gain_at_small_lr(runs: Sequence[Run]) -> Measurement:
    """The gain with λ_reg = 0.01 at the smallest η against that at the largest, by seed."""
    gains = {
        lr: found.regularized - found.baseline
        for lr, group in by_lr(runs).items()
        for found in [_ejr(group, 0.01)]
    }
    if min(map(len, gains.values())) < 2:
        raise NotMeasured("one seed only: its spread is unknown")
    text = "; ".join(
        f"η = {lr:g}: {gain.min():+.1f} to {gain.max():+.1f} points" for lr, gain in gains.items()
    )
    smallest, *_, largest = gains.values()
    return Measurement(text, bool(smallest.min() > largest.max()))


# -- Figure 7 --------------------------------------------------------------------------------------


def overfits_less(runs: Sequence[Run], network: str) -> Measurement:
    """Final test accuracy and loss of both arms.

    Args:
        network: key of ``NETWORKS``.
    """
    chosen, regularizer = _arms(runs, network)
    accuracy = compare(chosen, regularizer)
    loss = compare(chosen, regularizer, "test_loss")
    if len(loss.baseline) < 2:
        raise NotMeasured("one seed only: its spread is unknown")
    lower = bool(loss.regularized.max() < loss.baseline.min())
    return Measurement(
        f"{accuracy}; test loss {loss.baseline.mean():.3f} → {loss.regularized.mean():.3f}",
        accuracy.improves and lower,
    )


def falls_back_less(runs: Sequence[Run]) -> Measurement:
    """Best accuracy between two decays minus that at their end, and the loss there minus the least
    between them, in both arms; means over the seeds that both have."""
    texts, holds = [], []
    for network in NETWORKS:
        if network == "SimpleCNN":
            continue
        chosen, regularizer = _arms(runs, network)
        compare(chosen, regularizer)  # there are runs to compare
        arms = [_by_seed(chosen, arm) for arm in ({}, regularizer)]
        common = sorted(set(arms[0]) & set(arms[1]))
        if len(common) < 2:
            raise NotMeasured("one seed only: its spread is unknown")
        for name, what in (("test_accuracy", "accuracy falls by"), ("test_loss", "loss rises by")):
            losses = [np.mean([_lost(arm[s], name) for s in common], axis=0) for arm in arms]
            holds.append(bool((losses[1] < losses[0]).all()))
            pairs = ", ".join(f"{a:.2g} and {b:.2g}" for a, b in zip(*losses, strict=True))
            trained = described(chosen[0].config.network, chosen[0].config.dataset)
            texts.append(f"{trained}: {what} {pairs} without and with EJR")
    return Measurement("; ".join(texts), all(holds))


# -- parts -----------------------------------------------------------------------------------------


def _ejr(runs: Sequence[Run], weight: float) -> Comparison:
    return compare(runs, {"regularizer": "ejr", "ejr_weight": weight})


def _by_seed(runs: Sequence[Run], regularizer: Mapping[str, Any]) -> dict[int, Run]:
    wanted = {"regularizer": "none", "ejr_weight": 0.0, "rho": 0.0, "mu": 0.0, **regularizer}
    return {
        run.config.seed: run
        for run in runs
        if all(getattr(run.config, name) == wanted[name] for name in REGULARIZER)
    }


def _check(run: Run) -> None:
    if run.provenance.get("status") == "diverged":
        raise NotMeasured(f"{run.config.name} diverged")
    if run.config.weight_decay == 0 and (share := final(run, "train_accuracy")) < FITTED:
        raise NotMeasured(f"{run.config.name} has fitted only {share:.0%} of its probe")


def _arms(runs: Sequence[Run], network: str) -> tuple[list[Run], dict[str, Any]]:
    """A network's runs and the one regularizer among them."""
    chosen = [run for run in runs if run.config.network in NETWORKS[network]]
    kinds = {tuple(getattr(run.config, name) for name in REGULARIZER) for run in chosen}
    kinds = sorted(kind for kind in kinds if kind[0] != "none")
    if len(kinds) != 1:
        raise NotMeasured(f"{network}: expected runs with one regularizer, got {len(kinds)}")
    return chosen, dict(zip(REGULARIZER, kinds[0], strict=True))


def _lost(run: Run, name: str) -> list[float]:
    """What is lost in each interval after a decay, from the best value to the last: of the test
    accuracy, in points, or of the test loss."""
    frame = rows(run, name).set_index("step")[name]
    values = 100 * frame if name == "test_accuracy" else -frame
    steps, found = run.config.steps, []
    for start, stop in pairwise((*DECAY_AT, 1.0)):
        part = values.loc[(values.index > start * steps) & (values.index <= stop * steps)]
        if part.empty:
            raise NotMeasured(f"{run.config.name}: no {name} between {start:.0%} and {stop:.0%}")
        found.append(float(part.max() - part.iloc[-1]))
    return found
