"""Runs the rows: folds of many runs side by side over the workers, each resumed where it was left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from fmnist_cv.data import Images
from fmnist_cv.errors import UserError
from fmnist_cv.experiment import Experiment
from fmnist_cv.replication.display import RunDisplay
from fmnist_cv.replication.rows import Row
from fmnist_cv.runtime import find_devices
from fmnist_cv.validation.cross_validation import fold_folders, fold_job, refit_job
from fmnist_cv.validation.fold import FoldJob
from fmnist_cv.validation.preparation import PreparedRun, prepare
from fmnist_cv.validation.results import write_results
from fmnist_cv.validation.run_folder import RunFolder, replace_file, write_json
from fmnist_cv.validation.scoring import classification_report
from fmnist_cv.validation.workers import default_workers, run_jobs, warm_up

CURVE_POINTS = 100  # epochs kept of a longer history


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
        return RunFolder(self._experiment.log_dir / self._experiment.name / f"seed_{self.seed}")

    @property
    def record(self) -> Path:
        """What the tables need of the finished run."""
        return self.run.path / "record.json"

    def is_recorded(self) -> bool:
        """Whether the run is over.

        Raises:
            UserError: it is, but with other settings than the row has now.
        """
        if not self.record.is_file():
            return False
        if differences := self._experiment.differences(Experiment.from_yaml(self.run.config.read_text())):
            raise UserError(
                f"{self.name} was run with other settings: {'; '.join(differences[:5])}; remove {self.run.path} to run it anew"
            )
        return True

    def prepare(self) -> PreparedRun:
        """Find the run or make it."""
        exists = self.run.path.exists()
        name = self.run.name
        return prepare(self._experiment, None if exists else name, name if exists else None, None)

    @cached_property
    def _experiment(self) -> Experiment:
        return self.row.experiment(self.variant, self.seed, self.log_dir, self.workers)


@dataclass
class OpenRun:
    """A run some of whose jobs are still to finish.

    Attributes:
        task: what runs.
        prepared: its folder, splits and images.
        left: names of the jobs still to finish.
    """

    task: Task
    prepared: PreparedRun
    left: set[str] = field(default_factory=set)

    @property
    def images(self) -> tuple[Images, Images | None]:
        return self.prepared.train, self.prepared.test

    def open(self, jobs: list[FoldJob], open_runs: dict[str, OpenRun]) -> list[FoldJob]:
        """Note the jobs, named after the run, as still to finish."""
        named = [replace(job, name=f"{self.task.name}, {job.name}") for job in jobs]
        self.left = {job.name for job in named}
        open_runs.update(dict.fromkeys(self.left, self))
        return named


class RowsFailed(Exception):
    """Some runs did not finish.

    Attributes:
        failures: for each fold that failed, the reason and the traceback.
    """

    def __init__(self, failures: dict[str, tuple[str, str]]) -> None:
        self.failures = failures
        super().__init__("; ".join(f"{name}: {reason}" for name, (reason, _) in failures.items()))


def run_rows(
    rows: Sequence[Row], seeds: int | None, workers: int | None, log_dir: Path, out: Path, console: Console
) -> None:
    """Run what is missing of the rows, and write each row's JSON as soon as all its runs are there.

    Args:
        rows: the rows.
        seeds: how many seeds of each variant, counted from 0; None for each row's own number.
        workers: folds at a time; None for one per GPU or core.
        log_dir: where the runs go.
        out: the folder of the rows' JSON files.
        console: for the progress.

    Raises:
        UserError: a row cannot be run as it is, e.g. since its config has changed after a seed was run.
        RowsFailed: a fold did not finish.
    """
    devices = find_devices("auto", "auto")
    workers = workers or default_workers(10**6, devices)
    tasks = [
        Task(row, variant, seed, log_dir, workers)
        for row in rows
        for variant in row.variants
        for seed in range(seeds or row.seeds)
    ]
    if workers > 1:
        warm_up()
    failures: dict[str, tuple[str, str]] = {}
    with RunDisplay({task.name: task.row.minutes for task in tasks}, console) as display:
        open_runs: dict[str, OpenRun] = {}  # by the names of the jobs still to finish
        refits: list[OpenRun] = []

        def close(run: OpenRun) -> None:
            """All folds are there: write the run's results, and its row's if it was the last of them."""
            write_results(run.prepared.run, run.prepared.experiment, run.prepared.splits, *run.images)
            if run.task.row.refit and not run.prepared.run.refit.finished:
                refits.append(run)
                return
            write_record(run.task, run.prepared)
            display.finish(run.task.name)
            write_row(run.task.row, tasks, out)

        def folds() -> Iterator[FoldJob]:
            for task in tasks:
                if task.is_recorded():
                    display.skip(task.name)
                    write_row(task.row, tasks, out)
                    continue
                run = OpenRun(task, task.prepare())
                left = [i for i, folder in enumerate(fold_folders(run.prepared)) if not folder.finished]
                display.start(task.name, len(left))
                if not left:
                    close(run)
                yield from run.open([fold_job(run.prepared, i) for i in left], open_runs)

        def handle(name: str, event: dict[str, Any]) -> None:
            run = open_runs[name]
            display.handle(run.task.name, name.rsplit(", ", 1)[1], event)
            if event["event"] == "failed":
                failures[name] = (event["reason"], event["traceback"])
            elif event["event"] == "finished":
                run.left.discard(name)
                if not run.left:
                    close(run)

        run_jobs(folds(), workers, devices, handle)
        last = [job for run in refits for job in run.open([refit_job(run.prepared)], open_runs)]
        run_jobs(last, workers, devices, handle)
    if failures:
        raise RowsFailed(failures)


# -- records ------------------------------------------------------------------------------------------------


def write_record(task: Task, prepared: PreparedRun) -> None:
    """Beside the run's results, what the tables need of it: small enough to be committed."""
    results = json.loads(prepared.run.results.read_text())
    epoch, test = task.row.epoch, prepared.test
    folds = []
    for folder in fold_folders(prepared):
        metrics = folder.read_metrics()
        if test is None:
            raise UserError(f"{task.name}: its data have no test images to be compared on")
        probabilities = torch.from_numpy(folder.read_probabilities()[f"{epoch}_test"])
        history = metrics["history"]
        step = max(1, len(history) // CURVE_POINTS)
        kept = history[step - 1 :: step]
        folds.append(
            {
                "name": folder.name,
                "seed": metrics["seed"],
                "n_train": metrics["n_train"],
                "n_validation": metrics["n_validation"],
                "epochs": metrics["epochs"],
                "best_epoch": metrics["best_epoch"] + 1,
                "train_accuracy": history[metrics["best_epoch"] if epoch == "best" else -1].get("train/accuracy"),
                "last": metrics["last"],
                "best": metrics["best"],
                "test_report": classification_report(probabilities, test.labels.cpu(), test.class_names),
                "curves": {
                    "epoch": list(range(step, len(history) + 1, step)),
                    **{key: [round(e[key], 5) for e in kept] for key in kept[0] if key != "lr"},
                },
            }
        )
    model = prepared.experiment.build(seed=0).model
    record = {
        "seed": task.seed,
        "settings": yaml.safe_load(prepared.experiment.to_yaml()),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": results["data"],
        "environment": results["environment"],
        "times": results["times"],
        "folds": folds,
        "headline": results["headline"],
        "ensemble": results["ensemble"],
        "best_fold": results["best_fold"],
        "refit": results["refit"],
    }
    record["settings"].pop("log_dir")
    write_json(task.record, record)


def write_row(row: Row, tasks: Sequence[Task], out: Path) -> None:
    """Write the row's JSON, once all its runs have their records."""
    tasks = [task for task in tasks if task.row is row]
    if not all(task.record.is_file() for task in tasks):
        return
    variants: dict[str, dict[str, Any]] = {}
    for task in tasks:
        record = json.loads(task.record.read_text())
        settings = record.pop("settings")  # the same for all seeds, but for the seed
        described = {"overrides": row.variants[task.variant], "settings": settings, "runs": []}
        variants.setdefault(task.variant, described)["runs"].append(record)
    content = {"row": row.name, "epoch": row.epoch, "overrides": row.overrides, "variants": variants}
    text = re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), json.dumps(content, indent=1))
    path = out / row.table / f"{row.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: file.write(text.encode() + b"\n"))
