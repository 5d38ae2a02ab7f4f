"""The monitor on networks that are not the book's: what it measures, and that it leaves no
trace."""

import copy
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from figure_checks import card, labelled
from torch import nn
from torch.nn import functional as F

from ijrlib import logits, per_example, regularizers, spectra
from ijrlib.monitor import CurvatureMonitor, threshold, unwrapped
from ijrlib.operators import cross_entropy, squared

CLASSES = 4


class Branched(nn.Module):
    """Called by name; with batch normalization, dropout, a frozen layer and one that is unused."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))
        self.words = nn.Embedding(11, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, image, words):
        hidden = self.frozen(self.image(image)) + self.words(words).mean(1)
        return SimpleNamespace(logits=self.head(hidden))


def branched_batch(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "image": torch.randn(n, 6, generator=generator),
        "words": torch.randint(11, (n, 5), generator=generator),
    }
    return inputs, torch.randint(CLASSES, (n,), generator=generator)


def built(make, seed=0):
    torch.manual_seed(seed)
    return make()


def small():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def small_batch(n=30, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def dense(model, loss, x, y):
    """λ_max(H), ‖⟨J⟩‖² and ⟨λ^(1)⟩ from whole matrices, in float64."""
    params = {k: p.detach().double() for k, p in model.named_parameters() if p.requires_grad}
    fixed = {k: p.detach().double() for k, p in model.named_parameters() if not p.requires_grad}
    fixed |= {k: b.double() if b.is_floating_point() else b for k, b in model.named_buffers()}
    shapes = [p.shape for p in params.values()]
    theta = torch.cat([p.flatten() for p in params.values()])

    def z(flat):
        parts = flat.split([s.numel() for s in shapes])
        named = {k: t.view(s) for k, t, s in zip(params, parts, shapes, strict=True)}
        inputs = ((x,), {}) if isinstance(x, torch.Tensor) else ((), x)
        out = torch.func.functional_call(model, {**fixed, **named}, *inputs)
        return out if isinstance(out, torch.Tensor) else out.logits

    hessian = torch.autograd.functional.hessian(lambda t: loss(z(t), y), theta)
    jacobian = torch.autograd.functional.jacobian(lambda t: z(t).mean(0), theta)
    p = z(theta).softmax(-1)
    top = torch.stack([torch.linalg.eigvalsh(q.diag() - q.outer(q))[-1] for q in p])
    return (
        float(torch.linalg.eigvalsh(hessian)[-1]),
        float(torch.linalg.matrix_norm(jacobian, 2)) ** 2,
        float(top.mean()),
    )


def test_a_row_holds_what_whole_matrices_give():
    model = built(small).double()
    x, y = small_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    row = CurvatureMonitor(model, cross_entropy, (x, y), optimizer=optimizer).measure()
    sharpness, jacobian, impurity = dense(model, cross_entropy, {"input": x}, y)
    assert row["sharpness"] == pytest.approx(sharpness, rel=1e-4)
    assert row["jacobian_norm_sq"] == pytest.approx(jacobian, rel=1e-4)
    assert row["impurity_mean"] == pytest.approx(impurity, rel=1e-9)
    assert row["loss"] == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-9)
    assert (row["lr"], row["threshold"], row["step"]) == (0.25, 8.0, 0)
    assert 0 <= row["gradient_alignment"] <= 1 and row["seconds"] > 0


def test_inputs_by_name_frozen_and_unused_parameters_and_an_object_with_logits():
    model = built(Branched)
    inputs, y = branched_batch()
    row = CurvatureMonitor(model, F.cross_entropy, (inputs, y), chunk=7).measure()
    as_measured = copy.deepcopy(model).double().eval()
    doubled = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    sharpness, jacobian, impurity = dense(as_measured, cross_entropy, doubled, y)
    assert row["sharpness"] == pytest.approx(sharpness, rel=5e-3)
    assert row["jacobian_norm_sq"] == pytest.approx(jacobian, rel=5e-3)
    assert row["impurity_mean"] == pytest.approx(impurity, rel=1e-5)


def trained(monitored: bool):
    """Two epochs with momentum, weight decay, a schedule and dropout; and all that is left."""
    model = built(Branched, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
    monitor = None
    if monitored:
        probe = branched_batch(16, seed=7)
        loss = nn.CrossEntropyLoss()
        monitor = CurvatureMonitor(model, loss, probe, every=2, optimizer=optimizer)
        monitor.measure()
    losses = []
    for step in range(8):
        model.train()
        inputs, y = branched_batch(seed=step)
        loss = cross_entropy(model(**inputs).logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if monitor:
            monitor.step()
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return monitor, (losses, model.state_dict(), grads, modes, torch.get_rng_state())


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_training_is_bit_for_bit_what_it_is_without_a_monitor():
    monitor, watched = trained(monitored=True)
    _, alone = trained(monitored=False)
    assert same(watched, alone)
    frame = monitor.frame()
    assert list(frame["step"]) == [0, 2, 4, 6, 8]
    assert list(frame["lr"]) == [0.1, 0.1, 0.05, 0.025, 0.025]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_measured_in_single(dtype):
    model = built(small).to(dtype)
    before = copy.deepcopy(model.state_dict())
    x, y = small_batch(dtype=dtype)
    row = CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    single = CurvatureMonitor(copy.deepcopy(model).float(), cross_entropy, (x.float(), y)).measure()
    assert row["sharpness"] == single["sharpness"]
    assert same(model.state_dict(), before)
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("count", [40, 600])
def test_the_default_device_of_new_tensors_does_not_matter(count):
    """Here a device without numbers, where a GPU would be for a model on it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    x, y = torch.randn(count, 4), torch.arange(count) % CLASSES
    rows = [CurvatureMonitor(model, cross_entropy, (x, y)).measure()]
    with torch.device("meta"):
        rows.append(CurvatureMonitor(model, cross_entropy, (x, y)).measure())
        grams = per_example.jacobian_grams(model, x[:3])
        trace = spectra.hutchinson(torch.eye(6, device="cpu")).trace
        generator = torch.Generator("cpu").manual_seed(0)
        penalty = regularizers.jacobian_penalty(model(x), model.parameters(), generator)
        regularizers.backward(model, cross_entropy, x, y, rho=0.1)
    for row in rows:
        row.pop("seconds")
    assert rows[0] == pytest.approx(rows[1], nan_ok=True)
    assert torch.equal(grams, per_example.jacobian_grams(model, x[:3])) and trace == 6
    again = torch.Generator().manual_seed(0)
    assert torch.equal(penalty, regularizers.jacobian_penalty(model(x), model.parameters(), again))
    assert all(p.grad is not None and p.grad.device.type == "cpu" for p in model.parameters())


