"""Convolutions whose second derivative costs what it should.

The Hessian-vector product differentiates the backward pass of every layer.  For a convolution
z = W ∗ x that is three more convolutions: ∂z = W ∗ ẋ + Ẇ ∗ x, and the two gradients of
⟨∂L/∂z, ∂z⟩.  PyTorch's own double backward computes one of them as a convolution with transposed
operands, whose kernel is as large as the image; here each is a forward convolution or a standard
backward pass.  The numbers are the same up to rounding; a Hessian-vector product of the paper's
convolutional networks takes about a quarter less time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""stride, padding, dilation, transposed, output padding, groups: as torch.ops.aten.convolution
takes them."""


class fast_double_backward(TorchFunctionMode):
    """Within this context ``conv1d``, ``conv2d`` and ``conv3d`` (functional or as modules) have the
    double backward of this module.  Not for forward-mode differentiation or ``torch.func``."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DIMENSIONS:
            call = _arguments(_DIMENSIONS[func], *args, **kwargs)
            if call is not None:
                return _Convolution.apply(*call)
        return func(*args, **kwargs)


def _arguments(
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, _Geometry] | None:
    """Arguments for aten.convolution; None for what it does not take (an unbatched input, "same"
    padding that is not symmetric) and for what PyTorch refuses ("same" padding of strides)."""

    def each(value: Any) -> list[int]:
        given = [int(value)] if hasattr(value, "__index__") else list(value)
        return given * dimensions if len(given) == 1 else given

    if input.ndim != dimensions + 2:
        return None
    if padding == "valid":
        padding = 0
    elif padding == "same":
        if any(step != 1 for step in each(stride)):
            return None
        margins = [d * (k - 1) for d, k in zip(each(dilation), weight.shape[2:], strict=True)]
        if any(margin % 2 for margin in margins):
            return None
        padding = [margin // 2 for margin in margins]
    geometry = (each(stride), each(padding), each(dilation), False, [0] * dimensions, groups)
    return input, weight, bias, geometry


class _Convolution(Function):
    """z = W ∗ x + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry):
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return torch.ops.aten.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Any):
        x, weight = ctx.saved_tensors
        needed = tuple(ctx.needs_input_grad[:3])
        return *_Backward.apply(grads[0], x, weight, ctx.geometry, needed), None


class _Backward(Function):
    """(∂L/∂x, ∂L/∂W, ∂L/∂b) from ∂L/∂z."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        geometry: _Geometry,
        needed: tuple[bool, bool, bool],
    ):
        ctx.save_for_backward(grad, x, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        return _backward(grad, x, weight, geometry, needed)

    @staticmethod
    def backward(ctx: Any, *tangents: Any):
        grad, x, weight = ctx.saved_tensors
        x_tangent, weight_tangent, bias_tangent = tangents
        of_grad = of_x = of_weight = None
        wanted = [_wanted(node) for node, _ in ctx.next_functions]
        if wanted[0]:
            parts = []
            if x_tangent is not None:
                parts.append(torch.ops.aten.convolution(x_tangent, weight, None, *ctx.geometry))
            if weight_tangent is not None:
                parts.append(torch.ops.aten.convolution(x, weight_tangent, None, *ctx.geometry))
            if bias_tangent is not None:
                parts.append(bias_tangent.view(1, -1, *[1] * (grad.ndim - 2)).expand_as(grad))
            of_grad = sum(parts[1:], parts[0]) if parts else None
        if wanted[1] and weight_tangent is not None:
            of_x = _backward(grad, x, weight_tangent, ctx.geometry, (True, False, False))[0]
        if wanted[2] and x_tangent is not None:
            of_weight = _backward(grad, x_tangent, weight, ctx.geometry, (False, True, False))[1]
        return of_grad, of_x, of_weight, None, None


def _wanted(node: Any) -> bool:
    """Whether the present backward pass asks for what lies behind this node.

    ⟨J⟩ᵀv asks for one of the three derivatives.  Autograd does not say it of leaves; they count as
    asked for.
    """
    if node is None or not node.next_functions:
        return node is not None
    return torch._C._will_engine_execute_node(node)  # pyright: ignore[reportAttributeAccessIssue]


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    channels = [weight.shape[0]]
    return torch.ops.aten.convolution_backward(grad, x, weight, channels, *geometry, needed)
