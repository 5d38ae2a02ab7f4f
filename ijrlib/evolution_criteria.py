"""Measuring functions behind the claims on how quantities evolve: Figures 4 to 6, 12 to 26 and 32.

Thresholds and conventions as in :mod:`ijrlib.criteria`; phases as in :mod:`ijrlib.phases`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ijrlib import embedding, phases
from ijrlib.conventions import described
from ijrlib.criteria import (
    FALL_FACTOR,
    LEAST_CORRELATION,
    RISE_FACTOR,
    ROUNDING,
    SIMILAR_FACTOR,
    STAR_ROUNDING,
    H,
    J,
    Measurement,
    NotMeasured,
    NotRun,
    array,
    correlation,
    first,
    rows,
    span,
)
from ijrlib.store import Run

ONES = "jacobian_ones_sq"
IMPURITY = "probe_impurity_mean"


def of(runs: Sequence[Run], **fields: object) -> list[Run]:
    """The runs whose configuration has the given fields."""
    found = [r for r in runs if all(getattr(r.config, k) == v for k, v in fields.items())]
    if not found:
        raise NotRun(f"no run with {', '.join(f'{k} = {v}' for k, v in fields.items())}")
    return found


# -- Figures 4 and 26: the path --------------------------------------------------------------------

STRAIGHT = 0.5
ORTHOGONAL = 0.25
AHEAD = 10


def path_onset(runs: Sequence[Run]) -> Measurement:
    """Median cosine of consecutive steps before and after ‖H‖ first reaches 2/η."""
    run = first(runs)
    cosines, onset = path(run)
    before, after = np.median(cosines[:onset]), np.median(cosines[onset:])
    return Measurement(
        f"median cosine {before:.2f} before step {onset}, {after:.2f} after it",
        bool(before > STRAIGHT and after < 0),
    )


def path_orthogonal(runs: Sequence[Run], ahead: int = AHEAD) -> Measurement:
    """Median |cos| of a step with the displacement of the next ``ahead``, after the onset."""
    run = first(runs)
    _, onset = path(run)
    along = np.abs(embedding.direction_cosines(array(run, "trajectory_gram"), ahead)[onset:])
    return Measurement(
        f"median |cos| {np.median(along):.2f} after step {onset}", np.median(along) <= ORTHOGONAL
    )


def path_straight(runs: Sequence[Run]) -> Measurement:
    """The least, over tenths of the path, of the median cosine of consecutive steps."""
    gram = array(first(runs), "trajectory_gram")
    if len(gram) < 12:
        raise NotMeasured(f"{first(runs).config.name}: a path of {len(gram)} points")
    cosines = embedding.step_cosines(gram)
    medians = [float(np.median(part)) for part in np.array_split(cosines, 10)]
    return Measurement(
        f"median cosine {min(medians):.2f} to {max(medians):.2f} over the tenths of "
        f"{len(cosines) + 2} steps",
        min(medians) > STRAIGHT,
    )


def path_like_figure_4(runs: Sequence[Run]) -> Measurement:
    """Both criteria of Figure 4 at once."""
    one, two = path_onset(runs), path_orthogonal(runs)
    return Measurement(f"{one.value}; {two.value}", one.holds and two.holds)


def path(run: Run) -> tuple[np.ndarray, int]:
    """Cosines of consecutive steps of a recorded path, and the onset among them."""
    gram = array(run, "trajectory_gram")
    if not phases.reaches_threshold(run):
        raise NotMeasured(f"{run.config.name}: ‖H‖ never reaches 2/η")
    onset, steps = phases.onset(run), run.arrays["trajectory_gram.steps"]
    if not steps[0] == 0 < onset < steps[-1] - AHEAD - 1 or len(steps) != steps[-1] + 1:
        raise NotMeasured(f"{run.config.name}: its recorded path does not go past step {onset}")
    return embedding.step_cosines(gram), onset


# -- at the paper's own size -----------------------------------------------------------------------

PAPER_ONSET = 100


def onset_as_in_the_paper(runs: Sequence[Run]) -> Measurement:
    """The measured step at which ‖H‖ first reaches 2/η, within a factor two of ``PAPER_ONSET``."""
    run = first(runs)
    low, high = PAPER_ONSET / SIMILAR_FACTOR, PAPER_ONSET * SIMILAR_FACTOR
    sharpness = phases.column(run, H)
    if phases.reaches_threshold(run):
        step = phases.onset(run)
        return Measurement(f"‖H‖ first reaches 2/η at step {step}", low <= step <= high)
    last = int(sharpness.index[-1])
    if last < high:
        raise NotMeasured(f"{run.config.name}: ‖H‖ is below 2/η at all its {last} steps")
    return Measurement(f"‖H‖ stays below 2/η up to step {last}", False)


def level_after_onset(runs: Sequence[Run]) -> Measurement:
    """Median ‖H‖ from the step on at which it first reaches 2/η, within a factor two of it."""
    after = since_onset(first(runs))
    return Measurement(
        f"median ‖H‖ = {after.median():.2f} × 2/η over {len(after)} measurements from step "
        f"{after.index[0]} on, {after.min():.2f} to {after.max():.2f}",
        bool(1 / SIMILAR_FACTOR <= after.median() <= SIMILAR_FACTOR),
    )


def since_onset(run: Run) -> pd.Series:
    """‖H‖ in units of 2/η by step, from the first measurement at which it reaches that on.

    Raises:
        NotMeasured: where it never does.
    """
    if not phases.reaches_threshold(run):
        raise NotMeasured(f"{run.config.name}: ‖H‖ never reaches 2/η")
    sharpness = phases.column(run, H) * run.config.lr / 2
    return sharpness.loc[sharpness.index >= phases.onset(run)]


# -- Figure 5: three phases ------------------------------------------------------------------------

GENTLE = 4.0
PLATEAU_FACTOR = 1.5
MEDIAN_STEPS = 20
SATURATED = 0.02


def phase_1(runs: Sequence[Run]) -> Measurement:
    """Slope of log‖⟨J⟩‖² before the onset against that of phase II."""
    run = first(runs)
    one, two, _ = _slopes(run)
    return Measurement(
        f"{_percent(one)} a step in phase I, {_percent(two)} in phase II", bool(one >= GENTLE * two)
    )


def phase_2(runs: Sequence[Run]) -> Measurement:
    """The running median of ‖H‖ in phase II against 2/η, and the slopes of the three phases."""
    run = first(runs)
    start, stop = phases.active_period(run)
    sharpness = phases.column(run, H)
    every = int(np.median(np.diff(sharpness.index)))
    smooth = sharpness.rolling(max(1, MEDIAN_STEPS // every), min_periods=1).median()
    level = smooth.loc[(smooth.index >= start + MEDIAN_STEPS) & (smooth.index <= stop)]
    if level.empty:
        raise NotMeasured(f"{run.config.name}: phase II is shorter than {MEDIAN_STEPS} steps")
    ratio = level * run.config.lr / 2
    one, two, three = _slopes(run)
    steady = ratio.min() >= 1 / PLATEAU_FACTOR and ratio.max() <= PLATEAU_FACTOR
    return Measurement(
        f"‖H‖ from {ratio.min():.2f} to {ratio.max():.2f} × 2/η in steps {level.index[0]} to "
        f"{stop}; slopes before, in and after phase II, from step {start} on: {_percent(one)}, "
        f"{_percent(two)}, {_percent(three)}",
        bool(steady and two < min(one, three)),
    )


def phase_3(runs: Sequence[Run], stop: int | None = None) -> Measurement:
    """Slope of log‖⟨J⟩‖² from the peak of ⟨λ^(1)⟩ to ``stop``, by default the end, and in its two
    halves."""
    run = first(runs)
    stop = stop or run.config.steps
    start, (onset, _) = phases.peak(run), phases.active_period(run)
    middle = (start + stop) // 2
    two, three = _slope(run, onset, start), _slope(run, start, stop)
    halves = _slope(run, start, middle), _slope(run, middle, stop)
    return Measurement(
        f"{_percent(three)} a step after the peak, {_percent(two)} before it; "
        f"{_percent(halves[0])} and {_percent(halves[1])} in its halves",
        bool(three > two and halves[1] > halves[0]),
    )


def late_sharpness(runs: Sequence[Run]) -> Measurement:
    """The last ‖H‖ (median of twenty steps) against phase II, and test accuracy since ‖H‖ stays
    below half of that."""
    return saturated(first(runs), _falls_for_good)


def saturated(run: Run, start: Callable[[pd.Series, float], int]) -> Measurement:
    """:func:`late_sharpness` from a step on that follows from ‖H‖ and half of its plateau."""
    sharpness = phases.column(run, H)
    last = float(sharpness.loc[sharpness.index > run.config.steps - MEDIAN_STEPS].median())
    if not np.isfinite(last):
        raise NotMeasured(f"{run.config.name}: no ‖H‖ in its last {MEDIAN_STEPS} steps")
    level = plateau(run, H)
    accuracy = phases.column(run, "test_accuracy")
    since = start(sharpness, FALL_FACTOR * level)
    late = accuracy.loc[accuracy.index >= since]
    lost = float(accuracy.max() - late.min()) if len(late) else float("nan")
    return Measurement(
        f"‖H‖ {last:.0f} at the end, {level:.0f} in phase II; test accuracy from step {since} on "
        f"up to {100 * lost:.1f} points below its maximum of {accuracy.max():.1%}",
        bool(last <= FALL_FACTOR * level and lost <= SATURATED),
    )


def _falls_for_good(values: pd.Series, level: float) -> int:
    """The first step from which on all values are at most ``level``; past the end if none is."""
    above = values.loc[values > level].index
    return int(above[-1]) + 1 if len(above) else int(values.index[0])


def _slopes(run: Run) -> tuple[float, float, float]:
    start, stop = phases.active_period(run)
    return _slope(run, 0, start), _slope(run, start, stop), _slope(run, stop, run.config.steps)


def _slope(run: Run, start: int, stop: int) -> float:
    """Least-squares slope of log‖⟨J⟩‖² per step."""
    values = phases.column(run, J)
    part = values.loc[(values.index >= start) & (values.index <= stop)]
    if len(part) < 3 or (part <= 0).any():
        raise NotMeasured(f"{run.config.name}: too few measurements in steps {start} to {stop}")
    return float(np.polyfit(part.index, np.log(part), 1)[0])


def _percent(slope: float) -> str:
    return f"{100 * slope:+.2f}%".replace("-", "−")


# -- Figures 6 and 22 to 25: plateaus --------------------------------------------------------------


def plateau(run: Run, name: str) -> float:
    """Median of a column over phase II."""
    start, stop = phases.active_period(run)
    values = phases.column(run, name)
    part = values.loc[(values.index >= start) & (values.index <= stop)]
    if part.empty:
        raise NotMeasured(f"{run.config.name}: no {name} in phase II")
    return float(part.median())


def ordered_plateaus(
    runs: Sequence[Run], name: str, by: str, rising: bool, **fields: object
) -> Measurement:
    """Whether the plateaus of a column are ordered by a field of the configuration, every run of
    one value below every run of the next.

    Args:
        by: "lr", "batch_size" (None, the full batch, is the largest) or another number.
        rising: whether the plateau is to rise with the field.
        fields: of the configurations that are compared.
    """
    return ordered(of(runs, **fields), by, rising, lambda run: plateau(run, name))


SYMBOLS = {
    "lr": "η",
    "sharpest": "K",
    "momentum": "β",
    "gamma": "γ",
    "lr_decay_at": "first stage",
}


STANDARD_ERRORS = 2
"""Estimates that are closer to each other than so many standard errors of their difference are in
no order."""


def ordered(
    runs: Sequence[Run],
    by: str,
    rising: bool,
    value: Callable[[Run], float],
    batch: str = "B",
    error: Callable[[Run], float] | None = None,
) -> Measurement:
    """:func:`ordered_plateaus` for any number of a run.  Where not every run of one value is below
    every run of the next, the text says in how many seeds those of one seed are.  The companion
    papers write S for the size of a ``batch``.

    Args:
        error: standard error of the number, where it is an estimate.  A verdict then asks for
            ``STANDARD_ERRORS`` of them, the errors of two runs taken as independent.

    Raises:
        NotMeasured: for runs with one value or one seed, nothing finite, or estimates too close to
            each other to be in order or out of it.
    """
    levels: list[tuple[float, int, tuple[float, float]]] = []
    for run in runs:
        key = getattr(run.config, by)
        if by == "gamma" and run.config.regularizer == "none":
            key = 1.0  # SGD is Nudged-SGD with γ = 1
        found = value(run)
        if not np.isfinite(found):
            raise NotMeasured(f"{run.config.name}: nothing finite to compare")
        noise = error(run) if error else 0.0
        levels.append((float("inf") if key is None else key, run.config.seed, (found, noise)))
    keys = sorted({key for key, _, _ in levels})
    if len(keys) < 2:
        raise NotMeasured(f"runs of one {by} only")
    symbol = batch if by == "batch_size" else SYMBOLS[by]
    values = [[found for own, _, found in levels if own == key] for key in keys]
    text = "; ".join(
        f"{symbol} = {'full' if key == float('inf') else f'{key:g}'}: "
        + span((found for found, _ in some), ".3g")
        for key, some in zip(keys, values, strict=True)
    )
    if error:
        text += f"; standard errors {span((noise for _, _, (_, noise) in levels), '.2g')}"
    if min(map(len, values)) < 2:
        raise NotMeasured(f"one seed only, its spread is unknown: {text}")
    holds = _apart(values, rising, STANDARD_ERRORS)
    if not holds and _apart(values, rising, -STANDARD_ERRORS):
        raise NotMeasured(
            f"closer than {STANDARD_ERRORS} standard errors of a difference of estimates: {text}"
        )
    text += f" ({span(map(len, values), 'd')} seeds"
    alone = [
        [[found for own, of, found in levels if (own, of) == (key, seed)] for key in keys]
        for seed in {seed for _, seed, _ in levels}
    ]
    shared = [some for some in alone if all(some)]
    if shared and not holds:
        inside = sum(_apart(some, rising) for some in shared)
        text += f"; in order in {inside} of the {len(shared)} that all have"
    return Measurement(f"{text})", holds)


def _apart(
    groups: Sequence[Sequence[tuple[float, float]]], rising: bool, errors: float = 0.0
) -> bool:
    """Whether every value of a group is below (``rising``) or above every one of the next, by so
    many standard errors of their difference; of pairs (value, its standard error)."""
    if not rising:
        groups = groups[::-1]
    return all(
        high - low > errors * np.hypot(a, b)
        for one, next_ in pairwise(groups)
        for low, a in one
        for high, b in next_
    )


def like_full_batch(runs: Sequence[Run], batch_size: int = 512) -> Measurement:
    """Distances |log| of the plateaus of ‖H‖ and ‖⟨J⟩1̂‖² with this batch size from those of the
    full batch and of the smallest one."""
    sizes = [run.config.batch_size for run in runs if run.config.batch_size]
    smallest = min(sizes, default=batch_size)
    if smallest == batch_size:
        raise NotRun(f"no run with mini-batches smaller than {batch_size}")
    texts, nearer = [], []
    for name, symbol in ((H, "‖H‖"), (ONES, "‖⟨J⟩1̂‖²")):
        full, middle, small = (
            float(np.mean([np.log(plateau(run, name)) for run in of(runs, batch_size=size)]))
            for size in (None, batch_size, smallest)
        )
        texts.append(
            f"{symbol}: × {np.exp(abs(middle - full)):.2f} from the full batch, "
            f"× {np.exp(abs(middle - small)):.2f} from B = {smallest}"
        )
        nearer.append(abs(middle - full) < abs(middle - small))
    if min(len(of(runs, batch_size=size)) for size in (None, batch_size, smallest)) < 2:
        raise NotMeasured(f"one seed only, its spread is unknown: {'; '.join(texts)}")
    return Measurement("; ".join(texts), all(nearer))


def impurity_arch(runs: Sequence[Run], **fields: object) -> Measurement:
    """Rise and fall of ⟨λ^(1)⟩ as in Figure 2, in every run."""
    shapes = []
    for run in of(runs, **fields):
        impurity = phases.column(run, "impurity_mean")
        top = impurity.max()
        shapes.append((top / impurity.iloc[0], impurity.iloc[-1] / top))
    rise, fall = min(s[0] for s in shapes), max(s[1] for s in shapes)
    return Measurement(
        f"rises by at least × {rise:.2f}, falls to at most × {fall:.2g} of its peak, "
        f"{len(shapes)} runs",
        rise >= RISE_FACTOR and fall <= FALL_FACTOR,
    )


# -- Figures 12 to 14: norms -----------------------------------------------------------------------

MONOTONE = 0.9


def grows(runs: Sequence[Run], name: str, until: int | None = None) -> Measurement:
    """A column at the end against the start, and its rank correlation with the step."""
    values = phases.column(first(runs), name)
    if until is not None:
        values = values.loc[values.index <= until]
    if len(values) < 4:
        raise NotMeasured(f"{name} was measured at {len(values)} step(s)")
    rank = float(pd.Series(values.index).corr(pd.Series(values.to_numpy()), method="spearman"))
    return Measurement(
        f"from {values.iloc[0]:.4g} to {values.iloc[-1]:.4g}, rank correlation {rank:.2f}",
        bool(values.iloc[-1] > values.iloc[0] and rank >= MONOTONE),
    )


EARLY_STEP = 100


def layers_grow(runs: Sequence[Run]) -> Measurement:
    """The norm of each layer's weights at the end, and early on, against the start."""
    norms, steps = array(first(runs), "layer_norms"), first(runs).arrays["layer_norms.steps"]
    early = norms[min(int(np.searchsorted(steps, EARLY_STEP)), len(norms) - 1)] / norms[0]
    ratio = norms[-1] / norms[0]
    return Measurement(
        f"the layers grow by × {', '.join(f'{r:.2f}' for r in ratio)}, by step {EARLY_STEP} by "
        f"{span(early - 1, '.2%')}",
        bool(min(ratio.min(), early.min()) > 1),
    )


