"""The paper's claims against what was measured: a verdict for each, and the scoreboard of all.

Verdicts: "reproduced", "reproduced at reduced scale", "not reproduced"; "not decided" by the runs
that there are, "not run"; at smoke scale a claim that rests on runs is evaluated but "not judged".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ijrlib import experiments, store
from ijrlib.claim_table import CLAIMS, Claim
from ijrlib.criteria import Measurement, NotMeasured, NotRun
from ijrlib.readings import READINGS
from ijrlib.store import Run

__all__ = ["CLAIMS", "VERDICTS", "Claim", "Verdict", "evaluate", "figures", "judge", "scoreboard"]

THEORY = ("eq01_04", "thm1", "fig01", "thm2", "alg1", "alg2")
PARTS = {  # part of the book: its figures; the rest are of implicit regularization
    "Theory": {*THEORY, "eq12"},
    "Impurity": {"fig02"},
    "The curvature subspace": {
        *(f"fig{n:02d}" for n in (8, 9, 10, 11, 27, 28, 29, 30, 31)),
        "eq32",
    },
    "Explicit regularization": {"ejr", "fig07", "fig33", "tab1", "tab2", "tab3"},
    "Companion papers": {
        *("bemodel", "be01", "be02", "be03", "be05", "be06", "be11", "sd04words", "unrun"),
        *(f"sd{n:02d}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 19, 20, 21, 22)),
    },
}
IMPLICIT = "Implicit regularization"
COMPANIONS = "Companion papers"
PART_ORDER = (
    "Theory",
    "Impurity",
    IMPLICIT,
    "The curvature subspace",
    "Explicit regularization",
    COMPANIONS,
)
VERDICTS = (
    "reproduced",
    "reproduced at reduced scale",
    "not reproduced",
    "not judged",
    "not decided",
    "not run",
)
TURNED = "another reading turns it"


@dataclass(frozen=True)
class Verdict:
    """One claim, what was measured ("" where nothing was), the verdict, a remark on it, and what
    its other readings give (:mod:`ijrlib.readings`): their words, and whether the claim holds."""

    claim: Claim
    measured: str
    verdict: str
    note: str = ""
    readings: tuple[tuple[str, Measurement], ...] = ()

    @property
    def turned(self) -> bool:
        """Whether another reading gives the opposite verdict."""
        return any(found.holds == (self.verdict == "not reproduced") for _, found in self.readings)


def figures() -> list[str]:
    """What has claims, in the order of the book: theory, then figures and tables by number, then
    those of the companion papers."""
    present = {claim.figure for claim in CLAIMS}
    rest = sorted(present.difference(THEORY), key=lambda f: (part(f) == COMPANIONS, f))
    return [*THEORY, *rest]


def part(figure: str) -> str:
    """The part of the book that a figure belongs to."""
    return next((name for name, members in PARTS.items() if figure in members), IMPLICIT)


def evaluate(figure: str, runs: Sequence[Run], scale: str) -> list[Verdict]:
    """Judge every claim of one figure on its runs.

    A claim that the runs cannot decide (one seed, no phase II, a missing column, nothing but NaN)
    reads "not decided", one of which there is no run "not run", either with the reason; nothing
    raises for the content of a run.

    Raises:
        ValueError: for an unknown figure or scale, listing the valid ones.
    """
    if figure not in figures():
        raise ValueError(f"figure: expected one of {', '.join(figures())}; got {figure!r}")
    if scale not in experiments.SCALES:
        raise ValueError(f"scale: expected one of {', '.join(experiments.SCALES)}; got {scale!r}")
    return [judge(claim, runs, scale) for claim in CLAIMS if claim.figure == figure]


def judge(claim: Claim, runs: Sequence[Run], scale: str) -> Verdict:
    """One claim's verdict on runs; see :func:`evaluate`."""
    if claim.measure is None:
        return Verdict(claim, "", "not run", "not measured yet")
    try:
        measurement = claim.measure(runs)
    except NotMeasured as problem:
        missing = not runs or isinstance(problem, NotRun)
        return Verdict(claim, "", "not run" if missing else "not decided", str(problem))
    if claim.live:
        verdict, note = "reproduced", ""
    else:
        verdict = {
            "smoke": "not judged",
            "laptop": "reproduced at reduced scale",
            "paper": "reproduced",
        }[scale]
        note = _divergence(runs)
    if not measurement.holds and verdict != "not judged":
        verdict = "not reproduced"
    readings = () if verdict == "not judged" else _otherwise(claim, runs)
    return Verdict(claim, measurement.value, verdict, note, readings)


def _otherwise(claim: Claim, runs: Sequence[Run]) -> tuple[tuple[str, Measurement], ...]:
    """What the claim's other readings give; one that the runs cannot decide is left out."""
    found = []
    for reading in READINGS.get(claim.id, ()):
        with suppress(NotMeasured):
            found.append((reading.words, reading.measure(runs)))
    return tuple(found)


def scoreboard(scale: str = "laptop", runs_dir: str | Path | None = None) -> pd.DataFrame:
    """Every claim with its verdict, from stored runs alone: nothing is trained.

    Args:
        scale: one of ``experiments.SCALES``.
        runs_dir: where the runs are; the checkout's ``data/runs`` by default.

    Returns:
        A row for each claim: figure, part, id, statement, printed, measured, verdict, criterion,
        reason, note, reading (``TURNED`` where another reading would give the opposite verdict).
    """
    table = []
    for figure in figures():
        runs, problem = _stored(figure, scale, runs_dir)
        for verdict in evaluate(figure, runs, scale):
            claim = verdict.claim
            note = problem if verdict.verdict == "not run" and problem else verdict.note
            table.append(
                {
                    "figure": figure,
                    "part": part(figure),
                    "id": claim.id,
                    "statement": claim.statement,
                    "printed": claim.printed,
                    "measured": verdict.measured,
                    "verdict": verdict.verdict,
                    "criterion": claim.criterion,
                    "reason": claim.reason,
                    "note": note,
                    "reading": TURNED if verdict.turned else "",
                }
            )
    return pd.DataFrame(table)


def _divergence(runs: Sequence[Run]) -> str:
    ended = [
        f"{run.config.name} diverged at step {run.provenance.get('diverged_at')}"
        for run in runs
        if run.provenance.get("status") == "diverged"
    ]
    return "; ".join(ended)


def _stored(figure: str, scale: str, runs_dir: str | Path | None) -> tuple[list[Run], str]:
    """The figure's stored runs, or none of them and the reason."""
    if figure not in experiments.FIGURES:
        return [], ""
    runs = []
    for config in experiments.configs(figure, scale):
        try:
            runs.append(store.load(config, runs_dir))
        except store.MissingRun:
            return [], f"{config.name} is not stored"
        except store.DamagedRun as problem:
            return [], str(problem).replace(f"{store.runs_dir(runs_dir)}/", "")
    return runs, ""
