"""Measuring functions behind the claims: from stored runs to a value and whether it suffices.

Here are those of the theory and of Figures 2 and 3, and what all of them share; the others are in
:mod:`ijrlib.evolution_criteria` and :mod:`ijrlib.subspace_criteria`.  Every threshold is a
constant; those that a row of ``claim_table`` quotes were fixed on 2026-11-22, before the first run
was stored, and how the other two modules apply them on 2026-11-25, before their runs; some were
made stricter after them (``claim_table`` says which).  A function takes the runs of its figure and
returns a :class:`Measurement`; where a run lacks what is needed it raises :class:`NotMeasured` with
the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ijrlib.store import Run


@dataclass(frozen=True)
class Measurement:
    """What was measured, as text with its units, and whether the criterion holds."""

    value: str
    holds: bool


class NotMeasured(ValueError):
    """The runs at hand do not contain what the criterion needs; the message says what is
    missing."""


class NotRun(NotMeasured):
    """There is no run of the kind that the criterion is about."""


# -- reading runs ----------------------------------------------------------------------------------


def stored(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs, of which there has to be one."""
    if not runs:
        raise NotRun("no run is stored")
    return runs


def first(runs: Sequence[Run]) -> Run:
    """The figure's main run: the first of its configurations."""
    return stored(runs)[0]


def rows(run: Run, *names: str) -> pd.DataFrame:
    """The steps at which all the named columns hold finite numbers, as a frame with ``step``."""
    absent = [name for name in names if name not in run.series.columns]
    if absent:
        raise NotMeasured(f"{run.config.name} has no column {', '.join(absent)}")
    frame = run.series.loc[:, ["step", *names]]
    frame = frame.loc[np.isfinite(frame.to_numpy(dtype=float)).all(axis=1)]
    if frame.empty:
        raise NotMeasured(f"{run.config.name} has no step with finite {', '.join(names)}")
    return frame


def array(run: Run, name: str) -> np.ndarray:
    """An array-valued measure, shape (T, …), all of it finite."""
    if name not in run.arrays:
        raise NotMeasured(f"{run.config.name} has no array {name}")
    values = np.asarray(run.arrays[name])
    if values.size == 0 or not np.isfinite(values).all():
        raise NotMeasured(f"{run.config.name}: the array {name} is empty or not finite")
    return values


def window(run: Run, index: int, *names: str, least: int = 4) -> pd.DataFrame:
    """Rows of the ``index``-th window of the run's curvature schedule (0 is the earliest), with
    positive values of the named columns, for logarithms."""
    windows = run.config.windows("curvature")
    if index >= len(windows):
        raise NotMeasured(
            f"{run.config.name} has {len(windows)} curvature window(s), not {index + 1}"
        )
    start, stop, _ = windows[index]
    frame = rows(run, *names)
    frame = frame.loc[(frame["step"] >= start) & (frame["step"] < stop)]
    frame = frame.loc[(frame[list(names)] > 0).all(axis=1)]
    if len(frame) < least:
        raise NotMeasured(f"{run.config.name}: {len(frame)} usable step(s) in [{start}, {stop})")
    return frame


