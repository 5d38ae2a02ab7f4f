"""The layers that a forward pass calls: their inputs, and the derivatives of the logits z in their
outputs.

A layer is y_t = W u_t + b at the positions t of an image or a sequence: ``linear``, ``conv2d``
(u_t is a patch), and ``batch_norm`` in evaluation mode (one such layer for each channel, u the
normalized input), functional or as modules.  What else a parameter is used for is seen in the
graph of z.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ijrlib.functional import call
from ijrlib.operators import check_logits, trainable


@dataclass(frozen=True)
class Layer:
    """One call of a layer y_t = W u_t + b for n examples.

    Attributes:
        edge: of the graph, to y.
        shape: of y, (n, …).
        outputs: the axis of y that W maps to, of size O.
        weight: name of the parameter W; None where it is none, or does not count.
        bias: the same for b.
        inputs: forms u, shape (n, groups, K, T).
    """

    edge: GradientEdge
    shape: torch.Size
    outputs: int
    weight: str | None
    bias: str | None
    inputs: Callable[[], Tensor]

    def without(self, names: Collection[str]) -> Layer:
        """The same without the named parameters."""
        weight, bias = (None if name in names else name for name in (self.weight, self.bias))
        return replace(self, weight=weight, bias=bias)


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: logits z (n, C), the calls of layers with the parameters that matter to z
    through such calls alone, and the names of the parameters that matter in another way."""

    z: Tensor
    layers: list[Layer]
    others: set[str]

    @property
    def layered(self) -> set[str]:
        """Names of the parameters of the layers."""
        return {name for layer in self.layers for name in (layer.weight, layer.bias) if name}

    def derivatives(self, layers: Sequence[Layer], cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Cotangents of the outputs of the layers for a cotangent of z; None stands for zero."""
        edges = [layer.edge for layer in layers]
        return torch.autograd.grad(self.z, edges, cotangent, retain_graph=True, allow_unused=True)


def record(model: nn.Module, x: Tensor, names: Collection[str]) -> ForwardPass:
    """A forward pass that records the layers of the named trainable parameters.

    The model's mode, buffers and ``.grad`` fields and the random state are left as they were.

    Raises:
        ValueError: for logits of another shape than (n, C) and a model that draws random numbers.
    """
    params = trainable(model)
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    recorder = _Recorder({id(params[name]): name for name in names}, len(x))
    with _without_randomness(x.device), recorder:
        z = call(model, buffers, x.detach().clone())  # may be changed in place
    check_logits(z)
    if len(z) != len(x):
        raise ValueError(f"expected logits of shape ({len(x)}, classes), got {tuple(z.shape)}")
    leaves = _leaves(z)
    others = {name for name, p in params.items() if id(p) in leaves}
    layers = [layer.without(others) for layer in recorder.layers] if z.requires_grad else []
    return ForwardPass(z, [layer for layer in layers if layer.weight or layer.bias], others)


class _Recorder(TorchFunctionMode):
    """Within this context the layers of the given parameters (id → name) are recorded, and computed
    with copies of the parameters: the graph then holds a parameter itself only where it is used
    in another way."""

    def __init__(self, names: dict[int, str], examples: int) -> None:
        super().__init__()
        self.names = names
        self.examples = examples
        self.layers: list[Layer] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _LAYERS or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        call = inspect.signature(_LAYERS[func]).bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        names = {slot: self.names.get(id(given[slot])) for slot in ("weight", "bias")}
        layer = _LAYERS[func](**given)
        if not any(names.values()) or layer is None or len(given["input"]) != self.examples:
            return func(*args, **kwargs)
        for slot, name in names.items():
            if name is not None:
                given[slot] = given[slot].detach().requires_grad_()
        y = func(*call.args)
        outputs, inputs = layer
        self.layers.append(Layer(get_gradient_edge(y), y.shape, outputs, inputs=inputs, **names))
        return y


_Description = tuple[int, Callable[[], Tensor]] | None
"""`outputs` and `inputs` of a `Layer`; None where the call is no such layer."""


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Description:
    u = input.detach()
    if u.ndim < 2 or weight.ndim != 2:
        return None
    return -1, lambda: (u.flatten(1, -2) if u.ndim > 2 else u[:, None]).mT[:, None]


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Description:
    if input.ndim != 4:
        return None
    kernel = weight.shape[2:]

    def patches() -> Tensor:
        u, margin = input.detach(), 0 if isinstance(padding, str) else padding
        if padding == "same":
            steps = (dilation, dilation) if isinstance(dilation, int) else dilation
            high, wide = (step * (k - 1) for step, k in zip(steps, kernel, strict=True))
            u = F.pad(u, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return F.unfold(u, kernel, dilation, margin, stride).unflatten(1, (groups, -1))

    return 1, patches


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _Description:
    if training:
        return None

    def normalized() -> Tensor:
        u = F.batch_norm(input.detach(), running_mean, running_var, eps=eps)
        return (u.flatten(2) if u.ndim > 2 else u[..., None])[:, :, None]

    return 1, normalized


_LAYERS: dict[Any, Callable[..., _Description]] = {
    F.linear: _linear,
    F.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
}


@contextlib.contextmanager
def _without_randomness(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was; raise ValueError if it was used."""
    cuda = [device] if device.type == "cuda" else []

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda)]

    with torch.random.fork_rng(devices=cuda):
        before = states()
        yield
        if not all(map(torch.equal, before, states())):
            raise ValueError("expected a model that draws no random numbers (model.eval()?)")


def _leaves(z: Tensor) -> set[int]:
    """The ids of the leaves of the graph of z."""
    leaves, seen = set(), set()
    nodes = [get_gradient_edge(z).node] if z.requires_grad else []
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            leaves.add(id(getattr(node, "variable", None)))
            nodes.extend(child for child, _ in node.next_functions if child is not None)
    return leaves
