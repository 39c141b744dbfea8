"""Trains one fold with a new model, then scores the held-out images and, once, the test set."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import Images, Split
from fmnist_cv.engine import tensorboard
from fmnist_cv.engine.best_effort import guarded_loggers
from fmnist_cv.engine.callbacks import KeepCheckpoints, ReseedEachEpoch, ScoreEachEpoch, WatchTraining
from fmnist_cv.engine.checkpoint_io import AtomicCheckpointIO
from fmnist_cv.engine.events import Failed, FailureKind, Finished, Notify, ScoringStarted, Started, WarningIssued
from fmnist_cv.engine.fold_scoring import load_checkpoint, score_fold
from fmnist_cv.engine.locks import Locked, locked
from fmnist_cv.engine.loggers import make_loggers, name_loggers
from fmnist_cv.engine.restoring import explain_restore_errors, watch_restoring
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder
from fmnist_cv.engine.trainer import NoProfiler, make_trainer, quiet_lightning
from fmnist_cv.engine.writable import explain_disk_errors
from fmnist_cv.errors import CannotWrite, NonFinite, UserError
from fmnist_cv.models import ImageClassifier
from fmnist_cv.runtime import prepare_process
from fmnist_cv.utils.lightning_internals import reraise_keyboard_interrupt


@dataclass(frozen=True)
class Loaded:
    """What a process has read already, so that the folds it runs itself need not do it again.

    Attributes:
        train, test: the images.
    """

    train: Images
    test: Images | None


@dataclass(frozen=True, eq=False)
class FoldJob:
    """Everything that a process needs to run one fold, or the refit on all images.

    Attributes:
        name: how the display and messages call the fold.
        experiment: the resolved experiment.
        folder: the fold's folder.
        split: what to train on and what to score.
        seed: the fold's seed, derived from (seed, repeat, fold).
        threads: CPU threads; part of the run, since sums in another order round differently.
        precision: the Trainer's precision.
        accelerator, device: where to run.
        score_test: score the test set when the fold is over; a search must not.
        loaded: for a fold in this process; None makes the fold read for itself, as one in another process does.
    """

    name: str
    experiment: Experiment
    folder: Path
    split: Split
    seed: int
    threads: int
    precision: str
    accelerator: str
    device: int
    score_test: bool = True
    loaded: Loaded | None = None


def run_fold(job: FoldJob, notify: Notify) -> None:
    """Train and score one fold, from its last checkpoint if it has one. Progress and outcome go to `notify`.

    A fold that fails reports the reason and does not affect the others; what it has saved is kept for the next attempt.
    """
    folder = FoldFolder(job.folder)
    try:
        with explain_disk_errors(job.folder.parent):
            folder.make()
            with locked(folder.lock, wait=False, what=f"{job.name} of this run"):
                if not folder.finished:
                    with quiet_lightning(), tensorboard.quiet_writers():
                        _train_and_score(job, folder, notify)
        validation = folder.read_metrics()["last"].get("validation")
        notify(Finished(None if validation is None else validation["accuracy"]))
    except Locked as error:
        notify(Failed(str(error), FailureKind.LOCKED))
    except CannotWrite as error:
        notify(Failed(str(error), FailureKind.CANNOT_WRITE))
    except NonFinite as error:
        notify(Failed(str(error), FailureKind.DIVERGED))
    except UserError as error:
        notify(Failed(str(error), FailureKind.USER_ERROR))
    except Exception as error:
        notify(Failed(f"{type(error).__name__}: {error}", FailureKind.EXCEPTION, traceback.format_exc()))


def _train_and_score(job: FoldJob, folder: FoldFolder, notify: Notify) -> None:
    began = time.perf_counter()
    prepare_process(job.threads)
    experiment = _experiment_of(job)
    parts = experiment.build(job.seed)
    if job.loaded is not None:
        parts.data.train_images = job.loaded.train
    else:
        parts.data.is_copy, parts.data.warns = True, False
        _check_same(parts.data.train_images, "fingerprint", folder)
    assign_split(parts, job)

    selection = experiment.selection
    monitor = None if job.split.is_refit else selection.monitor
    keeper = KeepCheckpoints(folder.last_checkpoint, folder.best_checkpoint, monitor, selection.mode or "max", notify)
    timer = ScoreEachEpoch()
    callbacks = [ReseedEachEpoch(job.seed), WatchTraining(notify), timer, *parts.callbacks]
    if selection.patience is not None:
        callbacks.append(
            EarlyStopping(
                selection.monitor,
                selection.min_delta,
                selection.patience,
                mode=selection.mode or "max",
                check_finite=False,
                check_on_train_epoch_end=True,
            )
        )

    def warn(text: str) -> None:
        notify(WarningIssued(text))

    loggers = guarded_loggers(make_loggers(folder.path, parts.trainer.get("logger")), warn)
    trainer = fold_trainer(job, folder, parts, [*callbacks, keeper], loggers)
    fit(trainer, parts, folder, keeper, timer, notify)
    notify(ScoringStarted())
    if job.loaded is not None:  # only now: the test set is not part of the training
        parts.data.test_images = job.loaded.test
    elif job.score_test and parts.data.test_images is not None:
        _check_same(parts.data.test_images, "test_fingerprint", folder)
    score_fold(
        experiment,
        folder,
        parts,
        trainer,
        keeper,
        timer.train_intervals,
        seed=job.seed,
        threads=job.threads,
        score_test=job.score_test,
        fold_began=began,
        warn=warn,
    )


def _experiment_of(job: FoldJob) -> Experiment:
    """The job's experiment, in which loggers that the user configures are named after the fold."""
    configured = job.experiment.config.trainer.logger
    if configured in (None, True, False):
        return job.experiment
    return job.experiment.replaced(trainer__logger=name_loggers(configured, job.folder))


