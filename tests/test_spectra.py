"""Eigensolver and norms against dense decompositions in float64."""

import copy
import itertools

import dense
import pytest
import torch
from torch import nn

from ijrlib import operators, spectra, two_level

EPS = 2**-52


class Counted:
    """A symmetric matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.products = matrix, matrix.shape, 0
        self.dtype, self.device = matrix.dtype, matrix.device

    def __matmul__(self, v):
        self.products += 1
        return self.matrix @ v


def symmetric(values, seed=0):
    """A dense symmetric matrix with the given eigenvalues and a random eigenbasis."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(values), len(values), dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(noise)
    matrix = basis * values @ basis.T
    return (matrix + matrix.T) / 2


def bulk(*outliers, size=200):
    """Outliers over a bulk of small eigenvalues of both signs, as early in training."""
    return torch.cat([torch.tensor(outliers).double(), torch.linspace(-0.5, 0.5, size).double()])


SPECTRA = {
    "outliers": bulk(5.0, 3.0, 2.0),
    "the most negative is larger in magnitude": bulk(2.0, -50.0, -20.0),
    "the most negative is as large": bulk(2.0, -2.0),
    "negative definite": -torch.linspace(1, 100, 100).double(),
    "top nearly twofold": bulk(5.0, 4.999),
    "top threefold": bulk(5.0, 5.0, 5.0),
    "no gap": torch.linspace(-1, 1, 300).double(),
    "rank one": torch.tensor([4.0] + [0.0] * 50).double(),
    "rank one, negative": torch.tensor([-4.0] + [0.0] * 50).double(),
    "identity": torch.ones(30).double(),
    "two by two": torch.tensor([1.0, -3.0]).double(),
    "tiny": 1e-30 * bulk(5.0, 3.0),
    "huge": 1e30 * bulk(5.0, 3.0),
}
every_spectrum = pytest.mark.parametrize("name", SPECTRA)


def true_residual(matrix, pair):
    return (matrix @ pair.vector - pair.value * pair.vector).norm().item()


# --- the top eigenpair ---------------------------------------------------------------------------


@every_spectrum
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_the_largest_algebraic_eigenvalue_is_found_and_certified(name, rtol):
    values = SPECTRA[name]
    matrix = symmetric(values)
    largest, size = values.max().item(), values.abs().max().item()
    pair = spectra.top_eigenpair(matrix, rtol=rtol)
    rounding = 100 * EPS * size  # products and projections of a few hundred terms
    assert pair.converged
    assert abs(pair.vector.norm() - 1) < 1e-14
    # the certificate: a Rayleigh quotient is at most the top value, and some eigenvalue is near
    assert pair.value <= largest + rounding
    assert abs(pair.value - values).min() <= pair.residual * abs(pair.value) + rounding
    # the pair is the top one: what lies within the residual of it touches the top
    assert largest - pair.value <= rtol * abs(largest) + rounding


@every_spectrum
@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-6])
def test_the_residual_is_that_of_the_pair_returned(name, rtol):
    matrix = symmetric(SPECTRA[name])
    size = SPECTRA[name].abs().max().item()
    pair = spectra.top_eigenpair(matrix, rtol=rtol)
    rounding = 100 * EPS * size
    scale = abs(pair.value) if abs(pair.value) > rounding else 1.0
    assert abs(pair.residual * (abs(pair.value) or 1.0) - true_residual(matrix, pair)) < rounding
    assert abs(pair.value - pair.vector @ matrix @ pair.vector) < rounding
    assert pair.residual * (abs(pair.value) or 1.0) <= max(rtol * scale, rounding)


@every_spectrum
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_the_number_of_products_is_the_number_spent(name, rtol):
    op = Counted(symmetric(SPECTRA[name]))
    assert spectra.top_eigenpair(op, rtol=rtol).products == op.products


