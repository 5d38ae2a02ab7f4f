"""Overhead of the training loop over a bare PyTorch loop, data loading included."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ijrlib import runner
from ijrlib.benchmarks import OURS, Entry, Row, entry, row
from ijrlib.config import RunConfig
from ijrlib.operators import cross_entropy
from ijrlib.timing import now
from ijrlib.training import Step, train
from ijrlib.workloads import Workload

BARE = "bare PyTorch loop"
RUN = "ijrlib, a whole run without measures"
LR = 0.01
CHUNK = 250


def bare_loop(model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None) -> Iterator[float]:
    """PyTorch's usual loop, yielding each step's loss: shuffled epochs of indexed mini-batches, or
    the full batch in chunks of ``CHUNK``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    while True:
        for batch_x, batch_y in _epoch(x, y, batch_size):
            optimizer.zero_grad()
            total = 0.0
            for part_x, part_y in zip(batch_x.split(CHUNK), batch_y.split(CHUNK), strict=True):
                share = len(part_y) / len(batch_y)
                loss = nn.functional.cross_entropy(model(part_x), part_y) * share
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            yield total


def _epoch(x: Tensor, y: Tensor, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    if batch_size is None:
        yield x, y
        return
    order = torch.randperm(len(x), device=x.device)
    for index in order[: len(x) // batch_size * batch_size].split(batch_size):
        yield x[index], y[index]


def training_loop(workload: Workload) -> Entry:
    """Seconds a step of the bare loop, of ``training.train`` and of ``runner.run`` with nothing to
    measure."""
    sizes = workload.sizes
    rounds = sizes.loop_rounds * workload.repeats
    examples, wanted, steps = sizes.loop
    x, y = workload.data(examples)
    batch_size = min(wanted, len(x))
    rows = _rows(workload, "mini-batches", x, y, batch_size, steps, rounds)
    examples, block = sizes.full_batch
    few, labels = workload.data(examples)
    rows += _rows(workload, "full batch", few, labels, None, block, rounds)
    return entry(
        "training-loop",
        "Overhead of the training loop",
        f"6CNN ({workload.data_name}): {len(x):,} images in memory, mini-batches of {batch_size}; "
        f"{len(few):,} images as one batch. A sample is the mean over a block of {steps} or "
        f"{block} steps; the contenders' blocks alternate.",
        rows,
        unit="one step of the bare loop in the same round",
    )


def _rows(
    workload: Workload,
    case: str,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    steps: int,
    rounds: int,
) -> list[Row]:
    """One run goes on while, between its blocks of steps, the other loops have theirs.  The first
    round is not counted."""
    device = workload.device
    total = steps * (rounds + 1)
    arguments: dict[str, Any] = {"lr": LR, "batch_size": batch_size}
    loops = {
        BARE: bare_loop(workload.network(), x, y, batch_size),
        OURS: train(workload.network(), cross_entropy, x, y, steps=total, **arguments),
    }
    seconds: dict[str, list[float]] = {BARE: [], OURS: [], RUN: []}

    def with_the_others(*args: Any, **kwargs: Any) -> Iterator[Step]:
        begun = 0.0
        for step in train(*args, **kwargs):
            if step.step % steps == 0:
                if step.step:
                    seconds[RUN].append((now(device) - begun) / steps)
                if step.step < total:
                    for name, loop in loops.items():
                        start = now(device)
                        for _ in range(steps):
                            next(loop)
                        seconds[name].append((now(device) - start) / steps)
                begun = now(device)
            yield step

    config = RunConfig(
        dataset=workload.source["name"],
        examples=len(x),
        network="6cnn",
        steps=total,
        chunk=CHUNK,
        probe=1,
        **arguments,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(runner, "train", with_the_others),
    ):
        runner.run(config, str(device), folder)
    return [row(case, name, taken[1:], seconds[BARE][1:]) for name, taken in seconds.items()]
