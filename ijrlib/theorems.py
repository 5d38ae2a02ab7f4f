"""Numerical verification of Theorems 1 and 2: each check says what holds, by how much, and where
it is closest to failing.

Theorem 1 needs no torch.  Theorem 2 imports it inside its functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ijrlib import logits


@dataclass(frozen=True)
class Check:
    """One statement, checked on many cases.

    Attributes:
        statement: what was checked, beginning with the theorem and its part.
        slack: by how much it holds in the worst case; negative where it is violated.
        where: the worst case.
        passed: slack ≥ −allowance; False for nan.
        cases: how many cases were checked.
        allowance: what rounding may take; 0 for exact arithmetic.
    """

    statement: str
    slack: float
    where: str
    passed: bool
    cases: int
    allowance: float


STATEMENTS_1 = (
    "Theorem 1 (a): λ^(i) is the i-th largest root of v",
    "Theorem 1 (a), deflation: λ^(i) = p_(i) at a tie, 0 at a zero",
    "Theorem 1 (b): q^(i) is aligned with (diag(p) − λ^(i) I)⁻¹p",
    "Theorem 1 (b): Mq^(i) = λ^(i) q^(i)",
    "Theorem 1 (c): p_(i+1) ≤ λ^(i) ≤ p_(i), λ^(C) = 0",
    "Theorem 1 (d): ½Gini(p_(1)) ≤ λ^(1)",
    "Theorem 1 (d): λ^(1) ≤ Gini(p_(1))",
)


def verify_theorem_1(p: Any, upper_factor: float = 2.0) -> list[Check]:
    """Theorem 1 for every row of p, with the eigensystem that :mod:`ijrlib.logits` computes.

    Let u be the unit roundoff of p's type, τ its smallest normal number (below it a number is
    rounded by uτ and no longer relatively), K = C + 8 and r_j = p_j − λ.  What is allowed is the
    effect of K roundings, each relative to what it rounds:

    * (a) v(λ) for a computed root: the terms p_j²/r_j of v add up to Σ p_j²/|r_j|, and rounding p
      and λ moves v by at most u Σ p_j²(p_j + λ + τ)/r_j².  The slack is −|v(λ)| relative to one
      plus these two sums, and the allowance Ku.  (v is evaluated in float64.)  p that sums to 1 +
      s moves v by s, which is subtracted.
      This says nothing within Ku(p_j + λ) of a pole p_j, where the second sum outgrows v, and at
      the pole there is no v(λ).  So the root itself has to lie within δ = Ku(2λ + τ) of λ, or the
      slack is −∞, here and in the first of (b); at a pole that is so close to its root it is 0.
      v falls from +∞ at p_(i+1) to −∞ at p_(i), hence the root is within δ if and only if λ − δ ≤
      p_(i+1) or v(λ − δ) ≥ 0, and λ + δ ≥ p_(i) or v(λ + δ) ≤ 0.  (δ: v = 0 says that the sums of
      p_j/|r_j| above and below λ are equal; their quotient grows at least in proportion to λ, so
      that K roundings in each sum move the root by at most 2Kuλ.)
    * (a), deflation: equality, without any allowance.
    * (b) a vector x_j = p_j/r_j that is formed from the rounded λ has relative errors u(p_j +
      λ)/|r_j| in its entries; the slack is −‖q − x/‖x‖‖ relative to one plus the norm of these
      errors.  The residual ‖Mq − λq‖ is relative to p_(1).
    * (c) relative to p_(1); (d) relative to ½Gini(p_(1)), with 1 − p_(1) the sum of the other
      entries.

    Args:
        p: numpy array (…, C) of float32 or float64, rows as in
            :func:`ijrlib.logits.check_probabilities`.
        upper_factor: the upper bound of (d) is this times p_(1)(1 − p_(1)); below 2 it is wrong,
            and the check fails.

    Returns:
        A check for each of ``STATEMENTS_1``, with the worst slack over rows and i.

    Raises:
        ValueError: for p without rows, or with one that is no probability vector.
    """
    p = np.asarray(p)
    if p.ndim < 1 or p.size == 0:
        raise ValueError(f"p: expected at least one row of probabilities, got shape {p.shape}")
    p = p.reshape(-1, p.shape[-1])
    logits.check_probabilities(p)
    unit = float(np.finfo(p.dtype).eps) / 2
    tiny = float(np.finfo(p.dtype).smallest_normal)
    allowance = (p.shape[1] + 8) * unit
    values, vectors = logits.eigensystem(p)
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1).astype(np.float64)
    vectors = np.take_along_axis(vectors, order[:, :, None], axis=1).astype(np.float64)
    values = values.astype(np.float64)
    missed = _missed(ranked, values, allowance * (2 * np.abs(values) + tiny))
    alignment = _alignment_slack(ranked, values, vectors, tiny)
    slacks = {
        STATEMENTS_1[0]: np.where(missed, -np.inf, _secular_slack(ranked, values, tiny)),
        STATEMENTS_1[1]: _deflation_slack(ranked, values),
        STATEMENTS_1[2]: np.where(missed, -np.inf, alignment),
        STATEMENTS_1[3]: _residual_slack(ranked, values, vectors),
        STATEMENTS_1[4]: _interlacing_slack(ranked, values),
    }
    half = ranked[:, 0] * ranked[:, 1:].sum(axis=1)
    scale = np.where(half > 0, half, 1.0)
    slacks[STATEMENTS_1[5]] = ((values[:, 0] - half) / scale)[:, None]
    slacks[STATEMENTS_1[6]] = ((upper_factor * half - values[:, 0]) / scale)[:, None]
    return [
        _worst_of(statement, slack, p, 0.0 if "deflation" in statement else allowance)
        for statement, slack in slacks.items()
    ]


def _worst_of(statement: str, slack: np.ndarray, p: np.ndarray, allowance: float) -> Check:
    """The check of one statement from its slacks, shape (rows, indices); nan counts as violated."""
    flat = np.where(np.isnan(slack), -np.inf, slack)
    row, index = np.unravel_index(int(np.argmin(flat)), flat.shape)
    worst = float(slack[row, index])
    top = float(p[row].max())
    where = f"C = {p.shape[1]}, {p.dtype}, p_(1) = {top:.6g}, i = {index + 1}"
    return Check(statement, worst, where, worst >= -allowance, len(p), allowance)


def _distinct(ranked: np.ndarray) -> np.ndarray:
    """Whether i is a root of v, not deflated: p_(i) > p_(i+1) > 0; shape (N, C − 1)."""
    return (ranked[:, :-1] > ranked[:, 1:]) & (ranked[:, 1:] > 0)


def _missed(ranked: np.ndarray, values: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Whether the root of v between p_(i+1) and p_(i) is farther than delta from λ^(i), or λ^(i) is
    nan; False where λ^(i) is deflated.  Shape (N, C − 1)."""
    missed = _distinct(ranked)
    for i in range(ranked.shape[1] - 1):
        right, left = ranked[:, i], ranked[:, i + 1]
        low, high = values[:, i] - delta[:, i], values[:, i] + delta[:, i]
        above = (low <= left) | ((low < right) & (logits.secular(ranked, low) >= 0))
        below = (high >= right) | ((high > left) & (logits.secular(ranked, high) <= 0))
        missed[:, i] &= ~(above & below)
    return missed


