"""The scripts of the chapter on networks of one's own: run them, or read what they gave.

A script in ``chapters/own_network`` leaves ``frames``, a dictionary of what monitors recorded; it
is stored in ``data/own_network`` as JSON, with where it comes from.
"""

from __future__ import annotations

import json
import math
import os
import platform
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ijrlib import machine, store

PACKAGES = ("ijrlib", "torch", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Example:
    """What a script gave: frames by label, and where they come from."""

    frames: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Any]


def result(name: str, live: bool = False, results_dir: str | Path | None = None) -> Example:
    """What the script ``name`` gives: run now and stored where ``live``, else read.

    Args:
        name: of the script, without its suffix.
        live: needs torch.
        results_dir: where results are kept (default ``data/own_network``).

    Raises:
        FileNotFoundError: where there is no such script, or no stored result of it.
        ValueError: where the stored result is not readable, and for a ``live`` that is no bool.
    """
    if not isinstance(live, bool):  # papermill gives the word "false", which is true
        raise ValueError(f"live: expected True or False, got {live!r}")
    script = store.root() / "chapters" / "own_network" / f"{name}.py"
    if not script.is_file():
        known = ", ".join(sorted(path.stem for path in script.parent.glob("*.py")))
        raise FileNotFoundError(f"example: expected one of {known}; got {name!r}")
    folder = Path(results_dir) if results_dir else store.root() / "data" / "own_network"
    path = folder / f"{name}.json"
    if live:
        _save(runpy.run_path(str(script))["frames"], path)
    if not path.is_file():
        raise FileNotFoundError(f"no result at {path}; run the example with live = True")
    try:
        document = json.loads(path.read_text())
        frames = {
            label: pd.DataFrame(values, dtype=float) for label, values in document["frames"].items()
        }
        return Example(frames, document["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected frames and their provenance ({error!r})") from None


def _save(frames: Mapping[str, pd.DataFrame], path: Path) -> None:
    import torch

    document = {
        "provenance": {
            **machine.code_version(),
            "processor": machine.processor(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "packages": machine.package_versions(PACKAGES),
        },
        "frames": {
            label: {
                str(name): [None if math.isnan(value) else value for value in column]
                for name, column in frame.to_dict("list").items()
            }
            for label, frame in frames.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    scratch.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(scratch, path)
