"""How far two runs agree: what a re-runner asks of their own run and the stored one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ijrlib.config import RunConfig
from ijrlib.store import Run

PICTURES = ("trajectory_umap",)
"""Arrays that differ from machine to machine and mean nothing entry by entry."""


@dataclass(frozen=True)
class Difference:
    """One quantity of two runs.

    Attributes:
        name: column of the series, or array.
        common: steps at which both have it.
        largest: the largest |a − b| / max(|a|, |b|), 0 where a = b; nan where nothing is common.
            An array's entries at a step are compared by their norms: ‖a − b‖ / max(‖a‖, ‖b‖).
        step: where it is; −1 where nothing is common.
        one, two: the values (or norms) there.
    """

    name: str
    common: int
    largest: float
    step: int
    one: float
    two: float


def fields(one: RunConfig, two: RunConfig) -> list[tuple[str, Any, Any]]:
    """The fields of the configuration in which two runs differ, with both values."""
    names = (field.name for field in dataclasses.fields(RunConfig))
    pairs = ((name, getattr(one, name), getattr(two, name)) for name in names)
    return [(name, a, b) for name, a, b in pairs if a != b]


def differences(one: Run, two: Run) -> list[Difference]:
    """Every column and array that both runs have, the largest difference first."""
    found = [
        _difference(name, *_column(one, name), *_column(two, name))
        for name in one.series.columns
        if name != "step" and name in two.series.columns
    ]
    found += [
        _difference(name, *_array(one, name), *_array(two, name))
        for name in one.arrays
        if not name.endswith(".steps") and name in two.arrays and name not in PICTURES
    ]
    return sorted(found, key=_rank)


def _rank(d: Difference) -> tuple[float, str]:
    """Largest first; a nan at a common step before all, what has no common step last."""
    size = d.largest if d.largest == d.largest else float("inf")
    return (-size if d.common else 1.0, d.name)


def only(one: Run, two: Run) -> list[str]:
    """Columns and arrays that the first run has and the second has not."""
    there = set(two.series.columns).union(two.arrays)
    names = [*one.series.columns, *one.arrays]
    return [name for name in names if not name.endswith(".steps") and name not in there]


def _column(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    there = run.series[name].notna().to_numpy()
    values = np.asarray(run.series[name], dtype=float)[there]
    return np.asarray(run.series["step"])[there], values[:, None]


def _array(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    values = run.arrays[name]
    return run.arrays[f"{name}.steps"], values.reshape(len(values), -1).astype(float)


def _difference(
    name: str, steps_1: np.ndarray, one: np.ndarray, steps_2: np.ndarray, two: np.ndarray
) -> Difference:
    steps, at_1, at_2 = np.intersect1d(steps_1, steps_2, return_indices=True)
    nan = float("nan")
    if not len(steps) or one.shape[1] != two.shape[1]:
        return Difference(name, 0, nan, -1, nan, nan)
    a, b = one[at_1], two[at_2]
    both = np.isnan(a) & np.isnan(b) | np.isinf(a) & (a == b)
    a, b = np.where(both, 0.0, a), np.where(both, 0.0, b)
    size = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    distance = np.linalg.norm(a - b, axis=1)
    with np.errstate(invalid="ignore"):  # ∞/∞
        relative = np.divide(distance, size, out=np.zeros_like(distance), where=size != 0)
    k = int(np.argmax(np.nan_to_num(relative, nan=np.inf)))
    values = [float(v[k, 0]) if v.shape[1] == 1 else float(np.linalg.norm(v[k])) for v in (a, b)]
    return Difference(name, len(steps), float(relative[k]), int(steps[k]), *values)
