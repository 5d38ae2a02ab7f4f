"""What an update costs with each regularizer, in time and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ijrlib import networks, regularizers
from ijrlib.benchmarks import Entry, Row, entry, row
from ijrlib.operators import cross_entropy
from ijrlib.timing import bare_gradient, interleaved, memory_used
from ijrlib.workloads import Workload

NETWORKS = {"SimpleCNN": "simple_cnn", "WRN-10-2": "wrn10_2"}
GRADIENT = "bare gradient"
WEIGHT, RHO, MU = 0.01, 1.0, 0.01


def updates(
    model: nn.Module, x: Tensor, y: Tensor, u: Tensor
) -> Mapping[str, Callable[[], object]]:
    """The direction of one update with each regularizer, of a mini-batch in one chunk."""
    given = (model, cross_entropy, x, y)
    chunk = len(x)
    two_steps = partial(regularizers.ejr_two_steps, *given, u, rho=RHO, chunk=chunk)
    return {
        GRADIENT: lambda: bare_gradient(model, cross_entropy, [(x, y)]),
        "none": partial(regularizers.plain, *given, chunk=chunk),
        "EJR": partial(regularizers.ejr, *given, u, weight=WEIGHT, chunk=chunk),
        "EJR v1": two_steps,
        "EJR v2": partial(two_steps, mu=MU),
        "SAM": partial(regularizers.sam, *given, rho=RHO, chunk=chunk),
    }


def regularized_updates(workload: Workload) -> Entry:
    """Seconds and peak memory of one update with each regularizer."""
    rows: list[Row] = []
    for case, network in NETWORKS.items():
        x, y = workload.data(workload.sizes.update)
        model = workload.place(networks.build(network))
        u = regularizers.unit_vector(10, torch.Generator().manual_seed(0)).to(workload.device)
        contenders = updates(model, x, y, u)
        interleaved(contenders, 1, workload.device)
        seconds = interleaved(contenders, 4 * workload.repeats, workload.device)
        for name, taken in seconds.items():
            workload.say(f"{case}: {name}")
            arguments = (network, name, len(x), str(workload.device), torch.get_num_threads())
            rows.append(
                row(case, name, taken, seconds[GRADIENT], gibibytes=_peak(*arguments) / 2**30)
            )
    return entry(
        "regularizers",
        "One update with each regularizer",
        f"{workload.data_name}: a mini-batch of {workload.sizes.update} images in one chunk, "
        "networks at their initialization. Memory is the peak of a process of its own, above the "
        "memory with the network and the mini-batch (random images).",
        rows,
    )


def _peak(*arguments: object) -> int:
    code = f"from {__name__} import measure_update; measure_update(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {arguments} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure_update(network: str, name: str, images: int, device: str, threads: int) -> None:
    """Print the peak memory of one update above that of the network and the mini-batch, in bytes.
    For a new process: the peak of a process only grows."""
    torch.set_num_threads(threads)
    target = torch.device(device)
    generator = torch.Generator(target).manual_seed(0)
    x = torch.randn(images, *networks.INPUT_SHAPES[network], device=target, generator=generator)
    y = torch.arange(images, device=target) % 10
    model = networks.build(network).to(target)
    u = torch.ones(10, dtype=torch.float64, device=target) / 10**0.5
    update = updates(model, x, y, u)[name]
    before = memory_used(target, peak=False)
    update()
    print(json.dumps(memory_used(target, peak=True) - before))
