"""Each measure against dense matrices of a small network in float64."""

import copy
import dataclasses
import itertools
from types import SimpleNamespace

import dense
import numpy as np
import pytest
import torch
from torch import nn

from ijrlib import config, conventions, curvature, datasets, measures, two_level
from ijrlib.measures import MEASURES, State
from ijrlib.operators import cross_entropy
from ijrlib.training import train
from ijrlib.trajectory import Trajectory

N = 9
EPS = 2.0**-52


def state(kind="fully connected, tanh", loss="cross_entropy", **fields):
    model = dense.network(kind)
    x, y = dense.examples(N)
    z = dense.logits(model, x, dense.parameters(model))
    given = {
        "model": model,
        "loss": loss,
        "step": 3,
        "train_z": z,
        "train_y": y,
        "probe": (x, y),
        "test": dense.examples(6, seed=8),
        "initial": dense.parameters(dense.network(kind, seed=1)),
        "chunk": 4,
        "train": (x, y),
        "update": 0.1 * dense.gradient(model, loss, x, y),
        "lr": 0.1,
        "batch_size": 3,
    }
    return State(**(given | fields))


def probabilities(s):
    z = s.train_z.numpy()
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def top_eigenvalues(s):
    return np.array([np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[-1] for p in probabilities(s)])


def test_predictions_are_the_probabilities_of_the_test_examples_in_half_precision():
    s = state()
    z = dense.logits(s.model, s.test[0], dense.parameters(s.model)).numpy()
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    found = measures.predictions(s)["predictions"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2.0**-11, atol=0)
    with pytest.raises(ValueError, match="expected a state with test examples"):
        measures.predictions(state(test=None))


def test_impurity_is_the_top_eigenvalue_of_each_logit_hessian():
    s = state()
    out = measures.impurity(s)
    expected = top_eigenvalues(s)
    # eigvalsh of a C × C matrix of norm below one is good to a few C·eps
    tight = {"abs": 20 * dense.CLASSES * EPS}
    assert out["impurity_mean"] == pytest.approx(expected.mean(), **tight)
    assert out["impurity_q25"] == pytest.approx(np.quantile(expected, 0.25), **tight)
    assert out["impurity_q75"] == pytest.approx(np.quantile(expected, 0.75), **tight)
    assert out["p1_mean"] == pytest.approx(probabilities(s).max(axis=1).mean(), **tight)
    assert out["tracked_impurity"] == pytest.approx(expected, **tight)
    assert out["tracked_p1"] == pytest.approx(probabilities(s).max(axis=1), **tight)


def test_the_impurity_of_an_example_whose_logits_have_overflown_is_nan_and_no_other():
    s = state()
    sound = measures.impurity(s)["tracked_impurity"]
    s.train_z = s.train_z.clone()
    s.train_z[2] = torch.inf
    found = measures.impurity(s)
    assert np.isnan(found["impurity_mean"]) and np.isnan(found["tracked_impurity"][2])
    assert np.array_equal(np.delete(found["tracked_impurity"], 2), np.delete(sound, 2))
    assert np.isnan(measures.logit_spectrum(s)["q_sqrt_lambda"]).all()


def test_only_the_first_examples_are_tracked():
    z = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = state(train_z=z, train_y=torch.zeros(40, dtype=torch.long))
    out, first = measures.impurity(s), slice(measures.TRACKED)
    assert out["tracked_p1"] == pytest.approx(z.softmax(1).amax(1)[first].numpy(), rel=4 * EPS)
    assert out["tracked_impurity"] == pytest.approx(top_eigenvalues(s)[first], abs=20 * 5 * EPS)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("kind", ["fully connected, tanh", "convolutional, ReLU", "residual"])
def test_curvature_against_the_dense_hessian_and_mean_jacobian(kind, loss):
    s = state(kind, loss)
    x, y = s.probe
    values = torch.linalg.eigvalsh(dense.hessian(s.model, loss, x, y))
    jacobian = dense.jacobians(s.model, x).mean(0)
    gradient = dense.gradient(s.model, loss, x, y)
    out = measures.curvature(s)
    # a Rayleigh quotient with relative residual r lies within r·θ of an eigenvalue
    assert out["sharpness"] == pytest.approx(float(values[-1]), rel=out["sharpness_residual"])
    assert out["sharpness"] == pytest.approx(float(values[-1]), rel=5e-3)
    singular = torch.linalg.svdvals(jacobian)
    ones = torch.full((dense.CLASSES,), dense.CLASSES**-0.5, dtype=torch.float64)
    exact = {"rel": 1e-10}  # condition of sums of squares is one; 1e-10 is far above m·eps
    norm_sq = float(singular[0] ** 2)
    assert out["jacobian_norm_sq"] == pytest.approx(norm_sq, rel=out["jacobian_residual"])
    assert out["jacobian_norm_sq"] == pytest.approx(norm_sq, rel=5e-3)
    assert out["jacobian_ones_sq"] == pytest.approx(float((jacobian @ ones).norm() ** 2), **exact)
    assert out["probe_loss"] == pytest.approx(
        float(dense.loss(loss, dense.logits(s.model, x, dense.parameters(s.model)), y)), **exact
    )
    top = s.memory["top_vector"]
    assert out["gradient_alignment"] == pytest.approx(
        float((top @ gradient).abs() / gradient.norm()), **exact
    )
    assert ("probe_impurity_mean" in out) == (loss == "cross_entropy")


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_shares_are_measured_on_the_first_examples_of_the_training_set(loss):
    x, y = dense.examples(100)
    s = state(loss=loss, train=(x, y))
    cold, warm = measures.shares(s), measures.shares(s)
    for out in (cold, warm):
        assert all(values.shape == (3,) for values in out.values())
        for k, count in enumerate((5, 25, 100)):
            part = x[:count], y[:count]
            top = float(torch.linalg.eigvalsh(dense.hessian(s.model, loss, *part))[-1])
            # a Rayleigh quotient with relative residual r lies within r·θ of an eigenvalue
            assert out["share_sharpness"][k] == pytest.approx(top, rel=out["share_residual"][k])
            assert out["share_sharpness"][k] == pytest.approx(top, rel=curvature.RTOL)
            norm_sq = float(torch.linalg.svdvals(dense.jacobians(s.model, part[0]).mean(0))[0] ** 2)
            assert out["share_jacobian_sq"][k] == pytest.approx(norm_sq, rel=curvature.RTOL)


