"""Processes for folds: where they can be started at all, and what a killed one leaves behind."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver, reduction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import read_json

from fmnist_cv import fit
from fmnist_cv.command_line import OK, USER_ERROR
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.engine import processes
from fmnist_cv.errors import UserError
from fmnist_cv.search.tuning import tune

# -- the server is killed -----------------------------------------------------------------------------------


def kill_server() -> None:
    server: Any = forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGKILL)
    os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOWAIT)  # dead, but nobody has heard of it


def dying_server(monkeypatch: pytest.MonkeyPatch, when: str, deaths: int) -> list[int]:
    """It is killed just before or just after a process is requested."""
    done: list[int] = []
    send = reduction.sendfds

    def sendfds(*arguments: Any) -> None:
        if when == "after":
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGSTOP)  # type: ignore[attr-defined]
            send(*arguments)
        if len(done) < deaths:
            done.append(1)
            kill_server()
        if when == "before":
            send(*arguments)
        else:
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGCONT)  # type: ignore[attr-defined]

    monkeypatch.setattr(reduction, "sendfds", sendfds)
    return done


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_is_killed_as_a_fold_starts_is_started_again(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    done = dying_server(monkeypatch, when, deaths=1)
    process = processes.start_process(sys.exit, (7,), "fold_0")
    process.join()
    assert (process.exitcode, done) == (7, [1])


def test_a_server_that_is_killed_each_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    dying_server(monkeypatch, "before", deaths=9)
    with pytest.raises(UserError, match=r"no process can be started for fold_0: .* use --cv\.workers 1"):
        processes.start_process(sys.exit, (7,), "fold_0")


# -- its socket ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_folder_yet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """As in a command that has just started."""
    settings: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(settings, "tempdir", None)
    return settings


def test_what_killed_commands_left_is_removed_and_what_others_use_is_not(
    no_folder_yet: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        dead, alive, other = (Path(place, name) for name in ("fmnist_cv-dead", "fmnist_cv-alive", "pymp-other"))
        for folder in (dead, alive, other):
            folder.mkdir()
            (folder / "listener-x").touch()
        descriptor = os.open(alive, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        processes._make_room_for_sockets()
        mine = Path(no_folder_yet["tempdir"])
        assert mine.parent == Path(place)
        assert sorted(Path(place).iterdir()) == sorted([alive, mine, other])
        processes._make_room_for_sockets()
        assert no_folder_yet["tempdir"] == str(mine)
        os.close(descriptor)


@pytest.mark.parametrize("what", ["long", "missing", "none"])
def test_an_unsuitable_temporary_folder_is_not_used(
    no_folder_yet: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The path of a socket has at most 104 characters on macOS, 108 on Linux."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", {"long": str(long), "missing": "/tmp/missing"}.get(what))
    if what == "none":
        monkeypatch.setattr(tempfile, "mkdtemp", lambda **where: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(UserError, match=r"set TMPDIR to another, or use --cv\.workers 1"):
            processes._make_room_for_sockets()
        return
    processes._make_room_for_sockets()
    folder = Path(no_folder_yet["tempdir"])
    assert not folder.is_relative_to(tmp_path) and len(str(folder / "listener-12345678")) < 100
    folder.rmdir()


# -- no processes at all ------------------------------------------------------------------------------------

NOTEBOOK = SimpleNamespace(__spec__=None)
NOWHERE: dict[str, tuple[SimpleNamespace, bool, str | None]] = {
    "an ordinary script": (SimpleNamespace(__spec__=None, __file__=__file__), False, None),
    "a module": (SimpleNamespace(__spec__=SimpleNamespace(name="pytest.__main__")), False, None),
    "a notebook with imported classes": (NOTEBOOK, False, None),
    "a notebook's own class": (NOTEBOOK, True, "Net is defined in a notebook or session"),
    "a script's own class": (SimpleNamespace(__spec__=None, __file__=__file__), True, None),
    "standard input": (
        SimpleNamespace(__spec__=None, __file__="<stdin>"),
        False,
        "the running script, <stdin>, is not a file",
    ),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_where_folds_can_run_in_processes_of_their_own(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    main, own_class, why = NOWHERE[what]
    experiment = as_experiment(tiny)
    if own_class:
        experiment.config.model.class_path = "__main__.Net"
    monkeypatch.setitem(sys.modules, "__main__", main)
    found = processes.reason_against_processes(experiment)
    assert found is None if why is None else why in str(found)


def test_a_daemonic_process_runs_folds_sequentially_and_reports_the_reason(
    quick: dict[str, Any],
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    config, runs = str(write_config(quick)), tmp_path / "logs"
    assert fit.main(["--config", config, "--cv.workers", "2"]) == USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: cv.workers is 2, but this process is daemonic") and "use --cv.workers 1" in err
    assert not runs.exists()
    assert fit.main(["--config", config, "--cv.workers", "null", "--run", "one"]) == OK
    assert "one fold after another (cv.workers 1): this process is daemonic" in capsys.readouterr().out
    assert read_json(runs / "tiny" / "one" / "run.json")["environment"]["threads_per_fold"] == 2
    with pytest.raises(UserError, match="a search runs its folds in separate processes, but this process is daemonic"):
        tune({"name": "s", "experiment": config, "space": {"model.dropout": {"float": [0.0, 0.5]}}, "trials": 1})


def test_an_unguarded_script_gets_an_error_instead_of_starting_everything_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fold's process imports the script that was started."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match='if __name__ == "__main__"'):
        processes.warm_up()
