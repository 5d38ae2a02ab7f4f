"""The runs of the companion paper on the sharpest directions (Jastrzebski et al. 2019).

As in :mod:`ijrlib.figure_table`.  At laptop scale a perceptron on Fashion-MNIST takes the place of
SimpleCNN and ResNet-32 on CIFAR-10, but for the reviews; runs that are compared go on for the same
time ηt, or the same steps in a schedule.
"""

from __future__ import annotations

from collections.abc import Mapping

from ijrlib.config import RunConfig
from ijrlib.figure_table import GD_BY_LR, GD_BY_LR_AGAIN, Figure, every, seeds

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


# -- full batches ----------------------------------------------------------------------------------


def _full_batch(lr: float, network: str) -> RunConfig:
    steps = round(TIME / lr)
    return RunConfig(
        dataset="fashion_mnist",
        examples=2500,
        network=network,
        lr=lr,
        steps=steps,
        inputs="unit",
        chunk=2500,  # normalized as one batch
        probe=500,
        test_examples=2000,
        measures={  # type: ignore[arg-type]
            "accuracy": every(steps, steps // 200),
            "sharpest": every(steps, steps // 20),
        },
    )


def _full_batch_paper(lr: float, network: str) -> RunConfig:
    """With the sharpness as often as the accuracy, which Figure 3 holds beside each other."""
    config = _full_batch(lr, network)
    return config.replace(
        dataset="cifar10",
        inputs="standardized",
        test_examples=10_000,
        measures={**dict(config.measures), "curvature": config.windows("accuracy")},
    )


# -- schedules -------------------------------------------------------------------------------------

SCHEDULE_STEPS = 2500


def _two_stages(first: int) -> RunConfig:
    """η = 0.2 for so many steps, then a tenth of it."""
    steps = SCHEDULE_STEPS
    when = [*every(first, 25), *every(steps, steps // 25, start=first)]
    return _run(0.2).replace(
        steps=steps,
        lr_decay=0.1,
        lr_decay_at=first,
        measures={"accuracy": when, "sharpest": when, "hessian_trace": every(steps, 500)},
    )


def _two_stages_paper(epochs: int) -> RunConfig:
    return _run_paper(0.1).replace(lr_decay=0.1, lr_decay_at=epochs * (50_000 // 128))


# -- words -----------------------------------------------------------------------------------------

REVIEWS_TIME = 400
REVIEWS_LR = 0.5
WORDS_TIME = 800
WORDS_LR = 1.0
PIECES = 266_264
"""Of 20 words and the next one, in the training split."""


def _on_text(
    network: str, examples: int, steps: int, lr: float, batch_size: int, times: int, traces: int
) -> RunConfig:
    """Measured so many times, the trace so many."""
    when = every(steps, steps // times)
    return RunConfig(
        dataset="imdb",
        examples=examples,
        network=network,
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        probe=100,
        test_examples=1000,
        measures={  # type: ignore[arg-type]
            "accuracy": when,
            "sharpest": when,
            "hessian_trace": every(steps, steps // traces),
        },
    )


def _on_all_text(config: RunConfig, examples: int, probe: int, test_examples: int) -> RunConfig:
    steps = EPOCHS * (examples // (config.batch_size or examples))
    return config.replace(
        examples=examples,
        steps=steps,
        probe=probe,
        test_examples=test_examples,
        measures=dict.fromkeys(MEASURED, every(steps, steps // 200)),
    )


def _reviews(lr: float, batch_size: int = 128) -> RunConfig:
    return _on_text("text_cnn", 2000, round(REVIEWS_TIME / lr), lr, batch_size, 16, 4)


def _reviews_paper(lr: float, batch_size: int = 128) -> RunConfig:
    return _on_all_text(_reviews(lr, batch_size), 25_000, 1250, 25_000)


def _words(lr: float, batch_size: int = 128) -> RunConfig:
    """A language model."""
    return _on_text("lstm_words", 5000, round(WORDS_TIME / lr), lr, batch_size, 10, 2)


def _words_paper(lr: float, batch_size: int = 128) -> RunConfig:
    return _on_all_text(_words(lr, batch_size), PIECES, 2500, 10_000)


LRS, BATCHES, LR = (0.01, 0.05, 0.2), (32, 128, 512), 0.05
NUDGED = (1, 5, 10)  # K; the paper's are in its figure alone
SEEDS = 3

BY_LR = tuple(map(_run, LRS))
BY_BATCH = tuple(_run(LR, size) for size in BATCHES)
BASE = _run(LR)
VARIANTS = _variants(BASE)
NUDGED_BY_K = tuple(_nudged(BASE, k) for k in NUDGED)
MOMENTUM = BY_LR[0].replace(momentum=0.9)

FULL_BATCH_LRS = (0.1, 0.5)
NETWORKS = ("mlp_300_100", "mlp_300_100_bn")
FULL_BATCH = tuple(_full_batch(lr, network) for lr in FULL_BATCH_LRS for network in NETWORKS)
RESNETS = ("resnet32", "resnet32_bn")
FULL_BATCH_PAPER = tuple(
    _full_batch_paper(lr, network) for lr in (0.01, 0.05) for network in RESNETS
)
STAGES = (50, 200, 800)
SCHEDULES = tuple(map(_two_stages, STAGES))
SCHEDULES_PAPER = tuple(map(_two_stages_paper, (10, 30, 60)))
REVIEWS_LRS = (0.2, 0.5, 1.0)
REVIEWS_BY_LR = tuple(map(_reviews, REVIEWS_LRS))
REVIEWS_BY_BATCH = tuple(_reviews(REVIEWS_LR, size) for size in (32, 512))
REVIEWS_PAPER = tuple(map(_reviews_paper, REVIEWS_LRS)) + tuple(
    _reviews_paper(REVIEWS_LR, size) for size in (32, 512)
)
GAMMAS = (0.01, 0.1)


def _by_gamma(config: RunConfig) -> tuple[RunConfig, ...]:
    """SGD, and Nudged-SGD along five directions."""
    rule = {"regularizer": "nudged", "sharpest": 5}
    return (config, *(config.replace(gamma=gamma, **rule) for gamma in GAMMAS))


NUDGED_REVIEWS = _by_gamma(REVIEWS_BY_LR[1])
NUDGED_REVIEWS_PAPER = _by_gamma(REVIEWS_PAPER[1])
NUDGED_FURTHER = _by_gamma(BY_LR[2]) + _by_gamma(BASE.replace(momentum=0.9))

WORDS_LRS = (0.5, 1.0, 2.0)
WORDS = tuple(map(_words, WORDS_LRS)) + tuple(_words(WORDS_LR, size) for size in (32, 512))
WORDS_PAPER = tuple(map(_words_paper, WORDS_LRS)) + tuple(
    _words_paper(WORDS_LR, size) for size in (32, 512)
)

PAPER_LRS = (0.01, 0.05, 0.1)
BY_LR_PAPER = tuple(map(_run_paper, PAPER_LRS))
BY_BATCH_PAPER = tuple(_run_paper(LR, size) for size in BATCHES)
FIRST_PAPER = (_run_paper(0.1), _run_paper(0.005))
VARIANTS_PAPER = (FIRST_PAPER[1], *_variants(FIRST_PAPER[1]))
RESNET_PAPER = tuple(c.replace(network="resnet32") for c in BY_LR_PAPER)
NUDGED_FURTHER_PAPER = _by_gamma(RESNET_PAPER[2]) + _by_gamma(RESNET_PAPER[0].replace(momentum=0.9))
NUDGED_PAPER = (RESNET_PAPER[0], *(_nudged(RESNET_PAPER[0], k) for k in NUDGED))
MOMENTUM_PAPER = (BY_LR_PAPER[0], BY_LR_PAPER[0].replace(momentum=0.9))


def _other_paper(config: RunConfig, network: str) -> RunConfig:
    """Another network; ResNet-32 with what both companion papers measure of it."""
    names = (*MEASURED, "curvature", "covariance") if network == "resnet32" else MEASURED
    return config.replace(
        network=network,
        chunk=config.probe if network.endswith("_bn") else config.chunk,
        measures=dict.fromkeys(names, config.windows("sharpest")),
    )


OTHERS_PAPER = tuple(
    _other_paper(config, network)
    for network in ("vgg", *RESNETS)
    for config in BY_LR_PAPER + BY_BATCH_PAPER[::2]
)

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
        seeds(FIRST_PAPER, SEEDS),
        STAND_IN,
    ),
    "sd03": Figure(
        "Full batches: growth, then instability",
        "CIFAR-10, ResNet-32, gradient descent on 2,500 images, η = 0.01 and 0.05",
        GD_BY_LR + GD_BY_LR_AGAIN,
        seeds(tuple(c for c in FULL_BATCH_PAPER if c.network == "resnet32"), 2),
        "6CNN on 2,000 images takes the place of ResNet-32 on 2,500",
    ),
    "sd04": Figure(
        "Learning rate, batch size and the two largest eigenvalues",
        "CIFAR-10, SimpleCNN and ResNet-32; Penn Treebank, LSTM; several η and S",
        seeds(BY_LR + BY_BATCH[::2], SEEDS),
        seeds(BY_LR_PAPER + BY_BATCH_PAPER[::2], SEEDS),
        STAND_IN,
    ),
    "sd05": Figure(
        "Alignment of mini-batch gradients with the sharpest directions",
        f"{SETTING}, several η",
        seeds(BY_LR, SEEDS),
        seeds(BY_LR_PAPER, SEEDS),
        STAND_IN,
    ),
    "sd06": Figure(
        "The step along the sharpest direction is too long",
        f"{SETTING}, η = 0.01 and 0.05, S = 128",
        seeds(BY_LR[:2], SEEDS),
        seeds(BY_LR_PAPER[:2], SEEDS),
        STAND_IN,
    ),
    "sd19": Figure(
        "Nudged-SGD with a larger learning rate and with momentum",
        "CIFAR-10, ResNet-32, a larger η and momentum, not stated in the caption; several γ",
        seeds(NUDGED_FURTHER, SEEDS),
        seeds(NUDGED_FURTHER_PAPER, 2),
        STAND_IN,
    ),
    "sd20": Figure(
        "The same step under Nudged-SGD",
        f"{SETTING}, η = 0.01, S = 128; Nudged-SGD with K = 5, γ = 0.01",
        seeds((BASE, NUDGED_BY_K[1]), SEEDS),
        seeds((NUDGED_PAPER[0], NUDGED_PAPER[2]), SEEDS),
        STAND_IN,
    ),
    "sd07": Figure(
        "Following the sharpest direction alone, and everything but it",
        "CIFAR-10, SimpleCNN, from the last iteration of the run with η = 0.005 on",
        seeds((BASE, *VARIANTS), SEEDS),
        seeds(VARIANTS_PAPER, SEEDS),
        STAND_IN,
    ),
    "sd08": Figure(
        "Nudged-SGD",
        "CIFAR-10, ResNet-32, η = 0.01, γ = 0.01, several K",
        seeds((BASE, *NUDGED_BY_K), SEEDS),
        seeds(NUDGED_PAPER, SEEDS),
        STAND_IN,
    ),
    "sd09": Figure(
        "Full batches with batch normalization",
        "CIFAR-10, ResNet-32 with and without batch normalization, gradient descent on 2,500 "
        "images, η = 0.01 and 0.05",
        seeds(FULL_BATCH, 3),
        seeds(FULL_BATCH_PAPER, 2),
        "a perceptron 784-300-100-10 on 2,500 images of Fashion-MNIST takes the place of ResNet-32 "
        "on CIFAR-10",
    ),
    "sd12": Figure(
        "A schedule of two stages",
        "CIFAR-10, network and learning rates in the figure alone",
        seeds(SCHEDULES, 3),
        seeds(SCHEDULES_PAPER, 2),
        STAND_IN,
    ),
    "sd13": Figure(
        "Momentum and the largest eigenvalue",
        "CIFAR-10, network and η not stated in the caption",
        seeds((BY_LR[0], MOMENTUM), SEEDS),
        seeds(MOMENTUM_PAPER, SEEDS),
        STAND_IN,
    ),
    "sd21": Figure(
        "Reviews: learning rate, batch size and the two largest eigenvalues",
        "IMDB, convolutional network, several η and S, none of them stated in the caption",
        seeds(REVIEWS_BY_LR + REVIEWS_BY_BATCH, 3),
        seeds(REVIEWS_PAPER, 2),
    ),
    "sd22": Figure(
        "Nudged-SGD on reviews",
        "IMDB, convolutional network, η, K and γ not stated in the caption",
        seeds(NUDGED_REVIEWS, 3),
        seeds(NUDGED_REVIEWS_PAPER, 2),
    ),
    "sd04words": Figure(
        "A language model: learning rate, batch size and the two largest eigenvalues",
        "Penn Treebank, LSTM, several η and S",
        seeds(WORDS, 3),
        seeds(WORDS_PAPER, 3),
        "the reviews of IMDB take the place of Penn Treebank, cut into pieces of 20 words; "
        "vocabulary of 1,000 words",
    ),
    "unrun": Figure(
        "What is out of a laptop's reach, or of this library's",
        "break-even point: Figures 3, 4, 7, 8, 13, 14, 17 and 18; sharpest directions: Figures 4, "
        "10 and 11 (ResNet-32, VGG-11) and 18 (200 epochs)",
        (),
        seeds(OTHERS_PAPER, 2),
    ),
}
