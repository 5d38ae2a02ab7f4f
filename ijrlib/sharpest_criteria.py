"""Measuring functions behind the claims on the sharpest directions (Jastrzebski et al. 2019).

Conventions as in :mod:`ijrlib.criteria`.  Thresholds were fixed on 2026-11-27, after trials of at
most 200 steps that are not stored, of SGD and of Nudged-SGD with K = 5 and 20, and before any of
the runs that are was looked at; those of Figure 3 were there already, but not looked at for this.
For Figures 9, 12, 21 and 22 and for the language model of Figure 4 they were fixed on 2026-11-28
before there were any runs, but for trials on reviews of which the loss and the accuracy were looked
at, and λ_1 in one that started with larger embeddings.  For Figure 19 they were fixed on
2026-11-29 before its runs, but for those of SGD at its learning rate, which are Figure 4's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ijrlib import phases
from ijrlib.conventions import STEP_FACTORS, SURFACE_DIRECTIONS, SURFACE_POINTS
from ijrlib.criteria import RISE_FACTOR, Measurement, NotMeasured, NotRun, array, stored
from ijrlib.evolution_criteria import lr_and_seed, of, ordered
from ijrlib.store import Run

EARLY = 0.1
"""The first tenth of the steps."""

DROP = 0.05
MORE_STABLE = 0.5
MORE = 10.0
OFTEN = 0.5
FLATTER = 0.5
SIMILAR = 1.5
ALIGNED = 5
"""Directions over which alignment is averaged."""


# -- reading runs ----------------------------------------------------------------------------------


def eigenvalue(run: Run, i: int) -> pd.Series:
    """λ_i of H by step, i = 1 being the largest."""
    values = array(run, "top_values")
    if values.shape[1] < i:
        raise NotMeasured(f"{run.config.name} has {values.shape[1]} eigenvalues, not {i}")
    return pd.Series(values[:, i - 1], index=run.arrays["top_values.steps"])


def loss(run: Run) -> pd.Series:
    """L of the probe by step."""
    values = array(run, "surfaces")[:, 0, len(SURFACE_POINTS) // 2]
    return pd.Series(values, index=run.arrays["surfaces.steps"])


def alignment(run: Run) -> pd.Series:
    """E|cos(g_B, e_i)| by step, its mean over the first ``ALIGNED`` directions."""
    values = array(run, "gradient_cosines")[:, :ALIGNED].mean(1)
    return pd.Series(values, index=run.arrays["gradient_cosines.steps"])


def random_alignment(run: Run) -> float:
    """E|cos| of a random vector of R^m with a fixed one, √(2/(πm)) for large m."""
    return (2 / (np.pi * run.provenance["parameters"])) ** 0.5


def changes(run: Run) -> pd.DataFrame:
    """E[L(θ − αηc_1e_1)] − L(θ) by step, a column for each α of ``STEP_FACTORS``."""
    values = array(run, "loss_changes")
    return pd.DataFrame(
        values, index=run.arrays["loss_changes.steps"], columns=pd.Index(STEP_FACTORS)
    )


def rise(run: Run, i: int) -> pd.Series:
    """By how much the loss rises two mean step lengths away along e_i, mean of both sides."""
    values = array(run, "surfaces")
    row = SURFACE_DIRECTIONS.index(i)
    if values.shape[1] <= row:
        raise NotMeasured(f"{run.config.name} has no losses along e_{i}")
    surface = values[:, row]
    middle = len(SURFACE_POINTS) // 2
    return pd.Series(
        (surface[:, 0] + surface[:, -1]) / 2 - surface[:, middle],
        index=run.arrays["surfaces.steps"],
    )


def _late(run: Run, values: pd.Series) -> float:
    """Median over the last quarter of the steps."""
    late = values.loc[values.index >= 0.75 * run.config.steps]
    if late.empty:
        raise NotMeasured(f"{run.config.name}: no measurement in the last quarter of its steps")
    return float(late.median())


# -- Figures 1 to 3: growth ------------------------------------------------------------------------


def rise_at_first(runs: Sequence[Run]) -> Measurement:
    """By what factor each eigenvalue grows within the first tenth of the steps, the least over
    eigenvalues and runs."""
    found = []
    for run in stored(runs):
        values, steps = array(run, "top_values"), run.arrays["top_values.steps"]
        early = values[steps <= EARLY * run.config.steps]
        if len(early) < 2 or not (values[0] > 0).all():
            raise NotMeasured(f"{run.config.name}: no growth from positive eigenvalues")
        found.append(early.max(0) / early[0])
    least = np.min(found, axis=0)
    return Measurement(
        f"the largest by × {least[0]:.3g} at least, the slowest of {len(least)} by × "
        f"{least.min():.3g} at least; {len(found)} runs",
        bool(least.min() >= RISE_FACTOR),
    )


def peak_in_the_first_half(runs: Sequence[Run]) -> Measurement:
    """Where the largest eigenvalue is largest, as a share of the steps, and what is left of it in
    the last quarter."""
    texts, early = [], []
    for run in stored(runs):
        top = eigenvalue(run, 1)
        where = phases.largest(top) / run.config.steps
        texts.append(f"{lr_and_seed(run)}: at {where:.0%}, × {_late(run, top) / top.max():.2f}")
        early.append(where <= 0.5)
    return Measurement(
        "when it is largest, and what share of that is left in the last quarter (median): "
        + "; ".join(texts),
        all(early),
    )


def instability(runs: Sequence[Run]) -> Measurement:
    """The largest fall of the training accuracy between measurements before and after ‖H‖ first
    reaches 2/η, in every run."""
    texts, found = [], []
    for run in stored(runs):
        if not phases.reaches_threshold(run):
            raise NotMeasured(f"{run.config.name}: ‖H‖ never reaches 2/η")
        accuracy, onset = phases.column(run, "train_accuracy"), phases.onset(run)
        fall = -accuracy.diff()
        before, after = fall.loc[fall.index <= onset].max(), fall.loc[fall.index > onset].max()
        if not np.isfinite([before, after]).all():
            raise NotMeasured(f"{run.config.name}: no accuracy before or after step {onset}")
        texts.append(f"{lr_and_seed(run)}: {100 * before:.1f} and {100 * after:.1f} points")
        found.append(before < DROP <= after)
    return Measurement(f"largest fall before and after: {'; '.join(texts)}", all(found))


def stabler_with_batch_norm(runs: Sequence[Run]) -> Measurement:
    """The largest fall of the training accuracy between measurements with batch normalization and
    without it, in pairs of runs with one η and one seed."""
    texts, found = [], []
    for run in stored(runs):
        if run.config.network.endswith("_bn"):
            continue
        fields = {"lr": run.config.lr, "seed": run.config.seed}
        (other,) = of(runs, network=f"{run.config.network}_bn", **fields)
        falls = [-phases.column(r, "train_accuracy").diff().min() for r in (other, run)]
        if not np.isfinite(falls).all():
            raise NotMeasured(f"{run.config.name}: one measurement of accuracy")
        with_norm, without = (max(0.0, float(fall)) for fall in falls)
        texts.append(f"{lr_and_seed(run)}: {100 * with_norm:.1f} and {100 * without:.1f} points")
        found.append(with_norm < MORE_STABLE * without)
    if not found:
        raise NotRun("no run without batch normalization")
    return Measurement(f"largest fall with and without: {'; '.join(texts)}", all(found))


# -- Figure 4: peaks -------------------------------------------------------------------------------


def peak_height(runs: Sequence[Run], i: int, by: str, rising: bool) -> Measurement:
    """Whether the largest λ_i along the way is ordered by η or S, every run of one value on its
    side of every run of the next."""
    return ordered(stored(runs), by, rising, lambda run: float(eigenvalue(run, i).max()), batch="S")


def peak_epoch(runs: Sequence[Run], i: int, by: str, rising: bool) -> Measurement:
    """The same of the epoch at which λ_i is largest."""

    def epoch(run: Run) -> float:
        size = run.config.batch_size or run.config.examples
        steps = run.config.examples // size  # what is left over of the examples is not drawn
        return phases.largest(eigenvalue(run, i)) / steps

    return ordered(stored(runs), by, rising, epoch, batch="S")


def after_both_stages(runs: Sequence[Run], accuracy: bool) -> Measurement:
    """Whether the length of the first stage orders λ_1 in the last quarter of the steps, falling,
    or the test accuracy there, rising."""

    def level(run: Run) -> float:
        return late_accuracy(run) if accuracy else _late(run, eigenvalue(run, 1))

    return ordered(stored(runs), "lr_decay_at", accuracy, level)


def late_accuracy(run: Run) -> float:
    """Median test accuracy over the last quarter of the steps."""
    return _late(run, phases.column(run, "test_accuracy"))


# -- Figures 5 and 6: the step ---------------------------------------------------------------------


def aligned(runs: Sequence[Run]) -> Measurement:
    """Alignment with the five sharpest directions in units of a random vector's, after the start,
    the least over steps and runs."""
    found = []
    for run in stored(runs):
        values = alignment(run)
        values = values.loc[values.index > 0]
        if values.empty:
            raise NotMeasured(f"{run.config.name}: no alignment after the start")
        found.append(float(values.min()) / random_alignment(run))
    return Measurement(
        f"at least × {min(found):.3g} a random vector's, {len(found)} runs", min(found) >= MORE
    )


def aligned_by_lr(runs: Sequence[Run]) -> Measurement:
    """Alignment in the last quarter of the steps (median), ordered by η either way."""

    def level(run: Run) -> float:
        return _late(run, alignment(run))

    falling = ordered(stored(runs), "lr", False, level)
    return falling if falling.holds else ordered(stored(runs), "lr", True, level)


def too_long(runs: Sequence[Run]) -> Measurement:
    """The share of measured steps at which twice the step along e_1 raises the loss on average,
    from the first such step on, and where this one is."""
    return _often(runs, lambda found: found[2.0] > 0, "twice the step raises the loss")


def half_is_better(runs: Sequence[Run]) -> Measurement:
    """The share of measured steps at which half the step along e_1 ends lower than the step does,
    from the first such step on, and where this one is."""
    return _often(runs, lambda found: found[0.5] < found[1.0], "half the step ends lower")


def _often(runs: Sequence[Run], which, what: str) -> Measurement:
    texts, often = [], []
    for run in stored(runs):
        holds = which(changes(run))
        holds = holds.loc[holds.index > 0]
        if not holds.any():
            raise NotMeasured(f"{run.config.name}: at no measured step")
        start = int(holds.index.to_numpy()[holds.to_numpy().argmax()])
        share = float(holds.loc[holds.index >= start].mean())
        texts.append((start / run.config.steps, share))
        often.append(share >= OFTEN and start <= run.config.steps / 2)
    starts, shares = zip(*texts, strict=True)
    return Measurement(
        f"{what} at {min(shares):.0%} to {max(shares):.0%} of the measurements since the first at "
        f"which it does, which comes at {min(starts):.0%} to {max(starts):.0%} of the run",
        all(often),
    )


def flatter(runs: Sequence[Run]) -> Measurement:
    """By how much the loss rises along e_3 and e_4 as a share of its rise along e_1, median over
    measured steps after the start, the largest over runs."""
    shares = [rise_shares(run) for run in stored(runs)]
    found = [share for pair in shares for share in pair]
    return Measurement(f"median share {min(found):.2g} to {max(found):.2g}", max(found) <= FLATTER)


def rise_shares(run: Run, scale: Sequence[pd.Series | float] = (1.0, 1.0)) -> list[float]:
    """Rise of the loss along e_3 and along e_4, each times a scale, over that along e_1: medians
    over the measured steps after the start."""
    sharpest = rise(run, 1)
    shares = [factor * rise(run, i) / sharpest for i, factor in zip((3, 4), scale, strict=True)]
    medians = [float(share.loc[share.index > 0].median()) for share in shares]
    if not np.isfinite(medians).all():
        raise NotMeasured(f"{run.config.name}: no losses along e_3 and e_4 after the start")
    return medians


# -- Figures 7 and 8: rules that treat the sharpest directions apart -------------------------------


def _variants(runs: Sequence[Run], regularizer: str) -> list[tuple[Run, Run]]:
    """Pairs of plain SGD and a variant that sets in later, with the same seed."""
    plain = {run.config.seed: run for run in of(runs, regularizer="none")}
    found = [
        (plain[run.config.seed], run)
        for run in of(runs, regularizer=regularizer)
        if run.config.seed in plain and run.config.regularizer_from
    ]
    if len(found) < 2:
        raise NotMeasured("one seed only: its spread is unknown")
    return found


def only_the_projection(runs: Sequence[Run]) -> Measurement:
    """λ_1 in the last quarter against plain SGD's, and the loss then against that where the rule
    sets in, in every seed."""
    texts, found = [], []
    for plain, variant in _variants(runs, "sharpest_only"):
        ratio = _late(variant, eigenvalue(variant, 1)) / _late(plain, eigenvalue(plain, 1))
        losses = loss(variant)
        start = float(losses.loc[losses.index <= variant.config.regularizer_from].iloc[-1])
        if start <= 0:
            raise NotMeasured(f"{variant.config.name}: the loss is 0 where the rule sets in")
        growth = _late(variant, losses) / start
        texts.append(f"× {ratio:.2f}, × {growth:.2f}")
        found.append(ratio < 1 < growth)
    return Measurement(
        f"λ_1 over SGD's, and the loss over that where the rule sets in: {'; '.join(texts)} "
        f"({len(found)} seeds)",
        all(found),
    )


def all_but_the_projection(runs: Sequence[Run]) -> Measurement:
    """λ_1 and the loss in the last quarter against plain SGD's, in every seed."""
    texts, found = [], []
    for plain, variant in _variants(runs, "nudged"):
        ratio = _late(variant, eigenvalue(variant, 1)) / _late(plain, eigenvalue(plain, 1))
        level = _late(plain, loss(plain))
        if level <= 0:
            raise NotMeasured(f"{plain.config.name}: the loss is 0 at the end")
        losses = _late(variant, loss(variant)) / level
        texts.append(f"× {ratio:.2f}, × {losses:.2f}")
        found.append(ratio > 1 and 1 / SIMILAR <= losses <= SIMILAR)
    return Measurement(
        f"λ_1 and the loss over SGD's: {'; '.join(texts)} ({len(found)} seeds)", all(found)
    )