def test_complex_buffers_of_a_model_in_half_precision_keep_their_imaginary_parts():
    """Such as the rotations of some transformers; here cos(1) x₁ − sin(1) x₂ and so on."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("turn", torch.polar(torch.ones(1), torch.ones(1)))
            self.head = nn.Linear(2, CLASSES)

        def forward(self, x):
            turned = torch.view_as_complex(x.float()) * self.turn
            return self.head(torch.view_as_real(turned).to(x.dtype))

    torch.manual_seed(0)
    model = Turned()
    model.head.bfloat16()
    exact = copy.deepcopy(model)
    exact.head.float()
    x, y = torch.randn(40, 2).bfloat16(), torch.arange(40) % CLASSES
    rows = [
        CurvatureMonitor(m, cross_entropy, (x.to(m.head.weight.dtype), y)).measure()
        for m in (model, exact)
    ]
    for name in ("loss", "sharpness", "jacobian_norm_sq"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-5)


def test_the_autocast_of_a_training_loop_is_not_that_of_the_monitor():
    model = built(small)
    x, y = small_batch(dtype=torch.float32)
    alone = CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        inside = CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    assert inside["sharpness"] == alone["sharpness"]


def test_a_transformer_with_attention_is_measured():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(13, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, tokens):
            return {"logits": self.head(self.encoder(self.embed(tokens)).mean(1))}

    model = built(Classifier)
    tokens = torch.randint(13, (12, 6), generator=torch.Generator().manual_seed(2))
    y = torch.arange(12) % CLASSES
    row = CurvatureMonitor(model, cross_entropy, ([tokens], y)).measure()
    doubled = copy.deepcopy(model).double().eval()

    def loss(*values):
        names = dict(zip(dict(doubled.named_parameters()), values, strict=True))
        out = torch.func.functional_call(doubled, names, (tokens,))
        return cross_entropy(out["logits"], y)

    values = tuple(p.detach() for p in doubled.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        blocks = torch.autograd.functional.hessian(loss, values)
    size = [v.numel() for v in values]
    hessian = torch.cat(
        [
            torch.cat([b.reshape(n, m) for b, m in zip(line, size, strict=True)], dim=1)
            for line, n in zip(blocks, size, strict=True)
        ]
    )
    assert row["sharpness"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=5e-3)


@pytest.mark.parametrize("n", [30, 200])
@pytest.mark.parametrize("loss", [cross_entropy, squared, nn.CrossEntropyLoss()])
def test_a_model_that_diverges_leaves_rows_of_nan_and_no_error(loss, n):
    model = built(small)
    sound = copy.deepcopy(model.state_dict())
    monitor = CurvatureMonitor(model, loss, small_batch(n, torch.float32), every=1, chunk=16)
    for weight in (math.nan, math.inf):
        with torch.no_grad():
            model[0].weight.fill_(1.0)
            model[2].weight.fill_(weight)
        row = monitor.step()
        assert row and math.isnan(row["sharpness"]) and row["step"] == monitor.steps
    assert math.isnan(monitor.rows[0]["impurity_mean"])
    monitor.plot()
    model.load_state_dict(sound)
    fresh = CurvatureMonitor(model, loss, small_batch(n, torch.float32)).measure()
    row = monitor.measure()
    errors = sum(found["sharpness_residual"] * found["sharpness"] for found in (row, fresh))
    assert errors < 0.1 * row["sharpness"]
    assert row["sharpness"] == pytest.approx(fresh["sharpness"], abs=errors)


def test_layers_may_be_unfrozen_and_frozen_between_measurements():
    model = built(small).double()
    x, y = small_batch()
    monitor = CurvatureMonitor(model, cross_entropy, (x, y))
    for trains in (False, True, False):
        model[0].requires_grad_(trains)
        row = monitor.measure()
        sharpness, jacobian, _ = dense(model, cross_entropy, {"input": x}, y)
        assert row["sharpness"] == pytest.approx(sharpness, rel=5e-3)
        assert row["jacobian_norm_sq"] == pytest.approx(jacobian, rel=5e-3)
        assert abs(row["jacobian_norm_sq"] / jacobian - 1) <= row["jacobian_residual"] + 1e-12


@pytest.mark.parametrize(
    ("loss", "ignored"),
    [
        (nn.CrossEntropyLoss(weight=torch.arange(1.0, CLASSES + 1).double()), 0),
        (nn.CrossEntropyLoss(ignore_index=-1), 5),
        (nn.CrossEntropyLoss(ignore_index=-1), 12),  # all of the last chunk
    ],
)
def test_a_loss_with_a_denominator_of_its_own_is_measured_on_one_chunk_alone(loss, ignored):
    model = built(small).double()
    x, y = small_batch()
    y[len(y) - ignored :] = -1
    sharpness, jacobian, _ = dense(model, loss, {"input": x}, y)
    row = CurvatureMonitor(model, loss, (x, y), chunk=30).measure()
    assert row["sharpness"] == pytest.approx(sharpness, rel=5e-3)
    assert row["jacobian_norm_sq"] == pytest.approx(jacobian, rel=5e-3)
    monitor = CurvatureMonitor(model, loss, (x, y), chunk=10)
    with pytest.raises(
        ValueError, match=r"plain mean over examples, got .* chunks of 10.*least 30"
    ):
        monitor.measure()
    assert not monitor.rows


def squares(z, y):
    return 0.5 * (z - F.one_hot(y, CLASSES)).square().sum()


@pytest.mark.parametrize("chunk", [10, 30, 250])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "loss", [partial(F.cross_entropy, reduction="sum"), squares, lambda z, y: -squares(z, y)]
)
def test_a_sum_over_examples_is_refused_in_one_chunk_too(loss, dtype, chunk):
    monitor = CurvatureMonitor(built(small).to(dtype), loss, small_batch(dtype=dtype), chunk=chunk)
    with pytest.raises(ValueError, match=r"expected a mean over examples, got a sum: .*halves"):
        monitor.measure()
    assert not monitor.rows


def masked(z, y):
    """The mean over the labels there are, 0 where there are none."""
    known = (y >= 0).to(z)
    values = F.cross_entropy(z, y.clamp(min=0), reduction="none") * known
    return values.sum() / known.sum().clamp(min=1)


WEIGHTS = torch.arange(1.0, 31).double()


def weighted(z, y):
    return (WEIGHTS * F.cross_entropy(z, y, reduction="none")).sum() / WEIGHTS.sum()


@pytest.mark.parametrize(
    ("loss", "ignored"),
    [(masked, 0), (masked, 12), (masked, 15), (masked, 29), (weighted, 0)],
)
def test_a_mean_that_has_no_halves_or_an_empty_one_is_measured(loss, ignored):
    model = built(small).double()
    x, y = small_batch()
    y[len(y) - ignored :] = -1
    row = CurvatureMonitor(model, loss, (x, y)).measure()
    assert row["loss"] == pytest.approx(loss(model(x), y).item(), rel=1e-9)


def test_a_loss_that_gives_no_number_is_refused():
    loss = partial(F.cross_entropy, reduction="none")
    with pytest.raises(ValueError, match=r"loss: expected one number, got shape \(30,\)"):
        CurvatureMonitor(built(small).double(), loss, small_batch()).measure()


def noisy(z, y):
    return F.cross_entropy(z * (1 + 0.05 * torch.randn(())), y)


class Averaging(nn.Module):
    """Follows its mean, and drops logits in training."""

    def __init__(self):
        super().__init__()
        self.drop, self.calls = nn.Dropout(0.5), 0
        self.register_buffer("mean", torch.zeros(()).double())

    def forward(self, z, y):
        value = F.cross_entropy(self.drop(z), y)
        self.calls += 1
        self.mean.mul_(0.9).add_(0.1 * value.detach())
        return value


def test_a_loss_that_is_random_is_refused_and_one_with_a_state_is_left_alone():
    model, (x, y) = built(small).double(), small_batch()
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match="expected the same number of the same logits, got"):
        CurvatureMonitor(model, noisy, (x, y)).measure()
    loss = Averaging()
    row = CurvatureMonitor(model, loss, (x, y), chunk=8).measure()
    plain = CurvatureMonitor(model, F.cross_entropy, (x, y), chunk=8).measure()
    assert row["sharpness"] == plain["sharpness"] and row["loss"] == plain["loss"]
    assert loss.mean == 0 and loss.calls == 0 and loss.training and loss.drop.training
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("model_type", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("chunk", [8, 250])
def test_labels_in_half_precision_are_converted_like_the_inputs(model_type, chunk):
    model, (x, _) = built(small).to(model_type), small_batch(dtype=torch.bfloat16)
    labels = (torch.arange(30 * CLASSES).view(30, CLASSES) % 7 / 6).bfloat16()
    monitor = CurvatureMonitor(
        model, nn.BCEWithLogitsLoss(), (x.to(model_type), labels), chunk=chunk
    )
    exact = copy.deepcopy(model).float()(x.to(model_type).float()).detach()
    expected = F.binary_cross_entropy_with_logits(exact.double(), labels.double())
    assert monitor.measure()["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_one_example_is_its_own_mean_and_sum():
    model = built(small).double()
    x, y = small_batch(1)
    row = CurvatureMonitor(model, partial(F.cross_entropy, reduction="sum"), (x, y)).measure()
    assert row["loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
@pytest.mark.parametrize(
    "loss", [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1), squared]
)
def test_rounding_is_not_taken_for_a_denominator(loss, scale):
    model = built(small)
    with torch.no_grad():
        model[2].weight.mul_(scale)
    probe = small_batch(300, torch.float32)
    for chunk in (7, 299):
        assert CurvatureMonitor(model, loss, probe, chunk=chunk).measure()["loss"] > 0


class Focal(nn.CrossEntropyLoss):
    """Made out of the cross-entropy, with another M."""

    def forward(self, input, target):
        log_p = F.log_softmax(input, 1).gather(1, target[:, None])
        return -((1 - log_p.exp()).square() * log_p).mean()


def log_likelihood(z, y):
    return F.nll_loss(z.log_softmax(1), y)


def with_decay(z, y):
    return F.cross_entropy(z, y) + 0.01 * z.square().mean()


def absolute(z, y):
    return (z - F.one_hot(y, CLASSES)).abs().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_impurity_is_for_losses_with_the_hessian_of_the_cross_entropy_alone(scale, dtype):
    model = built(small).to(dtype)
    with torch.no_grad():
        model[2].weight.mul_(scale)
    x, y = small_batch(dtype=dtype)
    expected = float(logits.impurity(model(x).detach().double().softmax(-1)).mean())
    usual = (F.cross_entropy, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1))
    others = (
        log_likelihood,
        partial(F.cross_entropy, label_smoothing=0.1),
        lambda z, labels: 2 * F.cross_entropy(z, labels),
    )
    for loss in (*usual, *others):
        row = CurvatureMonitor(model, loss, (x, y)).measure()
        assert row["impurity_mean"] == pytest.approx(expected, rel=1e-5)
    weighted = nn.CrossEntropyLoss(weight=torch.arange(1.0, CLASSES + 1).to(dtype))
    for loss in (squared, weighted, Focal(), with_decay, absolute):
        assert math.isnan(CurvatureMonitor(model, loss, (x, y)).measure()["impurity_mean"])


def test_impurity_is_of_labels_that_are_ignored_too_and_none_of_logits_that_are_not_finite():
    model, (x, y) = built(small).double(), small_batch()
    y[:10] = -100
    monitor = CurvatureMonitor(model, lambda z, labels: F.cross_entropy(z, labels), (x, y))
    weight = model[2].weight.detach().clone()
    with torch.no_grad():
        model[2].weight.fill_(math.nan)
    assert math.isnan(monitor.measure()["impurity_mean"])
    with torch.no_grad():
        model[2].weight.copy_(weight)
    expected = float(logits.impurity(model(x).detach().softmax(-1)).mean())
    assert monitor.measure()["impurity_mean"] == pytest.approx(expected)


def test_what_goes_wrong_in_a_loss_says_that_it_was_in_measuring():
    x, y = small_batch()
    monitor = CurvatureMonitor(built(small).double(), cross_entropy, (x, y + CLASSES))
    with pytest.raises(IndexError) as caught:
        monitor.measure()
    assert caught.value.__notes__ == ["in measuring the model on the probe"]


def test_an_optimizer_of_another_model_is_warned_of():
    optimizer = torch.optim.SGD(small().parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="optimizer: it has no parameter of the model"):
        CurvatureMonitor(small(), cross_entropy, small_batch(), optimizer=optimizer)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_start_with_little_of_the_top_singular_vector_does_not_stop_at_the_next(seed):
    """Of a network that starts so with seed 0."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 6), torch.randint(4, (60,))
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    nn.utils.parametrizations.spectral_norm(model[0])
    monitor = CurvatureMonitor(model, cross_entropy, (x, y))
    monitor.steps = seed
    found = monitor.measure()["jacobian_norm_sq"]
    model.eval()
    _, expected, _ = dense(copy.deepcopy(model).double(), cross_entropy, x.double(), y)
    assert found == pytest.approx(expected, rel=4e-3)


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]
)
def test_the_threshold_is_where_a_quadratic_turns_unstable(momentum, nesterov):
    def grows(curvature):
        point = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD(
            [point], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.3
        )
        assert threshold(optimizer) > 0
        for _ in range(3000):
            optimizer.zero_grad()
            (0.5 * curvature * point.square()).sum().backward()
            optimizer.step()
        return abs(point.item()) > 1, threshold(optimizer)

    _, limit = grows(1.0)
    assert not grows(0.99 * limit)[0]
    assert grows(1.01 * limit)[0]


