"""What a run costs, from its configuration: passes counted in gradients, gradients in operations.

An estimate for planning.  Counted are the floating-point operations (a multiplication and an
addition are two) of training passes and of measures; a data loader, small kernels and most memory
traffic are not.  How far the estimate is from what stored runs took: chapter "What the runs cost".
"""

from __future__ import annotations

import math

from ijrlib.config import RunConfig
from ijrlib.conventions import (
    SEARCH_EVERY,
    SHARES,
    covariance_batches,
    share_size,
    step_batches,
)

GRADIENT_OPERATIONS = {
    "vgg": 916_224_000,
    "vgg_cifar100": 916_500_480,
    "resnet20": 242_421_504,
    "6cnn": 84_645_744,
    "simple_cnn": 117_345_792,
    "3fcn_cifar": 2_709_600,
    "3fcn_mnist": 879_200,
    "wrn28_10": 31_459_087_872,
    "wrn28_10_cifar100": 31_459_433_472,
    "wrn10_2": 266_018_304,
    "wrn10_2_cifar100": 266_087_424,
    "simple_cnn_be": 148_250_112,
    "mlp_300_100": 1_126_800,
    "simple_cnn_bn": 148_250_112,
    "mlp_300_100_bn": 1_126_800,
    "resnet32": 412_290_816,
    "resnet32_bn": 412_290_816,
    "lstm": 43_697_200,
    "text_cnn": 17_928_000,
    "lstm_words": 11_464_000,
    "vgg_small": 15_093_504,
    "vgg_small_cifar100": 15_128_064,
    "lstm_small": 61_024,
    "lstm_words_small": 65_728,
    "text_cnn_small": 43_200,
}
"""Operations of one gradient of one example, forward and backward, as PyTorch's counter has them
(a test counts again)."""

PARAMETERS = {
    "vgg": 9_750_922,
    "vgg_cifar100": 9_797_092,
    "resnet20": 268_346,
    "6cnn": 511_926,
    "simple_cnn": 361_706,
    "3fcn_cifar": 656_810,
    "3fcn_mnist": 199_210,
    "wrn28_10": 36_479_194,
    "wrn28_10_cifar100": 36_536_884,
    "wrn10_2": 303_706,
    "wrn10_2_cifar100": 315_316,
    "simple_cnn_be": 591_274,
    "mlp_300_100": 266_610,
    "simple_cnn_bn": 591_658,
    "mlp_300_100_bn": 267_410,
    "resnet32": 461_882,
    "resnet32_bn": 464_154,
    "lstm": 2_651_802,
    "text_cnn": 351_002,
    "lstm_words": 320_600,
    "vgg_small": 153_530,
    "vgg_small_cifar100": 159_380,
    "lstm_small": 1_362,
    "lstm_words_small": 2_244,
    "text_cnn_small": 1_506,
}
"""m of each network."""

UPDATE_GRADIENTS = {
    "none": 1.0,
    "ejr": 3.0,
    "ejr_v1": 2.0,
    "ejr_v2": 2.0,
    "sam": 2.0,
    "nudged": 1.0,
    "sharpest_only": 1.0,
}
"""Gradients of the batch that one update takes (:mod:`ijrlib.regularizers`)."""

SEARCH_GRADIENTS = 6.0
"""Gradients of the probe that a search for eigenvectors takes, about, for each of K + 2
(:mod:`ijrlib.sharpest_directions`)."""

MEASURE_GRADIENTS = {
    "impurity": 0.0,
    "curvature": 9.0,
    "shares": 0.0,
    "accuracy": 0.0,
    "norms": 0.0,
    "theorem_2": 40.0,
    "logit_spectrum": 0.0,
    "algorithm_2": 67.0,
    "alignment": 12.0,
    "clusters": 3.0,
    "eigenvector_images": 11.0,
    "spectrum": 270.0,
    "outliers": 250.0,
    "trajectory": 0.0,
    "autocast_check": 2.0,
    "covariance": 7.0,
    "break_even": 8.0,
    "hessian_trace": 20.0,
    "sharpest": 70.0,
    "predictions": 0.0,
}
"""Gradients of the probe that one measurement takes, about (:mod:`ijrlib.measures`)."""

SHARE_GRADIENTS = MEASURE_GRADIENTS["curvature"]
"""Gradients of each share of the training set that a measurement of ``SHARES`` takes, about."""

BASIS_VECTORS = {"spectrum": 540.0 * 35, "outliers": 90.0 * 55, "sharpest": 30.0 * 35}
"""Products of an eigensolver times the basis vectors that each is made orthogonal to, about."""

BYTES = 36.0
"""Memory traffic for a basis vector's entry at a product: it is read nine times over."""

BANDWIDTH = 1e10
"""Bytes a second that two CPU cores move in such work, to a factor of two."""

FORWARD = 1 / 3
"""A forward pass, in gradients."""

ASSUMED_GPU = 1e13
"""Operations a second that one GPU is taken to sustain on convolutions of this size: an assumption,
about half of what a current data-centre GPU reaches in single precision.  Scale by your own."""

