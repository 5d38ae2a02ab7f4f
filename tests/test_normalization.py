"""Normalization written out is PyTorch's, and right where that is wrong: twice in forward mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dense
import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp

from ijrlib import operators
from ijrlib.normalization import plain_normalization


def randomized(layer: nn.Module) -> nn.Module:
    """In float64, its scale and shift not trivial."""
    generator = torch.Generator().manual_seed(0)
    for p in layer.double().parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return layer


class Direct(nn.Module):
    """A function of ``torch`` itself, with a scale, a shift and running statistics of 4 channels
    (or 5 entries)."""

    def __init__(self, function: Callable[..., Tensor], channels: int = 4):
        super().__init__()
        self.function = function
        self.weight, self.bias = (nn.Parameter(torch.empty(channels)) for _ in range(2))
        self.register_buffer("mean", torch.linspace(-1, 1, channels).double())
        self.register_buffer("var", torch.linspace(1, 2, channels).double())

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self)


LAYERS = {
    "layer": (nn.LayerNorm(5), (3, 4, 5)),
    "layer, two axes": (nn.LayerNorm((4, 5)), (3, 4, 5)),
    "layer, neither scale nor shift": (nn.LayerNorm(5, elementwise_affine=False), (3, 4, 5)),
    "batch, vectors": (nn.BatchNorm1d(4, track_running_stats=False), (6, 4)),
    "batch, images": (nn.BatchNorm2d(4, eps=0.1, track_running_stats=False), (3, 4, 2, 3)),
    "batch, neither scale nor shift": (
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        (3, 4, 2, 3),
    ),
    "batch, evaluation mode": (nn.BatchNorm2d(4).eval(), (3, 4, 2, 3)),
    "instance, sequences": (nn.InstanceNorm1d(4, affine=True), (3, 4, 5)),
    "instance, images": (nn.InstanceNorm2d(4), (3, 4, 2, 3)),
    "instance, running statistics": (
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(),
        (3, 4, 2, 3),
    ),
    "torch.layer_norm": (
        Direct(lambda x, own: torch.layer_norm(x, [5], own.weight, own.bias, 0.1, False), 5),
        (3, 4, 5),
    ),
    "torch.layer_norm, by name": (
        Direct(lambda x, own: torch.layer_norm(x, normalized_shape=[4, 5], eps=0.1)),
        (3, 4, 5),
    ),
    "torch.batch_norm": (
        Direct(
            lambda x, own: torch.batch_norm(
                x, own.weight, own.bias, None, None, True, 0.1, 0.2, False
            )
        ),
        (3, 4, 2, 3),
    ),
    "torch.batch_norm, evaluation mode": (
        Direct(
            lambda x, own: torch.batch_norm(
                x, own.weight, own.bias, own.mean, own.var, False, 0.1, 0.2, False
            )
        ),
        (3, 4, 2, 3),
    ),
    "torch.instance_norm": (
        Direct(
            lambda x, own: torch.instance_norm(
                x, own.weight, own.bias, None, None, True, 0.1, 0.2, False
            )
        ),
        (3, 4, 2, 3),
    ),
    "torch.instance_norm, running statistics": (
        Direct(
            lambda x, own: torch.instance_norm(
                x, own.weight, own.bias, own.mean, own.var, False, 0.1, 0.2, False
            )
        ),
        (3, 4, 2, 3),
    ),
    "torch.group_norm": (
        Direct(lambda x, own: torch.group_norm(x, 2, own.weight, own.bias, 0.2)),
        (3, 4, 2, 3),
    ),
}
LAYERS = {name: (randomized(layer), shape) for name, (layer, shape) in LAYERS.items()}


def point(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return 1 + 2 * x, v


@pytest.mark.parametrize("name", LAYERS)
def test_values_are_those_of_pytorch(name):
    layer, shape = LAYERS[name]
    x, _ = point(shape)
    with plain_normalization():
        found = layer(x)
    torch.testing.assert_close(found, layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_second_derivative_along_a_direction_is_that_of_the_dense_hessian(name):
    layer, shape = LAYERS[name]
    x, v = point(shape)

    def cubes(x: Tensor) -> Tensor:
        return layer(x).pow(3).sum()

    dense = torch.autograd.functional.hessian(cubes, x)
    expected = v.flatten() @ dense.view(v.numel(), -1) @ v.flatten()  # pyright: ignore
    with plain_normalization():
        (_, _), (_, found) = jvp(lambda x: jvp(cubes, (x,), (v,)), (x,), (v,))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_arguments_may_come_by_name():
    x, _ = point((6, 4))
    names = {"running_mean": torch.zeros(4).double(), "running_var": torch.ones(4).double()}
    with plain_normalization():
        found = nn.functional.batch_norm(x, **names, training=True)
    torch.testing.assert_close(found, nn.functional.batch_norm(x, None, None, training=True))


def test_a_margin_in_the_variance_that_is_not_given_is_pytorchs():
    x = 1e-3 * point((3, 4, 5))[0]
    with plain_normalization():
        found = torch.layer_norm(x, [5])
    torch.testing.assert_close(found, torch.layer_norm(x, [5]), rtol=1e-12, atol=1e-12)


def test_running_statistics_stay_as_they_are():
    layer = nn.BatchNorm1d(4)
    with plain_normalization():
        layer(torch.ones(6, 4))
    assert not layer.running_mean.any()


# -- weights ---------------------------------------------------------------------------------------


def weight_normalized(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 6), nn.Linear(6, dense.CLASSES)
    if kind == "hook":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            first, second = map(nn.utils.weight_norm, (first, second))
    else:
        dims = {"rows": 0, "columns": 1, "all": None}
        first, second = (
            nn.utils.parametrizations.weight_norm(layer, dim=dims[kind])
            for layer in (first, second)
        )
    return nn.Sequential(first, nn.Tanh(), second).double()


class Formula(nn.Module):
    """The same function of the same parameters, with w = g·v/‖v‖ by the formula."""

    def __init__(self, model: nn.Sequential, kind: str) -> None:
        super().__init__()
        self.names = [name for name, _ in model.named_parameters()]
        self.values = nn.ParameterList(p.detach().clone() for p in model.parameters())
        self.axes = {"columns": (0,), "all": (0, 1)}.get(kind, (1,))

    def forward(self, x: Tensor) -> Tensor:
        values = dict(zip(self.names, self.values, strict=True))
        for layer in ("0", "2"):
            (bias,) = (p for n, p in values.items() if n.startswith(layer) and n.endswith("bias"))
            g, v = (p for n, p in values.items() if n.startswith(layer) and not n.endswith("bias"))
            w = g * v / v.square().sum(self.axes, keepdim=True).sqrt()
            x = x @ w.T + bias
            x = torch.tanh(x) if layer == "0" else x
        return x


@pytest.mark.parametrize("kind", ["rows", "columns", "all", "hook"])
def test_matrices_of_a_model_with_normalized_weights_are_those_of_the_formula(kind):
    model = weight_normalized(kind)
    alike = Formula(model, kind)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(9) % dense.CLASSES
    torch.testing.assert_close(model(x), alike(x))
    hessian = dense.hessian(alike, "cross_entropy", x, y)
    newton = dense.gauss_newton(alike, "cross_entropy", x)
    v = torch.linspace(-1, 1, len(hessian), dtype=torch.float64)
    linear = operators.linearize(model, operators.cross_entropy, (x, y))
    tight = {"rtol": 1e-9, "atol": 1e-12}
    for op in (linear.hessian, operators.hessian(model, operators.cross_entropy, (x, y))):
        torch.testing.assert_close(dense.matrix(op), hessian, **tight)
    for op in (linear.gauss_newton, operators.gauss_newton(model, operators.cross_entropy, (x, y))):
        torch.testing.assert_close(dense.matrix(op), newton, **tight)
    along = operators.curvatures_along(model, operators.cross_entropy, (x, y), v)
    torch.testing.assert_close(along.mean(), v @ hessian @ v, **tight)


@pytest.mark.parametrize(
    ("function", "shape", "error"),
    [
        (lambda x: nn.functional.batch_norm(x, None, None, training=True), (1, 4), ValueError),
        (nn.functional.instance_norm, (2, 4, 1), ValueError),
        (lambda x: nn.functional.layer_norm(x, [3]), (2, 4), RuntimeError),
    ],
)
def test_what_pytorch_refuses_is_refused(function, shape, error):
    with pytest.raises(error) as expected:
        function(torch.ones(shape))
    with plain_normalization(), pytest.raises(error) as found:
        function(torch.ones(shape))
    assert str(found.value) == str(expected.value)
