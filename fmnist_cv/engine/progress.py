"""Progress of all folds: live bars on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn as TimeLeftColumn,
)

from fmnist_cv.engine.events import (
    EpochEnded,
    Event,
    Failed,
    Finished,
    RunningElsewhere,
    ScoringStarted,
    Started,
    StepEnded,
    WarningIssued,
)
from fmnist_cv.utils.user_text import print_line


class LiveDisplay:
    """Progress bars on a terminal, and plain lines elsewhere.

    Args:
        console: where to print; None prints nothing.
        columns: the columns of each bar; by default description, bar, note and elapsed time.
    """

    def __init__(self, console: Console | None, *columns: ProgressColumn) -> None:
        self._console, self._live = console, console is not None and console.is_terminal
        usual = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*(columns or usual), console=console)

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def _begin(self) -> None:
        """Show the initial state."""

    def _print(self, text: str) -> None:
        if self._console is not None:
            print_line(self._console, text)


class FoldDisplay(LiveDisplay):
    """Shows the progress of each fold, its latest scores, and the remaining time.

    Args:
        names: the folds, in order.
        console: where to print.
    """

    def __init__(self, names: list[str], console: Console) -> None:
        super().__init__(
            console,
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
        )
        self._names = names
        self._began = time.monotonic()
        self._share_done = dict.fromkeys(names, 0.0)  # of each fold's epochs
        self._share_at_start = dict.fromkeys(names, 0.0)
        self._size: dict[str, tuple[int, int]] = {}  # (max_epochs, steps per epoch)
        self._tasks: dict[str, TaskID] = {}

    def _begin(self) -> None:
        if self._live:
            for name in self._names:
                self._tasks[name] = self._progress.add_task(name, total=None, start=False, scores="waiting")

    def handle(self, name: str, event: Event) -> None:
        """Show one event of the fold with this name."""
        match event:
            case Started():
                self._start(name, event)
            case StepEnded(epoch, step):
                _, steps = self._size[name]
                self._advance(name, epoch + min(1.0, step / max(1, steps)))
            case EpochEnded():
                self._epoch(name, event)
            case ScoringStarted():
                self._note(name, "scoring held-out and test images")
            case Finished(accuracy):
                self._advance(name, self._size.get(name, (1, 1))[0])
                self._note(name, "finished" if accuracy is None else f"finished, val accuracy {accuracy:.4f}", True)
            case WarningIssued(text):
                self._print(f"{name}: {text}")
            case RunningElsewhere():
                self._note(name, "another process works on it; waiting for it at the end", True)
            case Failed(reason):
                self._note(name, f"FAILED: {reason}", True)

    def _start(self, name: str, event: Started) -> None:
        self._size[name] = (max(event.max_epochs, 1), event.steps)
        self._share_at_start[name] = event.epoch / self._size[name][0]
        if self._live:
            self._progress.update(self._tasks[name], total=self._size[name][0], completed=event.epoch, scores="")
            self._progress.start_task(self._tasks[name])
        elif event.epoch:
            self._print(f"{name}: resumes after epoch {event.epoch}")

    def _epoch(self, name: str, event: EpochEnded) -> None:
        self._advance(name, event.epoch + 1)
        scores = ", ".join(
            f"{label} {event.metrics[key]:.4f}"
            for key, label in (
                ("train/loss", "train loss"),
                ("train/accuracy", "accuracy"),
                ("val/loss", "val loss"),
                ("val/accuracy", "accuracy"),
            )
            if key in event.metrics
        )
        if self._live:
            self._progress.update(self._tasks[name], scores=scores)
        else:
            of = f"/{self._size[name][0]}" if self._size[name][0] > 1 or not event.epoch else ""
            self._print(f"{name}: epoch {event.epoch + 1}{of}, {scores}{self._time_left()}")

    def _advance(self, name: str, epochs: float) -> None:
        self._share_done[name] = epochs / self._size.get(name, (1, 1))[0]
        if self._live:
            self._progress.update(self._tasks[name], completed=int(epochs))

    def _note(self, name: str, text: str, last: bool = False) -> None:
        if self._live:
            self._progress.update(self._tasks[name], scores=text)
            if last:
                self._progress.stop_task(self._tasks[name])
        elif last:
            self._print(f"{name}: {text}")

    def _time_left(self) -> str:
        done = sum(self._share_done.values()) - sum(self._share_at_start.values())
        left = len(self._names) - sum(self._share_done.values())
        return time_left(time.monotonic() - self._began, done, left)


def time_left(seconds: float, done: float, left: float) -> str:
    """The remaining time in words, if `done` of the work took so many seconds and `left` of it remains."""
    if done <= 0 or left <= 0:
        return ""
    seconds *= left / done
    return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"
