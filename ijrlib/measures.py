"""What is measured along a run: a function of the state for each name in ``config.MEASURES``.

A measure returns numbers (columns of the series) and arrays (stacked over the measured steps).  It
leaves the model as it was and draws no random numbers from the global generator.

With batch normalization H, G, ⟨J⟩ and the gradients of mini-batches are those of the function that
SGD descends: each chunk of the probe, or mini-batch, is normalized by its own statistics.  Running
statistics, which are left alone, serve where examples are taken one by one (logits, accuracy, K
from single examples), but for the logits of a full batch: those are of the training pass, by its
own statistics, and augmented where training is.  Measures that need J_x of an example refuse such a
network in training mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ijrlib import geometry, logits, parallel
from ijrlib.conventions import (
    COS_SQ_BINS,
    PAIRS,
    PREDICTED,
    SHARES,
    SHARPEST,
    STEP_FACTORS,
    STRETCH_BINS,
    SURFACE_DIRECTIONS,
    SURFACE_POINTS,
    covariance_batches,
    share_size,
    step_batches,
)
from ijrlib.curvature import Curvature, Starts, impurities, measure
from ijrlib.linear_algebra import eigvalsh, gram
from ijrlib.operators import (
    LOSSES,
    Linearization,
    curvatures_along,
    evaluation_mode,
    flatten,
    gauss_newton,
    gradient_covariance,
    linearize,
    loss_and_gradient,
    losses_along,
    mean_jacobian,
    mean_jacobian_gram,
    trainable,
)
from ijrlib.per_example import jacobian_grams
from ijrlib.sharpness_bound import sharpness_bound
from ijrlib.spectra import algorithm_2, hutchinson, top_eigenpairs
from ijrlib.trajectory import Trajectory

TRACKED = 16
"""Examples whose (p_(1), λ^(1)) is kept at every measured step (Figure 2, left)."""

COLD_EVERY = 25
"""Every so many measurements of curvature start cold, lest they follow an eigenvector that is no
longer the top one."""

ALGORITHM_2_ITERATIONS = 30

SPECTRUM_SIZE = 10
SPECTRUM_RTOL = 2e-2
SPECTRUM_PRODUCTS = 400
"""Products at most for each of the two spectra; the residuals say what they reached."""

WIDTH_RISE = 1.2
WIDTH_LIMITS = (0.25, 64.0)
WIDTH_RTOL = 0.02
"""α*: by which factor the loss rises, from which α to which it is looked for, and how well."""

COVARIANCE_TOP = 5
"""The eigenvectors of K on which the gradient is projected (Figure 5 there)."""

TRACE_SAMPLES = 10

SHARPEST_RTOL = 5e-2
SHARPEST_PRODUCTS = 60
"""Relative residuals of the sharpest directions at which to stop, and products at most; the
residuals say what they reached."""

Values = dict[str, float | np.ndarray]


@dataclass
class State:
    """A run at step t, as measures see it.

    Attributes:
        model: with θ(t).
        loss: key of ``operators.LOSSES``.
        step: t.
        train_z, train_y: logits and labels of D (full batch, those of the training pass) or of the
            probe (SGD).
        probe: (x, y) on which curvature is measured, the same at all steps.
        test: (x, y), or None.
        initial: θ(0), flat.
        chunk: examples per pass.
        train: (x, y), all training examples D.
        update: θ(t) − θ(t + 1) of plain SGD, flat.
        lr: η of the step.
        batch_size: |B|, None for the full batch.
        memory: what measures keep between steps (start vectors, counters); saved with checkpoints.
        trajectory: the run's scratch file, where its points are recorded.

    What several measures of one step need of the probe is computed once, when first asked for.
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
    train: tuple[Tensor, Tensor]
    update: Tensor
    lr: float
    batch_size: int | None
    memory: dict[str, Tensor] = field(default_factory=dict)
    trajectory: Trajectory | None = None

    @cached_property
    def linearization(self) -> Linearization:
        """Loss, gradient and logits of the probe, and products with its H and ⟨J⟩."""
        return linearize(self.model, LOSSES[self.loss], self.probe, chunk=self.chunk)

    @cached_property
    def probe_gradient(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its gradient in R^m, and logits (N, C)."""
        linear = self.linearization
        return linear.loss, linear.gradient, linear.logits

    @cached_property
    def probe_grams(self) -> Tensor:
        """J_xᵀJ_x of each example, shape (N, C, C), float64."""
        return jacobian_grams(self.model, self.probe[0])

    @cached_property
    def probe_eigensystem(self) -> tuple[Tensor, Tensor, Tensor]:
        """p (N, C), and λ^(i) (N, C) and q^(i) in columns (N, C, C) of M, float64.

        Raises:
            ValueError: for another loss than the cross-entropy, whose M has no such eigenvectors.
        """
        if self.loss != "cross_entropy":
            raise ValueError(f"loss: expected cross_entropy for a measure of q, got {self.loss!r}")
        p = self.probe_gradient[2].double().softmax(-1)
        return p, *_eigensystem(p)

    @cached_property
    def class_means(self) -> Tensor:
        """⟨m⟩_{D_i} for each class i that is the most probable one of an example, (P, m)."""
        p, values, vectors = self.probe_eigensystem
        dominant = values[:, :1].sqrt() * vectors[..., 0]
        return self.mean_by_class(dominant, p.argmax(1))

    def mean_by_class(self, u: Tensor, classes: Tensor) -> Tensor:
        return geometry.class_means(self.model, self.probe[0], u, classes, chunk=self.chunk)


def _eigensystem(p: Tensor) -> tuple[Tensor, Tensor]:
    """λ^(i) (N, C) and q^(i) in columns (N, C, C); NaN for an example whose p is not finite."""
    finite = p.isfinite().all(-1, keepdim=True)
    values, vectors = logits.eigensystem(p.where(finite, 1 / p.shape[1]))
    return values.where(finite, torch.nan), vectors.where(finite[..., None], torch.nan)


def impurity(state: State) -> Values:
    """λ^(1) of each example: mean and quartiles over the training examples, with mini-batches
    over those of the probe, and the tracked ones.

    Columns impurity_mean, impurity_q25, impurity_q75, p1_mean (mean of p_(1)); arrays tracked_p1
    and tracked_impurity of the first probe examples.  Computed in float64 from the logits.
    """
    p = state.train_z.double().softmax(-1)
    top = impurities(p)
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
    """‖H‖ with its residual and product counts, ‖⟨J⟩‖², ‖⟨J⟩1̂‖², |cos(g, r)|, on the probe.

    r is the unit top eigenvector of H and g the probe's gradient.  A measurement starts from the
    vectors of the two before it; every ``COLD_EVERY`` of them is cold
    (:func:`ijrlib.curvature.curvature`).  Costs about 9 gradients on the probe.
    """
    found = _curvature(state)
    linear = state.linearization
    ones = torch.full_like(found.starts.singular, len(found.starts.singular) ** -0.5)
    out: Values = {
        "probe_loss": found.loss,
        "sharpness": found.top.value,
        "sharpness_residual": found.top.residual,
        "sharpness_products": float(found.top.products),
        "sharpness_surrogate_products": float(found.top.surrogate_products),
        "jacobian_norm_sq": found.jacobian_norm**2,
        "jacobian_residual": found.jacobian_residual,
        "jacobian_ones_sq": float((linear.mean_jacobian @ ones).square().sum()),
        "gradient_alignment": found.gradient_alignment,
    }
    if found.impurity is not None:
        out["probe_impurity_mean"] = found.impurity
    return out


def _curvature(state: State) -> Curvature:
    found = _followed(state.memory, state.linearization, state.step)
    state.memory["top_step"] = torch.tensor(state.step)
    return found


def _followed(
    memory: dict[str, Tensor], linear: Linearization, step: int, of: str = ""
) -> Curvature:
    """A measurement that starts from the vectors of the two before it, or cold every
    ``COLD_EVERY``-th time; ``of`` tells apart what is followed."""
    count = int(memory.get(f"{of}curvature_count", torch.zeros(())))
    starts = None
    if count:
        starts = Starts(
            memory[f"{of}top_vector"],
            memory.get(f"{of}before"),
            memory[f"{of}singular_vector"],
        )
    found = measure(linear, starts, cold=count % COLD_EVERY == 0, seed=step)
    memory[f"{of}top_vector"] = found.starts.top
    memory[f"{of}singular_vector"] = found.starts.singular
    memory.pop(f"{of}before", None)
    if found.starts.before is not None:
        memory[f"{of}before"] = found.starts.before
    memory[f"{of}curvature_count"] = torch.tensor(count + 1)
    return found


def _top_vector(state: State) -> Tensor:
    """r, the unit top eigenvector of H: that of ``curvature`` where it is measured at this step."""
    known = int(state.memory.get("top_step", torch.tensor(-1))) == state.step
    return state.memory["top_vector"] if known else _curvature(state).starts.top


def shares(state: State) -> Values:
    """‖H‖ of parts of the training set and of all of it: what a probe makes of the sharpness.

    Arrays share_sharpness, share_residual and share_jacobian_sq (shares,): ‖H‖, the relative
    residual of its eigenvector and ‖⟨J⟩‖² of the first s·N training examples for each s of
    ``SHARES``, as in ``curvature``.  Costs about 9 gradients of 1.3·N examples.
    """
    x, y = state.train
    found = []
    for share in SHARES:
        members = slice(0, share_size(share, len(y)))
        part = linearize(
            state.model, LOSSES[state.loss], (x[members], y[members]), chunk=state.chunk
        )
        found.append(_followed(state.memory, part, state.step, of=f"share_{share:g}_"))
    return {
        "share_sharpness": np.array([one.top.value for one in found]),
        "share_residual": np.array([one.top.residual for one in found]),
        "share_jacobian_sq": np.array([one.jacobian_norm**2 for one in found]),
    }


def accuracy(state: State) -> Values:
    """Share classified right of the training examples, with mini-batches of those of the probe;
    loss and accuracy on the test examples."""
    out: Values = {"train_accuracy": _accuracy(state.train_z, state.train_y)}
    if state.test is not None:
        x, y = state.test
        z = evaluate(state.model, x, state.chunk)
        out["test_loss"] = float(LOSSES[state.loss](z, y))
        out["test_accuracy"] = _accuracy(z, y)
    return out


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """z of x, shape (n, C), in evaluation mode (batch normalization by running statistics); the
    model's own mode is what it was afterwards."""
    parts = x.split(parallel.share(len(x), chunk))
    with evaluation_mode(model):
        found = {i: model(parts[i]) for i in parallel.mine(len(parts))}
    like = next(model.parameters())  # words are integers, logits are not
    return parallel.gathered(found, [len(part) for part in parts], like)


def _accuracy(z: Tensor, y: Tensor) -> float:
    return float((z.argmax(-1) == y).double().mean())


def norms(state: State) -> Values:
    """⟨‖z‖⟩, ⟨|1ᵀz|⟩, ‖θ‖, ‖θ − θ(0)‖ and, as array layer_norms, the norm of each weight (no
    biases); last_scale_norm, ‖γ‖ of the last batch normalization, where there is one."""
    theta = flatten(p.detach() for p in trainable(state.model).values())
    weights = [p.detach() for p in trainable(state.model).values() if p.ndim > 1]
    out: Values = {
        "logit_norm": float(state.train_z.norm(dim=-1).mean()),
        "logit_sum": float(state.train_z.sum(-1).abs().mean()),
        "weight_norm": float(theta.norm()),
        "distance": float((theta - state.initial).norm()),
        "layer_norms": np.array([float(w.norm()) for w in weights]),
    }
    layers = [m for m in state.model.modules() if isinstance(m, _BatchNorm) and m.affine]
    if scales := [layer.weight for layer in layers]:
        out["last_scale_norm"] = float(scales[-1].detach().norm())
    return out


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
    values, vectors = _eigensystem(p)
    return {
        "q_sqrt_lambda": (vectors * values.clamp(min=0).sqrt()[:, None, :]).mean(0).cpu().numpy()
    }


def algorithm_2_convergence(state: State) -> Values:
    """Estimates of ‖⟨J⟩‖ after each iteration of the paper's Algorithm 2, array (iterations,), and
    ‖⟨J⟩‖ from the C × C Gram matrix, whose only error is rounding."""
    op = mean_jacobian(state.model, state.probe[0], chunk=state.chunk)
    gram = mean_jacobian_gram(state.model, state.probe[0], chunk=state.chunk)
    values = algorithm_2(op, rtol=0.0, max_iterations=ALGORITHM_2_ITERATIONS)
    values += values[-1:] * (ALGORITHM_2_ITERATIONS - len(values))  # settled to the last bit
    exact = float(eigvalsh(gram)[-1].clamp(min=0).sqrt())
    return {"algorithm_2_values": np.array(values), "jacobian_norm_exact": exact}


def alignment(state: State) -> Values:
    """How g_D, r and the examples' gradients lie to the directions m_x (Figures 10 and 31).

    Columns descent_cosine_mean, _q25, _q75: cos(−g_x, J_x q^(1)) over the probe, and _correct its
    median over the examples classified right (nan where none is).  subspace_alignment_gradient and
    _top: AS(g_D) and AS(r), AS(v) = ‖P_S v‖/‖v‖ (Eq 33), S the span of the ⟨m⟩_{D_i} of the
    classes_present classes whose D_i has an example, all on the probe.  cos(g_D, r) is
    gradient_alignment of ``curvature``, whose r is taken where both are measured at one step.

    Cost in gradients on the probe (6CNN): the class means 1, the probe's gradient 1 and its Gram
    matrices 10, all shared with the other measures of the step.  Keeps C·m numbers.
    """
    p, _, vectors = state.probe_eigensystem
    y = state.probe[1]
    cosine = geometry.cosines(state.probe_grams, geometry.downhill(p, y), vectors[..., 0])
    quartiles = torch.quantile(cosine, torch.tensor([0.25, 0.75]).to(cosine))
    right = cosine[p.argmax(1) == y]
    top = _top_vector(state)
    return {
        "descent_cosine_mean": float(cosine.mean()),
        "descent_cosine_q25": float(quartiles[0]),
        "descent_cosine_q75": float(quartiles[1]),
        "descent_cosine_correct": float(right.quantile(0.5)) if len(right) else float("nan"),
        "classes_present": float(len(state.class_means)),
        "subspace_alignment_gradient": geometry.subspace_alignment(
            state.probe_gradient[1], state.class_means
        ),
        "subspace_alignment_top": geometry.subspace_alignment(top, state.class_means),
    }


def clusters(state: State) -> Values:
    """The m_x of the probe by most probable class (Figures 9, 28, 29 and 30), as arrays.

    probable_class (N,); class_counts |D_i| (C,); resultant_products (C, C): inner products of the
    mean directions E_{D_i}[m/‖m‖], whose diagonal is ρ² of each D_i; class_mean_cosines between the
    ⟨m⟩_{D_i} (C, C); both nan where a D_i is empty; plane_coordinates (pairs, N, 2) of m_x/‖m_x‖ in
    the plane of the class means of each of ``PAIRS``, nan for examples of other classes (axes:
    :func:`ijrlib.geometry.plane_coordinates`).  An example with Jq^(1) = 0 has no direction and
    counts as 0.  Column between_class_norm: ‖Σ_i γ_i⟨m⟩_{D_i}⟨m⟩_{D_i}ᵀ‖ (Eq 32).

    Cost in gradients on the probe (6CNN): 3, and what it shares with ``alignment``.  Keeps 2·C·m
    numbers.
    """
    p, _, vectors = state.probe_eigensystem
    classes = p.argmax(1)
    counts = classes.bincount(minlength=p.shape[1])
    present = counts.nonzero()[:, 0]
    direction = geometry.normalized(state.probe_grams, vectors[..., 0])
    resultants = state.mean_by_class(direction, classes)
    products = p.new_full((len(counts), len(counts)), torch.nan)
    products[present[:, None], present] = gram(resultants)
    cosines = torch.full_like(products, torch.nan)
    cosines[present[:, None], present] = geometry.cosine_matrix(state.class_means)
    coordinates = p.new_full((len(PAIRS), len(p), 2), torch.nan)
    row = {int(c): mean for c, mean in zip(present, state.class_means, strict=True)}
    for k, (i, j) in enumerate(PAIRS):
        if i in row and j in row:
            members = ((classes == i) | (classes == j)).nonzero()[:, 0]
            coordinates[k, members] = geometry.plane_coordinates(
                state.model,
                state.probe[0][members],
                direction[members],
                row[i],
                row[j],
                chunk=state.chunk,
            )
    return {
        "probable_class": classes.cpu().numpy().astype(np.int16),
        "class_counts": counts.cpu().numpy(),
        "resultant_products": products.cpu().numpy(),
        "class_mean_cosines": cosines.cpu().numpy(),
        "plane_coordinates": coordinates.float().cpu().numpy(),
        "between_class_norm": geometry.between_class_norm(state.class_means, counts[present]),
    }


def eigenvector_images(state: State) -> Values:
    """J_x q^(i) for i < C: histograms over the probe of its stretch and its angles (Figure 11).

    Arrays stretch_counts (C − 1, bins): for each i how many examples have ‖Jq^(i)‖²·C/‖J‖_F² in
    each of ``STRETCH_BINS``; cos_sq_counts (bins,): cos²(Jq^(i), Jq^(j)) in each of
    ``COS_SQ_BINS``, over examples and i < j; cos_sq_mean_by_pair (C − 1, C − 1): its mean over
    examples.  Columns: mean, median and quartiles of both over examples and i (i < j):
    stretch_mean, …, cos_sq_q75.  Columns gauss_newton_trace, tr G = ⟨Σ_i λ^(i)‖Jq^(i)‖²⟩, and
    gauss_newton_trace_approximation, ⟨tr M · ‖J‖_F²⟩/C (Eq 12).

    Cost in gradients on the probe (6CNN): the Gram matrices' 10 and 1 for the logits, shared with
    the other measures of the step.
    """
    _, values, vectors = state.probe_eigensystem
    grams = state.probe_grams
    exact = torch.einsum("nci,ncd,ndi,ni->n", vectors, grams, vectors, values)
    separate = values.sum(1) * grams.diagonal(dim1=1, dim2=2).sum(1) / values.shape[1]
    stretch, cos_sq = geometry.direction_forms(grams, vectors)
    stretch, cos_sq = stretch[:, :-1].cpu().numpy(), cos_sq[:, :-1, :-1].cpu().numpy()
    above = cos_sq[:, *np.triu_indices(cos_sq.shape[1], 1)]
    inside = stretch.clip(max=STRETCH_BINS[-1]).T
    out: Values = {
        "stretch_counts": np.stack([np.histogram(row, STRETCH_BINS)[0] for row in inside]),
        "cos_sq_counts": np.histogram(above.clip(0, 1), COS_SQ_BINS)[0],
        "cos_sq_mean_by_pair": cos_sq.mean(0),
        "gauss_newton_trace": float(exact.mean()),
        "gauss_newton_trace_approximation": float(separate.mean()),
    }
    for name, sample in (("stretch", stretch), ("cos_sq", above)):
        quartiles = np.quantile(sample, [0.25, 0.5, 0.75])
        named = zip(("q25", "median", "q75"), quartiles, strict=True)
        out |= {f"{name}_mean": float(sample.mean())}
        out |= {f"{name}_{key}": float(value) for key, value in named}
    return out


def spectrum(state: State) -> Values:
    """The ``SPECTRUM_SIZE`` largest eigenvalues of H and of G on the probe, with their residuals.

    Arrays hessian_values, hessian_residuals, gauss_newton_values, gauss_newton_residuals
    (SPECTRUM_SIZE,): relative residuals ‖Ax − θx‖/|θ|, as :class:`ijrlib.spectra.Eigenpair`.
    Columns hessian_products and gauss_newton_products: matrix–vector products spent.  Cost in
    gradients on the probe (6CNN): 230 to 310.  Keeps a basis (``spectra.BASIS_BYTES``).
    """
    loss = LOSSES[state.loss]
    out: Values = {}
    operators = {
        "hessian": state.linearization.hessian,
        "gauss_newton": gauss_newton(state.model, loss, state.probe, chunk=state.chunk),
    }
    for name, op in operators.items():
        pairs = top_eigenpairs(
            op,
            SPECTRUM_SIZE,
            rtol=SPECTRUM_RTOL,
            max_products=SPECTRUM_PRODUCTS,
            seed=state.step,
        )
        out[f"{name}_values"] = np.array([pair.value for pair in pairs])
        out[f"{name}_residuals"] = np.array([pair.residual for pair in pairs])
        out[f"{name}_products"] = float(pairs[0].products)
    return out


def outliers(state: State) -> Values:
    """The 2C largest eigenvalues of G on the probe, with their residuals: enough to see whether
    about C of them stand out (Eq 32).

    Arrays outlier_values and outlier_residuals (2C,): relative residuals as in :func:`spectrum`.
    Column outlier_products: matrix–vector products spent.  Cost in gradients on the probe
    (6CNN): 230 to 270.  Keeps a basis (``spectra.BASIS_BYTES``).
    """
    pairs = top_eigenpairs(
        gauss_newton(state.model, LOSSES[state.loss], state.probe, chunk=state.chunk),
        2 * state.train_z.shape[1],
        rtol=SPECTRUM_RTOL,
        max_products=SPECTRUM_PRODUCTS,
        seed=state.step,
    )
    return {
        "outlier_values": np.array([pair.value for pair in pairs]),
        "outlier_residuals": np.array([pair.residual for pair in pairs]),
        "outlier_products": float(pairs[0].products),
    }


def trajectory(state: State) -> Values:
    """Records θ(t) − θ(0) in the run's scratch file (Figures 4 and 26).

    Columns displacement ‖θ(t) − θ(0)‖ and step_norm, the distance to the point recorded before
    (nan at the first), both in float64 of θ itself.  Keeps m numbers.

    Raises:
        ValueError: for a state without scratch file.
    """
    if state.trajectory is None:
        raise ValueError("trajectory: expected a state with a scratch file, got none")
    point = flatten(p.detach() for p in trainable(state.model).values()) - state.initial
    state.trajectory.record(state.step, point)
    before = state.memory.get("last_point", torch.full_like(point[:1], torch.nan))
    state.memory["last_point"] = point
    return {
        "displacement": float(torch.linalg.vector_norm(point, dtype=torch.float64)),
        "step_norm": float(torch.linalg.vector_norm(point - before, dtype=torch.float64)),
    }


def autocast_check(state: State) -> Values:
    """How far the gradient of a bfloat16 forward pass (``RunConfig.autocast``) is from the exact
    one, both of the probe: columns autocast_error ‖g̃ − g‖/‖g‖ and autocast_cosine cos(g̃, g)."""
    exact = state.probe_gradient[1].double()
    loss = LOSSES[state.loss]
    _, rough, _ = loss_and_gradient(
        state.model, loss, state.probe, chunk=state.chunk, autocast=True
    )
    rough = rough.double()
    cosine = torch.nn.functional.cosine_similarity(rough, exact, dim=0)
    return {
        "autocast_error": float((rough - exact).norm() / exact.norm()),
        "autocast_cosine": float(cosine),
    }


def covariance(state: State) -> Values:
    """K, the covariance of gradients (Jastrzebski et al. 2020): norm λ_K and trace.

    Columns covariance_norm and covariance_trace from L mini-batches of M of the first L·M training
    examples (:func:`~ijrlib.conventions.covariance_batches`), covariance_norm_single and
    covariance_trace_single from each example of the probe, M = 1.  gradient_over_top:
    ‖g‖/‖g_5‖, g the mean of the former and g_5 its projection on the first ``COVARIANCE_TOP``
    eigenvectors of K; nan where there are fewer.  Costs one gradient of the former and about seven
    of the latter.  Keeps as many gradients as the probe has examples.
    """
    x, y = state.train
    count, size = covariance_batches(len(x))
    loss = LOSSES[state.loss]
    batches = (x[: count * size], y[: count * size])
    # a mini-batch of one has no statistics of its own
    with evaluation_mode(state.model) if size == 1 else contextlib.nullcontext():
        found = gradient_covariance(state.model, loss, batches, batch_size=size)
    known = int((found.mixing != 0).any(0).sum())
    top = found.eigenvectors(COVARIANCE_TOP).T @ found.mean
    ratio = float(found.mean.norm() / top.norm()) if known >= COVARIANCE_TOP else float("nan")
    with evaluation_mode(state.model):
        single = gradient_covariance(state.model, loss, state.probe)
    return {
        "covariance_norm": float(found.eigenvalues[0]),
        "covariance_trace": found.trace,
        "gradient_over_top": ratio,
        "covariance_norm_single": float(single.eigenvalues[0]),
        "covariance_trace_single": single.trace,
    }


def break_even(state: State) -> Values:
    """Whether SGD is stable along r, the top eigenvector of H, on the probe.

    Columns curvature_variance, s² = Var_x[rᵀH_x r], which with ‖H‖ gives the criterion of
    :func:`ijrlib.break_even.growth`, and step_width, α*: the least α found with
    L(θ − α(θ(t) − θ(t + 1))) ≥ 1.2·L(θ) or not a number.  It is looked for at α growing by the
    factor √2 from the first of ``WIDTH_LIMITS`` to the last, then by bisection between the first
    such α and the one before it (0 before the first), to ``WIDTH_RTOL``: so a width below the
    first limit is found too, however small.  nan where there is none up to the last limit, and
    where L(θ) is 0 or nan, of which no rise can be told.  Costs about 8 gradients.
    """
    loss = LOSSES[state.loss]
    curvatures = curvatures_along(
        state.model, loss, state.probe, _top_vector(state), chunk=state.chunk
    )
    return {
        "curvature_variance": float(curvatures.double().var(correction=0)),
        "step_width": _step_width(state),
    }


def _step_width(state: State) -> float:
    loss = float(state.probe_gradient[0])
    if not loss > 0:
        return float("nan")

    def rises(alpha: float) -> bool:
        moved = losses_along(
            state.model, LOSSES[state.loss], state.probe, state.update, [-alpha], chunk=state.chunk
        )
        return not next(moved) < WIDTH_RISE * loss

    low, high = 0.0, WIDTH_LIMITS[0]
    while not rises(high):
        low, high = high, high * 2**0.5
        if low >= WIDTH_LIMITS[1]:
            return float("nan")
    while high - low > WIDTH_RTOL * high:
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return high


def hessian_trace(state: State) -> Values:
    """Tr H and ‖H‖_F² of the probe by Hutchinson's estimator: columns hessian_trace and
    hessian_frobenius_sq, each with its standard error in the column of that name and _error.  Costs
    about 2 gradients for each of ``TRACE_SAMPLES`` products."""
    found = hutchinson(state.linearization.hessian, TRACE_SAMPLES, seed=state.step)
    return {
        "hessian_trace": found.trace,
        "hessian_trace_error": found.trace_error,
        "hessian_frobenius_sq": found.frobenius_sq,
        "hessian_frobenius_sq_error": found.frobenius_sq_error,
    }


def sharpest(state: State) -> Values:
    """The sharpest directions e_1, e_2, … and what steps of SGD do along them (Jastrzebski et al.
    2019, Figures 1 to 6, 15 and 16).

    H and L are those of the probe, g_B the gradients of L mini-batches of the first training
    examples (:func:`~ijrlib.conventions.step_batches`), c_i = e_iᵀg_B, k up to ``SHARPEST``.
    Arrays top_values and top_residuals (k,): eigenvalues of H, largest first, and relative
    residuals; gradient_cosines (k,): E|cos(g_B, e_i)|; step_lengths (k,): Δ_i = ηE|c_i|;
    loss_changes: E[L(θ − αηc_1 e_1)] − L(θ) for α in ``STEP_FACTORS``; surfaces: L(θ + xΔ_i e_i)
    for i in ``SURFACE_DIRECTIONS`` that there are and x in ``SURFACE_POINTS``.  Column
    top_products: products with H.  The search starts from the vectors of the measurement before;
    every ``COLD_EVERY``-th is cold.  Costs about 70 gradients of the probe and those of the
    mini-batches.
    """
    memory, loss, linear = state.memory, LOSSES[state.loss], state.linearization
    m = len(linear.gradient)
    count = int(memory.get("sharpest_count", torch.zeros(())))
    starts = memory["measured_sharpest"] if count % COLD_EVERY else None
    pairs = top_eigenpairs(
        linear.hessian,
        min(SHARPEST, m),
        starts,
        rtol=SHARPEST_RTOL,
        max_products=SHARPEST_PRODUCTS,
        seed=state.step,
    )
    vectors = torch.stack([pair.vector for pair in pairs])
    memory["measured_sharpest"], memory["sharpest_count"] = vectors.T, torch.tensor(count + 1)

    x, y = state.train
    batches, size = step_batches(len(x), state.batch_size)
    products, lengths = [], []
    for part in range(batches):
        members = slice(part * size, (part + 1) * size)
        _, g, _ = loss_and_gradient(state.model, loss, (x[members], y[members]), chunk=state.chunk)
        products.append(vectors @ g)
        lengths.append(g.norm())
    c, norms = torch.stack(products), torch.stack(lengths)
    steps = state.lr * c.abs().mean(0)

    def along(i: int, points: Iterable[float]) -> np.ndarray:
        moved = losses_along(state.model, loss, state.probe, vectors[i], points, chunk=state.chunk)
        return np.array(list(moved))

    sizes = state.lr * c[:, 0].cpu().numpy()
    changes = [along(0, -alpha * sizes).mean() for alpha in STEP_FACTORS]
    return {
        "top_values": np.array([pair.value for pair in pairs]),
        "top_residuals": np.array([pair.residual for pair in pairs]),
        "top_products": float(pairs[0].products),
        "gradient_cosines": (c.abs() / norms[:, None]).mean(0).cpu().numpy(),
        "step_lengths": steps.cpu().numpy(),
        "loss_changes": np.array(changes) - float(linear.loss),
        "surfaces": np.stack(
            [
                along(i - 1, float(steps[i - 1]) * SURFACE_POINTS)
                for i in SURFACE_DIRECTIONS
                if i <= len(pairs)
            ]
        ),
    }


def predictions(state: State) -> Values:
    """Array predictions: p of the first ``PREDICTED`` test examples, shape (n, C), in half
    precision (Jastrzebski et al. 2020, Figure 1).

    Raises:
        ValueError: for a state without test examples.
    """
    if state.test is None:
        raise ValueError("predictions: expected a state with test examples, got none")
    z = evaluate(state.model, state.test[0][:PREDICTED], state.chunk)
    return {"predictions": z.softmax(-1).cpu().numpy().astype(np.float16)}


MEASURES: Mapping[str, Callable[[State], Values]] = {
    "impurity": impurity,
    "curvature": curvature,
    "shares": shares,
    "accuracy": accuracy,
    "norms": norms,
    "theorem_2": theorem_2,
    "logit_spectrum": logit_spectrum,
    "algorithm_2": algorithm_2_convergence,
    "alignment": alignment,
    "clusters": clusters,
    "eigenvector_images": eigenvector_images,
    "spectrum": spectrum,
    "outliers": outliers,
    "trajectory": trajectory,
    "autocast_check": autocast_check,
    "covariance": covariance,
    "break_even": break_even,
    "hessian_trace": hessian_trace,
    "sharpest": sharpest,
    "predictions": predictions,
}
