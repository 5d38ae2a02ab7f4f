"""Claims that need no run: derivatives, Theorem 1, Figure 1 and Algorithm 1, checked as the page is
built.

Derivatives are checked against complex-step differentiation, f'(x) = Im f(x + ih)/h + O(h²), which
subtracts nothing and so is exact to double precision at h = 1e-20 (Squire and Trapp, 1998).  All
functions take the runs of their figure, which they ignore, so that they fit the table of claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np

from ijrlib import break_even, logits, power_iteration, theorems
from ijrlib.criteria import Measurement, NotMeasured
from ijrlib.store import Run

ANALYTIC_TOLERANCE = 1e-12
POWER_TOLERANCE = 1e-5
POWER_ITERATIONS = 1000
COMPLEX_STEP = 1e-20
CLASSES = (2, 3, 10, 100)


def battery(distinct: bool = False) -> list[np.ndarray]:
    """Seeded probability vectors, one array of shape (n, C) for each C of ``CLASSES``.

    Dirichlet draws of concentration 0.05, 1 and 20; unless ``distinct``, also the uniform vector,
    a one-hot one, and one with ties and a zero.
    """
    rng = np.random.default_rng(0)
    out = []
    for classes in CLASSES:
        concentrations = (1.0, 20.0) if distinct else (0.05, 1.0, 20.0)
        draws = [rng.dirichlet(np.full(classes, a), size=20) for a in concentrations]
        if not distinct:
            ties = np.zeros(classes)
            ties[: max(2, classes - 1)] = 1 / max(2, classes - 1)
            draws.append(np.stack([np.full(classes, 1 / classes), np.eye(classes)[0], ties]))
        out.append(np.concatenate(draws))
    return out


# -- Eqs 1 to 5, 12 and the Fisher matrix ----------------------------------------------------------


def softmax(z: np.ndarray) -> np.ndarray:
    """p = exp(z)/Σ exp(z) over the last axis, real or complex z."""
    weights = np.exp(z - np.real(z).max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _logits() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [scale * rng.standard_normal(c) for c in CLASSES for scale in (0.1, 1.0, 10.0)]


def _complex_step(f, x: np.ndarray) -> np.ndarray:
    """Matrix of ∂f_j/∂x_i at row i, column j (denominator layout, as ∇_z p in the paper)."""
    steps = COMPLEX_STEP * 1j * np.eye(x.size)
    return np.stack([np.imag(f(x + step)) / COMPLEX_STEP for step in steps])


def _agreement(deviations: list[float]) -> Measurement:
    worst = max(deviations)
    return Measurement(
        f"largest deviation {worst:.1e} over {len(deviations)} cases", worst <= ANALYTIC_TOLERANCE
    )


def equation_1(runs: Sequence[Run]) -> Measurement:
    """∇_z p = diag(p) − ppᵀ."""
    return _agreement(
        [
            float(np.abs(_complex_step(softmax, z) - logits.logit_hessian(softmax(z))).max())
            for z in _logits()
        ]
    )


def equation_2(runs: Sequence[Run]) -> Measurement:
    """∇_z p_y = p_y(e_y − p) for every y."""
    deviations = []
    for z in _logits():
        p, derivative = softmax(z), _complex_step(softmax, z)
        for y in range(z.size):
            deviations.append(
                float(np.abs(derivative[:, y] - p[y] * (np.eye(z.size)[y] - p)).max())
            )
    return _agreement(deviations)


def equation_3(runs: Sequence[Run]) -> Measurement:
    """∇_z ℓ = p − e_y for every y, ℓ = −log p_y."""
    deviations = []
    for z in _logits():
        derivative = _complex_step(lambda u: -np.log(softmax(u)), z)
        for y in range(z.size):
            deviations.append(
                float(np.abs(derivative[:, y] - (softmax(z) - np.eye(z.size)[y])).max())
            )
    return _agreement(deviations)


def equation_4(runs: Sequence[Run]) -> Measurement:
    """∇²_z ℓ = M: the derivative of ∇_z ℓ = p − e_y, which is Eq 3, for every y."""
    deviations = []
    for z in _logits():
        hessian = logits.logit_hessian(softmax(z))
        for onehot in np.eye(z.size):
            derivative = _complex_step(lambda u, onehot=onehot: softmax(u) - onehot, z)
            deviations.append(float(np.abs(derivative - hessian).max()))
    return _agreement(deviations)


def equation_5(runs: Sequence[Run]) -> Measurement:
    """∇²_θ ℓ = JMJᵀ + Σ_j ∇²_θ z_j (p − e_y)_j for z_j(θ) = ½θᵀA_jθ + b_jᵀθ, m = 6, C = 4."""
    rng = np.random.default_rng(2)
    deviations = []
    for _ in range(20):
        a, b = rng.standard_normal((4, 6, 6)), rng.standard_normal((4, 6))
        a, theta, onehot = (a + a.transpose(0, 2, 1)) / 6, rng.standard_normal(6), np.eye(4)[0]

        def gradient(t, a=a, b=b, onehot=onehot):
            jacobian = (a @ t + b).T
            return jacobian @ (softmax(0.5 * np.einsum("i,cij,j->c", t, a, t) + b @ t) - onehot)

        jacobian = (a @ theta + b).T
        p = softmax(0.5 * np.einsum("i,cij,j->c", theta, a, theta) + b @ theta)
        split = jacobian @ logits.logit_hessian(p) @ jacobian.T
        split = split + np.einsum("c,cij->ij", p - onehot, a)
        deviations.append(float(np.abs(_complex_step(gradient, theta) - split).max()))
    return _agreement(deviations)


def equation_12(runs: Sequence[Run]) -> Measurement:
    """tr(JMJᵀ) = Σ_i λ^(i)‖Jq^(i)‖² for random J of shape (7, C), relative to tr(JMJᵀ) or
    10⁻³, whichever is larger (it is 0 where p is certain)."""
    rng = np.random.default_rng(3)
    deviations = []
    for p in battery():
        jacobian = rng.standard_normal((7, p.shape[1]))
        values, vectors = logits.eigensystem(p)
        trace = np.einsum("mi,nij,mj->n", jacobian, logits.logit_hessian(p), jacobian)
        parts = (values * ((jacobian @ vectors) ** 2).sum(axis=1)).sum(axis=1)
        deviations.append(float((np.abs(parts - trace) / np.maximum(trace, 1e-3)).max()))
    return _agreement(deviations)


def fisher_is_logit_hessian(runs: Sequence[Run]) -> Measurement:
    """Σ_y p_y (p − e_y)(p − e_y)ᵀ = M."""
    deviations = []
    for p in battery():
        residual = p[:, None, :] - np.eye(p.shape[1])
        fisher = np.einsum("ny,nyi,nyj->nij", p, residual, residual)
        deviations.append(float(np.abs(fisher - logits.logit_hessian(p)).max()))
    return _agreement(deviations)


# -- explicit regularization -----------------------------------------------------------------------

DRAWS = 10_000
STANDARD_ERRORS = 4.0
HALVINGS = 6


def _norm_estimates(jacobian: np.ndarray, u: np.ndarray) -> np.ndarray:
    """C·‖Ju‖² for each row of u."""
    return u.shape[1] * ((u @ jacobian.T) ** 2).sum(axis=1)


def ejr_estimator(runs: Sequence[Run]) -> Measurement:
    """C·‖Ju‖² over ``DRAWS`` draws of u on the sphere, against ‖J‖_F², for random J (50, C)."""
    rng = np.random.default_rng(4)
    off = []
    for classes in CLASSES:
        jacobian = rng.standard_normal((50, classes)) * rng.exponential(size=classes)
        u = rng.standard_normal((DRAWS, classes))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        values = _norm_estimates(jacobian, u)
        error = values.std(ddof=1) / DRAWS**0.5
        off.append(float(abs(values.mean() - (jacobian**2).sum()) / error))
    return Measurement(
        f"off by {min(off):.2f} to {max(off):.2f} standard errors, C = "
        f"{', '.join(map(str, CLASSES))}",
        max(off) <= STANDARD_ERRORS,
    )


def _first_order(gradient: np.ndarray, along: np.ndarray, length: float, mu: float) -> float:
    """∇Lᵀ⟨J⟩u/‖⟨J⟩u‖ + μ‖⟨J⟩u‖, for ⟨J⟩u of this direction and length."""
    return float(gradient @ along + mu * length)


def ejr_first_order(runs: Sequence[Run]) -> Measurement:
    """The remainder of Eqs 40 to 43, R = L̃(θ̃) − L̃(θ) − ρ(∇Lᵀ⟨J⟩u/‖⟨J⟩u‖ + μ‖⟨J⟩u‖), divided by ρ²,
    for the network of :func:`equation_5` on five examples and μ = ½.

    Taylor's theorem bounds |R|/ρ² by half of the largest second derivative of L̃ on the way.
    """
    rng = np.random.default_rng(5)
    first_rho, mu, worst, last = 0.25, 0.5, 0.0, 0.0
    for _ in range(20):
        a, b = rng.standard_normal((5, 4, 6, 6)), rng.standard_normal((5, 4, 6))
        a, theta, labels = (a + a.transpose(0, 1, 3, 2)) / 6, rng.standard_normal(6), np.eye(4)
        onehot = labels[rng.integers(4, size=5)]
        u = rng.standard_normal(4)
        u /= np.linalg.norm(u)

        def value(t, a=a, b=b, onehot=onehot, u=u):
            z = 0.5 * np.einsum("i,ncij,j->nc", t, a, t) + b @ t
            return -np.log((softmax(z) * onehot).sum(axis=1)).mean() + mu * z.mean(axis=0) @ u

        def slope(t, a=a, b=b, onehot=onehot, u=u):
            jacobians = a @ t + b
            p = softmax(0.5 * np.einsum("i,ncij,j->nc", t, a, t) + b @ t)
            weights = (p - onehot + mu * u) / len(p)
            return np.einsum("nci,nc->i", jacobians, weights)

        along = (a @ theta + b).mean(axis=0).T @ u
        length = float(np.linalg.norm(along))
        along /= length
        without = slope(theta) - mu * length * along  # ∇L
        first_order = _first_order(without, along, length, mu)
        way = np.linspace(0, first_rho, 201)
        second = [np.imag(slope(theta + (t + COMPLEX_STEP * 1j) * along)) @ along for t in way]
        bound = 0.5 * np.abs(second).max() / COMPLEX_STEP
        for k in range(HALVINGS + 1):
            rho = first_rho / 2**k
            rest = value(theta + rho * along) - value(theta) - rho * first_order
            share = float(abs(rest) / rho**2 / bound)
            worst = max(worst, share)
        last = max(last, share)
    return Measurement(
        f"|R|/ρ² at most {worst:.3f} of half the largest second derivative for ρ = {first_rho:g} "
        f"and {HALVINGS} halvings (for the last of them {last:.3f}), 20 cases",
        worst <= 1 + 1e-3,
    )


# -- Theorem 1 and Figure 1 ------------------------------------------------------------------------


def theorem_1(part: str, runs: Sequence[Run]) -> Measurement:
    """Each statement of one part (a–d) of Theorem 1 with its worst slack over the battery: that
    closest to a violation, with what rounding may take of it there."""
    checks = [
        check
        for p in battery()
        for check in theorems.verify_theorem_1(p)
        if f"({part})" in check.statement
    ]
    if not checks:
        raise NotMeasured(f"verify_theorem_1 reports no check of part ({part})")
    told = []
    for statement in dict.fromkeys(check.statement for check in checks):
        same = [check for check in checks if check.statement == statement]
        worst = min(same, key=lambda check: check.slack + check.allowance)
        told.append(
            f"{statement.partition(': ')[2]}: worst slack {worst.slack + 0.0:.2g}, "
            f"rounding allows {-worst.allowance + 0.0:.2g}"
        )
    return Measurement("; ".join(told), all(check.passed for check in checks))


def poles(runs: Sequence[Run]) -> Measurement:
    """Signs of v just below and just above every p_i."""
    count, right = 0, 0
    for p in np.concatenate([q for q in battery(distinct=True) if q.shape[1] == 10]):
        below, above = logits.secular(p, p * (1 - 1e-9)), logits.secular(p, p * (1 + 1e-9))
        right += int(((below < 0) & (above > 0)).sum())
        count += p.size
    return Measurement(f"sign as claimed at {right} of {count} poles", right == count)


def roots_interlace(runs: Sequence[Run]) -> Measurement:
    """One change of sign of v across every eigenvalue, each between its two poles; the last is
    0."""
    count, right = 0, 0
    for p in np.concatenate([q for q in battery(distinct=True) if q.shape[1] == 10]):
        values, _ = logits.eigensystem(p)
        roots, upper, lower = values[:-1], -np.sort(-p)[:-1], -np.sort(-p)[1:]
        inside = (lower < roots) & (roots < upper)
        before = logits.secular(p, roots - 1e-6 * (roots - lower))
        after = logits.secular(p, roots + 1e-6 * (upper - roots))
        right += int((inside & (before > 0) & (after < 0)).sum()) + int(abs(values[-1]) < 1e-15)
        count += p.size
    return Measurement(f"as claimed for {right} of {count} roots", right == count)


# -- Algorithm 1 -----------------------------------------------------------------------------------


def algorithm_1(runs: Sequence[Run]) -> Measurement:
    """Power iteration for λ^(1) against the secular equation."""
    return _power(deflate=False)


def algorithm_1_deflated(runs: Sequence[Run]) -> Measurement:
    """Power iteration on M − λ^(1)q^(1)q^(1)ᵀ against λ^(2)."""
    return _power(deflate=True)


@cache
def _power(deflate: bool) -> Measurement:
    errors = []
    for p in battery():
        exact = logits.eigensystem(p)[0][:, 1] if deflate else logits.impurity(p)
        estimate = power_iteration.power_iterates(p, POWER_ITERATIONS, deflate=deflate)[:, -1]
        errors.append(np.abs(estimate - exact))
    worst = max(float(error.max()) for error in errors)
    return Measurement(
        f"largest deviation {worst:.1e} after {POWER_ITERATIONS} iterations, "
        f"{sum(map(len, errors))} vectors p",
        worst <= POWER_TOLERANCE,
    )


# -- the model of the break-even point -------------------------------------------------------------


def break_even_criterion(runs: Sequence[Run]) -> Measurement:
    """The growth of E[ψ²] against the mean over all mini-batches, in rational arithmetic."""
    rng, exact, cases = np.random.default_rng(2), 0, 0
    for examples in range(2, 9):
        curvatures = [Fraction(int(h), 7) for h in rng.integers(-9, 30, size=examples)]
        mean = sum(curvatures, Fraction(0)) / examples
        variance = sum(((h - mean) ** 2 for h in curvatures), Fraction(0)) / examples
        for size in range(1, examples + 1):
            lr = Fraction(int(rng.integers(1, 20)), 10)
            formula = break_even.growth(lr, mean, variance, examples, size)
            exact += formula == break_even.enumerated_growth(lr, curvatures, size)
            cases += 1
    return Measurement(f"equal in {exact} of {cases} cases", exact == cases)


def break_even_theorem(runs: Sequence[Run], rising: bool) -> Measurement:
    """The curvature λ at which SGD first becomes unstable as λ rises from a stable one (Theorem 1),
    or first stable as it falls from an unstable one (Theorem 2), by the criterion with s² = αλ: its
    distance from λ_c, and whether it falls with η and rises with S."""
    found: dict[tuple[float, float, int], float] = {}
    worst = 0.0
    for alpha in ALPHAS:
        for lr in RATES:
            for size in SIZES:
                place = _boundary(lr, alpha, size, rising)
                exact = break_even.critical_curvature(lr, alpha, EXAMPLES, size)
                worst = max(worst, abs(place / exact - 1))
                found[alpha, lr, size] = place
    ordered = all(
        found[a, r, s] > found[a, q, s] for a in ALPHAS for r, q in pairwise(RATES) for s in SIZES
    ) and all(
        found[a, r, s] < found[a, r, t] for a in ALPHAS for r in RATES for s, t in pairwise(SIZES)
    )
    return Measurement(
        f"within {worst:.1e} of λ_c, {'in' if ordered else 'not in'} the order of the theorem, "
        f"{len(found)} settings",
        ordered and worst <= BISECTION,
    )


ALPHAS, RATES = (0.1, 1.0, 5.0), (0.01, 0.03, 0.1, 0.3)
SIZES, EXAMPLES = (1, 8, 32, 128, 1000), 1000
BISECTION = 1e-9


def _boundary(lr: float, alpha: float, size: int, rising: bool) -> float:
    """Where stability changes first on the way up from a small λ (``rising``) or down from a large
    one: a walk in steps of a thousandth, then bisection."""

    def stable(curvature: float) -> bool:
        variance = alpha * curvature
        return break_even.growth(lr, curvature, variance, EXAMPLES, size) <= 1

    here, factor = (1e-3 / lr, 1.001) if rising else (1e3 / lr, 1 / 1.001)
    while stable(here) == rising:
        here *= factor
    below, above = sorted((here / factor, here))
    while above - below > BISECTION / 4 * above:
        middle = (below + above) / 2
        below, above = (middle, above) if stable(middle) else (below, middle)
    return (below + above) / 2
