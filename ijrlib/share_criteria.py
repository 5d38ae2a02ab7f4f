"""Measuring functions behind the claims on the part of the training set that curvature is measured
on: "The sharpness of a part of the training set".

All from ``share_sharpness`` and its like, which have a column for each of
:data:`ijrlib.conventions.SHARES`, the last of them for the whole set.  The thresholds were fixed on
2026-11-28, before the runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ijrlib.conventions import SHARES
from ijrlib.criteria import (
    LEAST_CORRELATION,
    SIMILAR_FACTOR,
    Measurement,
    NotMeasured,
    array,
    correlation,
    span,
    stored,
)
from ijrlib.store import Run

LEAST_STEPS = 4
REPRESENTATIVE = 1.1
MOST_OF_EXCESS = 0.5

WHOLE, MOST = -1, -2
"""Columns: the whole training set, and the larger of its parts."""


def levels(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Measured steps (T,), and ‖H‖ of each share of the training set in units of 2/η, (T, shares).

    Raises:
        NotMeasured: where it was not measured.
    """
    values = array(run, "share_sharpness")
    return np.asarray(run.arrays["share_sharpness.steps"]), values * run.config.lr / 2


def onset(run: Run) -> int | None:
    """The place among the measured steps at which ‖H‖ of the whole set first reaches 2/η."""
    reached = (levels(run)[1][:, WHOLE] >= 1).nonzero()[0]
    return int(reached[0]) if len(reached) else None


def after_onset(run: Run, values: np.ndarray) -> np.ndarray:
    """The rows of an array from the :func:`onset` on.

    Raises:
        NotMeasured: where there are fewer than ``LEAST_STEPS`` of them.
    """
    start = onset(run)
    rows = values[:0] if start is None else values[start:]
    if len(rows) < LEAST_STEPS:
        raise NotMeasured(
            f"{run.config.name}: ‖H‖ of all examples was measured {len(rows)} time(s) since it "
            f"first reached 2/η; {LEAST_STEPS} are needed"
        )
    return rows


def bias(run: Run, name: str = "share_sharpness") -> np.ndarray:
    """Ratio of each part to the whole, the median over the steps since the onset, (shares − 1,)."""
    values = after_onset(run, array(run, name))
    return np.median(values[:, :WHOLE] / values[:, WHOLE:], axis=0)


def level(runs: Sequence[Run]) -> Measurement:
    """Median ‖H‖ of the whole set since the onset, in units of 2/η, in every run."""
    values = [after_onset(run, levels(run)[1])[:, WHOLE] for run in stored(runs)]
    medians = [float(np.median(v)) for v in values]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    return Measurement(
        f"median {span(medians)} × 2/η; {low:.2f} to {high:.2f} at single steps; "
        f"{len(medians)} run(s)",
        min(medians) >= 1 / SIMILAR_FACTOR and max(medians) <= SIMILAR_FACTOR,
    )


def representative(runs: Sequence[Run], name: str = "share_sharpness") -> Measurement:
    """The bias of each part, in every run."""
    ratios = np.array([bias(run, name) for run in stored(runs)])
    text = "; ".join(
        f"{share:.0%}: × {span(column)}" for share, column in zip(SHARES, ratios.T, strict=False)
    )
    return Measurement(
        f"{text}; {len(ratios)} run(s)",
        bool(ratios.max() <= REPRESENTATIVE and ratios.min() >= 1 / REPRESENTATIVE),
    )


def excess(runs: Sequence[Run]) -> Measurement:
    """Median of ‖H‖ − 2/η since the onset, of the whole set against its larger part, in every
    run."""
    shares = []
    for run in stored(runs):
        over = np.median(after_onset(run, levels(run)[1]) - 1, axis=0)
        if over[MOST] <= 0:
            raise NotMeasured(f"{run.config.name}: the part does not exceed 2/η either")
        shares.append(float(over[WHOLE] / over[MOST]))
    return Measurement(
        f"of what exceeds 2/η on {SHARES[MOST]:.0%} of the examples there is {span(shares)} on "
        f"all; {len(shares)} run(s)",
        max(shares) <= MOST_OF_EXCESS,
    )


def together(runs: Sequence[Run]) -> Measurement:
    """Correlation since the onset of the logarithms of ‖H‖ of each part and of the whole, the least
    over the runs."""
    logs = [np.log(after_onset(run, array(run, "share_sharpness"))) for run in stored(runs)]
    least = [
        min(correlation(log[:, part], log[:, WHOLE]) for log in logs)
        for part in range(len(SHARES) - 1)
    ]
    text = "; ".join(f"{s:.0%}: r ≥ {r:.2f}" for s, r in zip(SHARES, least, strict=False))
    return Measurement(f"{text}; {len(logs)} run(s)", min(least) >= LEAST_CORRELATION)