def _check_same(images: Images, key: Literal["fingerprint", "test_fingerprint"], folder: FoldFolder) -> None:
    """Refuse images that are not those of the run: its splits name images by their places.

    Raises:
        UserError: files were added, removed or changed since the run was created.
    """
    recorded = RunFolder(folder.path.parent).read_run_info()["data"].get(key)
    if recorded not in (None, images.fingerprint()):  # older runs have none of the test set
        raise UserError(
            f"the data have changed since the run was created (fingerprint {recorded}, now {images.fingerprint()}); "
            "restore them and resume, or start a new run"
        )


def assign_split(parts: FoldParts, job: FoldJob) -> None:
    """Give the fold's parts its split, and the package's networks the faster memory layout."""
    if isinstance(parts.model, ImageClassifier):  # a user-defined model may depend on the default layout
        parts.model.to(memory_format=torch.channels_last)
    parts.data.use_split(job.split, job.seed)


def fit(
    trainer: L.Trainer,
    parts: FoldParts,
    folder: FoldFolder,
    keeper: KeepCheckpoints,
    timer: ScoreEachEpoch,
    notify: Notify,
) -> None:
    """Train from scratch or from the last checkpoint, unless training was complete when that was saved."""
    resumes = folder.last_checkpoint.is_file()
    if resumes:
        # Checked before fitting: after a stop that was decided and saved, Lightning would train one more epoch.
        checkpoint = load_checkpoint(folder.last_checkpoint)
        with explain_restore_errors(folder):
            keeper.load_state_dict(checkpoint["callbacks"][keeper.state_key])
            timer.load_state_dict(checkpoint["callbacks"][timer.state_key])
        watch_restoring(trainer, folder, keeper)
    epochs, max_epochs = len(keeper.history), trainer.max_epochs if trainer.max_epochs is not None else -1
    steps = _steps_per_epoch(parts, trainer)
    last = keeper.history[-1] if keeper.history else {}
    notify(Started(epochs, max_epochs, steps, last))
    if not (keeper.stopped or 0 < max_epochs <= epochs):
        path = folder.last_checkpoint if resumes else None
        with reraise_keyboard_interrupt():
            trainer.fit(parts.model, datamodule=parts.data, ckpt_path=path, weights_only=True)
    else:
        keeper.log_history(trainer)
        for logger in trainer.loggers:
            logger.finalize("success")
    if not keeper.history:
        raise UserError("no epoch was trained; increase trainer.max_epochs, max_steps or max_time")


def fold_trainer(
    job: FoldJob, folder: FoldFolder, parts: FoldParts, callbacks: list[Callback], loggers: list[Logger]
) -> L.Trainer:
    """The fold's Trainer: the experiment's options, and those that the engine sets."""
    options = {key: value for key, value in parts.trainer.items() if key not in ("callbacks", "logger")}
    options |= {
        "accelerator": job.accelerator,
        "devices": [job.device] if job.accelerator == "cuda" else 1,
        "precision": job.precision,
        "callbacks": callbacks,
        "logger": loggers,
        "plugins": [*_user_plugins(parts), AtomicCheckpointIO(folder.path)],
        "default_root_dir": folder.path,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    if not _validates_itself(parts.model):
        options["limit_val_batches"] = 0  # the engine validates itself
    if options.get("log_every_n_steps") is None:
        options["log_every_n_steps"] = 1_000_000  # once per epoch; more often slows small networks down
    if options.get("profiler") is None:
        options["profiler"] = NoProfiler()
    return make_trainer(**options)


def _user_plugins(parts: FoldParts) -> list[Any]:
    plugins = parts.trainer.get("plugins") or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    if own := next((plugin for plugin in plugins if isinstance(plugin, CheckpointIO)), None):
        raise UserError(
            f"trainer.plugins contains {type(own).__name__}, but a fold's checkpoints are written and read by the "
            "engine alone, which writes them atomically; leave it out"
        )
    return plugins


def _validates_itself(model: L.LightningModule) -> bool:
    """Whether the module has a validation step of its own, whose logs the user wants."""
    return type(model).validation_step not in (L.LightningModule.validation_step, ImageClassifier.validation_step)


def _steps_per_epoch(parts: FoldParts, trainer: L.Trainer) -> int:
    steps = len(parts.data.train_dataloader())
    limit = trainer.limit_train_batches
    return min(steps, limit) if isinstance(limit, int) else max(1, int(steps * (limit or 1.0)))