def test_what_is_followed_on_shares_and_on_the_probe_is_kept_apart():
    s, other = state(), state()
    measures.curvature(s)
    alone = {name: vector.clone() for name, vector in s.memory.items()}
    measures.shares(s)
    assert all(torch.equal(s.memory[name], vector) for name, vector in alone.items())
    measures.shares(other)
    followed = {name for name in s.memory if name.startswith("share_")}
    assert followed == set(other.memory) and len(followed) == 3 * 3
    assert all(torch.equal(s.memory[name], other.memory[name]) for name in followed)


def test_a_second_measurement_starts_from_the_first_and_finds_the_same():
    s = state()
    cold = measures.curvature(s)
    warm = measures.curvature(s)
    assert warm["sharpness_products"] < cold["sharpness_products"]
    assert warm["sharpness"] == pytest.approx(cold["sharpness"], rel=5e-3)


@pytest.mark.parametrize("count", [1, measures.COLD_EVERY])
@pytest.mark.parametrize("examples", [N, 3 * curvature.SMALLEST_SUBSET])
def test_the_top_is_found_when_the_memory_holds_another_eigenvector(count, examples, monkeypatch):
    """With few examples H is asked alone, and a cold start knows nothing of the memory."""
    monkeypatch.setattr(curvature, "SUBSET", 3)
    s = state(probe=dense.examples(examples), chunk=64)
    values, vectors = torch.linalg.eigh(dense.hessian(s.model, s.loss, *s.probe))
    s.memory["top_vector"] = vectors[:, -2].contiguous()
    s.memory["singular_vector"] = torch.eye(dense.CLASSES, dtype=torch.float64)[0]
    s.memory["curvature_count"] = torch.tensor(count)
    found = measures.curvature(s)["sharpness"]
    assert found == pytest.approx(float(values[-1]), rel=5e-3)


def test_a_cold_start_asks_about_the_eigenvector_before(monkeypatch):
    s = state()
    measures.curvature(s)
    before = s.memory["top_vector"].clone()
    asked = []
    solve = curvature.two_level.top_eigenpair

    def watched(op, surrogate, v0=None, **how):
        asked.append((v0, how))
        return solve(op, surrogate, v0, **how)

    monkeypatch.setattr(curvature.two_level, "top_eigenpair", watched)
    monkeypatch.setattr(curvature, "SUBSET", 2)
    monkeypatch.setattr(curvature, "SMALLEST_SUBSET", 2)
    s.__dict__.pop("linearization", None)
    s.memory["curvature_count"] = torch.tensor(measures.COLD_EVERY)
    measures.curvature(s)
    starts, how = asked[0]
    assert how["cold"]
    assert torch.equal(starts[:, 0], before)


def test_evaluation_uses_running_statistics_and_leaves_mode_and_statistics():
    model = dense.network("batch normalization").train()
    model[1].eval()
    x, _ = dense.examples(7)
    kept = [b.clone() for b in model.buffers()]
    found = measures.evaluate(model, x, chunk=3)
    assert model.training and not model[1].training
    assert all(torch.equal(a, b) for a, b in zip(kept, model.buffers(), strict=True))
    torch.testing.assert_close(found, dense.logits(model.eval(), x, dense.parameters(model)))
    assert not found.requires_grad


def test_accuracy_counts_right_answers():
    z = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 3, 2], [1, 0, 0]])
    s = state(train_z=z, train_y=torch.tensor([0, 2, 0, 1]))
    out = measures.accuracy(s)
    x, y = s.test
    z = dense.logits(s.model, x, dense.parameters(s.model))
    assert out["train_accuracy"] == 0.5
    assert out["test_accuracy"] == pytest.approx(np.mean((z.argmax(1) == y).numpy()))
    assert out["test_loss"] == pytest.approx(float(dense.loss(s.loss, z, y)), rel=1e-12)
    assert set(measures.accuracy(state(test=None))) == {"train_accuracy"}


