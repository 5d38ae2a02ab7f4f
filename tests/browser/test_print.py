"""``make pdf`` on a single page of the book."""

import re
import subprocess
import sys

from conftest import BOOK, ROOT

SCRIPT = ROOT / "_ext" / "print_book.py"


def test_a_page_is_printed_with_its_headings_as_bookmarks(tmp_path):
    page = BOOK / "chapters" / "theory" / "thm1_eigensystem.html"
    pdf = tmp_path / "out" / "page.pdf"
    done = subprocess.run([sys.executable, SCRIPT, page, pdf], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", content)) > 1
    assert b"/Outlines" in content
