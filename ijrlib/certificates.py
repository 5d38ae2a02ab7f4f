"""Theorem 1 proved for single probability vectors in exact arithmetic (python-flint).

p = w/Σw with integer weights w sums to one exactly, and M = diag(p) − ppᵀ is a rational matrix.
With the distinct positive entries a_1 > … > a_k of p, their multiplicities n_j and n_0 zeros, let

    R(λ) = Π_j (a_j − λ) − Σ_j n_j a_j² Π_{l≠j} (a_l − λ) = v(λ) Π_j (a_j − λ),

of degree k.  A certificate consists of exact statements, none of them up to a tolerance:

* det(λI − M), from the matrix alone, equals (−1)^C (−λ)^{n_0} Π_j (a_j − λ)^{n_j − 1} R(λ) as a
  polynomial with rational coefficients;
* R(a_j) ≠ 0, so the roots of R are those of v; R(0) = 0; R changes sign between a_{j+1} and a_j: k
  roots and the degree is k, so each open interval holds exactly one.

That gives every eigenvalue, as a rational number or as the only root in an open interval, in order
and with multiplicity: (a) with deflation, and (c).  For (b), (M − tI) q(t) = v(t) p with q_i(t) =
p_i/(p_i − t) is checked at more points t than the degree of its sides, which proves it for all t
and, where v(t) = 0, gives the eigenvector.  For (d), λ^(1) is compared with a rational number by
the sign of R there.  Beside all this, and without the characteristic polynomial, the eigenvalues
above rational t are counted by exact elimination of M − tI, and compared with the sign of v(t).
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import flint
import numpy as np
from flint import fmpq, fmpq_mat, fmpq_poly

Bound = Callable[[fmpq], fmpq]
ENCLOSURE_BITS = 200


def half_gini(p1: fmpq) -> fmpq:
    """p₁(1 − p₁), the lower bound of Theorem 1 (d)."""
    return p1 * (1 - p1)


def gini(p1: fmpq) -> fmpq:
    """2 p₁(1 − p₁), the upper bound of Theorem 1 (d)."""
    return 2 * p1 * (1 - p1)


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue: ``low`` itself where low = high, else the only root of R in (low, high)."""

    low: fmpq
    high: fmpq


@dataclass(frozen=True)
class Certificate:
    """What was proved for one p.

    Attributes:
        parts: name of a statement → whether it was proved.
        slacks: the same name → by how much the inequality is strict (0 where it is attained,
            negative where it is violated, infinite for an identity).
    """

    weights: tuple[int, ...]
    parts: dict[str, bool]
    slacks: dict[str, float]


PARTS = (
    "(a) det(λI − M) = (−1)^C Π(p_i − λ)·v(λ), deflated at ties and zeros",
    "(a) λ^(i) is the only root of v between neighbouring distinct p_i, or a tied p_i, or 0",
    "(a) #{λ^(i) > t} = #{p_i > t} − [v(t) < 0], by the exact inertia of M − tI at rational t",
    "(b) (M − tI)(diag(p) − tI)⁻¹p = v(t)p for all t, and the deflated eigenvectors",
    "(b) enclosures of λ^(i) and q^(i): the residual's ball contains 0",
    "(c) p_(i+1) ≤ λ^(i) ≤ p_(i) and λ^(C) = 0",
    "(c) and (d) λ^(1) = p_(1) iff the top is tied, = Gini iff C = 2 or p has two positive entries "
    "at most, = ½Gini iff p is one-hot",
    "(d) ½Gini(p_(1)) ≤ λ^(1)",
    "(d) λ^(1) ≤ Gini(p_(1))",
)