def test_norms_of_logits_weights_and_distance():
    s = state()
    out = measures.norms(s)
    theta = dense.parameters(s.model)
    z = s.train_z
    assert out["logit_norm"] == pytest.approx(float((z**2).sum(1).sqrt().mean()), rel=1e-12)
    assert out["logit_sum"] == pytest.approx(float(z.sum(1).abs().mean()), rel=1e-12)
    assert out["weight_norm"] == pytest.approx(float((theta**2).sum().sqrt()), rel=1e-12)
    assert out["distance"] == pytest.approx(float(((theta - s.initial) ** 2).sum().sqrt()))
    weights = [s.model[1].weight, s.model[3].weight]
    assert out["layer_norms"] == pytest.approx([float((w**2).sum().sqrt()) for w in weights])


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("kind", ["fully connected, tanh", "convolutional, ReLU", "residual"])
def test_theorem_2_quantities_against_dense_matrices(kind, loss):
    s = state(kind, loss)
    x, _ = s.probe
    out = measures.theorem_2(s)
    values, vectors = torch.linalg.eigh(dense.gauss_newton(s.model, loss, x))
    jacobians = dense.jacobians(s.model, x)
    m = dense.logit_hessians(loss, s.train_z)
    jacobian_sq = torch.linalg.matrix_norm(jacobians, 2) ** 2
    lambda_1 = torch.linalg.eigvalsh(m)[:, -1]
    assert out["theorem_2_residual"] <= 1e-3
    assert out["gauss_newton_norm"] == pytest.approx(float(values[-1]), rel=1e-3)
    assert out["jacobian_x_sq"] == pytest.approx(jacobian_sq.numpy(), rel=1e-10)
    assert out["lambda_1"] == pytest.approx(lambda_1.numpy(), abs=20 * dense.CLASSES * EPS)
    assert out["theorem_2_bound"] == pytest.approx(
        float((lambda_1 * jacobian_sq).mean()), rel=1e-10
    )
    v = jacobians.transpose(1, 2) @ vectors[:, -1]
    star = ((v[:, None, :] @ m @ v[:, :, None])[:, 0, 0] / jacobian_sq).numpy()
    # q* with relative residual 1e-3 deviates by 1e-3·θ/gap; λ* is quadratic in it
    gap = float(1 - values[-2] / values[-1])
    assert out["lambda_star"] == pytest.approx(star, abs=4e-3 / gap)
    assert out["theorem_2_identity"] < 1e-12
    assert out["theorem_2_min_slack"] > -1e-12
    assert out["theorem_2_min_star"] >= 0


def test_the_logit_spectrum_is_the_mean_of_the_scaled_eigenvectors():
    s = state()
    expected = np.zeros((dense.CLASSES, dense.CLASSES))
    for p in probabilities(s):
        p = np.sort(p)[::-1]
        values, q = np.linalg.eigh(np.diag(p) - np.outer(p, p))
        values, q = values[::-1].clip(0), q[:, ::-1]
        q = q * np.sign(np.diag(q))
        expected += q * np.sqrt(values) / N
    # the last eigenvalue is zero up to eps, so its column up to √eps
    np.testing.assert_allclose(measures.logit_spectrum(s)["q_sqrt_lambda"], expected, atol=1e-7)


def test_algorithm_2_rises_to_the_norm_of_the_mean_jacobian():
    s = state()
    found = measures.algorithm_2_convergence(s)
    values = found["algorithm_2_values"]
    norm = float(torch.linalg.matrix_norm(dense.jacobians(s.model, s.probe[0]).mean(0), 2))
    assert found["jacobian_norm_exact"] == pytest.approx(norm, rel=1e-12)
    assert values.shape == (measures.ALGORITHM_2_ITERATIONS,)
    assert (np.diff(values) >= -1e-12 * norm).all()
    assert values[0] < norm * (1 - 1e-6)
    singular = torch.linalg.svdvals(dense.jacobians(s.model, s.probe[0]).mean(0))
    ratio = float(singular[1] / singular[0])
    assert values[-1] == pytest.approx(norm, rel=100 * ratio ** (4 * len(values) - 4) + 1e-12)


def digits_state(steps):
    """Forty of scikit-learn's digits and a network of 610 parameters, trained for some steps."""
    data = datasets.load("digits", 40, (1, 8, 8), 10, 0)
    x, y = data.x.double(), data.y
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    initial = dense.parameters(model)
    for _ in train(model, cross_entropy, x, y, lr=0.5, steps=steps):
        pass
    z = dense.logits(model, x, dense.parameters(model))
    return state(model=model, train_z=z, train_y=y, probe=(x, y), initial=initial)


def written_out(s):
    """The vectors in R^m that the measures never form, one example after the other."""
    x, y = s.probe
    z = dense.logits(s.model, x, dense.parameters(s.model))
    values, vectors = torch.linalg.eigh(dense.logit_hessians("cross_entropy", z))
    q, classes = vectors.flip(2), z.argmax(1)
    first = q[:, :, 0]
    first = first * first[torch.arange(len(z)), classes].sign()[:, None]
    jacobians = dense.jacobians(s.model, x)
    m = values[:, -1].sqrt()[:, None] * (jacobians @ first[:, :, None])[:, :, 0]
    means = {int(i): m[classes == i].mean(0) for i in classes.unique()}
    target = torch.eye(z.shape[1], dtype=z.dtype)[y]
    gradients = (jacobians @ (z.softmax(1) - target)[:, :, None])[:, :, 0]
    return SimpleNamespace(
        q=q, classes=classes, jacobians=jacobians, m=m, means=means, gradients=gradients, y=y
    )


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


STATES = {
    "three classes": lambda: state("convolutional, ReLU"),
    "digits, few classes predicted": lambda: digits_state(4),
    "digits, all classes predicted": lambda: digits_state(60),
}
EXACT = 1e-9  # sums of some thousand products in float64


