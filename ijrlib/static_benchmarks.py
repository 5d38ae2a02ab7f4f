"""Benchmarks at one θ: ‖⟨J⟩‖, Jacobians of single examples, impurity, growth, memory."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ijrlib import logits, machine, networks, peers
from ijrlib.benchmarks import (
    ALGORITHM_2,
    DENSE_IMPURITY,
    DENSE_JACOBIAN,
    OURS,
    Entry,
    Row,
    entry,
    row,
)
from ijrlib.curvature import curvature
from ijrlib.operators import chunks, cross_entropy, mean_jacobian_gram
from ijrlib.per_example import jacobian_norms
from ijrlib.sharpness_bound import sharpness_bound
from ijrlib.spectra import jacobian_norm
from ijrlib.timing import Pairs, bare_gradient, interleaved, memory_used
from ijrlib.workloads import Workload

UNIT = "unit"
THEOREM_2_RTOL = 1e-3
GROWTH_REPEATS = 3


def _beside_a_gradient(
    workload: Workload,
    model: nn.Module,
    pairs: Pairs,
    contenders: Mapping[str, Callable[[], Any]],
    repeats: int,
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of each contender, and of a bare gradient in the same rounds."""
    unit = functools.partial(bare_gradient, model, cross_entropy, pairs)
    seconds = interleaved({UNIT: unit, **contenders}, repeats, workload.device)
    units = seconds.pop(UNIT)
    return seconds, units


def _relative(values: Tensor, reference: Tensor) -> list[float]:
    return ((values - reference).abs() / reference.abs()).tolist()


# -- Jacobians -------------------------------------------------------------------------------------


def mean_jacobian(workload: Workload) -> Entry:
    """‖⟨J⟩‖ against Algorithm 2."""
    rows, settings = [], []
    for classes, wanted in workload.sizes.jacobian.items():
        x, y = workload.data(wanted)
        model = workload.trained if classes == 10 else workload.network(classes)
        rows += _mean_jacobian_rows(workload, model, chunks((x, y)), classes)
        state = "after 20 steps of training" if classes == 10 else "at initialization"
        settings.append(f"6CNN with {classes} classes {state} on {len(x):,} images")
    return entry(
        "mean-jacobian",
        "Norm of the mean Jacobian",
        f"{'; '.join(settings)} ({workload.data_name}). Algorithm 2 to a relative change of 1e-3.",
        rows,
        error_of="relative error of ‖⟨J⟩‖",
    )


def _mean_jacobian_rows(
    workload: Workload, model: nn.Module, pairs: Pairs, classes: int
) -> list[Row]:
    xs = [x for x, _ in pairs]
    gram = mean_jacobian_gram(model, xs)
    exact = float(torch.linalg.eigvalsh(gram)[-1].sqrt())
    estimates = peers.algorithm_2_estimates(gram)
    contenders = {
        OURS: functools.partial(jacobian_norm, model, xs),
        ALGORITHM_2: functools.partial(peers.algorithm_2_iteration, model, pairs),
    }
    seconds, units = _beside_a_gradient(workload, model, pairs, contenders, workload.repeats)
    case, count = f"C = {classes}", len(estimates)
    return [
        row(case, OURS, seconds[OURS], units, errors=[abs(jacobian_norm(model, xs) / exact - 1)]),
        row(
            case,
            ALGORITHM_2,
            [count * s for s in seconds[ALGORITHM_2]],
            units,
            errors=[abs(estimates[-1] / exact - 1)],
            note=f"one of its {count} iterations is timed and scaled up",
        ),
    ]


