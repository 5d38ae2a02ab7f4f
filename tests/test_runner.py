"""A run from configuration to store: complete, resumed, diverged, refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from ijrlib import datasets, networks, runner, store, training, trajectory
from ijrlib.config import DECAY_AT, RunConfig

TINY = RunConfig(
    dataset="digits",
    examples=20,
    network="3fcn_mnist",
    lr=0.1,
    steps=6,
    probe=8,
    chunk=6,
    test_examples=8,
    measures={  # type: ignore[arg-type]
        "impurity": [(0, 7, 1)],
        "curvature": [(0, 7, 2)],
        "accuracy": [(0, 7, 3)],
        "norms": [(6, 7, 1)],
        "theorem_2": [(3, 4, 1)],
        "logit_spectrum": [(0, 7, 6)],
        "algorithm_2": [(6, 7, 1)],
    },
)


@pytest.fixture(autouse=True)
def no_data_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("IJR_DATA", str(tmp_path / "no data sets here"))


def interrupt(monkeypatch, at):
    """Make training stop at a step, as a signal would."""
    train = runner.train

    def cut(*args, **kwargs):
        for step in train(*args, **kwargs):
            if step.step == at:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(runner, "train", cut)


def assert_same_numbers(one, two):
    pd.testing.assert_frame_equal(one.series, two.series, check_exact=True)
    assert set(one.arrays) == set(two.arrays)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name])


def test_a_run_measures_what_its_schedule_says_and_nothing_else(tmp_path):
    run = runner.run(TINY, "cpu", tmp_path)
    series = run.series.set_index("step")
    assert list(series.index) == [0, 1, 2, 3, 4, 5, 6]
    assert list(series.index[series["sharpness"].notna()]) == [0, 2, 4, 6]
    assert list(series.index[series["train_accuracy"].notna()]) == [0, 3, 6]
    assert list(series.index[series["theorem_2_mean"].notna()]) == [3]
    assert list(series.index[series["weight_norm"].notna()]) == [6]
    assert series["train_loss"].notna().all()
    assert list(run.arrays["q_sqrt_lambda.steps"]) == [0, 6]
    assert run.arrays["q_sqrt_lambda"].shape == (2, 10, 10)
    assert run.arrays["lambda_star"].shape == (1, 8)
    assert series["train_loss"].iloc[-1] < series["train_loss"].iloc[0]


def test_provenance_says_where_the_numbers_come_from(tmp_path):
    provenance = runner.run(TINY, "cpu", tmp_path).provenance
    assert provenance["status"] == "complete"
    assert provenance["device"] == "cpu"
    assert provenance["threads"] == torch.get_num_threads()
    assert torch.__version__.startswith(provenance["packages"]["torch"])
    assert provenance["parameters"] == 199_210
    assert provenance["data"]["name"] == "digits"
    assert len(provenance["data"]["sha256"]) == 64
    assert provenance["resumed"] == 0


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_killed_run_resumes_to_the_same_numbers_bit_for_bit(tmp_path, monkeypatch, batch_size):
    config = TINY.replace(batch_size=batch_size)
    whole = runner.run(config, "cpu", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            runner.run(config, "cpu", tmp_path / "cut", checkpoint_seconds=0)
    assert store.find(tmp_path / "cut") == []
    resumed = runner.run(config, "cpu", tmp_path / "cut")
    assert resumed.provenance["resumed"] == 1
    assert_same_numbers(whole, resumed)
    assert list((tmp_path / "cut" / ".checkpoints").iterdir()) == []


BY_THE_BOOK = RunConfig(  # batch normalization, momentum, decay, augmentation, a regularizer
    dataset="digits",
    examples=20,
    network="wrn10_2",
    lr=0.1,
    steps=6,
    batch_size=7,
    probe=8,
    test_examples=8,
    measures={"impurity": [(0, 7, 2)], "accuracy": [(0, 7, 2)]},  # type: ignore[arg-type]
    momentum=0.9,
    weight_decay=5e-4,
    lr_decay=0.2,
    augment=True,
)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"regularizer": "ejr", "ejr_weight": 0.01},
        {"regularizer": "ejr_v2", "rho": 0.5, "mu": 0.01},
        {"regularizer": "sam", "rho": 0.1},
        {"regularizer": "nudged", "sharpest": 2, "gamma": 0.1, "regularizer_from": 2},
    ],
)
def test_a_run_with_running_statistics_and_momentum_resumes_bit_for_bit(
    tmp_path, monkeypatch, fields
):
    config = BY_THE_BOOK.replace(**fields)
    whole = runner.run(config, "cpu", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            runner.run(config, "cpu", tmp_path / "cut", checkpoint_seconds=0)
    assert_same_numbers(whole, runner.run(config, "cpu", tmp_path / "cut"))


def test_measuring_a_network_with_running_statistics_does_not_change_its_training(tmp_path):
    once = [(2, 3, 1)]
    more = {"norms": once, "covariance": once, "curvature": once}
    watched = BY_THE_BOOK.replace(measures=dict(BY_THE_BOOK.measures) | more)
    watched = runner.run(watched, "cpu", tmp_path)
    seldom = BY_THE_BOOK.replace(measures={"accuracy": [(6, 7, 1)]})
    last = runner.run(seldom, "cpu", tmp_path).series.iloc[-1]
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert watched.series[name].iloc[-1] == last[name]


WALK = TINY.replace(measures={"trajectory": [(1, 7, 1)]})


def test_the_trajectory_of_a_run_is_stored_as_the_gram_matrix_of_its_points(tmp_path, monkeypatch):
    points = []
    train = runner.train

    def watched(model, *args, **kwargs):
        for step in train(model, *args, **kwargs):
            points.append(torch.cat([p.detach().flatten() for p in model.parameters()]).double())
            yield step

    monkeypatch.setattr(runner, "train", watched)
    run = runner.run(WALK, "cpu", tmp_path)
    differences = torch.stack(points[1:]) - points[0]
    gram = run.arrays["trajectory_gram"]
    # θ(t) − θ(0) is rounded to float32: 2⁻²⁴ of its largest entries
    np.testing.assert_allclose(gram, differences @ differences.T, rtol=1e-6)
    assert list(run.arrays["trajectory_gram.steps"]) == [1, 2, 3, 4, 5, 6]
    assert run.arrays["trajectory_umap"].shape == (6, 2)
    walked = run.series.set_index("step")
    np.testing.assert_allclose(walked["displacement"], differences.norm(dim=1), rtol=1e-6)
    steps = torch.stack(points).diff(dim=0).norm(dim=1)
    np.testing.assert_allclose(walked["step_norm"].iloc[1:], steps[1:], rtol=1e-5)
    assert run.provenance["trajectory"]["numbers_per_point"] == run.provenance["parameters"]
    assert run.provenance["trajectory"]["step_error"] < 1e-5
    assert list((tmp_path / ".checkpoints").iterdir()) == []


def test_a_killed_run_resumes_to_the_same_trajectory(tmp_path, monkeypatch):
    whole = runner.run(WALK, "cpu", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            runner.run(WALK, "cpu", tmp_path / "cut", checkpoint_seconds=0)
    resumed = runner.run(WALK, "cpu", tmp_path / "cut")
    assert resumed.provenance["resumed"] == 1
    assert_same_numbers(whole, resumed)
    assert list((tmp_path / "cut" / ".checkpoints").iterdir()) == []


def test_a_resumed_run_whose_points_are_gone_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            runner.run(WALK, "cpu", tmp_path, checkpoint_seconds=0)
    next((tmp_path / ".checkpoints").glob("*.points")).unlink()
    with pytest.raises(ValueError, match="remove the checkpoint beside it to start over"):
        runner.run(WALK, "cpu", tmp_path)


def test_a_trajectory_too_large_for_the_disk_is_projected_and_its_error_told(tmp_path, monkeypatch):
    exact = runner.run(WALK, "cpu", tmp_path / "exact").arrays["trajectory_gram"]
    monkeypatch.setattr(trajectory, "LIMIT_BYTES", 4 * 6 * 20_000)
    run = runner.run(WALK, "cpu", tmp_path / "projected")
    told = run.provenance["trajectory"]
    assert told["numbers_per_point"] == 20_000
    off = np.abs(np.sqrt(np.diag(run.arrays["trajectory_gram"]) / np.diag(exact)) - 1).max()
    assert told["displacement_error"] == pytest.approx(off, rel=1e-3)
    assert 0 < off < 0.05  # five times √(2/k)/2, the stated deviation of a norm


def test_a_checkpoint_of_another_configuration_is_never_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            runner.run(TINY, "cpu", tmp_path, checkpoint_seconds=0)
    other = TINY.replace(lr=0.2)
    path = tmp_path / ".checkpoints" / f"{TINY.name}.pt"
    path.rename(path.with_name(f"{other.name}.pt"))
    with pytest.raises(ValueError, match="another configuration"):
        runner.run(other, "cpu", tmp_path)


def test_a_diverging_run_stops_with_its_step_and_keeps_what_it_measured(tmp_path):
    measures = {"norms": [(0, 51, 1)], "trajectory": [(0, 51, 1)]}
    config = TINY.replace(lr=1e9, loss="squared", steps=50, measures=measures)
    run = runner.run(config, "cpu", tmp_path)
    at = run.provenance["diverged_at"]
    assert run.provenance["status"] == "diverged"
    assert 0 < at < 50
    assert list(run.series["step"]) == list(range(at))
    assert np.isfinite(run.series["train_loss"]).all()
    assert list(run.arrays["trajectory_gram.steps"]) == list(range(at))
    assert "trajectory_umap" not in run.arrays


def test_a_diverging_run_may_be_measured_up_to_its_last_step(tmp_path):
    """At step 1 the loss is finite, but not the squares of the Jacobians."""
    measures = {name: [(1, 2, 1)] for name in ("theorem_2", "clusters")}
    config = TINY.replace(network="mlp_300_100", examples=8, lr=1e12, steps=3, measures=measures)
    run = runner.run(config, "cpu", tmp_path)
    assert run.provenance["status"] == "diverged"
    last = run.series.iloc[-1]
    assert np.isfinite(last["train_loss"]) and np.isnan(last["theorem_2_bound"])


def test_a_run_in_float64_diverges_beyond_what_float32_holds(tmp_path):
    config = TINY.replace(lr=1e9, loss="squared", steps=50, measures={}, dtype="float64")
    assert runner.run(config, "cpu", tmp_path).provenance["status"] == "diverged"


def test_the_seed_decides_the_run_and_the_global_random_state_does_not(tmp_path):
    config = TINY.replace(measures={"norms": [(0, 7, 3)]})
    torch.manual_seed(1)
    one = runner.run(config, "cpu", tmp_path / "one")
    torch.manual_seed(2)
    assert_same_numbers(one, runner.run(config, "cpu", tmp_path / "two"))
    other = runner.run(config.replace(seed=1), "cpu", tmp_path / "one")
    assert other.series["train_loss"].iloc[0] != one.series["train_loss"].iloc[0]


def test_float64_runs_compute_in_float64(tmp_path):
    config = TINY.replace(dtype="float64", measures={"norms": [(0, 2, 1)]}, steps=1)
    single = runner.run(config.replace(dtype="float32"), "cpu", tmp_path)
    double = runner.run(config, "cpu", tmp_path)
    difference = abs(double.series["weight_norm"] - single.series["weight_norm"]).max()
    assert 0 < difference < 1e-5


def test_a_gpu_that_is_not_there_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA GPU"):
        runner.run(TINY, "cuda", tmp_path)
    assert runner.resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "cuda:01", "", None])
def test_an_unknown_device_is_refused_with_the_known_ones(device):
    with pytest.raises(ValueError, match=f"expected auto, cpu, cuda or cuda:N; got {device!r}"):
        runner.resolve_device(device)


def test_a_gpu_beyond_those_that_are_there_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runner.resolve_device("auto") == torch.device("cuda")
    assert runner.resolve_device("cuda:1") == torch.device("cuda:1")
    for device in ("cuda:2", "cuda:256"):  # torch takes 256 for 0
        with pytest.raises(ValueError, match=f"'{device}' was asked for, but torch finds 2 CUDA"):
            runner.resolve_device(device)


def test_data_that_is_not_there_is_reported_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data sets here"):
        runner.run(TINY.replace(dataset="mnist"), "cpu", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SHORT = TINY.replace(measures={"norms": [(0, 7, 1)]}, test_examples=0)


def by_hand(config):
    """The losses of a run, by PyTorch alone."""
    shape, classes = networks.INPUT_SHAPES[config.network], networks.CLASSES[config.network]
    data = datasets.load(config.dataset, config.examples, shape, classes, config.seed)
    model = networks.build(config.network, config.init, config.seed, torch.float32)
    how = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), config.lr, **how)
    decays = [config.lr_decay_at] if config.lr_decay_at else [s * config.steps for s in DECAY_AT]
    losses = []
    for step in range(config.steps + 1):
        optimizer.param_groups[0]["lr"] = config.lr * config.lr_decay ** sum(
            step >= at for at in decays
        )
        loss = F.cross_entropy(model(data.x), data.y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"lr_decay": 0.2},
        {"lr_decay": 0.2, "lr_decay_at": 3},
    ],
    ids=str,
)
def test_a_run_is_the_training_that_its_configuration_asks_for(tmp_path, fields):
    config = SHORT.replace(**fields)
    series = runner.run(config, "cpu", tmp_path).series
    np.testing.assert_allclose(series["train_loss"], by_hand(config), rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"autocast": True},
        {"augment": True},
        {"inputs": "unit"},
        {"loss": "squared"},
        {"init": "xavier_normal"},
    ],
    ids=str,
)
def test_no_field_of_a_configuration_is_ignored(tmp_path, fields):
    plain, other = (runner.run(c, "cpu", tmp_path).series for c in (SHORT, SHORT.replace(**fields)))
    assert not np.array_equal(plain["train_loss"], other["train_loss"])


@pytest.mark.parametrize("slowdown, warned", [(2.6, True), (1.9, False)])
def test_a_run_in_bfloat16_says_how_much_slower_it_is(
    tmp_path, monkeypatch, recwarn, slowdown, warned
):
    monkeypatch.setattr(training, "bfloat16_slowdown", lambda: slowdown)
    runner.run(SHORT, "cpu", tmp_path)
    assert not recwarn.list
    runner.run(SHORT.replace(autocast=True), "cpu", tmp_path)
    assert [w.filename for w in recwarn.list] == [__file__] * warned
    for w in recwarn.list:
        assert '{"autocast": False}' in str(w.message)
        assert f"takes {slowdown:.0f} times as long" in str(w.message)


def test_measures_see_the_probe_the_test_examples_and_the_learning_rate_of_the_step(
    tmp_path, monkeypatch
):
    config = SHORT.replace(batch_size=7, test_examples=8, lr_decay=0.2, lr_decay_at=3)
    states = []

    def watch(state):
        z = state.model(state.probe[0]).detach()
        states.append(state)
        torch.testing.assert_close(state.train_z, z)  # by SGD: of the probe at this step
        return {"weight_norm": 0.0}

    monkeypatch.setitem(runner.MEASURES, "norms", watch)
    runner.run(config, "cpu", tmp_path)
    assert [s.lr for s in states] == pytest.approx([0.1] * 3 + [0.02] * 4)
    last = states[-1]
    assert (len(last.probe[1]), len(last.train[1])) == (config.probe, config.examples)
    assert torch.equal(last.train_y, last.probe[1])
    shape = networks.INPUT_SHAPES[config.network]
    test = datasets.load(config.dataset, 8, shape, 10, config.seed, "test")
    assert torch.equal(last.test[0], test.x) and torch.equal(last.test[1], test.y)


def test_a_rule_follows_the_hessian_of_the_probe(tmp_path, monkeypatch):
    given, rule = [], runner.update_rule

    def watched(config, classes, probe, memory):
        given.append(probe)
        return rule(config, classes, probe, memory)

    monkeypatch.setattr(runner, "update_rule", watched)
    runner.run(SHORT, "cpu", tmp_path)
    assert [len(t) for t in given[0]] == [SHORT.probe] * 2


def test_a_diverging_run_names_the_first_step_without_a_finite_loss(tmp_path):
    config = SHORT.replace(lr=1e9, loss="squared", steps=50, measures={"norms": [(0, 51, 1)]})
    run = runner.run(config, "cpu", tmp_path)
    assert run.provenance["diverged_at"] == run.series["step"].iloc[-1] + 1
