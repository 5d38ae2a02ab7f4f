"""Faults, each caused: nothing is lost, nothing half-written, and the next run succeeds."""

import dataclasses
import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from test_datasets import write_mnist
from test_runner import TINY, assert_same_numbers, interrupt

from ijrlib import checkpoint as room
from ijrlib import datasets, machine, runner, store
from ijrlib.checkpoint import Checkpoint
from ijrlib.store import RunIsBusy

SECONDS = 120


@pytest.fixture(autouse=True)
def no_data_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("IJR_DATA", str(tmp_path / "no data sets here"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """TINY, never interrupted."""
    return runner.run(TINY, "cpu", tmp_path_factory.mktemp("whole"))


def cut(monkeypatch, folder, at=4):
    """A run that was killed at a step, with a checkpoint of that step and of the one before."""
    with monkeypatch.context() as patch:
        interrupt(patch, at=at + 1)
        with pytest.raises(KeyboardInterrupt):
            runner.run(TINY, "cpu", folder, checkpoint_seconds=0)
    return Checkpoint(folder, TINY)


def in_a_process(folder, body):
    """A Python process that runs TINY, with ``body`` before it."""
    program = f"""
    import sys
    sys.path.insert(0, {os.path.dirname(__file__)!r})
    import torch
    torch.set_num_threads({torch.get_num_threads()})
    from ijrlib import runner
    from test_runner import TINY
    {body}
    runner.run(TINY, "cpu", {str(folder)!r}, checkpoint_seconds=0)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE, text=True
    )


# stops at step 4 and says so
WAITS = """
    train = runner.train
    def slow(*args, **how):
        for step in train(*args, **how):
            if step.step == 4:
                print("waiting", file=sys.stderr, flush=True)
                import time
                for _ in range(1200):
                    time.sleep(0.1)
                    if runner_asked():
                        break
            yield step
    runner.train = slow
    asked = []
    def runner_asked():
        return bool(asked)
    import signal
    known = signal.signal
    def also(number, handler):
        def both(*args):
            asked.append(number)
            return handler(*args)
        return known(number, both if callable(handler) else handler)
    signal.signal = also
"""


def until_it_waits(process):
    for line in process.stderr:
        if line.strip().endswith("waiting"):
            return
    raise AssertionError("the process ended before it waited")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_run_and_the_next_one_has_the_same_numbers(tmp_path, whole, number):
    process = in_a_process(tmp_path, WAITS)
    until_it_waits(process)
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    assert process.returncode == {signal.SIGTERM: runner.TERMINATED, signal.SIGKILL: -9}[number]
    assert store.find(tmp_path) == []
    saved = Checkpoint(tmp_path, TINY).load()
    assert saved is not None
    assert saved["step"] == {signal.SIGTERM: 4, signal.SIGKILL: 3}[number]
    resumed = runner.run(TINY, "cpu", tmp_path)
    assert resumed.provenance["resumed"] == 1
    assert_same_numbers(whole, resumed)


def test_of_two_processes_with_one_run_the_second_is_refused_by_the_first_s_name(tmp_path, whole):
    process = in_a_process(tmp_path, WAITS)
    try:
        until_it_waits(process)
        with pytest.raises(RunIsBusy, match=f"trained by process {process.pid} on .*; wait for it"):
            runner.run(TINY, "cpu", tmp_path)
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)
    assert_same_numbers(whole, runner.run(TINY, "cpu", tmp_path))


def test_a_lock_whose_holder_removes_it_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    one = Checkpoint(tmp_path, TINY)
    flock, removed = fcntl.flock, []

    def late(file, how):
        if not removed:
            removed.append(one.path.with_suffix(".lock").unlink())
        return flock(file, how)

    monkeypatch.setattr(room.fcntl, "flock", late)
    with one.alone():
        assert one.path.with_suffix(".lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(RunIsBusy), Checkpoint(tmp_path, TINY).alone():
            pass
    assert not one.path.with_suffix(".lock").exists()


@pytest.mark.parametrize("length", [0, 31, 1000, -1])
def test_a_checkpoint_that_was_cut_off_gives_way_to_the_one_before(
    tmp_path, monkeypatch, whole, length
):
    saved = cut(monkeypatch, tmp_path)
    saved.path.write_bytes(saved.path.read_bytes()[:length])
    with pytest.warns(UserWarning, match=r"can't be read.*going on from the checkpoint before"):
        state = saved.load()
    assert state is not None and state["step"] == 3
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        assert_same_numbers(whole, runner.run(TINY, "cpu", tmp_path))


def test_a_flipped_bit_is_noticed(tmp_path, monkeypatch):
    saved = cut(monkeypatch, tmp_path)
    data = bytearray(saved.path.read_bytes())
    data[len(data) // 2] ^= 1
    saved.path.write_bytes(data)
    with pytest.warns(UserWarning, match="it was cut off or changed"):
        state = saved.load()
    assert state is not None and state["step"] == 3


def test_checkpoints_that_are_both_cut_off_are_refused_with_a_way_out(tmp_path, monkeypatch, whole):
    saved = cut(monkeypatch, tmp_path)
    for path in (saved.path, saved.before):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"can't be read.*can't be read.*remove it to start over"):
        runner.run(TINY, "cpu", tmp_path)
    saved.remove()
    assert_same_numbers(whole, runner.run(TINY, "cpu", tmp_path))


def test_a_checkpoint_is_data_and_runs_nothing(tmp_path, monkeypatch):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    saved = cut(monkeypatch, tmp_path)
    saved.before.unlink()
    data = pickle.dumps({"config": TINY.to_json(), "step": Malicious()})
    digest = room.hashlib.sha256(data).digest()
    saved.path.write_bytes(digest + data)
    with pytest.raises(ValueError, match="can't be read"):
        runner.run(TINY, "cpu", tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_only(tmp_path, monkeypatch, whole):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(room.os, "fsync", full)
    with pytest.warns(UserWarning, match="no checkpoint could be written.*No space left"):
        run = runner.run(TINY, "cpu", tmp_path, checkpoint_seconds=0)
    assert_same_numbers(whole, run)
    assert list((tmp_path / ".checkpoints").iterdir()) == []


def test_a_disk_that_is_full_at_the_end_leaves_no_partial_run_and_the_next_one_resumes(
    tmp_path, monkeypatch, whole
):
    with monkeypatch.context() as patch:

        def full(*args, **how):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(store.np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space left"):
            runner.run(TINY, "cpu", tmp_path, checkpoint_seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == [".checkpoints"]
    run = runner.run(TINY, "cpu", tmp_path)
    assert run.provenance["resumed"] == 1
    assert_same_numbers(whole, run)


def test_a_results_folder_that_cannot_be_written_to_is_told_before_training(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("not a folder")
    monkeypatch.setattr(runner, "train", None)
    with pytest.raises(PermissionError, match=r"runs_dir: expected a folder that can be written"):
        runner.run(TINY, "cpu", tmp_path / "runs")


def test_a_clock_that_goes_backwards_changes_nothing_but_the_date(tmp_path, monkeypatch, whole):
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    run = runner.run(TINY, "cpu", tmp_path, checkpoint_seconds=0)
    assert_same_numbers(whole, run)
    assert run.provenance["wall_seconds"] >= 0


def test_a_run_that_is_resumed_twice_says_so(tmp_path, monkeypatch, whole):
    cut(monkeypatch, tmp_path, at=1)
    cut(monkeypatch, tmp_path, at=3)
    run = runner.run(TINY, "cpu", tmp_path)
    assert run.provenance["resumed"] == 2
    assert_same_numbers(whole, run)
    assert machine.code_version()["commit"] == run.provenance["commit"]


def test_a_run_goes_on_with_its_own_data_alone(tmp_path, monkeypatch, whole):
    """A data file that changed between the two halves of a run."""
    saved = cut(monkeypatch, tmp_path)
    load = datasets.load

    def changed(*args, **how):
        data = load(*args, **how)
        return dataclasses.replace(data, source=data.source | {"sha256": "another"})

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load", changed)
        with pytest.raises(ValueError, match=r"data: the checkpoint .* got another; bring them"):
            runner.run(TINY, "cpu", tmp_path)
    assert store.find(tmp_path) == []
    assert saved.load() is not None
    assert_same_numbers(whole, runner.run(TINY, "cpu", tmp_path))


def test_damaged_data_leaves_nothing_behind_and_a_whole_file_runs(tmp_path, monkeypatch):
    data, runs = tmp_path / "data", tmp_path / "runs"
    monkeypatch.setenv("IJR_DATA", str(data))
    datasets._read.cache_clear()
    config = TINY.replace(dataset="mnist", examples=20, probe=10, test_examples=0)
    write_mnist(data)
    file = data / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(datasets.DamagedData, match="download it again"):
        runner.run(config, "cpu", runs)
    assert not [path for path in runs.rglob("*") if path.is_file()]
    file.write_bytes(content)
    assert runner.run(config, "cpu", runs).provenance["status"] == "complete"


def test_the_handler_of_sigterm_is_the_one_before_again():
    before = signal.getsignal(signal.SIGTERM)
    with room.termination():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_lock_that_a_killed_process_left_behind_names_its_new_holder_alone(tmp_path):
    one = Checkpoint(tmp_path, TINY)
    lock = one.path.with_suffix(".lock")
    lock.parent.mkdir()
    lock.write_text("process 1 on another machine\n")
    with one.alone():
        assert lock.read_text().count("process") == 1


def test_sigterm_is_noted_and_an_error_brings_its_handler_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="of training"), room.termination() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        raise RuntimeError("of training")
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_stay_as_they_are():
    found = []

    def run():
        with room.termination() as asked:
            found.append((asked(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(SECONDS)
    assert found == [(False, before)]


def test_a_full_disk_leaves_both_checkpoints_as_they_were(tmp_path, monkeypatch):
    saved = Checkpoint(tmp_path, TINY)
    with saved.alone():
        for step in (1, 2):
            saved.save(step=step)
        before = {path.name: path.read_bytes() for path in saved.path.parent.glob("*.pt")}

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(room.os, "fsync", full)
        with pytest.warns(UserWarning, match="no checkpoint could be written"):
            saved.save(step=3)
    assert {path.name: path.read_bytes() for path in saved.path.parent.iterdir()} == before
    assert len(before) == 2
    state = saved.load()
    assert state is not None and state["step"] == 2


def test_a_run_that_fails_gives_its_lock_back(tmp_path):
    one = Checkpoint(tmp_path, TINY)
    with pytest.raises(RuntimeError, match="of training"), one.alone():
        raise RuntimeError("of training")
    assert list(one.path.parent.iterdir()) == []
    with one.alone():
        pass