def test_without_steps_every_sharpness_is_below_the_threshold():
    point = nn.Parameter(torch.ones(2))
    for momentum, weight_decay in ((0.0, 0.0), (0.9, 0.1)):
        optimizer = torch.optim.SGD([point], 0.0, momentum=momentum, weight_decay=weight_decay)
        assert threshold(optimizer) == math.inf


def test_without_a_formula_there_is_no_threshold():
    one, two = (nn.Parameter(torch.ones(2)) for _ in range(2))
    rates = torch.optim.SGD([{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.2}])
    decays = torch.optim.SGD([{"params": [one], "weight_decay": 0.1}, {"params": [two]}], lr=0.1)
    for optimizer in (None, torch.optim.Adam([one]), rates, decays):
        assert math.isnan(threshold(optimizer))
    assert math.isnan(threshold(torch.optim.SGD([one], lr=0.1, momentum=0.9, dampening=0.5)))


def compiled_as_a_whole():
    model = small()
    model.compile(backend="aot_eager")
    return model


def compiled_in_part():
    return nn.Sequential(torch.compile(small(), backend="aot_eager"))


@pytest.mark.parametrize("make", [compiled_as_a_whole, compiled_in_part])
def test_what_is_compiled_is_measured_uncompiled(make):
    probe = small_batch(dtype=torch.float32)
    rows = [CurvatureMonitor(built(kind), cross_entropy, probe).measure() for kind in (make, small)]
    for name in ("loss", "sharpness", "jacobian_norm_sq", "impurity_mean"):
        assert rows[0][name] == rows[1][name]


