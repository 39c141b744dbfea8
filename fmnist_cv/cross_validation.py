"""All folds of an experiment: create or find the run, train the missing folds, and gather the results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.results import write_results
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.objects import is_plain, take_objects
from fmnist_cv.config.options import as_arguments
from fmnist_cv.config.short import write_out_config
from fmnist_cv.data import KFoldDataModule, Split
from fmnist_cv.data.given import GivenData
from fmnist_cv.engine.events import Event, Failed
from fmnist_cv.engine.fold import FoldJob, Loaded
from fmnist_cv.engine.locks import locked
from fmnist_cv.engine.preparation import PreparedRun, prepare_run
from fmnist_cv.engine.processes import reason_against_processes, warm_up
from fmnist_cv.engine.progress import FoldDisplay
from fmnist_cv.engine.run_folder import FoldFolder, replace_file
from fmnist_cv.engine.workers import default_workers, run_jobs
from fmnist_cv.engine.writable import explain_disk_errors, is_writable
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import derive_seed
from fmnist_cv.utils.plain_values import plain
from fmnist_cv.utils.user_text import print_line


class FoldsFailed(Exception):
    """Some folds failed; the others are finished, and resuming the run retries those that failed.

    Attributes:
        run: the run's folder.
        failures: the reason and the traceback ("" if there is none to show) of each fold that failed.
    """

    def __init__(self, run: Path, failures: dict[str, tuple[str, str]]) -> None:
        self.run, self.failures = run, failures
        super().__init__("; ".join(f"{name}: {reason}" for name, (reason, _) in failures.items()))


class FoldsMissing(Exception):
    """The requested fold is finished, but others of the run are not, so there is no summary yet."""

    def __init__(self, run: Path, missing: list[str]) -> None:
        self.run, self.missing = run, missing
        super().__init__(f"{run} still lacks {', '.join(missing)}")


def cross_validate(
    config: str | Path | Mapping[str, Any] | Experiment | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    run: str | None = None,
    resume: str | None = None,
    refit: bool = False,
    console: Console | None = None,
    **sections: Any,
) -> CrossValidationResult:
    """Cross-validate one experiment, as `python -m fmnist_cv.fit` does.

    Parallel folds run in processes of their own, which import the calling script: guard its top level with
    `if __name__ == "__main__":`. Where that is impossible (a class defined in a notebook, a script from standard input, a
    daemonic process), folds run one after another in this process, and cv.workers above 1 is refused.

    Args:
        config: a YAML file or the name of one in configs/, its content as a mapping, or an Experiment; optional if
            `sections` are complete.
        overrides: values of dotted keys, e.g. {"cv.n_splits": 10, "trainer.max_epochs": 3}.
        run: name of the run; by default the time.
        resume: the run to resume: its name, its path, or "last".
        refit: finally train a model on all training images, for the median of the folds' best epochs.
        console: where to show progress; None shows nothing.
        sections: whole sections that replace the config's, e.g. data={"class_path": "my.Data", "init_args": {...}}, as plain
            values. `model` may also be a class or a function that makes a network, and `data` a class, a function that makes a data
            set with and without augmentation (see `DatasetViewsDataModule`), or objects, see
            `fmnist_cv.data.given.take_data`: an ArrayDataModule, (images, labels), a list of (image, label), or a data set of
            torchvision, Hugging Face or another without transforms. Objects are written into the folder of the
            experiment's runs, where folds and later commands read them; the same call resumes a run on them.

    Returns:
        Per-fold scores, out-of-fold probabilities, and a pandas table.

    Raises:
        UserError: the experiment, the data or the run cannot be used.
        FoldsFailed: a fold failed.
        FoldsMissing: with cv.fold, if other folds are not finished.
    """
    experiment, given = _as_experiment_on_objects({} if config is None else config, {**sections, **(overrides or {})})
    if console is not None and experiment.defaults:
        print_line(console, f"not given, so: {', '.join(experiment.defaults)}")
    experiment = _one_worker_where_needed(experiment, console)
    if experiment.cv.workers != 1:
        warm_up()
    prepared = prepare_run(experiment, run, resume, console, _same_data(experiment, given), refit)
    if given is not None:
        _store(given, experiment)
    experiment, folder = prepared.experiment, prepared.run
    all_folds = fold_folders(prepared)
    chosen = range(len(all_folds)) if experiment.cv.fold is None else [experiment.cv.fold]
    unfinished = [i for i in chosen if not all_folds[i].finished]
    if not is_writable(folder.path):
        if unfinished or (refit and not folder.refit.finished):
            raise UserError(
                f"run {folder.path} is unfinished, and its folder cannot be written; copy it to a writable place, "
                "and resume there"
            )
        return CrossValidationResult.load(folder.path)
    for kept in [*all_folds, folder.refit]:
        if kept.finished:
            kept.check_checkpoints()
    _run([fold_job(prepared, i) for i in unfinished], prepared, console)
    then = f", and continue with --resume {folder.path.name}: all folds are kept"
    with explain_disk_errors(folder.path, then), locked(folder.path / ".summary.lock", wait=True, what="the summary"):
        if missing := [f.name for f in all_folds if not f.finished]:
            raise FoldsMissing(folder.path, missing)
        write_results(folder, experiment, prepared.splits, prepared.train, prepared.test, console)
        if refit and not folder.refit.finished:
            _run([refit_job(prepared)], prepared, console)
            write_results(folder, experiment, prepared.splits, prepared.train, prepared.test, console)
    return CrossValidationResult.load(folder.path)


def as_experiment(
    config: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any] | None = None
) -> Experiment:
    """The Experiment of a file name, a mapping or an Experiment, with values of dotted keys replaced."""
    options = as_arguments(overrides or {})
    if isinstance(config, str | Path):
        return Experiment.parse([f"--config={config}", *options])
    if isinstance(config, Experiment):
        return Experiment.parse([f"--config={config.to_yaml()}", *options]) if options else config
    content = plain(config)
    text = yaml.safe_dump(content)
    if options or write_out_config(content)[1]:
        return Experiment.parse([f"--config={text}", *options])
    return Experiment.from_yaml(text)


def _as_experiment_on_objects(
    config: str | Path | Mapping[str, Any] | Experiment, settings: Mapping[str, Any]
) -> tuple[Experiment, GivenData | None]:
    """As `as_experiment`, of settings that may hold objects; the data where these are objects."""
    if isinstance(config, Mapping):
        objects = {key: config[key] for key in ("model", "data") if key in config and not is_plain(config[key])}
        config, settings = {key: config[key] for key in config if key not in objects}, {**objects, **settings}
    settings, given = take_objects(settings)
    experiment = as_experiment(config, settings)
    if given is not None and given.train is not None:
        path = (experiment.log_dir / experiment.name / given.file_name).absolute()  # for commands run elsewhere
        experiment = experiment.replaced(data__init_args__path=str(path))
    return experiment, given


def _same_data(experiment: Experiment, given: GivenData | None) -> KFoldDataModule | None:
    """The experiment's data module with the images that were given; None where it reads them."""
    if given is None or given.train is None:
        return None
    data = experiment.build_data()
    given.put_into(data)
    return data


