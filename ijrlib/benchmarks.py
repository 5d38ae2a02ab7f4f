"""Results of ``ijr bench``: rows, files, and the goals that they are held to.

A result is one JSON document for one machine: where it comes from, and for each benchmark its rows.
A row is what one contender needed in one case:

* ``case``, ``contender``, ``note``: strings;
* ``samples``: how many measurements the numbers summarize;
* ``seconds``, ``gradients``: [lower quartile, median, upper quartile], the second in units that the
  benchmark names, by default one gradient of the same model on the same data;
* ``error``: [median, worst] of what the benchmark names;
* ``size``: what a growth curve is drawn against;
* ``gibibytes``: peak memory above the data.

What was not measured is null, and the note says why.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from ijrlib import store

SCHEMA = 1
FIELDS = (
    "case",
    "contender",
    "samples",
    "seconds",
    "gradients",
    "error",
    "size",
    "gibibytes",
    "note",
)
OURS = "ijrlib"

UNIT = "one gradient of the same model on the same data by a bare loop"

Row = dict[str, Any]
Entry = dict[str, Any]
Document = dict[str, Any]


# -- rows ------------------------------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> list[float]:
    """[lower quartile, median, upper quartile], linearly interpolated between the values."""
    if not values:
        raise ValueError("values: expected at least one, got none")
    if len(values) == 1:
        return [float(values[0])] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def row(
    case: str,
    contender: str,
    seconds: Sequence[float] = (),
    units: Sequence[float] = (),
    *,
    errors: Sequence[float] = (),
    size: float | None = None,
    gibibytes: float | None = None,
    note: str = "",
) -> Row:
    """A row from the samples of one contender in one case.

    Args:
        seconds: time of each sample.
        units: time of one unit beside each sample; empty where there is no such unit.
        errors: error of each sample that has one.

    Raises:
        ValueError: where there is neither one unit for each sample nor none.
    """
    if units and len(units) != len(seconds):
        raise ValueError(f"units: expected {len(seconds)}, one for each sample; got {len(units)}")
    relative = [s / u for s, u in zip(seconds, units, strict=False)]
    return {
        "case": case,
        "contender": contender,
        "samples": len(seconds),
        "seconds": quartiles(seconds) if seconds else None,
        "gradients": quartiles(relative) if relative else None,
        "error": [statistics.median(errors), max(errors)] if errors else None,
        "size": size,
        "gibibytes": gibibytes,
        "note": note,
    }


def entry(
    name: str,
    title: str,
    setting: str,
    rows: Sequence[Row],
    *,
    unit: str = UNIT,
    error_of: str = "",
) -> Entry:
    """A benchmark of a document.

    Args:
        name: as in ``ijr bench --only``.
        title, setting: what is measured, and on what, in words.
        unit: of the column ``gradients``.
        error_of: what the column ``error`` holds.
    """
    return {
        "name": name,
        "title": title,
        "setting": setting,
        "unit": unit,
        "error_of": error_of,
        "rows": list(rows),
    }


def find_row(document: Document, benchmark: str, case: str, contender: str) -> Row | None:
    """The row of a contender in a case; None where the benchmark or the row is not there."""
    rows = rows_of(document, benchmark)
    return next((r for r in rows if (r["case"], r["contender"]) == (case, contender)), None)


def rows_of(document: Document, benchmark: str) -> list[Row]:
    """The rows of a benchmark; none where it was not run."""
    return [
        r for found in document["benchmarks"] if found["name"] == benchmark for r in found["rows"]
    ]


def growth_exponents(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    """(case, contender, exponent) of each growth curve: the slope of log(median seconds) against
    log(size), by least squares over at least two sizes."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in rows:
        if one["size"] is not None and one["seconds"] is not None:
            point = (float(one["size"]), float(one["seconds"][1]))
            curves.setdefault((one["case"], one["contender"]), []).append(point)
    return [(*key, _slope(points)) for key, points in curves.items() if len(points) > 1]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    x, y = [log(p[0]) for p in points], [log(p[1]) for p in points]
    return statistics.linear_regression(x, y).slope


