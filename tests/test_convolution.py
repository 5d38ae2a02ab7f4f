"""The double backward of convolutions against PyTorch's own, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijrlib.convolution import fast_double_backward

GEOMETRIES = [
    {},
    {"padding": 1},
    {"padding": "same"},
    {"padding": "valid"},
    {"padding": "same", "dilation": 2},
    {"padding": "same", "dilation": (2,)},
    {"padding": (1,), "stride": (2,)},
    {"stride": 2, "padding": 1},
    {"stride": (2, 1), "padding": (0, 1)},
    {"groups": 2},
    {"groups": 2, "stride": 2, "dilation": 2, "padding": 2},
]


def second_derivatives(function, inputs: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
    """The gradient, and the product of the Hessian with a direction, of Σ sin(function(…))."""
    value = function(*inputs).sin().sum()
    slopes = torch.autograd.grad(value, inputs, create_graph=True)
    inner = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True))
    assert isinstance(inner, Tensor)
    return [*(s.detach() for s in slopes), *torch.autograd.grad(inner, inputs)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_first_and_second_derivatives_are_those_of_pytorch(dimensions, bias, geometry):
    if dimensions != 2 and any(isinstance(v, tuple) for v in geometry.values()):
        geometry = {k: v[0] if isinstance(v, tuple) else v for k, v in geometry.items()}
    torch.manual_seed(0)
    channels = 4 // geometry.get("groups", 1)
    shapes = [(3, 4, *[7, 6, 8][:dimensions]), (6, channels, *[3] * dimensions)]
    shapes += [(6,)] if bias else []
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    direction = [torch.randn_like(t) for t in inputs]
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dimensions]

    def function(*tensors: Tensor) -> Tensor:
        return convolution(*tensors, **geometry)

    expected = second_derivatives(function, inputs, direction)
    with fast_double_backward():
        ours = second_derivatives(function, inputs, direction)
        assert function(*inputs).grad_fn is not None
        assert "Convolution" in type(function(*inputs).grad_fn).__name__
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_derivative_asked_for_alone_is_the_same_as_together_with_the_others(asked):
    torch.manual_seed(1)
    x, weight, cotangent = (
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in [(3, 2, 6, 6), (4, 2, 3, 3), (3, 4, 4, 4)]
    )
    inputs = [t.view_as(t) for t in (cotangent, x, weight)]  # no leaves, as in operators.linearize
    direction = torch.randn_like(weight)

    def derivatives(which: list[Tensor]) -> tuple[Tensor, ...]:
        with fast_double_backward():
            z = F.conv2d(inputs[1], inputs[2]).tanh()
        slopes = torch.autograd.grad(z, inputs[1:], inputs[0], create_graph=True)
        inner = (slopes[1] * direction).sum() + slopes[0].square().sum()
        return torch.autograd.grad(inner, which)

    (alone,) = derivatives([inputs[asked]])
    torch.testing.assert_close(alone, derivatives(inputs)[asked], rtol=1e-13, atol=1e-13)


def test_a_module_takes_part_and_nothing_outside_the_context_does():
    layer = nn.Conv2d(2, 3, 3, padding="same")
    x = torch.randn(1, 2, 5, 5)
    with fast_double_backward():
        inside = layer(x)
    assert type(inside.grad_fn).__name__ == "_ConvolutionBackward"
    assert type(layer(x).grad_fn).__name__ == "ConvolutionBackward0"


def test_what_it_does_not_take_goes_to_pytorch():
    weight = torch.randn(3, 2, 4, 4, requires_grad=True)
    with fast_double_backward():
        uneven = F.conv2d(torch.randn(1, 2, 5, 5), weight, padding="same")
        unbatched = F.conv2d(torch.randn(2, 5, 5), weight)
    assert type(uneven.grad_fn).__name__ != "_ConvolutionBackward"
    assert unbatched.shape == (3, 2, 2)


def test_weights_that_are_frozen_get_no_derivative():
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    with fast_double_backward():
        z = F.conv2d(x, weight, bias)
    (slope,) = torch.autograd.grad(z.sin().sum(), [bias], create_graph=True)
    assert slope.shape == (3,)
    (second,) = torch.autograd.grad(slope.sum(), [bias])
    torch.testing.assert_close(second, -z.detach().sin().sum((0, 2, 3)))


@pytest.mark.parametrize("trained", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}], ids=str)
def test_input_weight_and_bias_may_each_be_fixed(trained):
    torch.manual_seed(0)
    shapes = [(3, 2, 6, 6), (4, 2, 3, 3), (4,)]
    inputs = [
        torch.randn(s, dtype=torch.float64, requires_grad=k in trained)
        for k, s in enumerate(shapes)
    ]
    asked = [inputs[k] for k in sorted(trained)]
    direction = [torch.randn_like(t) for t in asked]

    def function(*tensors: Tensor) -> Tensor:
        given = dict(zip(sorted(trained), tensors, strict=True))
        return F.conv2d(*(given.get(k, t) for k, t in enumerate(inputs)))

    expected = second_derivatives(function, asked, direction)
    with fast_double_backward():
        ours = second_derivatives(function, asked, direction)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_same_padding_of_a_kernel_that_is_no_square_is_that_of_pytorch():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64)
    weight = torch.randn(3, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    geometry = {"padding": "same", "dilation": (1, 2)}  # margins of 1 and 4
    with fast_double_backward():
        found = F.conv2d(x, weight, **geometry)
    assert type(found.grad_fn).__name__ == "_ConvolutionBackward"
    torch.testing.assert_close(found, F.conv2d(x, weight, **geometry), rtol=1e-12, atol=1e-12)


def test_sizes_that_numpy_has_computed_are_taken():
    weight = torch.randn(3, 2, 3, 3, requires_grad=True)
    x, one, two = torch.randn(1, 2, 5, 5), np.int64(1), np.int64(2)
    with fast_double_backward():
        found = F.conv2d(x, weight, None, two, (one, two), one)
    assert type(found.grad_fn).__name__ == "_ConvolutionBackward"
    torch.testing.assert_close(found, F.conv2d(x, weight, None, 2, (1, 2), 1))


def test_what_pytorch_refuses_is_refused():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    with pytest.raises(RuntimeError, match="not supported for strided"), fast_double_backward():
        F.conv2d(x, weight, stride=2, padding="same")
