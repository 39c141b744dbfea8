"""TensorBoard on request: confusion matrices, precision-recall curves, and a projector of embeddings with the images."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.data.pixel_kinds import as_pictures
from fmnist_cv.engine.scoring import as_log_probabilities
from fmnist_cv.engine.tensorboard import add_figure, confusion_figure, note_synthetic
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import load_parts
from fmnist_cv.utils.user_text import one_line

N_IMAGES = 2000
N_COLUMNS = 200  # the projector uses no more
SPRITE = 64  # pixels; TensorBoard limits a side of all images together to 8192


def write_tensorboard(result: CrossValidationResult) -> Path:
    """Write TensorBoard's files of a finished run, replacing earlier ones.

    Confusion matrices out of fold and, for the soft-voting ensemble, on the test set; a precision-recall curve per class,
    out of fold; in the projector a sample of the best fold's held-out images, embedded by the input of the last layer.

    Returns:
        The folder, `tensorboard` in the run's.

    Raises:
        DataNotFound: the run's images are missing.
        UserError: they have changed, the best fold's checkpoint is missing, or the folder cannot be written.
    """
    embedded = embed(result)
    folder = result.path / "tensorboard"
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".tensorboard-", dir=result.path))
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None
    try:
        scratch.chmod(0o755)
        with SummaryWriter(str(scratch)) as writer:
            note_synthetic(writer, result.summary["data"]["name"])
            for name, report in result.reports.items():
                add_figure(writer, f"confusion_matrix/{name}", confusion_figure(report))
            _add_pr_curves(writer, result)
            _add_embedding(writer, embedded, result.summary["data"]["class_names"])
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _add_pr_curves(writer: SummaryWriter, result: CrossValidationResult) -> None:
    """One class against all others, over all held-out predictions: each image once per repeat."""
    probabilities = result.out_of_fold()
    labels = np.tile(result.labels, len(probabilities))
    pooled = probabilities.reshape(len(labels), -1)
    held_out = ~np.isnan(pooled[:, 0])
    for i, name in enumerate(result.summary["data"]["class_names"]):
        writer.add_pr_curve(
            f"precision_recall_out_of_fold/{one_line(name)}", labels[held_out] == i, pooled[held_out, i]
        )


# -- the projector ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Embedded:
    """A sample of the best fold's held-out images.

    Attributes:
        what: the fold, and what the vectors are.
        vectors: float32 (m, d).
        images: stored pixels (m, c, h, w).
        indices: int64 (m,), among the training images.
        names: of these images; their places in the whole data set where they have none.
        labels, predicted: int64 (m,); predicted out of fold.
    """

    what: str
    vectors: np.ndarray
    images: Tensor
    indices: np.ndarray
    names: Sequence[str | int]
    labels: np.ndarray
    predicted: np.ndarray


def embed(result: CrossValidationResult, n_images: int = N_IMAGES) -> Embedded:
    """Embeddings of images that the best fold held out: the input of its model's last linear layer.

    For a network that does not end in a linear layer, its log-probabilities; `what` states which.

    Args:
        result: the run.
        n_images: size of the sample, drawn with the run's seed.
    """
    best = result.summary["best_fold"]
    split = result.splits[[fold.name for fold in result.folds].index(best["name"])]
    random = np.random.default_rng(result.summary["seed"])
    n_images = min(n_images, len(split.validation))
    indices = np.sort(random.choice(split.validation, n_images, replace=False))
    parts, _ = load_parts(result.path / best["checkpoint"], result.experiment)
    model, data = parts.model, parts.data
    train = result.data.train_images
    images = train.pixels(torch.from_numpy(indices)).cpu()
    named = train.places if train.names is None else train.names
    what, vectors = _vectors(model.eval(), data, images)
    if vectors.shape[1] > N_COLUMNS and n_images > N_COLUMNS:
        vectors = PCA(N_COLUMNS, random_state=result.summary["seed"]).fit_transform(vectors)
        what += f", {N_COLUMNS} principal components"
    predicted = result.out_of_fold()[split.repeat, indices].argmax(1)
    names = [named[i] for i in indices]
    return Embedded(f"{best['name']}, {what}", vectors, images, indices, names, result.labels[indices], predicted)


def _vectors(model: L.LightningModule, data: KFoldDataModule, images: Tensor) -> tuple[str, np.ndarray]:
    """(what they are, float32 (m, d)): from a pass without gradients over stored pixels (m, c, h, w)."""
    called: list[tuple[str, nn.Linear, Tensor]] = []  # the linear layers of one pass, in the order of their calls
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: called.append((name, layer, inputs[0])))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    last, vectors, outputs = "", [], []
    with torch.inference_mode():
        for batch in torch.split(images, data.eval_batch_size):
            called.clear()
            output = model(data.prepare(batch)).float()
            outputs.append(output)
            if called:
                name, layer, given = called[-1]
                # not a layer inside a block, or one that is applied to a sequence
                if given.shape == (len(batch), layer.in_features) and layer.out_features == output.shape[1]:
                    last = name
                    vectors.append(given.float())
    for hook in hooks:
        hook.remove()
    if last:
        return f"input of {last}", torch.cat(vectors).numpy()
    return "log-probabilities", as_log_probabilities(torch.cat(outputs)).numpy()


def _add_embedding(writer: SummaryWriter, embedded: Embedded, class_names: Sequence[str]) -> None:
    names = [one_line(name) for name in class_names]  # the table's cells are separated by tabs, its rows by lines
    rows = [
        [names[label], names[predicted], "correct" if label == predicted else "misclassified", one_line(str(name))]
        for label, predicted, name in zip(embedded.labels, embedded.predicted, embedded.names, strict=True)
    ]
    writer.add_embedding(
        embedded.vectors,
        rows,
        _sprites(embedded.images),
        tag=embedded.what,
        metadata_header=["label", "predicted out of fold", "correct or misclassified", "training image"],
    )


def _sprites(images: Tensor) -> Tensor:
    """Squares float32 (m, c, s, s) in 0 to 1, small enough for one sheet of all."""
    scaled = as_pictures(images).float() / 255
    height, width = scaled.shape[2:]
    side = max(height, width)
    squares = F.pad(scaled, (0, side - width, 0, side - height))
    return squares if side <= SPRITE else F.interpolate(squares, (SPRITE, SPRITE), mode="bilinear", antialias=True)
