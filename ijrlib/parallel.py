"""Several processes on one run, through ``torch.distributed``: each takes a share of the chunks.

Everything that is measured or descended is a sum over examples.  All processes hold the same
parameters and all data and take the same decisions; in a loop over chunks each goes through its own
(:func:`mine`), and the sums are added up (:func:`summed`) or put together (:func:`gathered`).  With
one process all three do nothing, and importing this module needs no process group.

Only processes that have called :func:`join` share their work.  In a group that someone else has
made, to train a model say, each process measures by itself.

Numbers differ from those of one process by the order of summation alone.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_sharing = False
"""Whether this process has called :func:`join` and there was something to join."""

AXES = 4
"""Axes that a tensor handed to :func:`gathered` has at most."""


def processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process; 0 writes."""
    return dist.get_rank() if _joined() else 0


def _joined() -> bool:
    return _sharing and dist.is_initialized()


def announced() -> bool:
    """Whether ``torchrun`` has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device) -> torch.device:
    """Join the processes that ``torchrun`` has started, if it has, and share all work with them
    from now on; return this one's device: the GPU of its number on this machine, in the place of
    "cuda"."""
    global _sharing
    if not announced():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(leave)
    _sharing = True
    return device


def leave() -> None:
    """End the group of processes that this one has joined, if it has."""
    global _sharing
    if _joined():
        dist.destroy_process_group()
    _sharing = False


def share(examples: int, chunk: int) -> int:
    """Examples in a chunk: at most ``chunk``, and no more than a process' equal share, rounded up.

    Where there are many processes, the last of them may have no chunk: 6 examples make three
    chunks of 2 for 4 processes.
    """
    return max(1, min(chunk, -(-examples // processes())))


def mine(count: int) -> range:
    """The chunks 0 … ``count`` − 1 that this process goes through, maybe none."""
    return range(rank(), count, processes())


def summed(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes, in place."""
    if processes() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def gathered(parts: Mapping[int, Tensor], sizes: Sequence[int], like: Tensor) -> Tensor:
    """The chunks of all processes, one after another along the first axis.

    Args:
        parts: those of this process by number (:func:`mine`), maybe none; all of one type.
        sizes: length of every chunk.
        like: a tensor of the device and the type of the parts, those of the other processes too.
    """
    if processes() == 1:
        return torch.cat([parts[i] for i in range(len(sizes))])
    some = next(iter(parts.values()), like)
    axes = torch.zeros(AXES, dtype=torch.int64, device=like.device)
    if parts:
        axes[0] = some.ndim
        axes[1 : some.ndim] = torch.tensor(some.shape[1:], device=axes.device)
    dist.all_reduce(axes, op=dist.ReduceOp.MAX)
    rest = axes[1 : int(axes[0])].tolist()
    total = torch.zeros(sum(sizes), *rest, dtype=some.dtype, device=like.device)
    for i, place in enumerate(total.split(list(sizes))):
        if i in parts:
            place.copy_(parts[i])
    summed(total)
    return total


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in one of the processes at least."""
    if processes() == 1:
        return flag
    found = torch.tensor(int(flag), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)


def wait() -> None:
    """Until all processes have come here."""
    if processes() > 1:
        dist.barrier()
