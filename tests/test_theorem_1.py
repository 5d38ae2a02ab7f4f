"""Theorem 1 (a)–(d) on many vectors, and that its check can fail."""

import dataclasses
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ijrlib import certificates, logits, theorems
from ijrlib.theorems import BATTERY, STATEMENTS_1, battery, verify_theorem_1


def few(p, rows=40):
    return p[:: max(1, len(p) // rows)]


VECTORS = [few(p) for p in battery(seed=1) if p.shape[1] <= 100]


def failed(checks):
    return {check.statement for check in checks if not check.passed}


@pytest.mark.parametrize("p", VECTORS, ids=lambda p: f"C={p.shape[1]},{p.dtype}")
def test_theorem_1_holds_on_every_kind_of_vector(p):
    checks = verify_theorem_1(p)
    assert [check.statement for check in checks] == list(STATEMENTS_1)
    assert failed(checks) == set()
    assert all(check.cases == len(p) and np.isfinite(check.slack) for check in checks)


@given(st.lists(st.floats(0, 1, width=64), min_size=2, max_size=12).filter(lambda w: sum(w) > 1e-3))
@settings(max_examples=150, deadline=None)
def test_theorem_1_holds_for_whatever_hypothesis_finds(weights):
    p = np.array(weights) / np.sum(weights)
    for dtype in (np.float64, np.float32):
        assert failed(verify_theorem_1(p.astype(dtype))) == set()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9).filter(any))
@settings(max_examples=100, deadline=None)
def test_theorem_1_holds_at_ties_and_zeros_numerically_and_exactly(weights):
    p = np.array(weights) / sum(weights)
    assert failed(verify_theorem_1(p)) == set()
    assert all(certificates.certify(weights).parts.values())


@pytest.mark.parametrize(
    ("index", "change", "violated"),
    [
        (0, 1e-6, {STATEMENTS_1[0], STATEMENTS_1[2], STATEMENTS_1[3]}),
        (2, 1e-6, {STATEMENTS_1[0], STATEMENTS_1[2], STATEMENTS_1[3]}),
        (3, 1e-6, {STATEMENTS_1[3], STATEMENTS_1[4]}),
        (1, 0.2, {STATEMENTS_1[4]}),
    ],
)
def test_a_wrong_eigenvalue_is_noticed(monkeypatch, index, change, violated):
    p = np.array([[0.4, 0.3, 0.2, 0.1]])
    right = logits.eigensystem

    def wrong(p):
        values, vectors = right(p)
        values[:, index] += change
        return values, vectors

    monkeypatch.setattr(logits, "eigensystem", wrong)
    assert violated <= failed(verify_theorem_1(p))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("ulps", [-30, -3, -1, 0, 1, 3, 30])
@pytest.mark.parametrize("end", [0, 1])
def test_a_pole_in_the_place_of_a_root_violates_a_and_b(monkeypatch, end, ulps, dtype):
    """λ^(i) := p_(i) or p_(i+1), to a few units in the last place, where the roots are far away."""
    p = np.array([[0.4, 0.3, 0.2, 0.1]], dtype)
    right = logits.eigensystem

    def wrong(p):
        values, vectors = right(p)
        values[:, :-1] = p[:, end : end + 3] * (1 + ulps * np.finfo(dtype).eps)
        return values, vectors

    monkeypatch.setattr(logits, "eigensystem", wrong)
    assert {STATEMENTS_1[0], STATEMENTS_1[2]} <= failed(verify_theorem_1(p))


def exact_root(entries, left, right):
    """The root of Σ p_j/(p_j − λ) between two neighbouring poles, to 2^-120 of their distance."""
    for _ in range(120):
        middle = (left + right) / 2
        if sum(a / (a - middle) for a in entries) < 0:
            left = middle
        else:
            right = middle
    return left


