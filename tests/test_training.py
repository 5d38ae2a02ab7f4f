"""Gradient descent and SGD against their formulas."""

import itertools
import math
import time

import pytest
import torch

from ijrlib import regularizers, training
from ijrlib.config import MAX_SEED, RunConfig
from ijrlib.operators import LOSSES
from ijrlib.training import (
    batch_indices,
    random_direction,
    shifted_and_mirrored,
    train,
    update_rule,
)


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    x = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (10,), generator=generator)
    return model.double(), x, y


def theta(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk", [10, 3, 1])
def test_a_full_batch_step_is_theta_minus_eta_times_the_gradient(loss, chunk):
    model, x, y = problem()
    value = LOSSES[loss](model(x), y)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, model.parameters())])
    expected = theta(model) - 0.3 * gradient
    first, last = list(train(model, LOSSES[loss], x, y, lr=0.3, steps=1, chunk=chunk))
    # sums of ten numbers in another order: a few roundings of float64
    torch.testing.assert_close(theta(model), expected, rtol=1e-13, atol=1e-15)
    assert (first.step, last.step) == (0, 1)
    assert first.loss == pytest.approx(value.item(), rel=1e-13)
    assert last.loss < first.loss
    assert first.logits.shape == (10, 3)


def test_sgd_follows_the_mini_batches_by_hand():
    model, x, y = problem()
    reference, _, _ = problem()
    for t in range(7):
        index = batch_indices(10, 4, seed=5, step=t)
        value = LOSSES["cross_entropy"](reference(x[index]), y[index])
        for p, g in zip(
            reference.parameters(), torch.autograd.grad(value, reference.parameters()), strict=True
        ):
            p.data -= 0.2 * g
    for _ in train(model, LOSSES["cross_entropy"], x, y, lr=0.2, steps=7, batch_size=4, seed=5):
        pass
    torch.testing.assert_close(theta(model), theta(reference), rtol=1e-13, atol=1e-15)


def test_a_step_knows_the_update_that_plain_sgd_is_about_to_make():
    """Also where η decays and a regularizer sets the direction."""
    model, x, y = problem()
    config = RunConfig("digits", 10, "6cnn", 0.2, 10, probe=5, regularizer="ejr_v1", rho=0.1)
    steps = train(
        model,
        LOSSES["cross_entropy"],
        x,
        y,
        lr=0.2,
        steps=10,
        batch_size=4,
        lr_decay=0.5,
        update=update_rule(config, 3, (x, y), {}),
    )
    before = update = None
    for step in steps:
        if before is not None:
            torch.testing.assert_close(before - update, theta(model), rtol=1e-13, atol=1e-15)
        before, update = theta(model), step.update
    assert step.lr == 0.2 * 0.5**3


def test_an_epoch_visits_every_example_at_most_once_and_epochs_differ():
    epochs = [
        torch.cat([batch_indices(11, 3, seed=0, step=3 * e + i) for i in range(3)])
        for e in range(2)
    ]
    for order in epochs:
        assert len(set(order.tolist())) == 9
    assert epochs[0].tolist() != epochs[1].tolist()
    assert batch_indices(11, 3, seed=1, step=0).tolist() != epochs[0][:3].tolist()


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_start_in_the_middle_continues_bit_for_bit(batch_size):
    arguments = {"lr": 0.2, "steps": 9, "batch_size": batch_size, "seed": 2}
    whole, x, y = problem()
    losses = [s.loss for s in train(whole, LOSSES["cross_entropy"], x, y, **arguments)]
    parts, _, _ = problem()
    seen = []
    for s in train(parts, LOSSES["cross_entropy"], x, y, **arguments):
        if s.step == 5:
            break
        seen.append(s.loss)
    for s in train(parts, LOSSES["cross_entropy"], x, y, start=5, **arguments):
        seen.append(s.loss)
    assert seen == losses
    assert torch.equal(theta(whole), theta(parts))


