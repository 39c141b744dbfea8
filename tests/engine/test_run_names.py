"""Runs are created and found by name, whatever other files are in the folder."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fmnist_cv import cross_validate, fit
from fmnist_cv.command_line import FAILED, USER_ERROR
from fmnist_cv.engine.locks import locked
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder, inside, write_json
from fmnist_cv.engine.run_names import create_run, default_run_names, find_run
from fmnist_cv.errors import UserError
from fmnist_cv.inference.evaluation import default_folder


def make(log_dir: Path, *names: str, created: str | None = None) -> RunFolder:
    def fill(path: Path) -> None:
        (path / "config.yaml").write_text("name: e\n")
        now = created or datetime.datetime.now(datetime.UTC).isoformat()
        (path / "run.json").write_text(json.dumps({"created": now, "data": {}, "environment": {}}))

    return create_run(log_dir, "e", names, fill)


@pytest.mark.parametrize("content", [b"", b"{", bytes(50), b"[]", b'{"created": 3}', b"\xff"])
def test_a_damaged_run_does_not_affect_others(tmp_path: Path, content: bytes) -> None:
    good, other = make(tmp_path, "good", created="2020-01-01T00:00:00+00:00"), make(tmp_path, "other")
    other.run_info.write_bytes(content)
    assert find_run(tmp_path, "e", "good") == good
    with pytest.raises(UserError, match=r"no run 'nowhere' under .* \(runs there: good, other\)"):
        find_run(tmp_path, "e", "nowhere")
    assert find_run(tmp_path, "e", "last") == other  # the newest; an older one in its place would be a surprise
    os.utime(other.run_info, (0, 0))
    assert find_run(tmp_path, "e", "last") == good


def test_runs_that_start_in_the_same_second_have_names_of_their_own(tmp_path: Path) -> None:
    names = [*islice(default_run_names("_SYNTHETIC"), 3)]
    time = re.fullmatch(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_SYNTHETIC", names[0])
    assert time and names[1:] == [f"{time[1]}_2_SYNTHETIC", f"{time[1]}_3_SYNTHETIC"]
    assert [make(tmp_path, *names).name for _ in range(3)] == names
    assert find_run(tmp_path, "e", "last").name == names[2]
    with pytest.raises(UserError, match="exists; resume it with --resume"):
        make(tmp_path, *names)


def test_a_name_that_another_command_uses_meanwhile_is_refused(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        (path / "mine").touch()
        if not (tmp_path / "e" / "t").exists():
            make(tmp_path, "t")

    assert create_run(tmp_path, "e", ["t", "t_2"], fill).name == "t_2"
    assert (tmp_path / "e" / "t_2" / "mine").exists() and not (tmp_path / "e" / "t" / "mine").exists()
    (tmp_path / "e" / "t").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"another process has just created run .*t; join it with --resume t"):
        create_run(tmp_path, "e", ["t"], fill)
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["t", "t_2"]


def test_commands_in_the_same_second_create_separate_runs(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmnist_cv.engine.preparation.default_run_names", lambda suffix: iter(["now", "now_2"]))
    quick["cv"]["holdout"] = 0.3
    quick["trainer"]["max_epochs"] = 1
    assert [cross_validate({**quick, "seed": seed}).path.name for seed in (0, 1)] == ["now", "now_2"]
    assert cross_validate({**quick, "seed": 1}, resume="last").path.name == "now_2"


def test_remains_of_a_deleted_run_give_the_same_message_for_run_and_resume(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path, capsys: Any
) -> None:
    left = tmp_path / "logs" / "tiny" / "left"
    (left / "fold_0").mkdir(parents=True)
    config = str(write_config(quick))
    messages = []
    for arguments in (["--run", "left"], ["--resume", "left"], ["--resume", str(left)]):
        assert fit.main(["--config", config, *arguments]) == USER_ERROR
        messages.append(capsys.readouterr().err)
    assert messages[0].startswith(f"error: {left} exists, but is not a run: it has no config.yaml")
    assert "delete it or choose another name with --run" in messages[0]
    assert messages[1:] == messages[:1] * 2
    assert fit.main(["--resume", str(left)]) == USER_ERROR
    assert f"config {left / 'config.yaml'} cannot be read as YAML: No such file" in capsys.readouterr().err


def test_a_deleted_run_is_not_recreated(tmp_path: Path) -> None:
    gone = tmp_path / "e" / "gone"
    with pytest.raises(FileNotFoundError):
        FoldFolder(gone / "fold_0").make()
    for wait in (True, False):
        with pytest.raises(FileNotFoundError), locked(gone / ".summary.lock", wait=wait, what="the summary"):
            pass
    assert not gone.exists()


@pytest.mark.parametrize("name", ["fold_0", "refit"])
def test_folds_are_written_inside_their_run_only(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path, capsys: Any, name: str
) -> None:
    quick["cv"]["holdout"] = 0.3
    quick["trainer"]["max_epochs"] = 1
    config, run, elsewhere = str(write_config(quick)), tmp_path / "logs" / "tiny" / "linked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.MonkeyPatch.context() as patch:  # up to where the folds would run
        patch.setattr("fmnist_cv.cross_validation._run", lambda *arguments: None)
        fit.main(["--config", config, "--run", "linked"])
    (run / name).symlink_to(elsewhere)
    assert fit.main(["--config", config, "--resume", "linked", "--refit"]) == FAILED
    err = capsys.readouterr().err
    assert f"{name} failed: {run / name} is a symbolic link, but folds are only written inside their run" in err
    assert not list(elsewhere.iterdir())


def test_a_link_in_the_place_of_a_half_written_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".results.json.tmp").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "results.json", {})
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "results.json").is_symlink()


def test_files_of_a_run_are_not_written_through_a_link(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "exports").mkdir(parents=True)
    assert inside(run, run / "exports" / "best") == run / "exports" / "best"
    (run / "evaluations").symlink_to(tmp_path)
    with pytest.raises(
        UserError, match=r"evaluations/garments-test leads out of the run, to .*; replace the link with a folder"
    ):
        default_folder(run, "garments", "test", "ensemble")
