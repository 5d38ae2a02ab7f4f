"""A model as a function of its tensors, whose modules may be used twice and tensors shared."""

from __future__ import annotations

import copy
import itertools

import dense
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ijrlib import functional, operators, per_example, sharpness_bound
from ijrlib.functional import call, replaced
from ijrlib.monitor import CurvatureMonitor
from ijrlib.operators import cross_entropy

N, WIDTH = 12, 4


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.arange(N) % dense.CLASSES


def shared() -> nn.Sequential:
    """A layer and a batch normalization that are used twice, and a weight that two layers hold."""
    torch.manual_seed(0)
    layer, other, norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
    other.weight = layer.weight
    head = nn.Linear(WIDTH, dense.CLASSES)
    return nn.Sequential(layer, norm, nn.Tanh(), layer, norm, nn.Tanh(), other, head).double()


class Apart(nn.Module):
    """The same function with θ given as one vector, without any module."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.theta = nn.Parameter(dense.parameters(model).clone())
        self.statistics = model[1].running_mean, model[1].running_var, model[1].eps
        self.shapes = [p.shape for p in model.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        parts = self.theta.split([shape.numel() for shape in self.shapes])
        w, b, scale, shift, b_2, v, c = (
            part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)
        )
        mean, var, eps = self.statistics
        for _ in range(2):
            x = x @ w.T + b
            x = torch.tanh((x - mean) / (var + eps).sqrt() * scale + shift)
        return (x @ w.T + b_2) @ v.T + c


def everything(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Every pass that puts tensors in the place of the model's own."""
    m = sum(p.numel() for p in model.parameters())
    v = torch.linspace(-1, 1, m, dtype=torch.float64)
    operators.curvatures_along(model, cross_entropy, (x, y), v)
    list(operators.losses_along(model, cross_entropy, (x, y), v, [0.5]))
    operators.mean_jacobian(model, x).T @ v
    linear = operators.linearize(model, cross_entropy, (x, y), cache_bytes=0)
    for op in (linear.hessian, linear.gauss_newton):
        op @ v
    per_example.jacobian_grams(model, x)
    sharpness_bound.sharpness_bound(model, x)
    CurvatureMonitor(model, cross_entropy, (x, y)).measure()


def test_the_parameters_and_buffers_of_a_module_that_is_used_twice_stay_what_they_are():
    model, (x, y) = shared().eval(), inputs()
    tensors = [*model.parameters(), *model.buffers()]
    values = copy.deepcopy(model.state_dict())
    everything(model, x, y)
    after = [*model.parameters(), *model.buffers()]
    assert len(after) == len(tensors)
    assert all(a is b for a, b in zip(after, tensors, strict=True))
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    copy.deepcopy(model)  # refused by PyTorch where a parameter has become a result


