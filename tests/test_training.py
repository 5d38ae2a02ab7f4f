"""Gradient descent and SGD against their formulas."""

import pytest
import torch

from ijrlib.operators import LOSSES
from ijrlib.training import batch_indices, train


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
    assert not torch.isfinite(torch.tensor(steps[-1].loss))
    assert all(torch.isfinite(torch.tensor(s.loss)) for s in steps[:-1])


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
