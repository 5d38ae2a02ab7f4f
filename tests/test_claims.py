"""The table of claims, the criteria and the verdicts drawn from them.

Criteria are tested on runs made up by formula: for each there is one that meets it and one that
does not, so that no claim can come out as reproduced whatever was measured.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from synthetic_runs import (
    arm_run,
    break_even_run,
    gd_run,
    path_run,
    phase_run,
    sgd_run,
    sharpest_run,
)

from ijrlib import (
    claims,
    companion_criteria,
    criteria,
    evolution_criteria,
    experiments,
    live_checks,
    logits,
    power_iteration,
    sharpest_criteria,
    store,
    subspace_criteria,
    theorems,
)
from ijrlib.ejr_table import CELLS, NETWORKS, SIMPLE_CNN, WRN_V1, WRN_V2, Cell
from ijrlib.store import Run

GD, SGD, PHASES = gd_run(), sgd_run(), phase_run()
ON_RUNS = [c for c in claims.CLAIMS if c.measure and not c.live]
LIVE = [c for c in claims.CLAIMS if c.live]


def with_columns(run: Run, **columns) -> Run:
    return dataclasses.replace(run, series=run.series.assign(**columns))


def with_arrays(run: Run, **arrays) -> Run:
    return dataclasses.replace(run, arrays={**run.arrays, **arrays})


def scaled(run: Run, name: str, factor) -> Run:
    return with_columns(run, **{name: run.series[name] * factor})


def with_outliers(*ends: int) -> Run:
    """Every fifty steps twenty eigenvalues of G, λ_1 far above the others, which fall most after
    the given number of them."""
    rank = np.arange(1, 21)
    values = np.stack([np.where(rank <= end, 10.0, 1.0) / rank for end in ends])
    values[:, 0] *= 100
    steps = {"outlier_values.steps": 50 * np.arange(len(ends))}
    return with_arrays(PHASES, outlier_values=values, **steps)


def holds(claim_id: str, runs: Run | list[Run]) -> bool:
    (claim,) = (c for c in claims.CLAIMS if c.id == claim_id)
    assert claim.measure is not None
    return claim.measure([runs] if isinstance(runs, Run) else runs).holds


# -- the table -------------------------------------------------------------------------------------


def test_every_figure_table_and_theorem_of_the_paper_has_a_claim():
    parts = {f"fig{n:02}" for n in range(1, 34)} | {f"tab{n}" for n in (1, 2, 3)}
    parts |= {"thm1", "thm2", "alg1", "alg2", "eq01_04"}
    assert parts <= set(claims.figures())


def test_every_part_of_both_theorems_and_every_numbered_equation_has_a_claim():
    ids = {claim.id for claim in claims.CLAIMS}
    assert {f"thm1-{part}" for part in "abcd"} <= ids
    for prefix in ("eq01-", "eq02-", "eq03-", "eq04-", "eq05-", "eq12-", "thm2-", "fig18-constant"):
        assert any(name.startswith(prefix) for name in ids), prefix


def test_ids_are_unique_and_every_claim_states_what_must_hold_and_why():
    assert len({claim.id for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    for claim in claims.CLAIMS:
        assert claim.statement.endswith("."), claim.id
        assert claim.criterion and claim.reason, claim.id


def test_figures_2_and_3_and_the_theory_have_measuring_functions():
    for claim in claims.CLAIMS:
        if claim.figure in ("fig01", "fig02", "fig03", "thm1", "thm2", "alg1", "alg2", "eq01_04"):
            assert claim.measure is not None, claim.id


def test_the_printed_tables_improve_on_their_baselines_as_the_paper_says():
    for baseline, accuracy in SIMPLE_CNN.values():
        assert accuracy > baseline
    for baseline, cells in WRN_V1.values():
        assert all(accuracy > baseline for accuracy in cells.values())
    assert all(accuracy > WRN_V1["CIFAR-10", 400][0] for accuracy in WRN_V2.values())


# -- criteria: each can hold, each can fail --------------------------------------------------------


def shuffled_jacobian(run: Run) -> Run:
    values = run.series["jacobian_norm_sq"].to_numpy(copy=True)
    np.random.default_rng(0).shuffle(values[201:402])
    return with_columns(run, jacobian_norm_sq=values)


def impurity_that(shape: Callable[[np.ndarray], np.ndarray]) -> Run:
    phase = np.linspace(0, 1, len(GD.series))
    return with_columns(GD, impurity_mean=shape(phase))


def arch(phase: np.ndarray) -> np.ndarray:
    return 0.1 + 0.2 * np.sin(np.pi * phase) - 0.05 * phase


LOW, HIGH = np.asarray(GD.arrays["tracked_impurity"]), np.asarray(GD.arrays["tracked_p1"])

Runs = Run | list[Run]
CASES: dict[str, tuple[Runs, Runs]] = {
    "fig02-bounds": (GD, with_arrays(GD, tracked_impurity=LOW + 0.2 * (HIGH > 0.9))),
    "fig02-path": (
        with_arrays(GD, tracked_impurity=arch(np.linspace(0, 1, len(LOW)))[:, None] * [1, 1, 1]),
        with_arrays(GD, tracked_impurity=np.full((5, 3), 0.1)),
    ),
    "fig02-start": (impurity_that(arch), impurity_that(lambda s: arch(s) + 0.16)),
    "fig02-rise": (impurity_that(arch), impurity_that(lambda s: 0.1 + 0 * s)),
    "fig02-fall": (impurity_that(arch), impurity_that(lambda s: 0.1 + 0.2 * s)),
    "fig02-towards-zero": (
        impurity_that(lambda s: 0.1 * (1 - 0.91 * s)),
        impurity_that(lambda s: 0.1 * (1 - 0.89 * s)),
    ),
    "fig03-correlation-left": (SGD, sgd_run(correlated=False)),
    "fig03-correlation-middle": (SGD, shuffled_jacobian(SGD)),
    "fig03-correlation-right": (SGD, sgd_run(correlated=False)),
    "fig03-factor-constant": (SGD, shuffled_jacobian(SGD)),
    "fig03-factor-drift": (
        SGD,
        scaled(SGD, "sharpness", np.exp(SGD.series["step"] / 100)),
    ),
    "fig03-oscillation": (SGD, with_columns(SGD, sharpness=SGD.series["step"] + 1.0)),
    "fig03-threshold": (SGD, scaled(SGD, "sharpness", 0.3)),
    "fig03-lower-for-sgd": (SGD, scaled(SGD, "sharpness", 1.5)),
    "thm2-identity": (GD, with_columns(GD, theorem_2_identity=2e-3)),
    "thm2-star": (GD, with_columns(GD, theorem_2_min_star=-1e-3)),
    "thm2-bound": (GD, scaled(GD, "theorem_2_bound", 0.3)),
    "eq10-gauss-newton": (
        with_columns(GD, gauss_newton_norm=GD.series["sharpness"] * 0.9),
        with_columns(GD, gauss_newton_norm=GD.series["sharpness"] * 0.5),
    ),
    "eq12-trace-approximation": (
        with_columns(GD, gauss_newton_trace=2.0, gauss_newton_trace_approximation=2.2),
        with_columns(GD, gauss_newton_trace=2.0, gauss_newton_trace_approximation=4.0),
    ),
    "alg2-norm": (GD, with_arrays(GD, algorithm_2_values=GD.arrays["algorithm_2_values"] * 1.01)),
}


# -- Figures 4 to 32: variants of a run that meets all of their claims -----------------------------

STEP = PHASES.series["step"]


def changed(name: str, values) -> Run:
    """The run with three phases, with another column or array."""
    if name in PHASES.series:
        return with_columns(PHASES, **{name: values})
    return with_arrays(PHASES, **{name: values})


def entries(name: str, change: Callable[[np.ndarray], None]) -> Run:
    """The same with entries of an array changed, at all steps."""
    values = np.array(PHASES.arrays[name], dtype=float)
    for matrix in values:
        change(matrix)
    return changed(name, values)


def put(*index_and_value) -> Callable[[np.ndarray], None]:
    *index, value = index_and_value

    def change(matrix: np.ndarray) -> None:
        matrix[tuple(index)] = value

    return change


def parts(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Run:
    return with_arrays(PHASES, **{name: change(PHASES.arrays[name])})


def straight(run: Run) -> Run:
    line = np.arange(301.0)
    return with_arrays(run, trajectory_gram=np.outer(line, line))


def drifting(run: Run) -> Run:
    path = np.stack([np.arange(301.0), 0.5 * np.arange(301) % 2], axis=1)
    return with_arrays(run, trajectory_gram=path @ path.T)


def two_seeds(by: str, values, name: str, scale: Callable[[float, int], float], **more) -> list:
    """Runs of each value of a field and two seeds, one column scaled by value and seed."""
    return [
        scaled(phase_run(**{by: value}, seed=seed, **more), name, scale(value, seed))
        for value in values
        for seed in (0, 1)
    ]


H, J, ONES = "sharpness", "jacobian_norm_sq", "jacobian_ones_sq"
LRS, BATCHES = (0.02, 0.04, 0.08), (512, 128, 32)


def even(value, seed):
    return 1.0


def level(run_lr, seed):
    """Undoes that the made-up ‖H‖ and Jacobians go as 1/η."""
    return run_lr * (1 + 0.1 * seed)


def by_size(batch, seed):
    return batch * (1 + 0.1 * seed)


def by_inverse_size(batch, seed):
    return (1 + 0.1 * seed) / batch


def full_and_mini(middle: float) -> list[Run]:
    sizes = {None: 1.0, 512: middle, 32: 0.2}
    return [
        scaled(scaled(phase_run(batch_size=b, seed=seed), H, s), ONES, s)
        for b, s in sizes.items()
        for seed in (0, 1)
    ]


VGG = {"network": "vgg"}
TOP = int(PHASES.series[H].idxmax())

CASES |= {
    "thm2-squared-loss": (
        phase_run(loss="squared"),
        scaled(phase_run(loss="squared"), "theorem_2_bound", 0.3),
    ),
    "fig04-onset": (PHASES, straight(PHASES)),
    "fig04-orthogonal": (PHASES, drifting(PHASES)),
    "fig26-vgg": (phase_run(**VGG), straight(phase_run(**VGG))),
    "fig26-3fcn-mnist": (
        straight(phase_run(network="3fcn_mnist")),
        phase_run(network="3fcn_mnist"),
    ),
    "full-bounds": (GD, with_arrays(GD, tracked_impurity=LOW + 0.2 * (HIGH > 0.9))),
    "full-start": (impurity_that(arch), impurity_that(lambda s: arch(s) + 0.16)),
    "full-rise": (impurity_that(arch), impurity_that(lambda s: 0.1 + 0 * s)),
    "full-onset": (PHASES, scaled(PHASES, H, 0.3)),
    "full-level": (PHASES, scaled(PHASES, H, np.where(STEP > 120, 0.4, 1))),
    "full-gradient-top-eigenvector": (PHASES, changed("gradient_alignment", 0.1)),
    "full-example-gradient": (PHASES, changed("descent_cosine_correct", 0.8)),
    "full-subspace": (PHASES, changed("subspace_alignment_top", 0.6)),
    "shares-level": (PHASES, parts("share_sharpness", lambda v: 3 * v)),
    "shares-representative": (PHASES, parts("share_sharpness", lambda v: v * (1.2, 1.0, 1.0))),
    "shares-jacobian": (PHASES, parts("share_jacobian_sq", lambda v: v * (1.0, 0.8, 1.0))),
    "shares-excess": (PHASES, parts("share_sharpness", lambda v: v * (1.0, 1.0, 1.05))),
    "shares-together": (PHASES, parts("share_sharpness", lambda v: np.c_[1 / v[:, :2], v[:, 2:]])),
    "fig05-phase-1": (PHASES, changed(J, np.exp(0.004 * STEP))),
    "fig05-phase-2": (PHASES, scaled(PHASES, H, 1 + np.maximum(0, STEP - 100) / 100)),
    "fig05-phase-3": (PHASES, changed(J, np.exp(np.minimum(STEP, 250) / 50))),
    "fig05-late-sharpness": (
        PHASES,
        scaled(PHASES, "test_accuracy", np.where(STEP > 380, 0.8, 1.0)),
    ),
    "fig06-lr-sharpness": (
        two_seeds("lr", LRS, H, even),
        two_seeds("lr", LRS, H, level),
    ),
    "fig06-lr-jacobian": (
        two_seeds("lr", LRS, J, even),
        two_seeds("lr", LRS, J, level),
    ),
    "fig06-lr-impurity": (PHASES, changed("impurity_mean", 0.1 + 0 * STEP)),
    "fig06-batch-sharpness": (
        two_seeds("batch_size", BATCHES, H, by_size, **VGG),
        two_seeds("batch_size", BATCHES, H, by_inverse_size, **VGG),
    ),
    "fig06-batch-jacobian": (
        two_seeds("batch_size", BATCHES, J, by_size, **VGG),
        two_seeds("batch_size", BATCHES, J, even, **VGG),
    ),
    "fig06-batch-impurity": (
        phase_run(**VGG),
        with_columns(phase_run(**VGG), impurity_mean=0.1 + 0.01 * STEP),
    ),
    "fig08-two-entries": (PHASES, entries("q_sqrt_lambda", put(5, 2, 0.4))),
    "fig08-signs": (PHASES, entries("q_sqrt_lambda", put(3, 2, 0.18))),
    "fig08-last-column": (PHASES, entries("q_sqrt_lambda", put(4, 9, 0.01))),
    "fig08-diagonal": (PHASES, entries("q_sqrt_lambda", put(1, 1, 0.31))),
    "fig08-subdiagonal": (PHASES, entries("q_sqrt_lambda", put(2, 1, -0.17))),
    "fig27-dominance": (PHASES, changed("q_sqrt_lambda", PHASES.arrays["q_sqrt_lambda"][::-1])),
    "fig09-clusters": (PHASES, entries("resultant_products", put(2, 4, 0.35))),
    "fig09-mrl": (PHASES, entries("resultant_products", put(5, 5, 0.1))),
    "fig09-orthogonal": (PHASES, entries("class_mean_cosines", put(slice(7), 0.4))),
    "fig09-negative-pairs": (PHASES, entries("class_mean_cosines", put(3, 6, 0.1))),
    "fig28-orthogonal": (
        PHASES,
        changed("class_mean_cosines", np.repeat(1.05 * np.eye(10)[None] - 0.05, 41, axis=0)),
    ),
    "fig29-concentrated": (PHASES, entries("resultant_products", put(8, 8, 0.1))),
    "fig30-pairs": (PHASES, entries("resultant_products", put(0, 8, 0.5))),
    "fig10-gradient-top-eigenvector": (PHASES, changed("gradient_alignment", 0.1)),
    "fig10-example-gradient": (PHASES, changed("descent_cosine_correct", 0.8)),
    "fig10-subspace-gradient": (PHASES, changed("subspace_alignment_gradient", 0.6)),
    "fig10-subspace-eigenvector": (PHASES, changed("subspace_alignment_top", 0.6)),
    "fig31-gradient-top-eigenvector": (PHASES, changed("gradient_alignment", 0.1)),
    "fig31-subspace": (PHASES, changed("subspace_alignment_top", 0.6)),
    "eq32-number": (with_outliers(10), with_outliers(5)),
    "eq32-outliers": (PHASES, scaled(PHASES, "between_class_norm", 0.5)),
    "fig11-norms": (PHASES, changed("stretch_counts", np.ones((41, 9, 100)))),
    "fig11-angles": (PHASES, changed("cos_sq_median", 0.2)),
    "fig14-layers": (PHASES, entries("layer_norms", put(3, 1.5))),
    "fig21-below-threshold": (scaled(PHASES, H, 0.5), PHASES),
    "fig21-impurity-first": (
        changed("impurity_mean", np.where(STEP < TOP, 0.3, 0.1)),
        PHASES,
    ),
    "fig24-512-like-gd": (full_and_mini(0.9), full_and_mini(0.25)),
    "fig32-correlation": (
        phase_run(loss="squared"),
        scaled(phase_run(loss="squared"), J, np.exp(STEP / 100)),
    ),
}


def arms(cell: Cell, gain: float) -> list[Run]:
    """Two seeds of both arms, whose accuracies differ by 0.01; a longer run tells the schedule."""
    network = NETWORKS[cell.network][0]
    fields = {"lr": cell.lr, "batch_size": None if cell.full_batch else 128}
    longer = [arm_run(network, 0.9, steps=200, **fields)] if cell.half_time else []
    return longer + [
        arm_run(network, 0.5 + 0.01 * seed + extra, seed=seed, **fields, **regularizer)
        for seed in (0, 1)
        for extra, regularizer in ((0.0, {}), (gain, cell.regularizer))
    ]


def simple_cnns(gains: dict[float, float]) -> list[Run]:
    return [
        arm_run("simple_cnn", 0.5 + 0.001 * seed + extra, lr=lr, seed=seed, **regularizer)
        for lr, gain in gains.items()
        for seed in (0, 1)
        for extra, regularizer in ((0.0, {}), (gain, {"regularizer": "ejr", "ejr_weight": 0.01}))
    ]


def wide(*networks: str, **regularized) -> list[Run]:
    """Two seeds of the baseline, which falls by 0.02 in each interval, and of EJR."""
    v1 = {"regularizer": "ejr_v1", "rho": 2.0, "accuracy": 0.6, "loss": 0.8, **regularized}
    return [
        arm_run(network, arm.pop("accuracy"), seed=seed, **arm)
        for network in networks
        for seed in (0, 1)
        for arm in ({"accuracy": 0.5, "fall": 0.02}, dict(v1))
    ]


CASES |= {cell.id: (arms(cell, 0.05), arms(cell, 0.005)) for cell in CELLS}
CASES |= {
    "fig33-enhances": (
        simple_cnns({0.03: 0.04, 0.1: 0.03, 0.3: 0.02}),
        simple_cnns({0.03: 0.04, 0.1: 0.0, 0.3: 0.02}),
    ),
    "fig33-small-lr": (
        simple_cnns({0.03: 0.04, 0.1: 0.01, 0.3: 0.02}),
        simple_cnns({0.03: 0.02, 0.1: 0.04, 0.3: 0.02}),
    ),
    "fig07-cifar10": (wide("wrn10_2"), wide("wrn10_2", loss=1.1)),
    "fig07-cifar100": (wide("wrn10_2_cifar100"), wide("wrn10_2_cifar100", accuracy=0.49)),
    "fig07-decay": (
        wide("wrn10_2", "wrn10_2_cifar100", fall=0.01),
        wide("wrn10_2", "wrn10_2_cifar100", fall=0.03),
    ),
}
for _figure in ("fig12", "fig13"):
    for _name in ("logit-norm", "weight-norm", "distance"):
        _column = _name.replace("-", "_")
        CASES[f"{_figure}-{_name}"] = (PHASES, changed(_column, 1.0 + np.sin(STEP / 9)))
for _figure in (*(f"fig{_n}" for _n in range(15, 22)), "full"):
    CASES[f"{_figure}-correlation"] = (PHASES, changed(ONES, 1 / PHASES.series[H]))
    CASES[f"{_figure}-proportional"] = (PHASES, scaled(PHASES, ONES, np.exp(STEP / 100)))
for _figure in ("fig18", "fig20"):
    CASES[f"{_figure}-constant-grows"] = (
        two_seeds("batch_size", BATCHES, H, by_inverse_size),
        two_seeds("batch_size", BATCHES, H, even),
    )
for _figure in ("fig22", "fig23"):
    CASES[f"{_figure}-jacobian"] = (
        two_seeds("lr", LRS, ONES, even),
        two_seeds("lr", LRS, ONES, level),
    )
for _figure in ("fig24", "fig25"):
    CASES[f"{_figure}-jacobian"] = (
        two_seeds("batch_size", BATCHES, ONES, by_size),
        two_seeds("batch_size", BATCHES, ONES, by_inverse_size),
    )


def companions(by: str, values: tuple, column: str, power: float, **fields) -> list[Run]:
    """Two seeds for each value of η or S, a column multiplied by a power of it."""
    runs = [break_even_run(**{by: v}, seed=s, **fields) for s in (0, 1) for v in values]
    if column == "hessian_trace":
        runs = [scaled(r, f"{column}_error", getattr(r.config, by) ** power) for r in runs]
    return [scaled(run, column, getattr(run.config, by) ** power) for run in runs]


def place(run: Run, by: str) -> float:
    """η or 1/S."""
    return run.config.lr if by == "lr" else 1 / run.config.batch_size


def both_conjectures(by: str, values: tuple, **fields) -> list[Run]:
    """Two seeds of ResNet-32 with norms that fall as η or 1/S rises, and traces that fall less."""
    runs = [
        break_even_run(**{by: v}, seed=seed, network="resnet32", **fields)
        for seed in (0, 1)
        for v in values
    ]
    norms = 0.0 if by == "lr" else -1.0  # made-up columns fall like 1/η
    for column, power in (
        ("covariance_norm", norms),
        ("sharpness", norms),
        ("covariance_trace", norms + 0.5),
        ("hessian_trace", norms + 0.5),
        ("hessian_trace_error", norms + 0.5),
    ):
        runs = [scaled(run, column, place(run, by) ** power) for run in runs]
    return runs


def shifted_accuracy(share: float) -> Run:
    """The training accuracy is the given share where ‖H‖ is largest, and nearly so for λ_K."""
    run = break_even_run()
    accuracy = run.series["train_accuracy"]
    return with_columns(
        run, train_accuracy=accuracy - accuracy[run.series["sharpness"].idxmax()] + share
    )


EARLY = break_even_run()


def two_paths(**fields) -> list[Run]:
    return [path_run(lr, seed, **fields) for seed in (0, 1) for lr in (0.1, 0.01)]


CASES |= {
    "be01-part": (two_paths(), two_paths(away=0.0)),
    "be01-distance": (two_paths(), two_paths(power=-1.0)),
    "be02-rise": (EARLY, with_columns(EARLY, covariance_norm=1 / EARLY.series["covariance_norm"])),
    "be02-width": (EARLY, scaled(EARLY, "step_width", 1.6)),
    "be03-early": (shifted_accuracy(0.6), shifted_accuracy(0.75)),
    "be11-early": (shifted_accuracy(0.75), shifted_accuracy(0.6)),
    "be06-correlation": (
        EARLY,
        with_columns(EARLY, covariance_norm_single=1 / EARLY.series["covariance_norm_single"]),
    ),
}
for _key, _column, _up in (
    ("k", "covariance_norm", False),
    ("h", "sharpness", False),
    ("conditioning", "covariance_trace", True),
    ("tracek", "covariance_trace", False),
    ("traceh", "hessian_trace", False),
    ("conditioningh", "hessian_trace", True),
):
    # made-up runs have columns that fall like 1/η, and so a constant Tr K/λ_K
    _good, _bad = (0.5, -0.5) if _up else (0.0, 2.0)
    if _key in ("k", "h"):
        CASES[f"be02-max-{_key}"] = (
            companions("lr", (0.02, 0.2), _column, _good),
            companions("lr", (0.02, 0.2), _column, _bad),
        )
    for _short, _network, _size in (("simple", "simple_cnn_be", 128), ("mlp", "mlp_300_100", 64)):
        _fields = {"network": _network, "batch_size": _size}
        CASES[f"be03-{_key}-{_short}"] = (
            companions("lr", (0.01, 0.1), _column, _good, **_fields),
            companions("lr", (0.01, 0.1), _column, _bad, **_fields),
        )
    CASES[f"be11-{_key}-lr"] = (
        companions("lr", (0.1, 0.5), _column, _good, batch_size=128),
        companions("lr", (0.1, 0.5), _column, _bad, batch_size=128),
    )
    _sign = -0.5 if _up else 0.5
    for _short, _network, _lr in (
        ("simplebatch", "simple_cnn_be", 0.1),
        ("batch", "mlp_300_100", 0.05),
    ):
        _fields = {"network": _network, "lr": _lr}
        CASES[f"be03-{_key}-{_short}"] = (
            companions("batch_size", (16, 64, 256), _column, _sign, **_fields),
            companions("batch_size", (16, 64, 256), _column, -_sign, **_fields),
        )
    CASES[f"be11-{_key}-batch"] = (
        companions("batch_size", (32, 512), _column, _sign, lr=0.5),
        companions("batch_size", (32, 512), _column, -_sign, lr=0.5),
    )


def batch_norm(column: str = "step_width", power: float = 0.0, plain: float = 1.0) -> list[Run]:
    """Two seeds over η with batch normalization, whose λ_K falls from 40/η but for the smallest η,
    a column multiplied by a power of η; without, a column multiplied by ``plain``."""
    runs = companions("lr", (0.001, 0.1, 1.0), column, power, network="mlp_300_100_bn")
    step = runs[0].series["step"]
    for run in runs:
        lr = run.config.lr
        fall = np.exp(-step / 20) if lr > 0.001 else 1.0 + 0 * step
        for name in ("covariance_norm", "covariance_trace"):
            run.series[name] = (40 if name == "covariance_norm" else 400) / lr * fall
        if column in ("covariance_norm", "covariance_trace"):
            run.series[column] *= lr**power
    without = [break_even_run(0.01, seed, network="mlp_300_100") for seed in (0, 1)]
    without += [break_even_run(1.0, seed, network="mlp_300_100") for seed in (0, 1)]
    for run in without:
        if run.config.lr == 1.0:
            run.series["train_accuracy"] = 0.15 * plain
    if column in runs[0].series:
        without = [scaled(run, column, plain) for run in without]
    return [*runs, *without]


CASES |= {
    "be05-k": (batch_norm(), batch_norm("covariance_norm", 2.0)),
    "be05-h": (batch_norm(), batch_norm("sharpness", 2.0)),
    "be05-conditioning": (
        batch_norm("covariance_trace", 0.5),
        batch_norm("covariance_trace", -0.5),
    ),
    "be05-tracek": (batch_norm(), batch_norm("covariance_trace", 2.0)),
    "be05-diverges": (batch_norm(), batch_norm(plain=3.0)),
    "be05-small-lr": (batch_norm(), batch_norm("gradient_over_top", plain=0.5)),
    "be05-decays": (
        batch_norm(),
        [
            with_columns(run, covariance_norm=run.series["covariance_norm"].iloc[0])
            for run in batch_norm()
        ],
    ),
    "be05-scale": (
        batch_norm(),
        [with_columns(run, last_scale_norm=10 + run.series["step"]) for run in batch_norm()],
    ),
}
SHARP = sharpest_run()
FALLEN = PHASES.series["train_accuracy"] - 0.1 * ((STEP > 100) & (STEP % 60 == 0))


def each(by: str, values: tuple, height: float = 0.0, level: float = 0.0, **fields) -> list[Run]:
    """Two seeds for each value of a field; the height of the eigenvalues and the level of the loss
    go as powers of its place among the values, from one."""
    return [
        sharpest_run(**{by: v}, seed=seed, height=k**height, level=k**level, **fields)
        for k, v in enumerate(values, 1)
        for seed in (0, 1)
    ]


def nudged(height: float, level: float) -> list[Run]:
    rules = ({}, *({"regularizer": "nudged", "sharpest": k} for k in (1, 5)))
    return [
        sharpest_run(seed=seed, height=n**height, level=n**level, **rule)
        for n, rule in enumerate(rules, 1)
        for seed in (0, 1)
    ]


def variant(regularizer: str, height: float, level: float) -> list[Run]:
    rule = {"regularizer": regularizer, "sharpest": 1, "regularizer_from": 50}
    return [
        run
        for seed in (0, 1)
        for run in (
            sharpest_run(seed=seed),
            sharpest_run(seed=seed, height=height, level=level, **rule),
        )
    ]


def later_peak(runs: list[Run]) -> list[Run]:
    """Time runs backwards."""
    return [with_arrays(run, top_values=run.arrays["top_values"][::-1]) for run in runs]


def losses(run: Run, factor) -> Run:
    return with_arrays(run, surfaces=run.arrays["surfaces"] * np.reshape(factor, (-1, 1, 1)))


ONCE_IN_THREE = with_arrays(
    SHARP,
    loss_changes=SHARP.arrays["loss_changes"] * np.where(np.arange(51) % 3, -1, 1)[:, None],
)
ONLY = variant("sharpest_only", 0.5, 1.0)


def like_nudged(run: Run) -> Run:
    rule = {"regularizer": "nudged", "sharpest": 5, "gamma": 0.01}
    return dataclasses.replace(run, config=run.config.replace(**rule))


NUDGED_STEPS = [ONCE_IN_THREE, like_nudged(SHARP)]
RISING = [losses(run, np.where(np.arange(51) > 25, 20.0, 1.0)) for run in ONLY[1::2]]
CASES |= {
    "sd01-rise": (SHARP, with_arrays(SHARP, top_values=SHARP.arrays["top_values"] ** 0.2)),
    "sd01-peak": (SHARP, later_peak([SHARP])),
    "sd03-instability": (changed("train_accuracy", FALLEN), PHASES),
    "sd05-aligned": (
        SHARP,
        with_arrays(SHARP, gradient_cosines=SHARP.arrays["gradient_cosines"] / 20),
    ),
    "sd05-lr": (
        [
            with_arrays(run, gradient_cosines=run.config.lr * run.arrays["gradient_cosines"])
            for run in each("lr", (0.01, 0.05, 0.2), 1)
        ],
        each("lr", (0.01, 0.05, 0.2), 1),
    ),
    "sd06-too-long": (
        SHARP,
        ONCE_IN_THREE,
    ),
    "sd06-minimum": (
        SHARP,
        ONCE_IN_THREE,
    ),
    "sd06-flatter": (
        SHARP,
        with_arrays(SHARP, surfaces=SHARP.arrays["surfaces"][:, [0, 0, 1]]),
    ),
    "sd20-too-long": (NUDGED_STEPS, [SHARP, like_nudged(ONCE_IN_THREE)]),
    "sd20-minimum": (NUDGED_STEPS, [SHARP, like_nudged(ONCE_IN_THREE)]),
    "sd07-only": (ONLY[::2] + RISING, ONLY),
    "sd07-without": (variant("nudged", 2.0, 1.1), variant("nudged", 2.0, 3.0)),
    "sd08-faster": (nudged(0, -1), nudged(0, 0)),
    "sd08-sharper": (nudged(1, 0), nudged(-1, 0)),
    "sd08-frobenius": (nudged(1, 0), nudged(-1, 0)),
    "sd13-momentum": (
        each("momentum", (0.0, 0.9), -1),
        each("momentum", (0.0, 0.9), 1),
    ),
}


def with_and_without_norm(fall: float, fall_without: float) -> list[Run]:
    """Two seeds with batch normalization and without, whose training accuracy falls once."""
    runs = []
    for seed in (0, 1):
        for network, points in (("mlp_300_100", fall_without), ("mlp_300_100_bn", fall)):
            run = sharpest_run(seed=seed, network=network)
            late = run.series["step"] == 50
            accuracy = run.series["train_accuracy"] - points * late
            runs.append(with_columns(run, train_accuracy=accuracy))
    return runs


def stages(height: float, accuracy: float) -> list[Run]:
    """Two seeds for three lengths of the first stage; λ_1 and accuracy as powers of its place."""
    runs = each("lr_decay_at", (10, 20, 30), height, lr_decay=0.1)
    place = {10: 1, 20: 2, 30: 3}
    return [
        scaled(run, "test_accuracy", 0.5 * place[run.config.lr_decay_at] ** accuracy)
        for run in runs
    ]


def by_gamma(height: float, level: float = 0.0, **fields) -> list[Run]:
    """Two seeds of SGD and of Nudged-SGD with two γ; λ_1 and the loss as powers of the place."""
    rules = ({}, *({"regularizer": "nudged", "sharpest": 5, "gamma": g} for g in (0.1, 0.01)))
    return [
        sharpest_run(seed=seed, height=n**height, level=n**level, **rule, **fields)
        for n, rule in enumerate(rules, 1)
        for seed in (0, 1)
    ]


for _short, _momentum, _other in (("lr", 0.0, 0.9), ("momentum", 0.9, 0.0)):
    for _key in ("sharper", "frobenius"):
        CASES[f"sd19-{_short}-{_key}"] = (
            by_gamma(1, momentum=_momentum) + by_gamma(-1, momentum=_other),
            by_gamma(-1, momentum=_momentum) + by_gamma(1, momentum=_other),
        )
CASES |= {
    "sd09-stable": (with_and_without_norm(0.1, 0.3), with_and_without_norm(0.25, 0.3)),
    "sd12-sharpness": (stages(-1, 0), stages(1, 0)),
    "sd12-accuracy": (stages(0, 0.5), stages(0, -0.5)),
    "sd22-faster": (by_gamma(0, -1), by_gamma(0, 1)),
    "sd22-sharper": (by_gamma(1), by_gamma(-1)),
}
for _figure, _by, _values, _short, _fields in (
    ("sd04", "lr", (0.01, 0.05, 0.2), "lr", {}),
    ("sd04", "batch_size", (512, 128, 32), "batch", {"lr": 0.05}),
    ("sd04words", "lr", (0.5, 1.0, 2.0), "lr", {}),
    ("sd04words", "batch_size", (512, 128, 32), "batch", {"lr": 1.0}),
    ("sd21", "lr", (0.2, 0.5, 1.0), "lr", {}),
    ("sd21", "batch_size", (512, 128, 32), "batch", {"lr": 0.5}),
):
    for _key in ("first", "second"):
        # made-up eigenvalues go as 1/η
        CASES[f"{_figure}-{_key}-{_short}"] = (
            each(_by, _values, -1, **_fields),
            each(_by, _values, 4, **_fields),
        )
    CASES[f"{_figure}-earlier-{_short}"] = CASES[f"{_figure}-earlier-second-{_short}"] = tuple(
        [
            sharpest_run(**{_by: v}, seed=seed, peak=peak, **_fields)
            for v, peak in zip(_values, order, strict=True)
            for seed in (0, 1)
        ]
        for order in ((60, 40, 20), (20, 40, 80) if _short == "lr" else (2, 8, 90))
    )


def initialized(run: Run, init: str) -> Run:
    return dataclasses.replace(run, config=run.config.replace(init=init))


for _key, _same in (
    ("start", "fig02-start"),
    ("rise", "fig02-rise"),
    ("phase-1", "fig05-phase-1"),
    ("level", "full-level"),
):
    CASES[f"init-{_key}"] = tuple(
        [PHASES, initialized(case, "kaiming_normal")] for case in CASES[_same]
    )
for _by, _values, _short, _fields in (
    ("lr", (0.01, 0.05, 0.1), "lr", {}),
    ("batch_size", (512, 128, 32), "batch", {"lr": 0.05}),
):
    for _key, _network in (("sd04", "resnet32"), ("sd10", "vgg"), ("sd11", "resnet32_bn")):
        CASES[f"unrun-{_key}-{_short}"] = tuple(
            [
                sharpest_run(
                    **{_by: v}, seed=seed, peak=peak, height=h, network=_network, **_fields
                )
                for v, peak, h in zip(_values, (60, 40, 2), heights, strict=True)
                for seed in (0, 1)
            ]
            for heights in ((1, 0.5, 0.25), (1, 6, 36))
        )
    CASES[f"unrun-be-resnet32-{_short}"] = (
        both_conjectures(_by, _values, **_fields),
        [
            scaled(run, "sharpness", place(run, _by) ** 3)
            for run in both_conjectures(_by, _values, **_fields)
        ],
    )


def test_every_claim_on_runs_has_a_run_that_meets_it_and_one_that_does_not():
    assert set(CASES) == {claim.id for claim in ON_RUNS}


@pytest.mark.parametrize("claim_id", CASES)
def test_the_criterion_tells_a_run_that_meets_it_from_one_that_does_not(claim_id):
    good, bad = CASES[claim_id]
    assert holds(claim_id, good)
    assert not holds(claim_id, bad)


def test_detrending_removes_a_slow_trend_and_keeps_an_oscillation():
    step = np.arange(201)
    trend, wave = np.exp(step / 100), np.exp(0.1 * np.sin(step))
    slow, both = criteria.detrended_log(trend), criteria.detrended_log(trend * wave)
    inner = slice(25, -25)  # a running median of 51 steps is one-sided nearer to the ends
    assert np.abs(slow[inner]).max() < 1e-12
    assert np.std(both[inner]) == pytest.approx(0.1 / 2**0.5, rel=0.1)


def test_correlations_are_told_for_each_width_of_the_running_median_and_window():
    run = with_columns(SGD, sharpness=SGD.series["sharpness"].where(SGD.series["step"] < 1500, 1.0))
    table = criteria.correlations_by_width(run, widths=(5, 11))
    assert [row[0] for row in table] == ["5", "11"] and [row[3] for row in table] == ["–", "–"]
    for row in table:
        for told, start in zip(row[1:3], (0, 1000), strict=True):
            part = run.series[run.series["step"].between(start, start + 200)]
            log = np.log(part[["sharpness", "jacobian_norm_sq"]])
            trend = log.rolling(int(row[0]), center=True, min_periods=1).median()
            assert float(told) == pytest.approx((log - trend).corr().iloc[0, 1], abs=0.005001)
    assert len({told for row in table for told in row[1:3]}) == 4


# -- what cannot be decided ------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ON_RUNS, ids=lambda claim: claim.id)
@pytest.mark.parametrize("damage", ["no run", "no columns", "only NaN"])
def test_a_claim_without_its_data_has_no_verdict_but_the_reason(claim, damage):
    run = {"fig03": SGD, "thm2": GD, "alg2": GD, "fig02": GD}.get(claim.figure, PHASES)
    nothing = run.series[["step"]]
    nan = run.series.assign(**{name: np.nan for name in run.series.columns if name != "step"})
    runs = {
        "no run": [],
        "no columns": [dataclasses.replace(run, series=nothing, arrays={})],
        "only NaN": [
            dataclasses.replace(
                run,
                series=nan,
                arrays={
                    k: v if k.endswith(".steps") else v * np.nan for k, v in run.arrays.items()
                },
            )
        ],
    }[damage]
    verdict = claims.judge(claim, runs, "laptop")
    missing = damage == "no run" or verdict.note.startswith("no run")
    assert verdict.verdict == ("not run" if missing else "not decided") and verdict.note


def test_a_run_cut_short_by_divergence_is_judged_on_what_there_is_and_says_so():
    provenance = {**SGD.provenance, "status": "diverged", "diverged_at": 150}
    run = dataclasses.replace(SGD, series=SGD.series.head(150), provenance=provenance)
    verdicts = {v.claim.id: v for v in claims.evaluate("fig03", [run], "laptop")}
    assert verdicts["fig03-correlation-left"].note.endswith("diverged at step 150")
    assert verdicts["fig03-threshold"].verdict == "not decided"


def cut(run: Run, share: float) -> Run:
    """The run as a divergence at that share of its steps leaves it."""
    stop = share * run.config.steps
    arrays = {}
    for name, values in run.arrays.items():
        if not name.endswith(".steps"):
            steps = run.arrays[f"{name}.steps"]
            kept = steps <= stop
            path = name == "trajectory_gram"
            arrays[name] = values[np.ix_(kept, kept)] if path else values[kept]
            arrays[f"{name}.steps"] = steps[kept]
    series = run.series[run.series["step"] <= stop]
    provenance = {**run.provenance, "status": "diverged", "diverged_at": int(stop)}
    return dataclasses.replace(run, series=series, arrays=arrays, provenance=provenance)


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize("claim", ON_RUNS, ids=lambda claim: claim.id)
def test_runs_that_diverged_are_judged_on_numbers_or_not_at_all(claim, share):
    good = CASES[claim.id][0]
    runs = [good] if isinstance(good, Run) else good
    for which in ({0}, {len(runs) - 1}, set(range(len(runs)))):
        some = [cut(run, share) if k in which else run for k, run in enumerate(runs)]
        verdict = claims.judge(claim, some, "laptop")
        for text in (verdict.measured, *(found.value for _, found in verdict.readings)):
            assert not re.search(r"\bnan\b", text), verdict


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "if_met", "if_not"),
    [
        ("smoke", "not judged", "not judged"),
        ("laptop", "reproduced at reduced scale", "not reproduced"),
        ("paper", "reproduced", "not reproduced"),
    ],
)
def test_the_verdict_depends_on_the_criterion_and_the_scale(scale, if_met, if_not):
    for run, expected in ((SGD, if_met), (CASES["fig03-threshold"][1], if_not)):
        verdicts = {v.claim.id: v for v in claims.evaluate("fig03", [run], scale)}
        assert verdicts["fig03-threshold"].verdict == expected
        assert "2/η" in verdicts["fig03-threshold"].measured


def test_unknown_figures_and_scales_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"fig02.*got 'fig99'"):
        claims.evaluate("fig99", [], "laptop")
    with pytest.raises(ValueError, match=r"smoke, laptop, paper; got 'huge'"):
        claims.evaluate("fig02", [], "huge")


# -- live claims -----------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", LIVE, ids=lambda claim: claim.id)
def test_claims_that_need_no_run_hold_as_the_page_is_built(claim):
    verdict = claims.judge(claim, [], "laptop")
    assert verdict.verdict == "reproduced", verdict


@pytest.mark.parametrize(
    "check",
    [
        live_checks.equation_1,
        live_checks.equation_4,
        live_checks.equation_5,
        live_checks.equation_12,
        live_checks.fisher_is_logit_hessian,
    ],
)
def test_a_wrong_logit_hessian_is_noticed(monkeypatch, check):
    right = logits.logit_hessian
    monkeypatch.setattr(logits, "logit_hessian", lambda p: right(p) * (1 + 1e-9))
    assert not check([]).holds


@pytest.mark.parametrize("check", [live_checks.equation_2, live_checks.equation_3])
def test_a_wrong_softmax_is_noticed_by_the_checks_of_its_derivatives(monkeypatch, check):
    right = live_checks.softmax
    monkeypatch.setattr(live_checks, "softmax", lambda z: right((1 + 1e-9) * z))
    assert not check([]).holds


@pytest.mark.parametrize("check", [live_checks.algorithm_1, live_checks.algorithm_1_deflated])
def test_a_power_iteration_that_ends_at_twice_the_tolerance_is_noticed(monkeypatch, check):
    right = power_iteration.power_iterates
    monkeypatch.setattr(power_iteration, "power_iterates", lambda *a, **k: right(*a, **k) + 2e-5)
    monkeypatch.setattr(live_checks, "_power", live_checks._power.__wrapped__)
    assert not check([]).holds


def dimension_off_by_one(values, classes):
    return values * (classes - 1) / classes


def six_standard_errors_off(values, classes):
    return values + 6 * values.std(ddof=1) / len(values) ** 0.5


@pytest.mark.parametrize("change", [dimension_off_by_one, six_standard_errors_off])
def test_a_wrong_estimate_of_the_norm_of_the_jacobian_is_noticed(monkeypatch, change):
    right = live_checks._norm_estimates
    monkeypatch.setattr(
        live_checks, "_norm_estimates", lambda j, u: change(right(j, u), u.shape[1])
    )
    assert not live_checks.ejr_estimator([]).holds


@pytest.mark.parametrize("factor", [0.9999, 1.0001])
def test_a_wrong_first_order_of_explicit_regularization_is_noticed(monkeypatch, factor):
    right = live_checks._first_order
    monkeypatch.setattr(live_checks, "_first_order", lambda *args: factor * right(*args))
    assert not live_checks.ejr_first_order([]).holds


def test_a_wrong_secular_function_is_noticed_by_the_checks_of_figure_1(monkeypatch):
    right = logits.secular
    monkeypatch.setattr(logits, "secular", lambda p, lam: -right(p, lam))
    assert not live_checks.poles([]).holds
    assert not live_checks.roots_interlace([]).holds


def test_a_violation_that_verify_theorem_1_reports_refutes_the_claim(monkeypatch):
    right = theorems.verify_theorem_1

    def violated(p):
        return [dataclasses.replace(check, slack=-1.0, passed=False) for check in right(p)]

    monkeypatch.setattr(theorems, "verify_theorem_1", violated)
    verdicts = claims.evaluate("thm1", [], "laptop")
    assert [v.verdict for v in verdicts] == ["not reproduced"] * 4


def test_the_claims_of_theorem_1_tell_the_worst_slack_of_each_statement(monkeypatch):
    """Deflation, which has to hold exactly, has the least room and must not hide the roots."""

    def known(p):
        slack = -1e-17 * p.shape[1]
        return [
            theorems.Check("Theorem 1 (a): roots", slack, "", True, len(p), 2e-15),
            theorems.Check("Theorem 1 (a), deflation: ties", -0.0, "", True, len(p), 0.0),
        ]

    monkeypatch.setattr(theorems, "verify_theorem_1", known)
    assert live_checks.theorem_1("a", []).value == (
        "roots: worst slack -1e-15, rounding allows -2e-15; ties: worst slack 0, rounding allows 0"
    )


def test_the_battery_holds_probability_vectors_with_the_special_cases():
    for p in live_checks.battery():
        assert np.abs(p.sum(axis=1) - 1).max() < 1e-12 and p.min() >= 0
        assert (p == 1 / p.shape[1]).all(axis=1).any() and (p.max(axis=1) == 1).any()


@pytest.mark.parametrize("name", ["theorem_2_min_star", "theorem_2_min_slack"])
def test_with_the_squared_loss_no_weight_leaves_its_interval(name):
    run = phase_run(loss="squared")
    assert holds("thm2-squared-loss", run)
    assert not holds("thm2-squared-loss", with_columns(run, **{name: -1e-3}))


def test_the_identity_of_theorem_2_counts_for_an_eigenvector_only():
    assert holds("thm2-identity", GD)
    assert not holds("thm2-identity", with_columns(GD, theorem_2_residual=2e-3))


@pytest.mark.parametrize("claim", ON_RUNS, ids=lambda claim: claim.id)
def test_at_paper_scale_there_are_the_seeds_that_a_criterion_asks_for(claim):
    if any(words in claim.criterion for words in ("over seeds", "every run of one", "every seed")):
        settings = Counter(c.replace(seed=0) for c in experiments.configs(claim.figure, "paper"))
        assert min(settings.values()) >= 2


@pytest.mark.parametrize("arm", ["none", "ejr_v1"])
def test_falling_back_is_compared_at_the_seeds_that_both_arms_have(arm):
    """A seed of one arm alone counts for nothing, one seed of both is no verdict."""
    runs = wide("wrn10_2", "wrn10_2_cifar100", fall=0.01)
    few = [r for r in runs if r.config.regularizer != arm or r.config.seed == 0]
    assert len(few) < len(runs)
    (verdict,) = (v for v in claims.evaluate("fig07", few, "laptop") if v.claim.id == "fig07-decay")
    assert verdict.verdict == "not decided" and "one seed only" in verdict.note
    without = [r for r in runs if r.config.regularizer != arm]
    (verdict,) = (
        v for v in claims.evaluate("fig07", without, "laptop") if v.claim.id == "fig07-decay"
    )
    assert verdict.verdict in ("not run", "not decided") and verdict.note


def test_one_seed_is_no_likeness_and_one_example_is_no_class():
    (like,) = (c for c in claims.CLAIMS if c.id == "fig24-512-like-gd")
    single = claims.judge(like, full_and_mini(0.9)[::2], "laptop")
    assert single.verdict == "not decided" and "one seed" in single.note
    (pairs,) = (c for c in claims.CLAIMS if c.id == "fig30-pairs")
    few = claims.judge(pairs, [entries("class_counts", put(2, 1))], "laptop")
    assert few.verdict == "not decided" and few.note == "deer–bird: fewer than two examples of bird"


# -- the scoreboard --------------------------------------------------------------------------------


def stored_smoke(tmp_path, figure: str, source: Run) -> Run:
    """The figure's smoke configuration with made-up numbers, saved."""
    run = dataclasses.replace(source, config=experiments.configs(figure, "smoke")[0])
    store.save(run, tmp_path)
    return run


