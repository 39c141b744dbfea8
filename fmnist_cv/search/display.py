"""Progress of a search: trials completed, running and pruned, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import stdev

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import TaskID

from fmnist_cv.engine.events import EpochEnded, Event, Failed, FailureKind, Finished, Started, WarningIssued
from fmnist_cv.engine.progress import LiveDisplay, time_left
from fmnist_cv.search.records import FAILED, completed_trials, failed_trials, ranked


class SearchDisplay(LiveDisplay):
    """A bar for the search and a line for each running trial on a terminal; plain lines elsewhere.

    Args:
        n_trials: trials to complete.
        trials: those that the study already has.
        console: where to print; None prints nothing.
    """

    def __init__(self, n_trials: int, trials: Sequence[FrozenTrial], console: Console | None) -> None:
        super().__init__(console)
        self._n = n_trials
        self._began = time.monotonic()
        self._completed, self._n_failed = completed_trials(trials), len(failed_trials(trials))
        self._n_before = len(self._completed)
        self._folds: dict[int, tuple[int, int]] = {}  # of each running trial: (folds, epochs per fold)
        self._done: dict[int, float] = {}  # share of each running trial
        self._at_start: dict[int, float] = {}
        self._lines: dict[int | None, TaskID] = {}
        self._others: Sequence[str] = ()

    def _begin(self) -> None:
        if self._live:
            self._lines[None] = self._progress.add_task("trials", total=self._n, note="")
            self._update()
        elif self._n_before:
            self._print(f"{self._n_before} of {self._n} trials are already completed{self._best()}")

    def trial_started(self, number: int, n_folds: int, n_done: int) -> None:
        """Show a new trial, of whose folds some may be completed already."""
        self._folds[number] = (n_folds, 1)
        self._done[number] = self._at_start[number] = n_done / n_folds
        if self._live:
            self._lines[number] = self._progress.add_task(f"trial {number}", total=1.0, note="")

    def fold_event(self, number: int, fold: int, event: Event) -> None:
        """Show an event of a trial's fold."""
        n_folds, epochs = self._folds[number]
        prefix = f"trial {number}: fold {fold + 1}"
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
                    self._print(f"{prefix} of {n_folds}, {accuracy:.4f}{self._time_left()}")
            case WarningIssued(text):
                self._print(f"{prefix}: {text}")
            case Failed(reason, FailureKind.DIED):
                self._print(f"{prefix}: {reason}; it resumes after its last epoch")

    def trial_ended(self, number: int, trials: Sequence[FrozenTrial]) -> None:
        """Show a trial's outcome, given all trials of the study."""
        self._completed, self._n_failed = completed_trials(trials), len(failed_trials(trials))
        for share in (self._done, self._at_start, self._folds):
            share.pop(number, None)
        if self._live and number in self._lines:
            self._progress.remove_task(self._lines.pop(number))
        self._update()
        trial = next((t for t in self._completed if t.number == number), None)
        if trial is None:
            reason = next(t for t in trials if t.number == number).user_attrs.get(FAILED, "interrupted")
            outcome = f"FAILED: {reason}"
        elif trial.diverged:
            outcome = f"DIVERGED: {trial.diverged}"
        elif trial.pruned:
            outcome = f"{trial.value:.4f}, pruned {trial.pruned}"
        else:
            outcome = f"{trial.value:.4f}, {len(trial.fold_scores)} folds"
        self._print(f"trial {number}: {outcome}; {self._counts()}{self._best()}{self._time_left()}")

    def waiting(self, processes: Sequence[str]) -> None:
        """Show that all trials run in other processes."""
        if processes != self._others:
            self._others = processes
            self._print(f"no trial is left to start; waiting for {', '.join(processes)}")

    def _update(self) -> None:
        if self._live:
            note = f"{self._counts()}{self._best()}{self._time_left()}"
            n_done = len(self._completed) + sum(self._done.values())
            self._progress.update(self._lines[None], completed=n_done, note=note)

    def _counts(self) -> str:
        n_pruned = sum(trial.pruned is not None for trial in self._completed)
        n_diverged = sum(trial.diverged is not None for trial in self._completed)
        counts = [f"{len(self._completed)} of {self._n} completed", f"{n_pruned} of them pruned"]
        if n_diverged:
            counts.append(f"{n_diverged} diverged")
        counts.append(f"{len(self._done)} running")
        if self._n_failed:
            counts.append(f"{self._n_failed} failed")
        return ", ".join(counts)

    def _best(self) -> str:
        if not (best_first := ranked(self._completed)):
            return ""
        best = best_first[0]
        spread = f" ± {stdev(best.fold_scores):.4f}" if len(best.fold_scores) > 1 else ""
        return f", best {best.value:.4f}{spread} (trial {best.number})"

    def _time_left(self) -> str:
        n_completed, share_running = len(self._completed), sum(self._done.values())
        done = n_completed - self._n_before + share_running - sum(self._at_start.values())
        return time_left(time.monotonic() - self._began, done, self._n - n_completed - share_running)
