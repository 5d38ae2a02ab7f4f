"""The store gives back what it was given and refuses what was touched."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ijrlib import store
from ijrlib.config import RunConfig

CONFIG = RunConfig("digits", 40, "6cnn", 0.1, 10, probe=20)


@pytest.fixture
def run():
    series = pd.DataFrame({"step": [0, 2, 5], "sharpness": [1.0, np.nan, 3.0]})
    arrays = {"tracked_p1": np.arange(6.0).reshape(3, 2), "tracked_p1.steps": np.array([0, 2, 5])}
    return store.Run(CONFIG, series, arrays, {"status": "complete", "device": "cpu"})


def test_a_stored_run_comes_back_whole(run, tmp_path):
    folder = store.save(run, tmp_path)
    for key in (CONFIG, folder, str(folder)):
        back = store.load(key, tmp_path)
        assert back.config == CONFIG
        assert back.path == folder
        assert back.provenance == run.provenance
        pd.testing.assert_frame_equal(back.series, run.series)
        assert set(back.arrays) == set(run.arrays)
        np.testing.assert_array_equal(back.arrays["tracked_p1"], run.arrays["tracked_p1"])


def test_saving_again_replaces_the_run_and_leaves_nothing_beside_it(run, tmp_path):
    store.save(run, tmp_path)
    newer = store.Run(CONFIG, run.series, run.arrays, {"status": "diverged"})
    store.save(newer, tmp_path)
    assert store.load(CONFIG, tmp_path).provenance == {"status": "diverged"}
    assert os.listdir(tmp_path) == [CONFIG.name]


def test_a_failed_save_leaves_no_trace_and_keeps_the_old_run(run, tmp_path, monkeypatch):
    store.save(run, tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(store.Run(CONFIG, run.series, {}, {"status": "newer"}), tmp_path)
    assert os.listdir(tmp_path) == [CONFIG.name]
    assert store.load(CONFIG, tmp_path).provenance == run.provenance


@pytest.mark.parametrize(
    "series",
    [pd.DataFrame({"t": [1]}), pd.DataFrame({"step": [1, 1]}), pd.DataFrame({"step": [2, 1]})],
)
def test_a_series_without_increasing_steps_is_refused(series, tmp_path):
    with pytest.raises(ValueError, match="step"):
        store.save(store.Run(CONFIG, series), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(store.MissingRun, match=CONFIG.name):
        store.load(CONFIG, tmp_path)
    (tmp_path / CONFIG.name).mkdir()  # as a job system makes it before its job begins
    with pytest.raises(store.MissingRun, match=CONFIG.name):
        store.load(CONFIG, tmp_path)


def cut_series(folder: Path):
    path = folder / "series.parquet"
    path.write_bytes(path.read_bytes()[:-10])


def remove_arrays(folder: Path):
    (folder / "arrays.npz").unlink()


def edit_configuration(folder: Path):
    document = json.loads((folder / "run.json").read_text())
    document["config"]["lr"] = 0.2
    (folder / "run.json").write_text(json.dumps(document))


def cut_json(folder: Path):
    path = folder / "run.json"
    path.write_text(path.read_text()[:50])


def remove_json(folder: Path):
    (folder / "run.json").unlink()


def other_format(folder: Path):
    document = json.loads((folder / "run.json").read_text())
    document["format"] = 99
    (folder / "run.json").write_text(json.dumps(document))


def signed(folder: Path):
    """As somebody would leave it who can compute a SHA-256."""
    document = json.loads((folder / "run.json").read_text())
    document["sha256"] = {name: store._sha256(folder / name) for name in store.FILES}
    (folder / "run.json").write_text(json.dumps(document))


def without_steps(folder: Path):
    pd.DataFrame({"sharpness": [1.0]}).to_parquet(folder / "series.parquet")
    signed(folder)


def with_text(folder: Path):
    pd.DataFrame({"step": [0], "sharpness": ["<script>"]}).to_parquet(folder / "series.parquet")
    signed(folder)


def no_parquet(folder: Path):
    (folder / "series.parquet").write_bytes(b"something else")
    signed(folder)


def with_objects(folder: Path):
    np.savez(folder / "arrays.npz", a=np.array([print], dtype=object))  # type: ignore[arg-type]
    signed(folder)


def with_words(folder: Path):
    np.savez(folder / "arrays.npz", a=np.array(["text"]))
    signed(folder)


def no_zip(folder: Path):
    (folder / "arrays.npz").write_bytes(b"something else")
    signed(folder)


def larger_than_memory(folder: Path):
    """A few kilobytes that unpack to more than the limit."""
    zeros = np.broadcast_to(np.zeros(1), (store.LIMIT_BYTES // 8 + 1,))
    np.savez_compressed(folder / "arrays.npz", a=zeros)
    signed(folder)


def more_rows_than_memory(folder: Path):
    rows = store.LIMIT_BYTES // 8 // 64 + 1
    table = pa.table({f"c{i}": pa.nulls(rows, pa.float64()) for i in range(64)})
    parquet.write_table(table, folder / "series.parquet", row_group_size=rows)
    signed(folder)


def no_provenance(folder: Path):
    document = json.loads((folder / "run.json").read_text())
    document["provenance"] = ["a", "list"]
    (folder / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_steps, "series.parquet: series: expected a column 'step'"),
        (with_text, "series.parquet: expected numbers, got something else in sharpness"),
        (no_parquet, "series.parquet: "),
        (with_objects, "arrays.npz: Object arrays cannot be loaded"),
        (with_words, "arrays.npz: expected numbers, got something else in a"),
        (no_zip, "arrays.npz: File is not a zip file"),
        (larger_than_memory, "arrays.npz: expected at most"),
        (more_rows_than_memory, "series.parquet: expected at most"),
        (no_provenance, "expected provenance by name"),
    ],
)
def test_a_folder_from_elsewhere_is_read_as_numbers_or_refused(
    run, tmp_path, monkeypatch, damage, reason
):
    monkeypatch.setattr(store, "LIMIT_BYTES", 1 << 20)
    folder = store.save(run, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    damage(folder)
    with pytest.raises(store.DamagedRun, match=reason):
        store.load(folder)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_series, "series.parquet has SHA-256"),
        (remove_arrays, "arrays.npz is missing"),
        (edit_configuration, "belongs to a run named"),
        (cut_json, "run.json is not readable"),
        (remove_json, "run.json is not readable"),
        (other_format, "expected format 1, got 99"),
    ],
)
def test_a_damaged_run_is_refused_with_its_reason(run, tmp_path, damage, reason):
    folder = store.save(run, tmp_path)
    damage(folder)
    with pytest.raises(store.DamagedRun, match=reason):
        store.load(CONFIG, tmp_path)


def test_a_renamed_run_is_refused(run, tmp_path):
    folder = store.save(run, tmp_path)
    renamed = folder.rename(tmp_path / "digits-40-6cnn-gd-lr0.1-s1-000000000000")
    with pytest.raises(store.DamagedRun, match="belongs to a run named"):
        store.load(renamed)


def test_find_selects_by_fields_of_the_configuration(run, tmp_path):
    store.save(run, tmp_path)
    other = CONFIG.replace(lr=0.2)
    store.save(store.Run(other, run.series), tmp_path)
    assert [r.config for r in store.find(tmp_path, lr=0.2)] == [other]
    assert len(store.find(tmp_path)) == 2
    assert store.find(tmp_path, seed=3) == []
    with pytest.raises(ValueError, match="no field"):
        store.find(tmp_path, learning_rate=0.2)


def test_the_root_is_the_checkout_or_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("IJR_ROOT", raising=False)
    assert (store.root() / "_toc.yml").is_file()
    assert store.runs_dir() == store.root() / "data" / "runs"
    monkeypatch.setenv("IJR_ROOT", str(tmp_path))
    assert store.runs_dir() == tmp_path / "data" / "runs"
