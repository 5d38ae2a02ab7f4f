"""Numbers of parts of the training set against arrays small enough to see."""

import dataclasses

import numpy as np
import pytest
from synthetic_runs import phase_run

from ijrlib import share_criteria
from ijrlib.criteria import NotMeasured

RUN = phase_run(lr=0.04)  # 2/η = 50
STEPS = np.array([0, 10, 20, 30, 40, 50])
WHOLE = np.array([10.0, 40.0, 50.0, 60.0, 40.0, 70.0])  # first at the threshold at step 20
RATIOS = np.array([3.0, 3.0, 1.0, 1.2, 1.3, 1.6])


def with_shares(few=RATIOS, most=None, whole=WHOLE):
    most = np.ones(len(whole)) if most is None else most
    values = np.stack([few * whole, most * whole, whole], axis=1)
    arrays = {f"share_{name}": values for name in ("sharpness", "jacobian_sq")}
    arrays |= {f"{name}.steps": STEPS for name in list(arrays)}
    return dataclasses.replace(RUN, arrays=arrays)


def test_levels_are_in_units_of_the_threshold():
    steps, levels = share_criteria.levels(with_shares())
    np.testing.assert_array_equal(steps, STEPS)
    np.testing.assert_allclose(levels[:, -1], WHOLE / 50)
    np.testing.assert_allclose(levels[:, 0], RATIOS * WHOLE / 50)


def test_only_steps_from_the_onset_of_the_whole_set_on_count():
    run = with_shares()
    # medians of 1, 1.2, 1.3, 1.6 and of 1, 1.2, 0.8, 1.4, not of the ratios of 3 before
    np.testing.assert_allclose(share_criteria.bias(run), [1.25, 1.0])
    np.testing.assert_allclose(share_criteria.bias(run, "share_jacobian_sq"), [1.25, 1.0])
    assert share_criteria.level([run]).value == (
        "median 1.10 × 2/η; 0.80 to 1.40 at single steps; 1 run(s)"
    )


def test_the_excess_is_what_is_left_of_that_of_the_larger_part():
    # ‖H‖/(2/η) − 1 is 0, 0.2, −0.2, 0.4 on all, median 0.1, and 0.2, 0.6, −0.2, 0.8 on the part,
    # median 0.4
    part = np.array([1.0, 1.0, 1.2, 4 / 3, 1.0, 9 / 7])
    found = share_criteria.excess([with_shares(most=part)])
    assert "there is 0.25 on all" in found.value and found.holds
    assert not share_criteria.excess([with_shares(most=part), with_shares()]).holds
    with pytest.raises(NotMeasured, match="does not exceed"):
        share_criteria.excess([with_shares(most=0.5 * part)])


def test_every_run_has_to_meet_a_criterion():
    good, bad = with_shares(few=np.ones(6)), with_shares()
    for measure in (share_criteria.representative, share_criteria.together):
        assert measure([good]).holds
    assert not share_criteria.representative([good, bad]).holds
    assert share_criteria.representative([good, bad]).value == (
        "5%: × 1.00 to 1.25; 25%: × 1.00; 2 run(s)"
    )
    reversed_part = with_shares(few=WHOLE[::-1] / WHOLE)
    assert not share_criteria.together([good, reversed_part]).holds


def test_a_run_without_enough_steps_past_the_onset_decides_nothing():
    late = np.array([10.0, 20.0, 30.0, 50.0, 50.0, 50.0])
    for run in (with_shares(whole=late), with_shares(whole=0.1 * WHOLE)):
        with pytest.raises(NotMeasured, match=r"measured [03] time\(s\) since"):
            share_criteria.level([run])
    with pytest.raises(NotMeasured, match="no run is stored"):
        share_criteria.level([])
