"""The quantities of Theorem 2, example by example.

For the unit top eigenvector q* of G = ⟨J M Jᵀ⟩ let v_x = J_xᵀq* and λ*_x = v_xᵀ M_x v_x / ‖J_x‖².
Then ‖G‖ = ⟨λ*‖J‖²⟩ and 0 ≤ λ*_x ≤ λ^(1)_x, so ‖G‖ ≤ ⟨λ^(1)‖J‖²⟩ (Eq 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ijrlib.curvature import impurities
from ijrlib.operators import CHUNK, LOSSES, gauss_newton, jacobian_products
from ijrlib.per_example import jacobian_norms
from ijrlib.spectra import top_eigenpair


@dataclass(frozen=True)
class SharpnessBound:
    """Theorem 2 on one data set; tensors have one entry an example.

    Attributes:
        norm: ‖G‖, the Rayleigh quotient of q*.
        residual: ‖G q* − ‖G‖q*‖/‖G‖.
        lambda_star: λ*_x, 0 where J_x = 0.
        lambda_1: λ^(1)_x, the top eigenvalue of M_x (1 for the squared loss).
        jacobian_sq: ‖J_x‖².
        vector: q*, shape (m,).
    """

    norm: float
    residual: float
    lambda_star: Tensor
    lambda_1: Tensor
    jacobian_sq: Tensor
    vector: Tensor

    @property
    def mean(self) -> float:
        """⟨λ*‖J‖²⟩, equal to ‖G‖ up to rounding."""
        return float((self.lambda_star * self.jacobian_sq).mean())

    @property
    def bound(self) -> float:
        """⟨λ^(1)‖J‖²⟩."""
        return float((self.lambda_1 * self.jacobian_sq).mean())


def sharpness_bound(
    model: nn.Module,
    x: Tensor,
    loss: str = "cross_entropy",
    *,
    rtol: float = 1e-3,
    v0: Tensor | None = None,
    chunk: int = CHUNK,
) -> SharpnessBound:
    """Compute q*, v_x, ‖J_x‖ and with them every quantity of Theorem 2.

    Args:
        model: maps x (N, …) to logits (N, C).
        loss: "cross_entropy" (M = diag(p) − ppᵀ) or "squared" (M = I, App. M).
        rtol: relative residual of q*.
        v0: start vector for q*.

    Raises:
        ValueError: for another loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {loss!r}")
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)  # M does not depend on them
    op = gauss_newton(model, LOSSES[loss], (x, labels), chunk=chunk)
    pair = top_eigenpair(op, v0, rtol=rtol)
    z, v = (t.double() for t in jacobian_products(model, x, pair.vector, chunk=chunk))
    if loss == "squared":
        weighted, top = v, torch.ones(len(x), dtype=torch.float64, device=x.device)
    else:
        p = z.softmax(-1)
        weighted, top = p * (v - (p * v).sum(-1, keepdim=True)), impurities(p)
    curvature = (v * weighted).sum(-1)  # vᵀMv
    jacobian_sq = jacobian_norms(model, x).square()
    star = torch.where(jacobian_sq == 0, 0.0, curvature / jacobian_sq)
    return SharpnessBound(pair.value, pair.residual, star, top, jacobian_sq, pair.vector)
