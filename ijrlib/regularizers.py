"""Explicit Jacobian regularization, EJR: update directions that keep ⟨J⟩ small (§5.2, App. N).

With u uniform on the unit sphere of R^C, C·E‖⟨J⟩u‖² = ‖⟨J⟩‖_F², and ⟨J⟩u = ∇_θ(uᵀ⟨z⟩) costs one
gradient: one draw for each mini-batch estimates the squared norm without bias.

In a training loop of one's own, for any optimizer and schedule, ::

    z = model(x)
    (cross_entropy(z, y) + weight * jacobian_penalty(z, model.parameters())).backward()   # EJR
    backward(model, cross_entropy, x, y, rho=1.0)                  # EJR v1, instead of .backward()
    backward(model, cross_entropy, x, y, rho=2.0, mu=0.03)         # EJR v2

The functions that return a :class:`Direction` serve :mod:`ijrlib.training`: they work chunk by
chunk, so that a batch may be the whole training set, and take u as an argument.  All costs are in
gradients of the batch.  Random layers draw anew in each pass; running statistics, of batch
normalization for example, are those of the pass at θ alone, as is the practice for SAM.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ijrlib.operators import (
    Loss,
    check_logits,
    check_reduction,
    chunks,
    flatten,
    logits_in,
    trainable,
    unflatten,
)
from ijrlib.parallel import gathered, mine, summed


@dataclass(frozen=True)
class Direction:
    """One evaluation of an update.

    Attributes:
        loss: L_B(θ), mean loss over the batch, without what is added to it.
        logits: z of the batch at θ, shape (|B|, C), detached.
        gradient: what takes the place of ∇L_B in the update, by parameter.
    """

    loss: float
    logits: Tensor
    gradient: list[Tensor]


# -- for a training loop of one's own --------------------------------------------------------------


def unit_vector(classes: int, generator: torch.Generator | None = None) -> Tensor:
    """u uniform on the unit sphere of R^C, shape (C,), float64, on the generator's device: the CPU
    where it is None."""
    if classes < 1:
        raise ValueError(f"classes: expected at least 1, got {classes}")
    device = "cpu" if generator is None else generator.device
    u = torch.randn(classes, dtype=torch.float64, device=device, generator=generator)
    return u / u.norm()


def jacobian_penalty(
    z: Tensor, parameters: Iterable[Tensor], generator: torch.Generator | None = None
) -> Tensor:
    """‖⟨J⟩u‖² = ‖∇_θ(uᵀ⟨z⟩)‖² for a random u, to be added to the loss times λ_reg.

    Its expectation is ‖⟨J⟩‖_F²/C.  Differentiable, so the backward pass is one through a gradient;
    a model with attention or ``weight_norm`` has to be called within
    :func:`ijrlib.operators.twice_differentiable` for it.

    Args:
        z: logits of the batch, shape (|B|, C), with their graph.
        parameters: the θ that is trained; those that need no gradient are left out.
        generator: of u; the global one where it is None.

    Raises:
        ValueError: for logits of another shape or without a graph, parameters that are no tensors
            or of which none is trained or has a part in the logits, and a graph whose gradient
            cannot be differentiated again.
    """
    _check_logits(z)
    _check_graph(z)
    given = list(parameters)
    if others := [p for p in given if not isinstance(p, Tensor)]:
        raise ValueError(f"parameters: expected tensors, got {type(others[0]).__name__}")
    tensors = [p for p in given if p.requires_grad]
    if not tensors:
        raise ValueError("expected trainable parameters, got none")
    u = unit_vector(z.shape[1], generator).to(z)
    slopes = torch.autograd.grad(z.mean(0) @ u, tensors, create_graph=True, allow_unused=True)
    squares = [s.square().sum() for s in slopes if s is not None]
    if not squares:
        raise ValueError(
            "parameters: expected some that the logits depend on, got none; are they of a copy of "
            "the model?"
        )
    return torch.stack(squares).sum()


def _check_logits(z: Tensor) -> None:
    check_logits(z)
    if not len(z):
        raise ValueError(f"expected logits of shape (examples, classes), got {tuple(z.shape)}")


_ONCE = ("ScaledDotProduct", "WeightNormInterface")
"""How the nodes of a graph are named that can be differentiated once."""


def _graph(z: Tensor) -> torch.autograd.graph.Node:
    """The node of the logits; ValueError where there is none."""
    if z.grad_fn is None:
        raise ValueError("expected logits with their graph, got some without (torch.no_grad?)")
    return z.grad_fn


def _check_graph(z: Tensor) -> None:
    """Raise ValueError where the gradient of the logits cannot be differentiated again."""
    found, ahead = {_graph(z)}, [_graph(z)]
    while ahead:
        node = ahead.pop()
        if node.name().startswith(_ONCE):
            raise ValueError(
                "expected logits of a forward pass within ijrlib.operators.twice_differentiable(), "
                f"got {node.name()} in their graph"
            )
        new = {before for before, _ in node.next_functions if before is not None} - found
        found |= new
        ahead += new


def backward(
    model: nn.Module,
    loss: Loss,
    x: Any,
    y: Tensor,
    *,
    rho: float,
    mu: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Add the direction of v1 (``mu`` = 0) or v2 to the parameters' ``.grad``; return L_B(θ).

    Stands where ``loss(model(x), y).backward()`` stood; the optimizer, with whatever momentum,
    weight decay and schedule, is none the wiser.  Costs 2 gradients.  Under autocast both passes
    are.  A ``GradScaler`` has no place here, as its ``step`` would divide gradients by a scale that
    they do not have: float16 needs it, bfloat16 does not.  A parameter that the loss does not
    depend on is left as it is; parameters of the loss itself get no gradient, and no hook is called
    that waits for a gradient to be accumulated.

    With ``DistributedDataParallel`` each process takes its own step to θ̃, from the u that it draws
    and its part of the batch, and the directions are averaged over the processes.

    Args:
        model: returns logits, or an object or a mapping that has them as ``logits``; its parameters
            are those before and after, to the last bit.  Where it is wrapped in
            ``DistributedDataParallel``, the wrapper and not the module inside.
        loss: mean loss of (logits, labels).
        x: what the model is called with, its one argument.
        y: labels.
        rho: ρ > 0, the length of the step to θ̃.
        mu: μ ≥ 0.
        generator: of u; the global one where it is None.

    Raises:
        ValueError: for ρ or μ out of range, a loss with a ``reduction`` that is no mean, logits of
            another shape than (n, C) or without a graph, and ``DistributedDataParallel`` with a
            static graph.
    """
    if not isinstance(rho, Real) or not 0 < rho < math.inf:
        raise ValueError(f"rho: expected a positive length, got {rho!r}")
    if not isinstance(mu, Real) or not 0 <= mu < math.inf:
        raise ValueError(f"mu: expected at least 0, got {mu!r}")
    check_reduction(loss)
    group = _process_group(model)
    # the second pass needs x as it is, should the model change it in place
    z = logits_in(model(x.clone() if isinstance(x, Tensor) else x))
    _check_logits(z)
    _graph(z)
    u = unit_vector(z.shape[1], generator).to(z)
    value = loss(z, y).detach()
    tensors = list(trainable(model).values())
    slopes = torch.autograd.grad(z.mean(0) @ u, tensors, materialize_grads=True)
    with _perturbed(model, slopes, float(rho)):
        z = logits_in(model(x))
        gradients = torch.autograd.grad(
            loss(z, y) + mu * (z.mean(0) @ u),
            tensors,
            allow_unused=True,
            materialize_grads=group is not None,  # of another process it may be used
        )
    for p, g in zip(tensors, _averaged(gradients, group), strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g
    return value


def _process_group(model: nn.Module) -> dist.ProcessGroup | None:
    """The processes of ``DistributedDataParallel``; None for a model without it."""
    for module in model.modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            if module.static_graph:
                raise ValueError(
                    "model: expected DistributedDataParallel with static_graph=False, got True"
                )
            return module.process_group
    return None


def _averaged(gradients: Sequence[Tensor], group: dist.ProcessGroup | None) -> Sequence[Tensor]:
    """The mean over a group of processes, which the hooks of ``DistributedDataParallel`` form and
    ``torch.autograd.grad`` does not call; the gradients themselves where there is no group."""
    if group is None:
        return gradients
    total = flatten(gradients)
    dist.all_reduce(total, group=group)
    return unflatten(total / dist.get_world_size(group), gradients)


# -- directions, for the runs of the book ----------------------------------------------------------


@torch.enable_grad()
def plain(
    model: nn.Module,
    loss: Loss | None,
    x: Tensor,
    y: Tensor,
    *,
    chunk: int,
    autocast: bool = False,
    along: Tensor | None = None,
) -> Direction:
    """∇L_B, chunk by chunk.  Costs 1.

    Args:
        model: in the mode it is in; its parameters are left as they are.
        loss: mean loss of (logits, labels); None for 0.
        x, y: the batch; it goes through the model in chunks of at most ``chunk`` examples.
        autocast: forward passes in bfloat16 where PyTorch's autocast has it so.
        along: w, shape (C,), for ∇(L_B + wᵀ⟨z⟩) in place of ∇L_B.

    Raises:
        ValueError: for a loss with a ``reduction`` that is no mean.
    """
    check_reduction(loss)
    tensors = list(trainable(model).values())
    total = [torch.zeros_like(p) for p in tensors]
    value, logits, parts = _zero(tensors[0]), {}, chunks((x, y), chunk)
    for i in mine(len(parts)):
        part_x, part_y = parts[i]
        share = len(part_x) / len(x)
        z = _logits(model, part_x, autocast)
        objective = z.new_zeros(())
        if loss is not None:
            objective = loss(z, part_y) * share
            value += objective.detach()
        if along is not None:
            objective = objective + z.mean(0) @ along.to(z) * share
        _add(total, torch.autograd.grad(objective, tensors, materialize_grads=True))
        logits[i] = z.detach()
    return _direction(value, logits, total, parts)


@torch.enable_grad()
def ejr(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    u: Tensor,
    *,
    weight: float,
    chunk: int,
    autocast: bool = False,
) -> Direction:
    """∇(L_B + λ_reg‖⟨J⟩u‖²), ⟨J⟩ of the batch, ``weight`` being λ_reg; otherwise as :func:`plain`.

    As ∇‖⟨J⟩u‖² = 2∇(vᵀ⟨J⟩u) with v = ⟨J⟩u held fixed, a batch of several chunks takes one pass for
    v and another for the derivative along it.  Costs about 3, of several chunks about 4.
    """
    check_reduction(loss)
    tensors = list(trainable(model).values())
    parts = chunks((x, y), chunk)
    fixed = None
    if len(parts) > 1:
        with _kept_buffers(model):
            fixed = plain(model, None, x, y, chunk=chunk, autocast=autocast, along=u).gradient
    total = [torch.zeros_like(p) for p in tensors]
    value, logits = _zero(tensors[0]), {}
    for i in mine(len(parts)):
        part_x, part_y = parts[i]
        share = len(part_x) / len(x)
        z = _logits(model, part_x, autocast)
        part = loss(z, part_y) * share
        slopes = torch.autograd.grad(
            z.mean(0) @ u.to(z) * share, tensors, create_graph=True, materialize_grads=True
        )
        if fixed is None:
            penalty = sum((s * s).sum() for s in slopes)
        else:
            penalty = 2 * sum((s * v).sum() for s, v in zip(slopes, fixed, strict=True))
        _add(total, torch.autograd.grad(part + weight * penalty, tensors, materialize_grads=True))
        value += part.detach()
        logits[i] = z.detach()
    return _direction(value, logits, total, parts)


def ejr_two_steps(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    u: Tensor,
    *,
    rho: float,
    mu: float = 0.0,
    chunk: int,
    autocast: bool = False,
) -> Direction:
    """∇L̃_B(θ̃) with θ̃ = θ + ρ⟨J⟩u/‖⟨J⟩u‖ and L̃ = L + μuᵀ⟨z⟩: v1 where μ = 0, else v2.

    Where ⟨J⟩u = 0, θ̃ is θ.  Costs 2.  Otherwise as :func:`plain`.
    """
    before = plain(model, None, x, y, chunk=chunk, autocast=autocast, along=u)
    with _perturbed(model, before.gradient, rho):
        after = plain(model, loss, x, y, chunk=chunk, autocast=autocast, along=mu * u)
    return Direction(loss(before.logits, y).item(), before.logits, after.gradient)


def sam(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    *,
    rho: float,
    chunk: int,
    autocast: bool = False,
) -> Direction:
    """∇L_B(θ + ρ∇L_B/‖∇L_B‖), sharpness-aware minimization (Foret et al. 2021), at the cost of v1
    and v2: 2.  Otherwise as :func:`plain`."""
    before = plain(model, loss, x, y, chunk=chunk, autocast=autocast)
    with _perturbed(model, before.gradient, rho):
        after = plain(model, loss, x, y, chunk=chunk, autocast=autocast)
    return Direction(before.loss, before.logits, after.gradient)


def _zero(like: Tensor) -> Tensor:
    """Where losses are added up, in double precision."""
    return torch.zeros((), dtype=torch.float64, device=like.device)


def _direction(
    value: Tensor,
    logits: Mapping[int, Tensor],
    total: list[Tensor],
    parts: Sequence[tuple[Tensor, Tensor]],
) -> Direction:
    """Out of what each process has found for its chunks."""
    summed(value, *total)
    z = gathered(logits, [len(x) for x, _ in parts], total[0])
    return Direction(float(value), z, total)


def _add(total: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    for sum_, part in zip(total, parts, strict=True):
        sum_.add_(part)


def _logits(model: nn.Module, x: Tensor, autocast: bool) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        z = model(x.clone())
    return z.to(next(model.parameters()).dtype)


@contextlib.contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """The model's buffers, such as running statistics, are afterwards what they were."""
    kept = [
        (module, name, b, b.clone())
        for module in model.modules()
        for name, b in module._buffers.items()
        if b is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, b, value in kept:
                module._buffers[name] = b  # it may have been given another tensor
                b.copy_(value)


@contextlib.contextmanager
def _perturbed(model: nn.Module, direction: Sequence[Tensor], rho: float) -> Iterator[None]:
    """θ + ρ·direction/‖direction‖ in the model, θ and its buffers again afterwards.

    An autocast context keeps its copies of the parameters in bfloat16 until it ends, so they are
    dropped at either move.
    """
    tensors = list(trainable(model).values())
    kept = [p.detach().clone() for p in tensors]
    norm = float(torch.stack([d.norm() for d in direction]).norm())
    try:
        with torch.no_grad():
            for p, d in zip(tensors, direction, strict=True):
                p.add_(d, alpha=rho / norm if norm else 0.0)
        torch.clear_autocast_cache()
        with _kept_buffers(model):
            yield
    finally:
        with torch.no_grad():
            for p, value in zip(tensors, kept, strict=True):
                p.copy_(value)
        torch.clear_autocast_cache()
