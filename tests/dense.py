"""Dense oracles in float64: whole matrices by automatic differentiation, formulas written out.

Slow and obvious. Nothing here imports ijrlib.operators.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ijrlib.networks import LSTM, PreActivationBlock, ResidualBlock, TextCNN

CLASSES = 3


def fully_connected(activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 5), activation(), nn.Linear(5, CLASSES))


def convolutional(activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, (1, 2)),
        activation(),
        nn.Flatten(),
        nn.Linear(2, CLASSES),
    )


def residual() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        ResidualBlock(2, 4, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    )


def batch_normalized() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        PreActivationBlock(2, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, CLASSES),
    )


class Words(nn.Module):
    """Eight words of a vocabulary of five out of an input of shape (1, 2, 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.bucketize(x.flatten(1), torch.tensor([-0.8, -0.2, 0.2, 0.8], dtype=x.dtype))


def reading(network: type[LSTM | TextCNN]) -> nn.Sequential:
    return nn.Sequential(Words(), network(vocabulary=5, classes=CLASSES, embedding=3, units=2))


KINDS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, CLASSES)),
    "fully connected, tanh": lambda: fully_connected(nn.Tanh),
    "fully connected, ReLU": lambda: fully_connected(nn.ReLU),
    "convolutional, tanh": lambda: convolutional(nn.Tanh),
    "convolutional, ReLU": lambda: convolutional(nn.ReLU),
    "residual": residual,
    "batch normalization": batch_normalized,
    "LSTM": lambda: reading(LSTM),
    "words, convolutional": lambda: reading(TextCNN),
}
"""Small networks of each kind, for inputs of shape (1, 2, 4)."""


class DoubledInPlace(nn.Module):
    """z of 2x; changes x."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.mul_(2))


def network(kind: str, seed: int = 0) -> nn.Sequential:
    """A network of KINDS in float64 and in evaluation mode, its running statistics not trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = KINDS[kind]().double()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.1, 0.1)  # pyright: ignore
                nn.init.uniform_(layer.running_var, 0.5, 2.0)  # pyright: ignore
    return model.eval()


def examples(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """n inputs of shape (1, 2, 4) and their labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 2, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def parameters(model: nn.Module) -> Tensor:
    """θ, shape (m,)."""
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def logits(model: nn.Module, x: Tensor, theta: Tensor) -> Tensor:
    """z(θ), shape (n, C), computed on a copy of the buffers."""
    values, start = {}, 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            values[name] = theta[start : start + p.numel()].view(p.shape)
            start += p.numel()
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return functional_call(model, {**values, **buffers}, (x,))


def loss(name: str, z: Tensor, y: Tensor) -> Tensor:
    """Mean loss, from its definition."""
    target = torch.eye(z.shape[1], dtype=z.dtype)[y]
    if name == "squared":
        return ((z - target) ** 2).sum(1).mean() / 2
    return (torch.log(torch.exp(z).sum(1)) - (z * target).sum(1)).mean()


def gradient(model: nn.Module, name: str, x: Tensor, y: Tensor) -> Tensor:
    """∇_θ L, shape (m,)."""
    theta = parameters(model).requires_grad_()
    return torch.autograd.grad(loss(name, logits(model, x, theta), y), theta)[0]


def hessian(model: nn.Module, name: str, x: Tensor, y: Tensor) -> Tensor:
    """∇²_θ L, shape (m, m)."""
    return torch.autograd.functional.hessian(  # pyright: ignore
        lambda theta: loss(name, logits(model, x, theta), y), parameters(model)
    )


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """J of every example, shape (n, m, C)."""
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: logits(model, x, theta), parameters(model)
    )
    return jacobian.transpose(1, 2)  # pyright: ignore


def logit_hessians(name: str, z: Tensor) -> Tensor:
    """M of every example, shape (n, C, C): diag(p) − p pᵀ, or I for the squared loss."""
    if name == "squared":
        return torch.eye(z.shape[1], dtype=z.dtype).expand(len(z), -1, -1)
    p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def gauss_newton(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """⟨J M Jᵀ⟩, shape (m, m)."""
    j, z = jacobians(model, x), logits(model, x, parameters(model))
    return (j @ logit_hessians(name, z) @ j.transpose(1, 2)).mean(0)


def matrix(op, columns: int | None = None) -> Tensor:
    """All columns of an operator, by products with the unit vectors."""
    identity = torch.eye(op.shape[1], dtype=op.dtype)
    return torch.stack([op @ e for e in identity[:columns]], dim=1)
