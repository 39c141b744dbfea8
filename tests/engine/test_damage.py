"""Damage in any file of a run is found when the file is read, and named with the way out, whatever the damage."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import outcome

from fmnist_cv import CrossValidationResult, compare, evaluate, export, fit, predict, report
from fmnist_cv.command_line import OK, USER_ERROR
from fmnist_cv.config.identity import identity
from fmnist_cv.data.split_files import load_splits
from fmnist_cv.engine.fold_scoring import load_checkpoint
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder
from fmnist_cv.errors import UserError


@pytest.fixture
def run(standard: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(standard, tmp_path / "run", symlinks=True))


# -- every file, every damage -------------------------------------------------------------------------------

RESTORE = "restore it from a copy of the run, or delete the run's folder and start a new run"


def read_splits(run: Path) -> Any:
    result = CrossValidationResult.load(run)
    return load_splits(
        run / "splits.npz", result.labels, result.experiment.plan, result.summary["data"]["fingerprint"], None
    )


READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config.yaml": (lambda run: RunFolder(run).read_experiment(), "{run}"),
    "run.json": (lambda run: RunFolder(run).read_run_info(), RESTORE),
    "splits.npz": (read_splits, "restore it from a copy of the run, or start a new"),
    "fold_1/metrics.json": (
        lambda run: FoldFolder(run / "fold_1").read_metrics(),
        "delete it and resume the run, which scores the fold again",
    ),
    "fold_1/probabilities.npz": (
        lambda run: CrossValidationResult.load(run).test_probabilities(),
        "delete {run}/fold_1/metrics.json and resume the run, which scores the fold again",
    ),
    "fold_1/last.ckpt": (
        lambda run: FoldFolder(run / "fold_1").check_checkpoints(),
        "delete the folder {run}/fold_1 and resume the run, which trains this fold again",
    ),
    "fold_1/best.ckpt": (
        lambda run: FoldFolder(run / "fold_1").check_checkpoints(),
        "delete the folder {run}/fold_1 and resume the run, which trains this fold again",
    ),
    "results.json": (CrossValidationResult.load, "python -m fmnist_cv.fit --resume {run}"),
    "out_of_fold.npz": (
        lambda run: CrossValidationResult.load(run).out_of_fold(),
        "python -m fmnist_cv.fit --resume {run} gathers it again from the folds",
    ),
}
CHECKPOINTS = ("fold_1/last.ckpt", "fold_1/best.ckpt")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_another_kind(path: Path) -> None:
    if path.suffix == ".npz":
        np.savez(path, last=np.zeros(3), labels=np.array(["shirt"]))
    else:
        path.write_text("[1, 2]\n")


def with_other_types(path: Path) -> None:
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        strings = {
            name: np.full(array.shape, "x") for name, array in arrays.items() if name not in ("seed", "fingerprint")
        }
        np.savez(path, **(arrays | strings))
    elif path.suffix == ".json":
        path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), 3)))
    else:
        path.write_text("name: [tiny]\nmodel: 3\n")


DAMAGES = (truncated, zeroed, emptied, missing, a_pipe, of_another_kind, with_other_types)


@pytest.mark.parametrize("name", READERS)
def test_every_damage_of_every_file_is_reported_with_a_remedy(run: Path, name: str) -> None:
    read, way_out = READERS[name]
    path, whole = run / name, (run / name).read_bytes()
    read(run)
    for damage in DAMAGES:
        if damage is missing and name in CHECKPOINTS:  # as a search and users leave them
            continue
        damage(path)
        with pytest.raises(UserError) as refused:
            read(run)
        message = str(refused.value)
        assert str(run) in message and path.name in message, f"{damage.__name__}: {message}"
        assert way_out.format(run=run) in message, f"{damage.__name__}: {message}"
        assert len(message.splitlines()) == 1, f"{damage.__name__}: {message}"
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    read(run)


def flips(content: bytes, n: int) -> Iterator[bytes]:
    """`n` copies of a file with one bit flipped in each, anywhere."""
    chance = random.Random(0)
    for _ in range(n):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        yield bytes(flipped)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool(np.array_equal(np.asarray(a), np.asarray(b)))
    return bool(a == b)


def without_last(content: dict[str, Any]) -> dict[str, Any]:
    """Without what was the key "digest" before a bit of that was flipped."""
    return dict(list(content.items())[:-1])


CONTENTS: dict[str, tuple[Callable[[Path], Any], int]] = {
    "config.yaml": (
        lambda run: identity(yaml.safe_load(RunFolder(run).read_experiment().to_yaml())),
        40,
    ),
    "run.json": (lambda run: RunFolder(run).read_run_info(), 150),
    "splits.npz": (lambda run: CrossValidationResult.load(run).split_arrays, 150),
    "fold_1/metrics.json": (lambda run: FoldFolder(run / "fold_1").read_metrics(), 150),
    "fold_1/probabilities.npz": (
        lambda run: FoldFolder(run / "fold_1").read_probabilities(
            {"last_test": (100, 10), "best_validation": (100, 10)}
        ),
        150,
    ),
    "fold_1/last.ckpt": (lambda run: load_checkpoint(run / "fold_1" / "last.ckpt"), 150),
    "results.json": (lambda run: CrossValidationResult.load(run).summary, 150),
    "out_of_fold.npz": (lambda run: CrossValidationResult.load(run)._arrays, 150),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_flipped_bit_is_found_or_changes_nothing(run: Path, name: str) -> None:
    """Such as one in the blanks of a JSON file, or in the padding of a checkpoint."""
    read, n = CONTENTS[name]
    path, content, found = run / name, read(run), 0
    for flipped in flips(path.read_bytes(), n):
        path.write_bytes(flipped)
        try:
            read_back = read(run)
        except UserError:
            found += 1
            continue
        assert same(content, read_back) or (name.endswith(".json") and same(content, without_last(read_back)))
    assert found > 0.5 * n


# -- every command ------------------------------------------------------------------------------------------

FOLD = {"fold_1/metrics.json", "fold_1/probabilities.npz"}
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str], set[str]]] = {
    "fit": (fit.main, ["--resume", "{run}"], {"config.yaml", "run.json", "splits.npz", *FOLD, *CHECKPOINTS}),
    "evaluate": (
        evaluate.main,
        ["{run}"],
        {"config.yaml", "run.json", "results.json", "out_of_fold.npz", "fold_1/probabilities.npz", "fold_1/last.ckpt"},
    ),
    "predict": (predict.main, ["{run}", "{image}"], {"config.yaml", "run.json", "results.json", "fold_1/last.ckpt"}),
    "compare": (
        compare.main,
        ["{run}", "{other}"],
        {"results.json", "out_of_fold.npz", "splits.npz", "fold_1/probabilities.npz"},
    ),
    "report": (report.main, ["{run}"], {"splits.npz", *FOLD}),
    "export": (
        export.main,
        ["{run}", "--format", "safetensors"],
        {"config.yaml", "run.json", "results.json", "fold_1/last.ckpt"},
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_damaged_file_that_it_reads(
    standard: Path, run: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, arguments, files = COMMANDS[command]
    image = run / "garment.png"
    Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(image)
    arguments = [argument.format(run=run, other=standard, image=image) for argument in arguments]
    for name in sorted(files):
        path, whole = run / name, (run / name).read_bytes()
        truncated(path)
        assert main(arguments) == 2, name
        *_, err = capsys.readouterr().err.splitlines()  # after a warning that the data are SYNTHETIC
        assert err.startswith("error: "), f"{name}: {err}"
        assert str(run) in err and path.name in err and "; " in err, f"{name}: {err}"
        path.write_bytes(whole)


def test_what_is_gathered_from_the_folds_is_gathered_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "build_report", lambda *arguments: None)
    before = outcome(run)
    for damage, name in ((zeroed, "results.json"), (truncated, "out_of_fold.npz")):
        damage(run / name)
    assert fit.main(["--resume", str(run)]) == OK
    assert outcome(run) == before


def test_checkpoints_may_be_deleted(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As a search does with those of worse trials; only commands that need them fail."""
    monkeypatch.setattr(fit, "build_report", lambda *arguments: None)
    for path in run.glob("*/*.ckpt"):
        path.unlink()
    assert fit.main(["--resume", str(run)]) == OK
    capsys.readouterr()
    assert evaluate.main([str(run)]) == USER_ERROR
    err = capsys.readouterr().err
    assert f"{run / 'fold_0' / 'last.ckpt'} is missing" in err and f"delete the folder {run / 'fold_0'}" in err


