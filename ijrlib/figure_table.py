"""Which runs each figure needs, at the laptop's scale and at the paper's: one declarative table.

A run's settings (network, η, |B|, loss) are those of the paper at both scales; what the laptop
reduces is the number of examples, of steps and of measurements.  Gradient descent goes on for the
same time ηt at every η, so that runs are compared at about the same stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ijrlib.config import RunConfig, Window


@dataclass(frozen=True)
class Figure:
    """A figure's runs.

    Attributes:
        title: what it shows.
        paper_setting: the setting of the paper, in words.
        laptop: configurations at laptop scale.
        paper: configurations at the paper's own settings.
        stand_in: what takes the place of the paper's data at laptop scale, in words, or "".
    """

    title: str
    paper_setting: str
    laptop: tuple[RunConfig, ...] = ()
    paper: tuple[RunConfig, ...] = ()
    stand_in: str = ""


def every(stop: int, step: int = 1, start: int = 0) -> list[Window]:
    """The steps start, start + step, … up to ``stop`` itself."""
    return [(start, stop + 1, step)]


def seeds(configs: tuple[RunConfig, ...], count: int) -> tuple[RunConfig, ...]:
    """The configurations with seeds 0 to ``count`` − 1, one seed after another."""
    return tuple(config.replace(seed=seed) for seed in range(count) for config in configs)


def in_float32(configs: Iterable[RunConfig], seed: int) -> tuple[RunConfig, ...]:
    """Another seed, in float32 as at paper scale: the machine that trains it has no bfloat16."""
    return tuple(
        config.replace(
            seed=seed,
            autocast=False,
            measures={k: v for k, v in config.measures if k != "autocast_check"},
        )
        for config in configs
    )


def shortened(config: RunConfig, steps: int) -> RunConfig:
    """Seed 1 up to a step after phase II, without Theorem 2: another seed for claims that compare
    plateaus, which are medians over phase II."""
    measures = {
        name: [(start, min(stop, steps + 1), step) for start, stop, step in config.windows(name)]
        for name, _ in config.measures
        if name != "theorem_2"
    }
    return config.replace(seed=1, steps=steps, measures=measures)


# -- 6CNN, gradient descent ------------------------------------------------------------------------

GD_TIME = 48  # ηt at the end
GD = RunConfig(
    dataset="cifar10",
    examples=2000,
    network="6cnn",
    lr=0.04,
    steps=1200,
    probe=500,
    test_examples=2000,
    measures={  # type: ignore[arg-type]
        "impurity": every(1200),
        "norms": every(1200),
        "curvature": every(1200, 5),
        "accuracy": every(1200, 15),
        "theorem_2": every(1200, 100),
        "logit_spectrum": every(1200, 50),
        "algorithm_2": every(1200, 600),  # unused, but the stored run has it
        "alignment": every(1200, 25),
        "clusters": every(1200, 50),
        "eigenvector_images": every(1200, 100),
        "spectrum": every(1200, 600, start=600),
        "trajectory": every(500),
    },
)
GD_PAPER = GD.replace(
    examples=50_000,
    steps=6000,
    probe=2500,
    test_examples=10_000,
    measures={
        "impurity": every(6000),
        "norms": every(6000),
        "curvature": every(6000),
        "accuracy": every(6000, 25),
        "theorem_2": every(6000, 250),
        "logit_spectrum": every(6000, 100),
        "alignment": every(6000, 25),
        "clusters": every(6000, 100),
        "eigenvector_images": every(6000, 250),
        "spectrum": every(6000, 1000),
        "outliers": every(6000, 1000),
        "trajectory": every(500),
    },
)

GD_SPECTRA = GD.replace(
    steps=800,
    measures={
        "impurity": every(800),
        "curvature": every(200, 5, start=100),
        "accuracy": every(800, 100),
        "logit_spectrum": every(800, 5),
    },
)
"""The spectra of M often enough to tell the last stages apart; ‖H‖ reaches 2/η within the steps at
which it is measured."""

CLUSTERS = GD.replace(
    steps=750,
    probe=2000,
    measures={
        "impurity": every(750),
        "curvature": every(200, 10, start=100),
        "accuracy": every(750, 50),
        "clusters": every(400, 50) + every(750, 25, start=425),
    },
)
"""The same setting, with the directions of all training examples: of a quarter of them, one class
has a single example at the peak of the impurity."""

OUTLIERS = GD.replace(
    steps=400,
    measures={
        "impurity": every(400, 10),
        "accuracy": every(400, 100),
        "outliers": every(400, 100),
    },
)
"""The same setting, with twice as many eigenvalues of G as there are classes."""

GD_FULL = GD.replace(
    examples=50_000,
    steps=400,
    probe=2500,
    test_examples=2000,
    measures={
        "impurity": every(400),
        "norms": every(400, 5),
        "curvature": every(400, 10),
        "accuracy": every(400, 20),
        "alignment": every(400, 40),
    },
)
"""The paper's own size, at its beginning: a step costs fifty thousand gradients."""


