"""The package runs where Unix's modules are missing and the locale's encoding is not UTF-8."""

from __future__ import annotations

import ast
import builtins
import io
import locale
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from fmnist_cv import compare, cross_validate, evaluate, fit, predict, report, runtime
from fmnist_cv.engine import processes

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("fmnist_cv", "experiments") for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "fmnist_cv")]
UNIX_MODULES = {
    "crypt",
    "fcntl",
    "grp",
    "nis",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
}
UNIX_NAMES = {
    "os": {
        "fchmod",
        "fork",
        "forkpty",
        "geteuid",
        "getgid",
        "getloadavg",
        "getpgid",
        "getpriority",
        "getuid",
        "killpg",
        "mkfifo",
        "nice",
        "O_NONBLOCK",
        "openpty",
        "sched_getaffinity",
        "setsid",
        "statvfs",
        "sysconf",
        "uname",
        "wait",
        "WNOHANG",
    },
    "signal": {
        "SIGALRM",
        "SIGCHLD",
        "SIGHUP",
        "SIGKILL",
        "SIGPIPE",
        "SIGQUIT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGUSR1",
        "SIGUSR2",
        "alarm",
        "pause",
        "setitimer",
        "sigwait",
    },
}


def calls(path: Path) -> Iterator[tuple[ast.Call, str, dict[str, ast.expr]]]:
    """Each call in a file, the last part of the called name, and its keyword arguments."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            yield node, name, {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}


def leaves_encoding_to_the_locale(node: ast.Call, name: str, keywords: dict[str, ast.expr]) -> bool:
    if "encoding" in keywords:
        return False
    if name in ("read_text", "write_text"):
        return True
    if name in ("TemporaryFile", "NamedTemporaryFile", "fdopen") or (
        isinstance(node.func, ast.Name) and name == "open"
    ):
        first = 0 if name.endswith("TemporaryFile") else 1
        mode = keywords.get("mode", node.args[first] if len(node.args) > first else None)
        default = "w+b" if name.endswith("TemporaryFile") else "r"
        return "b" not in (mode.value if isinstance(mode, ast.Constant) else default)
    return "text" in keywords or "universal_newlines" in keywords  # subprocess


def test_text_is_read_and_written_as_utf8_wherever_it_runs() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in SOURCES
        for node, *call in calls(path)
        if leaves_encoding_to_the_locale(node, *call)
    ]
    assert not found


def needed_of_unix(path: Path) -> Iterator[ast.AST]:
    """Imports at a module's top, and names that no hasattr or getattr in the same file asks for."""
    tree = ast.parse(path.read_bytes())
    asked = {
        call.args[1].value
        for call, name, _ in calls(path)
        if name in ("hasattr", "getattr") and len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
    }
    for node in ast.walk(tree):
        of = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if isinstance(node, ast.Attribute) and node.attr in UNIX_NAMES.get(of, set()) - asked:
            yield node
    for node in tree.body:
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if UNIX_MODULES & set(imported):
            yield node


def test_nothing_of_unix_alone_is_needed() -> None:
    found = [f"{path.relative_to(ROOT)}: {ast.unparse(node)}" for path in PACKAGE for node in needed_of_unix(path)]
    assert not found


WITHOUT_UNIX = f"""
import builtins
import io

def without_unix(name, globals=None, *rest, plain=builtins.__import__, **others):
    if str((globals or {{}}).get("__name__")).startswith("fmnist_cv") and name in {UNIX_MODULES}:
        raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
    return plain(name, globals, *rest, **others)

builtins.__import__ = without_unix
"""


@pytest.fixture
def bare_system(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For the package's own code: no module or name of Unix alone, no symbolic links, and ASCII for text."""
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)  # to be put back
    exec(WITHOUT_UNIX)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)

    def no_right(path: Path, target: Path) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", no_right)
    monkeypatch.setattr(processes, "METHOD", "spawn")
    monkeypatch.setattr(
        runtime, "sys", SimpleNamespace(platform="win32", executable=sys.executable, modules=sys.modules)
    )
    memory = SimpleNamespace(peak_wset=300 * 2**20)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: memory)
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """An experiment on a few images whose classes and name are not written in ASCII."""
    rng = np.random.default_rng(0)
    labels = np.arange(36) % 3
    images = (rng.integers(0, 60, (36, 8, 8)) + 90 * labels[:, None, None]).astype(np.uint8)
    np.savez(
        tmp_path / "ärmel.npz",
        images=images,
        labels=labels,
        class_names=np.array(["Mantel", "чулок", "靴"]),
        test_images=images[:9],
        test_labels=labels[:9],
    )
    Image.fromarray(images[0]).save(tmp_path / "été.png")
    return lambda **cv: {
        "name": "größe",
        "log_dir": str(tmp_path / "logs"),
        "cv": {"n_splits": 2, "workers": 1, **cv},
        "model": {"class_path": "fmnist_cv.models.LinearClassifier", "init_args": {"in_features": 64, "n_classes": 3}},
        "data": {
            "class_path": "fmnist_cv.data.ArrayDataModule",
            "init_args": {"path": str(tmp_path / "ärmel.npz"), "batch_size": 6},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true", "logger": False},
    }


def test_every_command_works_without_unix_and_without_utf8(
    bare_system: None, photos: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(photos(), allow_unicode=True), encoding="utf-8")
    run = tmp_path / "logs" / "größe" / "a"
    for name in ("a", "b"):
        assert fit.main(["--config", str(config), "--run", name, f"--seed={len(name)}"]) == 0
    assert rb"gr\xf6\xdfe: 2 folds of \xe4rmel (36 images)" in printed.getvalue()
    assert all(name in (run / "report.html").read_text(encoding="utf-8") for name in ("чулок", "靴"))
    assert '"peak_memory_mb": 300.0' in (run / "results.json").read_text(encoding="utf-8")
    assert fit.main(["--resume", str(run)]) == 0
    for command, arguments in (
        (report, [run]),
        (evaluate, [run]),
        (compare, [run, run.with_name("b")]),
        (predict, [run, tmp_path / "été.png", "--preprocessing", "none", "--out", tmp_path / "ô.csv"]),
    ):
        assert command.main(list(map(str, arguments))) == 0
    assert "чулок" in (tmp_path / "ô.csv").read_text(encoding="utf-8")


def test_folds_run_in_spawned_processes_where_there_is_no_fork(
    photos: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"{WITHOUT_UNIX}\nfrom fmnist_cv import runtime\n"
        "from types import SimpleNamespace\nimport psutil, sys\n"
        "runtime.sys = SimpleNamespace(platform='win32', modules=sys.modules)\n"
        "psutil.Process.memory_info = lambda self: SimpleNamespace(peak_wset=300 * 2**20)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(processes, "METHOD", "spawn")
    result = cross_validate(photos(workers=2, holdout=0.3))
    assert result.summary["times"]["peak_memory_mb"] == 300 and len(result.accuracies) == 1
