"""Curvature during a training loop of one's own: sharpness, ‖⟨J⟩‖ and impurity on a probe. ::

    monitor = CurvatureMonitor(model, cross_entropy, (inputs, labels), every=100,
                               optimizer=optimizer)
    for x, y in batches:
        ...
        optimizer.step()
        monitor.step()
    monitor.frame()   # a pandas DataFrame
    monitor.plot()    # a matplotlib Figure

Training is what it would be without it, to the last bit: parameters, gradients, buffers, modes and
random numbers are left alone.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijrlib import curvature as engine
from ijrlib.functional import call
from ijrlib.operators import (
    CHUNK,
    Loss,
    check_reduction,
    cross_entropy,
    evaluation_mode,
    linearize,
    logits_in,
)
from ijrlib.spectra import check_tolerance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLD_EVERY = 25
"""Every so many measurements, the first one among them, start cold and ask H independently of what
was followed and of the subset of examples that leads elsewhere."""

SOFTMAX_TOLERANCE = 1e-3
"""Relative difference at which the Hessian of a loss in the logits is no longer that of the
cross-entropy."""

Inputs: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"
"""What the model is called with: one tensor, several by position or several by name."""


class CurvatureMonitor:
    """Measures a model's curvature every so many steps of whatever trains it.

    The model is measured in evaluation mode (batch normalization by its running statistics, no
    dropout) and in float32, or float64 where its parameters are: one in half precision, or in
    several, is copied for it, without autocast.  A loss that is a module is in evaluation mode too.
    Frozen parameters are no part of θ.  A wrapper of ``DataParallel`` or
    ``DistributedDataParallel`` is looked through, and what ``torch.compile`` has compiled runs
    uncompiled.  The device has to know float64, which Apple's MPS does not.

    Args:
        model: returns logits (n, C), or an object or a mapping that has them as ``logits``; (n·T,
            C) for T positions of each example, those of one example after those of another.
        loss: mean loss of (logits, labels).
        probe: (inputs, labels), the examples to measure on, on the model's device: a few hundred of
            the training set.  Inputs are a tensor, or tensors by position or by name, each with
            one row for each example, as have the labels: (n, T) for T positions.
        every: steps between two measurements.  For one before the first step call :meth:`measure`.
        optimizer: for η and the threshold of stability (:func:`threshold` tells where it has one);
            None leaves them NaN.
        chunk: examples per forward pass; bounds the memory.
        rtol: estimated relative error of the sharpness; what it can miss on more than some 600
            examples tells :data:`ijrlib.curvature.RTOL`.

    Raises:
        ValueError: for an ``every`` or a ``chunk`` that is no whole number of at least 1, an
            ``rtol`` that is no tolerance, a model that is no module, a loss that is no function or
            no mean, an optimizer that is none, a probe that is no such pair, or rows and labels of
            different number.
        UserWarning: where the optimizer has no parameter of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        probe: tuple[Inputs, Tensor],
        *,
        every: int = 100,
        optimizer: torch.optim.Optimizer | None = None,
        chunk: int = CHUNK,
        rtol: float = engine.RTOL,
    ) -> None:
        for name, value in (("every", every), ("chunk", chunk)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if isinstance(loss, type) or not callable(loss):
            raise ValueError(f"loss: expected a function of (logits, labels), got {loss!r}")
        check_reduction(loss)
        check_tolerance(rtol)
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: expected an nn.Module, got {type(model).__name__}")
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise ValueError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self.inputs, self.labels = _checked(probe)
        self.model, self.loss, self.optimizer = unwrapped(model), loss, optimizer
        if optimizer is not None and not _trains(optimizer, self.model):
            warnings.warn("optimizer: it has no parameter of the model", stacklevel=2)
        self.every, self.chunk, self.rtol = every, chunk, rtol
        self.steps = 0
        self.rows: list[dict[str, float]] = []
        self._starts: engine.Starts | None = None
        self._softmax = True if _is_cross_entropy(loss) else None  # None: not known yet

    def step(self) -> dict[str, float] | None:
        """Count a step of training, after ``optimizer.step()``; the new row where one is due."""
        self.steps += 1
        return self.measure() if self.steps % self.every == 0 else None

    def measure(self) -> dict[str, float]:
        """Measure now; add the row and return it.

        Its entries: step; loss, sharpness ‖H‖ and jacobian_norm_sq ‖⟨J⟩‖², each with its relative
        residual, impurity_mean ⟨λ^(1)⟩ (NaN where the Hessian of the loss in the logits is not that
        of the cross-entropy, the same multiple of M for every example) and gradient_alignment
        |cos(g, r)| on the probe; lr η and threshold, above which a quadratic with such a sharpness
        is unstable under the optimizer (:func:`threshold`); seconds that it took.  Once the model
        has diverged, numbers are NaN, and nothing is raised.  Examples whose labels the loss
        ignores count in ⟨J⟩ and in the impurity.

        Raises:
            ValueError: where the loss is a sum over the examples, gives other numbers of the same
                logits, or its mean over chunks is not that over the probe, as with class weights or
                ignored labels: then ``chunk`` has to be at least the probe's size.
        """
        began = time.monotonic()
        device = self.labels.device
        loss_mode = contextlib.nullcontext()
        if isinstance(self.loss, nn.Module):
            loss_mode = evaluation_mode(self.loss)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            evaluation_mode(self.model),
            loss_mode,
            _uncompiled(self.model),
        ):
            found = self._measured()
        self._starts = found.starts
        row = {
            "step": self.steps,
            "loss": found.loss,
            "sharpness": found.top.value,
            "sharpness_residual": found.top.residual,
            "jacobian_norm_sq": found.jacobian_norm**2,
            "jacobian_residual": found.jacobian_residual,
            "impurity_mean": engine.mean_impurity(found.logits) if self._softmax else math.nan,
            "gradient_alignment": found.gradient_alignment,
            "lr": _learning_rate(self.optimizer),
            "threshold": threshold(self.optimizer),
            "seconds": time.monotonic() - began,
        }
        self.rows.append(row)
        return row

    def _measured(self) -> engine.Curvature:
        floating = {p.dtype for p in self.model.parameters()}
        dtype = torch.float64 if floating == {torch.float64} else torch.float32
        model, loss = self.model, self.loss
        if floating != {dtype}:
            model, loss = _converted(model, dtype), _converted(loss, dtype)
        if isinstance(loss, nn.Module):
            loss = partial(_stateless, loss)
        inputs = _mapped(self.inputs, partial(_as_type, dtype=dtype))
        labels = _as_type(self.labels, dtype)
        if _is_cross_entropy(self.loss) and labels.ndim == 2 and not labels.is_floating_point():
            loss = partial(_by_position, loss)
        index = torch.arange(len(labels), device=labels.device)
        try:
            linear = linearize(_OnProbe(model, inputs), loss, (index, labels), chunk=self.chunk)
        except Exception as error:
            what = "the model" if model is self.model else f"a copy of the model in {dtype}"
            error.add_note(f"in measuring {what} on the probe")
            raise
        if self._softmax is None:
            self._softmax = _has_softmax_hessian(self.loss, linear.logits, self.labels)
        if self._starts and len(self._starts.top) != len(linear.gradient):
            self._starts = None  # layers have been frozen or unfrozen
        independent = len(self.rows) % COLD_EVERY == 0
        return engine.measure(
            linear, self._starts, independent=independent, rtol=self.rtol, seed=self.steps
        )

    def frame(self) -> pd.DataFrame:
        """What was measured, a row for each time; columns as in :meth:`measure`."""
        return pd.DataFrame(self.rows)

    def plot(self) -> Figure:
        """Sharpness with the threshold, ‖⟨J⟩‖² and impurity against the step.

        Raises:
            ValueError: where nothing was measured yet.
        """
        from ijrlib import figures

        if not self.rows:
            raise ValueError("expected at least one measurement, got none")
        return figures.monitored(self.frame())


