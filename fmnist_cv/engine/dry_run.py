"""A dry run: one training step as a fold would do it, on the CPU and without files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, Timer
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import KFoldDataModule, Split
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.data.dataset_images import DatasetBatches
from fmnist_cv.engine.callbacks import KeepCheckpoints, ReseedEachEpoch, ScoreEachEpoch, WatchTraining
from fmnist_cv.engine.events import Event
from fmnist_cv.engine.fold import FoldJob, assign_split, fold_trainer
from fmnist_cv.engine.fold_scoring import scored_parts
from fmnist_cv.engine.loggers import make_loggers
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.engine.step_errors import explain_step, text_of
from fmnist_cv.engine.trainer import NoProfiler
from fmnist_cv.engine.writable import nearest_folder
from fmnist_cv.errors import NonFinite, UserError
from fmnist_cv.utils.lightning_internals import (
    ignore_minimum_length,
    reraise_keyboard_interrupt,
    state_of_checkpoint,
    step_after_this_batch,
)

EXCLUDED_CALLBACKS = (Checkpoint, Timer)  # they write files, or stop by the clock
HINTS = {"max_time": 'give "DD:HH:MM:SS", or units such as {"hours": 2}'}


def first_step_error(
    experiment: Experiment, parts: FoldParts, data: KFoldDataModule, split: Split, n_images: int | None
) -> UserError | None:
    """Train one step on the first batch of a fold, or on its first n_images, end the epoch, and check what would be scored.

    Returns:
        The error, or None if there was none.
    """
    where = nearest_folder(experiment.log_dir)  # known to be writable
    with tempfile.TemporaryDirectory(prefix=".dry-run-", dir=where, ignore_cleanup_errors=True) as folder:
        job = FoldJob(
            name="dry run",
            experiment=experiment,
            folder=Path(folder),
            split=split,
            seed=experiment.seed,
            threads=torch.get_num_threads(),
            precision=experiment.precision(),
            accelerator="cpu",
            device=0,
        )
        assign_split(parts, job)
        parts.data.take_images(data)
        parts.data.scaling = data.scaling
        for name in ("train_dataloader", "val_dataloader"):
            setattr(parts.data, name, partial(_shortened, getattr(parts.data, name), n_images))
        try:
            _train_one_step(experiment, job, parts)
            _check_order(parts.data)
        except NonFinite:
            return None  # with other images it may be finite; the training decides
        except UserError as error:
            return error
        except Exception as error:
            return explain_step(error, experiment.config.model.class_path, experiment.config.data.class_path, parts)
    return None


def _train_one_step(experiment: Experiment, job: FoldJob, parts: FoldParts) -> None:
    left_out: list[Callback] = []

    def kept(callbacks: Callback | Sequence[Callback]) -> list[Callback]:
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
        left_out.extend(callback for callback in callbacks if isinstance(callback, EXCLUDED_CALLBACKS))
        return [callback for callback in callbacks if not isinstance(callback, EXCLUDED_CALLBACKS)]

    configured = parts.model.configure_callbacks
    parts.model.configure_callbacks = lambda: kept(configured())  # type: ignore[method-assign]
    monitor = None if job.split.is_refit else experiment.selection.monitor
    keeper = _KeepNothing(job.folder, job.folder, monitor, experiment.selection.mode or "max", _ignore)
    engines = [ReseedEachEpoch(job.seed), WatchTraining(_ignore), ScoreEachEpoch()]
    trainer = _make_trainer(job, parts, [*engines, *kept(parts.callbacks), _OneStep(), keeper])
    trainer.callbacks = [*kept(trainer.callbacks[:-1]), keeper]  # type: ignore[attr-defined]
    for timer in (callback for callback in left_out if isinstance(callback, Timer)):
        if (seconds := timer.time_remaining()) is not None and seconds <= 0:
            raise UserError(f"trainer.max_time is {experiment.config.trainer.max_time}, in which no step is trained")
    trainer.profiler = NoProfiler()  # type: ignore[attr-defined]  # other profilers write files
    with reraise_keyboard_interrupt():
        trainer.fit(parts.model, datamodule=parts.data)
    if monitor is not None and trainer.check_val_every_n_epoch in (None, 1):  # else there are no validation metrics yet
        for callback in left_out:
            wanted = getattr(callback, "monitor", None)
            if wanted is not None and wanted not in trainer.callback_metrics:
                raise UserError(
                    f"trainer.callbacks: {type(callback).__name__} monitors '{wanted}', which nothing logs; there "
                    f"are {', '.join(sorted(trainer.callback_metrics))}"
                )


def _check_order(data: KFoldDataModule) -> None:
    """Refuse overridden loaders whose images are not those that are to be scored, in their order: scores would be of others.

    Batches of the package's own kinds are not read: their labels are known.
    """
    for scored in scored_parts(data, data.test_images):
        batches = scored.loader()
        if _are_known(batches):
            labels = batches.data.labels.cpu()[batches.indices.cpu()]
        else:
            labels = torch.cat([labels for _, labels in batches])
        scored.check(labels, type(data).__name__)


def _are_known(batches: Any) -> bool:
    """Whether they are all of the indices' images, in their order."""
    if type(batches) not in (ImageBatches, DatasetBatches) or batches.seed is not None:
        return False
    return bool((len(batches) - 1) * batches.batch_size + batches.last_size == len(batches.indices))