def test_the_scoreboard_lists_every_claim_and_trains_nothing(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("the scoreboard must not train")

    monkeypatch.setattr(experiments, "runs", forbidden)
    board = claims.scoreboard("laptop", str(tmp_path))
    assert sorted(board["id"]) == sorted(claim.id for claim in claims.CLAIMS)
    assert set(board["verdict"]) == {"reproduced", "not run"}
    note = board.set_index("id").loc["fig02-rise", "note"]
    assert note.endswith("is not stored") and note.startswith("cifar10-")


def test_the_scoreboard_reads_stored_runs(tmp_path):
    stored_smoke(tmp_path, "fig02", GD)
    board = claims.scoreboard("smoke", str(tmp_path)).set_index("id")
    assert board.loc["fig02-rise", "verdict"] == "not judged"
    assert "peak" in board.loc["fig02-rise", "measured"]


def test_a_damaged_run_reads_not_run_with_the_damage_and_no_path_of_this_machine(tmp_path):
    run = stored_smoke(tmp_path, "fig02", GD)
    (tmp_path / run.config.name / "series.parquet").write_bytes(b"cut off")
    board = claims.scoreboard("smoke", str(tmp_path)).set_index("id")
    note = board.loc["fig02-rise", "note"]
    assert board.loc["fig02-rise", "verdict"] == "not run"
    assert "SHA-256" in note and str(tmp_path) not in note


def test_the_scoreboard_marks_the_claims_that_another_reading_turns(tmp_path, monkeypatch):
    turned = property(lambda verdict: verdict.claim.id == "fig02-rise")
    monkeypatch.setattr(claims.Verdict, "turned", turned)
    board = claims.scoreboard("laptop", str(tmp_path))
    assert board.loc[board["reading"] == claims.TURNED, "id"].tolist() == ["fig02-rise"]


def test_the_correlation_of_the_jacobian_alone_stands_beside_that_with_the_impurity():
    runs = [PHASES, scaled(PHASES, ONES, np.exp(STEP / 100))]
    alone = [np.corrcoef(np.log(run.series[H]), np.log(run.series[ONES]))[0, 1] for run in runs]
    text = evolution_criteria.relation_correlation(runs).value.replace("−", "-")
    low, high = sorted(alone)
    assert text.endswith(f"; {low:.3g} to {high:.3g} with ‖⟨J⟩1̂‖² alone")
    squared = evolution_criteria.relation_correlation([phase_run(loss="squared")]).value
    assert "alone" not in squared


def test_what_one_seed_shows_is_told_with_the_refusal():
    one_each = [phase_run(lr=lr) for lr in (0.02, 0.04)]
    with pytest.raises(criteria.NotMeasured, match=r"one seed .*: η = 0\.02: [\d.]+; η = 0\.04: "):
        evolution_criteria.ordered_plateaus(one_each, H, "lr", False)
    with pytest.raises(criteria.NotMeasured, match=r"one seed .*‖H‖: × .* from B = 32"):
        evolution_criteria.like_full_batch(full_and_mini(0.9)[::2])


def test_accuracy_counts_from_the_step_on_that_the_text_names():
    since = STEP[PHASES.series[H] > 0.5 * evolution_criteria.plateau(PHASES, H)].max() + 1
    run = changed("test_accuracy", np.where(since > STEP, 0.9, 0.885))
    found = evolution_criteria.late_sharpness([run])
    assert f"from step {since} on up to 1.5 points below its maximum of 90.0%" in found.value
    assert found.holds


def test_the_alignment_of_examples_stands_beside_that_of_an_untrained_network():
    run = with_columns(
        PHASES, descent_cosine_correct=0.91 + STEP / 1e4, descent_cosine_mean=STEP / 1e3 - 0.1
    )
    text = subspace_criteria.example_gradient([run]).value
    assert "0.91 at step 0; mean over all examples −0.10 there, 0.30 at step 400" in text


def test_numbers_are_told_without_powers_of_ten_above_one():
    assert criteria.span([14_823.0, -73_100.0, 442.0], ".3g") == "−73,100 to 14,800"
    assert criteria.span([0.00123, 0.5], ".3g") == "0.00123 to 0.5"
    assert criteria.span([999.96, 1000.2], ".3g") == "1,000"


def test_seeds_are_counted_setting_by_setting():
    runs = [phase_run(lr=lr, seed=seed) for lr in (0.02, 0.04) for seed in (0, 1, 2)]
    compare = partial(evolution_criteria.ordered_plateaus, name=H, by="lr", rising=False)
    assert compare(runs).value.endswith("(3 seeds)")
    assert compare(runs[:-1]).value.endswith("(2 to 3 seeds)")


@pytest.mark.parametrize(("gap", "holds"), [(2.9, True), (2.8, None), (-2.8, None), (-2.9, False)])
def test_estimates_are_in_order_beyond_two_standard_errors_of_their_difference(gap, holds):
    runs = [phase_run(lr=lr, seed=seed) for seed in (0, 1) for lr in (0.01, 0.02)]

    def compare():
        level = {0.01: 10.0, 0.02: 10.0 + gap}  # 2 (1 + 1)^½ = 2.83
        return evolution_criteria.ordered(
            runs, "lr", True, lambda run: level[run.config.lr], error=lambda run: 1.0
        )

    if holds is None:
        with pytest.raises(criteria.NotMeasured, match="closer than 2 standard errors"):
            compare()
    else:
        found = compare()
        assert found.holds is holds
        assert "standard errors 1 (2 seeds" in found.value


def test_the_standard_errors_of_estimates_are_those_where_the_estimate_is_largest():
    run = break_even_run()
    largest = run.series["hessian_trace"].idxmax()
    step = int(run.series["step"][largest])
    errors = np.where(run.series["step"] == step, 3.0, 100.0)
    run = with_columns(run, hessian_trace_error=errors)
    sharpness = run.series["sharpness"][largest]
    assert companion_criteria.standard_error(run, "hessian_trace", step) == 3
    found = companion_criteria.standard_error(run, "hessian_conditioning", step)
    assert found == pytest.approx(3 / sharpness)
    assert companion_criteria.standard_error(run, "covariance_trace", step) == 0

    sharp = with_columns(sharpest_run(), hessian_frobenius_sq=16.0, hessian_frobenius_sq_error=2.0)
    assert (sharpest_criteria.frobenius_error(sharp) == 0.25).all()  # d√x = dx / 2√x


def test_the_largest_eigenvalues_stand_in_columns_of_either_matrix_by_step():
    values = {"hessian_values": np.array([[3.0, 2.0], [1.5, 1.0]])}
    values["gauss_newton_values"] = values["hessian_values"] - 0.5
    run = with_arrays(GD, **values, **{"hessian_values.steps": np.array([600, 1200])})
    header, table = subspace_criteria.largest_eigenvalues(run)
    assert header == ("i", "H, step 600", "G, step 600", "H, step 1200", "G, step 1200")
    assert table == [("1", "3", "2.5", "1.5", "1"), ("2", "2", "1.5", "1", "0.5")]
    assert subspace_criteria.largest_eigenvalues(GD) == (("i",), [])


def test_where_seeds_overlap_the_text_counts_those_in_order_by_themselves():
    heights = {0: (3.0, 2.0, 1.0), 1: (2.5, 2.4, 0.5), 2: (1.0, 2.0, 0.5)}
    runs = [
        phase_run(lr=lr, seed=seed)
        for seed in heights
        for lr in (0.01, 0.02, 0.04)
        if (lr, seed) != (0.04, 1)
    ]

    def compare(some, rising):
        def height(run):
            return heights[run.config.seed][round(np.log2(run.config.lr / 0.01))]

        return evolution_criteria.ordered(some, "lr", rising, height).value

    assert compare(runs, False).endswith("(2 to 3 seeds; in order in 1 of the 2 that all have)")
    assert compare(runs, True).endswith("in order in 0 of the 2 that all have)")
