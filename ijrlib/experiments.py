"""Which runs each figure needs, at each scale: one declarative table, and the way to get them.

``laptop`` and ``paper`` are written out; ``smoke`` follows from ``laptop`` by one rule
(:func:`smoke`), so that every chapter can run in seconds without a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijrlib import store
from ijrlib.config import RunConfig

SCALES = ("smoke", "laptop", "paper")
SMOKE_STEPS = 12


@dataclass(frozen=True)
class Figure:
    """A figure's runs.

    Attributes:
        title: what it shows.
        paper_setting: the setting of the paper, in words.
        laptop: configurations at laptop scale.
        paper: configurations at the paper's own settings.
    """

    title: str
    paper_setting: str
    laptop: tuple[RunConfig, ...] = ()
    paper: tuple[RunConfig, ...] = ()


def _every(stop: int, every: int = 1) -> list[tuple[int, int, int]]:
    return [(0, stop + 1, every)]


# -- the runs --------------------------------------------------------------------------------------
GD_STEPS = 1200
GD_LAPTOP = RunConfig(
    dataset="cifar10",
    examples=2000,
    network="6cnn",
    lr=0.04,
    steps=GD_STEPS,
    probe=500,
    test_examples=2000,
    measures={  # type: ignore[arg-type]
        "impurity": _every(GD_STEPS),
        "norms": _every(GD_STEPS),
        "curvature": [(0, GD_STEPS + 1, 9), (400, GD_STEPS + 1, 200)],
        "accuracy": _every(GD_STEPS, 15),
        "theorem_2": _every(GD_STEPS, 200),
        "logit_spectrum": _every(GD_STEPS, 50),
        "algorithm_2": _every(GD_STEPS, 600),
    },
)
GD_PAPER = GD_LAPTOP.replace(
    examples=50_000,
    steps=6000,
    probe=2500,
    test_examples=10_000,
    measures={
        "impurity": _every(6000),
        "norms": _every(6000),
        "curvature": _every(6000),
        "accuracy": _every(6000, 25),
        "theorem_2": _every(6000, 250),
        "logit_spectrum": _every(6000, 100),
        "algorithm_2": _every(6000, 1000),
    },
)

SGD_STEPS = 1700
SGD_WINDOWS = [(0, 201, 1), (1000, 1201, 1), (1500, 1701, 1)]
SGD_LAPTOP = RunConfig(
    dataset="cifar10",
    examples=50_000,
    network="6cnn",
    lr=0.04,
    steps=SGD_STEPS,
    batch_size=128,
    probe=250,
    test_examples=2000,
    measures={  # type: ignore[arg-type]
        "impurity": _every(SGD_STEPS, 5),
        "curvature": SGD_WINDOWS,
        "accuracy": _every(SGD_STEPS, 50),
    },
)
SGD_PAPER = SGD_LAPTOP.replace(probe=2500, test_examples=10_000)

FIGURES: Mapping[str, Figure] = {
    "thm2": Figure(
        "Theorem 2 along a run: ‖G‖ = ⟨λ*‖J‖²⟩ ≤ ⟨λ^(1)‖J‖²⟩",
        "a theorem; the paper does not measure it",
        (GD_LAPTOP,),
        (GD_PAPER,),
    ),
    "alg2": Figure(
        "Algorithm 2 beside the exact norm of the mean Jacobian",
        "an algorithm; the paper states no tolerance",
        (GD_LAPTOP,),
        (GD_PAPER,),
    ),
    "fig02": Figure(
        "Evolution of the impurity",
        "CIFAR-10, 6CNN, full-batch gradient descent on 50,000 images, η = 0.04",
        (GD_LAPTOP,),
        (GD_PAPER,),
    ),
    "fig03": Figure(
        "Sharpness and Jacobian norm oscillate together",
        "CIFAR-10, η = 0.04, |B| = 128, network unstated; sharpness on 5–25% of the training set",
        (SGD_LAPTOP,),
        (SGD_PAPER,),
    ),
}


# -- access ----------------------------------------------------------------------------------------
def configs(
    figure: str, scale: str, seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> list[RunConfig]:
    """The configurations of a figure at a scale.

    Args:
        figure: key of ``FIGURES``.
        scale: one of ``SCALES``.
        seed: added to the seed of each configuration.
        overrides: fields of :class:`~ijrlib.config.RunConfig` to change in each of them.

    Raises:
        ValueError: for an unknown figure, scale or field, listing the valid ones.
    """
    if figure not in FIGURES:
        raise ValueError(f"figure: expected one of {', '.join(FIGURES)}; got {figure!r}")
    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}; got {scale!r}")
    entry = FIGURES[figure]
    base = entry.paper if scale == "paper" else entry.laptop
    if scale == "smoke":
        base = tuple(smoke(config) for config in base)
    return [c.replace(seed=c.seed + seed).replace(**(overrides or {})) for c in base]


def smoke(config: RunConfig) -> RunConfig:
    """The same experiment in seconds: ``SMOKE_STEPS`` steps on some of scikit-learn's digits.

    Windows of measures shrink in proportion to the number of steps, with two exceptions: a spectrum
    costs hundreds of gradients and is taken twice a window at most; a path of a few points has
    neither neighbours nor a direction, so a trajectory has all steps.
    """
    factor = SMOKE_STEPS / config.steps

    def windows(name: str) -> list[tuple[int, int, int]]:
        if name == "trajectory":
            return _every(SMOKE_STEPS)
        least = SMOKE_STEPS if name == "spectrum" else 1
        return [window(*w, least) for w in config.windows(name)]

    def window(start: int, stop: int, every: int, least: int) -> tuple[int, int, int]:
        first = int(start * factor)
        last = max(first, round((stop - 1) * factor))
        return first, last + 1, max(least, round(every * factor))

    return config.replace(
        dataset="digits",
        examples=32,
        steps=SMOKE_STEPS,
        batch_size=None if config.batch_size is None else min(8, config.batch_size),
        probe=16,
        test_examples=min(config.test_examples, 32),
        measures={name: windows(name) for name, _ in config.measures},
    )


PARAMETERS = ("scale", "device", "seed", "overrides", "runs_dir")


def parameters(namespace: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """The parameters of a chapter, out of its ``globals()``.

    papermill sets whatever name it is given and only warns about one that the chapter does not
    know; here an unknown one is an error.

    Args:
        namespace: ``globals()`` of the notebook, just after its parameters.
        more: names of further parameters that the chapter has; they are not returned.

    Raises:
        ValueError: for a parameter that the chapter does not have, listing those that it has.
    """
    plain = (str, int, float, bool, type(None), list, dict, tuple)
    given = {
        name
        for name, value in namespace.items()
        if not name.startswith("_") and name not in ("In", "Out") and isinstance(value, plain)
    }
    valid = (*PARAMETERS, *more)
    if unknown := sorted(given.difference(valid)):
        raise ValueError(
            f"unknown parameter {', '.join(unknown)}; this chapter has {', '.join(valid)}"
        )
    return {name: namespace[name] for name in PARAMETERS if name in namespace}


def runs(
    figure: str,
    scale: str = "laptop",
    device: str = "auto",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    runs_dir: str | Path | None = None,
) -> list[store.Run]:
    """The stored runs of a figure; what is missing is trained (which needs torch).

    Arguments as in :func:`configs`; ``device`` is where a missing run is trained.

    Raises:
        ValueError: as :func:`configs`, and for a damaged run.
        ModuleNotFoundError: where a run is missing and torch is not installed.
    """
    out = []
    for config in configs(figure, scale, seed, overrides):
        try:
            out.append(store.load(config, runs_dir))
        except store.MissingRun:
            try:
                from ijrlib import runner
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"run {config.name} is not stored under {store.runs_dir(runs_dir)}, and "
                    f"training it needs {error.name}: pip install 'ijrlib[train]'"
                ) from error
            out.append(runner.run(config, device, runs_dir, download=True))
    return out