def test_the_solver_restarts_when_its_basis_is_full_and_still_converges():
    values = torch.linspace(-1, 1, 400).double()
    pair = spectra.top_eigenpair(symmetric(values), rtol=1e-8, max_products=2000)
    assert pair.products > 2 * spectra.BASIS
    assert pair.converged and abs(pair.value - 1) < 1e-8


def test_too_few_products_return_the_best_pair_with_its_true_residual_not_converged():
    matrix = symmetric(torch.linspace(-1, 1, 300))
    op = Counted(matrix)
    pair = spectra.top_eigenpair(op, rtol=1e-8, max_products=10)
    assert pair.products == op.products == 10
    assert not pair.converged and pair.residual > 1e-8
    assert abs(pair.residual * pair.value - true_residual(matrix, pair)) < 100 * EPS


class Rounded(Counted):
    """A matrix whose products are in error by ``error``·‖A‖ in a direction that looks random."""

    def __init__(self, matrix, error):
        super().__init__(matrix)
        self.error = error * float(torch.linalg.matrix_norm(matrix, 2))

    def __matmul__(self, v):
        noise = torch.sin(1e9 * v)
        return super().__matmul__(v) + self.error * noise / noise.norm()


@pytest.mark.parametrize("error", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("k", [1, 3])
def test_the_solver_stops_at_the_rounding_level_of_the_operator(error, k):
    """Its residual can't fall below the error of a product; asked for less it stops there."""
    op = Rounded(symmetric(bulk(5.0, 3.0, 2.0, size=2000)), error)
    exact = spectra.top_eigenpairs(Counted(op.matrix), k, rtol=error)
    found = spectra.top_eigenpairs(op, k, rtol=error / 100, max_products=500)
    assert found[0].products <= exact[0].products + 4 * spectra.PATIENCE
    for pair, value in zip(found, (5.0, 3.0, 2.0), strict=False):
        assert pair.converged
        assert error / 100 < pair.residual
        assert abs(pair.value - value) <= 5 * 5.0 * error


def test_slow_convergence_is_not_taken_for_rounding():
    op = Counted(symmetric(SPECTRA["no gap"]))
    pair = spectra.top_eigenpair(op, rtol=1e-9)
    assert pair.converged and pair.residual <= 1e-9
    assert pair.products > 2 * spectra.PATIENCE


def test_a_known_eigenvector_is_certified_by_one_product():
    matrix = symmetric(bulk(5.0, 3.0))
    exact = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    pair = spectra.top_eigenpair(matrix, v0=3 * exact)
    assert pair.products == 1 and pair.converged
    assert abs(pair.value - 5) < 1e-12


@pytest.mark.parametrize("step", [1e-3, 1e-2])
def test_a_warm_start_from_a_nearby_matrix_needs_fewer_products(step):
    values = bulk(5.0, 4.5, -6.0)
    matrix = symmetric(values)
    nearby = matrix + step * symmetric(values, seed=1)
    before = spectra.top_eigenpair(matrix, rtol=1e-4)
    cold = spectra.top_eigenpair(nearby, rtol=1e-4)
    warm = spectra.top_eigenpair(nearby, v0=before.vector, rtol=1e-4)
    assert warm.products < cold.products
    assert abs(warm.value - cold.value) <= 1e-4 * 5


def test_several_start_vectors_are_used_in_turn():
    matrix = symmetric(bulk(5.0, 3.0))
    vectors = torch.linalg.eigh(matrix).eigenvectors
    bottom_and_top = vectors[:, [100, -1]] + vectors[:, [-1, 100]] * 0.1
    pair = spectra.top_eigenpair(matrix, v0=bottom_and_top, rtol=1e-6)
    assert pair.products == 2 and abs(pair.value - 5) < 1e-12
    many = torch.randn(len(matrix), 60, dtype=torch.float64, generator=torch.Generator())
    assert abs(spectra.top_eigenpair(matrix, v0=many, rtol=1e-6).value - 5) < 1e-10


def test_a_start_at_a_lower_eigenvector_is_certified_there_and_only_a_cold_start_tells():
    matrix = symmetric(bulk(5.0, 3.0))
    second = torch.linalg.eigh(matrix).eigenvectors[:, -2]
    warm, cold = spectra.top_eigenpair(matrix, v0=second), spectra.top_eigenpair(matrix)
    assert warm.converged and abs(warm.value - 3) < 1e-12
    assert cold.converged and abs(cold.value - 5) < 1e-2


def test_the_zero_operator_has_the_eigenvalue_zero():
    pair = spectra.top_eigenpair(torch.zeros(20, 20, dtype=torch.float64))
    assert (pair.value, pair.residual, pair.converged) == (0.0, 0.0, True)
    assert abs(pair.vector.norm() - 1) < 1e-14


@pytest.mark.parametrize("value", [3.0, 0.0, -3.0])
def test_a_one_by_one_operator_is_its_entry(value):
    pair = spectra.top_eigenpair(torch.tensor([[value]], dtype=torch.float64))
    assert (pair.value, pair.residual, pair.products) == (value, 0.0, 1)


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_an_operator_that_is_not_finite_is_never_certified(entry):
    matrix = symmetric(bulk(5.0, 3.0))
    matrix[3, 3] = entry
    assert not spectra.top_eigenpair(matrix).converged


def test_products_that_are_finite_and_overflow_with_a_vector_are_never_certified():
    """1e37·11ᵀ of size 100: an entry of the product is 1e38, its eigenvalue 1e39."""
    op, start = torch.full((100, 100), 1e37), torch.ones(100)
    for pair in (
        spectra.top_eigenpair(op, start),
        two_level.top_eigenpair(op, op, start),
        two_level.top_eigenpair(op, torch.eye(100), start),
    ):
        assert pair.value != pair.value and not pair.converged


def test_a_single_precision_operator_is_solved_to_single_precision():
    values = bulk(5.0, 3.0)
    matrix = symmetric(values).float()
    pair = spectra.top_eigenpair(matrix, rtol=1e-12)
    assert pair.vector.dtype == torch.float32 and pair.converged
    # forming the matrix: an error of 2^-24 in each entry, at most 2^-24 ‖A‖_F
    assert abs(pair.value - 5) < 2**-24 * (matrix.norm() + 10 * 5)


def test_the_random_start_depends_on_the_seed_only():
    matrix = symmetric(bulk(5.0, 3.0))
    state = torch.random.get_rng_state()
    first, second, other = (spectra.top_eigenpair(matrix, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.vector, second.vector)
    assert not torch.equal(first.vector, other.vector)


# --- several eigenpairs --------------------------------------------------------------------------


@every_spectrum
def test_the_k_largest_algebraic_eigenpairs_come_largest_first(name):
    values = SPECTRA[name].sort(descending=True).values
    matrix = symmetric(values)
    op = Counted(matrix)
    k = min(4, len(values))
    pairs = spectra.top_eigenpairs(op, k, rtol=1e-6)
    rounding = 100 * EPS * values.abs().max()
    for pair, value in zip(pairs, values[:k].tolist(), strict=True):
        assert pair.converged and pair.products == op.products
        assert abs(pair.value - value) <= 1e-6 * abs(value) + rounding
        expected = abs(pair.residual * (abs(pair.value) or 1.0) - true_residual(matrix, pair))
        assert expected < rounding
    vectors = torch.stack([pair.vector for pair in pairs])
    assert (vectors @ vectors.T - torch.eye(k)).abs().max() < 1e-10


@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_a_multiple_eigenvalue_is_found_as_often_as_it_occurs(rtol):
    outliers = torch.tensor([5.0, 5.0, 3.0, 2.0])
    matrix = symmetric(torch.cat([outliers, torch.linspace(-0.1, 0.1, 196)]))
    for seed in range(10):
        pairs = spectra.top_eigenpairs(matrix, 3, rtol=rtol, seed=seed)
        found = torch.tensor([pair.value for pair in pairs])
        assert ((outliers[:3] - found).abs() <= rtol * outliers[:3]).all()


def test_all_eigenpairs_of_a_small_matrix_are_found():
    values = torch.tensor([4.0, 1.0, 1.0, 0.0, -7.0])
    pairs = spectra.top_eigenpairs(symmetric(values), 5, rtol=1e-10)
    assert torch.allclose(torch.tensor([p.value for p in pairs]), values, rtol=0, atol=1e-6)


# --- operators of networks -----------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("kind", dense.KINDS)
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(kind, loss):
    model, (x, y) = dense.network(kind), dense.examples(7)
    values = torch.linalg.eigvalsh(dense.hessian(model, loss, x, y))
    op = operators.hessian(model, operators.LOSSES[loss], (x, y), chunk=3)
    pair = spectra.top_eigenpair(op, rtol=1e-6)
    assert abs(pair.value - values[-1]) <= 1e-6 * values[-1]
    g = operators.gauss_newton(model, operators.LOSSES[loss], (x, y), chunk=3)
    expected = torch.linalg.eigvalsh(dense.gauss_newton(model, loss, x))[-1]
    assert abs(spectra.top_eigenpair(g, rtol=1e-6).value - expected) <= 1e-6 * expected


@pytest.mark.parametrize("kind", dense.KINDS)
@pytest.mark.parametrize("method", ["auto", "exact", "golub-kahan"])
def test_jacobian_norm_is_the_largest_singular_value_of_the_dense_mean_jacobian(kind, method):
    model, (x, _) = dense.network(kind), dense.examples(7)
    norm = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))[0]
    # a residual of 1e-10 of the squared norm; with three classes the solver ends there or exactly
    for data in (x, x.split(3)):
        ours = spectra.jacobian_norm(model, data, method=method, rtol=1e-10)
        assert abs(ours - norm) <= 1e-10 * norm


