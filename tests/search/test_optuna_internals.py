"""What the search uses of Optuna's internals still exists and behaves as it assumes; each test fails where Optuna changes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from fmnist_cv.search.optuna_internals import (
    GRID_POINT,
    SystemLock,
    fail_trial,
    quiet_optuna,
    record_heartbeat,
    stale_trial_ids,
    trial_id,
    without_sampled_values,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    url = f"sqlite:///{tmp_path_factory.mktemp('database')}/a.db"
    with quiet_optuna():
        return RDBStorage(url, heartbeat_interval=1, grace_period=1)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_warning_about_heartbeats_is_suppressed_and_nothing_else(database: RDBStorage) -> None:
    study = optuna.create_study(storage=database, study_name="warnings")
    with pytest.warns(UserWarning, match="Heartbeat of storage is supposed to be used"):
        study.ask()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_optuna():
            study.ask()
            warnings.warn("another warning", stacklevel=1)
            assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert [str(warning.message) for warning in caught] == ["another warning"]
    assert optuna.logging.get_verbosity() != optuna.logging.ERROR


def test_a_trial_is_stale_once_its_heartbeat_stops(database: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=database, study_name="heartbeats")
    with quiet_optuna():
        beating, without = study.ask(), study.ask()
    record_heartbeat(database, beating)
    assert stale_trial_ids(database, study) == []
    monkeypatch.setattr(database, "grace_period", -1)
    assert stale_trial_ids(database, study) == [trial_id(study.trials[beating.number])]
    assert without.number == 1  # a trial without a heartbeat is never stale


def test_a_failed_trial_keeps_the_reason_and_a_completed_one_is_not_failed() -> None:
    study = optuna.create_study()
    running, completed = study.ask(), study.ask()
    study.tell(completed, 1.0)
    fail_trial(study, trial_id(study.trials[running.number]), "reason", "its process died")
    failed = study.trials[running.number]
    assert failed.state == TrialState.FAIL and failed.user_attrs == {"reason": "its process died"}
    with pytest.raises(UpdateFinishedTrialError):
        fail_trial(study, trial_id(study.trials[completed.number]), "reason", "its process died")


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (optuna.samplers.TPESampler, {"multivariate": True}),
        (optuna.samplers.TPESampler, {"multivariate": True, "group": True}),
        (optuna.samplers.GPSampler, {}),
    ],
)
def test_values_that_samplers_keep_until_they_are_suggested_are_removed(sampler: Any, options: dict[str, Any]) -> None:
    with quiet_optuna():
        study = optuna.create_study(sampler=sampler(n_startup_trials=1, seed=0, **options))
    for value in (0.5, 0.7):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        study.tell(trial, value)
    running = study.ask()
    running.suggest_float("x", 0.0, 1.0)
    attributes = study.trials[running.number].system_attrs
    assert any("y" in text for text in map(str, attributes.values()))  # sampled, but not suggested
    assert without_sampled_values({**attributes, "kept": 3}) == {"kept": 3}


def test_a_grid_takes_the_point_of_the_trials_number() -> None:
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": [0, 1, 2]}, seed=0))
    for number in range(3):
        trial = study.ask()
        assert study.trials[trial.number].system_attrs[GRID_POINT] == trial.number == number


def test_a_journal_takes_the_lock_for_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("acquire", "release"):
        method = getattr(SystemLock, name)
        monkeypatch.setattr(SystemLock, name, lambda lock, n=name, m=method: calls.append(n) or m(lock))
    backend = JournalFileBackend(str(tmp_path / "a.journal"), SystemLock(tmp_path / ".lock"))
    optuna.create_study(storage=JournalStorage(backend))
    assert calls and calls == ["acquire", "release"] * (len(calls) // 2)
