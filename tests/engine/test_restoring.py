"""A checkpoint that can be read, but is not the unfinished fold's, is refused in one message with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fmnist_cv import fit
from fmnist_cv.command_line import FAILED, INTERRUPTED, OK
from fmnist_cv.engine.callbacks import KeepCheckpoints


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A config, and its run, whose only fold has one of three epochs behind it."""
    folder = tmp_path_factory.mktemp("interrupted")
    config = {
        "name": "tiny",
        "log_dir": str(folder),
        "cv": {"holdout": 0.3, "workers": 1},
        "model": {
            "class_path": "fmnist_cv.models.DenseNetwork",
            "init_args": {
                "hidden": [8],
                "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}},
            },
        },
        "data": {
            "class_path": "fmnist_cv.data.SyntheticDataModule",
            "init_args": {"n_train": 200, "n_test": 20, "batch_size": 50},
        },
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "32-true", "logger": False},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    save = KeepCheckpoints._save

    def save_and_stop(self: Any, trainer: Any, better: bool) -> None:
        save(self, trainer, better)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeepCheckpoints, "_save", save_and_stop)
        assert fit.main(["--config", str(path), "--run", "run"]) == INTERRUPTED
    return str(path), folder / "tiny" / "run"


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: {name: value for name, value in checkpoint.items() if name != key}


def with_other(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: {**checkpoint, **values}


def other_shapes(checkpoint: dict[str, Any]) -> Any:
    return {**checkpoint, "state_dict": {name: torch.zeros(3, 3) for name in checkpoint["state_dict"]}}


def without_history(checkpoint: dict[str, Any]) -> Any:
    keeper = {**checkpoint["callbacks"]["KeepCheckpoints"], "history": []}
    return {**checkpoint, "callbacks": {**checkpoint["callbacks"], "KeepCheckpoints": keeper}}


HOLLOW: list[Callable[[dict[str, Any]], Any]] = [
    lambda checkpoint: {},
    lambda checkpoint: [],
    *(without(key) for key in ("state_dict", "callbacks", "optimizer_states", "lr_schedulers", "loops")),
    with_other(callbacks={}),
    with_other(callbacks=3),
    with_other(state_dict={}),
    with_other(optimizer_states=[]),  # these Lightning would leave out without a word
    with_other(lr_schedulers=[]),
    with_other(loops={}),
    with_other(SyntheticDataModule={}),
    other_shapes,
    without_history,
]


@pytest.mark.parametrize("hollow", HOLLOW, ids=lambda change: getattr(change, "__name__", ""))
def test_a_checkpoint_with_missing_or_wrong_states_is_refused(
    interrupted: tuple[str, Path], hollow: Callable[[dict[str, Any]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = interrupted
    path = run / "fold_0" / "last.ckpt"
    whole = path.read_bytes()
    torch.save(hollow(torch.load(path, weights_only=True)), path)
    try:
        assert fit.main(["--config", config, "--resume", "run"]) == FAILED
        err = capsys.readouterr().err
        assert f"fold_0 failed: the checkpoint {path} is not one of this fold" in err
        assert f"delete the folder {run / 'fold_0'} and resume the run, which trains this fold again\n" in err
        assert "Traceback" not in err
    finally:
        path.write_bytes(whole)


def test_a_flipped_bit_in_the_weights_is_refused(interrupted: tuple[str, Path], capsys: Any) -> None:
    """torch loads it silently, and training would continue from other weights."""
    config, run = interrupted
    path = run / "fold_0" / "last.ckpt"
    whole = path.read_bytes()
    weights = next(iter(torch.load(path, weights_only=True)["state_dict"].values()))
    flipped = bytearray(whole)
    flipped[whole.index(weights.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(flipped)
    try:
        assert not torch.equal(next(iter(torch.load(path, weights_only=True)["state_dict"].values())), weights)
        assert fit.main(["--config", config, "--resume", "run"]) == FAILED
        assert f"fold_0 failed: cannot read the checkpoint {path} (BadZipFile)" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


def test_an_intact_checkpoint_is_restored(interrupted: tuple[str, Path], capsys: Any) -> None:
    config, _ = interrupted
    assert fit.main(["--config", config, "--resume", "run"]) == OK
    assert "resumes after epoch 1" in capsys.readouterr().out
