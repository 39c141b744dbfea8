"""Progress of a search: trials finished, running and given up, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import stdev

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import TaskID

from fmnist_cv.engine.events import EpochEnded, Event, Failed, FailureKind, Finished, Started, WarningIssued
from fmnist_cv.engine.progress import LiveDisplay, time_left
from fmnist_cv.search.outcomes import FAILED, diverged, failed, finished, fold_scores, given_up, ranked


class SearchDisplay(LiveDisplay):
    """A bar for the search and a line for each running trial; plain lines where the output is no terminal.

    Args:
        n_trials: trials asked for.
        trials: those that the study has already.
        console: where to print; None prints nothing.
    """

    def __init__(self, n_trials: int, trials: Sequence[FrozenTrial], console: Console | None) -> None:
        super().__init__(console)
        self._n = n_trials
        self._began, self._finished_before = time.monotonic(), len(finished(trials))
        self._trials: Sequence[FrozenTrial] = trials
        self._folds: dict[int, tuple[int, int]] = {}  # of each running trial: (folds, epochs per fold)
        self._done: dict[int, float] = {}  # share of each running trial
        self._at_start: dict[int, float] = {}
        self._lines: dict[int | None, TaskID] = {}
        self._others: Sequence[str] = ()

    def _begin(self) -> None:
        if self._live:
            self._lines[None] = self._progress.add_task("trials", total=self._n, note="")
            self._update()
        elif self._finished_before:
            self._print(f"{self._finished_before} of {self._n} trials are finished already{self._best()}")

    def started(self, number: int, n_folds: int, n_done: int) -> None:
        """A trial runs."""
        self._folds[number] = (n_folds, 1)
        self._done[number] = self._at_start[number] = n_done / n_folds
        if self._live:
            self._lines[number] = self._progress.add_task(f"trial {number}", total=1.0, note="")

    def fold_event(self, number: int, fold: int, event: Event) -> None:
        """An event of a trial's fold."""
        n_folds, epochs = self._folds[number]
        match event:
            case Started():
                self._folds[number] = (n_folds, max(1, event.max_epochs))
            case EpochEnded(epoch, metrics):
                self._done[number] = (fold + (epoch + 1) / epochs) / n_folds
                note = f"fold {fold + 1}/{n_folds}, epoch {epoch + 1}, accuracy {metrics['val/accuracy']:.4f}"
                if self._live:
                    self._progress.update(self._lines[number], completed=self._done[number], note=note)
                    self._update()
            case Finished(accuracy):
                self._done[number] = (fold + 1) / n_folds
                if not self._live:
                    self._print(f"trial {number}: fold {fold + 1} of {n_folds}, {accuracy:.4f}{self._time_left()}")
            case WarningIssued(text):
                self._print(f"trial {number}: fold {fold + 1}: {text}")
            case Failed(reason, FailureKind.DIED):
                self._print(f"trial {number}: fold {fold + 1}: {reason}; it resumes after its last epoch")

    def told(self, number: int, trials: Sequence[FrozenTrial]) -> None:
        """A trial is over."""
        self._trials = trials
        for share in (self._done, self._at_start, self._folds):
            share.pop(number, None)
        if self._live and number in self._lines:
            self._progress.remove_task(self._lines.pop(number))
        self._update()
        trial = next(t for t in trials if t.number == number)
        if trial.state == TrialState.COMPLETE:
            how = given_up(trial)
            what = f"{trial.value:.4f}, " + (f"given up {how}" if how else f"{len(fold_scores(trial))} folds")
            if reason := diverged(trial):
                what = f"DIVERGED: {reason}"
        else:
            what = f"FAILED: {trial.user_attrs.get(FAILED, 'ended')}"
        self._print(f"trial {number}: {what}; {self._counts()}{self._best()}{self._time_left()}")

    def waiting_for(self, others: Sequence[str]) -> None:
        """Nothing is left to hand out, but other processes still run trials."""
        if others != self._others:
            self._others = others
            self._print(f"all trials are handed out; waiting for {', '.join(others)}")

    def _update(self) -> None:
        if self._live:
            note = f"{self._counts()}{self._best()}{self._time_left()}"
            self._progress.update(
                self._lines[None], completed=len(finished(self._trials)) + sum(self._done.values()), note=note
            )

    def _counts(self) -> str:
        done, n_failed = finished(self._trials), len(failed(self._trials))
        n_diverged = sum(diverged(t) is not None for t in done)
        return (
            f"{len(done)} of {self._n} finished, {sum(given_up(t) is not None for t in done)} of them given up, "
            + (f"{n_diverged} diverged, " if n_diverged else "")
            + f"{len(self._done)} running"
            + (f", {n_failed} failed" if n_failed else "")
        )

    def _best(self) -> str:
        best = next(iter(ranked(self._trials)), None)
        if best is None:
            return ""
        scores = fold_scores(best)
        spread = f" ± {stdev(scores):.4f}" if len(scores) > 1 else ""
        return f", best {best.value:.4f}{spread} (trial {best.number})"

    def _time_left(self) -> str:
        n_finished = len(finished(self._trials))
        done = n_finished - self._finished_before + sum(self._done.values()) - sum(self._at_start.values())
        return time_left(time.monotonic() - self._began, done, self._n - n_finished - sum(self._done.values()))
