"""Chooses the next trial of a study: an interrupted one that is re-queued, or a new configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.errors import UserError
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.ownership import TrialOwnership, requeue_interrupted, running_processes
from fmnist_cv.search.records import RUN, failed_trials
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import grid_size, suggest
from fmnist_cv.search.storage import StudyStorage

MAX_ATTEMPTS = 3  # of a trial whose failure may be the machine's; the next command has as many


class TrialDispatcher:
    """Chooses trials until enough are completed or running.

    Args:
        search: what is searched.
        study: the opened study.
        store: its storage.
        ownership: this process's trials.
        display: shows when all trials run in other processes.

    Attributes:
        failures: how often the trials of a run failed, by the run's name.
        all_completed: whether no trial was missing when the last one was requested.
    """

    def __init__(
        self,
        search: Search,
        study: optuna.Study,
        store: StudyStorage,
        ownership: TrialOwnership,
        display: SearchDisplay,
    ) -> None:
        self._search, self._study, self._store, self._ownership = search, study, store, ownership
        self._display = display
        self.failures: Counter[str] = Counter()
        self.all_completed = False

    def next_trial(self, running: Mapping[int, optuna.Trial]) -> optuna.Trial | None:
        """The next trial, claimed and with its values; None if enough are completed or running.

        Args:
            running: this process's trials, by number.

        Raises:
            UpdateFinishedTrialError: another process took the trial after a restarted database released the lock.
            UserError: a folder of the trial's run exists already.
        """
        ownership, study = self._ownership, self._study
        ownership.heartbeat(list(running.values()))  # before stale trials are looked for
        with self._store.dispatch_lock(study.study_name) as check_lock:

            def is_lost(trial: FrozenTrial) -> bool:  # dispatched to this process, which did not receive the answer
                return ownership.is_mine(trial) and trial.number not in running

            ownership.interrupt(study, "its process died", ownership.is_orphaned)
            ownership.interrupt(study, "the database was unavailable while it was dispatched", is_lost)
            ownership.interrupt_stale(study)
            trials = study.get_trials(deepcopy=False)
            exhausted = {run for run, n in self.failures.items() if n >= MAX_ATTEMPTS}
            wanted = self._n_wanted(trials, exhausted)
            states = [trial.state for trial in trials]
            n_completed, n_running = states.count(TrialState.COMPLETE), states.count(TrialState.RUNNING)
            self.all_completed = n_completed >= wanted
            if n_completed + n_running >= wanted:
                if n_running and not running:
                    self._display.waiting(running_processes(trials))
                return None
            if TrialState.WAITING not in states:
                requeue_interrupted(study, exhausted)
            check_lock()
            trial = study.ask()
            ownership.claim(trial)
            suggest(self._search.space, trial)
            if RUN not in trial.user_attrs:
                trial.set_user_attr(RUN, self._new_run(trial.number))
            return trial

    def _n_wanted(self, trials: list[FrozenTrial], exhausted: set[str]) -> int:
        """How many trials are to be completed; a grid point that cannot be run is not replaced by another."""
        if not self._search.is_grid:
            return self._search.n_trials
        lost = [trial for trial in failed_trials(trials) if not trial.may_retry or trial.run in exhausted]
        return min(self._search.n_trials, grid_size(self._search.space) - len(lost))

    def _new_run(self, number: int) -> str:
        name = f"trial_{number:04}"
        if (folder := self._search.folder / name).exists():
            raise UserError(
                f"{folder} exists, but the study in {self._store.shown} has no such trial: the folder is from another "
                "study of this name; move it away, or choose another name"
            )
        return name
