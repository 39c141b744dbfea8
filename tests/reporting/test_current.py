"""The report is built where the run has changed since it was built, and where it is wanted."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from fmnist_cv import CrossValidationResult, fit
from fmnist_cv.reporting.current import is_current
from fmnist_cv.reporting.page import write_report


@pytest.fixture
def run(garments: CrossValidationResult, tmp_path: Path) -> Path:
    """A copy of a run with its report."""
    return Path(shutil.copytree(garments.path, tmp_path / "run", symlinks=True))


def rebuilt(run: Path) -> bool:
    """Whether `fit` builds the report of this finished run."""
    marked = run / "report.html"
    before = marked.stat().st_mtime_ns if marked.exists() else 0
    fit.build_report(CrossValidationResult.load(run), Console(file=io.StringIO()))
    return marked.stat().st_mtime_ns != before


def test_a_report_of_an_unchanged_run_is_kept(run: Path) -> None:
    assert not rebuilt(run)
    assert write_report(CrossValidationResult.load(run)).is_file() and not rebuilt(run)


def history(run: Path) -> None:
    metrics = json.loads((run / "fold_0" / "metrics.json").read_text())
    metrics.pop("digest", None)
    metrics["history"][0]["val/loss"] = 9.0
    (run / "fold_0" / "metrics.json").write_text(json.dumps(metrics))


def probabilities(run: Path) -> None:
    arrays = dict(np.load(run / "out_of_fold.npz"))
    np.savez(run / "out_of_fold.npz", **{name: array + 0 for name, array in arrays.items()}, more=np.arange(3))


@pytest.mark.parametrize(
    "change",
    [
        history,
        probabilities,
        lambda run: (run / "report.html").unlink(),
        lambda run: (run / "label_issues.csv").unlink(),
        lambda run: (run / "report.html").write_text("<html>of an older version</html>"),
    ],
)
def test_a_report_of_anything_else_is_built_anew(run: Path, change: Any) -> None:
    change(run)
    assert not is_current(CrossValidationResult.load(run))
    assert rebuilt(run) and is_current(CrossValidationResult.load(run))


def test_a_run_without_a_report_gets_it_when_it_is_resumed_with_one(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether there is a report is not what a run is."""
    tiny |= {"report": False}
    tiny["trainer"] |= {"logger": False, "max_epochs": 1}
    tiny["cv"]["holdout"] = 0.3
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    run, config = Path(tiny["log_dir"]) / "tiny" / "run", f"--config={tmp_path / 'tiny.yaml'}"
    assert fit.main([config, "--run", "run"]) == 0
    assert (run / "report.md").is_file() and not (run / "report.html").exists()
    assert f"No report, as requested; to build it: python -m fmnist_cv.report {run}" in capsys.readouterr().out
    config_of_old = yaml.safe_load((run / "config.yaml").read_text())
    assert config_of_old.pop("report") is False
    (run / "config.yaml").write_text(yaml.safe_dump(config_of_old))  # as an older version wrote it
    assert fit.main([config, "--resume", "run"]) == 0 and not (run / "report.html").exists()
    assert fit.main([config, "--resume", "run", "--report", "true"]) == 0
    assert is_current(CrossValidationResult.load(run))


def test_a_terminal_sees_how_far_it_is(run: Path) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    write_report(CrossValidationResult.load(run), console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "report: drawing the page" in shown and "90%" in shown
