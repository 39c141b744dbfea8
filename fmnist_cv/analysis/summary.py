"""The contract of results.json: what it holds, and how files of older formats are read.

`results.write_results` alone writes it, and `CrossValidationResult.load` alone reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from fmnist_cv.analysis.statistics import ScoreSummary, within_bounds
from fmnist_cv.data.group_sizes import Copies, DominantGroup
from fmnist_cv.data.sampling import Sampling
from fmnist_cv.engine.run_records import DataRecord, Epoch, FoldRecord

if TYPE_CHECKING:
    from fmnist_cv.engine.environment import Environment
    from fmnist_cv.engine.scoring import ClassificationReport

# Raised when an older version would misread the file. Format 1 called cv.folds_per_repeat n_splits.
FORMAT = 2

EPOCHS: tuple[Epoch, Epoch] = ("last", "best")
Metric = Literal["accuracy", "loss"]
BOUNDS: dict[Metric, tuple[float, float]] = {"accuracy": (0.0, 1.0), "loss": (0.0, inf)}

Interval = Sequence[float]  # low and high; a list where it comes from JSON


class CVPlan(TypedDict):
    """How the training images were split; `folds_per_repeat` is 1 for a hold-out."""

    folds_per_repeat: int
    n_repeats: int
    stratify: bool
    holdout: float | str | None
    inner_holdout: float | None
    train_size: int | None
    splitter: str | dict[str, Any] | None
    splits: str | None
    test: float | list[str | int] | None


class Groups(TypedDict):
    """The groups of training images; `dominant` has, by fold, one that is most of what the fold holds out."""

    n: int
    largest: int
    dominant: dict[str, DominantGroup]


class Headline(TypedDict):
    """The validation accuracy that is reported first, at the epoch that no held-out image has chosen.

    `wilson` has a 95 % interval for each fold; `caveat` says why the score is optimistically biased, if it is.
    """

    epoch: Epoch
    accuracy: ScoreSummary
    wilson: Sequence[Interval]
    caveat: str | None


class FoldSummary(FoldRecord):
    name: str


class TestAccuracy(TypedDict):
    """Accuracies of the folds' models on the test set; `sd` is None for one model."""

    mean: float
    sd: float | None
    per_fold: Sequence[float]
    wilson_per_fold: Sequence[Interval]


class MeanLoss(TypedDict):
    mean: float


class TestScores(TypedDict):
    """The folds' models on the one test set. Their mean has no interval, since they share its images."""

    accuracy: TestAccuracy
    loss: MeanLoss


class EnsembleScore(TypedDict):
    """The soft-voting ensemble of the folds' models on the test set."""

    accuracy: float
    wilson: Interval
    n_models: int


class Optimism(TypedDict):
    """Validation accuracy of the best epoch minus that of the last, and what that difference means."""

    accuracy: float
    per_fold: Sequence[float]
    what: str


class BestFold(TypedDict):
    """The fold with the highest validation accuracy; `checkpoint` is relative to the run's folder."""

    name: str
    validation_accuracy: float
    checkpoint: str


class RefitSummary(TypedDict):
    """The model trained on all training images; test scores only with a test set."""

    epochs: int
    n_train: int
    checkpoint: str
    test_accuracy: NotRequired[float]
    wilson: NotRequired[Interval]


class Times(TypedDict):
    """Seconds of wall time; `train_seconds` counts time shared by concurrent folds once."""

    fold_wall_seconds: Sequence[float]
    train_seconds: float
    images_trained: int
    images_per_second: float | None
    peak_memory_mb: float


class RunSummary(TypedDict):
    """What results.json holds.

    `held_out` is the number of training images that at least one fold holds out, which the scores stand on; None in runs
    that did not record it. `groups` is None where images are in no groups, `copies` where none are copies or groups hold
    them together, `sampling` where an epoch trains on each image once. `untrained_classes` lists, by fold, the classes that
    it holds out images of and does not train on. `test`,
    `ensemble` and `test_report` are None without a test set, `refit` until there is one.
    """

    format: int
    experiment: str
    run: str
    data: DataRecord
    seed: int
    cv: CVPlan
    held_out: int | None
    groups: Groups | None
    copies: Copies | None
    sampling: Sampling | None
    headline: Headline
    untrained_classes: dict[str, list[str]]
    validation: dict[Epoch, dict[Metric, ScoreSummary]]
    test: dict[Epoch, TestScores] | None
    ensemble: dict[Epoch, EnsembleScore] | None
    optimism: Optimism
    best_fold: BestFold
    folds: list[FoldSummary]
    out_of_fold_report: ClassificationReport
    test_report: ClassificationReport | None
    refit: RefitSummary | None
    environment: Environment
    times: Times


def upgraded(content: dict[str, Any]) -> RunSummary:
    """What results.json holds, in the present format, from a file of this or any older one.

    Older versions kept fewer keys, and wrote intervals beyond the metric's range or of two or equal scores.
    """
    data = {"test_fingerprint": None} | content["data"]
    cv = {"train_size": None, "splitter": None, "splits": None, "test": None} | content["cv"]
    if "n_splits" in cv:
        cv["folds_per_repeat"] = cv.pop("n_splits")
    headline = content["headline"] | {"accuracy": within_bounds(content["headline"]["accuracy"])}
    validation = {
        epoch: scores | {name: within_bounds(scores[name], bounds) for name, bounds in BOUNDS.items() if name in scores}
        for epoch, scores in content.get("validation", {}).items()
    }
    changed = {
        "format": FORMAT,
        "data": data,
        "cv": cv,
        "headline": headline,
        "validation": validation,
        "held_out": content.get("held_out"),
        "groups": content.get("groups"),
        "copies": content.get("copies"),
        "sampling": content.get("sampling"),
        "untrained_classes": content.get("untrained_classes", {}),
    }
    summary: RunSummary = {**content, **changed}  # type: ignore[typeddict-item]
    return summary
