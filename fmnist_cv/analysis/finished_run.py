"""A finished run, read back: its scores, probabilities and splits, and the images it was made on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from fmnist_cv.analysis.statistics import within_bounds
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.data import Images, KFoldDataModule, Split
from fmnist_cv.data.splits import load_splits
from fmnist_cv.engine.checked_files import Shape, Types, read_arrays, read_json, wrong_keys
from fmnist_cv.engine.run_folder import RESTORE, FoldFolder, RunFolder
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path

EPOCHS = ("last", "best")
BOUNDS = {"accuracy": (0.0, 1.0), "loss": (0.0, inf)}  # of the scores whose means have intervals
NEEDED: Types = {
    "experiment": str,
    "run": str,
    "data": dict,
    "seed": int,
    "cv": dict,
    "headline": dict,
    "test": dict | NoneType,
    "best_fold": dict,
    "folds": list,
    "environment": dict,
}
FORMAT = 1  # of results.json and the files beside it; raised when an older reader would misread them


@dataclass(frozen=True)
class CrossValidationResult:
    """A finished run.

    Attributes:
        path: the run's folder.
        summary: what results.json holds.
    """

    path: Path
    summary: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> CrossValidationResult:
        """Read a finished run from its folder.

        Raises:
            UserError: there is none, it is unfinished or damaged, or a newer version wrote it.
        """
        run = RunFolder(user_path(path, "the run"))
        if not run.path.is_dir():
            raise UserError(f"there is no run {path}; give the folder of one, lightning_logs/<experiment>/<run>")
        if not run.results.exists():
            raise UserError(_why_unfinished(run))
        summary = read_json(run.results, {}, _gathers_again(run.path))
        written = summary.get("format", 1)
        if isinstance(written, int) and written > FORMAT:
            raise UserError(
                f"run {path} was written by a newer version (format {written}, here {FORMAT}); read it with "
                "that one: pip install --upgrade fmnist_cv"
            )
        if not isinstance(written, int) or wrong_keys(summary, NEEDED) or not _are_folds(summary):
            raise UserError(f"{run.results} holds no results of a run; {_gathers_again(run.path)}")
        _bound_intervals(summary)
        return cls(run.path, summary)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        data = self.summary["data"]
        n, n_classes = data["n_train"], len(data["class_names"])
        needed: dict[str, Shape] = dict.fromkeys(EPOCHS, (self.summary["cv"]["n_repeats"], n, n_classes))
        return read_arrays(RunFolder(self.path).out_of_fold, needed | {"labels": (n,)}, _gathers_again(self.path))

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): the training images' labels."""
        return self._arrays["labels"]

    @property
    def test_labels(self) -> np.ndarray | None:
        """int64 (n_test,): the test images' labels; None without a test set, or in a run older than they are kept."""
        return self._arrays.get("test_labels")

    def out_of_fold(self, epoch: str | None = None) -> np.ndarray:
        """Probabilities float32 (n_repeats, n, n_classes) of each training image by the model that never saw it.

        Args:
            epoch: "last" or "best"; by default the headline's.
        """
        return self._arrays[epoch or self.summary["headline"]["epoch"]]

    def test_probabilities(self, epoch: str | None = None) -> np.ndarray | None:
        """Probabilities float32 (n_folds, n_test, n_classes) of each fold's model for the test images, if there are any.

        Args:
            epoch: "last" or "best"; by default the headline's.
        """
        if self.summary["test"] is None:
            return None
        key = f"{epoch or self.summary['headline']['epoch']}_test"
        return np.stack([fold.read_probabilities({key: self.test_shape})[key] for fold in self.folds])

    @property
    def test_shape(self) -> Shape:
        """(n_test, n_classes): of a model's probabilities for the test images."""
        return self.summary["data"]["n_test"], len(self.summary["data"]["class_names"])

    @property
    def folds(self) -> list[FoldFolder]:
        """The folders of the folds."""
        return [FoldFolder(self.path / fold["name"]) for fold in self.summary["folds"]]

    @cached_property
    def experiment(self) -> Experiment:
        """What ran.

        Raises:
            UserError: its config.yaml is damaged, or names classes that are not there.
        """
        return RunFolder(self.path).read_experiment()

    @cached_property
    def data(self) -> KFoldDataModule:
        """The run's images, read anew.

        Raises:
            DataNotFound: they are not there.
            UserError: they are no longer those of the run.
        """
        data = self.experiment.build(self.experiment.seed).data
        fingerprint, here = self.summary["data"]["fingerprint"], data.train_images.fingerprint()
        if here != fingerprint:
            raise UserError(
                f"run {self.path} was made on other images than {data.data_name} holds now (fingerprint "
                f"{fingerprint}, here {here})"
            )
        return data

    @cached_property
    def test_images(self) -> Images | None:
        """The run's test images, read anew; None where it had none.

        Raises:
            UserError: they are no longer those of the run.
        """
        if self.summary["test"] is None:
            return None
        images = self.data.test_images
        then, labels = self.summary["data"].get("test_fingerprint"), self.test_labels  # older runs hold less
        if (
            images is None
            or (then is not None and images.fingerprint() != then)
            or (labels is not None and not np.array_equal(labels, images.labels.cpu().numpy()))
            or len(images) != self.summary["data"]["n_test"]
        ):
            raise UserError(f"run {self.path} was scored on other test images than {self.data.data_name} holds now")
        return images

    @cached_property
    def splits(self) -> list[Split]:
        """The run's splits, one per fold.

        Raises:
            UserError: splits.npz is damaged.
        """
        groups = self.data.train_images.groups
        return load_splits(
            RunFolder(self.path).splits,
            self.labels,
            self.experiment.plan,
            self.summary["data"]["fingerprint"],
            None if groups is None else groups.numpy(),
        )

    @property
    def split_arrays(self) -> dict[str, np.ndarray]:
        """What splits.npz holds, for which the images are not needed.

        Raises:
            UserError: it is damaged.
        """
        names = [f"repeat_{fold['repeat']}_fold_{fold['fold']}" for fold in self.summary["folds"]]
        needed: dict[str, Shape] = {f"{name}_{part}": (None,) for name in names for part in ("train", "validation")}
        return read_arrays(RunFolder(self.path).splits, needed, RESTORE)

    @property
    def accuracies(self) -> np.ndarray:
        """float64 (n_folds,): validation accuracies at the headline's epoch."""
        epoch = self.summary["headline"]["epoch"]
        return np.array([fold[epoch]["validation"]["accuracy"] for fold in self.summary["folds"]])

    @property
    def test_accuracies(self) -> np.ndarray | None:
        """float64 (n_folds,): each fold's model on the test set at the headline's epoch; None without a test set."""
        epoch = self.summary["headline"]["epoch"]
        return None if self.summary["test"] is None else np.array(self.summary["test"][epoch]["accuracy"]["per_fold"])

    @property
    def mean(self) -> float:
        """Mean validation accuracy."""
        return self.summary["headline"]["accuracy"]["mean"]

    @property
    def table(self) -> pd.DataFrame:
        """One row per fold: epochs, loss and accuracy of the last and best epoch on validation and test images."""
        rows = []
        for fold in self.summary["folds"]:
            row = {
                key: fold[key] for key in ("name", "repeat", "fold", "n_train", "n_validation", "epochs", "best_epoch")
            }
            for epoch in EPOCHS:
                for part in ("validation", "test"):
                    for metric, value in fold[epoch].get(part, {}).items():
                        row[f"{part}_{metric}_{epoch}"] = value
            rows.append(row)
        return pd.DataFrame(rows).set_index("name")


