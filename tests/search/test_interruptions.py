"""An interrupted study ends like an uninterrupted one, whatever was being written when it was killed."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from optuna.trial import TrialState

from fmnist_cv.engine.events import EpochEnded, Event, Failed, FailureKind, Finished, Started
from fmnist_cv.search import journal, sampling, study, trials
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.optuna_internals import quiet_optuna
from fmnist_cv.search.ownership import TrialOwnership
from fmnist_cv.search.records import COUNTED_FROM, DIVERGED, PRUNED
from fmnist_cv.search.search import Search
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.search.tuning import as_search

N_FOLDS, N_EPOCHS = 3, 3
RULES = {"pruning": {"p_threshold": 0.3}, "epoch_rule": {"min_trials": 1, "quantile": 0.5, "min_epochs": 1}}
SAMPLERS = {
    "random": {"sampler": "RandomSampler"},
    "tpe": {"sampler": "TPESampler", "sampler_options": {"n_startup_trials": 3}},
    "tpe of groups": {
        "sampler": "TPESampler",
        "sampler_options": {"n_startup_trials": 3, "multivariate": True, "group": True},
    },
    "gp": {"sampler": "GPSampler", "sampler_options": {"n_startup_trials": 3}, "trials": 5},
    "grid": {
        "sampler": "grid",
        "space": {"model.dropout": {"choices": [0.0, 0.1, 0.2]}, "data.batch_size": {"choices": [20, 30, 40]}},
    },
}


class Killed(BaseException):
    """Simulates that the process is killed."""


class Clock:
    """Counts every write to the journal and every event of a fold, and kills at a given count."""

    def __init__(self) -> None:
        self.left: int | None = None

    def tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class Fold:
    """A fold on a simulated disk, which keeps each trained epoch."""

    def __init__(self, params: dict[str, Any], fold: int) -> None:
        dropout, batch_size = params["model.dropout"], params["data.batch_size"]
        level = 0.9 - abs(dropout - 0.2) + 0.01 * fold
        early = level - 0.3 if batch_size == 20 else 0.5  # which predicts the last epoch, or does not
        self.history = [{"val/accuracy": early}, {"val/accuracy": early}, {"val/accuracy": level}]
        self.diverges = batch_size == 40 and dropout < 0.15
        self.epochs = 0

    @property
    def finished(self) -> bool:
        return self.epochs > N_EPOCHS

    def read_metrics(self) -> dict[str, Any]:
        score = {"validation": {"accuracy": self.history[-1]["val/accuracy"]}}
        return {"last": score, "best": score, "history": self.history}

    def events(self) -> Iterator[Event]:
        last = self.history[self.epochs - 1] if self.epochs else {}
        yield Started(self.epochs, N_EPOCHS, steps=1, metrics=last)
        while self.epochs < N_EPOCHS:
            if self.diverges and self.epochs == 1:
                yield Failed("the loss became nan", FailureKind.DIVERGED)
                return
            self.epochs += 1
            yield EpochEnded(self.epochs - 1, self.history[self.epochs - 1])
        self.epochs = N_EPOCHS + 1
        yield Finished(self.history[-1]["val/accuracy"])


@dataclass(eq=False)
class Job:
    """In the place of FoldJob."""

    folder: Fold


class Pool:
    """Replaces WorkerPool: one event of each running fold at a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.running = clock, deque[tuple[Job, Iterator[Event]]]()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.running.clear()

    def start(self, job: Job) -> None:
        self.running.append((job, job.folder.events()))

    def stop(self, job: Job) -> None:
        self.running = deque(entry for entry in self.running if entry[0] is not job)

    def wait(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        if self.running:
            self.clock.tick()
            job, events = self.running[0]
            event = next(events)
            self.running.popleft() if isinstance(event, Finished | Failed) else self.running.rotate(-1)
            yield job, event


class Simulation:
    """Runs a search whose folds take no time."""

    def __init__(self, search: Search, folder: Path, clock: Clock) -> None:
        self.search, self.journal, self.clock = search, folder / "study.journal", clock
        self.disk: dict[str, list[Fold]] = {}

    def prepare(self, params: dict[str, Any], run: str, **_: Any) -> SimpleNamespace:
        folds = self.disk.setdefault(run, [Fold(params, fold) for fold in range(N_FOLDS)])
        config = SimpleNamespace(trainer=SimpleNamespace(max_epochs=N_EPOCHS))
        return SimpleNamespace(
            folds=folds, experiment=SimpleNamespace(config=config, cv=SimpleNamespace(inner_holdout=None))
        )

    @quiet_optuna()
    def run(self, workers: int, kill_after: int | None = None, politely: bool = False) -> optuna.Study | None:
        """The study when it is over; None if it was killed after so many ticks, or interrupted as by Ctrl-C."""
        self.clock.left = kill_after
        ownership = None
        try:
            store = StudyStorage(str(self.journal), workers)
            ownership = TrialOwnership(store)
            opened = study.open_study(self.search, store)
            with SearchDisplay(self.search.n_trials, opened.get_trials(deepcopy=False), None) as display:
                runner = trials.TrialRunner(self.search, opened, store, ownership, workers, display)
                end = runner._interrupt_unfinished

                def interrupt_unfinished() -> None:
                    if self.clock.left is None or politely:
                        self.clock.left = None
                        end()

                runner._interrupt_unfinished = interrupt_unfinished  # type: ignore[method-assign]
                runner.run()
            return opened
        except Killed:
            return None
        finally:
            self.clock.left = None
            if ownership is not None and ownership._alive is not None:
                ownership._alive.release()  # as the operating system does, and no more


@pytest.fixture(scope="module")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Simulation]]:
    """Makes simulations of a search with a sampler."""
    clock, searches = Clock(), dict[str, Search]()
    experiment = {
        "name": "tiny",
        "cv": {"n_splits": N_FOLDS},
        "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [8]}},
        "data": {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_train": 90, "n_test": 9}},
        "trainer": {"max_epochs": N_EPOCHS, "accelerator": "cpu"},
    }
    path = tmp_path_factory.mktemp("experiment") / "tiny.json"
    path.write_text(json.dumps(experiment), encoding="utf-8")
    plain_append = journal._Journal.append_logs

    def append_logs(self: Any, logs: list[dict[str, Any]]) -> None:
        clock.tick()
        plain_append(self, logs)
        clock.tick()

    def make(sampler: str, **changes: Any) -> Simulation:
        key = f"{sampler} {changes}"
        if key not in searches:
            space = {"model.dropout": {"float": [0.0, 0.5]}, "data.batch_size": {"choices": [20, 30, 40]}}
            config = {"name": "study", "experiment": str(path), "space": space, "trials": 7, "confirm": {"top": 0}}
            search = searches[key] = as_search({**config, **RULES, **SAMPLERS[sampler], **changes})
            search.experiment = lambda values, **_: values  # type: ignore[method-assign, assignment]
        made = Simulation(searches[key], tmp_path_factory.mktemp("simulation"), clock)
        patch.setattr(trials, "prepare_run", made.prepare)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(journal._Journal, "append_logs", append_logs)
        patch.setattr(trials, "values_of", lambda space, params: params)
        patch.setattr(trials, "run_or_resume", lambda experiment, name: {"run": name})
        patch.setattr(trials, "fold_folders", lambda prepared: prepared.folds)
        patch.setattr(trials, "WorkerPool", lambda devices: Pool(clock))
        patch.setattr(trials.TrialRunner, "_delete_checkpoints", lambda *_: None)
        patch.setattr(trials.RunningTrial, "make_job", lambda running: Job(running.folder))
        yield make


def outcomes(found: optuna.Study) -> list[tuple[Any, ...]]:
    """Each configuration and its outcome, in the order of their draws."""
    return [
        (t.params, t.value, t.intermediate_values, t.user_attrs.get(PRUNED), t.user_attrs.get(DIVERGED))
        for t in found.get_trials(deepcopy=False)
        if t.state == TrialState.COMPLETE
    ]


@pytest.fixture(scope="module")
def uninterrupted(simulate: Callable[..., Simulation]) -> Callable[[str], list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}

    def get(sampler: str) -> list[tuple[Any, ...]]:
        if sampler not in found:
            full = simulate(sampler).run(workers=1)
            assert full is not None
            found[sampler] = outcomes(full)
        return found[sampler]

    return get


def test_the_simulation_has_every_kind_of_outcome(uninterrupted: Callable[[str], list[tuple[Any, ...]]]) -> None:
    kinds = {(pruned, bool(diverged)) for name in SAMPLERS for *_, pruned, diverged in uninterrupted(name)}
    assert kinds == {(None, False), (None, True), ("in an epoch", False), ("after folds", False)}


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.integers(0, 120), st.booleans()), min_size=1, max_size=4))
def test_an_interrupted_study_ends_as_an_uninterrupted_one(
    simulate: Callable[..., Simulation],
    uninterrupted: Callable[[str], list[tuple[Any, ...]]],
    sampler: str,
    kills: list[tuple[int, bool]],
) -> None:
    expected = uninterrupted(sampler)
    simulation = simulate(sampler)
    for ticks, politely in kills:
        simulation.run(1, ticks, politely)
    found = simulation.run(1)
    assert found is not None and outcomes(found) == expected