def _make_trainer(job: FoldJob, parts: FoldParts, callbacks: list[Callback]) -> L.Trainer:
    """The fold's Trainer, with loggers that write nothing.

    Raises:
        UserError: Lightning refuses an option or a callback; each is tried alone to name the one to blame.
    """
    folder = FoldFolder(job.folder)
    loggers: list[Logger] = [DummyLogger() for _ in make_loggers(folder.path, parts.trainer.get("logger"))]
    try:
        return fold_trainer(job, folder, parts, callbacks, loggers)
    except UserError:
        raise
    except Exception as error:
        options = {k: v for k, v in parts.trainer.items() if k not in ("callbacks", "logger")}
        alone: list[tuple[str, dict[str, Any], list[Callback]]]
        alone = [(f"trainer.{key} is {value!r}", {key: value}, []) for key, value in options.items()]
        alone += [(f"trainer.callbacks: {type(c).__name__}", {}, [c]) for c in callbacks]
        for what, trainer_options, own in alone:
            try:
                fold_trainer(job, folder, replace(parts, trainer=trainer_options), own, loggers)
            except Exception as its:
                hint = f" ({HINTS[key]})" if (key := next(iter(trainer_options), "")) in HINTS else ""
                raise UserError(f"{what}: {text_of(its)}{hint}") from None
        raise UserError(f"the Trainer cannot be created: {text_of(error)}") from None


def _shortened(make: Callable[[], Any], n_images: int | None) -> Any:
    """A loader of the first batch only, or of its first n_images."""
    loader = make()
    if isinstance(loader, Mapping | Sequence | CombinedLoader):  # several loaders
        return loader
    return _FirstBatch(loader, n_images if isinstance(loader, ImageBatches | DatasetBatches) else None)


@dataclass(frozen=True)
class _FirstBatch:
    """The first batch of a loader. It has the loader's length, so that options that count batches are checked with it."""

    loader: Any
    n_images: int | None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(self.loader, 1):
            yield batch if self.n_images is None else tuple(part[: self.n_images] for part in batch)


class _OneStep(Callback):
    """Ends the epoch and the training after the first batch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ignore_minimum_length(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step_after_this_batch(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        trainer.should_stop = True


class _KeepNothing(KeepCheckpoints):
    """Checks the checkpoint that would be written, except weights and optimizer state, which may be large."""

    def _save(self, trainer: L.Trainer, better: bool) -> None:
        checkpoint = state_of_checkpoint(trainer)
        file = io.BytesIO()
        torch.save({k: v for k, v in checkpoint.items() if k not in ("state_dict", "optimizer_states")}, file)
        file.seek(0)
        self._check_loadable(file)


def _ignore(event: Event) -> None:
    pass
