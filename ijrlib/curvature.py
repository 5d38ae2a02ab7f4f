"""One full measurement of curvature: sharpness, ‖⟨J⟩‖ and impurity, from shared passes.

The pass that gives the loss and the gradient also gives the logits, and leaves the graphs from
which products with H and ⟨J⟩ are cheap (:func:`ijrlib.operators.linearize`).  H itself is asked
only a few times: the Gauss–Newton matrix of a ninth of the examples decides where to look
(:mod:`ijrlib.two_level`).  The examples are taken evenly in the order of ‖∂ℓ/∂z‖, so that those
with curvature are represented however few they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ijrlib import logits, two_level
from ijrlib.operators import (
    CACHE_BYTES,
    CHUNK,
    Linearization,
    Loss,
    MeanJacobian,
    SymmetricOperator,
    cross_entropy,
    linearize,
)
from ijrlib.spectra import Eigenpair, check_tolerance, norm, top_eigenpair, top_eigenpairs

SUBSET = 9
"""One in so many examples goes into the subset;"""

SMALLEST_SUBSET = 64
"""a smaller one leads astray.  Where it would be smaller, H is asked alone (Lanczos)."""

RTOL = 4e-3
"""Estimated relative error of the sharpness, and of ‖⟨J⟩‖², at which to stop; how far the true
error along training at the edge of stability is from it shows the chapter "Benchmarks".  Where the
largest eigenvalues lie close to each other, as with very many classes at the start of training,
where H owes its largest one to the second derivatives of the logits and not to G, and where a few
examples that are classified right bend the loss as no other does, the estimate can be too low.  The
reported residual does not tell: it bounds the distance to an eigenvalue of H, which need not be the
largest.  :func:`measure` can ask H independently."""

INDEPENDENT_PRODUCTS = 10
"""Products with H at most, and"""

INDEPENDENT_RESIDUAL = 0.05
"""relative residual at which to stop, of the Lanczos iteration that owes nothing to the subset."""

LANCZOS_RESIDUAL = 2e-2
"""Relative residual of the first two eigenvectors where H is asked alone, for an ``rtol`` of
``RTOL``, and as its square root for others: the eigenvalue's error is of second order in it."""


@dataclass(frozen=True)
class Starts:
    """What a measurement leaves for the next one to start from.

    Attributes:
        top: the top eigenvector r of H, shape (m,).
        before: r of the measurement before, or None: with full batches the path swings from side to
            side, so that every other step resembles the next one most.
        singular: the right singular vector u of ⟨J⟩, shape (C,).
    """

    top: Tensor
    before: Tensor | None
    singular: Tensor


@dataclass(frozen=True)
class Curvature:
    """Curvature at one θ.

    Attributes:
        loss: mean loss L.
        gradient: g = ∇_θ L, shape (m,).
        logits: z, shape (N, C).
        top: top eigenpair of H; its value is ‖H‖, the sharpness.
        jacobian_norm: ‖⟨J⟩‖, the largest singular value of the mean Jacobian.
        jacobian_residual: ‖⟨J⟩ᵀ⟨J⟩u − ‖⟨J⟩‖²u‖ / ‖⟨J⟩‖² of its right singular vector u.
        impurity: ⟨λ^(1)⟩; None for a loss other than :func:`ijrlib.operators.cross_entropy` itself,
            ``F.cross_entropy`` among them (:func:`mean_impurity` gives it from the logits).
        starts: for the next measurement.
    """

    loss: float
    gradient: Tensor
    logits: Tensor
    top: Eigenpair
    jacobian_norm: float
    jacobian_residual: float
    impurity: float | None
    starts: Starts

    @property
    def gradient_alignment(self) -> float:
        """|cos(g, r)| of the gradient and the top eigenvector r (Figure 10); 0 where g = 0."""
        length = norm(self.gradient)
        return abs(float(self.top.vector @ (self.gradient / length))) if length != 0 else 0.0


def curvature(
    model: nn.Module,
    loss: Loss,
    data: object,
    previous: Curvature | None = None,
    *,
    chunk: int = CHUNK,
    rtol: float = RTOL,
    seed: int = 0,
) -> Curvature:
    """Measure L, g, ‖H‖, ‖⟨J⟩‖ and ⟨λ^(1)⟩ on all of ``data``.

    Args:
        model: maps x to logits (n, C).
        loss: mean loss of (logits, labels).
        data: a pair (x, y), split into chunks, or an iterable of such pairs.
        previous: the measurement of a nearby θ, whose vectors are the starting point; None for a
            cold start.  Start cold now and then: a followed eigenvector need not stay the top one.
        chunk: examples per forward pass.
        rtol: estimated relative error of the sharpness, and of ‖⟨J⟩‖², at which to stop.
        seed: of the cold start.

    The cost is about 8 gradients warm and 14 cold for the paper's convolutional networks on a
    thousand examples at the edge of stability (chapter "Benchmarks"), more where the largest
    eigenvalues lie closer together, as at the start of training, and more on a few hundred
    examples, where H is asked alone.  Memory is that of the kept graphs and some 90 vectors in R^m.
    """
    linear = linearize(model, loss, data, chunk=chunk)
    return measure(linear, None if previous is None else previous.starts, rtol=rtol, seed=seed)


