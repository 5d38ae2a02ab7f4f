"""Explicit Jacobian regularization against dense Jacobians in float64 and its formulas (§5.2)."""

from itertools import pairwise

import dense
import pytest
import torch
from torch import nn

from ijrlib import operators, regularizers
from ijrlib.operators import cross_entropy

KINDS = pytest.mark.parametrize("kind", dense.KINDS)
CHUNKS = pytest.mark.parametrize("chunk", [7, 3])
TIGHT = {"rtol": 1e-10, "atol": 1e-12}  # sums of float64 in another order


def mean_jacobian(model, x):
    """⟨J⟩, shape (m, C)."""
    return dense.jacobians(model, x).mean(0)


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def unit(seed=0):
    return regularizers.unit_vector(dense.CLASSES, torch.Generator().manual_seed(seed))


def gradient_at(model, theta, x, y, w=None):
    """∇(L + wᵀ⟨z⟩) at a given θ, by automatic differentiation of the definition."""
    theta = theta.clone().requires_grad_()
    z = dense.logits(model, x, theta)
    value = dense.loss("cross_entropy", z, y)
    if w is not None:
        value = value + z.mean(0) @ w
    return torch.autograd.grad(value, theta)[0]


def penalized_gradient(model, x, y, u, weight):
    """∇(L + λ‖⟨J⟩u‖²), ⟨J⟩ being a matrix that is differentiated entry by entry."""

    def value(theta):
        rows = torch.autograd.functional.jacobian(
            lambda t: dense.logits(model, x, t).mean(0), theta, create_graph=True
        )
        penalty = (u @ rows).square().sum()
        return dense.loss("cross_entropy", dense.logits(model, x, theta), y) + weight * penalty

    theta = dense.parameters(model).requires_grad_()
    return torch.autograd.grad(value(theta), theta)[0]


def perturbed(model, direction, rho):
    return dense.parameters(model) + rho * direction / direction.norm()


# -- the estimator ---------------------------------------------------------------------------------


def test_u_is_uniform_on_the_unit_sphere():
    generator = torch.Generator().manual_seed(0)
    u = torch.stack([regularizers.unit_vector(4, generator) for _ in range(10_000)])
    assert u.norm(dim=1).sub(1).abs().max() <= 1e-15
    products = u[:, :, None] * u[:, None, :]
    for values, expected in ((u, 0), (products, torch.eye(4) / 4)):
        error = values.std(0) / len(u) ** 0.5
        assert ((values.mean(0) - expected).abs() <= 4 * error + 1e-15).all()


def test_u_is_a_new_one_each_time_and_of_the_global_generator_where_none_is_given():
    generator = torch.Generator().manual_seed(7)
    expected = [regularizers.unit_vector(4, generator) for _ in range(2)]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = [regularizers.unit_vector(4) for _ in range(2)]
    assert not torch.equal(*found)
    assert all(map(torch.equal, found, expected))


def test_no_direction_of_no_classes():
    with pytest.raises(ValueError, match="classes: expected at least 1, got 0"):
        regularizers.unit_vector(0)


@KINDS
def test_the_penalty_is_the_squared_norm_of_the_mean_jacobian_along_u(kind):
    model = dense.network(kind)
    x, _ = dense.examples(7)
    expected = (mean_jacobian(model, x) @ unit(3)).square().sum()
    generator = torch.Generator().manual_seed(3)
    found = regularizers.jacobian_penalty(model(x), model.parameters(), generator)
    torch.testing.assert_close(found, expected, **TIGHT)


def test_the_penalty_is_that_of_the_trainable_parameters_whether_the_logits_need_them_or_not():
    model = dense.network("fully connected, tanh")
    model[1].weight.requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    x, _ = dense.examples(7)
    expected = (mean_jacobian(model, x) @ unit(3)).square().sum()
    generator = torch.Generator().manual_seed(3)
    found = regularizers.jacobian_penalty(model(x), model.parameters(), generator)
    torch.testing.assert_close(found, expected, **TIGHT)