def _store(given: GivenData, experiment: Experiment) -> None:
    """Write data given as objects where the experiment reads them, unless they are there."""
    path = Path(experiment.config.data.init_args.path)
    if path.exists():
        return
    with explain_disk_errors(path.parent), locked(path.with_name(f".{path.name}.lock"), wait=True, what="the data"):
        replace_file(path, given.write)


def _one_worker_where_needed(experiment: Experiment, console: Console | None) -> Experiment:
    """The experiment, with one worker if no other process can run its folds.

    Raises:
        UserError: no other process can, but several workers are requested.
    """
    n_folds = experiment.plan.n_folds if experiment.cv.fold is None else 1
    requested = experiment.cv.workers
    if (requested or default_workers(n_folds, experiment.devices())) == 1 or not (
        why := reason_against_processes(experiment)
    ):
        return experiment
    if requested is not None:
        raise UserError(f"cv.workers is {requested}, but {why}; use --cv.workers 1")
    if console is not None:
        print_line(console, f"one fold after another (cv.workers 1): {why}", style="yellow")
    return experiment.replaced(cv__workers=1)


# -- running ------------------------------------------------------------------------------------------------


def fold_folders(prepared: PreparedRun) -> list[FoldFolder]:
    """The folder of each of the run's folds."""
    n_repeats = prepared.experiment.plan.n_repeats
    return [prepared.run.fold(split.repeat, split.fold, n_repeats) for split in prepared.splits]


def fold_job(prepared: PreparedRun, index: int) -> FoldJob:
    """The job of one of the run's folds."""
    split, experiment = prepared.splits[index], prepared.experiment
    seed = derive_seed(experiment.seed, split.repeat, split.fold)
    return _job(prepared, fold_folders(prepared)[index], split, experiment, seed)


def refit_job(prepared: PreparedRun) -> FoldJob:
    """The job of a model on all training images, trained for the median of the folds' best numbers of epochs."""
    experiment = prepared.experiment
    epochs = round(float(np.median([fold.read_metrics()["best_epoch"] + 1 for fold in fold_folders(prepared)])))
    experiment = experiment.replaced(
        trainer__max_epochs=epochs,
        trainer__max_steps=-1,
        trainer__max_time=None,
        trainer__min_epochs=None,
        trainer__min_steps=None,
        selection__patience=None,
    )
    seed = derive_seed(experiment.seed, experiment.plan.n_repeats, 0)  # the last repeat is n_repeats - 1
    return _job(prepared, prepared.run.refit, Split.refit(len(prepared.train)), experiment, seed)


def _job(prepared: PreparedRun, folder: FoldFolder, split: Split, experiment: Experiment, seed: int) -> FoldJob:
    environment, devices = prepared.run.read_run_info()["environment"], experiment.devices()
    return FoldJob(
        name=folder.name,
        experiment=experiment,
        folder=folder.path,
        split=split,
        seed=seed,
        threads=environment["threads_per_fold"],
        precision=environment["precision"],
        accelerator=devices.accelerator,
        device=devices.indices[0],
        loaded=Loaded(prepared.train, prepared.test),
    )


def _run(jobs: list[FoldJob], prepared: PreparedRun, console: Console | None) -> None:
    if not jobs:
        return
    failures: dict[str, tuple[str, str]] = {}
    devices = prepared.experiment.devices()
    display = nullcontext() if console is None else FoldDisplay([job.name for job in jobs], console)
    with display as shown:

        def handle(job: FoldJob, event: Event) -> None:
            if isinstance(event, Failed):
                failures[job.name] = (event.reason, event.traceback)
            if shown is not None:
                shown.handle(job.name, event)

        alone = prepared.experiment.cv.fold is not None  # other commands run the other folds
        run_jobs(jobs, prepared.experiment.cv.workers, devices, handle, wait_for_others=not alone)
    if failures:
        raise FoldsFailed(prepared.run.path, failures)
