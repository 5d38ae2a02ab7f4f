"""What a chapter shows besides plots: claims, provenance, the command to repeat it, data as CSV.

Every function returns a :class:`Block`, which notebooks show as HTML and terminals as text.
Colours say nothing that words do not say too, and backgrounds are left to the theme, so that dark
mode works.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ijrlib import benchmarks as _benchmarks
from ijrlib import claims as _claims
from ijrlib import experiments, store
from ijrlib.config import DECAY_AT, RunConfig, Window
from ijrlib.conventions import SHARES
from ijrlib.criteria import Measurement
from ijrlib.store import Run

BADGES = {  # verdict: (sign, background of its badge); white text on each has a contrast above 4.5
    "reproduced": ("✓", "#1a7f37"),
    "reproduced at reduced scale": ("✓", "#1a7f37"),
    "not reproduced": ("✗", "#cf222e"),
    "not judged": ("·", "#57606a"),
    "not decided": ("?", "#57606a"),
    "not run": ("–", "#57606a"),
}
BADGE = "color:#fff;border-radius:0.6em;padding:0.1em 0.6em;display:inline-block;font-size:85%"
RESIDUALS = {  # of a run: of what
    "sharpness_residual": "‖H‖",
    "jacobian_residual": "‖⟨J⟩‖²",
    "theorem_2_residual": "‖G‖",
    "share_residual": "‖H‖ of a part",
    "hessian_residuals": "largest eigenvalues of H",
    "gauss_newton_residuals": "largest eigenvalues of G",
    "outlier_residuals": "largest eigenvalues of G",
    "top_residuals": "largest eigenvalues of H",
}
CELL = "text-align:left;vertical-align:top;padding:0.35em 0.7em"


@dataclass(frozen=True)
class Block:
    """A piece of a page: HTML for notebooks and the book, text for terminals."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def claims(figure: str, runs: Sequence[Run], scale: str) -> Block:
    """Table of a figure's claims: the paper's statement, the criterion and its reason, what was
    measured, with what other readings of the claim give, and the verdict."""
    verdicts = _claims.evaluate(figure, runs, scale)
    rows = [
        (
            _claim(v.claim.statement, v.claim.printed, v.claim.id),
            f"{_text(v.claim.criterion)}{_small(v.claim.reason)}",
            (_measured(v.measured) or "–") + "".join(map(_reading, v.readings)),
            _badge(v.verdict) + _small(v.note) + _small(_claims.TURNED if v.turned else ""),
        )
        for v in verdicts
    ]
    header = ("claim of the paper", "criterion, and why", "measured", "verdict")
    remark = (
        "<p><small>Smoke scale runs through the chapter in seconds; no verdict is drawn from "
        "it.</small></p>"
        if scale == "smoke"
        else ""
    )
    text = "\n".join(f"{v.claim.id}: {v.verdict} ({v.measured or v.note})" for v in verdicts)
    return Block(_table(header, rows) + remark, text)


def counts(frame: pd.DataFrame) -> Block:
    """How many claims of each part of the book have which verdict.

    Args:
        frame: from :func:`ijrlib.claims.scoreboard`.
    """
    verdicts = [v for v in _claims.VERDICTS if v in set(frame["verdict"])]
    rows = []
    for name in [*_parts(frame), "all"]:
        group = frame if name == "all" else frame.loc[frame["part"] == name]
        found = group["verdict"].value_counts()
        rows.append((name, *(found.get(v, 0) for v in verdicts), len(group)))
    return table(("part of the book", *verdicts, "claims"), rows)


