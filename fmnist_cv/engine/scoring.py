"""Scores: predictions of a model for images it was not trained on, and the metrics of these predictions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, TypedDict

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from fmnist_cv.data import KFoldDataModule
from fmnist_cv.errors import NonFinite

# Rows of probabilities computed in bf16 sum to 1 within this tolerance; rows of logits only by chance.
_SUM_TOLERANCE = 0.02

_FIRST_ROWS = 10_000  # for which there is room from the beginning


def predict_log_probabilities(
    model: L.LightningModule,
    data: KFoldDataModule,
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: AbstractContextManager[Any],
) -> tuple[Tensor, Tensor]:
    """One pass without gradients over batches of stored images.

    The model may return logits, log-probabilities or probabilities; the last are detected on all predictions together.
    Its training mode is restored afterwards.

    Returns:
        Log-probabilities float32 (n, n_classes) and labels int64 (n,), both on the model's device.

    Raises:
        NonFinite: a prediction is NaN, which would count as the first class.
    """
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    outputs, labels = _Rows(), _Rows()
    with torch.inference_mode(), precision:
        for images, batch_labels in batches:
            outputs.add(model(data.prepare(images.to(model.device))).float())
            labels.add(batch_labels.to(model.device))
    for module, training in was_training.items():
        module.training = training
    log_probabilities = as_log_probabilities(outputs.all).clone()
    bad = log_probabilities.isnan().any(1).nonzero()[:, 0]
    if len(bad):
        first = int(getattr(batches, "indices", torch.arange(len(log_probabilities)))[bad[0]])
        raise NonFinite(
            f"the model predicts NaN for {len(bad)} of {len(log_probabilities)} images, the first of them number {first} "
            "of its data set (counted from 0); lower the learning rate, or use --trainer.precision 32-true"
        )
    return log_probabilities, labels.all.clone()


class _Rows:
    """Rows of many batches, collected in one block of memory.

    Small tensors that are kept one by one may be placed where a large batch was freed; the next batch then does not fit there
    any more, and the process grows by a batch with each of them.
    """

    def __init__(self) -> None:
        self._block: Tensor | None = None
        self._n = 0

    def add(self, rows: Tensor) -> None:
        end = self._n + len(rows)
        if self._block is None:
            self._block = rows.new_empty((max(end, _FIRST_ROWS), *rows.shape[1:]))
        elif end > len(self._block):
            grown = rows.new_empty((max(end, 2 * len(self._block)), *rows.shape[1:]))
            grown[: self._n] = self._block[: self._n]
            self._block = grown
        self._block[self._n : end] = rows
        self._n = end

    @property
    def all(self) -> Tensor:
        """All rows, in order."""
        return torch.empty(0) if self._block is None else self._block[: self._n]


def as_log_probabilities(outputs: Tensor) -> Tensor:
    """Convert the outputs of a network for n images to log-probabilities.

    Args:
        outputs: float (n, n_classes): logits, log-probabilities (on which log-softmax changes nothing), or
            probabilities, as detected by `are_probabilities`.
    """
    if are_probabilities(outputs):
        return normalised(outputs).clamp_min(torch.finfo(outputs.dtype).tiny).log()
    return F.log_softmax(outputs, dim=1)


def are_probabilities(outputs: Tensor) -> bool:
    """Whether all rows of a network's outputs, float (n, n_classes), are non-negative and sum to 1."""
    return bool((outputs >= 0).all() and ((outputs.sum(1) - 1).abs() < _SUM_TOLERANCE).all())


def normalised(probabilities: Tensor) -> Tensor:
    """Probabilities (n, n_classes) whose rows sum to 1: values above 1 would invalidate calibration and likelihood."""
    return probabilities / probabilities.sum(1, keepdim=True)


def loss_and_accuracy(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood and accuracy, as scalars on the device."""
    accuracy = multiclass_accuracy(
        log_probabilities, labels, log_probabilities.shape[1], average="micro", validate_args=False
    )
    return F.nll_loss(log_probabilities, labels), accuracy


class ClassScores(TypedDict):
    """One class against the others; `support` counts its images."""

    precision: float
    recall: float
    f1: float
    support: int


class ClassificationReport(TypedDict):
    """Scores of n predictions, see `classification_report`."""

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    nll: float
    brier: float
    calibration_error: float
    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]


def classification_report(probabilities: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> ClassificationReport:
    """Classification metrics of predictions, by torchmetrics.

    Args:
        probabilities: float (n, n_classes).
        labels: int64 (n,).
        class_names: one per class.

    Returns:
        Plain values: accuracy, balanced accuracy and macro F1; NLL (negative log-likelihood, nats per image), Brier
        score (mean squared distance to the one-hot label, 0 to 2), expected calibration error (15 bins); precision,
        recall, F1 and support per class; the confusion matrix with the true class in the row.
    """
    n, probabilities = len(class_names), normalised(probabilities)
    one_hot = F.one_hot(labels, n).to(probabilities.dtype)

    def per_class(metric: Any) -> list[float]:
        values: list[float] = metric(probabilities, labels, n, average="none").tolist()
        return values

    precision, recall, f1 = map(per_class, (multiclass_precision, multiclass_recall, multiclass_f1_score))
    support = torch.bincount(labels, minlength=n).tolist()
    present = [r for r, s in zip(recall, support, strict=True) if s]
    return {
        "n": len(labels),
        "accuracy": float(multiclass_accuracy(probabilities, labels, n, average="micro")),
        "balanced_accuracy": sum(present) / len(present),
        "macro_f1": sum(f1) / max(1, len(set(labels.tolist()) | set(probabilities.argmax(1).tolist()))),
        "nll": float(F.nll_loss(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log(), labels)),
        "brier": float((probabilities - one_hot).square().sum(1).mean()),
        "calibration_error": float(multiclass_calibration_error(probabilities, labels, n, n_bins=15, norm="l1")),
        "per_class": {
            name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
            for i, name in enumerate(class_names)
        },
        "confusion_matrix": multiclass_confusion_matrix(probabilities, labels, n).tolist(),
    }
