"""Gram matrices of per-example Jacobians against dense Jacobians by autograd, in float64."""

import dense
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijrlib import networks, per_example
from ijrlib.per_example import jacobian_grams, jacobian_norms

CLASSES = 3


def inputs(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and evaluation mode, nothing in it trivial."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for t in (*model.parameters(), *model.buffers()):
        if t.is_floating_point():
            t.data.uniform_(-0.5, 0.5, generator=generator)
    for name, b in model.named_buffers():
        if name.endswith("running_var"):
            b.add_(1)
    return model


def dense_grams(model: nn.Module, x: Tensor) -> Tensor:
    j = dense.jacobians(model, x)
    return j.mT @ j


def assert_exact(model: nn.Module, x: Tensor, **arguments) -> None:
    ours = jacobian_grams(model, x, **arguments)
    assert ours.dtype == torch.float64
    expected = dense_grams(model, x)
    scale = expected.abs().amax()
    assert scale > 0
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12 * float(scale))


class Pooled(nn.Module):
    """z = A · mean over positions of tanh(layer(x))."""

    def __init__(self, layer: nn.Module, channels: int, axis: int = 1) -> None:
        super().__init__()
        self.layer, self.axis = layer, axis
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.layer(x)).movedim(self.axis, 1)
        return self.head(y.flatten(2).mean(2) if y.ndim > 2 else y)


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "no bias": {"kernel_size": 3, "bias": False},
    "oblong, strided and padded": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1)},
    "dilated": {"kernel_size": 2, "dilation": (1, 2), "padding": 1},
    "'same'": {"kernel_size": 3, "padding": "same"},
    "'same', even and dilated": {"kernel_size": (3, 4), "padding": "same", "dilation": (2, 1)},
    "'valid'": {"kernel_size": 2, "padding": "valid"},
    "in groups": {"kernel_size": 3, "groups": 2},
    "of each channel": {"kernel_size": 2, "groups": 4},
    "padded with reflections": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


@pytest.mark.parametrize("kind", dense.KINDS)
def test_gram_matrices_are_those_of_the_dense_jacobian(kind):
    assert_exact(dense.network(kind), dense.examples(6)[0])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("by_positions", [False, True])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_of_any_geometry_is_exact_either_way(kind, by_positions, monkeypatch):
    monkeypatch.setattr(per_example, "_positions_are_cheaper", lambda u, delta: by_positions)
    layer = nn.Conv2d(4, 8, **CONVOLUTIONS[kind])
    assert_exact(seeded(Pooled(layer, 8)), inputs(3, 4, 5, 6))


@pytest.mark.parametrize("by_positions", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_a_linear_layer_on_vectors_and_on_sequences_is_exact_either_way(
    shape, by_positions, monkeypatch
):
    monkeypatch.setattr(per_example, "_positions_are_cheaper", lambda u, delta: by_positions)
    assert_exact(seeded(Pooled(nn.Linear(5, 6), 6, axis=-1)), inputs(3, *shape))


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 2, 3)])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_normalization_in_evaluation_mode_is_exact(shape, affine):
    layer = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](4, affine=affine)
    assert_exact(seeded(Pooled(layer, 4)), inputs(3, *shape))


def test_the_cheaper_way_depends_on_the_number_of_positions():
    delta = torch.empty(1, 10, 64, 16)
    assert per_example._positions_are_cheaper(torch.empty(1, 1, 576, 16), delta)
    delta = torch.empty(1, 10, 64, 1024)
    assert not per_example._positions_are_cheaper(torch.empty(1, 1, 27, 1024), delta)