def scoreboard(frame: pd.DataFrame) -> Block:
    """The whole scoreboard: how many claims have which verdict, filters, then a table for each
    figure, with a link to its chapter and the command that repeats it.

    The filters work by ``_static/scoreboard.js``; without it, all is shown.

    Args:
        frame: from :func:`ijrlib.claims.scoreboard`.
    """
    counts = frame["verdict"].value_counts()
    verdicts = [v for v in _claims.VERDICTS if v in counts]
    summary = [(_badge(v), str(counts[v])) for v in verdicts]
    parts = [_table(("verdict", "claims"), [*summary, ("all", str(len(frame)))])]
    choices = {"part": _parts(frame), "verdict": verdicts, "reading": [_claims.TURNED]}
    parts.append(_filters(choices, len(frame)))
    header = ("claim", "measured", "verdict")
    for figure, group in frame.groupby("figure", sort=False):
        rows = [
            (
                f'<span title="{_text(row["criterion"])}">'
                f"{_claim(row['statement'], row['printed'], row['id'])}</span>",
                _measured(row["measured"]) or "–",
                _badge(row["verdict"]) + _small(row["note"]) + _small(row["reading"]),
            )
            for row in group.to_dict("records")
        ]
        told = [{name: row[name] for name in choices} for row in group.to_dict("records")]
        table = _table(header, rows, told)
        parts.append(f"<div data-claims><h3>{_linked(str(figure))}</h3>{table}</div>")
    text = "\n".join(f"{v}: {counts[v]}" for v in verdicts)
    return Block("".join(parts), text)


def _parts(frame: pd.DataFrame) -> list[str]:
    return [name for name in _claims.PART_ORDER if name in set(frame["part"])]


