"""What is measured along a run: a function of the state for each name in ``config.MEASURES``.

A measure returns numbers (columns of the series) and arrays (stacked over the measured steps).  It
leaves the model as it was and draws no random numbers from the global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ijrlib import logits
from ijrlib.operators import (
    LOSSES,
    flatten,
    hessian,
    loss_and_gradient,
    mean_jacobian,
    mean_jacobian_gram,
    trainable,
)
from ijrlib.sharpness_bound import sharpness_bound
from ijrlib.spectra import algorithm_2, top_eigenpair

TRACKED = 16
"""Examples whose (p_(1), λ^(1)) is kept at every measured step (Figure 2, left)."""

SHARPNESS_RTOL = 2e-2
"""Relative residual of the sharpness' eigenvector; the eigenvalue's error is of second order
in it."""

COLD_EVERY = 25
"""Every so many measurements the eigensolver starts from a random vector alone, lest it follow an
eigenvector that is no longer the top one."""

COLD_RTOL = 1e-3
"""Tolerance of a cold start: with a loose one, a start vector that happens to have little of the
top eigenvector in it is certified at a lower eigenvalue."""

ALGORITHM_2_ITERATIONS = 30

Values = dict[str, float | np.ndarray]


@dataclass
class State:
    """A run at step t, as measures see it.

    Attributes:
        model: with θ(t).
        loss: key of ``operators.LOSSES``.
        step: t.
        train_z, train_y: logits and labels of D (full batch) or of the probe (SGD).
        probe: (x, y) on which curvature is measured, the same at all steps.
        test: (x, y), or None.
        initial: θ(0), flat.
        chunk: examples per pass.
        memory: what measures keep between steps (start vectors, counters); saved with checkpoints.
    """

    model: nn.Module
    loss: str
    step: int
    train_z: Tensor
    train_y: Tensor
    probe: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None
    initial: Tensor
    chunk: int
    memory: dict[str, Tensor] = field(default_factory=dict)


def impurity(state: State) -> Values:
    """λ^(1) of each example: mean and quartiles over the training examples, and the tracked ones.

    Columns impurity_mean, impurity_q25, impurity_q75, p1_mean (mean of p_(1)); arrays tracked_p1
    and tracked_impurity of the first probe examples.  Computed in float64 from the logits.
    """
    p = state.train_z.double().softmax(-1)
    top = logits.impurity(p)
    first = p.amax(-1)
    quartiles = torch.quantile(top, torch.tensor([0.25, 0.75], dtype=top.dtype, device=top.device))
    return {
        "impurity_mean": float(top.mean()),
        "impurity_q25": float(quartiles[0]),
        "impurity_q75": float(quartiles[1]),
        "p1_mean": float(first.mean()),
        "tracked_p1": first[:TRACKED].cpu().numpy(),
        "tracked_impurity": top[:TRACKED].cpu().numpy(),
    }


def curvature(state: State) -> Values:
    """‖H‖ with its residual and product count, ‖⟨J⟩‖², ‖⟨J⟩1̂‖², ‖⟨J⟩‖_F², |cos(g, r)|, on the
    probe.

    r is the unit top eigenvector of H and g the probe's gradient.  The eigensolver starts from the
    previous r and then tries g; every ``COLD_EVERY`` measurements it starts cold.
    """
    model, loss = state.model, LOSSES[state.loss]
    value, gradient, z = loss_and_gradient(model, loss, state.probe, chunk=state.chunk)
    count = int(state.memory.get("curvature_count", torch.zeros(())))
    starts, rtol = None, COLD_RTOL
    if count % COLD_EVERY:
        starts, rtol = torch.stack([state.memory["top_vector"], gradient], dim=1), SHARPNESS_RTOL
    op = hessian(model, loss, state.probe, chunk=state.chunk, cache=True)
    top = top_eigenpair(op, starts, rtol=rtol, seed=state.step)
    state.memory["top_vector"] = top.vector
    state.memory["curvature_count"] = torch.tensor(count + 1)
    gram = mean_jacobian_gram(model, state.probe[0], chunk=state.chunk)
    out: Values = {
        "probe_loss": float(value),
        "sharpness": top.value,
        "sharpness_residual": top.residual,
        "sharpness_products": float(top.products),
        "jacobian_norm_sq": float(torch.linalg.eigvalsh(gram)[-1]),
        "jacobian_ones_sq": float(gram.mean() * len(gram)),
        "jacobian_frobenius_sq": float(gram.trace()),
        "gradient_alignment": float((top.vector @ gradient).abs() / gradient.norm()),
    }
    if state.loss == "cross_entropy":
        out["probe_impurity_mean"] = float(logits.impurity(z.double().softmax(-1)).mean())
    return out


def accuracy(state: State) -> Values:
    """Share of the training examples classified right; loss and accuracy on the test examples."""
    out: Values = {"train_accuracy": _accuracy(state.train_z, state.train_y)}
    if state.test is not None:
        x, y = state.test
        with torch.no_grad():
            z = torch.cat([state.model(part) for part in x.split(state.chunk)])
        out["test_loss"] = float(LOSSES[state.loss](z, y))
        out["test_accuracy"] = _accuracy(z, y)
    return out


def _accuracy(z: Tensor, y: Tensor) -> float:
    return float((z.argmax(-1) == y).double().mean())


def norms(state: State) -> Values:
    """⟨‖z‖⟩, ⟨|1ᵀz|⟩, ‖θ‖, ‖θ − θ(0)‖ and, as array layer_norms, the norm of each weight (no
    biases)."""
    theta = flatten(p.detach() for p in trainable(state.model).values())
    weights = [p.detach() for p in trainable(state.model).values() if p.ndim > 1]
    return {
        "logit_norm": float(state.train_z.norm(dim=-1).mean()),
        "logit_sum": float(state.train_z.sum(-1).abs().mean()),
        "weight_norm": float(theta.norm()),
        "distance": float((theta - state.initial).norm()),
        "layer_norms": np.array([float(w.norm()) for w in weights]),
    }


def theorem_2(state: State) -> Values:
    """Both sides of Theorem 2 on the probe, and λ*, λ^(1), ‖J‖² of each example as arrays."""
    bound = sharpness_bound(
        state.model,
        state.probe[0],
        state.loss,
        v0=state.memory.get("top_vector"),
        chunk=state.chunk,
    )
    return {
        "gauss_newton_norm": bound.norm,
        "theorem_2_mean": bound.mean,
        "theorem_2_bound": bound.bound,
        "theorem_2_residual": bound.residual,
        "theorem_2_identity": abs(bound.norm - bound.mean) / (bound.norm or 1.0),
        "theorem_2_min_slack": float((bound.lambda_1 - bound.lambda_star).min()),
        "theorem_2_min_star": float(bound.lambda_star.min()),
        "lambda_star": bound.lambda_star.cpu().numpy(),
        "lambda_1": bound.lambda_1.cpu().numpy(),
        "jacobian_x_sq": bound.jacobian_sq.cpu().numpy(),
    }


def logit_spectrum(state: State) -> Values:
    """⟨QΛ^½⟩ with rows and columns in the order of p_(1) ≥ … ≥ p_(C) (Figure 8), array (C, C)."""
    p = state.train_z.double().softmax(-1).sort(-1, descending=True).values
    values, vectors = logits.eigensystem(p)
    return {
        "q_sqrt_lambda": (vectors * values.clamp(min=0).sqrt()[:, None, :]).mean(0).cpu().numpy()
    }


def algorithm_2_convergence(state: State) -> Values:
    """Estimates of ‖⟨J⟩‖ after each iteration of the paper's Algorithm 2, array (iterations,)."""
    op = mean_jacobian(state.model, state.probe[0], chunk=state.chunk)
    values = algorithm_2(op, rtol=0.0, max_iterations=ALGORITHM_2_ITERATIONS)
    values += values[-1:] * (ALGORITHM_2_ITERATIONS - len(values))  # settled to the last bit
    return {"algorithm_2_values": np.array(values)}


MEASURES: Mapping[str, Callable[[State], Values]] = {
    "impurity": impurity,
    "curvature": curvature,
    "accuracy": accuracy,
    "norms": norms,
    "theorem_2": theorem_2,
    "logit_spectrum": logit_spectrum,
    "algorithm_2": algorithm_2_convergence,
}
