"""A finished run in a read-only folder is shown; an unfinished one is refused before training."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fmnist_cv import compare, evaluate, fit, report
from fmnist_cv.command_line import OK, USER_ERROR
from fmnist_cv.engine.writable import is_writable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes a right from root as Linux has it")

_OVERRIDE = 1  # CAP_DAC_OVERRIDE: root may write where the permissions forbid it
_VERSION_3 = 0x20080522


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Take from root, for this thread, the right to write what it may not; other users never had it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    effective = data[0]
    try:
        data[0] = effective & ~(1 << _OVERRIDE)
        assert libc.capset(header, data) == 0
        yield
    finally:
        data[0] = effective
        assert libc.capset(header, data) == 0


@pytest.fixture
def read_only(standard: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished run whose folders cannot be written, with its locks as they were left."""
    run = Path(shutil.copytree(standard, tmp_path / "run", symlinks=True))
    (run / "report.html").write_text("built before")
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    with bound_by_permissions():
        assert not is_writable(run)
        yield run
    for folder in folders:
        folder.chmod(0o755)


def state(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_finished_run_is_shown(read_only: Path, standard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(read_only)
    for main, arguments, shown in (
        (fit.main, ["--resume", str(read_only)], "Validation accuracy, last epoch: mean"),
        (evaluate.main, [str(read_only)], "for evaluation.json and .md give another with --out"),
        (compare.main, [str(read_only), str(standard)], "McNemar"),
    ):
        assert main(arguments) == OK, capsys.readouterr().err
        captured = capsys.readouterr()
        assert shown in captured.out and "error" not in captured.err
    assert report.main([str(read_only)]) == USER_ERROR  # it is asked to write
    assert f"cannot write the report into {read_only}: Permission denied" in capsys.readouterr().err
    assert state(read_only) == before


def test_an_unfinished_run_is_refused_before_training(read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit.main(["--resume", str(read_only), "--refit"]) == USER_ERROR
    err = capsys.readouterr().err
    assert f"run {read_only} is unfinished, and its folder cannot be written; copy it to a writable place" in err


def test_the_evaluation_is_written_elsewhere_on_request(read_only: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(read_only), "--out", str(tmp_path / "scores")]) == OK
    assert (tmp_path / "scores" / "evaluation.json").is_file()


def test_the_check_leaves_no_files_in_a_writable_folder(tmp_path: Path) -> None:
    assert is_writable(tmp_path) and not list(tmp_path.iterdir())
    assert is_writable(tmp_path / "missing")  # which is another mistake, with a message of its own
    os.mkdir(tmp_path / "there")
    assert is_writable(tmp_path / "there")
