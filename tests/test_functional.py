"""A model as a function of its tensors, whose modules may be used twice and tensors shared."""

from __future__ import annotations

import copy

import dense
import pytest
import torch
from torch import Tensor, nn

from ijrlib import operators, per_example, sharpness_bound
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
