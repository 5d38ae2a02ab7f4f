"""The two-level eigensolver against dense decompositions in float64."""

import math
from functools import partial

import pytest
import torch
from test_spectra import SPECTRA, Counted, every_spectrum, symmetric, true_residual

from ijrlib import spectra, two_level


def resembling(matrix, share, seed=1):
    """The matrix and symmetric noise of a share of its norm, as a subset's Hessian."""
    noise = symmetric(torch.linspace(-1, 1, len(matrix)), seed=seed)
    return matrix + share * torch.linalg.matrix_norm(matrix, 2) * noise


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@every_spectrum
def test_the_largest_algebraic_eigenvalue_is_found_however_good_the_surrogate(name, share):
    matrix = symmetric(SPECTRA[name])
    top = float(SPECTRA[name].max())
    pair = two_level.top_eigenpair(
        Counted(matrix), Counted(resembling(matrix, share)), rtol=1e-6, max_products=1000
    )
    assert pair.converged
    if name == "top nearly twofold":  # within one product the two are not told apart
        assert 4.999 <= pair.value <= 5 + 1e-12
        return
    # the stopping rule predicts the error; a factor of ten is left for its being a prediction
    assert pair.value == pytest.approx(top, rel=1e-5, abs=1e-13 * float(SPECTRA[name].abs().max()))


@pytest.mark.parametrize("rtol", [1e-1, 5e-3, 1e-6])
@every_spectrum
def test_the_residual_is_that_of_the_operator_reported_not_of_the_surrogate(name, rtol):
    matrix = symmetric(SPECTRA[name])
    pair = two_level.top_eigenpair(Counted(matrix), Counted(resembling(matrix, 0.3)), rtol=rtol)
    scale = abs(pair.value) or 1.0
    rounding = 1e-12 * float(SPECTRA[name].abs().max()) / scale
    expected = true_residual(matrix, pair) / scale
    assert pair.residual == pytest.approx(expected, rel=1e-6, abs=rounding)
    assert pair.vector.norm() == pytest.approx(1, abs=1e-12)


def test_products_are_counted_for_each_operator():
    matrix = symmetric(SPECTRA["outliers"])
    op, surrogate = Counted(matrix), Counted(resembling(matrix, 0.1))
    pair = two_level.top_eigenpair(op, surrogate)
    assert (pair.products, pair.surrogate_products) == (op.products, surrogate.products)


def test_a_good_surrogate_saves_most_products():
    matrix = symmetric(torch.cat([torch.linspace(-1, 4, 400), torch.tensor([4.5])]))
    surrogate = resembling(matrix, 0.02)
    two = two_level.top_eigenpair(Counted(matrix), Counted(surrogate), rtol=1e-3)
    one = spectra.top_eigenpair(Counted(matrix), rtol=two.residual)
    assert 3 * two.products <= one.products


def test_a_surrogate_that_is_the_operator_itself_is_believed_after_one_product():
    matrix = symmetric(SPECTRA["outliers"])
    pair = two_level.top_eigenpair(Counted(matrix), Counted(matrix))
    assert pair.products == 1


def test_a_cold_start_multiplies_what_it_is_given_and_so_sees_what_the_surrogate_does_not():
    basis = torch.eye(60, dtype=torch.float64)
    seen = torch.linspace(0, 3, 59).double()
    matrix = torch.diag(torch.cat([seen, torch.tensor([5.0]).double()]))
    blind = torch.diag(torch.cat([seen, torch.zeros(1).double()]))
    gradient = basis[-1] + 0.1 * basis[10]
    warm = two_level.top_eigenpair(Counted(matrix), Counted(blind), basis[-2])
    assert warm.value == pytest.approx(3, rel=1e-9), "certified, but not the top: hence cold starts"
    cold = two_level.top_eigenpair(Counted(matrix), Counted(blind), gradient, cold=True)
    assert abs(cold.value - 5) <= cold.residual * cold.value < 1


def in_the_wrong_order(second, seen):
    """A matrix with the largest eigenvalues 5 and ``second``, a surrogate that sees the first of
    them as another, and their eigenvectors."""
    values = torch.linspace(0, 3, 60).double()
    values[-1], values[-2] = 5, second
    surrogate = torch.diag(values)
    surrogate[-1, -1] = seen
    basis = torch.eye(60, dtype=torch.float64)
    return torch.diag(values), surrogate, basis[-1], basis[-2]


def test_a_followed_eigenvector_is_not_given_up_for_one_that_only_the_surrogate_prefers():
    """Two eigenvalues a few percent apart, in the wrong order for the surrogate."""
    matrix, surrogate, top, second = in_the_wrong_order(4.8, seen=4)
    for pair_of_steps in ((top, second), (second, top), (second, top + 0.3 * second)):
        starts = torch.stack(pair_of_steps, dim=1)
        led = two_level.top_eigenpair(Counted(matrix), Counted(surrogate), starts)
        assert led.value == pytest.approx(4.8)
        assert led.converged
        pair = two_level.top_eigenpair(Counted(matrix), Counted(surrogate), starts, followed=2)
        assert pair.value == pytest.approx(5, rel=5e-3)
        assert pair.converged
        assert pair.products <= led.products + 3


