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


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """A function that runs a chapter at smoke scale and returns the executed notebook."""
    import chapter_checks

    folder = tmp_path_factory.mktemp("chapters")
    environment = pytest.MonkeyPatch()
    environment.setenv("OMP_NUM_THREADS", "1")
    environment.setenv("IJR_DATA", str(folder / "no data sets here"))
    yield lambda path, **parameters: chapter_checks.execute(path, folder, **parameters)
    environment.undo()
