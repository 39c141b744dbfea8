"""What a run's JSON files hold: `run.json` of a run and `metrics.json` of a fold, as typed records.

`RunFolder` and `FoldFolder` read and write them. Keys that older versions did not write are `NotRequired`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from fmnist_cv.engine.checked_files import Types
from fmnist_cv.engine.environment import Environment

Epoch = Literal["last", "best"]


class Scores(TypedDict):
    """Of one model on one set of images."""

    loss: float  # mean negative log-likelihood, nats per image
    accuracy: float  # in [0, 1]


class EpochScores(TypedDict):
    """Of the model after one epoch."""

    epoch: int  # counted from 0
    validation: NotRequired[Scores]  # missing for a refit, which holds nothing out
    test: NotRequired[Scores]  # missing without a test set, and in a search


class FoldTimes(TypedDict):
    """How long a fold took."""

    train_intervals: list[list[Any]]  # per epoch: start and end in seconds of a clock, images, the clock's name
    scoring_seconds: float
    wall_seconds: float
    peak_memory_mb: float


class FoldRecord(TypedDict):
    """What `metrics.json` and `results.json` hold of a fold."""

    repeat: int
    fold: int
    seed: int
    threads: int
    device: NotRequired[str]
    n_train: int
    n_inner: int
    n_validation: int
    epochs: int
    stopped_early: bool
    best_epoch: int  # counted from 0
    monitor: str | None  # the metric that chose the best epoch; None for a refit
    last: EpochScores
    best: EpochScores


class FoldMetrics(FoldRecord):
    """A fold's `metrics.json`; the file is written last, so a fold that has one is finished."""

    history: list[dict[str, float]]  # all logged metrics after each epoch
    times: FoldTimes


class DataRecord(TypedDict):
    """The data that a run was made on; fingerprints are of images, labels, groups and weights."""

    name: str
    fingerprint: str
    unweighted_fingerprint: NotRequired[str]  # of training images with weights, without these
    n_train: int
    n_test: int
    test_fingerprint: str | None  # None without a test set, and in runs older than this key
    image_shape: list[int]  # channels, height, width
    class_names: list[str]


class RunRecord(TypedDict):
    """A run's `run.json`: what its folds share and may not change."""

    created: str  # ISO 8601, UTC
    data: DataRecord
    environment: Environment
    settings: NotRequired[dict[str, Any]]  # the config's values by dotted keys, to detect edits of config.yaml


# What a file must hold to be accepted: keys and types of their values.
FOLD_METRICS: Types = {
    "last": dict,
    "best": dict,
    "epochs": int,
    "best_epoch": int,
    "n_train": int,
    "n_validation": int,
    "history": list,
    "times": dict,
}
RUN_RECORD: Types = {"created": str, "data": dict, "environment": dict}
