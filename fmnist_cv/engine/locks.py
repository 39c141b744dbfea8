"""Lock files: only one process at a time works on a fold, a summary or a report."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from fmnist_cv.errors import UserError
from fmnist_cv.utils.user_text import print_line


class Locked(UserError):
    """Another process holds the lock."""


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock file."""
    try:
        with locked(path, wait=False, what=str(path)):
            return False
    except Locked:
        return True


@contextmanager
def locked(path: Path, *, wait: bool, what: str, console: Console | None = None) -> Iterator[None]:
    """Hold a lock file, which the system releases when the holding process ends, however it ends.

    Args:
        path: of the lock file.
        wait: wait for the lock instead of failing.
        what: the lock protects, for messages.
        console: where a wait is reported.

    Raises:
        Locked: another process holds it, and `wait` is false.
        FileNotFoundError: the folder is gone.
    """
    if not path.parent.is_dir():  # acquiring the lock would create it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        if not wait:
            raise Locked(f"{what} is being worked on by another process (it holds {path})") from None
        if console is not None:
            print_line(console, f"{what} is being worked on by another process; waiting")
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()
