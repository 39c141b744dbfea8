"""Lightning still has, and still uses, the internals that `fmnist_cv.utils.lightning_internals` relies on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from fmnist_cv.models import ImageClassifier
from fmnist_cv.utils import lightning_internals as internals

PACKAGE = Path(internals.__file__).parents[1]


class Module(L.LightningModule):
    """Notes the hooks that Lightning sets on it; four batches per epoch."""

    noted: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def __setattr__(self, name: str, value: Any) -> None:
        self.noted.append(name)
        super().__setattr__(name, value)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = ReduceLROnPlateau(optimizer, patience=0, threshold=1e9, threshold_mode="abs", factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(4, 2))  # type: ignore[arg-type]


def make_trainer(folder: Path, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        **{"max_epochs": 2, **options},
    )


def count_calls(owner: Any, name: str, calls: list[str]) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    setattr(owner, name, call)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(Module())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    return tmp_path / "one.ckpt"


def test_lightning_calls_what_is_replaced(checkpoint: Path) -> None:
    """A function that it no longer calls would be replaced in vain."""
    trainer, calls = make_trainer(checkpoint.parent), list[str]()
    connector, loop = trainer._checkpoint_connector, trainer.fit_loop
    restored = ["restore_model", "restore_datamodule", "restore_callbacks", "restore_training_state"]
    for owner, names in (
        (trainer._signal_connector, ["register_signal_handlers"]),
        (connector, ["_select_ckpt_path", *restored]),
        (loop, ["_iteration_based_training"]),
        (loop.epoch_loop, ["update_lr_schedulers"]),
    ):
        for name in names:
            count_calls(owner, name, calls)
    trainer.fit(Module(), ckpt_path=checkpoint, weights_only=True)
    assert set(calls) == {
        "register_signal_handlers",
        "_select_ckpt_path",
        "_iteration_based_training",
        "update_lr_schedulers",
        *restored,
    }
    expected = {"_", "ckpt_path", "model_provided", "model_connected"}
    assert set(inspect.signature(type(connector)._select_ckpt_path).parameters) - {"self", "state_fn"} <= expected
    updates = inspect.signature(type(loop.epoch_loop).update_lr_schedulers).parameters
    assert list(updates) == ["self", "interval", "update_plateau_schedulers"]


def test_signals_and_checkpoint_paths(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, calls = make_trainer(checkpoint.parent), list[str]()
    monkeypatch.setattr(
        type(trainer._signal_connector), "register_signal_handlers", lambda self: calls.append("registered")
    )
    internals.ignore_signals(trainer)
    internals.resume_from_given_checkpoint(trainer)
    internals.resume_at_epoch_start(trainer)
    trainer.fit(Module(), ckpt_path=checkpoint, weights_only=True)
    assert not calls and trainer.current_epoch == 2


def test_plateaus_are_stepped_when_the_engine_says_so(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_epochs=3)
    internals.defer_plateau_steps(trainer)
    trainer.fit(Module())
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == 0  # three epochs without a step
    internals.step_plateau_schedulers(trainer)
    assert config.scheduler.last_epoch == 1


def test_the_restored_states_are_counted(checkpoint: Path) -> None:
    trainer, found, guarded = make_trainer(checkpoint.parent), list[tuple[int, int, int]](), list[Any]()

    def guard(restore: internals.Restore) -> internals.Restore:
        guarded.append(restore)
        return restore

    internals.guard_restoring(trainer, guard, lambda *counts: found.append(counts))
    trainer.fit(Module(), ckpt_path=checkpoint, weights_only=True)
    assert found == [(1, 1, 1)] and len(guarded) == 4


class OneStep(Callback):
    """A dry run: ends after the first batch, with the optimizer's step."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        internals.ignore_minimum_length(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        internals.step_after_this_batch(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = True


def test_a_dry_run_has_one_step(tmp_path: Path) -> None:
    options = {"min_epochs": 5, "max_epochs": 9, "accumulate_grad_batches": 4, "callbacks": [OneStep()]}
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(Module())
    assert (trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.total.completed) == (1, 1)


class Stops(Callback):
    """Asks for a stop in each epoch, and notes whether training stops."""

    def __init__(self) -> None:
        self.stops: list[bool] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True
        self.stops.append(internals.stops_after_this_epoch(trainer))


def test_a_stop_waits_for_min_epochs(tmp_path: Path) -> None:
    stops = Stops()
    make_trainer(tmp_path, min_epochs=2, max_epochs=5, callbacks=[stops]).fit(Module())
    assert stops.stops == [False, True]


def test_the_state_of_a_checkpoint_needs_no_file(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(Module())
    assert {"state_dict", "optimizer_states", "lr_schedulers", "callbacks"} <= internals.state_of_checkpoint(
        trainer
    ).keys()


def test_the_name_of_the_running_hook_is_set_on_the_module(tmp_path: Path) -> None:
    module = Module()
    module.noted.clear()
    make_trainer(tmp_path, max_epochs=1).fit(module)
    assert module.noted.count(internals.HOOK_NAME) > 4 * 10
    assert internals.HOOK_NAME in inspect.getsource(L.LightningModule)
    assert "HOOK_NAME" in inspect.getsource(ImageClassifier.__setattr__)


class Interrupted(Module):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        raise KeyboardInterrupt


def test_an_interrupt_stays_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make_trainer(tmp_path).fit(Interrupted())
    with pytest.raises(KeyboardInterrupt), internals.reraise_keyboard_interrupt():
        make_trainer(tmp_path).fit(Interrupted())


def test_the_rank_is_an_attribute() -> None:
    assert rank_zero_only.rank == 0  # type: ignore[attr-defined]
    internals.assume_rank_zero()
    assert rank_zero_only.rank == 0  # type: ignore[attr-defined]


def test_the_loader_is_made_before_training() -> None:
    assert not inspect.signature(L.Trainer(accelerator="cpu", logger=False).fit_loop.setup_data).parameters


def test_no_other_module_uses_lightnings_private_attributes() -> None:
    private = ("_checkpoint_connector", "_signal_connector", "fit_loop", "epoch_loop", "_current_fx_name", ".rank =")
    for path in PACKAGE.rglob("*.py"):
        if path.name != "lightning_internals.py":
            text = path.read_text(encoding="utf-8")
            assert not [name for name in private if name in text], path
