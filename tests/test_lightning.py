"""The monitor in Lightning's loop, beside the same loop without it and one written out."""

import warnings

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ijrlib.lightning import CurvatureCallback
from ijrlib.monitor import CurvatureMonitor
from ijrlib.operators import cross_entropy

# isort: split
# After the callback, which lets Lightning load where torchvision does not fit torch.
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

CLASSES, LR, STEPS = 3, 0.2, 12


class Classifier(LightningModule):
    """With batch normalization and dropout, whose statistics and random numbers a measurement must
    leave alone."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, CLASSES)
        )

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, _):
        x, y = batch
        return cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), LR)


def examples(n=48):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.randint(CLASSES, (n,), generator=generator)


def fitted(tmp_path, *callbacks, make=Classifier, steps=STEPS, resume=None, **options):
    """The module after training, in batches of eight, and its trainer."""
    seed_everything(0, verbose=False)
    module = make()
    settings = {"logger": False, **options}
    with warnings.catch_warnings():
        # of a class of Lightning's own, which xdist would import in its main process to report it
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer = Trainer(
            max_steps=steps,
            callbacks=list(callbacks),
            accelerator="cpu",
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        loader = DataLoader(TensorDataset(*examples()), batch_size=8, shuffle=True)
        trainer.fit(module, loader, ckpt_path=resume)
    return module, trainer


def callback(every=4, **options):
    x, y = examples()
    return CurvatureCallback(cross_entropy, (x[:20], y[:20]), every=every, **options)


def without_seconds(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_training_is_the_same_to_the_last_bit(tmp_path):
    measured, _ = fitted(tmp_path, callback(every=1))
    plain, _ = fitted(tmp_path)
    for name, value in plain.state_dict().items():
        assert torch.equal(measured.state_dict()[name], value), name


def test_rows_are_those_of_the_monitor_in_a_loop_written_out(tmp_path):
    watched = callback()
    module, _ = fitted(tmp_path, watched)
    assert [row["step"] for row in watched.monitor.rows] == [0, 4, 8, 12]
    last = watched.monitor.rows[-1]
    x, y = examples()
    alone = CurvatureMonitor(module, cross_entropy, (x[:20], y[:20])).measure()
    for name in ("loss", "impurity_mean", "jacobian_norm_sq"):
        assert last[name] == pytest.approx(alone[name], rel=1e-5), name
    assert last["sharpness"] == pytest.approx(alone["sharpness"], rel=0.02)
    assert last["lr"] == LR and last["threshold"] == pytest.approx(2 / LR)
    assert len(watched.monitor.frame()) == 4


def test_steps_are_those_of_the_optimizer_where_gradients_are_accumulated(tmp_path):
    watched = callback(every=2)
    fitted(tmp_path, watched, steps=4, accumulate_grad_batches=3)
    assert [row["step"] for row in watched.monitor.rows] == [0, 2, 4]


def test_training_that_is_resumed_goes_on_with_the_rows(tmp_path):
    whole = callback()
    fitted(tmp_path, whole)
    first = callback()
    _, trainer = fitted(tmp_path, first, steps=6)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = callback()
    fitted(tmp_path, second, resume=tmp_path / "half.ckpt")
    assert without_seconds(second.monitor.rows[:2]) == without_seconds(whole.monitor.rows[:2])
    assert [row["step"] for row in second.monitor.rows] == [0, 4, 8, 12]


def test_another_training_begins_with_rows_of_its_own(tmp_path):
    watched = callback()
    fitted(tmp_path, watched)
    first = watched.monitor.rows
    fitted(tmp_path, watched)
    assert [row["step"] for row in first] == [0, 4, 8, 12]
    assert without_seconds(watched.monitor.rows) == without_seconds(first)
    assert watched.monitor.rows is not first


def test_another_training_after_one_that_was_resumed_begins_with_rows_of_its_own(tmp_path):
    first = callback()
    _, trainer = fitted(tmp_path, first, steps=6)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    watched = callback()
    fitted(tmp_path, watched, resume=tmp_path / "half.ckpt")
    fitted(tmp_path, watched, steps=6)
    assert without_seconds(watched.monitor.rows) == without_seconds(first.monitor.rows)


def test_a_trainer_that_goes_on_keeps_its_rows(tmp_path):
    watched = callback()
    module, trainer = fitted(tmp_path, watched, steps=6)
    trainer.fit_loop.epoch_loop.max_steps = STEPS
    loader = DataLoader(TensorDataset(*examples()), batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer.fit(module, loader)
    assert [row["step"] for row in watched.monitor.rows] == [0, 4, 8, 12]


def test_a_learning_rate_that_grows_from_zero_is_measured_from_the_start(tmp_path):
    class WarmedUp(Classifier):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), LR)
            warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 4))
            return [optimizer], [{"scheduler": warm_up, "interval": "step"}]

    watched = callback()
    fitted(tmp_path, watched, make=WarmedUp)
    rows = watched.monitor.frame()
    assert list(rows["lr"]) == [0, LR, LR, LR]
    assert list(rows["threshold"]) == pytest.approx([float("inf"), *[2 / LR] * 3])


def test_rows_reach_the_logger(tmp_path):
    watched = callback()
    logger = CSVLogger(tmp_path, name="log")
    fitted(tmp_path, watched, logger=logger)
    written = pd.read_csv(f"{logger.log_dir}/metrics.csv").dropna(subset="curvature/sharpness")
    assert list(written["step"]) == [0, 4, 8, 12]
    assert list(written["curvature/sharpness"]) == pytest.approx(
        list(watched.monitor.frame()["sharpness"])
    )


def test_two_probes_are_watched_under_names_of_their_own(tmp_path):
    both = callback(), callback(every=6, name="others")
    logger = CSVLogger(tmp_path)
    _, trainer = fitted(tmp_path, *both, logger=logger)
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    logged = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    for watched, name in zip(both, ("curvature", "others"), strict=True):
        found = logged[f"{name}/sharpness"].dropna()
        assert found.tolist() == pytest.approx([row["sharpness"] for row in watched.monitor.rows])
    again = callback(), callback(every=6, name="others")
    fitted(tmp_path, *again, steps=STEPS + 6, resume=tmp_path / "both.ckpt")
    for watched, before in zip(again, both, strict=True):
        rows = without_seconds(watched.monitor.rows)
        assert rows[: len(before.monitor.rows)] == without_seconds(before.monitor.rows)
        assert len(rows) > len(before.monitor.rows)


def test_a_module_in_half_precision_is_measured(tmp_path):
    watched = callback(every=6)
    fitted(tmp_path, watched, steps=6, precision="bf16-true")
    rows = watched.monitor.frame()
    assert (rows["sharpness"] > 0).all() and (rows["sharpness_residual"] < 0.05).all()


def test_a_probe_that_is_none_is_refused_when_training_begins(tmp_path):
    with pytest.raises(ValueError, match=r"probe: expected a pair \(inputs, labels\), got Tensor"):
        fitted(tmp_path, CurvatureCallback(cross_entropy, torch.zeros(3, 5)))
