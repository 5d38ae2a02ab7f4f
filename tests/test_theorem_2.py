"""Theorem 2: ‖⟨JMJᵀ⟩‖ = ⟨λ*‖J‖²⟩ ≤ ⟨λ^(1)‖J‖²⟩ with 0 ≤ λ*_x ≤ λ^(1)_x, against dense matrices."""

import dense
import pytest
import torch

from ijrlib import sharpness_bound, spectra, theorems
from ijrlib.sharpness_bound import SharpnessBound
from ijrlib.sharpness_bound import sharpness_bound as compute

LOSSES = ("cross_entropy", "squared")
EIGENVECTOR, LARGEST = "Gq* = ‖G‖q*", "no eigenvalue of G above ‖G‖"
STATEMENTS = (
    EIGENVECTOR,
    LARGEST,
    "‖G‖ = ⟨λ*‖J‖²⟩",
    "0 ≤ λ*",
    "λ* ≤ λ^(1)",
    "‖G‖ ≤ ⟨λ^(1)‖J‖²⟩",
)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", dense.KINDS)
def test_theorem_2_holds_for_dense_matrices_and_the_library_agrees(kind, loss):
    model, (x, _) = dense.network(kind), dense.examples(9)
    values, vectors = torch.linalg.eigh(dense.gauss_newton(model, loss, x))
    jacobians = dense.jacobians(model, x)
    m = dense.logit_hessians(loss, dense.logits(model, x, dense.parameters(model)))
    v = jacobians.transpose(1, 2) @ vectors[:, -1]
    jacobian_sq = torch.linalg.matrix_norm(jacobians, 2) ** 2
    star = (v[:, None, :] @ m @ v[:, :, None])[:, 0, 0] / jacobian_sq
    top = torch.linalg.eigvalsh(m)[:, -1]
    # the theorem itself, for the oracle
    assert float((star * jacobian_sq).mean()) == pytest.approx(float(values[-1]), rel=1e-12)
    assert (star >= -1e-15).all()
    assert (star <= top + 1e-14).all()
    # the library: q* to a residual of 1e-9, an error of residual·θ/gap outside the eigenspace
    # (the linear network's has C dimensions for the squared loss, and λ* is the same in all of it)
    found = compute(model, x, loss, rtol=1e-9)
    gap = float(1 - values[values < (1 - 1e-12) * values[-1]][-1] / values[-1])
    assert found.norm == pytest.approx(float(values[-1]), rel=1e-9)
    assert found.residual <= 1e-9
    torch.testing.assert_close(found.jacobian_sq, jacobian_sq, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.lambda_1, top, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.lambda_star, star, rtol=0, atol=4e-9 / gap)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", dense.KINDS)
def test_verify_theorem_2_passes_and_names_every_part(kind, loss):
    model, (x, _) = dense.network(kind), dense.examples(5)
    checks = theorems.verify_theorem_2(model, x, loss)
    assert [c.statement.split(": ")[1] for c in checks] == list(STATEMENTS)
    assert all(c.passed and c.cases == 5 and c.where for c in checks)
    assert ("squared" in checks[0].statement) == (loss == "squared")


def test_an_example_whose_jacobian_is_zero_has_lambda_star_zero():
    class Dead(torch.nn.Module):
        """z = w·x₁·(relu(x₂), 0): no example with x₂ ≤ 0 depends on w."""

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))

        def forward(self, x):
            a = self.w * x[:, :1] * torch.relu(x[:, 1:])
            return torch.cat([a, torch.zeros_like(a)], dim=1)

    x = torch.tensor([[1.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
    found = compute(Dead(), x)
    assert found.jacobian_sq[0] == 0
    assert found.lambda_star[0] == 0
    # J = (2, 0), M = p(1−p)[[1, −1], [−1, 1]], G = ½·4·p(1−p)
    p = torch.sigmoid(torch.tensor(1.4, dtype=torch.float64))
    assert found.norm == pytest.approx(float(2 * p * (1 - p)), rel=1e-12)
    assert all(c.passed for c in theorems.verify_theorem_2(Dead(), x))


def test_verify_theorem_2_takes_a_parameter_without_axes():
    class Tempered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = dense.network("linear")
            self.temperature = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x):
            return self.temperature * self.network(x)

    checks = theorems.verify_theorem_2(Tempered(), dense.examples(5)[0])
    assert len(checks) == len(STATEMENTS) and all(c.passed for c in checks)


@pytest.mark.parametrize(
    ("field", "factor", "violated"),
    [
        ("lambda_1", 0.2, {"λ* ≤ λ^(1)", "‖G‖ ≤ ⟨λ^(1)‖J‖²⟩"}),
        ("lambda_star", 1.5, {"‖G‖ = ⟨λ*‖J‖²⟩"}),
        ("lambda_star", -1.0, {"0 ≤ λ*", "‖G‖ = ⟨λ*‖J‖²⟩"}),
        ("norm", 9.0, {"‖G‖ = ⟨λ*‖J‖²⟩", "‖G‖ ≤ ⟨λ^(1)‖J‖²⟩"}),
        ("norm", float("nan"), {"‖G‖ = ⟨λ*‖J‖²⟩", "‖G‖ ≤ ⟨λ^(1)‖J‖²⟩"}),
    ],
)
def test_verify_theorem_2_fails_where_a_quantity_is_wrong(monkeypatch, field, factor, violated):
    model, (x, _) = dense.network("fully connected, tanh"), dense.examples(5)
    right = compute(model, x)
    wrong = SharpnessBound(**{**right.__dict__, field: getattr(right, field) * factor})
    monkeypatch.setattr(sharpness_bound, "sharpness_bound", lambda *args, **kwargs: wrong)
    checks = theorems.verify_theorem_2(model, x)
    failed = {c.statement.split(": ")[1] for c in checks if not c.passed}
    assert violated <= failed


def test_verify_theorem_2_tells_the_top_eigenvector_from_another_and_from_no_eigenvector(
    monkeypatch,
):
    """What the theorem says of q* but for ‖G‖ is true of every unit vector."""
    model, (x, _) = dense.network("fully connected, tanh"), dense.examples(5)
    values, vectors = torch.linalg.eigh(dense.gauss_newton(model, "cross_entropy", x))

    def failed(vector):
        def pair(op, v0, rtol):
            product = op @ vector
            value = float(vector @ product)
            residual = float((product - value * vector).norm()) / value
            return spectra.Eigenpair(value, vector, residual, 1, True)

        monkeypatch.setattr(sharpness_bound, "top_eigenpair", pair)
        checks = theorems.verify_theorem_2(model, x)
        return {c.statement.split(": ")[1] for c in checks if not c.passed}

    assert failed(vectors[:, -1]) == set()
    assert values[-3] < 0.99 * values[-1] and failed(vectors[:, -3]) == {LARGEST}
    random = torch.randn(len(values), generator=torch.Generator().manual_seed(0)).to(vectors)
    assert failed(random / random.norm()) >= {EIGENVECTOR}


def test_an_unknown_loss_is_refused_with_the_known_ones():
    model, (x, _) = dense.network("linear"), dense.examples(2)
    with pytest.raises(ValueError, match="cross_entropy, squared"):
        theorems.verify_theorem_2(model, x, "hinge")
