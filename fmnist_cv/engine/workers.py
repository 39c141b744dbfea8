"""Folds side by side, a fresh process each, as many at a time as devices or cores allow; one worker needs none."""

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

from fmnist_cv.engine.fold import FoldJob, run_fold
from fmnist_cv.engine.processes import start_process
from fmnist_cv.engine.run_folder import FoldFolder, is_locked
from fmnist_cv.runtime import Devices, cpu_cores
from fmnist_cv.utils.streams import lasting_output

LOOK_AGAIN_SECONDS = 0.5  # whether another command still works on a fold

Handle = Callable[[str, dict[str, Any]], None]  # (fold's name, event)


def default_workers(n_folds: int | None, devices: Devices) -> int:
    """Folds side by side where nothing is said: one per GPU, or one per core, but no more than there are folds.

    Folds with a thread each train more images per second than one fold on all cores.
    """
    places = cpu_cores() if devices.accelerator == "cpu" else len(devices.indices)
    return places if n_folds is None else min(n_folds, places)


def run_jobs(
    jobs: Iterable[FoldJob], workers: int | None, devices: Devices, handle: Handle, *, wait_for_others: bool = True
) -> None:
    """Run folds, several at a time, each in a process of its own; one that dies fails its fold alone.

    With one worker the folds run in this process, one after another, and end with it. A fold on which another command
    works is waited for when all others are done; if that command ends without finishing it, it is run here.

    Args:
        jobs: folds to run, each asked for when a worker is free; their `device` is set here.
        workers: most folds at a time. None takes one per device or core, and lets the folds left over at the end run
            beside the last of these: 3 folds on 2 cores are over in the time of 1.5, not of 2.
        devices: where they run.
        handle: called in this process with each fold's name and events; the last of a fold is "finished" or "failed".
            "elsewhere" means that another command works on it.
        wait_for_others: false fails a fold on which another command works.
    """
    known: dict[str, FoldJob] = {}  # not yet over
    elsewhere: list[FoldJob] = []

    def remembered(some: Iterable[FoldJob]) -> Iterator[FoldJob]:
        for job in some:
            known[job.name] = job
            yield job

    def handle_or_wait(name: str, event: dict[str, Any]) -> None:
        if event["event"] in ("finished", "failed"):
            job = known.pop(name)
            if event.get("locked") and wait_for_others:
                elsewhere.append(job)
                event = {"event": "elsewhere"}
        handle(name, event)

    _run_each(remembered(jobs), workers, devices, handle_or_wait)
    while elsewhere:
        free = [job for job in elsewhere if not is_locked(FoldFolder(job.folder).lock)]
        elsewhere[:] = [job for job in elsewhere if job not in free]
        if free:  # those that are finished by now only say so
            _run_each(remembered(free), workers, devices, handle_or_wait)
        else:
            time.sleep(LOOK_AGAIN_SECONDS)


def _run_each(jobs: Iterable[FoldJob], workers: int | None, devices: Devices, handle: Handle) -> None:
    if workers is None:
        jobs = list(jobs)
        at_once, unfinished = default_workers(len(jobs), devices), len(jobs)
    else:
        at_once, unfinished = workers, None
    if at_once == 1:
        for job in jobs:
            run_fold(job, partial(handle, job.name))
        return
    waiting = iter(jobs)
    with WorkerPool(devices) as pool:
        while True:
            left_over = unfinished is not None and unfinished < 2 * at_once
            while pool.n_running < (2 * at_once - 1 if left_over else at_once):
                if (upcoming := next(waiting, None)) is None:
                    break
                pool.start(upcoming)
            if not pool.n_running:
                break
            for name, event in pool.wait():
                handle(name, event)
                if event["event"] in ("finished", "failed"):
                    unfinished = None if unfinished is None else unfinished - 1


class WorkerPool:
    """Folds in processes of their own, spread evenly over the devices; leaving its `with` block kills what still runs.

    Args:
        devices: where the folds run.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._running: dict[Any, _Child] = {}  # by the pipe on which each tells of itself

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
        return len(self._running)

    def start(self, job: FoldJob) -> None:
        """Start a fold on the device that has the fewest."""
        used = [child.job.device for child in self._running.values()]
        child = _Child(job, min(self._devices.indices, key=used.count))
        self._running[child.events] = child

    def wait(self, timeout: float | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """The folds' next events, by the folds' names, as soon as there is one; nothing after `timeout` seconds."""
        for connection in wait(list(self._running), timeout):
            if (child := self._running.get(connection)) is None:  # stopped by who took an event before
                continue
            event = child.receive()
            if event["event"] in ("finished", "failed"):
                child.close()
                del self._running[connection]
            yield child.job.name, event

    def stop(self, name: str) -> None:
        """Kill a fold; it tells no more."""
        for connection, child in list(self._running.items()):
            if child.job.name == name:
                child.process.kill()
                child.close()
                del self._running[connection]


class _Child:
    """A process that runs one fold, and the pipe on which it tells of it."""

    def __init__(self, job: FoldJob, device: int) -> None:
        self.job = replace(job, device=device)
        self.events, sender = multiprocessing.Pipe(duplex=False)
        self.process = start_process(_work, (self.job, sender), job.name)
        sender.close()

    def receive(self) -> dict[str, Any]:
        """The next event; a pipe that closed without a last one means that the process died."""
        try:
            return self.events.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            hint = " (out of memory?)" if how.endswith(" SIGKILL") else ""  # a signal that Windows lacks
            return {"event": "failed", "reason": f"its process {how}{hint}", "traceback": "", "died": True}

    def close(self) -> None:
        self.process.join()
        self.events.close()


def _work(job: FoldJob, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def notify(event: dict[str, Any]) -> None:
        try:
            sender.send(event)
        except BrokenPipeError:  # stopped, while a kill could not reach it: its server was killed before
            os._exit(1)

    with lasting_output():
        run_fold(job, notify)
    sender.close()


def _end_with_parent() -> None:
    """A fold must not outlive a killed command: it would go on writing into the run that is being resumed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