def _bound_intervals(summary: dict[str, Any]) -> None:
    """Older versions wrote intervals beyond the metric's range, and such of two or of equal scores."""
    summary["headline"]["accuracy"] = within_bounds(summary["headline"]["accuracy"])
    for scores in summary.get("validation", {}).values():
        scores |= {name: within_bounds(scores[name], bounds) for name, bounds in BOUNDS.items() if name in scores}


def _are_folds(summary: dict[str, Any]) -> bool:
    """Whether the folds' names, the best's among them, are those of folders in the run, not of some place elsewhere."""
    names = [fold.get("name") if isinstance(fold, dict) else None for fold in summary["folds"]]
    return summary["best_fold"].get("name") in names and all(
        isinstance(name, str) and re.fullmatch(r"(repeat_\d+_)?fold_\d+", name) for name in names
    )


def _gathers_again(run: Path) -> str:
    return f"python -m fmnist_cv.fit --resume {run} gathers it again from the folds"


def _why_unfinished(run: RunFolder) -> str:
    if not run.config.is_file():
        return (
            f"{run.path} is no run: it has neither config.yaml nor results.json; give lightning_logs/<experiment>/<run>"
        )
    return (
        f"run {run.path} is unfinished: results.json is missing; finish it with "
        f"python -m fmnist_cv.fit --resume {run.path}"
    )
