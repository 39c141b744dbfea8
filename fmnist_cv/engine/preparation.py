"""Before any training: check experiment and data, and find the run or create it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fitted import fit_to_data
from fmnist_cv.config.fold_parts import check_parts
from fmnist_cv.config.identity import identity
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import Images, KFoldDataModule, Split, SplitPlan
from fmnist_cv.data.files import FilesDataModule
from fmnist_cv.data.given_splits import given_by, goes_by_order, split_images
from fmnist_cv.data.group_sizes import count_copies, describe_sizes, refuse_lost_classes, sizes_of_groups
from fmnist_cv.data.sampling import describe_sampling, sampling_of
from fmnist_cv.data.split_files import load_splits, save_splits
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.engine.run_names import create_run, default_run_names, find_run
from fmnist_cv.engine.run_records import DataRecord
from fmnist_cv.engine.sanity_check import run_sanity_check
from fmnist_cv.engine.workers import default_workers
from fmnist_cv.engine.writable import check_writable
from fmnist_cv.errors import DataNotFound, UserError
from fmnist_cv.runtime import cpu_cores
from fmnist_cv.utils.paths import check_name
from fmnist_cv.utils.user_text import print_line


@dataclass
class PreparedRun:
    """A run whose folder, splits and data exist and fit each other.

    Attributes:
        experiment: what runs; on synthetic images where it fell back to them.
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
    """The argument with which `prepare_run` and `cross_validate` create a run of this name, or resume it."""
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
    """Check the experiment, its data and its run; create the run's folder only when all checks pass.

    Args:
        experiment: what is to run.
        run: name for a new run, or None for the time. With cv.fold, an existing run of that name is joined.
        resume: name or path of a run to resume, or "last".
        console: where to print what runs.
        same_data: a data module with the same images, which need not be read again.
        refit: a model on all training images is to follow.

    Raises:
        UserError: anything that would only fail later; no files are left behind.
    """
    _check_names(experiment, run, resume)
    found = find_run(experiment.log_dir, experiment.name, resume) if resume is not None else None
    is_new = found is None
    if found is None:
        check_writable(experiment.log_dir)
    experiment, data, is_fallback = _find_data(experiment, console, same_data)
    train = data.train_images
    # the fold and the number of workers are options of each command, not of the run
    config = experiment.replaced(cv__fold=None, cv__workers=None).to_yaml()
    if found is None:
        suffix = "_SYNTHETIC" if is_fallback else ""
        names = default_run_names(suffix) if run is None else [run + suffix]
        found = _create_or_join(experiment, names, config, data, refit, console)
    _check_same(experiment, config, found, train)
    if refit and not is_new and not found.refit.finished:
        run_sanity_check(experiment, data, [Split.refit(len(train))])
    splits = load_splits(found.splits, train.labels.numpy(), experiment.plan, train.fingerprint(), train.kept_together)
    _check_given_splits(experiment, found, splits, train)
    if console is not None:
        print_line(console, _headline(experiment, found, data))
        if isinstance(data, FilesDataModule) and goes_by_order(experiment.plan):
            print_line(
                console,
                f"{given_by(experiment.plan)} splits by the images' order, which of files is that of their paths: images whose "
                "paths are alike are held out together, and classes in folders one after another.",
                style="yellow",
            )
    return PreparedRun(experiment, found, splits, train, data.test_images)


def _check_names(experiment: Experiment, run: str | None, resume: str | None) -> None:
    if run is not None and resume is not None:
        raise UserError("give either --run, which starts a run, or --resume, which resumes one")
    if run is not None:
        check_name(run, "--run")
        if Path(run).name != run or run.startswith(".") or run == "last":
            raise UserError(
                f"--run is '{run}'; the name of a run is a single folder name: no path, not 'last', no leading dot"
            )
    if experiment.cv.fold is not None and run is None and resume is None:
        raise UserError("--cv.fold runs one fold of a run that others share: name it with --run NAME")


def _find_data(
    experiment: Experiment, console: Console | None, same_data: KFoldDataModule | None
) -> tuple[Experiment, KFoldDataModule, bool]:
    """The experiment, fitted to its data, and these; or synthetic images where it allows them and its own data are unavailable."""
    try:
        data = check_parts(experiment, same_data).data
        return fit_to_data(experiment, data), data, False
    except DataNotFound as error:
        if not experiment.synthetic_fallback:
            raise
        if console is not None:
            console.print(f"{error}.\n\nRunning on SYNTHETIC images instead.\n", style="yellow", markup=False)
        if console is not None and experiment.plan.is_given:
            print_line(
                console,
                f"The splits given by {given_by(experiment.plan)} are not theirs and are not used.\n",
                style="yellow",
            )
        experiment = experiment.with_synthetic_data()
        data = check_parts(experiment).data
        return fit_to_data(experiment, data), data, True


def _create_or_join(
    experiment: Experiment,
    names: Iterable[str],
    config: str,
    data: KFoldDataModule,
    refit: bool,
    console: Console | None,
) -> RunFolder:
    """A new run; for one fold alone, also the run of that name that another fold's command may have created meanwhile."""
    if experiment.cv.fold is None:
        return _create(experiment, names, config, data, refit, console)
    (name,) = names
    path = experiment.log_dir / experiment.name / name
    if not path.exists():
        try:
            return _create(experiment, [name], config, data, refit, console)
        except UserError:
            if not path.exists():
                raise
    return find_run(experiment.log_dir, experiment.name, name)