def test_training_ends_at_the_step_whose_loss_is_not_finite():
    model, x, y = problem()
    steps = list(train(model, LOSSES["squared"], x * 1e3, y, lr=1e6, steps=200))
    assert len(steps) < 200
    assert not math.isfinite(steps[-1].loss)  # it passes what float32 holds before
    assert all(math.isfinite(s.loss) for s in steps[:-1])


def test_frozen_parameters_stay_and_unused_ones_do_no_harm():
    model, x, y = problem()
    model[0].weight.requires_grad_(False)
    model.unused = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    model.forward = lambda inputs: model[2](model[1](model[0](inputs)))
    before = model[0].weight.clone()
    for _ in train(model, LOSSES["cross_entropy"], x, y, lr=0.5, steps=3):
        pass
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model.unused.detach(), torch.ones(2, dtype=torch.float64))


def test_autocast_computes_in_bfloat16_and_keeps_gradient_and_logits_in_float32():
    model, x, y = problem()
    model, x = model.float(), x.float()
    value = LOSSES["cross_entropy"](model(x), y)
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, model.parameters())])
    before = theta(model)
    steps = train(model, LOSSES["cross_entropy"], x, y, lr=1.0, steps=1, autocast=True)
    first, _ = list(steps)
    moved = before - theta(model)
    assert first.logits.dtype == moved.dtype == torch.float32
    # eight bits of mantissa: different from float32, and by a few roundings only
    assert 1e-6 < float((moved - exact).norm() / exact.norm()) < 8 * 2**-8
    assert (first.logits == first.logits.bfloat16().float()).all()


# -- momentum, weight decay, decay of η, regularizers, augmentation --------------------------------


def test_momentum_weight_decay_and_decay_of_eta_follow_their_formulas():
    """v ← βv + (g + γθ), θ ← θ − η_t v, with η_t = η·f^k after k of 30, 60 and 80% of the steps."""
    model, x, y = problem()
    value = theta(model)
    velocity = torch.zeros_like(value)
    reference, _, _ = problem()
    for t in range(10):
        torch.nn.utils.vector_to_parameters(value, reference.parameters())
        loss = LOSSES["cross_entropy"](reference(x), y)
        g = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, reference.parameters())])
        velocity = 0.9 * velocity + g + 0.01 * value
        value = value - 0.2 * 0.5 ** ((t >= 3) + (t >= 6) + (t >= 8)) * velocity
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=0.01)
    arguments = {"lr": 0.2, "steps": 10, "lr_decay": 0.5, "optimizer": optimizer}
    for _ in train(model, LOSSES["cross_entropy"], x, y, **arguments):
        pass
    torch.testing.assert_close(theta(model), value, rtol=1e-12, atol=1e-14)


def test_a_schedule_of_two_stages_has_one_decay_at_its_step():
    model, x, y = problem()
    loss = LOSSES["cross_entropy"]
    arguments = {"lr": 0.2, "steps": 10, "lr_decay": 0.1, "lr_decay_at": 4}
    rates = [step.lr for step in train(model, loss, x, y, **arguments)]
    assert rates == pytest.approx([0.2] * 4 + [0.02] * 7)


