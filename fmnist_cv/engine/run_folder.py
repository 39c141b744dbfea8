"""A run on disk. `RunFolder` alone knows its file names; files are replaced atomically, never rewritten in place."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from fmnist_cv.config.identity import identity
from fmnist_cv.config.yaml_files import load_yaml, read_yaml_text
from fmnist_cv.engine.checked_files import Damaged, Shape, digest, read_arrays, read_json
from fmnist_cv.engine.run_records import FOLD_METRICS, RUN_RECORD, FoldMetrics, RunRecord
from fmnist_cv.errors import UserError
from fmnist_cv.utils.checkpoints import check_records

if TYPE_CHECKING:
    from fmnist_cv.config.experiment import Experiment

_STORED_DATA = r".+-[0-9a-f]{8}\.npz"  # file names of data that were given as objects


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file in the folder of `path`, flush it to disk, and replace `path` with it atomically."""
    temporary = path.with_name(f".{path.name}.tmp")  # only the lock's holder writes it; a leftover is overwritten
    try:
        temporary.unlink(missing_ok=True)  # a leftover that is a link would be written through
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # an incomplete file on a full disk
            temporary.unlink()
        error.filename = str(path)  # the error of a failed write has no path
        raise


def write_json(path: Path, content: Mapping[str, object], with_digest: bool = False) -> None:
    """Replace a JSON file; with a digest, `read_json` notices any change of it."""
    if with_digest:
        content = {**content, "digest": digest(content)}
    replace_file(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace an `.npz` file of plain arrays."""
    replace_file(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


_SCORES_AGAIN = "scores the fold again from its checkpoints"
RESTORE = "restore it from a copy of the run, or delete the run's folder and start a new run"


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
        """Written last: a fold is finished if this file exists."""
        return self.path / "metrics.json"

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    @property
    def lock(self) -> Path:
        return self.path.with_name(f".{self.name}.lock")

    def make(self) -> None:
        """Create the folder in its run.

        Raises:
            UserError: it is a symbolic link, so the fold would be written elsewhere.
            FileNotFoundError: the run is gone.
        """
        if self.path.is_symlink():
            raise UserError(
                f"{self.path} is a symbolic link, but folds are only written inside their run; replace it with a folder"
            )
        self.path.mkdir(exist_ok=True)

    def read_metrics(self) -> FoldMetrics:
        """Read the fold's metrics.json.

        Raises:
            Damaged: it is missing or damaged.
        """
        content = read_json(self.metrics, FOLD_METRICS, f"delete it and resume the run, which {_SCORES_AGAIN}")
        return cast(FoldMetrics, content)

    def write_metrics(self, metrics: FoldMetrics) -> None:
        """Write the fold's metrics.json, after which the fold counts as finished."""
        write_json(self.metrics, metrics, with_digest=True)

    def read_probabilities(self, needed: Mapping[str, Shape] | None = None) -> dict[str, np.ndarray]:
        """Read the fold's probabilities.npz, and check the shapes of the needed arrays.

        Raises:
            Damaged: it is missing or damaged.
        """
        remedy = f"delete {self.metrics} and resume the run, which {_SCORES_AGAIN}"
        return read_arrays(self.probabilities, needed or {}, remedy)

    def check_checkpoints(self) -> None:
        """Check the existing checkpoints; a search deletes those of its worse trials, and users may do so, too.

        Raises:
            Damaged: one has changed since it was written.
        """
        for path in (self.last_checkpoint, self.best_checkpoint):
            try:
                check_records(path)
            except FileNotFoundError:
                continue
            except Exception as error:  # a damaged file raises half a dozen kinds
                raise Damaged(path, error, self.retrain_hint) from None

    @property
    def retrain_hint(self) -> str:
        """The remedy for a damaged checkpoint."""
        return f"delete the folder {self.path} and resume the run, which trains this fold again"


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
        """What the folds share and must not change: threads per fold, precision, data fingerprint."""
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
    def markdown_report(self) -> Path:
        """The results as tables to read."""
        return self.path / "report.md"

    @property
    def html_report(self) -> Path:
        """The results to look at, in one file."""
        return self.path / "report.html"

    @property
    def label_issues(self) -> Path:
        """Training images that may be mislabelled; usable as data.leave_out."""
        return self.path / "label_issues.csv"

    @property
    def best_checkpoint(self) -> Path:
        """Link to the best fold's checkpoint, or a copy where links are not supported."""
        return self.path / "best.ckpt"

    @property
    def refit(self) -> FoldFolder:
        return FoldFolder(self.path / "refit")

    def fold(self, repeat: int, fold: int, n_repeats: int) -> FoldFolder:
        name = f"fold_{fold}" if n_repeats == 1 else f"repeat_{repeat}_fold_{fold}"
        return FoldFolder(self.path / name)

    def read_run_info(self) -> RunRecord:
        """Read the run's run.json.

        Raises:
            Damaged: it is missing or damaged.
        """
        return cast(RunRecord, read_json(self.run_info, RUN_RECORD, RESTORE))

    def write_run_info(self, info: RunRecord) -> None:
        """Write the run's run.json."""
        write_json(self.run_info, info, with_digest=True)

    def read_config(self) -> str:
        """Read the text of the run's config.yaml.

        Raises:
            UserError: it is missing or damaged, or was edited after the run started.
        """
        try:
            text = read_yaml_text(self.config, "config")
        except UserError as error:
            raise UserError(f"{error}; {RESTORE}") from None
        settings = identity(load_yaml(text))
        for key, value in identity(self.read_run_info().get("settings", {})).items():  # missing in older versions
            if repr(settings.get(key)) != repr(value):
                raise Damaged(
                    self.config,
                    f"{key} is {settings.get(key)!r}, but the run was started with {value!r}",
                    f"restore that value, or {RESTORE}",
                )
        return text

    def read_experiment(self) -> Experiment:
        """Parse the run's config.yaml.

        Raises:
            UserError: see `read_config`, or it names classes that cannot be found.
        """
        from fmnist_cv.config.experiment import Experiment  # here, since it needs torch and Lightning

        text = self.read_config()
        try:
            return self._with_stored_data(Experiment.from_yaml(text))
        except UserError as error:
            raise UserError(f"run {self.path} cannot be built from its config.yaml: {error}") from None

    def _with_stored_data(self, experiment: Experiment) -> Experiment:
        """The experiment; with data that were stored beside the run and have moved with it, where they are now."""
        path = experiment.config.data.get("init_args", {}).get("path")
        if not isinstance(path, str) or not re.fullmatch(_STORED_DATA, Path(path).name) or Path(path).exists():
            return experiment
        beside = self.path.absolute().parent / Path(path).name
        return experiment.replaced(data__init_args__path=str(beside)) if beside.exists() else experiment

    def link_best(self, checkpoint: Path) -> None:
        """Link the run's best checkpoint to a fold's, atomically; where links are not supported, copy it."""
        temporary = self.path / ".best.tmp"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(checkpoint.relative_to(self.path))
        except (OSError, NotImplementedError):  # exFAT, SMB, Google Drive; Windows without the privilege to link
            shutil.copyfile(checkpoint, temporary)
        os.replace(temporary, self.best_checkpoint)


def inside(run: Path, folder: Path) -> Path:
    """Check that a folder that is about to be written is inside the run's, and return it.

    Raises:
        UserError: a symbolic link leads out of the run.
    """
    if not (target := folder.resolve()).is_relative_to(run.resolve()):
        raise UserError(
            f"{folder} leads out of the run, to {target}; replace the link with a folder, or choose another with --out"
        )
    return folder
