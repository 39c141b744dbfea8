"""One training step before there is a run: what would fail in the first epoch fails here, with nothing left behind."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, Timer
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import KFoldDataModule, Split
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.engine.callbacks import (
    KeepCheckpoints,
    ReseedEachEpoch,
    ScoreEachEpoch,
    WatchTraining,
)
from fmnist_cv.engine.events import Event
from fmnist_cv.engine.fold import FoldJob, assign_split, fold_trainer
from fmnist_cv.engine.loggers import make_loggers
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder
from fmnist_cv.engine.step_errors import explain_step, text_of
from fmnist_cv.engine.trainer import NoProfiler, quiet_lightning
from fmnist_cv.engine.writable import nearest_folder
from fmnist_cv.errors import NonFinite, UserError
from fmnist_cv.models import ImageClassifier
from fmnist_cv.utils.lightning_internals import (
    ignore_minimum_length,
    reraise_keyboard_interrupt,
    state_of_checkpoint,
    step_after_this_batch,
)

N_IMAGES = 8  # of a batch: what a network refuses, it refuses of few images, too

NOT_REHEARSED = (Checkpoint, Timer)  # they write files, or stop by the clock

# Values that Lightning takes, and then fails on in training or ignores.
LEAST = {
    "min_epochs": 0,
    "min_steps": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
}
HINTS = {"max_time": 'give "DD:HH:MM:SS", or units such as {"hours": 2}'}


def run_sanity_check(experiment: Experiment, data: KFoldDataModule, splits: Sequence[Split]) -> None:
    """Train one step as these folds would, on the CPU and without files, and count the steps of each fold.

    The step is Lightning's own: the fold's Trainer, callbacks, augmentation, loss and optimiser, and the end of the epoch
    with its metrics. Its batch is a small one; where that fails, the whole batch decides.

    Args:
        experiment: what is to run.
        data: its data module, with images and scaling.
        splits: of the folds that are to run; that of a refit holds nothing out.

    Raises:
        UserError: what fails, why, and where.
    """
    _check_values(experiment)
    with quiet_lightning(), _same_torch_flags():
        parts = experiment.build(experiment.seed)
        parts.data.take_images(data)
        epochs = [_Epoch.of(parts, split, experiment) for split in splits]
        of_length = {epoch.n_batches: epoch.split for epoch in epochs}
        for n_batches in sorted({min(of_length), max(of_length)}):  # what counts batches must fit all folds
            split = of_length[n_batches]
            refusal = _refusal(experiment, experiment.build(experiment.seed), data, split, N_IMAGES)
            if refusal and (refusal := _refusal(experiment, experiment.build(experiment.seed), data, split, None)):
                raise refusal
        ends_with_one = [epoch for epoch in epochs if epoch.last_size == 1]
        if not ends_with_one:
            return
        epoch = ends_with_one[0]
        if refusal := _refusal(experiment, experiment.build(experiment.seed), data, epoch.split, 1):
            raise UserError(
                f"the last training batch of {epoch.name} has one image ({len(epoch.split.train)} training images, "
                f"data.batch_size {parts.data.batch_size}), on which the network cannot be trained; leave it out with "
                f"--data.drop_last true, or choose another --data.batch_size ({refusal})"
            )


# -- before the step ----------------------------------------------------------------------------------------


def _check_values(experiment: Experiment) -> None:
    trainer = experiment.config.trainer
    for option, least in LEAST.items():
        if trainer[option] is not None and trainer[option] < least:
            raise UserError(f"trainer.{option} is {trainer[option]}; it must be at least {least}")
    for option in ("max_steps", "limit_train_batches"):
        if trainer[option] == 0:
            raise UserError(f"trainer.{option} is 0, with which not one step is trained; give more, or leave it out")
    if trainer.val_check_interval == 0:
        raise UserError("trainer.val_check_interval is 0; it must be above 0")


@dataclass(frozen=True)
class _Epoch:
    """An epoch of one fold.

    Attributes:
        name: the fold's.
        split: the fold's.
        n_batches: training batches.
        last_size: images in the last one; None where the loader does not tell.
    """

    name: str
    split: Split
    n_batches: int
    last_size: int | None

    @classmethod
    def of(cls, parts: FoldParts, split: Split, experiment: Experiment) -> Self:
        """Count the batches of a fold.

        Raises:
            UserError: there is none, or a class is to be weighted of which there is no image.
        """
        fold = RunFolder(Path()).fold(split.repeat, split.fold, experiment.plan.n_repeats)
        name = "the refit" if split.is_refit else fold.name
        parts.data.use_split(split, 0)
        if isinstance(parts.model, ImageClassifier) and parts.model.class_weights == "balanced":
            try:
                parts.model.balanced_weights(parts.data.class_counts())
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
        loader, limit = parts.data.train_dataloader(), experiment.config.trainer.limit_train_batches
        n = len(loader)
        if not n:
            raise UserError(
                f"{name} has {len(split.train)} training images, of which data.drop_last leaves nothing with "
                f"data.batch_size {parts.data.batch_size}; lower it, or give --data.drop_last false"
            )
        used = n if limit is None else min(n, limit) if isinstance(limit, int) else int(n * limit)
        if not used:
            raise UserError(
                f"trainer.limit_train_batches is {limit}, which leaves nothing of the {n} batches of {name}"
            )
        last_size = None
        if isinstance(loader, ImageBatches):
            last_size = loader.last_size if used == n else loader.batch_size
        return cls(name, split, used, last_size)


# -- the step -----------------------------------------------------------------------------------------------


def _refusal(
    experiment: Experiment, parts: FoldParts, data: KFoldDataModule, split: Split, n_images: int | None
) -> UserError | None:
    """Train one step on so many images of the fold's first batch, None for all of it, and end the epoch.

    Returns:
        What went wrong, if anything did.
    """
    where = nearest_folder(experiment.log_dir)  # what is known to be writable
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=where, ignore_cleanup_errors=True) as folder:
        job = FoldJob(
            name="rehearsal",
            config="",
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
        except NonFinite:
            return None  # of other images it may be finite; the training tells
        except UserError as error:
            return error
        except Exception as error:
            return explain_step(error, experiment.config.model.class_path, experiment.config.data.class_path, parts)
    return None


def _train_one_step(experiment: Experiment, job: FoldJob, parts: FoldParts) -> None:
    left_out: list[Callback] = []

    def rehearsed(callbacks: Callback | Sequence[Callback]) -> list[Callback]:
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
        left_out.extend(callback for callback in callbacks if isinstance(callback, NOT_REHEARSED))
        return [callback for callback in callbacks if not isinstance(callback, NOT_REHEARSED)]

    configured = parts.model.configure_callbacks
    parts.model.configure_callbacks = lambda: rehearsed(configured())  # type: ignore[method-assign]
    monitor = None if job.is_refit else experiment.selection.monitor
    keeper = _KeepNothing(job.folder, job.folder, monitor, experiment.selection.mode or "max", _ignore)
    engines = [ReseedEachEpoch(job.seed), WatchTraining(_ignore), ScoreEachEpoch()]
    trainer = _make_trainer(job, parts, [*engines, *rehearsed(parts.callbacks), _OneStep(), keeper])
    trainer.callbacks = [*rehearsed(trainer.callbacks[:-1]), keeper]  # type: ignore[attr-defined]
    for timer in (callback for callback in left_out if isinstance(callback, Timer)):
        if (seconds := timer.time_remaining()) is not None and seconds <= 0:
            raise UserError(
                f"trainer.max_time is {experiment.config.trainer.max_time}, in which not one step is trained"
            )
    trainer.profiler = NoProfiler()  # type: ignore[attr-defined]  # others write files
    with reraise_keyboard_interrupt():
        trainer.fit(parts.model, datamodule=parts.data)
    if monitor is not None and trainer.check_val_every_n_epoch in (None, 1):  # else validation's metrics are to come
        for callback in left_out:
            wanted = getattr(callback, "monitor", None)
            if wanted is not None and wanted not in trainer.callback_metrics:
                raise UserError(
                    f"trainer.callbacks: {type(callback).__name__} monitors '{wanted}', which nothing logs; there "
                    f"are {', '.join(sorted(trainer.callback_metrics))}"
                )


def _make_trainer(job: FoldJob, parts: FoldParts, callbacks: list[Callback]) -> L.Trainer:
    """The fold's Trainer, whose loggers write nothing.

    Raises:
        UserError: an option or a callback that Lightning refuses; the culprit is the one that it refuses alone, too.
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
        raise UserError(f"the Trainer cannot be made: {text_of(error)}") from None