def test_the_penalty_has_the_type_of_the_logits():
    model = dense.network("fully connected, tanh")
    x, _ = dense.examples(7)
    expected = (mean_jacobian(model, x) @ unit(3)).square().sum()
    generator = torch.Generator().manual_seed(3)
    found = regularizers.jacobian_penalty(model.float()(x.float()), model.parameters(), generator)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_classes_times_the_penalty_estimates_the_frobenius_norm_without_bias():
    model = dense.network("convolutional, tanh")
    x, _ = dense.examples(5)
    exact = mean_jacobian(model, x).square().sum()
    z, generator = model(x), torch.Generator().manual_seed(0)
    draws = torch.stack(
        [
            dense.CLASSES * regularizers.jacobian_penalty(z, model.parameters(), generator).detach()
            for _ in range(2000)
        ]
    )
    standard_error = draws.std() / len(draws) ** 0.5
    assert standard_error < 0.05 * exact, "otherwise the next line says little"
    assert (draws.mean() - exact).abs() <= 4 * standard_error


# -- directions against dense autograd -------------------------------------------------------------


@KINDS
@CHUNKS
def test_the_plain_direction_is_the_gradient(kind, chunk):
    model = dense.network(kind)
    x, y = dense.examples(7)
    found = regularizers.plain(model, cross_entropy, x, y, chunk=chunk)
    expected = dense.gradient(model, "cross_entropy", x, y)
    torch.testing.assert_close(flat(found.gradient), expected, **TIGHT)
    torch.testing.assert_close(found.logits, model(x).detach())
    assert found.loss == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-13)


@KINDS
@CHUNKS
def test_ejr_is_the_gradient_of_the_penalized_loss(kind, chunk):
    model = dense.network(kind)
    x, y = dense.examples(7)
    found = regularizers.ejr(model, cross_entropy, x, y, unit(), weight=0.3, chunk=chunk)
    expected = penalized_gradient(model, x, y, unit(), 0.3)
    torch.testing.assert_close(flat(found.gradient), expected, **TIGHT)
    assert found.loss == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-13)
    torch.testing.assert_close(found.logits, model(x).detach())


@KINDS
def test_the_penalty_added_to_a_loss_gives_the_same_gradient(kind):
    model = dense.network(kind)
    x, y = dense.examples(7)
    z = model(x)
    penalty = regularizers.jacobian_penalty(z, model.parameters(), torch.Generator().manual_seed(0))
    (cross_entropy(z, y) + 0.3 * penalty).backward()
    found = flat(p.grad for p in model.parameters())
    torch.testing.assert_close(found, penalized_gradient(model, x, y, unit(), 0.3), **TIGHT)


@KINDS
@CHUNKS
@pytest.mark.parametrize("mu", [0.0, 0.4])
def test_v1_and_v2_are_the_gradient_at_the_shifted_parameters(kind, chunk, mu):
    model = dense.network(kind)
    x, y = dense.examples(7)
    theta = perturbed(model, mean_jacobian(model, x) @ unit(), 0.5)
    expected = gradient_at(model, theta, x, y, mu * unit())
    found = regularizers.ejr_two_steps(
        model, cross_entropy, x, y, unit(), rho=0.5, mu=mu, chunk=chunk
    )
    torch.testing.assert_close(flat(found.gradient), expected, **TIGHT)
    torch.testing.assert_close(found.logits, model(x).detach())
    assert found.loss == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-13)


@KINDS
@CHUNKS
def test_sam_is_the_gradient_at_the_parameters_shifted_along_the_gradient(kind, chunk):
    model = dense.network(kind)
    x, y = dense.examples(7)
    theta = perturbed(model, dense.gradient(model, "cross_entropy", x, y), 0.5)
    found = regularizers.sam(model, cross_entropy, x, y, rho=0.5, chunk=chunk)
    torch.testing.assert_close(flat(found.gradient), gradient_at(model, theta, x, y), **TIGHT)
    torch.testing.assert_close(found.logits, model(x).detach())
    assert found.loss == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-13)