def per_example(workload: Workload) -> Entry:
    """‖J_x‖ of each example, and the quantities of Theorem 2, against ``vmap(jacrev)``."""
    model = workload.trained
    x, y = workload.data(workload.sizes.per_example)
    contenders: dict[str, Callable[[], Any]] = {
        OURS: functools.partial(jacobian_norms, model, x),
        DENSE_JACOBIAN: functools.partial(peers.dense_jacobian_norms, model, x),
    }
    seconds, units = _beside_a_gradient(
        workload, model, chunks((x, y)), contenders, workload.repeats
    )
    exact = peers.dense_jacobian_norms(copy.deepcopy(model).double(), x.double())
    rows = [
        row("‖J_x‖", name, seconds[name], units, errors=_relative(call(), exact))
        for name, call in contenders.items()
    ]

    x, y = workload.data(workload.sizes.theorem_2)
    contenders = {
        OURS: functools.partial(sharpness_bound, model, x, rtol=THEOREM_2_RTOL),
        DENSE_JACOBIAN: functools.partial(peers.dense_theorem_2, model, x),
    }
    seconds, units = _beside_a_gradient(
        workload, model, chunks((x, y)), contenders, workload.repeats
    )
    norm, _ = peers.dense_theorem_2(copy.deepcopy(model).double(), x.double())
    errors = {OURS: contenders[OURS]().norm, DENSE_JACOBIAN: contenders[DENSE_JACOBIAN]()[0]}
    rows += [
        row("Theorem 2", name, taken, units, errors=[abs(errors[name] / norm - 1)])
        for name, taken in seconds.items()
    ]
    return entry(
        "per-example",
        "Jacobians of single examples",
        f"6CNN after 20 steps of training ({workload.data_name}): ‖J_x‖ of "
        f"{workload.sizes.per_example} images; ‖G‖ and λ* of Theorem 2 on "
        f"{workload.sizes.theorem_2}, ours to a residual of {THEOREM_2_RTOL:g}. The peer forms "
        "every J_x, eight at a time, for Theorem 2 all of them.",
        rows,
        error_of="relative error of ‖J_x‖ and of ‖G‖",
    )


# -- impurity --------------------------------------------------------------------------------------


def impurity(workload: Workload) -> Entry:
    """λ^(1) against batched ``eigvalsh``, in time and in units in the last place."""
    sizes = workload.sizes
    rows = []
    for classes, count in sizes.impurity.items():
        p = probabilities(count, classes).to(workload.device)
        part = p[: sizes.impurity_peer[classes]].clone()
        factor = count / len(part)
        contenders = {
            OURS: functools.partial(logits.impurity, p),
            DENSE_IMPURITY: functools.partial(peers.dense_impurity, part),
        }
        seconds = interleaved(contenders, workload.repeats, workload.device)
        sample = sample_to_the_edge(sizes.accuracy[classes], classes)
        exact = [peers.exact_impurity(one) for one in sample]
        on_device = torch.from_numpy(sample).to(workload.device)
        notes = {OURS: "", DENSE_IMPURITY: ""}
        if factor > 1:
            notes[DENSE_IMPURITY] = f"timed on {len(part):,} of them and scaled up"
        for name, method in ((OURS, logits.impurity), (DENSE_IMPURITY, peers.dense_impurity)):
            times = factor if name == DENSE_IMPURITY else 1
            errors = map(peers.ulps, method(on_device).tolist(), exact)
            rows.append(
                row(
                    f"C = {classes}",
                    name,
                    [times * s for s in seconds[name]],
                    errors=list(errors),
                    note=notes[name],
                )
            )
    classes, count = sizes.impurity_alone
    p = probabilities(count, classes).to(workload.device)
    alone = interleaved({OURS: functools.partial(logits.impurity, p)}, workload.repeats, p.device)
    rows.append(row(f"C = {classes}", OURS, alone[OURS], note=f"{count:,} vectors, alone"))
    counts = ", ".join(f"{count:,} (C = {classes})" for classes, count in sizes.impurity.items())
    samples = ", ".join(str(count) for count in sizes.accuracy.values())
    return entry(
        "impurity",
        "Impurity λ^(1)",
        f"Probability vectors in float64, from nearly uniform to nearly one-hot: {counts}. "
        f"eigvalsh includes forming M. Errors against mpmath on {samples} vectors, half of them "
        "closer to one-hot than a softmax can come in float64.",
        rows,
        unit="",
        error_of="units in the last place of λ^(1)",
    )