def test_a_pair_is_not_said_to_have_converged_while_a_followed_vector_was_not_asked_about():
    matrix, surrogate, top, second = in_the_wrong_order(4, seen=0)
    starts = torch.stack((second, top), dim=1)
    found = [
        two_level.top_eigenpair(
            Counted(matrix), Counted(surrogate), starts, followed=2, max_products=most
        )
        for most in (1, 5)
    ]
    assert [pair.converged for pair in found] == [False, True]
    assert found[1].value == pytest.approx(5)


@pytest.mark.parametrize("rtol", [-1, math.nan, "a"])
def test_what_is_no_tolerance_is_refused(rtol):
    matrix = torch.eye(4, dtype=torch.float64)
    for solve in (spectra.top_eigenpair, partial(two_level.top_eigenpair, surrogate=matrix)):
        with pytest.raises(ValueError, match="rtol: expected a number of at least 0, got"):
            solve(matrix, rtol=rtol)


def test_an_eigenvalue_that_crosses_the_tracked_one_is_found_by_the_next_cold_start():
    """Exact eigenvectors as start vectors: a warm start has no share in the new top one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(80, 80, dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(noise)
    previous = basis[:, 0]
    found = []
    for step in range(13):
        values = torch.linspace(-1, 1, 80).double()
        values[0], values[1] = 4 - step / 6, 2 + step / 6  # they cross at step 6
        matrix = basis * values @ basis.T
        cold = step % 4 == 3
        pair = two_level.top_eigenpair(
            Counted(matrix), Counted(resembling(matrix, 0.01)), previous, seed=step, cold=cold
        )
        previous = pair.vector
        found.append(pair.value / float(values.max()))
    assert found[:7] == pytest.approx([1.0] * 7, rel=5e-3)
    assert found[7:] == pytest.approx([1.0] * 6, rel=5e-3)


def test_a_surrogate_that_leads_nowhere_is_given_up_for_lanczos():
    values = torch.linspace(0, 1, 400).double() ** 2
    matrix = symmetric(values)
    surrogate = Counted(symmetric(values, seed=5))  # the same spectrum in an unrelated basis
    pair = two_level.top_eigenpair(Counted(matrix), surrogate, rtol=1e-5, max_products=400)
    assert pair.products > two_level.COLUMNS
    assert pair.value == pytest.approx(1, rel=1e-4)


def test_the_basis_of_the_surrogate_restarts_when_it_is_full():
    matrix = symmetric(torch.cat([torch.linspace(-1, 1, 400), torch.tensor([1.02])]))
    pair = two_level.top_eigenpair(Counted(matrix), Counted(matrix), rtol=1e-6)
    assert pair.surrogate_products > two_level.COLUMNS + 17
    assert pair.value == pytest.approx(1.02, rel=1e-5)


def test_vectors_too_long_for_a_full_basis_are_solved_with_a_smaller_one(monkeypatch):
    matrix = symmetric(torch.cat([torch.linspace(-1, 1, 300), torch.tensor([1.3, 1.2])]))
    vectors = 6
    monkeypatch.setattr(spectra, "BASIS_BYTES", vectors * 2 * 302 * 8)
    one = spectra.top_eigenpair(Counted(matrix), rtol=1e-4)
    assert one.value == pytest.approx(1.3, rel=1e-6)
    for share in (0.1, 0.5):
        two = two_level.top_eigenpair(
            Counted(matrix), Counted(resembling(matrix, share)), rtol=1e-4, max_products=500
        )
        assert two.value == pytest.approx(1.3, rel=1e-3)


@pytest.mark.parametrize("vectors", [10, 12, 13, 16])
@pytest.mark.parametrize("share", [0.1, 0.5, 2.0])
def test_followed_vectors_that_are_left_behind_never_outgrow_a_small_basis(
    monkeypatch, vectors, share
):
    """VGG's vectors leave room for a basis of 13."""
    values = torch.cat([torch.linspace(-1, 1, 300), torch.tensor([1.3, 1.29, 1.28, 1.27])])
    matrix = symmetric(values)
    monkeypatch.setattr(spectra, "BASIS_BYTES", vectors * 2 * len(values) * 8)
    generator = torch.Generator().manual_seed(0)
    for seed in range(10):
        noise = torch.randn(len(values), 3, dtype=torch.float64, generator=generator)
        starts, _ = torch.linalg.qr(noise)
        surrogate = Counted(resembling(matrix, share, seed=seed))
        for cold in (False, True):
            pair = two_level.top_eigenpair(
                Counted(matrix), surrogate, starts, max_products=300, followed=2, cold=cold
            )
            assert pair.value == pytest.approx(1.3, rel=0.05)


