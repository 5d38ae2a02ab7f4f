"""Matrix-free operators against dense autograd in float64, on small networks of each kind."""

import copy
import itertools
import math

import dense
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from ijrlib import operators, per_example, regularizers

LOSSES = ("cross_entropy", "squared")
SYMMETRIC = {"hessian": operators.hessian, "gauss_newton": operators.gauss_newton}
N = 7

every_network = pytest.mark.parametrize("kind", dense.KINDS)
every_loss = pytest.mark.parametrize("loss", LOSSES)
both_operators = pytest.mark.parametrize("name", SYMMETRIC)


def close(ours, expected):
    """Equal up to the rounding of some thousand float64 operations, relative to the norm."""
    scale = max(expected.norm().item(), 1e-3)
    return ours.shape == expected.shape and (ours - expected).norm() < 1e4 * 2**-52 * scale


def expected_matrix(name, model, loss, x, y):
    if name == "hessian":
        return dense.hessian(model, loss, x, y)
    return dense.gauss_newton(model, loss, x)


# --- the matrices --------------------------------------------------------------------------------


@every_loss
@every_network
def test_hessian_products_are_those_of_the_dense_hessian(kind, loss):
    model, (x, y) = dense.network(kind), dense.examples(N)
    op = operators.hessian(model, operators.LOSSES[loss], (x, y))
    assert close(dense.matrix(op), dense.hessian(model, loss, x, y))


@every_loss
@every_network
def test_gauss_newton_products_are_those_of_the_mean_of_j_m_jt(kind, loss):
    model, (x, y) = dense.network(kind), dense.examples(N)
    op = operators.gauss_newton(model, operators.LOSSES[loss], (x, y))
    assert close(dense.matrix(op), dense.gauss_newton(model, loss, x))


@every_network
def test_mean_jacobian_and_its_transpose_are_those_of_the_dense_jacobian(kind):
    model, (x, _) = dense.network(kind), dense.examples(N)
    expected = dense.jacobians(model, x).mean(0)
    op = operators.mean_jacobian(model, x)
    assert op.shape == expected.shape and op.T.shape == expected.T.shape
    assert close(dense.matrix(op), expected)
    assert close(dense.matrix(op.T), expected.T)
    assert close(dense.matrix(op.T.T), expected)


@every_network
def test_the_gram_matrix_of_the_mean_jacobian_is_exact(kind):
    model, (x, _) = dense.network(kind), dense.examples(N)
    expected = dense.jacobians(model, x).mean(0)
    assert close(operators.mean_jacobian_gram(model, x), expected.T @ expected)


@every_network
def test_jacobian_products_are_those_of_every_example(kind):
    model, (x, _) = dense.network(kind), dense.examples(N)
    jacobians = dense.jacobians(model, x)
    v = torch.linspace(-1, 1, jacobians.shape[1], dtype=torch.float64)
    z, products = operators.jacobian_products(model, x, v, chunk=3)
    assert close(z, dense.logits(model, x, dense.parameters(model)))
    assert close(products, v @ jacobians)


@every_loss
@every_network
def test_loss_gradient_and_logits_are_those_of_autograd(kind, loss):
    model, (x, y) = dense.network(kind), dense.examples(N)
    value, gradient, z = operators.loss_and_gradient(model, operators.LOSSES[loss], (x, y), chunk=3)
    expected = dense.logits(model, x, dense.parameters(model))
    assert close(z, expected)
    assert close(value, dense.loss(loss, expected, y))
    assert close(gradient, dense.gradient(model, loss, x, y))


@every_loss
def test_hessian_equals_gauss_newton_where_logits_are_linear_in_the_parameters(loss):
    model, data = dense.network("linear"), dense.examples(N)
    h, g = (dense.matrix(op(model, operators.LOSSES[loss], data)) for op in SYMMETRIC.values())
    assert close(h, g)


@every_loss
def test_the_logit_hessian_product_is_that_of_the_mean_loss(loss):
    z = torch.linspace(-2, 3, 5 * dense.CLASSES, dtype=torch.float64).view(5, dense.CLASSES).cos()
    u, y = z.sin(), torch.arange(5) % dense.CLASSES
    ours = operators.logit_hessian_product(operators.LOSSES[loss], z, y, u)
    expected = (dense.logit_hessians(loss, z) @ u[:, :, None]).squeeze(2) / 5
    assert close(ours, expected)


@both_operators
@every_network
def test_the_matrix_is_symmetric(kind, name):
    model, data = dense.network(kind), dense.examples(N)
    op = SYMMETRIC[name](model, operators.cross_entropy, data, chunk=3)
    u, v = torch.randn(2, op.shape[0], dtype=torch.float64, generator=torch.Generator())
    left, right = op @ u, op @ v
    assert abs(left @ v - right @ u) < 1e4 * 2**-52 * left.norm() * v.norm()


