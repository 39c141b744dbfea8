"""A run on disk. `RunFolder` alone knows its file names; files are replaced whole, never rewritten in place."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console

from fmnist_cv.errors import UserError
from fmnist_cv.paths import user_path


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside `path`, bring it to the disk, and put it in the place of `path` in one step."""
    beside = path.with_name(f".{path.name}.tmp")  # its lock's holder alone writes it; a leftover is overwritten
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):  # half a file on a full disk
            beside.unlink()
        error.filename = str(path)  # a write that fails names no file
        raise


WAYS_OUT = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def disk_problem(error: OSError, folder: Path) -> str | None:
    """What to say of an error about a file in this folder: path, reason, way out. None for one about anything else."""
    path = error.filename
    if not isinstance(path, str | os.PathLike) or not Path(path).absolute().is_relative_to(folder.absolute()):
        return None
    if not folder.is_dir():
        return (
            f"cannot write {path}: the folder {folder} was moved or deleted meanwhile; put it back, or start a new run"
        )
    way_out = WAYS_OUT.get(error.errno or 0)
    if way_out is None:
        return f"cannot read or write {path}: {error.strerror or error}; look after its disk"
    return f"cannot write {path}: {error.strerror}; {way_out}"


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file."""
    replace_file(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace an `.npz` file of plain arrays."""
    replace_file(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


@dataclass(frozen=True)
class FoldFolder:
    """The files of one fold."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "best.ckpt"

    @property
    def probabilities(self) -> Path:
        return self.path / "probabilities.npz"

    @property
    def metrics(self) -> Path:
        """Written last: a fold is finished when this file is there."""
        return self.path / "metrics.json"

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    @property
    def lock(self) -> Path:
        return self.path.with_name(f".{self.name}.lock")

    def read_metrics(self) -> dict[str, Any]:
        """What the fold's metrics.json holds.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return json.loads(self.metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read {self.metrics}, without which the fold is damaged: {reason}") from None

    def read_probabilities(self) -> dict[str, np.ndarray]:
        with np.load(self.probabilities, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


@dataclass(frozen=True)
class RunFolder:
    """The files of one run: `<log_dir>/<experiment>/<run>/`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved experiment."""
        return self.path / "config.yaml"

    @property
    def run_info(self) -> Path:
        """What the run's folds share and may not change: threads per fold, precision, data fingerprint."""
        return self.path / "run.json"

    @property
    def splits(self) -> Path:
        return self.path / "splits.npz"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def out_of_fold(self) -> Path:
        return self.path / "out_of_fold.npz"

    @property
    def report(self) -> Path:
        """The results as tables to read."""
        return self.path / "report.md"

    @property
    def html_report(self) -> Path:
        """The results to look at, in one file."""
        return self.path / "report.html"

    @property
    def label_issues(self) -> Path:
        """Training images worth a second look; a file for data.leave_out."""
        return self.path / "label_issues.csv"

    @property
    def best_checkpoint(self) -> Path:
        """Link to the best fold's checkpoint, or a copy where there are no links."""
        return self.path / "best.ckpt"

    @property
    def refit(self) -> FoldFolder:
        return FoldFolder(self.path / "refit")

    def fold(self, repeat: int, fold: int, n_repeats: int) -> FoldFolder:
        name = f"fold_{fold}" if n_repeats == 1 else f"repeat_{repeat}_fold_{fold}"
        return FoldFolder(self.path / name)

    def read_run_info(self) -> dict[str, Any]:
        return json.loads(self.run_info.read_text(encoding="utf-8"))

    def link_best(self, checkpoint: Path) -> None:
        """Point the run's best checkpoint at a fold's, in one step; where there are no symbolic links, by a copy."""
        beside = self.path / ".best.tmp"
        beside.unlink(missing_ok=True)
        try:
            beside.symlink_to(checkpoint.relative_to(self.path))
        except (OSError, NotImplementedError):  # exFAT, SMB, Drive; Windows without the right to make links
            shutil.copyfile(checkpoint, beside)
        os.replace(beside, self.best_checkpoint)


def create_run(log_dir: Path, experiment: str, name: str, fill: Callable[[Path], None]) -> RunFolder:
    """Make a run's folder with its first files, all or nothing.

    Args:
        log_dir: folder of all experiments' runs.
        experiment: name of the experiment.
        name: name of the run.
        fill: writes the first files into the folder it is given.

    Raises:
        UserError: the run exists, or the folder cannot be written.
    """
    parent = log_dir / experiment
    path = parent / name
    if path.exists():
        raise UserError(f"run {path} exists; go on with it with --resume {name}, or choose another name with --run")
    incomplete = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        incomplete = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=parent))
        incomplete.chmod(0o755)
        fill(incomplete)
        os.rename(incomplete, path)
    except OSError as error:
        if path.exists():
            raise UserError(f"run {path} was made by another process just now; join it with --resume {name}") from None
        raise UserError(
            f"cannot write the run folder {path}: {error.strerror}; choose another with --log_dir"
        ) from None
    finally:
        if incomplete is not None and incomplete.exists():
            shutil.rmtree(incomplete, ignore_errors=True)
    return RunFolder(path)


def check_writable(log_dir: Path) -> None:
    """Refuse a log folder that cannot be written, before any work is done, leaving nothing behind.

    Raises:
        UserError: it, or the folder that would hold it, cannot be written.
    """
    existing = next(p for p in (log_dir.absolute(), *log_dir.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write runs under {log_dir}: {existing}: {error.strerror}; choose another folder with --log_dir"
        ) from None


def find_run(log_dir: Path, experiment: str, name: str) -> RunFolder:
    """The run called `name` of an experiment; "last" is the one made most recently, and a path is taken as it is.

    Raises:
        UserError: there is no such run.
    """
    parent = log_dir / experiment
    runs = sorted(
        (p for p in parent.glob("[!.]*") if (p / "config.yaml").is_file() and (p / "run.json").is_file()),
        key=lambda p: json.loads((p / "run.json").read_text(encoding="utf-8"))["created"],
    )
    if name == "last":
        if not runs:
            raise UserError(f"there is no run to resume under {parent}; leave out --resume to start one")
        return RunFolder(runs[-1])
    given = user_path(name, "--resume")
    for path in (parent / given, given):
        if (path / "config.yaml").is_file():
            return RunFolder(path)
    known = ", ".join(p.name for p in runs) or "none"
    raise UserError(f"there is no run '{name}' under {parent} (runs there: {known})")


def default_run_name() -> str:
    """The local time, so that runs sort by age."""
    return datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


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
    """Hold a lock file; the system lets go of it when its holder dies, however it dies. A wait is told on the console.

    Raises:
        Locked: another process holds it, and `wait` is false.
    """
    try:
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        if not wait:
            raise Locked(f"{what} is being worked on by another process (it holds {path})") from None
        if console is not None:
            console.print(f"{what} is being worked on by another process; waiting", markup=False, highlight=False)
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()
