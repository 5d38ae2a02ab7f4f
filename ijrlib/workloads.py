"""What the benchmarks measure on: data, networks, and a window of training at the edge of
stability."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ijrlib import datasets, networks
from ijrlib.curvature import Curvature, curvature
from ijrlib.operators import chunks, cross_entropy, flatten, trainable, unflatten
from ijrlib.timing import Pairs
from ijrlib.training import train


@dataclass(frozen=True)
class Sizes:
    """How large each benchmark is.

    Attributes:
        examples: images of the tracked training.
        lr: its η; it is tracked once ‖H‖ exceeds 2/η.
        check_every: steps between two checks of that.
        most_steps: where it is given up.
        settle: steps between that and the window.
        window: consecutive steps in the window.
        tight: consecutive steps of it that are tracked to the higher accuracy too.
        every: one step in so many gets a converged reference.
        cold: steps that are measured cold too.
        peers: steps on which the peers are measured.
        tight_peers: those of them on which they go on to the higher accuracy.
        jacobian: images for ‖⟨J⟩‖ with each number of classes.
        per_example: images for norms of single examples' Jacobians.
        theorem_2: images for the check of Theorem 2.
        impurity: probability vectors for each number of classes.
        impurity_peer: those of them that the peer is given.
        impurity_alone: (classes, vectors) of a case without peer.
        accuracy: vectors that are compared with mpmath, for each number of classes.
        loop: images, batch size and steps in one sample of the training loop.
        full_batch: images and steps in one sample with the full batch.
        loop_rounds: samples for each repeat.
        growth_examples, growth_widths, growth_classes: sizes along the three axes.
        growth_images: images where another size grows.
        memory: images in the measurement of memory.
        update: images in a mini-batch of the updates with a regularizer.
    """

    examples: int
    lr: float
    check_every: int
    most_steps: int
    settle: int
    window: int
    tight: int
    every: int
    cold: int
    peers: int
    tight_peers: int
    jacobian: dict[int, int]
    per_example: int
    theorem_2: int
    impurity: dict[int, int]
    impurity_peer: dict[int, int]
    impurity_alone: tuple[int, int]
    accuracy: dict[int, int]
    loop: tuple[int, int, int]
    full_batch: tuple[int, int]
    loop_rounds: int
    growth_examples: tuple[int, ...]
    growth_widths: tuple[int, ...]
    growth_classes: tuple[int, ...]
    growth_images: int
    memory: int
    update: int


FULL = Sizes(
    examples=1000,
    lr=0.04,
    check_every=20,
    most_steps=1500,
    settle=40,
    window=50,
    tight=5,
    every=10,
    cold=3,
    peers=2,
    tight_peers=1,
    jacobian={10: 500, 100: 100},
    per_example=64,
    theorem_2=32,
    impurity={10: 50_000, 100: 50_000, 1000: 50_000},
    impurity_peer={10: 50_000, 100: 2000, 1000: 10},
    impurity_alone=(50_000, 500),
    accuracy={10: 200, 100: 60, 1000: 10},
    loop=(50_000, 128, 8),
    full_batch=(500, 2),
    loop_rounds=4,
    growth_examples=(64, 128, 256, 512),
    growth_widths=(64, 128, 256, 512, 1024),
    growth_classes=(10, 20, 50, 100, 200),
    growth_images=250,
    memory=50_000,
    update=128,
)


@dataclass(frozen=True)
class Window:
    """θ at consecutive steps of full-batch gradient descent.

    Attributes:
        first: number of the first step.
        thetas: θ(t), flat, for the step before the first and each step of the window.
        reached: whether ``sharpness`` exceeded 2/η before the window.
        sharpness: ‖H‖ when the search ended.
    """

    first: int
    thetas: list[Tensor]
    reached: bool
    sharpness: float


@dataclass(eq=False)
class Workload:
    """Data and networks on one device, made when first asked for."""

    sizes: Sizes
    device: torch.device
    repeats: int
    say: Callable[[str], None]

    @cached_property
    def _data(self) -> tuple[str, datasets.Dataset]:
        wanted = max(
            self.sizes.examples,
            self.sizes.loop[0],
            self.sizes.full_batch[0],
            *self.sizes.jacobian.values(),
            *self.sizes.growth_examples,
        )
        shape = networks.INPUT_SHAPES["6cnn"]
        try:
            return "CIFAR-10", datasets.load("cifar10", wanted, shape, 10, seed=0)
        except FileNotFoundError:
            most = min(wanted, 1400)  # of the 1,797 digits, 1,440 are in the training split
            name = "scikit-learn's digits, as CIFAR-10 was not found"
            return name, datasets.load("digits", most, shape, 10, seed=0)

    @property
    def data_name(self) -> str:
        """In words."""
        return self._data[0]

    @property
    def source(self) -> dict[str, str]:
        """Provenance of the data."""
        return self._data[1].source

    def data(self, examples: int) -> tuple[Tensor, Tensor]:
        """The first images in PyTorch's default layout, and their labels; fewer where there are not
        so many.  A faster layout is the contenders' own business."""
        x, y = self._data[1].x[:examples], self._data[1].y[:examples]
        return x.to(self.device, memory_format=torch.contiguous_format), y.to(self.device)

    def network(self, classes: int = 10) -> nn.Module:
        """6CNN at its initialization, in training mode (it has no mode)."""
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(0)
            model = networks.six_layer_cnn(classes)
        return self.place(model)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device."""
        return model.to(self.device)

    @cached_property
    def trained(self) -> nn.Module:
        """6CNN after 20 steps of gradient descent with mini-batches; not for changing."""
        model = self.network()
        x, y = self.data(self.sizes.examples)
        for _ in train(model, cross_entropy, x, y, lr=0.1, steps=20, batch_size=min(128, len(x))):
            pass
        return model

    @cached_property
    def tracked(self) -> Pairs:
        """Chunks of the examples of the tracked training."""
        return chunks(self.data(self.sizes.examples))

    @cached_property
    def window(self) -> Window:
        """Train 6CNN with the full batch until ‖H‖ > 2/η, let it settle, keep the steps after."""
        sizes, model = self.sizes, self.network()
        x, y = self.data(sizes.examples)
        first: int | None = None
        reached, last = False, None
        thetas: list[Tensor] = []
        steps = sizes.most_steps + sizes.settle + sizes.window
        for step in train(model, cross_entropy, x, y, lr=sizes.lr, steps=steps):
            if first is None and step.step % sizes.check_every == 0:
                last = curvature(model, cross_entropy, (x, y), last, rtol=0.05)
                reached = last.top.value > 2 / sizes.lr
                self.say(f"step {step.step}: sharpness {last.top.value:.1f} of {2 / sizes.lr:.0f}")
                if reached or step.step >= sizes.most_steps:
                    first = step.step + sizes.settle
            if first is not None and step.step >= first - 1:
                thetas.append(flatten(p.detach() for p in trainable(model).values()))
                if len(thetas) == sizes.window + 1:
                    break
        assert first is not None and isinstance(last, Curvature)
        return Window(first, thetas, reached, last.top.value)


def at(model: nn.Module, theta: Tensor) -> nn.Module:
    """The model itself, with θ copied into it."""
    tensors = list(trainable(model).values())
    with torch.no_grad():
        for p, values in zip(tensors, unflatten(theta, tensors), strict=True):
            p.copy_(values)
    return model


def spread(count: int, of: int) -> list[int]:
    """``count`` indices spread evenly over ``range(of)``, the first and (for two or more) the last
    among them."""
    if count >= of:
        return list(range(of))
    return sorted({round(k * (of - 1) / max(count - 1, 1)) for k in range(count)})


def twin(model: nn.Module) -> nn.Module:
    """A copy for a tool that changes mode or ``.grad``."""
    return copy.deepcopy(model)
