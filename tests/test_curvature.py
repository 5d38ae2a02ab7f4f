"""The full measurement against dense matrices in float64."""

import dataclasses
import math

import dense
import pytest
import torch
from torch import nn

from ijrlib import curvature as room
from ijrlib.operators import LOSSES, linearize

LARGE = 3 * room.SMALLEST_SUBSET
"""Examples enough for a subset of a third of them; with fewer, H is asked alone."""


@pytest.fixture(autouse=True)
def _a_third(monkeypatch):
    """So that few examples suffice for the dense matrices."""
    monkeypatch.setattr(room, "SUBSET", 3)


def measured(kind, loss, count, previous=None, seed=0):
    model = dense.network(kind)
    x, y = dense.examples(count)
    found = room.curvature(model, LOSSES[loss], (x, y), previous, chunk=64, seed=seed)
    return model, x, y, found


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("count", [20, LARGE])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("kind", dense.KINDS)
def test_sharpness_jacobian_and_gradient_are_those_of_the_dense_matrices(kind, loss, count, warm):
    model, x, y, found = measured(kind, loss, count)
    if warm:
        *_, found = measured(kind, loss, count, previous=found)
    hessian = dense.hessian(model, loss, x, y)
    values = torch.linalg.eigvalsh(hessian)
    assert found.top.value == pytest.approx(float(values[-1]), rel=5e-3)
    residual = (hessian @ found.top.vector - found.top.value * found.top.vector).norm()
    assert found.top.residual == pytest.approx(
        float(residual) / found.top.value, rel=1e-4, abs=1e-9
    )
    singular = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))
    # 5e-3 of the square
    assert found.jacobian_norm == pytest.approx(float(singular[0]), rel=2.5e-3)
    gradient = dense.gradient(model, loss, x, y)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-9, atol=1e-12)
    z = dense.logits(model, x, dense.parameters(model))
    assert found.loss == pytest.approx(float(dense.loss(loss, z, y)), rel=1e-9)
    torch.testing.assert_close(found.logits, z.detach())
    cosine = (found.top.vector @ gradient).abs() / gradient.norm()
    assert found.gradient_alignment == pytest.approx(float(cosine), rel=1e-9)
    if loss == "squared":
        assert found.impurity is None
    else:
        tops = torch.linalg.eigvalsh(dense.logit_hessians(loss, z))[:, -1]
        assert found.impurity == pytest.approx(float(tops.mean()), rel=1e-12)


@pytest.mark.parametrize("warm", [False, True])
def test_where_h_is_asked_alone_the_tolerance_decides_too(warm):
    model, x, y, found = measured("fully connected, tanh", "cross_entropy", 20)
    loss, previous = LOSSES["cross_entropy"], found if warm else None
    loose, default, tight = (
        room.curvature(model, loss, (x, y), previous, rtol=rtol) for rtol in (0.1, room.RTOL, 1e-9)
    )
    values = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", x, y))
    assert tight.top.value == pytest.approx(float(values[-1]), rel=1e-9)
    singular = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))
    assert tight.jacobian_norm == pytest.approx(float(singular[0]), rel=1e-9)
    assert tight.top.residual < 1e-4 < default.top.residual
    assert loose.top.products < tight.top.products


class Two(nn.Module):
    """Two layers that share neither inputs nor examples: H is block diagonal."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        generator = torch.Generator().manual_seed(0)
        for name in ("a", "b"):
            weight = torch.randn(2, 3, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(weight / 3))

    def forward(self, x):
        return x[:, :3] @ self.a.T + self.scale * x[:, 3:] @ self.b.T


@pytest.mark.parametrize("count", [100, LARGE])
def test_an_eigenvector_that_another_overtakes_is_left(count):
    """The one of the first layer stays an eigenvector of H, with a residual of 0, and of no
    interest."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    x[: count // 2, 3:], x[count // 2 :, :3] = 0, 0
    y = torch.randint(2, (count,), generator=generator)
    found = None
    for scale in (0.5, 0.9, 1.1, 1.5):
        model = Two(scale)
        found = room.curvature(model, LOSSES["cross_entropy"], (x, y), found)
        values = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", x, y))
        assert found.top.value == pytest.approx(float(values[-1]), rel=1e-3)
        singular = torch.linalg.svdvals(dense.jacobians(model, x).mean(0))
        assert found.jacobian_norm == pytest.approx(float(singular[0]), rel=1e-3)


