"""What happens in a fold, as typed events: a fold emits them, an executor delivers them with the fold's job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Started:
    """Training starts, or continues after its last checkpoint.

    Attributes:
        epoch: epochs already trained, 0 for a new fold.
        max_epochs: the planned number of epochs; -1 where steps or time limit the training.
        steps: training steps per epoch.
        metrics: of the last trained epoch; empty for a new fold.
    """

    epoch: int
    max_epochs: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepEnded:
    """A training step ended; emitted a few times per second at most.

    Attributes:
        epoch: the running epoch, counted from 0.
        step: steps of this epoch done so far.
    """

    epoch: int
    step: int


@dataclass(frozen=True)
class EpochEnded:
    """An epoch ended and its checkpoint is on disk.

    Attributes:
        epoch: counted from 0.
        metrics: all logged metrics, e.g. "val/accuracy".
    """

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ScoringStarted:
    """Training is over; the checkpoints are scored on the held-out and test images."""


@dataclass(frozen=True)
class WarningIssued:
    """Something optional failed (a figure, a logger); the fold continues without it."""

    text: str


@dataclass(frozen=True)
class RunningElsewhere:
    """Another process holds the fold's lock; the fold is checked again when all others are done."""


@dataclass(frozen=True)
class Finished:
    """The fold is trained and scored. No further events follow.

    Attributes:
        accuracy: of the last epoch on the held-out images; None for a refit, which holds none out.
    """

    accuracy: float | None


class FailureKind(StrEnum):
    """Why a fold failed."""

    USER_ERROR = "user error"  # of settings or data: it would fail again
    DIVERGED = "diverged"  # loss, metric or predictions are not finite: it would fail again
    LOCKED = "locked"  # another process works on this fold
    CANNOT_WRITE = "cannot write"
    EXCEPTION = "exception"
    DIED = "died"  # the fold's process was killed or exited


@dataclass(frozen=True)
class Failed:
    """The fold failed; what it has saved is kept for the next attempt. No further events follow.

    Attributes:
        reason: in one line.
        kind: why.
        traceback: only of an unexpected exception.
    """

    reason: str
    kind: FailureKind
    traceback: str = ""

    @property
    def may_be_retried(self) -> bool:
        """Whether the machine may be the cause, not the experiment."""
        return self.kind not in (FailureKind.USER_ERROR, FailureKind.DIVERGED)


Event = Started | StepEnded | EpochEnded | ScoringStarted | WarningIssued | RunningElsewhere | Finished | Failed
Notify = Callable[[Event], None]
