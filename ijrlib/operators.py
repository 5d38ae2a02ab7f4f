"""Hessian, Gauss–Newton matrix and mean Jacobian as matrix-free operators over chunks of data.

θ is the concatenation of the trainable parameters in the order of ``model.parameters()``; m is its
length.  Every operator is a mean over all examples, computed chunk by chunk, so that memory is
bounded by the chunk and the result is that of the full batch; several processes share the chunks
(:mod:`ijrlib.parallel`).  The model is measured in the mode
it is in (training or evaluation); its mode, ``.grad`` fields, buffers and the global random state
are left as they were, and a stochastic layer draws the same numbers in every product.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.func import jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointError

from ijrlib.convolution import fast_double_backward
from ijrlib.functional import call, without_padding
from ijrlib.linear_algebra import eigh, gram
from ijrlib.normalization import (
    normalizes_weights,
    plain_normalization,
    plain_weight_normalization,
)
from ijrlib.parallel import gathered, mine, share, summed

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, C), labels (n,)) → mean loss over the n examples."""

CHUNK = 250


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy ⟨−log p_y⟩ of logits z (n, C) and labels y (n,); ∇²_z ℓ = diag(p) − ppᵀ
    (Eq 4)."""
    return F.cross_entropy(z, y)


def squared(z: Tensor, y: Tensor) -> Tensor:
    """Mean squared loss ⟨½‖z − e_y‖²⟩ (App. M); ∇²_z ℓ = I."""
    return 0.5 * (z - F.one_hot(y, z.shape[-1]).to(z.dtype)).square().sum(-1).mean()


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared": squared}


@dataclass(frozen=True)
class SymmetricOperator:
    """A symmetric m × m matrix given by its product with a vector: ``op @ v``.

    Attributes:
        shape: (m, m).
        matvec: the product, of a vector (m,).
        problem: the model, the loss and the pairs (x, y) that the matrix is of, where it is of any.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    matvec: Callable[[Tensor], Tensor]
    problem: tuple[nn.Module, Loss, list[tuple[Tensor, Tensor]]] | None = None

    def __matmul__(self, v: Tensor) -> Tensor:
        if v.shape != (self.shape[1],):
            raise ValueError(f"expected a vector of shape ({self.shape[1]},), got {tuple(v.shape)}")
        return self.matvec(v)


@dataclass(frozen=True)
class MeanJacobian:
    """⟨J⟩ = ∇_θ⟨z⟩, an m × C matrix given by products: ``op @ u`` with u in R^C, ``op.T @ v`` with
    v in R^m."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    matvec: Callable[[Tensor], Tensor]
    rmatvec: Callable[[Tensor], Tensor]

    def __matmul__(self, u: Tensor) -> Tensor:
        if u.shape != (self.shape[1],):
            raise ValueError(f"expected a vector of shape ({self.shape[1]},), got {tuple(u.shape)}")
        return self.matvec(u)

    @property
    def T(self) -> MeanJacobian:
        """The transpose, C × m."""
        return MeanJacobian(
            (self.shape[1], self.shape[0]), self.dtype, self.device, self.rmatvec, self.matvec
        )


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that make up θ, by name, in the order of ``model.parameters()``.

    Raises:
        ValueError: where the model has none, or they differ in type or device.
    """
    params: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not params:
        raise ValueError("expected a model with trainable parameters, got one without")
    kinds = {(p.dtype, p.device) for p in params.values()}
    if len(kinds) > 1:
        raise ValueError(f"expected parameters of one type on one device, got {kinds}")
    return params


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One vector out of tensors in the order of θ."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(v: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of :func:`flatten`: views of v with the shapes of ``like``.

    Raises:
        ValueError: where v has another shape than (m,).
    """
    sizes = [p.numel() for p in like]
    if v.shape != (sum(sizes),):
        raise ValueError(f"expected a vector of shape ({sum(sizes)},), got {tuple(v.shape)}")
    return [t.view_as(p) for t, p in zip(v.split(sizes), like, strict=True)]


def chunks(data: object, chunk: int = CHUNK) -> list[tuple[Tensor, Tensor]]:
    """A list of pairs (x, y): a pair of tensors split into at most ``chunk`` examples each, or the
    given iterable of pairs as it is.

    Raises:
        ValueError: for an empty data set, an empty pair, x and y of different lengths, pairs of
            anything but tensors, or a pair to be split with a ``chunk`` below 1.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = data
        if not isinstance(y, Tensor):
            raise ValueError(f"expected a pair of tensors (x, y), got y as {type(y).__name__}")
        _check_lengths(x, y)
        chunk = share(len(x), _positive(chunk))
        return list(zip(x.split(chunk), y.split(chunk), strict=True))
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws from it, even in order
        pairs = [tuple(pair) for pair in data]  # type: ignore[attr-defined]
    if any(isinstance(part, Tensor) and part.ndim == 0 for pair in pairs for part in pair):
        raise ValueError("expected mini-batches, got single examples (a data set, no DataLoader?)")
    if not pairs or not all(map(_is_pair, pairs)):
        raise ValueError("expected a pair of tensors (x, y) or a non-empty iterable of such pairs")
    if 0 in (sizes := [len(x) for x, _ in pairs]):
        raise ValueError(f"expected at least one example in each pair (x, y), got {sizes}")
    return pairs


