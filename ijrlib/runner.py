"""From a configuration to a finished run: data, network, training, measures, checkpoints, store."""

from __future__ import annotations

import contextlib
import datetime
import math
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ijrlib import datasets, embedding, machine, networks, parallel, store, training
from ijrlib.checkpoint import Checkpoint, termination
from ijrlib.config import RunConfig
from ijrlib.measures import MEASURES, State, Values, evaluate
from ijrlib.operators import LOSSES, flatten, trainable
from ijrlib.training import Step, train, update_rule
from ijrlib.trajectory import Trajectory, errors

CHECKPOINT_SECONDS = 120.0
TERMINATED = 128 + 15
"""Exit code of a process that ends because of SIGTERM."""

MUCH_SLOWER = 2.0
"""``training.bfloat16_slowdown`` from which a run in bfloat16 says what it will cost."""

Examples = tuple[Tensor, Tensor]
PACKAGES = ("ijrlib", "torch", "torchvision", "numpy", "pandas", "pillow")


def run(
    config: RunConfig,
    device: str = "auto",
    runs_dir: str | Path | None = None,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    download: bool = False,
) -> store.Run:
    """Train and measure one configuration and store the result; return the stored run.

    Checkpoints under ``<runs_dir>/.checkpoints`` let a killed run go on to the same numbers; on
    SIGTERM a last one is written.  A run whose loss is no longer finite is stored up to that step
    with the status "diverged".  Under ``torchrun`` the processes share the chunks of the run
    (:mod:`ijrlib.parallel`); they need a common file system, and the first of them writes.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:0" and so on.
        runs_dir: where runs are kept (default ``data/runs``).
        checkpoint_seconds: time between checkpoints.
        download: let torchvision fetch a data set that is not there.

    Raises:
        ValueError: for a device that is unknown or not there, or a network and data that do not
            fit; for checkpoints that are there but not whole, or were trained on other data; for a
            network with running statistics and several processes.
        FileNotFoundError: where the data is not found.
        PermissionError: where ``runs_dir`` cannot be written to.
        RunIsBusy: where another process trains this run.
        SystemExit: 143, after SIGTERM.
    """
    target = parallel.join(resolve_device(device))
    machine.keep_freed_memory()
    checkpoint = Checkpoint(store.runs_dir(runs_dir), config)
    with contextlib.ExitStack() as stack:
        scratch = checkpoint.path.parent
        if parallel.rank():
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            stack.enter_context(checkpoint.alone())
        terminated = stack.enter_context(termination())
        _run(config, target, checkpoint, scratch, terminated, checkpoint_seconds, download)
    parallel.wait()
    return store.load(config, runs_dir)


