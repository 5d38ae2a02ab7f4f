"""One thread: on shared machines several are slower, and sums come out the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