@pytest.mark.parametrize("kind", STATES)
def test_alignment_against_gradients_and_directions_written_out(kind):
    s = STATES[kind]()
    full = written_out(s)
    cosine = (unit(-full.gradients) * unit(full.m)).sum(1).numpy()
    out = measures.alignment(s)
    assert out["descent_cosine_mean"] == pytest.approx(cosine.mean(), abs=EXACT)
    assert out["descent_cosine_q25"] == pytest.approx(np.quantile(cosine, 0.25), abs=EXACT)
    assert out["descent_cosine_q75"] == pytest.approx(np.quantile(cosine, 0.75), abs=EXACT)
    right = cosine[(full.classes == full.y).numpy()]
    assert out["descent_cosine_correct"] == pytest.approx(np.median(right), abs=EXACT)
    assert out["classes_present"] == len(full.means)
    basis = torch.linalg.qr(unit(torch.stack(list(full.means.values()))).T).Q
    gradient = full.gradients.mean(0)
    assert out["subspace_alignment_gradient"] == pytest.approx(
        float((basis.T @ gradient).norm() / gradient.norm()), abs=EXACT
    )
    values, vectors = torch.linalg.eigh(dense.hessian(s.model, s.loss, *s.probe))
    # r turns by residual·θ/gap, and the alignment with it
    turn = two_level.COLD_RESIDUAL * float(values[-1] / (values[-1] - values[-2]))
    assert turn < 0.05
    assert out["subspace_alignment_top"] == pytest.approx(
        float((basis.T @ vectors[:, -1]).norm()), abs=2 * turn
    )


def test_alignment_takes_the_eigenvector_of_curvature_at_the_same_step_only():
    s = digits_state(60)
    own = measures.alignment(s)["subspace_alignment_top"]
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(len(s.initial), generator=generator, dtype=torch.float64)
    memory = {"top_vector": other / other.norm(), "curvature_count": torch.tensor(0)}
    stale = digits_state(60)
    stale.memory = memory | {"top_step": torch.tensor(s.step - 1)}
    assert measures.alignment(stale)["subspace_alignment_top"] == own
    current = digits_state(60)
    current.memory = memory | {"top_step": torch.tensor(s.step)}
    assert measures.alignment(current)["subspace_alignment_top"] < own / 2


def test_no_example_classified_right_leaves_its_mean_undefined():
    s = digits_state(4)
    x, _ = s.probe
    s.probe = (x, (dense.logits(s.model, x, dense.parameters(s.model)).argmax(1) + 1) % 10)
    assert np.isnan(measures.alignment(s)["descent_cosine_correct"])


@pytest.mark.parametrize("kind", STATES)
def test_clusters_against_directions_written_out(kind):
    s = STATES[kind]()
    full = written_out(s)
    out = measures.clusters(s)
    classes, count = full.classes, full.q.shape[1]
    np.testing.assert_array_equal(out["probable_class"], classes)
    for i in range(count):
        assert out["class_counts"][i] == (classes == i).sum()
        if i not in full.means:
            assert np.isnan(out["resultant_products"][i]).all()
            assert np.isnan(out["resultant_products"][:, i]).all()
            assert np.isnan(out["class_mean_cosines"][i]).all()
            assert np.isnan(out["class_mean_cosines"][:, i]).all()
            continue
        resultant = unit(full.m[classes == i]).mean(0)
        for j in full.means:
            product = resultant @ unit(full.m[classes == j]).mean(0)
            assert out["resultant_products"][i, j] == pytest.approx(float(product), abs=EXACT)
            cosine = unit(full.means[i]) @ unit(full.means[j])
            assert out["class_mean_cosines"][i, j] == pytest.approx(float(cosine), abs=EXACT)
    share = {i: float((classes == i).double().mean()) for i in full.means}
    between = sum(share[i] * torch.outer(v, v) for i, v in full.means.items())
    norm = float(torch.linalg.matrix_norm(between, 2))
    assert out["between_class_norm"] == pytest.approx(norm, rel=EXACT)


def test_plane_coordinates_are_those_of_the_directions_of_both_classes_and_of_no_others():
    s = digits_state(60)
    full = written_out(s)
    coordinates = measures.clusters(s)["plane_coordinates"]
    direction = unit(full.m)
    projected = 0
    for k, (i, j) in enumerate(conventions.PAIRS):
        members = ((full.classes == i) | (full.classes == j)).numpy()
        if i not in full.means or j not in full.means:
            members[:] = False
        assert np.isnan(coordinates[k][~members]).all()
        if members.any():
            one, other = unit(full.means[i]), unit(full.means[j])
            second = unit(other - (one @ other) * one)
            expected = torch.stack([direction @ one, direction @ second], dim=1)[members]
            np.testing.assert_allclose(coordinates[k][members], expected, atol=1e-6)  # in float32
            projected += 1
    assert projected >= 3


def test_a_pair_with_an_empty_class_has_no_plane():
    s = digits_state(4)
    out = measures.clusters(s)
    empty = [
        k for k, pair in enumerate(conventions.PAIRS) if out["class_counts"][list(pair)].min() < 1
    ]
    assert empty
    assert np.isnan(out["plane_coordinates"][empty]).all()


