"""A finished run read back: its scores, probabilities and splits, and the images it was made on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_cv.analysis.summary import EPOCHS, FORMAT, RunSummary, upgraded
from fmnist_cv.engine.checked_files import Shape, Types, read_arrays, read_json, wrong_keys
from fmnist_cv.engine.run_folder import RESTORE, FoldFolder, RunFolder
from fmnist_cv.engine.run_records import Epoch
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path

if TYPE_CHECKING:  # what a comparison does not need is imported where it is used
    import pandas as pd

    from fmnist_cv.config.experiment import Experiment
    from fmnist_cv.data import Images, KFoldDataModule, Split
    from fmnist_cv.engine.scoring import ClassificationReport

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


@dataclass(frozen=True)
class CrossValidationResult:
    """A finished run.

    Attributes:
        path: the run's folder.
        summary: the content of results.json.
    """

    path: Path
    summary: RunSummary

    @classmethod
    def load(cls, path: str | Path) -> CrossValidationResult:
        """Read a finished run from its folder.

        Raises:
            UserError: there is no run, it is unfinished or damaged, or a newer version wrote it.
        """
        run = RunFolder(user_path(path, "the run"))
        if not run.path.is_dir():
            raise UserError(f"there is no run {path}; give the folder of one, lightning_logs/<experiment>/<run>")
        if not run.results.exists():
            raise UserError(_why_unfinished(run))
        content = read_json(run.results, {}, _gather_again(run.path))
        written = content.get("format", 1)
        if isinstance(written, int) and written > FORMAT:
            raise UserError(
                f"run {path} was written by a newer version (format {written}, this version reads up to {FORMAT}); "
                "upgrade: pip install --upgrade fmnist_cv"
            )
        if not isinstance(written, int) or wrong_keys(content, NEEDED) or not _are_folds(content):
            raise UserError(f"{run.results} does not hold the results of a run; {_gather_again(run.path)}")
        return cls(run.path, upgraded(content))

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        data = self.summary["data"]
        n, n_classes = data["n_train"], len(data["class_names"])
        needed: dict[str, Shape] = dict.fromkeys(EPOCHS, (self.summary["cv"]["n_repeats"], n, n_classes))
        return read_arrays(RunFolder(self.path).out_of_fold, needed | {"labels": (n,)}, _gather_again(self.path))

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): the training images' labels."""
        return self._arrays["labels"]

    @property
    def test_labels(self) -> np.ndarray | None:
        """int64 (n_test,): the test images' labels; None without a test set, and in runs of versions that did not store them."""
        return self._arrays.get("test_labels")

    def out_of_fold(self, epoch: Epoch | None = None) -> np.ndarray:
        """Probabilities float32 (n_repeats, n, n_classes) of each training image, by the model that was not trained on it.

        Args:
            epoch: "last" or "best"; by default the headline's.
        """
        return self._arrays[epoch or self.summary["headline"]["epoch"]]

    def test_probabilities(self, epoch: Epoch | None = None) -> np.ndarray | None:
        """Probabilities float32 (n_folds, n_test, n_classes) of each fold's model for the test images; None without any.

        Args:
            epoch: "last" or "best"; by default the headline's.
        """
        if self.summary["test"] is None:
            return None
        key = f"{epoch or self.summary['headline']['epoch']}_test"
        return np.stack([fold.read_probabilities({key: self.test_shape})[key] for fold in self.folds])

    @property
    def test_shape(self) -> Shape:
        """(n_test, n_classes), the shape of a model's probabilities for the test images."""
        return self.summary["data"]["n_test"], len(self.summary["data"]["class_names"])

    @property
    def folds(self) -> list[FoldFolder]:
        """The folders of the folds."""
        return [FoldFolder(self.path / fold["name"]) for fold in self.summary["folds"]]

    @cached_property
    def experiment(self) -> Experiment:
        """The run's experiment.

        Raises:
            UserError: its config.yaml is damaged, or names classes that cannot be found.
        """
        return RunFolder(self.path).read_experiment()

    @cached_property
    def data(self) -> KFoldDataModule:
        """The run's images, read again from where its config says.

        Raises:
            DataNotFound: they are missing.
            UserError: they are not the images that the run was made on.
        """
        data = self.experiment.build(self.experiment.seed).data
        data.warns = False
        fingerprint, here = self.summary["data"]["fingerprint"], data.train_images.fingerprint()
        if here != fingerprint:
            raise UserError(
                f"run {self.path} was made on other images than {data.data_name} has now (fingerprint {fingerprint}, "
                f"now {here})"
            )
        return data

    @cached_property
    def test_images(self) -> Images | None:
        """The run's test images, read again; None where it had none.

        Raises:
            UserError: they are not the images that the run was scored on.
        """
        if self.summary["test"] is None:
            return None
        images = self.data.test_images
        then, labels = self.summary["data"]["test_fingerprint"], self.test_labels  # None in older runs
        if (
            images is None
            or (then is not None and images.fingerprint() != then)
            or (labels is not None and not np.array_equal(labels, images.labels.cpu().numpy()))
            or len(images) != self.summary["data"]["n_test"]
        ):
            raise UserError(f"run {self.path} was scored on other test images than {self.data.data_name} has now")
        return images

    @cached_property
    def splits(self) -> list[Split]:
        """The run's splits, one per fold.

        Raises:
            UserError: splits.npz is damaged.
        """
        from fmnist_cv.data.split_files import load_splits

        return load_splits(
            RunFolder(self.path).splits,
            self.labels,
            self.experiment.plan,
            self.summary["data"]["fingerprint"],
            self.data.train_images.kept_together,
        )

    @property
    def split_arrays(self) -> dict[str, np.ndarray]:
        """The content of splits.npz; the images are not needed.

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
    def reports(self) -> dict[str, ClassificationReport]:
        """Classification reports at the headline's epoch: "out_of_fold" and, with a test set, "test"."""
        test = self.summary["test_report"]
        return {"out_of_fold": self.summary["out_of_fold_report"]} | ({} if test is None else {"test": test})

    @property
    def mean(self) -> float:
        """Mean validation accuracy."""
        return self.summary["headline"]["accuracy"]["mean"]

    @property
    def table(self) -> pd.DataFrame:
        """One row per fold: epochs, loss and accuracy of the last and best epoch on validation and test images."""
        import pandas as pd

        columns = ("name", "repeat", "fold", "n_train", "n_validation", "epochs", "best_epoch")
        rows = []
        for fold in self.summary["folds"]:
            values: Mapping[str, Any] = fold
            row = {key: values[key] for key in columns}
            for epoch in EPOCHS:
                for part in ("validation", "test"):
                    for metric, value in values[epoch].get(part, {}).items():
                        row[f"{part}_{metric}_{epoch}"] = value
            rows.append(row)
        return pd.DataFrame(rows).set_index("name")


def _are_folds(content: dict[str, Any]) -> bool:
    """Whether the names of the folds, including the best one, are those of folders inside the run."""
    names = [fold.get("name") if isinstance(fold, dict) else None for fold in content["folds"]]
    return content["best_fold"].get("name") in names and all(
        isinstance(name, str) and re.fullmatch(r"(repeat_\d+_)?fold_\d+", name) for name in names
    )


def _gather_again(run: Path) -> str:
    return f"python -m fmnist_cv.fit --resume {run} gathers it again from the folds"


def _why_unfinished(run: RunFolder) -> str:
    if not run.config.is_file():
        return f"{run.path} is not a run: it has neither config.yaml nor results.json; give lightning_logs/<experiment>/<run>"
    return (
        f"run {run.path} is unfinished: results.json is missing; finish it with "
        f"python -m fmnist_cv.fit --resume {run.path}"
    )