def test_pairs_with_inputs_of_several_lengths_are_measured():
    """Such as batches of texts, each padded to its longest; here the mean over the length."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3, dtype=torch.float64)

        def forward(self, x):
            return self.layer(x.mean(1))

    torch.manual_seed(0)
    model, generator = Mean(), torch.Generator().manual_seed(0)
    pairs = []
    for length in (3, 5):
        x = torch.randn(LARGE // 2, length, 2, generator=generator, dtype=torch.float64)
        pairs.append((x, torch.randint(3, (LARGE // 2,), generator=generator)))
    found = room.curvature(model, LOSSES["cross_entropy"], pairs)
    means = torch.cat([x.mean(1, keepdim=True) for x, _ in pairs])
    y = torch.cat([y for _, y in pairs])
    values = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", means, y))
    assert found.top.value == pytest.approx(float(values[-1]), rel=5e-3)


def test_the_alignment_of_a_tiny_gradient_is_not_lost_to_underflow():
    *_, found = measured("linear", "cross_entropy", 20)
    top = dataclasses.replace(found.top, vector=found.top.vector.float())
    tiny = dataclasses.replace(found, gradient=1e-30 * found.gradient.float(), top=top)
    assert tiny.gradient_alignment == pytest.approx(found.gradient_alignment, rel=1e-4)


def test_the_impurity_is_for_the_librarys_cross_entropy_alone():
    data = dense.examples(20)
    model = dense.network("linear")
    assert room.curvature(model, LOSSES["cross_entropy"], data).impurity is not None
    found = room.curvature(model, nn.functional.cross_entropy, data)
    assert found.impurity is None
    p = found.logits.softmax(1)
    tops = [torch.linalg.eigvalsh(q.diag() - q.outer(q))[-1] for q in p]
    assert room.mean_impurity(found.logits) == pytest.approx(sum(map(float, tops)) / 20, rel=1e-12)


@pytest.mark.parametrize("warm", [False, True])
def test_where_the_top_of_the_spectrum_is_flat_the_residual_bounds_the_error(monkeypatch, warm):
    """Isotropic inputs of a linear model; the estimate of the error is too low there."""
    monkeypatch.setattr(room, "SUBSET", 9)
    count = 9 * room.SMALLEST_SUBSET
    model, x, y, found = measured("linear", "cross_entropy", count)
    if warm:
        *_, found = measured("linear", "cross_entropy", count, previous=found)
    values = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", x, y))
    assert 1 - values[-2] / values[-1] < 0.05
    assert 0 <= float(values[-1]) - found.top.value <= found.top.residual * found.top.value


def test_the_logit_gradients_are_those_of_each_example():
    model, x, y, _ = measured("convolutional, tanh", "cross_entropy", 20)
    linear = linearize(model, LOSSES["cross_entropy"], (x, y), chunk=8)
    p = dense.logits(model, x, dense.parameters(model)).softmax(-1)
    expected = p - torch.eye(dense.CLASSES, dtype=p.dtype)[y]
    torch.testing.assert_close(linear.logit_gradients, expected.detach())


@pytest.mark.parametrize("cache_bytes", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("kind", dense.KINDS)
def test_products_do_not_depend_on_how_many_graphs_are_kept(kind, cache_bytes):
    model, (x, y) = dense.network(kind), dense.examples(40)
    loss = LOSSES["cross_entropy"]
    linear = linearize(model, loss, (x, y), chunk=8, cache_bytes=cache_bytes)
    jacobian = dense.jacobians(model, x).mean(0)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(linear.gradient), generator=generator, dtype=torch.float64)
    u = torch.randn(dense.CLASSES, generator=generator, dtype=torch.float64)
    close = {"rtol": 1e-9, "atol": 1e-11}
    hessian = dense.hessian(model, "cross_entropy", x, y)
    torch.testing.assert_close(linear.hessian @ v, hessian @ v, **close)
    newton = dense.gauss_newton(model, "cross_entropy", x)
    torch.testing.assert_close(linear.gauss_newton @ v, newton @ v, **close)
    torch.testing.assert_close(linear.mean_jacobian @ u, jacobian @ u, **close)
    torch.testing.assert_close(linear.mean_jacobian.T @ v, jacobian.T @ v, **close)


def test_the_subset_holds_the_examples_with_the_largest_gradients_however_few_they_are():
    """Two hard examples among many that are fitted: an unordered subset would miss them."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3).double()
    x = torch.randn(LARGE, 6, dtype=torch.float64)
    with torch.no_grad():
        model.weight.mul_(40)
        y = model(x).argmax(1)
    y[101] = (y[101] + 1) % 3
    x[101] *= 1e-2  # undecided, so with curvature
    cold = room.curvature(model, LOSSES["cross_entropy"], (x, y))
    hessian = dense.hessian(model, "cross_entropy", x, y)
    assert cold.top.value == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=5e-3)


