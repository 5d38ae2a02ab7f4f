"""A model as a function of its parameters and buffers, and functions of PyTorch written out where
its derivatives of them are wrong.

``torch.func.functional_call`` takes a tensor that several modules hold, or one that a module used
twice holds, for several: it puts the value in once for each name and then takes it out wrongly, so
that the model is left without the parameter.  Here each module's own slot is filled once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode


def call(model: nn.Module, tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
    """The model's output with these tensors in place of its parameters and buffers.

    Args:
        tensors: by the names of ``named_parameters`` and ``named_buffers``, which have each tensor
            once; it takes its place wherever the model holds it.  Of those that are not named the
            model's own are used.
        inputs: of the model.
    """
    names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    slots = {
        f"{path}.{name}" if path else name: tensors[names[id(t)]]
        for path, module in model.named_modules()
        for name, t in (*module._parameters.items(), *module._buffers.items())
        if t is not None and names[id(t)] in tensors
    }
    return functional_call(model, slots, inputs, tie_weights=False)


class replaced(TorchFunctionMode):
    """Within this context functions of PyTorch are replaced by others."""

    def __init__(self, functions: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.functions.get(func, func)(*args, **(kwargs or {}))
