r"""Roots of Σ p_j/(p_j − λ) = 0, the secular equation of M(p) without its root 0.

Between two neighbouring poles p_(i+1) < λ < p_(i) the equation reads φ(λ) = ψ(λ), with the positive
sums φ = Σ_{p_j ≥ p_(i)} p_j/(p_j − λ) and ψ = Σ_{p_j ≤ p_(i+1)} p_j/(λ − p_j). Both reciprocals are
concave and nearly linear, and Newton's method is applied to F = 1/ψ − 1/φ, which is increasing: it
is the rational interpolation of Bunch, Nielsen and Sorensen (1978) in other words. The terms
a_j = p_j/(p_j − λ) are dimensionless and give the derivatives too, λ φ′ = Σ a_j (a_j − 1), so that
subnormal entries neither overflow nor lose digits.

The unknown is the offset y of λ from a reference point close to it, so that λ − p_j keeps its
relative accuracy. All terms of φ, and of ψ, have one sign, and the logarithmic derivatives of φ/ψ
are at least one for the top root: its relative error is no larger than that of the two sums.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device, is_torch_array

Array = Any  # numpy.ndarray or torch.Tensor

BLOCK = 2**16  # entries of p worked on at a time on a CPU, to stay in its cache
SHORT = 64  # up to so many classes the class axis is put first, where reductions are faster


def half_gini(top: Array, others: Array) -> Array:
    """p₁(1 − p₁) from p₁ and the sum of the others."""
    return top * (others / (top + others))


def split_top(p: Array, axis: int = -1) -> tuple[Array, Array, Array]:
    """p₁, how often it occurs, and p with all its occurrences set to zero (classes along axis)."""
    xp = array_namespace(p)
    top = xp.max(p, axis=axis, keepdims=True)
    is_top = p == top
    count = xp.sum(xp.astype(is_top, p.dtype), axis=axis)
    return xp.squeeze(top, axis=axis), count, xp.where(is_top, 0.0, p)


def _block_size(rows: Array, entries: int) -> int:
    """How many examples to take at a time when each needs so many entries."""
    on_cpu = not is_torch_array(rows) or rows.device.type == "cpu"
    return min(max(1, (BLOCK if on_cpu else 2**24) // entries), max(1, rows.shape[0]))


def top_root(p: Array) -> tuple[Array, Array]:
    """(λ^(1), p₁ − λ^(1)), each to a few units in its last place; drops the last axis of p."""
    xp = array_namespace(p)
    classes = p.shape[-1]
    rows = xp.reshape(p, (-1, classes))
    examples = rows.shape[0]
    step = _block_size(rows, classes)
    axis = 0 if classes <= SHORT else 1

    def new(*shape: int) -> Array:
        return xp.empty(shape, dtype=p.dtype, device=device(p))

    root, distance = new(examples), new(examples)
    work = new(4, classes, step) if axis == 0 else new(3, step, classes)
    for start in range(0, examples, step):
        block = rows[start : start + step, :]
        if axis == 0:
            work = work[:, :, : block.shape[0]]
            work[3, ...] = xp.permute_dims(block, (1, 0))
            block = work[3, ...]
        else:
            work = work[:, : block.shape[0], :]
        found = _top_root(xp, block, axis, work)
        root[start : start + step], distance[start : start + step] = found
    return xp.reshape(root, p.shape[:-1]), xp.reshape(distance, p.shape[:-1])


def _top_root(xp: Any, p: Array, axis: int, work: Array) -> tuple[Array, Array]:
    """`top_root` of a block of shape (C, n) for axis 0 or (n, C) for axis 1; work holds three."""
    rest, gaps, a = work[0, ...], work[1, ...], work[2, ...]
    top = xp.max(p, axis=axis, keepdims=True)
    a[...] = p < top
    tied = xp.sum(a, axis=axis) < p.shape[axis] - 1  # λ = p₁, deflated
    xp.multiply(p, a, out=rest)  # p without its largest entry
    top = xp.squeeze(top, axis=axis)
    others = xp.sum(rest, axis=axis)
    second = xp.max(rest, axis=axis)
    alone = second == others  # two classes share all the mass to rounding: λ = 2 p₁ p₂
    solved = tied | alone
    total, width = top + others, top - second

    # Guess: merge all classes after the second into one pole at their mean, weighted by p. This
    # leaves a quadratic equation for (λ − p₂)/others, is exact for C = 3 and a lower bound on the
    # root, because 1/(λ − t) is convex in t.
    scale = xp.where(others > 0, others, 1.0)
    share = second / scale
    xp.multiply(rest, rest, out=a)
    spread = xp.sum(a, axis=axis) / scale / scale - share * share
    apart = xp.abs(share - spread / xp.where(alone, 1.0, 1 - share))
    b = (top + second) * apart - width
    c = width * share * apart
    larger = xp.abs(b) + xp.sqrt(b * b + 4 * total * c)
    larger = xp.where(solved, 1.0, larger)
    offset = others * xp.where(b < 0, larger / (2 * total), 2 * c / larger)

    # Measure λ = origin + y from the nearer of p₂ and p₁.
    near_second = 2 * offset < width
    origin, shift = xp.where(near_second, second, top), xp.where(near_second, width, 0.0)
    y = xp.where(solved, 1.0, xp.where(near_second, offset, offset - width))
    xp.subtract(xp.expand_dims(origin, axis=axis), rest, out=gaps)
    # Two steps of Newton's and one of Halley's method: a search over a million adversarial p in
    # extended precision found errors of at most 3e-2 (guess), 2e-4, 1e-8 of λ, and then none above
    # its own 1e-18. A fixed number of steps keeps each row independent of its batch.
    for third_order in (False, False, True):
        xp.add(gaps, xp.expand_dims(y, axis=axis), out=a)
        xp.divide(rest, a, out=a)
        psi = xp.sum(a, axis=axis)
        squares = gaps if third_order else a
        xp.multiply(a, a, out=squares)
        second_moment = xp.sum(squares, axis=axis)
        root = origin + y
        part = psi * root
        slope = xp.where(solved, xp.inf, psi * (top + part) + second_moment * top)
        step = part * (psi * (shift - y) - top) / slope  # of Newton's method
        if third_order:
            a *= squares
            mean = second_moment / xp.where(solved, 1.0, psi)
            bend = (xp.sum(a, axis=axis) - second_moment * mean) * top / slope
            step = step / (1 - bend * (step / xp.where(solved, 1.0, root)))
        y = y + step
    root = xp.where(tied, top, xp.where(alone, 2 * half_gini(top, others), origin + y))
    distance = xp.where(alone, top * ((top - others) / total), shift - y)
    return root, xp.where(tied, 0.0, distance)


def all_roots(ranked: Array) -> tuple[Array, Array]:
    """Eigenvalues (…, C) and eigenvectors, in columns, of M(p) for p in descending order.

    See `ijrlib.logits.eigensystem` for the deflated pairs and the signs.
    """
    xp = array_namespace(ranked)
    classes = ranked.shape[-1]
    rows = xp.reshape(ranked, (-1, classes))
    step = _block_size(rows, classes * classes)

    def new(*shape: int) -> Array:
        return xp.empty(shape, dtype=ranked.dtype, device=device(ranked))

    values, vectors = new(*rows.shape), new(*rows.shape, classes)
    work = new(3, step, classes - 1, classes)
    for start in range(0, rows.shape[0], step):
        block = rows[start : start + step, :]
        found = _all_roots(xp, block, work[:, : block.shape[0], ...])
        values[start : start + step, :], vectors[start : start + step, ...] = found
    return xp.reshape(values, ranked.shape), xp.reshape(vectors, (*ranked.shape, classes))


def _all_roots(xp: Any, ranked: Array, work: Array) -> tuple[Array, Array]:
    """`all_roots` of a block of shape (n, C)."""
    poles, a, b = work[0, ...], work[1, ...], work[2, ...]
    classes = ranked.shape[-1]
    eps = xp.finfo(ranked.dtype).eps
    index = xp.arange(classes, device=device(ranked))
    # The equation is homogeneous: scaling by a power of two lifts subnormal entries.
    scale = 2.0 ** (100 if xp.finfo(ranked.dtype).bits == 32 else 600)
    p = ranked * scale
    right, left = p[:, :-1], p[:, 1:]
    deflated = (right == left) | (left == 0)
    is_phi = index <= index[:-1, None]  # (C − 1, C): pole j is at or above the right end i
    in_phi = xp.astype(is_phi, p.dtype)

    def shift_poles(origin: Array) -> None:
        xp.subtract(p[:, None, :], origin[..., None], out=poles)
        poles[deflated, :] = scale  # any value: these rows are replaced

    def terms(y: Array) -> None:
        xp.subtract(poles, y[..., None], out=a)
        xp.divide(p[:, None, :], a, out=a)

    def newton(y: Array, lam: Array) -> tuple[Array, Array, Array]:
        """φ, ψ and the step of λ."""
        terms(y)
        xp.multiply(a, in_phi, out=b)
        xp.subtract(b, a, out=a)
        phi, psi = xp.sum(b, axis=-1), xp.sum(a, axis=-1)
        xp.multiply(b, b, out=b)
        xp.multiply(a, a, out=a)
        phi, psi = xp.where(deflated, 1.0, phi), xp.where(deflated, 1.0, psi)
        d_phi, d_psi = xp.sum(b, axis=-1) - phi, xp.sum(a, axis=-1) + psi  # λφ′ and −λψ′
        slope = xp.where(deflated, 1.0, (d_phi / phi) * psi + (d_psi / psi) * phi)
        return phi, psi, lam * ((psi - phi) / slope)

    # The end of the interval that is closer to the root becomes the origin of the offset sign · y.
    half = (right - left) / 2
    shift_poles(left)
    phi, psi, _ = newton(xp.where(deflated, 0.0, half), left + half)
    from_left = phi >= psi
    origin = xp.where(from_left, left, right)
    sign = xp.where(from_left, xp.ones_like(left), -xp.ones_like(left))
    shift_poles(origin)
    # Start with all but the nearest pole frozen at the middle of the interval.
    pull = xp.abs(phi - psi) * xp.where(deflated, 1.0, half) + origin
    low, high = xp.zeros_like(half), half
    y = xp.where(deflated, 0.0, half * (origin / xp.where(deflated, 1.0, pull)))
    done = deflated
    for _ in range(100):
        phi, psi, step = newton(sign * y, origin + sign * y)
        outward = sign * step > 0  # the root lies farther from the origin
        low, high = xp.where(outward, y, low), xp.where(outward, high, y)
        new = y + sign * step
        at_rounding = xp.abs(phi - psi) <= 4 * eps * (phi + psi)
        bisected = xp.where(low > 0, xp.sqrt(low) * xp.sqrt(high), high / 1024)
        new = xp.where(at_rounding | ((new > low) & (new < high)), new, bisected)
        y = xp.where(done, y, new)
        done = done | at_rounding
        if bool(xp.all(done)):
            break
    terms(sign * y)

    values = xp.where(left == 0, 0.0, xp.where(deflated, right, origin + sign * y)) / scale
    values = xp.concat([values, xp.zeros_like(ranked[:, :1])], axis=-1)
    # Deflated pairs: class i + 1 against the classes from `start` to i.
    tied_from = xp.sum(xp.astype(p[:, None, :] > right[..., None], xp.int64), axis=-1)
    start = xp.where(left == 0, 0, tied_from)
    count = xp.astype(index[:-1] - start + 1, p.dtype)[..., None]
    contrast = xp.astype(is_phi & (index >= start[..., None]), p.dtype)
    contrast = xp.where(index == index[:-1, None] + 1, -count, contrast)
    rows = xp.where(deflated[..., None], contrast, a)
    rows = xp.concat([rows, xp.ones_like(rows[:, :1, :])], axis=-2)
    rows = rows / xp.linalg.vector_norm(rows, axis=-1, keepdims=True)
    return values, xp.matrix_transpose(rows)