@pytest.mark.parametrize("kind", STATES)
def test_images_of_the_eigenvectors_against_vectors_written_out(kind):
    s = STATES[kind]()
    full = written_out(s)
    image = full.jacobians @ full.q[:, :, :-1]  # (N, m, C − 1)
    n, _, count = image.shape
    stretch, above = np.zeros((n, count)), []
    for k in range(n):
        scale = (full.jacobians[k] ** 2).sum() / (count + 1)
        stretch[k] = (image[k] ** 2).sum(0) / scale
        cosines = unit(image[k].T) @ unit(image[k].T).T
        above += [float(cosines[i, j] ** 2) for i in range(count) for j in range(i + 1, count)]
    out = measures.eigenvector_images(s)
    for name, values in (("stretch", stretch), ("cos_sq", np.array(above))):
        assert out[f"{name}_mean"] == pytest.approx(values.mean(), rel=EXACT)
        assert out[f"{name}_median"] == pytest.approx(np.median(values), rel=EXACT)
        assert out[f"{name}_q25"] == pytest.approx(np.quantile(values, 0.25), rel=EXACT)
        assert out[f"{name}_q75"] == pytest.approx(np.quantile(values, 0.75), rel=EXACT)
    g = dense.gauss_newton(s.model, s.loss, s.probe[0])
    assert out["gauss_newton_trace"] == pytest.approx(float(g.trace()), rel=EXACT)
    p = dense.logits(s.model, s.probe[0], dense.parameters(s.model)).softmax(1)
    gini = (p - p.square()).sum(1)  # tr M
    split = gini * full.jacobians.square().sum((1, 2)) / (count + 1)
    assert out["gauss_newton_trace_approximation"] == pytest.approx(float(split.mean()), rel=EXACT)
    assert out["stretch_counts"].sum() == n * count
    for i in range(count):
        for b, (low, high) in enumerate(itertools.pairwise(conventions.STRETCH_BINS)):
            last = b == len(conventions.STRETCH_BINS) - 2
            inside = (stretch[:, i] >= low) & ((stretch[:, i] < high) | last)
            assert out["stretch_counts"][i, b] == inside.sum()
    assert out["cos_sq_counts"].sum() == len(above)
    assert out["cos_sq_counts"][:10].sum() == sum(v < 0.1 for v in above)
    assert out["cos_sq_mean_by_pair"].shape == (count, count)
    off = out["cos_sq_mean_by_pair"][np.triu_indices(count, 1)]
    assert off.mean() == pytest.approx(np.mean(above), rel=EXACT)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_spectrum_holds_the_largest_eigenvalues_of_both_matrices(loss):
    s = digits_state(20)
    s.loss = loss
    x, y = s.probe
    out = measures.spectrum(s)
    for name, matrix in (
        ("hessian", dense.hessian(s.model, loss, x, y)),
        ("gauss_newton", dense.gauss_newton(s.model, loss, x)),
    ):
        top = torch.linalg.eigvalsh(matrix).flip(0)[: measures.SPECTRUM_SIZE].numpy()
        residuals = out[f"{name}_residuals"]
        assert (residuals <= measures.SPECTRUM_RTOL).all()
        # an eigenvalue lies within residual·|θ| of θ
        assert (np.abs(out[f"{name}_values"] - top) <= residuals * top + 1e-9).all()
        assert measures.SPECTRUM_SIZE < out[f"{name}_products"] <= measures.SPECTRUM_PRODUCTS


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_outliers_are_twice_as_many_eigenvalues_of_g_as_there_are_classes(loss):
    s = digits_state(20)
    s.loss = loss
    out = measures.outliers(s)
    top = torch.linalg.eigvalsh(dense.gauss_newton(s.model, loss, s.probe[0])).flip(0)[:20].numpy()
    residuals = out["outlier_residuals"]
    assert (residuals <= measures.SPECTRUM_RTOL).all()
    assert (np.abs(out["outlier_values"] - top) <= residuals * top + 1e-9).all()
    assert 20 <= out["outlier_products"] <= measures.SPECTRUM_PRODUCTS


@pytest.mark.parametrize("name", ["alignment", "clusters", "eigenvector_images"])
def test_measures_of_the_eigenvectors_of_m_refuse_the_squared_loss(name):
    with pytest.raises(ValueError, match=r"expected cross_entropy .* got 'squared'"):
        MEASURES[name](state(loss="squared"))


def test_trajectory_records_points_and_their_distances(tmp_path):
    s = state()
    theta = dense.parameters(s.model)
    s.trajectory = Trajectory(tmp_path / "points", [3, 5], len(theta))
    first = measures.trajectory(s)
    assert first["displacement"] == pytest.approx(float((theta - s.initial).norm()), rel=1e-12)
    assert np.isnan(first["step_norm"])
    with torch.no_grad():
        next(s.model.parameters()).add_(0.25)
    s.step = 5
    second = measures.trajectory(s)
    moved = dense.parameters(s.model)
    assert second["displacement"] == pytest.approx(float((moved - s.initial).norm()), rel=1e-12)
    assert second["step_norm"] == pytest.approx(float((moved - theta).norm()), rel=1e-12)
    points = torch.stack([theta, moved]) - s.initial
    np.testing.assert_allclose(s.trajectory.gram(2), points @ points.T, rtol=1e-6)


def test_a_trajectory_without_a_scratch_file_is_refused():
    with pytest.raises(ValueError, match="scratch file, got none"):
        measures.trajectory(state())


def test_the_autocast_check_compares_bfloat16_with_the_exact_gradient():
    s = digits_state(20)
    model, x = copy.deepcopy(s.model).float(), s.probe[0].float()
    s.model, s.probe = model, (x, s.probe[1])
    exact = dense.gradient(model, s.loss, x, s.probe[1])
    with torch.autocast("cpu", torch.bfloat16):
        z = model(x)
    value = cross_entropy(z.float(), s.probe[1])
    rough = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
    out = measures.autocast_check(s)
    error = float((rough - exact).norm() / exact.norm())
    assert 1e-4 < error < 0.1
    assert out["autocast_error"] == pytest.approx(error, rel=0.05)  # chunks round differently
    cosine = float(rough @ exact / (rough.norm() * exact.norm()))
    assert out["autocast_cosine"] == pytest.approx(cosine, abs=1e-4) and cosine < 1


