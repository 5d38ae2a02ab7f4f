"""The table of figures and the ways to get its runs."""

import itertools
import subprocess
import sys

import pandas as pd
import pytest

from ijrlib import ejr_table, experiments, figure_table, networks, store
from ijrlib.experiments import FIGURES, SCALES


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_figure_has_its_runs_at_every_scale(figure, scale):
    configs = experiments.configs(figure, scale)
    entry = FIGURES[figure]
    first = {experiments.smoke(config) for config in entry.laptop if config.seed == 0}
    assert len(configs) == len({"smoke": first}.get(scale, getattr(entry, scale, ())))
    assert len({config.name for config in configs}) == len(configs)
    for config in configs:
        for name, _ in config.measures:
            assert config.measured_steps(name), name
        if scale == "smoke":
            assert config.dataset in ("digits", "invented")
            assert config.steps <= experiments.SMOKE_STEPS


def test_the_runs_of_figure_2_and_3_are_those_of_the_paper_but_for_size():
    (gd,), (sgd,) = experiments.configs("fig02", "paper"), experiments.configs("fig03", "paper")
    assert (gd.dataset, gd.network, gd.lr, gd.examples) == ("cifar10", "6cnn", 0.04, 50_000)
    assert gd.batch_size is None
    assert (sgd.dataset, sgd.lr, sgd.batch_size, sgd.examples) == ("cifar10", 0.04, 128, 50_000)
    for scale in ("laptop", "paper"):
        (config,) = experiments.configs("fig03", scale)
        measured = set(config.measured_steps("curvature"))
        for start, stop in ((0, 200), (1000, 1200), (1500, 1700)):
            assert measured.issuperset(range(start, stop + 1))


@pytest.mark.parametrize("figure", figure_table.FIGURES)
def test_a_run_keeps_the_settings_of_the_paper_at_laptop_scale(figure):
    """What is reduced is size, and at times the number of seeds; stand-ins for data say so."""
    entry = FIGURES[figure]

    def setting(config):
        return config.network, config.lr, config.loss, config.init, config.batch_size

    largest = sorted(entry.paper, key=lambda config: config.examples)  # the last one counts
    paper = {setting(config): config for config in largest}
    assert {setting(config) for config in entry.laptop} == set(paper)
    assert {c.seed for c in entry.laptop} <= {c.seed for c in entry.paper}
    for small in entry.laptop:
        full = paper[setting(small)]
        assert small.examples <= full.examples and small.steps <= full.steps
        assert small.dataset == full.dataset or entry.stand_in


KEPT = ("lr", "loss", "init", "batch_size", "regularizer", "ejr_weight", "rho", "mu", "momentum")
KEPT += ("weight_decay", "lr_decay", "augment", "seed")


@pytest.mark.parametrize("figure", ejr_table.FIGURES)
def test_a_regularized_run_keeps_the_settings_of_one_of_the_paper(figure):
    """The tables have cells that are out of a laptop's reach; none of the laptop's is its own."""
    entry = FIGURES[figure]
    paper = {}
    for config in entry.paper:
        paper.setdefault(tuple(getattr(config, field) for field in KEPT), []).append(config)
    relatives = dict(ejr_table.NETWORKS.values())
    assert entry.laptop
    for config in entry.laptop:
        twins = [
            full
            for full in paper[tuple(getattr(config, field) for field in KEPT)]
            if full.network == relatives[config.network]
        ]
        assert twins
        assert all(t.examples > config.examples and t.steps > config.steps for t in twins)
        assert entry.stand_in or all(t.dataset == config.dataset for t in twins)


def test_every_cell_of_the_printed_tables_has_its_two_runs_at_the_papers_scale():
    for cell in ejr_table.CELLS:
        table = FIGURES[cell.id.split("-")[0]]
        epochs = 200 if cell.half_time else 400
        for arm in ({"regularizer": "none"}, cell.regularizer):
            assert any(
                config.network == ejr_table.NETWORKS[cell.network][1]
                and config.lr == cell.lr
                and (config.batch_size is None) == cell.full_batch
                and all(getattr(config, name) == value for name, value in arm.items())
                and (cell.network == "SimpleCNN" or config.steps == 390 * epochs)
                for config in table.paper
            ), (cell.id, arm)


def test_rho_at_laptop_scale_is_as_long_beside_the_weights_as_the_best_one_in_print():
    def length(network: str) -> float:
        parameters = networks.build(network, seed=0).parameters()
        return float(sum(p.detach().double().square().sum() for p in parameters)) ** 0.5

    scale = length("wrn10_2") / length("wrn28_10")
    for name, best in (("wrn10_2", 2), ("wrn10_2_cifar100", 5)):
        table = "CIFAR-100" if name.endswith("100") else "CIFAR-10"
        printed = ejr_table.WRN_V1[table, 400][1]
        assert best == max(printed, key=printed.get)
        nearest = min(printed, key=lambda rho: abs(rho - scale * best))
        assert {c.rho for c in ejr_table.WIDE if c.network == name} == {0.0, nearest}


