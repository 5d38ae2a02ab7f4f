"""The chapters on the companion papers execute at smoke scale, as in :mod:`test_chapters`."""

from __future__ import annotations

import pytest
from chapter_checks import CHAPTERS, assert_it_executes

PART = [path for path in CHAPTERS if path.parent.name == "companions"]


@pytest.mark.parametrize("path", PART, ids=lambda path: path.stem)
def test_the_chapter_executes_at_smoke_scale(path, execute):
    assert_it_executes(path, execute)