@pytest.mark.parametrize("mode", [True, False])
def test_no_measure_touches_the_model_or_the_random_state(mode, tmp_path):
    s = state("batch normalization")
    s.trajectory = Trajectory(tmp_path / "points", [s.step], len(s.initial))
    s.model.train(mode)
    before = {k: v.clone() for k, v in s.model.state_dict().items()}
    mode = [m.training for m in s.model.modules()]
    random = torch.random.get_rng_state()
    for name, measure in MEASURES.items():
        if not s.model.training or name not in config.OF_SINGLE_EXAMPLES:
            measure(s)
    assert all(torch.equal(v, before[k]) for k, v in s.model.state_dict().items())
    assert [m.training for m in s.model.modules()] == mode
    assert all(p.grad is None for p in s.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)


# -- the companion papers --------------------------------------------------------------------------


def test_the_covariance_is_that_of_the_gradients_of_single_examples():
    s = state()
    x, y = s.probe
    rows = torch.stack(
        [dense.gradient(s.model, s.loss, x[i : i + 1], y[i : i + 1]) for i in range(N)]
    )
    deviations = rows - rows.mean(0)
    expected = torch.linalg.eigvalsh(deviations.T @ deviations / N)
    out = measures.covariance(s)
    # so few examples make mini-batches of one
    for name in ("", "_single"):
        assert out[f"covariance_norm{name}"] == pytest.approx(float(expected[-1]), rel=1e-10)
        assert out[f"covariance_trace{name}"] == pytest.approx(float(expected.sum()), rel=1e-10)


def test_the_gradient_is_held_against_its_part_in_the_top_of_the_covariance():
    """‖g‖/‖g_5‖, g_5 on the five top eigenvectors of the explicit covariance of mini-batches."""
    x, y = dense.examples(100)
    s = state(train=(x, y))
    parts = [slice(4 * i, 4 * i + 4) for i in range(25)]
    rows = torch.stack([dense.gradient(s.model, s.loss, x[part], y[part]) for part in parts])
    g = rows.mean(0)
    top = torch.linalg.eigh((rows - g).T @ (rows - g))[1][:, -measures.COVARIANCE_TOP :]
    out = measures.covariance(s)
    assert out["gradient_over_top"] == pytest.approx(float(g.norm() / (top.T @ g).norm()), rel=1e-8)
    assert out["gradient_over_top"] > 1


def test_with_too_few_mini_batches_there_is_no_top_of_the_covariance():
    s = state()
    s.train = tuple(part[:5] for part in s.train)
    assert np.isnan(measures.covariance(s)["gradient_over_top"])


def normalized_by_the_batch():
    """A state whose network is in training mode, the whole probe being one chunk."""
    s = state("batch normalization", chunk=N)
    s.model.train()
    return s


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (normalized_by_the_batch, config.OF_SINGLE_EXAMPLES),
        (lambda: state(loss="squared"), config.OF_EIGENVECTORS),
    ],
)
def test_measures_that_a_configuration_refuses_are_those_that_cannot_be_taken(
    given, refused, tmp_path
):
    s = given()
    s.trajectory = Trajectory(tmp_path / "points", [s.step], len(s.initial))
    for name, measure in MEASURES.items():
        if name in refused:
            with pytest.raises(ValueError, match=r"influence each other|expected cross_entropy"):
                measure(s)
        else:
            measure(s)


def test_curvature_with_batch_normalization_is_that_of_the_function_that_sgd_descends():
    """H by differentiating the loss of the whole probe, normalized by its own statistics."""
    s = normalized_by_the_batch()
    oracle = copy.deepcopy(s.model)
    values = torch.linalg.eigvalsh(dense.hessian(oracle, s.loss, *s.probe))
    out = measures.curvature(s)
    assert out["sharpness"] == pytest.approx(float(values[-1]), rel=4e-3)
    running = torch.linalg.eigvalsh(dense.hessian(oracle.eval(), s.loss, *s.probe))
    assert out["sharpness"] != pytest.approx(float(running[-1]), rel=0.05)


def test_with_batch_normalization_k_is_normalized_by_mini_batches_and_for_one_by_running_ones():
    x, y = dense.examples(100)
    s = normalized_by_the_batch()
    s.train = (x, y)
    oracle = copy.deepcopy(s.model)
    parts = [slice(4 * i, 4 * i + 4) for i in range(25)]
    rows = torch.stack([dense.gradient(oracle, s.loss, x[part], y[part]) for part in parts])
    rows = rows - rows.mean(0)
    scale = 4 * 99 / (96 * 25)
    running = copy.deepcopy(s.model).eval()
    x, y = s.probe
    one = torch.stack(
        [dense.gradient(running, s.loss, x[i : i + 1], y[i : i + 1]) for i in range(N)]
    )
    one = one - one.mean(0)
    out = measures.covariance(s)
    assert out["covariance_trace"] == pytest.approx(scale * float(rows.square().sum()), rel=1e-10)
    assert out["covariance_trace_single"] == pytest.approx(float(one.square().sum()) / N, rel=1e-10)
    assert s.model.training


