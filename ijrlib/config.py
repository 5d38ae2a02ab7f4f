"""The configuration of one training run: frozen, validated, with a canonical JSON and a hash.

A run is named by what it is: ``RunConfig.name`` is a readable slug followed by the hash of the
canonical JSON.  The canonical JSON leaves out every field that stands at its default, so that a
field added later (with a default that means "as before") renames no stored run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "digits", "imdb", "invented")
TEXTS = ("imdb", "invented")
LOSSES = ("cross_entropy", "squared")
INITIALIZATIONS = ("default", "xavier_normal", "kaiming_normal")
DTYPES = ("float32", "float64")
REGULARIZERS = {  # and which of the fields ejr_weight, rho, mu, sharpest and gamma it takes
    "none": (),
    "ejr": ("ejr_weight",),
    "ejr_v1": ("rho",),
    "ejr_v2": ("rho", "mu"),
    "sam": ("rho",),
    "nudged": ("sharpest", "gamma"),
    "sharpest_only": ("sharpest",),
}
NETWORKS = (
    "vgg",
    "vgg_cifar100",
    "resnet20",
    "6cnn",
    "simple_cnn",
    "3fcn_cifar",
    "3fcn_mnist",
    "wrn28_10",
    "wrn28_10_cifar100",
    "wrn10_2",
    "wrn10_2_cifar100",
    "simple_cnn_be",
    "mlp_300_100",
    "simple_cnn_bn",
    "mlp_300_100_bn",
    "resnet32",
    "resnet32_bn",
    "lstm",
    "text_cnn",
    "lstm_words",
    "vgg_small",
    "vgg_small_cifar100",
    "lstm_small",
    "lstm_words_small",
    "text_cnn_small",
)
NORMALIZED = (
    "wrn28_10",
    "wrn28_10_cifar100",
    "wrn10_2",
    "wrn10_2_cifar100",
    "simple_cnn_bn",
    "mlp_300_100_bn",
    "resnet32_bn",
)
"""Those of them whose batch normalization makes the examples of a batch influence each other."""
NORMALIZED_NUMBERS = ("mlp_300_100_bn",)
"""Those of them that normalize one number of an example, not an image of many: PyTorch refuses to
train them on a batch of one."""
OF_TWO_CLASSES = ("lstm", "text_cnn", "lstm_small", "text_cnn_small")
"""Those of them with two logits, whose M has one eigenvector."""
MAX_SEED = 2**32 - 1
"""The largest seed: PyTorch's generator for the CPU takes 64 bits and keeps 32."""
MAX_POINTS = 10_000
"""Points of a trajectory, whose Gram matrix then takes 0.8 GB."""
INPUTS = ("standardized", "unit")
DECAY_AT = (0.3, 0.6, 0.8)
"""Shares of the steps at which the learning rate decays, where ``lr_decay`` is below 1."""

MEASURES = (
    "impurity",
    "curvature",
    "shares",
    "accuracy",
    "norms",
    "theorem_2",
    "logit_spectrum",
    "algorithm_2",
    "alignment",
    "clusters",
    "eigenvector_images",
    "spectrum",
    "outliers",
    "trajectory",
    "autocast_check",
    "covariance",
    "break_even",
    "hessian_trace",
    "sharpest",
    "predictions",
)

OF_EIGENVECTORS = ("alignment", "clusters", "eigenvector_images")
"""Measures of the eigenvectors q of M, which has any for the cross-entropy alone."""
OF_SINGLE_EXAMPLES = ("theorem_2", *OF_EIGENVECTORS)
"""Measures of J_x, which an example of a normalized batch has not by itself."""

