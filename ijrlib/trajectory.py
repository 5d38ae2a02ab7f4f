"""The points θ(t) − θ(0) of a run: in a scratch file while it trains, a Gram matrix at its end.

The file holds one row of float32 for each recorded step.  Where T rows of m numbers would be larger
than ``LIMIT_BYTES`` they are projected to k = LIMIT_BYTES/(4T) numbers by a sparse random sign
matrix S with one entry a column (CountSketch; Charikar, Chen and Farach-Colton 2002) and equally
many in each row: E⟨Sa, Sb⟩ = ⟨a, b⟩, with a standard deviation of at most √(2/k)·‖a‖‖b‖.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ijrlib.linear_algebra import gram

LIMIT_BYTES = 4 << 30
SEED = 0
BLOCK = 1 << 24
"""Numbers in float64 that the Gram matrix works on at a time."""


@dataclass(frozen=True)
class Trajectory:
    """The scratch file of one run.

    Attributes:
        path: of the file.
        steps: the steps to be recorded, ascending.
        parameters: m.
    """

    path: Path
    steps: Sequence[int]
    parameters: int

    @property
    def width(self) -> int:
        """Numbers kept of each point: m, or k where the points are projected."""
        return min(self.parameters, LIMIT_BYTES // (4 * max(1, len(self.steps))))

    def record(self, step: int, point: Tensor) -> None:
        """Write the point θ(t) − θ(0), shape (m,), of a step; overwrites what is there.

        Raises:
            OSError: where it cannot be written.  Unlike a checkpoint a point is not spared: the run
                ends, and goes on from its last checkpoint.
        """
        row = point if self.width == self.parameters else project(point, self.width)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.seek(4 * self.width * self.steps.index(step))
            file.write(row.float().cpu().numpy().tobytes())

    def check(self, start: int) -> None:
        """Make sure that the points before a step are there, to resume from it.

        Raises:
            ValueError: where they are not.
        """
        expected = 4 * self.width * sum(step < start for step in self.steps)
        found = self.path.stat().st_size if self.path.exists() else 0
        if found < expected:
            raise ValueError(
                f"{self.path}: expected at least {expected} bytes for the steps before {start}, "
                f"got {found}; remove the checkpoint beside it to start over"
            )

    def gram(self, count: int) -> np.ndarray:
        """Inner products of the first ``count`` points, shape (count, count), float64.

        Read in blocks of columns: ``BLOCK`` numbers of memory, 2·count²·m operations.
        """
        size = count * self.width
        rows = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.float32)
        return gram(rows.view(count, self.width), block=max(1, BLOCK // count)).numpy()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def project(point: Tensor, width: int) -> Tensor:
    """S·point, shape (width,): signed entries, dealt out at random to equally many buckets."""
    order, signs = _deal(len(point), width, point.device)
    padded = point.new_zeros(len(order))
    padded[: len(point)] = point * signs
    return padded[order].view(-1, width).sum(0)


@lru_cache(maxsize=1)
def _deal(parameters: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    places = -(-parameters // width) * width
    order = torch.randperm(places, generator=generator)
    signs = 2 * torch.randint(2, (parameters,), generator=generator, dtype=torch.int8) - 1
    return order.to(device), signs.to(device)


def errors(products: np.ndarray, displacement: np.ndarray, step_norm: np.ndarray) -> dict:
    """Largest relative error of the Gram matrix' distances, against norms taken of θ itself.

    Args:
        products: Gram matrix of T points, shape (T, T).
        displacement: ‖θ(t) − θ(0)‖, shape (T,).
        step_norm: distance of each point to the one before, shape (T,); the first is left out.

    Returns:
        displacement_error and step_error; 0 where there is no distance but 0.
    """
    square = np.diag(products)
    steps = square[1:] + square[:-1] - 2 * np.diag(products, 1)

    def largest(squares: np.ndarray, exact: np.ndarray) -> float:
        there = exact > 0
        error = np.abs(np.sqrt(squares[there].clip(0)) / exact[there] - 1)
        return float(error.max(initial=0.0))

    return {
        "displacement_error": largest(square, displacement),
        "step_error": largest(steps, step_norm[1:]),
    }
