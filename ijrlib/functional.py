"""A model as a function of its parameters and buffers, and functions of PyTorch replaced by others,
such as embeddings that leave their weights alone.

``torch.func.functional_call`` takes a tensor that several modules hold, or one that a module used
twice holds, for several: it puts the value in once for each name and then takes it out wrongly, so
that the model is left without the parameter.  Here each module's own slot is filled once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def call(model: nn.Module, tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
    """The model's output with these tensors in place of its parameters and buffers.

    It is a function of them that can be differentiated twice: embeddings shorten the rows longer
    than ``max_norm`` in a copy, and have a dense gradient, not scaled by how often a word occurs,
    whatever ``sparse`` and ``scale_grad_by_freq`` say.  What the model notes in attributes of its
    modules, or registers as buffers, is forgotten.

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
    embeddings = replaced(_FUNCTIONS) if _embeds_otherwise(model) else contextlib.nullcontext()
    with _kept(model.modules()), embeddings:
        return functional_call(model, slots, inputs, tie_weights=False)


@contextlib.contextmanager
def _kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules hold afterwards what they held, under the names of attributes and buffers."""
    kept = [(m.__dict__, m.__dict__.copy(), m._buffers.copy()) for m in modules]
    try:
        yield
    finally:
        for held, attributes, buffers in kept:
            held.clear()
            held.update(attributes)
            held["_buffers"].clear()
            held["_buffers"].update(buffers)


def _embeds_otherwise(model: nn.Module) -> bool:
    return any(
        isinstance(module, nn.EmbeddingBag)
        or (
            isinstance(module, nn.Embedding)
            and (module.max_norm is not None or module.sparse or module.scale_grad_by_freq)
        )
        for module in model.modules()
    )


class replaced(TorchFunctionMode):
    """Within this context functions of PyTorch are replaced by others."""

    def __init__(self, functions: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.functions.get(func, func)(*args, **(kwargs or {}))


def without_padding() -> replaced:
    """Within this context an embedding's row for padding has no derivative in forward mode, as it
    has none in reverse mode."""
    return replaced({F.embedding: _without_padding})


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return F.embedding(input, _shortened(weight, max_norm, norm_type), padding_idx)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Written out, for PyTorch's has no second derivative; "max" is left to PyTorch."""
    weight = _shortened(weight, max_norm, norm_type)
    if mode == "max":
        last, padding = include_last_offset, padding_idx
        return F.embedding_bag(
            input, weight, offsets, mode=mode, include_last_offset=last, padding_idx=padding
        )
    words = input.flatten().long()
    if offsets is None:
        starts = torch.arange(0, len(words), input.shape[1], device=words.device)
    else:
        starts = (offsets[:-1] if include_last_offset else offsets).long()
    places = torch.arange(len(words), device=words.device)
    bag = torch.searchsorted(starts.contiguous(), places, right=True) - 1
    there = torch.ones_like(words) if padding_idx is None else (words != padding_idx).long()
    rows = F.embedding(words, weight) * there[:, None]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    total = rows.new_zeros(len(starts), rows.shape[1]).index_add(0, bag, rows)
    if mode == "sum":
        return total
    count = torch.zeros_like(starts).index_add(0, bag, there)
    return total / count.clamp(min=1)[:, None]


_FUNCTIONS: dict[Callable, Callable] = {F.embedding: _embedding, F.embedding_bag: _embedding_bag}


def _shortened(weight: Tensor, max_norm: float | None, norm_type: float) -> Tensor:
    """Rows of at most that norm, as PyTorch shortens them before it looks them up: the derivative
    in ``weight`` is that of the look-up alone."""
    if max_norm is None:
        return weight
    rows = weight.detach()
    norms = torch.linalg.vector_norm(rows, norm_type, dim=1, keepdim=True)
    short = torch.where(norms > max_norm, rows * (max_norm / (norms + 1e-7)), rows)
    return weight + (short - rows)


def _without_padding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    if padding_idx is not None:
        fixed = torch.arange(len(weight), device=weight.device) == padding_idx % len(weight)
        weight = torch.where(fixed[:, None], weight.detach(), weight)
    return F.embedding(input, weight, None, *args, **kwargs)
