"""Runs a study's trials: hands them out, runs their folds side by side, gives hopeless ones up, tells the outcome."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.epoch_rule import score_if_hopeless
from fmnist_cv.search.outcomes import (
    CURVES,
    DIVERGED,
    FAILED,
    GIVEN_UP,
    RUN,
    SECONDS,
    WORST,
    failed,
    finished,
    ranked,
)
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import grid_size, suggest, values_of
from fmnist_cv.search.storage import AWAY, ENDED, HEARTBEAT_SECONDS, OWNER, StudyStorage, retry_one_ended

MAX_DEATHS = 5  # of a fold's process, without an epoch in between
MAX_LOCKED = 60  # half seconds that another process may hold a fold
MAX_TRIES = 3  # of a trial that the machine may be at fault for; the next command has as many
MAX_FAILED_IN_A_ROW = 5
ASK_AGAIN_SECONDS = 2.0


class TrialsFailed(Exception):
    """One trial after another failed; the study is as it was left."""


@dataclass
class RunningTrial:
    """A trial whose folds run one after another.

    Attributes:
        trial: Optuna's.
        prepared: its run.
        began: when it was drawn, on the monotonic clock.
        scores: accuracy on the held-out images of each fold that is finished.
        curves: the same after each epoch of these folds.
        job: of the running fold.
        deaths: of the running fold's process since its last epoch.
        locked: how often its fold was another process's.
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
        """The next fold's job, without the test set, which a search must not see."""
        return replace(fold_job(self.prepared, self.fold), score_test=False)


