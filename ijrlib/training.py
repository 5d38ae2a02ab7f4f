"""Gradient descent and SGD as a generator of steps.  Knows nothing of measuring.

θ(t+1) = θ(t) − η g_B(θ(t)) (Eq 34); a regularizer puts its direction in the place of g_B, and the
optimizer may add momentum and weight decay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ijrlib import regularizers, sharpest_directions
from ijrlib.config import DECAY_AT, RunConfig
from ijrlib.operators import Loss, flatten, trainable, unflatten
from ijrlib.regularizers import Direction

Update = Callable[..., Direction]
"""(model, loss, x, y, step=…, chunk=…, autocast=…) → the direction of one update."""

PADDING = 4
"""Pixels by which augmentation shifts at most."""

AUGMENTATION, DIRECTION = 1, 2  # streams of random numbers: u is independent of the mini-batch


@dataclass(frozen=True)
class Step:
    """What a step knows before its update: θ(t) is in the model.

    Attributes:
        step: t.
        loss: L_B(θ(t)), mean loss over the step's batch.
        logits: z of the batch at θ(t), shape (|B|, C), detached.
        labels: shape (|B|,).
        buffers: the model's buffers, such as running statistics, as they were before the step's
            passes; with θ(t) and the optimizer's state, what it takes to resume.
        direction: what takes the place of ∇L_B, by parameter.
        lr: η of the step.
    """

    step: int
    loss: float
    logits: Tensor
    labels: Tensor
    buffers: dict[str, Tensor]
    direction: list[Tensor]
    lr: float

    @property
    def update(self) -> Tensor:
        """What SGD with neither momentum nor weight decay takes off θ(t), shape (m,)."""
        return self.lr * flatten(self.direction)


def gradient(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, *, step: int, **how) -> Direction:
    """∇L_B, the update of plain gradient descent."""
    return regularizers.plain(model, loss, x, y, **how)


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
    update: Update = gradient,
    optimizer: torch.optim.Optimizer | None = None,
    lr_decay: float = 1.0,
    lr_decay_at: int = 0,
    augment: bool = False,
) -> Iterator[Step]:
    """Yield each step t = start … steps at θ(t); the update follows when the next one is asked for.

    The last step is yielded without an update.  After a step whose loss is not finite the generator
    ends, with θ as it was at that step.  Mini-batches are shuffled epochs, a function of ``seed``
    and the epoch alone, and so is all else that is random a function of ``seed`` and t: a run that
    starts at ``start`` with θ(start), its buffers and the optimizer's state continues as if never
    interrupted.

    Args:
        model: left in the mode it is in; parameters are updated in place.
        loss: mean loss of (logits, labels).
        x, y: the training set; gradients are summed over chunks of at most ``chunk`` examples.
        lr: learning rate η.
        steps: number of updates.
        batch_size: |B|; None for the full batch.
        autocast: forward passes in bfloat16 where PyTorch's autocast has it so.
        update: the direction that takes the place of the gradient (:func:`update_rule`).
        optimizer: of the model's trainable parameters; plain SGD where it is None.  Its learning
            rate is set here.
        lr_decay: factor on the learning rate at each of the shares ``DECAY_AT`` of the steps.
        lr_decay_at: the one step at which the learning rate decays in place of these.
        augment: see :class:`~ijrlib.config.RunConfig`.

    Raises:
        ValueError: at the first step, for a batch size outside 1 … the number of examples.
    """
    tensors = list(trainable(model).values())
    optimizer = optimizer or torch.optim.SGD(tensors, lr)
    decays = [lr_decay_at] if lr_decay_at else [share * steps for share in DECAY_AT]
    for t in range(start, steps + 1):
        if batch_size is None:
            batch_x, batch_y = x, y
        else:
            index = batch_indices(len(x), batch_size, seed, t).to(x.device)
            batch_x, batch_y = x[index], y[index]
        if augment:
            batch_x = shifted_and_mirrored(batch_x, seed, t)
        rate = lr * lr_decay ** sum(t >= at for at in decays)
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        found = update(model, loss, batch_x, batch_y, step=t, chunk=chunk, autocast=autocast)
        yield Step(t, found.loss, found.logits, batch_y, buffers, found.gradient, rate)
        if t == steps or not math.isfinite(found.loss):
            return
        for group in optimizer.param_groups:
            group["lr"] = rate
        for p, g in zip(tensors, found.gradient, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()


def update_rule(
    config: RunConfig, classes: int, probe: tuple[Tensor, Tensor], memory: dict[str, Tensor]
) -> Update:
    """The direction that a configuration's regularizer asks for; u of a step, on the unit sphere of
    R^C with C = ``classes``, is a function of the seed and the step.

    Args:
        probe: (x, y) of which H is, for the rules that follow its eigenvectors.
        memory: where these are kept between steps.
    """
    if config.regularizer == "none":
        return gradient

    def update(
        model: nn.Module, loss: Loss, x: Tensor, y: Tensor, *, step: int, **how
    ) -> Direction:
        if step < config.regularizer_from:
            return gradient(model, loss, x, y, step=step, **how)
        if config.sharpest:
            found = gradient(model, loss, x, y, step=step, **how)
            g, k = flatten(found.gradient), config.sharpest
            v = sharpest_directions.followed(
                model, loss, probe, k, step=step, memory=memory, chunk=how["chunk"]
            )
            if config.regularizer == "nudged":
                g = sharpest_directions.nudged(g, v, config.gamma)
            else:
                g = sharpest_directions.projection(g, v)
            return replace(found, gradient=unflatten(g, found.gradient))
        if config.regularizer == "sam":
            return regularizers.sam(model, loss, x, y, rho=config.rho, **how)
        u = random_direction(classes, config.seed, step)
        if config.regularizer == "ejr":
            return regularizers.ejr(model, loss, x, y, u, weight=config.ejr_weight, **how)
        return regularizers.ejr_two_steps(model, loss, x, y, u, rho=config.rho, mu=config.mu, **how)

    return update


def random_direction(classes: int, seed: int, step: int) -> Tensor:
    """u of a step: uniform on the unit sphere of R^C, C = ``classes``."""
    return regularizers.unit_vector(classes, _generator(seed, step, DIRECTION))


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of the mini-batch of one step: shuffled epochs, the last incomplete batch dropped.

    Raises:
        ValueError: for a batch size outside 1 … ``examples``.
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size: expected 1 to {examples}, got {batch_size}")
    per_epoch = examples // batch_size
    epoch, position = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**64)
    order = torch.randperm(examples, generator=generator)
    return order[position * batch_size : (position + 1) * batch_size]


def shifted_and_mirrored(x: Tensor, seed: int, step: int) -> Tensor:
    """The usual augmentation of CIFAR: images x (n, channels, height, width), each shifted by up to
    ``PADDING`` pixels each way and mirrored with probability ½.  Zeros come in from the border."""
    n, _, height, width = x.shape
    generator = _generator(seed, step, AUGMENTATION)
    down, right = torch.randint(2 * PADDING + 1, (2, n), generator=generator)
    mirrored = torch.randint(2, (n,), generator=generator).bool()
    columns = torch.arange(width).expand(n, -1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + right[:, None]
    rows = torch.arange(height) + down[:, None]
    padded = nn.functional.pad(x, (PADDING,) * 4)
    image = torch.arange(n)[:, None, None, None]
    channel = torch.arange(x.shape[1])[None, :, None, None]
    index = (image, channel, rows[:, None, :, None], columns[:, None, None, :])
    shifted = padded[tuple(i.to(x.device) for i in index)]
    return shifted.contiguous(memory_format=torch.channels_last)


def _generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A generator of its own for each seed, step and stream: torch keeps 32 bits of what it is
    given, into which ``SeedSequence`` hashes all three."""
    (state,) = np.random.SeedSequence((seed, step, stream)).generate_state(1)
    return torch.Generator().manual_seed(int(state))


def bfloat16_slowdown() -> float:
    """How many times as long a convolution takes on this CPU in bfloat16 as in float32.

    About a half where the processor has instructions for it; where PyTorch has to emulate them it
    can be several tens.
    """

    def seconds(dtype: torch.dtype) -> float:
        x = torch.ones(8, 64, 16, 16, dtype=dtype)
        weight = torch.ones(64, 64, 3, 3, dtype=dtype)
        times = []
        for _ in range(3):  # the first one also prepares it
            start = time.perf_counter()
            torch.nn.functional.conv2d(x, weight)
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.no_grad():
        return seconds(torch.bfloat16) / seconds(torch.float32)