def certify(weights: Sequence[int], lower: Bound = half_gini, upper: Bound = gini) -> Certificate:
    """Prove (a)–(d) for p = w/Σw.

    Args:
        weights: non-negative integers, at least two, not all zero.
        lower, upper: the bounds of (d) as functions of p_(1), so that a wrong one can be shown to
            fail.

    Raises:
        ValueError: for other weights.
    """
    try:
        w = sorted(map(operator.index, weights), reverse=True)
    except TypeError:
        raise ValueError(f"expected whole numbers as weights, got {list(weights)}") from None
    if len(w) < 2 or w[-1] < 0 or w[0] == 0:
        raise ValueError(f"expected at least two non-negative weights, not all zero; got {w}")
    p = [fmpq(n, sum(w)) for n in w]
    matrix = fmpq_mat(
        len(p),
        len(p),
        [(p[i] if i == j else 0) - p[i] * p[j] for i in range(len(p)) for j in range(len(p))],
    )
    distinct = sorted({a for a in p if a > 0}, reverse=True)
    counts = [p.count(a) for a in distinct]
    reduced = _reduced_polynomial(distinct, counts)

    deflated = fmpq_poly([0, -1]) ** p.count(fmpq(0)) * reduced * (-1) ** len(p)
    for a, n in zip(distinct, counts, strict=True):
        deflated *= fmpq_poly([a, -1]) ** (n - 1)
    isolated = (
        all(reduced(a) != 0 for a in distinct)
        and reduced(fmpq(0)) == 0
        and all(reduced(a) * reduced(b) < 0 for a, b in itertools.pairwise(distinct))
        and reduced.degree() == len(distinct)
    )
    spectrum = _spectrum(p, distinct, counts)
    room = _interlacing(reduced, p, spectrum) if isolated else -math.inf
    top = spectrum[0]
    low_sign, low_slack = _compare(reduced, top, lower(p[0]))
    high_sign, high_slack = _compare(reduced, top, upper(p[0]))
    proved = (
        matrix.charpoly() == deflated,
        isolated and len(spectrum) == len(p),
        _inertia_agrees(matrix, p, distinct),
        _eigenvector_identity(matrix, p, distinct) and _deflated_vectors(matrix, p),
        _enclosures(reduced, p, spectrum),
        isolated and room >= 0,  # and R(0) = 0 below the other k − 1 roots: λ^(C) = 0
        isolated and _equalities(reduced, p, top),
        isolated and low_sign >= 0,
        isolated and high_sign <= 0,
    )
    slacks = (*[math.inf] * 5, room, math.inf, low_slack, -high_slack)
    return Certificate(
        tuple(w), dict(zip(PARTS, proved, strict=True)), dict(zip(PARTS, slacks, strict=True))
    )


def _reduced_polynomial(distinct: Sequence[fmpq], counts: Sequence[int]) -> fmpq_poly:
    """R, by its definition."""
    factors = [fmpq_poly([a, -1]) for a in distinct]
    total = fmpq_poly([1])
    for factor in factors:
        total *= factor
    for j, (a, n) in enumerate(zip(distinct, counts, strict=True)):
        term = fmpq_poly([n * a * a])
        for i, factor in enumerate(factors):
            if i != j:
                term *= factor
        total -= term
    return total


def _spectrum(
    p: Sequence[fmpq], distinct: Sequence[fmpq], counts: Sequence[int]
) -> list[Eigenvalue]:
    """The eigenvalues that the factors of the characteristic polynomial give, largest first."""
    out = []
    for j, (a, n) in enumerate(zip(distinct, counts, strict=True)):
        out += [Eigenvalue(a, a)] * (n - 1)
        if j + 1 < len(distinct):
            out.append(Eigenvalue(distinct[j + 1], a))
    zero = fmpq(0)
    return out + [Eigenvalue(zero, zero)] * (1 + p.count(zero))


def _interlacing(reduced: fmpq_poly, p: Sequence[fmpq], spectrum: Sequence[Eigenvalue]) -> float:
    """A lower bound of λ^(i) − p_(i+1) and p_(i) − λ^(i) over i < C: at most a millionth below the
    least of them, and exact where λ^(i) is rational, so that it is 0 where that is."""
    rooms = []
    for upper, lower, value in zip(p[:-1], p[1:], spectrum[:-1], strict=True):
        bits = 60
        while True:
            low, high = _refine(reduced, value, bits)
            room = min(low - lower, upper - high)
            if (high - low) * 10**6 <= abs(room):
                break
            bits *= 2
        rooms.append(room)
    return float(min(rooms))


