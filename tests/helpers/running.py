"""Runs of the command in processes of their own, and what two runs must agree on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    """Runs `python -m fmnist_cv.fit` in processes of their own that share one import (see command_server.py)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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
        kill: tuple[Any, ...] | None = None,
        kill_after: tuple[str, float] | None = None,
        cores: int = 1,
        in_process: bool = True,
        variables: dict[str, str] | None = None,
    ) -> Ended:
        """Run the command to its end.

        Args:
            arguments: of the command.
            kill: operation, path, when and which of the calls, see `KillPoint` in command_server.py.
            kill_after: a text of the output, and the seconds from then to the kill.
            cores: how many the command believes to have.
            in_process: its folds run in the command's own process.
            variables: environment variables.
        """
        out, err = self._folder / "stdout", self._folder / "stderr"
        request = {
            "arguments": [str(a) for a in arguments],
            "stdout": str(out),
            "stderr": str(err),
            "kill": dict(zip(("operation", "path", "when", "nth"), kill, strict=False)) if kill else None,
            "kill_after": dict(zip(("text", "seconds"), kill_after, strict=True)) if kill_after else None,
            "cores": cores,
            "in_process": in_process,
            "environment": variables or {},
        }
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = json.loads(self._server.stdout.readline())["status"]
        return Ended(status, out.read_text(), err.read_text())

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()


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
