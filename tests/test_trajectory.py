"""The scratch file of a run's points, its Gram matrix, and the projection of long trajectories."""

import numpy as np
import pytest
import torch

from ijrlib import trajectory
from ijrlib.trajectory import Trajectory

M = 1000


def walk(points, m=M, seed=0):
    """Points of a path that drifts and jumps, the first one 0, shape (points, m), float64."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(points - 1, m, generator=generator, dtype=torch.float64)
    steps += 0.3 * torch.randn(m, generator=generator, dtype=torch.float64)
    return torch.cat([torch.zeros(1, m, dtype=torch.float64), steps.cumsum(0)])


@pytest.fixture
def small_limit(monkeypatch):
    """At most 100 numbers a point for a trajectory of 20."""
    monkeypatch.setattr(trajectory, "LIMIT_BYTES", 4 * 20 * 100)


def test_the_gram_matrix_is_that_of_the_points_in_order_of_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectory, "BLOCK", 300)  # several blocks of columns
    points = walk(6).float()
    kept = Trajectory(tmp_path / "points", range(10, 22, 2), M)
    for k in (0, 1, 3, 2, 5, 4):
        kept.record(10 + 2 * k, points[k])
    exact = points.double() @ points.double().T
    np.testing.assert_allclose(kept.gram(6), exact, rtol=1e-13, atol=1e-10)
    np.testing.assert_allclose(kept.gram(4), exact[:4, :4], rtol=1e-13, atol=1e-10)


def test_a_point_recorded_again_replaces_the_first(tmp_path):
    points = walk(3)
    kept = Trajectory(tmp_path / "points", [0, 1, 2], M)
    for k in (0, 1, 2):
        kept.record(k, torch.full((M,), 7.0))
    for k in (0, 1, 2):
        kept.record(k, points[k])
    np.testing.assert_allclose(kept.gram(3), points @ points.T, rtol=1e-6)


def test_points_in_float64_are_kept_to_float32(tmp_path):
    points = walk(3) / 3
    kept = Trajectory(tmp_path / "points", [0, 1, 2], M)
    for k in range(3):
        kept.record(k, points[k])
    difference = np.abs(kept.gram(3) - (points @ points.T).numpy())
    assert 0 < difference.max() < 2.0**-23 * float(points[2].norm() ** 2)


def test_resuming_where_points_are_missing_is_refused_with_a_way_out(tmp_path):
    kept = Trajectory(tmp_path / "points", range(3, 9), M)
    kept.check(3)
    with pytest.raises(ValueError, match=r"at least 4000 bytes .* got 0; remove the checkpoint"):
        kept.check(4)
    for step in (3, 4, 5):
        kept.record(step, torch.zeros(M))
    kept.check(6)
    with pytest.raises(ValueError, match=r"before 7, got 12000"):
        kept.check(7)


def test_resuming_from_an_earlier_step_than_the_last_point_is_no_loss(tmp_path):
    points = walk(4)
    kept = Trajectory(tmp_path / "points", range(4), M)
    for k in range(4):
        kept.record(k, points[k] + (k > 1))
    kept.check(2)
    for k in (2, 3):
        kept.record(k, points[k])
    np.testing.assert_allclose(kept.gram(4), points @ points.T, rtol=1e-6)


def test_a_run_without_points_needs_no_file(tmp_path):
    kept = Trajectory(tmp_path / "points", [], M)
    kept.check(5)
    assert kept.width == M and not kept.path.exists()


def test_more_points_than_a_block_has_numbers_are_taken_a_column_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectory, "BLOCK", 2)
    points = walk(3, m=5).float().double()
    kept = Trajectory(tmp_path / "points", range(3), 5)
    for k, point in enumerate(points):
        kept.record(k, point)
    np.testing.assert_allclose(kept.gram(3), points @ points.T, rtol=1e-13, atol=1e-13)


def test_removing_takes_the_file_away_and_may_be_repeated(tmp_path):
    kept = Trajectory(tmp_path / "points", [0], M)
    kept.record(0, torch.zeros(M))
    assert kept.path.exists()
    kept.remove()
    kept.remove()
    assert not kept.path.exists()


def test_the_file_never_grows_beyond_the_limit(tmp_path, small_limit):
    kept = Trajectory(tmp_path / "points", range(20), M)
    assert kept.width == 100
    for k, point in enumerate(walk(20)):
        kept.record(k, point)
    assert kept.path.stat().st_size == trajectory.LIMIT_BYTES
    assert Trajectory(tmp_path / "other", range(20), 99).width == 99


def test_the_projection_is_one_signed_entry_a_coordinate_and_equally_many_a_bucket():
    columns = torch.stack([trajectory.project(e, 96) for e in torch.eye(M)], dim=1)
    assert columns.shape == (96, M)
    assert set(columns.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (columns.abs().sum(0) == 1).all()
    full = -(-M // 96)
    assert columns.abs().sum(1).max() <= full
    assert 0.4 < float((columns.sum(0) > 0).double().mean()) < 0.6


def test_a_resumed_run_in_another_process_has_the_same_projection():
    point = torch.arange(1.0, M + 1)
    before = trajectory.project(point, 96)
    trajectory._deal.cache_clear()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        assert torch.equal(trajectory.project(point, 96), before)
        assert torch.equal(torch.get_rng_state(), state)


def test_projected_products_are_right_on_average_and_spread_as_stated():
    width, count = 50, 400
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, M, generator=generator, dtype=torch.float64)
    a[:3] += 30  # a few large entries are the hard case
    b[:3] -= 20
    a, b = a / a.norm(), b / b.norm()
    exact = float(a @ b)
    products = []
    for _ in range(count):  # other coordinates and signs are another draw of the projection
        order = torch.randperm(M, generator=generator)
        signs = 2 * torch.randint(2, (M,), generator=generator) - 1
        one, other = (trajectory.project(v[order] * signs, width) for v in (a, b))
        products.append(float(one @ other))
    bound = (2 / width) ** 0.5
    # the mean of `count` draws: four standard errors; their spread: no more than stated
    assert abs(np.mean(products) - exact) < 4 * bound / count**0.5
    assert 0.2 * bound < np.std(products) <= bound * (1 + 4 / (2 * count) ** 0.5)


def test_errors_compare_distances_with_norms_taken_of_the_points(tmp_path, small_limit):
    points = walk(20)
    displacement = points.norm(dim=1).numpy()
    steps = np.concatenate([[np.nan], points.diff(dim=0).norm(dim=1).numpy()])
    exact = trajectory.errors((points @ points.T).numpy(), displacement, steps)
    assert exact["displacement_error"] < 1e-12 and exact["step_error"] < 1e-12
    kept = Trajectory(tmp_path / "points", range(20), M)
    for k, point in enumerate(points):
        kept.record(k, point)
    rows = torch.stack([trajectory.project(point, 100) for point in points])
    found = trajectory.errors(kept.gram(20), displacement, steps)
    ratio = rows.norm(dim=1)[1:] / points.norm(dim=1)[1:]
    assert found["displacement_error"] == pytest.approx(float((ratio - 1).abs().max()), rel=1e-4)
    ratio = rows.diff(dim=0).norm(dim=1) / points.diff(dim=0).norm(dim=1)
    assert found["step_error"] == pytest.approx(float((ratio - 1).abs().max()), rel=1e-4)
    assert 0.01 < found["step_error"] < 5 * (2 / 100) ** 0.5


def test_a_path_that_does_not_move_has_no_error():
    still = np.zeros((3, 3))
    found = trajectory.errors(still, np.zeros(3), np.array([np.nan, 0.0, 0.0]))
    assert found == {"displacement_error": 0.0, "step_error": 0.0}


@pytest.mark.parametrize(
    ("displacement", "steps", "expected"),
    [
        ([0, 1, 6], [np.nan, 2, 2], (1.0, 0.5)),
        ([0, 4, 3], [np.nan, 4, 0.5], (0.5, 1.0)),
        ([0, 2, 3], [np.nan, 2, 0], (0.0, 0.0)),
    ],
)
def test_the_largest_error_counts_whether_a_distance_is_too_long_or_too_short(
    displacement, steps, expected
):
    points = np.array([0.0, 2.0, 3.0])
    found = trajectory.errors(np.outer(points, points), np.array(displacement), np.array(steps))
    assert (found["displacement_error"], found["step_error"]) == expected


def test_a_step_that_rounding_makes_shorter_than_nothing_is_lost_entirely():
    products = np.array([[1, 1 + 2.0**-52], [1 + 2.0**-52, 1]])
    found = trajectory.errors(products, np.ones(2), np.array([np.nan, 1e-9]))
    assert found == {"displacement_error": 0.0, "step_error": 1.0}