def test_where_the_mean_jacobian_vanishes_v1_is_the_gradient():
    model = nn.Linear(4, 3, bias=False).double()
    x = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    x, y = torch.cat([x, -x]), torch.tensor([0, 1])
    found = regularizers.ejr_two_steps(model, cross_entropy, x, y, unit(), rho=1.0, chunk=2)
    expected = torch.autograd.grad(cross_entropy(model(x), y), model.weight)[0]
    torch.testing.assert_close(found.gradient[0], expected, **TIGHT)


# -- the expansion, Eqs 40 to 44 -------------------------------------------------------------------


def test_the_first_order_expansion_of_v2_has_an_error_of_second_order():
    """L̃(θ̃) = L̃(θ) + ρ∇Lᵀ⟨J⟩u/‖⟨J⟩u‖ + μρ‖⟨J⟩u‖ + O(ρ²) (Eqs 40 to 43)."""
    model, mu = dense.network("fully connected, tanh"), 0.7
    x, y = dense.examples(7)
    along = mean_jacobian(model, x) @ unit()
    slope = dense.gradient(model, "cross_entropy", x, y) @ along / along.norm() + mu * along.norm()

    def value(theta):
        z = dense.logits(model, x, theta)
        return dense.loss("cross_entropy", z, y) + mu * z.mean(0) @ unit()

    start = value(dense.parameters(model))
    remainders = [
        float(value(perturbed(model, along, rho)) - start - rho * slope)
        for rho in (2.0**-k for k in range(3, 10))
    ]
    ratios = [b / a for a, b in pairwise(remainders)]
    # a quarter for each halving, up to the next order
    assert ratios[-1] == pytest.approx(0.25, rel=0.02)
    assert all(0.15 < r < 0.35 for r in ratios)


def test_on_average_over_u_the_middle_term_vanishes_and_the_last_is_at_most_eq_44s():
    """E‖⟨J⟩u‖ ≤ ‖⟨J⟩‖_F/√C, where Eq 44 has an equality, and half of it at least for C = 3."""
    model = dense.network("fully connected, tanh")
    x, y = dense.examples(7)
    jacobian = mean_jacobian(model, x)
    gradient = dense.gradient(model, "cross_entropy", x, y)
    generator = torch.Generator().manual_seed(0)
    u = torch.stack([regularizers.unit_vector(dense.CLASSES, generator) for _ in range(4000)])
    along = u @ jacobian.T
    length = along.norm(dim=1)
    middle = along @ gradient / length
    assert middle.mean().abs() <= 4 * middle.std() / len(u) ** 0.5
    root = jacobian.norm() / dense.CLASSES**0.5
    assert 0.5 * root < length.mean() <= root + 4 * length.std() / len(u) ** 0.5


# -- leaving the model alone -----------------------------------------------------------------------

DIRECTIONS = {
    "ejr": lambda model, loss, x, y, chunk, **how: regularizers.ejr(
        model, loss, x, y, unit(), weight=0.3, chunk=chunk, **how
    ),
    "v2": lambda model, loss, x, y, chunk, **how: regularizers.ejr_two_steps(
        model, loss, x, y, unit(), rho=0.5, mu=0.1, chunk=chunk, **how
    ),
    "sam": lambda model, loss, x, y, chunk, **how: regularizers.sam(
        model, loss, x, y, rho=0.5, chunk=chunk, **how
    ),
}


def evaluate(name, model, x, y, chunk, **how):
    """One of DIRECTIONS, or the plain one."""
    if name == "plain":
        return regularizers.plain(model, cross_entropy, x, y, chunk=chunk, **how)
    return DIRECTIONS[name](model, cross_entropy, x, y, chunk, **how)


