"""Runs the rows: folds of many runs side by side over the workers, each resumed where it was left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import Console

from experiments.replication.display import RunDisplay
from experiments.replication.records import RowRecords
from experiments.replication.rows import Row
from fmnist_cv.analysis.results import write_results
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.cross_validation import fold_folders, fold_job
from fmnist_cv.engine.events import Event, Failed, Finished
from fmnist_cv.engine.fold import FoldJob
from fmnist_cv.engine.preparation import PreparedRun, prepare_run, run_or_resume
from fmnist_cv.engine.processes import warm_up
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.engine.workers import default_workers, run_jobs
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import find_devices


@dataclass(frozen=True)
class Task:
    """One run: a variant of a row, with one seed."""

    row: Row
    variant: str
    seed: int
    log_dir: Path
    workers: int

    @property
    def name(self) -> str:
        return f"{self.row.name} ({self.variant}), seed {self.seed}"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.experiment.log_dir / self.experiment.name / f"seed_{self.seed}")

    def prepare(self) -> PreparedRun:
        """Find the run or make it."""
        return prepare_run(self.experiment, **run_or_resume(self.experiment, self.run.name))

    @cached_property
    def experiment(self) -> Experiment:
        return self.row.experiment(self.variant, self.seed, self.log_dir, self.workers)


@dataclass
class OpenRun:
    """A run some of whose folds are still to finish.

    Attributes:
        task: what runs.
        prepared: its folder, splits and images.
        left: the folds still to finish.
    """

    task: Task
    prepared: PreparedRun
    left: set[FoldJob]


class RowsFailed(Exception):
    """Some runs did not finish.

    Attributes:
        failures: for each fold or run that failed, the reason and the traceback ("" where there is none to show).
    """

    def __init__(self, failures: dict[str, tuple[str, str]]) -> None:
        self.failures = failures
        super().__init__("; ".join(f"{name}: {reason}" for name, (reason, _) in failures.items()))


def run_rows(
    rows: Sequence[Row], seeds: int | None, workers: int | None, log_dir: Path, out: Path, console: Console
) -> None:
    """Run what is missing of the rows, and add each run to its row's JSON as soon as it is over.

    Args:
        rows: the rows.
        seeds: how many seeds of each variant, counted from 0; None for the rows' own numbers.
        workers: folds at a time; None for one per GPU or core.
        log_dir: where the runs go.
        out: the folder of the rows' JSON files.
        console: for the progress.

    Raises:
        RowsFailed: a fold did not finish, or a run cannot be made, e.g. since its config has changed after a seed was
            run; all others were run.
    """
    devices = find_devices("auto", "auto")
    workers = workers or default_workers(None, devices)
    tasks = [
        Task(row, variant, seed, log_dir, workers)
        for row in rows
        for variant in row.variants
        for seed in range(seeds or row.seeds_of(variant))
    ]
    if workers > 1:
        warm_up()
    records = {row.name: RowRecords(row, out) for row in rows}
    failures: dict[str, tuple[str, str]] = {}
    with RunDisplay({task.name: task.row.minutes for task in tasks}, console) as display:
        open_runs: dict[FoldJob, OpenRun] = {}  # by the folds still to finish

        def close(run: OpenRun) -> None:
            """All folds are there: write the run's results and its record."""
            prepared = run.prepared
            write_results(prepared.run, prepared.experiment, prepared.splits, prepared.train, prepared.test, console)
            records[run.task.row.name].add(run.task.variant, prepared)
            display.finish(run.task.name)

        def folds() -> Iterator[FoldJob]:
            for task in tasks:
                try:
                    if records[task.row.name].has(task.variant, task.experiment):
                        display.skip(task.name)
                        continue
                    prepared = task.prepare()
                except UserError as error:  # this run cannot be made; the others can
                    failures[task.name] = (str(error), "")
                    display.skip(task.name)
                    continue
                folders = fold_folders(prepared)
                jobs = [fold_job(prepared, i) for i, folder in enumerate(folders) if not folder.finished]
                jobs = [replace(job, name=f"{task.name}, {job.name}") for job in jobs]
                run = OpenRun(task, prepared, set(jobs))
                open_runs.update(dict.fromkeys(run.left, run))
                display.start(task.name, len(folders), len(jobs))
                if not jobs:
                    close(run)
                yield from jobs

        def handle(job: FoldJob, event: Event) -> None:
            run = open_runs[job]
            display.handle(run.task.name, job.name, event)
            if isinstance(event, Failed):
                failures[job.name] = (event.reason, event.traceback)
                del open_runs[job]
            elif isinstance(event, Finished):
                del open_runs[job]  # with its last fold go the run's images
                run.left.discard(job)
                if not run.left:
                    close(run)

        run_jobs(folds(), workers, devices, handle)
    if failures:
        raise RowsFailed(failures)
