"""Measuring functions behind the claims on eigenvectors and class means: Figures 8 to 11 and 27 to
31.

Thresholds and conventions as in :mod:`ijrlib.criteria`; the paper's steps are translated as in
:mod:`ijrlib.phases`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from ijrlib import phases
from ijrlib.conventions import CIFAR10, PAIRS, STRETCH_BINS
from ijrlib.criteria import (
    SHARED_VARIANCE,
    Measurement,
    NotMeasured,
    array,
    first,
    number,
    rows,
    stored,
)
from ijrlib.store import Run

STEP = 1000
"""The paper's step of Figures 8, 9 and 30."""


def class_index(name: str) -> int:
    """Number of one of CIFAR-10's classes."""
    return CIFAR10.index(name)


def at_stage(run: Run, name: str, paper_step: int = STEP) -> tuple[np.ndarray, int]:
    """An array at the stage of one of the paper's steps, and our step; it may hold nan."""
    ((_, index, step),) = phases.stages(run, name, [paper_step])
    return np.asarray(run.arrays[name][index], dtype=float), step


# -- Figures 8 and 27: eigenvectors of M -----------------------------------------------------------

ENTRY_TOLERANCE = 0.05
ZERO_COLUMN = 1e-3
DIAGONAL = (0.44, 0.25, 0.17, 0.13, 0.09, 0.07, 0.05, 0.04, 0.02)
SUBDIAGONAL = (-0.27, -0.23, -0.18, -0.16, -0.13, -0.12, -0.09, -0.08, -0.06)
PAPER_STEPS_27 = (100, 500, 1000, 2000, 4000, 6000)


def two_entries(runs: Sequence[Run]) -> Measurement:
    """Share of each column's squared mass in its entries at (i) and (i + 1), the least."""
    matrix, step = at_stage(first(runs), "q_sqrt_lambda")
    shares = shares_of_two(matrix)
    return Measurement(
        f"{shares.min():.2f} to {shares.max():.2f} over the columns at step {step}",
        bool(shares.min() > SHARED_VARIANCE),
    )


def shares_of_two(matrix: np.ndarray) -> np.ndarray:
    """Share of each column's squared mass in its entries at (i) and (i + 1), for the first C − 1
    columns of ⟨QΛ^½⟩, (C, C)."""
    squares = matrix[:, :-1] ** 2
    columns = np.arange(squares.shape[1])
    return np.asarray((squares[columns, columns] + squares[columns + 1, columns]) / squares.sum(0))


def signs(runs: Sequence[Run]) -> Measurement:
    """Signs of the diagonal and the subdiagonal."""
    matrix, step = at_stage(first(runs), "q_sqrt_lambda")
    diagonal, below = np.diag(matrix)[:-1], np.diag(matrix, -1)
    return Measurement(
        f"{(diagonal > 0).sum()} of {len(diagonal)} positive, {(below < 0).sum()} of {len(below)} "
        f"negative at step {step}",
        bool((diagonal > 0).all() and (below < 0).all()),
    )


def last_column(runs: Sequence[Run]) -> Measurement:
    """The largest entry of the last column."""
    matrix, step = at_stage(first(runs), "q_sqrt_lambda")
    largest = float(np.abs(matrix[:, -1]).max())
    text = f"at most {largest:.1e}" if largest else "all zero"
    return Measurement(f"{text} at step {step}", largest <= ZERO_COLUMN)


