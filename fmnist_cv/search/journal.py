"""A study's journal file, which survives processes that die while they write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fmnist_cv.errors import CannotWrite, UserError


class _SystemLock(JournalFileOpenLock):
    """A lock that the system lets go of when its holder dies; Optuna's own are waited for, or hang."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class _Journal(JournalFileBackend):
    """A journal whose torn last line, of a process that was killed while it wrote, is cut off before the next one."""

    def __init__(self, path: Path) -> None:
        self._path, self._line_lock = path, _SystemLock(path.with_name(f".{path.name}.lock"))
        super().__init__(str(path), self._line_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._line_lock.acquire()  # the lock may be taken twice by one thread
        try:
            cut_torn_line(self._path)
            super().append_logs(logs)
        except OSError as error:
            raise CannotWrite(
                f"cannot write the study's journal {self._path}: {error.strerror}; the same command goes on "
                "when it can be written"
            ) from None
        finally:
            self._line_lock.release()


def open_journal(path: Path) -> JournalStorage:
    """Open or make it.

    Raises:
        UserError: it cannot be written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise UserError(f"cannot open the journal {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no journal of Optuna's, or a damaged one ({error}); choose another with --storage"
        ) from None


def cut_torn_line(path: Path) -> None:
    """Take off a last line that has no end: what is appended to it could never be read. Its lock must be held."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end or (file.seek(-1, os.SEEK_END), file.read(1))[1] == b"\n":
            return
        tail = b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 65536)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
        file.truncate(end + tail.rfind(b"\n") + 1)
        os.fsync(file.fileno())
