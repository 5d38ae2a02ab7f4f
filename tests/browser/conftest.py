"""Headless Chromium on the built book: ``make browse``.  Offline, from the file system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "_build" / "html"
sys.path.append(str(ROOT / "_ext"))
from print_book import chromium  # noqa: E402

QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def context(browser):
    context = browser.new_context(offline=True, accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def open_page(context):
    """A function that opens a page of the book, such as ``chapters/intro``, waits for its formulas,
    and has the errors of the console in ``page.errors``."""

    def opened(name: str, **viewport: int):
        page = context.new_page()
        page.errors = []
        page.on(
            "console",
            lambda message: page.errors.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("requestfailed", lambda request: page.errors.append(request.url))
        if viewport:
            page.set_viewport_size(viewport)
        path = BOOK / f"{name}.html"
        assert path.is_file(), f"{path} is not there: make book"
        page.goto(path.as_uri())
        page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => null) : null")
        return page

    return opened
