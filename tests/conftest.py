"""One thread: on shared machines several are slower, and sums come out the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


OWN_RUNS = ("companions", "explicit")
"""Parts of the book whose chapters share runs with each other and with no other part."""


def pytest_collection_modifyitems(items):
    """What pytest-xdist leaves to one process: a file's tests, for they share what they have made;
    those of the chapters, which take longest, by part of the book."""
    for item in items:
        group = item.path.stem
        path = item.callspec.params.get("path") if hasattr(item, "callspec") else None
        if group == "test_chapters" and path and path.parent.name in OWN_RUNS:
            group += f" {path.parent.name}"
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def one_thread():
    """What a test does to the number of threads, the next one must not inherit."""
    yield
    assert torch.get_num_threads() == 1