def test_theorem_1_a_asks_for_the_root_within_delta_close_to_poles_too():
    """Against bisection in rational numbers.  v(λ ± δ) takes C + 2 of the K = C + 8 roundings that
    δ stands for (p − λ, the quotient, the sum), so C = 4 leaves it open from δ/2 to 3δ/2."""
    rng = np.random.default_rng(0)
    unit, outcomes = 2.0**-53, set()
    rows = [0.25 + rng.choice(12, 4, replace=False) * 2.0**-54 for _ in range(20)]
    rows += list(rng.dirichlet(np.full(4, 0.3), 20))
    for row in rows:
        ranked = -np.sort(-row)[None, :]
        entries = [Fraction(float(a)) for a in ranked[0]]
        for i in range(3):
            root = exact_root(entries, entries[i + 1], entries[i])
            delta = 24 * unit * ranked[0, i]
            near = [ranked[0, i], ranked[0, i + 1], float(root)]
            for trial in (a + f * delta for a in near for f in (0, 0.4, -0.4, 1.7, -1.7, 9)):
                values = np.full((1, 4), trial)
                allowed = 24 * unit * values
                distance = float(abs(Fraction(float(trial)) - root)) / allowed[0, i]
                if 0.5 < distance < 1.5:
                    continue
                missed = theorems._missed(ranked, values, allowed)[0, i]
                assert missed == (distance > 1)
                outcomes.add((bool(missed), trial in ranked))
    assert len(outcomes) == 4  # found and missed, at a pole and elsewhere


def test_a_wrong_eigenvector_is_noticed(monkeypatch):
    p = np.array([[0.4, 0.3, 0.2, 0.1]])
    right = logits.eigensystem

    def wrong(p):
        values, vectors = right(p)
        return values, vectors[:, :, [1, 0, 2, 3]]

    monkeypatch.setattr(logits, "eigensystem", wrong)
    assert {STATEMENTS_1[2], STATEMENTS_1[3]} <= failed(verify_theorem_1(p))


def test_a_flipped_sign_is_noticed(monkeypatch):
    p = np.array([[0.4, 0.3, 0.2, 0.1]])
    right = logits.eigensystem
    monkeypatch.setattr(logits, "eigensystem", lambda p: (right(p)[0], -right(p)[1]))
    assert STATEMENTS_1[2] in failed(verify_theorem_1(p))


@pytest.mark.parametrize(
    ("p", "value"), [([0.4, 0.4, 0.2], 0.41), ([0.7, 0.3, 0.0], 1e-300)], ids=["tie", "zero"]
)
def test_deflation_allows_no_rounding_at_all(monkeypatch, p, value):
    right = logits.eigensystem
    index = 0 if p[0] == p[1] else 1

    def wrong(p):
        values, vectors = right(p)
        values[:, index] = value
        return values, vectors

    monkeypatch.setattr(logits, "eigensystem", wrong)
    assert STATEMENTS_1[1] in failed(verify_theorem_1(np.array([p])))


def test_the_exact_inertia_counts_eigenvalues():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 8):
        for _ in range(10):
            entries = rng.integers(-2, 3, (size, size))
            symmetric = entries + entries.T
            if rng.random() < 0.5:
                np.fill_diagonal(symmetric, 0)  # no pivot on the diagonal
            matrix = flint.fmpq_mat(flint.fmpz_mat(symmetric.tolist()))
            # t = 1/7 is no eigenvalue of an integer matrix: those that are rational are integers
            above = (np.linalg.eigvalsh(symmetric) > 1 / 7).sum()
            assert certificates.positive_inertia(matrix, flint.fmpq(1, 7)) == above
            square = flint.fmpz_mat((entries @ entries.T).tolist())  # with t = 0 an eigenvalue
            rank = square.rank()
            assert certificates.positive_inertia(flint.fmpq_mat(square), flint.fmpq(0)) == rank


def test_a_wrong_matrix_or_entry_fails_its_certificate():
    p = [flint.fmpq(n, 10) for n in (4, 3, 2, 1)]
    matrix = flint.fmpq_mat(
        4, 4, [(a if i == j else 0) - a * b for i, a in enumerate(p) for j, b in enumerate(p)]
    )
    assert certificates._inertia_agrees(matrix, p, p)
    matrix[0, 0] += flint.fmpq(1, 10)
    assert not certificates._inertia_agrees(matrix, p, p)