@pytest.mark.parametrize("name", DIRECTIONS)
@CHUNKS
def test_parameters_stay_and_running_statistics_move_as_in_one_pass(name, chunk):
    model, once = (dense.network("batch normalization").train() for _ in range(2))
    x, y = dense.examples(7)
    before = dense.parameters(model).clone()
    DIRECTIONS[name](model, cross_entropy, x, y, chunk)
    for part in x.split(chunk):
        once(part)
    assert torch.equal(dense.parameters(model), before)
    for (key, found), expected in zip(model.named_buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=key)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["plain", *DIRECTIONS])
@CHUNKS
def test_a_batch_stays_as_it_was_though_the_model_changes_its_input_in_place(name, chunk):
    x, y = dense.examples(7)
    given, model = x.clone(), dense.network("fully connected, tanh")
    found = evaluate(name, dense.DoubledInPlace(model), x, y, chunk)
    assert torch.equal(x, given)
    expected = evaluate(name, model, 2 * x, y, chunk)
    torch.testing.assert_close(flat(found.gradient), flat(expected.gradient), **TIGHT)


@pytest.mark.parametrize("name", ["plain", *DIRECTIONS])
@CHUNKS
def test_with_autocast_every_pass_is_in_bfloat16_and_what_comes_out_is_not(name, chunk):
    model = dense.network("fully connected, tanh").float()
    x, y = dense.examples(7)
    seen = []
    model[-1].register_forward_hook(lambda module, inputs, z: seen.append(z.dtype))
    found = evaluate(name, model, x.float(), y, chunk, autocast=True)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in (found.logits, *found.gradient)} == {torch.float32}


@pytest.mark.parametrize("name", ["plain", *DIRECTIONS])
def test_directions_are_found_where_gradients_are_off(name):
    model = dense.network("fully connected, tanh")
    x, y = dense.examples(7)
    expected = evaluate(name, model, x, y, 3)
    with torch.no_grad():
        found = evaluate(name, model, x, y, 3)
        assert not torch.is_grad_enabled()
    assert all(map(torch.equal, found.gradient, expected.gradient))


@pytest.mark.parametrize("name", ["v2", "sam"])
def test_a_pass_that_fails_leaves_the_parameters_as_they_were(name):
    model = dense.network("fully connected, tanh")
    x, y = dense.examples(7)
    before = dense.parameters(model).clone()

    def loss(z, labels):
        if not torch.equal(dense.parameters(model), before):
            raise RuntimeError("at the shifted parameters")
        return cross_entropy(z, labels)

    with pytest.raises(RuntimeError, match="shifted"):
        DIRECTIONS[name](model, loss, x, y, 7)
    assert torch.equal(dense.parameters(model), before)


# -- in a training loop of one's own ---------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.0, 0.4])
def test_backward_adds_the_direction_to_the_gradients(mu):
    model = dense.network("convolutional, ReLU")
    x, y = dense.examples(7)
    direction = regularizers.ejr_two_steps(
        model, cross_entropy, x, y, unit(5), rho=0.5, mu=mu, chunk=7
    )
    for times in (1, 2):
        value = regularizers.backward(
            model,
            cross_entropy,
            x,
            y,
            rho=0.5,
            mu=mu,
            generator=torch.Generator().manual_seed(5),
        )
        found = flat(p.grad for p in model.parameters())
        torch.testing.assert_close(found, times * flat(direction.gradient), **TIGHT)
    assert float(value) == pytest.approx(direction.loss)
    assert not value.requires_grad


@pytest.mark.parametrize("mu", [0.0, 0.4])
def test_backward_is_right_for_a_model_that_changes_its_input_in_place(mu):
    x, y = dense.examples(7)
    plain = dense.network("fully connected, tanh")
    doubling = dense.DoubledInPlace(dense.network("fully connected, tanh"))
    for model, batch in ((plain, 2 * x), (doubling, x)):
        generator = torch.Generator().manual_seed(5)
        regularizers.backward(model, cross_entropy, batch, y, rho=0.5, mu=mu, generator=generator)
    found, expected = (flat(p.grad for p in model.parameters()) for model in (doubling, plain))
    torch.testing.assert_close(found, expected, **TIGHT)


