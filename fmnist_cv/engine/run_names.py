"""Creates and finds the runs of an experiment by name."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from fmnist_cv.engine.checked_files import Damaged
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.errors import CannotWrite, UserError
from fmnist_cv.utils.paths import user_path


def default_run_names(suffix: str = "") -> Iterator[str]:
    """The local time, then the same with _2, _3, ... for runs that other commands start in the same second."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return (f"{now}{'' if number == 1 else f'_{number}'}{suffix}" for number in count(1))


def create_run(log_dir: Path, experiment: str, names: Iterable[str], fill: Callable[[Path], None]) -> RunFolder:
    """Create a run's folder with its first files, atomically.

    Args:
        log_dir: folder of all experiments' runs.
        experiment: name of the experiment.
        names: of the run; the first free one is used.
        fill: writes the first files into the given folder.

    Raises:
        UserError: a run of each name exists.
        CannotWrite: the folder cannot be written.
    """
    parent = path = log_dir / experiment
    incomplete = None
    try:
        for name in names:
            path = parent / name
            if path.exists():
                continue
            if incomplete is None:
                parent.mkdir(parents=True, exist_ok=True)
                incomplete = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=parent))
                incomplete.chmod(0o755)
                fill(incomplete)
            try:
                os.rename(incomplete, path)
            except OSError:
                if not path.exists():
                    raise
            else:
                return RunFolder(path)
    except OSError as error:
        raise CannotWrite(
            f"cannot write the run folder {path}: {error.strerror}; choose another with --log_dir"
        ) from None
    finally:
        if incomplete is not None and incomplete.exists():
            shutil.rmtree(incomplete, ignore_errors=True)
    if incomplete is not None:
        raise UserError(f"another process has just created run {path}; join it with --resume {path.name}")
    if not RunFolder(path).config.is_file():
        raise UserError(not_a_run(path))
    raise UserError(f"run {path} exists; resume it with --resume {path.name}, or choose another name with --run")


def find_run(log_dir: Path, experiment: str, name: str) -> RunFolder:
    """The run called `name` of an experiment; "last" is the most recent one, and a path is used as is.

    Raises:
        UserError: there is no such run.
    """
    parent = log_dir / experiment
    runs = [RunFolder(path) for path in parent.glob("[!.]*")]
    runs = sorted((run for run in runs if run.config.is_file() and run.run_info.is_file()), key=_created_at)
    if name == "last":
        if not runs:
            raise UserError(f"there is no run to resume under {parent}; omit --resume to start one")
        return runs[-1]
    given = user_path(name, "--resume")
    for path in (parent / given, given):
        if RunFolder(path).config.is_file():
            return RunFolder(path)
        if path.is_dir() and len(path.parts) > 1:
            raise UserError(not_a_run(path))
    known = ", ".join(run.name for run in runs) or "none"
    raise UserError(f"there is no run '{name}' under {parent} (runs there: {known})")


def _created_at(run: RunFolder) -> str:
    try:
        return run.read_run_info()["created"]
    except Damaged:  # reported when this run itself is read; other runs must stay usable
        changed = datetime.datetime.fromtimestamp(run.run_info.stat().st_mtime, datetime.UTC)
        return changed.isoformat()


def not_a_run(path: Path) -> str:
    """The error message for a folder in the place of a run."""
    return (
        f"{path} exists, but is not a run: it has no config.yaml (deleted while it ran, or copied incompletely); delete it "
        "or choose another name with --run, or restore config.yaml from a copy"
    )
