"""What cannot be written is refused before the work, by every command that is told where to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.replication import __main__ as replicate
from fmnist_cv import compare, evaluate, export, inference, predict
from fmnist_cv.engine.writable import check_file_writable, check_writable
from fmnist_cv.errors import UserError
from fmnist_cv.inference import evaluation, export as exporting

# the command, what it must not come to, and its arguments; RUN and OUT stand for paths
WORK: dict[str, tuple[Any, tuple[Any, str], list[str]]] = {
    "replicate": (replicate, (replicate, "run_rows"), ["--only", "blog-dense", "--out", "OUT"]),
    "replicate, runs": (
        replicate,
        (replicate, "run_rows"),
        ["--only", "blog-dense", "--log_dir", "OUT", "--out", "RUN"],
    ),
    "replicate, tables": (replicate, (replicate, "run_rows"), ["--tables", "--out", "OUT"]),
    "evaluate": (evaluate, (evaluation, "load_ensemble"), ["RUN", "--out", "OUT"]),
    "export": (export, (exporting, "load_ensemble"), ["RUN", "--format", "safetensors", "--out", "OUT"]),
    "predict": (predict, (inference, "load_ensemble"), ["RUN", "photo.jpg", "--out", "OUT/x.csv"]),
    "compare": (compare, (compare, "compare_runs"), ["RUN", "RUN", "--json", "OUT/x.json"]),
}


@pytest.mark.parametrize("place", ["/proc/missing", "{tmp}/file"])
@pytest.mark.parametrize("command", WORK)
def test_what_cannot_be_written_is_refused_before_the_work(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    place: str,
) -> None:
    module, (owner, name), arguments = WORK[command]
    (tmp_path / "file").touch()
    out = place.format(tmp=tmp_path)
    monkeypatch.setattr(owner, name, lambda *arguments, **options: pytest.fail("the work has begun"))
    given = [argument.replace("RUN", str(run)).replace("OUT", out) for argument in arguments]
    assert module.main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write") and out in error and "choose another" in error
    assert not Path("/proc/missing").exists() and (tmp_path / "file").read_bytes() == b""


def test_what_can_be_written_passes_and_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "to" / "be" / "made")
    check_file_writable(tmp_path / "new", "--out")
    assert not list(tmp_path.iterdir())


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(UserError, match="it is not a regular file; choose another with --out"):
            check_file_writable(path, "--out")
