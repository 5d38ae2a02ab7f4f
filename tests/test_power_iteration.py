"""Algorithm 1 against dense eigenvalues, and its predicted rate against a case worked out by
hand."""

import numpy as np
import pytest

from ijrlib import logits, power_iteration

P = np.random.default_rng(0).dirichlet(np.full(6, 0.7), size=50)
DENSE = np.linalg.eigvalsh([np.diag(p) - np.outer(p, p) for p in P])[:, ::-1]


@pytest.mark.parametrize(("deflate", "index"), [(False, 0), (True, 1)])
def test_algorithm_1_converges_to_the_dense_eigenvalue(deflate, index):
    estimates = power_iteration.power_iterates(P, 400, deflate=deflate)
    # what an unfinished iteration may still miss, and 100 units of rounding
    ratio = DENSE[:, index + 1] / DENSE[:, index]
    allowed = 1e3 * ratio ** (4 * 400 - 2) + 100 * np.finfo(float).eps
    assert (np.abs(estimates[:, -1] / DENSE[:, index] - 1) <= allowed).all()


def test_estimates_never_exceed_the_eigenvalue():
    """vᵀMu of unit vectors is at most ‖M‖."""
    estimates = power_iteration.power_iterates(P, 20)
    assert (estimates <= DENSE[:, :1] * (1 + 1e-14)).all()


def test_iterates_agree_with_the_iteration_of_the_library():
    values, counts = logits.power_iteration(P, rtol=1e-13)
    assert counts.max() < 1000  # settled, so that the start vector no longer matters
    estimates = power_iteration.power_iterates(P, 1000)[:, -1]
    np.testing.assert_allclose(values, estimates, rtol=1e-9)


def test_a_one_hot_vector_has_the_eigenvalue_zero_at_once():
    assert (power_iteration.power_iterates(np.eye(4), 3) == 0).all()


def test_iterations_needed_counts_to_the_last_excursion():
    estimates = np.array([[0.5, 1.0, 0.9, 1.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    estimates = np.vstack([estimates, np.full(4, np.nan)])
    needed = power_iteration.iterations_needed(estimates, np.ones(4), 0.01)
    np.testing.assert_array_equal(needed, [4, 1, np.nan, np.nan])


@pytest.mark.parametrize("ratio", [0.3, 0.9, 0.99])
def test_the_prediction_matches_a_two_dimensional_iteration(ratio):
    """diag(1, ρ) from the start (1, 1)/√2: the k-th estimate is known in closed form."""
    k = np.arange(1, 5000)
    v, u = ratio ** (2 * k - 1), ratio ** (2 * k)
    estimate = (1 + ratio * v * u) / np.sqrt((1 + v**2) * (1 + u**2))
    needed = power_iteration.iterations_needed(estimate[None], np.ones(1), 1e-8)[0]
    predicted = float(power_iteration.predicted_iterations(np.array(ratio), 1e-8))
    assert abs(needed - predicted) <= 1  # the formula drops terms of higher order in ρ^(4k)


def test_wrong_shapes_and_counts_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(n, C\), got \(6,\)"):
        power_iteration.power_iterates(P[0], 3)
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        power_iteration.power_iterates(P, 0)
