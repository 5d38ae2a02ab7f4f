"""``make pdf``: print the book, built as one page, with headless Chromium.

python _ext/print_book.py _build/singlehtml/book.html _build/pdf/book.pdf
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

MINUTES = 10
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span>'
    "</div>"
)


def chromium() -> str | None:
    """The system's Chromium or Chrome; None for Playwright's own where there is neither."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def print_page(page: Path, pdf: Path) -> None:
    """Wait for the formulas of a page, unfold what is folded, and print it on A4, with bookmarks
    and page numbers."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        tab = browser.new_context(offline=True, color_scheme="light").new_page()
        tab.set_default_timeout(MINUTES * 60_000)
        tab.goto(page.resolve().as_uri())
        tab.evaluate("MathJax.startup.promise.then(() => null)")
        tab.evaluate("document.querySelectorAll('details').forEach(part => (part.open = true))")
        pdf.parent.mkdir(parents=True, exist_ok=True)
        tab.pdf(
            path=pdf,
            format="A4",
            scale=0.8,
            margin={"top": "16mm", "bottom": "18mm", "left": "14mm", "right": "14mm"},
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()


if __name__ == "__main__":
    print_page(Path(sys.argv[1]), Path(sys.argv[2]))
    print(sys.argv[2])
