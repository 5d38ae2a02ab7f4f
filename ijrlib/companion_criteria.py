"""Measuring functions behind the claims of the companion papers.

Conventions as in :mod:`ijrlib.criteria`.  Thresholds were fixed on 2026-11-27, after one trial of
SimpleCNN at η = 0.1 with augmentation that is not stored, and before the runs that are; those of
batch normalization likewise, after trials of a tenth of the length at η = 0.1 and 1, and at η = 1
without it; those of the LSTM after trials, with two initializations, of which the loss and the
accuracy were looked at, and ‖H‖ in one that had not begun to learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ijrlib import phases
from ijrlib.break_even import growth
from ijrlib.criteria import (
    LEAST_CORRELATION,
    H,
    J,
    Measurement,
    NotMeasured,
    NotRun,
    array,
    correlation,
    number,
    rows,
    stored,
)
from ijrlib.evolution_criteria import lr_and_seed, of, ordered
from ijrlib.store import Run

K = "covariance_norm"
SINGLE = "covariance_norm_single"
ESTIMATED = ("hessian_trace", "hessian_conditioning")
WIDTH = 2.0
WIDTH_FACTOR = 2**0.5
EARLY = (0.5, 0.7)
EARLY_REVIEWS = (0.65, 0.85)
"""Training accuracy "close to 60%", and "75%" on reviews."""


def stability(run: Run) -> pd.Series:
    """The left side of the criterion of the break-even point at each measured step,
    (1 − η‖H‖)² + s²η²(N − S)/(S(N − 1)), by step; unstable above 1."""
    frame = rows(run, H, "curvature_variance")
    config = run.config
    values = growth(
        config.lr,
        frame[H].to_numpy(dtype=float),
        frame["curvature_variance"].to_numpy(dtype=float),
        config.examples,
        config.batch_size,
    )
    return pd.Series(values, index=frame["step"])


def break_even_point(run: Run) -> int:
    """The first measured step at which SGD is not stable along the top eigenvector of H.

    Raises:
        NotMeasured: where it is stable throughout.
    """
    return _first(run, stability(run) >= 1, "SGD is stable throughout by the measured criterion")


def edge_of_stability(run: Run) -> int:
    """The first measured step at which ‖H‖ ≥ 2/η; raises NotMeasured where there is none."""
    if not phases.reaches_threshold(run):
        raise NotMeasured(f"{run.config.name}: ‖H‖ never reaches 2/η")
    return phases.onset(run)


def _first(run: Run, holds: pd.Series, otherwise: str) -> int:
    if not holds.any():
        raise NotMeasured(f"{run.config.name}: {otherwise}")
    return int(holds.index.to_numpy()[holds.to_numpy().argmax()])


# -- paths of predictions --------------------------------------------------------------------------


def predictions(run: Run) -> pd.DataFrame:
    """Predictions on the test examples, a row for each step."""
    values = array(run, "predictions").astype(float)
    steps = run.arrays["predictions.steps"]
    return pd.DataFrame(values.reshape(len(values), -1) / values.shape[1] ** 0.5, index=steps)


def departure(run: Run, other: Run) -> pd.Series:
    """Distance of the predictions at each step from the nearest ones of another run: root mean
    square over test examples."""
    ours, theirs = predictions(run), predictions(other).to_numpy()
    nearest = [np.linalg.norm(theirs - row, axis=1).min() for row in ours.to_numpy()]
    return pd.Series(nearest, index=ours.index)


def spacing(run: Run) -> float:
    """Median distance of the predictions of two measurements that follow each other."""
    steps = predictions(run).diff().iloc[1:].to_numpy()
    if not len(steps):
        raise NotMeasured(f"{run.config.name}: one measurement of predictions")
    return float(np.median(np.linalg.norm(steps, axis=1)))


def slow_and_fast(runs: Sequence[Run], seeds: int = 2) -> list[tuple[Run, Run]]:
    """Pairs of runs with the smallest and the largest η, with the same seed; at least so many."""
    some = stored(runs)
    low, high = (f(run.config.lr for run in some) for f in (min, max))
    fast = {run.config.seed: run for run in some if run.config.lr == high}
    found = [(r, fast[r.config.seed]) for r in some if r.config.lr == low and r.config.seed in fast]
    if low == high or len(found) < seeds:
        raise NotMeasured(f"runs of two learning rates with fewer than {seeds} seeds")
    return found


def departs_with_covariance(runs: Sequence[Run]) -> Measurement:
    """Correlation of the distance to the path with the largest η and of λ_K, along that with the
    smallest, in every seed."""
    found = []
    for slow, fast in slow_and_fast(runs):
        both = pd.concat([departure(slow, fast), phases.column(slow, K)], axis=1).dropna()
        found.append(correlation(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()))
    text = ", ".join(f"{r:.2f}" for r in found)
    return Measurement(f"r = {text} ({len(found)} seeds)", min(found) >= LEAST_CORRELATION)


def paths_part(runs: Sequence[Run]) -> Measurement:
    """From which share of the steps on the path with the smallest η is farther from every point of
    that with the largest than these are from the next, in every seed."""
    shares, texts = [], []
    for slow, fast in slow_and_fast(runs):
        far = departure(slow, fast) > spacing(fast)
        near = far.index[~far.to_numpy()]
        shares.append(float(near[-1]) / slow.config.steps if len(near) else 0.0)
        texts.append(
            f"from {shares[-1]:.0%} of the steps on"
            if far.iloc[-1]
            else f"at {far.sum()} of {len(far)} measurements, and not at the last"
        )
    return Measurement(f"apart {'; '.join(texts)}", max(shares) < 0.5)


# -- the early phase -------------------------------------------------------------------------------


def rise_together(runs: Sequence[Run]) -> Measurement:
    """Correlation of log λ_K and log λ_H up to the largest λ_H, the least over runs."""
    found = []
    for run in stored(runs):
        frame = rows(run, H, K)
        frame = frame.loc[frame["step"] <= phases.largest(phases.column(run, H))]
        if len(frame) < 4:
            raise NotMeasured(f"{run.config.name}: λ_H is largest within three measurements")
        found.append(correlation(np.log(frame[H]), np.log(frame[K])))
    return Measurement(
        f"r = {', '.join(f'{r:.2f}' for r in found)}", min(found) >= LEAST_CORRELATION
    )


def step_width(runs: Sequence[Run]) -> Measurement:
    """Median of α* from the break-even point on, and its first value within the range that was
    tried, in every run."""
    texts, near = [], []
    for run in stored(runs):
        width = phases.column(run, "step_width")
        late = float(width.loc[width.index >= break_even_point(run)].median())
        texts.append(
            f"{lr_and_seed(run)}: from {width.iloc[0]:.1f} (step "
            f"{width.index[0]}, the first in range) to {late:.2f}"
        )
        near.append(WIDTH / WIDTH_FACTOR <= late <= WIDTH * WIDTH_FACTOR < width.iloc[0])
    return Measurement("; ".join(texts), all(near))


# -- the two conjectures ---------------------------------------------------------------------------


def largest(runs: Sequence[Run], name: str, by: str, rising: bool) -> Measurement:
    """Whether the largest value of a column along the way is ordered by η or S, every run of one
    value on its side of every run of the next."""
    return ordered(
        stored(runs), by, rising, lambda run: float(quantity(run, name).max()), batch="S"
    )


def quantity(run: Run, name: str) -> pd.Series:
    """A column by step; "conditioning" is Tr K/λ_K, "conditioning_single" that from single
    examples and "hessian_conditioning" Tr H/λ_H."""
    parts = {
        "hessian_conditioning": (H, "hessian_trace"),
        "conditioning": (K, "covariance_trace"),
        "conditioning_single": (SINGLE, "covariance_trace_single"),
    }
    if name not in parts:
        return phases.column(run, name)
    norm, trace = parts[name]
    frame = rows(run, norm, trace)
    return pd.Series((frame[trace] / frame[norm]).to_numpy(), index=frame["step"])


def standard_error(run: Run, name: str, step: int) -> float:
    """Of a quantity at a step: that of Hutchinson's estimate of Tr H, 0 for what is no estimate."""
    if name not in ESTIMATED:
        return 0.0
    error = float(phases.column(run, "hessian_trace_error").loc[step])
    return error if name == "hessian_trace" else error / float(phases.column(run, H).loc[step])


