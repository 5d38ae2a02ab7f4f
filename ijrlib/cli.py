"""``ijr``: verify the theorems, train the runs of a figure, list them, show the claims.

Each command imports what it needs when it runs, so that ``ijr verify`` works without torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Executable companion to 'Implicit Jacobian regularization weighted with impurity of "
    "probability output'.",
    pretty_exceptions_enable=False,
)

Scale = Annotated[str, typer.Option(help="smoke, laptop or paper")]
RunsDir = Annotated[Path | None, typer.Option(help="where runs are kept (default: data/runs)")]


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the probability vectors and networks")] = 0,
) -> None:
    """Check Theorems 1 and 2; exit 1 on a violation.

    Theorem 1 on more than 100,000 probability vectors and, certified in exact arithmetic, on a
    sample; Theorem 2 on the paper's networks (needs torch).
    """
    from ijrlib import theorems

    checks = list(theorems.theorem_1_report(seed=seed))
    try:
        typer.echo("Theorem 1 is checked; Theorem 2 takes some minutes", err=True)
        checks += theorems.theorem_2_report(seed=seed)
        missing = None
    except ModuleNotFoundError as error:
        missing = error.name
    passed = all(check.passed for check in checks)
    if as_json:
        document = {
            "passed": passed,
            "checks": [_plain(check) for check in checks],
            "not_checked": [] if missing is None else [f"Theorem 2: needs {missing}"],
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        _print_checks(checks)
        if missing is not None:
            typer.echo(f"Theorem 2: needs {missing}; not checked")
        typer.echo("every statement holds" if passed else "VIOLATED: see the statements above")
    raise typer.Exit(0 if passed else 1)


def _plain(check: Any) -> dict[str, Any]:
    """A check as JSON values; a slack that is not finite (an exact identity, or nan) is null."""
    values = dataclasses.asdict(check)
    return values | {"slack": check.slack if math.isfinite(check.slack) else None}


def _print_checks(checks: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("statement", "cases", "worst slack", "allowed", "where", "")
    for check in checks:
        table.add_row(
            check.statement,
            f"{check.cases:,}",
            "exact" if check.slack == math.inf else f"{check.slack + 0.0:.3g}",
            f"{0.0 - check.allowance:.3g}",
            check.where,
            "holds" if check.passed else "VIOLATED",
        )
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False).print(table)


@app.command()
def run(
    figure: Annotated[str, typer.Argument(help="figure id, as printed by ijr list")],
    scale: Scale = "laptop",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    seed: Annotated[int, typer.Option(help="added to the seeds of the figure's runs")] = 0,
    runs_dir: RunsDir = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: torch's)")] = None,
) -> None:
    """Train the runs of a figure that are not stored yet; a killed run goes on where it stopped."""
    from ijrlib import experiments

    with _clear_errors():
        configs = experiments.configs(figure, scale, seed)
        if threads is not None and threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        from ijrlib import parallel

        for config in configs:
            done = experiments.run(config, device, runs_dir)
            if parallel.rank() == 0:
                typer.echo(f"{done.provenance['status']}: {done.path}")
    if not configs:
        typer.echo(f"{figure} needs no run")


@app.command("list")
def list_(scale: Scale = "laptop", runs_dir: RunsDir = None) -> None:
    """The runs of a scale: which figures they serve, and of those that are stored status, steps,
    size on disk and what they cost."""
    from ijrlib import experiments, store

    figures: dict[str, list[str]] = {}
    with _clear_errors():
        for figure in experiments.FIGURES:
            for config in experiments.configs(figure, scale):
                figures.setdefault(config.name, []).append(figure)
        rows = []
        for name, wanted in figures.items():
            found = _stored(store.runs_dir(runs_dir) / name)
            rows.append([name, " ".join(wanted), *found])
    _print_table(["run", "figures", "status", "steps", "size", "cost"], rows)


def _stored(folder: Path) -> list[str]:
    """Status, steps, size and cost of a run's folder."""
    from ijrlib import store

    try:
        run = store.load(folder)
    except store.MissingRun:
        return ["not stored", "", "", ""]
    except store.DamagedRun as error:
        return [f"damaged: {error}", "", "", ""]
    size = sum(path.stat().st_size for path in folder.iterdir())
    told = run.provenance
    seconds = told.get("wall_seconds")
    threads = (told.get("threads") or math.nan) * (told.get("processes") or 1)
    times = f" × {threads:g}" if told.get("device") == "cpu" else ""
    return [
        told.get("status") or "unknown",
        f"{run.series['step'].iloc[-1]:,}" if len(run.series) else "none",
        f"{size / 1e6:.2f} MB",
        f"{seconds / 60:.1f} min {told.get('device')}{times}" if seconds else "unknown",
    ]


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="a run's folder, or the beginning of its name")],
    runs_dir: RunsDir = None,
) -> None:
    """A stored run: its configuration, where its numbers come from, and what it measured."""
    from ijrlib import store

    with _clear_errors():
        found = store.named(run, runs_dir)
    typer.echo(found.path)
    typer.echo(json.dumps(found.config.to_dict(), indent=1, sort_keys=True))
    typer.echo(json.dumps(found.provenance, indent=1, sort_keys=True))
    rows = []
    for name in found.series.columns.drop("step"):
        values = found.series[name].dropna().to_numpy()
        numbers = (values[0], values[-1], values.min(), values.max()) if len(values) else ()
        told = [f"{v:.6g}" for v in numbers] or [""] * 4
        rows.append([name, f"{len(values):,}", *told])
    _print_table(["column", "steps", "first", "last", "smallest", "largest"], rows)
    arrays = [n for n in found.arrays if not n.endswith(".steps")]
    _print_table(["array", "shape"], [[n, str(found.arrays[n].shape)] for n in arrays])


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="a run's folder, or the beginning of its name")],
    two: Annotated[str, typer.Argument(help="another one")],
    runs_dir: RunsDir = None,
) -> None:
    """How far two runs agree: their configurations, and each quantity's largest relative
    difference with the step where it is."""
    from ijrlib import comparison, store

    with _clear_errors():
        a, b = store.named(one, runs_dir), store.named(two, runs_dir)
    settings = comparison.fields(a.config, b.config)
    if settings:
        rows = [[name, str(x), str(y)] for name, x, y in settings]
        _print_table(["field", a.config.name, b.config.name], rows)
    else:
        typer.echo("the configurations agree")
    rows = [
        [d.name, f"{d.common:,}", f"{d.largest:.3g}", str(d.step), f"{d.one:.9g}", f"{d.two:.9g}"]
        for d in comparison.differences(a, b)
    ]
    _print_table(
        ["quantity", "common steps", "largest relative difference", "step", "first", "second"], rows
    )
    for x, y, which in ((a, b, "first"), (b, a, "second")):
        if names := comparison.only(x, y):
            typer.echo(f"only in the {which}: {', '.join(names)}")


