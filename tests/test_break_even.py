"""The model of the break-even point against enumeration in rational arithmetic and simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest

from ijrlib import break_even, live_checks


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_growth_is_the_mean_over_all_mini_batches(size):
    curvatures = [Fraction(h) for h in (-2, 1, 1, 3, 5, 10)]
    lr = Fraction(3, 10)
    values = np.array([float(h) for h in curvatures])
    found = break_even.growth(0.3, values.mean(), values.var(), 6, size)
    assert found == pytest.approx(float(break_even.enumerated_growth(lr, curvatures, size)))


def test_the_full_batch_is_stable_up_to_two_over_eta():
    for lr in (0.01, 0.5):
        assert break_even.critical_curvature(lr, 3.0, 100, None) == 2 / lr
        assert break_even.growth(lr, 2 / lr, 7.0, 100, None) == pytest.approx(1)


def test_break_even_theorems_1_and_2_growth_is_one_at_the_critical_curvature_and_only_there():
    """Also where λ* is not positive: SGD is then unstable at every curvature."""
    for lr in (0.02, 0.3):
        for alpha in (0.5, 20.0):
            for size in (1, 10, 50):
                star = break_even.critical_curvature(lr, alpha, 50, size)

                def growth(curvature, lr=lr, alpha=alpha, size=size):
                    return break_even.growth(lr, curvature, alpha * curvature, 50, size)

                if star > 0:
                    assert growth(star) == pytest.approx(1)
                    assert growth(0.9 * star) < 1 < growth(1.1 * star)
                else:
                    assert all(growth(curvature) > 1 for curvature in (1e-3, 1.0, 100.0))


def test_a_simulation_of_the_mean_square_finds_the_boundary():
    """Over two steps of SGD with mini-batches of random examples; 200,000 paths."""
    rng = np.random.default_rng(0)
    curvatures = rng.exponential(size=50)
    lam, variance = curvatures.mean(), curvatures.var()
    share = break_even.sampling(50, 4)
    boundary = 2 * lam / (lam**2 + variance * share)  # growth = 1 solved for η
    for factor, stable in ((0.97, True), (1.03, False)):
        lr = factor * boundary
        psi = np.ones(200_000)
        for seed in (1, 2):
            psi = psi * (1 - lr * break_even.batch_curvatures(curvatures, 4, len(psi), seed))
        error = (psi**2).std() / len(psi) ** 0.5
        assert (psi**2).mean() + 3 * error < 1 if stable else (psi**2).mean() - 3 * error > 1


def test_single_paths_are_stable_in_a_larger_region():
    curvatures = np.random.default_rng(0).exponential(size=50)
    share = break_even.sampling(50, 1)
    lr = 2 * curvatures.mean() / (curvatures.mean() ** 2 + curvatures.var() * share)
    assert break_even.path_exponent(1.1 * lr, curvatures) < 0
    assert break_even.path_exponent(100 * lr, curvatures) > 0


def test_mini_batches_are_drawn_without_replacement():
    found = break_even.batch_curvatures(np.arange(6.0), 6, draws=20)
    np.testing.assert_array_equal(found, 2.5)
    pairs = break_even.batch_curvatures(np.arange(6.0), 2, draws=2000)
    assert pairs.min() == 0.5 and pairs.max() == 4.5


@pytest.mark.parametrize("size", [0, 11])
def test_a_batch_that_is_empty_or_too_large_is_refused(size):
    with pytest.raises(ValueError, match=f"expected 1 to 10, got {size}"):
        break_even.growth(0.1, 1.0, 1.0, 10, size)
    with pytest.raises(ValueError, match=f"expected 1 to 10, got {size}"):
        break_even.batch_curvatures(np.arange(10.0), size, draws=2)
    with pytest.raises(ValueError, match=f"expected 1 to 10, got {size}"):
        break_even.enumerated_growth(Fraction(1, 10), [Fraction(1)] * 10, size)


def test_a_wrong_growth_is_noticed_by_the_claims(monkeypatch):
    assert live_checks.break_even_theorem([], rising=True).holds
    monkeypatch.setattr(
        break_even, "growth", lambda lr, curvature, variance, n, s: lr * curvature / 2
    )
    for rising in (True, False):
        assert not live_checks.break_even_theorem([], rising=rising).holds
    monkeypatch.setattr(break_even, "enumerated_growth", lambda *arguments: Fraction(1))
    assert not live_checks.break_even_criterion([]).holds


def test_the_exponent_of_a_path_is_the_mean_logarithm_of_its_factors():
    found = break_even.path_exponent(2.0, np.array([0.25, 2.0]))  # factors ½ and −3
    assert found == pytest.approx((math.log(0.5) + math.log(3)) / 2)
    assert break_even.path_exponent(1.0, np.array([1.0, 0.5])) == -math.inf
