"""Before a run is created: options, batches and one training step, so that what would fail later fails here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import KFoldDataModule, Split
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.data.dataset_images import DatasetBatches
from fmnist_cv.data.lightning_adapter import DatasetDataModule
from fmnist_cv.engine.dry_run import first_step_error
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.engine.trainer import quiet_lightning
from fmnist_cv.errors import UserError
from fmnist_cv.models import ImageClassifier

N_IMAGES = 8  # of a batch; a network that rejects a batch nearly always rejects a small one as well

# Values that Lightning accepts, but then fails on in training or ignores.
MINIMUM = {
    "min_epochs": 0,
    "min_steps": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
}


def run_sanity_check(experiment: Experiment, data: KFoldDataModule, splits: Sequence[Split]) -> None:
    """Check options and batches of these folds, and train one step as they would, on the CPU and without files.

    The step is Lightning's own: the fold's Trainer, callbacks, augmentation, loss and optimizer, and the end of the epoch
    with its metrics. It uses a part of a batch; if that fails, the whole batch decides.

    Args:
        experiment: what is to run.
        data: its data module, with images and scaling.
        splits: of the folds that are to run, or of a refit.

    Raises:
        UserError: with what fails, why, and where.
    """
    _check_values(experiment)
    with quiet_lightning(), _same_torch_flags():
        parts = experiment.build(experiment.seed)
        parts.data.take_images(data)
        epochs = [_Epoch.of(parts, split, experiment) for split in splits]
        of_length = {epoch.n_batches: epoch.split for epoch in epochs}
        for n_batches in sorted({min(of_length), max(of_length)}):  # options that count batches must fit all folds
            split = of_length[n_batches]
            error = first_step_error(experiment, experiment.build(experiment.seed), data, split, N_IMAGES)
            if error and (error := first_step_error(experiment, experiment.build(experiment.seed), data, split, None)):
                raise error
        ends_with_one = [epoch for epoch in epochs if epoch.last_size == 1]
        if not ends_with_one:
            return
        epoch = ends_with_one[0]
        if error := first_step_error(experiment, experiment.build(experiment.seed), data, epoch.split, 1):
            raise UserError(
                f"the last training batch of {epoch.name} has one image ({len(epoch.split.train)} training images, "
                f"data.batch_size {parts.data.batch_size}), on which the network cannot be trained; leave it out with "
                f"{_option(parts, 'drop_last')} true, or choose another {_option(parts, 'batch_size')} ({error})"
            )


def _option(parts: FoldParts, name: str) -> str:
    """How a setting of the batches is given: to the loader itself, where that is the user's."""
    return f"the DataLoader's {name}" if isinstance(parts.data, DatasetDataModule) else f"--data.{name}"


# -- options and batches ----------------------------------------------------------------------------------------


def _check_values(experiment: Experiment) -> None:
    trainer = experiment.config.trainer
    for option, minimum in MINIMUM.items():
        if trainer[option] is not None and trainer[option] < minimum:
            raise UserError(f"trainer.{option} is {trainer[option]}; it must be at least {minimum}")
    for option in ("max_steps", "limit_train_batches"):
        if trainer[option] == 0:
            raise UserError(f"trainer.{option} is 0, with which no step is trained; increase it, or leave it out")
    if trainer.val_check_interval == 0:
        raise UserError("trainer.val_check_interval is 0; it must be above 0")


@dataclass(frozen=True)
class _Epoch:
    """An epoch of one fold.

    Attributes:
        name: the fold's.
        split: the fold's.
        n_batches: training batches.
        last_size: images in the last one; None if unknown.
    """

    name: str
    split: Split
    n_batches: int
    last_size: int | None

    @classmethod
    def of(cls, parts: FoldParts, split: Split, experiment: Experiment) -> Self:
        """Count the batches of a fold.

        Raises:
            UserError: there is none, a class that is to be weighted has no image, or all images have the weight 0.
        """
        fold = RunFolder(Path()).fold(split.repeat, split.fold, experiment.plan.n_repeats)
        name = "the refit" if split.is_refit else fold.name
        parts.data.use_split(split, 0)
        try:
            if isinstance(parts.model, ImageClassifier) and parts.model.class_weights == "balanced":
                parts.model.balanced_weights(parts.data.class_counts())
            loader = parts.data.train_dataloader()
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        limit = experiment.config.trainer.limit_train_batches
        n = len(loader)
        if not n:
            raise UserError(
                f"{name} has {len(split.train)} training images, less than one batch of data.batch_size "
                f"{parts.data.batch_size}, and data.drop_last is true; lower the batch size, or give "
                f"{_option(parts, 'drop_last')} false"
            )
        used = n if limit is None else min(n, limit) if isinstance(limit, int) else int(n * limit)
        if not used:
            raise UserError(f"trainer.limit_train_batches is {limit}, which leaves none of the {n} batches of {name}")
        last_size = None
        if isinstance(loader, ImageBatches | DatasetBatches):
            last_size = loader.last_size if used == n else loader.batch_size
        return cls(name, split, used, last_size)


@contextlib.contextmanager
def _same_torch_flags() -> Iterator[None]:
    """Restore what `trainer.deterministic` sets for the whole process."""
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
