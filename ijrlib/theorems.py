"""Numerical verification of Theorems 1 and 2: each check says what holds, by how much, and where
it is closest to failing.

Theorem 1 needs no torch.  Theorem 2 imports it inside its functions.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One statement, checked on many cases.

    Attributes:
        statement: what was checked, beginning with the theorem and its part.
        slack: by how much it holds in the worst case; negative where it is violated.
        where: the worst case.
        passed: slack ≥ −allowance; False for nan.
        cases: how many cases were checked.
        allowance: what rounding may take; 0 for exact arithmetic.
    """

    statement: str
    slack: float
    where: str
    passed: bool
    cases: int
    allowance: float


def verify_theorem_2(model: Any, x: Any, loss: str = "cross_entropy") -> list[Check]:
    """Theorem 2 for a network and inputs, constructively (PAPER section 4); needs torch.

    With q* the unit top eigenvector of G, v_x = J_xᵀq* and λ*_x = v_xᵀM_xv_x/‖J_x‖² it checks, in
    the mode the model is in (batch norm: evaluation mode, or J_x is not defined),

    * ‖G‖ = ⟨λ*‖J‖²⟩, relatively, up to the residual of q*;
    * 0 ≤ λ*_x and λ*_x ≤ λ^(1)_x for every x;
    * ‖G‖ ≤ ⟨λ^(1)‖J‖²⟩, relatively.

    The two sides come from different passes (forward and reverse mode), whose sums round: to first
    order the relative error of a chain of layers is u·Σ fan-in, with u the unit roundoff, and that
    is what is allowed.

    Args:
        model: maps x (N, …) to logits (N, C).
        loss: "cross_entropy", or "squared" (App. M: M = I, λ^(1) = 1).

    Raises:
        ValueError: for another loss.
        ModuleNotFoundError: without torch.
    """
    import torch

    from ijrlib.sharpness_bound import sharpness_bound

    bound = sharpness_bound(model, x, loss)
    unit = torch.finfo(bound.vector.dtype).eps / 2
    rounding = unit * sum(p[0].numel() for p in model.parameters())  # a bias counts once
    relative = bound.norm or 1.0
    gap = bound.lambda_1 - bound.lambda_star
    count = len(bound.lambda_star)
    kind = "" if loss == "cross_entropy" else f" [{loss} loss]"

    def check(statement: str, slack: float, where: str, allowance: float) -> Check:
        passed = slack >= -allowance  # False for nan
        return Check(f"Theorem 2{kind}: {statement}", slack, where, passed, count, allowance)

    return [
        check(
            "‖G‖ = ⟨λ*‖J‖²⟩",
            -abs(bound.norm - bound.mean) / relative,
            f"residual of q* {bound.residual:.1e}",
            bound.residual + rounding,
        ),
        check(
            "0 ≤ λ*",
            float(bound.lambda_star.min()),
            f"example {int(bound.lambda_star.argmin())}",
            rounding,
        ),
        check("λ* ≤ λ^(1)", float(gap.min()), f"example {int(gap.argmin())}", rounding),
        check(
            "‖G‖ ≤ ⟨λ^(1)‖J‖²⟩",
            (bound.bound - bound.norm) / relative,
            f"residual of q* {bound.residual:.1e}",
            bound.residual + rounding,
        ),
    ]


THEOREM_2_NETWORKS = {  # name -> (digits, steps of gradient descent)
    "3fcn_mnist": (16, 50),
    "3fcn_cifar": (16, 50),
    "6cnn": (8, 20),
    "simple_cnn": (8, 20),
    "resnet20": (8, 20),
    "vgg": (2, 5),
    "vgg_cifar100": (2, 5),
    "wrn28_10": (1, 1),
    "wrn28_10_cifar100": (1, 1),
}


def theorem_2_report(seed: int = 0) -> list[Check]:
    """Theorem 2 on the paper's nine networks, at initialization and after a short training on
    scikit-learn's digits (η = 0.05), with both losses; needs torch.

    A few digits a network, since the theorem holds for any set of inputs.  Returns each statement
    once, with the case that comes closest to a violation (or exceeds it by most).
    """
    from ijrlib import datasets, networks
    from ijrlib.operators import LOSSES
    from ijrlib.training import train

    worst: dict[str, Check] = {}
    for name, (count, steps) in THEOREM_2_NETWORKS.items():
        shape, classes = networks.INPUT_SHAPES[name], networks.CLASSES[name]
        data = datasets.load("digits", count, shape, classes, seed)
        model = networks.build(name, seed=seed).eval()
        for stage, length in {"at initialization": 0, f"after {steps} steps": steps}.items():
            for _ in train(model, LOSSES["cross_entropy"], data.x, data.y, lr=0.05, steps=length):
                pass
            for loss in LOSSES:
                for check in verify_theorem_2(model, data.x, loss):
                    check = dataclasses.replace(check, where=f"{name} {stage}, {check.where}")
                    worst[check.statement] = _worse(worst.get(check.statement), check)
    return list(worst.values())


def _worse(known: Check | None, new: Check) -> Check:
    """The check with less room, over the cases of both."""
    if known is None:
        return new
    room = known.slack + known.allowance, new.slack + new.allowance
    pick = known if room[0] <= room[1] else new  # a nan is picked either way round
    if room[0] != room[0]:
        pick = known
    return dataclasses.replace(pick, cases=known.cases + new.cases)
