"""A search is checked against its experiment before a study is made."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from fmnist_cv.errors import UserError
from fmnist_cv.search.sampling import SeededByDraw
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import suggest
from fmnist_cv.search.tuning import as_search

PRUNING = {"p_threshold": 0.3}
DROPOUT = {"model.dropout": {"float": [0.0, 0.5]}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trials": None}, "trials is not set"),
        ({"trials": 0}, "trials is 0"),
        ({"experiment": "quickstrat"}, "did you mean 'quickstart'?"),
        ({"sampler": "TPE"}, "sampler is 'TPE'; choose from grid, TPESampler,"),
        ({"sampler": "TPESampelr"}, "did you mean 'TPESampler'?"),
        ({"sampler_options": {"candidates": 3}}, "sampler TPESampler cannot be created"),
        ({"sampler": "grid"}, "space.model.dropout has infinitely many values"),
        ({"space": {"model.droput": {"float": [0.0, 0.5]}}}, "space: model.droput = 0.0"),
        ({"space": {"model.dropout": {"float": [0.0, 1.5]}}}, "space: model.dropout = 1.5"),
        ({"space": {"data.batch_size": {"int": [0, 64]}}}, "space: data.batch_size = 0"),
        ({"overrides": {"cv.fold": 1}}, "cv.fold is 1 in the experiment or the overrides, but a trial runs all folds"),
        ({"overrides": {"cv": {"fold": 1}}}, "cv.fold is 1 in the experiment or the overrides"),
        ({"overrides": {"cv.workers": 1}}, "overrides.cv.workers cannot be set"),
        (
            {"space": {"data.n_train": {"int": [50, 60]}}},
            "all trials must use the same images; searchable keys of data are batch_size",
        ),
        ({"overrides": {"trainer.max_epoch": 1}}, "trainer.max_epoch"),
        (
            {"pruning": {"p_threshold": 0.25}},
            "pruning.p_threshold is 0.25, but after 2 of 3 folds the smallest p is 0.25",
        ),
        ({"pruning": {"p_threshold": 0.0}}, "pruning.p_threshold is 0.0"),
        ({"pruning": {"p_threshold": 0.3, "n_startup_folds": 3}}, "pruning.n_startup_folds is 3"),
        ({"pruning": PRUNING, "overrides": {"cv.holdout": 0.2}}, "pruning has no effect with 1 fold"),
        ({"epoch_rule": {"quantile": 0.0}}, "epoch_rule: min_epochs is 1"),
        ({"epoch_rule": {"min_trials": 1}}, "epoch_rule.min_epochs is 1, but a fold has only 1"),
        ({"epoch_rule": {"min_trials": 4}, "overrides": {"trainer.max_epochs": 3}}, "epoch_rule.min_trials is 4"),
        ({"confirm": {"top": -1}}, "confirm.top is -1"),
        ({"confirm": {"seed": 0}}, "confirm.seed is 0, the seed of the search"),
        ({"confirm": {"n_splits": 1000}, "space": DROPOUT}, "confirm: "),
        ({"nested": 1}, "nested is 1"),
        ({"nested": 1000, "space": DROPOUT}, "nested: "),
        ({"trails": 3}, "trails"),
        ({"name": "a/b"}, "name is 'a/b'"),
    ],
)
def test_mistakes_are_refused_before_a_study_is_made(
    searched: dict[str, Any], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError) as error:
        as_search(searched | changes)
    assert reason in str(error.value)
    assert not (tmp_path / "logs").exists()


def test_a_search_may_not_have_its_experiments_name(searched: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="their runs would share a folder"):
        as_search(searched | {"name": "tiny"})


def test_values_reach_the_experiment(searched: dict[str, Any]) -> None:
    search = as_search(searched | {"overrides": {"data.batch_size": 16}})
    values = {
        "model.dropout": 0.4,
        "model.optimizer": {"class_path": "torch.optim.SGD"},
        "model.optimizer.init_args.lr": 0.03,
    }
    experiment = search.experiment(values)
    model = experiment.config.model.init_args
    assert (model.dropout, model.optimizer.class_path, model.optimizer.init_args.lr) == (0.4, "torch.optim.SGD", 0.03)
    assert experiment.config.data.init_args.batch_size == 16 and experiment.name == "study"


def test_an_experiment_that_is_edited_meanwhile_stays_as_it_was(searched: dict[str, Any]) -> None:
    search = as_search(searched | {"space": DROPOUT})
    before = search.experiment({}).to_yaml()
    path = Path(searched["experiment"])
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 7"))
    assert search.experiment({}).to_yaml() == before


def drawn(search: Search, n: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=SeededByDraw(search.sampler), direction="maximize")
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append(suggest(search.space, trial))
        study.tell(trial, 0.5)
    return found


def test_draws_depend_on_seed_and_trial_alone(searched: dict[str, Any]) -> None:
    search = as_search(searched | {"sampler": "RandomSampler"})
    first = drawn(search, 6)
    assert drawn(search, 6) == first  # in another process, or after a restart
    assert len({str(values) for values in first}) == 6  # no trial repeats another
    other = copy.copy(search)
    other.settings = replace(search.settings, seed=1)
    assert drawn(other, 6) != first


def test_a_grid_visits_each_point_once(searched: dict[str, Any]) -> None:
    space = {"model.dropout": {"choices": [0.0, 0.1]}, "data.batch_size": {"int": [16, 64], "step": 16}}
    search = as_search(searched | {"sampler": "grid", "trials": None, "space": space})
    assert search.n_trials == 8
    assert len({str(values) for values in drawn(search, 8)}) == 8
    with pytest.raises(UserError, match="trials is 9, but the grid has 8 points"):
        as_search(search, {"trials": 9})


def test_given_splits_are_searched_on_but_leave_none_to_confirm_on(searched: dict[str, Any]) -> None:
    searched["space"] = DROPOUT
    overrides = {"cv.splitter": "TimeSeriesSplit", "cv.n_splits": 5}
    search = as_search(searched | {"overrides": overrides})
    assert search.n_folds == 5 and search.ratio > 0.2  # its training parts grow: 1, 1/2, 1/3, 1/4, 1/5
    with pytest.raises(UserError, match=r"none which the search has not seen; set confirm\.top to 0"):
        as_search(searched | {"overrides": overrides, "confirm": {"top": 1}})


def write_folds(path: Path, folds: np.ndarray) -> None:
    pd.DataFrame({"index": range(len(folds)), "fold": folds}).to_csv(path, index=False)


def test_the_rules_of_pruning_are_those_of_the_folds_that_are_given(searched: dict[str, Any], tmp_path: Path) -> None:
    searched["space"] = DROPOUT
    searched["overrides"] = {"cv.splits": str(tmp_path / "folds.csv"), "cv.n_splits": None}
    write_folds(tmp_path / "folds.csv", np.arange(300) % 3)
    with pytest.raises(UserError, match=r"n_startup_folds is 4; it must be from 2 to 2,"):
        as_search(searched | {"pruning": PRUNING | {"n_startup_folds": 4}})
    write_folds(tmp_path / "folds.csv", np.arange(300) % 7)
    assert as_search(searched | {"pruning": PRUNING | {"n_startup_folds": 5}}).n_folds == 7


def test_a_study_goes_on_on_the_same_folds_alone(searched: dict[str, Any], tmp_path: Path) -> None:
    searched["space"] = DROPOUT
    assert "folds" not in as_search(searched).identity()  # as in studies of before there were given folds
    searched["overrides"] = {"cv.splits": str(tmp_path / "folds.csv"), "cv.n_splits": None}
    write_folds(tmp_path / "folds.csv", np.arange(300) % 3)
    first = as_search(searched).identity()
    assert as_search(searched).identity() == first
    write_folds(tmp_path / "folds.csv", np.arange(300) // 100)
    assert as_search(searched).identity() != first