def later(run: Run, name: str) -> pd.Series:
    """A quantity after the first measurement, at which runs with one seed are all the same."""
    values = quantity(run, name).iloc[1:]
    if values.empty:
        raise NotMeasured(f"{run.config.name}: one measurement of {name}")
    return values


def largest_later(runs: Sequence[Run], name: str, by: str, rising: bool) -> Measurement:
    """:func:`largest` after the first measurement, beyond the standard errors of what is
    estimated.  (The largest of several estimates is on average too large.)"""

    def error(run: Run) -> float:
        return standard_error(run, name, phases.largest(later(run, name)))

    return ordered(
        stored(runs),
        by,
        rising,
        lambda run: float(later(run, name).max()),
        batch="S",
        error=error if name in ESTIMATED else None,
    )


def reached_early(runs: Sequence[Run], between: tuple[float, float] = EARLY) -> Measurement:
    """Training accuracy where λ_K and λ_H are largest, in every run."""
    shares = {name: [] for name in (K, H)}
    for run in stored(runs):
        accuracy = phases.column(run, "train_accuracy")
        for name, found in shares.items():
            step = phases.largest(phases.column(run, name))
            if step not in accuracy.index:
                raise NotMeasured(f"{run.config.name}: no training accuracy at step {step}")
            found.append(float(accuracy.loc[step]))
    text = "; ".join(
        f"largest {symbol} at {min(found):.0%} to {max(found):.0%}"
        for symbol, found in zip(("λ_K", "λ_H"), shares.values(), strict=True)
    )
    every = [share for found in shares.values() for share in found]
    return Measurement(text, between[0] <= min(every) and max(every) <= between[1])


