"""The other tools of the benchmarks, each called as its users call it.

PyHessian (Yao et al. 2020), curvlinops with scipy's eigensolvers, the paper's Algorithm 2 as it is
printed, ``vmap(jacrev)`` and ``eigvalsh``.  An iterative tool is watched: the time and the estimate
after each of its products are kept, so that one run tells what its own stopping rule costs and what
a given accuracy costs if one knew when to stop.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ijrlib.operators import Loss, MeanJacobian, trainable
from ijrlib.spectra import algorithm_2
from ijrlib.timing import Pairs, now

PYHESSIAN_TOLERANCE = 1e-3
PYHESSIAN_LIMIT = 100
"""PyHessian's defaults: relative change between iterations, and iterations at most."""


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class Trace:
    """Seconds since the start, and the estimate, after each product of an iterative solver."""

    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def within(self, reference: float, tolerance: float) -> int | None:
        """Products until the estimate is within ``tolerance``, relatively; None where it never
        is."""
        near = [abs(value - reference) <= tolerance * abs(reference) for value in self.values]
        return near.index(True) + 1 if any(near) else None

    def settled(self, tolerance: float) -> int | None:
        """Products until the estimate changes by less than ``tolerance``, relatively."""
        for k in range(1, len(self.values)):
            if abs(self.values[k] - self.values[k - 1]) < tolerance * abs(self.values[k - 1]):
                return k + 1
        return None


class _Enough(Exception):
    """Raised inside a tool to stop it."""


def pyhessian(
    model: nn.Module, loss: Loss, pairs: Pairs, stop: Callable[[Trace], bool], seed: int = 0
) -> Trace:
    """PyHessian's power iteration for the eigenvalue of H largest in magnitude.

    Args:
        model: is left in evaluation mode and without ``.grad``.
        stop: ends the iteration, at the latest PyHessian's own limit does.
        seed: of PyHessian's start vector.
    """
    import pyhessian as package

    device = pairs[0][0].device
    trace = Trace()
    with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves reference cycles by backward(create_graph=True)
        torch.random.manual_seed(seed)
        start = now(device)
        tool = package.hessian(model, loss, dataloader=pairs, cuda=device.type == "cuda")
        product = tool.dataloader_hv_product

        def watched(v: list[Tensor]) -> tuple[float, list[Tensor]]:
            value, image = product(v)
            trace.seconds.append(now(device) - start)
            trace.values.append(value)
            if stop(trace):
                raise _Enough
            return value, image

        tool.dataloader_hv_product = watched
        with contextlib.suppress(_Enough):
            tool.eigenvalues(maxIter=PYHESSIAN_LIMIT, tol=0.0, top_n=1)
        model.zero_grad()
    return trace


def curvlinops_hessian(model: nn.Module, pairs: Pairs) -> Any:
    """H of the mean cross-entropy as curvlinops' operator, for scipy."""
    from curvlinops import HessianLinearOperator

    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(len(y) for _, y in pairs)
    op = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, pairs, check_deterministic=False, num_data=count
    )
    return op.to_scipy()


def eigsh(op: Any, tolerance: float, start: np.ndarray | None = None) -> float:
    """Largest algebraic eigenvalue by scipy's ``eigsh`` (ARPACK).

    Args:
        start: vector (m,), else random.
    """
    from scipy.sparse.linalg import eigsh as solve

    v0 = _random(op) if start is None else start.astype(op.dtype)
    options: dict[str, Any] = {"which": "LA", "tol": tolerance, "v0": v0}
    return float(solve(op, k=1, return_eigenvectors=False, **options)[0])


def lobpcg(
    op: Any, device: torch.device, iterations: int, start: np.ndarray | None = None
) -> Trace:
    """Largest algebraic eigenvalue by scipy's LOBPCG with one vector and no preconditioner.

    It is not stopped by its residual: at a random vector that is small, ‖A‖_F/√m, and says nothing.

    Args:
        iterations: at most; it stops at once where the residual is at rounding level.
        start: vector (m,), else random.
    """
    from scipy.sparse.linalg import LinearOperator
    from scipy.sparse.linalg import lobpcg as solve

    x = _random(op) if start is None else start.astype(op.dtype)
    seconds: list[float] = []
    begun = now(device)

    def product(block: np.ndarray) -> np.ndarray:
        image = op @ block
        seconds.append(now(device) - begun)
        return image

    watched = LinearOperator(op.shape, matvec=product, matmat=product, dtype=op.dtype)  # type: ignore[call-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the tolerance is not reached
        options: dict[str, Any] = {"tol": 1e-6, "maxiter": iterations}
        history = solve(watched, x[:, None], retLambdaHistory=True, **options)[2]
    values = [float(np.max(value)) for value in history]  # the first after one product
    count = min(len(values), len(seconds))
    return Trace(seconds[:count], values[:count])


def _random(op: Any) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(op.shape[0]).astype(op.dtype)


