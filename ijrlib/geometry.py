"""Geometry of the dominant curvature directions m_x = √λ^(1) J_x q^(1) (Appendices D, K and L).

Vectors in R^m are kept for classes, never for examples.  All that is asked about one example's
vectors J_x u follows from its Gram matrix J_xᵀJ_x of shape (C, C); their mean over a class is one
reverse pass over that class, and their inner products with a given direction one forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ijrlib.linear_algebra import eigh, eigvalsh, gram
from ijrlib.operators import CHUNK, jacobian_products, loss_and_gradient

# -- one example: quadratic forms in J_xᵀJ_x -------------------------------------------------------


def lengths(grams: Tensor, u: Tensor) -> Tensor:
    """‖J_x u_x‖, shape (N,), of Gram matrices J_xᵀJ_x (N, C, C) and vectors u (N, C)."""
    return _form(grams, u, u).clamp(min=0).sqrt()


def cosines(grams: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """cos(J_x u_x, J_x w_x) = uᵀJᵀJw / (‖Ju‖‖Jw‖), shape (N,); 0 where one of the two is 0."""
    return _form(grams, normalized(grams, u), normalized(grams, w))


def direction_forms(grams: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """How J_x stretches and turns the eigenvectors q^(i) of M_x (Figure 11).

    Args:
        grams: J_xᵀJ_x, shape (N, C, C).
        q: eigenvectors in columns, shape (N, C, C).

    Returns:
        ‖Jq^(i)‖²·C/‖J‖_F², shape (N, C), whose mean over i is 1; and cos²(Jq^(i), Jq^(j)), shape
        (N, C, C).  Both are 0 where they would be 0/0.
    """
    forms = q.mT @ grams @ q
    squares = forms.diagonal(dim1=1, dim2=2).clamp(min=0)
    total = squares.sum(1, keepdim=True)
    products = squares[:, :, None] * squares[:, None, :]
    return _ratio(squares * q.shape[1], total), _ratio(forms.square(), products)


def downhill(p: Tensor, y: Tensor) -> Tensor:
    """e_y − p, shape (N, C), so that −g_x = J_x(e_y − p).

    The entry of y is the sum of the other probabilities: 1 − p_y would round to 0 before they do.
    """
    rest = p.scatter(1, y[:, None], 0.0)
    return (-rest).scatter(1, y[:, None], rest.sum(1, keepdim=True))


def _form(grams: Tensor, u: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("nc,ncd,nd->n", u, grams, w)


def normalized(grams: Tensor, u: Tensor) -> Tensor:
    """u_x / ‖J_x u_x‖, shape (N, C), whose image J_x u_x/‖J_x u_x‖ is a direction; 0 where J_x u_x
    = 0."""
    u = _ratio(u, u.abs().amax(1, keepdim=True))  # squares of tiny entries would underflow
    return _ratio(u, lengths(grams, u)[:, None])


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(a), a / b)


# -- classes: vectors in R^m -----------------------------------------------------------------------


def class_means(
    model: nn.Module, x: Tensor, u: Tensor, classes: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """⟨J_x u_x⟩ over the examples of each class that has any, shape (P, m), classes ascending.

    ⟨J_x u_x⟩ = ∇_θ⟨u_xᵀz⟩ with u held fixed.  For u = √λ^(1) q^(1) these are the ⟨m⟩_{D_i}; for u =
    q^(1)/‖J q^(1)‖ their lengths are the mean resultant lengths ρ of the D_i (Appendix D).  Costs
    one gradient over all of x, as each example belongs to one class; keeps P·m numbers.

    Args:
        u: shape (N, C).
        classes: class of each example, shape (N,).
    """
    u = u.to(next(model.parameters()).dtype)
    rows = []
    for i in classes.unique().tolist():
        members = (classes == i).nonzero()[:, 0]
        data = (x[members], u[members])
        rows.append(loss_and_gradient(model, _linear, data, chunk=chunk)[1])
    return torch.stack(rows)


def _linear(z: Tensor, u: Tensor) -> Tensor:
    """⟨uᵀz⟩, the loss whose gradient is ⟨J u⟩."""
    return (z * u).sum(-1).mean()


def cosine_matrix(rows: Tensor) -> Tensor:
    """Cosines between the rows (P, m), shape (P, P), float64; nan for a row of zeros."""
    products = gram(rows)
    length = products.diagonal().sqrt()
    return products / (length[:, None] * length[None, :])


def subspace_alignment(v: Tensor, rows: Tensor) -> float:
    """AS(v) = ‖P_S v‖/‖v‖ for S the span of the rows (P, m) (Eq 33); nan for v = 0 and where all
    rows are 0.

    ‖P_S v‖² = bᵀA⁺b with the Gram matrix A of the unit rows and b their products with v.
    Rows of zeros, and directions in which the rows agree up to the rounding of their type, do not
    count.
    """
    length = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    if not bool(length.all()):
        rows, length = rows[length != 0], length[length != 0]
        if len(rows) == 0:
            return float("nan")
    norm = torch.linalg.vector_norm(v, dtype=torch.float64)
    products = gram(torch.cat([rows, v[None]]))
    scale = torch.cat([length, norm[None]])
    products = products / (scale[:, None] * scale[None, :])
    values, vectors = eigh(products[:-1, :-1])
    noise = max(len(rows) * torch.finfo(torch.float64).eps, (10 * torch.finfo(rows.dtype).eps) ** 2)
    kept = ~(values <= noise * values[-1])  # all of them where they are NaN
    parts = vectors[:, kept].T @ products[:-1, -1]
    return float((parts.square() / values[kept]).sum().sqrt())


def between_class_norm(rows: Tensor, counts: Tensor) -> float:
    """‖Σ_i γ_i⟨m⟩_i⟨m⟩_iᵀ‖ of the rows ⟨m⟩_{D_i} (P, m), γ_i = |D_i|/|D| (Eq 32).

    The nonzero eigenvalues are those of the P × P matrix of √(γ_iγ_j)⟨m⟩_iᵀ⟨m⟩_j.

    Args:
        counts: |D_i|, shape (P,).
    """
    products = gram(rows)
    weight = (counts.to(products) / counts.sum()).sqrt()
    return float(eigvalsh(weight[:, None] * products * weight)[-1])


def plane_coordinates(
    model: nn.Module, x: Tensor, u: Tensor, one: Tensor, other: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """Coordinates of every J_x u_x in the plane of two vectors of R^m, shape (N, 2) (Figure 9).

    The first axis is along ``one``, the second along the part of ``other`` orthogonal to it, so
    the two vectors point at (1, 0) and (c, √(1 − c²)) with c their cosine.  Two forward passes.
    """
    first = one / one.norm()
    second = other - (first @ other) * first
    second = second - (first @ second) * first
    axes = (first, second / second.norm())
    slopes = (jacobian_products(model, x, axis, chunk=chunk)[1].to(u) for axis in axes)
    return torch.stack([(u * slope).sum(-1) for slope in slopes], dim=1)
