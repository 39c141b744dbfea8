"""Starts the processes of folds: forked from a server that has imported torch, or spawned."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.identity import flatten
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.errors import UserError

# Forking from a server that has imported torch starts a fold in milliseconds; without fork, spawn.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
MAX_STARTS = 3  # of a process whose server dies meanwhile
MAX_FOLDER_BYTES = 60  # a socket's path below it may have 104 bytes on macOS, 108 on Linux
PREFIX = "fmnist_cv-"


def warm_up() -> None:
    """Start importing what folds need in the server process, while this process reads and checks the experiment.

    Raises:
        UserError: a fold's process is importing the calling script, which would start everything again.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "folds in processes of their own import the script that was started, and this one starts them "
            'again at its top level; put that below `if __name__ == "__main__":`'
        )
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        _make_room_for_sockets()
        multiprocessing.get_context(METHOD).set_forkserver_preload(["fmnist_cv.engine.preloaded", __name__])
        forkserver.ensure_running()


def start_process(target: Callable[..., None], arguments: tuple[Any, ...], name: str) -> BaseProcess:
    """Start a process; if its server dies meanwhile, start both again.

    Raises:
        UserError: it dies each time.
    """
    context: Any = multiprocessing.get_context(METHOD)
    for _ in range(MAX_STARTS):
        if METHOD == "forkserver":
            _make_room_for_sockets()
        process: BaseProcess = context.Process(target=target, args=arguments, name=name)
        # the server may be killed before or after it answers
        with suppress(EOFError, ConnectionError, FileNotFoundError):
            process.start()
            return process
    raise UserError(
        f"no process can be started for {name}: the server that forks it was killed {MAX_STARTS} times (out of "
        "memory?); use --cv.workers 1, which needs no other process"
    )


def reason_against_processes(experiment: Experiment) -> str | None:
    """The reason why folds of this experiment cannot run in processes of their own; None if they can."""
    if multiprocessing.current_process().daemon:
        return "this process is daemonic (e.g. a worker of a pool), which may not start others"
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if spec is None and file is not None and not os.path.isfile(file):
        return f"the running script, {file}, is not a file that other processes could import"
    values = flatten(load_yaml(experiment.to_yaml()))
    local_class = next((value for _, value in values if isinstance(value, str) and value.startswith("__main__.")), None)
    if local_class is not None and spec is None and file is None:
        return f"{local_class.partition('.')[2]} is defined in a notebook or session, from which other processes cannot import it"
    return None


# -- the folder of the server's socket -------------------------------------------------------------------------


def _make_room_for_sockets() -> None:
    """Give multiprocessing a folder for its sockets in which their paths are short enough.

    It is locked while this process lives, so that a later one can remove the folders of killed processes; the server,
    which outlives a killed command by a moment, removes it as well.
    """
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if os.path.isdir(settings.get("tempdir") or ""):
        return
    new = _new_folder()
    for left in new.parent.glob(f"{PREFIX}*"):
        if (descriptor := _lock(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)
    _lock(new)  # before it gets the name that other processes search for
    folder = new.rename(new.with_name(new.name.removeprefix(".")))
    settings["tempdir"] = str(folder)
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)  # as multiprocessing does with its own


def _new_folder() -> Path:
    """A new folder among the temporary files, or elsewhere if that is full or its path too long."""
    with suppress(FileNotFoundError):  # no temporary folder is writable
        for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
            if len(os.fsencode(place)) <= MAX_FOLDER_BYTES:
                with suppress(OSError):
                    return Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
    raise UserError(
        "processes for folds need a folder for sockets, but the temporary folder and /tmp cannot be written, or "
        f"their paths have more than {MAX_FOLDER_BYTES} characters; set TMPDIR to another, or use --cv.workers 1, "
        "which needs no other process"
    )


def _lock(folder: Path) -> int | None:
    """Lock a folder until this process ends or the descriptor is closed; None if another process has locked it."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # another user's, or gone
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_sockets_with_the_server(server: int = os.getpid()) -> None:
    """Runs at the exit of every process that imports this module; has an effect only in the server."""
    if "multiprocessing.forkserver" in sys.modules and os.getpid() == server:
        from multiprocessing import forkserver

        known: Any = forkserver._forkserver
        if known._forkserver_pid is None and known._forkserver_address:
            shutil.rmtree(os.path.dirname(known._forkserver_address), ignore_errors=True)


atexit.register(_remove_sockets_with_the_server)