def printed_mean_jacobian(model: nn.Module, pairs: Pairs) -> MeanJacobian:
    """⟨J⟩ as Algorithm 2 prints its products: ⟨J⟩u by one differentiation of uᵀ⟨z⟩, ⟨J⟩ᵀv by C
    differentiations, one of each ⟨z_j⟩ (on one graph, which is in its favor)."""
    tensors = list(trainable(model).values())
    count = sum(len(y) for _, y in pairs)
    with torch.no_grad():
        classes = model(pairs[0][0][:1]).shape[1]

    def mean_logits(x: Tensor) -> Tensor:
        return model(x).sum(0) / count

    @torch.enable_grad()
    def product(u: Tensor) -> Tensor:
        parts = [torch.autograd.grad(mean_logits(x) @ u, tensors) for x, _ in pairs]
        return sum((_flat(part) for part in parts), torch.zeros(()))

    @torch.enable_grad()
    def transposed(v: Tensor) -> Tensor:
        total = torch.zeros(classes, dtype=v.dtype, device=v.device)
        for x, _ in pairs:
            for j, mean in enumerate(mean_logits(x)):
                total[j] += _flat(torch.autograd.grad(mean, tensors, retain_graph=True)) @ v
        return total

    shape = (sum(p.numel() for p in tensors), classes)
    return MeanJacobian(shape, tensors[0].dtype, tensors[0].device, product, transposed)


def algorithm_2_estimates(gram: Tensor) -> list[float]:
    """The estimates of Algorithm 2 after each iteration, from ⟨J⟩ᵀ⟨J⟩ (C, C) alone: with any R for
    which RᵀR is that matrix, Rᵀ and R have the same iterates as ⟨J⟩ᵀ and ⟨J⟩."""
    values, vectors = torch.linalg.eigh(gram)
    root: Any = values.clamp(min=0).sqrt()[:, None] * vectors.T
    return algorithm_2(root)


def algorithm_2_iteration(model: nn.Module, pairs: Pairs) -> Tensor:
    """⟨J⟩ᵀ⟨J⟩u as Algorithm 2 prints it, for a fixed u."""
    op = printed_mean_jacobian(model, pairs)
    return op.T @ (op @ torch.ones(op.shape[1], dtype=op.dtype, device=op.device))


def _flat(tensors: Any) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def dense_jacobians(model: nn.Module, x: Tensor, chunk: int = 8) -> Tensor:
    """J_xᵀ of every example by ``vmap(jacrev)``, ``chunk`` examples at a time: (n, C, m)."""
    parameters = trainable(model)

    def example(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, values, (one[None],))[0]

    parts = []
    for part in x.split(chunk):
        blocks = vmap(jacrev(example), (None, 0))(parameters, part)
        parts.append(torch.cat([block.detach().flatten(2) for block in blocks.values()], dim=2))
    return torch.cat(parts)


def dense_jacobian_norms(model: nn.Module, x: Tensor, chunk: int = 8) -> Tensor:
    """‖J_x‖ of every example from :func:`dense_jacobians`, (n,)."""
    norms = []
    for part in x.split(chunk):
        jacobians = dense_jacobians(model, part, chunk)
        grams = jacobians @ jacobians.transpose(1, 2)
        norms.append(torch.linalg.eigvalsh(grams)[:, -1].clamp(min=0).sqrt())
    return torch.cat(norms)


def dense_theorem_2(model: nn.Module, x: Tensor) -> tuple[float, Tensor]:
    """(‖G‖, λ*_x of every example) from :func:`dense_jacobians` and a dense eigensolver.

    M = BBᵀ with B = (I − p1ᵀ)·diag(√p), so G = WWᵀ with the columns of J_x B_x/√n of all examples
    side by side in W, and the top eigenvector of G comes from that of WᵀW, (nC × nC).
    """
    rows = dense_jacobians(model, x)  # J_xᵀ
    with torch.no_grad():
        p = model(x).softmax(1)
    root = p.sqrt()
    factors = torch.diag_embed(root) - p[:, :, None] * root[:, None, :]
    w = (factors.transpose(1, 2) @ rows / len(x) ** 0.5).flatten(0, 1)
    values, vectors = torch.linalg.eigh(w @ w.T)
    top = w.T @ vectors[:, -1]
    v = rows @ (top / top.norm())
    curvature = (p * v.square()).sum(1) - (p * v).sum(1).square()
    squares = torch.linalg.eigvalsh(rows @ rows.transpose(1, 2))[:, -1]
    return float(values[-1]), curvature / squares


def dense_impurity(p: Tensor) -> Tensor:
    """λ^(1) of every row by forming diag(p) − ppᵀ and ``eigvalsh``."""
    return torch.linalg.eigvalsh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])[:, -1]


def exact_impurity(p: np.ndarray, digits: int = 30) -> Any:
    """λ^(1) of the stored numbers in mpmath: the root of Σ p_i/(p_i − λ) between the two largest
    entries (Theorem 1 a and c; :mod:`ijrlib.logits` says why in this form), by bisection."""
    entries, counts = np.unique(np.asarray(p, dtype=np.float64), return_counts=True)
    with mpmath.workdps(digits + 20):
        poles = [mpmath.mpf(float(v)) for v in entries if v > 0]
        weights = [int(n) for v, n in zip(entries, counts, strict=True) if v > 0]
        if weights[-1] > 1:
            return poles[-1]
        if len(poles) == 1:
            return mpmath.mpf(0)
        low, high = poles[-2], poles[-1]
        while high - low > low * mpmath.mpf(10) ** -digits:
            middle = mpmath.sqrt(low * high) if high > 2 * low else (low + high) / 2
            terms = (n * v / (v - middle) for n, v in zip(weights, poles, strict=True))
            is_low = sum(terms, mpmath.mpf(0)) < 0
            low, high = (middle, high) if is_low else (low, middle)
        return (low + high) / 2


def ulps(value: float, exact: Any) -> float:
    """|value − exact| in units in the last place of the exact (mpmath) number, float64."""
    spacing = float(np.spacing(abs(float(exact))))
    return float(abs(mpmath.mpf(value) - exact) / mpmath.mpf(spacing))