@app.command()
def claims(scale: Scale = "laptop", runs_dir: RunsDir = None) -> None:
    """Each claim of the paper, what was measured, and the verdict."""
    from ijrlib import claims as room

    with _clear_errors():
        board = room.scoreboard(scale, runs_dir)
    rows = [list(map(str, row)) for row in board.itertuples(index=False)]
    _print_table(list(map(str, board.columns)), rows)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help="a benchmark; may be repeated")] = None,
    repeats: Annotated[int, typer.Option(help="rounds of the benchmarks at one θ")] = 5,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: torch's)")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    out: Annotated[Path | None, typer.Option(help="folder (default: data/benchmarks)")] = None,
) -> None:
    """Time the curvature engine beside other tools on this machine, and store the result.

    In one process, with the same weights and data.  Needs an idle machine, and half an hour on
    two cores.
    """
    from ijrlib import benchmarks

    with _clear_errors():
        from ijrlib import benchmark_suite

        try:
            benchmarks.folder(out).mkdir(parents=True, exist_ok=True)  # before the half hour
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"out: expected a folder, got {out}") from None
        document = benchmark_suite.run(
            only or (), repeats, threads, device, say=lambda text: typer.echo(text, err=True)
        )
    for found in document["benchmarks"]:
        typer.echo(f"\n{found['title']}\n{found['setting']}")
        _print_table(*benchmarks.table(found))
    header, goals = benchmarks.goals_table(document)
    if goals:
        _print_table(header, goals)
    typer.echo(f"stored: {benchmarks.save(document, out)}")


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    """A table as wide as the terminal; a name that does not fit goes on in the next line."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in header))
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)


class _clear_errors:
    """Show an expected error as one line and exit 2; let everything else through."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from ijrlib.store import RunIsBusy

        if isinstance(error, BrokenPipeError):  # typer's
            return
        if isinstance(error, OSError | ValueError | ModuleNotFoundError | RunIsBusy):
            typer.echo(f"ijr: {error}", err=True)
            raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
