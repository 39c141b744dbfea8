"""Before any training: check what can be checked, and find the run or make it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.identity import identity
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import Images, KFoldDataModule, Split, make_splits
from fmnist_cv.data.splits import load_splits, save_splits
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.engine.run_folder import RunFolder, write_json
from fmnist_cv.engine.run_names import create_run, default_run_names, find_run
from fmnist_cv.engine.sanity_check import run_sanity_check
from fmnist_cv.engine.workers import default_workers
from fmnist_cv.engine.writable import check_writable
from fmnist_cv.errors import DataNotFound, UserError
from fmnist_cv.runtime import cpu_cores
from fmnist_cv.utils.paths import check_name
from fmnist_cv.utils.user_text import print_line


@dataclass
class PreparedRun:
    """A run whose folder, splits and data are there and fit each other.

    Attributes:
        experiment: what runs; on drawn garments where it fell back to them.
        run: the run's folder.
        splits: one per fold.
        train, test: the images.
    """

    experiment: Experiment
    run: RunFolder
    splits: list[Split]
    train: Images
    test: Images | None


class RunOrResume(TypedDict, total=False):
    """One of two arguments."""

    run: str
    resume: str


def run_or_resume(experiment: Experiment, name: str) -> RunOrResume:
    """The argument with which `prepare_run` and `cross_validate` make a run of this name, or go on with it."""
    exists = (experiment.log_dir / experiment.name / name).exists()
    return {"resume": name} if exists else {"run": name}


def prepare_run(
    experiment: Experiment,
    run: str | None = None,
    resume: str | None = None,
    console: Console | None = None,
    same_data: KFoldDataModule | None = None,
    refit: bool = False,
) -> PreparedRun:
    """Check the experiment, its data and its run; make the run's folder only when all is well.

    Args:
        experiment: what is to run.
        run: name for a new run, or None for the time. With cv.fold, an existing run of that name is joined.
        resume: name or path of a run to go on with, or "last".
        console: where to say what runs.
        same_data: a data module with the same images, which need not be read again.
        refit: a model on all training images is to follow.

    Raises:
        UserError: anything that would only fail later, with nothing left behind.
    """
    if run is not None and resume is not None:
        raise UserError("give either --run, which starts a run, or --resume, which goes on with one")
    if run is not None:
        check_name(run, "--run")
    if run is not None and (Path(run).name != run or run.startswith(".") or run == "last"):
        raise UserError(
            f"--run is '{run}'; a run's name is one folder's name, not a path, not 'last', without a dot first"
        )
    if experiment.cv.fold is not None and run is None and resume is None:
        raise UserError("--cv.fold runs one fold of a run that others share: name it with --run NAME")
    found = find_run(experiment.log_dir, experiment.name, resume) if resume is not None else None
    if found is None:
        check_writable(experiment.log_dir)
    experiment, data, is_fallback = _find_data(experiment, console, same_data)
    resumed = found is not None
    if found is None:

        def check(splits: list[Split]) -> None:
            _check_one_step(experiment, data, splits, refit, console)

        suffix = "_SYNTHETIC" if is_fallback else ""
        if run is None:
            found = _create(experiment, default_run_names(suffix), data, check)
        else:
            found = _create_or_join(experiment, run + suffix, data, check)
    _check_same(experiment, found, data.train_images)
    train = data.train_images
    groups = None if train.groups is None else train.groups.numpy()
    if resumed and refit and not found.refit.finished:
        run_sanity_check(experiment, data, [_everything(data)])
    splits = load_splits(found.splits, train.labels.numpy(), experiment.plan, train.fingerprint(), groups)
    if console is not None:
        print_line(console, _headline(experiment, found, data))
    return PreparedRun(experiment, found, splits, train, data.test_images)


def _find_data(
    experiment: Experiment, console: Console | None, same_data: KFoldDataModule | None
) -> tuple[Experiment, KFoldDataModule, bool]:
    """The experiment's data, or drawn garments where it allows them and its own are not to be had."""
    try:
        return experiment, experiment.check_parts(same_data).data, False
    except DataNotFound as error:
        if not experiment.synthetic_fallback:
            raise
        if console is not None:
            print_line(console, f"{error}.\n\nRunning on SYNTHETIC garments instead.\n", style="yellow")
        experiment = experiment.with_synthetic_data()
        return experiment, experiment.check_parts().data, True