class Recurrent(nn.Module):
    """One layer used three times, its bias a fourth time, on images or vectors."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        last = F.linear(x.flatten(2).mean(2) if x.ndim > 2 else x, torch.eye(4).to(x), self.bias())
        return self.head(last)

    def bias(self) -> Tensor:
        return self.layer.bias  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 4), (4,)),
        (nn.Conv2d(4, 4, 3, padding=1), (4, 2, 3)),
        (nn.BatchNorm2d(4), (4, 2, 3)),
    ],
)
def test_a_parameter_used_several_times_counts_once_with_the_sum_of_its_derivatives(layer, shape):
    assert_exact(seeded(Recurrent(layer)), inputs(3, *shape))


def test_a_weight_shared_by_two_names_counts_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, CLASSES))
    model[2].weight = model[0].weight
    model = seeded(model)
    assert dense.parameters(model).numel() == 16 + 4 + 4 + 15
    x = inputs(3, 4)
    weights = [p.detach() for p in model.parameters()]

    def z(*values: Tensor) -> Tensor:
        w, b, c, a, d = values
        return F.linear(F.linear(torch.tanh(F.linear(x, w, b)), w, c), a, d)

    blocks = torch.autograd.functional.jacobian(z, tuple(weights))  # pyright: ignore
    j = torch.cat([block.flatten(2) for block in blocks], dim=2)
    torch.testing.assert_close(jacobian_grams(model, x), j @ j.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["convolutional, tanh", "batch normalization", "residual"])
def test_frozen_parameters_do_not_count(kind):
    model, (x, _) = dense.network(kind), dense.examples(3)
    for p in model.parameters():
        p.requires_grad_(False)
        assert_exact(model, x)
        p.requires_grad_(True)
    for p in list(model.parameters())[:-1]:
        p.requires_grad_(False)
    assert_exact(model, x)


class Unusual(nn.Module):
    """Parameters used in ways that are no layer of their own, beside such that are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.extra = nn.Parameter(torch.empty(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.way == "a factor":
            x = x * self.extra[0]
        elif self.way == "a transposed weight":
            x = F.linear(x, self.extra.T)
        elif self.way == "a matrix product":
            x = x @ self.extra
        elif self.way == "an input of a layer":
            x = x + F.linear(self.extra, self.first.weight).sum(0)
        elif self.way == "a layer's weight and a penalty":
            x = F.linear(x, self.extra) + self.extra.square().sum()
        elif self.way == "a layer on sequences that come first":
            x = F.linear(torch.stack([x, x.sin(), x.cos()]), self.extra).sum(0)
        return self.head(x)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "way",
    [
        "a factor",
        "a transposed weight",
        "a matrix product",
        "an input of a layer",
        "a layer's weight and a penalty",
        "a layer on sequences that come first",
    ],
)
def test_parameters_used_in_another_way_are_exact_too(way, n):
    assert_exact(seeded(Unusual(way)), inputs(n, 4))


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.LayerNorm(5), (2, 5), -1),
        (nn.GroupNorm(2, 4), (4, 2, 3), 1),
        (nn.PReLU(), (4,), 1),
        (nn.Conv1d(4, 5, 2), (4, 6), 1),
        (nn.ConvTranspose2d(4, 5, 2), (4, 2, 3), 1),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), (4,), 1),
        (nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True), (3, 4), -1),
    ],
)
def test_layers_of_other_kinds_are_exact_too(layer, shape, axis):
    channels = layer(torch.zeros(1, *shape, dtype=next(layer.parameters()).dtype)).shape[axis]
    assert_exact(seeded(Pooled(layer, channels, axis)), inputs(3, *shape))


def test_words_are_taken_as_indices():
    model = seeded(Pooled(nn.Embedding(7, 4), 4, axis=-1))
    assert_exact(model, torch.tensor([[1, 2, 2], [6, 0, 1]]))


def test_layers_that_change_their_input_in_place_are_exact():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 2),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )
    assert_exact(seeded(model), inputs(5, 2, 2, 3))


@pytest.mark.parametrize("whole", [False, True])
def test_an_input_that_the_model_changes_in_place_is_left_as_it_was(whole):
    shape = (4, 3) if whole else (4,)
    layer = nn.Embedding(9, 4) if whole else nn.Linear(4, 4)
    x = torch.arange(12).view(4, 3) % 5 if whole else inputs(5, *shape)
    given, model = x.clone(), seeded(Pooled(layer, 4, axis=-1))
    found = jacobian_grams(dense.DoubledInPlace(model), x)
    assert torch.equal(x, given)
    torch.testing.assert_close(found, dense_grams(model, 2 * given), rtol=0, atol=1e-13)