def _filters(choices: Mapping[str, Sequence[str]], count: int) -> str:
    """A select for each property of the rows, and how many rows are shown."""
    selects = [
        f'<label style="margin-right:1.5em">{_text(name)} <select data-filter="{name}">'
        f'<option value="">all</option>'
        + "".join(f"<option>{_text(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in choices.items()
    ]
    shown = f'<output data-shown aria-live="polite">{count} claims</output>'
    return f"<p>{''.join(selects)}{shown}</p>"


def _linked(figure: str) -> str:
    """A figure's heading, with a link to its chapter, as from the scoreboard's page, where there is
    one, and the command that repeats it where it has runs."""
    heading = _text(_heading(figure))
    try:
        path = chapter(figure).removeprefix("chapters/").removesuffix(".ipynb")
    except ValueError:
        return heading
    link = f'<a href="{path}.html">{heading}</a>'
    if figure not in experiments.FIGURES:
        return link
    return f'{link} <small style="font-size:60%"><code>make run FIG={figure}</code></small>'


MOST_ROWS = 3


def provenance(
    figure: str,
    runs: Sequence[Run],
    scale: str,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> Block:
    """Where the figure comes from: scale beside the paper's setting, the runs with their machine
    and data (folded where they are many), the command that repeats the chapter, the series as CSV,
    and a warning for a diverged run."""
    command = rerun_command(figure, scale, seed, overrides)
    entry = experiments.FIGURES.get(figure)
    facts = {
        "scale": scale,
        "setting in the paper": entry.paper_setting if entry else "",
        "stand-in": entry.stand_in if entry and scale != "paper" else "",
    }
    warnings = [
        f"{run.config.name} diverged at step {run.provenance.get('diverged_at')}: it is shown up "
        "to there."
        for run in runs
        if run.provenance.get("status") == "diverged"
    ]
    lines = [(name, value) for name, value in facts.items() if value]
    parts = [f'<p role="alert"><strong>Warning.</strong> {_text(w)}</p>' for w in warnings]
    parts.append("<ul>" + "".join(f"<li>{_text(k)}: {_text(v)}</li>" for k, v in lines) + "</ul>")
    if runs:
        header = ("run", "setting here", "data", "computed", "series")
        rows = _table(header, [_run_row(run) for run in runs])
        summary = f"<summary>{len(runs)} runs: settings, data, machines and series</summary>"
        fold = len(runs) > MOST_ROWS
        parts.append(f"<details>{summary}{rows}</details>" if fold else rows)
    parts.append(f"<p>To repeat this chapter:</p><pre><code>{_text(command)}</code></pre>")
    text = "\n".join(
        [*warnings, *(f"{k}: {v}" for k, v in lines), *(r.config.name for r in runs), command]
    )
    return Block("".join(parts), text)


def compute(runs: Sequence[Run]) -> Block:
    """What runs have cost: for each data set and network their number, seeds, updates, hours and
    machines; then all together."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config.dataset, run.config.network), []).append(run)
    rows = [(*key, *_spent(group)) for key, group in sorted(groups.items())]
    header = ("data", "network", "runs", "seeds", "updates", "hours", "on")
    return table(header, [*rows, ("all", "", *_spent(runs))])


def _spent(runs: Sequence[Run]) -> tuple[str, ...]:
    seconds = sum(run.provenance.get("wall_seconds") or 0.0 for run in runs)
    machines = {
        f"{run.provenance.get('processor') or run.provenance.get('device', 'unknown')}, "
        + _threads(run)
        for run in runs
    }
    return (
        str(len(runs)),
        str(len({run.config.seed for run in runs})),
        f"{sum(map(_updates, runs)):,}",
        f"{seconds / 3600:.1f}",
        "; ".join(sorted(machines)),
    )


def _residuals(run: Run) -> str:
    """The 95th percentile of each relative residual ‖Ax − θx‖/|θ| that the run holds."""
    parts = []
    for name, of in RESIDUALS.items():
        values = run.series.get(name, run.arrays.get(name))
        known = np.asarray([] if values is None else values, dtype=float).ravel()
        known = known[np.isfinite(known)]
        if known.size:
            parts.append(f"{of} {np.quantile(known, 0.95):.2g}")
    return f"relative residuals (95th percentile): {', '.join(parts)}" if parts else ""


def _updates(run: Run) -> int:
    at = run.provenance.get("diverged_at")
    return run.config.steps if at is None else at


def _threads(run: Run) -> str:
    count = f"{run.provenance.get('threads', '?')} thread(s)"
    processes = run.provenance.get("processes", 1)
    return count if processes == 1 else f"{count} in each of {processes} processes"


def checks(results: Sequence[Any]) -> Block:
    """Table of :class:`ijrlib.theorems.Check`: statement, worst slack, what rounding may take from
    it, where that is, and whether the statement holds."""
    header = ("statement", "worst slack", "rounding allows", "where", "")
    rows = [
        (
            check.statement,
            f"{check.slack:.1e}",
            f"{-check.allowance:.1e}" if check.allowance else "0",
            check.where,
            "✓ holds" if check.passed else "✗ violated",
        )
        for check in results
    ]
    return table(header, rows)


def benchmarks(documents: Sequence[_benchmarks.Document]) -> Block:
    """Stored results of ``ijr bench``: for each machine where they come from, the goals, and a
    table a benchmark."""
    blocks = [block for document in documents for block in _benchmark_blocks(document)]
    if not blocks:
        return Block("<p>No result is stored.</p>", "no result is stored")
    return Block("".join(b.html for b in blocks), "\n\n".join(b.text for b in blocks))


def _benchmark_blocks(document: _benchmarks.Document) -> list[Block]:
    origin = document["provenance"]
    commit = f"{str(origin.get('commit'))[:12]}{' (changed)' if origin.get('dirty') else ''}"
    packages = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    data = "; ".join(origin["data"][key] for key in ("source", "note") if origin["data"].get(key))
    facts = (
        f"{origin['processor']}, {origin['threads']} thread(s); {origin['created']}; commit "
        f"{commit}; Python {origin['python']}, {packages}; data: {data}; "
        f"{sum(origin['wall_seconds'].values()) / 60:.0f} min."
    )
    blocks = [_heading_block("h2", origin["machine"], facts)]
    header, goals = _benchmarks.goals_table(document)
    if goals:
        blocks.append(_heading_block("h3", "Goals", ""))
        blocks.append(table(header, goals))
    for found in document["benchmarks"]:
        blocks.append(_heading_block("h3", found["title"], found["setting"]))
        blocks.append(table(*_benchmarks.table(found)))
    return blocks


def _heading_block(level: str, title: str, text: str) -> Block:
    page = f"<{level}>{_text(title)}</{level}>" + (f"<p>{_text(text)}</p>" if text else "")
    return Block(page, f"{title}\n{text}".strip())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Block:
    """A plain table in the look of the others; cells are shown as ``str`` gives them, negative
    numbers with a minus sign."""
    cells = [[str(cell) for cell in row] for row in rows]
    text = "\n".join(" | ".join(row) for row in [list(header), *cells])
    return Block(_table(header, [[_measured(cell) for cell in row] for row in cells]), text)


def rerun_command(
    figure: str, scale: str, seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> str:
    """The papermill command that repeats a chapter, but for ``device`` and ``runs_dir``, which are
    of the machine."""
    words = [".venv/bin/papermill", chapter(figure), "out.ipynb", "-p", "scale", scale]
    if seed:
        words += ["-p", "seed", str(seed)]
    if overrides:
        words += ["-y", json.dumps({"overrides": dict(overrides)})]
    return shlex.join(words)


def chapter(figure: str) -> str:
    """Path of a figure's notebook below the checkout, such as ``chapters/implicit/fig03_….ipynb``.

    Raises:
        ValueError: where no chapter or more than one begins with ``figure``.
    """
    folder = store.root() / "chapters"
    found = sorted({*folder.rglob(f"{figure}_*.ipynb"), *folder.rglob(f"{figure}.ipynb")})
    if len(found) != 1:
        raise ValueError(f"chapter of {figure!r}: expected one notebook, found {len(found)}")
    return found[0].relative_to(store.root()).as_posix()


def csv_link(run: Run) -> str:
    """A link that holds the run's series as CSV: the columns with any value, six digits."""
    frame = run.series.dropna(axis="columns", how="all")
    data = base64.b64encode(frame.to_csv(index=False, float_format="%.6g").encode()).decode()
    name = _text(f"{run.config.name}.csv")
    return f'<a download="{name}" href="data:text/csv;base64,{data}">CSV</a> ({len(frame)} rows)'


# -- HTML ------------------------------------------------------------------------------------------


def _schedule(config: RunConfig) -> str:
    """What is not plain SGD with one learning rate, each after a comma."""
    parts = []
    if config.lr_decay < 1:
        shares = ", ".join(f"{share:.0%}" for share in DECAY_AT)
        at = f"step {config.lr_decay_at:,}" if config.lr_decay_at else f"{shares} of the steps"
        parts.append(f"× {config.lr_decay:g} at {at}")
    if config.momentum:
        parts.append(f"momentum {config.momentum:g}")
    if config.weight_decay:
        parts.append(f"weight decay {config.weight_decay:g}")
    if config.augment:
        parts.append("augmentation")
    return "".join(f", {part}" for part in parts)


def _measured_on(config: RunConfig) -> str:
    """The examples that the curvature is of, and how often it is taken."""
    measures = dict(config.measures)
    if "shares" in measures:
        return f"shares of them: {', '.join(f'{share:.0%}' for share in SHARES)}" + _how_often(
            config, measures["shares"]
        )
    return f"{config.probe:,} examples" + _how_often(config, measures.get("curvature", ()))


def _how_often(config: RunConfig, windows: Sequence[Window]) -> str:
    """Such as ", every 5 steps", with the bounds of windows that are not the whole run."""
    parts = []
    for start, stop, step in windows:
        last = min(stop - 1, config.steps)
        whole = start == 0 and last == config.steps
        bounds = "" if whole else f" from {start:,} to {last:,}"
        parts.append(f"every {step:,} steps{bounds}" if step > 1 else f"at every step{bounds}")
    return f", {' and '.join(parts)}" if parts else ""


def _run_row(run: Run) -> tuple[str, ...]:
    config, origin = run.config, run.provenance
    data = origin.get("data", {})
    method = "full batch" if config.batch_size is None else f"B = {config.batch_size}"
    precision = f"{config.dtype}{' (training passes in bfloat16)' if config.autocast else ''}"
    setting = (
        f"{config.network}, {config.dataset}, {config.examples:,} examples, {method}, η = "
        f"{config.lr:g}{_schedule(config)}, "
        f"{config.steps:,} steps, {config.loss.replace('_', ' ')}, {precision}, seed "
        f"{config.seed}; curvature on {_measured_on(config)}"
    )
    source = "; ".join(str(data[key]) for key in ("source", "note") if data.get(key))
    commit = (
        f"{str(origin.get('commit', 'unknown'))[:12]}{' (changed)' if origin.get('dirty') else ''}"
    )
    seconds = origin.get("wall_seconds")
    computed = [
        str(origin.get("created", "date unknown")),
        f"commit {commit}",
        f"{origin.get('device', 'device unknown')}, {_threads(run)}",
        f"{seconds / 60:.1f} min" if isinstance(seconds, int | float) else "time unknown",
        *(["resumed from a checkpoint"] if origin.get("resumed") else []),
        *([residuals] if (residuals := _residuals(run)) else []),
        f"status: {origin.get('status', 'unknown')}",
    ]
    return (
        f"<code>{_text(config.name)}</code>",
        _text(setting),
        _text(source) or "–",
        "<br>".join(_text(line) for line in computed),
        csv_link(run),
    )


def _claim(statement: str, printed: str, claim_id: str) -> str:
    shown = f"<br>In print: {_text(printed)}" if printed else ""
    return f"{_text(statement)}{shown}<br><code>{_text(claim_id)}</code>"


def _heading(figure: str) -> str:
    names = {"fig": "Figure", "tab": "Table", "thm": "Theorem", "alg": "Algorithm"}
    if figure[:3] in names and figure[3:].isdigit():
        return f"{names[figure[:3]]} {int(figure[3:])}"
    others = {
        "eq01_04": "Equations 1 to 4",
        "ejr": "Explicit regularization",
        "be01": "Break-even point: Figure 1",
        "be02": "Break-even point: Figure 2",
        "be03": "Break-even point: Figures 3 and 4",
        "be05": "Break-even point: Figure 5",
        "be06": "Break-even point: Figure 6",
        "be11": "Break-even point: Figures 3, 11 and 12",
        "bemodel": "Break-even point: the model",
        "sd01": "Sharpest directions: Figures 1 and 2",
        "sd04words": "Sharpest directions: Figure 4, the language model",
        "full": "At the paper's own size",
        "init": "Initialization",
        "shares": "Parts of the training set",
        "unrun": "Not run here",
    }
    if figure[:2] == "sd" and figure not in others:
        return f"Sharpest directions: Figure {int(figure[2:])}"
    return others.get(figure, figure)


def _badge(verdict: str) -> str:
    sign, color = BADGES[verdict]
    return f'<span style="background:{color};{BADGE}">{sign} {_text(verdict)}</span>'


def _reading(reading: tuple[str, Measurement]) -> str:
    words, found = reading
    told = f"Read otherwise, {words}: {found.value}. {'Holds' if found.holds else 'Fails'}."
    return f"<br><small>{_measured(told)}</small>"


def _small(note: object) -> str:
    return f"<br><small>{_text(note)}</small>" if note else ""


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    told: Sequence[Mapping[str, str]] | None = None,
) -> str:
    """A table of cells that are HTML already; ``told`` gives data attributes of each row."""
    marks = [
        "".join(f' data-{name}="{_text(value)}"' for name, value in one.items())
        for one in told or [{}] * len(rows)
    ]
    head = "".join(f'<th scope="col" style="{CELL}">{_text(cell)}</th>' for cell in header)
    body = "".join(
        f"<tr{mark}>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    return (
        '<div style="overflow-x:auto"><table class="table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _measured(value: object) -> str:
    """Escaped, with a minus sign in front of numbers, at which a line does not break; not for
    commands and names, which are to be copied."""
    return _text(re.sub(r"(?<![\w.])-(?=[\d.])|(?<=\de)-(?=\d)", "−", str(value)))
