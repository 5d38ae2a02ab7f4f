"""The logit Hessian, its impurity and its eigensystem against mpmath, closed forms and autograd."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import exact_eigenvalues, exact_impurity, random_probabilities, ulps

from ijrlib import logits, secular_equation

ULPS = 4  # the goal for the impurity, in units in the last place
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def softmax(z):
    weights = np.exp(z - z.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@st.composite
def probabilities(draw, dtype=np.float64):
    """Weights over 600 orders of magnitude, often tied or zero, normalized."""
    classes = draw(st.integers(2, 8))
    exponent = st.one_of(st.sampled_from([0.0, -1.0, -20.0, -300.0, -320.0]), st.floats(-310, 0))
    weights = 10.0 ** draw(arrays(np.float64, classes, elements=exponent))
    weights = np.where(draw(arrays(np.bool_, classes)), weights, np.round(weights, 1))
    weights[draw(st.integers(0, classes - 1))] = 1.0
    return (weights / weights.sum()).astype(dtype)


# -- impurity: value -------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "rows"), [(3, 40), (5, 40), (10, 40), (70, 10), (1000, 2)])
def test_impurity_is_within_four_units_in_the_last_place_of_mpmath(classes, rows):
    p = random_probabilities(classes, classes, rows)
    for q in (p, p.astype(np.float32)):
        for row, value in zip(q, logits.impurity(q), strict=True):
            assert ulps(value, exact_impurity(row), q.dtype.type) <= ULPS


def test_the_two_references_agree():
    for p in random_probabilities(0, 4, 12):
        dense, root = exact_eigenvalues(p, digits=400)[0], exact_impurity(p)
        assert abs(dense - root) <= root * mpmath.mpf(10) ** -35


@settings(max_examples=60, deadline=None)
@given(probabilities())
def test_impurity_is_accurate_for_any_mixture_of_magnitudes(p):
    assert ulps(logits.impurity(p), exact_impurity(p)) <= ULPS


@pytest.mark.parametrize("exponent", [-1, -5, -10, -16, -17, -30, -100, -200, -300])
def test_impurity_near_one_hot_keeps_its_relative_accuracy(exponent):
    rest = np.array([3.0, 2.0, 2.0, 0.5]) * 10.0**exponent / 10
    p = np.concatenate([[1 - rest.sum()], rest])
    assert ulps(logits.impurity(p), exact_impurity(p)) <= ULPS


def test_impurity_of_subnormal_entries_is_right_to_one_subnormal():
    tiny = 5e-324
    p = np.array([1.0, 8 * tiny, 8 * tiny, 4 * tiny])
    assert abs(mpmath.mpf(float(logits.impurity(p))) - exact_impurity(p)) <= tiny
    values, vectors = logits.eigensystem(p)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-14)
    assert abs(values[0] - logits.impurity(p)) <= tiny


@BOTH
@pytest.mark.parametrize("classes", [2, 3, 4, 7, 10, 64, 65, 1000])
def test_impurity_of_the_uniform_vector_is_one_over_c_exactly(classes, dtype):
    p = np.full(classes, 1 / classes, dtype)
    assert logits.impurity(p) == p[0]


@BOTH
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_impurity_of_a_one_hot_vector_is_zero_exactly(classes, dtype):
    np.testing.assert_array_equal(logits.impurity(np.eye(classes, dtype=dtype)), 0)


@BOTH
@pytest.mark.parametrize("zeros", [0, 1, 5, 90])
def test_impurity_of_two_classes_is_twice_their_product_exactly(zeros, dtype):
    first = np.linspace(0, 1, 65, dtype=dtype)  # dyadic, so that 1 − p is exact
    p = np.zeros((65, 2 + zeros), dtype)
    p[:, 0], p[:, -1] = first, 1 - first
    np.testing.assert_array_equal(logits.impurity(p), 2 * first * (1 - first))


@BOTH
def test_impurity_at_a_tie_of_the_largest_is_that_entry_exactly(dtype):
    p = np.array([[0.375, 0.375, 0.25], [0.25, 0.25, 0.5], [0.3125, 0.3125, 0.375]], dtype)
    np.testing.assert_array_equal(logits.impurity(p)[0], p[0, 0])
    assert ulps(logits.impurity(p)[2], exact_impurity(p[2]), dtype) <= ULPS


def test_impurity_of_a_tie_below_the_largest_has_a_closed_form():
    # p = (1 − 2a, a, a): Σ p_i/(p_i − λ) = 0 gives λ = 3a(1 − 2a)/(1 − 2a + 2a)
    for a in 2.0 ** -np.arange(2, 60):
        p = np.array([1 - 2 * a, a, a])
        exact = mpmath.mpf(3) * a * p[0] / (mpmath.mpf(p[0]) + 2 * mpmath.mpf(a))
        assert ulps(logits.impurity(p), exact) <= ULPS


def test_impurity_of_fifty_thousand_classes():
    rng = np.random.default_rng(0)
    p = softmax(rng.standard_normal((2, 50_000)) * np.array([[1.0], [10.0]]))
    for row, value in zip(p, logits.impurity(p), strict=True):
        top, rest = mpmath.mpf(row.max()), np.sort(row)[:-1]

        def balance(lam, top=top, rest=rest):  # Σ p_i/(p_i − λ), increasing in λ
            terms = (float(v) / (mpmath.mpf(float(v)) - lam) for v in rest)
            return top / (top - lam) + mpmath.fsum(terms)

        step = ULPS * mpmath.mpf(np.spacing(value))
        assert balance(mpmath.mpf(value) - step) < 0 < balance(mpmath.mpf(value) + step)


def test_impurity_is_the_top_eigenvalue_of_the_dense_matrix():
    p = random_probabilities(3, 10, 200)
    dense = np.linalg.eigvalsh(logits.logit_hessian(p))[:, -1]
    # LAPACK's error is of the order of C units of rounding of the norm, which is at most 1/2
    np.testing.assert_allclose(logits.impurity(p), dense, atol=10 * 2.0**-52, rtol=0)


@pytest.mark.parametrize(("classes", "rows"), [(10, 13_200), (100, 1_400)])
def test_more_rows_than_are_taken_at_a_time_are_each_right(classes, rows):
    p = softmax(np.random.default_rng(0).standard_normal((rows, classes)))
    assert rows * classes > 2 * secular_equation.BLOCK
    found = logits.impurity(p)
    for sign in (-1, 1):  # Σ p_j/(p_j − λ) increases between p_(2) and p_(1)
        lam = found * (1 + sign * 1e-12)
        assert (sign * (p / (p - lam[:, None])).sum(1) > 0).all()


@pytest.mark.parametrize("exponent", [-1, -3, -7, -12, -16])
def test_the_distance_of_the_impurity_from_the_largest_entry_is_as_accurate_as_itself(exponent):
    p = np.array([0.4, 0.4 * (1 - 10.0**exponent), 0.15, 0.05])
    root, distance = secular_equation.top_root(p)
    exact = exact_impurity(p, digits=60)
    with mpmath.workdps(60):
        assert ulps(root, exact) <= ULPS
        assert ulps(distance, mpmath.mpf(float(p[0])) - exact) <= 2 * ULPS


@pytest.mark.parametrize(("top", "others"), [(0.5, 2), (0.02, 60), (0.001, 9999)])
def test_the_distance_from_the_largest_of_many_classes_has_a_closed_form(top, others):
    # p = (t, s, …, s) with n times s: t − λ = t(t − s)/(t + ns), a thousandth of t − s at last
    p = np.array([top, *[(1 - top) / others] * others])
    _, distance = secular_equation.top_root(p)
    t, s = mpmath.mpf(float(p[0])), mpmath.mpf(float(p[1]))
    assert ulps(distance, t * (t - s) / (t + others * s)) <= 2 * ULPS


@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_does_not_depend_on_its_batch(classes):
    p = random_probabilities(4, classes, 5000)
    whole = logits.impurity(p)
    np.testing.assert_array_equal(logits.impurity(p[4321]), whole[4321])
    np.testing.assert_array_equal(logits.impurity(p[::7]), whole[::7])


@pytest.mark.parametrize("shape", [(4,), (1, 4), (6, 4), (2, 3, 4), (0, 4), (2, 0, 4)])
def test_any_leading_axes(shape):
    p = softmax(np.random.default_rng(0).standard_normal(shape))
    assert logits.impurity(p).shape == shape[:-1]
    assert logits.power_iteration(p)[1].shape == shape[:-1]
    assert all(bound.shape == shape[:-1] for bound in logits.impurity_bounds(p))
    assert logits.logit_hessian(p).shape == (*shape, 4)
    values, vectors = logits.eigensystem(p)
    assert values.shape == shape and vectors.shape == (*shape, 4)
    rows = p.reshape(-1, 4)
    if len(rows):
        np.testing.assert_array_equal(values.reshape(-1, 4), logits.eigensystem(rows)[0])
        np.testing.assert_array_equal(logits.impurity(p).ravel(), logits.impurity(rows))


# -- torch -----------------------------------------------------------------------------------------


@BOTH
def test_torch_and_numpy_agree_and_keep_the_type(dtype):
    p = random_probabilities(5, 6, 100).astype(dtype)
    t = torch.from_numpy(p)
    # same formulas; sums may be taken in another order
    near = {"rtol": 8 * float(np.finfo(dtype).eps), "atol": 0}
    for function in (logits.impurity, logits.gini_classes, logits.logit_hessian):
        ours, theirs = function(p), function(t)
        assert ours.dtype == dtype and theirs.dtype == t.dtype
        np.testing.assert_allclose(theirs.numpy(), ours, **near)
    for ours, theirs in zip(logits.impurity_bounds(p), logits.impurity_bounds(t), strict=True):
        np.testing.assert_allclose(theirs.numpy(), ours, **near)
    for ours, theirs in zip(logits.eigensystem(p), logits.eigensystem(t), strict=True):
        assert ours.dtype == dtype and theirs.dtype == t.dtype
        np.testing.assert_allclose(theirs.numpy(), ours, atol=100 * near["rtol"], rtol=0)


def test_gradient_and_second_derivative_through_softmax():
    torch.manual_seed(0)
    for scale in (1.0, 5.0):
        z = (scale * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: logits.impurity(z.softmax(-1)), z)
        assert torch.autograd.gradgradcheck(lambda z: logits.impurity(z.softmax(-1)), z)


def test_gradient_in_p_is_that_of_the_dense_eigenvalue():
    torch.manual_seed(0)
    p = torch.randn(50, 7, dtype=torch.float64).softmax(-1).requires_grad_()
    (ours,) = torch.autograd.grad(logits.impurity(p).sum(), p)
    dense = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    top = torch.linalg.eigvalsh(dense)[..., -1]
    (theirs,) = torch.autograd.grad(top.sum(), p)
    # LAPACK's eigenvectors are accurate to C units of rounding over the relative gap
    gap = torch.linalg.eigvalsh(dense.detach()).diff(dim=-1)[..., -1]
    assert ((ours - theirs).abs().amax(-1) <= 100 * 2.0**-52 / gap).all()


def test_gradient_at_ties_and_at_one_hot_is_the_documented_one():
    cases = {
        (0.375, 0.375, 0.25): (0.5, 0.5, 0.0),
        (0.25, 0.25, 0.25, 0.25): (0.25, 0.25, 0.25, 0.25),
        (1.0, 0.0, 0.0): (-1.0, 0.0, 0.0),
        (0.75, 0.25, 0.0): (0.0, 1.0, 0.0),
    }
    for entries, expected in cases.items():
        p = torch.tensor(entries, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(logits.impurity(p), p)
        np.testing.assert_allclose(gradient, expected, atol=2e-16)


def test_gradient_near_a_tie_and_near_one_hot_is_accurate():
    near_tie = torch.tensor([0.4 + 3e-17 * 4, 0.4, 0.2], dtype=torch.float64)
    one_hot = torch.tensor([1.0, 3e-200, 1e-200, 1e-200], dtype=torch.float64)
    for p in (near_tie, one_hot):
        p.requires_grad_()
        (gradient,) = torch.autograd.grad(logits.impurity(p), p)
        with mpmath.workdps(60):
            lam = exact_impurity(p.tolist(), digits=50)
            x = [mpmath.mpf(t) / (mpmath.mpf(t) - lam) for t in p.tolist()]
            norm = mpmath.norm(x)
            q = [t / norm for t in x]
            inner = mpmath.fdot(q, map(mpmath.mpf, p.tolist()))
            exact = [float(t * t - 2 * t * inner) for t in q]
        np.testing.assert_allclose(gradient, exact, atol=1e-14)


def test_no_gradient_is_asked_for_where_none_is_needed():
    p = torch.tensor([0.5, 0.3, 0.2])
    assert not logits.impurity(p).requires_grad
    p.requires_grad_()
    assert logits.impurity(p).requires_grad
    assert not logits.impurity(p, method="power").requires_grad
    assert not any(t.requires_grad for t in logits.eigensystem(p))


# -- power iteration -------------------------------------------------------------------------------


def test_power_iteration_finds_the_impurity_and_counts_its_iterations():
    p = random_probabilities(6, 10, 100)
    values, iterations = logits.power_iteration(p, rtol=1e-10, max_iterations=10_000)
    exact = logits.impurity(p)
    ratio = (logits.eigensystem(p)[0][:, 1] / np.where(exact > 0, exact, 1)) ** 4
    # A geometric series that moves by rtol is within rtol ρ⁴/(1 − ρ⁴) of its limit.
    separated = ratio < 0.9
    assert separated.sum() > 40 and (iterations[separated] < 10_000).all()
    np.testing.assert_allclose(values[separated], exact[separated], rtol=20e-10)
    assert (values <= exact * (1 + 1e-14)).all()
    np.testing.assert_array_equal(logits.impurity(p, "power"), logits.power_iteration(p)[0])


def test_power_iteration_stops_at_its_limit_and_handles_the_zero_matrix():
    values, iterations = logits.power_iteration(np.array([[0.4, 0.3, 0.3], [1, 0, 0]]), 0.0, 3)
    assert iterations.tolist() == [3, 1] and values[1] == 0


# -- eigensystem -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("classes", [2, 3, 5, 10, 40])
def test_the_eigensystem_of_theorem_1_b_diagonalizes_the_dense_matrix(classes, dtype):
    p = random_probabilities(7, classes, 60).astype(dtype)
    values, vectors = (t.astype(np.float64) for t in logits.eigensystem(p))
    matrix = logits.logit_hessian(p.astype(np.float64))
    # C roundings of the type, times a constant for the few operations of an entry
    tolerance = 8 * classes * float(np.finfo(dtype).eps)
    gram = np.swapaxes(vectors, -1, -2) @ vectors
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(classes), gram.shape), atol=tolerance)
    norm = values[:, :1, None]
    subnormal = float(np.finfo(dtype).smallest_subnormal)  # an eigenvalue may be as small
    residual = matrix @ vectors - vectors * values[:, None, :]
    assert (np.abs(residual) <= tolerance * norm + subnormal).all()
    dense = np.linalg.eigvalsh(matrix)[:, ::-1]
    assert (np.abs(values - dense) <= tolerance * norm[..., 0] + subnormal).all()


@settings(max_examples=60, deadline=None)
@given(probabilities())
def test_eigenvalues_interlace_and_end_with_zero_as_theorem_1_c_says(p):
    values, vectors = logits.eigensystem(p)
    ranked = -np.sort(-p)
    slack = 4 * np.finfo(p.dtype).eps * ranked  # relative to each entry
    assert (values[:-1] <= ranked[:-1] + slack[:-1]).all()
    assert (values[:-1] >= ranked[1:] - slack[1:]).all()
    assert values[-1] == 0
    np.testing.assert_allclose(vectors[:, -1], 1 / np.sqrt(p.size), rtol=1e-15)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(p.size), atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(probabilities())
def test_every_eigenvalue_of_theorem_1_a_is_accurate_relative_to_its_nearest_entry(p):
    values, _ = logits.eigensystem(p)
    for value, exact in zip(values, exact_eigenvalues(p, digits=700), strict=True):
        assert abs(value - exact) <= 8 * p.size * 2.0**-53 * exact + 5e-324


def test_the_first_eigenvalue_is_the_impurity():
    for classes in (3, 10, 70):
        p = random_probabilities(8, classes, 50)
        values = logits.eigensystem(p)[0]
        np.testing.assert_allclose(values[:, 0], logits.impurity(p), rtol=8 * 2.0**-52)


def test_the_entry_of_theorem_1_b_at_the_class_of_rank_i_is_positive():
    p = random_probabilities(9, 8, 300)
    _, vectors = logits.eigensystem(p)
    order = np.argsort(-p, axis=-1, kind="stable")
    at_rank = np.take_along_axis(vectors, order[:, None, :], axis=1)[:, 0]
    assert (at_rank > 0).all()


def test_deflated_eigenpairs_are_the_documented_contrasts():
    p = np.array([0.125, 0.25, 0.25, 0.0, 0.25, 0.125, 0.0])
    values, vectors = logits.eigensystem(p)
    np.testing.assert_array_equal(values[[0, 1, 3, 4, 5, 6]], [0.25, 0.25, 0.125, 0, 0, 0])
    first = np.array([0, 1, -1, 0, 0, 0, 0]) / np.sqrt(2)
    second = np.array([0, 1, 1, 0, -2, 0, 0]) / np.sqrt(6)
    low = np.array([1, 0, 0, 0, 0, -1, 0]) / np.sqrt(2)
    zero = np.array([1, 1, 1, -5, 1, 1, 0]) / np.sqrt(30)
    np.testing.assert_allclose(vectors[:, [0, 1, 3, 4]].T, [first, second, low, zero], atol=1e-15)
    # 3·0.25/(0.25 − λ) + 2·0.125/(0.125 − λ) = 0 with Σp = 1
    np.testing.assert_allclose(values[2], 0.15625, rtol=1e-15)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_uniform_has_one_over_c_with_multiplicity_c_minus_one(classes):
    p = np.full(classes, 1 / classes)
    values, vectors = logits.eigensystem(p)
    np.testing.assert_array_equal(values, [*p[1:], 0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(classes), atol=1e-15)


# -- the other functions ---------------------------------------------------------------------------


def test_logit_hessian_is_the_second_derivative_of_cross_entropy():
    z = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(z):
        return torch.nn.functional.cross_entropy(z, torch.tensor(2))

    dense = torch.autograd.functional.hessian(loss, z)
    torch.testing.assert_close(logits.logit_hessian(z.softmax(-1)), dense, atol=1e-15, rtol=0)


def test_logit_hessian_has_rows_that_sum_to_zero_near_one_hot():
    p = np.array([1.0, 3e-20, 1e-20])
    matrix = logits.logit_hessian(p)
    np.testing.assert_allclose(matrix[0], [4e-20, -3e-20, -1e-20], rtol=1e-15)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(-1), 0, atol=1e-35)


def test_secular_is_the_formula_of_theorem_1_a():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    lam = np.linspace(-1, 1.3, 48)  # meets no pole
    formula = 1 - (p**2 / (p - lam[:, None])).sum(-1)
    np.testing.assert_allclose(logits.secular(p, lam), formula, rtol=1e-12, atol=1e-15)
    batch = np.stack([p, p[::-1], np.full(4, 0.25)])
    every = logits.secular(batch[:, None, :], np.stack([lam] * 3))
    np.testing.assert_allclose(every[1], formula, rtol=1e-12, atol=1e-15)
    one_each = logits.secular(batch, np.array([0.3, 0.3, 0.1]))
    np.testing.assert_allclose(one_each[2], 1 - 0.25 / (0.25 - 0.1), rtol=1e-14)


def test_secular_of_theorem_1_a_at_its_poles_at_zero_and_with_zero_entries():
    p = np.array([0.5, 0.5, 0.0])
    np.testing.assert_array_equal(logits.secular(p, np.array([0.0, 0.5])), [0, -np.inf])
    np.testing.assert_allclose(logits.secular(p, 0.25), 1 - 0.5 / 0.25)
    values, _ = logits.eigensystem(np.array([0.5, 0.3, 0.2]))
    assert np.abs(logits.secular(np.array([0.5, 0.3, 0.2]), values)).max() < 1e-14


def test_gini_and_its_classes():
    p = random_probabilities(10, 6, 100)
    np.testing.assert_array_equal(logits.gini(p), 2 * p * (1 - p))
    trace = np.trace(logits.logit_hessian(p), axis1=-2, axis2=-1)
    np.testing.assert_allclose(logits.gini_classes(p), trace, rtol=1e-14)
    np.testing.assert_allclose(logits.gini_classes(np.full(4, 0.25)), 0.75)
    np.testing.assert_array_equal(logits.gini_classes(np.array([1.0, 0.0])), 0)
    np.testing.assert_allclose(
        logits.gini_classes(np.array([[0.5, 0.3, 0.2]])), 1 - 0.38, rtol=1e-15
    )


def test_impurity_bounds_are_those_of_theorem_1_d():
    p = np.array([[0.5, 0.25, 0.25], [0.375, 0.375, 0.25], [1, 0, 0], [0.25, 0.75, 0]])
    lower, upper = logits.impurity_bounds(p)
    np.testing.assert_array_equal(lower, [0.25, 0.375, 0, 0.25])
    np.testing.assert_array_equal(upper, [0.5, 0.375, 0, 0.375])
    p = np.array([1.0, 2e-30, 1e-30])
    np.testing.assert_allclose(logits.impurity_bounds(p), [3e-30, 6e-30], rtol=1e-15)


# -- bad input -------------------------------------------------------------------------------------

EVERY = [
    logits.impurity,
    logits.power_iteration,
    logits.eigensystem,
    logits.logit_hessian,
    logits.impurity_bounds,
    logits.gini_classes,
    lambda p: logits.secular(p, 0.1),
]


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_bad_probabilities_are_refused_with_the_entry(function, convert):
    good = [0.5, 0.25, 0.25]
    bad = {
        r"entry \(1, 2\) is negative": [good, [0.75, 0.5, -0.25]],
        r"entry \(1, 0\) is not finite": [good, [float("nan"), 0.5, 0.5]],
        r"entry \(0, 1\) is not finite": [[0.5, float("inf"), 0.5], good],
        r"row \(1,\) sums to 1\.25": [good, [0.5, 0.5, 0.25]],
    }
    for message, rows in bad.items():
        with pytest.raises(ValueError, match=message):
            function(convert(np.array(rows)))
    with pytest.raises(ValueError, match=r"entry \(0,\) is negative"):
        function(convert(np.array([-0.5, 1.5])))


@pytest.mark.parametrize("function", EVERY)
def test_other_types_and_a_single_class_are_refused(function):
    with pytest.raises(ValueError, match="at least two classes"):
        function(np.ones((3, 1)))
    with pytest.raises(ValueError, match="at least two classes"):
        function(np.array(1.0))
    with pytest.raises(ValueError, match="float32 or float64, got int64"):
        function(np.array([1, 0]))
    with pytest.raises(ValueError, match="float16"):
        function(np.array([0.5, 0.5], np.float16))


def test_the_tolerance_of_the_sum_is_the_stated_one():
    for classes in (2, 10, 1000):
        p = np.full(classes, 1 / classes)
        tolerance = 8 * classes**0.5 * 2.0**-23
        p[0] += 0.9 * tolerance
        logits.check_probabilities(p)
        p[0] += 0.2 * tolerance
        with pytest.raises(ValueError, match="sum of 1 within"):
            logits.check_probabilities(p)


def test_a_softmax_in_float32_is_accepted_and_may_be_cast():
    z = torch.randn(200, 1000, generator=torch.Generator().manual_seed(0)) * 5
    p = z.softmax(-1)
    torch.testing.assert_close(logits.impurity(p).double(), logits.impurity(p.double()))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'secular' or 'power', got 'newton'"):
        logits.impurity(np.array([0.5, 0.5]), method="newton")


@pytest.mark.filterwarnings("error")
def test_no_warning_is_raised_for_extreme_input():
    rng = np.random.default_rng(0)
    with np.errstate(all="raise", under="ignore"):
        for dtype in (np.float32, np.float64):
            with np.errstate(over="ignore"):
                p = softmax(rng.standard_normal((200, 6)) * 10.0 ** rng.uniform(0, 3, (200, 1)))
            p = p.astype(dtype)
            logits.impurity(p)
            logits.eigensystem(p)
            logits.impurity_bounds(p)
            logits.power_iteration(p, max_iterations=20)
            logits.gini_classes(p)