def measure(
    linear: Linearization,
    starts: Starts | None = None,
    *,
    cold: bool = False,
    independent: bool = False,
    rtol: float = RTOL,
    seed: int = 0,
) -> Curvature:
    """:func:`curvature` from a linearization and start vectors that are there already.

    A ``cold`` start takes a random vector, and asks H about the eigenvector before nevertheless
    where a subset of the examples leads.  An ``independent`` one is cold and begins with some
    products of Lanczos with H itself, lest the subset miss the examples that matter; it costs up to
    20 gradients more.
    """
    if linear.hessian.problem is None:
        raise ValueError("linear: expected what ijrlib.operators.linearize returns, got another")
    check_tolerance(rtol)
    loss = linear.hessian.problem[1]
    subset = _subset(linear)
    cold = cold or independent or starts is None
    top = _top_eigenpair(linear, subset, starts, cold, independent, rtol, seed)
    singular = _singular_pair(linear, subset, None if cold else starts, rtol, seed)
    impurity = mean_impurity(linear.logits) if loss is cross_entropy else None
    return Curvature(
        loss=float(linear.loss),
        gradient=linear.gradient,
        logits=linear.logits,
        top=top,
        jacobian_norm=max(singular.value, 0.0) ** 0.5,
        jacobian_residual=singular.residual,
        impurity=impurity,
        starts=Starts(top.vector, None if starts is None else starts.top, singular.vector),
    )


def mean_impurity(z: Tensor) -> float:
    """⟨λ^(1)⟩ of logits z (n, C), in float64; NaN where those of an example are not finite."""
    return float(impurities(z.double().softmax(-1)).mean())


def impurities(p: Tensor) -> Tensor:
    """λ^(1) of probabilities p (n, C), shape (n,); NaN for an example whose p is not finite, and 0
    of one class alone, whose M is 0."""
    if p.shape[1] == 1:
        return p[:, 0] - 1
    finite = p.isfinite().all(-1)
    return logits.impurity(p.where(finite[:, None], 1 / p.shape[1])).where(finite, torch.nan)


def _subset(linear: Linearization) -> Linearization | None:
    """The same model on inputs taken evenly in the order of ‖∂ℓ/∂z‖, the largest of those with
    several rows of logits; None for too few of them."""
    assert linear.hessian.problem is not None
    model, loss, pairs = linear.hessian.problem
    size = linear.logit_gradients.norm(dim=1)
    inputs = sum(len(y) for _, y in pairs)
    if len(size) % inputs:
        raise ValueError(
            f"expected logits of shape (examples, classes), or as many rows for each of the "
            f"{inputs} inputs, got {len(size)} rows"
        )
    size = size.view(inputs, -1).amax(1)
    count = len(size) // SUBSET
    if count < SMALLEST_SUBSET:
        return None
    last, device = len(size) - 1, size.device
    places = torch.linspace(0, last, count, dtype=torch.float64, device=device).round().long()
    chosen = size.argsort(descending=True, stable=True)[places]
    taken = torch.zeros(len(size), dtype=torch.bool, device=size.device)
    taken[chosen] = True
    masks = taken.split([len(y) for _, y in pairs])
    parts = [(x[mask], y[mask]) for (x, y), mask in zip(pairs, masks, strict=True) if mask.any()]
    data: object = parts
    if len({(x.shape[1:], y.shape[1:]) for x, y in parts}) == 1:  # else texts, say, of some lengths
        data = tuple(map(torch.cat, zip(*parts, strict=True)))
    return linearize(model, loss, data, chunk=len(pairs[0][1]), cache_bytes=CACHE_BYTES // 3)


def _top_eigenpair(
    linear: Linearization,
    subset: Linearization | None,
    previous: Starts | None,
    cold: bool,
    independent: bool,
    rtol: float,
    seed: int,
) -> Eigenpair:
    known = [] if previous is None else [previous.top, None if cold else previous.before]
    known = [v for v in known if v is not None]
    spent = 0
    if independent and subset is not None:
        first = top_eigenpair(
            linear.hessian,
            rtol=INDEPENDENT_RESIDUAL,
            max_products=INDEPENDENT_PRODUCTS,
            seed=seed,
        )
        known, spent = [first.vector, *known], first.products
    vectors = [v for v in [*known, linear.gradient] if bool(v.any()) and bool(v.isfinite().all())]
    starts = torch.stack(vectors, dim=1) if vectors else None
    if subset is None:
        if cold:
            residual = _residual(two_level.COLD_RESIDUAL, rtol)
            return top_eigenpair(linear.hessian, rtol=residual, seed=seed)
        # two of them, lest r of the measurement before be believed while another has overtaken it
        count = min(2, len(linear.gradient))
        residual = _residual(LANCZOS_RESIDUAL, rtol)
        return top_eigenpairs(linear.hessian, count, starts, rtol=residual, seed=seed)[0]
    pair = two_level.top_eigenpair(
        linear.hessian,
        subset.gauss_newton,
        starts,
        rtol=rtol,
        seed=seed,
        cold=cold,
        followed=len(known),
    )
    return replace(pair, products=pair.products + spent)


def _residual(usual: float, rtol: float) -> float:
    """Of an eigenvector, for an error of its eigenvalue of second order in it."""
    return usual * (rtol / RTOL) ** 0.5


def _singular_pair(
    linear: Linearization,
    subset: Linearization | None,
    previous: Starts | None,
    rtol: float,
    seed: int,
) -> Eigenpair:
    """The top eigenpair of ⟨J⟩ᵀ⟨J⟩."""
    start = None if previous is None else previous.singular
    normal = _normal(linear.mean_jacobian)
    if subset is None:
        # two of them, lest a random start with little of the top one stop at the next
        count = min(2, normal.shape[0])
        residual = _residual(two_level.COLD_RESIDUAL, rtol)
        return top_eigenpairs(normal, count, start, rtol=residual, seed=seed)[0]
    return two_level.top_eigenpair(
        normal, _normal(subset.mean_jacobian), start, rtol=rtol, seed=seed
    )


def _normal(op: MeanJacobian) -> SymmetricOperator:
    classes = op.shape[1]
    return SymmetricOperator((classes, classes), op.dtype, op.device, lambda u: op.T @ (op @ u))
