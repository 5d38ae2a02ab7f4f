"""The top eigenpair of an expensive operator, with the help of a cheap one that resembles it.

The Hessian over all examples and the Hessian over every ninth of them have nearly the same top
eigenvectors, and a product with the second costs a ninth.  Let the orthonormal columns of X be
the vectors whose products AX with the expensive operator A are known, P = XXᵀ, and S the cheap
operator.  The *corrected* operator

    S̃ = (1 − P) S (1 − P) + A P + P A − P A P

agrees with A on X and asks S only about the complement.  Its top eigenvector, found with products
of S alone, is the next column of X.  What is reported is the top Ritz pair of A on X with its true
residual ‖Ax − θx‖: S decides where to look next, and, by how far the top eigenvalue of S̃ lies above
θ, when to stop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ijrlib import spectra
from ijrlib.linear_algebra import eigh
from ijrlib.spectra import Eigenpair, Subspace, norm, random_vectors, solvable, start_vectors

FIRST_RESIDUAL = 0.1
"""Relative residual to which the first eigenvector of S is found from given start vectors."""

COLD_RESIDUAL = 1e-3
"""The same from a random start: with a looser one, a start that happens to have little of the top
eigenvector in it is taken for converged at a lower one."""

NEXT_RESIDUAL = 0.2
"""Residual to which an eigenvector of S̃ is found, relative to the residual of A."""

STOP_RESIDUAL = 0.5
"""Residual below which the top eigenvalue of S̃ is compared with θ, relative to that of A."""

REMEMBERED = 0.5
"""A is asked about a followed vector of which the columns of X hold less than this share of its
squared length."""

SURROGATE_PRODUCTS = 200
"""Products with S between two products with A, at most."""

COLUMNS = 16
"""Columns of X at most: a surrogate that has not led there by then is a poor one, and Lanczos goes
on from the best two Ritz vectors of A on X."""


def top_eigenpair(
    op: Any,
    surrogate: Any,
    v0: Tensor | None = None,
    rtol: float = 5e-3,
    max_products: int = 100,
    seed: int = 0,
    cold: bool = False,
    followed: int = 0,
) -> Eigenpair:
    """The largest algebraic eigenvalue θ of ``op``, with its eigenvector.

    Args:
        op: A; has ``shape`` (m, m) and ``op @ v``.
        surrogate: S, of the same shape; the closer to A, the fewer products with A.
        v0: start vector (m,) or start vectors (m, b), such as previous eigenvectors and the
            gradient.  Columns that are zero or not finite are left out.
        rtol: relative error of θ at which to stop.  It is estimated: by how much one more product
            with A is predicted to raise θ.  (Where the surrogate is given up, a relative residual.)
        max_products: products with A at most, one or more; the best pair found is returned.
        seed: of the random start vector.
        cold: start from the top eigenvector of S, found from a random vector, and spend the first
            products with A on the vectors ``v0`` themselves, as many as ``max_products`` allows,
            lest S be blind to the top eigenvector.
        followed: how many of the first vectors of ``v0`` are eigenvectors of matrices near A.
            Where the pair found has left one of them behind, A is asked about that one before the
            pair is believed, lest S have led from the top eigenvector to the next.

    Returns:
        The pair, with its true residual and the products spent with A and with S; ``converged``
        says whether the estimated error is within ``rtol``.

    Raises:
        ValueError: shapes that do not fit, a precision other than single and double, no start
            vector that is finite and other than zero, ``max_products`` below 1, or an ``rtol`` that
            is no tolerance.
    """
    solvable(op)
    spectra.check_tolerance(rtol)
    if tuple(surrogate.shape) != tuple(op.shape):
        raise ValueError(f"surrogate: expected shape {op.shape}, got {surrogate.shape}")
    solvable(surrogate, "surrogate")
    if max_products < 1:
        raise ValueError(f"max_products: expected at least 1, got {max_products}")
    known = [] if v0 is None else start_vectors(op, v0)
    cold = cold or not known
    before = 0
    starts = known
    if cold:
        (start,) = random_vectors(op, 1, seed)
        first = spectra.top_eigenpair(surrogate, start, COLD_RESIDUAL, SURROGATE_PRODUCTS)
        before, starts = first.products, [first.vector, *known]
    pairs = _Pairs(op, surrogate, starts, before)
    if cold:
        for j in range(min(len(known), max_products)):
            pairs.multiply(pairs.start(1 + j))
    target = FIRST_RESIDUAL
    patience = SURROGATE_PRODUCTS
    doubts = known[:followed]
    while pairs.finite:
        top, mix, residual = pairs.corrected()
        size = float(norm(residual))
        enough = max(target * abs(top), pairs.rounding())
        settled = pairs.columns and size <= max(STOP_RESIDUAL * pairs.residual, enough)
        if settled and top - pairs.value <= max(rtol * abs(pairs.value), pairs.tiny):
            left = [v for v in doubts if pairs.share(v) < REMEMBERED]
            if not left or pairs.products >= max_products or pairs.full:
                return pairs.eigenpair(not left)
            doubts = left[1:]
            if pairs.multiply(pairs.project(left[0])):
                target = NEXT_RESIDUAL * pairs.residual / (abs(pairs.value) or 1.0)
                pairs.expand(pairs.gap)
            continue
        if size > enough and patience:
            if pairs.expand(residual):
                patience -= 1
                continue
            top, mix, residual = pairs.corrected()  # the basis may have been restarted
        if pairs.full and pairs.products < max_products:
            rest = max_products - pairs.products
            pair = spectra.top_eigenpair(op, pairs.vectors(2).flip(1), rtol, rest)
            spent = pair.products + pairs.products
            return replace(pair, products=spent, surrogate_products=pairs.surrogate_products)
        if pairs.products >= max_products or not pairs.multiply(mix):
            return pairs.eigenpair(pairs.residual <= max(rtol * abs(pairs.value), pairs.tiny))
        target = NEXT_RESIDUAL * pairs.residual / (abs(pairs.value) or 1.0)
        patience = SURROGATE_PRODUCTS
        pairs.expand(pairs.gap)
    nan = float("nan")
    return Eigenpair(nan, starts[0], nan, pairs.products, False, pairs.surrogate_products)


class _Pairs:
    """X and AX within a basis B of which SB is known: X = B·coefficients."""

    def __init__(self, op: Any, surrogate: Any, starts: list[Tensor], before: int) -> None:
        self.op = op
        size = spectra.basis_size(starts[0], COLUMNS + 16 + len(starts), least=8 + len(starts))
        self.space = Subspace(surrogate, starts[0], size)
        self.most_columns = min(COLUMNS, size - 4)
        self.before = before  # products with S spent so far
        self.order = [j for j, v in enumerate(starts) if self.space.expand(v)]
        self.coefficients = torch.zeros(self.space.size, 0, dtype=torch.float64, device="cpu")
        self.images = starts[0].new_empty(len(starts[0]), 0)
        self.products = 0
        self.value = self.residual = float("nan")
        self.gap = starts[0]  # Ax − θx
        self.ritz = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
        self.tiny = 0.0

    @property
    def columns(self) -> int:
        return self.images.shape[1]

    @property
    def full(self) -> bool:
        """Whether X has all the columns that the basis has room for."""
        return self.columns >= self.most_columns

    @property
    def surrogate_products(self) -> int:
        return self.before + self.space.products

    @property
    def finite(self) -> bool:
        return self.space.finite and bool(torch.isfinite(self.gap).all())

    def start(self, j: int) -> Tensor:
        """Coefficients of the j-th start vector's part that was new to the basis."""
        unit = torch.zeros(self.space.size, dtype=torch.float64, device="cpu")
        if j in self.order:
            unit[self.order.index(j)] = 1
        return unit

    def project(self, v: Tensor) -> Tensor:
        """Coefficients of v's part within the basis."""
        return (self.basis() @ v).double().cpu()

    def share(self, v: Tensor) -> float:
        """Share of v's squared length that lies in the columns of X."""
        inside = self.coefficients.T @ self.project(v)
        return float(inside.square().sum()) / float(v.double().square().sum())

    def rounding(self) -> float:
        """Below this a residual of S̃ is noise."""
        size = self.space.size
        known = float(self.space.projected[:size, :size].abs().max()) if size else 0.0
        return max(10 * torch.finfo(self.images.dtype).eps * known, self.tiny)

    def basis(self) -> Tensor:
        return self.space.basis[: self.space.size]

    def expand(self, v: Tensor) -> bool:
        """Add v to the basis (one product with S); False where it lies within it."""
        if self.space.size == self.space.capacity:
            _, mixing = eigh(self._galerkin()[0])
            room = min(8, self.space.capacity - self.columns - 2)
            keep, _ = torch.linalg.qr(torch.cat([self.coefficients, mixing[:, -room:]], dim=1))
            self.space.restart(keep)
            self.coefficients = keep.T @ self.coefficients
        if not self.space.expand(v):
            return False
        row = torch.zeros(1, self.columns, dtype=torch.float64, device="cpu")
        self.coefficients = torch.cat([self.coefficients, row])
        return True

    def multiply(self, mix: Tensor) -> bool:
        """Add B·mix, made orthogonal to X, to X (one product with A); False where it lies in X."""
        length = mix.norm()
        for _ in range(2):
            mix = mix - self.coefficients @ (self.coefficients.T @ mix)
        if not mix.norm() > 1e-5 * length:
            return False
        mix = mix / mix.norm()
        image = self.op @ (self.basis().T @ mix.to(self.images))
        self.products += 1
        self.coefficients = torch.cat([self.coefficients, mix[:, None]], dim=1)
        self.images = torch.cat([self.images, image[:, None]], dim=1)
        projected = self.coefficients.T @ (self.basis() @ self.images).double().cpu()
        if not bool(torch.isfinite(projected).all()):
            self.gap = torch.full_like(self.gap, float("nan"))
            return True
        values, self.ritz = eigh((projected + projected.T) / 2)
        self.value = float(values[-1])
        x = self.basis().T @ (self.coefficients @ self.ritz[:, -1]).to(self.images)
        self.gap = self.images @ self.ritz[:, -1].to(self.images) - self.value * x
        self.residual = float(norm(self.gap))
        self.tiny = 10 * torch.finfo(x.dtype).eps * float(values.abs().max())
        return True

    def _galerkin(self) -> tuple[Tensor, Tensor]:
        """BᵀS̃B and BᵀAX."""
        size = self.space.size
        projected = self.space.projected[:size, :size]
        c = self.coefficients
        images = (self.basis() @ self.images).double().cpu()
        outside = torch.eye(size, dtype=torch.float64, device="cpu") - c @ c.T
        corrected = outside @ projected @ outside
        corrected = corrected + images @ c.T + c @ images.T - c @ (c.T @ images) @ c.T
        return (corrected + corrected.T) / 2, images

    def corrected(self) -> tuple[float, Tensor, Tensor]:
        """The top Ritz pair of S̃ on B: value, coefficients in B and residual in R^m."""
        matrix, images = self._galerkin()
        values, mixing = eigh(matrix)
        top, mix = float(values[-1]), mixing[:, -1]
        basis, c = self.basis(), self.coefficients
        inside = c.T @ mix
        w = self.space.images[: self.space.size].T @ (mix - c @ inside).to(basis)
        along = c.T @ (basis @ w).double().cpu()
        back = c @ (images.T @ mix - (c.T @ images) @ inside - along) - top * mix
        return top, mix, w + self.images @ inside.to(basis) + basis.T @ back.to(basis)

    def vectors(self, count: int) -> Tensor:
        """The best Ritz vectors of A on X, best last, in columns."""
        return self.basis().T @ (self.coefficients @ self.ritz[:, -count:]).to(self.images)

    def eigenpair(self, converged: bool) -> Eigenpair:
        x = self.vectors(1)[:, 0]
        residual = self.residual / abs(self.value) if self.value else self.residual
        return Eigenpair(
            self.value, x / x.norm(), residual, self.products, converged, self.surrogate_products
        )