# -- Figures 15 to 21 and 32: the relation ---------------------------------------------------------

RATIO_FACTOR = 2.0
RATIO_SHARE = 0.9


def relation(run: Run) -> pd.DataFrame:
    """‖H‖ and ⟨λ^(1)⟩‖⟨J⟩1̂‖² (for the squared loss ‖⟨J⟩‖²), all on the probe, at the steps where
    both are positive: columns step, sharpness, predictor."""
    squared = run.config.loss == "squared"
    frame = rows(run, H, J) if squared else rows(run, H, ONES, IMPURITY)
    predictor = frame[J] if squared else frame[ONES] * frame[IMPURITY]
    out = pd.DataFrame({"step": frame["step"], H: frame[H], "predictor": predictor})
    out = out.loc[(out[H] > 0) & (out["predictor"] > 0)]
    if len(out) < 4:
        raise NotMeasured(f"{run.config.name}: {len(out)} usable step(s)")
    return out


def ratio(run: Run) -> np.ndarray:
    """‖H‖ over its predictor, at every measured step."""
    frame = relation(run)
    return (frame[H] / frame["predictor"]).to_numpy()


def _each(runs: Sequence[Run]) -> Sequence[Run]:
    first(runs)
    return runs


def relation_correlation(runs: Sequence[Run]) -> Measurement:
    """Correlation of the logarithms of ‖H‖ and its predictor, the least over the runs; beside it,
    for the cross-entropy, that with ‖⟨J⟩1̂‖² alone."""
    values = [correlation(*_logs(run)) for run in _each(runs)]
    text = f"r = {span(values, '.3g')} in {len(values)} run(s)"
    if all(run.config.loss != "squared" for run in runs):
        alone = [jacobian_alone(run) for run in runs]
        text += f"; {span(alone, '.3g')} with ‖⟨J⟩1̂‖² alone"
    return Measurement(text, min(values) >= LEAST_CORRELATION)


