"""Which runs the companion papers need, at the laptop's scale and at theirs.

As in :mod:`ijrlib.figure_table`.  Every run of a network goes on for the same time ηt.  They are
not equally far then, which the readings at equal training accuracy allow for
(:mod:`ijrlib.readings`).
"""

from __future__ import annotations

from collections.abc import Mapping

from ijrlib.config import RunConfig
from ijrlib.figure_table import Figure, every, in_float32, seeds


def _followed(config: RunConfig, unit: int) -> RunConfig:
    """Measured every ``unit`` steps."""
    steps = config.steps
    measures = {
        "impurity": every(steps, unit),
        "accuracy": every(steps, unit),
        "curvature": every(steps, unit),
        "covariance": every(steps, unit),
        "break_even": every(steps, unit),
        "hessian_trace": every(steps, 4 * unit),
    }
    if config.autocast:
        measures["autocast_check"] = every(steps, 8 * unit)
    return config.replace(measures=measures)


# -- SimpleCNN on CIFAR-10 -------------------------------------------------------------------------

TIME = 80  # ηt at the end of SimpleCNN's runs
MEASURED = 32  # times that they are measured


def _simple_cnn(lr: float, batch_size: int = 128) -> RunConfig:
    unit = round(TIME / lr / MEASURED)
    config = RunConfig(
        dataset="cifar10",
        examples=5000,
        network="simple_cnn_be",
        lr=lr,
        steps=MEASURED * unit,
        batch_size=batch_size,
        autocast=True,
        probe=250,
        test_examples=1000,
    )
    return _followed(config, unit)


