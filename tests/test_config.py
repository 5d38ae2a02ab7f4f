"""RunConfig: what is refused, what names a run, and when things are measured."""

import json

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ijrlib import config, datasets, measures, networks, operators
from ijrlib.config import RunConfig


def make(**fields):
    return RunConfig(
        **{"dataset": "digits", "examples": 40, "network": "6cnn", "lr": 0.1, "steps": 10}
        | {"probe": 20}
        | fields
    )


def test_json_round_trip_gives_the_same_configuration_and_hash():
    one = make(batch_size=8, measures={"curvature": [(0, 5, 2)], "norms": [(0, 11, 1)]})
    two = RunConfig.from_json(one.to_json())
    assert two == one
    assert two.hash == one.hash
    assert two.name == one.name


def test_fields_at_their_default_are_left_out_of_the_json():
    assert set(json.loads(make().to_json())) == {
        "dataset",
        "examples",
        "network",
        "lr",
        "steps",
        "probe",
    }


def test_every_field_changes_the_hash():
    base = make()
    changes = {
        "dataset": "mnist",
        "examples": 41,
        "network": "simple_cnn",
        "lr": 0.2,
        "steps": 11,
        "batch_size": 8,
        "init": "xavier_normal",
        "loss": "squared",
        "seed": 1,
        "dtype": "float64",
        "autocast": True,
        "chunk": 10,
        "probe": 21,
        "test_examples": 5,
        "measures": {"norms": [(0, 1, 1)]},
        "regularizer": {"regularizer": "sam", "rho": 0.1},
        "ejr_weight": {"regularizer": "ejr", "ejr_weight": 0.1},
        "rho": {"regularizer": "sam", "rho": 0.2},
        "mu": {"regularizer": "ejr_v2", "rho": 0.1, "mu": 0.2},
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "lr_decay": 0.2,
        "augment": True,
        "inputs": "unit",
        "sharpest": {"regularizer": "sharpest_only", "sharpest": 2},
        "gamma": {"regularizer": "nudged", "sharpest": 2, "gamma": 0.5},
        "regularizer_from": {"regularizer": "sam", "rho": 0.1, "regularizer_from": 3},
        "lr_decay_at": {"lr_decay": 0.2, "lr_decay_at": 4},
    }
    assert set(changes) == set(RunConfig.__dataclass_fields__)
    whole = {k: v for k, v in changes.items() if isinstance(v, dict) and k != "measures"}
    replaced = (base.replace(**whole.get(k, {k: v})) for k, v in changes.items())
    assert len({base.hash, *(one.hash for one in replaced)}) == len(changes) + 1


def test_the_name_of_a_known_configuration_never_changes():
    stored = RunConfig("cifar10", 2000, "6cnn", 0.04, 1200, measures={"norms": [(0, 10, 1)]})
    text = (
        '{"dataset":"cifar10","examples":2000,"lr":0.04,"measures":{"norms":[[0,10,1]]},'
        '"network":"6cnn","steps":1200}'
    )
    assert stored.to_json() == text
    # echo -n TEXT | sha256sum, first twelve digits
    import hashlib

    assert (
        stored.name
        == "cifar10-2000-6cnn-gd-lr0.04-s0-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    )


def test_the_name_tells_the_regularizer_and_its_strength():
    assert (
        make(regularizer="ejr", ejr_weight=0.01).slug == "digits-40-6cnn-gd-lr0.1-ejr-weight0.01-s0"
    )
    assert "-ejrv2-rho2-mu0.03-" in make(regularizer="ejr_v2", rho=2, mu=0.03).slug
    assert "-nudged-sharpest5-gamma0-" in make(regularizer="nudged", sharpest=5).slug
    assert "-sharpestonly-sharpest1-" in make(regularizer="sharpest_only", sharpest=1).slug


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"regularizer": "l2"},
            "regularizer: expected one of none, ejr, ejr_v1, ejr_v2, sam, nudged, sharpest_only",
        ),
        ({"regularizer": "ejr"}, "ejr_weight: expected a positive number with regularizer 'ejr'"),
        ({"regularizer": "ejr_v2", "rho": 1}, "mu: expected a positive number"),
        ({"rho": 1.0}, "rho: expected 0 with regularizer 'none', which has none, got 1.0"),
        ({"regularizer": "ejr_v1", "rho": 1, "mu": 1}, "mu: expected 0 with regularizer 'ejr_v1'"),
        ({"regularizer": "sam", "rho": float("inf")}, "rho: expected a positive number"),
        ({"regularizer": "nudged"}, "sharpest: expected at least 1, got 0"),
        ({"sharpest": 2}, "sharpest: expected 0 with regularizer 'none', which has none, got 2"),
        ({"regularizer": "nudged", "sharpest": 1.0}, "sharpest: expected an integer, got 1.0"),
        (
            {"regularizer": "nudged", "sharpest": 1, "gamma": -0.1},
            "gamma: expected a number of at least 0, got -0.1",
        ),
        (
            {"regularizer": "sharpest_only", "sharpest": 1, "gamma": 0.1},
            "gamma: expected 0 with regularizer 'sharpest_only', which has none, got 0.1",
        ),
        ({"regularizer_from": 3}, "regularizer_from: expected 0 without a regularizer, got 3"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"weight_decay": -1}, "weight_decay: expected a number of at least 0, got -1"),
        ({"lr_decay": 0}, r"lr_decay: expected a number in \(0, 1\], got 0"),
        ({"measures": {"predictions": [(0, 5, 1)]}}, "expected test_examples above 0, got 0"),
        ({"lr_decay_at": 3}, "lr_decay_at: expected 0 without lr_decay, got 3"),
        ({"lr_decay": 0.1, "lr_decay_at": -1}, "lr_decay_at: expected at least 0, got -1"),
        ({"augment": 1}, "augment: expected true or false, got 1"),
        ({"mu": "large"}, "mu: expected a number, got 'large'"),
    ],
)
def test_training_by_the_book_of_section_5_2_is_checked_field_by_field(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", "imagenet"),
        ("network", "alexnet"),
        ("init", "zeros"),
        ("loss", "hinge"),
        ("dtype", "float16"),
        ("measures", {"sharpnes": [(0, 1, 1)]}),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(field, value):
    with pytest.raises(ValueError, match="expected one of") as error:
        make(**{field: value})
    valid = {
        "dataset": config.DATASETS,
        "network": config.NETWORKS,
        "init": config.INITIALIZATIONS,
        "loss": config.LOSSES,
        "dtype": config.DTYPES,
        "measures": config.MEASURES,
    }[field]
    assert all(name in str(error.value) for name in valid)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("examples", 0),
        ("examples", 2.5),
        ("examples", True),
        ("steps", 0),
        ("batch_size", 0),
        ("batch_size", 41),
        ("probe", 41),
        ("seed", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", "fast"),
        ("measures", {"norms": [(0, 10)]}),
        ("measures", {"norms": [(5, 5, 1)]}),
        ("measures", {"norms": [(0, 5, 0)]}),
    ],
)
def test_values_out_of_range_are_refused_naming_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        make(**{field: value})


