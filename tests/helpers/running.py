"""Runs of the command in processes of their own, and what two runs must agree on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit status (negative: killed by that signal) and what it printed."""

    status: int
    out: str
    err: str


class Commands:
    """Runs `python -m fmnist_cv.COMMAND` in processes of their own that share one import (see command_server.py)."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._n_started = folder, 0
        self.temporary = folder / "tmp"  # nothing may be left there
        self.temporary.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, HERE / "command_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(TMPDIR=str(self.temporary)),
        )

    def run(
        self,
        *arguments: object,
        kill_after: tuple[str, float] | None = None,
        cores: int | None = 1,
        in_process: bool = True,
        **options: Any,
    ) -> Ended:
        """Run a command, `fit` unless another one is named, and wait for its end.

        Args:
            arguments: of the command.
            kill_after: a text of the output, and the seconds from then to the kill.
            cores, in_process, options: see `start`.
        """
        started = self.start(*arguments, cores=cores, in_process=in_process, **options)
        status = started.kill_after(*kill_after) if kill_after else started.wait()
        return Ended(status, *started.output())

    def start(
        self,
        *arguments: object,
        command: str = "fit",
        folder: Path | None = None,
        kill: tuple[Any, ...] | None = None,
        cores: int | None = None,
        in_process: bool = False,
        fresh_fork_server: bool = False,
        variables: dict[str, str] | None = None,
    ) -> Started:
        """Start a command.

        Args:
            arguments: of the command.
            command: its name.
            folder: where it is started.
            kill: operation, path, when and which of the calls, see `KillPoint` in command_server.py.
            cores: how many the command believes to have; None for those it has.
            in_process: its folds run in the command's own process.
            fresh_fork_server: the server that forks its folds is a new interpreter, as it is for users, and has the
                environment variables from its start.
            variables: environment variables.
        """
        self._n_started += 1
        out, err = (self._folder / f"{name}-{self._n_started}" for name in ("stdout", "stderr"))
        request = {
            "command": command,
            "arguments": [str(a) for a in arguments],
            "folder": str(folder) if folder else None,
            "stdout": str(out),
            "stderr": str(err),
            "kill": dict(zip(("operation", "path", "when", "nth"), kill, strict=False)) if kill else None,
            "cores": cores,
            "in_process": in_process,
            "keeps_fork_server": not in_process and not fresh_fork_server,
            "environment": variables or {},
        }
        return Started(self, self.ask("start", request), out, err)

    def ask(self, action: str, *arguments: Any) -> Any:
        """The server's answer."""
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps([action, arguments]) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()


class Started:
    """A command that may still run."""

    def __init__(self, commands: Commands, pid: int, out: Path, err: Path) -> None:
        self._commands, self.pid, self._out, self._err = commands, pid, out, err
        self.returncode: int | None = None  # negative: killed by that signal

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        if self.returncode is None:
            self.returncode = self._commands.ask("ended", self.pid, False)
        return self.returncode

    def wait(self) -> int:
        """Its exit status, when it ends."""
        if self.returncode is None:
            self.returncode = self._commands.ask("ended", self.pid, True)
        return self.returncode

    def kill_after(self, text: str, seconds: float) -> int:
        """Kill it some seconds after a text of its output; its exit status."""
        self.returncode = self._commands.ask("kill_after", self.pid, str(self._out), text, seconds)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it printed, when it ends, as from `subprocess.Popen`."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                self.wait()
                raise TimeoutError("\n".join(self.output()))
            time.sleep(0.02)
        return self.output()

    def output(self) -> tuple[str, str]:
        """What it has printed: stdout and stderr."""
        return self._out.read_text(), self._err.read_text()


def environment(**variables: str) -> dict[str, str]:
    """For child processes: they find the package and the users' modules."""
    path = os.pathsep.join(p for p in (str(ROOT), str(HERE), os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **variables}


def outcome(run: Path) -> dict[str, Any]:
    """What two runs of one experiment must agree on, to the bit: all but times, names and the checkout's state."""
    results = read_json(run / "results.json")
    del results["times"], results["run"], results["environment"]["commit"]
    folds = {}
    for fold in results["folds"]:
        folds[fold["name"]] = read_json(run / fold["name"] / "metrics.json")
        del folds[fold["name"]]["times"]
    arrays = {fold: raw_arrays(run / fold / "probabilities.npz") for fold in folds}
    return {"results": results, "folds": folds, "arrays": arrays, "out_of_fold": raw_arrays(run / "out_of_fold.npz")}


def raw_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: (file[name].shape, file[name].tobytes()) for name in file.files}


def read_json(path: Path) -> Any:
    """What a run's file holds, but for its digest."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "digest"}
