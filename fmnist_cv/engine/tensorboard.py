"""What TensorBoard shows of a fold besides its curves: sample images, confusion matrix, hyperparameters and score."""

from __future__ import annotations

import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.identity import flatten
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.data.pixel_kinds import as_pictures
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.best_effort import Warn, best_effort
from fmnist_cv.engine.run_records import FoldRecord
from fmnist_cv.engine.scoring import ClassificationReport, classification_report
from fmnist_cv.utils.user_text import for_figure

N_SAMPLES = 40
LARGEST_SAMPLE = 128  # pixels of a sample's longer side
CHARACTER_INCHES = 0.085  # of a tick label in matplotlib's default font
HYPERPARAMETERS = ("model.", "data.", "seed", "cv.n_splits", "cv.holdout", "trainer.max_epochs")


def make_logger(folder: Path) -> TensorBoardLogger:
    """A logger whose run is named after the fold's folder: `<experiment>/<run>/fold_0`."""
    return TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Suppress the traceback of a thread that cannot write events: the writer's next call raises the error."""
    shown = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if type(error.thread).__module__ != event_file_writer.__name__:
            shown(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = shown


def log_fold(
    logger: TensorBoardLogger,
    experiment: Experiment,
    data: KFoldDataModule,
    probabilities: np.ndarray,
    metrics: FoldRecord,
    warn: Warn,
) -> None:
    """Write a finished fold's figures and its hyperparameters with the final metrics.

    Args:
        logger: the fold's logger.
        experiment: what ran.
        data: the fold's data module.
        probabilities: float32 (n_validation, n_classes), of the held-out images after the last epoch.
        metrics: the fold's metrics.
        warn: takes a warning about a figure that could not be drawn; the others are still drawn.
    """
    writer, last_epoch = logger.experiment, metrics["epochs"] - 1
    note_synthetic(writer, data.data_name)
    with best_effort("the confusion matrix in TensorBoard", warn):
        labels = data.train_images.labels[torch.from_numpy(data.split.validation)].cpu()
        report = classification_report(torch.from_numpy(probabilities), labels, data.class_names)
        add_figure(writer, "confusion_matrix/validation", confusion_figure(report), last_epoch)
    with best_effort("the sample images in TensorBoard", warn):
        add_figure(writer, "samples/training_images", samples_figure(data), 0)
    hyperparameters = {
        key.replace(".init_args", ""): str(value).rpartition(".")[2] if key.endswith("class_path") else value
        for key, value in flatten(load_yaml(experiment.to_yaml()))
        if key.startswith(HYPERPARAMETERS) and not key.endswith(("eval_batch_size", "download", "root"))
    }
    headline = metrics[experiment.headline]
    scores = {"hp/held_out_accuracy": headline.get("validation"), "hp/test_accuracy": headline.get("test")}
    logger.log_metrics({name: score["accuracy"] for name, score in scores.items() if score is not None})
    run = Path(logger.log_dir).parent
    log_hyperparameters(writer, hyperparameters, f"{run.parent.name}/{run.name}")
    logger.finalize("success")


def note_synthetic(writer: SummaryWriter, data_name: str) -> None:
    """Write a page that warns of synthetic images, where the data are these."""
    for line in synthetic_warning(data_name):
        writer.add_text("SYNTHETIC", line)


def log_hyperparameters(writer: SummaryWriter, hyperparameters: dict[str, Any], group: str) -> None:
    """Write what the HParams page compares; folders of one group are one row, with the means of their scalars.

    The writer's own add_hparams would also declare which hyperparameters exist; TensorBoard reads that declaration from
    one folder for all, and the columns of other networks would be missing.

    Args:
        writer: of the folder.
        hyperparameters: by name; other values than numbers, bools and strings are written as strings.
        group: the row's name.
    """
    values = {
        name: value if isinstance(value, int | float | str | bool) else str(value)
        for name, value in hyperparameters.items()
    }
    _, _, end = hparams({}, {})  # type: ignore[no-untyped-call, unused-ignore]
    for summary in (hparams_pb(values, trial_id=group), end):
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call, unused-ignore]


def add_figure(writer: SummaryWriter, tag: str, figure: Figure, step: int | None = None) -> None:
    """Write a figure, without a warning for each character of a class name that matplotlib's font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        writer.add_figure(tag, figure, step)


def confusion_figure(report: ClassificationReport) -> Figure:
    """The confusion matrix as shares of each true class, annotated with counts."""
    size = min(2.5 + 0.55 * len(report["per_class"]), 14)
    figure = Figure(figsize=(size, size))
    draw_confusion(figure.subplots(), report)
    # from the lengths of the names: a layout engine would measure all texts, which takes as long as drawing them
    longest = max(sum(_width(character) for character in for_figure(name)) for name in report["per_class"])
    margin = 0.75 + min(longest * CHARACTER_INCHES, 0.4 * size)
    figure.subplots_adjust(left=margin / size, bottom=margin / size, right=1 - 0.2 / size, top=1 - 0.4 / size)
    return figure


def _width(character: str) -> int:
    """Columns of a character: wide and full-width ones, e.g. Chinese ones, have two."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def draw_confusion(axes: Axes, report: ClassificationReport) -> None:
    """Draw the confusion matrix of a `classification_report` into given axes."""
    counts, names = np.array(report["confusion_matrix"]), [for_figure(name) for name in report["per_class"]]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {report['accuracy']:.4f}, {report['n']:,} images")
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)


def samples_figure(data: KFoldDataModule) -> Figure:
    """Training images as stored, spread over all of them, with their labels; large images are subsampled."""
    train = data.split.train
    spread = np.linspace(0, len(train) - 1, min(N_SAMPLES, len(train))).round().astype(np.int64)
    indices = torch.from_numpy(train[spread])
    images = as_pictures(data.train_images.pixels(indices).cpu()).permute(0, 2, 3, 1).numpy()
    step = -(-max(images.shape[1:3]) // LARGEST_SAMPLE)
    images = images[:, ::step, ::step]
    labels = data.train_images.labels[indices].tolist()
    _, own_height, own_width, channels = images.shape
    height, width = max(own_height, own_width // 4), max(own_width, own_height // 4)  # a cell is no narrow strip
    columns = 10
    rows = -(-len(images) // columns)
    # one image of all: drawing an axes for each takes a second, longer than training a small network
    gap, title = width // 14 + 1, height // 3 + 1
    sheet = np.full((rows * (title + height), columns * (width + gap), channels), 255, dtype=np.uint8)
    figure = Figure(figsize=(columns * 0.9, rows * 0.9 * (title + height) / (width + gap)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        top, left = i // columns * (title + height) + title, i % columns * (width + gap)
        down, right = top + (height - own_height) // 2, left + (width - own_width) // 2
        sheet[down : down + own_height, right : right + own_width] = image
        axes.text(
            left + width / 2,
            top - title / 4,
            for_figure(data.class_names[label], 16),
            fontsize=6,
            ha="center",
            va="bottom",
        )
    axes.imshow(sheet.squeeze(-1) if channels == 1 else sheet, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.axis("off")
    return figure
