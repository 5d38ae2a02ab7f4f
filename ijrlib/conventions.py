"""What stored numbers stand for: classes, pairs of classes, edges of bins, sizes of batches."""

from __future__ import annotations

import numpy as np

COVARIANCE_BATCHES, COVARIANCE_BATCH = 25, 128
"""L and M: the mini-batches whose gradients estimate K (Jastrzebski et al. 2020, App. B)."""

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the classes 0 to 9 of CIFAR-10."""

PAIRS = ((5, 1), (0, 8), (1, 9), (5, 3), (4, 2))
"""Pairs of classes whose examples are projected to a plane (``plane_coordinates``): dog and
automobile (Figure 9), airplane and ship, automobile and truck, dog and cat, deer and bird (Figure
30)."""

STRETCH_BINS = np.linspace(0, 5, 101)
"""Bins of ‖Jq^(i)‖²·C/‖J‖_F² (Figure 11, left); larger values count in the last one."""

COS_SQ_BINS = np.linspace(0, 1, 101)
"""Bins of cos²(Jq^(i), Jq^(j)) (Figure 11, right)."""

SHARES = (0.05, 0.25, 1.0)
"""Shares of the training set whose curvature is compared: the least and the most that the paper
measures its sharpness on, and all of it."""

PREDICTED = 100
"""Test examples whose predictions are kept."""

SHARPEST = 10
"""The number of sharpest directions that a measurement looks at (Jastrzebski et al. 2019)."""

SEARCH_EVERY = 10
"""Steps between two searches for the directions that an update rule follows
(:mod:`ijrlib.sharpest_directions`)."""

STEP_BATCHES = 16
"""Mini-batches at most over which the steps along the sharpest directions are averaged."""

STEP_FACTORS = (0.5, 1.0, 2.0)
"""α: by which a step along the sharpest direction is shortened or lengthened (Figure 6 there)."""

SURFACE_DIRECTIONS = (1, 3, 4)
SURFACE_POINTS = np.linspace(-2, 2, 9)
"""Eigenvectors along which the loss is kept, and where, in mean lengths of a step along each
(Figures 6, 15 and 16 there)."""


def share_size(share: float, examples: int) -> int:
    """So many of the examples are a share of them: two at least, where there are two, for a single
    one has no statistics to be normalized by."""
    return max(min(2, examples), round(share * examples))


def step_batches(examples: int, batch_size: int | None) -> tuple[int, int]:
    """(L, S): so many mini-batches of so many examples; the full batch is one."""
    size = batch_size or examples
    return min(STEP_BATCHES, examples // size), size


def covariance_batches(examples: int) -> tuple[int, int]:
    """(L, M) where there are so many examples: M is smaller where L·M would be more."""
    size = max(1, min(COVARIANCE_BATCH, examples // COVARIANCE_BATCHES))
    return min(COVARIANCE_BATCHES, examples // size), size


NETWORK_NAMES = {
    "6cnn": "6CNN",
    "vgg": "VGG",
    "vgg_cifar100": "VGG",
    "resnet20": "ResNet-20",
    "3fcn_cifar": "3FCN",
    "3fcn_mnist": "3FCN",
    "simple_cnn": "SimpleCNN",
    "wrn10_2": "WRN-10-2",
    "wrn10_2_cifar100": "WRN-10-2",
    "wrn28_10": "WRN-28-10",
    "wrn28_10_cifar100": "WRN-28-10",
}
DATASET_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST"}


def described(network: str, dataset: str) -> str:
    """A network and its data as the papers write them; a network for CIFAR-100 sees pairs of digits
    where the data are MNIST's."""
    pairs = dataset == "mnist" and network.endswith("100")
    data = "pairs of MNIST digits" if pairs else DATASET_NAMES.get(dataset, dataset)
    return f"{NETWORK_NAMES.get(network, network)}, {data}"
