"""Whether a run's report is up to date with the run's files."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.engine.run_folder import RunFolder

NAME = "fmnist_cv-inputs"  # of the page's <meta> element
HEAD = 4096  # bytes of the page that contain it


def inputs(result: CrossValidationResult) -> str:
    """A digest of what a report depends on: the run's files and the code. Changed images are refused when they are read."""
    run, code = RunFolder(result.path), sorted(Path(__file__).parent.glob("*.*"))
    found = hashlib.blake2b(version("fmnist_cv").encode(), digest_size=16)
    for path in (
        run.config,
        run.results,
        run.out_of_fold,
        *(file for fold in result.folds for file in (fold.metrics, fold.probabilities)),
        *code,
    ):
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "blake2b").digest())
    return found.hexdigest()


def is_current(result: CrossValidationResult) -> bool:
    """Whether report.html and label_issues.csv exist, and nothing that they depend on has changed."""
    run = RunFolder(result.path)
    try:
        with open(run.html_report, "rb") as file:
            head = file.read(HEAD).decode(errors="replace")
        return run.label_issues.is_file() and f'<meta name="{NAME}" content="{inputs(result)}">' in head
    except OSError:
        return False
