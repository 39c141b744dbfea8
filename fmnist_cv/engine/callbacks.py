"""The callbacks of a fold: seeds, training metrics, validation, checkpoints, progress events."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from fmnist_cv.config.checks import check_callbacks
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.engine.events import EpochEnded, Notify, StepEnded
from fmnist_cv.engine.modes import modes_of, set_modes
from fmnist_cv.engine.schedulers import check_optimizers, step_plateaus
from fmnist_cv.engine.scoring import loss_and_accuracy, predict_log_probabilities
from fmnist_cv.errors import NonFinite, UserError
from fmnist_cv.models import ImageClassifier
from fmnist_cv.models.classifier import EpochTotals
from fmnist_cv.runtime import derive_seed, monotonic_clock, seed_everything
from fmnist_cv.utils.lightning_internals import stops_after_this_epoch


class ReseedEachEpoch(Callback):
    """Make an epoch's randomness a function of (seed, repeat, fold, epoch), so that resuming needs no generator state.

    Args:
        seed: the fold's seed, itself derived from (seed, repeat, fold).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed_everything(derive_seed(self.seed, trainer.current_epoch))


class WatchTraining(Callback):
    """Collect the training loss, fail on one that is not finite, and emit progress events.

    Works for any module whose training step returns a loss. For a module that is not an ImageClassifier, it also logs
    `train/loss` and, from the outputs of `forward`, `train/accuracy`.

    Args:
        notify: takes progress events.
    """

    check_every = 64  # steps; reading a loss synchronises with the GPU
    notify_every_s = 0.25

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._losses = torch.zeros(self.check_every)  # of the latest steps
        self._steps = 0
        self._totals: EpochTotals | None = None
        self._outputs: Tensor | None = None
        self._hook: Any = None
        self._notified_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, ImageClassifier):
            self._hook = pl_module.register_forward_hook(self._keep_outputs)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _keep_outputs(self, module: Any, inputs: Any, outputs: Any) -> None:
        self._outputs = outputs.detach() if isinstance(outputs, Tensor) and module.training else None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._losses = self._losses.to(pl_module.device)
        self._steps, self._outputs = 0, None
        self._totals = EpochTotals(pl_module.device) if self._hook is not None else None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._losses[self._steps % self.check_every] = loss.detach()
            self._steps += 1
            if self._steps % self.check_every == 0:
                self._check_finite(trainer, self.check_every)
            if self._totals is not None:
                # Lightning passes the loss divided by the number of batches that share an optimizer step
                shared = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
                self._add_to_totals(loss.detach() * shared, batch[1])
        now = time.monotonic()
        if now - self._notified_at > self.notify_every_s:
            self._notified_at = now
            self._notify(StepEnded(trainer.current_epoch, batch_idx + 1))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check_finite(trainer, self._steps % self.check_every)
        if self._totals is not None and self._steps:
            loss, accuracy = self._totals.means()
            pl_module.log_dict({"train/loss": loss, "step": float(trainer.current_epoch)})
            if accuracy.isfinite():
                pl_module.log("train/accuracy", accuracy)

    def _add_to_totals(self, loss: Tensor, labels: Tensor) -> None:
        assert self._totals is not None
        if self._outputs is not None and self._outputs.shape[:1] == labels.shape and self._outputs.ndim == 2:
            right = (self._outputs.argmax(1) == labels).sum()
        else:  # a training step that does not go through forward has no accuracy
            right = torch.full((), torch.nan, device=loss.device)
        self._totals.add(loss, right, len(labels))

    def _check_finite(self, trainer: L.Trainer, n_latest: int) -> None:
        bad = ~self._losses[:n_latest].isfinite()
        if not bad.any():
            return
        index = int(bad.nonzero()[0])
        step = self._steps - n_latest + index
        raise NonFinite(
            f"the training loss became {float(self._losses[index])} in epoch {trainer.current_epoch}, step {step} "
            f"(counted from 0); lower the learning rate, clip the gradient (--trainer.gradient_clip_val 1), "
            "or use --trainer.precision 32-true"
        )


class ScoreEachEpoch(Callback):
    """After each epoch, score the images that choose the epoch, and log `val/loss` and `val/accuracy`.

    The engine makes this pass itself, so a module need not log anything.
    """

    def __init__(self) -> None:
        # (began, ended, images, clock) of each epoch, in seconds of that clock; without a clock, seconds since 1970
        self.train_intervals: list[list[Any]] = []
        self._epoch_began, self._images = 0.0, 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_began, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[1])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.train_intervals.append([self._epoch_began, time.monotonic(), self._images, monotonic_clock()])
        data: KFoldDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if data.split.is_refit:
            return
        loss, accuracy = loss_and_accuracy(
            *predict_log_probabilities(
                pl_module, data, data.val_dataloader(), trainer.precision_plugin.forward_context()
            )
        )
        scores = {"val/loss": loss, "val/accuracy": accuracy, "step": float(trainer.current_epoch)}
        pl_module.log_dict(scores)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {"train_intervals": self.train_intervals}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_intervals = list(state_dict["train_intervals"])


