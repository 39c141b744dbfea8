"""What a run was made with: versions, device, precision, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict


class Environment(TypedDict):
    """The software and device of a run; `commit` is None for an installed package."""

    device: str
    threads_per_fold: int
    precision: str
    python: str
    versions: dict[str, str]
    commit: str | None


def describe_environment(device: str, threads: int, precision: str) -> Environment:
    """Versions, device and commit, for result files."""
    packages = ("fmnist_cv", "torch", "lightning", "torchmetrics", "scikit-learn", "numpy")
    return {
        "device": device,
        "threads_per_fold": threads,
        "precision": precision,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the package's checkout, with "-dirty" if it was modified; None for an installed package."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=True).stdout

    try:
        if git("ls-files", "--error-unmatch", "environment.py"):
            return git("rev-parse", "HEAD").strip() + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    return None
