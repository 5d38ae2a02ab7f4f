"""The quantities of Theorem 2, example by example.

For the unit top eigenvector q* of G = ⟨J M Jᵀ⟩ let v_x = J_xᵀq* and λ*_x = v_xᵀ M_x v_x / ‖J_x‖².
Then ‖G‖ = ⟨λ*‖J‖²⟩ and 0 ≤ λ*_x ≤ λ^(1)_x, so ‖G‖ ≤ ⟨λ^(1)‖J‖²⟩ (Eq 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ijrlib import logits
from ijrlib.operators import (
    LOSSES,
    gauss_newton,
    gram,
    input_chunks,
    jacobian_products,
    trainable,
)
from ijrlib.spectra import jacobian_norm, top_eigenpair


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
    chunk: int = 250,
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
        weighted, top = p * (v - (p * v).sum(-1, keepdim=True)), logits.impurity(p)
    curvature = (v * weighted).sum(-1)  # vᵀMv
    jacobian_sq = jacobian_norms(model, x).square()
    star = torch.where(jacobian_sq > 0, curvature / jacobian_sq, torch.zeros_like(curvature))
    return SharpnessBound(pair.value, pair.residual, star, top, jacobian_sq, pair.vector)


DENSE_BYTES = 1 << 27
"""Above this size of one example's Jacobian its norm comes from Golub–Kahan in place of the Gram
matrix."""


def jacobian_norms(model: nn.Module, x: Tensor, *, chunk: int = 8) -> Tensor:
    """‖J_x‖ of each example, shape (N,), float64.

    From the C × C Gram matrix J_xᵀJ_x, keeping ``chunk``·C·m numbers at a time; where a single
    Jacobian is larger than ``DENSE_BYTES``, by Golub–Kahan bidiagonalization of each example, from
    below.
    """
    params = trainable(model)
    others = dict(model.named_buffers())
    with torch.no_grad():
        classes = model(x[:1]).shape[-1]
    size = classes * sum(p.numel() * p.element_size() for p in params.values())
    if size > DENSE_BYTES:
        norms = [jacobian_norm(model, one[None], method="golub-kahan", rtol=1e-3) for one in x]
        return torch.tensor(norms, dtype=torch.float64, device=x.device)

    def example(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, {**values, **others}, (one[None],))[0]

    norms = []
    for part in input_chunks(x, chunk):
        blocks = vmap(jacrev(example), (None, 0))(params, part)  # name → (n, C, *shape)
        rows = torch.cat([b.detach().flatten(2) for b in blocks.values()], dim=2)
        for jacobian in rows:
            norms.append(torch.linalg.eigvalsh(gram(jacobian))[-1].clamp(min=0).sqrt())
    return torch.stack(norms)
