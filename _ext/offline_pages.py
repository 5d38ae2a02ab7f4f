"""Sphinx extension: take from every page what the theme loads and this book does not use.

- Icons: the theme brings them as a font and, 1.6 MB more, as a script that draws the same ones; its
  preloading of the font is refused, with an error, for a page that is opened as a file.
- Thebe, which would run cells on a server: nothing starts it here, it names a script on another
  host, and its settings are on each page twice, which is an error too.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

UNUSED = re.compile(
    r"""\s*(?:
        <link[^>]*rel="preload"[^>]*as="font"[^>]*>
      | <script[^>]*src="[^"]*fontawesome[^"]*"[^>]*></script>
      | <script[^>]*src="[^"]*sphinx-thebe[^"]*"[^>]*></script>
      | <link[^>]*sphinx-thebe[^>]*>
      | <script>const\ THEBE_JS_URL[^<]*</script>
      | <script\ type="text/x-thebe-config">[^<]*</script>
    )""",
    re.VERBOSE,
)


def without_unused(page: str) -> str:
    """The page's HTML without these elements."""
    return UNUSED.sub("", page)


def clean(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the pages, where HTML was built."""
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        cleaned = without_unused(page)
        if cleaned != page:
            path.write_text(cleaned, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", clean)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
