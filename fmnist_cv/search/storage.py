"""Where a study is kept: a journal file or a database; whose trials have died with their process, and who is next."""

from __future__ import annotations

import copy
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import psutil
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from fmnist_cv.errors import UserError
from fmnist_cv.search.journal import open_journal
from fmnist_cv.search.outcomes import FAILED, RUN, retried_numbers
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import print_line

OWNER = "owner"  # user attributes of a trial: the process that runs it,
ENDED = "ended"  # and why it was ended without being finished, where running it again may help
HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 120
PATIENCE_SECONDS = 600  # for a database that does not answer
SQLITE = "locks the whole file for each write and loses trials of several processes"
AWAY = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError)

T = TypeVar("T")


class StudyStorage:
    """An opened storage, and what processes that share it must agree on; to be closed.

    Args:
        where: a PostgreSQL URL, a SQLite URL, or the path of a journal file.
        workers: trials side by side.
        console: where waiting for a database is told.

    Raises:
        UserError: it cannot be opened, or not by several workers.
    """

    def __init__(self, where: str, workers: int, console: Console | None = None) -> None:
        self.where, self.shown, self._console = where, _without_password(where), console
        self._engine: sqlalchemy.Engine | None = None  # of PostgreSQL
        self._answers_since = float("-inf")  # when a database that did not answer did so again
        self._beside: Path | None = None  # what a file's locks are beside
        self.storage = self._open(workers)
        self.me = _this_process()
        self._alive: FileLock | None = None  # the system lets go of it when this process dies, however it dies
        if self._beside is not None:
            self._alive = FileLock(self._alive_path(self.me))
            self._alive.acquire()
            if isinstance(self.storage, RDBStorage) and self._others_alive():
                self.close()
                raise UserError(
                    f"another process uses {self.where}, and SQLite {SQLITE}; leave --storage out for a journal "
                    "file, or use PostgreSQL"
                )

    def close(self) -> None:
        """Sign off: what this process still runs counts as dead."""
        if self._alive is not None:
            self._alive.release()
            self._alive_path(self.me).unlink(missing_ok=True)

    # -- opening --------------------------------------------------------------------------------------------

    def _open(self, workers: int) -> BaseStorage:
        scheme = self.where.partition("://")[0] if "://" in self.where else ""
        if scheme == "sqlite":
            if workers > 1:
                raise UserError(
                    f"--storage is {self.where} with {workers} workers, but SQLite {SQLITE}; leave --storage out for a "
                    "journal file, use PostgreSQL, or --workers 1"
                )
            file = _file(self.where.split(":///", 1)[-1])
            self._beside = file.absolute()
            return self._open_database(f"sqlite:///{file}")
        if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            storage = self._open_database("postgresql+psycopg://" + self.where.partition("://")[2])
            self._engine = storage.engine
            return storage
        if scheme:
            raise UserError(f"--storage is {self.shown}; give postgresql://..., or the path of a journal file")
        self._beside = _file(self.where).absolute()
        return open_journal(self._beside)

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
                if last_try or isinstance(error, AWAY):
                    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
                    raise UserError(f"cannot open the storage {self.shown}: {reason}") from None
                time.sleep(1)  # another process may be making the tables just now
        raise AssertionError

    # -- shared with other processes ------------------------------------------------------------------------

    @contextmanager
    def handing_out(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold the lock under which trials are handed out, in all processes and on all machines of the study.

        Yields:
            A check that the lock is still held: a database that was restarted has forgotten it.
        """
        if self._beside is not None:
            with FileLock(self._beside.with_name(f".{self._beside.name}.handing-out.lock")):
                yield lambda: None
            return
        assert self._engine is not None
        with self._engine.begin() as connection:  # PostgreSQL lets go of the lock when this transaction ends, however
            # a machine that is cut off while it holds the lock does not keep the others waiting
            connection.execute(sqlalchemy.text("set local idle_in_transaction_session_timeout = '60s'"))
            connection.execute(sqlalchemy.text("select pg_advisory_xact_lock(hashtext(:study))"), {"study": study})
            yield lambda: connection.execute(sqlalchemy.text("select 1")).close()

    @property
    def waits(self) -> bool:
        """Whether the storage may be away for a while, as a server may."""
        return self._engine is not None

    def patiently(self, do: Callable[[], T]) -> T:
        """Do it, again and again while the database does not answer; it must do no harm when done twice.

        Raises:
            UserError: no answer for ten minutes.
        """
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                result = do()
                if pause > 0.5:
                    self._answers_since = time.monotonic()
                return result
            except AWAY as error:
                if not self.waits or time.monotonic() - began > PATIENCE_SECONDS:
                    reason = str(error).strip().splitlines()[0]
                    raise UserError(
                        f"{self.shown} does not answer ({reason}); the same command goes on when it does"
                    ) from None
                if self._console is not None and pause < 1:
                    print_line(self._console, f"{self.shown} does not answer; trying again")
                time.sleep(pause)
                pause = min(2 * pause, 10)

    def heartbeat(self, trials: list[optuna.Trial]) -> None:
        """Tell the database that these trials are alive; files have locks instead."""
        if isinstance(self.storage, RDBStorage):
            for trial in trials:
                self.storage.record_heartbeat(trial._trial_id)

    def sign(self, trial: optuna.Trial) -> None:
        """Make a trial that was just handed out this process's own."""
        self.heartbeat([trial])  # first: what is signed and has no heartbeat would never be found stale
        trial.set_user_attr(OWNER, self.me)
        trial.set_user_attr(ENDED, None)  # of the trial that it may be a retry of

    def is_mine(self, trial: FrozenTrial) -> bool:
        """Whether this process signed the trial."""
        return trial.user_attrs.get(OWNER, {}).get("id") == self.me["id"]

    def is_nobodys(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran a trial has ended; of other machines' only heartbeats tell.

        The lock of handing out must be held: a trial that is handed out just now is not signed yet.
        """
        if self.is_mine(trial):
            return False
        if (owner := trial.user_attrs.get(OWNER)) is None:
            return True
        if self._beside is not None:
            return self._lets_go(self._alive_path(owner))
        if owner["where"] != self.me["where"]:
            return False
        try:
            process = psutil.Process(owner["pid"])
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - owner["started"]) > 60
        except psutil.NoSuchProcess:
            return True

    def _others_alive(self) -> bool:
        assert self._beside is not None
        mine, signs = self._alive_path(self.me), self._beside.parent.glob(f".{self._beside.name}.*.alive")
        return any(path != mine and not self._lets_go(path) for path in signs)

    def _alive_path(self, owner: dict[str, Any]) -> Path:
        assert self._beside is not None
        return self._beside.with_name(f".{self._beside.name}.{owner['id']}.alive")

    @staticmethod
    def _lets_go(path: Path) -> bool:
        if not path.exists():
            return True
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return False
        path.unlink(missing_ok=True)
        return True

    def end_trials(self, study: optuna.Study, why: str, which: Callable[[FrozenTrial], bool]) -> None:
        """Tell the running trials that `which` picks as failed, to be run again. The lock of handing out must be held."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if which(trial):
                self._end(study, trial._trial_id, why)

    def end_stale_trials(self, study: optuna.Study) -> None:
        """The same for trials of a database whose heartbeats have stopped. The lock of handing out must be held."""
        # after a time without the database, the others are given as long as ever for their next heartbeat
        just_back = time.monotonic() - self._answers_since < GRACE_SECONDS
        if isinstance(self.storage, RDBStorage) and not just_back:
            for trial_id in self.storage._get_stale_trial_ids(study._study_id):
                self._end(study, trial_id, "its heartbeat stopped")

    def _end(self, study: optuna.Study, trial_id: int, why: str) -> None:
        try:
            study._storage.set_trial_user_attr(trial_id, ENDED, why)  # first: without it, it is never run again
            study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:  # it was finished after all
            pass


def retry_one_ended(study: optuna.Study, given_up_on: Collection[str] = ()) -> None:
    """Queue the first trial that was ended and not run again, with its parameters, linked to it.

    One that was ended while it was being drawn is drawn again. The lock of handing out must be held.

    Args:
        study: the study.
        given_up_on: names of runs that are not tried again.
    """
    trials = study.get_trials(deepcopy=False)
    retried = retried_numbers(trials)
    for trial in trials:
        ended = trial.state == TrialState.FAIL and trial.user_attrs.get(ENDED) and trial.number not in retried
        if ended and trial.user_attrs.get(RUN) not in given_up_on:
            again = copy.deepcopy(trial)
            again.user_attrs = {
                key: value for key, value in again.user_attrs.items() if key not in (OWNER, ENDED, FAILED)
            }
            if RUN not in again.user_attrs:
                again.params, again.distributions = {}, {}
                again.system_attrs = {k: v for k, v in again.system_attrs.items() if "relative_params" not in k}
            RetryHeartbeatStaleTrialCallback()(study, again)
            return


def _file(where: str) -> Path:
    """The path of a file on a disk, or of none yet. Opening a pipe waits for ever, and a device has no end."""
    path = user_path(where, "--storage")
    try:
        return regular_file(path)
    except OSError:  # none yet, or it tells when it is opened
        return path
    except UserError as error:
        raise UserError(f"--storage: {error}, or leave it out for a journal in the study's folder") from None


def _this_process() -> dict[str, Any]:
    """Who and where this process is: for people, and to be told from others for good."""
    namespace = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    boot = Path("/proc/sys/kernel/random/boot_id")
    where = f"{socket.gethostname()} {boot.read_text(encoding='utf-8').strip() if boot.exists() else ''} {namespace}"
    return {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "where": where,  # within it, process numbers mean the same
    }


def _without_password(url: str) -> str:
    if "://" not in url:
        return url
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise UserError(f"--storage is no URL that can be read ({error}); give postgresql://user@host/name") from None
