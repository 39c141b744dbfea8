"""What the search needs of Optuna beyond its documented interface, each with its reason.

`tests/search/test_optuna_internals.py` fails where a new version of Optuna changes any of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import TrialState

# System attribute in which GridSampler keeps a trial's point. Needed because the sampler takes the point from the trial's
# number, and interruptions use numbers up.
GRID_POINT = "grid_id"


class SystemLock(JournalFileOpenLock):
    """A journal's lock that the operating system releases when its holder dies.

    Optuna's own locks are files that outlive their process. Their base class is private, hence this one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def record_heartbeat(storage: RDBStorage, trial: optuna.Trial) -> None:
    """Store that a trial is alive. Optuna does so only within `Study.optimize`, which runs one fold at a time."""
    storage.record_heartbeat(trial._trial_id)


def stale_trial_ids(storage: RDBStorage, study: optuna.Study) -> list[int]:
    """The running trials whose heartbeats stopped. `optuna.storages.fail_stale_trials` would not store the reason."""
    return storage._get_stale_trial_ids(study._study_id)


def fail_trial(study: optuna.Study, trial_id: int, attribute: str, reason: str) -> None:
    """End a running trial of any process and store the reason, for which `Study.tell` has no argument.

    Raises:
        UpdateFinishedTrialError: it has ended meanwhile.
    """
    study._storage.set_trial_user_attr(trial_id, attribute, reason)  # before its state: a failed trial is read-only
    study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def trial_id(trial: optuna.trial.FrozenTrial) -> int:
    """A trial's number in its storage, by which the functions above find it."""
    return trial._trial_id


def without_sampled_values(system_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's system attributes without the values that TPESampler and GPSampler keep there until they are suggested.

    A trial that was interrupted while it was sampled would otherwise be taken for one that runs with these values.
    """
    return {key: value for key, value in system_attrs.items() if "relative_params" not in key}


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's log lines and two of its warnings, which the search's display replaces."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            # issued by each `Study.ask` of a study in a database with heartbeats
            warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used")
            yield
    finally:
        optuna.logging.set_verbosity(before)