def test_weights_of_a_loss_in_half_precision_are_converted_like_the_model():
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0])
    x, y = small_batch(dtype=torch.float32)
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        model = built(small).bfloat16().to(dtype)
        loss = nn.CrossEntropyLoss(weight.to(dtype))
        rows.append(CurvatureMonitor(model, loss, (x.bfloat16().to(dtype), y)).measure())
    assert rows[0]["sharpness"] == rows[1]["sharpness"] > 0


class Keeping(nn.Module):
    """Keeps its last output, with the graph."""

    def __init__(self):
        super().__init__()
        self.model = small()

    def forward(self, x):
        self.last = self.model(x)
        return self.last


class Casting(nn.Module):
    """In two precisions, and casts between them."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 5), nn.Linear(5, CLASSES).bfloat16()

    def forward(self, x):
        return self.head(self.first(x).tanh().bfloat16()).float()


def test_a_model_that_cannot_be_measured_in_single_precision_is_refused_with_the_reason():
    x, y = small_batch(dtype=torch.bfloat16)
    model = Keeping().bfloat16()
    model(x)
    with pytest.raises(ValueError, match=r"expected a Keeping that copy\.deepcopy copies"):
        CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    with pytest.raises(RuntimeError) as caught:
        CurvatureMonitor(Casting(), cross_entropy, (x.float(), y)).measure()
    assert caught.value.__notes__ == [
        "in measuring a copy of the model in torch.float32 on the probe"
    ]


def test_a_model_without_logits_is_refused():
    model = nn.LSTM(6, CLASSES)
    with pytest.raises(ValueError, match=r"expected logits, or an object .* got tuple"):
        CurvatureMonitor(model, cross_entropy, small_batch(dtype=torch.float32)).measure()


@pytest.mark.parametrize("seed", [0, 26, 30])
def test_a_few_examples_out_of_scale_that_are_classified_right_are_not_missed(seed):
    """Their gradients are small and their curvature is the largest: no sample of the examples by
    their gradients tells."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, CLASSES))
    x = torch.randn(300, 6)
    torch.set_default_dtype(default)
    x[:2] *= 20
    y = torch.randint(CLASSES, (300,))
    y[:2] = model(x[:2]).argmax(1)
    largest, *_ = dense(model, cross_entropy, x, y)
    row = CurvatureMonitor(model, cross_entropy, (x, y)).measure()
    assert row["sharpness"] == pytest.approx(largest, rel=0.01)


