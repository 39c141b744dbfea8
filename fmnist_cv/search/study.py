"""A study, created or opened, and run until all its trials are completed."""

from __future__ import annotations

import inspect
from contextlib import closing
from dataclasses import asdict
from typing import Any

import optuna
from rich.console import Console

from fmnist_cv.config.class_paths import parameters
from fmnist_cv.config.identity import same_setting
from fmnist_cv.config.sections import CrossValidationSection
from fmnist_cv.errors import UserError
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.optuna_internals import quiet_optuna
from fmnist_cv.search.ownership import TrialOwnership
from fmnist_cv.search.records import COUNTED_FROM, IDENTITY
from fmnist_cv.search.sampling import SeededByDraw
from fmnist_cv.search.search import Search
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.search.trials import TrialRunner
from fmnist_cv.utils.user_text import print_line


def run_study(search: Search, workers: int, storage: str | None, console: Console | None) -> optuna.Study:
    """Run the missing trials of a search's study.

    Args:
        search: what is searched.
        workers: trials that run in parallel.
        storage: postgresql://... or the path of a journal file; None for study.journal in the study's folder.
        console: where progress is shown; None shows nothing.

    Raises:
        UserError: the data or the storage cannot be used as requested.
        TrialsFailed: several trials failed one after another.
    """
    where = storage or str(search.folder / "study.journal")
    with (
        quiet_optuna(),
        closing(StudyStorage(where, workers, console)) as store,
        closing(TrialOwnership(store)) as ownership,
    ):
        study = store.retry(lambda: open_study(search, store))
        if console is not None:
            n_images = len(search.data.train_images)
            print_line(
                console,
                f"{search.name}: {search.n_trials} trials of {search.settings.experiment} on {search.data.data_name} "
                f"({n_images:,} images), {search.n_folds} folds each, {workers} in parallel; study in {store.shown}",
            )
        with SearchDisplay(search.n_trials, study.get_trials(deepcopy=False), console) as display:
            TrialRunner(search, study, store, ownership, workers, display).run()
    return study


def open_study(search: Search, store: StudyStorage) -> optuna.Study:
    """Create the study, or open it.

    Raises:
        UserError: it is another search's.
    """
    study = optuna.create_study(
        storage=store.storage,
        study_name=search.name,
        direction="maximize",
        sampler=SeededByDraw(search.sampler),
        pruner=search.pruner(),
        load_if_exists=True,
    )
    mine, stored = search.identity(), study.user_attrs.get(IDENTITY)
    if stored is not None:
        stored = {**stored, "experiment": _with_new_options(stored["experiment"], mine["experiment"])}
    if stored is None:
        study.set_user_attr(COUNTED_FROM, 0)
        study.set_user_attr(IDENTITY, mine)
        study.set_metric_names(["accuracy"])
    elif differences := [key for key in mine if mine[key] != stored.get(key)]:
        raise UserError(
            f"study {search.name} in {store.shown} was created with another {', '.join(differences)}; continue with the "
            "settings it was created with, or choose another name"
        )
    elif COUNTED_FROM not in study.user_attrs:  # a study older than this attribute
        with store.dispatch_lock(study.study_name):
            if COUNTED_FROM not in study.user_attrs:
                study.set_user_attr(COUNTED_FROM, len(study.get_trials(deepcopy=False)))
    return study


def _with_new_options(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """An older study's experiment, with the defaults of options that its classes have gained since, and a moved file of folds."""
    added, of_cv = {}, asdict(CrossValidationSection())
    for key in new.keys() - old.keys():
        if key.startswith("cv."):
            added[key] = of_cv.get(key.removeprefix("cv."))
        owner, _, name = key.rpartition(".init_args.")
        default = parameters(str(new.get(f"{owner}.class_path"))).get(name, inspect.Parameter.empty)
        if default is not inspect.Parameter.empty:
            added[key] = default
    same = {key: new[key] for key in old.keys() & new.keys() if same_setting(key, old[key], new[key])}
    return old | added | same
