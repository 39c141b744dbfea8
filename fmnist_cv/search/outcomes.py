"""What a trial of a study holds beside its parameters, and which of the trials are finished, whole, the best."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

# user attributes of a trial
RUN = "run"  # name of its run's folder
GIVEN_UP = "given_up"  # "after folds", "in an epoch", or null
CURVES = "curves"  # held-out accuracy after each epoch of each finished fold
FAILED = "failed"  # why it could not be run
DIVERGED = "diverged"  # why its training has no finite score
WORST = 0.0  # what a diverged trial is told with
SECONDS = "seconds"  # from its start to its end, by a clock that nobody sets


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that ran all their folds, were given up, or diverged."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def given_up(trial: FrozenTrial) -> str | None:
    """When a finished trial was given up: "after folds" or "in an epoch"; None for any other."""
    return trial.user_attrs.get(GIVEN_UP)


def diverged(trial: FrozenTrial) -> str | None:
    """Why a finished trial has the worst score: its loss or monitored metric was no longer finite; None for any other."""
    return trial.user_attrs.get(DIVERGED)


def failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that could not be run, and were not run again."""
    retried = retried_numbers(trials)
    return [trial for trial in trials if FAILED in trial.user_attrs and trial.number not in retried]


def retried_numbers(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of trials that were run again as others."""
    return {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that ran all their folds, which alone can win; the best first, of equal ones the first."""
    whole = [trial for trial in finished(trials) if given_up(trial) is None and diverged(trial) is None]
    return sorted(whole, key=lambda trial: (-float(trial.value or 0), trial.number))


def seconds(trial: FrozenTrial) -> float:
    """Wall time of a finished trial; of one that was run again, of its last part."""
    if SECONDS in trial.user_attrs:
        return float(trial.user_attrs[SECONDS])
    # a trial older than this attribute has only Optuna's times of day
    return trial.duration.total_seconds() if trial.duration is not None else 0.0


def fold_scores(trial: FrozenTrial) -> list[float]:
    """Accuracies on the held-out images of the trial's finished folds, in order."""
    return [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
