"""Example scripts and their stored results."""

import json

import pytest

from ijrlib import examples, store


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A checkout with one script."""
    folder = tmp_path / "chapters" / "own_network"
    folder.mkdir(parents=True)
    (folder / "small.py").write_text(
        "import pandas as pd\n"
        "frames = {'one': pd.DataFrame({'step': [0, 1], 'lr': [0.1, float('nan')]})}\n"
    )
    monkeypatch.setattr(store, "root", lambda: tmp_path)
    return tmp_path


def test_a_live_result_is_stored_and_read_back(script):
    live = examples.result("small", live=True)
    read = examples.result("small")
    for found in (live, read):
        assert list(found.frames) == ["one"]
        assert list(found.frames["one"]["step"]) == [0, 1]
        assert found.frames["one"]["lr"].isna().tolist() == [False, True]
        assert found.provenance["packages"]["torch"]
    stored = script / "data" / "own_network"
    assert [path.name for path in stored.iterdir()] == ["small.json"]


@pytest.mark.parametrize("live", ["true", "false", 1, None])
def test_what_is_no_truth_value_does_not_run_a_script(script, live):
    with pytest.raises(ValueError, match=f"live: expected True or False, got {live!r}"):
        examples.result("small", live)
    assert not (script / "data").exists()


def test_a_result_that_is_not_there_and_a_script_that_is_not_say_so(script, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run the example with live = True"):
        examples.result("small")
    with pytest.raises(FileNotFoundError, match=r"expected one of small; got 'large'"):
        examples.result("large")
    examples.result("small", live=True, results_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "small.json").is_file()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", ["{", "{}", '{"frames": 1, "provenance": {}}', "[]"])
def test_a_result_that_is_not_readable_is_refused_with_its_path(script, content):
    examples.result("small", live=True)
    path = script / "data" / "own_network" / "small.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}: expected frames"):
        examples.result("small")


def test_a_script_that_fails_leaves_the_stored_result_alone(script):
    examples.result("small", live=True)
    path = script / "chapters" / "own_network" / "small.py"
    path.write_text("raise RuntimeError('broken')")
    with pytest.raises(RuntimeError, match="broken"):
        examples.result("small", live=True)
    assert json.loads((script / "data" / "own_network" / "small.json").read_text())["frames"]


@pytest.mark.parametrize("name", ["transformer", "batch_norm"])
def test_every_script_of_the_book_has_a_result_and_it_is_of_its_monitor(name):
    scripts = {p.stem for p in (store.root() / "chapters" / "own_network").glob("*.py")}
    assert scripts == {"transformer", "batch_norm"}
    for frame in examples.result(name).frames.values():
        assert list(frame["step"]) == list(range(0, 601, 20))
        assert (frame["sharpness"] > 0).all() and (frame["jacobian_norm_sq"] > 0).all()
