"""Every chapter executes through papermill at smoke scale, as its reader would re-run it.

One folder of runs serves a module, so that each smoke run is trained once; no data set is needed.
Two parts of the book, whose chapters share runs with no other, have modules of their own, which
other processes can take.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import nbformat
import pytest
from chapter_checks import CHAPTERS, assert_it_executes, defaults, outputs
from papermill.exceptions import PapermillExecutionError

ELSEWHERE = {"companions": "test_chapters_companions", "explicit": "test_chapters_explicit"}
HERE = [path for path in CHAPTERS if path.parent.name not in ELSEWHERE]
TAKE_SCALE = [path for path in CHAPTERS if "scale" in defaults(path)]


def chapter(figure: str) -> Path:
    (path,) = (path for path in CHAPTERS if path.stem.startswith(f"{figure}_"))
    return path


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_the_chapter_executes_at_smoke_scale(path, execute):
    assert_it_executes(path, execute)


@pytest.mark.parametrize("part", ELSEWHERE)
def test_the_other_parts_have_their_modules(part):
    module = importlib.import_module(ELSEWHERE[part])
    assert [path for path in CHAPTERS if path.parent.name == part] == module.PART


@pytest.mark.parametrize("path", TAKE_SCALE, ids=lambda path: path.stem)
def test_the_chapter_refuses_a_parameter_that_it_does_not_have(path):
    """The cells up to the one that reads the parameters, without the cost of a kernel."""
    namespace = {**defaults(path), "learning_rate": 0.02, "scale": "smoke"}
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    with pytest.raises(ValueError, match="unknown parameter learning_rate; this chapter has"):
        for cell in cells:
            if "parameters" not in cell.metadata.get("tags", []):
                exec(cell.source, namespace)


def test_papermill_fails_for_a_parameter_that_the_chapter_does_not_have(execute):
    with pytest.raises(PapermillExecutionError, match="unknown parameter learning_rate"):
        execute(chapter("fig03"), learning_rate=0.02)


def test_a_chapter_repeats_with_an_override_and_prints_the_command_that_does_so(execute):
    notebook = execute(chapter("fig03"), overrides={"lr": 0.02})
    page = "".join(outputs(notebook, "text/html"))
    assert "η = 0.02" in page
    assert "papermill chapters/implicit/" in page and "&quot;lr&quot;: 0.02" in page
