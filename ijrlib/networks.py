"""The nine networks of the paper (its Appendix E.2) and those of its companions.

Parameter counts match the paper's exactly; `tests/test_networks.py` holds them.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ijrlib.text import UNKNOWN, VOCABULARY

INITIALIZATIONS = ("default", "xavier_normal", "kaiming_normal")


def three_layer_perceptron(inputs: int = 3 * 32 * 32, classes: int = 10) -> nn.Sequential:
    """3FCN: inputs-200-200-classes with ReLU and bias."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, 200),
        nn.ReLU(),
        nn.Linear(200, 200),
        nn.ReLU(),
        nn.Linear(200, classes),
    )


def six_layer_cnn(classes: int = 10) -> nn.Sequential:
    """6CNN: four convolutions without bias, two of them of stride 2; two linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def simple_cnn(classes: int = 10) -> nn.Sequential:
    """SimpleCNN: twice a 'same' and a 'valid' convolution, max-pooling; two linear layers."""

    def block(inputs: int, filters: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, filters, 3, padding="same", bias=False),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding="valid", bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]

    return nn.Sequential(
        *block(3, 32),
        *block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * 6 * 6, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def simple_cnn_break_even(classes: int = 10, batch_norm: bool = False) -> nn.Sequential:
    """SimpleCNN of Jastrzebski et al. (2020): all convolutions 'same' and with bias.  With
    ``batch_norm``, SimpleCNN-BN: batch normalization after each of them."""

    def block(inputs: int, filters: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for channels in (inputs, filters):
            layers.append(nn.Conv2d(channels, filters, 3, padding=1))
            layers += [nn.BatchNorm2d(filters)] if batch_norm else []
            layers.append(nn.ReLU())
        return [*layers, nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(3, 32),
        *block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def multilayer_perceptron(classes: int = 10, batch_norm: bool = False) -> nn.Sequential:
    """784-300-100-classes with ReLU and bias (Jastrzebski et al. 2020).  With ``batch_norm``, batch
    normalization before each ReLU; not in a paper."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in ((28 * 28, 300), (300, 100)):
        layers.append(nn.Linear(inputs, units))
        layers += [nn.BatchNorm1d(units)] if batch_norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(100, classes))


