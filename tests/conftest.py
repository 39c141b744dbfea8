"""Shared by all tests: a fixed seed, no accelerator, no network, and small experiments on synthetic images."""

from __future__ import annotations

import os

# Before torch is imported. Threads that wait for each other give their core away: test processes outnumber the cores, and
# with two threads per fold, waiting in a loop took five to ten times the processor time of the folds themselves.
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("FMNIST_CV_TEST_GPU", "")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import math
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from fmnist_cv.utils.importing import heavy_imports

with heavy_imports():
    from fmnist_cv import cross_validation, runtime
    from fmnist_cv.runtime import prepare_process, seed_everything

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # also for class paths such as users_modules.Net

from running import Commands

MARKED = {"slow": "make test-slow", "gpu": "make test-gpu, on a machine with a CUDA device"}
NOT_RUN: Counter[str] = Counter()  # tests by their mark


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        for mark in MARKED.keys() & {marker.name for marker in item.iter_markers()}:
            NOT_RUN[mark] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(
        session.config, "workeroutput"
    ):  # tests are collected in the processes of pytest-xdist, each all of them
        session.config.workeroutput["not_run"] = dict(NOT_RUN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    NOT_RUN.update(Counter(getattr(node, "workeroutput", {}).get("not_run", {})) - NOT_RUN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last lines: which tests were not run, and how to run them."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    lines = [f"{n} skipped: {reason}" for reason, n in reasons.items()]
    lines += [f"{n} marked {mark}: {MARKED[mark]}" for mark, n in NOT_RUN.items()]
    if lines:
        terminalreporter.section("not run, and how to run it")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def _same_seed_and_threads() -> None:
    prepare_process(threads=1)
    seed_everything(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of tests are not kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMNIST_CV_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests decide how many cores there are, in a container with a quota, too."""
    monkeypatch.setattr(runtime, "cpu_quota", lambda: math.inf)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at once on any connection to another host."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests must not use the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package one that is not installed: `without_package("cleanlab")`."""

    def block(package: str) -> None:
        class Finder:
            @staticmethod
            def find_spec(name: str, path: object = None, target: object = None) -> None:
                if name.partition(".")[0] == package:
                    raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    return block


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of one thread: two test processes on two cores would otherwise wait for each other."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    monkeypatch.setattr(cross_validation, "warm_up", lambda: None)  # folds run in this process, which needs no other


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """A 3-fold experiment that takes a second or two: a dense network on 300 synthetic images, as a mapping."""
    return {
        "name": "tiny",
        "log_dir": str(tmp_path / "logs"),
        "cv": {"n_splits": 3, "workers": 1},
        "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [32], "dropout": 0.2}},
        "data": {
            "class_path": "fmnist_cv.data.SyntheticDataModule",
            "init_args": {"n_train": 300, "n_test": 100, "batch_size": 32},
        },
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "32-true"},
    }


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    """`tiny` without TensorBoard and the HTML report, which take longer than the training."""
    tiny["trainer"]["logger"] = False
    tiny["report"] = False
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
def standard(tiny: dict[str, Any], once: Callable[[str, Callable[[Path], None]], Path], one_core: None) -> Path:
    """The folder of a finished run of `tiny`, with TensorBoard; to be read only."""

    def fill(folder: Path) -> None:
        cross_validation.cross_validate({**tiny, "log_dir": str(folder)}, run="standard")

    return once("standard", fill) / "tiny" / "standard"
