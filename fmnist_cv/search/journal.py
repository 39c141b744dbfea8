"""A study's journal file, which stays readable when a process dies while writing it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fmnist_cv.errors import CannotWrite, UserError
from fmnist_cv.search.optuna_internals import SystemLock


class _Journal(JournalFileBackend):
    """A journal whose incomplete last line, left by a killed process, is removed before the next line is appended."""

    def __init__(self, path: Path) -> None:
        self._path, self._line_lock = path, SystemLock(path.with_name(f".{path.name}.lock"))
        super().__init__(str(path), self._line_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._line_lock.acquire()  # reentrant: Optuna acquires it again
        try:
            cut_torn_line(self._path)
            super().append_logs(logs)
        except OSError as error:
            raise CannotWrite(
                f"cannot write the study's journal {self._path}: {error.strerror}; when it can be written "
                "again, the same command resumes the study"
            ) from None
        finally:
            self._line_lock.release()


def open_journal(path: Path) -> JournalStorage:
    """Open or create a journal.

    Raises:
        UserError: it cannot be written, or is not a journal.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise UserError(f"cannot open the journal {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not an Optuna journal, or is damaged ({error}); choose another file with --storage"
        ) from None


def cut_torn_line(path: Path) -> None:
    """Remove a last line without a line break, which would make the next line unreadable. The lock must be held."""
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