@pytest.mark.parametrize("sampler", ["random", "grid"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.integers(0, 120), st.booleans()), max_size=3))
def test_the_same_configurations_are_drawn_in_parallel(
    simulate: Callable[..., Simulation],
    uninterrupted: Callable[[str], list[tuple[Any, ...]]],
    sampler: str,
    kills: list[tuple[int, bool]],
) -> None:
    simulation = simulate(sampler)
    for ticks, politely in kills:
        simulation.run(3, ticks, politely)
    found = simulation.run(3)
    assert found is not None
    assert sorted(str(params) for params, *_ in outcomes(found)) == sorted(str(p) for p, *_ in uninterrupted(sampler))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_old_study_whose_seeds_were_trial_numbers_resumes_without_repeating_a_draw(
    simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    old = simulate(sampler, trials=3)
    with monkeypatch.context() as then:
        then.setattr(sampling, "draw_number", lambda trial, *_: trial.number)
        for ticks in (30, 20):
            old.run(1, ticks)
        begun = old.run(1)
    assert begun is not None
    n_begun, before = len(begun.trials), outcomes(begun)
    lines = old.journal.read_text(encoding="utf-8").splitlines(keepends=True)
    old.journal.write_text("".join(line for line in lines if COUNTED_FROM not in line), encoding="utf-8")
    new = simulate(sampler)
    new.journal = old.journal
    found = new.run(1)
    assert found is not None and found.user_attrs[COUNTED_FROM] == n_begun > 3
    assert outcomes(found)[:3] == before
    assert len({str(params) for params, *_ in outcomes(found)}) == len(outcomes(found)) == new.search.n_trials


def test_a_kill_at_any_moment_changes_no_draw(
    simulate: Callable[..., Simulation], uninterrupted: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    for ticks in range(0, 1000, 2):
        simulation = simulate("random", trials=2)
        if simulation.run(1, ticks) is not None:
            break
        found = simulation.run(1)
        assert found is not None and outcomes(found) == uninterrupted("random")[:2], ticks
    assert ticks > 50
