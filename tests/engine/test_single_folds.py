"""Folds run one at a time, by separate commands, into one run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from running import outcome

from fmnist_cv import cross_validate, cross_validation, fit
from fmnist_cv.command_line import FAILED, OK, USER_ERROR
from fmnist_cv.engine import preparation, workers

HOLD_LOCK = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_folds_run_alone_in_any_order_give_the_same_run(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, runs = str(write_config(quick)), tmp_path / "logs" / "tiny"
    waits_for = {2: "fold_0, fold_1", 0: "fold_1"}
    for fold in (2, 0):
        assert fit.main(["--config", config, "--run", "parts", f"--cv.fold={fold}"]) == OK
        out = capsys.readouterr().out
        assert f"fold_{fold}: finished" in out
        assert f"The summary waits for {waits_for[fold]}: run them with --cv.fold" in out
        assert not (runs / "parts" / "results.json").exists()
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=2"]) == OK  # it is done
    assert "epoch" not in capsys.readouterr().out
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=1"]) == OK
    assert "Validation accuracy, last epoch: mean" in capsys.readouterr().out
    cross_validate(quick, run="whole")
    assert outcome(runs / "parts") == outcome(runs / "whole")


def test_missing_folds_are_run_by_resuming(quick: dict[str, Any]) -> None:
    with pytest.raises(cross_validation.FoldsMissing) as missing:
        cross_validate(quick, {"cv.fold": 1}, run="parts")
    assert missing.value.missing == ["fold_0", "fold_2"]
    result = cross_validate(quick, resume="parts")
    assert outcome(result.path) == outcome(cross_validate(quick, run="whole").path)


def test_a_fold_that_another_process_works_on_fails(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, run = str(write_config(quick)), tmp_path / "logs" / "tiny" / "parts"
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=0"]) == OK
    capsys.readouterr()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, run / ".fold_1.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert fit.main(["--config", config, "--run", "parts", "--cv.fold=1"]) == FAILED
        captured = capsys.readouterr()
        assert "fold_1 of this run is being worked on by another process" in captured.err
        assert "Traceback" not in captured.err
        assert not (run / "fold_1" / "last.ckpt").exists()
        other.kill()
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=1"]) == OK  # its lock died with it


@pytest.mark.parametrize("ends", ["finished", "dead"])
def test_a_fold_of_another_command_is_waited_for_and_taken_over_if_that_dies(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ends: str,
) -> None:
    """Two `--resume` of one run at once: both end with the summary, whoever ran which fold."""
    config, run = str(write_config(quick)), tmp_path / "logs" / "tiny" / "parts"
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=0"]) == OK
    capsys.readouterr()
    other, looks, told_in_time = FileLock(run / ".fold_1.lock"), [], []
    other.acquire()

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            out = capsys.readouterr().out
            told_in_time.extend(["fold_1: another process works on it" in out, "fold_2: finished" in out])
            other.release()
            if ends == "finished":
                assert fit.main(["--config", config, "--resume", "parts", "--cv.fold=1"]) == OK
            capsys.readouterr()

    monkeypatch.setattr(workers, "time", SimpleNamespace(sleep=sleep))
    assert fit.main(["--config", config, "--resume", "parts"]) == OK
    assert (len(looks), told_in_time) == (3, [True, True])
    out = capsys.readouterr().out
    assert "fold_1: finished" in out
    assert ("fold_1: epoch" in out) == (ends == "dead")
    assert outcome(run) == outcome(cross_validate(quick, run="whole").path)


def test_two_commands_that_start_a_run_at_once_share_it(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tasks of a batch system do: each found no run of that name when it looked."""
    create = preparation.create_run

    def slower_than_another(*args: Any) -> Any:
        monkeypatch.setattr(preparation, "create_run", create)
        with pytest.raises(cross_validation.FoldsMissing):
            cross_validate(quick, {"cv.fold": 0}, run="shared")
        return create(*args)

    monkeypatch.setattr(preparation, "create_run", slower_than_another)
    with pytest.raises(cross_validation.FoldsMissing) as missing:
        cross_validate(quick, {"cv.fold": 1}, run="shared")
    assert missing.value.missing == ["fold_2"]


def test_folds_of_another_config_do_not_join_the_run(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = str(write_config(quick))
    assert fit.main(["--config", config, "--run", "parts", "--cv.fold=0"]) == OK
    options = ["--cv.fold=1", "--trainer.max_epochs=2"]
    assert fit.main(["--config", config, "--run", "parts", *options]) == USER_ERROR
    assert "trainer.max_epochs (3 in the run, 2 here)" in capsys.readouterr().err


def test_a_run_started_with_one_fold_resumes_with_all_from_its_own_config(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    """What the run saved is the experiment, not which fold that command ran."""
    assert fit.main(["--config", str(write_config(quick)), "--run", "parts", "--cv.fold=1"]) == OK
    run = tmp_path / "logs" / "tiny" / "parts"
    assert not (run / "results.json").exists()
    assert fit.main(["--resume", str(run), "--cv.workers=1"]) == OK
    assert (run / "results.json").exists()


def test_a_fold_alone_needs_a_named_run(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit.main(["--config", str(write_config(quick)), "--cv.fold=1"]) == USER_ERROR
    assert "name it with --run" in capsys.readouterr().err