def test_a_residual_within_the_basis_that_was_just_restarted_does_no_harm(monkeypatch):
    """So it came in a run of VGG; here the residual is said to be within it whenever that is so."""
    values = torch.cat([torch.linspace(-1, 1, 300), torch.tensor([1.3, 1.29, 1.28, 1.27])])
    matrix = symmetric(values)
    monkeypatch.setattr(spectra, "BASIS_BYTES", 13 * 2 * len(values) * 8)
    restart, expand = spectra.Subspace.restart, spectra.Subspace.expand
    restarts = []

    def watched_restart(self, mixing):
        restarts.append(self)
        restart(self, mixing)

    def within(self, v):
        if restarts and restarts[-1] is self:
            restarts[-1] = None
            return False
        return expand(self, v)

    monkeypatch.setattr(spectra.Subspace, "restart", watched_restart)
    monkeypatch.setattr(spectra.Subspace, "expand", within)
    surrogate = Counted(resembling(matrix, 0.1))
    pair = two_level.top_eigenpair(Counted(matrix), surrogate, rtol=1e-4, max_products=300)
    assert restarts and None in restarts
    assert pair.value == pytest.approx(1.3, rel=0.02)


def test_too_few_products_return_the_best_pair_with_its_true_residual_not_converged():
    matrix = symmetric(torch.linspace(-1, 1, 300))
    pair = two_level.top_eigenpair(
        Counted(matrix), Counted(symmetric(torch.ones(300))), rtol=1e-8, max_products=3
    )
    assert not pair.converged
    assert pair.products == 3
    assert pair.residual == pytest.approx(true_residual(matrix, pair) / abs(pair.value), rel=1e-6)


def test_the_zero_operator_has_the_eigenvalue_zero():
    zero = Counted(torch.zeros(5, 5, dtype=torch.float64))
    pair = two_level.top_eigenpair(zero, zero)
    assert (pair.value, pair.residual, pair.converged) == (0, 0, True)


@pytest.mark.parametrize("value", [2.0, -2.0, 0.0])
def test_a_one_by_one_operator_is_its_entry(value):
    op = Counted(torch.tensor([[value]]).double())
    assert two_level.top_eigenpair(op, Counted(torch.ones(1, 1).double())).value == value


@pytest.mark.parametrize("which", ["operator", "surrogate"])
def test_numbers_that_are_not_finite_are_never_certified(which):
    good = symmetric(SPECTRA["outliers"])
    bad = good.clone()
    bad[3, 3] = torch.nan
    ops = (bad, good) if which == "operator" else (good, bad)
    pair = two_level.top_eigenpair(Counted(ops[0]), Counted(ops[1]))
    assert pair.value != pair.value
    assert not pair.converged


def test_shapes_that_differ_are_refused_with_both():
    with pytest.raises(ValueError, match=r"surrogate: expected shape .*5, 5.*got .*4, 4"):
        two_level.top_eigenpair(Counted(torch.eye(5)), Counted(torch.eye(4)))


@pytest.mark.parametrize(
    ("columns", "most"), [(5, 1), (5, 3), (16, 16), (30, 20), (30, 16), (3, 4)]
)
def test_start_vectors_of_a_cold_start_take_no_more_products_than_allowed(columns, most):
    matrix = symmetric(SPECTRA["no gap"])
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(len(matrix), columns, generator=generator, dtype=torch.float64)
    op = Counted(matrix)
    pair = two_level.top_eigenpair(
        op, resembling(matrix, 0.5), starts, rtol=1e-9, max_products=most, cold=True
    )
    assert pair.products == op.products <= most
    expected = true_residual(matrix, pair) / abs(pair.value)
    assert pair.residual == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("most", [0, -1])
def test_a_search_without_products_is_refused(most):
    with pytest.raises(ValueError, match=f"max_products: expected at least 1, got {most}"):
        two_level.top_eigenpair(torch.eye(4), torch.eye(4), max_products=most)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_with_what_is_expected(dtype):
    op = torch.eye(170)
    message = f"expected numbers in float32 or float64, got {dtype}"
    with pytest.raises(ValueError, match=f"op: {message}"):
        two_level.top_eigenpair(op.to(dtype), op)
    with pytest.raises(ValueError, match=f"surrogate: {message}"):
        two_level.top_eigenpair(op, op.to(dtype))


@pytest.mark.parametrize("scale", [1e-24, 1e-22, 1e-20])
def test_a_small_single_precision_operator_is_not_certified_falsely(scale):
    values = torch.cat([torch.tensor([4.0, 3.0]).double(), torch.linspace(0, 2, 298).double()])
    exact = symmetric(values)
    matrix, surrogate = (scale * exact).float(), (scale * resembling(exact, 0.05)).float()
    pair = two_level.top_eigenpair(Counted(matrix), Counted(surrogate), rtol=1e-3)
    x = pair.vector.double()
    true = float((matrix.double() @ x - pair.value * x).norm()) / pair.value
    assert pair.converged and pair.value / scale == pytest.approx(4, rel=1e-2)
    assert pair.residual == pytest.approx(true, rel=1e-3)