# -- goals -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """A number that a benchmark is to reach.

    Attributes:
        benchmark: the one that measures it.
        statement: in words.
        limit: at most (or, for ``at_least``, at least) this.
        measure: the number out of a document; None where it was not measured.
        unit: behind the number.
    """

    benchmark: str
    statement: str
    limit: float
    measure: Callable[[Document], float | None]
    unit: str
    at_least: bool = False

    def judge(self, document: Document) -> tuple[float | None, str]:
        """(measured, "met" or "missed" or "not measured")."""
        value = self.measure(document)
        if value is None:
            return None, "not measured"
        met = value >= self.limit if self.at_least else value <= self.limit
        return value, "met" if met else "missed"


def _number(field: str, index: int, benchmark: str, case: str, contender: str = OURS):
    def measure(document: Document) -> float | None:
        found = find_row(document, benchmark, case, contender)
        return None if found is None or found[field] is None else float(found[field][index])

    return measure


def _gradients(benchmark: str, case: str):
    return _number("gradients", 1, benchmark, case)


def _worst_error(benchmark: str, case: str):
    return _number("error", 1, benchmark, case)


def _times_cheaper(benchmark: str, case: str, peer: str, field: str = "seconds"):
    ours, theirs = (_number(field, 1, benchmark, case, who) for who in (OURS, peer))

    def measure(document: Document) -> float | None:
        cost, other = ours(document), theirs(document)
        return None if cost is None or other is None else other / cost

    return measure


def _overhead(case: str):
    relative = _gradients("training-loop", case)

    def measure(document: Document) -> float | None:
        value = relative(document)
        return None if value is None else 100 * (value - 1)

    return measure


def _memory(document: Document) -> float | None:
    found = find_row(document, "memory", "full measurement", OURS)
    return None if found is None else found["gibibytes"]


PAPERS_TOOLS = "PyHessian + Algorithm 2"
ALGORITHM_2 = "Algorithm 2 as printed"
DENSE_JACOBIAN = "vmap(jacrev)"
DENSE_IMPURITY = "eigvalsh"

GOALS = (
    Goal(
        "measurement",
        "full measurement, warm: cost",
        8,
        _gradients("measurement", "warm"),
        "gradients",
    ),
    Goal(
        "measurement",
        "full measurement, cold: cost",
        18,
        _gradients("measurement", "cold"),
        "gradients",
    ),
    Goal(
        "measurement",
        "full measurement, warm: worst error of the sharpness",
        0.005,
        _worst_error("measurement", "warm"),
        "",
    ),
    Goal(
        "measurement",
        "full measurement, cold: worst error of the sharpness",
        0.005,
        _worst_error("measurement", "cold"),
        "",
    ),
    *(
        Goal(
            "measurement",
            f"full measurement, {case}, against {PAPERS_TOOLS}",
            times,
            _times_cheaper("measurement", case, PAPERS_TOOLS, "gradients"),
            "times cheaper",
            at_least=True,
        )
        for case, times in (("warm", 20), ("cold", 10))
    ),
    *(
        Goal(
            "impurity",
            f"impurity, C = {classes}, against {DENSE_IMPURITY}",
            times,
            _times_cheaper("impurity", f"C = {classes}", DENSE_IMPURITY),
            "times faster",
            at_least=True,
        )
        for classes, times in ((10, 20), (100, 100), (1000, 3000))
    ),
    *(
        Goal(
            "impurity",
            f"impurity, C = {classes}: worst error",
            4,
            _worst_error("impurity", f"C = {classes}"),
            "units in the last place",
        )
        for classes in (10, 100, 1000)
    ),
    Goal(
        "per-example",
        f"norms of the examples' Jacobians, against {DENSE_JACOBIAN}",
        3,
        _times_cheaper("per-example", "‖J_x‖", DENSE_JACOBIAN),
        "times faster",
        at_least=True,
    ),
    *(
        Goal("training-loop", f"overhead of the training loop, {case}", 3, _overhead(case), "%")
        for case in ("mini-batches", "full batch")
    ),
    Goal("memory", "peak memory of a full measurement above the data", 2, _memory, "GiB"),
)


# -- tables ----------------------------------------------------------------------------------------

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def goals_table(document: Document) -> Table:
    """Each goal of the benchmarks that were run, what was measured, and whether it is met."""
    rows = []
    run = {found["name"] for found in document["benchmarks"]}
    for goal in (goal for goal in GOALS if goal.benchmark in run):
        value, verdict = goal.judge(document)
        sign = "≥" if goal.at_least else "≤"
        measured = "–" if value is None else f"{_digits(value)} {goal.unit}"
        rows.append([goal.statement, f"{sign} {goal.limit:g} {goal.unit}", measured, verdict])
    return ["", "goal", "measured", "verdict"], rows


def table(found: Entry) -> Table:
    """The rows of a benchmark, without columns that are empty; of growth curves their ends and
    their exponents."""
    if any(one["size"] is not None for one in found["rows"]):
        return _growth_table(found["rows"])
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("case", lambda one: one["case"]),
        ("", lambda one: one["contender"]),
        ("samples", lambda one: str(one["samples"] or "–")),
        ("seconds", lambda one: _range(one["seconds"])),
        (
            "gradients" if found["unit"] == UNIT else "relative",
            lambda one: _range(one["gradients"]),
        ),
        (found["error_of"], lambda one: _error(one["error"])),
        ("GiB", lambda one: "–" if one["gibibytes"] is None else _digits(one["gibibytes"])),
        ("remark", lambda one: one["note"]),
    ]
    used = [
        (n, show) for n, show in columns if any(show(r) not in ("", "–") for r in found["rows"])
    ]
    return [name for name, _ in used], [[show(one) for _, show in used] for one in found["rows"]]


def _growth_table(rows: Sequence[Row]) -> Table:
    lines = []
    for case, contender, exponent in growth_exponents(rows):
        curve = [r for r in rows if (r["case"], r["contender"]) == (case, contender)]
        ends = [f"{r['size']:,} in {_digits(r['seconds'][1])} s" for r in (curve[0], curve[-1])]
        lines.append([case, contender, *ends, f"{exponent:.2f}"])
    return ["growing", "", "from", "to", "exponent"], lines


def _range(values: Sequence[float] | None) -> str:
    if values is None:
        return "–"
    low, median, high = map(_digits, values)
    return median if low == high else f"{median} ({low}–{high})"


def _error(values: Sequence[float] | None) -> str:
    if values is None:
        return "–"
    median, worst = (f"{value:.1e}" for value in values)
    return median if median == worst else f"{median}, worst {worst}"


def _digits(value: float) -> str:
    """Three digits, without exponent where that is readable."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


