"""The import order of the library: one way only, and no torch where the book is built."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ijrlib

PACKAGE = Path(ijrlib.__file__).parent

# room: the rooms it may import; what these may import is allowed as well
EDGES = {
    "logits": {"secular_equation"},
    "secular_equation": set(),
    "config": set(),
    "text": set(),
    "networks": {"text"},
    "datasets": {"store", "text"},
    "convolution": set(),
    "functional": set(),
    "normalization": {"functional"},
    "parallel": set(),
    "linear_algebra": set(),
    "operators": {
        "logits",
        "convolution",
        "functional",
        "linear_algebra",
        "normalization",
        "parallel",
    },
    "spectra": {"operators"},
    "two_level": {"spectra"},
    "curvature": {"logits", "operators", "spectra", "two_level"},
    "layers": {"functional", "operators"},
    "per_example": {"functional", "layers", "operators", "parallel"},
    "power_iteration": {"logits"},
    "sharpness_bound": {"curvature", "operators", "per_example", "spectra"},
    "geometry": {"operators"},
    "trajectory": {"linear_algebra"},
    "embedding": set(),
    "certificates": set(),
    "theorems": {"logits", "certificates"},
    "regularizers": {"operators", "parallel"},
    "sharpest_directions": {"conventions", "operators", "spectra"},
    "training": {"config", "regularizers", "sharpest_directions"},
    "measures": {
        "conventions",
        "parallel",
        "sharpness_bound",
        "curvature",
        "geometry",
        "per_example",
        "trajectory",
    },
    "store": {"config"},
    "checkpoint": {"store"},
    "comparison": {"store"},
    "figure_table": {"config"},
    "companion_table": {"config", "figure_table"},
    "sharpest_table": {"config", "figure_table"},
    "ejr_table": {"config", "figure_table"},
    "experiments": {
        "companion_table",
        "sharpest_table",
        "config",
        "ejr_table",
        "figure_table",
        "machine",
        "store",
    },
    "machine": {"store"},
    "costs": {"config", "conventions"},
    "jobs": {"costs", "experiments"},
    "runner": {
        "checkpoint",
        "config",
        "datasets",
        "machine",
        "networks",
        "measures",
        "parallel",
        "training",
        "store",
        "embedding",
    },
    "criteria": {"store"},
    "conventions": set(),
    "phases": {"criteria"},
    "evolution_criteria": {"conventions", "embedding", "phases"},
    "subspace_criteria": {"conventions", "phases"},
    "break_even": set(),
    "live_checks": {"break_even", "criteria", "power_iteration", "theorems"},
    "companion_criteria": {"break_even", "criteria", "evolution_criteria"},
    "share_criteria": {"conventions", "criteria"},
    "sharpest_criteria": {"conventions", "criteria", "evolution_criteria", "phases"},
    "ejr_criteria": {"config", "conventions", "costs", "criteria", "ejr_table"},
    "claim_table": {
        "companion_criteria",
        "ejr_criteria",
        "ejr_table",
        "evolution_criteria",
        "live_checks",
        "share_criteria",
        "sharpest_criteria",
        "subspace_criteria",
    },
    "readings": {
        "claim_table",
        "companion_criteria",
        "criteria",
        "embedding",
        "evolution_criteria",
        "phases",
        "sharpest_criteria",
        "subspace_criteria",
    },
    "claims": {"claim_table", "experiments", "readings"},
    "monitor": {"curvature", "logits", "operators"},
    "lightning": {"datasets", "monitor", "operators"},
    "examples": {"machine", "store"},
    "benchmarks": {"store"},
    "timing": {"operators"},
    "peers": {"spectra", "timing"},
    "workloads": {"curvature", "datasets", "networks", "timing", "training"},
    "tracking_benchmarks": {"benchmarks", "peers", "workloads"},
    "static_benchmarks": {
        "benchmarks",
        "logits",
        "machine",
        "peers",
        "per_example",
        "sharpness_bound",
        "workloads",
    },
    "regularizer_benchmark": {
        "benchmarks",
        "networks",
        "operators",
        "regularizers",
        "timing",
        "workloads",
    },
    "training_benchmark": {"benchmarks", "runner", "workloads"},
    "benchmark_suite": {
        "benchmarks",
        "regularizer_benchmark",
        "runner",
        "static_benchmarks",
        "tracking_benchmarks",
        "training_benchmark",
    },
    "figures": {"benchmarks", "logits"},
    "evolution_figures": {"evolution_criteria", "figures", "share_criteria"},
    "subspace_figures": {"figures", "subspace_criteria"},
    "companion_figures": {"companion_criteria", "evolution_figures", "figures"},
    "sharpest_figures": {"conventions", "evolution_figures", "figures", "sharpest_criteria"},
    "ejr_figures": {"config", "ejr_criteria", "figures"},
    "report": {"benchmarks", "claims", "conventions", "experiments"},
    "interactive": {"embedding", "figures", "phases", "report"},
    "cli": None,  # everything
}
# imported inside the function that needs it, so that the module itself stays free of torch
LATE = {
    "experiments": {"runner"},
    "monitor": {"figures"},
    "theorems": {"sharpness_bound", "spectra", "operators", "datasets", "networks", "training"},
}
TORCH_FREE = [
    "logits",
    "config",
    "store",
    "machine",
    "benchmarks",
    "examples",
    "figure_table",
    "ejr_table",
    "companion_table",
    "sharpest_table",
    "experiments",
    "claims",
    "embedding",
    "figures",
    "evolution_figures",
    "subspace_figures",
    "ejr_figures",
    "companion_figures",
    "break_even",
    "report",
    "interactive",
    "theorems",
    "cli",
]


def rooms() -> list[str]:
    return sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")


def imports(room: str) -> set[tuple[str, bool]]:
    """Rooms that a room imports, each with whether the import is inside a function."""
    tree = ast.parse((PACKAGE / f"{room}.py").read_text())
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = ("ijrlib." if node.level else "") + (node.module or "")
            names = [f"{module.rstrip('.')}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "ijrlib" and rest.split(".")[0] in EDGES:
                found.add((rest.split(".")[0], id(node) in late))
    return found


def reachable(room: str) -> set[str]:
    direct = EDGES[room]
    if direct is None:
        return set(EDGES) - {room}
    return direct.union(*(reachable(other) for other in direct))


def test_every_room_is_in_the_table_and_every_row_of_the_table_is_a_room():
    assert rooms() == sorted(EDGES)


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_the_design_allows(room):
    for other, late in imports(room):
        assert other in reachable(room) or (late and other in LATE.get(room, ())), (
            f"{room} imports {other}: not in the design's import order"
        )


def test_the_allowed_edges_form_no_cycle():
    for room, direct in EDGES.items():
        assert direct is None or room not in reachable(room)


def test_the_page_on_the_library_has_what_a_room_imports_above_it():
    page = (PACKAGE.parent / "chapters" / "api.md").read_text()
    place = {room: position for position, room in enumerate(re.findall("^### (.*)", page, re.M))}
    assert sorted(place) == rooms()
    for room, direct in EDGES.items():
        assert direct is None or all(place[other] < place[room] for other in direct), room


def test_an_unlisted_edge_would_be_noticed():
    assert "runner" not in reachable("training") and "theorems" not in reachable("logits")
    assert ("config", False) in imports("store") and ("runner", True) in imports("experiments")


def run_without_torch(code: str) -> subprocess.CompletedProcess:
    """Run code in an interpreter where importing torch or anything of it fails."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'jaxtyping', 'sklearn']))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, cwd=PACKAGE.parent
    )


def test_the_block_on_torch_blocks():
    assert run_without_torch("import ijrlib.operators").returncode != 0


def test_rooms_that_the_book_needs_import_without_torch():
    names = ", ".join(f"ijrlib.{room}" for room in TORCH_FREE)
    done = run_without_torch(f"import {names}")
    assert done.returncode == 0, done.stderr


def test_importing_the_package_alone_imports_nothing_heavy():
    heavy = ["torch", "numpy", "matplotlib", "pandas", "scipy"]
    code = f"import sys, ijrlib; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout.strip() == "[]"
