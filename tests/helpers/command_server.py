"""Runs the commands in processes of their own that share one import of torch and Lightning, and kills them.

A program of its own that reads a JSON request per line from stdin and writes a JSON answer each to stdout. To start a
command it forks; the child does what `python -m fmnist_cv.COMMAND` does, with its own folder, environment and output, and
dies at the point it is told to die at. See `Commands` in running.py for the other side.
"""

from __future__ import annotations

import atexit
import builtins
import fcntl
import json
import os
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import util
from pathlib import Path
from typing import Any

from fmnist_cv.utils.importing import heavy_imports

with heavy_imports():  # all that commands import, before the first is started
    import fmnist_cv.analysis.compared_runs
    import fmnist_cv.cross_validation as cross_validation
    import fmnist_cv.engine.preloaded  # as the server that forks folds
    import fmnist_cv.inference.export
    import fmnist_cv.reporting.page
    import fmnist_cv.search.tuning  # noqa: F401
    from fmnist_cv import runtime
    from fmnist_cv.engine import processes


class KillPoint:
    """SIGKILL for this process at the n-th call of one operation on a file whose path matches.

    Args:
        operation: "replace", "rename", "link", "fsync" or "write" (of `open`).
        path: pattern to find in the path of the file that is made.
        when: "before", "after", or "inside" a write, with half of the bytes written.
        nth: which of the matching calls.
    """

    def __init__(self, operation: str, path: str, when: str, nth: int = 1) -> None:
        self.path, self.when, self.left = re.compile(path), when, nth
        getattr(self, f"_arm_{operation}")()

    def is_now(self, path: Any) -> bool:
        if self.path.search(str(path)):
            self.left -= 1
            return self.left == 0
        return False

    def _around(self, owner: Any, name: str, target: int) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            now = self.is_now(args[target])
            if now and self.when == "before":
                die()
            result = real(*args, **kwargs)
            if now:
                die()
            return result

        setattr(owner, name, patched)

    def _arm_replace(self) -> None:
        self._around(os, "replace", 1)

    def _arm_rename(self) -> None:
        self._around(os, "rename", 1)

    def _arm_link(self) -> None:
        self._around(os, "link", 1)

    def _arm_fsync(self) -> None:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            now = self.is_now(os.readlink(f"/proc/self/fd/{descriptor}"))
            if now and self.when == "before":
                die()
            real(descriptor)
            if now:
                die()

        os.fsync = fsync

    def _arm_write(self) -> None:
        real = builtins.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            handle = real(file, mode, *args, **kwargs)
            return DyingFile(handle) if "w" in mode and self.is_now(file) else handle

        builtins.open = opened


class DyingFile:
    """A file that takes half of what is first written to it, and then the process dies."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        self._file.write(content[: max(1, len(content) // 2)])
        self._file.flush()
        return die()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> DyingFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def keep_a_fork_server() -> None:
    """Fork a process now, while nothing has run here, that becomes the server of the command's folds when it asks for one.

    A fresh server needs seconds to import torch; all else is done by multiprocessing as ever.
    """
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        here.close()
        become_fork_server(there)
    there.close()
    start_fresh = util.spawnv_passfds

    def spawn(path: Any, arguments: list[str], descriptors: list[int]) -> int:
        if here.fileno() < 0 or "multiprocessing.forkserver" not in arguments[-1]:  # it was asked before, and has died
            return start_fresh(path, arguments, descriptors)
        socket.send_fds(here, [json.dumps([arguments[-1], descriptors]).encode()], descriptors)
        here.close()
        return child

    util.spawnv_passfds = spawn


def become_fork_server(there: socket.socket) -> None:
    """Run the program that a fresh server would be started with; end if nobody asks for it."""
    asked, received, *_ = socket.recv_fds(there, 2**16, 2)
    if asked:
        program, numbers = json.loads(asked)
        there.close()
        above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 1 + max(received + numbers)) for descriptor in received]
        for descriptor in received:
            os.close(descriptor)
        for descriptor, number in zip(above, numbers, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        processes._remove_sockets_with_the_server.__defaults__ = (os.getpid(),)
        try:
            exec(program)
        except SystemExit:
            atexit._run_exitfuncs()
    os._exit(0)


def run_child(request: dict[str, Any]) -> None:
    for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdin.close()
    os.open(os.devnull, os.O_RDONLY)  # a descriptor that is passed on must not become the standard input
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have set to be ignored
    os.environ.update(request["environment"])
    if request["folder"]:
        os.chdir(request["folder"])
    sys.path[0] = os.getcwd()
    if request["keeps_fork_server"]:
        keep_a_fork_server()
    if (cores := request["cores"]) is not None:
        os.sched_getaffinity = lambda process: set(range(cores))  # decides the folds' threads
        runtime.cpu_quota = lambda: float("inf")
    if request["in_process"]:
        cross_validation.warm_up = lambda: None  # spares a process that would import torch and never be used
    if request["kill"]:
        KillPoint(**request["kill"])
    module = f"fmnist_cv.{request['command']}"
    sys.modules.pop(module, None)
    sys.argv = [module, *request["arguments"]]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start(request: dict[str, Any]) -> int:
    """The number of the process that runs the command."""
    for name in ("stdout", "stderr"):
        Path(request[name]).write_text("")
    child = os.fork()
    if not child:
        try:
            run_child(request)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(70)
    return child


def ended(child: int, wait: bool) -> int | None:
    """A process's exit status, negative for a signal; None while it runs, unless it is waited for."""
    found, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def kill_after(child: int, output: str, text: str, seconds: float) -> int:
    """Kill a process some seconds after a text of its output; its exit status."""
    while text not in Path(output).read_text():
        if (status := ended(child, wait=False)) is not None:
            return status
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve() -> None:
    for line in sys.stdin:
        action, arguments = json.loads(line)
        answer: Callable[..., int | None] = {"start": start, "ended": ended, "kill_after": kill_after}[action]
        print(json.dumps(answer(*arguments)), flush=True)


if __name__ == "__main__":
    serve()