class PositionsFirst(nn.Module):
    """The axis of examples is not the first one for the layer in the middle."""

    def __init__(self, positions: int, last: bool) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 5), last
        self.head = nn.Linear(5 if last else 5 * positions, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.layer(x.transpose(0, 1)))
        return self.head(y[-1] if self.last else y.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("examples", "positions"), [(1, 1), (2, 2), (5, 2), (3, 3), (2, 1), (1, 2)]
)
def test_an_axis_of_positions_is_not_taken_for_that_of_examples(examples, positions, last):
    x = inputs(examples, positions, 4)
    for chunk in (None, positions):
        assert_exact(seeded(PositionsFirst(positions, last)), x, chunk=chunk)


class Detached(nn.Module):
    """Layers that z does not depend on, or not differentiably."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = torch.tanh(self.first(x))
        self.third(x)
        return self.head(x + self.second(x).detach())


def test_layers_without_influence_on_the_gradient_give_nothing():
    assert_exact(seeded(Detached()), inputs(3, 4))


def test_a_model_whose_logits_do_not_move_has_norm_zero():
    model = Pooled(nn.Linear(4, 4), 4)
    model.head.requires_grad_(False).weight.data.zero_()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert (jacobian_grams(model, x) == 0).all()
    assert (jacobian_norms(model, x) == 0).all()


@pytest.mark.parametrize("kind", dense.KINDS)
def test_norms_are_the_largest_singular_values_and_the_trace_the_squared_frobenius_norm(kind):
    model, (x, _) = dense.network(kind), dense.examples(4)
    j = dense.jacobians(model, x)
    norms = torch.linalg.matrix_norm(j, 2)
    torch.testing.assert_close(jacobian_norms(model, x), norms, rtol=1e-12, atol=0)
    trace = jacobian_grams(model, x).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace, j.square().sum((1, 2)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["6cnn", "simple_cnn", "resnet20", "3fcn_mnist", "wrn10_2"])
def test_the_papers_networks_are_exact_in_float64_and_close_in_float32(name):
    model = networks.build(name, dtype=torch.float64).eval()
    x = inputs(2, *networks.INPUT_SHAPES[name])
    assert_exact(model, x)
    # in float32 a ReLU may be on its other side, so the dense one is computed in it as well
    model, x = model.float(), x.float()
    expected = torch.linalg.matrix_norm(dense.jacobians(model, x).double(), 2)
    torch.testing.assert_close(jacobian_norms(model, x), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["batch normalization", "convolutional, tanh"])
def test_chunks_and_sweeps_change_nothing(kind, monkeypatch):
    model, (x, _) = dense.network(kind), dense.examples(7)
    whole = jacobian_grams(model, x)
    for chunk in (1, 3, 7, 100):
        torch.testing.assert_close(
            jacobian_grams(model, x, chunk=chunk), whole, rtol=1e-12, atol=1e-12
        )
    monkeypatch.setattr(per_example, "WORK_BYTES", 1)  # one example and one layer at a time
    torch.testing.assert_close(jacobian_grams(model, x), whole, rtol=1e-12, atol=1e-12)
    assert_exact(seeded(Recurrent(nn.Linear(4, 4))), inputs(3, 4))


def test_one_example_gives_one_matrix():
    model, (x, _) = dense.network("residual"), dense.examples(1)
    assert jacobian_grams(model, x).shape == (1, dense.CLASSES, dense.CLASSES)
    assert_exact(model, x)


def test_the_model_and_the_random_state_are_left_as_they_were():
    model, (x, _) = dense.network("batch normalization"), dense.examples(3)
    model[0].train()
    parameters = list(model.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    modes = [m.training for m in model.modules()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        jacobian_grams(model, x)
        assert not torch.is_grad_enabled()
    assert list(map(id, model.parameters())) == list(map(id, parameters))
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert (parameters[0].grad == 1).all() and all(p.grad is None for p in parameters[1:])
    assert all(p.requires_grad for p in parameters)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    x.requires_grad_()
    assert not jacobian_grams(model, x).requires_grad


def test_one_example_is_normalized_by_itself_in_training_mode_and_leaves_the_running_statistics():
    model, (x, _) = dense.network("batch normalization").train(), dense.examples(1)
    before = [b.clone() for b in model.buffers()]
    assert_exact(model, x)
    assert all(map(torch.equal, before, model.buffers()))


@pytest.mark.parametrize("chunk", [None, 1])
def test_examples_that_influence_each_other_are_refused(chunk):
    model, (x, _) = dense.network("batch normalization").train(), dense.examples(4)
    with pytest.raises(ValueError, match="influence each other"):
        jacobian_grams(model, x, chunk=chunk)


class Centred(nn.Module):
    """Normalization by the batch that no module tells of."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)


