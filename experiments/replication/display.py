"""Progress of many runs: how many are done, what trains just now, and the time left."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import TaskID

from fmnist_cv.engine.events import EpochEnded, Event, Failed, Finished, Started, StepEnded, WarningIssued
from fmnist_cv.engine.progress import LiveDisplay, time_left


class RunDisplay(LiveDisplay):
    """A bar for everything and a line for each fold that trains; plain lines where the output is not a terminal.

    Args:
        minutes: the runs, with about how long each takes.
        console: where to print.
    """

    def __init__(self, minutes: dict[str, float], console: Console) -> None:
        super().__init__(console)
        self._minutes = minutes
        self._began: float | None = None  # when the first fold started to train
        self._skipped = 0.0  # minutes of what was there before
        self._share_at_start: dict[str, float] = {}  # of each fold's epochs
        self._done: set[str] = set()
        self._shares: dict[str, float] = {}  # of the minutes of its run, by fold
        self._parts: dict[str, int] = {}  # folds of each run
        self._sizes: dict[str, tuple[int, int]] = {}  # (epochs, steps per epoch) of each fold
        self._lines: dict[str, TaskID] = {}

    def _begin(self) -> None:
        if self._live:
            self._lines[""] = self._progress.add_task("all runs", total=sum(self._minutes.values()), note="")

    def skip(self, run: str) -> None:
        """The run was there before."""
        self._skipped += self._minutes[run]
        self._done.add(run)
        self._update()

    def start(self, run: str, n_folds: int, n_left: int) -> None:
        """The run has so many folds, of which so many are still to train."""
        self._parts[run] = n_folds
        self._skipped += self._minutes[run] * (1 - n_left / n_folds)

    def finish(self, run: str) -> None:
        """The run has its results."""
        self._done.add(run)
        self._update()
        self._print(f"{run}: done, {len(self._done)} of {len(self._minutes)} runs{self._time_left()}")

    def handle(self, run: str, name: str, event: Event) -> None:
        """Take one event of one fold, named after its run."""
        match event:
            case Started():
                self._sizes[name] = max(1, event.max_epochs), max(1, event.steps)
                self._began = self._began or time.monotonic()
                self._share_at_start[name] = event.epoch / self._sizes[name][0]
                self._skipped += self._share_at_start[name] * self._minutes[run] / self._parts[run]
                if self._live:
                    self._lines[name] = self._progress.add_task(name, total=1.0, note="")
            case StepEnded(epoch, step):
                epochs, steps = self._sizes[name]
                self._advance(run, name, (epoch + min(1.0, step / steps)) / epochs)
            case EpochEnded(epoch, metrics):
                self._advance(run, name, (epoch + 1) / self._sizes[name][0])
                if self._live:
                    accuracy = metrics.get("val/accuracy", metrics.get("train/accuracy"))
                    note = f"epoch {epoch + 1}/{self._sizes[name][0]}, accuracy {accuracy or 0:.4f}"
                    self._progress.update(self._lines[name], note=note)
            case WarningIssued(text):
                self._print(f"{name}: {text}")
            case Finished() | Failed():
                self._advance(run, name, 1.0)
                if line := self._lines.pop(name, None):
                    self._progress.remove_task(line)
                if isinstance(event, Failed):
                    self._print(f"{name} FAILED: {event.reason}")

    def _advance(self, run: str, name: str, share: float) -> None:
        done = max(0.0, share - self._share_at_start.get(name, 0.0))
        self._shares[name] = done * self._minutes[run] / self._parts[run]
        if self._live:
            if name in self._lines:
                self._progress.update(self._lines[name], completed=share)
            self._update()

    def _update(self) -> None:
        if self._live:
            note = f"{len(self._done)} of {len(self._minutes)} runs{self._time_left()}"
            self._progress.update(self._lines[""], completed=self._skipped + sum(self._shares.values()), note=note)

    def _time_left(self) -> str:
        done, total = sum(self._shares.values()), sum(self._minutes.values()) - self._skipped
        return "" if self._began is None else time_left(time.monotonic() - self._began, done, total - done)
