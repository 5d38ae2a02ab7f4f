"""What stored numbers stand for: classes, pairs of classes, edges of bins, sizes of batches."""

from __future__ import annotations

import numpy as np

COVARIANCE_BATCHES, COVARIANCE_BATCH = 25, 128
"""L and M: the mini-batches whose gradients estimate K (Jastrzebski et al. 2020, App. B)."""

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the classes 0 to 9 of CIFAR-10."""

PAIRS = ((5, 1), (0, 8), (1, 9), (5, 3), (4, 2))
"""Pairs of classes whose examples are projected to a plane (``plane_coordinates``): dog and
automobile (Figure 9), airplane and ship, automobile and truck, dog and cat, deer and bird (Figure
30)."""

STRETCH_BINS = np.linspace(0, 5, 101)
"""Bins of ‖Jq^(i)‖²·C/‖J‖_F² (Figure 11, left); larger values count in the last one."""

COS_SQ_BINS = np.linspace(0, 1, 101)
"""Bins of cos²(Jq^(i), Jq^(j)) (Figure 11, right)."""


def covariance_batches(examples: int) -> tuple[int, int]:
    """(L, M) where there are so many examples: M is smaller where L·M would be more."""
    size = max(1, min(COVARIANCE_BATCH, examples // COVARIANCE_BATCHES))
    return min(COVARIANCE_BATCHES, examples // size), size
