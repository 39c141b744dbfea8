"""What a study stores with its trials, and what search.json holds: these keys are written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict, cast

import pandas as pd
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.analysis.statistics import DifferenceTest, ScoreSummary
from fmnist_cv.engine.environment import Environment

# User attributes of a study
IDENTITY = "search"  # what makes it this search's, see Search.identity
COUNTED_FROM = "draws_counted_from"  # draws are numbered by their count from this trial on, before it by trial number
# User attributes of a trial
RUN = "run"  # name of its run's folder
OWNER = "owner"  # the process that runs it, an Owner
CURVES = "curves"  # held-out accuracy after each epoch, a list per completed fold
SECONDS = "seconds"  # wall time by a monotonic clock
PRUNED = "pruned"  # when it was pruned, or null
PRUNED_BEFORE_0_2 = "given_up"  # the same, in studies made before version 0.2
DIVERGED = "diverged"  # why its training has no finite score
FAILED = "failed"  # why it could not be run
INTERRUPTED = "ended"  # why it ended early, where another attempt may succeed

DIVERGED_SCORE = 0.0  # the worst accuracy, for a trial whose training diverged

PrunedWhen = Literal["after folds", "in an epoch"]


class Owner(TypedDict):
    """A process that runs trials.

    Attributes:
        id: unique for all times.
        host: name of its machine.
        pid: its process number.
        started: when it started, in seconds since 1970.
        where: machine, boot and process namespace within which process numbers are unique.
    """

    id: str
    host: str
    pid: int
    started: float
    where: str


@dataclass(frozen=True)
class CompletedTrial:
    """A trial that is over: fully evaluated, pruned, or diverged. The names are Optuna's where it has them.

    Attributes:
        number: its number in the study.
        run: name of its run's folder.
        params: the sampled values by parameter name.
        value: its score, an accuracy from 0 to 1: the mean over the folds if fully evaluated, an estimate if pruned, and 0 if
            diverged.
        fold_scores: accuracies on the held-out images of the completed folds, in order.
        curves: held-out accuracy after each epoch, a list per completed fold.
        pruned: "after folds" or "in an epoch"; None if it was not pruned.
        diverged: why the loss or the monitored metric was not finite; None if it was.
        seconds: wall time; of a trial that was re-queued, of its last attempt.
    """

    number: int
    run: str
    params: dict[str, Any]
    value: float
    fold_scores: list[float]
    curves: list[list[float]]
    pruned: PrunedWhen | None = None
    diverged: str | None = None
    seconds: float = 0.0

    @classmethod
    def read(cls, trial: FrozenTrial) -> Self:
        """From Optuna's record, of any version of this package."""
        stored = trial.user_attrs
        seconds = stored.get(SECONDS)
        if seconds is None:  # older than this attribute: by Optuna's times of day
            seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
        return cls(
            number=trial.number,
            run=stored[RUN],
            params=trial.params,
            value=float(trial.value or 0),
            fold_scores=[trial.intermediate_values[fold] for fold in sorted(trial.intermediate_values)],
            curves=stored.get(CURVES, []),
            pruned=stored.get(PRUNED, stored.get(PRUNED_BEFORE_0_2)),
            diverged=stored.get(DIVERGED),
            seconds=float(seconds),
        )

    @property
    def fully_evaluated(self) -> bool:
        """Whether all its folds were run; only such a trial can win."""
        return self.pruned is None and self.diverged is None


@dataclass(frozen=True)
class FailedTrial:
    """A trial that could not be run, and was not re-queued.

    Attributes:
        number: its number in the study.
        run: name of its run's folder; None if it failed before it had one.
        params: the sampled values by parameter name.
        reason: why it could not be run.
        may_retry: whether another attempt may succeed, because the machine may be the cause.
    """

    number: int
    run: str | None
    params: dict[str, Any]
    reason: str
    may_retry: bool


def completed_trials(trials: Sequence[FrozenTrial]) -> list[CompletedTrial]:
    """The trials that are fully evaluated, pruned or diverged, in the study's order."""
    return [CompletedTrial.read(trial) for trial in trials if trial.state == TrialState.COMPLETE]


def failed_trials(trials: Sequence[FrozenTrial]) -> list[FailedTrial]:
    """The trials that could not be run and were not re-queued, in the study's order."""
    retried = retried_numbers(trials)
    return [
        FailedTrial(
            t.number, t.user_attrs.get(RUN), t.params, t.user_attrs[FAILED], bool(t.user_attrs.get(INTERRUPTED))
        )
        for t in trials
        if FAILED in t.user_attrs and t.number not in retried
    ]


def retried_numbers(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of trials that were re-queued, each as a new trial."""
    return {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def ranked(trials: Sequence[CompletedTrial]) -> list[CompletedTrial]:
    """The fully evaluated trials, best first; of equal ones, the earlier first."""
    return sorted((t for t in trials if t.fully_evaluated), key=lambda t: (-t.value, t.number))


# -- search.json --------------------------------------------------------------------------------------------

FORMAT = 2  # of search.json; 1 had no "format", and "given_up" for "pruned"


class WinnerRecord(TypedDict):
    trial: int
    parameters: dict[str, Any]
    accuracy: float
    folds: NotRequired[list[float]]


class TrialProblem(TypedDict):
    """A trial that diverged or failed."""

    trial: int
    parameters: dict[str, Any]
    reason: str


class TrialCounts(TypedDict):
    finished: int
    pruned_after_folds: int
    pruned_in_an_epoch: int
    diverged: list[TrialProblem]
    failed: list[TrialProblem]
    folds_run: int
    folds_without_pruning: int
    seconds: float


class ConfirmedConfiguration(TypedDict):
    """A configuration's scores on the search's folds and on fresh splits."""

    trial: int
    parameters: dict[str, Any]
    run: str
    search: ScoreSummary
    fresh: ScoreSummary
    gap: float
    seconds: float


class BaselineRecord(TypedDict):
    run: str
    fresh: ScoreSummary
    seconds: float


class Confirmation(TypedDict):
    seed: int
    n_repeats: int
    configurations: list[ConfirmedConfiguration]
    baseline: NotRequired[BaselineRecord]
    winner_against_baseline: NotRequired[DifferenceTest]


class OuterFold(TypedDict):
    fold: int
    study: str
    winner: WinnerRecord
    accuracy: float
    n_train: int
    n_validation: int


class NestedEstimate(TypedDict):
    n_splits: int
    seed: int
    accuracy: ScoreSummary
    folds: list[OuterFold]


class SearchSummary(TypedDict):
    """What search.json holds."""

    format: int
    study: str
    search: dict[str, Any]  # the search's settings
    data: dict[str, str]  # its name and fingerprint
    winner: WinnerRecord
    trials: TrialCounts
    workers: int
    environment: Environment
    confirmed: NotRequired[Confirmation]
    nested: NotRequired[NestedEstimate]


def read_summary(path: Path) -> SearchSummary:
    """Read a search.json, of any version of this package."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return cast(SearchSummary, {**content, "format": FORMAT, "trials": upgraded_counts(content["trials"])})


def upgraded_counts(trials: dict[str, Any]) -> TrialCounts:
    """The counts of a search.json with today's keys."""
    return cast(TrialCounts, {key.replace(PRUNED_BEFORE_0_2, PRUNED): value for key, value in trials.items()})


def read_table(path: Path) -> pd.DataFrame:
    """Read a trials.csv, of any version of this package."""
    return pd.read_csv(path).rename(columns={PRUNED_BEFORE_0_2: PRUNED})