def test_the_scale_of_the_last_batch_normalization_is_kept():
    s = state("batch normalization")
    last = next(m for m in reversed(list(s.model.modules())) if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        last.weight.copy_(torch.tensor([3.0, 0.0, -4.0]))
    assert measures.norms(s)["last_scale_norm"] == pytest.approx(5.0)
    assert "last_scale_norm" not in measures.norms(state())


@pytest.mark.parametrize(
    ("examples", "expected"), [(5000, (25, 128)), (3200, (25, 128)), (100, (25, 4)), (9, (9, 1))]
)
def test_mini_batches_of_the_covariance_are_smaller_where_there_are_few_examples(
    examples, expected
):
    assert conventions.covariance_batches(examples) == expected


def test_the_variance_of_the_curvature_is_that_along_the_top_eigenvector():
    s = state()
    x, y = s.probe
    top = torch.linalg.eigh(dense.hessian(s.model, s.loss, x, y))[1][:, -1]
    each = torch.stack(
        [top @ dense.hessian(s.model, s.loss, x[i : i + 1], y[i : i + 1]) @ top for i in range(N)]
    )
    s.memory["top_vector"], s.memory["top_step"] = top, torch.tensor(s.step)
    out = measures.break_even(s)
    assert out["curvature_variance"] == pytest.approx(float(each.var(correction=0)), rel=1e-10)


def test_the_width_of_a_step_is_the_first_length_at_which_the_loss_is_a_fifth_higher():
    s = state()
    s.update = 3.0 * s.update
    theta, (x, y) = dense.parameters(s.model), s.probe

    def loss(alpha):
        return float(dense.loss(s.loss, dense.logits(s.model, x, theta - alpha * s.update), y))

    width = measures.break_even(s)["step_width"]
    scan = [alpha for alpha in np.linspace(0.01, 80, 8000) if loss(alpha) >= 1.2 * loss(0)]
    assert scan and width == pytest.approx(scan[0], rel=2 * measures.WIDTH_RTOL)


def test_a_step_so_short_that_no_multiple_raises_the_loss_has_no_width():
    s = state()
    s.update = 1e-9 * s.update
    assert np.isnan(measures.break_even(s)["step_width"])


def test_a_width_below_the_first_that_is_tried_is_found():
    s = state()
    s.update = 3.0 * s.update
    width = measures.break_even(s)["step_width"]
    assert width > measures.WIDTH_LIMITS[0]
    s.update = 1e4 * s.update
    shorter = measures.break_even(s)["step_width"]
    assert shorter == pytest.approx(1e-4 * width, rel=2 * measures.WIDTH_RTOL)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_loss_of_zero_has_no_width_and_takes_no_passes(monkeypatch, value):
    s = state()
    _, gradient, z = s.probe_gradient
    s.__dict__["probe_gradient"] = torch.tensor(value), gradient, z
    monkeypatch.setattr(measures, "losses_along", lambda *_, **__: pytest.fail("a forward pass"))
    assert np.isnan(measures._step_width(s))


def test_trace_and_frobenius_norm_of_the_hessian_are_within_their_errors_of_the_dense_ones():
    s = state()
    out = measures.hessian_trace(s)
    h = dense.hessian(s.model, s.loss, *s.probe)
    for name, matrix in (("trace", h), ("frobenius_sq", h @ h)):
        off = matrix - torch.diag(matrix.diagonal())
        expected = float((2 * off.square().sum() / measures.TRACE_SAMPLES).sqrt())
        # the deviation of ten values is within a factor 2 of the true one but once in a hundred
        assert expected / 2 < out[f"hessian_{name}_error"] < 2 * expected
        assert abs(out[f"hessian_{name}"] - float(matrix.trace())) < 4 * expected


def sharpest_oracle(s):
    """Eigenvalues and eigenvectors (columns) of the dense Hessian, largest first, and the gradients
    of the three mini-batches of three examples, (3, m)."""
    values, vectors = torch.linalg.eigh(dense.hessian(s.model, s.loss, *s.probe))
    x, y = s.train
    parts = [slice(0, 3), slice(3, 6), slice(6, 9)]
    g = torch.stack([dense.gradient(s.model, s.loss, x[part], y[part]) for part in parts])
    return values.flip(0), vectors.flip(1), g


def test_the_sharpest_directions_and_the_steps_along_them(monkeypatch):
    """Against the dense Hessian: eigenvalues, E|cos(g_B, e_i)|, ηE|c_i|, and the losses at
    θ − αηc_1 e_1 and θ + xΔ_i e_i."""
    monkeypatch.setattr(measures, "SHARPEST_RTOL", 1e-9)
    monkeypatch.setattr(measures, "SHARPEST_PRODUCTS", 500)
    s = state()
    s.lr = 5.0  # so that the loss changes by more than rounding
    values, vectors, g = sharpest_oracle(s)
    theta, (x, y) = dense.parameters(s.model), s.probe

    def loss(point):
        return float(dense.loss(s.loss, dense.logits(s.model, x, point), y))

    out = measures.sharpest(s)
    k = conventions.SHARPEST
    np.testing.assert_allclose(out["top_values"], values[:k], rtol=1e-9, atol=1e-12)
    assert out["top_residuals"][0] <= 1e-9
    c = g @ vectors[:, :k]
    cosines = (c.abs() / g.norm(dim=1, keepdim=True)).mean(0)
    # eigenvectors are good to residual/gap; the smaller eigenvalues lie close together
    np.testing.assert_allclose(out["gradient_cosines"][:4], cosines[:4], rtol=1e-5)
    np.testing.assert_allclose(out["step_lengths"][:4], 5.0 * c.abs().mean(0)[:4], rtol=1e-5)
    for alpha, found in zip(conventions.STEP_FACTORS, out["loss_changes"], strict=True):
        moved = [loss(theta - alpha * 5.0 * ci * vectors[:, 0]) for ci in c[:, 0]]
        assert found == pytest.approx(np.mean(moved) - loss(theta), rel=1e-6, abs=1e-12)
    for i, row in zip(conventions.SURFACE_DIRECTIONS, out["surfaces"], strict=True):
        size = 5.0 * float(c[:, i - 1].abs().mean())
        points = conventions.SURFACE_POINTS
        exact = np.array([loss(theta + p * size * vectors[:, i - 1]) for p in points])
        # the sign of an eigenvector is nobody's
        assert min(np.abs(row - exact).max(), np.abs(row[::-1] - exact).max()) < 1e-6


def test_a_step_of_the_full_batch_is_the_one_of_all_examples():
    s = state(batch_size=None)
    _, vectors, _ = sharpest_oracle(s)
    g = dense.gradient(s.model, s.loss, *s.train)
    expected = float((g @ vectors[:, 0]).abs() / g.norm())
    assert measures.sharpest(s)["gradient_cosines"][0] == pytest.approx(expected, rel=1e-2)


def test_a_warm_search_for_the_sharpest_directions_is_cheaper_and_finds_the_same():
    s = state()
    cold = measures.sharpest(s)
    warm = measures.sharpest(s)
    assert warm["top_products"] < cold["top_products"]
    np.testing.assert_allclose(warm["top_values"][:3], cold["top_values"][:3], rtol=1e-2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((5000, 128), (16, 128)), ((5000, 512), (9, 512)), ((9, 3), (3, 3)), ((9, None), (1, 9))],
)
def test_mini_batches_of_the_steps_are_those_of_sgd(given, expected):
    assert conventions.step_batches(*given) == expected