def _create(
    experiment: Experiment,
    names: Iterable[str],
    config: str,
    data: KFoldDataModule,
    refit: bool,
    console: Console | None,
) -> RunFolder:
    train, test = data.train_images, data.test_images
    splits = split_images(train, experiment.plan)
    refuse_lost_classes(train, splits, experiment.plan)
    _check_one_step(experiment, data, splits, refit, console)
    devices = experiment.devices()
    workers = experiment.cv.workers or default_workers(len(splits), devices)
    threads = max(1, cpu_cores() // workers)
    record: DataRecord = {
        "name": data.data_name,
        "fingerprint": train.fingerprint(),
        "n_train": len(train),
        "n_test": 0 if test is None else len(test),
        "test_fingerprint": None if test is None else test.fingerprint(),
        "image_shape": list(train.shape),
        "class_names": list(train.class_names),
    }
    if train.weights is not None:
        record["unweighted_fingerprint"] = replace(train, weights=None).fingerprint()

    def fill(path: Path) -> None:
        folder = RunFolder(path)
        folder.config.write_text(config, encoding="utf-8")
        save_splits(folder.splits, splits, experiment.plan, train.fingerprint())
        folder.write_run_info(
            {
                "created": datetime.datetime.now(datetime.UTC).isoformat(),
                "data": record,
                "environment": describe_environment(devices.description, threads, experiment.precision()),
                "settings": identity(load_yaml(config)),  # again, since users may edit YAML, which has no digest
            }
        )

    return create_run(experiment.log_dir, experiment.name, names, fill)


def _check_one_step(
    experiment: Experiment, data: KFoldDataModule, splits: list[Split], refit: bool, console: Console | None
) -> None:
    """Refuse what would fail in training; warn of what only a later refit would fail on."""
    run_sanity_check(experiment, data, splits)
    if refit:
        run_sanity_check(experiment, data, [Split.refit(len(data.train_images))])
    elif console is not None and len(data.train_images) % data.batch_size == 1:
        try:
            run_sanity_check(experiment, data, [Split.refit(len(data.train_images))])
        except UserError as error:
            print_line(console, f"A --refit of this run would fail: {error}\n", style="yellow")


def _check_same(experiment: Experiment, config: str, run: RunFolder, train: Images) -> None:
    """Refuse a run of another config or of other data."""
    plan = experiment.plan
    if run.read_config() != config and (differences := experiment.differences(before := run.read_experiment())):
        if None not in (plan.splits, before.plan.splits) and plan.n_folds != before.plan.n_folds:
            raise _other_folds(run, plan, f"{plan.n_folds} instead of {before.plan.n_folds}")
        raise UserError(
            f"run {run.path} has another config: {'; '.join(differences[:5])}; "
            "resume with the config it was started with, or start a new run"
        )
    fingerprint = run.read_run_info()["data"]["fingerprint"]
    if fingerprint != train.fingerprint():
        raise UserError(
            f"run {run.path} was made on other data (fingerprint {fingerprint}, here {train.fingerprint()}); "
            "resume with the data it was started on, or start a new run"
        )


def _check_given_splits(experiment: Experiment, run: RunFolder, splits: list[Split], train: Images) -> None:
    """Refuse a run whose folds a file or the data have changed since."""
    if experiment.plan.splits is None:
        return
    for then, now in zip(splits, split_images(train, experiment.plan), strict=True):
        if not np.array_equal(then.validation, now.validation) or not np.array_equal(then.train, now.train):
            raise _other_folds(run, experiment.plan, f"repeat {now.repeat}, fold {now.fold} differs")


def _other_folds(run: RunFolder, plan: SplitPlan, how: str) -> UserError:
    return UserError(
        f"run {run.path} was made with other folds than those now given by {given_by(plan)}: {how}; resume with the folds it "
        "was started with, or start a new run"
    )


def _headline(experiment: Experiment, run: RunFolder, data: KFoldDataModule) -> str:
    environment = run.read_run_info()["environment"]
    plan, train = experiment.plan, data.train_images
    how = (
        f"hold-out {plan.holdout}"
        if plan.holdout is not None
        else f"{plan.n_splits} fold{'s' if plan.n_splits > 1 else ''}"
    )
    how += f" x {plan.n_repeats}" if plan.n_repeats > 1 else ""
    if plan.is_given:
        how += f" given by {given_by(plan)}"
    images = f"{len(train):,} images"
    if (groups := sizes_of_groups(train)) is not None:
        images += f", {describe_sizes(*groups)}"
    if (copies := count_copies(train)) is not None:
        images += f", {copies['images']:,} of them copies, kept together"
    if (sampling := sampling_of(train)) is not None:
        images += f"; {describe_sampling(sampling)}"
    return (
        f"{experiment.name}: {how} of {data.data_name} ({images}), {environment['device']}, {environment['precision']}, "
        f"threads per fold {environment['threads_per_fold']}\nrun: {run.path}"
    )