class NextWord(nn.Module):
    """A language model that returns the positions as examples."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.words(x).cumsum(1).tanh()).flatten(0, 1)


def by_row(z, labels):
    return F.cross_entropy(z, labels.reshape(-1))


@pytest.mark.parametrize("n", [20, 150])
@pytest.mark.parametrize("chunk", [7, 250])
@pytest.mark.parametrize("given", [cross_entropy, F.cross_entropy, nn.CrossEntropyLoss(), by_row])
def test_positions_may_be_returned_as_examples(n, chunk, given):
    def loss(z, labels):
        return cross_entropy(z, labels.flatten())

    generator = torch.Generator().manual_seed(1)
    x = torch.randint(9, (n, 3), generator=generator)
    y = torch.randint(CLASSES, (n, 3), generator=generator)
    model = built(NextWord).double()
    row = CurvatureMonitor(model, given, (x, y), chunk=chunk).measure()
    largest, _, impurity = dense(model, loss, x, y)
    assert row["loss"] == pytest.approx(float(loss(model(x).detach(), y)))
    assert row["sharpness"] == pytest.approx(largest, rel=0.01)
    assert row["impurity_mean"] == pytest.approx(impurity)


def test_the_mean_of_a_divergence_over_a_batch_is_a_mean():
    x, y = small_batch()
    targets = F.one_hot(y, CLASSES).double() * 0.7 + 0.3 / CLASSES
    divergence = nn.KLDivLoss(reduction="batchmean")

    def loss(z, target):
        return divergence(z.log_softmax(1), target)

    loss.reduction = divergence.reduction
    entropy = -(targets * targets.log()).sum(1).mean()
    row = CurvatureMonitor(built(small).double(), loss, (x, targets)).measure()
    soft = CurvatureMonitor(built(small).double(), nn.CrossEntropyLoss(), (x, targets)).measure()
    assert row["loss"] == pytest.approx(soft["loss"] - float(entropy))
    assert row["sharpness"] == pytest.approx(soft["sharpness"], rel=1e-3)


def test_the_mode_of_inference_is_left_for_a_measurement():
    monitor = CurvatureMonitor(built(small).double(), cross_entropy, small_batch())
    expected = monitor.measure()["sharpness"]
    with torch.inference_mode():
        assert monitor.measure()["sharpness"] == pytest.approx(expected, rel=1e-3)
    with torch.no_grad():
        assert monitor.measure()["sharpness"] == pytest.approx(expected, rel=1e-3)


def test_wrappers_are_looked_through():
    model = small()
    assert unwrapped(nn.DataParallel(torch.compile(model))) is model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"every": 0}, "every: expected a whole number of at least 1, got 0"),
        ({"every": 1.5}, "every: expected a whole number of at least 1, got 1.5"),
        ({"every": "10"}, "every: expected a whole number of at least 1, got '10'"),
        ({"rtol": -1}, "rtol: expected a number of at least 0, got -1"),
        ({"rtol": math.nan}, "rtol: expected a number of at least 0, got nan"),
        ({"rtol": "a"}, "rtol: expected a number of at least 0, got 'a'"),
        ({"model": lambda x: x}, "model: expected an nn.Module, got function"),
        ({"chunk": 0}, "chunk: expected a whole number of at least 1, got 0"),
        ({"chunk": 2.5}, "chunk: expected a whole number of at least 1, got 2.5"),
        (
            {"loss": nn.CrossEntropyLoss},
            "loss: expected a function of .logits, labels., got <class",
        ),
        ({"optimizer": SimpleNamespace()}, "expected an Optimizer, got SimpleNamespace"),
        ({"probe": (None, torch.zeros(2).long())}, "expected inputs and labels as tensors"),
        ({"probe": (3, torch.zeros(2).long())}, "expected inputs and labels as tensors"),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "expected a mean over examples"),
        ({"probe": torch.ones(3)}, "expected a pair"),
        ({"probe": (torch.ones(3, 6), torch.zeros(2).long())}, "got .3. rows and 2 labels"),
        (
            {"probe": ({"x": [1, 2]}, torch.zeros(2).long())},
            "expected inputs and labels as tensors",
        ),
        ({"probe": (torch.ones(0, 6), torch.zeros(0).long())}, "at least one; got .0. rows"),
        ({"probe": (torch.ones(3, 6), torch.tensor(1))}, "with an axis of examples"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_expected(change, reason):
    given = {"model": small(), "loss": cross_entropy, "probe": small_batch()} | change
    with pytest.raises(ValueError, match=reason):
        CurvatureMonitor(**given)


def test_the_plot_shows_what_was_measured_and_nothing_else():
    monitor, _ = trained(monitored=True)
    figure = monitor.plot()
    card(figure)
    labelled(figure)
    steps = [0, 2, 4, 6, 8]
    for axes, name in zip(
        figure.axes, ("sharpness", "jacobian_norm_sq", "impurity_mean"), strict=True
    ):
        line = axes.get_lines()[0]
        assert list(line.get_xdata()) == steps
        assert list(line.get_ydata()) == list(monitor.frame()[name])
    assert list(figure.axes[0].get_lines()[1].get_ydata()) == list(monitor.frame()["threshold"])
    with pytest.raises(ValueError, match="at least one measurement"):
        CurvatureMonitor(small(), cross_entropy, small_batch()).plot()


def test_a_quantity_without_numbers_says_so():
    model = built(small).double()
    monitor = CurvatureMonitor(model, squared, small_batch())
    monitor.measure()
    assert [text.get_text() for text in monitor.plot().axes[2].texts] == ["not measured"]


def test_a_threshold_that_is_infinite_is_not_drawn():
    model = built(small).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = CurvatureMonitor(model, cross_entropy, small_batch(), every=1, optimizer=optimizer)
    monitor.step()
    assert monitor.plot().axes[0].get_legend() is None
    optimizer.param_groups[0]["lr"] = 1.0
    monitor.step()
    axes = monitor.plot().axes[0]
    drawn = axes.get_lines()[1].get_ydata()
    assert math.isnan(drawn[0]) and drawn[1] == monitor.rows[1]["threshold"] == 2
    assert axes.get_yscale() == "linear"


def test_a_threshold_far_above_the_sharpness_makes_the_axis_logarithmic():
    model = built(small).double()
    for lr, scale in ((1e-6, "log"), (1.0, "linear")):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        monitor = CurvatureMonitor(model, cross_entropy, small_batch(), optimizer=optimizer)
        monitor.measure()
        assert monitor.plot().axes[0].get_yscale() == scale