def _secular_slack(ranked: np.ndarray, values: np.ndarray, tiny: float) -> np.ndarray:
    slack = np.zeros_like(values[:, :-1])
    excess = np.abs(1 - ranked.sum(axis=1))
    for i in range(ranked.shape[1] - 1):  # one root at a time: memory O(N C)
        lam = values[:, i, None]
        gap = ranked - lam
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratios = ranked / gap
            v = 1 - (ranked * ratios).sum(axis=1)
            scale = 1 + (ranked * np.abs(ratios)).sum(axis=1)
            scale += (ratios**2 * (ranked + lam + tiny)).sum(axis=1)
            ratio = np.maximum(np.abs(v) - excess, 0) / scale
        at_pole = ((gap == 0) & (ranked > 0)).any(axis=1)  # excused unless _missed
        slack[:, i] = -np.where(at_pole, 0.0, ratio)
    return np.where(_distinct(ranked), slack, 0.0)


def _deflation_slack(ranked: np.ndarray, values: np.ndarray) -> np.ndarray:
    tie = (ranked[:, :-1] == ranked[:, 1:]) | (ranked[:, 1:] == 0)
    return -np.where(tie, np.abs(values[:, :-1] - ranked[:, 1:]), 0.0)


def _alignment_slack(
    ranked: np.ndarray, values: np.ndarray, vectors: np.ndarray, tiny: float
) -> np.ndarray:
    slack = np.zeros_like(values[:, :-1])
    for i in range(ranked.shape[1] - 1):
        lam, q = values[:, i, None], vectors[:, :, i]
        gap = ranked - lam
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x = ranked / gap
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
            x = x * np.sign(x[:, i, None])  # the sign convention of q^(i)
            error = np.linalg.norm((ranked + lam + tiny) / np.abs(gap) * x, axis=1)
            ratio = np.linalg.norm(q - x, axis=1) / (1 + error)
        at_pole = ((gap == 0) & (ranked > 0)).any(axis=1)
        slack[:, i] = -np.where(at_pole, 0.0, ratio)
    return np.where(_distinct(ranked), slack, 0.0)


