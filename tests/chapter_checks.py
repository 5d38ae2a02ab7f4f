"""Chapters, and what executing one at smoke scale has to show."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").rglob("*.ipynb"))


def defaults(path: Path) -> dict[str, object]:
    """Names and values of the cell tagged ``parameters``; none where there is no such cell."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            body = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {ast.unparse(s.targets[0]): ast.literal_eval(s.value) for s in body}
    return {}


def execute(path: Path, folder: Path, **parameters: object) -> nbformat.NotebookNode:
    """The executed chapter; what it trains and writes is below the folder."""
    known = defaults(path)
    if "scale" in known:
        parameters = {"scale": "smoke", **parameters}
    if "runs_dir" in known:
        parameters = {"runs_dir": str(folder / "runs"), **parameters}
    if "live" in known:
        parameters["live"] = True
        if "results_dir" in known:  # not over the stored ones
            parameters["results_dir"] = str(folder / "results")
    return papermill.execute_notebook(
        path,
        folder / path.name,
        parameters=parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=folder,
    )


def outputs(notebook: nbformat.NotebookNode, mime: str) -> list[str]:
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return ["".join(out.data[mime]) for out in shown if mime in out.get("data", {})]


def assert_it_executes(path: Path, execute: Callable[..., nbformat.NotebookNode]) -> None:
    """It does, shows each plot once, has verdicts where it has claims, and runs what is live."""
    notebook = execute(path)
    plots = [c for c in notebook.cells if c.cell_type == "code" and "figure" in str(c.metadata)]
    assert len(outputs(notebook, "image/png")) == len(plots), "each plot is shown once"
    if "report.claims(" in path.read_text():
        assert "verdict" in "".join(outputs(notebook, "text/html"))
    for cell in notebook.cells:
        assert not cell.source.startswith("if live:") or cell.outputs
