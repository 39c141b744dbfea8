"""A study, opened or made, and run until all its trials are finished."""

from __future__ import annotations

import inspect
from typing import Any

import optuna
from rich.console import Console

from fmnist_cv.config.class_paths import parameters
from fmnist_cv.errors import UserError
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.sampling import COUNTED_FROM, SeededByDraw, quiet_optuna
from fmnist_cv.search.search import Search
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.search.trials import TrialRunner
from fmnist_cv.utils.user_text import print_line


def run_study(search: Search, workers: int, storage: str | None, console: Console | None) -> optuna.Study:
    """Run what is missing of a search's study.

    Args:
        search: what is searched.
        workers: trials side by side.
        storage: postgresql://... or the path of a journal file; None for study.journal in the study's folder.
        console: where progress is shown; None shows nothing.

    Raises:
        UserError: the data or the storage cannot be used as asked.
        TrialsFailed: one trial after another failed.
    """
    with quiet_optuna():
        store = StudyStorage(storage or str(search.folder / "study.journal"), workers, console)
        try:
            study = store.patiently(lambda: open_study(search, store))
            if console is not None:
                print_line(
                    console,
                    f"{search.name}: {search.n_trials} trials of {search.settings.experiment} on "
                    f"{search.data.data_name} ({len(search.data.train_images):,} images), "
                    f"{search.n_folds} folds each, {workers} at a time; study in {store.shown}",
                )
            with SearchDisplay(search.n_trials, study.get_trials(deepcopy=False), console) as display:
                TrialRunner(search, study, store, workers, display).run()
        finally:
            store.close()
    return study


def open_study(search: Search, store: StudyStorage) -> optuna.Study:
    """Make the study, or go on with it.

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
    mine, theirs = search.identity(), study.user_attrs.get("search")
    if theirs is not None:
        theirs = {**theirs, "experiment": _with_new_options(theirs["experiment"], mine["experiment"])}
    if theirs is None:
        study.set_user_attr(COUNTED_FROM, 0)
        study.set_user_attr("search", mine)
        study.set_metric_names(["accuracy"])
    elif differences := [key for key in mine if mine[key] != theirs.get(key)]:
        raise UserError(
            f"study {search.name} in {store.shown} was made with another {', '.join(differences)}; go on with the "
            "settings it was made with, or choose another name"
        )
    elif COUNTED_FROM not in study.user_attrs:  # a study older than this attribute
        with store.handing_out(study.study_name):
            if COUNTED_FROM not in study.user_attrs:
                study.set_user_attr(COUNTED_FROM, len(study.get_trials(deepcopy=False)))
    return study


def _with_new_options(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The dotted keys of an older study's experiment, and the defaults of options that its classes have got since."""
    added = {}
    for key in new.keys() - old.keys():
        owner, _, name = key.rpartition(".init_args.")
        default = parameters(str(new.get(f"{owner}.class_path"))).get(name, inspect.Parameter.empty)
        if default is not inspect.Parameter.empty:
            added[key] = default
    return old | added
