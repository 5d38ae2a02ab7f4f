"""The monitor as a callback of PyTorch Lightning. ::

    callback = CurvatureCallback(cross_entropy, (inputs, labels), every=100)
    Trainer(callbacks=[callback]).fit(module, loader)
    callback.monitor.plot()

Needs ``pip install lightning``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor

from ijrlib.datasets import torchvision_datasets
from ijrlib.monitor import CurvatureMonitor, Inputs
from ijrlib.operators import Loss

with suppress(ImportError):  # Lightning imports torchvision, also one that does not fit torch
    torchvision_datasets()

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer


class CurvatureCallback(Callback):
    """Measures a module's curvature when training begins and every so many steps of its optimizer.

    Where gradients are accumulated, a step is one of the optimizer, not a mini-batch.  Rows also go
    to the trainer's loggers, as ``curvature/sharpness`` and so on, and into its checkpoints:
    training that is resumed goes on with them.  Several callbacks, with other probes, take a
    ``name`` each.

    Args:
        loss: mean loss of (logits, labels).
        probe: (inputs, labels), on any device; the module, called with the inputs, returns logits.
        name: what the loggers have in front of each quantity.
        **options: ``every``, ``chunk`` and ``rtol`` of
            :class:`~ijrlib.monitor.CurvatureMonitor`.

    Attributes:
        monitor: the monitor with all that was measured; None before training.  Another ``fit``
            begins a new one, with the rows so far where the same training goes on.

    Raises:
        ValueError: as the monitor does, when training begins.
    """

    def __init__(
        self, loss: Loss, probe: tuple[Inputs, Tensor], *, name: str = "curvature", **options: Any
    ) -> None:
        self.loss, self.probe, self.name, self.options = loss, probe, name, options
        self.monitor: CurvatureMonitor | None = None
        self._restored: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        optimizers = trainer.optimizers
        rows, self._restored = self._restored, []
        if self.monitor and trainer.global_step and not rows:  # the same training goes on
            rows = self.monitor.rows
        self.monitor = CurvatureMonitor(
            pl_module,
            self.loss,
            move_data_to_device(self.probe, pl_module.device),
            optimizer=optimizers[0] if len(optimizers) == 1 else None,
            **self.options,
        )
        self.monitor.steps = trainer.global_step
        self.monitor.rows = rows
        if not rows:
            self._log(trainer, self.monitor.measure())

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        assert self.monitor is not None, "on_train_start comes first"
        while self.monitor.steps < trainer.global_step:
            self._log(trainer, self.monitor.step())

    def _log(self, trainer: Trainer, row: dict[str, float] | None) -> None:
        if row is not None:
            metrics = {f"{self.name}/{key}": value for key, value in row.items() if key != "step"}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    @property
    def state_key(self) -> str:
        return f"{type(self).__qualname__}[{self.name}]"

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.monitor.rows if self.monitor else self._restored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = list(state_dict["rows"])