def _simple_cnn_paper(lr: float, batch_size: int = 128) -> RunConfig:
    config = _simple_cnn(lr, batch_size).replace(
        examples=50_000,
        steps=200 * (50_000 // batch_size),
        autocast=False,
        augment=True,
        probe=2500,
        test_examples=10_000,
    )
    return _followed(config, config.steps // 400)


# -- the perceptron on Fashion-MNIST ---------------------------------------------------------------

MLP_TIME = 96  # ηt at the end of its runs
MLP_MEASURED = 96


def _mlp(lr: float, batch_size: int = 64) -> RunConfig:
    unit = round(MLP_TIME / lr / MLP_MEASURED)
    config = RunConfig(
        dataset="fashion_mnist",
        examples=10_000,
        network="mlp_300_100",
        lr=lr,
        steps=MLP_MEASURED * unit,
        batch_size=batch_size,
        inputs="unit",
        probe=250,
        test_examples=2000,
    )
    return _followed(config, unit)


def _mlp_paper(lr: float, batch_size: int = 64) -> RunConfig:
    config = _mlp(lr, batch_size).replace(
        examples=60_000,
        steps=200 * (60_000 // batch_size),
        probe=3000,
        test_examples=10_000,
    )
    return _followed(config, config.steps // 400)


def _predicting(config: RunConfig) -> RunConfig:
    """Predictions and covariance, half as often as the other runs are measured."""
    when = every(config.steps, config.steps // (MLP_MEASURED // 2))
    return config.replace(measures=dict.fromkeys(("accuracy", "covariance", "predictions"), when))


# -- the LSTM on reviews ---------------------------------------------------------------------------

LSTM_TIME = 150  # ηt at the end of its runs
LSTM_MEASURED = 18


def _lstm(lr: float, batch_size: int = 128) -> RunConfig:
    unit = round(LSTM_TIME / lr / LSTM_MEASURED)
    config = RunConfig(
        dataset="imdb",
        examples=2000,
        network="lstm",
        lr=lr,
        steps=LSTM_MEASURED * unit,
        batch_size=batch_size,
        probe=100,
        test_examples=500,
    )
    return _followed(config, unit)


def _lstm_paper(lr: float, batch_size: int = 128) -> RunConfig:
    config = _lstm(lr, batch_size).replace(
        examples=25_000,
        steps=100 * (25_000 // batch_size),
        probe=1250,
        test_examples=25_000,
    )
    return _followed(config, config.steps // 400)


# -- batch normalization ---------------------------------------------------------------------------

NORMALIZED_STEPS = 4000
NORMALIZED_LRS = (0.001, 0.01, 0.1, 1.0)


def _seldom(config: RunConfig) -> RunConfig:
    """Measured more and more seldom."""
    when = [*every(39, 8), *every(399, 60, start=40), *every(config.steps, 360, start=400)]
    names = ("accuracy", "covariance", "curvature", "norms")
    return config.replace(measures=dict.fromkeys(names, when))


def _normalized(lr: float, network: str = "mlp_300_100_bn") -> RunConfig:
    """For a number of steps, as the learning rates are a thousand apart."""
    config = RunConfig(
        dataset="fashion_mnist",
        examples=5000,
        network=network,
        lr=lr,
        steps=NORMALIZED_STEPS,
        batch_size=128,
        inputs="unit",
        probe=250,
        test_examples=1000,
    )
    return _seldom(config)


def _normalized_paper(lr: float, network: str = "simple_cnn_bn") -> RunConfig:
    config = _simple_cnn_paper(lr).replace(network=network)
    return _seldom(config.replace(chunk=config.probe))  # normalized as one batch


PLAIN_LRS = (0.01, 1.0)
NORMALIZED = tuple(map(_normalized, NORMALIZED_LRS)) + tuple(
    _normalized(lr, "mlp_300_100") for lr in PLAIN_LRS
)
NORMALIZED_PAPER = tuple(map(_normalized_paper, NORMALIZED_LRS)) + tuple(
    _normalized_paper(lr, "simple_cnn_be") for lr in PLAIN_LRS
)

EARLY = tuple(map(_simple_cnn, (0.02, 0.2)))
EARLY_PAPER = tuple(map(_simple_cnn_paper, (0.02, 0.2)))
BY_LR = tuple(map(_simple_cnn, (0.01, 0.1)))
BY_LR_PAPER = tuple(map(_simple_cnn_paper, (0.01, 0.1)))
MORE_SEEDS = in_float32(BY_LR + EARLY, 1) + in_float32(BY_LR + EARLY, 2)
BY_BATCH = tuple(_simple_cnn(0.1, batch) for batch in (32, 512))
"""Beside those of ``BY_LR`` with the same η."""
BY_BATCH_RUNS = tuple(run for seed in range(3) for run in in_float32(BY_BATCH, seed))
BY_BATCH_PAPER = tuple(_simple_cnn_paper(0.1, batch) for batch in (32, 512))
MLP_BY_LR = tuple(map(_mlp, (0.01, 0.1)))
MLP_BY_LR_PAPER = tuple(map(_mlp_paper, (0.01, 0.1)))
MLP_BY_BATCH = tuple(_mlp(0.05, batch) for batch in (16, 64, 256))
MLP_BY_BATCH_PAPER = tuple(_mlp_paper(0.05, batch) for batch in (16, 64, 256))

LSTM_LRS, LSTM_BATCHES = (0.1, 0.5), (32, 512)
LSTM = tuple(_lstm(lr) for lr in LSTM_LRS) + tuple(_lstm(0.5, size) for size in LSTM_BATCHES)
LSTM_PAPER = tuple(_lstm_paper(lr) for lr in LSTM_LRS) + tuple(
    _lstm_paper(0.5, size) for size in LSTM_BATCHES
)

SIMPLE_SETTING = "CIFAR-10, SimpleCNN, B = 128, augmentation"
MLP_SETTING = "Fashion-MNIST, perceptron 784-300-100-10, inputs in [0, 1]"

PATHS = tuple(map(_predicting, MLP_BY_LR))
PATHS_PAPER = tuple(map(_predicting, BY_LR_PAPER))

FIGURES: Mapping[str, Figure] = {
    "be01": Figure(
        "Two paths of training",
        f"{SIMPLE_SETTING}, η = 0.01 and 0.1, until a training accuracy of 65%",
        seeds(PATHS, 3),
        seeds(PATHS_PAPER, 2),
        "a perceptron 784-300-100-10 on 10,000 images of Fashion-MNIST takes the place of "
        "SimpleCNN, and trains on",
    ),
    "be02": Figure(
        "The early phase: λ_K, λ_H and α*",
        f"{SIMPLE_SETTING}, η = 0.02, 0.2",
        EARLY + in_float32(EARLY, 1) + in_float32(EARLY, 2),
        seeds(EARLY_PAPER, 3),
    ),
    "be03": Figure(
        "Learning rate, batch size and the largest λ_K and λ_H",
        f"{SIMPLE_SETTING}, η = 0.01, 0.1 and others; {MLP_SETTING}, B = 64 and others, η not "
        "stated in the text",
        BY_LR + EARLY + MORE_SEEDS + BY_BATCH_RUNS + seeds(MLP_BY_LR + MLP_BY_BATCH, 3),
        seeds(BY_LR_PAPER + EARLY_PAPER + BY_BATCH_PAPER + MLP_BY_LR_PAPER + MLP_BY_BATCH_PAPER, 3),
    ),
    "be05": Figure(
        "Batch normalization",
        "CIFAR-10, SimpleCNN-BN, B = 128, augmentation, η = 0.001 to 1; SimpleCNN, η = 0.01 and 1",
        seeds(NORMALIZED, 3),
        seeds(NORMALIZED_PAPER, 3),
        "a perceptron 784-300-100-10 with and without batch normalization on 5,000 images of "
        "Fashion-MNIST takes the place of SimpleCNN-BN and SimpleCNN",
    ),
    "be11": Figure(
        "The two conjectures for an LSTM on reviews",
        "IMDB, LSTM with 100 units, vocabulary of 20,000 words, sequences of 80, B = 128 and "
        "others, η not stated in the text",
        seeds(LSTM, 3),
        seeds(LSTM_PAPER, 3),
    ),
    "be06": Figure(
        "λ_K from mini-batches and from single examples",
        f"{SIMPLE_SETTING}, η = 0.01",
        BY_LR[:1] + in_float32(BY_LR[:1], 1) + in_float32(BY_LR[:1], 2),
        seeds(BY_LR_PAPER[:1], 3),
    ),
    "joined": Figure(
        "The break-even point, the edge of stability and the phases of the Jacobian",
        "asked by none of the three papers; the settings of the break-even point",
        BY_LR + seeds(MLP_BY_LR, 3) + EARLY + MORE_SEEDS,
        seeds(BY_LR_PAPER + MLP_BY_LR_PAPER + EARLY_PAPER, 3),
    ),
}