def batch_and_single(runs: Sequence[Run]) -> Measurement:
    """Correlation of log λ_K from mini-batches and from single examples along each run."""
    frames = [rows(run, K, SINGLE) for run in stored(runs)]
    found = [correlation(np.log(frame[K]), np.log(frame[SINGLE])) for frame in frames]
    ratios = [(frame[K] / frame[SINGLE]).median() for frame in frames]
    return Measurement(
        f"r = {', '.join(f'{r:.2f}' for r in found)}; the former is "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} times the latter (medians)",
        min(found) >= LEAST_CORRELATION,
    )


# -- batch normalization ---------------------------------------------------------------------------

DECAYED = 0.5
CONDITIONED = 1.5
CHANCE = 0.2
"""Training accuracy up to which a network has learned nothing: twice that of ten equal classes."""


def normalized(runs: Sequence[Run], batch_norm: bool = True) -> list[Run]:
    """The runs of networks with batch normalization, or those without."""
    found = [run for run in stored(runs) if run.config.network.endswith("_bn") == batch_norm]
    if not found:
        raise NotRun(f"no run {'with' if batch_norm else 'without'} batch normalization")
    return found


def largest_normalized(runs: Sequence[Run], name: str, rising: bool) -> Measurement:
    """:func:`largest_later` over η of the runs with batch normalization."""
    return largest_later(normalized(runs), name, "lr", rising)


def diverges_without(runs: Sequence[Run]) -> Measurement:
    """How training ends without batch normalization with the largest η, and with it."""
    pair = []
    for batch_norm in (False, True):
        some = normalized(runs, batch_norm)
        lr = max(run.config.lr for run in some)
        pair.append([run for run in some if run.config.lr == lr])
    ends = [[float(phases.column(run, "train_accuracy").iloc[-1]) for run in part] for part in pair]
    diverged = [run.provenance["status"] == "diverged" for run in pair[0]]
    text = "; ".join(
        f"{min(end):.0%} to {max(end):.0%} {name} at η = {part[0].config.lr:g}"
        for name, part, end in zip(("without", "with"), pair, ends, strict=True)
    )
    lost = all(bad or end <= CHANCE for bad, end in zip(diverged, ends[0], strict=True))
    return Measurement(
        f"of the probe right at the end {text}; {sum(diverged)} of {len(diverged)} without ended "
        "early",
        lost and min(ends[1]) > CHANCE,
    )


