"""Several processes: what they find is what one process finds, to the rounding of a sum."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import dense
import numpy as np
import pytest
import torch

from ijrlib import config as configuration
from ijrlib import experiments, parallel, regularizers, runner, store
from ijrlib.config import RunConfig
from ijrlib.operators import cross_entropy

SCRIPT = """
import sys
import torch
from ijrlib import runner
from ijrlib.config import RunConfig

torch.set_num_threads(1)
for text in sys.argv[2:]:
    runner.run(RunConfig.from_json(text), "cpu", sys.argv[1])
"""
SMALL = RunConfig(
    dataset="digits",
    examples=30,
    network="3fcn_mnist",
    lr=0.05,
    steps=2,
    dtype="float64",
    chunk=7,
    probe=20,
    test_examples=20,
)
EVERY_MEASURE = SMALL.replace(
    measures={
        name: [(0, 1, 1)] if name in experiments.SPECTRA else [(0, 3, 2)]  # hundreds of gradients
        for name in configuration.MEASURES
        if name != "autocast_check"
    }
)
REGULARIZED = [
    SMALL.replace(batch_size=16, steps=6, measures={"accuracy": [(0, 7, 1)]}, **fields)
    for fields in (
        {"regularizer": "ejr", "ejr_weight": 0.05, "momentum": 0.9},
        {"regularizer": "ejr_v2", "rho": 0.5, "mu": 0.1},
        {"regularizer": "sam", "rho": 0.1},
    )
]


def torchrun(folder, *configs: RunConfig, processes: int = 2, script: str = SCRIPT) -> list[str]:
    path = folder / "train.py"
    path.write_text(script)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += [f"--nproc-per-node={processes}", str(path), str(folder / "several")]
    return [*words, *(config.to_json() for config in configs)]


def assert_same(one: store.Run, several: store.Run, rtol: float) -> None:
    assert list(one.series.columns) == list(several.series.columns)
    for name in one.series:
        np.testing.assert_allclose(
            several.series[name], one.series[name], rtol=rtol, atol=1e-12, err_msg=name
        )
    assert one.arrays.keys() == several.arrays.keys()
    for name, value in one.arrays.items():
        if name != "trajectory_umap":
            np.testing.assert_allclose(
                several.arrays[name], value, rtol=rtol, atol=1e-9, err_msg=name
            )


def test_two_processes_measure_and_train_as_one_does(tmp_path):
    configs = [EVERY_MEASURE, *REGULARIZED]
    subprocess.run(torchrun(tmp_path, *configs), check=True, capture_output=True, timeout=600)
    for config in configs:
        one = runner.run(config, "cpu", tmp_path / "one")
        several = store.load(config, tmp_path / "several")
        assert several.provenance["processes"] == 2
        assert one.provenance["processes"] == 1
        assert_same(one, several, rtol=1e-6)
    assert not list((tmp_path / "several" / ".checkpoints").iterdir())


def test_more_processes_than_examples_change_nothing(tmp_path):
    config = SMALL.replace(
        network="6cnn", examples=2, probe=2, batch_size=2, measures={"curvature": [(0, 3, 1)]}
    )
    few = config.replace(network="3fcn_mnist", test_examples=2, measures={"accuracy": [(0, 3, 1)]})
    single = few.replace(dtype="float32")
    words = few.replace(dataset="invented", network="lstm_small")
    configs = [config, single, words]
    command = torchrun(tmp_path, *configs, processes=3)
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    for config in configs:
        one = runner.run(config, "cpu", tmp_path / "one")
        # float32: two steps, each a sum of a few thousand products
        rtol = 1e-4 if config.dtype == "float32" else 1e-6
        assert_same(one, store.load(config, tmp_path / "several"), rtol=rtol)


def test_terminated_processes_leave_one_checkpoint_and_go_on_from_it(tmp_path):
    config = SMALL.replace(steps=200, measures={"norms": [(0, 201, 50)], "trajectory": [(0, 9, 1)]})
    with subprocess.Popen(
        torchrun(tmp_path, config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        points = tmp_path / "several" / ".checkpoints" / f"{config.name}.points"
        until = time.monotonic() + 120
        while not points.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) != 0
    assert store.find(tmp_path / "several") == []
    assert points.with_suffix(".pt").is_file()
    subprocess.run(torchrun(tmp_path, config), check=True, capture_output=True, timeout=600)
    resumed = store.load(config, tmp_path / "several")
    assert resumed.provenance["resumed"] == 1
    assert_same(runner.run(config, "cpu", tmp_path / "one"), resumed, rtol=1e-6)


def test_running_statistics_and_several_processes_are_refused(tmp_path):
    config = SMALL.replace(network="wrn10_2", batch_size=16)
    done = subprocess.run(torchrun(tmp_path, config), capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    assert "expected one without running statistics for several processes" in done.stderr
    assert store.find(tmp_path / "several") == []


# -- a group that someone else has made ------------------------------------------------------------

FOREIGN = f"""
import datetime
import pathlib
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, {str(Path(__file__).parent)!r})
import dense
from ijrlib import parallel, regularizers
from ijrlib.operators import cross_entropy, loss_and_gradient

torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank = dist.get_rank()
x, y = dense.examples(8)
model = dense.network("batch normalization", seed=rank)
found = {{"processes": parallel.processes(), "rank": parallel.rank()}}
if rank == 0:
    found["alone"] = loss_and_gradient(model, cross_entropy, (x, y), chunk=2)[1]
dist.barrier()
found["at once"] = loss_and_gradient(model, cross_entropy, (x, y), chunk=2)[1]

model = DistributedDataParallel(model.train())
part = slice(4 * rank, 4 * rank + 4)
generator = torch.Generator().manual_seed(rank)
for _ in range(2):
    regularizers.backward(
        model, cross_entropy, x[part], y[part], rho=0.5, mu=0.1, generator=generator
    )
static = DistributedDataParallel(dense.network("linear"), static_graph=True)
try:
    regularizers.backward(static, cross_entropy, x[part], y[part], rho=0.5)
except ValueError as error:
    found["refused"] = str(error)
found["added up"] = torch.cat([p.grad.flatten() for p in model.parameters()])

parallel.join(torch.device("cpu"))
found["joined"] = parallel.processes(), parallel.rank()
parallel.leave()
found["left"] = parallel.processes(), dist.is_initialized()
folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
torch.save(found, folder / f"{{rank}}.pt")
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """What each of two processes has found in a group that the library has not made."""
    folder = tmp_path_factory.mktemp("foreign")
    command = torchrun(folder, script=FOREIGN)
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return [torch.load(folder / "several" / f"{rank}.pt") for rank in range(2)]


def test_in_a_group_of_someone_elses_each_process_measures_its_own_model_by_itself(foreign):
    for rank, found in enumerate(foreign):
        assert (found["processes"], found["rank"]) == (1, 0)
        expected = dense.gradient(
            dense.network("batch normalization", seed=rank), "cross_entropy", *dense.examples(8)
        )
        torch.testing.assert_close(found["at once"], expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(foreign[0]["alone"], foreign[0]["at once"])


def test_a_process_shares_its_work_from_when_it_joins_until_it_leaves(foreign):
    for rank, found in enumerate(foreign):
        assert found["joined"] == (2, rank)
        assert found["left"] == (1, False)


def test_directions_of_distributed_data_parallel_are_the_mean_over_the_processes(foreign):
    """All parts in one process, from the parameters of the first, by the function without wrapper;
    tests/test_regularizers.py has its dense oracle."""
    x, y = dense.examples(8)
    total = 0.0
    for rank in range(2):
        model = dense.network("batch normalization").train()
        part = slice(4 * rank, 4 * rank + 4)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(2):
            regularizers.backward(
                model, cross_entropy, x[part], y[part], rho=0.5, mu=0.1, generator=generator
            )
        total = total + torch.cat([p.grad.flatten() for p in model.parameters()]) / 2
    for found in foreign:
        torch.testing.assert_close(found["added up"], total, rtol=1e-10, atol=1e-12)
        assert found["refused"].endswith("static_graph=False, got True")


# -- one process -----------------------------------------------------------------------------------


def test_by_itself_a_process_has_all_chunks_and_sums_nothing():
    assert parallel.processes() == 1 and parallel.rank() == 0
    assert list(parallel.mine(3)) == [0, 1, 2]
    assert parallel.share(100, 30) == 30
    ones = torch.ones(3)
    parallel.summed(ones)
    torch.testing.assert_close(ones, torch.ones(3))
    parts = {1: torch.tensor([2.0]), 0: torch.tensor([0.0, 1.0])}
    assert parallel.gathered(parts, [2, 1], ones).tolist() == [0, 1, 2]
    assert parallel.any_of(True, torch.device("cpu"))
    assert not parallel.any_of(False, torch.device("cpu"))
    parallel.wait()
    assert parallel.join(torch.device("cpu")) == torch.device("cpu")


def test_of_several_processes_each_has_its_chunks_and_none_two(monkeypatch):
    monkeypatch.setattr(parallel, "processes", lambda: 4)
    # 6 examples: at most 2 a process, in three chunks
    assert [parallel.share(n, 30) for n in (0, 1, 4, 6, 8, 1000)] == [1, 1, 1, 2, 2, 30]
    for count in (0, 3, 4, 11):
        found = []
        for rank in range(4):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            found.append(list(parallel.mine(count)))
        assert sorted(i for chunks in found for i in chunks) == list(range(count))
        assert max(map(len, found)) == -(-count // 4)


@pytest.mark.parametrize(("size", "expected"), [("1", False), ("2", True)])
def test_torchrun_announces_itself_by_the_environment(monkeypatch, size, expected):
    monkeypatch.setenv("WORLD_SIZE", size)
    assert parallel.announced() is expected