def _compare(reduced: fmpq_poly, value: Eigenvalue, t: fmpq) -> tuple[int, float]:
    """Sign of λ − t, exactly, and λ − t as a float."""
    if value.low == value.high:
        difference = value.low - t
        return (difference > 0) - (difference < 0), float(difference)
    low, high = _refine(reduced, value, 60)
    middle = float((low + high) / 2 - t)
    if t <= value.low:
        return 1, middle
    if t >= value.high:
        return -1, middle
    at = reduced(t)
    if at == 0:
        return 0, 0.0
    return (1, middle) if at * reduced(value.low) > 0 else (-1, middle)


def _refine(reduced: fmpq_poly, value: Eigenvalue, bits: int) -> tuple[fmpq, fmpq]:
    """Halve the interval until it is 2^-bits of its upper end, by exact signs of R."""
    low, high = value.low, value.high
    below = reduced(low) > 0
    while (high - low) * 2**bits > high:
        middle = (low + high) / 2
        at = reduced(middle)
        if at == 0:
            return middle, middle
        if (at > 0) == below:
            low = middle
        else:
            high = middle
    return low, high


def _inertia_agrees(matrix: fmpq_mat, p: Sequence[fmpq], distinct: Sequence[fmpq]) -> bool:
    """Whether the inertia of M − tI is what the sign of v(t) says, at two t in every interval
    between neighbours of 1, the distinct entries, 0 and −1."""
    ends = [fmpq(1), *(a for a in distinct if a != 1), fmpq(0), fmpq(-1)]
    for right, left in itertools.pairwise(ends):
        for part in (5, 19):  # of 23: away from the simple fractions that v may vanish at
            t = left + (right - left) * fmpq(part, 23)
            v = 1 - sum((a * a / (a - t) for a in p), fmpq(0))
            if v != 0 and positive_inertia(matrix, t) != sum(a > t for a in p) - (v < 0):
                return False
    return True


def positive_inertia(matrix: fmpq_mat, t: fmpq) -> int:
    """Number of eigenvalues above t of a symmetric rational matrix, by exact elimination.

    Sylvester's law: M − tI is reduced by congruences, pivot by pivot.  Where the whole remaining
    diagonal is zero, adding row and column j to i makes an entry of it nonzero.
    """
    size = matrix.nrows()
    rows = [[matrix[i, j] - (t if i == j else 0) for j in range(size)] for i in range(size)]
    positive = 0
    while rows:
        size = len(rows)
        pivot = next((i for i in range(size) if rows[i][i] != 0), None)
        if pivot is None:
            pair = ((i, j) for i in range(size) for j in range(i) if rows[i][j] != 0)
            found = next(pair, None)
            if found is None:
                break
            pivot, other = found
            rows[pivot] = [x + y for x, y in zip(rows[pivot], rows[other], strict=True)]
            for row in rows:
                row[pivot] += row[other]
        head = rows.pop(pivot)
        value = head.pop(pivot)
        positive += value > 0
        for row in rows:
            factor = row.pop(pivot) / value
            if factor != 0:
                row[:] = [x - factor * y for x, y in zip(row, head, strict=True)]
    return positive


def _equalities(reduced: fmpq_poly, p: Sequence[fmpq], top: Eigenvalue) -> bool:
    """Whether the bounds on λ^(1) are attained exactly where they should be, and only there."""
    attained = [_compare(reduced, top, t)[0] == 0 for t in (p[0], gini(p[0]), half_gini(p[0]))]
    support = sum(a > 0 for a in p)
    return attained == [p[0] == p[1], support <= 2, support == 1]