def jacobian_alone(run: Run) -> float:
    """Correlation of log‖H‖ with log‖⟨J⟩1̂‖², without the impurity, at the same steps."""
    frame = relation(run).merge(rows(run, ONES), on="step")
    return correlation(np.log(frame[H].to_numpy()), np.log(frame[ONES].to_numpy()))


def relation_proportional(runs: Sequence[Run]) -> Measurement:
    """Share of the steps at which the ratio is within a factor 2 of its median, the least over the
    runs."""
    shares, extremes = [], []
    for run in _each(runs):
        relative = ratio(run) / np.median(ratio(run))
        inside = (relative >= 1 / RATIO_FACTOR) & (relative <= RATIO_FACTOR)
        shares.append(float(inside.mean()))
        extremes.append((float(relative.min()), float(relative.max())))
    worst = extremes[int(np.argmin(shares))]
    return Measurement(
        f"within a factor {RATIO_FACTOR:g} at {min(shares):.0%} of the steps of the worst run, "
        f"where the ratio is {worst[0]:.2g} to {worst[1]:.2g} times its median",
        min(shares) >= RATIO_SHARE,
    )


def relation_squared(runs: Sequence[Run]) -> Measurement:
    """Both criteria of the relation at once, for the squared loss."""
    one, two = relation_correlation(runs), relation_proportional(runs)
    return Measurement(f"{one.value}; {two.value}", one.holds and two.holds)


