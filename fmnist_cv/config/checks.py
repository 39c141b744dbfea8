"""Settings of an experiment that contradict each other, and callbacks that do not fit cross-validation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)

from fmnist_cv.config.class_paths import made_by
from fmnist_cv.config.sections import OWN_METRICS
from fmnist_cv.data.cut_test import check_cut
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.models import ImageClassifier
from fmnist_cv.runtime import LARGEST_SEED
from fmnist_cv.utils.paths import LONGEST_PART, check_name, shortened

if TYPE_CHECKING:
    from fmnist_cv.config.experiment import Experiment

PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "None")


def check_settings(experiment: Experiment) -> None:
    """Refuse values out of range and settings that contradict each other.

    Raises:
        UserError: a setting cannot be used.
    """
    name, cv, selection, trainer = experiment.name, experiment.cv, experiment.selection, experiment.config.trainer
    if not 0 <= experiment.seed <= LARGEST_SEED:
        raise UserError(f"seed is {shortened(str(experiment.seed))}; it must be from 0 to {LARGEST_SEED}")
    check_name(name, "name", LONGEST_PART)
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"name is '{name}'; it names a folder: letters, digits, '.', '_', '+' and '-', a letter or digit first"
        )
    if cv.workers is not None and cv.workers < 1:
        raise UserError(f"cv.workers is {cv.workers}; it must be at least 1")
    if experiment.plan.is_open:  # the images decide how many folds there are
        if cv.fold is not None and cv.fold < 0:
            raise UserError(f"cv.fold is {cv.fold}; folds are counted from 0")
    else:
        check_fold(experiment)
    if cv.test is not None:
        check_cut(cv.test)
    if selection.patience is not None and selection.patience < 1:
        raise UserError(f"selection.patience is {selection.patience}; it must be at least 1, or null")
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs is None and steps == -1 and trainer.max_time is None:
        raise UserError("trainer.max_epochs is not set; say how long to train, e.g. --trainer.max_epochs 10")
    if epochs is not None and epochs < 1:
        raise UserError(f"trainer.max_epochs is {epochs}; it must be at least 1")
    model = experiment.config.model.class_path
    if model.startswith("fmnist_cv.") and selection.monitor not in OWN_METRICS:
        raise UserError(
            f"selection.monitor is '{selection.monitor}', but {model} logs {', '.join(OWN_METRICS)}"
            + did_you_mean(selection.monitor, OWN_METRICS)
        )
    _check_validation_options(experiment)
    if str(trainer.precision) not in PRECISIONS:
        raise UserError(
            f"trainer.precision is {trainer.precision}; images are scaled to float32 for "
            f"{', '.join(PRECISIONS[:-1])} only"
        )


def check_fold(experiment: Experiment) -> None:
    """Refuse a cv.fold that is none of the experiment's folds.

    Raises:
        UserError: it is out of range.
    """
    fold, n_folds = experiment.cv.fold, experiment.plan.n_folds
    if fold is not None and not 0 <= fold < n_folds:
        raise UserError(f"cv.fold is {fold}; this experiment has folds 0 to {n_folds - 1}")


def _check_validation_options(experiment: Experiment) -> None:
    """Lightning's own validation loop runs only for a module with a validation step."""
    model, trainer = made_by(experiment.config.model.class_path), experiment.config.trainer
    if model.validation_step not in (L.LightningModule.validation_step, ImageClassifier.validation_step):
        return
    defaults = {"limit_val_batches": None, "val_check_interval": None, "check_val_every_n_epoch": 1}
    for option, default in defaults.items():
        if trainer[option] != default:
            raise UserError(
                f"trainer.{option} is {trainer[option]}, but has no effect on {model.__name__}: "
                "the engine scores all held-out images after each epoch"
            )


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """Refuse callbacks with which scores and checkpoints would not match.

    Raises:
        UserError: one that averages weights or that trains by itself, whatever its class is called.
    """
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise UserError(
                f"the callback {type(callback).__name__} swaps the weights after an epoch is scored and saved, "
                "so that scores and checkpoints would not be those of the average; leave it out"
            )
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            raise UserError(
                f"the callback {type(callback).__name__} trains by itself whenever a fold starts or is resumed, so "
                "that a resumed fold would end differently; search with python -m fmnist_cv.tune"
            )