def printed_entries(runs: Sequence[Run], offset: int, relative: float | None = None) -> Measurement:
    """The diagonal (offset 0) or subdiagonal (−1) against the printed one, to ``ENTRY_TOLERANCE``
    or to a share of each printed entry."""
    matrix, step = at_stage(first(runs), "q_sqrt_lambda")
    printed = np.array(SUBDIAGONAL if offset else DIAGONAL)
    found = np.diag(matrix, offset)[: len(printed)]
    if len(found) != len(printed):
        raise NotMeasured(f"{len(found)} entries, {len(printed)} are printed")
    worst = float(np.abs(found - printed).max())
    shares = found / printed
    text = " ".join(f"{value:.2f}".replace("-", "−").replace("0.", ".") for value in found)
    return Measurement(
        f"{text} at step {step}: within {worst:.2f} of print, {shares.min():.2f} to "
        f"{shares.max():.2f} times it",
        worst <= ENTRY_TOLERANCE
        if relative is None
        else bool(np.abs(shares - 1).max() <= relative),
    )


def dominance_grows(runs: Sequence[Run]) -> Measurement:
    """Share of the first column in the squared mass of ⟨QΛ^½⟩ at the six steps."""
    run = first(runs)
    stages = phases.stages(run, "q_sqrt_lambda", PAPER_STEPS_27)
    for (one, _, step), (two, _, next_step) in pairwise(stages):
        if step == next_step:
            raise NotMeasured(
                f"{run.config.name}: the stages of the paper's steps {one} and {two} fall on one "
                f"stored step, {step}"
            )
    shares = []
    for paper_step in PAPER_STEPS_27:
        squares = at_stage(run, "q_sqrt_lambda", paper_step)[0] ** 2
        shares.append(float(squares[:, 0].sum() / squares.sum()))
    text = ", ".join(f"{s:.2f}" for s in shares)
    return Measurement(f"share {text}", all(a < b for a, b in pairwise(shares)))


# -- Figures 9 and 28 to 30: clusters --------------------------------------------------------------

MRL_PRINTED = {"dog": 0.53, "automobile": 0.55}
MRL_TOLERANCE = 0.15
NEARLY_ORTHOGONAL = 0.2
CLEARLY_NEGATIVE = -0.19
PRINTED_PAIRS = (
    ("automobile", "truck"),
    ("cat", "dog"),
    ("cat", "frog"),
    ("deer", "horse"),
    ("ship", "truck"),
)
MOST_NEGATIVE = 3
PAPER_STEPS_28 = (500, 1000, 1500, 2000, 3000, 4000)
LEAST_EXAMPLES = 20
RANDOM_FACTOR = 3


def clusters(runs: Sequence[Run]) -> Measurement:
    """Mean cosine of two different examples of one class, against two of two classes."""
    run = first(runs)
    products, counts, step = _directions(run)
    several = [int(i) for i in np.flatnonzero(counts >= 2)]
    if len(several) < 2:
        raise NotMeasured(f"{run.config.name}: fewer than two classes with two examples")
    within = {i: _within(products, counts, i) for i in several}
    pairs = list(combinations(several, 2))
    apart = [min(within[i], within[j]) > products[i, j] for i, j in pairs]
    between = [products[i, j] for i, j in pairs]
    return Measurement(
        f"within {min(within.values()):.2f} to {max(within.values()):.2f}, between "
        f"{_signed(min(between))} to {_signed(max(between))}: larger within for {sum(apart)} of "
        f"{len(pairs)} pairs at step {step}",
        all(apart),
    )


def _directions(run: Run) -> tuple[np.ndarray, np.ndarray, int]:
    """Inner products of the mean directions of the D_i, their |D_i|, and our step."""
    products, step = at_stage(run, "resultant_products")
    return products, at_stage(run, "class_counts")[0], step


def _within(products: np.ndarray, counts: np.ndarray, i: int) -> float:
    """Mean cosine of two different examples of D_i: without each example's with itself."""
    return float((counts[i] * products[i, i] - 1) / (counts[i] - 1))


def resultant_lengths(run: Run) -> np.ndarray:
    """ρ of each D_i at each measured step, shape (T, C); nan where a D_i is empty."""
    if "resultant_products" not in run.arrays:
        raise NotMeasured(f"{run.config.name} has no array resultant_products")
    products = np.asarray(run.arrays["resultant_products"], dtype=float)
    return np.sqrt(np.diagonal(products, axis1=1, axis2=2).clip(0))


