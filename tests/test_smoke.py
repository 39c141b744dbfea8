"""Each command as a process of its own, started as a user starts it: what CI runs on each system and version of Python.

Slow, since each process imports torch; the ordinary tests fork commands from a process that has (command_server.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fmnist_cv.data.synthetic_images import make_synthetic_images

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def start(command: str, *arguments: object, cwd: Path) -> str:
    """What a command prints; that it succeeds is checked."""
    done = subprocess.run(
        [sys.executable, "-m", f"fmnist_cv.{command}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """With config.yaml, search.yaml and an image."""
    tiny |= {"log_dir": "logs"}
    tiny["cv"] |= {"n_splits": 2, "workers": 2}
    tiny["trainer"] |= {"max_epochs": 1, "logger": False}
    search = {
        "name": "study",
        "experiment": "config.yaml",
        "log_dir": "logs",
        "space": {"model.dropout": {"float": [0.0, 0.5]}},
        "trials": 1,
        "confirm": {"top": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny))
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(search))
    Image.fromarray(np.asarray(make_synthetic_images(1, 0)[0][0])).save(tmp_path / "garment.png")
    return tmp_path


def test_every_command_works_as_a_process_of_its_own(folder: Path) -> None:
    out = start("fit", "--config", "config.yaml", "--run", "a", cwd=folder)
    assert "Validation accuracy" in out and "Report:" in out
    run = folder / "logs" / "tiny" / "a"
    assert all((run / name).exists() for name in ("results.json", "report.html", "label_issues.csv", "report.md"))
    start("fit", "--config", "config.yaml", "--run", "b", "--model.dropout=0.4", "--report=false", cwd=folder)

    start("tune", "--config", "search.yaml", "--workers", 1, cwd=folder)
    assert (folder / "logs" / "study" / "winner.yaml").exists() and (folder / "logs" / "study" / "study.html").exists()

    start("evaluate", run, "--out", "evaluation", cwd=folder)
    assert json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert "garment.png" in start("predict", run, "garment.png", "--format", "csv", cwd=folder)
    assert "McNemar" in start("compare", run, run.with_name("b"), cwd=folder)
    (run / "report.html").unlink()
    start("report", run, cwd=folder)
    assert (run / "report.html").exists()
    start("export", run, "--format", "safetensors", "--out", "exported", cwd=folder)
    assert (folder / "exported" / "weights.safetensors").exists()