def probabilities(count: int, classes: int) -> Tensor:
    """Softmax of Gaussian logits whose scales run from 0.1 to 30, (count, classes), float64."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-1, 1.5, count, dtype=torch.float64)
    scales = scales[torch.randperm(count, generator=generator), None]
    z = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return (scales * z).softmax(1)


def sample_to_the_edge(count: int, classes: int) -> np.ndarray:
    """Half of them as :func:`probabilities`, half (1, ε u) with uniform u and ε from 1e-280 to 1,
    where 1 − p_(1) and p_(1) − λ^(1) are far below rounding; (count, classes)."""
    rng = np.random.default_rng(0)
    near = rng.random((count // 2, classes)) * 10.0 ** rng.uniform(-280, 0, (count // 2, 1))
    near[:, 0] = 1.0
    spread = probabilities(count - count // 2, classes).numpy()
    return np.concatenate([spread, near / near.sum(1, keepdims=True)])


# -- growth ----------------------------------------------------------------------------------------


def growth(workload: Workload) -> Entry:
    """Cost against the number of examples, parameters and classes."""
    sizes = workload.sizes
    rows = []
    for count in sizes.growth_examples:
        x, y = workload.data(count)
        rows += _growth_rows(workload, "examples", count, workload.trained, x, y)
    x, y = workload.data(sizes.growth_images)
    for width in sizes.growth_widths:
        model = workload.place(perceptron(width, 10))
        parameters = sum(p.numel() for p in model.parameters())
        rows += _growth_rows(workload, "parameters", parameters, model, x, y)
    for classes in sizes.growth_classes:
        model = workload.place(perceptron(128, classes))
        labels = torch.arange(len(x), device=y.device) % classes
        rows += _growth_rows(workload, "classes", classes, model, x, labels)
    return entry(
        "growth",
        "Growth with examples, parameters and classes",
        "Examples: 6CNN after 20 steps of training. Parameters: perceptrons with two hidden "
        f"layers of {sizes.growth_widths[0]} to {sizes.growth_widths[-1]}, on {len(x)} images. "
        f"Classes: one of 128 with {sizes.growth_classes[0]} to {sizes.growth_classes[-1]} "
        f"logits, on {len(x)} images ({workload.data_name}).",
        rows,
    )


def _growth_rows(
    workload: Workload, axis: str, size: int, model: nn.Module, x: Tensor, y: Tensor
) -> list[Row]:
    pairs = chunks((x, y))
    with torch.no_grad():
        p = torch.cat([model(part) for part, _ in pairs]).double().softmax(1)
    contenders = {
        "gradient": functools.partial(bare_gradient, model, cross_entropy, pairs),
        "full measurement, cold": functools.partial(curvature, model, cross_entropy, pairs),
        "‖⟨J⟩‖": functools.partial(jacobian_norm, model, [part for part, _ in pairs]),
        "‖J_x‖ of all examples": functools.partial(jacobian_norms, model, x),
        "impurity": functools.partial(logits.impurity, p),
    }
    repeats = min(GROWTH_REPEATS, workload.repeats)
    seconds, units = _beside_a_gradient(workload, model, pairs, contenders, repeats)
    return [row(axis, name, taken, units, size=size) for name, taken in seconds.items()]


def perceptron(width: int, classes: int) -> nn.Module:
    """3072-width-width-classes with ReLU and bias."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(3072, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )


# -- memory ----------------------------------------------------------------------------------------

MEMORY_RTOL = 0.3
"""Of the measurement whose memory is taken: the peak comes before the solver starts to iterate."""


def memory(workload: Workload) -> Entry:
    """Peak memory of a full measurement, in a process of its own."""
    arguments = [workload.sizes.memory, str(workload.device), torch.get_num_threads()]
    code = f"from {__name__} import measure_memory; measure_memory(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    case = "full measurement"
    note = f"{found['products']} products with H"
    rows = [row(case, OURS, [found["seconds"]], gibibytes=found["bytes"] / 2**30, note=note)]
    return entry(
        "memory",
        "Peak memory of a full measurement",
        f"6CNN at initialization, {workload.sizes.memory:,} random images of CIFAR-10's shape, "
        "default chunk, above the memory with the images. The sharpness is asked for loosely "
        f"(rtol = {MEMORY_RTOL:g}): more products need no more memory.",
        rows,
        unit="",
    )


def measure_memory(images: int, device: str, threads: int) -> None:
    """Print as JSON the peak memory above the data in bytes, the seconds and the products of one
    full measurement.  For a new process: the peak of a process only grows."""
    import time

    torch.set_num_threads(threads)
    machine.keep_freed_memory()
    target = torch.device(device)
    generator = torch.Generator(target).manual_seed(0)
    shape = (images, *networks.INPUT_SHAPES["6cnn"])
    x = torch.empty(shape, device=target, memory_format=torch.channels_last)
    x.normal_(generator=generator)
    y = torch.arange(images, device=target) % 10
    model = networks.build("6cnn").to(target).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = memory_used(target, peak=False)
    start = time.perf_counter()
    found = curvature(model, cross_entropy, (x, y), rtol=MEMORY_RTOL)
    seconds = time.perf_counter() - start
    used = memory_used(target, peak=True) - before
    print(json.dumps({"bytes": used, "seconds": seconds, "products": found.top.products}))