def conditioned_alike(runs: Sequence[Run]) -> Measurement:
    """Batch normalization at its smallest η against none at its smallest one: the median of
    ‖g‖/‖g_5‖ and the largest λ_K and Tr K/λ_K after the first measurement, means over seeds."""
    found = []
    for batch_norm in (True, False):
        some = normalized(runs, batch_norm)
        lr = min(run.config.lr for run in some)
        some = [run for run in some if run.config.lr == lr]
        found.append(
            [
                float(np.mean([later(run, "gradient_over_top").median() for run in some])),
                float(np.mean([later(run, K).max() for run in some])),
                float(np.mean([later(run, "conditioning").max() for run in some])),
            ]
        )
    (g, norm, ratio), (g_plain, norm_plain, ratio_plain) = found
    return Measurement(
        f"‖g‖/‖g_5‖ {g:.2f} with and {g_plain:.2f} without; λ_K {norm:.3g} and {norm_plain:.3g}; "
        f"Tr K/λ_K {ratio:.3g} and {ratio_plain:.3g}",
        g <= CONDITIONED * g_plain
        and ratio <= CONDITIONED * ratio_plain
        and norm >= norm_plain / CONDITIONED,
    )


def starts_high(runs: Sequence[Run]) -> Measurement:
    """The median of λ_K over the second half of the steps as a share of the first λ_K: the least
    at the smallest η and the largest at all others."""
    shares: dict[float, list[float]] = {}
    for run in normalized(runs):
        values = phases.column(run, K)
        late = values.loc[values.index >= run.config.steps / 2].median()
        if not np.isfinite(late):
            raise NotMeasured(f"{run.config.name}: no λ_K in the second half of its steps")
        shares.setdefault(run.config.lr, []).append(float(late / values.iloc[0]))
    if len(shares) < 2:
        raise NotMeasured("runs of one lr only")
    smallest = min(shares)
    others = max(max(found) for lr, found in shares.items() if lr != smallest)
    return Measurement(
        f"× {min(shares[smallest]):.2f} at η = {smallest:g}, at most × {others:.2f} at the others",
        others <= DECAYED < min(shares[smallest]),
    )


def scale_falls_first(runs: Sequence[Run]) -> Measurement:
    """‖γ‖ of the last batch normalization at the second measurement against the first, for the
    largest and the smallest η."""
    some = normalized(runs)
    lrs = max(run.config.lr for run in some), min(run.config.lr for run in some)
    if lrs[0] == lrs[1]:
        raise NotMeasured("runs of one lr only")
    found = [scale_ratios(some, lr) for lr in lrs]
    return Measurement(
        f"{100 * (max(found[0]) - 1):+.2g}% at η = {lrs[0]:g}, {100 * (min(found[1]) - 1):+.2g}% "
        f"at η = {lrs[1]:g}".replace("-", "−"),
        max(found[0]) < 1 <= min(found[1]),
    )


def scale_ratios(runs: Sequence[Run], lr: float) -> list[float]:
    """‖γ‖ of the last batch normalization at the second measurement over the first, of each run
    with this η."""
    ratios = []
    for run in of(runs, lr=lr):
        values = phases.column(run, "last_scale_norm")
        if len(values) < 2:
            raise NotMeasured(f"{run.config.name}: one measurement of ‖γ‖")
        ratios.append(float(values.iloc[1] / values.iloc[0]))
    return ratios


# -- the three papers on one axis of time ----------------------------------------------------------

EVENTS = {
    "break-even": break_even_point,
    "‖H‖ ≥ 2/η": edge_of_stability,
    "largest λ_K": lambda run: phases.largest(phases.column(run, K)),
    "largest ‖H‖": lambda run: phases.largest(phases.column(run, H)),
    "largest ⟨λ⁽¹⁾⟩": phases.peak,
}
"""What happens when: name → step of a run."""


