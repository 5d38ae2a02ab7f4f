"""The paper's networks: sizes, shapes, initialization."""

import math

import pytest
import torch
from torch import nn

from ijrlib import networks

# The paper's Appendix E.2 (shared/PAPER.md, section 6).
PARAMETERS = {
    "vgg": 9_750_922,
    "vgg_cifar100": 9_797_092,
    "resnet20": 268_346,
    "6cnn": 511_926,
    "simple_cnn": 361_706,
    "3fcn_cifar": 656_810,
    "3fcn_mnist": 199_210,
    "wrn28_10": 36_479_194,
    "wrn28_10_cifar100": 36_536_884,
}
RELATIVES = ("wrn10_2", "wrn10_2_cifar100", "vgg_small", "vgg_small_cifar100")
RELATIVES += ("lstm_small", "lstm_words_small", "text_cnn_small")
COMPANIONS = {  # Jastrzebski et al. 2020, Appendix C: weights and biases, layer by layer
    "simple_cnn_be": 32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + 4097 * 128 + 129 * 10,
    "mlp_300_100": 785 * 300 + 301 * 100 + 101 * 10,
}
# a scale and a shift for each channel or unit that is normalized
COMPANIONS["simple_cnn_bn"] = COMPANIONS["simple_cnn_be"] + 2 * (32 + 32 + 64 + 64)
COMPANIONS["mlp_300_100_bn"] = COMPANIONS["mlp_300_100"] + 2 * (300 + 100)
# ten blocks of two convolutions more than ResNet-20 has, two a stage; scale and shift of each
COMPANIONS["resnet32"] = PARAMETERS["resnet20"] + 2 * 2 * 9 * (16**2 + 32**2 + 64**2)
COMPANIONS["resnet32_bn"] = COMPANIONS["resnet32"] + 2 * (16 * 11 + 32 * 10 + 64 * 10)
# gates: weights of the word and of the state, a bias
COMPANIONS["lstm"] = 20_000 * 128 + 400 * (128 + 100 + 1) + 101 * 2
COMPANIONS["lstm_words"] = 1000 * 128 + 400 * (128 + 100 + 1) + 101 * 1000
COMPANIONS["text_cnn"] = 5000 * 50 + 250 * (3 * 50 + 1) + 251 * 250 + 251 * 2
SMALL = [name for name in networks.NETWORKS if not name.startswith("wrn28")]


def inputs(name: str, device: str = "cpu") -> torch.Tensor:
    """Two examples: images, or words of a vocabulary that all of them have."""
    shape = (2, *networks.INPUT_SHAPES[name])
    generator = torch.Generator().manual_seed(0)
    if len(shape) == 2:
        return torch.randint(100, shape, generator=generator).to(device)
    return torch.randn(shape, generator=generator).to(device)


def layers(network, kind) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


def test_the_table_holds_the_networks_of_the_papers_and_the_relatives_of_one():
    assert set(networks.NETWORKS) == {*PARAMETERS, *RELATIVES, *COMPANIONS}
    assert networks.INPUT_SHAPES.keys() == networks.NETWORKS.keys() == networks.CLASSES.keys()


@pytest.mark.parametrize("name", [*PARAMETERS, *COMPANIONS])
def test_the_parameter_count_is_the_papers(name):
    with torch.device("meta"):  # shapes only: WRN-28-10 needs no memory
        network = networks.NETWORKS[name]()
    expected = {**PARAMETERS, **COMPANIONS}[name]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_batch_of_inputs_gives_one_logit_per_class(name):
    with torch.device("meta"):
        network = networks.NETWORKS[name]()
    assert network(inputs(name, "meta")).shape == (2, networks.CLASSES[name])


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_takes_part(name):
    network = networks.build(name)
    logits = network(inputs(name))
    gradients = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["vgg", "resnet20", "6cnn", "simple_cnn", "3fcn_cifar"])
def test_the_networks_of_the_curvature_figures_have_no_normalization_and_no_dropout(name):
    forbidden = nn.Dropout | nn.BatchNorm2d
    assert not layers(networks.build(name), forbidden)


