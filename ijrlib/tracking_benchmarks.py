"""Sharpness and full measurements along consecutive training steps at the edge of stability.

There the top eigenvector turns quickly, so a start from the step before is worth least.  Everything
is timed in one pass over the window: at the same θ one after the other, each between two bare
gradients, whose mean is its unit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ijrlib import peers
from ijrlib.benchmarks import ALGORITHM_2, OURS, PAPERS_TOOLS, Entry, Row, entry, row
from ijrlib.curvature import Curvature, curvature
from ijrlib.operators import cross_entropy, hessian, mean_jacobian_gram
from ijrlib.spectra import Eigenpair, top_eigenpair
from ijrlib.timing import Pairs, bare_gradient, timed
from ijrlib.workloads import Workload, at, spread, twin

LOOSE, TIGHT = 5e-3, 1e-4
"""The two accuracies of the sharpness."""

RTOL = {LOOSE: {}, TIGHT: {"rtol": 5e-5}}
"""What :func:`ijrlib.curvature.curvature` is asked for to reach them: its default, and less."""

EIGSH_TOLERANCE = {LOOSE: 1e-1, TIGHT: 1e-2}
"""Relative residuals that suffice for them: the eigenvalue's error is of second order."""

LOBPCG_ITERATIONS = {
    ("cold", LOOSE): 25,
    ("cold", TIGHT): 45,
    ("warm", LOOSE): 15,
    ("warm", TIGHT): 35,
}
"""Of LOBPCG, at most; it is credited with the moment when it was first as accurate as asked for."""

REFERENCE_RTOL = 3e-4
"""Residual of the converged reference, whose own error is of second order in it."""

PYHESSIAN, PYHESSIAN_DEFAULT = "PyHessian", "PyHessian, default"
EIGSH, LOBPCG = "curvlinops + eigsh", "curvlinops + LOBPCG"
NOT_INSTALLED = "not installed"
NO_WARM_START = "takes no start vector"
ORACLE = "stopped when first as accurate, which only the reference tells"


@dataclass(frozen=True)
class Record:
    """One measurement: step of the window, seconds, the unit beside it, error where it is known."""

    case: str
    contender: str
    step: int
    seconds: float
    unit: float
    error: float | None = None


@dataclass(frozen=True)
class Tracks:
    """The pass over the window.

    Attributes:
        records: of the sharpness, and of ‖⟨J⟩‖ under the cases that begin so.
        residual: largest residual of the references.
        references: how many there are.
    """

    records: list[Record]
    residual: float
    references: int

    def row(self, case: str, contender: str, note: str = "", shown: str | None = None) -> Row:
        """The records of a contender in a case as a row (of the case ``shown``)."""
        found = [r for r in self.records if (r.case, r.contender) == (case, contender)]
        return row(
            shown or case,
            contender,
            [r.seconds for r in found],
            [r.unit for r in found],
            errors=[r.error for r in found if r.error is not None],
            note=note,
        )


def case(start: str, accuracy: float) -> str:
    """Such as "warm, 0.5%"."""
    return f"{start}, {100 * accuracy:g}%"


def ruler(model: nn.Module, pairs: Pairs, device: torch.device) -> Callable[..., Any]:
    """A function that returns of a call (seconds, unit, result), the unit being the mean of a bare
    gradient before and one after."""
    last: list[float] = []

    def unit() -> float:
        return timed(lambda: bare_gradient(model, cross_entropy, pairs), device)[0]

    def measure(call: Callable[[], Any]) -> tuple[float, float, Any]:
        before = last.pop() if last else unit()
        seconds, result = timed(call, device)
        last.append(unit())
        return seconds, (before + last[0]) / 2, result

    return measure


@dataclass(frozen=True)
class Situation:
    """Where the peers are measured: θ in the model, and the converged sharpness there."""

    model: nn.Module
    pairs: Pairs
    step: int
    sharpness: float
    accuracies: list[float]
    measure: Callable[..., Any]

    @property
    def accuracy(self) -> float:
        """The higher one of those that are asked for."""
        return min(self.accuracies)

    def record(
        self, case: str, contender: str, seconds: float, unit: float, value: float
    ) -> Record:
        error = abs(value / self.sharpness - 1)
        return Record(case, contender, self.step, seconds, unit, error)

    def records(self, contender: str, start: str, trace: peers.Trace, unit: float) -> list[Record]:
        """Where a run first was within each accuracy; its end where it never was."""
        out = []
        for accuracy in self.accuracies:
            k = (trace.within(self.sharpness, accuracy) or len(trace.values)) - 1
            name = case(start, accuracy)
            out.append(self.record(name, contender, trace.seconds[k], unit, trace.values[k]))
        return out


