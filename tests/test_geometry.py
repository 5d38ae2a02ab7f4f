"""The geometry of the m_x against vectors of R^m that are written out, in float64."""

from functools import partial

import dense
import numpy as np
import pytest
import torch

from ijrlib import geometry

N = 11
KINDS = ["fully connected, tanh", "convolutional, ReLU", "residual"]
# sums of some hundred products in float64
assert_close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


def dominant(z):
    """λ^(1), q^(1) of each example, its entry at the most probable class positive, and classes."""
    m = dense.logit_hessians("cross_entropy", z)
    values, vectors = torch.linalg.eigh(m)
    classes = z.argmax(1)
    q = vectors[:, :, -1]
    q = q * q[torch.arange(len(z)), classes].sign()[:, None]
    return values[:, -1], q, classes


def problem(kind, n=N):
    """Model, inputs, labels, J_x (n, m, C), u_x = √λ^(1) q^(1), q^(1), most probable classes."""
    model = dense.network(kind)
    x, y = dense.examples(n)
    z = dense.logits(model, x, dense.parameters(model))
    value, q, classes = dominant(z)
    return model, x, y, dense.jacobians(model, x), value.sqrt()[:, None] * q, q, classes


def images(jacobians, u):
    """J_x u_x, shape (n, m)."""
    return (jacobians @ u[:, :, None])[:, :, 0]


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def grams(jacobians):
    return jacobians.mT @ jacobians


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_cosines_are_those_of_the_vectors_written_out(kind):
    _, _, _, j, u, q, _ = problem(kind)
    other = torch.randn(q.shape, generator=torch.Generator().manual_seed(5), dtype=q.dtype)
    expected = (unit(images(j, q)) * unit(images(j, other))).sum(1)
    assert_close(geometry.lengths(grams(j), u), images(j, u).norm(dim=1))
    assert_close(geometry.cosines(grams(j), q, other), expected)
    directions = images(j, geometry.normalized(grams(j), u))
    assert_close(directions, unit(images(j, u)))


def test_cosines_do_not_depend_on_scale_even_where_squares_underflow():
    _, _, _, j, _, q, _ = problem(KINDS[0])
    other = torch.randn(q.shape, generator=torch.Generator().manual_seed(5), dtype=q.dtype)
    small = 1e-200 * other
    assert (small.square() == 0).all()
    assert_close(geometry.cosines(grams(j), q, small), geometry.cosines(grams(j), q, other))


