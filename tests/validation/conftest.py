"""For the engine's tests: one core, users' modules to import, and real processes that run the command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from fmnist_cv.validation import cross_validation

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers here, and for class paths such as users_modules.Net

from running import Commands


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of one thread: two test processes on two cores would otherwise wait for each other."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    monkeypatch.setattr(cross_validation, "warm_up", lambda: None)  # folds run in this process, which needs no other


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    """`tiny` without TensorBoard, whose figures take longer than the training."""
    tiny["trainer"]["logger"] = False
    return tiny


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a mapping to config.yaml and returns its path."""

    def write(config: dict[str, Any]) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Fills a folder once for all test processes: `once(name, fill)` calls `fill(folder)` in the first of them."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = base / f"once_{name}", base / f"once_{name}" / ".done"
        with FileLock(base / f".once_{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture
def standard(tiny: dict[str, Any], once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of a finished run of `tiny`, with TensorBoard; to be read only."""

    def fill(folder: Path) -> None:
        cross_validation.cross_validate({**tiny, "log_dir": str(folder)}, run="standard")

    return once("standard", fill) / "tiny" / "standard"