Window = tuple[int, int, int]
"""(start, stop, every): the steps start, start + every, … below stop."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run, and nothing else.

    The update is θ(t+1) = θ(t) − η g_B(θ(t)) (Eq 34): full-batch gradient descent where
    ``batch_size`` is None, otherwise SGD over shuffled epochs, the last incomplete batch of an
    epoch dropped.  A regularizer, momentum and weight decay change it as they do in §5.2.

    Attributes:
        dataset: one of ``DATASETS``; ``TEXTS`` are made of words, the rest of images.
        examples: number of training examples |D|, drawn from the shuffled training split.
        network: one of ``NETWORKS``.
        lr: learning rate η > 0, at the start.
        steps: number of updates; the run has the steps 0 … ``steps`` (the last one only measured).
        batch_size: |B|, or None for the full batch.
        init: one of ``INITIALIZATIONS``; "default" is the network's own (PAPER section 6).
        loss: one of ``LOSSES``, averaged over examples; "squared" is ½‖z − e_y‖².
        seed: of the initialization, of the choice of examples and of the mini-batches; below 2³².
        dtype: floating-point type of training and measuring.
        autocast: training passes compute in bfloat16 where PyTorch's autocast has it so; parameters
            and gradients stay in ``dtype``, and so do all measurements but those of the logits of
            the training pass.
        chunk: examples per forward pass; bounds the memory.
        probe: number of training examples on which curvature is measured.
        test_examples: number of test examples; 0 leaves the test set alone.
        measures: what is measured when: name → windows (start, stop, every), half open.
        regularizer: one of ``REGULARIZERS`` (:mod:`ijrlib.regularizers`; the last two:
            :mod:`ijrlib.sharpest_directions`).
        ejr_weight: λ_reg > 0 of "ejr".
        rho: ρ > 0 of "ejr_v1", "ejr_v2" and "sam".
        mu: μ > 0 of "ejr_v2".
        momentum: in [0, 1), of SGD.
        weight_decay: at least 0, a multiple of θ added to the gradient.
        lr_decay: factor in (0, 1] on the learning rate at 30%, 60% and 80% of the steps.
        lr_decay_at: the one step at which it decays in place of these; 0 for none.
        augment: each image of a mini-batch is shifted by up to four pixels each way, with zeros
            (the channel's mean) coming in, and mirrored with probability ½.
        inputs: "standardized" per channel, or "unit": bytes scaled to [0, 1].
        sharpest: K of "nudged" and "sharpest_only", the number of sharpest directions.
        gamma: γ ≥ 0 of "nudged".
        regularizer_from: the step at which the regularizer sets in; plain updates before.

    Raises:
        ValueError: naming the field, what was expected and what came.
    """

    dataset: str
    examples: int
    network: str
    lr: float
    steps: int
    batch_size: int | None = None
    init: str = "default"
    loss: str = "cross_entropy"
    seed: int = 0
    dtype: str = "float32"
    autocast: bool = False
    chunk: int = 250
    probe: int = 500
    test_examples: int = 0
    measures: tuple[tuple[str, tuple[Window, ...]], ...] = ()
    regularizer: str = "none"
    ejr_weight: float = 0.0
    rho: float = 0.0
    mu: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_decay: float = 1.0
    augment: bool = False
    inputs: str = "standardized"
    sharpest: int = 0
    gamma: float = 0.0
    regularizer_from: int = 0
    lr_decay_at: int = 0

    def __post_init__(self) -> None:
        _one_of("dataset", self.dataset, DATASETS)
        _one_of("network", self.network, NETWORKS)
        _one_of("init", self.init, INITIALIZATIONS)
        _one_of("loss", self.loss, LOSSES)
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("inputs", self.inputs, INPUTS)
        for field in ("autocast", "augment"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field}: expected true or false, got {getattr(self, field)!r}")
        if self.autocast and self.dtype != "float32":
            raise ValueError(f"autocast: expected dtype float32 with it, got {self.dtype}")
        for field in ("examples", "steps", "chunk", "probe"):
            _integer(field, getattr(self, field), at_least=1)
        if isinstance(self.seed, int) and self.seed > MAX_SEED:
            raise ValueError(f"seed: expected less than 2**32, got {self.seed}")
        for field in ("seed", "test_examples", "regularizer_from", "lr_decay_at"):
            _integer(field, getattr(self, field), at_least=0)
        if self.dataset in TEXTS and (self.augment or self.inputs != "standardized"):
            raise ValueError(
                f"dataset: expected neither augment nor inputs with the words of {self.dataset}, "
                f"got augment {self.augment} and inputs {self.inputs!r}"
            )
        if self.batch_size is not None:
            _integer("batch_size", self.batch_size, at_least=1)
            if self.batch_size > self.examples:
                raise ValueError(
                    f"batch_size: expected at most examples = {self.examples}, "
                    f"got {self.batch_size}"
                )
        if self.network in NORMALIZED_NUMBERS:
            sizes = {"a batch": self.batch_size or self.examples, "a probe": self.probe}
            for what, size in sizes.items():
                if self.chunk == 1 or size % self.chunk == 1:
                    raise ValueError(
                        f"chunk: expected no chunk of a single example with the batch "
                        f"normalization of {self.network!r}, got {what} of {size} in chunks of "
                        f"{self.chunk}"
                    )
        if self.probe > self.examples:
            raise ValueError(
                f"probe: expected at most examples = {self.examples}, got {self.probe}"
            )
        infinity = float("inf")
        self._number("lr", lambda v: 0 < v < infinity, "a positive number")
        self._number("momentum", lambda v: 0 <= v < 1, "a number in [0, 1)")
        self._number("weight_decay", lambda v: 0 <= v < infinity, "a number of at least 0")
        self._number("lr_decay", lambda v: 0 < v <= 1, "a number in (0, 1]")
        if self.lr_decay_at and self.lr_decay == 1:
            raise ValueError(f"lr_decay_at: expected 0 without lr_decay, got {self.lr_decay_at}")
        _one_of("regularizer", self.regularizer, tuple(REGULARIZERS))
        taken = REGULARIZERS[self.regularizer]
        _integer("sharpest", self.sharpest, at_least=int("sharpest" in taken))
        if self.sharpest and "sharpest" not in taken:
            raise ValueError(
                f"sharpest: expected 0 with regularizer {self.regularizer!r}, which has none, got "
                f"{self.sharpest}"
            )
        if self.regularizer_from and self.regularizer == "none":
            raise ValueError(
                f"regularizer_from: expected 0 without a regularizer, got {self.regularizer_from}"
            )
        for field in ("ejr_weight", "rho", "mu", "gamma"):
            if field == "gamma" and field in taken:
                self._number(field, lambda v: 0 <= v < infinity, "a number of at least 0")
            elif field in taken:
                what = f"a positive number with regularizer {self.regularizer!r}"
                self._number(field, lambda v: 0 < v < infinity, what)
            else:
                what = f"0 with regularizer {self.regularizer!r}, which has none"
                self._number(field, lambda v: v == 0, what)
        object.__setattr__(self, "measures", canonical_measures(self.measures))
        if "predictions" in dict(self.measures) and not self.test_examples:
            raise ValueError(
                f"measures: predictions are of test examples, expected test_examples above 0, got "
                f"{self.test_examples}"
            )
        if (points := len(self.measured_steps("trajectory"))) > MAX_POINTS:
            raise ValueError(
                f"measures: trajectory keeps a matrix of its points, expected at most {MAX_POINTS} "
                f"of them, got {points}"
            )
        for name, _ in self.measures:
            if name in OF_EIGENVECTORS and self.loss != "cross_entropy":
                raise ValueError(
                    f"measures: {name} is about the eigenvectors of M, expected loss "
                    f"'cross_entropy', got {self.loss!r}"
                )
            if name in OF_SINGLE_EXAMPLES and self.network in NORMALIZED:
                raise ValueError(
                    f"measures: {name} is about the J_x of single examples, expected a network "
                    f"without batch normalization, got {self.network!r}"
                )
            if name == "eigenvector_images" and self.network in OF_TWO_CLASSES:
                raise ValueError(
                    f"measures: {name} is about angles between the eigenvectors of M, expected a "
                    f"network of three classes or more, got {self.network!r} with two"
                )
            if name == "covariance" and self.probe < 2:
                raise ValueError(
                    f"measures: {name} is about how gradients of examples differ, expected probe "
                    f"of at least 2, got {self.probe}"
                )
        if "break_even" in dict(self.measures) and (self.momentum or self.weight_decay):
            raise ValueError(
                f"measures: break_even is about SGD with neither momentum nor weight decay, got "
                f"momentum {self.momentum:g} and weight_decay {self.weight_decay:g}"
            )

    def _number(self, field: str, valid: Callable[[float], bool], what: str) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{field}: expected a number, got {value!r}")
        if not valid(value):
            raise ValueError(f"{field}: expected {what}, got {value!r}")
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(f"{field}: expected {what}, got one beyond any float") from None
        object.__setattr__(self, field, number)

    # -- identity ---------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values."""
        out: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                out[field.name] = value
        if "measures" in out:
            out["measures"] = {name: [list(w) for w in windows] for name, windows in self.measures}
        return out

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, defaults left out."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def slug(self) -> str:
        """Readable part of the name, such as ``cifar10-2000-6cnn-gd-lr0.04-s0``."""
        method = "gd" if self.batch_size is None else f"sgd{self.batch_size}"
        parts = [self.dataset, str(self.examples), self.network, method, f"lr{self.lr:g}"]
        if self.loss != "cross_entropy":
            parts.append(self.loss)
        if self.regularizer != "none":
            strengths = REGULARIZERS[self.regularizer]
            parts.append(self.regularizer)
            parts += [
                f"{field.removeprefix('ejr_')}{getattr(self, field):g}" for field in strengths
            ]
        return "-".join([*parts, f"s{self.seed}"]).replace("_", "")

    @property
    def name(self) -> str:
        """The run's folder under ``data/runs``."""
        return f"{self.slug}-{self.hash}"

    @classmethod
    def from_json(cls, source: str | Mapping[str, Any]) -> RunConfig:
        """Inverse of :meth:`to_json`; accepts the parsed mapping too.

        Raises:
            ValueError: for text that is no JSON object, an unknown or a missing field.
        """
        if isinstance(source, str):
            try:
                source = json.loads(source)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(
                    f"run configuration: expected a JSON object, got {error}"
                ) from None
        if not isinstance(source, Mapping):
            raise ValueError(f"run configuration: expected a JSON object, got {source!r}")
        _known_fields(source)
        missing = [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.name not in source
        ]
        if missing:
            raise ValueError(f"run configuration: missing {', '.join(missing)}")
        return cls(**source)

    def replace(self, **fields: Any) -> RunConfig:
        """A copy with some fields changed.

        Raises:
            ValueError: for an unknown field name, listing the valid ones.
        """
        _known_fields(fields)
        return dataclasses.replace(self, **fields)

    # -- schedule ---------------------------------------------------------------------------------
    def windows(self, measure: str) -> tuple[Window, ...]:
        """The windows of one measure; () where the run does not measure it."""
        _one_of("measure", measure, MEASURES)
        return dict(self.measures).get(measure, ())

    def measured_steps(self, measure: str) -> list[int]:
        """The steps 0 … ``steps`` at which a measure is taken, in order."""
        windows = self.windows(measure)
        last = self.steps + 1
        return sorted({s for start, stop, by in windows for s in range(start, min(stop, last), by)})


