"""Normalization whose derivatives are right: of layers, batches and instances twice in forward
mode, of weights twice in reverse mode and in forward mode at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from ijrlib.functional import replaced


def plain_normalization() -> replaced:
    """Within this context layer, batch and instance normalization by the input's own mean and
    variance are written out, of ``torch.nn.functional`` and of ``torch`` alike: twice in forward
    mode PyTorch's derivatives of them are wrong (up to 2.13 at least; those of group normalization
    are right).  Running statistics, which the logits do not ask for, are not updated."""
    return replaced(_PLAIN)


def plain_weight_normalization() -> replaced:
    """Within this context weights are normalized by the formula: PyTorch's own function has a wrong
    second derivative (up to 2.13 at least) and none in forward mode."""
    return replaced({torch._weight_norm: _weight_norm})  # pyright: ignore[reportPrivateImportUsage]


def normalizes_weights(model: nn.Module) -> bool:
    """Whether ``weight_norm`` is applied to a module, as a parametrization or as a hook."""
    return any(
        isinstance(module, _WeightNorm)
        or any(isinstance(hook, WeightNorm) for hook in module._forward_pre_hooks.values())
        for module in model.modules()
    )


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g·v/‖v‖, the norm over all axes but ``dim``, or over all of them where it is −1."""
    return v * (g / (v.norm() if dim == -1 else torch.norm_except_dim(v, 2, dim)))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    if tuple(input.shape[-len(normalized_shape) :]) != tuple(normalized_shape):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)  # refuses it
    z = _standardized(input, list(range(-len(normalized_shape), 0)), eps)
    z = z if weight is None else z * weight
    return z if bias is None else z + bias


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    F._verify_batch_size(input.shape)  # pyright: ignore
    z = _standardized(input, [axis for axis in range(input.ndim) if axis != 1], eps)
    return _by_channel(z, weight, bias)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return F.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    F._verify_spatial_size(input.shape)  # pyright: ignore
    return _by_channel(_standardized(input, list(range(2, input.ndim)), eps), weight, bias)


def _torch_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return _layer_norm(input, normalized_shape, weight, bias, eps)


def _torch_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    if not training:
        return torch.batch_norm(
            input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled
        )
    return _batch_norm(input, None, None, weight, bias, training, momentum, eps)


def _torch_instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    return _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


_PLAIN = {  # by PyTorch's names, since the arguments may come by name
    F.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    torch.layer_norm: _torch_layer_norm,
    torch.batch_norm: _torch_batch_norm,
    torch.instance_norm: _torch_instance_norm,
}


def _by_channel(z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """A scale and a shift for each index of the second axis."""
    channels = (-1, *[1] * (z.ndim - 2))
    z = z if weight is None else z * weight.view(channels)
    return z if bias is None else z + bias.view(channels)


def _standardized(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
