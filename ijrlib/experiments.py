"""The runs of each figure at each scale, and the way to get them.

``laptop`` and ``paper`` are written out in :mod:`ijrlib.figure_table`,
:mod:`ijrlib.ejr_table`, :mod:`ijrlib.companion_table` and :mod:`ijrlib.sharpest_table`;
``smoke`` follows from ``laptop`` by one rule (:func:`smoke`), so that every chapter can run in
seconds without a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ijrlib import companion_table, ejr_table, figure_table, machine, sharpest_table, store
from ijrlib.config import TEXTS, RunConfig, Window
from ijrlib.figure_table import Figure, every

__all__ = ["FIGURES", "SCALES", "configs", "parameters", "run", "runs", "shown", "smoke"]

FIGURES: Mapping[str, Figure] = {
    **figure_table.FIGURES,
    **ejr_table.FIGURES,
    **companion_table.FIGURES,
    **sharpest_table.FIGURES,
}
SCALES = ("smoke", "laptop", "paper")
SMOKE_STEPS = 12
SMOKE_DATA = ("digits", "invented")  # images and text
CHEAP = ("impurity", "accuracy", "autocast_check")  # measures of a few gradients
SPECTRA = ("spectrum", "outliers", "sharpest")  # measures of hundreds of gradients
LARGE = ("simple_cnn", "simple_cnn_be", "resnet20")  # 32 examples of them take minutes in all
SMALLER = {
    "vgg": "vgg_small",
    "vgg_cifar100": "vgg_small_cifar100",
    "lstm": "lstm_small",
    "lstm_words": "lstm_words_small",
    "text_cnn": "text_cnn_small",
}
"""What takes a network's place at smoke scale: VGG has ten million parameters, and the readers of
real reviews have a vector for each of many words."""


# -- access ----------------------------------------------------------------------------------------
def configs(
    figure: str, scale: str, seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> list[RunConfig]:
    """The configurations of a figure at a scale; at ``smoke`` those of the first seed, each once.

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
        base = tuple(dict.fromkeys(smoke(config) for config in base if config.seed == 0))
    changes = {str(name): value for name, value in (overrides or {}).items()}
    return [config.replace(seed=config.seed + seed).replace(**changes) for config in base]


def smoke(config: RunConfig) -> RunConfig:
    """The same experiment in seconds: ``SMOKE_STEPS`` steps on some of scikit-learn's digits, or of
    the invented reviews in place of real ones.

    A large network has fewer of them, or a smaller one takes its place (``SMALLER``).  Windows of
    measures shrink in proportion to the number of steps, with three exceptions: a spectrum costs
    hundreds of gradients and is taken twice a window at most; what costs tens of gradients is taken
    every fourth step of a large network; a path of a few points has neither neighbours nor a
    direction, so a trajectory has all steps.
    """
    factor = SMOKE_STEPS / config.steps
    examples = 8 if config.network in LARGE else 32

    def windows(name: str) -> list[Window]:
        if name == "trajectory":
            return every(SMOKE_STEPS)
        seldom = config.network in LARGE and name not in CHEAP
        least = SMOKE_STEPS if name in SPECTRA else SMOKE_STEPS // 3 if seldom else 1
        return [window(*w, least) for w in config.windows(name)]

    def window(start: int, stop: int, step: int, least: int) -> Window:
        first = int(start * factor)
        last = max(first, round((stop - 1) * factor))
        return first, last + 1, max(least, round(step * factor))

    return config.replace(
        dataset=SMOKE_DATA[1] if config.dataset in TEXTS else SMOKE_DATA[0],
        network=SMALLER.get(config.network, config.network),
        examples=examples,
        steps=SMOKE_STEPS,
        batch_size=config.batch_size and min(examples // 2, max(2, config.batch_size // 16)),
        probe=examples // 2,
        test_examples=min(config.test_examples, examples),
        measures={name: windows(name) for name, _ in config.measures},
        regularizer_from=int(config.regularizer_from * factor),
        lr_decay_at=config.lr_decay_at and max(1, round(config.lr_decay_at * factor)),
    )


def shown() -> list[store.Run]:
    """The stored runs that the book shows: all but those at smoke scale."""
    return [run for run in store.find() if run.config.dataset not in SMOKE_DATA]


PARAMETERS = ("scale", "device", "seed", "overrides", "runs_dir")
KINDS = {
    "seed": (int, "an integer"),
    "overrides": (Mapping, "fields by name"),
    "runs_dir": (str | None, "a folder such as ./2026"),
    "results_dir": (str | None, "a folder such as ./2026"),
    "live": (bool, "True or False"),
}
"""What a chapter's parameters are, where nothing else would say so: papermill makes numbers of what
looks like one, and text of true and false."""


def parameters(namespace: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """The parameters of a chapter, out of its ``globals()``.

    papermill sets whatever name it is given and only warns about one that the chapter does not
    know; here an unknown one is an error.

    Args:
        namespace: ``globals()`` of the notebook, just after its parameters.
        more: names of further parameters that the chapter has; they are not returned.

    Raises:
        ValueError: for a parameter that the chapter does not have, listing those that it has, and
            for a value of another kind (``KINDS``).
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
    for name, (kind, words) in KINDS.items():
        if name in given and not isinstance(namespace[name], kind):
            raise ValueError(f"{name}: expected {words}, got {namespace[name]!r}")
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
        ValueError: as :func:`configs`, for an unknown device, and for a damaged run.
        ModuleNotFoundError: where a run is missing and torch is not installed.
    """
    return [run(config, device, runs_dir) for config in configs(figure, scale, seed, overrides)]


def run(config: RunConfig, device: str = "auto", runs_dir: str | Path | None = None) -> store.Run:
    """The stored run of a configuration; where it is missing it is trained.  Raises as
    :func:`runs`."""
    machine.check_device(device)
    try:
        return store.load(config, runs_dir)
    except store.MissingRun:
        try:
            from ijrlib import runner
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"run {config.name} is not stored under {store.runs_dir(runs_dir)}, and "
                f"training it needs {error.name}: pip install 'ijrlib[train]'"
            ) from error
    return runner.run(config, device, runs_dir, download=True)
