"""Update rules that treat the sharpest directions apart (Jastrzebski et al. 2019, Section 4).

With V the K top eigenvectors of H in columns and g the gradient of a mini-batch, the step of
Nudged-SGD follows g − (1 − γ)VVᵀg: as g, but γ times as far along the sharpest directions.  γ = 0
takes them out altogether; VVᵀg is what it takes out.  H is that of the probe, and its eigenvectors
are found again every ``SEARCH_EVERY`` steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ijrlib.conventions import SEARCH_EVERY
from ijrlib.operators import Loss, linearize
from ijrlib.spectra import top_eigenpairs

RTOL = 0.05
PRODUCTS = 8
"""Relative residuals of the eigenvectors at which a search stops, and its products with H at most,
as a multiple of K + 2."""


def projection(g: Tensor, vectors: Tensor) -> Tensor:
    """VVᵀg, shape (m,), for orthonormal columns V (m, K)."""
    return vectors @ (vectors.T @ g)


def nudged(g: Tensor, vectors: Tensor, gamma: float) -> Tensor:
    """g − (1 − γ)VVᵀg, shape (m,), for orthonormal columns V (m, K)."""
    return g - (1 - gamma) * projection(g, vectors)


def followed(
    model: nn.Module,
    loss: Loss,
    probe: tuple[Tensor, Tensor],
    k: int,
    *,
    step: int,
    memory: dict[str, Tensor],
    chunk: int,
) -> Tensor:
    """V of a step, shape (m, K): that of the last search, at most ``SEARCH_EVERY`` − 1 steps ago.

    A search starts from the vectors before it.  ``memory`` keeps them and their step, so that a
    resumed run has the same.

    Raises:
        ValueError: where the network has fewer than K parameters.
    """
    known = memory.get("sharpest_vectors")
    if known is not None and 0 <= step - int(memory["sharpest_step"]) < SEARCH_EVERY:
        return known
    op = linearize(model, loss, probe, chunk=chunk).hessian
    pairs = top_eigenpairs(op, k, known, rtol=RTOL, max_products=PRODUCTS * (k + 2), seed=step)
    memory["sharpest_vectors"] = torch.stack([pair.vector for pair in pairs], dim=1)
    memory["sharpest_step"] = torch.tensor(step, device="cpu")
    return memory["sharpest_vectors"]
