"""An optional output that fails (a figure, a logger, a link) does not affect the results."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console
from running import outcome

from fmnist_cv import ArrayDataModule, cross_validate
from fmnist_cv.analysis import results
from fmnist_cv.data import Split
from fmnist_cv.engine import run_folder, tensorboard

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture
def adorned(tiny: dict[str, Any]) -> dict[str, Any]:
    """One fold with all that adorns it."""
    tiny["cv"]["holdout"] = 0.3
    tiny["trainer"] |= {
        "max_epochs": 2,
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": tiny["log_dir"]}},
    }
    return tiny


@pytest.fixture
def undisturbed(adorned: dict[str, Any], once: Once) -> Path:
    def fill(folder: Path) -> None:
        cross_validate({**adorned, "log_dir": str(folder)}, run="undisturbed")

    return once("undisturbed", fill) / "tiny" / "undisturbed"


# what breaks: (owner, attribute), and what is told of it
BROKEN: dict[str, tuple[Any, str, str]] = {
    "the report": (results, "markdown_report", "report.md could not be made: ZeroDivisionError: on purpose"),
    "a confusion matrix": (tensorboard, "confusion_figure", "the confusion matrix in TensorBoard could not be made"),
    "sample images": (tensorboard, "samples_figure", "the sample images in TensorBoard could not be made"),
    "hyperparameters": (tensorboard, "log_hyperparameters", "TensorBoard's pages of the fold could not be made"),
    "TensorBoard's start": (TensorBoardLogger, "experiment", "the log of TensorBoardLogger could not be made"),
    "a logger's start": (CSVLogger, "experiment", "the log of CSVLogger could not be made"),
    "a logger's curves": (
        CSVLogger,
        "log_metrics",
        "CSVLogger.log_metrics failed and is disabled for the rest of the fold",
    ),
    "TensorBoard's curves": (TensorBoardLogger, "log_metrics", "TensorBoardLogger.log_metrics failed"),
    "a logger's end": (TensorBoardLogger, "finalize", "TensorBoardLogger.finalize failed"),
    "a logger's file": (CSVLogger, "save", "CSVLogger.save failed and is disabled for the rest of the fold"),
    "links": (os, "symlink", ""),
    "copies": (run_folder, "shutil", "a link to the best fold's checkpoint, could not be made"),
}


def no_links(*arguments: Any, **options: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("what", BROKEN)
def test_results_are_written_whichever_optional_output_fails(
    adorned: dict[str, Any], undisturbed: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fails(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("on purpose")

    owner, name, told = BROKEN[what]
    broken: Any = property(fails) if name == "experiment" else fails
    if what == "copies":
        broken = SimpleNamespace(**{**vars(shutil), "copyfile": fails})
    if what in ("links", "copies"):
        monkeypatch.setattr(os, "symlink", no_links)
    if what != "links":
        monkeypatch.setattr(owner, name, broken)
    console = Console(file=io.StringIO(), width=300)
    run = cross_validate(adorned, console=console).path
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert told in out and out.count("Error") in ((1, 2) if told else (0,))
    whole, found = outcome(undisturbed), outcome(run)
    assert found["results"] == whole["results"] and found["arrays"] == whole["arrays"]
    assert (run / "report.md").is_file() == (what != "the report")
    assert (run / "best.ckpt").exists() == (what != "copies")


def test_without_links_the_best_checkpoint_is_a_copy_that_follows_the_best_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder.RunFolder(tmp_path)
    monkeypatch.setattr(os, "symlink", no_links)
    for content in (b"first", b"second"):
        (tmp_path / "fold.ckpt").write_bytes(content)
        run.link_best(tmp_path / "fold.ckpt")
        assert run.best_checkpoint.read_bytes() == content and not run.best_checkpoint.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "fold.ckpt"]


def drawn(shape: tuple[int, int, int]) -> ArrayDataModule:
    data = ArrayDataModule(images=np.zeros((90, *shape), dtype=np.uint8), labels=np.arange(90) % 3)
    data.use_split(Split(np.arange(90), np.arange(0)), seed=0)
    return data


@pytest.mark.parametrize(
    "shape", [(1, 1000, 8), (1, 8, 1000), (3, 700, 900), (1, 28, 28), (3, 1, 1), (1, 1, 500)], ids=str
)
def test_the_samples_figure_has_a_bounded_size_for_all_image_shapes(shape: tuple[int, int, int]) -> None:
    figure = tensorboard.samples_figure(drawn(shape))
    width, height = figure.get_size_inches() * figure.dpi
    assert 300 < width < 2000 and 100 < height < 2000
    (sheet,) = figure.axes[0].get_images()
    assert sheet.get_array().size < 4e6  # type: ignore[union-attr]
    figure.savefig(io.BytesIO())