def _one_of(field: str, value: object, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{field}: expected one of {', '.join(valid)}; got {value!r}")


def _integer(field: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{field}: expected an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{field}: expected at least {at_least}, got {value}")


def _known_fields(fields: Iterable[str]) -> None:
    valid = [f.name for f in dataclasses.fields(RunConfig)]
    unknown = [name for name in fields if name not in valid]
    if unknown:
        raise ValueError(
            f"RunConfig has no field {', '.join(map(repr, unknown))}; fields: {', '.join(valid)}"
        )


def canonical_measures(value: Any) -> tuple[tuple[str, tuple[Window, ...]], ...]:
    """``RunConfig.measures`` out of windows by name or pairs (name, windows): sorted by name.

    Raises:
        ValueError: for anything else, an unknown name or one that comes twice.
    """
    try:
        pairs = [(n, w) for n, w in (value.items() if isinstance(value, Mapping) else value)]
    except (TypeError, ValueError):
        raise ValueError(f"measures: expected windows by name, got {value!r}") from None
    for name, _ in pairs:
        _one_of("measures", name, MEASURES)
    names = sorted(name for name, _ in pairs)
    if len(set(names)) != len(names):
        raise ValueError(f"measures: expected each name once, got {', '.join(names)}")
    given = dict(pairs)
    return tuple((name, _windows(name, given[name])) for name in names)


def _windows(name: str, windows: Any) -> tuple[Window, ...]:
    try:
        found = tuple(windows)
    except TypeError:
        raise ValueError(
            f"measures[{name!r}]: expected windows (start, stop, every), got {windows!r}"
        ) from None
    return tuple(_window(name, window) for window in found)


def _window(name: str, window: Any) -> Window:
    try:
        start, stop, every = window
    except (TypeError, ValueError):
        raise ValueError(
            f"measures[{name!r}]: expected windows (start, stop, every), got {window!r}"
        ) from None
    _integer(f"measures[{name!r}] start", start, at_least=0)
    _integer(f"measures[{name!r}] stop", stop, at_least=start + 1)
    _integer(f"measures[{name!r}] every", every, at_least=1)
    return (start, stop, every)
