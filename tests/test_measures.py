"""Each measure against dense matrices of a small network in float64."""

import dense
import numpy as np
import pytest
import torch

from ijrlib import measures
from ijrlib.measures import MEASURES, State

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
    }
    return State(**(given | fields))


def probabilities(s):
    z = s.train_z.numpy()
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def top_eigenvalues(s):
    return np.array([np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[-1] for p in probabilities(s)])


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


def test_only_the_first_examples_are_tracked():
    z = torch.randn(40, 5, dtype=torch.float64)
    out = measures.impurity(state(train_z=z, train_y=torch.zeros(40, dtype=torch.long)))
    assert out["tracked_p1"].shape == (measures.TRACKED,)


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
    assert out["sharpness_residual"] <= measures.SHARPNESS_RTOL
    assert out["sharpness"] == pytest.approx(float(values[-1]), rel=measures.SHARPNESS_RTOL)
    singular = torch.linalg.svdvals(jacobian)
    ones = torch.full((dense.CLASSES,), dense.CLASSES**-0.5, dtype=torch.float64)
    exact = {"rel": 1e-10}  # condition of sums of squares is one; 1e-10 is far above m·eps
    assert out["jacobian_norm_sq"] == pytest.approx(float(singular[0] ** 2), **exact)
    assert out["jacobian_frobenius_sq"] == pytest.approx(float((singular**2).sum()), **exact)
    assert out["jacobian_ones_sq"] == pytest.approx(float((jacobian @ ones).norm() ** 2), **exact)
    assert out["probe_loss"] == pytest.approx(
        float(dense.loss(loss, dense.logits(s.model, x, dense.parameters(s.model)), y)), **exact
    )
    top = s.memory["top_vector"]
    assert out["gradient_alignment"] == pytest.approx(
        float((top @ gradient).abs() / gradient.norm()), **exact
    )
    assert ("probe_impurity_mean" in out) == (loss == "cross_entropy")


def test_a_second_measurement_starts_from_the_first_and_finds_the_same():
    s = state()
    cold = measures.curvature(s)
    warm = measures.curvature(s)
    assert warm["sharpness_products"] < cold["sharpness_products"]
    assert warm["sharpness"] == pytest.approx(cold["sharpness"], rel=measures.SHARPNESS_RTOL)


def test_a_cold_start_finds_the_top_when_the_memory_holds_another_eigenvector():
    s = state()
    values, vectors = torch.linalg.eigh(dense.hessian(s.model, s.loss, *s.probe))
    s.memory["top_vector"] = vectors[:, -2].contiguous()
    s.memory["curvature_count"] = torch.tensor(1)
    assert measures.curvature(s)["sharpness"] == pytest.approx(float(values[-2]), rel=1e-6), (
        "an exact eigenvector is certified at once"
    )
    s.memory["top_vector"] = vectors[:, -2].contiguous()
    s.memory["curvature_count"] = torch.tensor(measures.COLD_EVERY)
    found = measures.curvature(s)["sharpness"]
    assert found == pytest.approx(float(values[-1]), rel=measures.SHARPNESS_RTOL)


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
    values = measures.algorithm_2_convergence(s)["algorithm_2_values"]
    norm = float(torch.linalg.matrix_norm(dense.jacobians(s.model, s.probe[0]).mean(0), 2))
    assert values.shape == (measures.ALGORITHM_2_ITERATIONS,)
    assert (np.diff(values) >= -1e-12 * norm).all()
    assert values[0] < norm * (1 - 1e-6)
    singular = torch.linalg.svdvals(dense.jacobians(s.model, s.probe[0]).mean(0))
    ratio = float(singular[1] / singular[0])
    assert values[-1] == pytest.approx(norm, rel=100 * ratio ** (4 * len(values) - 4) + 1e-12)


def test_no_measure_touches_the_model_or_the_random_state():
    s = state("batch normalization")
    s.model.train()
    before = {k: v.clone() for k, v in s.model.state_dict().items()}
    mode = [m.training for m in s.model.modules()]
    random = torch.random.get_rng_state()
    for name, measure in MEASURES.items():
        if name not in ("theorem_2", "accuracy"):  # J of one example needs evaluation mode
            measure(s)
    assert all(torch.equal(v, before[k]) for k, v in s.model.state_dict().items())
    assert [m.training for m in s.model.modules()] == mode
    assert all(p.grad is None for p in s.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