class TrialRunner:
    """Runs trials until as many are finished as were asked for.

    Args:
        search: what is searched.
        study: the opened study.
        store: its storage.
        workers: trials side by side.
        display: shows how it goes.
    """

    def __init__(
        self, search: Search, study: optuna.Study, store: StudyStorage, workers: int, display: SearchDisplay
    ) -> None:
        self.search, self.study, self.store, self.workers, self.display = search, study, store, workers, display
        self._running: dict[int, RunningTrial] = {}
        self._tries: Counter[str] = Counter()  # that failed, by run
        self._failed_in_a_row: set[str] = set()  # runs
        self._ranked: list[FrozenTrial] = []  # those with all folds, the best first
        self._ask_again_at = self._heartbeat_at = 0.0
        self._all_done = False

    def run(self) -> None:
        """Run what is missing.

        Raises:
            TrialsFailed: too many trials failed one after another.
            UserError: the data or the storage are not there.
        """
        try:
            with WorkerPool(self.search.base.devices()) as self._pool:
                while True:
                    self._start_trials()
                    if self._all_done and not self._running:
                        return
                    for job, event in self._pool.wait(timeout=1.0):
                        self._handle(job, event)
                    self._beat()
        finally:  # whatever happened, none of this process's trials stays behind
            with contextlib.suppress(*AWAY, CannotWrite):  # the next start ends them
                self._end_unfinished()

    # -- handing out ----------------------------------------------------------------------------------------

    def _start_trials(self) -> None:
        while len(self._running) < self.workers and time.monotonic() >= self._ask_again_at:
            began = time.monotonic()
            try:
                trial = self.store.patiently(self._hand_out)
            except UpdateFinishedTrialError:  # taken from us before it was signed: the database had forgotten the lock
                continue
            if trial is None:  # all are handed out; those of other processes may still fail
                self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
                return
            self._start(trial, began)

    def _hand_out(self) -> optuna.Trial | None:
        """The next trial, as long as fewer are finished or running than were asked for."""
        store = self.store
        store.heartbeat([running.trial for running in self._running.values()])  # before others are found stale
        with store.handing_out(self.study.study_name) as check_lock:
            store.end_trials(self.study, "its process died", store.is_nobodys)
            store.end_trials(self.study, "the database did not answer while it was handed out", self._is_lost)
            store.end_stale_trials(self.study)
            trials = self.study.get_trials(deepcopy=False)
            self._ranked = ranked(trials)
            states = [trial.state for trial in trials]
            wanted = self.search.n_trials
            given_up_on = {run for run, n in self._tries.items() if n >= MAX_TRIES}
            if self.search.is_grid:  # a point that cannot be run is not drawn again
                lost = [
                    t for t in failed(trials) if not t.user_attrs.get(ENDED) or t.user_attrs.get(RUN) in given_up_on
                ]
                wanted = min(wanted, grid_size(self.search.space) - len(lost))
            n_finished, n_running = len(finished(trials)), states.count(TrialState.RUNNING)
            self._all_done = n_finished >= wanted
            if n_finished + n_running >= wanted:
                if n_running and not self._running:
                    self.display.waiting_for(owners(trials))
                return None
            if TrialState.WAITING not in states:
                retry_one_ended(self.study, given_up_on)
            check_lock()
            trial = self.study.ask()
            store.sign(trial)
            suggest(self.search.space, trial)
            if RUN not in trial.user_attrs:
                trial.set_user_attr(RUN, self._new_run(trial.number))
            return trial

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Handed out to this process by a transaction whose end was not heard."""
        return self.store.is_mine(trial) and trial.number not in self._running

    def _new_run(self, number: int) -> str:
        name = f"trial_{number:04}"
        if (self.search.folder / name).exists():
            raise UserError(
                f"{self.search.folder / name} is there, but the study in {self.store.shown} does not know it: it is of "
                "another study of that name; move the folder away, or choose another name"
            )
        return name

    def _start(self, trial: optuna.Trial, began: float) -> None:
        options: dict[str, Any] = {"cv__workers": self.workers}
        if self.search.base.config.trainer.logger in (None, True):
            options["trainer__logger"] = False  # a fold's figures take longer than a small network's epoch
        try:
            experiment = self.search.experiment(values_of(self.search.space, trial.params), **options)
            prepared = prepare_run(
                experiment, **run_or_resume(experiment, trial.user_attrs[RUN]), same_data=self.search.data
            )
        except (DataNotFound, CannotWrite):  # no other trial would fare better
            raise
        except UserError as error:
            self._fail(trial, str(error))
            return
        running = self._running[trial.number] = RunningTrial(trial, prepared, began)
        folders = fold_folders(prepared)
        self.display.started(trial.number, len(folders), sum(folder.finished for folder in folders))
        self._go_on(running)

    # -- a trial's course -----------------------------------------------------------------------------------

    def _start_fold(self, running: RunningTrial) -> None:
        """Start the trial's next fold, or the running one again, which resumes after its last epoch."""
        running.job = running.make_job()
        self._pool.start(running.job)

    def _handle(self, job: FoldJob, event: Event) -> None:
        if (running := next((r for r in self._running.values() if r.job is job), None)) is None:
            return
        number = running.trial.number
        self.display.fold_event(number, running.fold, event)
        match event:
            case Started(epoch, metrics=metrics) if epoch:  # the process that ran the last epoch may not have judged it
                self._judge_epoch(running, epoch - 1, metrics)
            case EpochEnded(epoch, metrics):
                running.deaths = 0
                self._judge_epoch(running, epoch, metrics)
            case Finished():
                running.deaths = 0
                self._go_on(running)
            case Failed(kind=FailureKind.DIED) if running.deaths < MAX_DEATHS:
                running.deaths += 1
                self._start_fold(running)
            case Failed(kind=FailureKind.LOCKED) if running.locked < MAX_LOCKED:
                running.locked += 1
                time.sleep(0.5)  # the fold's process of a command that was killed just now ends with it
                self._start_fold(running)
            case Failed(reason, FailureKind.DIVERGED):  # an answer about the configuration, and as bad as can be
                self._tell(running, WORST, diverged=reason)
            case Failed(reason):
                del self._running[number]
                self._fail(running.trial, reason, may_be_tried_again=event.may_be_retried)

    def _go_on(self, running: RunningTrial) -> None:
        """Take the scores of finished folds, then tell the outcome or start the next fold."""
        n_folds, epoch = self.search.n_folds, self.search.base.headline
        while running.fold < n_folds and running.folder.finished:
            metrics, step = running.folder.read_metrics(), running.fold
            score = metrics[epoch]["validation"]["accuracy"]
            running.scores.append(score)
            running.curves.append([round(e["val/accuracy"], 5) for e in metrics["history"] if "val/accuracy" in e])
            try:
                self.store.patiently(partial(_report, running.trial, score, step))
            except UpdateFinishedTrialError:  # ended by others, for want of heartbeats: they run it again
                self._drop(running)
                return
            # what is there already, of a trial that is run again, is taken before it is judged
            judged = running.fold < n_folds and not running.folder.finished and self._ranked
            if judged and self.store.patiently(running.trial.should_prune):
                self._tell(running, mean(running.scores), given_up="after folds")
                return
        if running.fold == n_folds:
            self._tell(running, mean(running.scores))
        else:
            self._start_fold(running)

    def _drop(self, running: RunningTrial) -> None:
        """Let a trial go that is no longer this process's."""
        del self._running[running.trial.number]
        self.display.told(running.trial.number, self.store.patiently(lambda: self.study.get_trials(deepcopy=False)))

    def _tell(
        self, running: RunningTrial, score: float, given_up: str | None = None, diverged: str | None = None
    ) -> None:
        """Complete the trial with its score; given up or diverged, it is complete for the sampler, but never wins."""
        trial = running.trial
        attributes = {GIVEN_UP: given_up, CURVES: running.curves, SECONDS: time.monotonic() - running.began}
        if diverged is not None:
            attributes[DIVERGED] = diverged

        def tell() -> None:
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, score, state=TrialState.COMPLETE, skip_if_finished=True)

        self._finish(trial, tell)
        del self._running[trial.number]
        self._failed_in_a_row.clear()

    def _fail(self, trial: optuna.Trial, reason: str, may_be_tried_again: bool = False) -> None:
        """The trial could not be run: for its configuration's sake, which is for good, or perhaps for the machine's."""
        self._tries[trial.user_attrs[RUN]] += 1

        def tell() -> None:
            if may_be_tried_again:
                trial.set_user_attr(ENDED, reason)
            trial.set_user_attr(FAILED, reason)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

        self._finish(trial, tell)
        self._failed_in_a_row.add(trial.user_attrs[RUN])
        if len(self._failed_in_a_row) >= MAX_FAILED_IN_A_ROW:
            raise TrialsFailed(f"{MAX_FAILED_IN_A_ROW} trials failed one after another; the last one: {reason}")

    def _finish(self, trial: optuna.Trial, tell: Callable[[], None]) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):  # ended by others, for want of heartbeats
            self.store.patiently(tell)
        trials = self.store.patiently(lambda: self.study.get_trials(deepcopy=False))
        self._ranked = ranked(trials)
        self._keep_the_bests_checkpoints(trial.number, trials)
        self._ask_again_at = 0.0
        self.display.told(trial.number, trials)

    def _keep_the_bests_checkpoints(self, number: int, trials: Sequence[FrozenTrial]) -> None:
        """Delete those of a trial that is over, or of the one that it has beaten: a search makes many gigabytes of them."""
        whole, mine = ranked(trials), [trial for trial in finished(trials) if trial.number == number]
        for beaten in whole[1:2] if mine == whole[:1] else mine:
            for checkpoint in (self.search.folder / beaten.user_attrs[RUN]).glob("*/*.ckpt"):
                checkpoint.unlink(missing_ok=True)

    def _end_unfinished(self) -> None:
        with self.store.handing_out(self.study.study_name):
            for which in (self.store.is_mine, self.store.is_nobodys):
                self.store.end_trials(self.study, "the search was interrupted", which)

    def _beat(self) -> None:
        if time.monotonic() >= self._heartbeat_at:
            self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
            self.store.patiently(lambda: self.store.heartbeat([r.trial for r in self._running.values()]))

    def _judge_epoch(self, running: RunningTrial, epoch: int, metrics: Mapping[str, float]) -> None:
        """Give the trial up if the rule says so after this epoch, counted from 0."""
        rule, experiment = self.search.settings.epoch_rule, running.prepared.experiment
        if rule is None or epoch + 1 == experiment.config.trainer.max_epochs:
            return
        is_inner = experiment.cv.inner_holdout is not None
        score = score_if_hopeless(rule, self._ranked, running.scores, epoch, metrics["val/accuracy"], is_inner)
        if score is not None:
            assert running.job is not None
            self._pool.stop(running.job)
            self._tell(running, score, given_up="in an epoch")


def _report(trial: optuna.Trial, score: float, step: int) -> None:
    if step not in trial.storage.get_trial(trial._trial_id).intermediate_values:
        trial.report(score, step)


def owners(trials: Sequence[FrozenTrial]) -> list[str]:
    """The processes that run trials just now, for people."""
    running = [t.user_attrs[OWNER] for t in trials if t.state == TrialState.RUNNING and OWNER in t.user_attrs]
    return sorted({f"process {owner['pid']} on {owner['host']}" for owner in running})