# --- chunks --------------------------------------------------------------------------------------


@both_operators
@every_network
@pytest.mark.parametrize("chunk", [1, 3, N, 1000])
def test_chunked_products_equal_those_of_the_full_batch(kind, name, chunk):
    model, (x, y) = dense.network(kind), dense.examples(N)
    op = SYMMETRIC[name](model, operators.cross_entropy, (x, y), chunk=chunk)
    v = torch.linspace(-1, 1, op.shape[0], dtype=torch.float64)
    assert close(op @ v, expected_matrix(name, model, "cross_entropy", x, y) @ v)


@pytest.mark.parametrize("chunk", [1, 3, N])
def test_the_chunked_mean_jacobian_equals_that_of_the_full_batch(chunk):
    model, (x, _) = dense.network("convolutional, tanh"), dense.examples(N)
    expected = dense.jacobians(model, x).mean(0)
    op = operators.mean_jacobian(model, x, chunk=chunk)
    assert close(dense.matrix(op), expected)
    assert close(dense.matrix(op.T), expected.T)
    assert close(operators.mean_jacobian_gram(model, x, chunk=chunk), expected.T @ expected)


def test_no_forward_pass_sees_more_than_a_chunk():
    model, (x, y) = dense.network("convolutional, tanh"), dense.examples(N)
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    v = torch.ones_like(dense.parameters(model))
    for build in SYMMETRIC.values():
        _ = build(model, operators.squared, (x, y), chunk=3) @ v
    jacobian = operators.mean_jacobian(model, x, chunk=3)
    _ = jacobian @ torch.ones(dense.CLASSES, dtype=torch.float64), jacobian.T @ v
    operators.mean_jacobian_gram(model, x, chunk=3)
    operators.loss_and_gradient(model, operators.squared, (x, y), chunk=3)
    operators.jacobian_products(model, x, v, chunk=3)
    assert set(sizes) == {1, 3}


@both_operators
@pytest.mark.parametrize("container", ["list", "generator", "loader"])
def test_an_iterable_of_chunks_serves_as_data(name, container):
    model, (x, y) = dense.network("fully connected, tanh"), dense.examples(N)
    pairs = [(x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:])]
    data = {
        "list": pairs,
        "generator": (pair for pair in pairs),
        "loader": DataLoader(TensorDataset(x, y), batch_size=3),
    }[container]
    state = torch.get_rng_state()
    op = SYMMETRIC[name](model, operators.cross_entropy, data)
    assert torch.equal(torch.get_rng_state(), state)  # of which a loader takes a seed
    v = torch.linspace(-1, 1, op.shape[0], dtype=torch.float64)
    expected = expected_matrix(name, model, "cross_entropy", x, y) @ v
    assert close(op @ v, expected)
    assert close(op @ v, expected)  # a generator is not used up


def test_two_chunks_of_two_examples_are_not_taken_for_a_pair_of_tensors():
    model, (x, y) = dense.network("fully connected, tanh"), dense.examples(4)
    pairs = ((x[:2], y[:2]), (x[2:], y[2:]))
    op = operators.hessian(model, operators.cross_entropy, pairs)
    assert close(dense.matrix(op), dense.hessian(model, "cross_entropy", x, y))


@every_network
def test_the_cached_hessian_equals_the_fresh_one_product_after_product(kind):
    model, (x, y) = dense.network(kind), dense.examples(N)
    op = operators.hessian(model, operators.cross_entropy, (x, y), chunk=3, cache=True)
    assert close(dense.matrix(op), dense.hessian(model, "cross_entropy", x, y))


# --- models out of the ordinary ------------------------------------------------------------------


@both_operators
def test_frozen_parameters_are_no_part_of_theta(name):
    model, (x, y) = dense.network("convolutional, tanh"), dense.examples(N)
    next(model.parameters()).requires_grad_(False)
    op = SYMMETRIC[name](model, operators.cross_entropy, (x, y))
    expected = expected_matrix(name, model, "cross_entropy", x, y)
    assert op.shape == expected.shape
    assert close(dense.matrix(op), expected)


