r"""The logit Hessian M = diag(p) − p pᵀ and its top eigenvalue, the impurity.

Arrays are numpy or torch, float32 or float64, on any device; the last axis holds the C classes and
any axes before it are a batch. Results have the dtype and device of p.

Which matrix, when p does not sum to one exactly? Probabilities are stored rounded, so Σp = 1 + δ
with a δ of a few units of rounding, and near one-hot that δ is larger than 1 − p₁ itself: the
literal diag(p) − ppᵀ of the stored numbers has lost what it should say. Everything here belongs to

    M(p) = diag(p) − p pᵀ / Σp,

which equals diag(p) − ppᵀ when Σp = 1, annihilates the vector of ones for every p, and interlaces
with the stored entries exactly. It is the Laplacian of the complete graph with weights p_i p_j/Σp,
so a relative change of ε in each entry of p changes every eigenvalue by at most 3ε relatively,
however small it is. In formulas this means: read 1 − p₁ as the sum of the other entries.

Its nonzero eigenvalues solve Σ p_i/(p_i − λ) = 0, the secular equation of Theorem 1 (a) divided by
its root 0 and free of the constant that cancels: Σp − Σ p_i²/(p_i − λ) = −λ Σ p_i/(p_i − λ).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from ijrlib.secular_equation import all_roots, half_gini, split_top, top_root

Array = Any  # numpy.ndarray or torch.Tensor


def check_probabilities(p: Array) -> None:
    """Raise ValueError unless every row of p is a probability vector over at least two classes.

    The sum may be off one by 8 √C units of float32 rounding (2⁻²³ each: 3e-6 at C = 10), for
    float64 too, so that a float32 softmax that was cast is accepted: M(p) above says what it means.
    """
    xp = array_namespace(p)
    if not (xp.isdtype(p.dtype, "real floating") and xp.finfo(p.dtype).bits in (32, 64)):
        raise ValueError(f"expected probabilities in float32 or float64, got {p.dtype}")
    if p.ndim < 1 or p.shape[-1] < 2:
        raise ValueError(f"expected at least two classes in the last axis, got {tuple(p.shape)}")
    if 0 in p.shape:
        return
    tolerance = 8 * p.shape[-1] ** 0.5 * 2.0**-23
    total = xp.vecdot(p, xp.ones_like(p[(0,) * (p.ndim - 1)]))
    if bool(xp.min(p) >= 0) and bool(xp.max(xp.abs(total - 1)) <= tolerance):
        return
    rows = np.asarray(p.detach().cpu() if is_torch_array(p) else p)
    for problem, wrong in (("is not finite", ~np.isfinite(rows)), ("is negative", rows < 0)):
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"expected probabilities, but entry {where} {problem}: {rows[where]}")
    sums = rows.astype(np.float64).sum(-1)
    where = tuple(int(i) for i in np.argwhere(np.abs(sums - 1) > tolerance)[0])
    at = f"row {where}" if where else "p"
    raise ValueError(f"expected a sum of 1 within {tolerance:.1e}, but {at} sums to {sums[where]}")


def logit_hessian(p: Array) -> Array:
    """M = diag(p) − p pᵀ/Σp of shape (…, C, C): the Hessian of cross-entropy in the logits (Eq 4).

    The diagonal is p_i Σ_{j≠i} p_j / Σp, so rows sum to zero and nothing cancels near one-hot.
    """
    check_probabilities(p)
    xp = array_namespace(p)
    total = xp.sum(p, axis=-1, keepdims=True)
    weights = p[..., :, None] * (p / total)[..., None, :]
    same = xp.eye(p.shape[-1], dtype=p.dtype, device=device(p))
    others = weights * (1 - same)
    return same * xp.sum(others, axis=-1)[..., None] - others


def secular(p: Array, lam: Array) -> Array:
    """v(λ) = 1 − Σ p_i²/(p_i − λ) (Theorem 1 a), evaluated as −λ Σ p_i/(p_i − λ) / Σp.

    lam broadcasts against the batch axes of p: p of shape (C,) with lam of shape (K,) gives (K,),
    p[:, None, :] with lam of shape (N, K) gives (N, K). Zero entries of p do not count; at a pole
    λ = p_i > 0 the value is −∞, the limit from the left.
    """
    check_probabilities(p)
    xp = array_namespace(p)
    lam = xp.asarray(lam, dtype=p.dtype, device=device(p))[..., None]
    gap = p - lam
    terms = xp.where(gap == 0, xp.inf, p / xp.where(gap == 0, 1.0, gap))
    value = -lam[..., 0] * xp.sum(xp.where(p > 0, terms, 0.0), axis=-1) / xp.sum(p, axis=-1)
    return value


def gini(q: Array) -> Array:
    """Binary Gini impurity 2 q (1 − q), elementwise."""
    return 2 * q * (1 - q)


def gini_classes(p: Array) -> Array:
    """C-class Gini impurity 1 − Σ p_i² = tr M, as Σ p_i (Σp − p_i)/Σp; drops the last axis."""
    check_probabilities(p)
    xp = array_namespace(p)
    top, count, rest = split_top(p)
    others = xp.sum(rest, axis=-1) + (count - 1) * top
    total = top + others
    return (count * top * others + xp.sum(rest * (total[..., None] - rest), axis=-1)) / total


def impurity_bounds(p: Array) -> tuple[Array, Array]:
    """Theorem 1 (c) and (d): max(p_(2), p₁(1−p₁)) ≤ λ^(1) ≤ min(p₁, 2 p₁(1−p₁)).

    1 − p₁ is the sum of the other entries over Σp. Both bounds drop the last axis of p.
    """
    check_probabilities(p)
    xp = array_namespace(p)
    top, count, rest = split_top(p)
    lower = half_gini(top, xp.sum(rest, axis=-1) + (count - 1) * top)
    second = xp.where(count > 1, top, xp.max(rest, axis=-1))
    return xp.maximum(second, lower), xp.minimum(top, 2 * lower)


def impurity(p: Array, method: str = "secular") -> Array:
    """λ^(1), the largest eigenvalue of M, for each example: shape (…, C) to (…).

    "secular" solves the secular equation in O(C) (Theorem 1 a) with relative error of a few units
    in the last place, near one-hot too; uniform, one-hot and C = 2 are exact.
    "power" is Algorithm 1, for comparison (no gradient; see `power_iteration` for its counts).

    In torch the result is differentiable any number of times: ∂λ^(1)/∂p_i = q_i² − 2 q_i (q·p) with
    q = q^(1), the derivative of diag(p) − ppᵀ; a constant added to all entries would not matter,
    since p moves in the simplex. At a tie p_(1) = … = p_(k) the gradient is 1/k on the tied
    classes: the derivative for k = 2, and for k > 2, where λ^(1) is a multiple eigenvalue and has
    none, the symmetric element of its subdifferential; higher derivatives are not to be relied on
    there (they are returned as 0). At one-hot p = e_i the gradient is −1 at i, 0 else.

    Raises ValueError for a p that is no probability vector or an unknown method.
    """
    if method not in ("secular", "power"):
        raise ValueError(f"expected method 'secular' or 'power', got {method!r}")
    check_probabilities(p)
    if method == "power":
        return power_iteration(p)[0]
    if is_torch_array(p) and p.requires_grad:
        return _differentiable_impurity().apply(p)[0]
    return top_root(p)[0]


def power_iteration(
    p: Array, rtol: float = 1e-6, max_iterations: int = 1000
) -> tuple[Array, Array]:
    """Algorithm 1: λ^(1) by power iteration with closed-form products, (values, iterations).

    An iteration is v ← Mu/‖Mu‖, u ← Mᵀv/‖Mᵀv‖; its value vᵀMu = ‖Mᵀv‖ has settled when it moves by
    at most rtol relatively. Both results drop the last axis of p; a count of max_iterations means
    that the example may not have settled. The start is the same Gaussian vector for all examples.
    """
    check_probabilities(p)
    p = p.detach() if is_torch_array(p) else p
    xp = array_namespace(p)
    classes = p.shape[-1]
    top = xp.argmax(p, axis=-1, keepdims=True)
    weight = p / xp.sum(p, axis=-1, keepdims=True)

    def product(u: Array) -> Array:  # M1 = 0, so u may be shifted; this keeps digits near one-hot
        u = u - xp.take_along_axis(u, top, axis=-1)
        return p * (u - xp.sum(weight * u, axis=-1, keepdims=True))

    def normalized(u: Array) -> tuple[Array, Array]:
        scale = xp.max(xp.abs(u), axis=-1, keepdims=True)
        u = u / xp.where(scale > 0, scale, 1.0)
        norm = xp.linalg.vector_norm(u, axis=-1, keepdims=True)
        return u / xp.where(norm > 0, norm, 1.0), (scale * norm)[..., 0]

    start = np.random.default_rng(0).standard_normal(classes)
    u = xp.broadcast_to(xp.asarray(start, dtype=p.dtype, device=device(p)), p.shape)
    value = xp.zeros(p.shape[:-1], dtype=p.dtype, device=device(p))
    iterations = xp.full(p.shape[:-1], max_iterations, dtype=xp.int64, device=device(p))
    running = xp.ones(p.shape[:-1], dtype=xp.bool, device=device(p))
    for count in range(1, max_iterations + 1):
        v, _ = normalized(product(u))
        u, new = normalized(product(v))
        value, moved = xp.where(running, new, value), xp.abs(new - value)
        settled = running & (moved <= rtol * new)
        iterations = xp.where(settled, count, iterations)
        running = running & ~settled
        if not bool(xp.any(running)):
            break
    return value, iterations


def eigensystem(p: Array) -> tuple[Array, Array]:
    """All eigenpairs of M: values (…, C), largest first, and unit vectors in columns (…, C, C).

    Value i < C is the root of Σ p_j/(p_j − λ) between p_(i+1) and p_(i) (Theorem 1 a, c), vector i
    is proportional to p_j/(p_j − λ^(i)) (Theorem 1 b), and the last pair is exactly 0 and 1/√C.
    Deflation (Bunch, Nielsen and Sorensen 1978): where p_(i) = p_(i+1) the value is that entry
    exactly and the vector contrasts class (i+1) with the classes (s), …, (i) tied with it,
    (1, …, 1, −(i−s+1))/√((i−s+1)(i−s+2)), which is (1, −1)/√2 for two tied classes. Where
    p_(i+1) = 0 the value is 0 and the vector is the same contrast with all classes before (i+1).

    Signs: the entry of vector i at the class of rank i is positive (Eq 30); equal probabilities are
    ranked in the order of their classes. Cost O(C²) an example; no gradient.
    """
    check_probabilities(p)
    p = p.detach() if is_torch_array(p) else p
    xp = array_namespace(p)
    order = xp.argsort(p, axis=-1, descending=True, stable=True)
    ranked = xp.take_along_axis(p, order, axis=-1)
    values, vectors = all_roots(ranked)
    rank = xp.argsort(order, axis=-1, stable=True)
    rows = xp.broadcast_to(rank[..., :, None], vectors.shape)
    return values, xp.take_along_axis(vectors, rows, axis=-2)


@cache
def _differentiable_impurity() -> Any:
    """The torch.autograd.Function p -> (λ^(1), p₁ − λ^(1)); only the first has a gradient."""
    import torch

    class Impurity(torch.autograd.Function):
        @staticmethod
        def forward(p):
            return top_root(p)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.mark_non_differentiable(output[1])
            ctx.save_for_backward(inputs[0], *output)

        @staticmethod
        def backward(ctx, grad, _):
            return grad[..., None] * gradient(*ctx.saved_tensors)

    def gradient(p, lam, distance):  # in differentiable operations, for higher derivatives
        top, count, rest = split_top(p)
        is_top = (p == top[..., None]).to(p.dtype)
        # p₁ − λ with the digits of `distance` and the derivative of a difference
        distance = (top - lam) + (distance - (top - lam)).detach()
        # p_i − λ without cancellation, near one-hot and at near ties
        gap = torch.where(
            (2 * lam < top)[..., None],
            rest - lam[..., None],
            distance[..., None] - (top[..., None] - rest),
        )
        gap = torch.where(rest > 0, gap, 1.0)
        vector = is_top + (distance / top)[..., None] * (rest / gap)
        q = vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        smooth = q * q - 2 * q * (q * p).sum(-1, keepdim=True)
        return torch.where(count[..., None] > 1, is_top / count[..., None], smooth)

    return Impurity
