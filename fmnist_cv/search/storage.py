"""Where a study is kept: a journal file, SQLite or PostgreSQL; opened, locked, and retried while a server is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from rich.console import Console

from fmnist_cv.errors import UserError
from fmnist_cv.search.journal import open_journal
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import print_line

HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 120
RETRY_SECONDS = 600  # how long an unavailable database is tried again
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0  # between attempts
SQLITE_LIMIT = "SQLite locks the whole file for each write and loses trials of several processes"
STORAGE_UNAVAILABLE = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError)

T = TypeVar("T")


class StudyStorage:
    """An open storage, to be closed.

    Args:
        where: a PostgreSQL URL, a SQLite URL, or the path of a journal file.
        workers: trials that run in parallel.
        console: where it is printed that a database is unavailable.

    Attributes:
        shown: `where` without a password.
        storage: Optuna's.
        path: the file, if it is one.

    Raises:
        UserError: it cannot be opened, or not by several workers.
    """

    def __init__(self, where: str, workers: int, console: Console | None = None) -> None:
        self.where, self.shown, self._console = where, _without_password(where), console
        self.path: Path | None = None
        self._available_since = float("-inf")
        self._server: sqlalchemy.Engine | None = None
        self._sqlite_lock: FileLock | None = None
        self.storage = self._open(workers)

    def close(self) -> None:
        """Release the locks."""
        if self._sqlite_lock is not None:
            self._sqlite_lock.release()

    def _open(self, workers: int) -> BaseStorage:
        scheme = self.where.partition("://")[0] if "://" in self.where else ""
        if scheme == "sqlite":
            if workers > 1:
                raise UserError(
                    f"--storage is {self.where} with {workers} workers, but {SQLITE_LIMIT}; leave --storage out for a "
                    "journal file, use PostgreSQL, or --workers 1"
                )
            self.path = _file(self.where.split(":///", 1)[-1]).absolute()
            storage = self._open_database(f"sqlite:///{self.path}")
            self._lock_sqlite(self.path)
            return storage
        if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            storage = self._open_database("postgresql+psycopg://" + self.where.partition("://")[2])
            self._server = storage.engine
            return storage
        if scheme:
            raise UserError(f"--storage is {self.shown}; give postgresql://..., or the path of a journal file")
        self.path = _file(self.where).absolute()
        return open_journal(self.path)

    def _open_database(self, url: str) -> RDBStorage:
        for last_try in (False, True):
            try:
                return RDBStorage(
                    url,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
            except ImportError:
                raise UserError("PostgreSQL needs its driver: pip install 'fmnist_cv[postgres]'") from None
            except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ValueError) as error:
                if last_try or isinstance(error, STORAGE_UNAVAILABLE):
                    reason = first_line(getattr(error, "orig", None) or error)
                    raise UserError(f"cannot open the storage {self.shown}: {reason}") from None
                time.sleep(1)  # another process may be creating the tables
        raise AssertionError

    def _lock_sqlite(self, path: Path) -> None:
        self._sqlite_lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            self._sqlite_lock.acquire()
        except Timeout:
            raise UserError(
                f"another process uses {self.where}, and {SQLITE_LIMIT}; leave --storage out for a journal file, or "
                "use PostgreSQL"
            ) from None

    @contextmanager
    def dispatch_lock(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold the lock under which the next trial of a study is chosen, across processes and machines.

        Yields:
            A check that the lock is still held, which raises one of STORAGE_UNAVAILABLE if not: a restarted database
            releases it.
        """
        if self._server is None:
            assert self.path is not None
            with FileLock(self.path.with_name(f".{self.path.name}.dispatch.lock")):
                yield lambda: None
            return
        with self._server.begin() as connection:  # PostgreSQL releases the lock when this transaction ends
            # a machine that loses its network while it holds the lock must not block the others
            connection.execute(sqlalchemy.text("set local idle_in_transaction_session_timeout = '60s'"))
            connection.execute(sqlalchemy.text("select pg_advisory_xact_lock(hashtext(:study))"), {"study": study})
            yield lambda: connection.execute(sqlalchemy.text("select 1")).close()

    @property
    def is_server(self) -> bool:
        """Whether the storage is a server, which may be unavailable for a while."""
        return self._server is not None

    @property
    def just_available(self) -> bool:
        """Whether it was unavailable until a moment ago, so that heartbeats may still be missing."""
        return time.monotonic() - self._available_since < GRACE_SECONDS

    def retry(self, operation: Callable[[], T]) -> T:
        """Run an operation, again with exponential backoff while the server is unavailable.

        Args:
            operation: must be idempotent: it may have succeeded without an answer.

        Raises:
            UserError: the server is unavailable for ten minutes, or the storage is a file and cannot be used.
        """
        began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                result = operation()
            except STORAGE_UNAVAILABLE as error:
                if not self.is_server or time.monotonic() - began > RETRY_SECONDS:
                    raise UserError(
                        f"the storage {self.shown} is unavailable ({first_line(error)}); run the same command again "
                        "to resume the study"
                    ) from None
                if self._console is not None and pause == FIRST_PAUSE_SECONDS:
                    print_line(self._console, f"the storage {self.shown} is unavailable; retrying")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if pause > FIRST_PAUSE_SECONDS:
                    self._available_since = time.monotonic()
                return result


def first_line(error: object) -> str:
    """The first line of an error's message; a database's errors have many."""
    return str(error).strip().splitlines()[0]


def _file(where: str) -> Path:
    """The path of a regular file or a new one: a pipe would block when opened, and a device never ends."""
    path = user_path(where, "--storage")
    try:
        return regular_file(path)
    except OSError:  # it does not exist yet, or opening it reports the reason
        return path
    except UserError as error:
        raise UserError(f"--storage: {error}, or leave it out for a journal in the study's folder") from None


def _without_password(url: str) -> str:
    if "://" not in url:
        return url
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise UserError(f"--storage is not a valid URL ({error}); give postgresql://user@host/name") from None
