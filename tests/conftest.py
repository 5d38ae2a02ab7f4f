"""One thread: on shared machines several are slower, and sums come out the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """What a test does to the number of threads, the next one must not inherit."""
    yield
    assert torch.get_num_threads() == 1