@pytest.mark.parametrize(
    "fields",
    [
        {"regularizer": "ejr", "ejr_weight": 0.3},
        {"regularizer": "ejr_v1", "rho": 0.5},
        {"regularizer": "ejr_v2", "rho": 0.5, "mu": 0.2},
        {"regularizer": "sam", "rho": 0.5},
    ],
)
def test_a_regularizer_s_direction_takes_the_place_of_the_gradient(fields):
    config = RunConfig("digits", 10, "6cnn", 0.2, 3, probe=5, seed=4, **fields)
    model, x, y = problem()
    reference, _, _ = problem()
    loss = LOSSES["cross_entropy"]
    us = []
    for t in range(3):
        u = random_direction(3, seed=4, step=t)
        us.append(u)
        rho, mu = config.rho, config.mu
        found = {
            "ejr": lambda u=u: regularizers.ejr(reference, loss, x, y, u, weight=0.3, chunk=10),
            "ejr_v1": lambda u=u: regularizers.ejr_two_steps(
                reference, loss, x, y, u, rho=0.5, chunk=10
            ),
            "ejr_v2": lambda u=u: regularizers.ejr_two_steps(
                reference, loss, x, y, u, rho=0.5, mu=0.2, chunk=10
            ),
            "sam": lambda: regularizers.sam(reference, loss, x, y, rho=0.5, chunk=10),
        }[config.regularizer]()
        assert (rho, mu) == (fields.get("rho", 0), fields.get("mu", 0))
        for p, g in zip(reference.parameters(), found.gradient, strict=True):
            p.data -= 0.2 * g
    assert not torch.equal(us[0], us[1])
    for _ in train(model, loss, x, y, lr=0.2, steps=3, update=update_rule(config, 3, (x, y), {})):
        pass
    torch.testing.assert_close(theta(model), theta(reference), rtol=1e-12, atol=1e-14)


def test_each_seed_step_and_use_has_random_numbers_of_its_own():
    """u is drawn independently of its mini-batch, so it shares no stream with the augmentation."""
    streams = itertools.product(range(8), range(200), (training.AUGMENTATION, training.DIRECTION))
    first = [int(torch.randint(2**62, (), generator=training._generator(*s))) for s in streams]
    assert len(set(first)) == len(first) == 8 * 200 * 2


def test_augmented_images_are_shifted_and_mirrored_ones():
    """Each is one of the 2·9·9 that padding, cropping and mirroring by hand give; all occur."""
    image = torch.arange(1.0, 127).view(1, 3, 6, 7)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))[0]
    possible = {}
    for down in range(9):
        for right in range(9):
            crop = padded[:, down : down + 6, right : right + 7]
            possible[down, right, False] = crop
            possible[down, right, True] = crop.flip(2)
    found = shifted_and_mirrored(image.expand(3000, -1, -1, -1), seed=1, step=2)
    keys = {tuple(v.flatten().tolist()): k for k, v in possible.items()}
    seen = [keys[tuple(one.flatten().tolist())] for one in found]
    assert {k[0] for k in seen} == {k[1] for k in seen} == set(range(9))
    # a binomial of 3000 and ½: five deviations
    assert abs(sum(k[2] for k in seen) - 1500) < 5 * (3000 / 4) ** 0.5
    again = shifted_and_mirrored(image.expand(3000, -1, -1, -1), seed=1, step=2)
    other = shifted_and_mirrored(image.expand(3000, -1, -1, -1), seed=1, step=3)
    assert torch.equal(found, again) and not torch.equal(found, other)


@pytest.mark.parametrize("batch_size", [20, 11, 0, -3])
def test_a_batch_size_that_the_examples_do_not_have_is_refused(batch_size):
    model, x, y = problem()
    steps = train(model, LOSSES["squared"], x, y, lr=0.1, steps=2, batch_size=batch_size)
    with pytest.raises(ValueError, match=f"batch_size: expected 1 to 10, got {batch_size}"):
        next(steps)


def test_the_largest_seed_shuffles_too():
    order = batch_indices(10, 10, seed=MAX_SEED, step=3)
    assert sorted(order.tolist()) == list(range(10))
    assert not torch.equal(order, batch_indices(10, 10, seed=MAX_SEED, step=4))


def test_the_slowdown_is_the_time_in_bfloat16_over_that_in_float32(monkeypatch):
    def convolution(x, weight):
        assert x.dtype == weight.dtype
        time.sleep({torch.bfloat16: 0.15, torch.float32: 0.05}[x.dtype])

    monkeypatch.setattr(torch.nn.functional, "conv2d", convolution)
    assert training.bfloat16_slowdown() == pytest.approx(3, rel=0.1)
