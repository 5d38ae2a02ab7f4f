"""Sphinx extension: read |B| in a docstring as a modulus; reST would look for a substitution."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

LITERAL_OR_BAR = re.compile(r"(``.+?``)|\|")


def escape_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]):
    lines[:] = [LITERAL_OR_BAR.sub(lambda match: match[1] or r"\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
