"""Coordinates, cosines and lengths of a path from its Gram matrix, against the path itself."""

import numpy as np
import pytest
import torch

from ijrlib import embedding


def path(points=30, m=200, seed=0):
    """Points that drift one way, bounce along another direction and tremble, from an origin of
    their own."""
    rng = np.random.default_rng(seed)
    drift, bounce = rng.standard_normal((2, m))
    t = np.arange(points)[:, None]
    steady = 0.1 * t * drift + np.where(t > points // 3, (-1.0) ** t * t / points, 0) * bounce
    return rng.standard_normal(m) + steady + 0.05 * rng.standard_normal((points, m))


def gram(x):
    return (x - x[0]) @ (x - x[0]).T


def distances(x):
    return np.linalg.norm(x[:, None] - x[None, :], axis=2)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def test_principal_coordinates_keep_all_distances_and_are_those_of_the_centred_points():
    x = path()
    coordinates, shares = embedding.principal_coordinates(gram(x))
    np.testing.assert_allclose(distances(coordinates), distances(x), atol=1e-6)
    left, singular, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(shares, singular**2 / (singular**2).sum(), atol=1e-12)
    for i in range(3):
        expected = left[:, i] * singular[i]
        expected *= np.sign(expected[np.abs(expected).argmax()])
        np.testing.assert_allclose(coordinates[:, i], expected, atol=1e-8)


def test_principal_coordinates_do_not_depend_on_the_origin_of_the_gram_matrix():
    x = path()
    one, _ = embedding.principal_coordinates(gram(x))
    other, _ = embedding.principal_coordinates(x @ x.T)
    np.testing.assert_allclose(one[:, :5], other[:, :5], atol=1e-8)


def test_points_that_agree_have_no_coordinates():
    with pytest.raises(ValueError, match="points that differ"):
        embedding.principal_coordinates(np.zeros((4, 4)))
    point = np.random.default_rng(3).standard_normal(200)
    x = np.repeat(point[None], 7, axis=0)
    with pytest.raises(ValueError, match="points that differ"):
        embedding.principal_coordinates(x @ x.T)


def test_step_cosines_are_those_of_consecutive_steps():
    x = path()
    step = np.diff(x, axis=0)
    expected = [cosine(step[t], step[t + 1]) for t in range(len(step) - 1)]
    found = embedding.step_cosines(gram(x))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.min() < -0.5 and found.max() > 0.2


def test_direction_cosines_are_those_of_a_step_with_what_follows_it():
    x = path()
    found = embedding.direction_cosines(gram(x), ahead=4)
    expected = [cosine(x[t + 1] - x[t], x[t + 5] - x[t + 1]) for t in range(len(x) - 5)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert len(embedding.direction_cosines(gram(x))) == len(x) - 11


def test_a_random_walk_has_no_direction():
    x = np.random.default_rng(0).standard_normal((300, 2000)).cumsum(0)
    # cosines of independent vectors in m dimensions are N(0, 1/m)
    assert np.abs(embedding.direction_cosines(gram(x))).max() < 6 / 2000**0.5
    assert np.abs(embedding.step_cosines(gram(x))).max() < 6 / 2000**0.5


def test_a_step_of_zero_has_no_cosine():
    x = path(12)
    x[4] = x[3]
    undefined = np.isnan(embedding.step_cosines(gram(x)))
    assert list(np.flatnonzero(undefined)) == [2, 3]
    assert list(np.flatnonzero(np.isnan(embedding.direction_cosines(gram(x), ahead=3)))) == [3]


def test_rounding_of_points_that_agree_makes_no_path_and_no_cosine():
    gram = np.full((4, 4), 1 + 2.0**-52)
    np.fill_diagonal(gram, 1)  # squared distances of -2^-51
    with np.errstate(all="raise"):
        assert (embedding.displacement(gram) == 0).all()
        assert np.isnan(embedding.step_cosines(gram)).all()
        assert np.isnan(embedding.direction_cosines(gram, ahead=1)).all()


def test_points_on_a_line_have_one_coordinate():
    position = np.random.default_rng(0).standard_normal(20)
    with np.errstate(all="raise"):
        coordinates, shares = embedding.principal_coordinates(np.outer(position, position))
    position -= position.mean()
    position *= np.sign(position[np.abs(position).argmax()])
    np.testing.assert_allclose(coordinates[:, 0], position, atol=1e-12)
    np.testing.assert_allclose(coordinates[:, 1:], 0, atol=1e-7)
    np.testing.assert_allclose(shares, [1] + [0] * 19, atol=1e-13)
    assert shares.min() >= 0


def test_a_single_point_has_gone_nowhere():
    assert embedding.displacement(np.eye(1)).tolist() == [0]


def test_displacement_is_that_of_the_path():
    x = path()
    displacement = np.linalg.norm(x - x[0], axis=1)
    np.testing.assert_allclose(embedding.displacement(gram(x)), displacement, rtol=1e-9)
    np.testing.assert_allclose(embedding.displacement(x @ x.T), displacement, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "points"),
    [
        (embedding.principal_coordinates, 2),
        (embedding.umap, embedding.LEAST_POINTS),
        (embedding.step_cosines, 3),
        (embedding.direction_cosines, 12),
    ],
)
def test_too_few_points_or_another_shape_are_refused(function, points):
    with pytest.raises(ValueError, match=f"at least {points} points, got shape"):
        function(np.eye(points - 1))
    with pytest.raises(ValueError, match=r"got shape \(20, 30\)"):
        function(np.ones((20, 30)))


@pytest.mark.parametrize("ahead", [0, -1])
def test_a_displacement_over_no_steps_is_refused(ahead):
    with pytest.raises(ValueError, match=f"ahead: expected at least 1, got {ahead}"):
        embedding.direction_cosines(np.eye(20), ahead)


def test_umap_keeps_the_neighbours_of_three_far_clusters_and_repeats_itself():
    rng = np.random.default_rng(0)
    centres = 50 * rng.standard_normal((3, 100))
    x = np.repeat(centres, 20, axis=0) + rng.standard_normal((60, 100))
    found = embedding.umap(gram(x))
    assert found.shape == (60, 2)
    d = distances(found)
    np.fill_diagonal(d, np.inf)
    assert (d.argmin(1) // 20 == np.arange(60) // 20).all()
    np.testing.assert_array_equal(embedding.umap(gram(x)), found)
    assert not np.array_equal(embedding.umap(gram(x), seed=1), found)


def test_umap_takes_as_few_points_as_it_says():
    found = embedding.umap(gram(path(embedding.LEAST_POINTS)))
    assert found.shape == (embedding.LEAST_POINTS, 2)
    assert np.isfinite(found).all()


def test_umap_leaves_the_number_of_threads_as_it_was():
    assert torch.get_num_threads() == 1  # now torch has set it, and would not set it again
    points = np.random.default_rng(0).standard_normal((60, 5))
    embedding.umap(points @ points.T)
    assert torch.get_num_threads() == 1
