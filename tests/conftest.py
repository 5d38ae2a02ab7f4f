"""One thread: on shared machines several are slower, and sums come out the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """UMAP sets the number of threads for the whole process; the next test must not inherit it."""
    yield
    torch.set_num_threads(1)
