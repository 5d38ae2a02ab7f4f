"""The update rules of the sharpest directions against explicit projectors of dense Hessians."""

import dense
import pytest
import torch

from ijrlib import sharpest_directions, training
from ijrlib.config import RunConfig
from ijrlib.conventions import SEARCH_EVERY
from ijrlib.operators import cross_entropy

KIND = "fully connected, tanh"
N, K = 9, 2


@pytest.fixture
def problem():
    model = dense.network(KIND)
    return model, *dense.examples(N)


def projector(model, x, y, k=K):
    """The orthogonal projector on the k top eigenvectors of the dense Hessian, (m, m)."""
    vectors = torch.linalg.eigh(dense.hessian(model, "cross_entropy", x, y))[1][:, -k:]
    return vectors @ vectors.T


def direction(model, x, y, probe, memory=None, step=0, **fields):
    """The first direction of a configuration's rule."""
    config = RunConfig("digits", N, "6cnn", 0.1, 50, probe=N, **fields)
    rule = training.update_rule(config, dense.CLASSES, probe, {} if memory is None else memory)
    found = rule(model, cross_entropy, x, y, step=step, chunk=4, autocast=False)
    return torch.cat([g.flatten() for g in found.gradient])


RULES = [
    ({"regularizer": "nudged", "sharpest": K, "gamma": 0.1}, lambda g, p: g - 0.9 * p @ g),
    ({"regularizer": "nudged", "sharpest": K, "gamma": 0.0}, lambda g, p: g - p @ g),
    ({"regularizer": "sharpest_only", "sharpest": K}, lambda g, p: p @ g),
]


@pytest.mark.parametrize(("fields", "expected"), RULES)
def test_a_rule_is_its_formula_with_the_explicit_projector(problem, fields, expected, monkeypatch):
    """The gradient is that of the mini-batch, the Hessian that of the probe."""
    monkeypatch.setattr(sharpest_directions, "RTOL", 1e-10)
    monkeypatch.setattr(sharpest_directions, "PRODUCTS", 100)
    model, x, y = problem
    g = dense.gradient(model, "cross_entropy", x[:3], y[:3])
    found = direction(model, x[:3], y[:3], (x, y), **fields)
    exact = expected(g, projector(model, x, y))
    # the vectors are good to residual/gap, here 1e-9 at most
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-8 * float(g.norm()))
    assert (found - g).norm() > 0.01 * g.norm()


def test_as_stored_runs_have_it_the_projector_is_good_to_a_few_percent(problem):
    model, x, y = problem
    pairs = torch.linalg.eigvalsh(dense.hessian(model, "cross_entropy", x, y))
    gap = float((pairs[-K] - pairs[-K - 1]) / pairs[-K])
    memory = {}
    direction(model, x, y, (x, y), memory, regularizer="sharpest_only", sharpest=K)
    v = memory["sharpest_vectors"]
    torch.testing.assert_close(v.T @ v, torch.eye(K, dtype=v.dtype), rtol=0, atol=1e-10)
    lost = (v - projector(model, x, y) @ v).norm(dim=0)
    assert float(lost.max()) <= sharpest_directions.RTOL / gap


def test_before_it_sets_in_a_rule_is_plain_sgd(problem):
    model, x, y = problem
    fields = {"regularizer": "sharpest_only", "sharpest": 1, "regularizer_from": 5}
    g = dense.gradient(model, "cross_entropy", x, y)
    memory = {}
    before = direction(model, x, y, (x, y), memory, step=4, **fields)
    torch.testing.assert_close(before, g, rtol=1e-10, atol=1e-12)
    assert not memory  # nor does it cost a search
    assert (direction(model, x, y, (x, y), memory, step=5, **fields) - g).norm() > 0.01 * g.norm()


def test_the_directions_are_found_again_every_so_many_steps(problem, monkeypatch):
    model, x, y = problem
    searched = []
    search = sharpest_directions.top_eigenpairs

    def counted(op, k, v0, **how):
        searched.append(v0)
        return search(op, k, v0, **how)

    monkeypatch.setattr(sharpest_directions, "top_eigenpairs", counted)
    memory, seen = {}, []
    for step in range(2 * SEARCH_EVERY + 1):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
        where = {"step": step, "memory": memory, "chunk": 4}
        seen.append(sharpest_directions.followed(model, cross_entropy, (x, y), K, **where))
    assert len(searched) == 3
    assert searched[0] is None and searched[1] is seen[0]
    assert seen[SEARCH_EVERY - 1] is seen[0]
    assert not torch.equal(seen[SEARCH_EVERY], seen[0])


def test_a_run_that_goes_on_from_its_memory_has_the_same_directions(problem):
    model, x, y = problem
    memory = {}
    fields = {"regularizer": "nudged", "sharpest": K, "gamma": 0.1}
    direction(model, x, y, (x, y), memory, step=0, **fields)
    kept = {name: value.clone() for name, value in memory.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)
    first = direction(model, x, y, (x, y), memory, step=3, **fields)
    assert torch.equal(direction(model, x, y, (x, y), kept, step=3, **fields), first)


def test_directions_of_a_later_step_are_found_anew(problem):
    model, x, y = problem
    memory = {}
    where = {"memory": memory, "chunk": 4}
    later = sharpest_directions.followed(model, cross_entropy, (x, y), K, step=9, **where)
    found = sharpest_directions.followed(model, cross_entropy, (x, y), K, step=3, **where)
    assert found is not later and memory["sharpest_step"] == 3


def test_more_directions_than_parameters_are_refused_and_nothing_is_kept(problem):
    model, x, y = problem
    m, memory = len(dense.parameters(model)), {}
    with pytest.raises(ValueError, match=str(m)):
        sharpest_directions.followed(
            model, cross_entropy, (x, y), m + 1, step=0, memory=memory, chunk=4
        )
    assert not memory