def _shortened(make: Callable[[], Any], n_images: int | None) -> Any:
    """A loader of the first batch alone, with so many of its images."""
    loader = make()
    if isinstance(loader, Mapping | Sequence | CombinedLoader):  # of several loaders
        return loader
    return _FirstBatch(loader, n_images if isinstance(loader, ImageBatches) else None)


@dataclass(frozen=True)
class _FirstBatch:
    """The first batch of a loader. Its length is the loader's, so that options that count batches are judged by that."""

    loader: Any
    n_images: int | None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(self.loader, 1):
            yield batch if self.n_images is None else tuple(part[: self.n_images] for part in batch)


class _OneStep(Callback):
    """Ends training, as if it were the epoch's end, after the first batch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ignore_minimum_length(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step_after_this_batch(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        trainer.should_stop = True


class _KeepNothing(KeepCheckpoints):
    """Checks what would be written, but for the weights and the optimiser's state, which may be large."""

    def _save(self, trainer: L.Trainer, better: bool) -> None:
        checkpoint = state_of_checkpoint(trainer)
        file = io.BytesIO()
        torch.save({k: v for k, v in checkpoint.items() if k not in ("state_dict", "optimizer_states")}, file)
        file.seek(0)
        self._check_loadable(file)


def _ignore(event: Event) -> None:
    pass


@contextlib.contextmanager
def _same_torch_flags() -> Iterator[None]:
    """Put back what `trainer.deterministic` sets for the whole process."""
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