def _is_pair(pair: tuple) -> bool:
    tensors = len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)
    return tensors and len(pair[0]) == len(pair[1])


def _check_lengths(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"expected x and y of one positive length, got {len(x)} and {len(y)}")


def _positive(chunk: int) -> int:
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    return chunk


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode (batch normalization by running statistics, no dropout); each of
    its modules is afterwards in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _same_randomness(model: nn.Module, state: Tensor) -> Iterator[dict[str, Tensor]]:
    """Yield copies of the model's buffers to compute with, under a fixed random state of the CPU
    and of the GPUs that hold the model; no other is touched."""
    devices = list({p.device.index for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(int(state))
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(int(state))
        yield {name: b.detach().clone() for name, b in model.named_buffers()}


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by its formula: the fused kernels have no second and no forward derivative."""
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fused)


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within this context attention and ``weight_norm`` are computed by their formulas, whose
    gradient can be differentiated again: PyTorch's fused attention has no second derivative, and
    that of its ``weight_norm`` is wrong."""
    with _plain_attention(), plain_weight_normalization():
        yield


def check_logits(z: object) -> None:
    """Raise ValueError unless z is a tensor of shape (n, C)."""
    if not isinstance(z, Tensor):
        raise ValueError(f"model: expected logits as a tensor, got {type(z).__name__}")
    if z.ndim != 2:
        hint = "a single number for each example goes in a row of its own"
        if z.ndim > 2:
            hint = "positions or pixels go in rows, with the classes as the last axis"
        raise ValueError(
            f"expected logits of shape (examples, classes), got {tuple(z.shape)}; {hint}"
        )


def logits_in(out: object) -> Tensor:
    """The logits that a model returned, or that the object or mapping that it returned has.

    Raises:
        ValueError: where there are none.
    """
    if isinstance(out, Mapping):
        out = out.get("logits", out)
    z = out if isinstance(out, Tensor) else getattr(out, "logits", None)
    if not isinstance(z, Tensor):
        raise ValueError(
            "model: expected logits, or an object or a mapping that has them as `logits`, got "
            f"{type(out).__name__}"
        )
    return z


class _Passes:
    """The forward passes of one operator: chunk by chunk, weighted by |chunk| / N, reproducible."""

    def __init__(self, model: nn.Module, xs: Sequence[Tensor]) -> None:
        self.model = model
        params = trainable(model)
        self.names = list(params)
        # leaves of their own, for hooks on the model's are of its training
        self.tensors = [p.detach().requires_grad_() for p in params.values()]
        self.m = sum(p.numel() for p in self.tensors)
        self.dtype, self.device = self.tensors[0].dtype, self.tensors[0].device
        self.xs = xs
        self.sizes = [len(x) for x in xs]
        self.weights = [size / sum(self.sizes) for size in self.sizes]
        self.fast = True  # whether the model takes the fast layout, as far as is known
        self.plain = plain_weight_normalization if normalizes_weights(model) else _as_it_is
        self.forward_mode = _forward_mode(model)
        with torch.random.fork_rng(devices=[]):
            self.seed = torch.randint(2**31, (), device="cpu")

    def logits(self, i: int, tensors: Sequence[Tensor] | None = None) -> Tensor:
        """z of chunk i, shape (n_i, C), with θ = ``tensors`` (default: the model's own)."""
        params = dict(zip(self.names, self.tensors if tensors is None else tensors, strict=True))
        x, z = self.xs[i], None
        if self.fast and (fast := _fast_layout(x)) is not x:
            with contextlib.suppress(RuntimeError):  # of ``x.view(n, -1)``, say
                z = self._called(i, params, fast)
            self.fast = z is not None
        if z is None:
            z = self._called(i, params, x)
        check_logits(z)
        if z.dtype != self.dtype and not torch.is_autocast_enabled(self.device.type):
            raise ValueError(
                f"expected logits in {self.dtype}, as the parameters are, got {z.dtype} (autocast "
                "within the model?)"
            )
        return z

    def _called(self, i: int, params: dict[str, Tensor], x: Tensor) -> Tensor:
        with (
            _same_randomness(self.model, self.seed + i) as buffers,
            _plain_attention(),
            self.plain(),
        ):
            # a copy, as the model may change its input in place
            return call(self.model, params | buffers, x.clone())

    def tangent(self, i: int, direction: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(z, Jᵀv) of chunk i by forward-mode differentiation; both (n_i, C)."""
        primals = tuple(p.detach() for p in self.tensors)
        return self.along(i, primals, tuple(direction))

    def along(
        self, i: int, tensors: tuple[Tensor, ...], direction: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """The same at θ = ``tensors``, which may be within a forward mode themselves."""
        with contextlib.ExitStack() as stack:
            for context in self.forward_mode:
                stack.enter_context(context())
            return jvp(lambda *ts: self.logits(i, ts), tensors, direction)[:2]

    @property
    def mine(self) -> range:
        """The chunks of this process."""
        return mine(len(self.xs))

    def gathered(self, parts: Mapping[int, Tensor]) -> Tensor:
        """What was found for each example, out of the chunks of all processes."""
        return gathered(parts, self.sizes, self.tensors[0])

    def operator(self, product: Callable[[Tensor], Tensor], problem=None) -> SymmetricOperator:
        return SymmetricOperator((self.m, self.m), self.dtype, self.device, product, problem)


def _chunked(
    model: nn.Module, loss: Loss, data: object, chunk: int
) -> tuple[list[tuple[Tensor, Tensor]], _Passes]:
    """The pairs of the data, and their passes."""
    check_reduction(loss)
    pairs = chunks(data, chunk)
    return pairs, _Passes(model, [x for x, _ in pairs])


def check_reduction(loss: Loss | None) -> None:
    """Raise ValueError where a loss says that it is no mean."""
    if (reduction := getattr(loss, "reduction", "mean")) not in ("mean", "batchmean"):
        raise ValueError(f"loss: expected a mean over examples, got reduction={reduction!r}")


def _value(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    value = loss(z, y)
    if value.numel() != 1:
        raise ValueError(f"loss: expected one number, got shape {tuple(value.shape)}")
    return value


@torch.no_grad()
def _check_mean(
    loss: Loss, z: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], value: Tensor
) -> None:
    """Raise ValueError where the loss of all logits z (N, C) is the sum over their halves, or not
    ``value``, the mean over the chunks, up to the rounding of a sum over the examples of terms as
    large as the logits.  What the library defines is believed."""
    labels = [y for _, y in pairs]
    ours = str(getattr(loss, "__module__", "")).startswith("ijrlib.")
    if ours or len({y.shape[1:] for y in labels}) > 1:
        return
    y, n = torch.cat(labels), len(z)
    whole, again, chunked = float(loss(z, y)), float(loss(z, y)), float(value)
    rounding = n * torch.finfo(z.dtype).eps * (abs(whole) + float(z.abs().max()))
    if not math.isfinite(rounding):
        return
    if not abs(whole - again) <= rounding:
        raise ValueError(
            f"loss: expected the same number of the same logits, got {whole:.6g} and {again:.6g}"
        )
    halves = _of_halves(loss, z, y)
    # a mean with weights is between two halves of one sign, and so not their sum
    of_one_sign = min(halves) > 2 * rounding or max(halves) < -2 * rounding
    if of_one_sign and abs(whole - sum(halves)) <= rounding:
        raise ValueError(
            f"loss: expected a mean over examples, got a sum: {whole:.6g} on {n} examples, "
            f"{halves[0]:.6g} and {halves[1]:.6g} on their halves"
        )
    if not abs(chunked - whole) <= rounding:
        raise ValueError(
            f"loss: expected a plain mean over examples, got {whole:.6g} on {n} examples and "
            f"{chunked:.6g} as the mean over chunks of {len(labels[0])}; with class weights or "
            f"ignored labels, chunk has to be at least {len(y)}"
        )


def _of_halves(loss: Loss, z: Tensor, y: Tensor) -> list[float]:
    """The loss of either half of the examples; NaN where it has none."""
    parts = zip(z.tensor_split(2), y.tensor_split(2), strict=True)
    try:
        return [float(loss(logits, labels)) for logits, labels in parts]
    except Exception:  # of a loss that knows how many examples there are, say
        return [math.nan, math.nan]


_as_it_is = contextlib.nullcontext


def _forward_mode(model: nn.Module) -> list[Callable[[], contextlib.AbstractContextManager]]:
    """What the model needs in forward mode: no derivative of an embedding's row for padding, which
    has none in reverse mode either, and recurrent layers without oneDNN, which has none."""
    contexts: list[Callable[[], contextlib.AbstractContextManager]] = []
    if any(getattr(module, "padding_idx", None) is not None for module in model.modules()):
        contexts.append(without_padding)
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        contexts.append(_without_onednn)
    return contexts


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # of a setting that stays as it is
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _fast_layout(x: Tensor) -> Tensor:
    """Images on a CPU with channels last, which takes an eighth off a pass; the rest as it is.
    A model that flattens with ``view`` refuses it, and gets the layout that was given."""
    if x.ndim == 4 and x.device.type == "cpu":
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _gradient(output: Tensor, inputs: Sequence[Tensor], **kwargs) -> tuple[Tensor, ...]:
    """∂output/∂inputs, zeros where an input does not matter."""
    try:
        return torch.autograd.grad(output, inputs, materialize_grads=True, **kwargs)
    except CheckpointError as error:
        raise ValueError(
            "expected attention and weight_norm without gradient checkpointing, as they are "
            "computed by their formulas here; got a CheckpointError"
        ) from error


CACHE_BYTES = 3 << 29
"""Memory for gradient graphs that are kept between products: 1.5 GiB."""


@dataclass(frozen=True)
class Linearization:
    """L and its first and second derivatives at one θ; void once the parameters change.

    Attributes:
        loss: L, mean loss, a tensor without axes.
        gradient: g = ∇_θ L, shape (m,).
        logits: z of all examples, shape (N, C).
        logit_gradients: ∂ℓ/∂z of all examples, shape (N, C).
        hessian: H, products with it.
        gauss_newton: G = ⟨J M Jᵀ⟩, products with it.
        mean_jacobian: ⟨J⟩, products with it and its transpose.
    """

    loss: Tensor
    gradient: Tensor
    logits: Tensor
    logit_gradients: Tensor
    hessian: SymmetricOperator
    gauss_newton: SymmetricOperator
    mean_jacobian: MeanJacobian


@dataclass(frozen=True)
class _Graph:
    """One chunk's logits z (n, C), cotangents e = ∂L/∂z (n, C) and gradient Σ_x J_x e_x, with the
    graph that differentiates them again."""

    z: Tensor
    cotangents: Tensor
    slopes: tuple[Tensor, ...]

    def along(self, direction: Sequence[Tensor]) -> Tensor | None:
        """gᵀv; None where g depends on nothing (a piecewise-linear model without hidden layer)."""
        inner = sum((s * d).sum() for s, d in zip(self.slopes, direction, strict=True))
        return inner if isinstance(inner, Tensor) and inner.requires_grad else None


@torch.enable_grad()
def linearize(
    model: nn.Module,
    loss: Loss,
    data: object,
    *,
    chunk: int = CHUNK,
    cache_bytes: int = CACHE_BYTES,
) -> Linearization:
    """One pass over the data that yields L, g and z and leaves H and ⟨J⟩ cheap to multiply with.

    The gradient graph of each chunk is kept, as long as all of them fit into ``cache_bytes``; the
    others are formed again for every product.  In units of one gradient, for the paper's
    convolutional networks: the pass itself costs 1, a product with H 2 (3 where the graph is
    not kept), with ⟨J⟩ 0.6 (1), with ⟨J⟩ᵀ 0.7 (1).  ``op.T @ v`` for the mean Jacobian is the part
    of Hv that passes through the cotangents of the logits: ∂(gᵀv)/∂e_x = J_xᵀv.

    Args:
        model: maps x to logits (n, C).
        loss: mean loss of (logits, labels); see :func:`cross_entropy` and :func:`squared`.
        data: a pair (x, y), split into chunks, or an iterable of such pairs.
        chunk: examples per forward pass.
        cache_bytes: memory for kept graphs; 0 keeps none.

    Raises:
        ValueError: for a loss that is a sum over the examples, or whose mean over the chunks is not
            that over the data, as with class weights or ignored labels: then ``chunk`` has to be at
            least the size of the data.
    """
    pairs, passes = _chunked(model, loss, data, chunk)
    tensors = passes.tensors
    build = _graph_builder(passes, pairs, loss)
    kept: dict[int, _Graph] = {}
    values = torch.zeros((), dtype=passes.dtype, device=passes.device)
    gradient = torch.zeros(passes.m, dtype=passes.dtype, device=passes.device)
    logits, cotangents = {}, {}
    per_example = 0.0
    for i in passes.mine:
        with contextlib.nullcontext({}) if logits else _saved_bytes() as saved:
            value, graph = build(i)
        values += value
        gradient += flatten(s.detach() for s in graph.slopes)
        logits[i] = graph.z.detach()
        cotangents[i] = graph.cotangents.detach()
        per_example = per_example or sum(saved.values()) / len(graph.z)
        if per_example * sum(map(len, logits.values())) <= cache_bytes:
            kept[i] = graph
    summed(values, gradient)
    z = passes.gathered(logits)
    _check_mean(loss, z, pairs, values)
    logit_gradients = passes.gathered(cotangents) * len(z)
    classes = z.shape[1]

    @torch.enable_grad()
    def hessian_product(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros_like(v)
        for i in passes.mine:
            graph = kept[i] if i in kept else build(i)[1]
            if (inner := graph.along(direction)) is not None:
                total += flatten(_gradient(inner, tensors, retain_graph=i in kept))
        summed(total)
        return total

    @torch.enable_grad()
    def jacobian_product(u: Tensor) -> Tensor:
        total = torch.zeros(passes.m, dtype=passes.dtype, device=passes.device)
        for i in passes.mine:
            z = kept[i].z if i in kept else passes.logits(i)
            value = (z.mean(0) @ u) * passes.weights[i]
            total += flatten(_gradient(value, tensors, retain_graph=i in kept))
        summed(total)
        return total

    @torch.enable_grad()
    def tangents(i: int, direction: Sequence[Tensor]) -> Tensor:
        """Jᵀv of the examples of chunk i, (n, C)."""
        if i not in kept:
            return passes.tangent(i, direction)[1]
        inner = kept[i].along(direction)
        if inner is None:
            return torch.zeros_like(kept[i].z)
        return _gradient(inner, [kept[i].cotangents], retain_graph=True)[0]

    def transposed_product(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros(classes, dtype=passes.dtype, device=passes.device)
        for i in passes.mine:
            total += passes.weights[i] * tangents(i, direction).mean(0)
        summed(total)
        return total

    @torch.enable_grad()
    def gauss_newton_product(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros_like(v)
        for i in passes.mine:
            z = kept[i].z if i in kept else passes.logits(i)
            y = pairs[i][1]
            weighted = logit_hessian_product(loss, z, y, tangents(i, direction))  # M Jᵀv / n
            value = (z * weighted).sum() * passes.weights[i]
            total += flatten(_gradient(value, tensors, retain_graph=i in kept))
        summed(total)
        return total

    return Linearization(
        values,
        gradient,
        z,
        logit_gradients,
        passes.operator(hessian_product, (model, loss, pairs)),
        passes.operator(gauss_newton_product),
        MeanJacobian(
            (passes.m, classes),
            passes.dtype,
            passes.device,
            jacobian_product,
            transposed_product,
        ),
    )


def _graph_builder(
    passes: _Passes, pairs: Sequence[tuple[Tensor, Tensor]], loss: Loss
) -> Callable[[int], tuple[Tensor, _Graph]]:
    def build(i: int) -> tuple[Tensor, _Graph]:
        with fast_double_backward():
            z = passes.logits(i)
        value = _value(loss, z, pairs[i][1]) * passes.weights[i]
        (cotangents,) = _gradient(value, [z], create_graph=True)
        if not cotangents.requires_grad:
            cotangents.requires_grad_()
        slopes = _gradient(z, passes.tensors, grad_outputs=cotangents, create_graph=True)
        return value.detach(), _Graph(z, cotangents, slopes)

    return build


@contextlib.contextmanager
def _saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of each storage that the graphs formed in this context keep."""
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield saved


@torch.enable_grad()
def hessian(
    model: nn.Module, loss: Loss, data: object, *, chunk: int = CHUNK, cache: bool = False
) -> SymmetricOperator:
    """H = ⟨∇²_θ ℓ⟩ (Definition 1), shape (m, m), by double backward.

    Args:
        model: maps x to logits (n, C).
        loss: mean loss of (logits, labels); see :func:`cross_entropy` and :func:`squared`.
        data: a pair (x, y), split into chunks, or an iterable of such pairs.
        chunk: examples per forward pass.
        cache: keep gradient graphs between products, up to ``CACHE_BYTES``.  A product then costs
            about 2 gradients in place of 3; the operator is void once the parameters change.

    Raises:
        ValueError: for a loss with a ``reduction`` that is no mean.  Of others it is believed that
            their mean over the chunks is that over the data; :func:`linearize` checks it.
    """
    if cache:
        return linearize(model, loss, data, chunk=chunk).hessian
    pairs, passes = _chunked(model, loss, data, chunk)
    build = _graph_builder(passes, pairs, loss)

    @torch.enable_grad()
    def product(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros_like(v)
        for i in passes.mine:
            if (inner := build(i)[1].along(direction)) is not None:
                total += flatten(_gradient(inner, passes.tensors))
        summed(total)
        return total

    return passes.operator(product, (model, loss, pairs))


def gauss_newton(
    model: nn.Module, loss: Loss, data: object, *, chunk: int = CHUNK
) -> SymmetricOperator:
    """G = ⟨J M Jᵀ⟩ (Eq 8), shape (m, m): forward mode, M = ∇²_z ℓ, reverse mode.

    M is applied by differentiating ``loss`` twice in the logits, so it is diag(p) − ppᵀ for the
    cross-entropy and I for the squared loss.  Arguments as in :func:`hessian`.
    """
    pairs, passes = _chunked(model, loss, data, chunk)

    @torch.enable_grad()
    def product(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros_like(v)
        for i in passes.mine:
            _, tangent = passes.tangent(i, direction)  # Jᵀv, (n, C)
            z = passes.logits(i)
            weighted = logit_hessian_product(loss, z.detach(), pairs[i][1], tangent)  # M Jᵀv / n
            total += passes.weights[i] * flatten(
                _gradient((z * weighted).sum(), passes.tensors)
            )  # J M Jᵀv
        summed(total)
        return total

    return passes.operator(product, (model, loss, pairs))


def logit_hessian_product(loss: Loss, z: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """∇²_z of the **mean** loss at logits z (n, C), applied to u (n, C): rows M_x u_x / n."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(z, y), z, create_graph=True)
        if not slope.requires_grad:  # a loss that is linear in z
            return torch.zeros_like(u)
        (out,) = _gradient(slope, [z], grad_outputs=u)
    return out


def mean_jacobian(model: nn.Module, x: object, *, chunk: int = CHUNK) -> MeanJacobian:
    """⟨J⟩ = ∇_θ⟨z⟩ (Eq 7), shape (m, C).

    ``op @ u`` is one reverse pass, ∇_θ(uᵀ⟨z⟩); ``op.T @ v`` one forward-mode pass, ⟨Jᵀv⟩.

    Args:
        x: inputs, split into chunks, or an iterable of such tensors.
    """
    passes = _Passes(model, input_chunks(x, chunk))
    with torch.no_grad():
        classes = passes.logits(0).shape[1]

    @torch.enable_grad()
    def matvec(u: Tensor) -> Tensor:
        total = torch.zeros(passes.m, dtype=passes.dtype, device=passes.device)
        for i in passes.mine:
            value = (passes.logits(i).mean(0) @ u) * passes.weights[i]
            total += flatten(_gradient(value, passes.tensors))
        summed(total)
        return total

    def rmatvec(v: Tensor) -> Tensor:
        direction = unflatten(v, passes.tensors)
        total = torch.zeros(classes, dtype=passes.dtype, device=passes.device)
        for i in passes.mine:
            total += passes.weights[i] * passes.tangent(i, direction)[1].mean(0)
        summed(total)
        return total

    return MeanJacobian((passes.m, classes), passes.dtype, passes.device, matvec, rmatvec)


def jacobian_products(
    model: nn.Module, x: object, v: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """(z, Jᵀv) of every example, both (N, C): one forward-mode pass along v, shape (m,)."""
    passes = _Passes(model, input_chunks(x, chunk))
    direction = unflatten(v, passes.tensors)
    with torch.no_grad():
        parts = {i: passes.tangent(i, direction) for i in passes.mine}
    z, tangents = ({i: pair[k] for i, pair in parts.items()} for k in (0, 1))
    return passes.gathered(z), passes.gathered(tangents)


def input_chunks(x: object, chunk: int = CHUNK) -> list[Tensor]:
    """Inputs as a list of chunks: a tensor split, an iterable of tensors as it is.

    Raises:
        ValueError: where there are none, one is empty or no tensor, or a tensor is to be split with
            a ``chunk`` below 1.
    """
    split = x.split(share(len(x), _positive(chunk))) if isinstance(x, Tensor) else x
    with torch.random.fork_rng(devices=[]):
        xs = list(split)  # type: ignore[call-overload]
    if others := [part for part in xs if not isinstance(part, Tensor)]:
        raise ValueError(
            f"expected inputs alone, as tensors without labels; got {type(others[0]).__name__}"
        )
    if not xs or any(len(part) == 0 for part in xs):
        raise ValueError("expected a tensor of inputs or a non-empty iterable of such tensors")
    return xs


@torch.enable_grad()
def mean_jacobian_gram(model: nn.Module, x: object, *, chunk: int = CHUNK) -> Tensor:
    """⟨J⟩ᵀ⟨J⟩, shape (C, C), float64, exact: C reverse passes on one graph of ⟨z⟩ a chunk.

    Its largest eigenvalue is ‖⟨J⟩‖², its trace ‖⟨J⟩‖_F², and 1̂ᵀ(·)1̂ is ‖⟨J⟩1̂‖².  Keeps ⟨J⟩,
    that is C·m numbers.
    """
    passes = _Passes(model, input_chunks(x, chunk))
    with torch.no_grad():
        classes = passes.logits(0).shape[1]
    jacobian = torch.zeros(classes, passes.m, dtype=passes.dtype, device=passes.device)
    for i in passes.mine:
        mean = passes.logits(i).mean(0) * passes.weights[i]
        for row, z in zip(jacobian, mean.unbind(), strict=True):
            row += flatten(_gradient(z, passes.tensors, retain_graph=True))
    summed(jacobian)
    return gram(jacobian)


@torch.enable_grad()
def loss_and_gradient(
    model: nn.Module, loss: Loss, data: object, *, chunk: int = CHUNK, autocast: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(L, g, z): mean loss, its gradient in R^m and all logits (N, C), chunk by chunk.

    The same reproducible passes as the operators, without touching ``.grad`` or buffers; with
    ``autocast`` in bfloat16 up to the logits, as in training with ``RunConfig.autocast``.
    Arguments and errors as in :func:`linearize`.
    """
    pairs, passes = _chunked(model, loss, data, chunk)
    total = torch.zeros((), dtype=passes.dtype, device=passes.device)
    slope = torch.zeros(passes.m, dtype=passes.dtype, device=passes.device)
    logits = {}
    for i in passes.mine:
        with torch.autocast(passes.device.type, torch.bfloat16, enabled=autocast):
            z = passes.logits(i)
        z = z.to(passes.dtype)
        value = _value(loss, z, pairs[i][1]) * passes.weights[i]
        slope += flatten(_gradient(value, passes.tensors))
        total += value.detach()
        logits[i] = z.detach()
    summed(total, slope)
    z = passes.gathered(logits)
    _check_mean(loss, z, pairs, total)
    return total, slope, z


# -- what the companion papers ask about a step of SGD ---------------------------------------------


@dataclass(frozen=True)
class GradientCovariance:
    """K estimated from the gradients of L mini-batches.

    Attributes:
        eigenvalues: of the estimate, largest first, shape (L,), float64; the last one is 0 up to
            rounding.  NaN where gradients are not finite, or their squares.
        trace: their sum.
        mean: g, shape (m,).
        deviations: g_i − g, shape (L, m).
        mixing: columns c with the unit eigenvector Σ_i c_i (g_i − g), shape (L, L), float64; zero
            where the eigenvalue is.
    """

    eigenvalues: Tensor
    trace: float
    mean: Tensor
    deviations: Tensor
    mixing: Tensor

    def eigenvectors(self, k: int) -> Tensor:
        """The first k eigenvectors as columns, shape (m, k)."""
        return self.deviations.T @ self.mixing[:, :k].to(self.deviations)


@torch.enable_grad()
def gradient_covariance(
    model: nn.Module, loss: Loss, data: tuple[Tensor, Tensor], *, batch_size: int = 1
) -> GradientCovariance:
    """K = ⟨(g_x − g)(g_x − g)ᵀ⟩, g_x the gradient of an example, g their mean.

    (Jastrzebski et al. 2020, Section 3 and Appendix B.)  The N examples are taken in their order as
    L = N/M mini-batches of M = ``batch_size``; what is left over is left out.  With g_i the
    gradient of mini-batch i, in expectation over a random order

        E[(1/L)·Σ_i (g_i − g)(g_i − g)ᵀ] = K·(N − M)/(M(N − 1)),

    so the estimate is the matrix on the left times M(N − 1)/(N − M): exact for M = 1, of rank
    L − 1 at most otherwise.  Its spectrum is that of the L × L Gram matrix.  Keeps L·m numbers.
    Costs one gradient of the data for large M; for M = 1, where examples go through the model one
    by one, that of a convolutional network takes the time of seven.

    Args:
        model: maps x to logits (n, C).
        loss: mean loss of (logits, labels).
        data: a pair (x, y).
        batch_size: M.

    Raises:
        ValueError: for anything but a pair of tensors of one length, a batch size of which the data
            has not two, or a loss with a ``reduction`` that is no mean.
    """
    check_reduction(loss)
    pair = tuple(data) if isinstance(data, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise ValueError(f"data: expected a pair of tensors (x, y), got {type(data).__name__}")
    x, y = pair
    _check_lengths(x, y)
    whole = isinstance(batch_size, Integral) and batch_size >= 1
    count = len(x) // batch_size if whole else 0
    if count < 2:
        raise ValueError(
            f"batch_size: expected at least 1 and at most half of {len(x)} examples, got "
            f"{batch_size}"
        )
    n = count * batch_size
    pairs = chunks(zip(x[:n].split(batch_size), y[:n].split(batch_size), strict=True))
    passes = _Passes(model, [part for part, _ in pairs])
    rows = torch.zeros(count, passes.m, dtype=passes.dtype, device=passes.device)
    for i in passes.mine:
        rows[i] = flatten(_gradient(_value(loss, passes.logits(i), pairs[i][1]), passes.tensors))
    summed(rows)
    mean = rows.mean(0)
    rows -= mean
    products = torch.zeros(count, count, dtype=torch.float64, device=rows.device)
    for part in rows.split(1 << 18, dim=1):  # in single precision where the model is
        products += part @ part.T
    values, vectors = eigh(products)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    lengths = values.sqrt()  # of Σ_i v_i (g_i − g)
    known = values > len(rows) * torch.finfo(rows.dtype).eps * values[0]
    mixing = torch.where(known, vectors / torch.where(known, lengths, 1.0), 0.0)
    scale = batch_size * (n - 1) / ((n - batch_size) * count)
    eigenvalues = values * scale
    return GradientCovariance(eigenvalues, float(eigenvalues.sum()), mean, rows, mixing)


@torch.enable_grad()
def curvatures_along(
    model: nn.Module, loss: Loss, data: object, v: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """vᵀH_x v of every example, H_x the Hessian of its loss and v of shape (m,): shape (N,).

    With ż and z̈ the first and second derivative of the logits along v, vᵀH_x v = żᵀM_x ż +
    (∂ℓ/∂z)ᵀz̈ (Eq 5), by forward mode twice: three to four gradients.  Right where PyTorch's
    derivatives in forward mode are, once and twice: of ``torch.linalg.solve``, ``det`` and
    ``logdet`` and of ``parametrizations.orthogonal`` they are not (2.13); the mean is vᵀHv.
    Arguments as in :func:`hessian`.
    """
    pairs, passes = _chunked(model, loss, data, chunk)
    direction = tuple(unflatten(v, passes.tensors))
    at = tuple(p.detach() for p in passes.tensors)
    found = {}
    for i in passes.mine:

        def first(*tensors: Tensor, i: int = i) -> tuple[Tensor, Tensor]:
            return passes.along(i, tensors, direction)

        with plain_normalization():
            (z, slope), (_, second) = jvp(first, at, direction)[:2]
        z, y = z.detach().requires_grad_(), pairs[i][1]
        (cotangents,) = _gradient(loss(z, y), [z])
        curved = logit_hessian_product(loss, z, y, slope)
        found[i] = (len(z) * ((slope * curved).sum(1) + (cotangents * second).sum(1))).detach()
    return passes.gathered(found)


@torch.no_grad()
def losses_along(
    model: nn.Module,
    loss: Loss,
    data: object,
    v: Tensor,
    lengths: Iterable[float],
    *,
    chunk: int = CHUNK,
) -> Iterator[float]:
    """L(θ + αv) for each α, v of shape (m,), one forward pass of the data when it is asked for.
    Arguments as in :func:`hessian`."""
    pairs, passes = _chunked(model, loss, data, chunk)
    direction = unflatten(v, passes.tensors)
    for length in lengths:
        moved = [p.detach() + length * d for p, d in zip(passes.tensors, direction, strict=True)]
        total = torch.zeros((), dtype=passes.dtype, device=passes.device)
        for i in passes.mine:
            total += loss(passes.logits(i, moved), pairs[i][1]) * passes.weights[i]
        summed(total)
        yield float(total)