def _residual_slack(ranked: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    inner = np.einsum("nj,nji->ni", ranked, vectors)
    residual = ranked[:, :, None] * (vectors - inner[:, None, :]) - values[:, None, :] * vectors
    return -np.linalg.norm(residual, axis=1) / ranked[:, :1]


def _interlacing_slack(ranked: np.ndarray, values: np.ndarray) -> np.ndarray:
    inside = np.minimum(values[:, :-1] - ranked[:, 1:], ranked[:, :-1] - values[:, :-1])
    return np.concatenate([inside / ranked[:, :1], -np.abs(values[:, -1:])], axis=1)


BATTERY = {2: 800, 3: 800, 5: 800, 10: 800, 30: 60, 100: 12, 300: 2, 1000: 1}
"""C → rows of each kind and type: 97 in 100 of the vectors have at most ten classes."""


def battery(seed: int = 0) -> Iterator[np.ndarray]:
    """Probability vectors for Theorem 1, (n, C) at a time, in float64 and in float32.

    For each C of ``BATTERY`` the same number of rows of each of sixteen kinds: Dirichlet of
    concentration 0.01, 0.1, 1, 10, 100; uniform, and within 10⁻³, 10⁻⁷, 10⁻¹² of it; softmax of
    normal logits times 1, 10, 100, 800 (the last with subnormal entries and zeros); a Dirichlet
    draw with half of the entries set to zero; ties, from three integer logits; one-hot.
    """
    rng = np.random.default_rng(seed)
    for classes, rows in BATTERY.items():
        shape = (rows, classes)
        draws = [rng.dirichlet(np.full(classes, a), rows) for a in (0.01, 0.1, 1.0, 10.0, 100.0)]
        draws += [1 + size * rng.standard_normal(shape) for size in (0.0, 1e-3, 1e-7, 1e-12)]
        draws += [_exponentials(size * rng.standard_normal(shape)) for size in (1, 10, 100, 800)]
        kept = rng.random(shape) < 0.5
        kept[:, 0] = True
        draws.append(rng.dirichlet(np.ones(classes), rows) * kept)
        draws.append(_exponentials(rng.integers(0, 3, shape).astype(float)))
        draws.append(np.eye(classes)[rng.integers(0, classes, rows)])
        p = np.concatenate([np.abs(d) / np.abs(d).sum(axis=1, keepdims=True) for d in draws])
        yield p
        yield p.astype(np.float32)


def _exponentials(z: np.ndarray) -> np.ndarray:
    return np.exp(z - z.max(axis=1, keepdims=True))


def theorem_1_report(seed: int = 0, upper_factor: float = 2.0) -> list[Check]:
    """All that ``ijr verify`` says of Theorem 1: the battery, and certificates in exact arithmetic.

    Args:
        seed: of the probability vectors.
        upper_factor: as in :func:`verify_theorem_1`, for both.
    """
    worst: dict[str, Check] = {}
    for p in battery(seed):
        for check in verify_theorem_1(p, upper_factor):
            worst[check.statement] = _worse(worst.get(check.statement), check)
    return [*worst.values(), *certified(seed, upper_factor)]


def certified(seed: int = 0, upper_factor: float = 2.0) -> list[Check]:
    """The parts of :mod:`ijrlib.certificates`, each with its least slack over the sample."""
    from flint import fmpq

    from ijrlib import certificates

    factor = fmpq(*upper_factor.as_integer_ratio())
    proofs = [
        certificates.certify(w, upper=lambda p: factor * certificates.half_gini(p))
        for w in certificates.sample(seed)
    ]
    checks = []
    for part in certificates.PARTS:
        failed = [proof for proof in proofs if not proof.parts[part]]
        worst = min(failed or proofs, key=lambda proof: proof.slacks[part])
        checks.append(
            Check(
                f"Theorem 1 {part} [certified]",
                worst.slacks[part],
                f"weights {str(worst.weights)[:60]}",
                not failed,
                len(proofs),
                0.0,
            )
        )
    return checks


def verify_theorem_2(
    model: Any, x: Any, loss: str = "cross_entropy", rtol: float = 1e-3
) -> list[Check]:
    """Theorem 2 for a network and inputs, constructively (PAPER section 4); needs torch.

    With q* the unit top eigenvector of G, v_x = J_xᵀq* and λ*_x = v_xᵀM_xv_x/‖J_x‖² it checks, in
    the mode the model is in (batch norm: evaluation mode, or J_x is not defined),

    * Gq* = ‖G‖q*, to a relative residual of ``rtol``;
    * that a second search, from another start, finds no eigenvalue larger than ‖G‖, relatively and
      up to the residual of q*;
    * ‖G‖ = ⟨λ*‖J‖²⟩, relatively;
    * 0 ≤ λ*_x and λ*_x ≤ λ^(1)_x for every x, relative to λ^(1)_x;
    * ‖G‖ ≤ ⟨λ^(1)‖J‖²⟩, relatively.

    The last four hold for every unit vector in the place of q*, so that they are granted rounding
    only; it is the first two that tell q* from another one.  To first order the relative error of
    a chain of layers is u·Σ fan-in, with u the unit roundoff.  ‖G‖ is a product of two passes
    (forward and reverse mode), ⟨λ*‖J‖²⟩ the square of a forward pass: each has twice that error,
    their difference four times, and that is what is allowed.

    Args:
        model: maps x (N, …) to logits (N, C).
        loss: "cross_entropy", or "squared" (App. M: M = I, λ^(1) = 1).
        rtol: relative residual of q*.

    Raises:
        ValueError: for another loss.
        ModuleNotFoundError: without torch.
    """
    import torch

    from ijrlib.operators import LOSSES, gauss_newton
    from ijrlib.sharpness_bound import sharpness_bound
    from ijrlib.spectra import top_eigenpair

    bound = sharpness_bound(model, x, loss, rtol=rtol)
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)  # M does not depend on them
    again = top_eigenpair(gauss_newton(model, LOSSES[loss], (x, labels)), rtol=rtol, seed=1)
    unit = torch.finfo(bound.vector.dtype).eps / 2
    terms = sum(p.numel() // (max(1, len(p)) if p.ndim else 1) for p in model.parameters())
    rounding = 4 * unit * terms  # a bias counts once
    relative = bound.norm or 1.0
    scale = torch.where(bound.lambda_1 > 0, bound.lambda_1, torch.ones_like(bound.lambda_1))
    star = bound.lambda_star / scale
    gap = (bound.lambda_1 - bound.lambda_star) / scale
    residual = f"residual of q* {bound.residual:.1e}"
    count = len(bound.lambda_star)
    kind = "" if loss == "cross_entropy" else f" [{loss} loss]"

    def check(statement: str, slack: float, where: str, allowance: float) -> Check:
        passed = slack >= -allowance  # False for nan
        return Check(f"Theorem 2{kind}: {statement}", slack, where, passed, count, allowance)

    return [
        check("Gq* = ‖G‖q*", -bound.residual, residual, rtol),
        check(
            "no eigenvalue of G above ‖G‖",
            (bound.norm - again.value) / relative,
            residual,
            bound.residual + rounding,
        ),
        check("‖G‖ = ⟨λ*‖J‖²⟩", -abs(bound.norm - bound.mean) / relative, residual, rounding),
        check("0 ≤ λ*", float(star.min()), f"example {int(star.argmin())}", rounding),
        check("λ* ≤ λ^(1)", float(gap.min()), f"example {int(gap.argmin())}", rounding),
        check("‖G‖ ≤ ⟨λ^(1)‖J‖²⟩", (bound.bound - bound.norm) / relative, residual, rounding),
    ]


THEOREM_2_NETWORKS = {  # name -> (digits, steps of gradient descent)
    "3fcn_mnist": (16, 50),
    "3fcn_cifar": (16, 50),
    "6cnn": (8, 20),
    "simple_cnn": (8, 20),
    "resnet20": (8, 20),
    "vgg": (1, 5),
    "vgg_cifar100": (1, 5),
    "wrn28_10": (1, 1),
    "wrn28_10_cifar100": (1, 1),
}


def theorem_2_report(seed: int = 0) -> list[Check]:
    """Theorem 2 on the paper's nine networks, at initialization and after a short training on
    scikit-learn's digits (η = 0.05); needs torch.

    A few digits a network, since the theorem holds for any set of inputs; q* to a residual of 1e-2;
    the squared loss on networks of up to a million parameters.  Returns each statement once, with
    the case that comes closest to a violation (or exceeds it by most).
    """
    from ijrlib import datasets, networks
    from ijrlib.operators import LOSSES
    from ijrlib.training import train

    worst: dict[str, Check] = {}
    for name, (count, steps) in THEOREM_2_NETWORKS.items():
        shape, classes = networks.INPUT_SHAPES[name], networks.CLASSES[name]
        data = datasets.load("digits", count, shape, classes, seed)
        model = networks.build(name, seed=seed).eval()
        small = sum(p.numel() for p in model.parameters()) <= 1_000_000
        for stage, length in {"at initialization": 0, f"after {steps} steps": steps}.items():
            for _ in train(model, LOSSES["cross_entropy"], data.x, data.y, lr=0.05, steps=length):
                pass
            for loss in LOSSES if small else ("cross_entropy",):
                for check in verify_theorem_2(model, data.x, loss, rtol=1e-2):
                    check = dataclasses.replace(check, where=f"{name} {stage}, {check.where}")
                    worst[check.statement] = _worse(worst.get(check.statement), check)
    return list(worst.values())


def _worse(known: Check | None, new: Check) -> Check:
    """The check with less room, over the cases of both."""
    if known is None:
        return new
    room = known.slack + known.allowance, new.slack + new.allowance
    pick = known if room[0] <= room[1] else new  # a nan is picked either way round
    if room[0] != room[0]:
        pick = known
    return dataclasses.replace(pick, cases=known.cases + new.cases)
