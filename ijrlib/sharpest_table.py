"""The runs of the companion paper on the sharpest directions (Jastrzebski et al. 2019).

As in :mod:`ijrlib.figure_table`.  At laptop scale a perceptron on Fashion-MNIST takes the place of
SimpleCNN and ResNet-32 on CIFAR-10; every run goes on for the same time ηt.
"""

from __future__ import annotations

from collections.abc import Mapping

from ijrlib.config import RunConfig
from ijrlib.figure_table import GD_BY_LR, GD_BY_LR_PAPER, Figure, every, seeds

TIME = 100  # ηt at the end of the laptop's runs
MEASURED = ("accuracy", "hessian_trace", "sharpest")
EARLY_TIME = 10  # until when they are measured ten times as often


def _run(lr: float, batch_size: int = 128) -> RunConfig:
    steps, early = round(TIME / lr), round(EARLY_TIME / lr)
    dense, sparse = early // EARLY_TIME, early // 2
    when = [*every(early, dense), *every(steps, sparse, start=early + sparse)]
    return RunConfig(
        dataset="fashion_mnist",
        examples=5000,
        network="mlp_300_100",
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        inputs="unit",
        probe=500,
        test_examples=2000,
        measures=dict.fromkeys(MEASURED, when) | {"hessian_trace": every(steps, sparse)},  # type: ignore[arg-type]
    )


EPOCHS = 100


def _run_paper(lr: float, batch_size: int = 128) -> RunConfig:
    """SimpleCNN for ``EPOCHS`` epochs; how many they were is not in the captions."""
    steps = EPOCHS * (50_000 // batch_size)
    return _run(lr, batch_size).replace(
        dataset="cifar10",
        examples=50_000,
        network="simple_cnn_be",
        steps=steps,
        inputs="standardized",
        augment=True,
        probe=2500,
        test_examples=10_000,
        measures=dict.fromkeys(MEASURED, every(steps, steps // 200)),
    )


def _nudged(config: RunConfig, directions: int) -> RunConfig:
    return config.replace(regularizer="nudged", sharpest=directions, gamma=0.01)


def _variants(config: RunConfig) -> tuple[RunConfig, ...]:
    """From the middle of the run on: the projection on e_1 alone, and the rest without it."""
    late = {"sharpest": 1, "regularizer_from": config.steps // 2}
    return (
        config.replace(regularizer="sharpest_only", **late),
        config.replace(regularizer="nudged", **late),
    )


LRS, BATCHES, LR = (0.01, 0.05, 0.2), (32, 128, 512), 0.05
NUDGED = (1, 5, 10)  # K; the paper's are in its figure alone
SEEDS = 2

BY_LR = tuple(map(_run, LRS))
BY_BATCH = tuple(_run(LR, size) for size in BATCHES)
BASE = _run(LR)
VARIANTS = _variants(BASE)
NUDGED_BY_K = tuple(_nudged(BASE, k) for k in NUDGED)
MOMENTUM = BY_LR[0].replace(momentum=0.9)

PAPER_LRS = (0.01, 0.05, 0.1)
BY_LR_PAPER = tuple(map(_run_paper, PAPER_LRS))
BY_BATCH_PAPER = tuple(_run_paper(LR, size) for size in BATCHES)
FIRST_PAPER = (_run_paper(0.1), _run_paper(0.005))
VARIANTS_PAPER = (FIRST_PAPER[1], *_variants(FIRST_PAPER[1]))
NUDGED_PAPER = (BY_LR_PAPER[0], *(_nudged(BY_LR_PAPER[0], k) for k in NUDGED))
MOMENTUM_PAPER = (BY_LR_PAPER[0], BY_LR_PAPER[0].replace(momentum=0.9))
VGG_PAPER = tuple(c.replace(network="vgg") for c in BY_LR_PAPER + BY_BATCH_PAPER[::2])

STAND_IN = (
    "a perceptron 784-300-100-10 on 5,000 images of Fashion-MNIST takes the place of SimpleCNN and "
    "ResNet-32 on CIFAR-10"
)
SETTING = "CIFAR-10, SimpleCNN and ResNet-32"

FIGURES: Mapping[str, Figure] = {
    "sd01": Figure(
        "The largest eigenvalues along training",
        f"{SETTING}, η = 0.1 and 0.005, S = 128",
        seeds((BY_LR[0], BY_LR[2]), SEEDS),
        FIRST_PAPER,
        STAND_IN,
    ),
    "sd03": Figure(
        "Full batches: growth, then instability",
        "CIFAR-10, ResNet-32, gradient descent on 2,500 images, η = 0.01 and 0.05",
        GD_BY_LR,
        GD_BY_LR_PAPER,
        "6CNN on 2,000 images takes the place of ResNet-32 on 2,500",
    ),
    "sd04": Figure(
        "Learning rate, batch size and the two largest eigenvalues",
        "CIFAR-10, SimpleCNN and ResNet-32; Penn Treebank, LSTM; several η and S",
        seeds(BY_LR + BY_BATCH[::2], SEEDS),
        BY_LR_PAPER + BY_BATCH_PAPER[::2],
        STAND_IN,
    ),
    "sd05": Figure(
        "Alignment of mini-batch gradients with the sharpest directions",
        f"{SETTING}, several η",
        seeds(BY_LR, SEEDS),
        BY_LR_PAPER,
        STAND_IN,
    ),
    "sd06": Figure(
        "The step along the sharpest direction is too long",
        f"{SETTING}, η = 0.01 and 0.05, S = 128",
        seeds(BY_LR[:2], SEEDS),
        BY_LR_PAPER[:2],
        STAND_IN,
    ),
    "sd07": Figure(
        "Following the sharpest direction alone, and everything but it",
        "CIFAR-10, SimpleCNN, from the last iteration of the run with η = 0.005 on",
        seeds((BASE, *VARIANTS), SEEDS),
        VARIANTS_PAPER,
        STAND_IN,
    ),
    "sd08": Figure(
        "Nudged-SGD",
        "CIFAR-10, ResNet-32, η = 0.01, γ = 0.01, several K",
        seeds((BASE, *NUDGED_BY_K), SEEDS),
        NUDGED_PAPER,
        STAND_IN,
    ),
    "sd13": Figure(
        "Momentum and the largest eigenvalue",
        "CIFAR-10, network and η not stated in the caption",
        seeds((BY_LR[0], MOMENTUM), SEEDS),
        MOMENTUM_PAPER,
        STAND_IN,
    ),
    "unrun": Figure(
        "What is out of a laptop's reach, or of this library's",
        "break-even point: Figures 1, 7 to 18; sharpest directions: Figures 9 to 12, 18, 21",
        (),
        VGG_PAPER,
    ),
}
