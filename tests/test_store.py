"""The store gives back what it was given and refuses what was touched."""

import dataclasses
import io
import json
import os
import shutil
import struct
import zipfile
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


@pytest.mark.parametrize(
    "arrays",
    [
        {"q": np.ones((2, 3))},
        {"q": np.ones((2, 3)), "q.steps": np.arange(3)},
        {"q": np.ones(()), "q.steps": np.arange(1)},
    ],
)
def test_an_array_without_its_steps_is_refused(tmp_path, arrays):
    run = store.Run(CONFIG, pd.DataFrame({"step": [0, 1, 2]}), arrays, {})
    with pytest.raises(ValueError, match=r"arrays: expected q of shape \(T, …\) and q\.steps"):
        store.save(run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_loaded_again_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LIMIT_BYTES", 1000)
    arrays = {"q": np.ones((3, 100)), "q.steps": np.arange(3)}
    series = pd.DataFrame({"step": [0, 1, 2]})
    with pytest.raises(ValueError, match="at most 1000 bytes of series or arrays, got 2424"):
        store.save(store.Run(CONFIG, series, arrays, {}), tmp_path)
    assert not list(tmp_path.iterdir())


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


def no_sums(folder: Path):
    document = json.loads((folder / "run.json").read_text())
    document["sha256"] = []
    (folder / "run.json").write_text(json.dumps(document))


def nested_json(folder: Path):
    (folder / "run.json").write_text("[" * 100_000)


def corrupt_stream(folder: Path):
    """The first member's compressed bytes overwritten, its directory left as it was."""
    path = folder / "arrays.npz"
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
    content = bytearray(path.read_bytes())
    names = content[info.header_offset + 26 : info.header_offset + 30]
    start = info.header_offset + 30 + sum(struct.unpack("<HH", names))
    content[start : start + info.compress_size] = b"\xff" * info.compress_size
    path.write_bytes(content)
    signed(folder)


def another_member(folder: Path):
    with zipfile.ZipFile(folder / "arrays.npz", "a") as archive:
        archive.writestr("a.txt", b"something else")
    signed(folder)


def header_beyond_memory(folder: Path):
    """A few bytes that say they are 10^15 numbers."""
    member = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(member, described)
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        archive.writestr("a.npy", member.getvalue())
    signed(folder)


def unknown_compression(folder: Path):
    path = folder / "arrays.npz"
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 10  # of the directory's first entry
    content[at : at + 2] = struct.pack("<H", 77)
    path.write_bytes(content)
    signed(folder)


def two_step_columns(folder: Path):
    column = pa.array([0, 1])
    table = pa.Table.from_arrays([column, column], names=["step", "step"])
    parquet.write_table(table, folder / "series.parquet")
    signed(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_series, "series.parquet has SHA-256"),
        (remove_arrays, "arrays.npz is missing"),
        (edit_configuration, "belongs to a run named"),
        (cut_json, "run.json is not readable"),
        (remove_json, "run.json is not readable"),
        (other_format, "expected format 1, got 99"),
        (no_sums, r"expected SHA-256 by file, got \[\]"),
        (nested_json, "run.json is not readable"),
        (corrupt_stream, "arrays.npz: "),
        (another_member, "arrays.npz: expected numbers, got something else in a.txt"),
        (header_beyond_memory, "arrays.npz: "),
        (unknown_compression, "arrays.npz: "),
        (two_step_columns, "series.parquet: "),
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


@pytest.mark.parametrize(
    "column", [[True, False, True], ["a", "b", "c"], [1j, 2, 3], [None, None, None]]
)
def test_a_column_that_could_not_be_loaded_is_refused_by_name(run, tmp_path, column):
    series = run.series.assign(flag=column)
    with pytest.raises(ValueError, match="expected numbers, got something else in flag"):
        store.save(store.Run(CONFIG, series), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "array", [np.array([1j]), np.array([print], dtype=object), np.array(["a"]), ["a"]]
)
def test_an_array_that_could_not_be_loaded_is_refused_by_name(run, tmp_path, array):
    with pytest.raises(ValueError, match="expected numbers, got something else in odd"):
        store.save(store.Run(CONFIG, run.series, {"odd": array}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32])
def test_real_arrays_of_every_type_come_back_as_they_are(run, tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    store.save(store.Run(CONFIG, run.series, {"a": array, "a.steps": np.arange(2)}), tmp_path)
    back = store.load(CONFIG, tmp_path).arrays["a"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_find_takes_measures_in_any_form_and_refuses_what_are_none(run, tmp_path):
    config = CONFIG.replace(measures={"norms": [(0, 5, 1)], "curvature": [(0, 5, 2)]})
    store.save(run, tmp_path)
    store.save(store.Run(config, run.series), tmp_path)
    for measures in (config.measures, dict(config.measures), {"curvature": [[0, 5, 2]]}):
        found = [r.config for r in store.find(tmp_path, measures=measures)]
        assert found == ([config] if len(measures) == 2 else [])
    assert [r.config for r in store.find(tmp_path, measures={})] == [CONFIG]
    with pytest.raises(ValueError, match="measures: expected windows by name, got 5"):
        store.find(tmp_path, measures=5)


def test_find_is_stopped_by_damage_of_a_matching_run_or_of_any_description(run, tmp_path):
    cut_series(store.save(run, tmp_path))
    other = CONFIG.replace(lr=0.2)
    folder = store.save(store.Run(other, run.series), tmp_path)
    assert [r.config for r in store.find(tmp_path, lr=0.2)] == [other]
    for fields in ({"lr": 0.1}, {}):
        with pytest.raises(store.DamagedRun, match=r"series.parquet has SHA-256"):
            store.find(tmp_path, **fields)
    cut_json(folder)
    with pytest.raises(store.DamagedRun, match=r"run.json is not readable"):
        store.find(tmp_path, seed=3)


def test_find_sorts_by_name_and_passes_over_what_a_killed_process_left(run, tmp_path):
    configs = [CONFIG.replace(lr=lr) for lr in (0.3, 0.2, 0.5, 0.4, 0.1)]
    for config in configs:
        folder = store.save(store.Run(config, run.series), tmp_path)
    shutil.copytree(folder, tmp_path / ".writing-abc")
    found = [r.path.name for r in store.find(tmp_path)]
    assert found == sorted(config.name for config in configs)


def test_a_stored_run_can_be_read_by_others(run, tmp_path):
    assert store.save(run, tmp_path).stat().st_mode & 0o777 == 0o755


def test_rows_that_were_chosen_from_a_table_come_back_without_its_index(run, tmp_path):
    chosen = run.series[run.series["step"] > 0]
    store.save(store.Run(CONFIG, chosen), tmp_path)
    back = store.load(CONFIG, tmp_path).series
    pd.testing.assert_frame_equal(back, chosen.reset_index(drop=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_columns_of_every_type_come_back_as_they_are(run, tmp_path, dtype):
    series = run.series.assign(count=np.array([1, 2, 3], dtype))
    store.save(store.Run(CONFIG, series), tmp_path)
    pd.testing.assert_frame_equal(store.load(CONFIG, tmp_path).series, series)


def test_the_root_of_an_installed_package_is_the_checkout_around_the_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("IJR_ROOT", raising=False)
    (tmp_path / "checkout" / "chapters").mkdir(parents=True)
    (tmp_path / "checkout" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "checkout" / "chapters")
    assert store.root() == Path(store.__file__).parents[1]  # its own checkout comes first
    monkeypatch.setattr(store, "__file__", str(tmp_path / "site-packages" / "ijrlib" / "store.py"))
    assert store.root() == tmp_path / "checkout"
    monkeypatch.chdir(tmp_path)
    assert store.root() == tmp_path


def test_a_run_is_named_by_its_folder_from_anywhere_or_by_the_beginning_of_its_name(
    run, tmp_path, monkeypatch
):
    folder = store.save(run, tmp_path)
    store.save(store.Run(CONFIG.replace(lr=0.2), run.series), tmp_path)
    monkeypatch.chdir(folder)
    for name in (".", Path("."), folder, CONFIG.name[:-3]):
        assert store.named(name, tmp_path).config == CONFIG
    with pytest.raises(ValueError, match=r"of digits-40\S+, digits-40\S+$"):
        store.named("digits-40", tmp_path)
    for name in ("digits-4?", "*", CONFIG.name[1:]):
        with pytest.raises(store.MissingRun, match="none below"):
            store.named(name, tmp_path)
    with pytest.raises(ValueError, match="got ''"):
        store.named("", tmp_path)


def test_the_whole_name_of_a_run_is_enough_where_others_begin_with_it(run, tmp_path):
    folder = store.save(run, tmp_path)
    shutil.copytree(folder, tmp_path / f"{CONFIG.name}.bak")
    assert store.named(CONFIG.name, tmp_path).path == folder


def test_a_folder_without_a_run_does_not_hide_the_run_whose_name_begins_so(
    run, tmp_path, monkeypatch
):
    folder = store.save(run, tmp_path / "runs")
    (tmp_path / CONFIG.slug).mkdir()
    monkeypatch.chdir(tmp_path)
    assert store.named(CONFIG.slug, "runs").path == Path("runs") / folder.name
    with pytest.raises(store.MissingRun, match="none below"):
        store.named("runs", "runs")


def test_a_run_behind_a_link_has_the_link_s_name_and_one_behind_nothing_is_damaged(run, tmp_path):
    elsewhere = store.save(run, tmp_path).rename(tmp_path / "elsewhere")
    link = tmp_path / "runs" / CONFIG.name
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    assert store.named(link).path == link
    shutil.rmtree(elsewhere)
    with pytest.raises(store.DamagedRun, match=f"a link to {elsewhere}, which is not there"):
        store.load(CONFIG, link.parent)


@pytest.mark.parametrize("name", ["wall_seconds", "threads", "processes"])
def test_provenance_that_is_added_up_is_made_of_numbers(run, tmp_path, name):
    for value in (None, 2, 1.5):
        store.save(dataclasses.replace(run, provenance={name: value}), tmp_path)
        assert store.load(CONFIG, tmp_path).provenance == {name: value}
    store.save(dataclasses.replace(run, provenance={name: "2"}), tmp_path)
    with pytest.raises(store.DamagedRun, match=f"{name}: expected a number, got '2'"):
        store.load(CONFIG, tmp_path)


def test_a_run_is_loaded_from_within_its_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(store.save(run, tmp_path))
    assert store.load(".").config == CONFIG


def test_a_run_that_cannot_be_put_in_its_place_leaves_the_old_one_there(run, tmp_path, monkeypatch):
    store.save(run, tmp_path)
    replace, moved = os.replace, []

    def failing(one, other):
        moved.append(other)
        if len(moved) == 2:
            raise OSError(5, "Input/output error")
        replace(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            store.save(store.Run(CONFIG, run.series, {}, {"status": "newer"}), tmp_path)
    assert os.listdir(tmp_path) == [CONFIG.name]
    assert store.load(CONFIG, tmp_path).provenance == run.provenance


def test_an_old_run_that_cannot_be_put_back_is_kept_aside(run, tmp_path, monkeypatch):
    store.save(run, tmp_path)
    replace = os.replace

    def failing(one, other):
        if os.path.dirname(other) == str(tmp_path):
            raise OSError(5, "Input/output error")
        replace(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            store.save(store.Run(CONFIG, run.series, {}, {"status": "newer"}), tmp_path)
    (aside,) = tmp_path.iterdir()
    assert store.load(aside / CONFIG.name).provenance == run.provenance


@pytest.mark.parametrize("name", ["file", "allow_pickle"])
def test_names_that_numpy_takes_for_arguments_are_refused(run, tmp_path, name):
    with pytest.raises(ValueError, match=f"expected other names, got {name}"):
        store.save(store.Run(CONFIG, run.series, {name: np.ones(3)}), tmp_path)
    assert list(tmp_path.iterdir()) == []