def _eigenvector_identity(matrix: fmpq_mat, p: Sequence[fmpq], distinct: Sequence[fmpq]) -> bool:
    """(M − tI) q(t) = v(t) p at k + 2 rational points t.

    Times Π_j (a_j − t), both sides are polynomials of degree at most k + 1 in each component, so
    agreement at k + 2 points that are no entries of p is agreement everywhere.
    """
    column = fmpq_mat(len(p), 1, list(p))
    for n in range(len(distinct) + 2):
        t = fmpq(-1 - n, 7)  # negative, so p_i − t > 0
        q = fmpq_mat(len(p), 1, [a / (a - t) for a in p])
        v = 1 - sum((a * a / (a - t) for a in p), fmpq(0))
        if matrix * q - t * q != v * column:
            return False
    return True


def _deflated_vectors(matrix: fmpq_mat, p: Sequence[fmpq]) -> bool:
    """M(e_i − e_{i+1}) = p_i (e_i − e_{i+1}) where p_i = p_{i+1}, Me_i = 0 where p_i = 0, M1 =
    0."""

    def eigen(entries: dict[int, int], value: fmpq) -> bool:
        vector = fmpq_mat(len(p), 1, [entries.get(i, 0) for i in range(len(p))])
        return matrix * vector == value * vector

    ties = (i for i in range(len(p) - 1) if p[i] == p[i + 1] > 0)
    zeros = (i for i in range(len(p)) if p[i] == 0)
    return (
        all(eigen({i: 1, i + 1: -1}, p[i]) for i in ties)
        and all(eigen({i: 1}, fmpq(0)) for i in zeros)
        and eigen(dict.fromkeys(range(len(p)), 1), fmpq(0))
    )


def _enclosures(reduced: fmpq_poly, p: Sequence[fmpq], spectrum: Sequence[Eigenvalue]) -> bool:
    """For each irrational λ^(i): a ball of q = (diag(p) − λI)⁻¹p, not containing 0, whose residual
    Mq − λq is a ball that contains 0 and is narrower than 2^-40 of q's norm."""
    before = flint.ctx.prec
    flint.ctx.prec = ENCLOSURE_BITS
    try:
        entries = [flint.arb(a) for a in p]
        for value in spectrum:
            if value.low == value.high:
                continue
            low, high = _refine(reduced, value, 120)
            root = flint.arb(low).union(flint.arb(high))
            gaps = [a - root for a in entries]
            if any(g.contains(0) for g in gaps):
                return False
            q = [a / g for a, g in zip(entries, gaps, strict=True)]
            inner = sum((a * x for a, x in zip(entries, q, strict=True)), flint.arb(0))
            size = max(abs(float(x.mid())) for x in q)
            for a, x in zip(entries, q, strict=True):
                residual = a * x - a * inner - root * x
                if not residual.contains(0) or float(residual.rad()) > 2.0**-40 * size:
                    return False
        return True
    finally:
        flint.ctx.prec = before


def sample(seed: int = 0) -> Iterator[tuple[int, ...]]:
    """Weights to certify: random ones of 1 to 15 digits with C from 2 to 14, rounded Dirichlet
    draws of concentrations 0.05 to 50, near-uniform, near-one-hot, tied, with zeros; uniform,
    one-hot, C = 2."""
    rng = np.random.default_rng(seed)
    for classes in range(2, 15):
        yield (1,) * classes
        yield (1,) + (0,) * (classes - 1)
        yield (10**15,) + (1,) * (classes - 1)
        yield tuple(10**9 + int(n) for n in rng.integers(0, 5, classes))
        for digits in (1, 3, 15):
            yield tuple(int(n) for n in rng.integers(1, 10**digits + 1, classes))
        for concentration in (0.05, 0.5, 5.0, 50.0):
            draw = rng.dirichlet(np.full(classes, concentration))
            yield tuple(
                int(n) for n in np.maximum(np.round(draw * 2.0**50), [1] + [0] * (classes - 1))
            )
        tied = rng.integers(1, 4, classes)
        yield tuple(int(n) for n in tied)
        yield tuple(
            int(n) for n in np.where(rng.random(classes) < 0.5, tied, [1] + [0] * (classes - 1))
        )
