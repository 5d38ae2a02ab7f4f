"""Finished runs on disk: written whole or not at all, refused when damaged.

A run is a folder ``<slug>-<hash>`` with

* ``run.json``: the configuration, the provenance and the SHA-256 of the other files;
* ``series.parquet``: a row for each measured step, NaN where a quantity was not measured;
* ``arrays.npz``: matrices at named steps; ``name`` has shape (T, …) and ``name.steps`` shape (T,).

The folder's name carries the hash of the configuration, ``run.json`` the hashes of the data: a run
that was cut off, edited or renamed is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet

from ijrlib.config import RunConfig, canonical_measures

FORMAT = 1
FILES = ("series.parquet", "arrays.npz")
LIMIT_BYTES = 1 << 30
"""Memory that a run's series or its arrays may take, hundreds of times what the book's do: a small
file can hold far more than fits."""


class MissingRun(FileNotFoundError):
    """There is no such run."""


class DamagedRun(ValueError):
    """The folder is there but is not a whole, unchanged run."""


class RunIsBusy(RuntimeError):
    """Another process trains this run."""


@dataclass(frozen=True)
class Run:
    """A finished run: its configuration, what was measured, and where it comes from."""

    config: RunConfig
    series: pd.DataFrame
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def root() -> Path:
    """The checkout: ``$IJR_ROOT``, else the first folder upward from the package, else upward from
    the working directory, that holds ``_toc.yml``; the working directory where there is none."""
    if value := os.environ.get("IJR_ROOT"):
        return Path(value)
    for start in (Path(__file__).resolve().parent, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "_toc.yml").is_file():
                return folder
    return Path.cwd()


def runs_dir(path: str | Path | None = None) -> Path:
    """Where runs are kept: ``path`` if given, else ``data/runs`` of the checkout."""
    return Path(path) if path is not None else root() / "data" / "runs"


def save(run: Run, runs_dir: str | Path | None = None) -> Path:
    """Write a run and return its folder; an existing one of the same configuration is replaced.

    Everything goes to a temporary folder beside the target, which is moved into place when
    complete.

    Raises:
        ValueError: where the series has no ``step`` column or its steps do not increase, a column
            or an array is not of numbers (of real ones; arrays may be of truth values too), an
            array is without its steps, or there is more than ``LIMIT_BYTES``.
    """
    _check_steps(run.series)
    _check_columns(run.series)
    _check_arrays(run.arrays)
    size = max(8 * run.series.size, sum(np.asarray(a).nbytes for a in run.arrays.values()))
    if size > LIMIT_BYTES:
        raise ValueError(f"expected at most {LIMIT_BYTES} bytes of series or arrays, got {size}")
    parent = _runs_dir(runs_dir)
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / run.config.name
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    try:
        run.series.to_parquet(scratch / "series.parquet", index=False)
        np.savez_compressed(scratch / "arrays.npz", **run.arrays)  # type: ignore[arg-type]
        document = {
            "format": FORMAT,
            "config": run.config.to_dict(),
            "provenance": run.provenance,
            "sha256": {name: _sha256(scratch / name) for name in FILES},
        }
        (scratch / "run.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        scratch.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=parent))
            os.replace(target, old / target.name)
            try:
                os.replace(scratch, target)
            except BaseException:
                os.replace(old / target.name, target)  # should this fail too, it stays in ``old``
                os.rmdir(old)
                raise
            shutil.rmtree(old)
        else:
            os.replace(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def load(run: RunConfig | str | Path, runs_dir: str | Path | None = None) -> Run:
    """Read a run, by its configuration or by its folder.

    Raises:
        MissingRun: there is no such folder, or it is empty.
        DamagedRun: a file is missing or changed, the folder is a link to nowhere, the configuration
            does not match its name, the format is another one, or what it holds are no numbers by
            step or too many of them; the message says which.

    A folder from elsewhere can be loaded safely: what it holds is read as numbers and text.
    """
    folder = _runs_dir(runs_dir) / run.name if isinstance(run, RunConfig) else Path(run)
    if folder.is_symlink() and not folder.exists():
        raise DamagedRun(f"{folder}: a link to {os.readlink(folder)}, which is not there")
    if not folder.is_dir() or not any(folder.iterdir()):
        raise MissingRun(f"no run at {folder}")
    config, sums, provenance = _description(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise DamagedRun(f"{folder}: {name} is missing")
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise DamagedRun(f"{folder}: {name} is not readable ({error!r})") from None
        if found != sums.get(name):
            raise DamagedRun(
                f"{folder}: {name} has SHA-256 {found}, run.json says {sums.get(name)}"
            )
    return Run(config, _series(folder), _arrays(folder), provenance, folder)


# What a damaged or a malicious file makes a parser raise is not for its documentation to say: zlib
# and lzma have errors of their own, and attributes may be missing.  So the three readers below
# take any exception for damage.


def _description(folder: Path) -> tuple[RunConfig, dict[str, Any], dict[str, Any]]:
    """Configuration, SHA-256 by file and provenance, as run.json has them."""
    try:
        document = json.loads((folder / "run.json").read_text())
        config = RunConfig.from_json(document["config"])
        sums, provenance, version = document["sha256"], document["provenance"], document["format"]
    except Exception as error:
        raise DamagedRun(f"{folder}: run.json is not readable ({error!r})") from None
    if version != FORMAT:
        raise DamagedRun(f"{folder}: expected format {FORMAT}, got {version!r}")
    if config.name != Path(os.path.abspath(folder)).name:
        raise DamagedRun(f"{folder}: its configuration belongs to a run named {config.name}")
    if not isinstance(sums, dict):
        raise DamagedRun(f"{folder}: expected SHA-256 by file, got {sums!r}")
    if not isinstance(provenance, dict):
        raise DamagedRun(f"{folder}: expected provenance by name, got {provenance!r}")
    for name in ("wall_seconds", "threads", "processes"):
        if not isinstance(provenance.get(name), int | float | None):
            raise DamagedRun(f"{folder}: {name}: expected a number, got {provenance[name]!r}")
    return config, sums, provenance


def _series(folder: Path) -> pd.DataFrame:
    """The series of a run, if it is what :func:`save` writes."""
    try:
        with parquet.ParquetFile(folder / "series.parquet") as file:
            size = 8 * file.metadata.num_rows * file.metadata.num_columns
            if size > LIMIT_BYTES:
                raise ValueError(f"expected at most {LIMIT_BYTES} bytes, got {size}")
            series = file.read().to_pandas()
        _check_steps(series)
        _check_columns(series)
    except Exception as error:
        raise DamagedRun(f"{folder}: series.parquet: {error}") from None
    return series


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a run, if they are what :func:`save` writes."""
    path = folder / "arrays.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > LIMIT_BYTES:
            raise ValueError(f"expected at most {LIMIT_BYTES} bytes, got {size}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        _check_arrays(arrays)
    except Exception as error:
        raise DamagedRun(f"{folder}: arrays.npz: {error}") from None
    return arrays


def _check_steps(series: pd.DataFrame) -> None:
    steps = series.get("step")
    if steps is None or not steps.is_monotonic_increasing or not steps.is_unique:
        raise ValueError(
            "series: expected a column 'step' with increasing values, got columns "
            f"{list(series.columns)}"
        )


def _check_columns(series: pd.DataFrame) -> None:
    kinds = [(str(name), kind) for name, kind in series.dtypes.items()]
    if words := [f"{name} ({kind})" for name, kind in kinds if kind.kind not in "fiu"]:
        raise ValueError(f"expected numbers, got something else in {', '.join(words)}")


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    if taken := sorted({"file", "allow_pickle"} & set(arrays)):  # arguments of numpy.savez
        raise ValueError(f"arrays: expected other names, got {', '.join(taken)}")
    kinds = {name: np.asanyarray(array).dtype for name, array in arrays.items()}
    if words := [f"{name} ({kind})" for name, kind in kinds.items() if kind.kind not in "fiub"]:
        raise ValueError(f"expected numbers, got something else in {', '.join(words)}")
    for name in (name for name in arrays if not name.endswith(".steps")):
        shapes = [np.shape(arrays[key]) for key in (name, f"{name}.steps") if key in arrays]
        if len(shapes) < 2 or not shapes[0] or shapes[1] != shapes[0][:1]:
            raise ValueError(
                f"arrays: expected {name} of shape (T, …) and {name}.steps of shape (T,), got "
                f"{' and '.join(map(str, shapes))}"
            )


def find(runs_dir: str | Path | None = None, **fields: Any) -> list[Run]:
    """All stored runs whose configuration has the given fields, sorted by name; ``measures`` in any
    form that :class:`~ijrlib.config.RunConfig` takes.

    Raises:
        ValueError: for a name that is no field of :class:`~ijrlib.config.RunConfig`, or for
            ``measures`` that it would refuse.
        DamagedRun: where a matching folder is damaged, or the run.json of any folder, without which
            it cannot be told whether it matches.
    """
    valid = RunConfig.__dataclass_fields__
    if unknown := [name for name in fields if name not in valid]:
        raise ValueError(f"find: no field {unknown}; fields: {', '.join(valid)}")
    if "measures" in fields:
        fields["measures"] = canonical_measures(fields["measures"])
    parent = _runs_dir(runs_dir)
    folders = sorted(
        p.parent for p in parent.glob("*/run.json") if not p.parent.name.startswith(".")
    )

    def matches(folder: Path) -> bool:
        config, _, _ = _description(folder)
        return all(getattr(config, name) == value for name, value in fields.items())

    return [load(folder) for folder in folders if matches(folder)]


def named(name: str | Path, runs_dir: str | Path | None = None) -> Run:
    """The run in a folder, or the one of ``runs_dir`` that has the name ``name``, or the only one
    whose name begins with it.

    Raises:
        MissingRun: there is none.
        ValueError: ``name`` is empty, there are several, or (:class:`DamagedRun`) it is damaged.
    """
    if not str(name):
        raise ValueError("run: expected a folder or the beginning of a name, got ''")
    parent = _runs_dir(runs_dir)
    for folder in (Path(name), parent / name):
        if (folder / "run.json").is_file():
            return load(os.path.abspath(folder))
    stored = (p.parent for p in parent.glob("*/run.json"))
    folders = sorted(folder for folder in stored if folder.name.startswith(str(name)))
    if not folders:
        raise MissingRun(f"no run at {name}, and none below {parent} whose name begins with it")
    if len(folders) > 1:
        found = ", ".join(folder.name for folder in folders)
        raise ValueError(f"run: expected the beginning of one name, got {name!r}, of {found}")
    return load(folders[0])


_runs_dir = runs_dir  # the functions above have an argument of this name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