def test_a_run_of_an_older_version_is_read_as_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files have no digests, and its run.json has the settings not a second time."""
    monkeypatch.setattr(fit, "build_report", lambda *arguments: None)
    before = outcome(run)
    for path in (*run.glob("*.json"), *run.glob("*/metrics.json")):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("digest", "settings")}))
    assert outcome(run) == before
    assert CrossValidationResult.load(run).experiment.name == "tiny"
    assert fit.main(["--resume", str(run)]) == OK
    assert outcome(run) == before


@pytest.mark.parametrize("arguments", ["--resume {run}", "--config {run}/config.yaml --resume {run}"])
def test_a_setting_that_was_changed_in_the_runs_config_is_named(run: Path, capsys: Any, arguments: str) -> None:
    """What decides where a run computes may change, and what it computes may not."""
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("accelerator: cpu", "accelerator: auto"))
    assert RunFolder(run).read_experiment().config.trainer.accelerator == "auto"
    (run / "config.yaml").write_text(config.replace("dropout: 0.2", "dropout: 0.3"))
    assert fit.main(arguments.format(run=run).split()) == USER_ERROR
    assert (
        f"cannot read {run / 'config.yaml'}: model.init_args.dropout is 0.3, but the run was started with 0.2; restore that value"
        in capsys.readouterr().err
    )
