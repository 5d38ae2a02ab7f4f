"""The runs of Figures 7 and 33 and of Tables 1 to 3: training with and without a regularizer.

A :class:`Cell` is a row of the paper's tables: two settings that differ in the regularizer alone,
and the two accuracies in print.  Two runs are compared after equally many steps, enough for both to
fit their training set: EJR trains several times more slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ijrlib.config import RunConfig
from ijrlib.figure_table import STAND_IN, Figure, every, seeds

NETWORKS = {  # name in the paper: at the laptop's scale, at the paper's
    "SimpleCNN": ("simple_cnn", "simple_cnn"),
    "WRN-28-10": ("wrn10_2", "wrn28_10"),
    "WRN-28-10, CIFAR-100": ("wrn10_2_cifar100", "wrn28_10_cifar100"),
}


@dataclass(frozen=True)
class Cell:
    """A row of a table.

    Attributes:
        id: of its claim; begins with the table.
        setting: what both arms share, in words.
        network: key of ``NETWORKS``.
        lr: η.
        regularizer: fields of :class:`~ijrlib.config.RunConfig` of the regularized arm.
        printed: test accuracy of the baseline and of the regularized arm in the paper, in %.
        full_batch: gradient descent on all examples instead of B = 128.
        half_time: the schedule of 200 epochs instead of 400.
    """

    id: str
    setting: str
    network: str
    lr: float
    regularizer: Mapping[str, Any] = field(hash=False)
    printed: tuple[float, float]
    full_batch: bool = False
    half_time: bool = False


# -- the accuracies in print -----------------------------------------------------------------------

SIMPLE_CNN = {  # (batch, η, λ_reg): (baseline, with EJR)
    ("128", 0.003, 0.01): (66.71, 75.40),
    ("128", 0.01, 0.01): (67.88, 75.62),
    ("128", 0.01, 0.03): (67.88, 75.66),
    ("128", 0.03, 0.01): (69.83, 75.53),
    ("128", 0.1, 0.01): (70.33, 74.29),
    ("128", 0.1, 0.03): (70.33, 74.59),
    ("128", 0.3, 0.01): (69.34, 73.47),
    ("full", 0.01, 0.001): (66.81, 74.43),
    ("full", 0.03, 0.001): (67.72, 74.31),
    ("full", 0.1, 0.001): (67.53, 73.69),
    ("full", 0.3, 0.001): (61.08, 72.15),
}
WRN_V1 = {  # (data set, epochs): (baseline, {ρ: with EJR})
    ("CIFAR-10", 200): (95.93, {0.5: 96.44, 1: 96.57, 2: 96.62, 3: 96.30}),
    ("CIFAR-10", 400): (96.10, {0.5: 96.65, 1: 96.78, 2: 97.07, 3: 96.79}),
    ("CIFAR-100", 200): (
        80.29,
        {0.5: 80.42, 1: 81.11, 2: 81.50, 3: 82.51, 4: 82.65, 5: 82.31, 6: 82.03},
    ),
    ("CIFAR-100", 400): (
        80.69,
        {1: 82.55, 2: 82.51, 3: 82.84, 4: 83.35, 5: 83.73, 6: 83.16, 7: 83.12, 8: 81.16},
    ),
}
WRN_V2 = {  # (ρ, μ): with EJR; CIFAR-10, 400 epochs, baseline as in WRN_V1
    (2, 0.001): 97.28,
    (2, 0.003): 97.32,
    (2, 0.01): 97.33,
    (2, 0.03): 97.38,
    (2, 0.1): 97.17,
    (1, 0.01): 97.07,
    (1, 0.02): 97.34,
    (1, 0.06): 97.33,
    (1, 0.1): 97.26,
}


def _wrn(id: str, data: str, epochs: int, rho: float, accuracy: float, mu: float = 0.0) -> Cell:
    settings = {"regularizer": "ejr_v2", "rho": rho, "mu": mu} if mu else {}
    strength = f"v2 with ρ = {rho:g}, μ = {mu:g}" if mu else f"v1 with ρ = {rho:g}"
    return Cell(
        id,
        f"WRN-28-10, {data}, {epochs} epochs, {strength}",
        "WRN-28-10" if data == "CIFAR-10" else "WRN-28-10, CIFAR-100",
        0.1,
        settings or {"regularizer": "ejr_v1", "rho": rho},
        (WRN_V1[data, epochs][0], accuracy),
        half_time=epochs == 200,
    )


CELLS = [
    Cell(
        f"tab1-b{batch}-lr{lr:g}-reg{weight:g}",
        f"SimpleCNN, CIFAR-10, {'full batch' if batch == 'full' else 'B = ' + batch}, η = {lr:g}, "
        f"λ_reg = {weight:g}",
        "SimpleCNN",
        lr,
        {"regularizer": "ejr", "ejr_weight": weight},
        printed,
        full_batch=batch == "full",
    )
    for (batch, lr, weight), printed in SIMPLE_CNN.items()
]
CELLS += [
    _wrn("tab1-wrn-cifar10-v1", "CIFAR-10", 400, 2, 97.07),
    _wrn("tab1-wrn-cifar10-v2", "CIFAR-10", 400, 2, 97.38, mu=0.03),
    _wrn("tab1-wrn-cifar100-v1", "CIFAR-100", 400, 5, 83.73),
]
CELLS += [
    _wrn(f"tab2-{data.lower().replace('-', '')}-{epochs}-rho{rho:g}", data, epochs, rho, accuracy)
    for (data, epochs), (_, cells) in WRN_V1.items()
    for rho, accuracy in cells.items()
]
CELLS += [
    _wrn(f"tab3-rho{rho:g}-mu{mu:g}", "CIFAR-10", 400, rho, accuracy, mu)
    for (rho, mu), accuracy in WRN_V2.items()
]

# -- SimpleCNN -------------------------------------------------------------------------------------

TIME = 200  # ηt at the end: a trial on 2,000 images (η = 0.1, λ_reg = 0.01) had fitted them by 170
LEAST_STEPS = 2000  # at η = 0.3 trials of neither arm had fitted them by ηt = 200, in 660 steps
MEASURED = 20  # times that accuracy is measured; curvature, half as often


def _simple_cnn(lr: float, weight: float = 0.0, batch_size: int | None = 128) -> RunConfig:
    unit = round(max(TIME / lr, LEAST_STEPS) / MEASURED)
    steps = MEASURED * unit
    return RunConfig(
        dataset="cifar10",
        examples=2000,
        network="simple_cnn",
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        autocast=True,
        probe=200,
        test_examples=5000,
        measures={  # type: ignore[arg-type]
            "impurity": every(steps, unit),
            "accuracy": every(steps, unit),
            "curvature": every(steps, 2 * unit),
        },
        regularizer="ejr" if weight else "none",
        ejr_weight=weight,
    )


def _simple_cnn_paper(lr: float, weight: float = 0.0, batch_size: int | None = 128) -> RunConfig:
    """The paper says nothing of how long: 200 epochs of mini-batches or ηt = 600, whichever is
    more."""
    epochs = 200 * (50_000 // batch_size) if batch_size else 0
    unit = -(-max(epochs, round(600 / lr)) // 100)
    steps = 100 * unit
    return _simple_cnn(lr, weight, batch_size).replace(
        examples=50_000,
        steps=steps,
        autocast=False,
        probe=2500,
        test_examples=10_000,
        measures={
            "impurity": every(steps, unit),
            "accuracy": every(steps, unit),
            "curvature": every(steps, 2 * unit),
        },
    )


BY_LR = tuple(_simple_cnn(lr, weight) for lr in (0.3, 0.1, 0.03, 0.01) for weight in (0.0, 0.01))
FULL_BATCH = tuple(
    _simple_cnn(0.1, weight, None).replace(examples=500, chunk=500) for weight in (0.0, 0.001)
)
"""In one chunk, as a penalty on a batch of several takes a pass more."""
STRONGER = _simple_cnn(0.1, 0.03)
BY_LR_PAPER = tuple(
    _simple_cnn_paper(lr, weight)
    for lr in (0.3, 0.1, 0.03, 0.01, 0.003)
    for weight in (0.0, 0.01, 0.03, 0.003, 0.001)
)
FULL_BATCH_PAPER = tuple(
    _simple_cnn_paper(lr, weight, None) for lr in (0.3, 0.1, 0.03, 0.01) for weight in (0.0, 0.001)
)

ALTERNATIVES: tuple[Mapping[str, Any], ...] = (
    {"weight_decay": 5e-4},
    {"weight_decay": 1.5e-3},
    {"weight_decay": 5e-3},
    {"regularizer": "sam", "rho": 0.05},
    {"regularizer": "sam", "rho": 0.1},
    {"regularizer": "sam", "rho": 0.2},
)
"""What else is in use: the weight decay of the paper's wide residual networks and ρ of Foret et al.
(2021) for CIFAR-10, each also some times stronger, as here is a twenty-fifth of the images, and in
the geometric middle of the two."""


def _beside(pair: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
    """Without and with EJR, and the alternatives to it."""
    return (*pair, *(pair[0].replace(**fields) for fields in ALTERNATIVES))


ALTERNATIVE_RUNS = seeds(_beside(tuple(config for config in BY_LR if config.lr == 0.1)), 3)
ALTERNATIVE_RUNS_PAPER = _beside((_simple_cnn_paper(0.1), _simple_cnn_paper(0.1, 0.01)))

# -- wide residual networks ------------------------------------------------------------------------


def wide(config: RunConfig, **regularizer: Any) -> RunConfig:
    """Momentum, weight decay, schedule and augmentation of the paper; accuracy every epoch."""
    epoch = config.examples // 128
    return config.replace(
        batch_size=128,
        momentum=0.9,
        weight_decay=5e-4,
        lr_decay=0.2,
        augment=True,
        measures={
            "accuracy": every(config.steps, epoch),
            "impurity": every(config.steps, epoch),
        },
        **regularizer,
    )


def _wide_paper(network: str, epochs: int, **regularizer: Any) -> RunConfig:
    config = RunConfig(
        dataset="cifar100" if network.endswith("100") else "cifar10",
        examples=50_000,
        network=network,
        lr=0.1,
        steps=epochs * (50_000 // 128),
        probe=2500,
        test_examples=10_000,
    )
    return wide(config, **regularizer)


def _wide_laptop(network: str, **regularizer: Any) -> RunConfig:
    """A tenth of the images, a quarter of the 400 epochs."""
    config = RunConfig(
        dataset="mnist" if network.endswith("100") else "cifar10",
        examples=5000,
        network=network,
        lr=0.1,
        steps=100 * (5000 // 128),
        autocast=True,
        probe=500,
        test_examples=5000,
    )
    return wide(config, **regularizer)


def _of_table(cells: list[Cell]) -> tuple[RunConfig, ...]:
    """The paper-scale runs of wide residual networks for some cells, each baseline once."""
    configs: dict[RunConfig, None] = {}
    for cell in cells:
        if cell.network != "SimpleCNN":
            network, epochs = NETWORKS[cell.network][1], 200 if cell.half_time else 400
            configs[_wide_paper(network, epochs)] = None
            configs[_wide_paper(network, epochs, **cell.regularizer)] = None
    return tuple(configs)


def _table(name: str) -> list[Cell]:
    return [cell for cell in CELLS if cell.id.startswith(name)]


FIGURE_7 = [
    cell for cell in CELLS if cell.id in ("tab2-cifar10-400-rho0.5", "tab2-cifar100-400-rho1")
]
"""Figure 7 does not state its ρ.  The best ones in print are 2 and 5.  These are the values of
Table 2 nearest to a quarter of them, for the initial weights of the laptop's WRN-10-2 are a quarter
as long as those of WRN-28-10, and both scales are to have the same setting."""
_BASELINE = _wide_laptop("wrn10_2")
WIDE = seeds((_BASELINE, _wide_laptop("wrn10_2", regularizer="ejr_v1", rho=0.5)), 2) + seeds(
    (
        _wide_laptop("wrn10_2_cifar100"),
        _wide_laptop("wrn10_2_cifar100", regularizer="ejr_v1", rho=1),
    ),
    2,
)
"""Baseline and v1 on both data sets."""
WRN_SETTING = (
    "WRN-28-10, B = 128, η = 0.1, momentum 0.9, weight decay 0.0005, η × 0.2 at 30, 60 and 80% of "
    "the epochs, augmentation"
)
SIMPLE_SETTING = "CIFAR-10, SimpleCNN, B = 128, η = 0.003 to 0.3"

FIGURES: Mapping[str, Figure] = {
    "fig07": Figure(
        "Explicit regularization along training",
        f"CIFAR-10 and CIFAR-100, {WRN_SETTING}; ρ unstated",
        WIDE,
        seeds(_of_table(FIGURE_7), 3),
        stand_in=STAND_IN,
    ),
    "fig33": Figure(
        "Explicit regularization and the learning rate",
        f"{SIMPLE_SETTING}, λ_reg = 0, 0.001, 0.003",
        seeds(BY_LR, 3),
        seeds(BY_LR_PAPER, 3),
    ),
    "tab1": Figure(
        "Explicit regularization: test accuracy",
        f"{SIMPLE_SETTING}, and full batch; CIFAR-10 and CIFAR-100, {WRN_SETTING}, 400 epochs",
        (*seeds(BY_LR, 3), *seeds(FULL_BATCH, 2), STRONGER),
        seeds(BY_LR_PAPER + FULL_BATCH_PAPER + _of_table(_table("tab1")), 3),
        stand_in=STAND_IN,
    ),
    "sam": Figure(
        "Beside weight decay and SAM",
        "the paper does not compare; CIFAR-10, SimpleCNN, B = 128, η = 0.1 of its Table 1",
        ALTERNATIVE_RUNS,
        seeds(ALTERNATIVE_RUNS_PAPER, 3),
    ),
    "tab2": Figure(
        "EJR v1: test accuracy against ρ",
        f"CIFAR-10 and CIFAR-100, {WRN_SETTING}, 200 and 400 epochs",
        WIDE,
        seeds(_of_table(_table("tab2")), 3),
        stand_in=STAND_IN,
    ),
    "tab3": Figure(
        "EJR v2: test accuracy against ρ and μ",
        f"CIFAR-10, {WRN_SETTING}, 400 epochs",
        (_BASELINE, _wide_laptop("wrn10_2", regularizer="ejr_v2", rho=1, mu=0.02)),
        seeds(_of_table(_table("tab3")), 3),
    ),
}
