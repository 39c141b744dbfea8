"""Folds in processes of their own: one that dies or raises takes no other with it, and no more run than should."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from running import Commands, outcome

from fmnist_cv import cross_validation, fit
from fmnist_cv.command_line import FAILED, INTERRUPTED, OK
from fmnist_cv.cross_validation import as_experiment, fold_job
from fmnist_cv.data import Split
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.engine import workers
from fmnist_cv.engine.events import Event, Failed, FailureKind, Finished, Notify
from fmnist_cv.engine.fold import FoldJob, run_fold
from fmnist_cv.engine.preparation import prepare_run
from fmnist_cv.runtime import Devices


@pytest.fixture
def goes_wrong(quick: dict[str, Any]) -> dict[str, Any]:
    quick["model"]["class_path"] = "users_modules.DenseThatMayGoWrong"
    return quick


def test_a_fold_that_dies_fails_alone_and_is_resumed(
    commands: Commands, goes_wrong: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    config, runs = write_config(goes_wrong), tmp_path / "logs" / "tiny"
    ended = commands.run(
        "--config",
        config,
        "--cv.workers",
        2,
        "--run",
        "dies",
        cores=2,
        in_process=False,
        variables={"GOES_WRONG": "fold_1 1 3 kill"},
    )
    assert ended.status == FAILED
    assert "fold_1 failed: its process was killed by SIGKILL (out of memory?)" in ended.err
    assert "--resume dies" in ended.err
    assert "Traceback" not in ended.err
    assert "fold_1: FAILED" in ended.out
    assert sorted(path.parent.name for path in runs.glob("dies/*/metrics.json")) == ["fold_0", "fold_2"]
    assert not (runs / "dies" / "results.json").exists()

    times = {path: path.stat().st_mtime_ns for path in runs.glob("dies/*/metrics.json")}
    ended = commands.run("--config", config, "--cv.workers", 1, "--resume", "dies", cores=2)
    assert ended.status == 0, ended
    assert "fold_1: resumes after epoch 1\n" in ended.out
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    whole = commands.run("--config", config, "--cv.workers", 1, "--run", "whole")
    assert whole.status == 0
    died, lived = outcome(runs / "dies"), outcome(runs / "whole")
    for run in (died, lived):
        del run["results"]["environment"]  # it says how many cores there were
        for fold in [*run["results"]["folds"], *run["folds"].values()]:
            del fold["device"]
    assert died == lived


def test_a_fold_that_raises_fails_alone_with_its_traceback(
    goes_wrong: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, run = str(write_config(goes_wrong)), tmp_path / "logs" / "tiny" / "raises"
    monkeypatch.setenv("GOES_WRONG", "fold_0 2 0 raise")
    assert fit.main(["--config", config, "--run", "raises"]) == FAILED
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err and "users_modules.py" in err
    assert "fold_0 failed: RuntimeError: the layer is on fire" in err
    assert sorted(path.parent.name for path in run.glob("*/metrics.json")) == ["fold_1", "fold_2"]
    assert not (run / "results.json").exists()

    monkeypatch.delenv("GOES_WRONG")
    assert fit.main(["--resume", str(run)]) == OK
    assert "fold_0: resumes after epoch 2\n" in capsys.readouterr().out
    assert fit.main(["--config", config, "--run", "whole"]) == OK
    assert outcome(run) == outcome(run.with_name("whole"))


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, 5)])
def test_a_loss_that_is_not_finite_names_fold_epoch_and_step(
    goes_wrong: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    epoch: int,
    step: int,
) -> None:
    monkeypatch.setenv("GOES_WRONG", f"fold_1 {epoch} {step} nan")
    assert fit.main(["--config", str(write_config(goes_wrong)), "--run", "nan"]) == FAILED
    err = capsys.readouterr().err
    assert f"fold_1 failed: the training loss became nan in epoch {epoch}, step {step} " in err
    assert "Traceback" not in err
    finished = sorted(path.parent.name for path in (tmp_path / "logs" / "tiny" / "nan").glob("*/metrics.json"))
    assert finished == ["fold_0", "fold_2"]


@pytest.mark.parametrize("step", [0, 63, 64, 70, 104])
def test_the_step_is_right_in_a_long_epoch(
    goes_wrong: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    """Losses are looked at every 64 steps; here are 105 in an epoch."""
    goes_wrong["cv"]["holdout"] = 0.3
    goes_wrong["data"]["init_args"]["batch_size"] = 2
    monkeypatch.setenv("GOES_WRONG", f"fold_0 1 {step} nan")
    assert fit.main(["--config", str(write_config(goes_wrong))]) == FAILED
    assert f"the training loss became nan in epoch 1, step {step} (" in capsys.readouterr().err


def test_a_diverging_training_suggests_a_lower_learning_rate(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    quick["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e30}}
    assert fit.main(["--config", str(write_config(quick))]) == FAILED
    err = capsys.readouterr().err
    for fold in range(3):
        assert f"fold_{fold} failed: the training loss became " in err
    assert "lower the learning rate" in err and "Traceback" not in err


def test_an_interrupt_ends_the_command_and_is_resumed(
    goes_wrong: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, runs = str(write_config(goes_wrong)), tmp_path / "logs" / "tiny"
    monkeypatch.setenv("GOES_WRONG", "fold_1 1 3 interrupt")
    assert fit.main(["--config", config, "--run", "stopped"]) == INTERRUPTED
    captured = capsys.readouterr()
    assert "--resume last" in captured.err and "Traceback" not in captured.err
    assert "fold_2" not in captured.out

    monkeypatch.delenv("GOES_WRONG")
    assert fit.main(["--config", config, "--resume", "last"]) == OK
    assert fit.main(["--config", config, "--run", "whole"]) == OK
    assert outcome(runs / "stopped") == outcome(runs / "whole")


# -- how many at a time -------------------------------------------------------------------------------------


class FakeChild:
    """Replaces a fold's process; its last event is available at once."""

    running = 0
    most_at_once = 0
    started: list[tuple[FoldJob, int]]

    def __init__(self, job: FoldJob, device: int) -> None:
        cls = type(self)
        self.job, self.device = job, device
        self.events, sender = Pipe(duplex=False)
        sender.send(Finished(accuracy=0.5))
        self.process = SimpleNamespace(kill=lambda: None)
        cls.running += 1
        cls.most_at_once = max(cls.most_at_once, cls.running)
        cls.started.append((job, device))

    def receive(self) -> Any:
        return self.events.recv()

    def close(self) -> None:
        type(self).running -= 1
        self.events.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    n_folds=st.integers(1, 12),
    asked=st.none() | st.integers(1, 8),
    cores=st.integers(1, 8),
    gpus=st.integers(0, 3),
)
def test_each_fold_runs_once_and_no_more_at_a_time_than_requested(
    monkeypatch: pytest.MonkeyPatch, n_folds: int, asked: int | None, cores: int, gpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    child: Any = type("Child", (FakeChild,), {"started": []})
    monkeypatch.setattr(workers, "_Child", child)
    in_process: list[FoldJob] = []

    def run_here(job: FoldJob, notify: Notify) -> None:
        in_process.append(job)
        notify(Finished(accuracy=0.5))

    monkeypatch.setattr(workers, "run_fold", run_here)
    devices = Devices("cuda", tuple(range(gpus))) if gpus else Devices("cpu", (0,))
    split = Split([0], [1])  # type: ignore[arg-type]
    experiment: Any = None
    jobs = [
        FoldJob(f"fold_{i}", experiment, Path(f"fold_{i}"), split, 0, 1, "32-true", devices.accelerator, 0)
        for i in range(n_folds)
    ]
    events: list[tuple[FoldJob, Event]] = []
    workers.run_jobs(jobs, asked, devices, lambda job, event: events.append((job, event)))

    assert in_process + [job for job, _ in child.started] == jobs
    assert len(events) == len(jobs) and set(events) == {(job, Finished(accuracy=0.5)) for job in jobs}
    assert child.running == 0
    default = min(n_folds, gpus or cores)
    if asked is not None:
        assert child.most_at_once <= asked
        assert bool(in_process) == (asked == 1)
    else:
        assert child.most_at_once <= max(1, 2 * default - 1)
        assert workers.default_workers(n_folds, devices) == default
    used = [device for _, device in child.started]
    assert set(used) <= set(devices.indices)
    if gpus and asked is not None and asked <= gpus:
        assert len(set(used[:asked])) == min(asked, len(used))  # each its own


@pytest.mark.parametrize(
    ("cores", "asked", "threads"),
    [(1, None, 1), (2, None, 1), (4, None, 1), (8, None, 2), (8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 4, 1)],
)
def test_parallel_folds_have_no_more_threads_than_cores(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cores: int, asked: int | None, threads: int
) -> None:
    """By default one worker per core; with more workers than cores, each has one thread."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    quick["cv"] |= {"n_splits": 4, "workers": asked}
    seen: list[int] = []
    monkeypatch.setattr(
        cross_validation, "run_jobs", lambda jobs, *rest, **options: seen.extend(job.threads for job in jobs)
    )
    with pytest.raises(cross_validation.FoldsMissing):
        cross_validation.cross_validate(quick)
    assert seen == [threads] * 4
    at_once = asked or min(4, cores)
    assert threads == 1 or threads * at_once <= cores


def test_a_process_that_ends_with_a_status_is_reported() -> None:
    """Without a last event, whatever killed it; `os._exit` leaves a status instead of a signal."""
    for code, text in ((-signal.SIGSEGV, "was killed by SIGSEGV"), (3, "ended with exit status 3")):
        receiver, sender = Pipe(duplex=False)
        sender.close()
        child = object.__new__(workers._Child)
        child.events, child.process = receiver, SimpleNamespace(join=lambda: None, exitcode=code)
        event = child.receive()
        assert isinstance(event, Failed) and event.kind == FailureKind.DIED and event.may_be_retried
        assert text in event.reason
        assert ("out of memory" in event.reason) == (code == -signal.SIGKILL)


def test_a_fold_refuses_data_that_changed_after_the_split(quick: dict[str, Any], tmp_path: Path) -> None:
    """As one in another process does, which reads the images again; splits name them by their places."""
    images, labels = make_synthetic_images(60, 0)
    np.savez(tmp_path / "my.npz", images=images, labels=labels)
    quick["data"] = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "my.npz")}}
    job = replace(fold_job(prepare_run(as_experiment(quick), run="first"), 0), loaded=None)
    np.savez(tmp_path / "my.npz", images=images[::-1], labels=labels[::-1])
    events: list[Event] = []
    run_fold(job, events.append)
    assert isinstance(events[-1], Failed) and events[-1].kind == FailureKind.USER_ERROR
    assert events[-1].reason.startswith("the data have changed since the run was created (fingerprint ")
    np.savez(tmp_path / "my.npz", images=images, labels=labels)
    run_fold(job, events.append)
    assert isinstance(events[-1], Finished)