def normalized_first(layer: nn.Module, inputs: int = 12) -> nn.Sequential:
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(inputs, CLASSES)).double().train()


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (normalized_first(nn.BatchNorm2d(3)), (3, 2, 2)),
        (normalized_first(nn.BatchNorm2d(3, affine=False)), (3, 2, 2)),
        (normalized_first(nn.BatchNorm2d(3, track_running_stats=False)).eval(), (3, 2, 2)),
        (normalized_first(nn.BatchNorm1d(12)), (12,)),
        (normalized_first(Centred()).eval(), (12,)),
        (normalized_first(nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm1d(3))), (3, 4)),
    ],
)
def test_examples_that_influence_each_other_before_any_layer_are_refused(model, shape, chunk):
    x = inputs(4, *shape)
    for given in (x, torch.cat([x[:1], x[:1], x[2:]])):
        before = [b.clone() for b in model.buffers()]
        with pytest.raises(ValueError, match="influence each other"):
            jacobian_grams(model, given, chunk=chunk)
        assert all(map(torch.equal, before, model.buffers()))
        assert not given.requires_grad


class WithoutMean(nn.Module):
    """Logits that sum to zero."""

    def forward(self, z: Tensor) -> Tensor:
        return z - z.mean(1, keepdim=True)


@pytest.mark.parametrize("affine", [False, True])
def test_an_influence_that_cancels_in_the_sum_of_the_logits_is_refused_too(affine):
    layer = nn.BatchNorm1d(3, affine=affine)
    model = nn.Sequential(normalized_first(layer), WithoutMean())
    with pytest.raises(ValueError, match="influence each other"):
        jacobian_grams(model, inputs(4, 3, 4))


def test_words_that_are_normalized_together_are_refused():
    words = torch.tensor([[1, 2, 2], [6, 0, 1], [3, 3, 4]])
    model = normalized_first(nn.Sequential(nn.Embedding(7, 4), nn.BatchNorm1d(3)))
    with pytest.raises(ValueError, match="influence each other"):
        jacobian_grams(model, words)
    with pytest.raises(ValueError, match="influence each other"):  # a single value per channel
        jacobian_grams(normalized_first(Summed(), 4), words)
    assert_exact(model.eval(), words)


class Summed(nn.Module):
    """The normalized sum of the vectors of words."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors, self.normalization = nn.Embedding(7, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalization(self.vectors(x).sum(1))


class Apart(nn.Module):
    """Batch normalization in training mode that keeps examples apart: each a batch of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.normalization, self.head = nn.BatchNorm1d(3), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.normalization(one).flatten(1) for one in x.split(1)]))


def test_batch_normalization_in_training_mode_that_keeps_examples_apart_is_exact():
    model = seeded(Apart()).train()
    assert_exact(model, inputs(4, 3, 4))


def test_random_layers_are_refused_and_the_random_state_is_kept():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, CLASSES)).double()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="draws no random numbers"):
        jacobian_grams(model, inputs(3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert_exact(model.eval(), inputs(3, 4))


def test_what_is_no_classification_of_examples_is_refused():
    model = nn.Linear(4, CLASSES).double()
    with pytest.raises(ValueError, match="at least one example"):
        jacobian_grams(model, inputs(0, 4))
    with pytest.raises(ValueError, match="chunk: expected at least 1, got -5"):
        jacobian_grams(model, inputs(2, 4), chunk=-5)
    with pytest.raises(ValueError, match=r"shape \(examples, classes\), got \(2, 5, 3\)"):
        jacobian_grams(model, inputs(2, 5, 4))
    with pytest.raises(ValueError, match="trainable parameters"):
        jacobian_grams(model.requires_grad_(False), inputs(2, 4))