# -- files -----------------------------------------------------------------------------------------


def folder(path: str | Path | None = None) -> Path:
    """Where results are kept: ``path`` if given, else ``data/benchmarks`` of the checkout."""
    return Path(path) if path is not None else store.root() / "data" / "benchmarks"


def save(document: Document, path: str | Path | None = None) -> Path:
    """Write a result to ``<machine>-<date>.json``, whole or not at all, and return the file.

    Raises:
        ValueError: as :func:`check`.
    """
    check(document)
    parent = folder(path)
    parent.mkdir(parents=True, exist_ok=True)
    origin = document["provenance"]
    stamp = origin["created"][:16].replace(":", "").replace("T", "-")
    target = parent / f"{_slug(origin['machine'])}-{stamp}.json"
    scratch = target.with_suffix(f".{os.getpid()}.writing")
    scratch.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    os.replace(scratch, target)
    return target


def load(path: str | Path | None = None) -> list[Document]:
    """All stored results in the order of their names.

    Raises:
        ValueError: for a file that is no such result, naming it.
    """
    documents = []
    for file in sorted(folder(path).glob("*.json")):
        try:
            documents.append(check(json.loads(file.read_text())))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return documents


def check(document: Any) -> Document:
    """The document itself.

    Raises:
        ValueError: for another schema or rows without the fields of this one.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ValueError(f"expected a benchmark result of schema {SCHEMA}, got {found!r}")
    if absent := {"provenance", "benchmarks"} - document.keys():
        raise ValueError(f"expected provenance and benchmarks, {', '.join(sorted(absent))} absent")
    if absent := {"machine", "created"} - document["provenance"].keys():
        raise ValueError(f"provenance: {', '.join(sorted(absent))} absent")
    for found in document["benchmarks"]:
        if absent := {"name", "title", "setting", "unit", "error_of", "rows"} - found.keys():
            raise ValueError(f"benchmark {found.get('name')!r}: {', '.join(sorted(absent))} absent")
        for one in found["rows"]:
            if set(one) != set(FIELDS):
                raise ValueError(
                    f"benchmark {found['name']!r}: expected rows with the fields "
                    f"{', '.join(FIELDS)}; got {', '.join(one)}"
                )
    return document


def _slug(name: str) -> str:
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in name.lower()).split()
    return "-".join(words) or "unknown"