@pytest.mark.parametrize("method", ["auto", "exact", "golub-kahan", "power"])
def test_jacobian_norm_takes_a_generator_of_chunks(method):
    model, (x, _) = dense.network("fully connected, tanh"), dense.examples(7)
    expected = spectra.jacobian_norm(model, x.split(3), method=method)
    assert spectra.jacobian_norm(model, iter(x.split(3)), method=method) == expected


@pytest.mark.parametrize("kind", ["fully connected, tanh", "convolutional, ReLU", "residual"])
def test_jacobian_norm_by_algorithm_2_stops_near_the_largest_singular_value(kind):
    model, (x, _) = dense.network(kind), dense.examples(7)
    first, second, _ = torch.linalg.svdvals(dense.jacobians(model, x).mean(0)).tolist()
    ours = spectra.jacobian_norm(model, x, method="power", rtol=1e-5)
    # what is missing shrinks by q = (second / first)^4 a step in the end, so a step of 1e-5 leaves
    # q / (1 - q) of it; twice that for the steps before the end
    q = (second / first) ** 4
    assert 0 <= first - ours <= 2 * q / (1 - q) * 1e-5 * first


class ManyClasses(nn.Module):
    """Logits W tanh(Vx) of 40 classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 40))

    def forward(self, x):
        return self.layers(x)


def test_many_classes_take_golub_kahan_and_fewer_passes_than_classes():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ManyClasses().double()
    x, _ = dense.examples(7)
    expected = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))[0]
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    norm = spectra.jacobian_norm(model, x)
    assert len(passes) < 40
    # relative residual 1e-3 of the squared norm bounds its relative error, the norm's is half
    assert abs(norm - expected) < 1e-3 / 2 * expected


def test_a_model_whose_logits_do_not_move_has_jacobian_norm_zero():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))

        def forward(self, x):
            return x.flatten(1)[:, :4] * 0 @ self.weight

    x, _ = dense.examples(3)
    for method in ("exact", "golub-kahan", "power"):
        assert spectra.jacobian_norm(Constant(), x, method=method) == 0


def test_algorithm_2_rises_to_the_norm_and_never_above():
    model, (x, _) = dense.network("convolutional, tanh"), dense.examples(7)
    norm = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))[0].item()
    values = spectra.algorithm_2(operators.mean_jacobian(model, x), rtol=1e-8)
    assert len(values) > 2
    assert all(b >= a * (1 - 10 * EPS) for a, b in itertools.pairwise(values))
    assert values[-1] <= norm * (1 + 100 * EPS)
    assert abs(values[-1] - values[-2]) <= 1e-8 * values[-1]


# --- the methods for comparison ------------------------------------------------------------------


def test_power_iteration_finds_the_eigenvalue_of_largest_magnitude():
    for values, expected in ((bulk(5.0, 3.0), 5.0), (bulk(2.0, -50.0), -50.0)):
        op = Counted(symmetric(values))
        pair = spectra.top_eigenpair(op, rtol=1e-6, method="power", max_products=200)
        assert abs(pair.value - expected) <= 1e-6 * abs(expected)
        assert pair.products == op.products
        assert abs(pair.residual * abs(pair.value) - true_residual(op.matrix, pair)) < 1e-12


def test_power_iteration_that_runs_out_of_products_says_so():
    pair = spectra.top_eigenpair(symmetric(bulk(2.0, -2.0)), method="power", max_products=50)
    assert not pair.converged and pair.products == 50 and pair.residual > 1e-2


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", ["fully connected, tanh", "convolutional, tanh", "residual"])
def test_pyhessian_agrees_where_the_top_eigenvalue_is_the_largest_in_magnitude(kind, parts):
    pytest.importorskip("pyhessian")
    model, (x, y) = dense.network(kind), dense.examples(6)
    x = x + 2  # a mean away from zero sets one eigenvalue apart
    matrix = dense.hessian(model, "cross_entropy", x, y)
    magnitudes = torch.linalg.eigvalsh(matrix).abs().sort().values
    second, first = magnitudes[-2:].tolist()
    op = operators.hessian(model, operators.cross_entropy, (x, y), chunk=6 // parts)
    torch.manual_seed(0)
    pair = spectra.top_eigenpair(op, method="pyhessian")
    ours = spectra.top_eigenpair(op, rtol=1e-6)
    error = pair.residual * pair.value
    assert abs(error - true_residual(matrix, pair)) < 1e-6 * first  # its vector is float32
    # an eigenvalue lies within the residual; beyond the middle of the two, it is the first
    assert pair.value > (first + second) / 2
    assert abs(pair.value - first) <= error + 1e-6 * first
    assert abs(pair.value - ours.value) <= error + 2e-6 * first


@pytest.mark.parametrize("parts", [1, 3])
def test_pyhessians_products_are_counted_and_one_of_ours_for_the_residual(parts):
    pytest.importorskip("pyhessian")
    model, (x, y) = dense.network("fully connected, tanh"), dense.examples(6)
    calls = []

    def loss(z, y):
        calls.append(len(y))
        return operators.cross_entropy(z, y)

    op = operators.hessian(model, loss, (x, y), chunk=6 // parts)
    pair = spectra.top_eigenpair(op, method="pyhessian")
    assert pair.products * parts == len(calls) > 3 * parts  # a product is a loss of each chunk


def test_no_method_leaves_a_trace_on_model_or_random_state():
    pytest.importorskip("pyhessian")
    model, (x, y) = dense.network("batch normalization"), dense.examples(6)
    model.insert(5, nn.Dropout(0.5))
    model.train()
    model.get_submodule("2").eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
    gradients = [parameter.grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    op = operators.hessian(model, operators.cross_entropy, (x, y))
    for method in ("lanczos", "power", "pyhessian"):
        spectra.top_eigenpair(op, method=method, max_products=20)
    for method in ("exact", "golub-kahan", "power"):
        spectra.jacobian_norm(model, x, method=method)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad and parameter.grad is gradient
        assert gradient is None or bool((gradient == 7).all())
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in state)


# --- bad input -----------------------------------------------------------------------------------


def test_an_unknown_method_is_refused_with_the_valid_ones():
    matrix = torch.eye(3)
    with pytest.raises(ValueError, match=r"lanczos, power, pyhessian.*'lobpcg'"):
        spectra.top_eigenpair(matrix, method="lobpcg")
    model, (x, _) = dense.network("linear"), dense.examples(3)
    with pytest.raises(ValueError, match=r"auto, exact, golub-kahan or power.*'svd'"):
        spectra.jacobian_norm(model, x, method="svd")


def test_an_operator_that_is_not_square_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"\(m, m\).*\(3, 2\)"):
        spectra.top_eigenpair(torch.ones(3, 2))


@pytest.mark.parametrize("v0", [torch.zeros(4), torch.full((4,), float("nan"))])
def test_a_start_vector_that_is_zero_or_not_finite_is_refused(v0):
    with pytest.raises(ValueError, match="finite vector other than zero"):
        spectra.top_eigenpair(torch.eye(4), v0=v0)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_a_start_vector_of_the_wrong_length_is_refused_with_both(method):
    with pytest.raises(ValueError, match=r"\(4,\).*\(5,\)"):
        spectra.top_eigenpair(torch.eye(4), v0=torch.ones(5), method=method)


@pytest.mark.parametrize("k", [0, 5])
def test_more_eigenpairs_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match=rf"1 to 4, got {k}"):
        spectra.top_eigenpairs(torch.eye(4), k)


def test_at_least_one_product_is_expected():
    with pytest.raises(ValueError, match="max_products: expected at least 1, got 0"):
        spectra.top_eigenpair(symmetric([3.0, 1.0]), max_products=0)


def test_a_start_vector_of_another_precision_is_converted():
    matrix = symmetric(bulk(5.0, 3.0))
    pair = spectra.top_eigenpair(matrix, v0=torch.ones(len(matrix)), rtol=1e-9)
    assert pair.vector.dtype == torch.float64 and abs(pair.value - 5) < 1e-8


def test_pyhessian_refuses_an_operator_without_a_model():
    with pytest.raises(ValueError, match=r"ijrlib\.operators\.hessian"):
        spectra.top_eigenpair(torch.eye(4), method="pyhessian")


def test_hutchinsons_estimates_of_a_diagonal_matrix_are_exact():
    """vᵀAv = Σ_i A_ii v_i² = tr A and ‖Av‖² = Σ_i A_ii² for every vector of signs."""
    diagonal = torch.linspace(-1, 3, 40, dtype=torch.float64)
    found = spectra.hutchinson(torch.diag(diagonal), samples=3)
    assert found.trace == pytest.approx(float(diagonal.sum()), abs=1e-12)
    assert found.frobenius_sq == pytest.approx(float(diagonal.square().sum()), rel=1e-12)
    assert found.trace_error < 1e-12 and found.frobenius_sq_error < 1e-12


def test_hutchinsons_errors_are_those_of_its_means():
    """Var vᵀAv = 2·Σ_{i≠j} A_ij², and of ‖Av‖² = vᵀA²v the same of A²; the means of 4,000 samples
    are within four standard errors."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    a = a + a.T
    found = spectra.hutchinson(a, samples=4000, seed=1)
    for matrix, value, error in (
        (a, found.trace, found.trace_error),
        (a @ a, found.frobenius_sq, found.frobenius_sq_error),
    ):
        off = matrix - torch.diag(matrix.diagonal())
        expected = float((2 * off.square().sum()).sqrt()) / 4000**0.5
        assert error == pytest.approx(expected, rel=0.1)  # of a variance from 4,000 samples: 2%
        assert abs(value - float(matrix.trace())) < 4 * expected