class Named(nn.Module):
    """z of an entry of its input."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model(batch["x"])


def test_backward_takes_a_batch_that_is_no_tensor():
    x, y = dense.examples(7)
    plain, named = dense.network("linear"), Named(dense.network("linear"))
    for model, batch in ((plain, x), (named, {"x": x})):
        generator = torch.Generator().manual_seed(5)
        regularizers.backward(model, cross_entropy, batch, y, rho=0.5, generator=generator)
    found, expected = (flat(p.grad for p in model.parameters()) for model in (named, plain))
    assert torch.equal(found, expected)


class Averaging(nn.Module):
    """Keeps a moving average of its inputs, each time in a new tensor."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.average = 0.9 * self.average + 0.1 * x.mean()
        return self.model(x)


def test_backward_moves_a_buffer_that_is_given_a_new_tensor_once():
    model, once = (Averaging(dense.network("linear")) for _ in range(2))
    x, y = dense.examples(7)
    regularizers.backward(model, cross_entropy, x, y, rho=0.5)
    once(x)
    assert torch.equal(model.average, once.average) and once.average != 0


def test_backward_refuses_logits_of_another_shape():
    x, y = torch.ones(5, 3, 4), torch.zeros(5, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"\(examples, classes\), got \(5, 3, 2\)"):
        regularizers.backward(nn.Linear(4, 2), lambda z, y: z.mean(), x, y, rho=1.0)


def test_backward_refuses_a_sum_and_logits_without_a_graph():
    model, (x, y) = dense.network("linear"), dense.examples(5)
    with pytest.raises(ValueError, match="expected a mean over examples, got reduction='sum'"):
        regularizers.backward(model, nn.CrossEntropyLoss(reduction="sum"), x, y, rho=1.0)
    with torch.no_grad(), pytest.raises(ValueError, match="their graph, got some without"):
        regularizers.backward(model, cross_entropy, x, y, rho=1.0)
    assert all(p.grad is None for p in model.parameters())


class InMapping(nn.Module):
    """Returns its logits as models of language do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"logits": self.model(x), "hidden": x}


def test_backward_takes_the_logits_out_of_what_a_model_returns():
    x, y = dense.examples(7)
    plain, mapping = dense.network("linear"), InMapping(dense.network("linear"))
    for model in (plain, mapping):
        generator = torch.Generator().manual_seed(5)
        regularizers.backward(model, cross_entropy, x, y, rho=0.5, mu=0.1, generator=generator)
    found, expected = (flat(p.grad for p in model.parameters()) for model in (mapping, plain))
    assert torch.equal(found, expected)
    with pytest.raises(
        ValueError, match=r"expected logits, or an object or a mapping .* got tuple"
    ):
        regularizers.backward(nn.LSTM(4, 3).double(), cross_entropy, x[:, 0], y, rho=0.5)


class Attending(nn.Module):
    """A layer of a transformer without dropout, which takes the fused attention."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, dense.CLASSES)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


def weight_normalized():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, dense.CLASSES))
    return nn.Sequential(nn.Flatten(), nn.Tanh(), layer)


@pytest.mark.parametrize("make", [Attending, weight_normalized])
def test_the_penalty_of_a_fused_function_is_refused_or_right_within_the_context(make):
    torch.manual_seed(0)
    model = make().double()
    x = torch.randn(6, 2, 4, dtype=torch.float64)

    def penalty():
        generator = torch.Generator().manual_seed(5)
        with operators.twice_differentiable():
            z = model(x)
        return regularizers.jacobian_penalty(z, model.parameters(), generator)

    with pytest.raises(ValueError, match=r"twice_differentiable\(\), got \w+Backward"):
        regularizers.jacobian_penalty(model(x), model.parameters())
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(penalty(), parameters, materialize_grads=True)
    direction = [torch.randn_like(p) for p in parameters]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * 1e-5 * d
        values.append(penalty().item())
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * 1e-5 * d
    expected = sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True))
    # central differences: their error is of the order of the square of the step
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


