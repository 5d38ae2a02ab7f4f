"""Each clause of a criterion counts: made-up runs that meet all clauses but one, or that only what
is no part of the criterion sets apart.

Beside the two cases of each claim in ``test_claims``, which could both do without a clause.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import (
    AHEAD,
    PHASE_ONSET,
    PHASE_PEAK,
    SWING,
    arm_run,
    break_even_run,
    path_gram,
    phase_run,
    sharpest_run,
)
from test_claims import (
    CASES,
    EARLY,
    GD,
    LRS,
    ONES,
    PHASES,
    SGD,
    SHARP,
    STEP,
    TOP,
    H,
    J,
    Runs,
    arch,
    batch_norm,
    changed,
    entries,
    even,
    full_and_mini,
    holds,
    impurity_that,
    later_peak,
    losses,
    parts,
    put,
    scaled,
    shifted_accuracy,
    simple_cnns,
    two_paths,
    two_seeds,
    variant,
    wide,
    with_and_without_norm,
    with_arrays,
    with_columns,
    with_outliers,
)

from ijrlib import claims, evolution_criteria
from ijrlib.config import RunConfig
from ijrlib.store import Run

S, G = SGD.series["step"], GD.series["step"]
IMPURITY = PHASES.series["impurity_mean"]
LATE = S > 1400  # of the three windows the last


def paths(*parts, network="6cnn"):
    """A run whose recorded path is made of steps (along, across), so many of each."""
    return with_arrays(phase_run(network=network), trajectory_gram=path_gram(*parts))


def layers(early):
    """One layer is ``early`` times as long at step 100, or the first measurement after it."""
    norms = np.array(PHASES.arrays["layer_norms"])
    norms[np.searchsorted(PHASES.arrays["layer_norms.steps"], 100), 2] = early * norms[0, 2]
    return with_arrays(PHASES, layer_norms=norms)


def growth(*slopes):
    """log‖⟨J⟩‖² with these slopes from step 0, 100, 250 and 325 on."""
    at = [0, 100, 250, 325, 400]
    log = np.concatenate([[0], np.cumsum(np.array(slopes) * np.diff(at))])
    return changed(J, np.exp(np.interp(STEP, at, log)))


def reached_at(step, level=60.0):
    return changed(H, np.where(step <= STEP, level, 1.0))


def tracked(*columns):
    return with_arrays(GD, tracked_impurity=np.stack(columns, axis=1))


def at_one(run, name, value, step=150):
    values = run.series[name].to_numpy(copy=True)
    values[run.series["step"] == step] = value
    return with_columns(run, **{name: values})


TIME = np.linspace(0, 1, 301)
OF_100 = GD.config.replace(dataset="cifar100", network="vgg_cifar100")
ENDS = np.arange(len(GD.arrays["algorithm_2_values"]))[:, None]
SQUARED = phase_run(loss="squared")
OTHER = phase_run(lr=0.02)
VALUES_2 = GD.arrays["algorithm_2_values"]

Edges = list[tuple[str, Runs, bool]]
EDGES: Edges = [
    # Figure 2
    (
        "fig02-bounds",
        with_arrays(GD, tracked_p1=np.array([[0.3]]), tracked_impurity=np.array([[0.35]])),
        False,
    ),  # ≤ p₁
    (
        "fig02-bounds",
        with_arrays(GD, tracked_p1=np.array([[0.3]]), tracked_impurity=np.array([[0.20]])),
        False,
    ),  # ≥ ½Gini
    (
        "fig02-bounds",
        with_arrays(GD, tracked_p1=np.array([[0.3]]), tracked_impurity=np.array([[0.25]])),
        True,
    ),
    ("fig02-start", impurity_that(lambda s: arch(s) - 0.02), False),
    (
        "fig02-start",
        dataclasses.replace(impurity_that(lambda s: 0.012 + 0 * s), config=OF_100),
        True,
    ),
    ("fig02-rise", impurity_that(lambda s: 0.1 + 0.09 * np.sin(np.pi * s)), False),
    ("fig02-path", tracked(arch(TIME), 0.1 + TIME, 0.1 + TIME), False),  # they do not fall
    ("fig02-path", tracked(arch(TIME), 0.3 - 0.2 * TIME, 0.3 - 0.2 * TIME), False),  # nor rise
    ("fig02-path", tracked(arch(TIME), 0.01 + 0 * TIME, 0.01 + 0 * TIME), False),  # own peaks
    # Figure 3
    (
        "fig03-factor-constant",
        scaled(SGD, H, np.exp(0.11 * np.random.default_rng(2).standard_normal(len(S)))),
        True,
    ),
    ("fig03-factor-drift", scaled(SGD, H, np.exp(-S / 100)), False),
    ("fig03-factor-drift", scaled(SGD, H, np.where(LATE, np.exp((S - 1500) / 100), 1)), False),
    ("fig03-threshold", scaled(SGD, H, 3.0), False),
    ("fig03-threshold", scaled(SGD, H, np.where(LATE, 0.3, 1)), False),
    ("fig03-threshold", scaled(SGD, H, np.where(S < 500, 0.1, 1)), True),
    ("fig03-lower-for-sgd", scaled(SGD, H, np.where(LATE, 1.5, 0.5)), False),
    ("fig03-lower-for-sgd", scaled(SGD, H, np.where(S < 500, 9, 0.5)), True),
    ("fig03-oscillation", with_columns(SGD, sharpness=np.where(LATE, S, SGD.series[H])), False),
    (
        "fig03-oscillation",
        with_columns(SGD, sharpness=np.where(S < 500, S + 1, SGD.series[H])),
        True,
    ),
    (  # swings on a slope
        "fig03-oscillation",
        with_columns(SGD, sharpness=50 + 0.2 * (S % 500) + 25 * (-1.0) ** S),
        False,
    ),
    # Theorem 2
    ("thm2-identity", at_one(GD, "theorem_2_identity", 2e-4), False),
    ("thm2-identity", at_one(GD, "theorem_2_residual", 2e-3), False),
    ("thm2-star", with_columns(GD, theorem_2_min_slack=-1e-3), False),
    ("thm2-star", with_columns(GD, theorem_2_min_slack=-5e-6), False),
    ("thm2-star", with_columns(GD, theorem_2_min_slack=-5e-7), True),
    ("thm2-bound", at_one(GD, "theorem_2_bound", 0.0), False),
    ("eq10-gauss-newton", with_columns(GD, gauss_newton_norm=1.5 * GD.series[H]), False),
    (
        "eq10-gauss-newton",
        with_columns(GD, gauss_newton_norm=np.where(G < 170, 0.1, 0.9) * GD.series[H]),
        True,
    ),
    (
        "eq12-trace-approximation",
        with_columns(GD, gauss_newton_trace=2.0, gauss_newton_trace_approximation=1.0),
        False,
    ),
    (
        "eq12-trace-approximation",
        with_columns(GD, gauss_newton_trace=2.0, gauss_newton_trace_approximation=2.6),
        False,
    ),
    ("alg2-norm", with_arrays(GD, algorithm_2_values=0.99 * VALUES_2), False),
    (
        "alg2-norm",
        with_arrays(GD, algorithm_2_values=np.where(ENDS == 1, 1.01, 1) * VALUES_2),
        False,
    ),
    ("thm2-squared-loss", at_one(SQUARED, "theorem_2_bound", 0.0), False),
    # Figures 4 and 26
    ("fig04-onset", paths((SWING, 100), (SWING, 200)), False),
    ("fig04-onset", paths((AHEAD, 100), ([(1, 0.5), (1, -0.5)], 200)), False),
    ("fig04-orthogonal", paths((AHEAD, 190), (SWING, 110)), True),
    ("fig04-orthogonal", paths((AHEAD, 100), ([(0.9, 0), (-1.1, 0)], 200)), False),
    ("fig26-3fcn-mnist", paths((AHEAD, 270), (SWING, 30), network="3fcn_mnist"), False),
    ("fig26-vgg", paths((AHEAD, 100), ([(0.9, 0), (-1.1, 0)], 200), network="vgg"), False),
    ("fig26-vgg", paths((SWING, 300), network="vgg"), False),
    # Figure 5, and the paper's own size
    ("full-onset", reached_at(40), False),
    ("full-onset", reached_at(250), False),
    ("full-level", scaled(PHASES, H, np.where(STEP > 120, 3, 1)), False),
    ("full-level", reached_at(250), True),
    ("fig05-phase-1", growth(0.04, 0.02, 0, 0), False),
    (
        "fig05-phase-1",
        with_columns(PHASES, **{J: PHASES.series[J].where((STEP <= 100) | (STEP % 10 == 0))}),
        True,
    ),
    ("fig05-phase-2", scaled(PHASES, H, np.where(STEP > 150, 0.5, 1)), False),
    ("fig05-phase-2", growth(0.04, 0.05, 0.06, 0.06), False),
    ("fig05-phase-3", growth(0.05, 0.05, 0.01, 0.02), False),
    ("fig05-phase-3", growth(0.05, 0.001, 0.05, 0.02), False),
    (
        "fig05-late-sharpness",
        scaled(PHASES, H, np.where((STEP > 300) & (STEP < 395), np.exp((STEP - 300) / 40), 1)),
        False,
    ),
    ("fig05-late-sharpness", scaled(PHASES, "test_accuracy", np.where(STEP > 300, 0.8, 1)), False),
    # plateaus
    (
        "fig06-lr-sharpness",
        two_seeds("lr", LRS, H, lambda lr, seed: 3.0 if lr == 0.04 else 1.0),
        False,
    ),
    (
        "fig24-jacobian",
        two_seeds("batch_size", (None, 512, 32), ONES, lambda b, seed: b or 1000),
        True,
    ),
    (
        "fig24-512-like-gd",
        [scaled(r, H, 0.25 if r.config.batch_size == 512 else 1) for r in full_and_mini(0.9)],
        False,
    ),
    ("fig24-512-like-gd", full_and_mini(0.5), True),
    ("fig06-lr-impurity", [PHASES, with_columns(OTHER, impurity_mean=0.1 + 0 * STEP)], False),
    ("fig06-lr-impurity", changed("impurity_mean", 0.3 * np.exp(-STEP / 100)), False),
    ("fig12-logit-norm", changed("logit_norm", np.where(STEP == 0, 1000.0, 1 + STEP)), False),
    ("fig13-logit-norm", changed("logit_norm", 1.0 + np.minimum(STEP, 200 - STEP / 2)), True),
    # the relation
    ("fig15-correlation", changed("impurity_mean", np.exp(-STEP / 10.0)), True),
    ("fig15-correlation", [PHASES, with_columns(OTHER, **{ONES: 1 / OTHER.series[H]})], False),
    ("fig15-proportional", [PHASES, scaled(OTHER, ONES, np.exp(STEP / 100))], False),
    ("fig15-proportional", scaled(PHASES, ONES, np.where(STEP > 280, 10, 1)), False),
    ("fig15-proportional", scaled(PHASES, ONES, np.where(STEP > 280, 0.1, 1)), False),
    (
        "fig32-correlation",
        with_columns(SQUARED, **{H: 50 + 10 * np.sin(STEP / 5), J: 50 + 10 * np.cos(STEP / 5)}),
        False,
    ),
    ("fig21-below-threshold", [scaled(PHASES, H, 0.5), OTHER], False),
    (
        "fig21-impurity-first",
        [changed("impurity_mean", np.where(STEP < TOP, 0.3, 0.1)), OTHER],
        False,
    ),
    # of two seeds with one η the first is not forgotten
    ("fig21-below-threshold", [PHASES, scaled(phase_run(seed=1), H, 0.5)], False),
    (
        "fig21-impurity-first",
        [PHASES, with_columns(phase_run(seed=1), impurity_mean=np.where(STEP < TOP, 0.3, 0.1))],
        False,
    ),
    (
        "fig21-impurity-first",
        changed("impurity_mean", np.where(STEP < TOP, 0.1 + 0.2 * STEP / TOP, 0.12)),
        True,
    ),
    # shares
    (
        "shares-level",
        parts("share_sharpness", lambda v: np.where(np.arange(len(v))[:, None] > 11, 0.3, 1) * v),
        False,
    ),
]


def both(name, *changes):
    def change(matrix):
        for one in changes:
            one(matrix)

    return entries(name, change)


def filled(*values):
    """The pairs of class means get these cosines, one after the other."""

    def change(matrix: np.ndarray) -> None:
        matrix[np.triu_indices(10, 1)] = np.concatenate([np.full(n, v) for n, v in values])

    return change


FEW = PHASES.arrays["q_sqrt_lambda.steps"]
COSINES = PHASES.arrays["class_mean_cosines"]


def first_column(entry, factor):
    values = np.array(PHASES.arrays["q_sqrt_lambda"])
    values[(slice(None), *entry)] *= factor
    return changed("q_sqrt_lambda", values)


def low_within(i: int, j: int) -> Run:
    return both("resultant_products", put(j, j, 0.1), put(i, j, 0.2), put(j, i, 0.2))


def counted(*bins):
    values = np.zeros((41, 9, 100))
    values[:, :, list(bins)] = 10
    return changed("stretch_counts", values)


EDGES += [
    (
        "fig08-two-entries",
        entries("q_sqrt_lambda", put(slice(2, 10), 0, 0.1)),
        True,
    ),  # squares, not sizes
    ("fig08-signs", entries("q_sqrt_lambda", put(3, 3, -0.13)), False),
    ("fig08-last-column", entries("q_sqrt_lambda", put(4, 9, -0.01)), False),
    ("fig08-diagonal", entries("q_sqrt_lambda", put(1, 1, 0.19)), False),
    ("fig08-subdiagonal", entries("q_sqrt_lambda", put(2, 1, -0.29)), False),
    (
        "fig27-dominance",
        first_column((slice(None), 0), np.where(FEW == 250, 0.3, 1)[:, None]),
        False,
    ),
    ("fig27-dominance", first_column((1, 0), np.exp((250 - FEW) / 100)), False),
    ("fig09-clusters", low_within(2, 4), False),
    ("fig09-clusters", entries("resultant_products", put(2, 4, 0.29)), False),
    ("fig09-clusters", entries("resultant_products", put(2, 4, 0.283)), True),
    ("fig09-orthogonal", entries("class_mean_cosines", filled((45, -0.4))), False),
    ("fig09-orthogonal", entries("class_mean_cosines", filled((23, 0.1), (22, 0.9))), True),
    ("fig09-negative-pairs", both("class_mean_cosines", put(0, slice(1, 4), -0.6)), False),
    ("fig09-negative-pairs", both("class_mean_cosines", put(0, slice(1, 3), -0.6)), False),
    ("fig28-orthogonal", entries("class_mean_cosines", put(slice(7), 0.4)), False),
    (
        "fig28-orthogonal",
        changed(
            "class_mean_cosines", np.where(FEW[:, None, None] > 280, 0.4 + 0 * COSINES, COSINES)
        ),
        False,
    ),
    ("fig29-concentrated", entries("class_counts", put(3, 5)), True),
    ("fig30-pairs", low_within(0, 8), False),
    ("fig30-pairs", entries("resultant_products", put(0, 8, 0.1)), False),
    ("fig30-pairs", entries("resultant_products", put(5, 1, 0.5)), True),
    (
        "fig10-gradient-top-eigenvector",
        changed("gradient_alignment", np.where(STEP == 5, 0.9, 0.1)),
        False,
    ),
    (
        "fig10-example-gradient",
        changed("descent_cosine_correct", np.where(STEP == 5, 0.99, 0.8)),
        False,
    ),
    ("fig31-subspace", changed("subspace_alignment_gradient", 0.6), False),
    ("eq32-number", with_outliers(10, 9, 3), True),
    ("eq32-number", with_outliers(11, 11, 10), False),
    ("eq32-number", with_outliers(8, 8, 9), False),
    ("eq32-outliers", scaled(PHASES, "between_class_norm", np.where(STEP == 5, 1, 0.5)), False),
    ("fig11-norms", counted(*range(10)), False),
    ("fig11-norms", counted(39), True),
    ("fig11-angles", changed("cos_sq_median", np.where(STEP == 5, 0.2, 0.02)), False),
]

K = "covariance_norm"
GOOD_PATHS, BAD_PATHS = two_paths(), two_paths(away=0.0)
E_STEP = EARLY.series["step"]


def coarse(run):
    """Every tenth of its predictions."""
    return with_arrays(run, **{k: v[::10] for k, v in run.arrays.items()})


def where(runs, which, **columns):
    return [with_columns(r, **columns) if which(r.config) else r for r in runs]


def bn(config: RunConfig) -> bool:
    return config.network.endswith("_bn")


LEVEL = EARLY.series[H] / EARLY.series[H].max()
AFTER = np.maximum(0, E_STEP - 40)
EDGES += [
    ("be01-part", GOOD_PATHS[:2] + BAD_PATHS[2:], False),
    ("be01-part", [r if r.config.lr < 0.05 else coarse(r) for r in two_paths(away=0.1)], False),
    ("be01-distance", GOOD_PATHS[:2] + two_paths(power=-1.0)[2:], False),
    ("be02-rise", [EARLY, CASES["be02-rise"][1]], False),
    (
        "be02-rise",
        with_columns(EARLY, **{H: LEVEL * np.exp(-AFTER / 5), K: LEVEL * np.exp(AFTER / 5)}),
        True,
    ),
    ("be02-rise", with_columns(EARLY, **{K: LEVEL**40}), True),
    ("be02-width", break_even_run(onset=80), True),
    ("be02-width", at_one(EARLY, "step_width", 100.0, step=100), True),
    ("be03-early", [shifted_accuracy(0.45), shifted_accuracy(0.65)], False),
    (
        "be03-early",
        with_columns(shifted_accuracy(0.6), **{K: np.where(E_STEP == 80, 1e6, EARLY.series[K])}),
        False,
    ),
    (
        "be06-correlation",
        with_columns(EARLY, covariance_norm_single=LEVEL**40, covariance_norm=LEVEL),
        True,
    ),
    (
        "be05-diverges",
        where(batch_norm(), lambda c: not bn(c) and c.lr == 1 and c.seed == 1, train_accuracy=0.6),
        False,
    ),
    (
        "be05-diverges",
        where(batch_norm(), lambda c: bn(c) and c.lr == 1 and c.seed == 1, train_accuracy=0.1),
        False,
    ),
    ("be05-small-lr", batch_norm("covariance_trace", plain=0.1), False),
    (
        "be05-small-lr",
        [
            scaled(
                scaled(r, K, 1 if bn(r.config) else 1000),
                "covariance_trace",
                1 if bn(r.config) else 1000,
            )
            for r in batch_norm()
        ],
        False,
    ),
    (
        "be05-small-lr",
        where(batch_norm(), lambda c: bn(c) and c.lr > 0.001, gradient_over_top=9.0),
        True,
    ),
    (
        "be05-small-lr",
        [at_one(r, "gradient_over_top", 9.0, 50) if bn(r.config) else r for r in batch_norm()],
        True,
    ),
    (
        "be05-decays",
        [
            at_one(r, K, 1e9, 60) if bn(r.config) and r.config.lr > 0.001 else r
            for r in batch_norm()
        ],
        True,
    ),
    (
        "be05-decays",
        where(
            batch_norm(),
            lambda c: bn(c) and c.lr > 0.001,
            covariance_norm=np.select([E_STEP == 0, E_STEP == 10], [1.0, 10.0], 0.8),
        ),
        False,
    ),
    (
        "be05-decays",
        where(batch_norm(), lambda c: bn(c) and c.lr == 0.1, covariance_norm=1.0),
        False,
    ),
    ("be05-scale", where(batch_norm(), bn, last_scale_norm=10 - E_STEP / 100), False),
    (
        "be05-scale",
        [
            with_columns(r, last_scale_norm=10 + (1 + (r.config.lr < 0.1)) * E_STEP / 100)
            if bn(r.config)
            else r
            for r in batch_norm()
        ],
        False,
    ),
    (
        "be05-scale",
        [
            with_columns(r, last_scale_norm=np.where(E_STEP == 2, 9.9, 10 + E_STEP / 100))
            if bn(r.config) and r.config.lr == 1
            else r
            for r in batch_norm()
        ],
        True,
    ),
]

Q = SHARP.arrays["top_values.steps"]


def grown(*factors):
    """Eigenvalues as multiples of their first values, from step to step, the last one repeated."""
    course = np.array([*factors, *[factors[-1]] * (len(Q) - len(factors))])
    return with_arrays(SHARP, top_values=SHARP.arrays["top_values"][:1] * course[:, None])


SLOWEST = with_arrays(
    SHARP, top_values=SHARP.arrays["top_values"] ** np.where(np.arange(10) == 9, 0.0, 1.0)
)


def changes_at(alphas, up):
    """Loss changes (51, 3): those of α = ½, 1, 2."""
    return with_arrays(
        SHARP, loss_changes=np.where(np.asarray(up)[:, None], alphas, -np.array(alphas))
    )


EDGES += [
    ("sd01-rise", grown(1, 2, 5, 10, 3, 1.5), True),
    ("sd01-rise", grown(1, 1, 1, 1, 1, 1, 10), False),
    ("sd01-rise", [SHARP, CASES["sd01-rise"][1]], False),
    ("sd01-rise", SLOWEST, False),
    ("fig14-layers", layers(early=0.99), False),
    ("fig14-layers", layers(early=1.01), True),
    ("sd01-peak", [SHARP, *later_peak([SHARP])], False),
    ("sd03-instability", [CASES["sd03-instability"][0], PHASES], False),
    (
        "sd09-stable",
        with_and_without_norm(0.1, 0.3)[:2] + with_and_without_norm(0.25, 0.3)[2:],
        False,
    ),
    (
        "sd04-earlier-batch",
        [
            sharpest_run(batch_size=b, seed=s, peak=p, lr=0.05)
            for b, p in ((512, 10), (128, 30), (32, 90))
            for s in (0, 1)
        ],
        True,
    ),
    (
        "sd05-aligned",
        with_arrays(SHARP, gradient_cosines=np.where(Q == 0, 0, 0.2)[:, None] * np.ones(10)),
        True,
    ),
    (
        "sd05-aligned",
        with_arrays(SHARP, gradient_cosines=np.where(Q == 50, 0, 0.2)[:, None] * np.ones(10)),
        False,
    ),
    (
        "sd06-too-long",
        changes_at([0.1, 0.2, 0.3], (Q == 0) | ((Q >= 50) & (Q % 4 == 2)) | (Q > 95)),
        True,
    ),
    ("sd06-minimum", with_arrays(SHARP, loss_changes=np.tile([0.1, 0.2, 0.3], (51, 1))), True),
    (
        "sd07-only",
        [
            losses(r, np.where(Q > 50, 20.0, 1.0)) if r.config.regularizer != "none" else r
            for r in variant("sharpest_only", 2.0, 1.0)
        ],
        False,
    ),
    ("sd07-without", variant("nudged", 2.0, 0.5), False),
    ("sd07-without", variant("nudged", 0.5, 1.1), False),
]


def intervals(*falls):
    """EJR falls back by these in the three intervals, the baseline by 0.02 in each."""
    runs = wide("wrn10_2", "wrn10_2_cifar100", fall=0.0)
    out = []
    for run in runs:
        if run.config.regularizer != "none":
            drop = np.zeros(21)
            drop[[12, 16, 20][: len(falls)]] = falls
            run = with_columns(run, test_accuracy=0.6 - drop, test_loss=0.8 + drop)
        out.append(run)
    return out


EDGES += [
    ("fig07-decay", intervals(0.01, 0.03, 0.01), False),
    (
        "fig33-small-lr",
        simple_cnns({0.03: 0.03, 0.1: 0.01, 0.3: 0.02})[:2]
        + [
            with_columns(r, test_accuracy=r.series["test_accuracy"] + d)
            for r, d in zip(
                simple_cnns({0.03: 0.03, 0.1: 0.01, 0.3: 0.02})[2:4], (0.0, -0.02), strict=True
            )
        ]
        + simple_cnns({0.03: 0.03, 0.1: 0.01, 0.3: 0.02})[4:],
        False,
    ),
]

THREE = {0.03: 0.04, 0.1: 0.03, 0.3: 0.02}
STRONGER = [
    arm_run("simple_cnn", 0.45 + 0.001 * seed, lr=lr, seed=seed, regularizer="ejr", ejr_weight=0.03)
    for lr in THREE
    for seed in (0, 1)
]
FULL = [arm_run("simple_cnn", 0.5, lr=0.01, seed=seed, batch_size=None) for seed in (0, 1)]
EDGES += [
    ("fig33-enhances", simple_cnns(THREE) + STRONGER, True),  # the best λ_reg counts
    ("fig33-enhances", simple_cnns({0.03: 0.04, 0.1: 0.0005, 0.3: 0.02}), False),
    ("fig33-enhances", simple_cnns(THREE) + FULL, True),
    (
        "fig07-cifar10",
        where(wide("wrn10_2"), lambda c: c.regularizer != "none" and c.seed == 1, test_loss=1.05),
        False,
    ),
]
UNEVEN = [
    with_columns(
        r,
        test_accuracy=r.series["test_accuracy"]
        + (0.02 if (r.config.lr, r.config.seed, r.config.regularizer) == (0.03, 0, "ejr") else 0),
    )
    for r in simple_cnns({0.03: 0.02, 0.1: 0.01, 0.3: 0.025})
]
EDGES += [
    ("fig33-small-lr", UNEVEN, False),
    ("shares-level", [PHASES, CASES["shares-level"][1]], False),
    (
        "be06-correlation",
        with_columns(
            EARLY, covariance_norm=np.exp(E_STEP / 100), covariance_norm_single=np.exp(E_STEP)
        ),
        True,
    ),
]


@pytest.mark.parametrize(("claim_id", "runs", "expected"), EDGES)
def test_each_clause_of_a_criterion_counts(claim_id, runs, expected):
    assert holds(claim_id, runs) == expected


def test_a_plateau_is_the_median_over_phase_2_alone():
    step = phase_run().series["step"].astype(float)
    run = changed(J, np.where(step > PHASE_PEAK, 1e9, step**3))
    middle = (PHASE_ONSET + PHASE_PEAK) / 2
    assert evolution_criteria.plateau(run, J) == middle**3


def test_every_setting_needs_its_second_seed():
    (claim,) = (c for c in claims.CLAIMS if c.id == "fig06-lr-sharpness")
    verdict = claims.judge(claim, two_seeds("lr", LRS, H, even)[:-1], "laptop")
    assert verdict.verdict == "not decided" and "one seed" in verdict.note


def test_the_tables_count_from_the_onset_and_to_the_peak():
    run = phase_run()
    step = run.series["step"]
    run.series["gauss_newton_norm"] *= np.where(step < PHASE_ONSET, 0.1, 1)
    ((*_, share, bound),) = evolution_criteria.constants_table([run])[1]
    assert (share, bound) == ("0.9", "2.22")


def test_quantiles_are_those_at_5_50_and_95_percent():
    assert evolution_criteria._quantiles(pd.Series(np.arange(101.0))) == "50 (5 to 95)"


def test_stages_that_fall_on_one_stored_step_decide_nothing():
    (claim,) = (c for c in claims.CLAIMS if c.id == "fig27-dominance")
    arrays = {k: PHASES.arrays[k][::10] for k in ("q_sqrt_lambda", "q_sqrt_lambda.steps")}
    verdict = claims.judge(claim, [with_arrays(PHASES, **arrays)], "laptop")
    assert verdict.verdict == "not decided" and "fall on one stored step" in verdict.note
