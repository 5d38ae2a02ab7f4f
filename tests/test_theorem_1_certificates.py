"""Exact proofs of Theorem 1: against spectra known in closed form, and that they can fail."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from flint import fmpq, fmpq_mat, fmpq_poly

from ijrlib import certificates
from ijrlib.certificates import PARTS, Eigenvalue, certify, gini, half_gini, sample

CHARPOLY, ROOTS, INERTIA, VECTORS, BALLS, INTERLACING, EQUALITIES, LOWER, UPPER = PARTS
SAMPLE = list(sample())


def test_every_vector_of_the_sample_is_proved_in_every_part():
    assert len(SAMPLE) > 150
    for weights in SAMPLE:
        certificate = certify(weights)
        assert set(certificate.parts) == set(PARTS)
        assert all(certificate.parts.values()), certificate


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (10**15, 1), (5, 2)])
def test_two_classes_attain_the_upper_bound_exactly(weights):
    assert certify(weights).slacks[UPPER] == 0


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_one_hot_attains_both_bounds_exactly(classes):
    certificate = certify((1,) + (0,) * (classes - 1))
    assert certificate.slacks[LOWER] == certificate.slacks[UPPER] == 0


@pytest.mark.parametrize("classes", [3, 10])
def test_uniform_attains_interlacing_exactly(classes):
    certificate = certify((1,) * classes)
    assert certificate.slacks[INTERLACING] == 0
    # λ^(1) = 1/C lies 1/C² above ½Gini = (C − 1)/C²
    assert certificate.slacks[LOWER] == pytest.approx(1 / classes**2, rel=1e-12)


def test_the_room_of_interlacing_is_that_of_the_closed_form():
    """p = (3, 2, 1)/6: λ² − (11/18)λ + 1/12 = 0, so that λ^(2) = (11 − √13)/36 is closest to p."""
    assert certify((3, 2, 1)).slacks[INTERLACING] == pytest.approx((5 - 13**0.5) / 36, rel=1.1e-6)
    assert certify((3, 1)).slacks[INTERLACING] == 3 / 8 - 1 / 4


@pytest.mark.parametrize("weights", SAMPLE[::7])
def test_the_room_of_interlacing_is_a_lower_bound_and_0_only_where_attained(weights):
    """Against mpmath's dense eigenvalues to 60 digits."""
    w = sorted(weights, reverse=True)
    with mpmath.workdps(60):
        p = [mpmath.mpf(n) / sum(w) for n in w]
        column = mpmath.matrix(p)
        matrix = mpmath.diag(p) - column * column.T
        values = sorted(mpmath.eigsy(matrix, eigvals_only=True), reverse=True)
        room = min(min(p[i] - values[i], values[i] - p[i + 1]) for i in range(len(p) - 1))
    slack = certify(weights).slacks[INTERLACING]
    if len(set(w)) < len(w) or 0 in w:  # a tie or a zero
        assert slack == 0
    else:  # at most a millionth below, and rounded to double precision
        assert 0 < slack == pytest.approx(float(room), rel=1.1e-6)
        assert slack <= room * (1 + mpmath.mpf(2) ** -53)


def test_eigenvalues_in_another_order_do_not_interlace(monkeypatch):
    right = certificates._spectrum
    monkeypatch.setattr(certificates, "_spectrum", lambda *args: right(*args)[::-1])
    certificate = certify((4, 3, 2))
    assert not certificate.parts[INTERLACING] and certificate.slacks[INTERLACING] < 0


@pytest.mark.parametrize("weights", SAMPLE[::7])
def test_the_least_room_agrees_with_dense_eigenvalues(weights):
    p = np.sort(np.array([float(Fraction(w, sum(weights))) for w in weights]))[::-1]
    top = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[-1]
    half = p[0] * p[1:].sum()
    certificate = certify(weights)
    # eigvalsh: a few C·eps
    assert certificate.slacks[LOWER] == pytest.approx(top - half, abs=1e-14)
    assert certificate.slacks[UPPER] == pytest.approx(2 * half - top, abs=1e-14)


def test_a_wrong_upper_bound_fails_where_it_is_wrong_and_nowhere_else():
    def wrong(p1):
        return fmpq(19, 10) * half_gini(p1)

    for weights, holds in (((1, 1), False), ((1, 2, 3, 4, 5), True)):
        certificate = certify(weights, upper=wrong)
        assert certificate.parts[UPPER] == holds
        assert (certificate.slacks[UPPER] >= 0) == holds
        assert all(proved for part, proved in certificate.parts.items() if part != UPPER)