@functools.lru_cache(maxsize=1)
def tracks(workload: Workload) -> Tracks:
    """The pass over the window of a workload, once for both benchmarks."""
    sizes, pairs = workload.sizes, workload.tracked
    before_window, *thetas = workload.window.thetas
    model = workload.network()
    measure = ruler(model, pairs, workload.device)
    checked = list(range(0, len(thetas), sizes.every))
    cold = [checked[k] for k in spread(sizes.cold, len(checked))]
    with_peers = [checked[k] for k in spread(sizes.peers, len(checked))]
    tight_peers = [with_peers[k] for k in spread(sizes.tight_peers, len(with_peers))]

    at(model, before_window)
    full = partial(curvature, model, cross_entropy, pairs)
    previous = {accuracy: full(**options) for accuracy, options in RTOL.items()}
    records: list[Record] = []
    residuals = []
    for step, theta in enumerate(thetas):
        workload.say(f"step {step + 1} of {len(thetas)} in the window")
        at(model, theta)
        start = previous[LOOSE].top.vector
        done: list[tuple[str, float, float, Curvature]] = []
        for accuracy, options in RTOL.items():
            if accuracy == LOOSE or step < sizes.tight:
                warm = measure(partial(full, previous[accuracy], **options))
                previous[accuracy] = warm[2]
                done.append((case("warm", accuracy), *warm))
                if step in cold:
                    done.append((case("cold", accuracy), *measure(partial(full, **options))))
        reference = norm = None
        estimates: list[float] = []
        if step in checked or step < sizes.tight:
            workload.say("converged reference")
            reference = _reference(model, pairs, previous[LOOSE].top.vector, seed=step)
            residuals.append(reference.residual)
        if step in checked:
            gram = mean_jacobian_gram(model, [x for x, _ in pairs])
            norm = float(torch.linalg.eigvalsh(gram)[-1].sqrt())
            estimates = peers.algorithm_2_estimates(gram)
        for name, seconds, unit, result in done:
            error = None if reference is None else abs(result.top.value / reference.value - 1)
            records.append(Record(name, OURS, step, seconds, unit, error))
            error = None if norm is None else abs(result.jacobian_norm / norm - 1)
            records.append(Record(f"‖⟨J⟩‖, {name}", OURS, step, seconds, unit, error))
        if step in with_peers:
            assert reference is not None and norm is not None
            workload.say("peers")
            accuracies = [LOOSE, TIGHT] if step in tight_peers else [LOOSE]
            here = Situation(twin(model), pairs, step, reference.value, accuracies, measure)
            if peers.installed("pyhessian"):
                records += _pyhessian(here)
            if peers.installed("curvlinops"):
                records += _scipy(here, "cold", None)
                records += _scipy(here, "warm", start.cpu().numpy())
            seconds, unit, _ = measure(partial(peers.algorithm_2_iteration, model, pairs))
            total, error = len(estimates) * seconds, abs(estimates[-1] / norm - 1)
            records.append(Record("‖⟨J⟩‖", ALGORITHM_2, step, total, unit, error))
    return Tracks(records, max(residuals), len(residuals))


def _reference(model: nn.Module, pairs: Pairs, near: Tensor, seed: int) -> Eigenpair:
    """Lanczos from ``near`` and a random vector, which has something of every eigenvector."""
    random = torch.randn(len(near), generator=torch.Generator().manual_seed(seed)).to(near)
    op = hessian(model, cross_entropy, pairs, cache=True)
    return top_eigenpair(op, torch.stack([near, random], dim=1), rtol=REFERENCE_RTOL)


def _pyhessian(here: Situation) -> list[Record]:
    """One run: where it stops by itself, and where it first is as accurate as asked for."""

    def enough(trace: peers.Trace) -> bool:
        settled = trace.settled(peers.PYHESSIAN_TOLERANCE) is not None
        return settled and trace.within(here.sharpness, here.accuracy) is not None

    run = partial(peers.pyhessian, here.model, cross_entropy, here.pairs, enough)
    _, unit, trace = here.measure(run)
    stop = trace.settled(peers.PYHESSIAN_TOLERANCE)
    last = len(trace.values) - 1 if stop is None else stop - 1
    returned = trace.values[last if stop is None else last - 1]  # that before it has settled
    default = here.record(
        case("cold", LOOSE), PYHESSIAN_DEFAULT, trace.seconds[last], unit, returned
    )
    return [default, *here.records(PYHESSIAN, "cold", trace, unit)]


def _scipy(here: Situation, start: str, v0: np.ndarray | None) -> list[Record]:
    """eigsh and LOBPCG on curvlinops' operator; LOBPCG in one run, as :func:`_pyhessian`."""
    op = peers.curvlinops_hessian(here.model, here.pairs)
    records: list[Record] = []
    for accuracy in here.accuracies:
        name = case(start, accuracy)
        if records and (records[-1].error or 0.0) <= accuracy:  # the looser run was as good
            records.append(replace(records[-1], case=name))
            continue
        solve = partial(peers.eigsh, op, EIGSH_TOLERANCE[accuracy], v0)
        seconds, unit, value = here.measure(solve)
        records.append(here.record(name, EIGSH, seconds, unit, value))
    iterations = LOBPCG_ITERATIONS[start, here.accuracy]
    run = partial(peers.lobpcg, op, here.pairs[0][0].device, iterations, v0)
    _, unit, trace = here.measure(run)
    return [*records, *here.records(LOBPCG, start, trace, unit)]


