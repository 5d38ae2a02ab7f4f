"""The phases of training, by one rule for all runs (Figure 5), and the paper's steps among them.

Phase I ends when ‖H‖ first reaches the threshold 2/η.  Phase II, the active regularization period,
lasts until ⟨λ^(1)⟩ is largest.  Phase III is the rest.  With small mini-batches ‖H‖ may level off
below 2/η (Figure 6): a run that never reaches it enters phase II when ‖H‖ first reaches
``OWN_LEVEL`` of its own maximum.

The paper shows matrices at steps 100 to 6000 of full-batch training on 50,000 images.  Fewer
examples are fitted sooner, so those steps are translated by stage (``STAGES``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ijrlib.criteria import NotMeasured, rows
from ijrlib.store import Run

OWN_LEVEL = 0.75

STAGES = {
    100: "onset of 2/η",
    500: "half-way to the peak",
    1000: "peak of ⟨λ⁽¹⁾⟩",
    1500: "¾ of the peak",
    2000: "½ of the peak",
    3000: "⅓ of the peak",
    4000: "¼ of the peak",
    6000: "⅒ of the peak",
}
"""Step of the paper → the stage of ours that takes its place; after the peak, the first step at
which ⟨λ^(1)⟩ is down to the named share."""

_SHARES = {1500: 3 / 4, 2000: 1 / 2, 3000: 1 / 3, 4000: 1 / 4, 6000: 1 / 10}


def column(run: Run, name: str) -> pd.Series:
    """The finite values of a column, by step.

    Raises:
        NotMeasured: where there are none.
    """
    frame = rows(run, name)
    return pd.Series(frame[name].to_numpy(dtype=float), index=frame["step"])


def beginning(run: Run, last: int) -> Run:
    """A run as measured up to step ``last``."""
    arrays = dict(run.arrays)
    for name in run.arrays:
        if (key := f"{name}.steps") in run.arrays:
            until = run.arrays[key] <= last
            arrays[key], arrays[name] = run.arrays[key][until], run.arrays[name][until]
            if name == "trajectory_gram":  # a row and a column for each step
                arrays[name] = arrays[name][:, until]
    return dataclasses.replace(run, series=run.series[run.series["step"] <= last], arrays=arrays)


def largest(values: pd.Series) -> int:
    """The step of the largest value, the first of several."""
    return int(values.index.to_numpy()[values.to_numpy().argmax()])


def reaches_threshold(run: Run) -> bool:
    """Whether ‖H‖ reaches 2/η at a measured step."""
    return bool(column(run, "sharpness").max() >= 2 / run.config.lr)


def onset(run: Run) -> int:
    """The measured step that ends phase I."""
    sharpness = column(run, "sharpness")
    level = 2 / run.config.lr if reaches_threshold(run) else OWN_LEVEL * sharpness.max()
    return int(sharpness.index[(sharpness >= level).argmax()])


def peak(run: Run) -> int:
    """The step of the largest ⟨λ^(1)⟩, which ends phase II."""
    return largest(column(run, "impurity_mean"))


def active_period(run: Run) -> tuple[int, int]:
    """First and last step of phase II.

    Raises:
        NotMeasured: where ⟨λ^(1)⟩ is largest before ‖H‖ has reached its level.
    """
    first, last = onset(run), peak(run)
    if first >= last:
        raise NotMeasured(
            f"{run.config.name} has no phase II: ⟨λ⁽¹⁾⟩ is largest at step {last}, ‖H‖ reaches its "
            f"level at step {first}"
        )
    return first, last


def stage(run: Run, paper_step: int) -> int:
    """The step of this run that takes the place of a step of the paper (``STAGES``).

    Raises:
        NotMeasured: where the run does not get there.
    """
    if paper_step == 100:
        return onset(run)
    if paper_step == 500:
        return sum(active_period(run)) // 2
    top = peak(run)
    if paper_step == 1000:
        return top
    impurity = column(run, "impurity_mean")
    after = impurity.loc[impurity.index > top]
    low = after.loc[after <= _SHARES[paper_step] * float(impurity.loc[top])].index
    if low.empty:
        raise NotMeasured(f"{run.config.name} does not get to {STAGES[paper_step]}")
    return int(low[0])


def nearest(run: Run, array: str, step: int) -> int:
    """Index of the entry of a stored array whose step is nearest to the given one.

    Raises:
        NotMeasured: where the run has no such array.
    """
    if array not in run.arrays:
        raise NotMeasured(f"{run.config.name} has no array {array}")
    return int(np.abs(run.arrays[f"{array}.steps"] - step).argmin())


def stages(run: Run, array: str, paper_steps: Sequence[int]) -> list[tuple[int, int, int]]:
    """(step of the paper, index into the array, our step there) for each of the paper's steps."""
    out = []
    for paper_step in paper_steps:
        index = nearest(run, array, stage(run, paper_step))
        out.append((paper_step, index, int(run.arrays[f"{array}.steps"][index])))
    return out
