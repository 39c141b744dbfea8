"""The data of the report's page: predictions packed for its script."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.data import Images
from fmnist_cv.errors import UserError
from fmnist_cv.reporting import sprites
from fmnist_cv.reporting.predictions import PredictionTable
from fmnist_cv.utils.user_text import one_line

LIKELIEST = 10  # classes whose probabilities are shown for an image


@dataclass(frozen=True)
class ScoredImages:
    """A set of images and the predictions for it.

    Attributes:
        images: the images.
        predictions: by image and predicted class.
        probabilities: float (m, n_classes), one row per prediction: of each image in each repeat.
        labels: int64 (m,), of these rows.
    """

    images: Images
    predictions: PredictionTable
    probabilities: np.ndarray
    labels: np.ndarray


def scored_images(result: CrossValidationResult) -> dict[str, ScoredImages]:
    """The training images, predicted out of fold, and the test set, if any, predicted by the soft-voting ensemble.

    Raises:
        UserError: the predictions do not match results.json.
    """
    train, out_of_fold = result.data.train_images, result.out_of_fold()
    repeat, image = np.nonzero(~np.isnan(out_of_fold[..., 0]))
    pooled = PredictionTable.of(out_of_fold, result.labels)
    parts = {"out_of_fold": ScoredImages(train, pooled, out_of_fold[repeat, image], result.labels[image])}
    test, probabilities = result.test_images, result.test_probabilities()
    if test is not None and probabilities is not None:
        mean = probabilities.mean(0, dtype=np.float64)
        labels = test.labels.cpu().numpy()
        parts["test"] = ScoredImages(test, PredictionTable.of(mean[None], labels), mean, labels)
    for name, part in parts.items():
        counted = np.zeros((len(train.class_names),) * 2, dtype=np.int64)
        np.add.at(counted, (part.predictions.label, part.predictions.predicted), part.predictions.votes)
        if counted.tolist() != result.reports[name]["confusion_matrix"]:
            raise UserError(
                f"the predictions of run {result.path} do not add up to the confusion matrix in its "
                "results.json: its files or its test images have changed"
            )
    return parts


def packed(predictions: PredictionTable, tiles: np.ndarray, images: Images) -> dict[str, Any]:
    """Predictions for images as the page's script reads them; probabilities of the most probable classes, in steps of 1/255."""
    probabilities = np.nan_to_num(predictions.probabilities)
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELIEST]
    absent = (classes != predictions.label[:, None]).all(1)
    classes[absent, -1] = predictions.label[absent]
    steps = np.rint(255 * np.take_along_axis(probabilities, classes, 1)).astype(np.uint8)
    n_classes = probabilities.shape[1]
    return {
        "label": predictions.label.tolist(),
        "predicted": predictions.predicted.tolist(),
        "votes": predictions.votes.tolist(),
        "number": images.places[predictions.image].tolist(),
        "name": None if (names := images.names) is None else [one_line(names[i]) for i in predictions.image],
        "tile": tiles.tolist(),
        "classes": _base64(classes.astype("<u1" if n_classes <= 256 else "<u2")),
        "probabilities": _base64(steps),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def script_data(result: CrossValidationResult, parts: dict[str, Any], tiles: torch.Tensor) -> dict[str, Any]:
    """The JSON that the page's script reads."""
    for name, report in result.reports.items():
        parts[name]["matrix"] = report["confusion_matrix"]
    n_repeats = result.summary["cv"]["n_repeats"]
    if n_repeats == 1:
        fold = np.full(len(result.labels), -1)
        for i, split in enumerate(result.splits):
            fold[split.validation] = i
        places = result.data.train_images.places
        for part in (parts["out_of_fold"], parts["suspects"]):
            part["fold"] = fold[np.searchsorted(places, part["number"])].tolist()
    return {
        "names": result.summary["data"]["class_names"],
        "folds": [fold["name"] for fold in result.summary["folds"]],
        "repeats": n_repeats,
        "likeliest": min(LIKELIEST, len(result.summary["data"]["class_names"])),
        "tile": {
            "height": tiles.shape[2],
            "width": tiles.shape[3],
            "columns": sprites.COLUMNS,
            "per_sheet": sprites.COLUMNS * sprites.ROWS,
        },
        "parts": parts,
    }
