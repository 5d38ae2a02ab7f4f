"""Other readings of claims: each can hold, each can fail, and none changes a verdict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_runs import AHEAD, SWING, break_even_run, path_gram, phase_run, sharpest_run
from test_claims import CASES as CLAIM_CASES
from test_claims import with_outliers

from ijrlib import claims, criteria, evolution_criteria, phases, readings, report
from ijrlib.store import Run

RUN = phase_run()
STEP = RUN.series["step"]


def columns(run: Run, **values) -> Run:
    return dataclasses.replace(run, series=run.series.assign(**values))


def arrays(run: Run, **values) -> Run:
    return dataclasses.replace(run, arrays={**run.arrays, **values})


def walking(run: Run, across: float) -> Run:
    """The path goes to and fro by ``across`` while it goes ahead by 0.5 a step."""
    path = np.stack([0.5 * np.arange(301.0), across * (np.arange(301) % 2)], axis=1)
    path[: phases.onset(run), 1] = 0
    return arrays(run, trajectory_gram=path @ path.T)


def noisy(run: Run) -> Run:
    """The path goes ahead by 0.5 a step, and each point is off to a side of its own."""
    side = 0.6 * np.random.default_rng(0).normal(size=(301, 12))
    side[: phases.onset(run)] = 0
    path = np.hstack([0.5 * np.arange(301.0)[:, None], side])
    return arrays(run, trajectory_gram=path @ path.T)


def seeds(runs: list[Run]) -> list[Run]:
    return [
        dataclasses.replace(run, config=run.config.replace(seed=seed))
        for run in runs
        for seed in (0, 1)
    ]


def with_seed(run: Run, seed: int) -> Run:
    return dataclasses.replace(run, config=run.config.replace(seed=seed))


def level_of(first: float, second: float) -> Run:
    """‖H‖ since it reached 2/η (step 100), in units of it, in either half of the steps."""
    start = phases.onset(RUN)
    levels = np.where((start + STEP.iloc[-1]) / 2 > STEP, first, second)
    levels[start] = 1.0
    return columns(RUN, sharpness=np.where(start > STEP, 0.1, levels) * 2 / RUN.config.lr)


def shares_of(first: float, second: float) -> Run:
    """The same for the sharpness of all three shares."""
    steps = RUN.arrays["share_sharpness.steps"]
    levels = level_of(first, second).series["sharpness"].to_numpy()[steps]
    return arrays(RUN, share_sharpness=np.outer(levels, np.ones(3)))


def at_all(run: Run, index: tuple[int, int], value: float) -> Run:
    """An entry of ⟨QΛ^½⟩ at all stored steps."""
    values = np.array(run.arrays["q_sqrt_lambda"])
    values[:, *index] = value
    return arrays(run, q_sqrt_lambda=values)


def at_stored(run: Run, place: int, index: tuple[int, int], value: float) -> Run:
    """An entry of ⟨QΛ^½⟩ at one stored step."""
    values = np.array(run.arrays["q_sqrt_lambda"])
    values[place, *index] = value
    return arrays(run, q_sqrt_lambda=values)


def falling(drop: float) -> Run:
    """Training accuracy falls by so much at times, after ‖H‖ has reached 2/η."""
    late = (STEP > 100) & (STEP % 60 == 0)
    return columns(RUN, train_accuracy=RUN.series["train_accuracy"] - drop * late)


def batches(factors: dict[int, float]) -> list[Run]:
    """Runs with these batch sizes, ‖H‖ over its predictor being the factor."""
    return seeds(
        [
            columns(run, jacobian_ones_sq=run.series["jacobian_ones_sq"] / factor)
            for size, factor in factors.items()
            for run in [phase_run(batch_size=size)]
        ]
    )


def jacobians(factors: dict[float, float]) -> list[Run]:
    """Runs with these learning rates, their ‖⟨J⟩‖² times the factor."""
    return seeds(
        [
            columns(run, jacobian_norm_sq=factor * RUN.series["jacobian_norm_sq"])
            for lr, factor in factors.items()
            for run in [phase_run(lr=lr)]
        ]
    )


def shuffled(run: Run) -> Run:
    values = run.series["jacobian_ones_sq"].to_numpy(copy=True)
    np.random.default_rng(0).shuffle(values[phases.onset(run) :])
    return columns(run, jacobian_ones_sq=values)


def largest_at(step: int) -> Run:
    return columns(RUN, sharpness=np.exp(-(((STEP - step) / 50) ** 2)))


def peaks(by: str, at: dict[float, int], **fields) -> list[Run]:
    return seeds([sharpest_run(**{by: value}, peak=peak, **fields) for value, peak in at.items()])


def lengths(third: float) -> Run:
    run = sharpest_run()
    values = np.array(run.arrays["step_lengths"])
    values[:, 2:4] = third * values[:, :1]
    return arrays(run, step_lengths=values)


def staged(gain: float) -> list[Run]:
    """Accuracies that differ by 0.1 between seeds, and by the gain between lengths of a stage."""
    return [
        columns(
            sharpest_run(seed=seed, lr_decay=0.1, lr_decay_at=10 * place),
            test_accuracy=0.5 + 0.1 * seed + gain * place,
        )
        for seed in (0, 1)
        for place in (1, 2, 3)
    ]


def with_momentum(height: float, peak: int = 20) -> list[Run]:
    return seeds([sharpest_run(), sharpest_run(momentum=0.9, height=height, peak=peak)])


def normalized(lr: float, network: str = "mlp_300_100_bn", **values) -> Run:
    return columns(break_even_run(lr, network=network), **values)


def diverged(run: Run) -> Run:
    return dataclasses.replace(run, provenance={**run.provenance, "status": "diverged"})


def conditioned(ratios: dict[float, float]) -> list[Run]:
    """Runs of SimpleCNN with these η, Tr K being so many times λ_K."""
    return seeds(
        [
            columns(run, covariance_trace=ratio * run.series["covariance_norm"])
            for lr, ratio in ratios.items()
            for run in [break_even_run(lr, network="simple_cnn_be")]
        ]
    )


def with_own_steps(run: Run) -> Run:
    """λ_K from single examples has the trend of that from mini-batches, but not its changes."""
    trend = np.exp(np.linspace(0, 5, len(run.series)))
    swings = np.arange(len(run.series))
    return columns(
        run,
        covariance_norm=trend * np.exp(0.1 * np.sin(2 * swings)),
        covariance_norm_single=trend * np.exp(0.1 * np.cos(2 * swings)),
    )


STRAIGHT = arrays(RUN, trajectory_gram=np.outer(np.arange(301.0), np.arange(301.0)))
VGG = phase_run(network="vgg")
FIXED = np.full((10, 10), 0.005)
NORM_RUNS = seeds([normalized(0.001, sharpness=1.0), normalized(0.01), normalized(0.1)])
CASES = {  # claim, number of the reading: runs of which it holds, runs of which it does not
    ("fig04-orthogonal", 0): (noisy(RUN), STRAIGHT),
    ("fig04-orthogonal", 1): (noisy(RUN), STRAIGHT),
    ("fig04-orthogonal", 2): (walking(RUN, 4.0), walking(RUN, 1.0)),
    ("fig26-vgg", 0): (noisy(VGG), walking(VGG, 1.0)),
    ("fig26-vgg", 1): (noisy(VGG), walking(VGG, 1.0)),
    ("fig26-vgg", 2): (walking(VGG, 4.0), walking(VGG, 1.0)),
    ("fig05-phase-3", 0): (
        columns(RUN, train_accuracy=np.minimum(1, STEP / 350)),
        columns(RUN, train_accuracy=(STEP >= 260).astype(float), jacobian_norm_sq=1.0 + STEP),
    ),
    ("fig06-lr-jacobian", 0): (
        jacobians({0.04: 4.0, 0.05: 2.0, 0.06: 1.0}),
        jacobians({0.04: 1.0, 0.05: 2.0, 0.06: 3.0}),
    ),
    ("fig05-late-sharpness", 0): (
        columns(RUN, test_accuracy=0.5),
        columns(RUN, test_accuracy=np.where(STEP < 305, 0.5, 0.6)),
    ),
    **{(f"fig{n}-correlation", 0): (seeds([RUN]), seeds([shuffled(RUN)])) for n in range(15, 22)},
    ("full-correlation", 0): (RUN, shuffled(RUN)),
    **{
        (name, 1): ([RUN], [columns(RUN, probe_impurity_mean=0.1 + 0.3 * np.sin(STEP) ** 2)])
        for name in ("full-correlation", *(f"fig{n}-correlation" for n in range(15, 22)))
    },
    **{
        (f"fig{n}-proportional", 0): (
            columns(RUN, probe_impurity_mean=np.exp(STEP / 50)),
            columns(RUN, impurity_mean=np.exp(STEP / 50)),
        )
        for n in (15, 16, 21)
    },
    ("full-level", 0): (level_of(1.4, 0.7), level_of(1.0, 1.6)),
    ("shares-level", 0): (
        [shares_of(1.4, 0.7), with_seed(shares_of(1.0, 1.0), 1)],
        [shares_of(1.4, 0.7), with_seed(shares_of(1.0, 0.6), 1)],
    ),
    ("fig08-two-entries", 0): (RUN, at_stored(RUN, 3, (7, 4), 0.5)),
    ("fig08-diagonal", 0): (RUN, at_all(RUN, (8, 8), 0.014)),
    ("fig08-subdiagonal", 0): (RUN, at_all(RUN, (9, 8), -0.08)),
    ("fig10-gradient-top-eigenvector", 0): (RUN, columns(RUN, gradient_alignment=STEP / 1000)),
    **{
        (f"{figure}-example-gradient", 0): (
            RUN,
            columns(RUN, descent_cosine_correct=np.where(STEP == 7, 0.89, 0.95)),
        )
        for figure in ("fig10", "full")
    },
    **{
        (f"{figure}-constant-grows", 0): (
            batches({512: 1.0, 128: 2.0, 32: 3.0}),
            batches({512: 1.0, 128: 3.0, 32: 2.0}),
        )
        for figure in ("fig18", "fig20")
    },
    ("fig21-impurity-first", 0): (largest_at(320), largest_at(150)),
    # phase II begins at step 100, the third of them
    ("eq32-number", 0): (with_outliers(4, 4, 10, 9, 10), with_outliers(10, 10, 4, 10, 4, 4, 10)),
    ("eq32-outliers", 0): (RUN, columns(RUN, between_class_norm=0.3 * RUN.series["sharpness"])),
    ("fig29-concentrated", 0): (
        RUN,
        arrays(RUN, resultant_products=np.repeat(FIXED[None], len(STEP[::10]), axis=0)),
    ),
    **{
        (f"{figure}-earlier-{key}", 0): case
        for figure, lr in (("sd04", 0.05), ("sd04words", 1.0), ("sd21", 0.5))
        for key, case in {
            "lr": (
                peaks("lr", {0.5: 40, 1.0: 10}),
                peaks("lr", {0.5: 20, 1.0: 20}),
            ),
            "batch": (
                peaks("batch_size", {32: 10, 128: 30}, lr=lr),
                peaks("batch_size", {32: 30, 128: 10}, lr=lr),
            ),
        }.items()
    },
    ("sd03-instability", 0): (
        [falling(0.1), with_seed(falling(0.0), 1)],
        [falling(0.0), with_seed(falling(0.1), 1)],
    ),
    ("sd06-flatter", 0): (lengths(1.0), lengths(0.5)),
    ("sd12-accuracy", 0): (staged(0.02), staged(-0.02)),
    ("sd13-momentum", 0): (with_momentum(0.5), with_momentum(0.9, peak=2)),
    ("be05-scale", 0): (
        [normalized(1.0), normalized(0.01)],
        [normalized(1.0, last_scale_norm=10 + STEP[:51]), normalized(0.01)],
    ),
    **{(name, 0): CLAIM_CASES[name] for name in readings.MAXIMA},
    ("be03-conditioning-simple", 1): (
        conditioned({0.01: 10.0, 0.02: 9.0, 0.1: 14.0}),
        conditioned({0.01: 14.0, 0.02: 9.0, 0.1: 10.0}),
    ),
    ("be06-correlation", 0): (break_even_run(), with_own_steps(break_even_run())),
    ("be05-diverges", 0): (
        [diverged(normalized(1.0, network="mlp_300_100")), normalized(1.0)],
        [normalized(1.0, network="mlp_300_100"), normalized(1.0)],
    ),
    ("be05-h", 0): (NORM_RUNS, seeds([*NORM_RUNS[::2][:2], normalized(0.1, sharpness=500.0)])),
}


def as_list(runs: Run | list[Run]) -> list[Run]:
    return [runs] if isinstance(runs, Run) else runs


@pytest.mark.parametrize(
    ("claim_id", "number"),
    [(name, k) for name, found in readings.READINGS.items() for k in range(len(found))],
)
def test_a_reading_can_hold_and_can_fail(claim_id, number):
    reading = readings.READINGS[claim_id][number]
    good, bad = CASES[claim_id, number]
    assert reading.measure(as_list(good)).holds
    assert not reading.measure(as_list(bad)).holds


def test_every_reading_is_of_a_claim_and_says_what_is_read_otherwise():
    assert set(readings.READINGS) <= {claim.id for claim in claims.CLAIMS}
    for found in readings.READINGS.values():
        assert found and all(reading.words for reading in found)


def test_the_chord_is_that_of_the_points():
    rng = np.random.default_rng(0)
    path = rng.normal(size=(301, 4)).cumsum(0)
    run = arrays(RUN, trajectory_gram=path @ path.T)
    cosines = []
    for t in range(phases.onset(run), 301 - 11):
        step, far = path[t + 1] - path[t], path[t + 11] - path[t - 10]
        cosines.append(abs(step @ far) / np.linalg.norm(step) / np.linalg.norm(far))
    found = readings.orthogonal_to_chord([run])
    assert found.value == f"median |cos| {np.median(cosines):.2f}"


def test_phase_3_until_fitted_is_phase_3_of_a_run_that_ends_there():
    run = columns(RUN, train_accuracy=np.minimum(1, STEP / 350))
    config = run.config.replace(steps=350, measures={})
    short = dataclasses.replace(run, config=config, series=run.series[STEP <= 350])
    assert readings.phase_3_until_fitted([run]) == evolution_criteria.phase_3([short])
    never = columns(RUN, train_accuracy=0.5)
    assert readings.phase_3_until_fitted([never]) == evolution_criteria.phase_3([never])


def test_plateaus_are_compared_over_the_time_that_all_share():
    runs = jacobians({0.04: 4.0, 0.05: 2.0})
    start, stop = 0.05 * phases.onset(runs[2]), 0.04 * phases.peak(runs[0])
    found = readings.shared_plateau(runs, "jacobian_norm_sq")
    assert f"ηt = {start:.3g} to {stop:.3g}" in found.value
    values = runs[0].series["jacobian_norm_sq"][(0.04 * STEP).between(start, stop)]
    assert f"η = 0.04: {values.median():.3g}" in found.value
    with pytest.raises(criteria.NotMeasured, match="no time ηt"):
        readings.shared_plateau(jacobians({0.02: 1.0, 0.08: 1.0}), "jacobian_norm_sq")


def test_a_reading_stands_beside_the_verdict_and_does_not_change_it():
    (claim,) = (c for c in claims.CLAIMS if c.id == "fig04-orthogonal")
    run = walking(RUN, 1.0)
    verdict = claims.judge(claim, [run], "laptop")
    assert verdict.verdict == "not reproduced" and len(verdict.readings) == 3
    assert verdict.turned == any(found.holds for _, found in verdict.readings)
    assert claims.judge(claim, [run], "smoke").readings == ()
    page = report.claims("fig04", [run], "laptop").html
    for words, found in verdict.readings:
        assert f"Read otherwise, {words}: {found.value}." in page
    assert (claims.TURNED in page) == verdict.turned


def test_a_verdict_is_turned_by_a_reading_that_gives_the_opposite():
    (claim,) = (c for c in claims.CLAIMS if c.id == "fig04-orthogonal")

    def turned(verdict: str, *holds: bool) -> bool:
        found = tuple(("words", criteria.Measurement("", hold)) for hold in holds)
        return claims.Verdict(claim, "", verdict, readings=found).turned

    assert turned("not reproduced", False, True)
    assert not turned("not reproduced", False, False)
    assert turned("reproduced at reduced scale", True, False)
    assert not turned("reproduced", True)
    assert not turned("not run")


def path_of(run: Run, *parts) -> Run:
    """The run with a path made of steps (along, across), so many of each."""
    return arrays(run, trajectory_gram=path_gram(*parts))


ALONG = [(0.9, 0), (-1.1, 0)]
LATER = columns(RUN, sharpness=np.where(STEP >= 200, 60.0, 1.0))
OUTSIDE = (STEP < 100) | (STEP > 250)


def inside(factors):
    """As :func:`batches` in phase II, the other way round outside it."""
    return [
        columns(
            run,
            jacobian_ones_sq=run.series["jacobian_ones_sq"]
            * np.where(OUTSIDE, factors[run.config.batch_size] ** 2, 1),
        )
        for run in batches(factors)
    ]


def with_equal_start(run):
    values = np.array(run.arrays["top_values"])
    values[0] = sharpest_run().arrays["top_values"][0]
    return arrays(run, top_values=values)


STAGED = staged(0.02)
EDGES_R = [
    ("fig04-orthogonal", 2, path_of(LATER, (SWING, 200), (ALONG, 100)), False),
    ("fig04-orthogonal", 2, path_of(RUN, (AHEAD, 100), (SWING, 80), (AHEAD, 120)), True),
    (
        "fig04-orthogonal",
        2,
        path_of(RUN, (AHEAD, 100), (SWING, 80), ([*AHEAD * 9, (-0.1, 0)], 120)),
        True,
    ),
    ("fig26-vgg", 2, path_of(VGG, (SWING, 300)), False),
    ("fig15-correlation", 0, [RUN, shuffled(RUN)], False),
    ("fig18-constant-grows", 0, inside({512: 1.0, 128: 2.0, 32: 3.0}), True),
    (
        "fig21-impurity-first",
        0,
        [dataclasses.replace(largest_at(150), config=RUN.config.replace(lr=0.02)), largest_at(320)],
        False,
    ),
    (
        "fig29-concentrated",
        0,
        arrays(RUN, resultant_products=np.repeat(9 * FIXED[None], len(STEP[::10]), axis=0)),
        True,
    ),
    ("sd21-earlier-lr", 0, peaks("lr", {0.5: 30, 1.0: 20}), False),
    (
        "sd13-momentum",
        0,
        [with_equal_start(run) if run.config.momentum else run for run in with_momentum(0.5)],
        True,
    ),
    ("sd13-momentum", 0, with_momentum(0.5)[:3] + with_momentum(0.9, peak=2)[3:], False),
    ("sd12-accuracy", 0, [*STAGED[:-1], columns(STAGED[-1], test_accuracy=0.63)], False),
    (
        "be05-scale",
        0,
        [
            normalized(1.0),
            dataclasses.replace(
                normalized(1.0, last_scale_norm=10 + STEP[:51]),
                config=normalized(1.0).config.replace(seed=1),
            ),
            normalized(0.01),
        ],
        False,
    ),
]


@pytest.mark.parametrize(("claim_id", "number", "runs", "expected"), EDGES_R)
def test_each_clause_of_a_reading_counts(claim_id, number, runs, expected):
    reading = readings.READINGS[claim_id][number]
    assert reading.measure(as_list(runs)).holds == expected


def test_only_phase_2_counts_between_classes():
    first, last = phases.active_period(RUN)
    assert f"over {last - first + 1} steps" in readings.between_in_phase_2([RUN]).value


def test_the_chord_counts_from_the_onset_on():
    run = path_of(LATER, (AHEAD, 200), (SWING, 100))
    assert readings.orthogonal_to_chord([run]).value == "median |cos| 0.52"


def test_runs_are_compared_up_to_the_training_accuracy_that_all_reach():
    """Each up to its first measurement of the least of their largest accuracies."""
    slow = columns(sharpest_run(lr=0.1), train_accuracy=0.6 * np.arange(51) / 50)
    fast = columns(sharpest_run(lr=0.2), train_accuracy=np.minimum(1, np.arange(51) / 25))
    seen = []

    def watch(runs):
        seen.extend(runs)
        return criteria.Measurement("watched", True)

    found = readings.at_equal_accuracy(watch, [slow, fast])
    assert found == criteria.Measurement("(60%) watched", True)
    assert [run.config.lr for run in seen] == [0.1, 0.2]
    assert [int(run.series["step"].max()) for run in seen] == [
        int(slow.series["step"].iloc[50]),
        int(fast.series["step"].iloc[15]),
    ]
    assert len(seen[1].arrays["top_values"]) == (
        np.count_nonzero(fast.arrays["top_values.steps"] <= fast.series["step"].iloc[15])
    )


def test_only_the_runs_that_a_claim_is_about_set_the_accuracy():
    mlps = seeds(
        [
            columns(run, train_accuracy=np.arange(51) / 50)
            for lr in (0.01, 0.05, 0.1)
            for run in [break_even_run(lr, batch_size=64, network="mlp_300_100")]
        ]
    )
    other = columns(break_even_run(0.01, network="simple_cnn_be"), train_accuracy=0.1)
    (reading,) = readings.READINGS["be03-k-mlp"]
    assert reading.measure([*mlps, other]).value.startswith("(100%) ")
