"""Runs folds in parallel, each in a fresh process, as many at a time as devices or cores allow."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from fmnist_cv.engine.events import Event, Failed, FailureKind, Finished, RunningElsewhere
from fmnist_cv.engine.fold import FoldJob, run_fold
from fmnist_cv.engine.locks import is_locked
from fmnist_cv.engine.processes import start_process
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.runtime import Devices, cpu_cores
from fmnist_cv.utils.streams import lasting_output

LOCK_POLL_SECONDS = 0.5

Handler = Callable[[FoldJob, Event], None]


def default_workers(n_folds: int | None, devices: Devices) -> int:
    """The default number of folds at a time: one per GPU, or one per core, but no more than there are folds.

    Folds with a thread each train more images per second than one fold on all cores.
    """
    places = cpu_cores() if devices.accelerator == "cpu" else len(devices.indices)
    return places if n_folds is None else min(n_folds, places)


def run_jobs(
    jobs: Iterable[FoldJob], workers: int | None, devices: Devices, handle: Handler, *, wait_for_others: bool = True
) -> None:
    """Run folds, several at a time, each in a process of its own; a process that dies fails its own fold only.

    With one worker the folds run one after another in this process, and end with it. A fold that another command is
    working on is checked again when all others are done, and run here if that command ends without finishing it.

    Args:
        jobs: folds to run; the next one is taken when a worker is free.
        workers: maximum number of folds at a time. None means one per device or core; the last folds then all run at
            once, so that 3 folds on 2 cores take the time of 1.5 folds, not of 2.
        devices: where the folds run.
        handle: called in this process with each job and its events; a job's last event is Finished or Failed.
        wait_for_others: if false, a fold that another command is working on fails.
    """
    elsewhere: list[FoldJob] = []

    def handle_or_wait(job: FoldJob, event: Event) -> None:
        if wait_for_others and isinstance(event, Failed) and event.kind == FailureKind.LOCKED:
            elsewhere.append(job)
            event = RunningElsewhere()
        handle(job, event)

    _run_each(jobs, workers, devices, handle_or_wait)
    while elsewhere:
        free = [job for job in elsewhere if not is_locked(FoldFolder(job.folder).lock)]
        elsewhere[:] = [job for job in elsewhere if job not in free]
        if free:  # a fold that is finished by now only emits Finished
            _run_each(free, workers, devices, handle_or_wait)
        else:
            time.sleep(LOCK_POLL_SECONDS)


def _run_each(jobs: Iterable[FoldJob], workers: int | None, devices: Devices, handle: Handler) -> None:
    if workers is None:
        jobs = list(jobs)
        at_once, unfinished = default_workers(len(jobs), devices), len(jobs)
    else:
        at_once, unfinished = workers, None
    if at_once == 1:
        for job in jobs:
            run_fold(job, partial(handle, job))
        return
    waiting = iter(jobs)
    with WorkerPool(devices) as pool:
        while True:
            few_left = unfinished is not None and unfinished < 2 * at_once
            while pool.n_running < (2 * at_once - 1 if few_left else at_once):
                if (upcoming := next(waiting, None)) is None:
                    break
                pool.start(upcoming)
            if not pool.n_running:
                break
            for job, event in pool.wait():
                handle(job, event)
                if unfinished is not None and isinstance(event, Finished | Failed):
                    unfinished -= 1


class WorkerPool:
    """An executor: runs each fold in a process of its own, spread evenly over the devices.

    Leaving its `with` block kills the folds that still run.

    Args:
        devices: where the folds run.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._running: dict[Any, _Child] = {}  # by the connection that delivers the child's events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for child in self._running.values():
            child.process.kill()
            child.close()
        self._running.clear()

    @property
    def n_running(self) -> int:
        """Folds that run now."""
        return len(self._running)

    def start(self, job: FoldJob) -> None:
        """Start a fold on the device that has the fewest."""
        used = [child.device for child in self._running.values()]
        child = _Child(job, min(self._devices.indices, key=used.count))
        self._running[child.events] = child

    def wait(self, timeout: float | None = None) -> Iterator[tuple[FoldJob, Event]]:
        """Yield events with the jobs they belong to, as soon as there are any; nothing after `timeout` seconds."""
        for connection in wait(list(self._running), timeout):
            if (child := self._running.get(connection)) is None:  # stopped by the receiver of an earlier event
                continue
            event = child.receive()
            if isinstance(event, Finished | Failed):
                child.close()
                del self._running[connection]
            yield child.job, event

    def stop(self, job: FoldJob) -> None:
        """Kill a fold; no further events follow."""
        for connection, child in list(self._running.items()):
            if child.job is job:
                child.process.kill()
                child.close()
                del self._running[connection]


class _Child:
    """A process that runs one fold, and the connection that delivers its events."""

    def __init__(self, job: FoldJob, device: int) -> None:
        self.job, self.device = job, device
        self.events, sender = multiprocessing.Pipe(duplex=False)
        self.process = start_process(_work, (replace(job, device=device, loaded=None), sender), job.name)
        sender.close()

    def receive(self) -> Event:
        """The next event; a connection that closed before Finished or Failed means that the process died."""
        try:
            event: Event = self.events.recv()
            return event
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            hint = " (out of memory?)" if how.endswith(" SIGKILL") else ""  # a signal that Windows lacks
            return Failed(f"its process {how}{hint}", FailureKind.DIED)

    def close(self) -> None:
        self.process.join()
        self.events.close()


def _work(job: FoldJob, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def notify(event: Event) -> None:
        try:
            sender.send(event)
        except BrokenPipeError:  # stopped, but the kill did not reach this process: its server was killed before
            os._exit(1)

    with lasting_output():
        run_fold(job, notify)
    sender.close()


def _end_with_parent() -> None:
    """A fold must not outlive a killed command: it would continue to write into a run that is being resumed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
