"""The tools that the engine is compared with give the right numbers, and are watched correctly."""

import math

import dense
import mpmath
import numpy as np
import pytest
import torch
from oracles import exact_eigenvalues, random_probabilities

from ijrlib import peers
from ijrlib.operators import chunks, cross_entropy
from ijrlib.spectra import algorithm_2

CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def problem():
    """A network in float32, its data in two chunks, and ‖H‖ from the dense Hessian in float64."""
    model = dense.network("fully connected, tanh")
    for p in model.parameters():
        p.data *= 3  # so that the largest eigenvalue is positive and well above the others
    x, y = dense.examples(12)
    values = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", x, y))
    assert values[-1] > 1.2 * max(values[-2], -values[0])
    return model.float(), chunks((x.float(), y), 6), float(values[-1])


# -- iterative solvers -----------------------------------------------------------------------------


def test_a_trace_tells_when_it_was_first_near_enough_and_when_it_settled():
    trace = peers.Trace([1.0, 2.0, 3.0, 4.0], [4.0, 9.0, 9.9, 9.95])
    assert trace.within(10.0, 0.15) == 2
    assert trace.within(10.0, 0.02) == 3
    assert trace.within(10.0, 1e-3) is None
    assert trace.settled(0.11) == 3
    assert trace.settled(0.01) == 4
    assert trace.settled(1e-3) is None


def test_pyhessian_is_stopped_where_it_is_told_and_finds_the_top_eigenvalue(problem):
    model, pairs, top = problem
    state = torch.random.get_rng_state()
    trace = peers.pyhessian(
        model, cross_entropy, pairs, lambda t: t.within(top, 1e-3) is not None, seed=1
    )
    assert trace.within(top, 1e-3) == len(trace.values) > 1
    assert len(trace.seconds) == len(trace.values) and trace.seconds == sorted(trace.seconds)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pyhessian_gives_up_at_its_own_limit(problem):
    model, pairs, _ = problem
    trace = peers.pyhessian(model, cross_entropy, pairs, lambda trace: False)
    assert len(trace.values) == peers.PYHESSIAN_LIMIT


@pytest.mark.parametrize("start", ["random", "given"])
def test_eigsh_and_lobpcg_on_curvlinops_find_the_top_eigenvalue(problem, start):
    model, pairs, top = problem
    op = peers.curvlinops_hessian(model, pairs)
    v0 = np.linspace(-1, 1, op.shape[0]) if start == "given" else None
    # float32 products: the error of a Rayleigh quotient is some eps·‖H‖
    assert peers.eigsh(op, 1e-4, v0) == pytest.approx(top, rel=100 * EPS)
    trace = peers.lobpcg(op, CPU, 40, v0)
    assert trace.within(top, 100 * EPS) is not None
    assert len(trace.seconds) == len(trace.values)


def test_the_estimates_of_lobpcg_belong_to_its_products(problem):
    """The first is the Rayleigh quotient of the start, the second the best in the span of the start
    and its residual, for which a second product is needed."""
    model, pairs, _ = problem
    op = peers.curvlinops_hessian(model, pairs)
    x = np.linspace(-1, 1, op.shape[0])
    x /= np.linalg.norm(x)
    image = op @ x
    basis = np.linalg.qr(np.stack([x, image - (x @ image) * x], axis=1))[0]
    second = np.linalg.eigvalsh(basis.T @ np.stack([op @ b for b in basis.T], axis=1))[-1]
    trace = peers.lobpcg(op, CPU, 3, x)
    assert trace.values[:2] == pytest.approx([x @ image, second], rel=100 * EPS)


# -- Jacobians -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jacobians():
    model = dense.network("convolutional, tanh")
    x, y = dense.examples(6)
    return model, x, y, dense.jacobians(model, x)


def test_algorithm_2_multiplies_with_the_mean_jacobian_and_its_transpose(jacobians):
    model, x, y, j = jacobians
    op, mean = peers.printed_mean_jacobian(model, chunks((x, y), 4)), j.mean(0)
    u = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    v = torch.linspace(-1, 1, len(mean), dtype=torch.float64)
    torch.testing.assert_close(op @ u, mean @ u)
    torch.testing.assert_close(op.T @ v, mean.T @ v)
    ones = torch.ones(3, dtype=torch.float64)
    iteration = peers.algorithm_2_iteration(model, chunks((x, y), 4))
    torch.testing.assert_close(iteration, mean.T @ mean @ ones)


def test_the_estimates_of_algorithm_2_follow_from_the_gram_matrix(jacobians):
    *_, j = jacobians
    mean = j.mean(0)
    expected = algorithm_2(mean)  # type: ignore[arg-type]
    assert len(expected) > 2
    assert peers.algorithm_2_estimates(mean.T @ mean) == pytest.approx(expected, rel=1e-9)


def test_dense_jacobian_norms_are_largest_singular_values(jacobians):
    model, x, _, j = jacobians
    norms = torch.linalg.matrix_norm(j, 2)
    torch.testing.assert_close(peers.dense_jacobian_norms(model, x, chunk=4), norms)


def test_dense_theorem_2_agrees_with_the_dense_gauss_newton_matrix(jacobians):
    model, x, _, j = jacobians
    values, vectors = torch.linalg.eigh(dense.gauss_newton(model, "cross_entropy", x))
    z = dense.logits(model, x, dense.parameters(model))
    v = j.transpose(1, 2) @ vectors[:, -1]
    curvature = torch.einsum("nc,ncd,nd->n", v, dense.logit_hessians("cross_entropy", z), v)
    norm, star = peers.dense_theorem_2(model, x)
    assert norm == pytest.approx(float(values[-1]), rel=1e-10)
    torch.testing.assert_close(star, curvature / torch.linalg.matrix_norm(j, 2) ** 2)


# -- impurity --------------------------------------------------------------------------------------


def test_dense_impurity_of_two_classes_is_the_binary_gini_impurity():
    q = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    torch.testing.assert_close(peers.dense_impurity(torch.stack([q, 1 - q], 1)), 2 * q * (1 - q))


@pytest.mark.parametrize("p", random_probabilities(seed=3, classes=5, rows=12))
def test_exact_impurity_agrees_with_mpmaths_eigensolver(p):
    """At a condition number up to 1e300 the solver of dense matrices needs the digits."""
    with mpmath.workdps(400):
        expected = exact_eigenvalues(p, digits=400)[0]
        assert abs(peers.exact_impurity(p) - expected) <= expected * mpmath.mpf(10) ** -29


@pytest.mark.parametrize(
    ("p", "expected"),
    [([0.25, 0.25, 0.25, 0.25], 0.25), ([1.0, 0.0, 0.0], 0.0), ([0.4, 0.4, 0.2], 0.4)],
)
def test_exact_impurity_of_ties_and_one_hot(p, expected):
    assert peers.exact_impurity(np.array(p)) == expected


def test_ulps_count_neighbouring_floats():
    value = 0.3
    for steps in range(3):
        assert peers.ulps(value, mpmath.mpf(0.3)) == steps
        value = math.nextafter(value, 1)


def test_a_package_that_is_not_there_is_not_installed():
    assert peers.installed("torch") and not peers.installed("no_such_package")
