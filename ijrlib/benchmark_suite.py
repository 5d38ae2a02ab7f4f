"""Composition root of ``ijr bench``: run benchmarks in one process and store what they give."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from ijrlib import benchmarks, machine
from ijrlib.benchmarks import Document, Entry
from ijrlib.regularizer_benchmark import regularized_updates
from ijrlib.runner import resolve_device
from ijrlib.static_benchmarks import growth, impurity, mean_jacobian, memory, per_example
from ijrlib.tracking_benchmarks import measurement, sharpness
from ijrlib.training_benchmark import training_loop
from ijrlib.workloads import FULL, Workload

BENCHMARKS: Mapping[str, Callable[[Workload], Entry]] = {
    "sharpness": sharpness,
    "measurement": measurement,
    "mean-jacobian": mean_jacobian,
    "per-example": per_example,
    "impurity": impurity,
    "training-loop": training_loop,
    "regularizers": regularized_updates,
    "growth": growth,
    "memory": memory,
}
PACKAGES = (
    "ijrlib",
    "torch",
    "numpy",
    "scipy",
    "mpmath",
    "pyhessian",
    "curvlinops-for-pytorch",
)
REPEATS = 5


def run(
    names: Sequence[str] = (),
    repeats: int = REPEATS,
    threads: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Document:
    """The result of the named benchmarks (default: all), as :mod:`ijrlib.benchmarks` describes it.

    Args:
        repeats: rounds of the benchmarks at one θ; along training every step is a sample.
        threads: of the CPU; default torch's.
        device: "auto", "cpu", "cuda" or "cuda:0" and so on.
        say: told what is going on.

    Raises:
        ValueError: for an unknown benchmark, a number of repeats or threads below one, or a device
            that is not there.
    """
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise ValueError(
            f"benchmark: expected one of {', '.join(BENCHMARKS)}; got {', '.join(unknown)}"
        )
    for label, number in (("repeats", repeats), ("threads", threads)):
        if number is not None and number < 1:
            raise ValueError(f"{label}: expected at least 1, got {number}")
    target = resolve_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    machine.keep_freed_memory()
    workload = Workload(FULL, target, repeats, say)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    version = machine.code_version()  # of the code that is loaded, not of what a long run ends with
    entries, spent = [], {}
    for name in names or BENCHMARKS:
        say(f"benchmark: {name}")
        start = time.monotonic()
        entries.append(BENCHMARKS[name](workload))
        spent[name] = round(time.monotonic() - start, 1)
    processor = machine.processor()
    gpu = torch.cuda.get_device_name(target) if target.type == "cuda" else None
    provenance = {
        "machine": gpu or processor,
        "created": created,
        **version,
        "processor": processor,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": machine.package_versions(PACKAGES),
        "repeats": repeats,
        "wall_seconds": spent,
        "data": workload.source,
    }
    return {"schema": benchmarks.SCHEMA, "provenance": provenance, "benchmarks": entries}