def test_estimates_from_one_sample_are_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        spectra.hutchinson(torch.eye(3), samples=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_with_what_is_expected(dtype):
    """From m = 165 on nothing is told from the span of the basis: the search never ended."""
    op = torch.eye(170, dtype=dtype)
    message = f"op: expected numbers in float32 or float64, got {dtype}"
    for method in ("lanczos", "power", "pyhessian"):
        with pytest.raises(ValueError, match=message):
            spectra.top_eigenpair(op, method=method)
    with pytest.raises(ValueError, match=message):
        spectra.top_eigenpairs(op, 2)


@pytest.mark.parametrize(("known", "products"), [((0, 2), 2), ((0, 1, 2), 3), ((2, 0), 2)])
def test_every_start_vector_is_asked_before_a_pair_is_believed(known, products):
    """The first one here is an eigenvector, with a residual of 0, and not that of the largest."""
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=torch.float64))
    pair = spectra.top_eigenpair(matrix, v0=torch.eye(4, dtype=torch.float64)[:, known])
    assert (pair.value, pair.residual, pair.products) == (3.0, 0.0, products)


def test_more_start_vectors_than_the_basis_has_room_for_are_all_asked():
    m = spectra.BASIS + 40
    matrix = torch.diag(torch.arange(m, dtype=torch.float64))
    pair = spectra.top_eigenpair(matrix, v0=torch.eye(m, dtype=torch.float64))
    assert pair.value == pytest.approx(m - 1, rel=1e-12) and pair.products == m


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_columns_of_start_vectors_that_are_zero_or_not_finite_are_left_out(method):
    matrix = symmetric(bulk(5.0, 3.0))
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    columns = torch.stack([0 * top, top * torch.nan, top, torch.ones_like(top)], dim=1)
    pair = spectra.top_eigenpair(matrix, v0=columns, method=method)
    assert pair.products == (2 if method == "lanczos" else 1)
    assert pair.converged and abs(pair.value - 5) < 1e-12
    with pytest.raises(ValueError, match="finite vector other than zero"):
        spectra.top_eigenpair(matrix, v0=columns[:, :2], method=method)