def test_an_example_without_direction_has_cosine_0():
    _, _, _, j, _, q, _ = problem(KINDS[0])
    j = j.clone()
    j[2] = 0
    cosine = geometry.cosines(grams(j), q, -q)
    assert float(cosine[2]) == 0
    assert_close(cosine[3:], -torch.ones(N - 3, dtype=cosine.dtype))
    assert not geometry.normalized(grams(j), q)[2].any()
    stretch, cos_sq = geometry.direction_forms(grams(j), torch.eye(3).double().expand(N, 3, 3))
    assert not stretch[2].any() and not cos_sq[2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_minus_the_gradient_of_an_example_is_the_image_of_downhill(kind):
    model, x, y, j, *_ = problem(kind)
    p = dense.logits(model, x, dense.parameters(model)).softmax(1)
    expected = -torch.stack(
        [dense.gradient(model, "cross_entropy", x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    )
    assert_close(images(j, geometry.downhill(p, y)), expected)


def test_downhill_keeps_its_direction_where_p_of_the_label_rounds_to_1():
    rest = torch.tensor([3e-20, 5e-30, 1e-20], dtype=torch.float64)
    p = torch.tensor([[3e-20, 1.0, 5e-30, 1e-20]], dtype=torch.float64)
    (direction,) = geometry.downhill(p, torch.tensor([1]))
    assert float(direction[1]) == pytest.approx(float(rest.sum()), rel=1e-15)
    np.testing.assert_array_equal(direction[[0, 2, 3]], -p[0, [0, 2, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_stretch_and_squared_cosines_of_all_eigenvector_images(kind):
    model, x, _, j, *_ = problem(kind)
    m = dense.logit_hessians("cross_entropy", dense.logits(model, x, dense.parameters(model)))
    q = torch.linalg.eigh(m).eigenvectors.flip(2)
    stretch, cos_sq = geometry.direction_forms(grams(j), q)
    for k in range(N):
        image = [j[k] @ q[k, :, i] for i in range(3)]
        for i in range(3):
            expected = image[i].norm() ** 2 * 3 / torch.linalg.matrix_norm(j[k]) ** 2
            assert float(stretch[k, i]) == pytest.approx(float(expected), rel=1e-10)
            for h in range(3):
                cos = image[i] @ image[h] / (image[i].norm() * image[h].norm())
                assert float(cos_sq[k, i, h]) == pytest.approx(float(cos**2), rel=1e-9, abs=1e-12)
    assert_close(stretch.mean(1), torch.ones(N, dtype=stretch.dtype))


@pytest.mark.parametrize("chunk", [2, 250])
@pytest.mark.parametrize("kind", KINDS)
def test_class_means_are_the_means_over_the_examples_of_each_class(kind, chunk):
    model, x, _, j, u, _, _ = problem(kind)
    classes = torch.tensor([2, 0, 2, 2, 0, 2, 2, 0, 2, 2, 2])  # none of class 1
    rows = geometry.class_means(model, x, u, classes, chunk=chunk)
    vectors = images(j, u)
    expected = torch.stack([vectors[[1, 4, 7]].mean(0), vectors[classes == 2].mean(0)])
    assert_close(rows, expected)


def test_the_length_of_the_mean_direction_is_1_for_a_class_of_one_and_less_for_others():
    model, x, _, j, _, q, _ = problem(KINDS[0])
    classes = torch.tensor([0] + [1] * (N - 1))
    direction = geometry.normalized(grams(j), q)
    lengths = geometry.class_means(model, x, direction, classes).norm(dim=1)
    expected = unit(images(j, q))[1:].mean(0).norm()
    assert float(lengths[0]) == pytest.approx(1, rel=1e-12)
    assert float(lengths[1]) == pytest.approx(float(expected), rel=1e-10)
    assert float(expected) < 0.99


def test_cosine_matrix_is_that_of_the_rows_and_nan_for_a_row_of_zeros():
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(geometry.cosine_matrix(rows), unit(rows) @ unit(rows).T)
    rows[1] = 0
    cosines = geometry.cosine_matrix(rows)
    assert cosines[1].isnan().all() and cosines[:, 1].isnan().all()
    assert not cosines[[0, 2, 3]][:, [0, 2, 3]].isnan().any()


def test_subspace_alignment_is_the_cosine_with_the_least_squares_projection():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    rows *= torch.tensor([1e-12, 1.0, 1e3, 1e8]).double()[:, None]  # their lengths do not matter
    v = torch.randn(50, generator=generator, dtype=torch.float64) + rows[1]
    basis = torch.linalg.qr(unit(rows).T).Q
    projection = basis @ (basis.T @ v)
    expected = float(projection @ v / (projection.norm() * v.norm()))
    assert geometry.subspace_alignment(v, rows) == pytest.approx(expected, rel=1e-10)
    inside = rows[1] - 0.5e-3 * rows[2]
    outside = v - projection
    assert geometry.subspace_alignment(inside, rows) == pytest.approx(1, abs=1e-12)
    assert geometry.subspace_alignment(outside, rows) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_that_depends_on_the_others_adds_no_direction(dtype):
    generator = torch.Generator().manual_seed(0)
    three = torch.randn(3, 500, generator=generator, dtype=torch.float64).to(dtype)
    dependent = torch.cat([three, (0.3 * three[:1] - 2 * three[1:2])])
    v = torch.randn(500, generator=generator, dtype=torch.float64).to(dtype)
    expected = geometry.subspace_alignment(v, three)
    # one more random direction would raise the alignment by a sixth; float32 rounds to 1e-7
    assert geometry.subspace_alignment(v, dependent) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_means_that_are_not_finite_have_no_geometry(entry):
    rows = torch.eye(3, 5, dtype=torch.float64)
    rows[1, 4] = entry
    assert np.isnan(geometry.subspace_alignment(torch.ones(5, dtype=torch.float64), rows))
    assert np.isnan(geometry.between_class_norm(rows, torch.ones(3)))


def test_nothing_is_aligned_with_a_vector_of_zeros():
    rows = torch.eye(3, 5, dtype=torch.float64)
    assert np.isnan(geometry.subspace_alignment(torch.zeros(5, dtype=torch.float64), rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("zeros", [[-1], [0], [0, -1]])
def test_means_of_zero_span_nothing(count, zeros, dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 50, generator=generator, dtype=torch.float64).to(dtype)
    v = rows[count // 2] + torch.randn(50, generator=generator, dtype=torch.float64).to(dtype)
    rows[zeros] = 0
    others = rows[rows.any(1)]
    if len(others) == 0:
        assert np.isnan(geometry.subspace_alignment(v, rows))
        return
    solution = torch.linalg.lstsq(others.double().T, v.double()[:, None]).solution
    projection = (others.double().T @ solution)[:, 0]
    expected = float(projection.norm() / v.double().norm())
    assert 0 < expected < 0.99
    assert geometry.subspace_alignment(v, rows) == pytest.approx(expected, rel=1e-10)
    assert geometry.subspace_alignment(others[0], rows) == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_plane_coordinates_give_the_projection_onto_the_plane_of_two_vectors(kind):
    model, x, _, j, u, _, _ = problem(kind)
    vectors = images(j, u)
    one, other = vectors[:5].mean(0), vectors[5:].mean(0)
    found = geometry.plane_coordinates(model, x, u, one, other, chunk=4)
    plane = torch.stack([one, other], dim=1)
    projected = (plane @ torch.linalg.lstsq(plane, vectors.T).solution).T
    assert_close(found.norm(dim=1), projected.norm(dim=1))
    assert_close(found[:, 0], vectors @ unit(one))
    cosine = unit(one) @ unit(other)
    arrow = torch.stack([cosine, (1 - cosine**2).sqrt()])
    assert_close(found @ arrow, vectors @ unit(other))