def test_a_wrong_lower_bound_fails():
    assert not certify((5, 4), lower=lambda p1: gini(p1) * fmpq(1001, 1000)).parts[LOWER]


def test_a_bound_that_is_off_by_less_than_a_float_can_tell_is_told():
    """λ^(1) = 2p₁p₂ for two classes; a bound lower by 10^-40 fails."""
    tiny = fmpq(1, 10**40)
    assert certify((2, 1), upper=gini).parts[UPPER]
    assert not certify((2, 1), upper=lambda p1: gini(p1) - tiny).parts[UPPER]
    assert not certify((2, 1), lower=lambda p1: gini(p1) + tiny).parts[LOWER]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("_reduced_polynomial", CHARPOLY),
        ("_inertia_agrees", INERTIA),
        ("_equalities", EQUALITIES),
        ("_eigenvector_identity", VECTORS),
        ("_deflated_vectors", VECTORS),
        ("_enclosures", BALLS),
    ],
)
def test_each_part_depends_on_its_own_computation(monkeypatch, name, part):
    right = getattr(certificates, name)

    def wrong(*args):
        value = right(*args)
        return not value if isinstance(value, bool) else value * 2

    monkeypatch.setattr(certificates, name, wrong)
    assert not certify((4, 2, 2, 0)).parts[part]


@pytest.mark.parametrize("weights", [(1,), (0, 0), (1, -1), ()])
def test_weights_that_are_no_distribution_are_refused(weights):
    with pytest.raises(ValueError, match="non-negative weights"):
        certify(weights)


def test_weights_that_are_not_whole_are_refused():
    with pytest.raises(ValueError, match=r"whole numbers as weights, got \[1.5, 2.9\]"):
        certify((1.5, 2.9))


TINY_NUMBER = fmpq(1, 10**9)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r + TINY_NUMBER,  # 0 is no root any more
        lambda r: r * fmpq_poly([1, 0, 1]),  # of degree k + 2
    ],
)
def test_roots_are_isolated_by_degree_and_the_root_0(monkeypatch, change):
    right = certificates._reduced_polynomial
    monkeypatch.setattr(certificates, "_reduced_polynomial", lambda *a: change(right(*a)))
    assert not certify((4, 2, 1)).parts[ROOTS]


def setting(weights):
    """p, its distinct entries, M and R."""
    p = [fmpq(n, sum(weights)) for n in weights]
    distinct = sorted({a for a in p if a > 0}, reverse=True)
    entries = [(a if i == j else 0) - a * b for i, a in enumerate(p) for j, b in enumerate(p)]
    reduced = certificates._reduced_polynomial(distinct, [p.count(a) for a in distinct])
    return p, distinct, fmpq_mat(len(p), len(p), entries), reduced


@pytest.mark.parametrize("k", [0, 2])
def test_a_wrong_entry_of_the_matrix_has_other_eigenvectors(k):
    p, distinct, matrix, _ = setting((4, 2, 2, 0))
    assert certificates._eigenvector_identity(matrix, p, distinct)
    assert certificates._deflated_vectors(matrix, p)
    matrix[k, k] += TINY_NUMBER
    assert not certificates._eigenvector_identity(matrix, p, distinct)
    assert not certificates._deflated_vectors(matrix, p)


def test_an_identity_that_holds_at_one_point_is_no_identity():
    p, distinct, matrix, _ = setting((4, 2, 1))
    t = fmpq(-1, 7)  # the first point that is tried
    q = [a / (a - t) for a in p]
    matrix[0, 0] += q[1]
    matrix[0, 1] -= q[0]
    assert not certificates._eigenvector_identity(matrix, p, distinct)


def test_balls_around_wrong_roots_and_wide_balls_prove_nothing(monkeypatch):
    p, distinct, _, reduced = setting((4, 2, 1))
    spectrum = certificates._spectrum(p, distinct, [1, 1, 1])
    assert certificates._enclosures(reduced, p, spectrum)
    assert not certificates._enclosures(
        reduced * 2 + reduced(fmpq(1, 2)) * TINY_NUMBER, p, spectrum
    )
    monkeypatch.setattr(certificates, "ENCLOSURE_BITS", 30)
    assert not certificates._enclosures(reduced, p, spectrum)


def test_bounds_that_are_attained_where_they_should_not_be_are_told():
    p, _, _, reduced = setting((4, 2, 1))
    assert not certificates._equalities(reduced, p, Eigenvalue(p[0], p[0]))
    p, _, _, reduced = setting((4, 2, 0))
    assert not certificates._equalities(reduced, p, Eigenvalue(p[1], p[1]))