def faster(runs: Sequence[Run], by: str = "sharpest", rising: bool = False) -> Measurement:
    """Whether the loss of the probe, median over the second half of the steps, is ordered by K, or
    by γ, SGD being γ = 1."""

    def level(run: Run) -> float:
        values = loss(run)
        return float(values.loc[values.index >= run.config.steps / 2].median())

    return ordered(stored(runs), by, rising, level)


def sharper(runs: Sequence[Run]) -> Measurement:
    """Whether the largest λ_1 along the way rises with K."""
    return peak_height(runs, 1, "sharpest", True)


def frobenius(runs: Sequence[Run], by: str = "sharpest", rising: bool = True) -> Measurement:
    """Whether the largest ‖H‖_F along the way is ordered by K, or by γ, SGD being γ = 1, beyond its
    standard errors.  (The largest of several estimates is on average too large.)"""

    def level(run: Run) -> float:
        return float(phases.column(run, "hessian_frobenius_sq").max() ** 0.5)

    def error(run: Run) -> float:
        step = phases.largest(phases.column(run, "hessian_frobenius_sq"))
        return float(frobenius_error(run).loc[step])

    return ordered(stored(runs), by, rising, level, error=error)


def frobenius_error(run: Run) -> pd.Series:
    """Standard error of ‖H‖_F by step, to first order half that of its square over ‖H‖_F."""
    norm = phases.column(run, "hessian_frobenius_sq") ** 0.5
    return phases.column(run, "hessian_frobenius_sq_error") / (2 * norm)