@pytest.mark.parametrize(
    ("weights", "attained"),
    [((3, 1), 2), ((3, 1, 0), 2), ((2, 2, 1), 1), ((1, 1, 1), 1), ((5, 0, 0), 2), ((3, 2, 1), 0)],
)
def test_bounds_are_attained_exactly_where_they_should_be(weights, attained):
    proof = certificates.certify(weights)
    assert all(proof.parts.values())
    # a bound a little tighter than the attained one fails, one equal to it is proved
    below = {1: lambda p1: p1 - flint.fmpq(1, 10**30), 2: lambda p1: certificates.gini(p1)}
    if attained == 1:
        assert certificates.certify(weights, upper=lambda p1: p1).parts[certificates.PARTS[-1]]
        assert not certificates.certify(weights, upper=below[1]).parts[certificates.PARTS[-1]]
    elif attained == 2:
        assert proof.slacks[certificates.PARTS[-1]] == 0
        assert certificates.certify(weights, lower=below[2]).parts[certificates.PARTS[-2]]
    else:
        assert proof.slacks[certificates.PARTS[-1]] > 0
        assert not certificates.certify(weights, lower=below[2]).parts[certificates.PARTS[-2]]


def test_an_upper_bound_of_1_9_in_place_of_2_is_shown_to_be_wrong():
    p = np.array([[0.5, 0.5], [0.3, 0.7]])
    assert failed(verify_theorem_1(p)) == set()
    assert failed(verify_theorem_1(p, upper_factor=1.9)) == {STATEMENTS_1[6]}


def test_the_battery_has_what_it_says():
    rows = {}
    for p in battery():
        rows[p.shape[1], p.dtype] = len(p)
        logits.check_probabilities(p)
    assert sum(rows.values()) >= 100_000
    assert {c for c, _ in rows} == set(BATTERY)
    assert (min(BATTERY), max(BATTERY)) == (2, 1000)
    few_classes = sum(n for (c, _), n in rows.items() if c <= 100)
    assert few_classes > 0.9 * sum(rows.values())
    p = next(q for q in battery() if q.shape[1] == 10)
    ranked = -np.sort(-p, axis=1)
    assert ((ranked[:, :-1] == ranked[:, 1:]) & (ranked[:, 1:] > 0)).any()  # ties
    assert (ranked[:, 0] == 1).any()  # one-hot
    assert (ranked[:, 0] == ranked[:, -1]).any()  # uniform
    assert (p == 0).any()
    subnormal = (p > 0) & (p < np.finfo(float).smallest_normal)
    assert subnormal.any()


def test_the_report_names_every_part_and_fails_on_a_wrong_bound(monkeypatch):
    monkeypatch.setattr(theorems, "BATTERY", {2: 3, 5: 3})
    every = list(certificates.sample(0))
    monkeypatch.setattr(certificates, "sample", lambda seed: every[:60])
    report = theorems.theorem_1_report()
    text = " ".join(check.statement for check in report)
    for part in ("(a)", "(b)", "(c)", "(d)", "deflation", "certified"):
        assert part in text
    assert failed(report) == set()
    wrong = failed(theorems.theorem_1_report(upper_factor=1.9))
    assert wrong == {STATEMENTS_1[6], f"Theorem 1 {certificates.PARTS[-1]} [certified]"}


def test_the_worse_of_two_checks_is_kept_with_the_cases_of_both():
    good = theorems.Check("s", 1.0, "a", True, 3, 0.1)
    bad = dataclasses.replace(good, slack=-1.0, where="b", passed=False, cases=4)
    for pair in ((good, bad), (bad, good)):
        kept = theorems._worse(*pair)
        assert (kept.where, kept.passed, kept.cases) == ("b", False, 7)
    undefined = dataclasses.replace(good, slack=float("nan"), where="c", passed=False)
    for pair in ((good, undefined), (undefined, good)):
        assert theorems._worse(*pair).where == "c"


def test_what_is_no_probability_vector_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 1\) is negative"):
        verify_theorem_1(np.array([1.5, -0.5]))
    for empty in (np.zeros((0, 3)), np.float64(1.0)):
        with pytest.raises(ValueError, match="at least one row of probabilities, got shape"):
            verify_theorem_1(empty)