def test_a_zero_gradient_is_no_obstacle():
    model = torch.nn.Linear(4, 3).double()
    x = torch.zeros(LARGE, 4, dtype=torch.float64)
    with torch.no_grad():
        model.bias.zero_()
    y = torch.arange(LARGE) % 2  # symmetric targets of the squared loss
    loss = LOSSES["squared"]
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.5, 0.5, 0.0]))
    cold = room.curvature(model, loss, (x, y))
    warm = room.curvature(model, loss, (x, y), cold)
    assert not cold.gradient.any() and cold.gradient_alignment == 0
    assert cold.top.value == pytest.approx(1, rel=1e-12)
    assert warm.top.value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("count", [20, LARGE])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_a_model_that_has_diverged_gives_nan_and_is_followed_once_it_is_back(loss, count, followed):
    model, x, y, sound = measured("fully connected, tanh", loss, count)
    previous = sound if followed else None
    back = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):
        with torch.no_grad():
            next(model.parameters())[0] = float("nan")
        previous = room.curvature(model, LOSSES[loss], (x, y), previous)
        numbers = (previous.loss, previous.top.value, previous.jacobian_norm)
        assert all(map(math.isnan, (*numbers, previous.gradient_alignment)))
        assert previous.impurity is None if loss == "squared" else math.isnan(previous.impurity)
    model.load_state_dict(back)
    again = room.curvature(model, LOSSES[loss], (x, y), previous)
    assert again.top.value == pytest.approx(sound.top.value, rel=1e-2)  # 5e-3 each, as above
    assert again.jacobian_norm == pytest.approx(sound.jacobian_norm, rel=5e-3)


def test_the_impurity_of_logits_with_classes_that_are_excluded():
    z = torch.tensor([[1.0, 2.0, -math.inf], [0.5, -math.inf, 0.0]])
    p = z.double().softmax(-1)
    tops = torch.linalg.eigvalsh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])[:, -1]
    assert room.mean_impurity(z) == pytest.approx(float(tops.mean()), rel=1e-12)
    for wrong in (math.nan, math.inf):
        assert math.isnan(room.mean_impurity(z.where(z.isfinite(), wrong)))


@pytest.mark.parametrize("examples", [1, 2])
def test_a_single_example_and_a_single_parameter(examples):
    class OneParameter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x):
            return self.scale.tanh() * x

    generator = torch.Generator().manual_seed(0)
    model, x = OneParameter(), torch.randn(examples, 3, generator=generator, dtype=torch.float64)
    y = torch.zeros(examples, dtype=torch.long)
    found = room.curvature(model, LOSSES["cross_entropy"], (x, y))
    hessian = dense.hessian(model, "cross_entropy", x, y)
    assert found.top.value == pytest.approx(float(hessian), rel=1e-9)


def test_of_one_class_there_is_no_curvature_and_no_impurity():
    model, (x, _) = nn.Linear(2, 1).double(), dense.examples(20)
    data = x[:, 0, 0, :2], torch.zeros(20, dtype=torch.long)
    found = room.curvature(model, LOSSES["cross_entropy"], data)
    assert (found.loss, found.top.value, found.impurity) == (0, 0, 0)
    assert found.jacobian_norm == pytest.approx(math.hypot(1, *data[0].mean(0)))
    assert math.isnan(room.mean_impurity(torch.full((3, 1), math.inf)))


def test_a_linearization_with_an_operator_of_ones_own_is_refused():
    linear = linearize(dense.network("linear"), LOSSES["squared"], dense.examples(5))
    own = dataclasses.replace(linear.hessian, problem=None)
    with pytest.raises(ValueError, match="linear: expected what"):
        room.measure(dataclasses.replace(linear, hessian=own))


def test_memory_of_the_subset_and_mode_buffers_and_random_state_are_left_alone():
    model, (x, y) = dense.network("batch normalization"), dense.examples(LARGE)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    room.curvature(model, LOSSES["cross_entropy"], (x, y), chunk=50)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
