"""A trained fold's scores: last and best epoch on the held-out images and, once each, on the test set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.data.images import Images
from fmnist_cv.engine import tensorboard
from fmnist_cv.engine.best_effort import Warn, best_effort
from fmnist_cv.engine.callbacks import KeepCheckpoints
from fmnist_cv.engine.run_folder import FoldFolder, write_arrays, write_json
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
    times: dict[str, Any],
    seed: int,
    threads: int,
    score_test: bool,
    warn: Warn,
) -> None:
    """Score a trained fold and write its probabilities and, last of all, its metrics.

    Args:
        experiment: what ran.
        folder: the fold's folder, which holds its checkpoints.
        parts: the fold's model and data.
        trainer: the fold's Trainer, for device and precision.
        keeper: knows the history and the best epoch.
        times: when each epoch's training began and ended, and when the fold began.
        seed, threads: the fold's, for its metrics.
        score_test: score the test set, too.
        warn: takes a warning about figures that could not be made.
    """
    began = time.perf_counter()
    split, last_epoch = parts.data.split, len(keeper.history) - 1
    metrics: dict[str, Any] = {
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
    }
    metrics["last"], arrays = _score_checkpoint(folder.last_checkpoint, last_epoch, parts, trainer, score_test)
    best, best_arrays = metrics["last"], arrays
    if keeper.best_epoch != last_epoch:
        best, best_arrays = _score_checkpoint(folder.best_checkpoint, keeper.best_epoch, parts, trainer, score_test)
    metrics["best"] = best
    metrics["history"] = keeper.history
    if parts.trainer.get("logger") is not False and len(split.validation):
        with best_effort("TensorBoard's pages of the fold", warn):
            tensorboard.log_fold(
                tensorboard.make_logger(folder.path), experiment, parts.data, arrays["validation"], metrics, warn
            )
    metrics["times"] = {
        "train_intervals": times["train_intervals"],
        "scoring_seconds": time.perf_counter() - began,
        "wall_seconds": time.perf_counter() - times["began"],
        "peak_memory_mb": peak_memory_mb(),
    }
    named = {f"last_{part}": array for part, array in arrays.items()}
    write_arrays(folder.probabilities, named | {f"best_{part}": array for part, array in best_arrays.items()})
    write_json(folder.metrics, metrics, with_digest=True)


def _score_checkpoint(
    path: Path, epoch: int, parts: FoldParts, trainer: L.Trainer, score_test: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(loss and accuracy, probabilities float32 (n, n_classes)) of one epoch's model, by part: validation, test."""
    model, data = parts.model, parts.data
    checkpoint = load_checkpoint(path)
    model.to(trainer.strategy.root_device)
    model.load_state_dict(checkpoint["state_dict"])
    data.load_state_dict(checkpoint[type(data).__qualname__])
    scores: dict[str, Any] = {"epoch": epoch}
    arrays: dict[str, np.ndarray] = {}
    test = data.test_images if score_test else None
    everything: list[tuple[str, Images, np.ndarray]] = [("validation", data.train_images, data.split.validation)]
    if test is not None:
        everything.append(("test", test, np.arange(len(test))))
    for part, images, indices in everything:
        if not len(indices):
            continue
        batches = ImageBatches(images, torch.from_numpy(indices), data.eval_batch_size)
        context = trainer.precision_plugin.forward_context()
        log_probabilities, labels = predict_log_probabilities(model, data, batches, context)
        right = int((log_probabilities.argmax(1) == labels).sum())
        scores[part] = {"loss": float(F.nll_loss(log_probabilities, labels)), "accuracy": right / len(labels)}
        arrays[part] = log_probabilities.exp().cpu().numpy()
    return scores, arrays


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a fold's checkpoint to the CPU; see `read_checkpoint`.

    Raises:
        UserError: the file is damaged or holds anything else than tensors and plain values.
    """
    try:
        return read_checkpoint(path)
    except Exception as error:
        raise UserError(
            f"cannot read the checkpoint {path} ({type(error).__name__}): it is damaged, or holds more than tensors and "
            f"plain values, which is never loaded; {FoldFolder(path.parent).retrain_hint}"
        ) from None