CPU_RATE = 1e11
"""Operations a second that two CPU cores sustained in the runs of this book, to a factor of two
(chapter "What the runs cost")."""

PASS_SECONDS = 4e-3
"""What a gradient takes on a CPU however few its examples: calls and small kernels.  So it is
nearest to what the stored runs took."""

SLOW_KERNELS = {"text_cnn": 0.25}
"""The share of ``CPU_RATE`` that a network reaches whose operations are of another kind: a step of
training with one-dimensional convolutions over words, timed by itself, to about a fifth."""

RECURRENT = {"lstm": 20.0, "lstm_words": 5.0}
"""Times ``PASS_SECONDS`` that it takes word by word, about."""


def gradients(config: RunConfig) -> float:
    """Gradients of one example that a run takes, training and measures together."""
    batch = config.batch_size or config.examples
    total = config.steps * batch * UPDATE_GRADIENTS[config.regularizer]
    total += _searches(config) * config.probe
    measured = set()
    for name, _ in config.measures:
        steps = config.measured_steps(name)
        measured.update(steps)
        total += len(steps) * MEASURE_GRADIENTS[name] * config.probe
        if name == "covariance":
            total += len(steps) * math.prod(covariance_batches(config.examples))
        if name == "shares":
            total += len(steps) * SHARE_GRADIENTS * sum(_share_sizes(config))
        if name == "sharpest":
            total += len(steps) * math.prod(step_batches(config.examples, config.batch_size))
        if name == "accuracy":
            total += len(steps) * FORWARD * config.test_examples
    if config.batch_size is not None:
        total += len(measured) * FORWARD * config.probe
    return total


def passes(config: RunConfig) -> float:
    """Calls of forward and backward that a run takes, training and measures together."""
    batch = config.batch_size or config.examples
    total = config.steps * UPDATE_GRADIENTS[config.regularizer] * math.ceil(batch / config.chunk)
    total += _searches(config) * math.ceil(config.probe / config.chunk)
    for name, _ in config.measures:
        calls = MEASURE_GRADIENTS[name] * math.ceil(config.probe / config.chunk)
        if name == "covariance":
            calls = covariance_batches(config.examples)[0] + config.probe
        if name == "shares":
            parts = sum(math.ceil(size / config.chunk) for size in _share_sizes(config))
            calls = SHARE_GRADIENTS * parts
        total += calls * len(config.measured_steps(name))
    return total


def _share_sizes(config: RunConfig) -> list[int]:
    return [share_size(share, config.examples) for share in SHARES]


def _searches(config: RunConfig) -> float:
    """Gradients of the probe that the searches for the sharpest directions take."""
    if not config.sharpest:
        return 0.0
    count = math.ceil(max(0, config.steps - config.regularizer_from) / SEARCH_EVERY)
    return count * SEARCH_GRADIENTS * (config.sharpest + 2)


def operations(config: RunConfig) -> float:
    """Floating-point operations of a run: those of its gradients, and of their Gram matrices where
    the covariance is measured."""
    total = gradients(config) * GRADIENT_OPERATIONS[config.network]
    pairs = config.probe**2 + covariance_batches(config.examples)[0] ** 2
    times = len(config.measured_steps("covariance"))
    return total + 2 * times * pairs * PARAMETERS[config.network]


def moved_bytes(config: RunConfig) -> float:
    """Memory traffic of eigensolvers that keep a basis: what a network with many parameters and few
    operations waits for."""
    vectors = sum(count * len(config.measured_steps(name)) for name, count in BASIS_VECTORS.items())
    products = _searches(config) / 2  # of two gradients each
    vectors += products * 2 * (config.sharpest + 2)
    return vectors * BYTES * PARAMETERS[config.network]


def gpu_hours(config: RunConfig) -> float:
    """Hours on one GPU of ``ASSUMED_GPU`` operations a second."""
    return operations(config) / ASSUMED_GPU / 3600


def cpu_seconds(config: RunConfig) -> float:
    """Seconds on two CPU cores that compute in bfloat16 at twice ``CPU_RATE`` (where the processor
    has it), the passes themselves, and the memory traffic of eigensolvers."""
    rate = CPU_RATE * SLOW_KERNELS.get(config.network, 1.0) * (2 if config.autocast else 1)
    computing = operations(config) / rate
    calls = PASS_SECONDS * RECURRENT.get(config.network, 1.0) * passes(config)
    return computing + calls + moved_bytes(config) / BANDWIDTH


def memory_bytes(config: RunConfig) -> float:
    """Memory of a run, roughly: PyTorch, the data set in float32, what the graphs of a second
    derivative keep of a chunk, and the vectors in R^m of the eigensolver and of K."""
    images = (config.examples + config.test_examples) * 3 * 32 * 32 * 4
    graphs = 0.02 * GRADIENT_OPERATIONS[config.network] * min(config.chunk, config.examples)
    gradients = config.probe if config.windows("covariance") else 0
    return 2e9 + images + graphs + (100 + gradients) * 4 * PARAMETERS[config.network]
