"""Small dense matrices: Gram matrices in double precision, and eigenvalues that are NaN where
training has diverged."""

from __future__ import annotations

import torch
from torch import Tensor


def gram(rows: Tensor, block: int = 1 << 18) -> Tensor:
    """rows @ rowsᵀ in float64 for a (k, m) tensor, summed over blocks of columns (bounded
    memory)."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(block, dim=1):
        part = part.double()
        total += part @ part.T
    return total


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (…, n) and eigenvectors (…, n, n) of symmetric matrices (…, n, n), all NaN where
    an entry is not finite, as in training that diverges: PyTorch's raises an error there."""
    if bool(matrix.isfinite().all()):
        return torch.linalg.eigh(matrix)
    nan = torch.full_like(matrix, torch.nan)
    return nan[..., 0], nan


def eigvalsh(matrix: Tensor) -> Tensor:
    """The eigenvalues alone."""
    finite = bool(matrix.isfinite().all())
    return torch.linalg.eigvalsh(matrix) if finite else torch.full_like(matrix[..., 0], torch.nan)
