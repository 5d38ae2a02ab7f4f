"""Runs and chapters as jobs: what the ``Snakefile`` asks for.

The definitions are those of :mod:`ijrlib.figure_table` and of the book's table of contents.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ijrlib import costs, experiments, machine, store
from ijrlib.config import RunConfig

LEAST_MINUTES = 20
SAFETY = 3.0
"""Factor on the estimated time, which does not know the machine."""


SETTINGS = {
    "scale": "smoke",
    "device": "auto",
    "runs_dir": "data/runs",
    "bin": ".venv/bin",
    "out": "_build",
}
"""What the ``Snakefile`` can be told, and what it assumes."""


def settings(given: Mapping[str, object]) -> dict[str, str]:
    """``SETTINGS`` with those that are given.

    Raises:
        ValueError: for an unknown name, scale or device, and for a folder with a blank in its name,
            at which the commands would be split.
    """
    if unknown := sorted(set(given).difference(SETTINGS)):
        raise ValueError(
            f"unknown setting {', '.join(unknown)}; the settings are {', '.join(SETTINGS)}"
        )
    found = SETTINGS | {name: str(value) for name, value in given.items()}
    if found["scale"] not in experiments.SCALES:
        scales = ", ".join(experiments.SCALES)
        raise ValueError(f"scale: expected one of {scales}; got {found['scale']!r}")
    machine.check_device(found["device"])
    for name in ("runs_dir", "bin", "out"):
        if re.search(r"\s", found[name]):
            raise ValueError(f"{name}: expected a path without blanks, got {found[name]!r}")
    return found


def runs(scale: str) -> dict[str, RunConfig]:
    """Every run of a scale by its name, once, however many figures share it.

    Raises:
        ValueError: for an unknown scale.
    """
    return {
        config.name: config
        for figure in experiments.FIGURES
        for config in experiments.configs(figure, scale)
    }


def families(scale: str) -> dict[str, list[str]]:
    """Names of the runs of a scale, those that differ in nothing but the seed under one rule."""
    found: dict[str, list[str]] = {}
    for config in runs(scale).values():
        family = re.sub(r"\W", "_", config.replace(seed=0).name)
        found.setdefault(family, []).append(config.name)
    return found


def chapters() -> dict[str, str]:
    """The notebooks of the book in its order, below ``chapters`` and without suffix, with the
    figure that each shows, or ""."""
    toc = (store.root() / "_toc.yml").read_text()
    pages = re.findall(r"chapters/(\S+)", toc)
    folder = store.root() / "chapters"
    return {page: _figure(page) for page in pages if (folder / f"{page}.ipynb").is_file()}


def _figure(page: str) -> str:
    name = Path(page).name
    return next((f for f in experiments.FIGURES if name.startswith(f"{f}_")), "")


def runs_of(page: str, scale: str) -> list[str]:
    """Names of the runs that a chapter shows."""
    figure = chapters()[page]
    return [config.name for config in experiments.configs(figure, scale)] if figure else []


def minutes(config: RunConfig, gpus: int, attempt: int = 1) -> int:
    """Time to ask a batch system for: the estimate times ``SAFETY``, and more at each attempt.  A
    run that needs longer resumes from its checkpoint when it is queued again."""
    hours = costs.gpu_hours(config) if gpus else costs.cpu_seconds(config) / 3600
    return max(LEAST_MINUTES, math.ceil(60 * hours * SAFETY)) * attempt


def megabytes(config: RunConfig, attempt: int = 1) -> int:
    """Memory to ask for, and more at each attempt."""
    return math.ceil(costs.memory_bytes(config) / 1e6) * attempt


def assemble(folder: str | Path) -> None:
    """Put beside executed chapters what else the book is made of, to be built without executing."""
    folder, root = Path(folder), store.root()
    for name in ("_ext", "_static", "references.bib", "_toc.yml"):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(root / name)
    settings = (root / "_config.yml").read_text()
    changed = settings.replace("execute_notebooks: cache", 'execute_notebooks: "off"')
    if changed == settings:
        raise ValueError("_config.yml: expected the line 'execute_notebooks: cache', found none")
    (folder / "_config.yml").write_text(changed)
    pages = (root / "chapters").rglob("*")
    for page in (page for page in pages if page.suffix in (".md", ".py")):
        copy = folder / page.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, copy)
