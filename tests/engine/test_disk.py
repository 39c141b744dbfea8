"""A disk that is full, read-only or gone during a run: one line with path, reason and remedy, and the run resumes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fmnist_cv import cross_validate, fit
from fmnist_cv.command_line import FAILED, OK, USER_ERROR
from fmnist_cv.engine import run_folder
from fmnist_cv.engine.callbacks import KeepCheckpoints
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.writable import disk_problem

REASONS = {
    errno.ENOSPC: "No space left on device; free some space there",
    errno.EDQUOT: "Disk quota exceeded; free some of your quota there",
    errno.EROFS: "Read-only file system; make it writable",
}


@pytest.fixture
def one_fold(quick: dict[str, Any]) -> dict[str, Any]:
    quick["cv"]["holdout"] = 0.3
    return quick


@contextmanager
def failing(end: str, number: int) -> Iterator[None]:
    """One file, named by the end of its path, fails as on a full disk: at the flush, without a name."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(end):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder.os, "fsync", fsync)
        yield


@pytest.mark.parametrize(
    ("file", "number"),
    [*zip(["fold_0/last.ckpt", "fold_0/probabilities.npz", "fold_0/metrics.json"], REASONS, strict=True)],
)
def test_a_disk_error_fails_the_fold_in_one_line_and_the_fold_resumes_later(
    one_fold: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    number: int,
) -> None:
    config, run = str(write_config(one_fold)), tmp_path / "logs" / "tiny" / "full"
    folder, name = file.split("/")
    unfinished = {"last.ckpt": "..last.ckpt.new.tmp"}.get(name, f".{name}.tmp")
    with failing(f"{folder}/{unfinished}", number):
        assert fit.main(["--config", config, "--run", "full"]) == FAILED
    err = capsys.readouterr().err
    shown = {"last.ckpt": ".last.ckpt.new"}.get(name, name)
    assert f"fold_0 failed: cannot write {run / folder / shown}: {REASONS[number]}\n" in err
    assert "Traceback" not in err and "--resume full" in err
    assert not list(run.rglob("*.tmp"))  # half a file would keep a full disk full
    assert fit.main(["--config", config, "--resume", "full"]) == OK
    assert ("epoch 3/3" in capsys.readouterr().out) == (name == "last.ckpt")


@pytest.mark.parametrize("file", ["out_of_fold.npz", "results.json"])
def test_a_summary_that_cannot_be_written_is_written_later(
    one_fold: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
) -> None:
    config, run = str(write_config(one_fold)), tmp_path / "logs" / "tiny" / "full"
    with failing(f".{file}.tmp", errno.ENOSPC):
        assert fit.main(["--config", config, "--run", "full"]) == USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith(
        f"error: cannot write {run / file}: No space left on device; free some space there, and continue"
    )
    assert "--resume full" in err and "Traceback" not in err
    assert fit.main(["--config", config, "--resume", "full"]) == OK
    assert "epoch" not in capsys.readouterr().out.partition("accuracy in %")[0]


def test_a_run_that_is_deleted_while_a_fold_trains_is_not_recreated(
    one_fold: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, save = tmp_path / "logs" / "tiny" / "gone", KeepCheckpoints._save

    def save_and_lose(self: Any, trainer: Any, better: bool) -> None:
        save(self, trainer, better)
        shutil.rmtree(run)

    monkeypatch.setattr(KeepCheckpoints, "_save", save_and_lose)
    assert fit.main(["--config", str(write_config(one_fold)), "--run", "gone"]) == FAILED
    err = capsys.readouterr().err
    assert (
        f"fold_0 failed: cannot write {run / 'fold_0' / '.last.ckpt.new'}: the folder {run} was moved or deleted" in err
    )
    assert "Traceback" not in err
    assert not run.exists()


def test_a_full_disk(tmp_path: Path) -> None:
    """The system's own device for it."""
    with pytest.raises(OSError) as raised:
        replace_file(tmp_path / "file", lambda file: Path("/dev/full").write_bytes(b"x"))
    assert disk_problem(raised.value, tmp_path) == (
        f"cannot write {tmp_path / 'file'}: No space left on device; free some space there"
    )
    assert disk_problem(OSError(errno.ENOENT, "No such file", "/elsewhere"), tmp_path) is None
    assert disk_problem(OSError("a reason of its own"), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_checkpoints_do_not_go_through_the_temporary_folder(
    one_fold: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fold's own and those of a user's ModelCheckpoint: the temporary folder may be full, or missing."""
    one_fold["trainer"]["callbacks"] = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path / "theirs")},
        }
    ]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    run = cross_validate(one_fold).path
    assert (run / "fold_0" / "last.ckpt").is_file()
    assert [path.suffix for path in (tmp_path / "theirs").iterdir()] == [".ckpt"]


def test_a_plugin_that_writes_checkpoints_itself_is_refused(
    one_fold: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one_fold["trainer"]["plugins"] = [{"class_path": "lightning.pytorch.plugins.io.AsyncCheckpointIO"}]
    assert fit.main(["--config", str(write_config(one_fold))]) != OK
    assert "trainer.plugins contains AsyncCheckpointIO" in capsys.readouterr().err