def test_replace_refuses_an_unknown_field_and_lists_the_fields():
    with pytest.raises(ValueError, match=r"no field .learning_rate.*lr"):
        make().replace(learning_rate=0.1)


@pytest.mark.parametrize("text", ["", "[1]", '{"dataset": "digits"}', '{"colour": 1}'])
def test_json_that_is_no_configuration_is_refused(text):
    with pytest.raises(ValueError, match=r"configuration|no field"):
        RunConfig.from_json(text)


def test_measured_steps_are_the_union_of_half_open_windows_up_to_the_last_step():
    run = make(measures={"curvature": [(0, 4, 3), (2, 4, 1), (9, 30, 1)]})
    assert run.measured_steps("curvature") == [0, 2, 3, 9, 10]
    assert run.measured_steps("norms") == []
    with pytest.raises(ValueError, match=r"trajectory keeps .* at most 10000 of them, got 10001"):
        run.replace(steps=10_000, measures={"trajectory": [(0, 10**15, 1)]})
    endless = run.replace(measures={"norms": [(0, 10**15, 5)]})
    assert endless.measured_steps("norms") == [0, 5, 10]
    with pytest.raises(ValueError, match="measure"):
        run.measured_steps("sharpness")


def test_names_that_the_configuration_allows_are_those_that_exist():
    assert set(config.DATASETS) == set(datasets.DATASETS)
    assert set(config.NETWORKS) == set(networks.NETWORKS)
    assert set(config.INITIALIZATIONS) == set(networks.INITIALIZATIONS)
    assert set(config.LOSSES) == set(operators.LOSSES)
    assert set(config.MEASURES) == set(measures.MEASURES)


def test_networks_with_batch_normalization_are_those_that_have_such_a_layer():
    with torch.device("meta"):  # shapes without numbers
        built = {name: network() for name, network in networks.NETWORKS.items()}
    assert set(config.NORMALIZED) == {
        name
        for name, network in built.items()
        if any(isinstance(layer, _BatchNorm) for layer in network.modules())
    }


def test_networks_of_two_classes_are_those_that_have_two_logits():
    assert set(config.OF_TWO_CLASSES) == {n for n, c in networks.CLASSES.items() if c == 2}


def test_angles_need_two_eigenvectors_and_a_covariance_two_examples():
    images = make(measures={"eigenvector_images": [(0, 1, 1)]})
    for network in config.OF_TWO_CLASSES:
        with pytest.raises(ValueError, match=f"three classes or more, got '{network}' with two"):
            images.replace(network=network)
    images.replace(network="lstm_words")
    with pytest.raises(ValueError, match=r"covariance .*probe of at least 2, got 1"):
        make(probe=1, measures={"covariance": [(0, 1, 1)]})


