"""Runs the trials of a study in parallel, fold by fold; prunes them and stores their outcomes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import mean
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.cross_validation import fold_folders, fold_job
from fmnist_cv.engine.events import EpochEnded, Event, Failed, FailureKind, Finished, Started
from fmnist_cv.engine.fold import FoldJob
from fmnist_cv.engine.preparation import PreparedRun, prepare_run, run_or_resume
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.engine.workers import WorkerPool
from fmnist_cv.errors import CannotWrite, DataNotFound, UserError
from fmnist_cv.search.dispatch import TrialDispatcher
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.epoch_rule import score_if_pruned
from fmnist_cv.search.ownership import TrialOwnership
from fmnist_cv.search.records import (
    CURVES,
    DIVERGED,
    DIVERGED_SCORE,
    FAILED,
    INTERRUPTED,
    PRUNED,
    RUN,
    SECONDS,
    CompletedTrial,
    PrunedWhen,
    completed_trials,
    ranked,
)
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import values_of
from fmnist_cv.search.storage import HEARTBEAT_SECONDS, STORAGE_UNAVAILABLE, StudyStorage

MAX_DEATHS = 5  # of a fold's process, without a completed epoch in between
MAX_LOCKED = 60  # half seconds that another process may lock a fold
MAX_FAILED_IN_A_ROW = 5
DISPATCH_PAUSE_SECONDS = 2.0  # while all trials run in other processes


class TrialsFailed(Exception):
    """Several trials failed one after another; the study keeps the trials that it has."""


@dataclass
class RunningTrial:
    """A trial whose folds run one after another.

    Attributes:
        trial: Optuna's.
        prepared: its run.
        began: when it was dispatched, on the monotonic clock.
        scores: accuracy on the held-out images of each completed fold.
        curves: the same after each epoch of these folds.
        job: of the running fold.
        deaths: of the running fold's process since its last epoch.
        locked: how often another process held the fold's lock.
    """

    trial: optuna.Trial
    prepared: PreparedRun
    began: float
    scores: list[float] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    job: FoldJob | None = None
    deaths: int = 0
    locked: int = 0

    @property
    def fold(self) -> int:
        """The fold that runs, or is next."""
        return len(self.scores)

    @property
    def folder(self) -> FoldFolder:
        return fold_folders(self.prepared)[self.fold]

    def make_job(self) -> FoldJob:
        """The next fold's job, without the test set, which a search must not use."""
        return replace(fold_job(self.prepared, self.fold), score_test=False)


