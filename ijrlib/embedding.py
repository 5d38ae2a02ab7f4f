"""Pictures and numbers of a path θ(0), …, θ(T−1) from the Gram matrix of its points.

Points are rows of a T × m matrix X that is not needed: the Gram matrix XXᵀ about any origin has
all their distances.  Consecutive rows are consecutive steps.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 15
"""UMAP's own default."""

LEAST_POINTS = 5
"""Fewer points than this have no neighbourhoods to embed."""


def principal_coordinates(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact principal coordinates of the points (Gower 1966).

    The eigenpairs (κ_i, v_i) of the doubly centred Gram matrix give coordinates √κ_i v_i, whose
    distances are those of the points.

    Returns:
        coordinates, shape (T, T), by falling variance, the entry of largest magnitude of each
        positive; and the shares of variance κ_i/Σκ, shape (T,).

    Raises:
        ValueError: where the matrix is not square, or all points agree.
    """
    _square(gram, at_least=2)
    mean = gram.mean(0)
    centred = gram - mean[:, None] - mean[None, :] + mean.mean()
    values, vectors = np.linalg.eigh(centred)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    rounding = len(gram) * np.finfo(centred.dtype).eps * np.abs(gram).max()
    if values[0] <= rounding:
        raise ValueError("gram: expected points that differ, got one point only")
    largest = vectors[np.abs(vectors).argmax(0), np.arange(len(gram))]
    return vectors * np.sign(largest) * np.sqrt(values), values / values.sum()


def umap(gram: np.ndarray, seed: int = 0) -> np.ndarray:
    """UMAP (McInnes et al. 2018) of the points in two dimensions, shape (T, 2), as in Figure 4.

    Takes the exact principal coordinates, so its neighbours and distances are those of the points
    in R^m; starts from the first two of them, and otherwise has UMAP's own defaults.  The same seed
    gives the same picture on one machine; only neighbourhoods in it mean something.  torch keeps
    its number of threads, which Numba, underneath, sets for the whole process.

    Raises:
        ValueError: for fewer than ``LEAST_POINTS`` points.
    """
    _square(gram, at_least=LEAST_POINTS)
    import torch
    from umap import UMAP

    threads = torch.get_num_threads()
    neighbours = min(NEIGHBOURS, len(gram) - 1)
    reducer = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
    try:
        return np.asarray(reducer.fit_transform(principal_coordinates(gram)[0]))
    finally:
        torch.set_num_threads(threads)


def step_cosines(gram: np.ndarray) -> np.ndarray:
    """cos(s(t), s(t+1)) of consecutive steps s(t) = θ(t+1) − θ(t), shape (T − 2,); nan for s = 0.

    −1 where the path bounces back and forth, 1 where it goes straight.
    """
    _square(gram, at_least=3)
    step = _differences(gram, 1)
    return _cosines(np.diag(step, 1), np.diag(step)[:-1], np.diag(step)[1:])


def direction_cosines(gram: np.ndarray, ahead: int = 10) -> np.ndarray:
    """cos(s(t), θ(t+1+ahead) − θ(t+1)): each step with the displacement over the next ones.

    Shape (T − 1 − ahead,); nan for a step or displacement of 0.  The step itself is no part of the
    displacement, else a random walk would have 1/√ahead.

    Raises:
        ValueError: for ``ahead`` below 1, and where there are not at least ahead + 2 points.
    """
    if ahead < 1:
        raise ValueError(f"ahead: expected at least 1, got {ahead}")
    _square(gram, at_least=ahead + 2)
    # inner products of s(t) = θ(t+1) − θ(t) with θ(j+ahead) − θ(j), for all t and j
    mixed = np.diff(gram[:, ahead:] - gram[:, :-ahead], axis=0)
    far = np.diag(_differences(gram, ahead))
    near = np.diag(_differences(gram, 1))
    count = len(gram) - 1 - ahead
    return _cosines(np.diag(mixed, 1)[:count], near[:count], far[1:])


def displacement(gram: np.ndarray) -> np.ndarray:
    """‖θ(t) − θ(0)‖ for each t, shape (T,), θ(0) being the first point: how far it has come."""
    _square(gram, at_least=1)
    square = np.diag(gram)
    return np.sqrt((square + square[0] - 2 * gram[0]).clip(0))


def _differences(gram: np.ndarray, lag: int) -> np.ndarray:
    """Gram matrix of θ(t+lag) − θ(t), shape (T − lag, T − lag)."""
    half = gram[lag:] - gram[:-lag]
    return half[:, lag:] - half[:, :-lag]


def _cosines(products: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    scale = np.sqrt(one.clip(0) * other.clip(0))
    return np.divide(products, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _square(gram: np.ndarray, at_least: int) -> None:
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < at_least:
        raise ValueError(
            f"gram: expected a square matrix of at least {at_least} points, got shape {gram.shape}"
        )
