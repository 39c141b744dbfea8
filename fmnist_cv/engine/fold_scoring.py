"""Scores a trained fold: last and best epoch on the held-out images and, once each, on the test set."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.engine import tensorboard
from fmnist_cv.engine.best_effort import Warn, best_effort
from fmnist_cv.engine.callbacks import KeepCheckpoints
from fmnist_cv.engine.run_folder import FoldFolder, write_arrays
from fmnist_cv.engine.run_records import EpochScores, FoldRecord, FoldTimes
from fmnist_cv.engine.scoring import predict_log_probabilities
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import peak_memory_mb
from fmnist_cv.utils.checkpoints import read_checkpoint


def score_fold(
    experiment: Experiment,
    folder: FoldFolder,
    parts: FoldParts,
    trainer: L.Trainer,
    keeper: KeepCheckpoints,
    train_intervals: list[list[Any]],
    seed: int,
    threads: int,
    score_test: bool,
    fold_began: float,
    warn: Warn,
) -> None:
    """Score a trained fold and write its probabilities and, last of all, its metrics.

    Args:
        experiment: what ran.
        folder: the fold's folder, which holds its checkpoints.
        parts: the fold's model and data.
        trainer: the fold's Trainer, for device and precision.
        keeper: holds the history and the best epoch.
        train_intervals: see `FoldTimes`.
        seed, threads: the fold's, recorded in its metrics.
        score_test: also score the test set.
        fold_began: start of the fold, on the clock of `time.perf_counter`.
        warn: takes a warning about figures that could not be made.
    """
    began = time.perf_counter()
    split, last_epoch = parts.data.split, len(keeper.history) - 1
    last, arrays = _score_checkpoint(folder.last_checkpoint, last_epoch, parts, trainer, score_test)
    best, best_arrays = last, arrays
    if keeper.best_epoch != last_epoch:
        best, best_arrays = _score_checkpoint(folder.best_checkpoint, keeper.best_epoch, parts, trainer, score_test)
    record: FoldRecord = {
        "repeat": split.repeat,
        "fold": split.fold,
        "seed": seed,
        "threads": threads,
        "device": experiment.devices().description,
        "n_train": len(split.train),
        "n_inner": 0 if split.inner is None else len(split.inner),
        "n_validation": len(split.validation),
        "epochs": len(keeper.history),
        "stopped_early": keeper.stopped,
        "best_epoch": keeper.best_epoch,
        "monitor": keeper.monitor,
        "last": last,
        "best": best,
    }
    if parts.trainer.get("logger") is not False and not split.is_refit:
        with best_effort("TensorBoard's pages of the fold", warn):
            tensorboard.log_fold(
                tensorboard.make_logger(folder.path), experiment, parts.data, arrays["validation"], record, warn
            )
    named = {f"last_{part}": array for part, array in arrays.items()}
    write_arrays(folder.probabilities, named | {f"best_{part}": array for part, array in best_arrays.items()})
    times: FoldTimes = {
        "train_intervals": train_intervals,
        "scoring_seconds": time.perf_counter() - began,
        "wall_seconds": time.perf_counter() - fold_began,
        "peak_memory_mb": peak_memory_mb(),
    }
    folder.write_metrics({**record, "history": keeper.history, "times": times})


def _score_checkpoint(
    path: Path, epoch: int, parts: FoldParts, trainer: L.Trainer, score_test: bool
) -> tuple[EpochScores, dict[str, np.ndarray]]:
    """Scores of one epoch's model, and its probabilities float32 (n, n_classes) by part: validation, test."""
    model, data = parts.model, parts.data
    checkpoint = load_checkpoint(path)
    model.to(trainer.strategy.root_device)
    model.load_state_dict(checkpoint["state_dict"])
    data.load_state_dict(checkpoint[type(data).__qualname__])
    scores: EpochScores = {"epoch": epoch}
    arrays: dict[str, np.ndarray] = {}
    for scored in scored_parts(data, data.test_images if score_test else None):
        context = trainer.precision_plugin.forward_context()
        log_probabilities, labels = predict_log_probabilities(model, data, scored.loader(), context)
        scored.check(labels.cpu(), type(data).__name__)
        right = int((log_probabilities.argmax(1) == labels).sum())
        scores[scored.part] = {"loss": float(F.nll_loss(log_probabilities, labels)), "accuracy": right / len(labels)}
        arrays[scored.part] = log_probabilities.exp().cpu().numpy()
    return scores, arrays


class Scored(NamedTuple):
    """Images that a fold scores: `part`, what makes their batches, and their labels int64 (n,)."""

    part: Literal["validation", "test"]
    loader: Callable[[], Any]
    labels: Tensor

    def check(self, labels: Tensor, name: str) -> None:
        """Refuse batches, of an overridden loader of the class `name`, that have other labels.

        Raises:
            UserError: they are other images, more or fewer, or in another order.
        """
        if not torch.equal(labels, self.labels):
            raise UserError(
                f"{name}.{self.loader.__name__} must yield the {self.part} images in the order of the split, "
                f"{len(self.labels)} of them; it yields {len(labels)}, or others"
            )


def scored_parts(data: KFoldDataModule, test: Images | None) -> list[Scored]:
    """What of a fold is scored."""
    parts = [] if test is None else [Scored("test", data.test_dataloader, test.labels.cpu())]
    if data.split.is_refit:
        return parts
    held_out = data.train_images.labels.cpu()[torch.from_numpy(data.split.validation)]
    return [Scored("validation", data.predict_dataloader, held_out), *parts]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a fold's checkpoint to the CPU; see `read_checkpoint`.

    Raises:
        UserError: the file is damaged or contains anything other than tensors and plain values.
    """
    try:
        checkpoint: dict[str, Any] = read_checkpoint(path)
        return checkpoint
    except Exception as error:
        raise UserError(
            f"cannot read the checkpoint {path} ({type(error).__name__}): it is damaged, or contains more than tensors "
            f"and plain values, which is never loaded; {FoldFolder(path.parent).retrain_hint}"
        ) from None
