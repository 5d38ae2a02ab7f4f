"""Other readings of claims: what a criterion would have said with another reasonable choice.

The criteria of :mod:`ijrlib.claim_table` were written down before their runs.  These were added on
2026-11-29 and 30, after them, when reviews asked which verdicts hang on a window, a rule or a unit
that could have been chosen otherwise.  They change no verdict; they are shown beside it, and the
scoreboard marks those that a reading would turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from ijrlib import companion_criteria as b
from ijrlib import criteria as c
from ijrlib import embedding, phases
from ijrlib import evolution_criteria as e
from ijrlib import share_criteria as h
from ijrlib import sharpest_criteria as d
from ijrlib import subspace_criteria as s
from ijrlib.claim_table import CLAIMS, of_first, on
from ijrlib.criteria import Measurement, NotMeasured
from ijrlib.store import Run


@dataclass(frozen=True)
class Reading:
    """Another reading of a claim.

    Attributes:
        words: what is read otherwise.
        measure: runs → :class:`~ijrlib.criteria.Measurement`, by the criterion so read.
    """

    words: str
    measure: Callable[[Sequence[Run]], Measurement]


# -- Figures 4 and 26: the path --------------------------------------------------------------------


def fitted_at(run: Run) -> int:
    """The first measured step at which every training example is classified right, or the last."""
    accuracy = phases.column(run, "train_accuracy")
    full = accuracy.index.to_numpy()[accuracy.to_numpy() >= 1]
    return int(full[0]) if len(full) else run.config.steps


def orthogonal_to_chord(runs: Sequence[Run]) -> Measurement:
    """Median |cos| of a step with the chord of the path from ten steps before it to ten after
    it."""
    run = c.first(runs)
    _, onset = e.path(run)
    gram = c.array(run, "trajectory_gram")
    t = np.arange(max(onset, e.AHEAD), len(gram) - e.AHEAD - 1)
    step, chord = (t + 1, t), (t + 1 + e.AHEAD, t - e.AHEAD)
    squares = _product(gram, step, step) * _product(gram, chord, chord)
    median = float(np.median(np.abs(_product(gram, step, chord) / np.sqrt(squares))))
    return Measurement(f"median |cos| {median:.2f}", median <= e.ORTHOGONAL)


def _product(gram: np.ndarray, one: tuple, other: tuple) -> np.ndarray:
    """Inner products of θ(i) − θ(j) with θ(k) − θ(m)."""
    (i, j), (k, m) = one, other
    return gram[i, k] - gram[i, m] - gram[j, k] + gram[j, m]


def orthogonal_while_swinging(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.evolution_criteria.path_orthogonal` while consecutive steps oppose each other:
    from the first ten steps after the onset most of which do, to the last such ten."""
    run = c.first(runs)
    gram = c.array(run, "trajectory_gram")
    cosines, onset = e.path(run)
    opposed = np.convolve(cosines < 0, np.full(e.AHEAD, 1 / e.AHEAD), mode="same") > 0.5
    swings = np.flatnonzero(opposed & (np.arange(len(opposed)) >= onset))
    if not len(swings):
        raise NotMeasured(f"{run.config.name}: no oscillation")
    along = np.abs(embedding.direction_cosines(gram, e.AHEAD))[swings[0] : swings[-1] + 1]
    median = float(np.median(along))
    return Measurement(
        f"median |cos| {median:.2f} in steps {swings[0]} to {swings[-1]}", median <= e.ORTHOGONAL
    )


def like_figure_4(
    orthogonal: Callable[[Sequence[Run]], Measurement], runs: Sequence[Run]
) -> Measurement:
    """:func:`~ijrlib.evolution_criteria.path_onset` and another reading of the second criterion."""
    one, two = e.path_onset(runs), orthogonal(runs)
    return Measurement(
        two.value if one.holds else f"{one.value}; {two.value}", one.holds and two.holds
    )


# -- Figures 5, 6, 15 to 20: windows ---------------------------------------------------------------