def test_seeds_of_a_figure_follow_one_another():
    small = figure_table.SGD_BY_LR
    assert [c.seed for c in figure_table.seeds(small, 3)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    left = [c for c in experiments.configs("fig06", "laptop", seed=5) if c.network == "6cnn"]
    assert [c.seed for c in left] == [5, 5, 5, 6, 6, 6, 7, 7, 7]
    assert [c.lr for c in left[:3]] == [0.01, 0.02, 0.03]


def test_smoke_windows_keep_their_number_and_order():
    (config,) = experiments.configs("fig03", "smoke")
    windows = config.windows("curvature")
    assert len(windows) == 3
    assert windows[0][0] == 0
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(windows))
    assert windows[-1][1] == config.steps + 1


def test_at_smoke_scale_spectra_are_few_and_a_trajectory_has_all_steps():
    config = figure_table.GD.replace(
        measures={
            "alignment": [(0, 1201, 25)],
            "clusters": [(500, 1201, 50)],
            "spectrum": [(0, 1201, 25), (600, 1201, 100)],
            "sharpest": [(0, 1201, 25)],
            "trajectory": [(100, 301, 1)],
        }
    )
    small = experiments.smoke(config)
    assert small.measured_steps("alignment") == list(range(13))
    assert small.measured_steps("clusters") == list(range(5, 13))
    assert small.measured_steps("spectrum") == [0, 6, 12]
    assert small.measured_steps("sharpest") == [0, 12]
    assert small.measured_steps("trajectory") == list(range(13))


def test_at_smoke_scale_a_large_network_is_measured_seldom():
    small = experiments.smoke(figure_table.VGG_GD.replace(network="simple_cnn"))
    for measure in ("curvature", "alignment"):
        assert small.measured_steps(measure) == [0, 4, 8, 12]
    assert small.measured_steps("impurity") == list(range(13))
    assert experiments.smoke(figure_table.GD).measured_steps("curvature") == list(range(13))


def test_the_seed_is_added_and_overrides_replace_fields():
    (config,) = experiments.configs("fig02", "smoke", seed=3, overrides={"lr": 0.5})
    assert (config.seed, config.lr) == (3, 0.5)
    with pytest.raises(ValueError, match="no field 'learning_rate'"):
        experiments.configs("fig02", "smoke", overrides={"learning_rate": 0.5})
    with pytest.raises(ValueError, match="no field '1'"):
        experiments.configs("fig02", "smoke", overrides={1: 0.5})


def test_an_unknown_figure_or_scale_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="fig02, fig03"):
        experiments.configs("fig99", "smoke")
    with pytest.raises(ValueError, match="smoke, laptop, paper"):
        experiments.configs("fig02", "huge")


def test_parameters_are_taken_from_a_namespace_and_unknown_ones_refused():
    namespace = {"scale": "smoke", "device": "cpu", "seed": 0, "overrides": {}, "runs_dir": None}
    noise = {"In": [], "Out": {}, "_i": "x", "__name__": "__main__", "pd": pd, "exit": exit}
    assert experiments.parameters({**namespace, **noise}) == namespace
    with pytest.raises(ValueError, match="unknown parameter sed; this chapter has scale"):
        experiments.parameters({**namespace, "sed": 1})
    assert experiments.parameters({**namespace, "live": True}, "live") == namespace


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "a"}, "seed: expected an integer, got 'a'"),
        ({"seed": None}, "seed: expected an integer, got None"),
        ({"overrides": "foo"}, "overrides: expected fields by name, got 'foo'"),
        ({"overrides": [1]}, r"overrides: expected fields by name, got \[1\]"),
        ({"overrides": True}, "overrides: expected fields by name, got True"),
        ({"runs_dir": 2026}, "runs_dir: expected a folder such as ./2026, got 2026"),
        ({"live": "false"}, "live: expected True or False, got 'false'"),
    ],
)
def test_parameters_of_another_kind_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        experiments.parameters({"scale": "smoke", **given}, "live")


@pytest.mark.parametrize("device", [None, 5, "gpu"])
def test_a_device_is_looked_at_before_the_store_is_asked(device):
    with pytest.raises(ValueError, match=f"device: expected auto, cpu, cuda .*got {device!r}"):
        experiments.runs("fig03", device=device)


def test_stored_runs_are_loaded_and_not_trained_again(tmp_path, monkeypatch):
    (config,) = experiments.configs("fig03", "smoke")
    frame = pd.DataFrame({"step": [0]})
    store.save(store.Run(config, frame, {}, {"status": "complete"}), tmp_path)
    monkeypatch.setitem(sys.modules, "ijrlib.runner", None)  # importing it would fail
    (run,) = experiments.runs("fig03", "smoke", runs_dir=tmp_path)
    assert run.config == config


def test_a_missing_run_without_torch_says_what_is_needed(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ijrlib import experiments\n"
        f"experiments.runs('fig02', 'smoke', runs_dir={str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is not stored under" in done.stderr
    assert "ijrlib[train]" in done.stderr


@pytest.mark.parametrize("scale", SCALES)
def test_a_schedule_of_two_stages_has_two_stages_at_every_scale(scale):
    for config in experiments.configs("sd12", scale):
        assert 0 < config.lr_decay_at < config.steps