SHARES = GD.replace(
    steps=400,
    measures={
        "impurity": every(400, 10),
        "shares": every(400, 10, start=100),
        "accuracy": every(400, 50),
    },
)
"""The beginning again, with the curvature of parts of the training set and of all of it."""

SHARES_PAPER = SHARES.replace(examples=50_000, probe=2500, test_examples=10_000)


def _gd(lr: float) -> RunConfig:
    steps = round(GD_TIME / lr)
    measures = {
        "impurity": every(steps, 2),
        "curvature": every(steps, round(0.4 / lr)),
        "accuracy": every(steps, round(0.6 / lr)),
        "theorem_2": every(steps, 10 * round(0.4 / lr)),
    }
    return GD.replace(lr=lr, steps=steps, measures=measures)


def _gd_paper(lr: float) -> RunConfig:
    measures = {
        "impurity": every(6000),
        "curvature": every(6000),
        "accuracy": every(6000, 25),
        "theorem_2": every(6000, 250),
    }
    return GD_PAPER.replace(lr=lr, measures=measures)


GD_BY_LR = (_gd(0.02), GD, _gd(0.08))
GD_BY_LR_AGAIN = (shortened(_gd(0.02), 1200), shortened(_gd(0.04), 600), shortened(_gd(0.08), 450))
GD_BY_LR_PAPER = (_gd_paper(0.02), GD_PAPER, _gd_paper(0.08))