def _logs(run: Run) -> tuple[np.ndarray, np.ndarray]:
    frame = relation(run)
    return np.log(frame[H].to_numpy()), np.log(frame["predictor"].to_numpy())


def constant_by_batch(runs: Sequence[Run]) -> Measurement:
    """Median ratio against the batch size: larger for a smaller one."""
    return ordered(_each(runs), "batch_size", False, lambda run: float(np.median(ratio(run))))


def below_threshold(runs: Sequence[Run]) -> Measurement:
    """The largest ‖H‖ of each run against its 2/η."""
    highest = [(r.config.lr, phases.column(r, H).max() * r.config.lr / 2) for r in _each(runs)]
    text = ", ".join(f"{value:.2f} (η = {lr:g})" for lr, value in sorted(highest))
    return Measurement(f"largest ‖H‖ over 2/η: {text}", max(value for _, value in highest) < 1)


def impurity_falls_first(runs: Sequence[Run]) -> Measurement:
    """⟨λ^(1)⟩ at the step of the largest ‖H‖, as a share of its peak before."""
    shares = []
    for run in _each(runs):
        top = phases.largest(phases.column(run, H))
        impurity = phases.column(run, "impurity_mean")
        until = impurity.loc[impurity.index <= top]
        if until.empty:
            raise NotMeasured(f"{run.config.name}: ‖H‖ is largest at step {top}, the first one")
        shares.append((run.config.lr, float(until.iloc[-1] / until.max())))
    text = ", ".join(f"{value:.2f} (η = {lr:g})" for lr, value in sorted(shares))
    return Measurement(
        f"⟨λ⁽¹⁾⟩ at the largest ‖H‖, over its peak before: {text}",
        max(share for _, share in shares) <= FALL_FACTOR,
    )