@both_operators
def test_a_shared_parameter_counts_once(name):
    shared = nn.Linear(8, 8).double()
    head = nn.Linear(8, dense.CLASSES).double()
    model = nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared, nn.Tanh(), head)
    x, y = dense.examples(N)

    def logits(theta):  # written out, without functional_call
        w, b, w2, b2 = theta.split([64, 8, 8 * dense.CLASSES, dense.CLASSES])
        h = x.flatten(1)
        for _ in range(2):
            h = torch.tanh(h @ w.view(8, 8).T + b)
        return h @ w2.view(dense.CLASSES, 8).T + b2

    theta = dense.parameters(model)
    j = torch.autograd.functional.jacobian(logits, theta).transpose(1, 2)
    expected = {
        "hessian": torch.autograd.functional.hessian(
            lambda theta: dense.loss("cross_entropy", logits(theta), y), theta
        ),
        "gauss_newton": (
            j @ dense.logit_hessians("cross_entropy", logits(theta)) @ j.transpose(1, 2)
        ).mean(0),
    }[name]
    assert close(dense.matrix(SYMMETRIC[name](model, operators.cross_entropy, (x, y))), expected)


@both_operators
def test_a_parameter_that_the_logits_ignore_has_zero_rows(name):
    model, (x, y) = dense.network("fully connected, tanh"), dense.examples(N)
    expected = expected_matrix(name, model, "cross_entropy", x, y)
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    matrix = dense.matrix(SYMMETRIC[name](model, operators.cross_entropy, (x, y)))
    order = [*range(2, len(matrix)), 0, 1]  # the model's own parameters come first
    assert close(matrix[order][:, order], nn.functional.pad(expected, (0, 2, 0, 2)))


@both_operators
def test_batch_statistics_of_a_model_in_training_mode_are_differentiated(name):
    model, (x, y) = dense.network("batch normalization").train(), dense.examples(N)
    op = SYMMETRIC[name](model, operators.cross_entropy, (x, y))
    # J couples the examples of a batch here; H and J M Jᵀ summed over z's entries still hold
    theta = dense.parameters(model)
    j = torch.autograd.functional.jacobian(lambda t: dense.logits(model, x, t), theta)
    m = torch.block_diag(*dense.logit_hessians("cross_entropy", dense.logits(model, x, theta)))
    expected = {
        "hessian": dense.hessian(model, "cross_entropy", x, y),
        "gauss_newton": j.flatten(0, 1).T @ m @ j.flatten(0, 1) / N,
    }[name]
    assert close(dense.matrix(op), expected)


class Viewed(nn.Module):
    """Flattens images of shape (3, 6, 6) with ``view``, at the input or after a convolution as
    PyTorch's tutorials do: neither takes images with channels last."""

    def __init__(self, convolutional):
        super().__init__()
        self.features = nn.Identity()
        if convolutional:
            self.features = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.MaxPool2d(2))
        self.size = 2 * 2 * 2 if convolutional else 3 * 6 * 6
        self.head = nn.Sequential(nn.Linear(self.size, 2), nn.Tanh(), nn.Linear(2, dense.CLASSES))

    def forward(self, x):
        return self.head(self.features(x).view(-1, self.size))


def coloured(n=N):
    x = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x, torch.arange(n) % dense.CLASSES


def agree_with_dense_matrices(model, x, y):
    """Every operator, with and without kept graphs, against whole matrices."""
    loss, v = operators.cross_entropy, torch.linspace(-1, 1, len(dense.parameters(model))).double()
    with sdpa_kernel(SDPBackend.MATH):  # its fused forms have no second derivative
        hessian = dense.hessian(model, "cross_entropy", x, y)
        newton = dense.gauss_newton(model, "cross_entropy", x)
        jacobian = dense.jacobians(model, x).mean(0)
    assert close(dense.matrix(operators.hessian(model, loss, (x, y), chunk=3)), hessian)
    assert close(dense.matrix(operators.gauss_newton(model, loss, (x, y), chunk=3)), newton)
    assert close(operators.mean_jacobian_gram(model, x, chunk=3), jacobian.T @ jacobian)
    for cache_bytes in (0, operators.CACHE_BYTES):
        linear = operators.linearize(model, loss, (x, y), chunk=3, cache_bytes=cache_bytes)
        assert close(linear.hessian @ v, hessian @ v)
        assert close(linear.gauss_newton @ v, newton @ v)
        assert close(linear.mean_jacobian.T @ v, jacobian.T @ v)
    along = operators.curvatures_along(model, loss, (x, y), v, chunk=3)
    assert close(along.mean(), v @ hessian @ v)


@pytest.mark.parametrize("convolutional", [False, True])
def test_a_model_that_flattens_with_view_is_taken_as_it_is(convolutional):
    torch.manual_seed(0)
    agree_with_dense_matrices(Viewed(convolutional).double(), *coloured())


