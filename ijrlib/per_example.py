"""Jacobians of single examples through their Gram matrices, layer by layer.

J_xᵀJ_x (C × C) is the sum over the parameters of the Gram matrices of their blocks.  A layer
y_t = W u_t + b at the positions t of an image or a sequence has for class a the blocks

    ∂z_a/∂W = Σ_t δ_at u_tᵀ,   ∂z_a/∂b = Σ_t δ_at,   δ_at = ∂z_a/∂y_t,

so a forward pass that keeps the u_t and C backward passes that go to the outputs y only, for many
examples at once, give all of them.  The Gram matrix of ∂z/∂W follows from the blocks, or without
them from the inner products of the positions,

    ⟨∂z_a/∂W, ∂z_b/∂W⟩ = Σ_ts (u_t·u_s)(δ_at·δ_bs),

whichever takes fewer operations.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from ijrlib.functional import call
from ijrlib.layers import ForwardPass, Layer, record
from ijrlib.linear_algebra import eigvalsh, gram
from ijrlib.operators import flatten, trainable
from ijrlib.parallel import gathered, mine, share

WORK_BYTES = 1 << 26
"""Size of all δ of the examples taken at a time: 64 MiB, and up to four times as much where fewer
than four examples would fit."""

EXAMPLES = 128
"""Examples taken at a time, at most."""

_INFLUENCE = "expected examples that do not influence each other (model.eval()?)"


def jacobian_norms(model: nn.Module, x: Tensor, *, chunk: int | None = None) -> Tensor:
    """‖J_x‖ of each example, the largest singular value of J_x = ∇_θ z(x) (m × C): shape (N,),
    float64.  Arguments and errors as in :func:`jacobian_grams`."""
    return eigvalsh(jacobian_grams(model, x, chunk=chunk))[:, -1].clamp(min=0).sqrt()


@torch.enable_grad()
def jacobian_grams(model: nn.Module, x: Tensor, *, chunk: int | None = None) -> Tensor:
    """J_xᵀJ_x of each example, shape (N, C, C), float64.  Its trace is ‖J_x‖_F².

    Layer by layer for the parameters of ``linear``, ``conv2d`` and ``batch_norm`` (functional or
    as modules, used once or several times); example by example, from their part of J_x, for
    parameters that are used in any other way.  Products are formed in the type of the model and
    added up in float64.

    Args:
        model: maps x (N, …) to logits (N, C).
        chunk: examples at a time; the default follows from the size of the layers' outputs.

    Raises:
        ValueError: for an empty x, a chunk below 1, logits of another shape, a model that draws
            random numbers (dropout in training mode) and one whose examples influence each other
            (batch normalization in training mode).
    """
    if len(x) == 0:
        raise ValueError("expected at least one example, got none")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    names = trainable(model)
    if len(x) > 1:  # what is a layer of two examples has to be one of one: an axis may be two long
        with contextlib.suppress(ValueError):  # two examples tell what is wrong
            names = record(model, x[:1], names).layered
    probe = record(model, x[:2], names)
    _check_independence(probe)
    if len(x) > 1:
        _check_statistics(model, x[:2], probe.z)
    parts = x.split(share(len(x), chunk or _examples(probe)))
    found = {i: _grams(model, parts[i], probe.layered) for i in mine(len(parts))}
    return gathered(found, [len(part) for part in parts], x.new_empty(0, dtype=torch.float64))


def _check_independence(probe: ForwardPass) -> None:
    """Raise ValueError if the first example's logits depend on a layer's output for the second."""
    if len(probe.z) < 2:
        return
    cotangent = torch.zeros_like(probe.z)
    cotangent[0] = torch.arange(1, probe.z.shape[1] + 1, device=probe.z.device)
    for part in probe.derivatives(probe.layers, cotangent) if probe.layers else ():
        if part is not None and bool((part[1].abs() > 0).any()):
            raise ValueError(_INFLUENCE)


def _check_statistics(model: nn.Module, x: Tensor, z: Tensor) -> None:
    """Raise ValueError if the first example's logits depend on the second input, in front of the
    first layer; for whole numbers, if they are others than those z (2, C) when it is alone."""
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    x = x.detach()
    if x.is_floating_point():
        x = x.requires_grad_()
        both = call(model, buffers, x.clone())  # a copy may be changed in place
        cotangent = torch.arange(1, both.shape[1] + 1, device=both.device).to(both)
        slope = None
        if both.requires_grad:
            (slope,) = torch.autograd.grad(both[0], x, cotangent, allow_unused=True)
        if slope is not None:
            if bool((slope[1].abs() > 0).any()):
                raise ValueError(_INFLUENCE)
            return
    try:
        (alone,) = call(model, buffers, x.detach()[:1].clone())
    except ValueError as error:  # PyTorch's, of a single value per channel
        raise ValueError(_INFLUENCE) from error
    rounding = torch.finfo(z.dtype).eps ** 0.5 * z.abs().max()
    if bool((alone - z[0]).abs().max() > rounding):
        raise ValueError(_INFLUENCE)


def _examples(probe: ForwardPass) -> int:
    """How many examples to take at a time."""
    size = probe.z.element_size() * probe.z.shape[1]
    size = max(1, size * sum(layer.shape[1:].numel() for layer in probe.layers))
    fitting = max(WORK_BYTES // size, min(4, 4 * WORK_BYTES // size), 1)
    return min(fitting, EXAMPLES)


def _grams(model: nn.Module, x: Tensor, names: Collection[str]) -> Tensor:
    """J_xᵀJ_x of the examples of x, by a forward pass that records the named parameters."""
    run = record(model, x, names)
    n, classes = run.z.shape
    total = torch.zeros(n, classes, classes, dtype=torch.float64, device=x.device)
    uses = Counter(name for layer in run.layers for name in (layer.weight, layer.bias))
    shared: dict[str, Tensor] = {}

    def add(name: str, block: Tensor) -> None:
        if uses[name] == 1:
            total.add_(block @ block.mT)
        else:
            shared[name] = shared[name] + block if name in shared else block

    for layer, delta in _derivatives(run):
        if layer.bias is not None:
            add(layer.bias, delta.sum(-1))
        if layer.weight is not None:
            u = layer.inputs()
            if uses[layer.weight] == 1 and _positions_are_cheaper(u, delta):
                total.add_(_gram_by_positions(u, delta))
            else:
                add(layer.weight, _weight_block(u, delta))
    for block in shared.values():
        total.add_(block @ block.mT)
    if run.others:
        total.add_(_other_grams(model, x, run.others))
    return total


def _derivatives(run: ForwardPass) -> Iterator[tuple[Layer, Tensor]]:
    """Each layer with its δ, shape (n, C, O, T)."""
    n, classes = run.z.shape
    for layers in _sweeps(run.layers, 4 * WORK_BYTES // (classes * run.z.element_size())):
        deltas = [run.z.new_empty(n, classes, *layer.shape[1:]) for layer in layers]
        for c in range(classes):
            cotangent = torch.zeros_like(run.z)
            cotangent[:, c] = 1
            for delta, part in zip(deltas, run.derivatives(layers, cotangent), strict=True):
                delta[:, c] = 0 if part is None else part
        for layer in layers:
            delta = deltas.pop(0)
            delta = delta.movedim(-1, 2) if layer.outputs == -1 else delta
            yield layer, delta.flatten(3) if delta.ndim > 3 else delta[..., None]


def _sweeps(layers: list[Layer], entries: int) -> Iterator[list[Layer]]:
    """The layers in runs whose outputs have at most so many entries together, or of one layer."""
    sweep: list[Layer] = []
    for layer in layers:
        if sweep and sum(other.shape.numel() for other in [*sweep, layer]) > entries:
            yield sweep
            sweep = []
        sweep.append(layer)
    if sweep:
        yield sweep


def _by_group(u: Tensor, delta: Tensor) -> Tensor:
    """δ (n, C, O, T) as (n, groups, C·O/groups, T)."""
    return delta.unflatten(2, (u.shape[1], -1)).transpose(1, 2).flatten(2, 3)


def _weight_block(u: Tensor, delta: Tensor) -> Tensor:
    """∂z_a/∂W = Σ_t δ_at u_tᵀ of each class a, shape (n, C, entries of W)."""
    block = _by_group(u, delta) @ u.mT
    return block.unflatten(2, (delta.shape[1], -1)).transpose(1, 2).flatten(2)


def _gram_by_positions(u: Tensor, delta: Tensor) -> Tensor:
    """Σ_ts (u_t·u_s)(δ_at·δ_bs), shape (n, C, C)."""
    rows = _by_group(u, delta)
    classes = (2, (delta.shape[1], -1))
    mixed = (rows @ (u.mT @ u)).unflatten(*classes).flatten(3)
    return (mixed @ rows.unflatten(*classes).flatten(3).mT).sum(1)


def _positions_are_cheaper(u: Tensor, delta: Tensor) -> bool:
    """Whether `_gram_by_positions` takes fewer multiplications than `_weight_block` and its Gram
    matrix."""
    groups, inputs, positions = u.shape[1:]
    classes, outputs = delta.shape[1], delta.shape[2] // groups
    by_block = classes * outputs * inputs * (positions + classes)
    by_positions = positions * (positions * inputs + classes * outputs * (positions + classes))
    return by_positions < by_block


def _other_grams(model: nn.Module, x: Tensor, names: Collection[str]) -> Tensor:
    """The part of J_xᵀJ_x that is due to the named parameters, from their part of each J_x."""
    fixed = {name: p.detach() for name, p in model.named_parameters()}
    chosen = {name: fixed.pop(name).requires_grad_() for name in names}
    grams = []
    for one in x.detach().split(1):
        buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        (z,) = call(model, {**fixed, **chosen, **buffers}, one.clone())
        columns = [
            flatten(
                torch.autograd.grad(
                    value, list(chosen.values()), retain_graph=True, materialize_grads=True
                )
            )
            for value in z
        ]
        grams.append(gram(torch.stack(columns)))
    return torch.stack(grams)