def test_the_identity_and_the_residual_of_theorem_2_are_what_the_bound_says(monkeypatch):
    bound = measures.sharpness_bound

    def loose(*args, **how):
        found = bound(*args, **how)
        return dataclasses.replace(found, norm=2 * found.mean, residual=0.25)

    monkeypatch.setattr(measures, "sharpness_bound", loose)
    out = measures.theorem_2(state())
    assert out["theorem_2_mean"] == out["gauss_newton_norm"] / 2 < out["theorem_2_bound"]
    assert (out["theorem_2_identity"], out["theorem_2_residual"]) == (0.5, 0.25)
    short = dataclasses.replace(loose(state().model, state().probe[0]), norm=0.0)
    monkeypatch.setattr(measures, "sharpness_bound", lambda *args, **how: short)
    assert measures.theorem_2(state())["theorem_2_identity"] == short.mean


def test_the_least_weight_and_slack_of_theorem_2_are_those_of_single_examples():
    out = measures.theorem_2(state())
    assert out["theorem_2_min_star"] == out["lambda_star"].min()
    assert out["theorem_2_min_slack"] == (out["lambda_1"] - out["lambda_star"]).min()


def test_the_top_eigenvector_is_searched_for_once_a_step():
    s = digits_state(60)
    measures.curvature(s)
    measures.alignment(s)
    assert int(s.memory["curvature_count"]) == 1


def test_the_impurity_is_computed_in_double_precision():
    s = state()
    s.train_z = s.train_z.float()
    out = measures.impurity(s)
    assert out["tracked_p1"].dtype == out["tracked_impurity"].dtype == np.float64


def test_a_stretch_beyond_the_last_bin_counts_in_it(monkeypatch):
    monkeypatch.setattr(measures, "STRETCH_BINS", np.linspace(0, 1, 101))
    out = measures.eigenvector_images(digits_state(20))
    assert out["stretch_counts"].sum() == 40 * 9 and out["stretch_mean"] > 0.5
    assert out["stretch_counts"][:, -1].sum() > 0


def heights(rise):
    """In place of :func:`losses_along`: the loss at −α is what ``rise`` says of α."""
    return lambda model, loss, probe, direction, points, **_: iter([rise(-x) for x in points])


@pytest.mark.parametrize(("high", "at"), [(1e9, 3.0), (float("nan"), 3.0), (1e9, 50.0)])
def test_a_width_is_the_least_step_found_at_which_the_loss_is_higher_or_no_number(
    monkeypatch, high, at
):
    monkeypatch.setattr(
        measures, "losses_along", heights(lambda alpha: high if alpha >= at else 0.0)
    )
    assert at <= measures._step_width(state()) <= at / (1 - measures.WIDTH_RTOL)


def test_the_length_of_a_step_is_the_mean_of_its_size_though_mini_batches_disagree(monkeypatch):
    monkeypatch.setattr(measures, "SHARPEST_RTOL", 1e-9)
    monkeypatch.setattr(measures, "SHARPEST_PRODUCTS", 500)
    s = state(train=dense.examples(9, seed=10))
    _, vectors, g = sharpest_oracle(s)
    c = g @ vectors[:, :4]
    assert (c.mean(0).abs() < 0.7 * c.abs().mean(0)).all()  # their signs differ
    found = measures.sharpest(s)["step_lengths"][:4]
    np.testing.assert_allclose(found, s.lr * c.abs().mean(0), rtol=1e-5)


def test_every_so_many_searches_for_the_sharpest_directions_are_cold(monkeypatch):
    starts, search = [], measures.top_eigenpairs

    def watched(op, k, v0=None, **how):
        starts.append(v0)
        return search(op, k, v0, **how)

    monkeypatch.setattr(measures, "top_eigenpairs", watched)
    s = state()
    measures.sharpest(s)
    for count in (measures.COLD_EVERY - 1, measures.COLD_EVERY):
        s.memory["sharpest_count"] = torch.tensor(count)
        measures.sharpest(s)
    assert [v0 is None for v0 in starts] == [True, False, True]


@pytest.mark.parametrize("weight", [1e200, np.inf])
@pytest.mark.parametrize("name", MEASURES)
def test_a_model_that_diverges_is_measured_without_an_error(name, weight, tmp_path):
    """Its loss may be finite on a mini-batch, so that the run goes on to the next step."""
    s = state(trajectory=Trajectory(tmp_path / "points", [3], len(state().initial)))
    for p in s.model.parameters():
        p.data[..., 0] = weight
    s.train_z = s.model(s.train[0]).detach()
    for _ in range(2):
        assert MEASURES[name](s)
        s.__dict__.pop("linearization", None)