def _run(
    config: RunConfig,
    target: torch.device,
    checkpoint: Checkpoint,
    scratch: Path,
    terminated: Callable[[], bool],
    checkpoint_seconds: float,
    download: bool,
) -> None:
    """Train one configuration; what is the first process' alone, it stores."""
    first = parallel.rank() == 0
    if config.autocast and target.type == "cpu" and first:
        slowdown = training.bfloat16_slowdown()
        if slowdown > MUCH_SLOWER:
            warnings.warn(
                f"autocast: on this processor a convolution takes {slowdown:.0f} times as long in "
                f"bfloat16 as in float32; to train in float32 instead, which is another "
                f'configuration, set overrides to {{"autocast": False}}',
                stacklevel=3,
            )
    (x, y), test, source = _data(config, target, download)
    dtype = getattr(torch, config.dtype)
    model = networks.build(config.network, config.init, config.seed, dtype).to(target)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    initial = _flat(model)
    if parallel.processes() > 1 and any(True for _ in model.buffers()):
        raise ValueError(
            f"network: expected one without running statistics for several processes, got "
            f"{config.network}"
        )

    optimizer = torch.optim.SGD(
        trainable(model).values(),
        config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    points = Trajectory(
        scratch / checkpoint.path.with_suffix(".points").name,
        config.measured_steps("trajectory"),
        len(initial),
    )
    saved = checkpoint.load()
    recorder = _Recorder(config)
    memory: dict[str, Tensor] = {}
    start, resumed, spent = 0, 0, 0.0
    versions = [machine.code_version()]
    if saved is not None:
        _restore(model, saved["state"])
        optimizer.load_state_dict(saved["optimizer"])
        recorder.restore(saved["rows"], saved["arrays"])
        memory = {name: value.to(target) for name, value in saved["memory"].items()}
        begun = saved["data"]
        if begun != source["sha256"]:
            raise ValueError(
                f"data: the checkpoint of {config.name} is of files with SHA-256 {begun}, got "
                f"{source['sha256']}; bring them back, or remove {checkpoint.path} to start over"
            )
        start, resumed, spent = saved["step"], saved["resumed"] + 1, saved["seconds"]
        versions = saved["versions"] + [v for v in versions if v != saved["versions"][-1]]
        if first:
            points.check(start)

    began = time.monotonic()
    classes = networks.CLASSES[config.network]
    steps = train(
        model,
        LOSSES[config.loss],
        x,
        y,
        lr=config.lr,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        chunk=config.chunk,
        start=start,
        autocast=config.autocast,
        update=update_rule(config, classes, (x[: config.probe], y[: config.probe]), memory),
        optimizer=optimizer,
        lr_decay=config.lr_decay,
        lr_decay_at=config.lr_decay_at,
        augment=config.augment,
    )

    def save(step: Step) -> None:
        checkpoint.save(
            step=step.step,
            state=model.state_dict() | step.buffers,
            optimizer=optimizer.state_dict(),
            memory=memory,
            rows=recorder.rows,
            arrays={
                k: [(t, torch.from_numpy(a)) for t, a in v] for k, v in recorder.arrays.items()
            },
            resumed=resumed,
            versions=versions,
            data=source["sha256"],
            seconds=spent + time.monotonic() - began,
        )

    def state(step: Step) -> State:
        return _state(config, model, step, (x, y), test, initial, memory, points)

    diverged_at = _follow(
        config, steps, start, target, recorder, state, save, terminated, checkpoint_seconds
    )
    if not first:
        return

    series, arrays = recorder.series(), recorder.stacked()
    path, path_accuracy = _path(points, series, diverged=diverged_at is not None)
    provenance = {
        "status": "complete" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **versions[-1],
        "earlier_versions": versions[:-1],
        **_machine(target),
        "wall_seconds": round(spent + time.monotonic() - began, 1),
        "resumed": resumed,
        "parameters": len(initial),
        "data": source,
        **path_accuracy,
    }
    run = store.Run(config, series, arrays | path, provenance)
    store.save(run, checkpoint.path.parents[1])
    checkpoint.remove()
    points.remove()


def _data(
    config: RunConfig, target: torch.device, download: bool
) -> tuple[Examples, Examples | None, dict[str, str]]:
    """The training and the test examples on the device, and where the former come from."""
    dtype = getattr(torch, config.dtype)
    shape, classes = networks.INPUT_SHAPES[config.network], networks.CLASSES[config.network]

    def load(examples: int, split: str, download: bool) -> tuple[Examples, dict[str, str]]:
        data = datasets.load(
            config.dataset,
            examples,
            shape,
            classes,
            config.seed,
            split,
            inputs=config.inputs,
            download=download,
        )
        return (_place(data.x, target, dtype), data.y.to(target)), data.source

    train, source = load(config.examples, "train", download)
    test = load(config.test_examples, "test", False)[0] if config.test_examples else None
    return train, test, source


def _follow(
    config: RunConfig,
    steps: Iterator[Step],
    start: int,
    target: torch.device,
    recorder: _Recorder,
    state: Callable[[Step], State],
    save: Callable[[Step], None],
    terminated: Callable[[], bool],
    checkpoint_seconds: float,
) -> int | None:
    """Go through the steps, record what is due and save checkpoints; return the step whose loss is
    not finite, at which training ends, if there is one."""
    first = parallel.rank() == 0
    written = time.monotonic()
    with tqdm(
        total=config.steps + 1,
        initial=start,
        desc=config.slug,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        miniters=1,
        disable=not first,
    ) as bar:
        for step in steps:
            if not math.isfinite(step.loss):
                return step.step
            # θ(t) is in the model, and nothing of step t is recorded yet: the state to resume from
            if parallel.any_of(terminated(), target):
                if first:
                    save(step)
                raise SystemExit(TERMINATED)
            if first and time.monotonic() - written >= checkpoint_seconds and step.step > start:
                save(step)
                written = time.monotonic()
            if due := recorder.due(step.step):
                seen = state(step)
                values: Values = {"train_loss": step.loss}
                for name in due:
                    values |= MEASURES[name](seen)
                recorder.record(step.step, values)
            shown = {"loss": f"{step.loss:.4f}"}
            if (sharpness := recorder.last("sharpness")) is not None:
                shown["sharpness"] = f"{sharpness:.2f}"
            bar.set_postfix(shown, refresh=False)
            bar.update()
    return None


def _machine(target: torch.device) -> dict[str, Any]:
    """What the numbers were computed with."""
    return {
        "python": platform.python_version(),
        "packages": machine.package_versions(PACKAGES),
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else "cpu",
        "processor": machine.processor(),
        "threads": torch.get_num_threads(),
        "processes": parallel.processes(),
    }


def resolve_device(device: str) -> torch.device:
    """ "auto" (CUDA where there is one), "cpu", "cuda", or "cuda:0" and so on.

    Raises:
        ValueError: for an unknown name, or a CUDA device that is not there.
    """
    machine.check_device(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if count else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= count:
        raise ValueError(
            f"device: {device!r} was asked for, but torch finds {count or 'no'} CUDA GPU(s) here"
        )
    return torch.device(device)


class _Recorder:
    """Rows and arrays in the making."""

    def __init__(self, config: RunConfig) -> None:
        self.schedule = {name: set(config.measured_steps(name)) for name, _ in config.measures}
        self.rows: list[dict[str, float]] = []
        self.arrays: dict[str, list[tuple[int, np.ndarray]]] = {}

    def due(self, step: int) -> list[str]:
        return [name for name in MEASURES if step in self.schedule.get(name, ())]

    def record(self, step: int, values: Values) -> None:
        row: dict[str, float] = {"step": step}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.arrays.setdefault(name, []).append((step, value))
            else:
                row[name] = value
        self.rows.append(row)

    def last(self, column: str) -> float | None:
        return next((row[column] for row in reversed(self.rows) if column in row), None)

    def restore(self, rows: list[dict[str, float]], arrays: dict[str, Any]) -> None:
        self.rows = rows
        self.arrays = {k: [(t, a.numpy()) for t, a in v] for k, v in arrays.items()}

    def series(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.rows) if self.rows else pd.DataFrame({"step": []})
        return frame.astype({"step": "int64"})

    def stacked(self) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for name, entries in self.arrays.items():
            out[name] = np.stack([a for _, a in entries])
            out[name + ".steps"] = np.array([t for t, _ in entries])
        return out


def _state(
    config: RunConfig,
    model: nn.Module,
    step: Step,
    train: Examples,
    test: Examples | None,
    initial: Tensor,
    memory: dict[str, Tensor],
    points: Trajectory,
) -> State:
    z, y = step.logits, step.labels
    probe = (train[0][: config.probe], train[1][: config.probe])
    if config.batch_size is not None:
        y = probe[1]
        z = evaluate(model, probe[0], config.chunk)
    return State(
        model,
        config.loss,
        step.step,
        z,
        y,
        probe,
        test,
        initial,
        config.chunk,
        train,
        step.update,
        step.lr,
        config.batch_size,
        memory,
        points,
    )


def _path(
    points: Trajectory, series: pd.DataFrame, diverged: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is stored of the recorded points: arrays trajectory_gram (T, T) and trajectory_umap
    (T, 2), and for the provenance the numbers kept of each point and the error of the distances."""
    if "displacement" not in series:
        return {}, {}
    recorded = series.dropna(subset="displacement")
    steps = recorded["step"].to_numpy()
    gram = points.gram(len(steps))
    arrays = {"trajectory_gram": gram, "trajectory_gram.steps": steps}
    if not diverged and len(steps) >= embedding.LEAST_POINTS and gram.any():
        arrays |= {"trajectory_umap": embedding.umap(gram), "trajectory_umap.steps": steps}
    exact = (recorded[name].to_numpy() for name in ("displacement", "step_norm"))
    return arrays, {"trajectory": {"numbers_per_point": points.width, **errors(gram, *exact)}}


def _place(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """On the device: images in the type and layout of the model, words as they are."""
    if not x.is_floating_point():
        return x.to(device)
    return x.to(device, dtype, memory_format=torch.channels_last)


def _flat(model: nn.Module) -> Tensor:
    return flatten(p.detach() for p in trainable(model).values()).clone()


def _restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(state[name])
