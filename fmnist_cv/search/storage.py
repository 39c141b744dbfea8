"""Where a study is kept: a journal file or a database; whose trials have died with their process, and who is next."""

from __future__ import annotations

import copy
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import psutil
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState
from rich.console import Console

from fmnist_cv.errors import UserError
from fmnist_cv.validation.run_folder import locked

OWNER = "owner"  # user attributes of a trial: the process that runs it,
ENDED = "ended"  # and why it was ended without being finished, where running it again may help
HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 120
PATIENCE_SECONDS = 600  # for a database that does not answer

T = TypeVar("T")


class StudyStorage:
    """An opened storage, and what processes that share it must agree on.

    Args:
        where: a PostgreSQL URL, a SQLite URL, or the path of a journal file.
        workers: trials side by side.
        console: where waiting for a database is told.

    Raises:
        UserError: it cannot be opened, or not by several workers.
    """

    def __init__(self, where: str, workers: int, console: Console | None = None) -> None:
        self.where, self._console = where, console
        self._lock_path: Path | None = None
        self._engine: sqlalchemy.Engine | None = None
        self.shown = _without_password(where)
        self.storage = self._open(workers)

    def _open(self, workers: int) -> BaseStorage:
        scheme = self.where.partition("://")[0] if "://" in self.where else ""
        if scheme == "sqlite" and workers > 1:
            raise UserError(
                f"--storage is {self.where}, but SQLite locks the whole file for each write and loses trials of {workers} "
                "workers; leave --storage out for a journal file, use PostgreSQL, or --workers 1"
            )
        if scheme == "sqlite":
            path = Path(self.where.split(":///", 1)[-1])
            self._lock_path = path.with_name(f".{path.name}.handing-out.lock")
            return self._open_database(self.where)
        if scheme.startswith("postgres"):
            return self._open_database("postgresql+psycopg://" + self.where.partition("://")[2])
        if scheme:
            raise UserError(f"--storage is {self.where}; give postgresql://..., or the path of a journal file")
        path = Path(self.where)
        self._lock_path = path.with_name(f".{path.name}.handing-out.lock")
        return _open_journal(path)

    def _open_database(self, url: str) -> RDBStorage:
        try:
            storage = RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        except ImportError:
            raise UserError("PostgreSQL needs its driver: pip install 'fmnist_cv[postgres]'") from None
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, ValueError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise UserError(f"cannot open the storage {self.shown}: {reason}") from None
        if url.startswith("postgresql"):
            self._engine = storage.engine
        return storage

    @contextmanager
    def handing_out(self, study: str) -> Iterator[None]:
        """Hold the lock under which trials are handed out, in all processes and on all machines of the study."""
        if self._lock_path is not None:
            with locked(self._lock_path, wait=True, what="the study"):
                yield
            return
        assert self._engine is not None
        with self._engine.connect() as connection:  # PostgreSQL lets go of the lock when the connection ends, however
            connection.execute(sqlalchemy.text("select pg_advisory_lock(hashtext(:study))"), {"study": study})
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text("select pg_advisory_unlock(hashtext(:study))"), {"study": study})

    def patiently(self, do: Callable[[], T]) -> T:
        """Do it, again and again while the database does not answer; it must do no harm when done twice.

        Raises:
            UserError: no answer for ten minutes.
        """
        if not isinstance(self.storage, RDBStorage):
            return do()
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                return do()
            except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise UserError(
                        f"{self.shown} has not answered for {PATIENCE_SECONDS // 60} minutes ({error}); "
                        "the same command goes on when it does"
                    ) from None
                if self._console is not None and pause < 1:
                    self._console.print(f"{self.shown} does not answer; trying again", markup=False)
                time.sleep(pause)
                pause = min(2 * pause, 10)

    def heartbeat(self, trials: list[optuna.Trial]) -> None:
        """Tell the database that these trials are alive; a journal has no heartbeats."""
        if isinstance(self.storage, RDBStorage):
            for trial in trials:
                self.storage.record_heartbeat(trial._trial_id)


def _open_journal(path: Path) -> JournalStorage:
    if path.is_dir():
        raise UserError(f"--storage is {path}, a folder; give the path of a journal file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        try:
            cut_torn_line(path)
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise UserError(f"cannot open the journal {path}: {error.strerror}") from None
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} is no journal of Optuna's, or a damaged one ({error}); move it away to start anew"
        ) from None


def cut_torn_line(path: Path) -> None:
    """Take off a last line that a killed process did not finish; what is appended to it could never be read.

    The journal's lock must be held.
    """
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 65536)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
        whole = end + tail.rfind(b"\n") + 1
        if whole < end + len(tail):
            file.truncate(whole)
            os.fsync(file.fileno())


def _without_password(url: str) -> str:
    return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True) if "://" in url else url


# -- owners of trials ---------------------------------------------------------------------------------------


def this_process() -> dict[str, Any]:
    """Which process on which machine, for good: a process number alone comes again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_dead(owner: dict[str, Any]) -> bool:
    """Whether a trial's process has ended; of other machines' nothing is known."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) > 1
    except psutil.NoSuchProcess:
        return True


def sign(trial: optuna.Trial) -> None:
    """Make a trial that was just handed out this process's own."""
    trial.set_user_attr(OWNER, this_process())
    trial.set_user_attr(ENDED, None)  # of the trial that it may be a retry of


def end_trials(study: optuna.Study, why: str, which: Callable[[dict[str, Any]], bool]) -> None:
    """Tell running trials as failed, to be run again, if `which` says so of their owner.

    The lock of handing out must be held.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is None or which(owner):  # not signed: its process died, or was interrupted, before it could
            study._storage.set_trial_user_attr(trial._trial_id, ENDED, why)
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    optuna.storages.fail_stale_trials(study)  # other machines' trials without a heartbeat: retried by the storage


def retry_one_ended(study: optuna.Study) -> None:
    """Queue the first trial that was ended and not run again, with its parameters, linked to it.

    The lock of handing out must be held.
    """
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.user_attrs.get(ENDED) and trial.number not in retried:
            RetryHeartbeatStaleTrialCallback()(study, copy.deepcopy(trial))
            return
