"""``make pictures``: the README's pictures, drawn from stored runs.

Each file names in its metadata the runs it was drawn from with the hashes of their data, which a
test compares with the runs that are stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ijrlib import ejr_figures, evolution_figures, experiments, store
from ijrlib.store import Run

FOLDER = Path(__file__).resolve().parents[1] / "_static" / "readme"
PICTURES: dict[str, tuple[str, Callable[[Sequence[Run]], Figure]]] = {
    "phases": ("fig05", lambda runs: evolution_figures.three_phases(runs[0])),
    "explicit": ("fig33", ejr_figures.accuracy_by_lr),
}
"""Name of the file: the figure whose runs it takes, and how they are drawn."""


def source(runs: Sequence[Run]) -> str:
    """The runs, by name and the hash of their series."""
    documents = [
        json.loads((store.runs_dir() / run.config.name / "run.json").read_text()) for run in runs
    ]
    return "; ".join(
        f"{run.config.name} {document['sha256']['series.parquet']}"
        for run, document in zip(runs, documents, strict=True)
    )


def draw(folder: Path = FOLDER) -> None:
    """Write each picture as ``<name>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (figure, plot) in PICTURES.items():
        runs = experiments.runs(figure, "laptop")
        plot(runs).savefig(folder / f"{name}.png", dpi=150, metadata={"Source": source(runs)})


if __name__ == "__main__":
    mpl.use("Agg")
    draw()