class KeepCheckpoints(Checkpoint):
    """Keep the checkpoints of the last and the best epoch, each written atomically, and the history of all metrics.

    It is a `Checkpoint`, and the last of them, so that Lightning calls it after all other callbacks: the checkpoint then
    includes what early stopping decided, and the learning rate of the next epoch.

    Args:
        last: where the last epoch's checkpoint goes.
        best: where the best epoch's goes.
        monitor: the metric that decides; None makes every epoch the best so far, for a refit.
        mode: "max" or "min".
        notify: takes progress events.
    """

    def __init__(self, last: Path, best: Path, monitor: str | None, mode: str, notify: Notify) -> None:
        self.last, self.best, self.monitor, self.mode, self._notify = last, best, monitor, mode, notify
        self.history: list[dict[str, float]] = []
        self.best_epoch = -1
        self.stopped = False  # training is over
        self._should_stop = False  # requested, but min_epochs may prevent it
        self._modes: dict[str, list[str]] | None = None  # of the submodules; missing in older checkpoints
        self._lr: dict[str, float] = {}  # empty if no optimizer has a learning rate

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Move to the end: Lightning has appended the callbacks that the module itself configures."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        check_callbacks(others)
        if self.monitor is None:  # a refit holds out no images that these could monitor
            others = [callback for callback in others if not isinstance(callback, EarlyStopping | Checkpoint)]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        check_optimizers(trainer, pl_module, is_refit=self.monitor is None)
        trainer.should_stop = self._should_stop
        if self.history:  # metrics persist until they are logged again, but checkpoints do not contain them
            metrics = {name: torch.tensor(value) for name, value in self.history[-1].items()}
            trainer.callback_metrics.update(metrics)
        if self._modes is not None:
            set_modes(pl_module, self._modes)
        self.log_history(trainer)

    def log_history(self, trainer: L.Trainer) -> None:
        """Log the history again, since a killed process may not have flushed all of it.

        TensorBoard draws equal points on top of each other; CSVLogger overwrites its file in an existing folder.
        """
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger | CSVLogger):
                for epoch, metrics in enumerate(self.history):
                    logger.log_metrics({**metrics}, step=epoch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._lr = {"lr": float(groups[0]["lr"])} if groups and "lr" in groups[0] else {}  # before the scheduler steps

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "step"}
        better = self._is_better(metrics, trainer.current_epoch)
        pl_module.log_dict(self._lr)
        self.history.append({**metrics, **self._lr})
        if better:
            self.best_epoch = len(self.history) - 1
        self._should_stop = trainer.should_stop
        self.stopped = stops_after_this_epoch(trainer)
        step_plateaus(trainer)
        self._modes = modes_of(pl_module)
        self._save(trainer, better)
        self._notify(EpochEnded(trainer.current_epoch, metrics))

    def _is_better(self, metrics: dict[str, float], epoch: int) -> bool:
        if self.monitor is None:
            return True
        if self.monitor not in metrics:
            raise UserError(
                f"selection.monitor is '{self.monitor}', which nothing logs; there are {', '.join(sorted(metrics))}"
            )
        score = metrics[self.monitor]
        if not math.isfinite(score):
            raise NonFinite(f"{self.monitor} became {score} after epoch {epoch}")
        if not self.history:
            return True
        best = self.history[self.best_epoch][self.monitor]
        return score > best if self.mode == "max" else score < best

    def _save(self, trainer: L.Trainer, better: bool) -> None:
        temporary = self.last.with_name(".last.ckpt.new")
        trainer.save_checkpoint(temporary)  # atomically, see AtomicCheckpointIO
        if len(self.history) == 1:
            self._check_loadable(temporary)
        if better:
            # the best one first: if killed in between, the epoch is repeated and saved identically
            new_best = self.best.with_name(".best.ckpt.tmp")
            new_best.unlink(missing_ok=True)
            try:
                os.link(temporary, new_best)
            except OSError:  # a file system without hard links
                shutil.copyfile(temporary, new_best)
            os.replace(new_best, self.best)
        os.replace(temporary, self.last)

    @staticmethod
    def _check_loadable(file: Path | BinaryIO) -> None:
        """Refuse a checkpoint that could never be loaded, after the first epoch instead of after the last."""
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(
                "the checkpoint contains objects that are not plain values, so that it could not be loaded safely: "
                f"{str(error).splitlines()[0]} Check the model's on_save_checkpoint, the callbacks' state and "
                "save_hyperparameters of model and data"
            ) from None

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "should_stop": self._should_stop,
            "modes": self._modes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [dict(metrics) for metrics in state_dict["history"]]
        self.best_epoch, self.stopped = state_dict["best_epoch"], state_dict["stopped"]
        self._should_stop, self._modes = state_dict["should_stop"], state_dict.get("modes")