def squared_bound(runs: Sequence[Run]) -> Measurement:
    """‖G‖ ≤ ⟨‖J‖²⟩ and 0 ≤ λ* ≤ 1 at every measured step of a run with the squared loss."""
    (run, *_) = of(runs, loss="squared")
    stars = ("theorem_2_min_star", "theorem_2_min_slack")
    frame = rows(run, "gauss_newton_norm", "theorem_2_bound", *stars)
    bound = array(run, "lambda_1")
    if not np.array_equal(bound, np.ones_like(bound)):
        raise NotMeasured(f"{run.config.name}: λ⁽¹⁾ is not 1 everywhere, as M = I has it")
    over = frame["theorem_2_bound"] / frame["gauss_newton_norm"]
    star, slack = (frame[name].min() for name in stars)
    return Measurement(
        f"the bound is {over.min():.2f} to {over.max():.2f} times ‖G‖, least λ* {star:.1e}, least "
        f"1 − λ* {slack:.1e} over {len(frame)} steps",
        bool(over.min() >= 1 - ROUNDING and min(star, slack) >= -STAR_ROUNDING),
    )


# -- beyond the paper: how constant is the constant, how tight the bound ---------------------------


def lr_and_seed(run: Run) -> str:
    """What tells the runs of one network apart."""
    return f"η = {run.config.lr:g}, seed {run.config.seed}"


