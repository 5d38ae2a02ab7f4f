"""The model of the break-even point: SGD along one direction, on quadratic losses of the examples.

Along the top eigenvector of H the loss of example i is ½H_i ψ², H_i of mean λ and variance s² over
the N examples.  A step of SGD with a mini-batch B of S examples takes ψ to (1 − ηH_B)ψ, H_B the
mean of H_i over B (Wu, Ma and E 2018; Jastrzebski et al. 2020, Eq 1 and Appendix A).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np


def growth(lr: Any, curvature: Any, variance: Any, examples: int, batch_size: int | None) -> Any:
    """E[ψ(t + 1)²]/ψ(t)² = (1 − ηλ)² + s²η²(N − S)/(S(N − 1)); SGD is stable in mean square iff it
    is at most 1.

    Args:
        lr: η.
        curvature: λ, a number or an array; with all three of them fractions the result is exact.
        variance: s², the same.
        examples: N.
        batch_size: S, drawn without replacement; None for the full batch.

    Raises:
        ValueError: for S outside 1 … N.
    """
    share = sampling(examples, batch_size)
    share = share if isinstance(lr, Fraction) else float(share)
    return (1 - lr * curvature) ** 2 + variance * lr**2 * share


def critical_curvature(lr: float, alpha: float, examples: int, batch_size: int | None) -> float:
    """λ_c = 2/η − α(N − S)/(S(N − 1)), where the growth is 1 if s² = αλ with α > 0.

    This is λ_H at the break-even point in the model (App. A, Eq 4, with λ_K = αλ_H and ψ = 1); α
    has the unit of λ.  Where it is not positive, SGD is unstable at every λ > 0.
    """
    return 2 / lr - alpha * float(sampling(examples, batch_size))


def sampling(examples: int, batch_size: int | None) -> Fraction:
    """(N − S)/(S(N − 1)): the variance of a mean over S of N examples, drawn without replacement,
    in units of the variance over examples.

    Raises:
        ValueError: for S outside 1 … N.
    """
    size = examples if batch_size is None else batch_size
    if not 1 <= size <= examples:
        raise ValueError(f"batch_size: expected 1 to {examples}, got {size}")
    return Fraction(examples - size, size * max(1, examples - 1))


def enumerated_growth(lr: Fraction, curvatures: Sequence[Fraction], batch_size: int) -> Fraction:
    """The mean of (1 − ηH_B)² over all mini-batches B, exactly.

    Raises:
        ValueError: as :func:`growth`.
    """
    sampling(len(curvatures), batch_size)
    factors = [
        (1 - lr * sum(batch) / batch_size) ** 2 for batch in combinations(curvatures, batch_size)
    ]
    return sum(factors, Fraction(0)) / len(factors)


def batch_curvatures(
    curvatures: np.ndarray, batch_size: int, draws: int, seed: int = 0
) -> np.ndarray:
    """H_B of random mini-batches, shape (draws,).

    Raises:
        ValueError: as :func:`growth`.
    """
    sampling(len(curvatures), batch_size)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.broadcast_to(curvatures, (draws, len(curvatures))), axis=1)
    return order[:, :batch_size].mean(axis=1)


def path_exponent(lr: float, batches: np.ndarray) -> float:
    """E log|1 − ηH_B| over given H_B: a single path shrinks or grows almost surely with its sign,
    whatever the mean square does; −∞ where a factor is 0."""
    with np.errstate(divide="ignore"):
        return float(np.log(np.abs(1 - lr * batches)).mean())