def test_images_go_through_with_channels_last_where_the_model_takes_them():
    x, y = coloured()
    seen = []

    def layouts(model):
        seen.clear()
        model.register_forward_pre_hook(
            lambda _, inputs: seen.append(
                inputs[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
        operators.loss_and_gradient(model.double(), operators.cross_entropy, (x, y), chunk=3)
        return seen

    assert layouts(nn.Sequential(nn.Flatten(), nn.Linear(108, dense.CLASSES))) == [True] * 3
    assert layouts(Viewed(False)) == [True] + [False] * 3  # tried once


def test_an_error_of_the_model_itself_is_raised_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        operators.mean_jacobian(
            nn.Sequential(nn.Flatten(), nn.Linear(7, 3)).double(), coloured()[0]
        )
    assert caught.value.__context__ is None


class Encoder(nn.Module):
    """One layer of PyTorch's transformer, which has a fused form for evaluation."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(4, dense.CLASSES)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def attention():
    """The switches of its fused forms."""
    return torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()


def test_a_transformer_is_differentiated_through_the_formula_of_attention():
    torch.manual_seed(0)
    model = Encoder().double().eval()
    x = torch.randn(N, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    agree_with_dense_matrices(model, x, torch.arange(N) % dense.CLASSES)
    with pytest.raises(AssertionError, match="embedding dimension"):
        operators.mean_jacobian(model, x[:, :, :3])
    assert attention() == (True, True)


def test_a_single_precision_product_agrees_up_to_single_rounding():
    model, (x, y) = dense.network("convolutional, tanh"), dense.examples(N)
    expected = dense.hessian(model, "cross_entropy", x, y)
    op = operators.hessian(model.float(), operators.cross_entropy, (x.float(), y))
    matrix = dense.matrix(op)
    assert matrix.dtype == torch.float32
    # some hundred operations of relative rounding 2^-24 each, accumulated without cancellation
    assert (matrix - expected).norm() < 300 * 2**-24 * expected.norm()


# --- nothing is left behind ----------------------------------------------------------------------


def measure_everything(model, x, y):
    """Use every operator once and return all numbers."""
    v = torch.linspace(-1, 1, len(dense.parameters(model)), dtype=torch.float64)
    u = torch.linspace(-1, 1, dense.CLASSES, dtype=torch.float64)
    data, loss = (x, y), operators.cross_entropy
    jacobian = operators.mean_jacobian(model, x, chunk=3)
    return [
        operators.hessian(model, loss, data, chunk=3) @ v,
        operators.hessian(model, loss, data, chunk=3, cache=True) @ v,
        operators.gauss_newton(model, loss, data, chunk=3) @ v,
        jacobian @ u,
        jacobian.T @ v,
        operators.mean_jacobian_gram(model, x, chunk=3),
        *operators.jacobian_products(model, x, v, chunk=3),
        *operators.loss_and_gradient(model, loss, data, chunk=3),
    ]


@pytest.mark.parametrize("cache", [False, True])
def test_a_loss_that_is_linear_in_the_logits_has_curvature_in_the_network_alone(cache):
    def margin(z, y):
        return (1 - z.gather(1, y[:, None])).mean()

    model, (x, y) = dense.network("fully connected, tanh"), dense.examples(9)
    u = torch.ones(9, dense.CLASSES, dtype=torch.float64)
    assert not operators.logit_hessian_product(margin, u, y, u).any()
    assert not (operators.gauss_newton(model, margin, (x, y)) @ dense.parameters(model)).any()
    expected = torch.autograd.functional.hessian(
        lambda theta: margin(dense.logits(model, x, theta), y), dense.parameters(model)
    )
    assert close(dense.matrix(operators.hessian(model, margin, (x, y), cache=cache)), expected)


def test_logits_in_another_precision_than_the_parameters_are_refused():
    class Cast(nn.Sequential):
        def forward(self, x):
            return super().forward(x).bfloat16()

    model, data = Cast(dense.network("linear")), dense.examples(5)
    with pytest.raises(ValueError, match=r"logits in torch\.float64, .*got torch\.bfloat16"):
        operators.linearize(model, operators.cross_entropy, data)


def stochastic():
    model = dense.network("batch normalization")
    model.insert(5, nn.Dropout(0.5))  # before the head
    return model


class Padded(nn.Module):
    """Words, of which the first stands for nothing and is not trained."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 4, padding_idx=0)
        self.head = nn.Linear(4, dense.CLASSES)

    def forward(self, x):
        return self.head(self.words(x).mean(1).tanh())


def test_a_row_of_an_embedding_for_padding_is_constant_in_every_product():
    torch.manual_seed(0)
    model, loss = Padded().double(), operators.cross_entropy
    with torch.no_grad():
        model.words.weight[0] = 0.5  # not trivial
    x = torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 1], [2, 0, 0, 0], [6, 3, 0, 0]])
    y = torch.arange(5) % dense.CLASSES
    newton = dense.gauss_newton(model, "cross_entropy", x)
    hessian = dense.hessian(model, "cross_entropy", x, y)
    assert not newton[:4].any() and newton[4:].any()
    assert close(dense.matrix(operators.gauss_newton(model, loss, (x, y))), newton)
    jacobian = dense.jacobians(model, x).mean(0)
    v = torch.linspace(-1, 1, len(hessian)).double()
    assert close(operators.mean_jacobian(model, x).T @ v, jacobian.T @ v)
    along = operators.curvatures_along(model, loss, (x, y), v)
    assert close(along.mean(), v @ hessian @ v)
    for cache_bytes in (0, operators.CACHE_BYTES):
        linear = operators.linearize(model, loss, (x, y), cache_bytes=cache_bytes)
        assert close(dense.matrix(linear.gauss_newton), newton)
        assert close(dense.matrix(linear.hessian), hessian)