@pytest.mark.parametrize("name", config.MEASURES)
def test_measures_that_could_not_be_taken_are_refused_before_the_run(name):
    base = make(test_examples=5, measures={name: [(0, 1, 1)]})
    if name in ("alignment", "clusters", "eigenvector_images"):
        with pytest.raises(ValueError, match=f"{name} .*expected loss 'cross_.* got 'squared'"):
            base.replace(loss="squared")
    else:
        base.replace(loss="squared")
    for network in config.NORMALIZED:
        if name in ("theorem_2", "alignment", "clusters", "eigenvector_images"):
            message = f"{name} .*expected a network without batch norm.* got '{network}'"
            with pytest.raises(ValueError, match=message):
                base.replace(network=network)
        else:
            base.replace(network=network)


@pytest.mark.parametrize("fields", [{"autocast": 1}, {"autocast": True, "dtype": "float64"}])
def test_autocast_is_a_switch_for_single_precision(fields):
    with pytest.raises(ValueError, match="autocast: expected"):
        make(**fields)


@pytest.mark.parametrize("field", ["momentum", "weight_decay"])
def test_the_break_even_point_is_measured_for_plain_sgd_only(field):
    base = RunConfig("digits", 20, "6cnn", 0.1, 3, probe=10, measures={"break_even": [(0, 1, 1)]})
    with pytest.raises(ValueError, match=f"break_even .*{field} 0.5"):
        base.replace(**{field: 0.5})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "measures: expected windows by name, got 5"),
        (None, "measures: expected windows by name, got None"),
        ("norms", "measures: expected windows by name, got 'norms'"),
        ({"curvature": 3}, r"measures\['curvature'\]: expected windows .*, got 3"),
        ({"curvature": None}, r"measures\['curvature'\]: expected windows .*, got None"),
        ({"curvature": [(0, 1, 1)], 3: [(0, 1, 1)]}, "measures: expected one of .*; got 3"),
        ([("norms", [(0, 1, 1)]), ("norms", ((0, 2, 1),))], "measures: .* once, got norms, norms"),
        ([("norms", [[0, 1, 1]]), ("norms", [[0, 1, 1]])], "measures: .* once, got norms, norms"),
    ],
)
def test_measures_that_are_no_windows_by_name_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        make(measures=value)
    with pytest.raises(ValueError, match=message):
        RunConfig.from_json(make().to_dict() | {"measures": value})


def test_measures_in_any_form_and_order_are_the_same_configuration():
    windows = {"norms": [[0, 3, 1]], "curvature": [(0, 5, 2), (7, 9, 1)]}
    pairs = [("curvature", ((0, 5, 2), (7, 9, 1))), ("norms", ((0, 3, 1),))]
    assert make(measures=windows) == make(measures=pairs) == make(measures=pairs[::-1])
    assert make(measures=windows).measures == tuple(pairs)


def test_a_seed_has_the_bits_that_the_generator_keeps():
    assert make(seed=2**32 - 1).seed == config.MAX_SEED
    networks.build("mlp_300_100", seed=config.MAX_SEED)
    numbers = [torch.rand(3, generator=torch.Generator().manual_seed(s)) for s in (1, 1 + 2**32)]
    assert torch.equal(*numbers), "two names of one run, were it allowed"
    for seed in (2**32, 10**30):
        with pytest.raises(ValueError, match=rf"seed: expected less than 2\*\*32, got {seed}"):
            make(seed=seed)


def test_a_number_beyond_any_float_is_refused():
    with pytest.raises(ValueError, match="lr: expected a positive number, got one beyond"):
        make(lr=10**400)


def test_nested_beyond_all_reason_is_no_configuration():
    with pytest.raises(ValueError, match="configuration: expected a JSON object"):
        RunConfig.from_json("[" * 100_000)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"examples": 9, "chunk": 4, "probe": 9}, True),
        ({"batch_size": 1}, True),
        ({"batch_size": 8, "chunk": 7}, True),
        ({"chunk": 1}, True),
        ({"probe": 1}, True),
        ({"batch_size": 8, "chunk": 4, "probe": 5}, True),
        ({"batch_size": 8, "chunk": 4, "probe": 6}, False),
        ({"examples": 41}, False),
        ({"batch_size": 8, "chunk": 8}, False),
        ({"batch_size": 2}, False),
    ],
)
def test_a_chunk_of_one_is_refused_where_numbers_are_normalized(fields, refused):
    make(**fields)
    make(network="simple_cnn_bn", **fields)
    run = make(network="mlp_300_100") if refused else make(network="mlp_300_100_bn", **fields)
    if refused:
        with pytest.raises(ValueError, match="chunk: expected no chunk of a single example"):
            run.replace(network="mlp_300_100_bn", **fields)


def test_networks_that_normalize_numbers_are_those_that_cannot_be_trained_on_one_example():
    with torch.device("meta"):
        built = {name: networks.NETWORKS[name]() for name in config.NORMALIZED}
        refused = set()
        for name, network in built.items():
            try:
                network.train()(torch.zeros(1, *networks.INPUT_SHAPES[name]))
            except ValueError as error:
                assert "more than 1 value per channel" in str(error)
                refused.add(name)
    assert refused == set(config.NORMALIZED_NUMBERS)
