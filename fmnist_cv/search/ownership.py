"""Which process runs which trial, and re-queueing the trials of processes that died."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

import optuna
import psutil
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.search.optuna_internals import (
    fail_trial,
    record_heartbeat,
    stale_trial_ids,
    trial_id,
    without_sampled_values,
)
from fmnist_cv.search.records import FAILED, INTERRUPTED, OWNER, RUN, Owner, retried_numbers
from fmnist_cv.search.storage import StudyStorage


class TrialOwnership:
    """The trials that this process runs, and whether those of others are orphaned; to be closed.

    A process with a journal or SQLite file holds a lock file, which the operating system releases when the process dies. With
    a server, processes of this machine are looked up, and those of other machines are known by their heartbeats alone.

    Args:
        store: the study's storage.

    Attributes:
        me: this process.
    """

    def __init__(self, store: StudyStorage) -> None:
        self._store = store
        self.me = _this_process()
        self._alive: FileLock | None = None
        if store.path is not None:
            self._alive = FileLock(_alive_path(store.path, self.me))
            self._alive.acquire()

    def close(self) -> None:
        """From now on, this process counts as dead."""
        if self._alive is not None:
            self._alive.release()
            Path(self._alive.lock_file).unlink(missing_ok=True)

    def heartbeat(self, trials: list[optuna.Trial]) -> None:
        """Store in a database that these trials are alive."""
        if isinstance(self._store.storage, RDBStorage):
            for trial in trials:
                record_heartbeat(self._store.storage, trial)

    def claim(self, trial: optuna.Trial) -> None:
        """Make a new trial this process's own."""
        self.heartbeat([trial])  # first: an owned trial without heartbeat would never be found stale
        trial.set_user_attr(OWNER, self.me)
        trial.set_user_attr(INTERRUPTED, None)  # of the trial that it may retry

    def is_mine(self, trial: FrozenTrial) -> bool:
        """Whether this process claimed the trial."""
        owner: Owner | None = trial.user_attrs.get(OWNER)
        return owner is not None and owner["id"] == self.me["id"]

    def is_orphaned(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran a trial has ended. The dispatch lock must be held: a new trial has no owner yet."""
        if self.is_mine(trial):
            return False
        owner: Owner | None = trial.user_attrs.get(OWNER)
        if owner is None:
            return True
        if self._store.path is not None:
            return _is_released(_alive_path(self._store.path, owner))
        if owner["where"] != self.me["where"]:
            return False
        try:
            process = psutil.Process(owner["pid"])
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - owner["started"]) > 60
        except psutil.NoSuchProcess:
            return True

    def interrupt(self, study: optuna.Study, reason: str, which: Callable[[FrozenTrial], bool]) -> None:
        """Fail the running trials that `which` selects, to be re-queued. The dispatch lock must be held."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if which(trial):
                _interrupt(study, trial_id(trial), reason)

    def interrupt_stale(self, study: optuna.Study) -> None:
        """Fail the trials of a database whose heartbeats stopped. The dispatch lock must be held."""
        if isinstance(self._store.storage, RDBStorage) and not self._store.just_available:
            for stale in stale_trial_ids(self._store.storage, study):
                _interrupt(study, stale, "its heartbeat stopped")


def requeue_interrupted(study: optuna.Study, excluded_runs: Collection[str] = ()) -> None:
    """Queue the first interrupted trial that was not re-queued, with its parameters and a link to it.

    A trial that was interrupted while it was sampled is sampled again. The dispatch lock must be held.

    Args:
        study: the study.
        excluded_runs: names of runs that are not tried again.
    """
    trials = study.get_trials(deepcopy=False)
    retried = retried_numbers(trials)
    for trial in trials:
        interrupted = trial.state == TrialState.FAIL and trial.user_attrs.get(INTERRUPTED)
        if interrupted and trial.number not in retried and trial.user_attrs.get(RUN) not in excluded_runs:
            again = copy.deepcopy(trial)
            for key in (OWNER, INTERRUPTED, FAILED):
                again.user_attrs.pop(key, None)
            if RUN not in again.user_attrs:
                again.params, again.distributions = {}, {}
                again.system_attrs = without_sampled_values(again.system_attrs)
            RetryHeartbeatStaleTrialCallback()(study, again)
            return


def running_processes(trials: list[FrozenTrial]) -> list[str]:
    """The processes that run trials now, as shown to users."""
    owners: list[Owner] = [
        t.user_attrs[OWNER] for t in trials if t.state == TrialState.RUNNING and OWNER in t.user_attrs
    ]
    return sorted({f"process {owner['pid']} on {owner['host']}" for owner in owners})


def _interrupt(study: optuna.Study, trial_id: int, reason: str) -> None:
    with contextlib.suppress(UpdateFinishedTrialError):  # it was completed meanwhile
        fail_trial(study, trial_id, INTERRUPTED, reason)


def _alive_path(storage: Path, owner: Owner) -> Path:
    return storage.with_name(f".{storage.name}.{owner['id']}.alive")


def _is_released(path: Path) -> bool:
    if not path.exists():
        return True
    try:
        with FileLock(path, timeout=0):
            pass
    except Timeout:
        return False
    path.unlink(missing_ok=True)
    return True


def _this_process() -> Owner:
    namespace = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    boot = Path("/proc/sys/kernel/random/boot_id")
    boot_id = boot.read_text(encoding="utf-8").strip() if boot.exists() else ""
    return {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "where": f"{socket.gethostname()} {boot_id} {namespace}",
    }