def vgg(classes: int = 10, width: int = 64) -> nn.Sequential:
    """VGG-11 for 32 x 32 images, without batch normalization and dropout; ``width`` filters in its
    first convolution.

    Its own initialization: convolutions N(0, 2 / (k^2 c_out)) with zero bias, linear layers as
    PyTorch does.
    """
    layers: list[nn.Module] = []
    channels = 3
    for stage in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
        for factor in stage:
            filters = factor * width
            convolution = nn.Conv2d(channels, filters, 3, padding=1)
            nn.init.normal_(convolution.weight, std=(2 / (9 * filters)) ** 0.5)
            nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
            layers += [convolution, nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    classifier = [nn.Linear(filters, filters), nn.ReLU(), nn.Linear(filters, filters), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *classifier, nn.Linear(filters, classes))


class ResidualBlock(nn.Module):
    """ReLU(x' + conv(ReLU(conv(x)))), x' = x subsampled and padded with zero channels to fit.  With
    ``batch_norm``, batch normalization after both convolutions."""

    def __init__(self, inputs: int, filters: int, stride: int, batch_norm: bool = False):
        super().__init__()
        self.stride = stride
        self.padding = (filters - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn1, self.bn2 = (
            nn.BatchNorm2d(filters) if batch_norm else nn.Identity() for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(shortcut + self.bn2(self.conv2(hidden)))


def residual_network(depth: int = 20, classes: int = 10, batch_norm: bool = False) -> nn.Sequential:
    """ResNet-depth (He et al. 2015), depth = 6n + 2, shortcuts without parameters.  With
    ``batch_norm``, batch normalization after each convolution; without it as in the IJR paper.

    Its own initialization: convolutions Kaiming-normal with fan_out, no bias; the linear layer as
    PyTorch does.

    Raises ValueError for another depth.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"expected a depth of 6n + 2 with n >= 1, got {depth}")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(16), nn.ReLU()] if batch_norm else [nn.ReLU()]
    channels = 16
    for filters in (16, 32, 64):
        for _ in range(blocks):
            stride = filters // channels
            layers.append(ResidualBlock(channels, filters, stride, batch_norm))
            channels = filters
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    network = nn.Sequential(*layers, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class PreActivationBlock(nn.Module):
    """x' + conv(ReLU(bn(conv(ReLU(bn(x)))))), x' = 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut = None
        if inputs != filters:
            self.shortcut = nn.Conv2d(inputs, filters, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(torch.relu(self.bn2(self.conv1(activated))))


def wide_resnet(depth: int = 28, width: int = 10, classes: int = 10) -> nn.Sequential:
    """WRN-depth-width (Zagoruyko and Komodakis, 2016), depth = 6n + 4, with batch normalization.

    Raises ValueError for another depth.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"expected a depth of 6n + 4 with n >= 1, got {depth}")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    channels = 16
    for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for block in range(blocks):
            layers.append(PreActivationBlock(channels, filters, stride if block == 0 else 1))
            channels = filters
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(channels, classes))


class LSTM(nn.Module):
    """Embedding, an LSTM, a linear layer on its last state: words (n, T) to logits (n, classes).

    With gates i, f, o and candidate u, each an affine function of the word and of h:
    c ← σ(f)c + σ(i)tanh(u), h ← σ(o)tanh(c).  Written out because PyTorch's own can't be
    differentiated twice on a GPU, nor in forward mode.
    """

    def __init__(
        self, vocabulary: int = VOCABULARY, classes: int = 2, embedding: int = 128, units: int = 100
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.inputs = nn.Linear(embedding, 4 * units)  # i, f, u and o
        self.recurrent = nn.Linear(units, 4 * units, bias=False)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.inputs(_embedded(self.embedding, x)).unbind(1)
        h = c = inputs[0].new_zeros(len(x), self.head.in_features)
        for word in inputs:
            i, f, u, o = (word + self.recurrent(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(u)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class TextCNN(nn.Module):
    """Embedding, a convolution over three words, the largest output over the text, two linear
    layers: words (n, T) to logits (n, classes).

    The embedding starts uniform on ±0.05, as in the example of Keras that the network follows.
    """

    def __init__(
        self,
        vocabulary: int = 5000,
        classes: int = 2,
        embedding: int = 50,
        units: int = 250,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.convolution = nn.Conv1d(embedding, units, 3)
        self.hidden = nn.Linear(units, units)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        words = _embedded(self.embedding, x)
        outputs = torch.relu(self.convolution(words.transpose(1, 2)))
        return self.head(torch.relu(self.hidden(outputs.amax(2))))


def _embedded(embedding: nn.Embedding, x: Tensor) -> Tensor:
    """Vectors of words; one beyond the vocabulary is an unknown one."""
    return embedding(torch.where(x < embedding.num_embeddings, x, UNKNOWN))


LANGUAGE_MODEL = 1000
"""Words that the language model knows."""

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg": vgg,
    "vgg_cifar100": partial(vgg, classes=100),
    "resnet20": residual_network,
    "6cnn": six_layer_cnn,
    "simple_cnn": simple_cnn,
    "3fcn_cifar": three_layer_perceptron,
    "3fcn_mnist": partial(three_layer_perceptron, inputs=28 * 28),
    "wrn28_10": wide_resnet,
    "wrn28_10_cifar100": partial(wide_resnet, classes=100),
    # narrow, shallow relatives of WRN-28-10 for the laptop; not in the paper
    "wrn10_2": partial(wide_resnet, depth=10, width=2),
    "wrn10_2_cifar100": partial(wide_resnet, depth=10, width=2, classes=100),
    # of the companion papers
    "simple_cnn_be": simple_cnn_break_even,
    "mlp_300_100": multilayer_perceptron,
    "simple_cnn_bn": partial(simple_cnn_break_even, batch_norm=True),
    "mlp_300_100_bn": partial(multilayer_perceptron, batch_norm=True),
    "resnet32": partial(residual_network, depth=32),
    "resnet32_bn": partial(residual_network, depth=32, batch_norm=True),
    "lstm": LSTM,
    "text_cnn": TextCNN,
    "lstm_words": partial(LSTM, vocabulary=LANGUAGE_MODEL, classes=LANGUAGE_MODEL),
    # for smoke scale: narrow, or of the few words of the invented reviews
    "vgg_small": partial(vgg, width=8),
    "vgg_small_cifar100": partial(vgg, classes=100, width=8),
    "lstm_small": partial(LSTM, vocabulary=100, embedding=8, units=8),
    "lstm_words_small": partial(LSTM, vocabulary=100, classes=100, embedding=8, units=8),
    "text_cnn_small": partial(TextCNN, vocabulary=100, embedding=8, units=16),
}
"""Name -> constructor without arguments."""

READERS = {  # network of words -> how many it reads, number of its logits
    "lstm": (80, 2),
    "text_cnn": (80, 2),
    "lstm_words": (20, LANGUAGE_MODEL),
    "lstm_small": (20, 2),
    "lstm_words_small": (20, 100),
    "text_cnn_small": (20, 2),
}

INPUT_SHAPES: dict[str, tuple[int, ...]] = {
    name: (1, 28, 28) if name.startswith(("3fcn_mnist", "mlp")) else (3, 32, 32)
    for name in NETWORKS
} | {name: (words,) for name, (words, _) in READERS.items()}
"""Name -> (channels, height, width) of one example, or the number of its words."""

CLASSES: dict[str, int] = {name: 100 if name.endswith("cifar100") else 10 for name in NETWORKS} | {
    name: classes for name, (_, classes) in READERS.items()
}
"""Name -> number C of logits."""


def _initialize(network: nn.Module, init: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            if init == "xavier_normal":
                nn.init.xavier_normal_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(
    name: str, init: str = "default", seed: int = 0, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The network `name` on the CPU, initialized from `seed`; the global random state is untouched.

    `init` is "default" (the network's own for VGG, ResNet-20 and ResNet-32 and the embedding of
    TextCNN, PyTorch's otherwise), or "xavier_normal" or "kaiming_normal" (fan_in, gain sqrt 2) for
    all convolutions and linear layers, with zero biases; embeddings start as by default. Weights
    are drawn in float32 and then cast to `dtype`, so a float64 network starts at the same point.

    Raises ValueError for an unknown name or initialization, listing the valid ones.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")
    if init not in INITIALIZATIONS:
        raise ValueError(
            f"unknown initialization {init!r}; expected one of {', '.join(INITIALIZATIONS)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = NETWORKS[name]()
        if init != "default":
            _initialize(network, init)
    return network.to(dtype)