def printed_lengths(runs: Sequence[Run]) -> Measurement:
    """ρ of dog and of automobile against print."""
    run = first(runs)
    index = phases.nearest(run, "resultant_products", phases.stage(run, STEP))
    lengths = resultant_lengths(run)[index]
    found = {name: float(lengths[class_index(name)]) for name in MRL_PRINTED}
    if not np.isfinite(list(found.values())).all():
        raise NotMeasured(f"{run.config.name}: no example of dog or of automobile")
    worst = max(abs(found[name] - printed) for name, printed in MRL_PRINTED.items())
    text = ", ".join(f"ρ = {value:.2f} ({name})" for name, value in found.items())
    step = int(run.arrays["resultant_products.steps"][index])
    return Measurement(f"{text} at step {step}", worst <= MRL_TOLERANCE)


def _pairs_of_means(run: Run, paper_step: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Cosine matrix, its finite entries above the diagonal, and our step."""
    matrix, step = at_stage(run, "class_mean_cosines", paper_step)
    above = matrix[np.triu_indices(len(matrix), 1)]
    above = above[np.isfinite(above)]
    if not len(above):
        raise NotMeasured(f"{run.config.name}: fewer than two classes at step {step}")
    return matrix, above, step


def means_orthogonal(runs: Sequence[Run]) -> Measurement:
    """Median |cos| over the pairs of class means."""
    _, above, step = _pairs_of_means(first(runs), STEP)
    median = float(np.median(np.abs(above)))
    return Measurement(
        f"median |cos| {median:.2f} over {len(above)} pairs at step {step}",
        median <= NEARLY_ORTHOGONAL,
    )


def negative_pairs(runs: Sequence[Run]) -> Measurement:
    """The five printed pairs, and the rank of the first two among all pairs."""
    matrix, above, step = _pairs_of_means(first(runs), STEP)
    found = [float(matrix[class_index(a), class_index(b)]) for a, b in PRINTED_PAIRS]
    if not np.isfinite(found).all():
        raise NotMeasured("one of the printed pairs has an empty class")
    lowest = np.sort(above)[:MOST_NEGATIVE][-1]
    text = ", ".join(
        f"{a}–{b} {_signed(v)}" for (a, b), v in zip(PRINTED_PAIRS, found, strict=True)
    )
    return Measurement(
        f"{text} at step {step}; third lowest of all {_signed(lowest)}",
        max(found) < 0 and max(found[:2]) <= lowest,
    )


def means_orthogonal_throughout(runs: Sequence[Run]) -> Measurement:
    """Median |cos| and the lowest cosine at the six steps."""
    run = first(runs)
    medians, lowest = [], []
    for paper_step in PAPER_STEPS_28:
        _, above, _ = _pairs_of_means(run, paper_step)
        medians.append(float(np.median(np.abs(above))))
        lowest.append(float(above.min()))
    return Measurement(
        f"median |cos| {min(medians):.2f} to {max(medians):.2f}, lowest cosine "
        f"{_signed(min(lowest))} to {_signed(max(lowest))}",
        max(medians) <= NEARLY_ORTHOGONAL and max(lowest) <= CLEARLY_NEGATIVE,
    )


def concentrated(runs: Sequence[Run], factor: float = RANDOM_FACTOR) -> Measurement:
    """ρ·√|D_i| of every class with enough examples at every measured step, the least, against a
    factor."""
    run = first(runs)
    counts = array(run, "class_counts").astype(float)
    lengths = resultant_lengths(run)
    enough = counts >= LEAST_EXAMPLES
    if not enough.any():
        raise NotMeasured(f"{run.config.name}: no class with {LEAST_EXAMPLES} examples")
    least = float((lengths * np.sqrt(counts))[enough].min())
    return Measurement(
        f"ρ at least {least:.1f}/√|D_i|; {enough.sum()} values over {len(counts)} steps",
        least >= factor,
    )


def pairs_separate(runs: Sequence[Run]) -> Measurement:
    """Cosine of the two class means for the four pairs of Figure 30, and the mean cosine of two
    different examples within either class against that of two of both."""
    products, counts, _ = _directions(first(runs))
    lengths = np.sqrt(np.diag(products))
    texts, apart = [], []
    for one, other in PAIRS[1:]:
        names = f"{CIFAR10[one]}–{CIFAR10[other]}"
        lacking = [CIFAR10[i] for i in (one, other) if not counts[i] >= 2]
        if lacking:
            raise NotMeasured(f"{names}: fewer than two examples of {' and '.join(lacking)}")
        within = min(_within(products, counts, i) for i in (one, other))
        cosine = products[one, other] / (lengths[one] * lengths[other])
        texts.append(
            f"{names} {_signed(cosine)}, {_signed(within)}, {_signed(products[one, other])}"
        )
        apart.append(cosine < 0 and within > products[one, other])
    return Measurement(
        f"cosines of the mean directions, within (the smaller) and between: {'; '.join(texts)}",
        all(apart),
    )


# -- Figures 10, 11 and 31: alignment --------------------------------------------------------------

FAR_BETTER = 100
NEAR_ONE = 0.9
LARGER_PART = 0.71
UNIT_RANGE = (0.5, 2.0)
SMALL_ANGLE = 0.02


def gradient_and_top(runs: Sequence[Run]) -> Measurement:
    """Median |cos(g_D, r)| against 1/√m."""
    run = first(runs)
    frame = rows(run, "gradient_alignment")
    median = float(np.median(frame["gradient_alignment"]))
    random = float(run.provenance["parameters"]) ** -0.5
    return Measurement(
        f"median {median:.2f} over {len(frame)} steps, {median / random:.0f} times 1/√m = "
        f"{random:.1e}",
        median >= FAR_BETTER * random,
    )


def example_gradient(runs: Sequence[Run]) -> Measurement:
    """cos(−g_x, Jq^(1)) of the examples classified right: their median, over the steps; beside it
    the mean over all examples at the first and the last step."""
    frame = rows(first(runs), "descent_cosine_correct", "descent_cosine_mean")
    values, every = frame["descent_cosine_correct"], frame["descent_cosine_mean"]
    return Measurement(
        f"median {values.median():.2f} over {len(frame)} steps, from {values.min():.2f} to "
        f"{values.max():.2f}, {values.iloc[0]:.2f} at step {frame['step'].iloc[0]}; mean over all "
        f"examples {_signed(every.iloc[0])} there, {_signed(every.iloc[-1])} at step "
        f"{frame['step'].iloc[-1]}",
        bool(values.median() >= NEAR_ONE),
    )


def in_subspace(runs: Sequence[Run], which: str) -> Measurement:
    """Median AS(g_D) (``gradient``) or AS(r) (``top``) over the steps at which no D_i is empty."""
    name = f"subspace_alignment_{which}"
    frame = rows(first(runs), name, "classes_present")
    full = frame.loc[frame["classes_present"] == frame["classes_present"].max()]
    if full["classes_present"].iloc[0] < len(CIFAR10):
        raise NotMeasured("some D_i is empty at every step")
    median, left_out = float(np.median(full[name])), len(frame) - len(full)
    return Measurement(
        f"median {median:.2f} over {len(full)} steps; some D_i is empty at {left_out}",
        median >= LARGER_PART,
    )


def both_in_subspace(runs: Sequence[Run]) -> Measurement:
    """AS(g_D) and AS(r) at once."""
    one, two = in_subspace(runs, "gradient"), in_subspace(runs, "top")
    return Measurement(f"g: {one.value}; r: {two.value}", one.holds and two.holds)


def between_classes(runs: Sequence[Run], start: int = 0, stop: float = float("inf")) -> Measurement:
    """Norm of the between-class term over ‖G‖, the median over the steps from ``start`` to ``stop``
    that have both."""
    frame = rows(first(runs), "between_class_norm", "gauss_newton_norm")
    frame = frame.loc[(frame["step"] >= start) & (frame["step"] <= stop)]
    if frame.empty:
        raise NotMeasured(f"{first(runs).config.name}: no such step from {start} to {stop}")
    share = frame["between_class_norm"] / frame["gauss_newton_norm"]
    return Measurement(
        f"median {share.median():.2f} over {len(frame)} steps, from {share.min():.2f} to "
        f"{share.max():.2f}",
        bool(share.median() > SHARED_VARIANCE),
    )


def number_of_outliers(
    runs: Sequence[Run], start: int = 0, stop: float = float("inf")
) -> Measurement:
    """How many of the 2C largest eigenvalues λ_i of G stand out: the i ≥ 2 at which λ_i/λ_{i+1} is
    largest, the median over the steps from ``start`` to ``stop`` at which they were computed."""
    run = next((run for run in stored(runs) if "outlier_values" in run.arrays), first(runs))
    values = array(run, "outlier_values")
    steps = np.asarray(run.arrays["outlier_values.steps"])
    values = values[(steps >= start) & (steps <= stop)]
    if not len(values):
        raise NotMeasured(f"{run.config.name}: no such step from {start} to {stop}")
    classes = values.shape[1] // 2
    ends = outliers_end(values)
    return Measurement(
        f"median {number(np.median(ends))} over {len(ends)} steps, from {ends.min()} to "
        f"{ends.max()}, C = {classes}",
        bool(classes - 1 <= np.median(ends) <= classes),
    )


def outliers_end(values: np.ndarray) -> np.ndarray:
    """The i ≥ 2 at which λ_i/λ_{i+1} is largest, for rows of eigenvalues, largest first; (T,).

    Where they reach the rounding of single precision, they count as that.
    """
    values = np.maximum(values, np.finfo(np.float32).eps * values[:, :1])
    return np.asarray((values[:, 1:-1] / values[:, 2:]).argmax(axis=1) + 2)


def largest_eigenvalues(run: Run) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of a table: the largest eigenvalues of H and of G at each step at which they
    were computed."""
    header, columns = ["i"], []
    if "hessian_values" not in run.arrays:
        return tuple(header), []
    for k, step in enumerate(run.arrays["hessian_values.steps"]):
        for symbol, name in (("H", "hessian_values"), ("G", "gauss_newton_values")):
            header.append(f"{symbol}, step {step}")
            columns.append([number(value) for value in array(run, name)[k]])
    return tuple(header), [(str(i), *row) for i, row in enumerate(zip(*columns, strict=True), 1)]


def images_near_one(runs: Sequence[Run]) -> Measurement:
    """Share of ‖Jq^(i)‖²·C/‖J‖_F² in [½, 2], over examples, i and steps."""
    counts = array(first(runs), "stretch_counts").sum(axis=(0, 1))
    middle = (STRETCH_BINS[1:] + STRETCH_BINS[:-1]) / 2
    inside = (middle > UNIT_RANGE[0]) & (middle < UNIT_RANGE[1])
    share = float(counts[inside].sum() / counts.sum())
    return Measurement(f"{share:.0%} of {int(counts.sum()):,} values", share > SHARED_VARIANCE)


def images_orthogonal(runs: Sequence[Run]) -> Measurement:
    """The median of cos²(Jq^(i), Jq^(j)) over examples and i < j, the largest over the steps."""
    frame = rows(first(runs), "cos_sq_median")
    values = frame["cos_sq_median"]
    return Measurement(
        f"median {values.min():.3f} to {values.max():.3f} over {len(frame)} steps",
        bool(values.max() <= SMALL_ANGLE),
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