class TrialRunner:
    """Runs trials until as many are completed as the search requests.

    Args:
        search: what is searched.
        study: the opened study.
        store: its storage.
        ownership: this process's trials.
        workers: trials that run in parallel.
        display: shows progress.
    """

    def __init__(
        self,
        search: Search,
        study: optuna.Study,
        store: StudyStorage,
        ownership: TrialOwnership,
        workers: int,
        display: SearchDisplay,
    ) -> None:
        self.search, self.study, self.store, self.ownership = search, study, store, ownership
        self.workers, self.display = workers, display
        self._dispatcher = TrialDispatcher(search, study, store, ownership, display)
        self._running: dict[int, RunningTrial] = {}
        self._failed_in_a_row: set[str] = set()  # runs
        self._ranked: list[CompletedTrial] = []  # the fully evaluated trials, best first
        self._dispatch_at = self._heartbeat_at = 0.0

    def run(self) -> None:
        """Run the missing trials.

        Raises:
            TrialsFailed: too many trials failed one after another.
            UserError: the data or the storage are unavailable.
        """
        try:
            with WorkerPool(self.search.base.devices()) as self._pool:
                while True:
                    self._start_trials()
                    if self._dispatcher.all_completed and not self._running:
                        return
                    for job, event in self._pool.wait(timeout=1.0):
                        self._handle(job, event)
                    self._send_heartbeats()
        finally:
            with contextlib.suppress(*STORAGE_UNAVAILABLE, CannotWrite):  # then the next command does it
                self._interrupt_unfinished()

    def _start_trials(self) -> None:
        while len(self._running) < self.workers and time.monotonic() >= self._dispatch_at:
            began = time.monotonic()
            try:
                trial = self.store.retry(lambda: self._dispatcher.next_trial(self._optuna_trials()))
            except UpdateFinishedTrialError:  # another process took it before it was claimed
                continue
            self._look_up_trials()
            if trial is None:  # all run or are completed; those of other processes may still fail
                self._dispatch_at = time.monotonic() + DISPATCH_PAUSE_SECONDS
                return
            self._start(trial, began)

    def _start(self, trial: optuna.Trial, began: float) -> None:
        options: dict[str, Any] = {"cv__workers": self.workers}
        if self.search.base.config.trainer.logger in (None, True):
            options["trainer__logger"] = False  # a fold's figures take longer than a small network's epoch
        try:
            experiment = self.search.experiment(values_of(self.search.space, trial.params), **options)
            run = run_or_resume(experiment, trial.user_attrs[RUN])
            prepared = prepare_run(experiment, **run, same_data=self.search.data)
        except (DataNotFound, CannotWrite):  # the same for any other trial
            raise
        except UserError as error:
            self._fail(trial, str(error))
            return
        running = self._running[trial.number] = RunningTrial(trial, prepared, began)
        folders = fold_folders(prepared)
        self.display.trial_started(trial.number, len(folders), sum(folder.finished for folder in folders))
        self._next_fold(running)

    def _start_fold(self, running: RunningTrial) -> None:
        """Start the trial's next fold, or an interrupted one again, which resumes after its last epoch."""
        running.job = running.make_job()
        self._pool.start(running.job)

    def _handle(self, job: FoldJob, event: Event) -> None:
        if (running := next((r for r in self._running.values() if r.job is job), None)) is None:
            return
        self.display.fold_event(running.trial.number, running.fold, event)
        match event:
            case Started(epoch, metrics=metrics) if epoch:  # an interrupted command may not have judged the last epoch
                self._judge_epoch(running, epoch - 1, metrics)
            case EpochEnded(epoch, metrics):
                running.deaths = 0
                self._judge_epoch(running, epoch, metrics)
            case Finished():
                running.deaths = 0
                self._next_fold(running)
            case Failed(kind=FailureKind.DIED) if running.deaths < MAX_DEATHS:
                running.deaths += 1
                self._start_fold(running)
            case Failed(kind=FailureKind.LOCKED) if running.locked < MAX_LOCKED:
                running.locked += 1
                time.sleep(0.5)  # a fold of a command that was killed just now ends soon
                self._start_fold(running)
            case Failed(reason, FailureKind.DIVERGED):  # a result of the configuration, and the worst one
                self._complete(running, DIVERGED_SCORE, diverged=reason)
            case Failed(reason):
                del self._running[running.trial.number]
                self._fail(running.trial, reason, event.may_be_retried)

    def _next_fold(self, running: RunningTrial) -> None:
        """Report the scores of completed folds, then complete the trial or start its next fold."""
        n_folds, epoch = self.search.n_folds, self.search.base.headline
        while running.fold < n_folds and running.folder.finished:
            metrics, fold = running.folder.read_metrics(), running.fold
            score = metrics[epoch]["validation"]["accuracy"]
            running.scores.append(score)
            running.curves.append([round(e["val/accuracy"], 5) for e in metrics["history"] if "val/accuracy" in e])
            try:
                self.store.retry(partial(running.trial.report, score, fold))
            except UpdateFinishedTrialError:  # its heartbeats were late, and another process retries it
                del self._running[running.trial.number]
                self.display.trial_ended(running.trial.number, self._look_up_trials())
                return
            # of a trial that is retried, all completed folds count before it is judged
            is_judged = running.fold < n_folds and not running.folder.finished and self._ranked
            if is_judged and self.store.retry(running.trial.should_prune):
                self._complete(running, mean(running.scores), pruned="after folds")
                return
        if running.fold == n_folds:
            self._complete(running, mean(running.scores))
        else:
            self._start_fold(running)

    def _judge_epoch(self, running: RunningTrial, epoch: int, metrics: Mapping[str, float]) -> None:
        """Prune the trial if the epoch rule says so after this epoch, counted from 0."""
        rule, experiment = self.search.settings.epoch_rule, running.prepared.experiment
        if rule is None or epoch + 1 == experiment.config.trainer.max_epochs:
            return
        is_inner = experiment.cv.inner_holdout is not None
        score = score_if_pruned(rule, self._ranked, running.scores, epoch, metrics["val/accuracy"], is_inner)
        if score is not None:
            assert running.job is not None
            self._pool.stop(running.job)
            self._complete(running, score, pruned="in an epoch")

    # -- outcomes -------------------------------------------------------------------------------------------

    def _complete(
        self, running: RunningTrial, score: float, pruned: PrunedWhen | None = None, diverged: str | None = None
    ) -> None:
        """Store the trial as completed. Pruned or diverged ones, too, since samplers learn more from these."""
        trial = running.trial
        seconds = time.monotonic() - running.began
        del self._running[trial.number]
        self._failed_in_a_row.clear()
        attributes = {PRUNED: pruned, DIVERGED: diverged, CURVES: running.curves, SECONDS: seconds}
        self._store_outcome(trial, attributes, score)

    def _fail(self, trial: optuna.Trial, reason: str, may_retry: bool = False) -> None:
        """Store the trial as failed: for good, or, where the machine may be the cause, to be retried."""
        run = trial.user_attrs[RUN]
        self._dispatcher.failures[run] += 1
        self._store_outcome(trial, {INTERRUPTED: reason if may_retry else None, FAILED: reason}, None)
        self._failed_in_a_row.add(run)
        if len(self._failed_in_a_row) >= MAX_FAILED_IN_A_ROW:
            raise TrialsFailed(f"{MAX_FAILED_IN_A_ROW} trials failed one after another; the last one: {reason}")

    def _store_outcome(self, trial: optuna.Trial, attributes: Mapping[str, object], score: float | None) -> None:
        def store() -> None:
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            state = TrialState.FAIL if score is None else TrialState.COMPLETE
            self.study.tell(trial, score, state=state, skip_if_finished=True)

        with contextlib.suppress(UpdateFinishedTrialError):  # its heartbeats were late, and another process retries it
            self.store.retry(store)
        trials = self._look_up_trials()
        self._delete_checkpoints(trial.number, completed_trials(trials))
        self._dispatch_at = 0.0
        self.display.trial_ended(trial.number, trials)

    def _delete_checkpoints(self, number: int, completed: list[CompletedTrial]) -> None:
        """Delete those of a trial that ended, or of the one that it replaces as the best: together they fill a disk."""
        best_first, ended = ranked(completed), [trial for trial in completed if trial.number == number]
        for trial in best_first[1:2] if ended == best_first[:1] else ended:
            for checkpoint in (self.search.folder / trial.run).glob("*/*.ckpt"):
                checkpoint.unlink(missing_ok=True)

    def _look_up_trials(self) -> list[FrozenTrial]:
        trials = self.store.retry(lambda: self.study.get_trials(deepcopy=False))
        self._ranked = ranked(completed_trials(trials))
        return trials

    def _interrupt_unfinished(self) -> None:
        with self.store.dispatch_lock(self.study.study_name):
            for which in (self.ownership.is_mine, self.ownership.is_orphaned):
                self.ownership.interrupt(self.study, "the search was interrupted", which)

    def _send_heartbeats(self) -> None:
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
            self.store.retry(lambda: self.ownership.heartbeat(list(self._optuna_trials().values())))

    def _optuna_trials(self) -> dict[int, optuna.Trial]:
        return {number: running.trial for number, running in self._running.items()}