def sharpness(workload: Workload) -> Entry:
    """The sharpness alone is what the peers give; ours are full measurements."""
    found = tracks(workload)
    rows = []
    for accuracy in (LOOSE, TIGHT):
        for start in ("cold", "warm"):
            name = case(start, accuracy)
            rows.append(found.row(name, OURS, "a full measurement"))
            if start == "warm":
                rows.append(row(name, PYHESSIAN, note=NO_WARM_START))
            else:
                if accuracy == LOOSE:
                    note = "as it stops by itself"
                    rows.append(_or_missing(found, name, PYHESSIAN_DEFAULT, note))
                rows.append(_or_missing(found, name, PYHESSIAN, ORACLE))
            note = f"tol = {EIGSH_TOLERANCE[accuracy]:g}"
            rows.append(_or_missing(found, name, EIGSH, note))
            rows.append(_or_missing(found, name, LOBPCG, ORACLE))
    return entry(
        "sharpness",
        "Sharpness at the edge of stability",
        f"{setting(workload)} Every contender at the same θ; the peers on "
        f"{workload.sizes.peers} of the steps, {workload.sizes.tight_peers} of them for the higher "
        f"accuracy; ours cold on {workload.sizes.cold}, and to the higher accuracy on the first "
        f"{workload.sizes.tight}. Reference: Lanczos to a residual of at most "
        f"{found.residual:.0e}, on {found.references} steps.",
        rows,
        error_of="relative error of ‖H‖",
    )


def measurement(workload: Workload) -> Entry:
    """Sharpness, ‖⟨J⟩‖ and impurity."""
    found = tracks(workload)
    rows, papers = [], _papers_tools(found)
    for start in ("warm", "cold"):
        rows.append(found.row(case(start, LOOSE), OURS, "error of ‖H‖", start))
        steps = f"PyHessian by its own stopping rule, {ALGORITHM_2}; no warm start, no impurity"
        if peers.installed("pyhessian"):
            seconds, units = [r.seconds for r in papers], [r.unit for r in papers]
            errors = [r.error for r in papers if r.error is not None]
            rows.append(row(start, PAPERS_TOOLS, seconds, units, errors=errors, note=steps))
        else:
            rows.append(row(start, PAPERS_TOOLS, note=f"PyHessian {NOT_INSTALLED}"))
    for start in ("warm", "cold"):
        name = f"‖⟨J⟩‖, {case(start, LOOSE)}"
        note = "the same measurements; error of ‖⟨J⟩‖"
        rows.append(found.row(name, OURS, note, f"‖⟨J⟩‖, {start}"))
    note = "one iteration is timed and scaled up; error of ‖⟨J⟩‖"
    rows.append(found.row("‖⟨J⟩‖", ALGORITHM_2, note))
    return entry(
        "measurement",
        "A full measurement at the edge of stability: sharpness, ‖⟨J⟩‖, impurity",
        f"{setting(workload)} Ours warm on every step, cold on {workload.sizes.cold}; the paper's "
        f"tools on {workload.sizes.peers}.",
        rows,
        error_of="relative error",
    )


def _papers_tools(found: Tracks) -> list[Record]:
    """PyHessian and Algorithm 2 on the same step as one record, with PyHessian's error."""
    parts = {
        name: {r.step: r for r in found.records if r.contender == name}
        for name in (PYHESSIAN_DEFAULT, ALGORITHM_2)
    }
    out = []
    for step, first in parts[PYHESSIAN_DEFAULT].items():
        second = parts[ALGORITHM_2][step]
        unit = (first.unit + second.unit) / 2
        total = first.seconds + second.seconds
        out.append(Record("", PAPERS_TOOLS, step, total, unit, first.error))
    return out


def _or_missing(found: Tracks, name: str, contender: str, note: str) -> Row:
    package = "pyhessian" if contender.startswith("PyHessian") else "curvlinops"
    if not peers.installed(package):
        return row(name, contender, note=NOT_INSTALLED)
    return found.row(name, contender, note)


def setting(workload: Workload) -> str:
    """What is tracked, in words."""
    sizes, window = workload.sizes, workload.window
    examples = sum(len(y) for _, y in workload.tracked)
    edge = (
        f"once ‖H‖ > 2/η = {2 / sizes.lr:g}"
        if window.reached
        else f"although ‖H‖ had only reached {window.sharpness:.1f} of 2/η = {2 / sizes.lr:g}"
    )
    return (
        f"6CNN on {examples:,} images ({workload.data_name}), gradient descent with the full "
        f"batch, η = {sizes.lr:g}, {len(window.thetas) - 1} consecutive steps from step "
        f"{window.first}, {sizes.settle} steps after the search for the edge of stability ended, "
        f"{edge}."
    )