@pytest.mark.parametrize("cache_bytes", [0, operators.CACHE_BYTES])
def test_matrices_of_a_model_with_shared_modules_are_those_of_the_function(cache_bytes):
    model, (x, y) = shared().eval(), inputs()
    linear = operators.linearize(model, cross_entropy, (x, y), cache_bytes=cache_bytes)
    alike = Apart(model)
    torch.testing.assert_close(model(x), alike(x))
    for ours, expected in (
        (dense.matrix(linear.hessian), dense.hessian(alike, "cross_entropy", x, y)),
        (dense.matrix(linear.gauss_newton), dense.gauss_newton(alike, "cross_entropy", x)),
        (per_example.jacobian_grams(model, x), dense_grams(alike, x)),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def dense_grams(model: nn.Module, x: Tensor) -> Tensor:
    jacobians = dense.jacobians(model, x)
    return jacobians.mT @ jacobians


def test_running_statistics_of_a_normalization_that_is_used_twice_do_not_move():
    model, (x, y) = shared().train(), inputs()
    before = [b.clone() for b in model.buffers()]
    operators.linearize(model, cross_entropy, (x, y))
    assert all(map(torch.equal, before, model.buffers()))


def test_training_with_measurements_in_between_is_training_without():
    models, (x, y) = (shared().eval(), shared().eval()), inputs()
    for model, measured in zip(models, (False, True), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = CurvatureMonitor(model, cross_entropy, (x, y), every=1, optimizer=optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            if measured:
                monitor.step()
    assert torch.equal(*map(dense.parameters, models))


class Embedded(nn.Module):
    """Rows of θ, shortened to norm 1 where ``norm`` says so, by arithmetic alone."""

    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.words, self.head = words, nn.Linear(3, dense.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        looked_up = self.words(x)
        return self.head((looked_up if looked_up.ndim == 2 else looked_up.mean(1)).tanh())


class Shortened(nn.Module):
    def __init__(self, weight: Tensor, norm: float | None) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(weight.clone()), norm

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.detach()
        scale = 1.0 if self.norm is None else (self.norm / rows.norm(dim=1)).clamp(max=1)[:, None]
        return (self.weight + (scale * rows - rows))[x]  # the derivative is that of the look-up


EMBEDDINGS = {
    "max_norm": (nn.Embedding, {"max_norm": 1.0}),
    "max_norm, padding": (nn.Embedding, {"max_norm": 1.0, "padding_idx": 6}),
    "sparse": (nn.Embedding, {"sparse": True}),
    "scale_grad_by_freq": (nn.Embedding, {"scale_grad_by_freq": True}),
    "a bag, max_norm": (nn.EmbeddingBag, {"max_norm": 1.0}),
    "a bag": (nn.EmbeddingBag, {}),
    "a bag, sparse": (nn.EmbeddingBag, {"sparse": True}),
    "a bag, scale_grad_by_freq": (nn.EmbeddingBag, {"scale_grad_by_freq": True}),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_embeddings_are_measured_as_functions_of_their_weights(kind):
    """PyTorch's would be renormalized in place, have sparse gradients, or ones of no function."""
    torch.manual_seed(0)
    make, options = EMBEDDINGS[kind]
    model = Embedded(make(7, 3, **options)).double()
    with torch.no_grad():
        model.words.weight *= 2
    alike = Embedded(Shortened(model.words.weight, options.get("max_norm"))).double()
    alike.head.load_state_dict(model.head.state_dict())
    before = dense.parameters(model)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(6, (8, 4), generator=generator)  # without the row for padding
    y = torch.arange(8) % dense.CLASSES
    linear = operators.linearize(model, cross_entropy, (x, y), chunk=3)
    torch.testing.assert_close(linear.logits, alike(x), rtol=1e-6, atol=1e-6)  # 1e-7 in PyTorch's
    for ours, expected in (
        (linear.hessian, dense.hessian(alike, "cross_entropy", x, y)),
        (linear.gauss_newton, dense.gauss_newton(alike, "cross_entropy", x)),
    ):
        torch.testing.assert_close(dense.matrix(ours), expected, rtol=1e-5, atol=1e-6)
    v = torch.linspace(-1, 1, len(before), dtype=torch.float64)
    mean = dense.jacobians(alike, x).mean(0)
    jacobian = operators.mean_jacobian(model, x)
    torch.testing.assert_close(jacobian.T @ v, mean.mT @ v, rtol=1e-5, atol=1e-6)
    grams = per_example.jacobian_grams(model, x)
    torch.testing.assert_close(grams, dense_grams(alike, x), rtol=1e-5, atol=1e-6)
    CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    assert torch.equal(dense.parameters(model), before)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("last", [None, False, True])
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("kinds", [*itertools.product([torch.int32, torch.int64], repeat=2)])
def test_bags_that_are_written_out_are_those_of_pytorch(mode, last, padding_idx, kinds):
    """With offsets, of which the second bag is empty, and without."""
    torch.manual_seed(0)
    options = {"mode": mode, "padding_idx": padding_idx}
    if last is not None:
        options["include_last_offset"] = last
    bag = nn.EmbeddingBag(7, 3, **options).double()
    words = torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(1), dtype=kinds[0])
    arguments = [words]
    if last is not None:
        starts = torch.tensor([0, 4, 4, 11] + [20] * last, dtype=kinds[1])
        arguments = [words.flatten(), starts]
    weighted = {"per_sample_weights": torch.rand(words.shape).double()} if mode == "sum" else {}
    if last is not None and weighted:
        weighted["per_sample_weights"] = weighted["per_sample_weights"].flatten()
    written_out = replaced({F.embedding_bag: functional._embedding_bag})
    with written_out:
        ours = bag(*arguments, **weighted)
    torch.testing.assert_close(ours, bag(*arguments, **weighted), rtol=1e-12, atol=1e-15)


def test_hooks_on_parameters_are_of_training_and_not_of_measurements():
    model, (x, y) = shared().eval(), inputs()
    found = []
    for hooked in (False, True):
        if hooked:
            for p in model.parameters():
                p.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
        linear = operators.linearize(model, cross_entropy, (x, y))
        v = torch.ones_like(linear.gradient)
        found.append(
            (
                operators.loss_and_gradient(model, cross_entropy, (x, y))[1],
                operators.gauss_newton(model, cross_entropy, (x, y)) @ v,
                operators.hessian(model, cross_entropy, (x, y)) @ v,
                operators.mean_jacobian(model, x) @ v[: dense.CLASSES],
                operators.mean_jacobian_gram(model, x),
                per_example.jacobian_grams(model, x),
                linear.gradient,
                linear.hessian @ v,
            )
        )
    assert all(map(torch.equal, *found))


class Centred(nn.Module):
    """Takes the mean of the first batch that it sees off."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.ready = nn.Linear(WIDTH, dense.CLASSES), False
        self.register_buffer("mean", torch.zeros(dense.CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        if not self.ready:
            self.ready = True
            with torch.no_grad():
                self.mean.copy_(z.mean(0))
        return z - self.mean


class Growing(nn.Module):
    """Keeps cosines for the longest row that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.length = nn.Linear(WIDTH, dense.CLASSES), 1
        self.register_buffer("cosines", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.length:
            self.length = x.shape[1]
            self.register_buffer("cosines", torch.arange(float(self.length)).cos())
        return self.layer(x * self.cosines[: x.shape[1]]).tanh()


@pytest.mark.parametrize("make", [Centred, Growing])
@pytest.mark.parametrize("steps", [0, 2])
def test_what_a_model_notes_in_attributes_and_buffers_is_not_noted_by_a_measurement(make, steps):
    (x, y), left = inputs(), []
    for measures in (True, False):
        torch.manual_seed(0)
        model = make().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(4):
            if measures and step == steps:
                CurvatureMonitor(model, cross_entropy, (x, y), chunk=5).measure()
                per_example.jacobian_grams(model, x)
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        left.append([*model.state_dict().values()])
    assert len(left[0]) == 3 and all(map(torch.equal, *left))


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, again: bool) -> None:
        super().__init__()
        self.inner, self.again = inner, again
        self.head = nn.Linear(WIDTH, dense.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if self.again:
            return self.head(checkpoint(self.inner, x, use_reentrant=False))
        return self.head(self.inner(x))


def test_a_model_with_gradient_checkpointing_is_measured_as_one_without():
    x, y = inputs()
    rows = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Checkpointed(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), again).double()
        rows.append(CurvatureMonitor(model, cross_entropy, (x, y)).measure()["sharpness"])
    assert rows[0] == rows[1]


def test_checkpointing_where_other_formulas_are_used_is_refused():
    x, y = inputs()
    inner = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
    model = Checkpointed(nn.Sequential(inner, nn.Tanh()), True).double()
    with pytest.raises(ValueError, match="weight_norm without gradient checkpointing"):
        CurvatureMonitor(model, cross_entropy, (x, y)).measure()


def test_named_tensors_take_the_place_of_the_models_wherever_it_holds_them():
    model, (x, _) = shared().eval(), inputs()
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        doubled[0].weight *= 2
    z = call(model, {"0.weight": 2 * model[0].weight}, x)
    torch.testing.assert_close(z, doubled(x))
    assert not torch.allclose(z, model(x))


def test_functions_are_replaced_within_the_context_only():
    x = torch.tensor([0.5])
    with replaced({torch.sin: torch.cos}):
        assert torch.equal(torch.sin(x), x.cos())
    assert torch.equal(torch.sin(x), x.sin())
