"""The rule that divides training into phases, on runs whose phases are known by construction."""

import dataclasses

import numpy as np
import pytest
from synthetic_runs import PHASE_END, PHASE_ONSET, PHASE_PEAK, phase_run

from ijrlib import phases
from ijrlib.criteria import NotMeasured

RUN = phase_run()


def with_columns(**columns):
    return dataclasses.replace(RUN, series=RUN.series.assign(**columns))


def test_the_phases_are_where_the_run_was_made_to_have_them():
    assert phases.reaches_threshold(RUN)
    assert phases.onset(RUN) == PHASE_ONSET
    assert phases.peak(RUN) == PHASE_PEAK
    assert phases.active_period(RUN) == (PHASE_ONSET, PHASE_PEAK)


def test_the_beginning_of_a_run_has_its_rows_up_to_a_step():
    start = phases.beginning(RUN, PHASE_ONSET)
    assert start.series["step"].to_list() == list(range(PHASE_ONSET + 1))
    assert phases.onset(start) == PHASE_ONSET
    assert not phases.reaches_threshold(phases.beginning(RUN, PHASE_ONSET - 1))
    assert len(RUN.series) > PHASE_ONSET + 1


def test_the_beginning_of_a_run_has_its_arrays_up_to_a_step():
    steps = np.arange(0, 301, 10)
    arrays = {"lambda_1": np.arange(31 * 4.0).reshape(31, 4), "trajectory_gram": np.ones((31, 31))}
    whole = dataclasses.replace(
        RUN, arrays={**arrays, "lambda_1.steps": steps, "trajectory_gram.steps": steps}
    )
    start = phases.beginning(whole, 55).arrays
    assert start["lambda_1.steps"].tolist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_array_equal(start["lambda_1"], arrays["lambda_1"][:6])
    assert start["trajectory_gram"].shape == (6, 6)
    assert len(whole.arrays["lambda_1"]) == 31


def test_a_run_below_the_threshold_enters_phase_2_at_its_own_level():
    low = with_columns(sharpness=RUN.series["sharpness"] / 2)
    assert not phases.reaches_threshold(low)
    sharpness = low.series["sharpness"].to_numpy()
    expected = int(np.flatnonzero(sharpness >= phases.OWN_LEVEL * sharpness.max())[0])
    assert phases.onset(low) == expected < PHASE_ONSET


def test_steps_without_a_measurement_do_not_count():
    sparse = RUN.series["sharpness"].where(RUN.series["step"] % 7 == 0)
    assert phases.onset(with_columns(sharpness=sparse)) == 105


def test_stages_follow_one_another_and_mean_what_they_say():
    steps = [phases.stage(RUN, paper_step) for paper_step in phases.STAGES]
    assert steps == sorted(steps) and len(set(steps)) == len(steps)
    assert steps[:3] == [PHASE_ONSET, (PHASE_ONSET + PHASE_PEAK) // 2, PHASE_PEAK]
    impurity = RUN.series["impurity_mean"]
    for paper_step, share in (
        (1500, 3 / 4),
        (2000, 1 / 2),
        (3000, 1 / 3),
        (4000, 1 / 4),
        (6000, 0.1),
    ):
        step = phases.stage(RUN, paper_step)
        assert impurity[step] <= share * impurity[PHASE_PEAK] < impurity[step - 1]


def test_the_entry_nearest_to_a_stage_is_taken():
    ((paper_step, index, step),) = phases.stages(RUN, "q_sqrt_lambda", [500])
    assert (paper_step, step) == (500, 170)  # of 170 and 180 around 175, the earlier one
    assert RUN.arrays["q_sqrt_lambda.steps"][index] == step


def test_what_a_run_does_not_get_to_is_said():
    rising = with_columns(impurity_mean=RUN.series["step"] + 1.0)
    with pytest.raises(NotMeasured, match="does not get to ½ of the peak"):
        phases.stage(rising, 2000)
    early = with_columns(impurity_mean=1.0 / (RUN.series["step"] + 1))
    with pytest.raises(NotMeasured, match=r"no phase II: .* largest at step 0, .* step 100"):
        phases.active_period(early)
    with pytest.raises(NotMeasured, match="has no array tracked_p1"):
        phases.nearest(RUN, "tracked_p1", 0)
    assert phases.stage(RUN, 6000) < PHASE_END


def test_a_phase_2_of_no_length_is_none():
    series = phase_run().series
    run = dataclasses.replace(
        phase_run(),
        series=series.assign(impurity_mean=np.where(series["step"] == PHASE_ONSET, 1.0, 0.1)),
    )
    with pytest.raises(NotMeasured, match="no phase II"):
        phases.active_period(run)
