"""Clocks and units of the benchmarks."""

import time

import dense
import pytest
import torch

from ijrlib import timing
from ijrlib.operators import chunks, cross_entropy

CPU = torch.device("cpu")


def test_timed_returns_the_result_and_at_least_the_time_that_was_slept():
    seconds, result = timing.timed(lambda: time.sleep(0.02) or "done", CPU)
    assert result == "done"
    assert 0.02 <= seconds < 2


def test_interleaved_takes_turns_and_every_round_starts_with_another_contender():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = timing.interleaved(contenders, 4, CPU)
    assert "".join(calls) == "abc" + "bac" + "cab" + "acb"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("repeats", [2, 3])
def test_no_contender_is_always_behind_the_same_one(count, repeats):
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in range(count)}
    timing.interleaved(contenders, repeats, CPU)
    rounds = [calls[start : start + count] for start in range(0, len(calls), count)]
    before = [dict(zip(order, [None, *order[:-1]], strict=True)) for order in rounds]
    for name in contenders:
        assert len({one[name] for one in before}) > 1


def test_the_samples_of_a_contender_are_its_own():
    seconds = timing.interleaved({"slow": lambda: time.sleep(0.02), "fast": int}, 3, CPU)
    assert min(seconds["slow"]) >= 0.02 > max(seconds["fast"])


@pytest.mark.parametrize("chunk", [5, 4])
def test_the_unit_is_the_gradient_of_the_mean_loss_over_all_chunks(chunk):
    model = dense.network("convolutional, tanh")
    x, y = dense.examples(5)
    parts = timing.bare_gradient(model, cross_entropy, chunks((x, y), chunk))
    flat = torch.cat([part.flatten() for part in parts])
    torch.testing.assert_close(flat, dense.gradient(model, "cross_entropy", x, y))
    assert all(p.grad is None for p in model.parameters())