class Recurrent(nn.Module):
    """PyTorch's LSTM, which oneDNN computes in single precision."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, dense.CLASSES)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def test_a_recurrent_layer_in_single_precision_is_differentiated_in_forward_mode():
    torch.manual_seed(0)
    model, loss = Recurrent(), operators.cross_entropy
    x, y = torch.randn(8, 4, 3), torch.arange(8) % dense.CLASSES
    v = torch.randn(len(dense.parameters(model)))
    double = copy.deepcopy(model).double()
    expected = operators.jacobian_products(double, x.double(), v.double())[1]
    found = operators.jacobian_products(model, x, v)[1]
    # some hundred operations of relative rounding 2^-24 each
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.norm()))
    along = operators.curvatures_along(model, loss, (x, y), v)
    hessian = operators.hessian(double, loss, (x.double(), y))
    assert float(along.mean()) == pytest.approx(
        float(v.double() @ (hessian @ v.double())), rel=1e-3
    )


@every_network
def test_a_model_that_changes_its_input_in_place_is_measured_at_the_input_as_given(kind):
    x, y = dense.examples(N)
    given = x.clone()
    found = measure_everything(dense.DoubledInPlace(dense.network(kind)), x, y)
    assert torch.equal(x, given)
    for ours, expected in zip(
        found, measure_everything(dense.network(kind), 2 * x, y), strict=True
    ):
        assert close(ours, expected)


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_mode_gradients_buffers_parameters_and_random_state_are_left_as_they_were(mode):
    model, (x, y) = stochastic(), dense.examples(N)
    model.train(mode != "eval")
    if mode == "mixed":
        model[2].eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
    gradients = [parameter.grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    random = torch.random.get_rng_state()
    measure_everything(model, x, y)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad and parameter.grad is gradient
        assert gradient is None or bool((gradient == 7).all())
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_generators_of_gpus_that_do_not_hold_the_model_are_left_alone(monkeypatch):
    model, touched = stochastic().train(), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: touched.append("all"))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: touched.append(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: touched.append(device))
    measure_everything(model, *dense.examples(N))
    assert touched == []


def test_the_global_switch_of_gradients_is_neither_needed_nor_changed():
    model, (x, y) = dense.network("convolutional, tanh"), dense.examples(N)
    expected = measure_everything(model, x, y)
    with torch.no_grad():
        inside = measure_everything(model, x, y)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(inside, expected, strict=True))


def test_the_results_carry_no_graph():
    model, (x, y) = dense.network("convolutional, tanh"), dense.examples(N)
    assert not any(result.requires_grad for result in measure_everything(model, x, y))


@both_operators
def test_dropout_draws_the_same_mask_in_every_product_so_the_matrix_is_symmetric(name):
    model = dense.network("fully connected, tanh")
    model.insert(3, nn.Dropout(0.5))
    model.train()
    x, y = dense.examples(N)
    op = SYMMETRIC[name](model, operators.cross_entropy, (x, y), chunk=3)
    matrix = dense.matrix(op)
    assert close(matrix, matrix.T)
    torch.rand(5)
    assert torch.equal(dense.matrix(op), matrix)
    model.eval()
    assert not close(matrix, expected_matrix(name, model, "cross_entropy", x, y))  # it did drop


def test_dropout_masks_of_different_chunks_differ():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, dense.CLASSES)).double()
    x = torch.ones(6, 1, 2, 4, dtype=torch.float64)
    v = torch.ones_like(dense.parameters(model))
    _, products = operators.jacobian_products(model, x, v, chunk=1)
    assert len(products.unique(dim=0)) > 1


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, -1])
def test_a_vector_of_the_wrong_length_is_refused_with_both_shapes(size):
    model, (x, y) = dense.network("linear"), dense.examples(N)
    m = len(dense.parameters(model))
    jacobian = operators.mean_jacobian(model, x)
    squares = [op(model, operators.squared, (x, y)) for op in SYMMETRIC.values()]
    for op, length in itertools.chain(((op, m) for op in [*squares, jacobian.T]), [(jacobian, 3)]):
        with pytest.raises(ValueError, match=rf"\({length},\).*\({length + size},\)"):
            _ = op @ torch.ones(length + size, dtype=torch.float64)
    v, data = torch.ones(m + size, dtype=torch.float64), (x, y)
    for products in (
        lambda: operators.jacobian_products(model, x, v),
        lambda: operators.curvatures_along(model, operators.squared, data, v),
        lambda: next(operators.losses_along(model, operators.squared, data, v, [0.1])),
    ):
        with pytest.raises(ValueError, match=rf"\({m},\).*\({m + size},\)"):
            products()


@both_operators
def test_inputs_and_labels_of_different_length_are_refused_with_both(name):
    x, y = dense.examples(N)
    with pytest.raises(ValueError, match=r"7.*6"):
        SYMMETRIC[name](dense.network("linear"), operators.squared, (x, y[:-1]))


@both_operators
def test_empty_data_is_refused(name):
    x, y = dense.examples(N)
    for data in ((x[:0], y[:0]), [], iter(())):
        with pytest.raises(ValueError, match="expected"):
            SYMMETRIC[name](dense.network("linear"), operators.squared, data)
    for inputs in (x[:0], []):
        with pytest.raises(ValueError, match="expected"):
            operators.mean_jacobian(dense.network("linear"), inputs)


@both_operators
def test_an_empty_pair_is_refused_with_the_lengths(name):
    x, y = dense.examples(N)
    for data, lengths in (([(x, y), (x[:0], y[:0])], "7, 0"), ([(x[:0], y[:0])], "0")):
        with pytest.raises(ValueError, match=rf"at least one example in each .*\[{lengths}\]"):
            SYMMETRIC[name](dense.network("linear"), operators.squared, data)
        with pytest.raises(ValueError, match=rf"at least one example in each .*\[{lengths}\]"):
            operators.loss_and_gradient(dense.network("linear"), operators.squared, data)


def test_a_data_set_of_single_examples_is_refused():
    data = torch.utils.data.TensorDataset(*dense.examples(N))
    with pytest.raises(ValueError, match="mini-batches, got single examples"):
        operators.hessian(dense.network("linear"), operators.squared, data)


CHUNKED = (*SYMMETRIC.values(), operators.linearize, operators.loss_and_gradient)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_reduction_that_is_no_mean_is_refused(reduction):
    model, (x, y) = dense.network("linear"), dense.examples(N)
    loss = nn.CrossEntropyLoss(reduction=reduction)
    for measurement in CHUNKED:
        with pytest.raises(ValueError, match=f"mean over examples, got reduction='{reduction}'"):
            measurement(model, loss, (x, y))
    with pytest.raises(ValueError, match=f"mean over examples, got reduction='{reduction}'"):
        regularizers.plain(model, loss, x, y, chunk=3)


@pytest.mark.parametrize(
    "data", [lambda x, y: (x, y), lambda x, y: [(x[:3], y[:3]), (x[3:], y[3:])]]
)
@pytest.mark.parametrize("measurement", [operators.linearize, operators.loss_and_gradient])
def test_a_loss_whose_mean_over_chunks_is_another_is_refused(measurement, data):
    model, (x, y) = dense.network("linear"), dense.examples(N)
    given = data(x, y)
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 20.0]).double())
    ignoring = nn.CrossEntropyLoss(ignore_index=int(y[0]))
    for loss in (weighted, ignoring):
        with pytest.raises(ValueError, match=r"plain mean over examples, got .* at least 7"):
            measurement(model, loss, given, chunk=3)
        found = measurement(model, loss, (x, y), chunk=N)
        value = found.loss if measurement is operators.linearize else found[0]
        assert value == pytest.approx(loss(model(x), y).item())
    with pytest.raises(ValueError, match="expected a mean over examples, got a sum"):
        measurement(model, lambda z, y: (z - y[:, None]).square().sum(), given, chunk=3)


@pytest.mark.parametrize("names", [("x", "y"), ("image", "label")])
def test_pairs_of_anything_but_tensors_are_refused(names):
    batch = dict(zip(names, dense.examples(N), strict=True))
    for op in (operators.hessian, operators.loss_and_gradient):
        with pytest.raises(ValueError, match=r"expected a pair of tensors \(x, y\)"):
            op(dense.network("linear"), operators.squared, [batch])


@pytest.mark.parametrize("wrapped", [lambda z: (z, None), lambda z: {"logits": z}])
def test_logits_that_are_no_tensor_are_refused_with_their_type(wrapped):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = dense.network("linear")

        def forward(self, x):
            return wrapped(self.model(x))

    model, (x, y), loss = Wrapped(), dense.examples(N), operators.squared
    for measurement in (
        lambda: operators.linearize(model, loss, (x, y)),
        lambda: operators.gauss_newton(model, loss, (x, y)) @ torch.ones(27).double(),
        lambda: operators.mean_jacobian(model, x),
        lambda: per_example.jacobian_grams(model, x),
        lambda: regularizers.jacobian_penalty(model(x), model.parameters()),
    ):
        with pytest.raises(ValueError, match=r"expected logits as a tensor, got (tuple|dict)"):
            measurement()


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_below_1_is_refused(chunk):
    model, (x, y) = dense.network("linear"), dense.examples(N)
    for op in (*SYMMETRIC.values(), operators.linearize, operators.loss_and_gradient):
        with pytest.raises(ValueError, match=f"chunk: expected at least 1, got {chunk}"):
            op(model, operators.squared, (x, y), chunk=chunk)
    for op in (operators.mean_jacobian, operators.mean_jacobian_gram):
        with pytest.raises(ValueError, match=f"chunk: expected at least 1, got {chunk}"):
            op(model, x, chunk=chunk)


def test_a_model_without_trainable_parameters_is_refused():
    model = dense.network("linear").requires_grad_(False)
    with pytest.raises(ValueError, match="trainable parameters"):
        operators.hessian(model, operators.squared, dense.examples(N))


def test_logits_that_are_no_matrix_are_refused_with_their_shape():
    with pytest.raises(ValueError, match=r"\(examples, classes\).*\(7, 1, 2, 3\)"):
        operators.mean_jacobian(nn.Linear(4, 3).double(), dense.examples(N)[0])


def test_parameters_of_two_precisions_are_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double())
    with pytest.raises(ValueError, match=r"float32.*float64|float64.*float32"):
        operators.hessian(model, operators.squared, dense.examples(N))


# --- the covariance of gradients, and along a direction ------------------------------------------


def gradients(kind, loss="cross_entropy", n=N):
    model, (x, y) = dense.network(kind), dense.examples(n)
    rows = [dense.gradient(model, loss, x[i : i + 1], y[i : i + 1]) for i in range(n)]
    return model, x, y, torch.stack(rows)


def covariance(rows):
    deviations = rows - rows.mean(0)
    return deviations.T @ deviations / len(rows)


def reconstructed(found):
    vectors = found.eigenvectors(len(found.eigenvalues))
    return vectors * found.eigenvalues @ vectors.T


@every_loss
@every_network
def test_the_covariance_of_single_gradients_is_exact(kind, loss):
    model, x, y, rows = gradients(kind, loss)
    found = operators.gradient_covariance(model, operators.LOSSES[loss], (x, y))
    assert close(reconstructed(found), covariance(rows))
    assert found.trace == pytest.approx(float(covariance(rows).trace()))
    assert (found.eigenvalues.diff() <= 0).all()


def test_eigenvectors_of_the_covariance_are_orthonormal_where_the_eigenvalue_is_not_zero():
    model, x, y, _ = gradients("fully connected, tanh")
    found = operators.gradient_covariance(model, operators.cross_entropy, (x, y))
    vectors = found.eigenvectors(N)
    assert close(vectors[:, : N - 1].T @ vectors[:, : N - 1], torch.eye(N - 1).double())
    assert not vectors[:, N - 1].any()


def test_the_covariance_from_mini_batches_is_right_on_average_over_all_orders():
    """The factor (N − M)/(M(N − 1)): the mean over all 720 orders of six examples, in two
    mini-batches of three and in three of two."""
    model, x, y, rows = gradients("fully connected, tanh", n=6)
    for batch_size in (2, 3):
        total = 0.0
        for order in itertools.permutations(range(6)):
            index = torch.tensor(order)
            found = operators.gradient_covariance(
                model, operators.cross_entropy, (x[index], y[index]), batch_size=batch_size
            )
            total = total + reconstructed(found) / 720
        assert close(total, covariance(rows))


def test_examples_beyond_the_last_full_mini_batch_are_left_out():
    model, x, y, _ = gradients("fully connected, tanh")
    loss = operators.cross_entropy
    found = operators.gradient_covariance(model, loss, (x, y), batch_size=3)
    without = operators.gradient_covariance(model, loss, (x[:6], y[:6]), batch_size=3)
    assert torch.equal(found.eigenvalues, without.eigenvalues)


@pytest.mark.parametrize("scale", [1e25, float("inf")])
def test_the_covariance_of_gradients_beyond_the_range_of_squares_is_nan(scale):
    model, (x, y) = dense.network("linear").float(), dense.examples(N)
    found = operators.gradient_covariance(
        model, lambda z, y: scale * operators.squared(z, y), (x.float(), y)
    )
    assert found.eigenvalues.isnan().all() and math.isnan(found.trace)


@pytest.mark.parametrize("batch_size", [0, 4, N])
def test_a_batch_size_of_which_there_are_not_two_is_refused(batch_size):
    model, x, y, _ = gradients("fully connected, tanh")
    with pytest.raises(ValueError, match=f"at most half of {N} examples, got {batch_size}"):
        operators.gradient_covariance(model, operators.cross_entropy, (x, y), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_gradients_of_inputs_and_labels_of_different_number_are_refused(batch_size):
    """Also where the surplus would be left out."""
    model, x, y, _ = gradients("fully connected, tanh")
    with pytest.raises(ValueError, match="one positive length, got 7 and 6"):
        operators.gradient_covariance(
            model, operators.cross_entropy, (x, y[:6]), batch_size=batch_size
        )


def test_the_covariance_of_anything_but_a_mean_over_a_pair_of_tensors_is_refused():
    model, x, y, _ = gradients("fully connected, tanh")
    with pytest.raises(ValueError, match="expected a mean over examples, got reduction='sum'"):
        operators.gradient_covariance(model, nn.CrossEntropyLoss(reduction="sum"), (x, y))
    for data in ([(x, y)], (x, y.numpy())):
        with pytest.raises(ValueError, match=r"data: expected a pair of tensors \(x, y\), got"):
            operators.gradient_covariance(model, operators.cross_entropy, data)
    with pytest.raises(ValueError, match=r"at most half of 7 examples, got 2\.5"):
        operators.gradient_covariance(model, operators.cross_entropy, (x, y), batch_size=2.5)


def test_inputs_with_labels_and_labels_that_are_no_tensor_are_refused():
    model, (x, y) = dense.network("linear"), dense.examples(N)
    with pytest.raises(ValueError, match="expected inputs alone, as tensors without labels; got"):
        operators.mean_jacobian_gram(model, [(x, y)])
    with pytest.raises(ValueError, match=r"a pair of tensors \(x, y\), got y as list"):
        operators.hessian(model, operators.cross_entropy, (x, y.tolist()))


@every_loss
@every_network
def test_curvatures_along_a_direction_are_those_of_each_examples_hessian(kind, loss):
    model, (x, y) = dense.network(kind), dense.examples(N)
    v = torch.randn(len(dense.parameters(model)), generator=torch.Generator().manual_seed(3))
    v = v.double()
    expected = torch.stack(
        [v @ dense.hessian(model, loss, x[i : i + 1], y[i : i + 1]) @ v for i in range(N)]
    )
    found = operators.curvatures_along(model, operators.LOSSES[loss], (x, y), v, chunk=3)
    assert close(found, expected)


def test_curvatures_along_a_direction_where_examples_are_normalized_together_are_right_on_average():
    model, (x, y) = dense.network("batch normalization").train(), dense.examples(N)
    v = torch.linspace(-1, 1, len(dense.parameters(model))).double()
    found = operators.curvatures_along(model, operators.cross_entropy, (x, y), v)
    assert close(found.mean(), v @ dense.hessian(model, "cross_entropy", x, y) @ v)


class Direct(nn.Module):
    """Normalization by a function of ``torch`` itself, behind a layer."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, dense.CLASSES)

    def forward(self, x):
        x = self.layer(x.flatten(1)).unflatten(1, (2, 4))
        if self.kind == "layer":
            x = torch.layer_norm(x, (4,))
        elif self.kind == "batch":
            x = torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)
        elif self.kind == "instance":
            x = torch.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, False)
        else:
            x = torch.group_norm(x, 1)
        return self.head(x.flatten(1))


@pytest.mark.parametrize("kind", ["layer", "batch", "instance", "group"])
def test_curvatures_along_a_direction_are_right_for_normalization_called_directly(kind):
    torch.manual_seed(0)
    model, (x, y) = Direct(kind).double(), dense.examples(N)
    v = torch.randn(len(dense.parameters(model)), generator=torch.Generator().manual_seed(3))
    v = v.double()
    found = operators.curvatures_along(model, operators.cross_entropy, (x, y), v)
    assert close(found.mean(), v @ dense.hessian(model, "cross_entropy", x, y) @ v)


def test_losses_along_a_direction_are_those_of_moved_parameters():
    model, (x, y) = dense.network("residual"), dense.examples(N)
    theta = dense.parameters(model)
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(4)).double()
    lengths = (0.0, -0.3, 1.5)
    found = operators.losses_along(model, operators.cross_entropy, (x, y), v, lengths, chunk=2)
    for length, value in zip(lengths, found, strict=True):
        z = dense.logits(model, x, theta + length * v)
        assert value == pytest.approx(float(dense.loss("cross_entropy", z, y)), rel=1e-12)
    assert torch.equal(dense.parameters(model), theta)