def test_the_convolutions_have_a_bias_in_vgg_and_the_companions_network_only():
    for name in SMALL:
        biased = {module.bias is not None for module in layers(networks.build(name), nn.Conv2d)}
        assert biased <= {name.startswith("vgg") or name in ("simple_cnn_be", "simple_cnn_bn")}


def test_resnet_shortcuts_subsample_and_pad_with_zero_channels():
    block = networks.ResidualBlock(2, 4, stride=2)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


def test_a_pre_activation_block_without_convolutions_is_its_shortcut():
    block = networks.PreActivationBlock(3, 3, stride=1)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("depth", [2, 7, 21])
def test_a_resnet_of_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 2.*{depth}"):
        networks.residual_network(depth=depth)


@pytest.mark.parametrize("depth", [3, 4, 27, 29])
def test_a_wide_resnet_of_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 4.*{depth}"):
        networks.wide_resnet(depth=depth)


def standard_deviation_is(weight, expected):
    """Within five standard errors (Gaussian entries: std / sqrt(2n)) of the expected value."""
    return abs(weight.std().item() - expected) < 5 * expected / math.sqrt(2 * weight.numel())


@pytest.mark.parametrize("name", ["vgg", "vgg_small"])
def test_vgg_draws_convolutions_with_variance_two_over_fan_out_and_zero_bias(name):
    network = networks.build(name)
    for convolution in layers(network, nn.Conv2d):
        assert standard_deviation_is(
            convolution.weight, (2 / (9 * convolution.out_channels)) ** 0.5
        )
        assert not convolution.bias.any()
    for linear in layers(network, nn.Linear):  # PyTorch's default: uniform on ±1/sqrt(fan_in)
        assert linear.weight.abs().max() <= 1 / math.sqrt(linear.in_features)


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet32_bn"])
def test_resnet_draws_convolutions_with_variance_two_over_fan_out(name):
    for convolution in layers(networks.build(name), nn.Conv2d):
        assert standard_deviation_is(
            convolution.weight, (2 / (9 * convolution.out_channels)) ** 0.5
        )


@pytest.mark.parametrize("name", ["6cnn", "simple_cnn", "3fcn_mnist", "lstm", "text_cnn"])
def test_the_other_networks_start_as_pytorch_does(name):
    torch.manual_seed(3)
    expected = networks.NETWORKS[name]()
    network = networks.build(name, seed=3)
    for layer in layers(network, nn.Conv2d | nn.Conv1d | nn.Linear):
        fan_in = layer.weight[0].numel()
        assert layer.weight.abs().max() <= 1 / math.sqrt(fan_in)
    for embedding in layers(network, nn.Embedding):
        if name == "text_cnn":
            assert 0.0499 < embedding.weight.abs().max() <= 0.05
        else:
            assert standard_deviation_is(embedding.weight, 1.0)
    pairs = zip(network.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("name", ["6cnn", "text_cnn"])
@pytest.mark.parametrize("init", ["xavier_normal", "kaiming_normal"])
def test_a_named_initialization_replaces_every_weight_and_zeroes_the_biases(name, init):
    for layer in layers(networks.build(name, init=init), nn.Conv1d | nn.Conv2d | nn.Linear):
        fan_out, fan_in = layer.weight.shape[0], layer.weight[0].numel()
        fan_out *= layer.weight[0, 0].numel()  # kernel size
        variance = 2 / (fan_in + fan_out) if init == "xavier_normal" else 2 / fan_in
        assert standard_deviation_is(layer.weight, variance**0.5)
        assert layer.bias is None or not layer.bias.any()


def weights(network):
    return nn.utils.parameters_to_vector(network.parameters())


def test_the_seed_decides_the_weights_and_the_global_random_state_stays():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second, other = (networks.build("3fcn_mnist", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_a_double_precision_network_starts_at_the_same_point():
    single, double = (
        weights(networks.build("3fcn_mnist", dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


def test_an_unknown_network_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"lenet.*vgg, vgg_cifar100, resnet20.*wrn28_10_cifar100"):
        networks.build("lenet")


def test_an_unknown_initialization_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"orthogonal.*default, xavier_normal, kaiming_normal"):
        networks.build("6cnn", init="orthogonal")
