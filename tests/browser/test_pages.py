"""Every page, in a browser: no error, formulas typeset, nothing wider than a phone."""

from __future__ import annotations

import re

import pytest
from conftest import BOOK

NAMES = sorted(str(p.relative_to(BOOK).with_suffix("")) for p in BOOK.glob("chapters/**/*.html"))
assert NAMES, f"no page below {BOOK}: make book"
PHONE = {"width": 390, "height": 844}

# text that the reader sees, outside of code and of typeset formulas
TEXT = """
(() => {
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (!parent.closest("code, pre, dt.sig, script, style, noscript, textarea, mjx-container")) {
      texts.push(walker.currentNode.textContent);
    }
  }
  return texts.join("\\n");
})()
"""


# formulas that are cut off: wider than what is around them, and nothing there that scrolls
CUT_OFF = """
[...document.querySelectorAll("article mjx-container")].filter(formula => {
  for (let e = formula.parentElement; e.tagName !== "ARTICLE"; e = e.parentElement) {
    const overflow = getComputedStyle(e).overflowX;
    if (["auto", "scroll"].includes(overflow)) return false;
    if (overflow === "hidden" && e.scrollWidth > e.clientWidth + 1) return true;
  }
  return formula.getBoundingClientRect().right > innerWidth + 1;
}).map(formula => formula.parentElement.outerHTML.slice(0, 300))
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_page_loads_offline_without_an_error_and_with_its_formulas(name, open_page):
    page = open_page(name)
    assert page.errors == []
    assert re.findall(r"\\[A-Za-z(\[]\w*|\$[^$\n]+\$", page.evaluate(TEXT)) == []
    assert page.locator("mjx-merror").count() == 0
    images = page.evaluate("[...document.images].map(i => [i.src, i.naturalWidth, i.alt])")
    for source, width, alt in images:
        assert width > 0 and alt, source


@pytest.mark.parametrize("name", NAMES)
def test_the_page_fits_a_phone(name, open_page):
    page = open_page(name, **PHONE)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"]
    assert page.evaluate(CUT_OFF) == []


def test_a_reference_to_a_theorem_leads_to_its_statement(open_page):
    page = open_page("chapters/theory/fig01_secular_function")
    link = page.locator("main a.reference.internal", has_text="Theorem").first
    assert re.fullmatch(r"Theorem \d+", link.inner_text())
    link.click()
    anchor = page.url.partition("#")[2]
    assert "Eigensystem of the logit Hessian" in page.locator(f"[id='{anchor}']").inner_text()
