"""Slow, obvious references that the tests compare with. None of them uses the code under test."""

from __future__ import annotations

import mpmath
import numpy as np


def exact_logit_hessian(p) -> mpmath.matrix:
    """diag(p) − p pᵀ/Σp of the stored float entries, in the current mpmath precision."""
    entries = [mpmath.mpf(float(t)) for t in p]
    total = mpmath.fsum(entries)
    size = len(entries)
    matrix = mpmath.matrix(size, size)
    for i in range(size):
        for j in range(size):
            if i != j:
                matrix[i, j] = -entries[i] * entries[j] / total
        matrix[i, i] = -mpmath.fsum(matrix[i, j] for j in range(size) if j != i)
    return matrix


def exact_eigenvalues(p, digits: int = 60) -> list[mpmath.mpf]:
    """Eigenvalues of `exact_logit_hessian`, largest first, by mpmath's dense symmetric solver."""
    with mpmath.workdps(digits):
        values = mpmath.eigsy(exact_logit_hessian(p), eigvals_only=True)
        return sorted((+value for value in values), reverse=True)


def exact_impurity(p, digits: int = 40) -> mpmath.mpf:
    """λ^(1) for any C, by bisection of Σ p_i/(p_i − λ) between p_(2) and p_(1) (Theorem 1 c)."""
    values, counts = np.unique(np.asarray(p, dtype=np.float64), return_counts=True)
    with mpmath.workdps(digits + 20):
        poles = [
            (mpmath.mpf(float(v)), int(n)) for v, n in zip(values, counts, strict=True) if v > 0
        ]
        high, ties = poles[-1]
        if ties > 1:
            return high
        if len(poles) == 1:
            return mpmath.mpf(0)
        low = poles[-2][0]
        while high - low > low * mpmath.mpf(10) ** -digits:
            lam = (low + high) / 2
            is_low = mpmath.fsum(n * v / (v - lam) for v, n in poles) < 0
            low, high = (lam, high) if is_low else (low, lam)
        return (low + high) / 2


def ulps(value: float, exact, dtype=np.float64) -> float:
    """|value − exact| in units in the last place of the exact number rounded to dtype."""
    spacing = np.spacing(dtype(abs(float(exact))))
    return float(abs(mpmath.mpf(float(value)) - exact) / mpmath.mpf(float(spacing)))


def random_probabilities(seed: int, classes: int, rows: int) -> np.ndarray:
    """Rows from all regimes: Dirichlet, extreme logits, near one-hot, near ties, near uniform."""
    rng = np.random.default_rng(seed)
    concentration = 10.0 ** rng.uniform(-2, 2, (rows, 1))
    p = rng.gamma(concentration, size=(rows, classes)) + 1e-300
    logits = rng.standard_normal((rows, classes)) * 10.0 ** rng.uniform(-1, 2.3, (rows, 1))
    softmax = np.exp(logits - logits.max(-1, keepdims=True))
    one_hot = rng.random((rows, classes)) * 10.0 ** rng.uniform(-280, 0, (rows, 1))
    one_hot[:, 0] = 1.0
    tie = np.sort(rng.random((rows, classes)), -1)
    tie[:, -2] = tie[:, -1] * (1 - 10.0 ** rng.uniform(-16, 0, rows))
    uniform = 1 + 10.0 ** rng.uniform(-16, 0, (rows, 1)) * rng.random((rows, classes))
    regimes = [p, softmax, one_hot, tie, uniform]
    kind = rng.integers(len(regimes), size=rows)
    p = np.stack(regimes)[kind, np.arange(rows)]
    return p / p.sum(-1, keepdims=True)
