"""One thread: on shared machines several are slower, and sums come out the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402  (after the variable that it reads)

torch.set_num_threads(1)