def phase_3_until_fitted(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.evolution_criteria.phase_3` up to the step at which all is fitted."""
    run = c.first(runs)
    return e.phase_3([run], stop=fitted_at(run))


def saturated_since_largest(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.evolution_criteria.late_sharpness` with the accuracy from the step of the
    largest ‖H‖ on."""
    return e.saturated(c.first(runs), lambda sharpness, _: phases.largest(sharpness))


def either_half(ratios: np.ndarray) -> Measurement:
    """Medians over the first and the second half of ‖H‖·η/2 at successive steps, against the factor
    that Figure 5 allows."""
    halves = [float(np.median(part)) for part in np.array_split(ratios, 2)]
    return Measurement(
        f"{halves[0]:.2f} and {halves[1]:.2f} × 2/η",
        all(1 / e.PLATEAU_FACTOR <= half <= e.PLATEAU_FACTOR for half in halves),
    )


def level_in_halves(runs: Sequence[Run]) -> Measurement:
    """:func:`either_half` of ‖H‖ since it first reached 2/η."""
    return either_half(e.since_onset(c.first(runs)).to_numpy())


def shares_in_halves(runs: Sequence[Run]) -> Measurement:
    """:func:`either_half` of ‖H‖ of the whole training set, in every run."""
    found = [
        either_half(h.after_onset(run, h.levels(run)[1])[:, h.WHOLE]) for run in c.stored(runs)
    ]
    return Measurement("; ".join(m.value for m in found), all(m.holds for m in found))


def shared_plateau(runs: Sequence[Run], name: str, **fields: object) -> Measurement:
    """Medians over the part of phase II, in time ηt, that all the runs have in common."""
    some = e.of(runs, **fields)
    periods = [[run.config.lr * step for step in phases.active_period(run)] for run in some]
    start, stop = max(a for a, _ in periods), min(z for _, z in periods)
    if start >= stop:
        raise NotMeasured("no time ηt is in phase II of all runs")

    def level(run: Run) -> float:
        values = phases.column(run, name)
        at = run.config.lr * values.index
        return float(values.loc[(at >= start) & (at <= stop)].median())

    found = e.ordered(some, "lr", False, level)
    return Measurement(f"(ηt = {start:.3g} to {stop:.3g}) {found.value}", found.holds)


def correlation_after_onset(runs: Sequence[Run]) -> Measurement:
    """Correlation of log‖H‖ and its predictor from the beginning of phase II on, the least."""
    found = []
    for run in c.stored(runs):
        frame = e.relation(run)
        frame = frame.loc[frame["step"] >= phases.onset(run)]
        if len(frame) < 4:
            raise NotMeasured(f"{run.config.name}: {len(frame)} steps after the onset")
        found.append(c.correlation(np.log(frame[c.H]), np.log(frame["predictor"])))
    return Measurement(f"r = {c.span(found)}", min(found) >= c.LEAST_CORRELATION)


def impurity_adds(runs: Sequence[Run]) -> Measurement:
    """Correlation of log‖H‖ with its predictor less that with ‖⟨J⟩1̂‖² alone, run by run."""
    gains = []
    for run in c.stored(runs):
        frame = e.relation(run)
        r = c.correlation(np.log(frame[c.H]), np.log(frame["predictor"]))
        gains.append(r - e.jacobian_alone(run))
    return Measurement(f"r less that of ‖⟨J⟩1̂‖² alone: {c.span(gains, '+.3f')}", min(gains) > 0)


def over_training_set(
    measure: Callable[[Sequence[Run]], Measurement], runs: Sequence[Run]
) -> Measurement:
    """A criterion with ⟨λ^(1)⟩ over all that a step sees in place of the probe."""
    return measure(
        [
            dataclasses.replace(
                run, series=run.series.assign(**{e.IMPURITY: run.series["impurity_mean"]})
            )
            for run in c.stored(runs)
        ]
    )


def constant_in_phase_2(runs: Sequence[Run]) -> Measurement:
    """Median ratio over phase II against the batch size."""

    def level(run: Run) -> float:
        start, stop = phases.active_period(run)
        frame = e.relation(run)
        frame = frame.loc[(frame["step"] >= start) & (frame["step"] <= stop)]
        return float((frame[c.H] / frame["predictor"]).median())

    return e.ordered(c.stored(runs), "batch_size", False, level)


def peak_before_largest(runs: Sequence[Run]) -> Measurement:
    """Steps of the largest ⟨λ^(1)⟩ and of the largest ‖H‖."""
    steps = [
        (run.config.lr, phases.peak(run), phases.largest(phases.column(run, c.H)))
        for run in c.stored(runs)
    ]
    text = ", ".join(f"{a} and {z} (η = {lr:g})" for lr, a, z in sorted(steps))
    return Measurement(
        f"⟨λ⁽¹⁾⟩ and ‖H‖ are largest at steps {text}", all(a < z for _, a, z in steps)
    )


# -- the subspace ----------------------------------------------------------------------------------


def two_entries_throughout(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.subspace_criteria.two_entries` at every stored step."""
    run = c.first(runs)
    matrices = c.array(run, "q_sqrt_lambda").astype(float)
    least = [float(s.shares_of_two(matrix).min()) for matrix in matrices]
    worst = int(np.argmin(least))
    return Measurement(
        f"{least[worst]:.2f} at step {run.arrays['q_sqrt_lambda.steps'][worst]}, the least of "
        f"{len(least)}",
        least[worst] > c.SHARED_VARIANCE,
    )


def in_each_phase(runs: Sequence[Run]) -> Measurement:
    """Medians of |cos(g_D, r)| before, in and after phase II, in units of 1/√m."""
    run = c.first(runs)
    start, stop = phases.active_period(run)
    values = phases.column(run, "gradient_alignment") * float(run.provenance["parameters"]) ** 0.5
    step = values.index
    parts = (
        values.loc[step < start],
        values.loc[(step >= start) & (step <= stop)],
        values.loc[step > stop],
    )
    medians = [float(part.median()) for part in parts if len(part)]
    return Measurement(
        f"{', '.join(f'{median:.0f}' for median in medians)} times 1/√m",
        min(medians) >= s.FAR_BETTER,
    )


def right_at_every_step(runs: Sequence[Run]) -> Measurement:
    """cos(−g_x, Jq^(1)), the median over the examples classified right, at the worst step."""
    values = phases.column(c.first(runs), "descent_cosine_correct")
    return Measurement(
        f"{values.min():.2f} at step {phases.largest(-values)}", bool(values.min() >= s.NEAR_ONE)
    )


def between_in_phase_2(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.subspace_criteria.between_classes` within phase II."""
    run = c.first(runs)
    start, stop = phases.active_period(run)
    return s.between_classes([run], start, stop)


def outliers_in_phase_2(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.subspace_criteria.number_of_outliers` within phase II."""
    return s.number_of_outliers(runs, *phases.active_period(c.first(runs)))


def above_random(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.subspace_criteria.concentrated` with the factor 1."""
    return s.concentrated(runs, factor=1.0)


# -- the companion papers --------------------------------------------------------------------------


def at_equal_accuracy(
    measure: Callable[[Sequence[Run]], Measurement], runs: Sequence[Run]
) -> Measurement:
    """A criterion of runs cut at the first measurement of each at which its training accuracy is
    what every one of them reaches."""
    some = c.stored(runs)
    accuracy = [phases.column(run, "train_accuracy") for run in some]
    common = min(float(values.max()) for values in accuracy)
    found = measure(
        [
            phases.beginning(
                run, int(values.index.to_numpy()[(values >= common).to_numpy().argmax()])
            )
            for run, values in zip(some, accuracy, strict=True)
        ]
    )
    return Measurement(f"({common:.0%}) {found.value}", found.holds)


def at_equal_accuracy_of(claim_id: str) -> Callable[[Sequence[Run]], Measurement]:
    """:func:`at_equal_accuracy` of a claim's criterion, on the runs that it is about."""
    (measure,) = (claim.measure for claim in CLAIMS if claim.id == claim_id)
    if isinstance(measure, partial) and measure.func is on:
        return partial(on, partial(at_equal_accuracy, measure.args[0]), **measure.keywords)
    if measure is None:
        raise ValueError(f"claim: expected one that is measured, got {claim_id}")
    return partial(at_equal_accuracy, measure)


def conditioning_in_print(runs: Sequence[Run]) -> Measurement:
    """The largest Tr K/λ_K at the two η for which the paper prints it."""
    simple = e.of(runs, network="simple_cnn_be", batch_size=128)
    some = [run for run in simple if run.config.lr in (0.01, 0.1)]
    return b.largest_later(some, "conditioning", "lr", True)


def changes_correlate(runs: Sequence[Run]) -> Measurement:
    """Correlation of the changes of log λ_K from one measurement to the next, from mini-batches and
    from single examples, along each run."""
    found = []
    for run in c.stored(runs):
        frame = c.rows(run, b.K, b.SINGLE)
        changes = [np.diff(np.log(frame[name].to_numpy())) for name in (b.K, b.SINGLE)]
        if len(changes[0]) < 4:
            raise NotMeasured(f"{run.config.name}: fewer than four changes of λ_K")
        found.append(c.correlation(*changes))
    return Measurement(
        f"r = {', '.join(f'{r:.2f}' for r in found)}", min(found) >= c.LEAST_CORRELATION
    )


def not_finite(runs: Sequence[Run]) -> Measurement:
    """How many runs without batch normalization at the largest η end in a loss that is not
    finite."""
    some = b.normalized(runs, batch_norm=False)
    lr = max(run.config.lr for run in some)
    ended = [run.provenance["status"] == "diverged" for run in some if run.config.lr == lr]
    return Measurement(f"{sum(ended)} of {len(ended)} at η = {lr:g}", all(ended))


def peak_time(runs: Sequence[Run], by: str) -> Measurement:
    """Whether the time ηt at which λ_1 is largest is ordered by η or S."""

    def time(run: Run) -> float:
        return run.config.lr * phases.largest(d.eigenvalue(run, 1))

    return e.ordered(c.stored(runs), by, by != "lr", time, batch="S")


def flatter_at_one_length(runs: Sequence[Run]) -> Measurement:
    """:func:`~ijrlib.sharpest_criteria.flatter` with the rises along e_3 and e_4 scaled, as
    quadratic ones, to the length of the step along e_1."""
    found = []
    for run in c.stored(runs):
        values = c.array(run, "step_lengths")
        steps = run.arrays["step_lengths.steps"]
        scale = [pd.Series((values[:, 0] / values[:, i - 1]) ** 2, index=steps) for i in (3, 4)]
        found += d.rise_shares(run, scale)
    return Measurement(
        f"median share {min(found):.2g} to {max(found):.2g}", max(found) <= d.FLATTER
    )


def lower_throughout(runs: Sequence[Run]) -> Measurement:
    """Share of the measured steps after the start at which λ_1 with momentum is below that without,
    seed by seed."""
    plain = {run.config.seed: run for run in e.of(runs, momentum=0.0)}
    shares = []
    for run in c.stored(runs):
        if run.config.momentum and run.config.seed in plain:
            both = pd.concat(
                [d.eigenvalue(run, 1), d.eigenvalue(plain[run.config.seed], 1)],
                axis=1,
                join="inner",
            ).iloc[1:]
            shares.append(float((both.iloc[:, 0] < both.iloc[:, 1]).mean()))
    if not shares or not np.isfinite(shares).all():
        raise NotMeasured("no runs with momentum and without that go on after the start")
    return Measurement(
        f"at {min(shares):.0%} to {max(shares):.0%} of the steps", min(shares) == 1.0
    )


def better_seed_by_seed(runs: Sequence[Run]) -> Measurement:
    """What test accuracy in the last quarter of the steps gains from one length of the first stage
    to the next, seed by seed."""
    gains: list[float] = []
    for seed in sorted({run.config.seed for run in c.stored(runs)}):
        lengths = sorted(e.of(runs, seed=seed), key=lambda run: run.config.lr_decay_at)
        gains += np.diff([d.late_accuracy(run) for run in lengths]).tolist()
    if not gains or not np.isfinite(gains).all():
        raise NotMeasured("no two lengths of the first stage with one seed")
    return Measurement(f"{100 * min(gains):+.1f} to {100 * max(gains):+.1f} points", min(gains) > 0)


def of_first_seed(
    measure: Callable[[Sequence[Run]], Measurement], runs: Sequence[Run]
) -> Measurement:
    """A criterion of the runs with the smallest seed."""
    smallest = min((run.config.seed for run in runs), default=0)
    return measure([run for run in runs if run.config.seed == smallest])


def scale_at_largest(runs: Sequence[Run]) -> Measurement:
    """‖γ‖ of the last batch normalization at the second measurement against the first, for the
    largest η."""
    some = b.normalized(runs)
    found = b.scale_ratios(some, max(run.config.lr for run in some))
    return Measurement(f"× {min(found):.3f} to {max(found):.3f}", max(found) < 1)


def without_smallest(
    measure: Callable[[Sequence[Run]], Measurement], runs: Sequence[Run]
) -> Measurement:
    """A criterion of runs with batch normalization without those of the smallest η."""
    smallest = min(run.config.lr for run in b.normalized(runs))
    return measure([run for run in runs if run.config.lr != smallest])


CHORD = Reading(
    "the way is the chord from ten steps before the step to ten after it", orthogonal_to_chord
)
ELEVEN = Reading("eleven steps in place of ten", partial(e.path_orthogonal, ahead=e.AHEAD + 1))
SWINGING = Reading(
    "only the part of the path in which most consecutive steps oppose each other",
    orthogonal_while_swinging,
)
AFTER_ONSET = Reading(
    "from the beginning of phase II on, without the common growth before it",
    correlation_after_onset,
)
IMPURITY_ADDS = Reading("‖H‖ has to follow it more closely than ‖⟨J⟩1̂‖² alone", impurity_adds)
OVER_TRAINING_SET = "⟨λ⁽¹⁾⟩ is that of all training images, as in Figure 2, and not of the probe"
AS_FIGURE_5 = "within a factor 1.5, as for Figure 5, in each half of these steps"
RELATIVE = 0.25
TO_A_QUARTER = "every entry within a quarter of the printed one"
EACH_PHASE = Reading("before, in and after phase II, each by itself", in_each_phase)
EVERY_STEP = Reading("at every measured step", right_at_every_step)
IN_PHASE_2 = Reading("median over phase II alone", constant_in_phase_2)
IN_TIME = "in time ηt in place of epochs"

EQUAL_ACCURACY = "up to the training accuracy that every run reaches"
MAXIMA = (
    *(f"be02-max-{key}" for key in ("k", "h")),
    *(
        f"{where}-{key}-{by}"
        for where, ways in (
            ("be03", ("simple", "simplebatch", "mlp", "batch")),
            ("be11", ("lr", "batch")),
        )
        for by in ways
        for key in ("k", "h", "conditioning", "tracek", "traceh", "conditioningh")
    ),
    *(
        f"{figure}-{key}-{by}"
        for figure in ("sd04", "sd04words", "sd21")
        for by in ("lr", "batch")
        for key in ("first", "second")
    ),
)
"""Claims on largest values along runs with several η or S."""

READINGS: Mapping[str, tuple[Reading, ...]] = {
    **{name: (Reading(EQUAL_ACCURACY, at_equal_accuracy_of(name)),) for name in MAXIMA},
    "be03-conditioning-simple": (
        Reading(EQUAL_ACCURACY, at_equal_accuracy_of("be03-conditioning-simple")),
        Reading("at the two η for which a value is printed", conditioning_in_print),
    ),
    "be06-correlation": (
        Reading(
            "the changes from one measurement to the next have to go together", changes_correlate
        ),
    ),
    "be05-diverges": (Reading("to diverge is to end in a loss that is not finite", not_finite),),
    "fig04-orthogonal": (CHORD, ELEVEN, SWINGING),
    "fig26-vgg": tuple(
        Reading(reading.words, partial(on, partial(like_figure_4, reading.measure), network="vgg"))
        for reading in (CHORD, ELEVEN, SWINGING)
    ),
    "fig05-phase-3": (
        Reading("phase III ends when all training examples are fitted", phase_3_until_fitted),
    ),
    "fig06-lr-jacobian": (
        Reading(
            "over the time ηt that is in phase II of every run",
            partial(shared_plateau, name=c.J, network="6cnn"),
        ),
    ),
    "fig05-late-sharpness": (
        Reading("test accuracy from the step of the largest ‖H‖ on", saturated_since_largest),
    ),
    **{f"fig{n}-correlation": (AFTER_ONSET, IMPURITY_ADDS) for n in range(15, 22)},
    **{
        f"fig{n}-proportional": (
            Reading(OVER_TRAINING_SET, partial(over_training_set, e.relation_proportional)),
        )
        for n in (15, 16, 21)
    },
    "full-level": (Reading(AS_FIGURE_5, level_in_halves),),
    "full-correlation": tuple(
        Reading(reading.words, partial(of_first, reading.measure))
        for reading in (AFTER_ONSET, IMPURITY_ADDS)
    ),
    "shares-level": (Reading(AS_FIGURE_5, shares_in_halves),),
    "fig08-two-entries": (Reading("at every stored step", two_entries_throughout),),
    "fig08-diagonal": (
        Reading(TO_A_QUARTER, partial(s.printed_entries, offset=0, relative=RELATIVE)),
    ),
    "fig08-subdiagonal": (
        Reading(TO_A_QUARTER, partial(s.printed_entries, offset=-1, relative=RELATIVE)),
    ),
    "fig10-gradient-top-eigenvector": (EACH_PHASE,),
    "fig10-example-gradient": (EVERY_STEP,),
    "full-example-gradient": (EVERY_STEP,),
    "fig18-constant-grows": (IN_PHASE_2,),
    "fig20-constant-grows": (IN_PHASE_2,),
    "fig21-impurity-first": (
        Reading("⟨λ⁽¹⁾⟩ has only to begin to fall before ‖H‖ is largest", peak_before_largest),
    ),
    "eq32-outliers": (Reading("within phase II alone", between_in_phase_2),),
    "eq32-number": (Reading("within phase II alone", outliers_in_phase_2),),
    "fig29-concentrated": (
        Reading("above 1/√|D_i|, which is all but certain to exceed chance", above_random),
    ),
    **{
        f"{figure}-earlier-{key}": (
            Reading(IN_TIME, partial(on, partial(peak_time, by=by), **fields)),
        )
        for figure, lr in (("sd04", 0.05), ("sd04words", 1.0), ("sd21", 0.5))
        for key, by, fields in (
            ("lr", "lr", {"batch_size": 128}),
            ("batch", "batch_size", {"lr": lr}),
        )
    },
    "sd03-instability": (
        Reading(
            "the first seed alone, as the other runs end earlier",
            partial(of_first_seed, d.instability),
        ),
    ),
    "sd06-flatter": (Reading("at equal lengths along all directions", flatter_at_one_length),),
    "sd12-accuracy": (Reading("from one length to the next, seed by seed", better_seed_by_seed),),
    "sd13-momentum": (Reading("at every measured step, seed by seed", lower_throughout),),
    "be05-scale": (
        Reading("of the largest η alone; the paper speaks of the two largest", scale_at_largest),
    ),
    "be05-h": (
        Reading(
            "without the smallest η",
            partial(without_smallest, partial(b.largest_normalized, name=c.H, rising=False)),
        ),
    ),
}
"""Claim → its other readings."""