def _check_one_step(
    experiment: Experiment, data: KFoldDataModule, splits: list[Split], refit: bool, console: Console | None
) -> None:
    """Refuse what would fail in training; of a refit that is not asked for yet, say so."""
    run_sanity_check(experiment, data, splits)
    if refit:
        run_sanity_check(experiment, data, [_everything(data)])
    elif console is not None and len(data.train_images) % data.batch_size == 1:
        try:
            run_sanity_check(experiment, data, [_everything(data)])
        except UserError as error:
            print_line(console, f"This run could have no --refit: {error}\n", style="yellow")


def _everything(data: KFoldDataModule) -> Split:
    """A refit's: all images to train on, and none held out."""
    return Split(np.arange(len(data.train_images)), np.arange(0))


def _create_or_join(
    experiment: Experiment, name: str, data: KFoldDataModule, check: Callable[[list[Split]], None]
) -> RunFolder:
    """A new run; or, for one fold alone, the run of that name that another fold may have made, even just now."""
    path = experiment.log_dir / experiment.name / name
    if experiment.cv.fold is None:
        return _create(experiment, [name], data, check)
    if not path.exists():
        try:
            return _create(experiment, [name], data, check)
        except UserError:
            if not path.exists():
                raise
    return find_run(experiment.log_dir, experiment.name, name)


def _create(
    experiment: Experiment, names: Iterable[str], data: KFoldDataModule, check: Callable[[list[Split]], None]
) -> RunFolder:
    train, test = data.train_images, data.test_images
    groups = None if train.groups is None else train.groups.numpy()
    splits = make_splits(train.labels.numpy(), experiment.plan, groups)
    check(splits)
    devices, precision = experiment.devices(), experiment.precision()
    workers = experiment.cv.workers or default_workers(len(splits), devices)
    threads = max(1, cpu_cores() // workers)
    fingerprint = train.fingerprint()

    def fill(path: Path) -> None:
        folder = RunFolder(path)
        config = experiment.replaced(cv__fold=None, cv__workers=None).to_yaml()
        folder.config.write_text(config, encoding="utf-8")
        save_splits(folder.splits, splits, experiment.plan, fingerprint)
        info = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(),
            "data": {
                "name": data.data_name,
                "fingerprint": fingerprint,
                "n_train": len(train),
                "n_test": 0 if test is None else len(test),
                "test_fingerprint": None if test is None else test.fingerprint(),
                "image_shape": list(train.shape),
                "class_names": list(train.class_names),
            },
            "environment": describe_environment(devices.description, threads, precision),
            "settings": identity(load_yaml(config)),  # again, since YAML has no digest and users may edit it
        }
        write_json(folder.run_info, info, with_digest=True)

    return create_run(experiment.log_dir, experiment.name, names, fill)


def _check_same(experiment: Experiment, run: RunFolder, train: Images) -> None:
    """Refuse a run that belongs to another config or to other data."""
    if differences := experiment.differences(run.read_experiment()):
        raise UserError(
            f"run {run.path} belongs to another config: {'; '.join(differences[:5])}; "
            "resume with the config it was started with, or start a new run"
        )
    fingerprint = run.read_run_info()["data"]["fingerprint"]
    if fingerprint != train.fingerprint():
        raise UserError(
            f"run {run.path} was made on other data (fingerprint {fingerprint}, here {train.fingerprint()}); "
            "resume with the data it was started on, or start a new run"
        )


def _headline(experiment: Experiment, run: RunFolder, data: KFoldDataModule) -> str:
    environment = run.read_run_info()["environment"]
    plan = experiment.plan
    how = f"hold-out {plan.holdout}" if plan.holdout is not None else f"{plan.n_splits} folds"
    return (
        f"{experiment.name}: {how}{f' x {plan.n_repeats}' if plan.n_repeats > 1 else ''} of "
        f"{data.data_name} ({len(data.train_images):,} images), {environment['device']}, {environment['precision']}, "
        f"threads per fold {environment['threads_per_fold']}\nrun: {run.path}"
    )