def detrended_log(values: np.ndarray, width: int | None = None) -> np.ndarray:
    """log x minus its running median: what is left is the oscillation; the slow part is what the
    paper allows the factor to do.

    Args:
        values: positive, shape (T,).
        width: steps of the running median; by default a quarter of the window (51 of 201).
    """
    log = pd.Series(np.log(values))
    width = width or max(3, len(log) // 4) | 1
    return (log - log.rolling(width, center=True, min_periods=1).median()).to_numpy(dtype=float)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two series that both vary, of finite numbers."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise NotMeasured("a series is not finite: its correlation is undefined")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise NotMeasured("a series is constant: its correlation is undefined")
    return float(np.corrcoef(x, y)[0, 1])


def span(values: Iterable[float], form: str = ".2f") -> str:
    """The least and the largest of some values as text, or one of them where they print the
    same."""
    found = sorted(values)
    low, high = (number(value, form) for value in (found[0], found[-1]))
    return low if low == high else f"{low} to {high}"


def number(value: float, form: str = ".3g") -> str:
    """A number as text: with a minus sign, and digits and commas in place of a power of ten."""
    text = f"{value:{form}}"
    if "e+" in text:
        text = f"{float(text):,.15g}"
    return text.replace("-", "−")


# -- Figure 2: the impurity during training --------------------------------------------------------

START_FACTOR = 1.5
RISE_FACTOR = 2.0
FALL_FACTOR = 0.5
NEARLY_ZERO = 0.1


def impurity_between_bounds(runs: Sequence[Run]) -> Measurement:
    """½Gini(p_(1)) ≤ λ^(1) ≤ min(p_(1), Gini(p_(1))) for every tracked example at every step."""
    run = first(runs)
    p1, impurity = array(run, "tracked_p1"), array(run, "tracked_impurity")
    if p1.shape != impurity.shape:
        raise NotMeasured(
            f"tracked_p1 {p1.shape} and tracked_impurity {impurity.shape} differ in shape"
        )
    allowed = 32 * float(np.finfo(impurity.dtype).eps)
    half_gini = p1 * (1 - p1)
    slack = np.minimum(impurity - half_gini, np.minimum(p1, 2 * half_gini) - impurity)
    worst = float(slack.min())
    return Measurement(
        f"least distance to a bound {worst:.2g} over {slack.size:,} values (rounding allows "
        f"−{allowed:.1g})",
        worst >= -allowed,
    )


def impurity_start(runs: Sequence[Run]) -> Measurement:
    """⟨λ^(1)⟩ at the first step against 1/C."""
    run = first(runs)
    start = _impurity(run).iloc[0]
    classes = _classes(run)
    low, high = (classes - 1) / classes**2, START_FACTOR / classes
    return Measurement(
        f"⟨λ⁽¹⁾⟩ = {start:.3f} at the first step, 1/C = {1 / classes:.3f}",
        bool(low <= start <= high),
    )


def impurity_rise(runs: Sequence[Run]) -> Measurement:
    """The peak of ⟨λ^(1)⟩ against its start."""
    run = first(runs)
    impurity = _impurity(run)
    start, peak = impurity.iloc[0], impurity.max()
    return Measurement(
        f"from {start:.3f} to a peak of {peak:.3f} at step {impurity.idxmax()}: × "
        f"{peak / start:.2f}",
        bool(peak >= RISE_FACTOR * start),
    )


def impurity_fall(runs: Sequence[Run]) -> Measurement:
    """The last ⟨λ^(1)⟩ against its peak."""
    impurity = _impurity(first(runs))
    last, peak = impurity.iloc[-1], impurity.max()
    return Measurement(
        f"from a peak of {peak:.3f} to {last:.3f} at step {impurity.index[-1]}: × "
        f"{last / peak:.2f}",
        bool(last <= FALL_FACTOR * peak),
    )


def impurity_below_start(runs: Sequence[Run]) -> Measurement:
    """The last ⟨λ^(1)⟩ against the first."""
    impurity = _impurity(first(runs))
    start, last = impurity.iloc[0], impurity.iloc[-1]
    return Measurement(
        f"{last:.2g} at step {impurity.index[-1]}, {start:.3f} at step {impurity.index[0]}",
        bool(last <= NEARLY_ZERO * start),
    )


def impurity_path(runs: Sequence[Run]) -> Measurement:
    """Share of tracked examples whose own λ^(1) rises to twice its start and falls to half its
    peak."""
    impurity = array(first(runs), "tracked_impurity").astype(float)
    start, peak, last = impurity[0], impurity.max(axis=0), impurity[-1]
    both = (peak >= RISE_FACTOR * start) & (last <= FALL_FACTOR * peak)
    return Measurement(f"{both.sum()} of {both.size} tracked examples", bool(both.mean() > 0.5))


def _impurity(run: Run) -> pd.Series:
    frame = rows(run, "impurity_mean")
    return pd.Series(frame["impurity_mean"].to_numpy(dtype=float), index=frame["step"])


def _classes(run: Run) -> int:
    """C, from the name of the network or data set: 100 where it says so, else 10."""
    return 100 if "cifar100" in (run.config.dataset, *run.config.network.split("_")) else 10


# -- Figure 3: sharpness and Jacobian norm ---------------------------------------------------------

SHARED_VARIANCE = 0.5
"""Two series oscillate together where the larger part of the variance is common to both."""
LEAST_CORRELATION = SHARED_VARIANCE**0.5
DRIFT_FACTOR = 2.0
SIMILAR_FACTOR = 2.0
LEAST_CROSSINGS = 8
SAME_LEVEL = 1.1
WINDOWS = {"left": 0, "middle": 1, "right": 2}
H, J = "sharpness", "jacobian_norm_sq"


def oscillation_correlation(runs: Sequence[Run], index: int) -> Measurement:
    """Pearson correlation of the detrended log‖H‖ and log‖⟨J⟩‖² in one window."""
    run = first(runs)
    r = window_correlation(run, index)
    return Measurement(
        f"r = {r:.2f} over {len(window(run, index, H, J))} steps", r >= LEAST_CORRELATION
    )


def window_correlation(run: Run, index: int, width: int | None = None) -> float:
    """The correlation of :func:`oscillation_correlation`, for a running median of any width."""
    frame = window(run, index, H, J)
    h, j = (detrended_log(frame[name].to_numpy(), width) for name in (H, J))
    return correlation(h, j)


def correlations_by_width(run: Run, widths: Sequence[int]) -> list[list[str]]:
    """Rows of width and :func:`window_correlation` in each window; "–" where it is undefined."""
    table = []
    for width in widths:
        row = [str(width)]
        for index in WINDOWS.values():
            try:
                row.append(f"{window_correlation(run, index, width):.2f}")
            except NotMeasured:
                row.append("–")
        table.append(row)
    return table


def factor_locally_constant(runs: Sequence[Run]) -> Measurement:
    """1 − Var(log f)/Var(log‖H‖), both detrended, f = ‖H‖/‖⟨J⟩‖²: the share of the oscillation of
    ‖H‖ that a constant factor times ‖⟨J⟩‖² accounts for; the least over the windows."""
    run = first(runs)
    shares = []
    for index in WINDOWS.values():
        frame = window(run, index, H, J)
        h = detrended_log(frame[H].to_numpy())
        factor = detrended_log((frame[H] / frame[J]).to_numpy())
        if np.ptp(h) == 0:
            raise NotMeasured("the sharpness is constant in a window")
        shares.append(1 - factor.var() / h.var())
    return Measurement(
        "share explained " + ", ".join(f"{s:.2f}" for s in shares), min(shares) >= SHARED_VARIANCE
    )


def factor_drifts_slowly(runs: Sequence[Run]) -> Measurement:
    """Ratio of the medians of ‖H‖/‖⟨J⟩‖² over the two halves of a window; the largest over
    windows."""
    run = first(runs)
    ratios = []
    for index in WINDOWS.values():
        frame = window(run, index, H, J)
        factor, half = (frame[H] / frame[J]).to_numpy(), len(frame) // 2
        change = np.log(np.median(factor[half:]) / np.median(factor[:half]))
        ratios.append(float(np.exp(abs(change))))
    return Measurement(
        "half a window changes it by a factor " + ", ".join(f"{r:.2f}" for r in ratios),
        max(ratios) <= DRIFT_FACTOR,
    )


def late_sharpness_ratios(runs: Sequence[Run]) -> list[float]:
    """Median of ‖H‖·η/2 in each window after the first."""
    run = first(runs)
    return [float(np.median(window(run, i, H)[H])) * run.config.lr / 2 for i in (1, 2)]


def threshold_similar(runs: Sequence[Run]) -> Measurement:
    """Median ‖H‖ in the two late windows within a factor of two of 2/η."""
    ratios = late_sharpness_ratios(runs)
    holds = all(1 / SIMILAR_FACTOR <= r <= SIMILAR_FACTOR for r in ratios)
    return Measurement("median ‖H‖ = " + " and ".join(f"{r:.2f} × 2/η" for r in ratios), holds)


def threshold_lower_for_small_batch(runs: Sequence[Run]) -> Measurement:
    """Median ‖H‖ in the two late windows below 2/η."""
    ratios = late_sharpness_ratios(runs)
    text = "median ‖H‖ = " + " and ".join(f"{r:.2f} × 2/η" for r in ratios)
    return Measurement(f"{text} at B = {first(runs).config.batch_size}", max(ratios) < 1)


def oscillates_about_a_level(runs: Sequence[Run]) -> Measurement:
    """How often ‖H‖ crosses its median in each of the two late windows, and the median over the
    second half of a window against that over the first."""
    run = first(runs)
    crossings, changes = [], []
    for index in (1, 2):
        values = window(run, index, H)[H].to_numpy()
        above = values[values != np.median(values)] > np.median(values)
        crossings.append(int(np.count_nonzero(above[1:] != above[:-1])))
        half = len(values) // 2
        changes.append(float(np.median(values[half:]) / np.median(values[:half])))
    return Measurement(
        f"‖H‖ crosses its median {' and '.join(map(str, crossings))} times; second half of the "
        f"window × {' and '.join(f'{change:.2f}' for change in changes)} of the first",
        min(crossings) >= LEAST_CROSSINGS
        and all(1 / SAME_LEVEL <= change <= SAME_LEVEL for change in changes),
    )


# -- Theorem 2, Eqs 10 and 12 ----------------------------------------------------------------------

ROUNDING = 1e-4
"""Relative; float32 sums over up to 10^6 parameters err by some 10^-5."""
STAR_ROUNDING = 1e-6
"""Absolute; a variance of numbers up to 1 in float32 errs by some 10^-7."""
RESIDUAL = 1e-3  # of q*, relative; what the runs ask of it
NEAR = 0.25


def theorem_2_identity(runs: Sequence[Run]) -> Measurement:
    """|‖G‖ − ⟨λ*‖J‖²⟩|/‖G‖, and the relative residual of q*."""
    frame = rows(first(runs), "theorem_2_identity", "theorem_2_residual")
    deviation, residual = frame["theorem_2_identity"].max(), frame["theorem_2_residual"].max()
    return Measurement(
        f"largest deviation {deviation:.1e} over {len(frame)} steps, residual of q* up to "
        f"{residual:.1e}",
        bool(deviation <= ROUNDING and residual <= RESIDUAL),
    )


def theorem_2_star(runs: Sequence[Run]) -> Measurement:
    """0 ≤ λ*_x ≤ λ^(1)_x for every probe example at every measured step."""
    frame = rows(first(runs), "theorem_2_min_star", "theorem_2_min_slack")
    star, slack = frame["theorem_2_min_star"].min(), frame["theorem_2_min_slack"].min()
    return Measurement(
        f"least λ* {star:.1e}, least λ⁽¹⁾ − λ* {slack:.1e} over {len(frame)} steps",
        bool(min(star, slack) >= -STAR_ROUNDING),
    )


def theorem_2_bound(runs: Sequence[Run]) -> Measurement:
    """‖G‖ ≤ ⟨λ^(1)‖J‖²⟩ at every measured step."""
    frame = rows(first(runs), "gauss_newton_norm", "theorem_2_bound")
    ratio = frame["theorem_2_bound"] / frame["gauss_newton_norm"]
    return Measurement(
        f"the bound is {ratio.min():.2f} to {ratio.max():.2f} times ‖G‖ over {len(frame)} steps",
        bool(ratio.min() >= 1 - ROUNDING),
    )


def gauss_newton_is_near(runs: Sequence[Run]) -> Measurement:
    """Median of |‖H‖ − ‖G‖|/‖H‖ over the steps from the first ‖H‖ ≥ 2/η on."""
    run = first(runs)
    frame = rows(run, "sharpness", "gauss_newton_norm")
    h, g = frame["sharpness"].to_numpy(), frame["gauss_newton_norm"].to_numpy()
    reached = np.flatnonzero(h >= 2 / run.config.lr)
    if reached.size == 0:
        raise NotMeasured(f"{run.config.name}: ‖H‖ never reaches 2/η where ‖G‖ is measured")
    h, g = h[reached[0] :], g[reached[0] :]
    difference = float(np.median(np.abs(h - g) / h))
    return Measurement(
        f"median relative difference {difference:.2%} over {len(h)} steps", difference <= NEAR
    )


def trace_approximation(runs: Sequence[Run]) -> Measurement:
    """Median relative difference of ⟨tr M · ‖J‖_F²⟩/C from tr G (Eq 12)."""
    frame = rows(first(runs), "gauss_newton_trace", "gauss_newton_trace_approximation")
    exact = frame["gauss_newton_trace"].to_numpy()
    approximation = frame["gauss_newton_trace_approximation"].to_numpy()
    difference = float(np.median(np.abs(approximation - exact) / exact))
    return Measurement(
        f"median relative difference {difference:.2f} over {len(frame)} steps", difference <= NEAR
    )


# -- Algorithm 2 -----------------------------------------------------------------------------------

ALGORITHM_TOLERANCE = 1e-3


def algorithm_2_converges(runs: Sequence[Run]) -> Measurement:
    """Last iterate of Algorithm 2 against the exact ‖⟨J⟩‖ at the same steps."""
    run = first(runs)
    values = array(run, "algorithm_2_values").astype(float)
    steps = array(run, "algorithm_2_values.steps")
    exact = rows(run, "jacobian_norm_exact").set_index("step").loc[steps, "jacobian_norm_exact"]
    difference = np.abs(values[:, -1] / exact.to_numpy(dtype=float) - 1).max()
    return Measurement(
        f"largest relative difference {difference:.1e} after {values.shape[1]} iterations, "
        f"{len(steps)} step(s)",
        bool(difference <= ALGORITHM_TOLERANCE),
    )
