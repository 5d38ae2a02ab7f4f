"""Gradient descent and SGD as a generator of steps.  Knows nothing of measuring.

θ(t+1) = θ(t) − η g_B(θ(t)) (Eq 34), without momentum, weight decay or decay of η.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ijrlib.operators import Loss, chunks, trainable


@dataclass(frozen=True)
class Step:
    """What a step knows before its update: θ(t) is in the model.

    Attributes:
        step: t.
        loss: L_B(θ(t)), mean loss over the step's batch.
        logits: z of the batch at θ(t), shape (|B|, C), detached.
        labels: shape (|B|,).
    """

    step: int
    loss: float
    logits: Tensor
    labels: Tensor


def train(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    steps: int,
    batch_size: int | None = None,
    seed: int = 0,
    chunk: int = 250,
    start: int = 0,
    autocast: bool = False,
) -> Iterator[Step]:
    """Yield each step t = start … steps at θ(t); the update follows when the next one is asked for.

    The last step is yielded without an update.  After a step whose loss is not finite the generator
    ends, with θ as it was at that step.  Mini-batches are shuffled epochs, a function of ``seed``
    and the epoch alone, so a run that starts at ``start`` with θ(start) continues as if never
    interrupted.

    Args:
        model: left in the mode it is in; parameters are updated in place.
        loss: mean loss of (logits, labels).
        x, y: the training set; gradients are summed over chunks of at most ``chunk`` examples.
        lr: learning rate η.
        steps: number of updates.
        batch_size: |B|; None for the full batch.
        autocast: forward passes in bfloat16 where PyTorch's autocast has it so.
    """
    tensors = list(trainable(model).values())
    for t in range(start, steps + 1):
        if batch_size is None:
            batch_x, batch_y = x, y
        else:
            index = batch_indices(len(x), batch_size, seed, t).to(x.device)
            batch_x, batch_y = x[index], y[index]
        value, gradient, logits = _gradient(model, loss, batch_x, batch_y, tensors, chunk, autocast)
        yield Step(t, value, logits, batch_y)
        if t == steps or not torch.isfinite(torch.tensor(value)):
            return
        with torch.no_grad():
            for p, g in zip(tensors, gradient, strict=True):
                p.sub_(g, alpha=lr)


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of the mini-batch of one step: shuffled epochs, the last incomplete batch dropped."""
    per_epoch = examples // batch_size
    epoch, position = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(examples, generator=generator)
    return order[position * batch_size : (position + 1) * batch_size]


@torch.enable_grad()
def _gradient(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    tensors: Sequence[Tensor],
    chunk: int,
    autocast: bool,
) -> tuple[float, list[Tensor], Tensor]:
    """(L, ∇L by parameter, logits) of a batch, chunk by chunk."""
    total = [torch.zeros_like(p) for p in tensors]
    value, logits = 0.0, []
    for part_x, part_y in chunks((x, y), chunk):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            z = model(part_x)
        z = z.to(x.dtype)
        part = loss(z, part_y) * (len(part_x) / len(x))
        gradients = torch.autograd.grad(part, tensors, materialize_grads=True)
        for sum_, g in zip(total, gradients, strict=True):
            sum_.add_(g)
        value += float(part.detach())
        logits.append(z.detach())
    return value, total, torch.cat(logits)