def test_backward_serves_any_optimizer_and_moves_running_statistics_once():
    """AdamW with a schedule, batch normalization, a frozen and an unused parameter."""
    model, once = (dense.network("batch normalization").train() for _ in range(2))
    model[0].weight.requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    x, y = dense.examples(7)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    frozen, before = model[0].weight.clone(), dense.parameters(model).clone()
    regularizers.backward(model, cross_entropy, x, y, rho=0.5, mu=0.1)
    once(x)
    assert torch.equal(dense.parameters(model), before)
    assert model.unused.grad is None  # so that weight decay leaves it alone
    for found, expected in zip(model.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(found, expected)
    optimizer.step()
    schedule.step()
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(dense.parameters(model), before)
    assert optimizer.param_groups[0]["lr"] == 0.005


def test_under_autocast_v1_is_at_the_shifted_parameters_and_a_later_pass_at_theta_again():
    """The context keeps copies of the parameters in bfloat16 from one pass to the next."""
    model = dense.network("fully connected, tanh").float()
    x, y = dense.examples(7)
    x = x.float()

    def v1():
        model.zero_grad()
        generator = torch.Generator().manual_seed(5)
        regularizers.backward(model, cross_entropy, x, y, rho=5.0, generator=generator)
        return flat(p.grad for p in model.parameters())

    exact, plain = v1(), dense.gradient(model, "cross_entropy", x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = v1()
        later = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
    # two layers round input, weight and output, forwards and backwards, and so for θ̃ before
    rounding = 24 * torch.finfo(torch.bfloat16).eps / 2
    assert (found - exact).norm() < rounding * exact.norm()
    assert (exact - plain).norm() > 5 * rounding * exact.norm()
    assert torch.equal(later, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.0}, "rho: expected a positive length, got 0.0"),
        ({"rho": float("nan")}, "rho: expected a positive length, got nan"),
        ({"rho": "0.1"}, "rho: expected a positive length, got '0.1'"),
        ({"rho": 1.0, "mu": "0"}, "mu: expected at least 0, got '0'"),
        ({"rho": 1.0, "mu": -0.1}, "mu: expected at least 0, got -0.1"),
        ({"rho": float("inf")}, "rho: expected a positive length, got inf"),
        ({"rho": 1.0, "mu": float("nan")}, "mu: expected at least 0, got nan"),
        ({"rho": 1.0, "mu": float("inf")}, "mu: expected at least 0, got inf"),
    ],
)
def test_backward_refuses_lengths_out_of_range(arguments, message):
    model = dense.network("linear")
    with pytest.raises(ValueError, match=message):
        regularizers.backward(model, cross_entropy, *dense.examples(3), **arguments)


def test_the_penalty_refuses_what_it_cannot_differentiate():
    model = dense.network("linear")
    x, _ = dense.examples(3)
    with pytest.raises(ValueError, match=r"\(examples, classes\), got \(3,\)"):
        regularizers.jacobian_penalty(model(x)[:, 0], model.parameters())
    with pytest.raises(ValueError, match=r"\(examples, classes\), got \(0, 3\)"):
        regularizers.jacobian_penalty(model(x[:0]), model.parameters())
    with torch.no_grad(), pytest.raises(ValueError, match="their graph, got some without"):
        regularizers.jacobian_penalty(model(x), model.parameters())
    with pytest.raises(ValueError, match="parameters: expected tensors, got tuple"):
        regularizers.jacobian_penalty(model(x), model.named_parameters())
    with pytest.raises(ValueError, match="expected trainable parameters, got none"):
        regularizers.jacobian_penalty(model(x), [])
    with pytest.raises(ValueError, match="expected some that the logits depend on, got none"):
        regularizers.jacobian_penalty(model(x), dense.network("linear").parameters())