def _initialized(config: RunConfig, init: str, steps: int, often: int) -> RunConfig:
    """Another initialization, through phase II."""
    return config.replace(
        init=init,
        steps=steps,
        measures={
            "accuracy": every(steps, steps // 20),
            "curvature": every(steps, often),
            "impurity": every(steps, 2),
            "norms": every(100),
        },
    )


KAIMING = _initialized(GD_BY_LR[2], "kaiming_normal", 320, 10)
KAIMING_PAPER = _initialized(GD_BY_LR_PAPER[2], "kaiming_normal", 3000, 10)


# -- mini-batches ----------------------------------------------------------------------------------


def _sgd(
    network: str,
    lr: float,
    batch_size: int | None,
    steps: int,
    curvature: int,
    *,
    dataset: str = "cifar10",
    examples: int = 5000,
    probe: int = 250,
    test_examples: int = 1000,
) -> RunConfig:
    """A run that is followed by its curvature and impurity every ``curvature`` steps, by Theorem 2
    every ten times as many."""
    return RunConfig(
        dataset=dataset,
        examples=examples,
        network=network,
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        probe=probe,
        test_examples=test_examples,
        measures={  # type: ignore[arg-type]
            "impurity": every(steps, curvature),
            "curvature": every(steps, curvature),
            "accuracy": every(steps, 4 * curvature),
            "theorem_2": every(steps, 10 * curvature),
        },
    )


def _sgd_paper(
    network: str, lr: float, batch_size: int | None, steps: int, dataset: str = "cifar10"
) -> RunConfig:
    return _sgd(
        network,
        lr,
        batch_size,
        steps,
        max(1, steps // 2000),
        dataset=dataset,
        examples=50_000,
        probe=2500,
        test_examples=10_000,
    )


SGD_STEPS = 1700
SGD_WINDOWS = [(0, 201, 1), (1000, 1201, 1), (1500, 1701, 1)]
SGD = RunConfig(
    dataset="cifar10",
    examples=50_000,
    network="6cnn",
    lr=0.04,
    steps=SGD_STEPS,
    batch_size=128,
    probe=250,
    test_examples=2000,
    measures={  # type: ignore[arg-type]
        "impurity": every(SGD_STEPS, 5),
        "curvature": SGD_WINDOWS,
        "accuracy": every(SGD_STEPS, 50),
    },
)
SGD_PAPER = SGD.replace(probe=2500, test_examples=10_000)

SGD_TIME = 40  # ηt at the end of the comparison over η
SGD_BY_LR = tuple(
    _sgd("6cnn", lr, 128, round(SGD_TIME / lr), round(0.5 / lr), examples=2000)
    for lr in (0.01, 0.02, 0.03)
)
SGD_BY_LR_PAPER = tuple(_sgd_paper("6cnn", lr, 128, 20_000) for lr in (0.01, 0.02, 0.03))
SGD_BY_BATCH = tuple(_sgd("6cnn", 0.04, batch, 500, 10) for batch in (512, 128, 32))
SGD_BY_BATCH_PAPER = tuple(_sgd_paper("6cnn", 0.04, batch, 500) for batch in (512, 128, 32))
ALGORITHM_2 = _sgd("6cnn", 0.04, 128, 1000, 250, examples=2000, probe=500).replace(
    measures={"impurity": every(1000, 50), "algorithm_2": every(1000, 250)}
)
ALGORITHM_2_PAPER = ALGORITHM_2.replace(
    examples=50_000,
    steps=20_000,
    probe=2500,
    test_examples=10_000,
    measures={"impurity": every(20_000, 100), "algorithm_2": every(20_000, 1000)},
)
RESNET = _sgd("resnet20", 0.04, 128, 1000, 10)
RESNET_PAPER = _sgd_paper("resnet20", 0.04, 128, 1000)

# -- VGG -------------------------------------------------------------------------------------------

VGG_TIME = 64  # ηt at the end of VGG's runs, of which the first 8 are a plateau of the loss


def _vgg(lr: float, batch_size: int | None, **more: list[Window]) -> RunConfig:
    """Forty measurements of curvature; the training passes are in bfloat16, at half the cost."""
    steps = round(VGG_TIME / lr)
    config = _sgd(
        "vgg",
        lr,
        batch_size,
        steps,
        steps // 40,
        examples=1000,
        probe=200,
        test_examples=500,
    )
    measures = {**dict(config.measures), "autocast_check": every(steps, steps // 8), **more}
    return config.replace(autocast=True, measures=measures)


def _epochs(batch_size: int) -> int:
    """Steps of the paper's runs with mini-batches, 100 epochs of 50,000 images."""
    return 100 * (50_000 // batch_size)


VGG_GD = _vgg(0.08, None, trajectory=every(800), alignment=every(800, 40))
VGG_GD_BY_LR = (_vgg(0.04, None), VGG_GD)
VGG_GD_AGAIN = (shortened(_vgg(0.04, None), 800), shortened(_vgg(0.08, None), 600))
VGG_GD_PAPER_SMALL_LR = _sgd_paper("vgg", 0.04, None, 3000)
VGG_GD_PAPER = _sgd_paper("vgg", 0.08, None, 3000)
VGG_GD_PAPER = VGG_GD_PAPER.replace(
    measures={
        **dict(VGG_GD_PAPER.measures),
        "trajectory": every(1000),
        "alignment": every(3000, 25),
    }
)
VGG_GD_BY_LR_PAPER = (VGG_GD_PAPER_SMALL_LR, VGG_GD_PAPER)
VGG_BY_BATCH = tuple(_vgg(0.04, batch) for batch in (512, 128, 32))
VGG_BY_BATCH_AGAIN = (shortened(VGG_BY_BATCH[0], 800), shortened(VGG_BY_BATCH[2], 1600))
VGG_BY_BATCH_PAPER = tuple(
    _sgd_paper("vgg", 0.04, batch, _epochs(batch)) for batch in (512, 128, 32)
)
VGG_SMALL_LR_BY_BATCH = tuple(_vgg(0.01, batch) for batch in (128, 64, 32))
VGG_SMALL_LR_BY_BATCH_PAPER = tuple(
    _sgd_paper("vgg", 0.01, batch, _epochs(batch)) for batch in (128, 64, 32)
)


def _pairs(batch_size: int) -> RunConfig:
    """CIFAR-100's stand-in; Theorem 2 would need the Jacobian of each of its hundred classes."""
    config = _sgd(
        "vgg_cifar100", 0.1, batch_size, 800, 20, dataset="mnist", examples=2000, probe=250
    )
    measures = {k: v for k, v in config.measures if k != "theorem_2"}
    return config.replace(autocast=True, measures=measures | {"autocast_check": every(800, 100)})


PAIRS_BY_BATCH = tuple(map(_pairs, (128, 64, 32)))
CIFAR100_BY_BATCH = tuple(
    _sgd_paper("vgg_cifar100", 0.1, batch, _epochs(batch), "cifar100") for batch in (128, 64, 32)
)
STAND_IN = (
    "two MNIST digits side by side, 100 classes, resized to 32 × 32, take the place of CIFAR-100"
)

# -- perceptrons -----------------------------------------------------------------------------------


def _mnist(lr: float, **more: list[Window]) -> RunConfig:
    return RunConfig(
        dataset="mnist",
        examples=60_000,
        network="3fcn_mnist",
        lr=lr,
        steps=1000,
        chunk=5000,
        probe=3000,
        test_examples=10_000,
        measures={  # type: ignore[arg-type]
            "impurity": every(1000, 5),
            "curvature": every(1000, 5),
            "accuracy": every(1000, 20),
            "theorem_2": every(1000, 200),
            **more,
        },
    )


MNIST = _mnist(0.04, trajectory=every(500))
MNIST_PAPER = _mnist(0.04, trajectory=every(1000))
MNIST_BY_LR = (_mnist(0.02), MNIST, _mnist(0.08))
MNIST_BY_LR_PAPER = (_mnist(0.02), MNIST_PAPER, _mnist(0.08))
SQUARED = RunConfig(
    dataset="cifar10",
    examples=2000,
    network="3fcn_cifar",
    lr=0.04,
    steps=8000,
    loss="squared",
    chunk=1000,
    probe=500,
    test_examples=2000,
    measures={  # type: ignore[arg-type]
        "curvature": every(8000, 20),
        "accuracy": every(8000, 100),
        "theorem_2": every(8000, 1000),
    },
)
SQUARED_PAPER = SQUARED.replace(
    examples=50_000,
    steps=80_000,
    chunk=5000,
    probe=2500,
    test_examples=10_000,
    measures={
        "curvature": every(80_000, 40),
        "accuracy": every(80_000, 400),
        "theorem_2": every(80_000, 4000),
    },
)

GD_SETTING = "CIFAR-10, 6CNN, gradient descent on 50,000 images, η = 0.04"

FIGURES: Mapping[str, Figure] = {
    "thm2": Figure(
        "Theorem 2 along a run: ‖G‖ = ⟨λ*‖J‖²⟩ ≤ ⟨λ^(1)‖J‖²⟩",
        "a theorem; the paper does not measure it",
        (GD,),
        (GD_PAPER,),
    ),
    "alg2": Figure(
        "Algorithm 2 beside the exact norm of the mean Jacobian",
        "an algorithm; the paper states no tolerance",
        (ALGORITHM_2,),
        (ALGORITHM_2_PAPER,),
    ),
    "fig02": Figure(
        "Evolution of the impurity",
        "CIFAR-10, 6CNN, full-batch gradient descent on 50,000 images, η = 0.04",
        (GD,),
        (GD_PAPER,),
    ),
    "fig03": Figure(
        "Sharpness and Jacobian norm oscillate together",
        "CIFAR-10, η = 0.04, |B| = 128, network unstated; sharpness on 5–25% of the training set",
        (SGD,),
        (SGD_PAPER,),
    ),
    "fig04": Figure(
        "The path of full-batch gradient descent",
        "CIFAR-10, 6CNN, gradient descent on 50,000 images, η = 0.04 assumed; 500 steps, enlarged "
        "from 100 to 300",
        (GD,),
        (GD_PAPER,),
    ),
    "fig05": Figure(
        "Three phases of the Jacobian norm",
        "CIFAR-10, network unstated; sharpness on 5–25% of the training set",
        (GD,),
        (GD_PAPER,),
    ),
    "fig06": Figure(
        "Learning rate and the plateau",
        "CIFAR-10, left: 6CNN, |B| = 128, η = 0.01, 0.02, 0.03; right: VGG, η = 0.01, |B| = 128, "
        "64, 32; curves smoothed",
        seeds(SGD_BY_LR, 3) + seeds(VGG_SMALL_LR_BY_BATCH, 1),
        seeds(SGD_BY_LR_PAPER, 3) + seeds(VGG_SMALL_LR_BY_BATCH_PAPER, 2),
    ),
    "fig08": Figure("The scaled eigenvectors of M", GD_SETTING, (GD,), (GD_PAPER,)),
    "fig09": Figure("Clusters of curvature directions", GD_SETTING, (CLUSTERS,), (GD_PAPER,)),
    "fig10": Figure(
        "Alignment of gradients and curvature",
        GD_SETTING,
        (GD, OUTLIERS),
        (GD_PAPER,),
    ),
    "fig11": Figure(
        "Images of the eigenvectors of M under J", "unstated; 6CNN here", (GD,), (GD_PAPER,)
    ),
    "fig12": Figure("Norms during training", f"{GD_SETTING}, every 10 steps", (GD,), (GD_PAPER,)),
    "fig13": Figure(
        "Norms during the first 100 steps", f"{GD_SETTING}, every step", (GD,), (GD_PAPER,)
    ),
    "fig14": Figure("Norms of the layers", f"{GD_SETTING}, every 10 steps", (GD,), (GD_PAPER,)),
    "fig15": Figure(
        "Sharpness against impurity times Jacobian norm: 6CNN, gradient descent",
        "CIFAR-10, 6CNN, gradient descent on 50,000 images, η = 0.02, 0.04, 0.08",
        GD_BY_LR,
        GD_BY_LR_PAPER,
    ),
    "fig16": Figure(
        "Sharpness against impurity times Jacobian norm: VGG, gradient descent",
        "CIFAR-10, VGG, gradient descent on 50,000 images, η = 0.04, 0.08",
        VGG_GD_BY_LR,
        VGG_GD_BY_LR_PAPER,
    ),
    "fig17": Figure(
        "Sharpness against impurity times Jacobian norm: ResNet-20",
        "CIFAR-10, ResNet-20, |B| = 128, η = 0.04, steps 0 to 1000",
        (RESNET,),
        (RESNET_PAPER,),
    ),
    "fig18": Figure(
        "Sharpness against impurity times Jacobian norm: 6CNN, mini-batches",
        "CIFAR-10, 6CNN, η = 0.04, |B| = 512, 128, 32, steps 0 to 500",
        seeds(SGD_BY_BATCH, 3),
        seeds(SGD_BY_BATCH_PAPER, 3),
    ),
    "fig19": Figure(
        "Sharpness against impurity times Jacobian norm: VGG, mini-batches",
        "CIFAR-10, VGG, η = 0.04, |B| = 512, 128, 32, 100 epochs",
        VGG_BY_BATCH,
        VGG_BY_BATCH_PAPER,
    ),
    "fig20": Figure(
        "Sharpness against impurity times Jacobian norm: VGG on CIFAR-100",
        "CIFAR-100, VGG, η = 0.1, |B| = 128, 64, 32",
        PAIRS_BY_BATCH + in_float32(PAIRS_BY_BATCH, 1),
        seeds(CIFAR100_BY_BATCH, 2),
        stand_in=STAND_IN,
    ),
    "beyond": Figure(
        "The constant between sharpness and predictor, and the bound of Theorem 2",
        "the paper leaves the constant open and does not measure the bound",
        (GD, GD_BY_LR[2], VGG_GD, MNIST, RESNET, *SGD_BY_BATCH, SGD_BY_LR[0]),
        (
            GD_PAPER,
            GD_BY_LR_PAPER[2],
            VGG_GD_PAPER,
            MNIST_PAPER,
            RESNET_PAPER,
            *SGD_BY_BATCH_PAPER,
            SGD_BY_LR_PAPER[0],
        ),
    ),
    "full": Figure(
        "The beginning of training at the paper's own size",
        f"{GD_SETTING}; sharpness on 5–25% of the training set",
        (GD_FULL, GD),
        (GD_PAPER, GD),
    ),
    "init": Figure(
        "Another initialization",
        "the paper states none; CIFAR-10, 6CNN, gradient descent on 50,000 images, η = 0.08",
        (GD_BY_LR[2], KAIMING),
        (GD_BY_LR_PAPER[2], KAIMING_PAPER),
    ),
    "shares": Figure(
        "The sharpness of a part of the training set",
        f"{GD_SETTING}; sharpness on 5–25% of the training set",
        seeds((SHARES,), 3),
        seeds((SHARES_PAPER,), 3),
    ),
    "fig21": Figure(
        "Sharpness against impurity times Jacobian norm: 3FCN on MNIST",
        "MNIST, 3FCN, gradient descent on 60,000 images, η = 0.02, 0.04, 0.08",
        MNIST_BY_LR,
        MNIST_BY_LR_PAPER,
    ),
    "fig22": Figure(
        "Evolution for several learning rates: VGG, gradient descent",
        "CIFAR-10, VGG, gradient descent on 50,000 images, η = 0.04, 0.08",
        VGG_GD_BY_LR + VGG_GD_AGAIN,
        seeds(VGG_GD_BY_LR_PAPER, 2),
    ),
    "fig23": Figure(
        "Evolution for several learning rates: 6CNN, gradient descent",
        "CIFAR-10, 6CNN, gradient descent on 50,000 images, η = 0.02, 0.04, 0.08",
        GD_BY_LR + GD_BY_LR_AGAIN,
        seeds(GD_BY_LR_PAPER, 2),
    ),
    "fig24": Figure(
        "Evolution for several batch sizes: VGG",
        "CIFAR-10, VGG, η = 0.04, |B| = 50,000, 512, 32",
        (VGG_GD_BY_LR[0], VGG_BY_BATCH[0], VGG_BY_BATCH[2], VGG_GD_AGAIN[0], *VGG_BY_BATCH_AGAIN),
        seeds((VGG_GD_BY_LR_PAPER[0], VGG_BY_BATCH_PAPER[0], VGG_BY_BATCH_PAPER[2]), 2),
    ),
    "fig25": Figure(
        "Evolution for several batch sizes: VGG on CIFAR-100",
        "CIFAR-100, VGG, η = 0.1, |B| = 128, 64, 32",
        PAIRS_BY_BATCH + in_float32(PAIRS_BY_BATCH, 1),
        seeds(CIFAR100_BY_BATCH, 2),
        stand_in=STAND_IN,
    ),
    "fig26": Figure(
        "The paths of three networks",
        "gradient descent; CIFAR-10, 6CNN, 500 steps; CIFAR-10, VGG, 1000 steps; MNIST, 3FCN, "
        "1000 steps; η of VGG and 3FCN unstated",
        (GD, VGG_GD, MNIST),
        (GD_PAPER, VGG_GD_PAPER, MNIST_PAPER),
    ),
    "fig27": Figure(
        "The scaled eigenvectors of M at six steps",
        f"{GD_SETTING}; steps 100, 500, 1000, 2000, 4000, 6000",
        (GD_SPECTRA,),
        (GD_PAPER,),
    ),
    "fig28": Figure(
        "Cosines of the class means at six steps",
        f"{GD_SETTING}; steps 500, 1000, 1500, 2000, 3000, 4000",
        (CLUSTERS,),
        (GD_PAPER,),
    ),
    "fig29": Figure("Mean resultant lengths during training", GD_SETTING, (CLUSTERS,), (GD_PAPER,)),
    "fig30": Figure(
        "Pairs of opposed classes", f"{GD_SETTING}; step 1000", (CLUSTERS,), (GD_PAPER,)
    ),
    "fig31": Figure(
        "Alignment of gradients and curvature: VGG",
        "CIFAR-10, VGG, gradient descent on 50,000 images, η = 0.08, every 25 steps",
        (VGG_GD,),
        (VGG_GD_PAPER,),
    ),
    "fig32": Figure(
        "The squared loss",
        "network unstated, η unstated; 80,000 steps",
        (SQUARED,),
        (SQUARED_PAPER,),
    ),
}