def label(run: Run) -> str:
    """A run in a few words."""
    config = run.config
    method = "full batch" if config.batch_size is None else f"B = {config.batch_size}"
    return f"{described(config.network, config.dataset)}, {method}, η = {config.lr:g}"


def tightness(run: Run) -> pd.DataFrame:
    """Where Theorem 2 was measured: columns step, gauss_newton_share ‖G‖/‖H‖, bound_ratio
    ⟨λ^(1)‖J‖²⟩/‖G‖, predictor_ratio ⟨λ^(1)⟩‖⟨J⟩1̂‖²/‖G‖."""
    frame = rows(run, H, "gauss_newton_norm", "theorem_2_bound", ONES, IMPURITY)
    g = frame["gauss_newton_norm"]
    return pd.DataFrame(
        {
            "step": frame["step"],
            "gauss_newton_share": g / frame[H],
            "bound_ratio": frame["theorem_2_bound"] / g,
            "predictor_ratio": frame[ONES] * frame[IMPURITY] / g,
        }
    )


def constants_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a run: the constant c = ‖H‖/(⟨λ^(1)⟩‖⟨J⟩1̂‖²) over the run and over phase II
    (median, 5–95%), and the ranges of :func:`tightness` from the onset on; "–" without one."""
    header = ["run", "c, all steps", "c, phase II", "‖G‖/‖H‖", "⟨λ⁽¹⁾‖J‖²⟩/‖G‖"]
    table = []
    for run in runs:
        frame = relation(run)
        c = pd.Series(ratio(run), index=frame["step"])
        try:
            start, stop = phases.active_period(run)
            active = _quantiles(c.loc[(c.index >= start) & (c.index <= stop)])
        except NotMeasured:
            active = "no phase II"
        bound = tightness(run)
        late = bound.loc[bound["step"] >= phases.onset(run)]
        ranges = (late[name].tolist() for name in ("gauss_newton_share", "bound_ratio"))
        table.append(
            [
                label(run),
                _quantiles(c),
                active,
                *(span(values, ".3g") if values else "–" for values in ranges),
            ]
        )
    return header, table


def weight_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Header and a row a run: correlation of log‖H‖ with log ⟨λ^(1)⟩‖⟨J⟩1̂‖² and, behind a slash,
    with log‖⟨J⟩1̂‖² alone, over all steps, within phase II and after it; "–" for fewer than four."""
    header = ["run", "all steps", "phase II", "after it"]
    table = []
    for run in runs:
        frame = relation(run).merge(rows(run, ONES), on="step")
        try:
            start, stop = phases.active_period(run)
        except NotMeasured:
            start = stop = int(frame["step"].iloc[-1]) + 1
        step = frame["step"]
        parts = (frame, frame.loc[step.between(start, stop)], frame.loc[step > stop])
        table.append([label(run), *map(_weighted, parts)])
    return header, table


def _weighted(frame: pd.DataFrame) -> str:
    if len(frame) < 4:
        return "–"
    sharpness = np.log(frame[H])
    found = (correlation(sharpness, np.log(frame[name])) for name in ("predictor", ONES))
    return " / ".join(f"{r:.2f}".replace("-", "−") for r in found)


def _quantiles(values: pd.Series) -> str:
    low, median, high = values.quantile([0.05, 0.5, 0.95])
    return f"{median:.2g} ({low:.2g} to {high:.2g})"
