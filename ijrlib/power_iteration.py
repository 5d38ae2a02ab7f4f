"""Algorithm 1 step by step: the estimate of λ^(1) after every iteration, and how many it takes.

:func:`ijrlib.logits.impurity` with ``method="power"`` returns the end of the iteration; here are
the iterates, to show the convergence.
"""

from __future__ import annotations

import numpy as np

from ijrlib import logits


def power_iterates(
    p: np.ndarray, iterations: int, deflate: bool = False, seed: int = 0
) -> np.ndarray:
    """Estimates vᵀMu after 1, 2, … iterations of Algorithm 1 (v ← Mu/‖Mu‖, u ← Mᵀv/‖Mᵀv‖).

    M is never formed: Mu = p ∘ u − p(pᵀu).

    Args:
        p: probabilities, shape (n, C), float64.
        iterations: number of iterations, the paper's n_max.
        deflate: iterate with M − λ^(1)q^(1)q^(1)ᵀ, which gives λ^(2).
        seed: of the random start u.

    Returns:
        Estimates, shape (n, iterations).

    Raises:
        ValueError: for p of another shape or fewer than one iteration.
    """
    p = np.asarray(p, dtype=float)
    if p.ndim != 2:
        raise ValueError(f"p: expected shape (n, C), got {p.shape}")
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    if deflate:
        values, vectors = logits.eigensystem(p)
        top, q = values[:, :1], vectors[:, :, 0]
    else:
        top, q = np.zeros((len(p), 1)), np.zeros_like(p)

    def product(u: np.ndarray) -> np.ndarray:
        m_u = p * (u - (p * u).sum(axis=1, keepdims=True))
        return m_u - top * q * (q * u).sum(axis=1, keepdims=True)

    def unit(u: np.ndarray) -> np.ndarray:
        norm = np.sqrt((u * u).sum(axis=1, keepdims=True))
        return np.divide(u, norm, out=np.zeros_like(u), where=norm > 0)

    m_u = product(np.random.default_rng(seed).standard_normal(p.shape))
    estimates = np.empty((len(p), iterations))
    for i in range(iterations):
        v = unit(m_u)
        u = unit(product(v))
        m_u = product(u)
        estimates[:, i] = (v * m_u).sum(axis=1)
    return estimates


def iterations_needed(estimates: np.ndarray, exact: np.ndarray, tolerance: float) -> np.ndarray:
    """Number of iterations from which on the relative error stays within ``tolerance``.

    Args:
        estimates: shape (n, K), from :func:`power_iterates`.
        exact: shape (n,), positive.

    Returns:
        Shape (n,), float; NaN where K iterations are not enough.
    """
    outside = ~(np.abs(estimates / np.asarray(exact)[:, None] - 1) <= tolerance)
    last_outside = np.where(
        outside.any(axis=1), outside.shape[1] - np.argmax(outside[:, ::-1], axis=1), 0
    )
    return np.where(last_outside < outside.shape[1], last_outside + 1.0, np.nan)


def predicted_iterations(ratio: np.ndarray, tolerance: float) -> np.ndarray:
    """Iterations that the gap asks for: with ρ = λ^(2)/λ^(1) and a start with equal shares in the
    first two eigenvectors the relative error after k iterations is ½(1 − ρ²)ρ^(4k−2) (two products
    with M an iteration, a Rayleigh quotient at the end); solved for k, at least 1.

    Args:
        ratio: ρ in (0, 1), shape (n,).
    """
    ratio = np.asarray(ratio, dtype=float)
    needed = (np.log(2 * tolerance / (1 - ratio**2)) / np.log(ratio) + 2) / 4
    return np.maximum(needed, 1.0)