@pytest.mark.parametrize("method", ["lanczos", "power"])
@pytest.mark.parametrize("v0", [torch.tensor(1.0), torch.ones(4, 1, 1), torch.ones(1, 4)])
def test_start_vectors_of_another_shape_are_refused(v0, method):
    with pytest.raises(ValueError, match=r"expected shape \(4,\) or \(4, b\), got"):
        spectra.top_eigenpair(torch.eye(4), v0=v0, method=method)
    with pytest.raises(ValueError, match="finite vector other than zero"):
        spectra.top_eigenpair(torch.eye(4), v0=torch.ones(4, 0), method=method)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-20, 1e-18, 1e-10, 1.0, 1e18, 1e19, 1e30])
def test_a_norm_is_right_where_its_squares_leave_the_range_of_the_type(scale):
    generator = torch.Generator().manual_seed(0)
    v = (scale * torch.randn(300, generator=generator, dtype=torch.float64)).float()
    exact = float(v.double().norm())
    # 300 roundings of 2^-24, half of that for the root
    assert float(spectra.norm(v)) == pytest.approx(exact, rel=200 * 2.0**-24)
    if 1e-17 < scale < 1e17:
        assert torch.equal(spectra.norm(v), v.norm())
    for entry in (0.0, torch.inf, torch.nan):
        found = spectra.norm(torch.full((3,), entry))
        torch.testing.assert_close(found, torch.tensor(entry), equal_nan=True)


@pytest.mark.parametrize("scale", [1e-24, 1e-22, 1e-20, 1e-18, 1e18, 1e22])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_a_small_or_large_single_precision_operator_is_not_certified_falsely(scale, method):
    values = torch.cat([torch.tensor([4.0, 3.0]).double(), torch.linspace(0, 2, 298).double()])
    matrix = (scale * symmetric(values)).float()
    for start in (None, scale * torch.ones(300)):
        pair = spectra.top_eigenpair(matrix, v0=start, rtol=1e-3, method=method)
        x = pair.vector.double()
        true = float((matrix.double() @ x - pair.value * x).norm()) / pair.value
        assert pair.converged and pair.value / scale == pytest.approx(4, rel=1e-5)
        assert pair.residual == pytest.approx(true, abs=300 * 2.0**-24)
