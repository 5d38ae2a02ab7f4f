"""Wall-clock times on an even footing, interleaved and in units of one gradient; and memory.

The unit is a bare loop over the chunks that computes ∇_θ L of the same model on the same data in
the same process, timed beside what it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ijrlib.operators import Loss, trainable

Pairs = Sequence[tuple[Tensor, Tensor]]


def now(device: torch.device) -> float:
    """Seconds on a clock that only goes forward, once all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    start = now(device)
    result = call()
    return now(device) - start, result


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each contender in each of ``repeats`` rounds.  Every round starts with another
    contender, and every other one goes backwards: from two rounds on, none of them is always behind
    the same one."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(repeats):
        shift = repeat % len(names)
        order = names[shift:] + names[:shift]
        for name in order[:1] + order[:0:-1] if repeat % 2 else order:
            seconds[name].append(timed(contenders[name], device)[0])
    return seconds


def bare_gradient(model: nn.Module, loss: Loss, pairs: Pairs) -> list[Tensor]:
    """∇_θ L, mean over all pairs (x, y), by parameter."""
    tensors = list(trainable(model).values())
    count = sum(len(y) for _, y in pairs)
    total = [torch.zeros_like(p) for p in tensors]
    with torch.enable_grad():
        for x, y in pairs:
            parts = torch.autograd.grad(loss(model(x), y) * (len(y) / count), tensors)
            for sum_, part in zip(total, parts, strict=True):
                sum_.add_(part)
    return total


def memory_used(device: torch.device, peak: bool) -> int:
    """Memory of this process on the device or in RAM, now or at its peak, in bytes.

    Linux's VmHWM, as ``ru_maxrss`` begins with the peak of the parent process; where there is no
    such file, ``ru_maxrss`` for both.
    """
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated)(device)
    status = Path("/proc/self/status")
    if status.is_file():
        name = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