class _OnProbe(nn.Module):
    """The model as a function of the number of an example."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, index: Tensor) -> Tensor:
        taken = _mapped(self.inputs, lambda t: t[index])
        if isinstance(taken, Tensor):
            return logits_in(self.model(taken))
        if isinstance(taken, Mapping):
            return logits_in(self.model(**taken))
        return logits_in(self.model(*taken))


def threshold(optimizer: torch.optim.Optimizer | None) -> float:
    """The sharpness above which the iteration on a quadratic is unstable; ∞ where η = 0, NaN where
    no formula is known, and where groups differ in it (weight decay of the weights alone, say).

    2/η for gradient descent, 2(1 + β)/η with momentum β and 2(1 + β)/(η(1 + 2β)) with Nesterov's
    (Cohen et al. 2021, App. B), less the weight decay, which adds to every eigenvalue.
    """
    lr = _learning_rate(optimizer)
    if not isinstance(optimizer, torch.optim.SGD) or math.isnan(lr):
        return math.nan
    found = set()
    for group in optimizer.param_groups:
        beta = group["momentum"]
        if group["dampening"] or group.get("maximize"):
            return math.nan
        ahead = 1 + 2 * beta if group["nesterov"] else 1
        limit = 2 * (1 + beta) / (lr * ahead) if lr else math.inf
        found.add(limit - group["weight_decay"])
    return found.pop() if len(found) == 1 else math.nan


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of ``torch.compile`` and for data parallelism."""
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    while True:
        inner = getattr(model, "module" if isinstance(model, parallel) else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _converted(module: Any, dtype: torch.dtype) -> Any:
    """A copy of a module in another precision; what is no module as it is."""
    if not isinstance(module, nn.Module):
        return module
    try:
        return copy.deepcopy(module)._apply(lambda t: _as_type(t, dtype))
    except RuntimeError as error:
        raise ValueError(
            f"expected a {type(module).__name__} that copy.deepcopy copies, as it is measured in "
            f"{dtype}; got {error}"
        ) from error


def _as_type(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Real numbers in a precision, complex ones in that of their parts, integers as they are."""
    if t.is_complex():
        return t.to(dtype.to_complex())
    return t.to(dtype) if t.is_floating_point() else t


def _stateless(loss: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
    """The loss, whose buffers are left alone."""
    buffers = {name: b.detach().clone() for name, b in loss.named_buffers()}
    return call(loss, buffers, z, labels)


def _uncompiled(model: nn.Module) -> contextlib.AbstractContextManager:
    """Within this context what ``torch.compile`` has compiled runs as it was written: compiled
    code cannot be differentiated twice."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def _learning_rate(optimizer: torch.optim.Optimizer | None) -> float:
    """η now; NaN without an optimizer and where groups differ in it."""
    rates = {float(group["lr"]) for group in optimizer.param_groups} if optimizer else set()
    return rates.pop() if len(rates) == 1 else math.nan


def _by_position(loss: Loss, z: Tensor, labels: Tensor) -> Tensor:
    """The loss of labels (n, T) that have a row of logits each."""
    return loss(z, labels.reshape(-1))


def _trains(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Whether the optimizer has a parameter of the model."""
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def _is_cross_entropy(loss: object) -> bool:
    """Whether it is known for M = diag(p) − ppᵀ, which smoothed labels leave as it is."""
    if type(loss) is nn.CrossEntropyLoss:  # not one that is made out of it
        return loss.weight is None
    return loss in (cross_entropy, F.cross_entropy)


def _has_softmax_hessian(loss: Loss, z: Tensor, labels: Tensor) -> bool | None:
    """Whether the Hessian of the loss in the logits z is the same multiple of M for every row, or 0
    where a label is ignored; along a random direction and in float64.  None where that cannot be
    told: of logits that are not finite, and where it is 0 throughout."""
    z = z.detach().double().requires_grad_()
    v = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0)).to(z.device)
    try:
        loss = _converted(loss, z.dtype)
        (slope,) = torch.autograd.grad(loss(z, _as_type(labels, z.dtype)), z, create_graph=True)
        (product,) = torch.autograd.grad((slope * v).sum(), z)
    except (RuntimeError, ValueError):  # as of a loss that is linear
        return False
    p = z.detach().softmax(-1)
    expected = p * (v - (p * v).sum(-1, keepdim=True)) * product.any(-1, keepdim=True)
    if not bool(product.any()) or not bool(product.isfinite().all()):
        return None
    error = product - expected * ((product * expected).sum() / expected.square().sum())
    return bool(error.norm() <= SOFTMAX_TOLERANCE * product.norm())


def _checked(probe: object) -> tuple[Inputs, Tensor]:
    try:
        inputs, labels = probe  # type: ignore[misc]
    except (TypeError, ValueError):
        raise ValueError(
            f"probe: expected a pair (inputs, labels), got {type(probe).__name__}"
        ) from None
    parts = _parts(inputs)
    tensors = isinstance(labels, Tensor) and all(isinstance(part, Tensor) for part in parts)
    if not tensors or not all(part.ndim for part in (labels, *parts)):
        raise ValueError(
            "probe: expected inputs and labels as tensors with an axis of examples, the inputs "
            "also by position or by name"
        )
    counts = [len(part) for part in parts]
    if not counts or not len(labels) or any(count != len(labels) for count in counts):
        raise ValueError(
            f"probe: expected as many rows as labels, at least one; got {counts} rows and "
            f"{len(labels)} labels (labels of T positions of each row have shape (rows, T))"
        )
    return inputs, labels


def _parts(inputs: Any) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    several = isinstance(inputs, Iterable) and not isinstance(inputs, Tensor)
    return list(inputs) if several else [inputs]


def _mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {name: change(part) for name, part in inputs.items()}
    return [change(part) for part in inputs]