def slowing(run: Run) -> int:
    """The measured step at which the growth of log‖⟨J⟩‖² up to the peak of ⟨λ^(1)⟩ bends: the
    breakpoint of the two-piece, continuous linear least-squares fit with the least error.

    Raises:
        NotMeasured: for fewer than six measurements up to the peak, or where the second piece is
            the steeper one.
    """
    values = phases.column(run, J)
    values = values.loc[values.index <= phases.peak(run)]
    if len(values) < 6:
        raise NotMeasured(f"{run.config.name}: ⟨λ⁽¹⁾⟩ is largest within five measurements")
    t, y = values.index.to_numpy(dtype=float), np.log(values.to_numpy(dtype=float))
    best, place, bend = np.inf, 0, 0.0
    for k in range(2, len(t) - 2):
        design = np.stack([np.ones_like(t), t, np.maximum(t - t[k], 0)], axis=1)
        solution, *_ = np.linalg.lstsq(design, y, rcond=None)
        error = float(((design @ solution - y) ** 2).sum())
        if error < best:
            best, place, bend = error, k, float(solution[2])
    if bend >= 0:
        raise NotMeasured(f"{run.config.name}: ‖⟨J⟩‖² does not slow down before the peak")
    return int(t[place])


PARTED = 0.5
NAMES = {"simple_cnn_be": "SimpleCNN", "mlp_300_100": "perceptron"}


def reference(run: Run, runs: Sequence[Run]) -> Run:
    """The run with the smallest η that differs in nothing else that matters to the path."""
    fields = ("network", "seed", "batch_size", "examples")
    same = [r for r in runs if all(getattr(r.config, f) == getattr(run.config, f) for f in fields)]
    return min(same, key=lambda r: r.config.lr)


def parting(run: Run, runs: Sequence[Run]) -> int:
    """The first measured step at which ‖⟨J⟩‖² is less than ``PARTED`` times that of the
    :func:`reference` at the same time ηt (its logarithm interpolated).

    Raises:
        NotMeasured: where there is none, or the run is the reference.
    """
    other = reference(run, runs)
    if other.config.lr == run.config.lr:
        raise NotMeasured(f"{run.config.name} has the smallest η")
    ours, theirs = phases.column(run, J), phases.column(other, J)
    at = run.config.lr * ours.index.to_numpy(dtype=float)
    times = other.config.lr * theirs.index.to_numpy(dtype=float)
    expected = np.interp(at, times, np.log(theirs.to_numpy(dtype=float)))
    apart = np.log(ours) - expected < np.log(PARTED)
    return _first(run, apart, "‖⟨J⟩‖² does not part from that of the smallest η")


def conditioning(runs: Sequence[Run]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a table: for each run, by η and seed, the largest Tr K/λ_K after the first
    measurement, with K from mini-batches and from single examples."""
    table = []
    for run in sorted(runs, key=lambda run: (run.config.lr, run.config.seed)):
        found = (later(run, name).max() for name in ("conditioning", "conditioning_single"))
        table.append(
            (
                lr_and_seed(run),
                *(number(value) for value in found),
            )
        )
    return ("run", "from mini-batches", "from single examples"), table


def timeline(runs: Sequence[Run]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a table: for each run, by network, η, S and seed, the time ηt of each
    event, of the bend of ‖⟨J⟩‖² and of its parting from the smallest η; "–" where it does not
    happen."""
    events = {
        **EVENTS,
        "‖⟨J⟩‖² bends": slowing,
        "‖⟨J⟩‖² parts": lambda run: parting(run, runs),
    }
    networks = [run.config.network for run in runs]

    def place(run: Run) -> tuple[float, ...]:
        config = run.config
        size = config.batch_size or config.examples
        return networks.index(config.network), config.lr, size, config.seed

    table = []
    for run in sorted(runs, key=place):
        cells = []
        for event in events.values():
            try:
                cells.append(number(run.config.lr * event(run)))
            except NotMeasured:
                cells.append("–")
        config = run.config
        setting = f"η = {config.lr:g}, S = {config.batch_size or 'full'}, seed {config.seed}"
        table.append((f"{NAMES[config.network]}, {setting}", *cells))
    return ("run", *events), table
