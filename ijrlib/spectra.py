"""Top eigenpairs with a residual certificate, and the norm of the mean Jacobian.

The eigensolver takes anything with ``op @ v``.  It is a Rayleigh–Ritz iteration: the basis starts
with the given vectors and grows by the residuals of the pairs that have not converged, which
from one start vector spans the Krylov space of Lanczos.  The products are kept with the basis, so
the residual reported is ‖Ax − θx‖ of the vector that is returned, not an estimate from a
recursion, and costs no further product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ijrlib.linear_algebra import eigh, eigvalsh
from ijrlib.operators import (
    MeanJacobian,
    SymmetricOperator,
    input_chunks,
    mean_jacobian,
    mean_jacobian_gram,
)

BASIS = 24
"""Basis vectors before a restart, and two more for each wanted pair."""

PATIENCE = 10
"""Products after which the Ritz values must have grown as they do in exact arithmetic."""

BASIS_BYTES = 1 << 30
"""Memory of a basis and its images, 2·size·m numbers; where more would be needed, the basis is
smaller, down to what a restart has to keep."""


@dataclass(frozen=True)
class Eigenpair:
    """An approximate eigenpair of A.

    Attributes:
        value: the Rayleigh quotient θ = xᵀAx.
        vector: x, unit norm, shape (m,).
        residual: ‖Ax − θx‖ / |θ| (‖Ax − θx‖ where θ = 0); an eigenvalue of A lies within
            residual·|θ| of θ.
        products: matrix–vector products spent.
        converged: whether the residual is within the tolerance asked for, or at the rounding level
            of the operator; of :mod:`ijrlib.two_level` whether the estimated error of θ is.
        surrogate_products: products with a cheaper operator (:mod:`ijrlib.two_level`).
    """

    value: float
    vector: Tensor
    residual: float
    products: int
    converged: bool
    surrogate_products: int = 0


def top_eigenpair(
    op: Any,
    v0: Tensor | None = None,
    rtol: float = 1e-2,
    max_products: int = 500,
    seed: int = 0,
    method: str = "lanczos",
) -> Eigenpair:
    """The largest **algebraic** eigenvalue of a symmetric operator, with its eigenvector.

    The residual certifies an eigenpair, not that it is the top one: a start vector without any
    component along the top eigenvector can be certified at a lower one, so restart cold now and
    then.

    Args:
        op: has ``shape`` (m, m) and ``op @ v``.
        v0: start vector (m,) or start vectors (m, b), such as the previous eigenvector; else
            random.  Columns that are zero or not finite are left out.  "power" starts from the
            first that is left, "pyhessian" from a random vector of its own.
        rtol: relative residual at which to stop.  The eigenvalue's own error is of second order, at
            most (residual·θ)² / gap.
        max_products: products at most; the best pair found is returned with its residual.  An
            operator that gives numbers that are not finite gives value and residual nan.
        seed: of the random start.
        method: "lanczos"; or for comparison "power" (power iteration, as the paper's) or
            "pyhessian" (Yao et al. 2020, its default tolerance; for an operator of
            :func:`ijrlib.operators.hessian`).  Both find the eigenvalue largest in **magnitude**.

    Raises:
        ValueError: unknown method, shapes that do not fit, a precision other than single and
            double, or no start vector that is finite and other than zero.
    """
    solvable(op)
    if method == "lanczos":
        return top_eigenpairs(op, 1, v0, rtol=rtol, max_products=max_products, seed=seed)[0]
    if method == "power":
        return _power_iteration(op, v0, rtol, max_products, seed)
    if method == "pyhessian":
        return _pyhessian(op, rtol, max_products)
    raise ValueError(f"method: expected one of lanczos, power, pyhessian; got {method!r}")


def top_eigenpairs(
    op: Any,
    k: int,
    v0: Tensor | None = None,
    rtol: float = 1e-2,
    max_products: int = 2000,
    seed: int = 0,
) -> list[Eigenpair]:
    """The k largest algebraic eigenpairs, largest first; arguments as in :func:`top_eigenpair`.

    ``products`` of every pair is the total spent on all of them.

    A basis that grows by a residual of norm s raises the sum of the k Ritz values by at least
    s²/(3‖A‖), the gain of the two by two problem.  Where ``PATIENCE`` products do not, the residual
    is the rounding of A itself (a Hessian of ten million parameters in float32: 10⁻³), which no
    further product lowers.
    """
    m = solvable(op)
    check_tolerance(rtol)
    if max_products < 1:
        raise ValueError(f"max_products: expected at least 1, got {max_products}")
    if not 1 <= k <= min(m, max_products):
        raise ValueError(f"k: expected 1 to {min(m, max_products)}, got {k}")
    randoms = torch.Generator().manual_seed(seed)
    # k random vectors, so that a multiple eigenvalue is seen as often as it occurs
    starts = random_vectors(op, k, randoms) if v0 is None else start_vectors(op, v0)
    dtype, ahead = starts[0].dtype, list[Tensor]()  # residuals, once all the starts are asked
    space = Subspace(op, starts[0], min(m, basis_size(starts[0], BASIS + 2 * k, least=k + 8)))
    since, total, smallest = len(starts), -math.inf, math.inf  # products, Σ values, residual
    while True:
        if not space.finite:
            nan = float("nan")
            return [Eigenpair(nan, space.basis[0], nan, space.products, False)] * k
        ended = space.size == m or space.products >= max_products
        # all the start vectors have their say before a pair is believed
        if space.size >= k and (not starts or ended or space.size == space.capacity):
            values, mixing = space.ritz()
            residuals = [space.residual(values[j], mixing[:, j]) for j in range(k)]
            norms = [float(norm(r)) for r in residuals]
            floor = 10 * torch.finfo(dtype).eps * float(values.abs().max())
            open_ = [j for j in range(k) if norms[j] > max(rtol * abs(float(values[j])), floor)]
            stalled = False
            if open_ and space.products > since:
                smallest = min([smallest, *(norms[j] for j in open_)])
                if space.products >= since + PATIENCE:
                    now = float(values[:k].sum())
                    gain = PATIENCE * smallest**2 / (4 * float(values.abs().max()))
                    stalled = now - total < gain
                    since, total, smallest = space.products, now, math.inf
            if ended or not (starts or (open_ and not stalled)):
                return [
                    Eigenpair(
                        value=(value := float(values[j])),
                        vector=space.vector(mixing[:, j]),
                        residual=norms[j] / abs(value) if value else norms[j],
                        products=space.products,
                        converged=stalled or j not in open_,
                    )
                    for j in range(k)
                ]
            if not starts and not ahead:
                ahead.extend(residuals[j] for j in open_)
            if space.size == space.capacity:
                space.restart(mixing[:, : k + 4])
        wanted = starts or ahead
        if not wanted or not space.expand(wanted.pop(0)):
            space.expand(_random(op, randoms))  # an invariant subspace: look outside it
            since, total, smallest = space.products, -math.inf, math.inf


def norm(v: Tensor) -> Tensor:
    """‖v‖, also where the squares of v's entries underflow or overflow its type.

    From √(m·tiny) on, tiny the least normal number, what the squares lose is within rounding, and
    the norm is torch's own.
    """
    found = v.norm()
    if (len(v) * torch.finfo(v.dtype).tiny) ** 0.5 <= float(found) < math.inf:
        return found
    largest = v.abs().max()
    if not 0 < float(largest) < math.inf:
        return found
    return largest * (v / largest).norm()


def basis_size(like: Tensor, wanted: int, least: int) -> int:
    """The number of basis vectors that fit into ``BASIS_BYTES``, at least and at most as given."""
    fitting = BASIS_BYTES // (2 * like.numel() * like.element_size())
    return max(least, min(wanted, fitting))


class Subspace:
    """Rayleigh–Ritz: an orthonormal basis V, its images AV and T = VᵀAV, grown by one product at a
    time."""

    def __init__(self, op: Any, like: Tensor, size: int) -> None:
        self.op = op
        self.capacity = size
        self.basis = like.new_empty(size, len(like))
        self.images = like.new_empty(size, len(like))
        self.projected = torch.zeros(size, size, dtype=torch.float64, device="cpu")
        self.size = 0
        self.products = 0
        self.finite = True

    def expand(self, v: Tensor) -> bool:
        """Add v, made orthonormal to the basis; False where it lies within the span."""
        v = v / norm(v)
        known = self.basis[: self.size]
        for _ in range(2):
            v = v - known.T @ (known @ v)
        rest = v.norm()
        if not rest > 10 * len(v) ** 0.5 * torch.finfo(v.dtype).eps:
            return False
        v = v / rest
        v = v - known.T @ (known @ v)
        j = self.size
        self.basis[j] = v / v.norm()
        self.images[j] = self.op @ self.basis[j]
        self.size, self.products = j + 1, self.products + 1
        column = (self.images[: j + 1] @ self.basis[j]).double().cpu()
        self.finite = bool(self.images[j].isfinite().all() and column.isfinite().all())
        self.projected[: j + 1, j] = self.projected[j, : j + 1] = column
        return True

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, largest first, and the mixing matrix (size, size) of the Ritz vectors."""
        values, mixing = eigh(self.projected[: self.size, : self.size])
        return values.flip(0), mixing.flip(1)

    def vector(self, mix: Tensor) -> Tensor:
        x = self.basis[: self.size].T @ mix.to(self.basis)
        return x / x.norm()

    def residual(self, value: Tensor, mix: Tensor) -> Tensor:
        mix = mix.to(self.basis)
        image = self.images[: self.size].T @ mix
        return image - float(value) * (self.basis[: self.size].T @ mix)

    def restart(self, mixing: Tensor) -> None:
        """Keep the span of the given Ritz vectors."""
        count = mixing.shape[1]
        mix = mixing.to(self.basis)
        self.basis[:count] = mix.T @ self.basis[: self.size]
        self.images[:count] = mix.T @ self.images[: self.size]
        self.projected[:count, :count] = (self.images[:count] @ self.basis[:count].T).double().cpu()
        self.size = count


def jacobian_norm(
    model: nn.Module, x: object, method: str = "auto", rtol: float = 1e-3, seed: int = 0
) -> float:
    """‖⟨J⟩‖, the largest singular value of the mean Jacobian ⟨J⟩ = ∇_θ⟨z⟩ (m × C).

    Args:
        x: inputs, or an iterable of chunks of them.
        method: "exact": the C × C Gram matrix from C reverse passes; keeps C·m numbers.
            "golub-kahan": Lanczos on ⟨J⟩ᵀ⟨J⟩, that is Golub–Kahan bidiagonalization, one reverse
            and one forward pass an iteration; for many classes.  "power": the paper's Algorithm 2.
            "auto": exact up to 20 classes, golub-kahan above.
        rtol: relative residual of the squared norm ("golub-kahan"), relative change of the norm
            between iterations ("power").

    Raises:
        ValueError: for an unknown method, or "golub-kahan" of a model in half precision.
    """
    if method == "power":
        return algorithm_2(mean_jacobian(model, x), rtol=rtol, seed=seed)[-1]
    if method not in ("auto", "exact", "golub-kahan"):
        raise ValueError(f"method: expected auto, exact, golub-kahan or power; got {method!r}")
    x = input_chunks(x)
    op = mean_jacobian(model, x)
    if method == "exact" or (method == "auto" and op.shape[1] <= 20):
        return float(eigvalsh(mean_jacobian_gram(model, x))[-1].clamp(min=0).sqrt())
    square = (op.shape[1], op.shape[1])
    normal = SymmetricOperator(square, op.dtype, op.device, lambda u: op.T @ (op @ u))
    return max(top_eigenpair(normal, rtol=rtol, seed=seed).value, 0.0) ** 0.5


def algorithm_2(
    op: MeanJacobian, rtol: float = 1e-3, max_iterations: int = 1000, seed: int = 0
) -> list[float]:
    """The paper's Algorithm 2: the estimate vᵀ⟨J⟩u of ‖⟨J⟩‖ after each power iteration.

    v ← ⟨J⟩u/‖⟨J⟩u‖, u ← ⟨J⟩ᵀv/‖⟨J⟩ᵀv‖ until the estimate changes by less than ``rtol``, relatively.
    (The paper forms ⟨J⟩ᵀv from C differentiations; here it is one forward-mode pass.)
    """
    u = _random_like(op.shape[1], op.dtype, op.device, torch.Generator().manual_seed(seed))
    values: list[float] = []
    for _ in range(max_iterations):
        v = op @ (u / norm(u))
        values.append(float(norm(v)))  # vᵀ⟨J⟩u for v = ⟨J⟩u/‖⟨J⟩u‖
        settled = len(values) > 1 and abs(values[-1] - values[-2]) <= rtol * values[-1]
        if values[-1] == 0 or settled:
            break
        u = op.T @ (v / norm(v))
    return values


def _power_iteration(
    op: Any, v0: Tensor | None, rtol: float, max_products: int, seed: int
) -> Eigenpair:
    start = _random(op, torch.Generator().manual_seed(seed)) if v0 is None else v0
    x = start_vectors(op, start)[0]
    x = x / norm(x)
    products = 0
    while True:
        image = op @ x
        products += 1
        value = float(x @ image)
        residual = float(norm(image - value * x))
        converged = residual <= rtol * abs(value)
        if converged or products >= max_products or not norm(image) > 0:
            return Eigenpair(value, x, residual / (abs(value) or 1.0), products, converged)
        x = image / norm(image)


def _pyhessian(op: Any, rtol: float, max_products: int) -> Eigenpair:
    """PyHessian's own power iteration; one product of ours certifies its vector."""
    import pyhessian

    if getattr(op, "problem", None) is None:
        raise ValueError("method 'pyhessian': expected an operator of ijrlib.operators.hessian")
    model, loss, pairs = op.problem
    mode = {name: module.training for name, module in model.named_modules()}
    gradients = [p.grad for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    state = torch.random.get_rng_state()
    passes = 0

    def counted(z: Tensor, y: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return loss(z, y)

    try:
        tool = pyhessian.hessian(model, counted, dataloader=pairs, cuda=op.device.type == "cuda")
        first = passes  # its constructor takes the gradient once
        values, vectors = tool.eigenvalues(maxIter=max_products, top_n=1)
    finally:
        torch.random.set_rng_state(state)
        for buffer, old in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(old)
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.grad = gradient
        for name, module in model.named_modules():
            module.training = mode[name]
    x = torch.cat([v.reshape(-1) for v in vectors[0]])
    value = float(values[0])
    residual = float(norm(op @ x - value * x)) / (abs(value) or 1.0)
    products = (passes - first) // len(pairs) + 1
    return Eigenpair(value, x, residual, products, residual <= rtol)


def _square(op: Any) -> int:
    shape = tuple(getattr(op, "shape", ()))
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"op: expected an operator of shape (m, m) with m >= 1, got {shape}")
    return shape[0]


def solvable(op: Any, name: str = "op") -> int:
    """m of an operator (m, m) that an eigensolver can take.

    Raises:
        ValueError: for another shape, or numbers of another type than float32 and float64: in half
            precision no vector can be told from the span of some hundred others.
    """
    m = _square(op)
    if (dtype := _dtype(op)) not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: expected numbers in float32 or float64, got {dtype}")
    return m


def check_tolerance(rtol: object) -> None:
    """Raise ValueError unless it is a finite number of at least 0."""
    if not isinstance(rtol, Real) or not 0 <= float(rtol) < math.inf:
        raise ValueError(f"rtol: expected a number of at least 0, got {rtol!r}")


def start_vectors(op: Any, v0: Tensor) -> list[Tensor]:
    """The columns of v0, (m,) or (m, b), that are finite and not zero, as ``op`` takes them.

    Raises:
        ValueError: for another shape, or where no column is left.
    """
    m = _square(op)
    if v0.ndim not in (1, 2) or v0.shape[0] != m:
        raise ValueError(f"v0: expected shape ({m},) or ({m}, b), got {tuple(v0.shape)}")
    columns = v0.to(_random(op, torch.Generator())).reshape(m, v0.numel() // m).unbind(1)
    starts = [v.contiguous() for v in columns if bool(torch.isfinite(v).all()) and norm(v) > 0]
    if not starts:
        raise ValueError("v0: expected a finite vector other than zero")
    return starts


def random_vectors(op: Any, count: int, seed: int | torch.Generator) -> list[Tensor]:
    """Gaussian vectors of the operator's size, type and device."""
    randoms = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    return [_random(op, randoms) for _ in range(count)]


def _random(op: Any, generator: torch.Generator) -> Tensor:
    device = getattr(op, "device", torch.device("cpu"))
    return _random_like(op.shape[0], _dtype(op), device, generator)


def _dtype(op: Any) -> Any:
    return getattr(op, "dtype", torch.get_default_dtype())


def _random_like(n: int, dtype: Any, device: Any, generator: torch.Generator) -> Tensor:
    found = torch.randn(n, generator=generator, dtype=torch.float64, device="cpu")
    return found.to(device, dtype)


@dataclass(frozen=True)
class Hutchinson:
    """Estimates of a symmetric operator's trace tr A and squared Frobenius norm ‖A‖_F², with the
    standard error of each."""

    trace: float
    trace_error: float
    frobenius_sq: float
    frobenius_sq_error: float


def hutchinson(op: Any, samples: int = 10, seed: int = 0) -> Hutchinson:
    """tr A and ‖A‖_F² = tr A² as the means of vᵀAv and ‖Av‖² over random signs v (Hutchinson 1990).

    Costs one product a sample.  The variance of one sample is 2·Σ_{i≠j} A_ij² for the trace, and
    2·Σ_{i≠j} (A²)_ij² for the squared norm.

    Raises:
        ValueError: for fewer than two samples.
    """
    m = _square(op)
    if samples < 2:
        raise ValueError(f"samples: expected at least 2, got {samples}")
    randoms = torch.Generator().manual_seed(seed)
    like = _random(op, torch.Generator())
    values = []
    for _ in range(samples):
        signs = 2.0 * torch.randint(2, (m,), generator=randoms, device="cpu") - 1.0
        v = signs.to(like)
        image = op @ v
        forms = (v * image).sum(dtype=torch.float64), image.double().square().sum()
        values.append([float(form) for form in forms])
    found = torch.tensor(values, dtype=torch.float64, device="cpu")
    (trace, frobenius), errors = found.mean(0).tolist(), (found.std(0) / samples**0.5).tolist()
    return Hutchinson(trace, errors[0], frobenius, errors[1])
