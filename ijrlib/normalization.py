"""Layer and batch normalization with derivatives that are right twice in forward mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class plain_normalization(TorchFunctionMode):
    """Within this context layer and batch normalization by the input's own mean and variance are
    written out: twice in forward mode PyTorch's derivatives of them are wrong (up to 2.13 at
    least).  Running statistics, which the logits do not ask for, are not updated."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        plain = {F.layer_norm: _layer_norm, F.batch_norm: _batch_norm}.get(func, func)
        return plain(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    z = _standardized(x, list(range(-len(normalized_shape), 0)), eps)
    z = z if weight is None else z * weight
    return z if bias is None else z + bias


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    z = _standardized(x, [axis for axis in range(x.ndim) if axis != 1], eps)
    channels = (-1, *[1] * (x.ndim - 2))
    z = z if weight is None else z * weight.view(channels)
    return z if bias is None else z + bias.view(channels)


def _standardized(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
