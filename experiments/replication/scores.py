"""The numbers of a row's JSON that the tables and pictures show, over its seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.replication.records import RowRecords
from experiments.replication.rows import Row
from fmnist_cv.engine.scoring import ClassificationReport


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation (ddof 1; None for one value) over seeds, in %."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.sd is None else f"{self.mean:.2f} ± {self.sd:.2f}"


def score_of(values: list[float]) -> Score:
    """The score of fractions in [0, 1]."""
    return Score(
        100 * float(np.mean(values)), 100 * float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values)
    )


class RowResults(RowRecords):
    """A row's records as scores."""

    def accuracy(self, variant: str, part: str, epoch: str) -> Score:
        """Accuracy on "validation" or "test" after the "last" or the "best" epoch; the mean of a run's folds.

        Of "train" it is the accuracy while the last epoch was trained.
        """
        if part == "train":
            return score_of([_mean(run, lambda fold: fold["train_accuracy"]) for run in self.runs(variant)])
        return score_of([_mean(run, lambda fold: fold[epoch][part]["accuracy"]) for run in self.runs(variant)])

    def fold_accuracy(self, variant: str) -> Score:
        """Validation accuracy over the folds of the first seed, last epoch."""
        return score_of([fold["last"]["validation"]["accuracy"] for fold in self.runs(variant)[0]["folds"]])

    def per_class(self, variant: str) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 on the test set of each class, the mean over seeds and folds, in [0, 1]."""
        reports = [fold["test_report"]["per_class"] for run in self.runs(variant) for fold in run["folds"]]
        return {
            name: {key: float(np.mean([report[name][key] for report in reports])) for key in scores}
            for name, scores in reports[0].items()
        }

    def confusion_report(self, variant: str) -> ClassificationReport:
        """The report of the first fold, with matrix, accuracy and n of all seeds and folds together."""
        reports: list[ClassificationReport] = [
            fold["test_report"] for run in self.runs(variant) for fold in run["folds"]
        ]
        matrix = np.sum([report["confusion_matrix"] for report in reports], axis=0)
        accuracy = float(np.trace(matrix) / matrix.sum())
        return {**reports[0], "confusion_matrix": matrix.tolist(), "accuracy": accuracy, "n": int(matrix.sum())}

    def never_found(self, variant: str) -> list[list[int]]:
        """For each seed and fold, the classes of which less than 1 % of the test images is found."""
        return [
            [i for i, scores in enumerate(fold["test_report"]["per_class"].values()) if scores["recall"] < 0.01]
            for run in self.runs(variant)
            for fold in run["folds"]
        ]

    def test_of_folds(self, variant: str) -> dict[int, float]:
        """By seed, test accuracy after the last epoch of the folds' models, their mean."""
        return {run["seed"]: _mean(run, lambda fold: fold["last"]["test"]["accuracy"]) for run in self.runs(variant)}

    def test_of_best_fold(self, variant: str) -> dict[int, float]:
        """By seed, test accuracy of the model of the fold with the best validation accuracy."""
        best = {
            run["seed"]: max(run["folds"], key=lambda fold: fold["last"]["validation"]["accuracy"])
            for run in self.runs(variant)
        }
        return {seed: fold["last"]["test"]["accuracy"] for seed, fold in best.items()}

    def test_of_ensemble(self, variant: str) -> dict[int, float]:
        """By seed, test accuracy of the soft vote of the folds' models."""
        return {run["seed"]: run["ensemble"]["last"]["accuracy"] for run in self.runs(variant)}

    def seconds_per_epoch(self, variant: str) -> float:
        """Training time of an epoch of the fastest fold: other processes slowed some of them down."""
        return min(float(fold["seconds_per_epoch"]) for run in self.runs(variant) for fold in run["folds"])

    def seconds(self) -> float:
        """Wall time of all folds, one after another.

        A resumed fold's wall time is that of its last process alone: it counts as no less than its training.
        """
        return sum(
            max(float(wall), float(fold["epochs"] * fold["seconds_per_epoch"]))
            for variant in self.variants
            for run in self.runs(variant)
            for wall, fold in zip(run["times"]["fold_wall_seconds"], run["folds"], strict=True)
        )

    def parameters(self, variant: str) -> int:
        """Weights of the network."""
        return int(self.runs(variant)[0]["n_parameters"])


@dataclass(frozen=True)
class Measured:
    """A row that another experiment has measured: its accuracy, and on how many images."""

    score: Score
    n_images: int


def load_measured(row: Row, out: Path) -> Measured | None:
    """What another experiment has measured of a row; None where it has not.

    Args:
        row: the row; `measured` says where.
        out: the page's folder.
    """
    if not row.measured or not (file := out / row.measured["file"]).is_file():
        return None
    content, part = json.loads(file.read_text(encoding="utf-8")), row.measured["part"]
    step = next(step for step in content["steps"] if step["step"] == row.measured["step"])
    return Measured(score_of([step[part]["accuracy"]]), content[f"n_{part}"]) if part in step else None


def load_results(rows: dict[str, Row], out: Path) -> dict[str, RowResults]:
    """The results that are there, by row."""
    results = {name: RowResults(row, out) for name, row in rows.items()}
    return {name: found for name, found in results.items() if found.variants}


def _mean(run: dict[str, Any], of_fold: Any) -> float:
    return float(np.mean([of_fold(fold) for fold in run["folds"]]))
