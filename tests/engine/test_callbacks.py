"""What a config adds to a fold's Trainer: callbacks, loggers, clipping, accumulation; and when training stops."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import read_json

from fmnist_cv import cross_validate, fit
from fmnist_cv.command_line import FAILED, OK


@pytest.fixture
def one_fold(quick: dict[str, Any]) -> dict[str, Any]:
    """210 images, 7 batches, 3 epochs."""
    quick["cv"]["holdout"] = 0.3
    return quick


def sgd(config: dict[str, Any], lr: float) -> dict[str, Any]:
    config["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}
    return config


def history(run: Path) -> list[dict[str, float]]:
    return read_json(run / "fold_0" / "metrics.json")["history"]


def test_a_csv_logger_in_addition_to_tensorboard(one_fold: dict[str, Any], tmp_path: Path) -> None:
    one_fold["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path), "name": "curves"},
    }
    run = cross_validate(one_fold, run="run").path
    with open(tmp_path / "curves" / "tiny-run-fold_0" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    expected = history(run)
    for row, metrics in zip(rows, expected, strict=True):
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert float(row[key]) == pytest.approx(metrics[key], rel=1e-6)
    assert list((run / "fold_0").glob("events.out.tfevents.*"))


def test_callbacks_from_the_config(one_fold: dict[str, Any]) -> None:
    """They see the engine's metrics, and their checkpoints are in the fold's folder."""
    one_fold["trainer"] |= {
        "logger": True,
        "callbacks": [
            {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "val/accuracy", "mode": "max", "save_top_k": -1, "filename": "{epoch}"},
            },
        ],
    }
    run = cross_validate(one_fold, run="more").path
    files = sorted(path.name for path in (run / "fold_0").rglob("epoch*.ckpt"))
    assert files == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"]
    (first,) = (run / "fold_0").rglob("epoch=0.ckpt")
    states = torch.load(first, weights_only=True)["callbacks"]
    (own,) = (state for key, state in states.items() if key.startswith("ModelCheckpoint"))
    assert float(own["current_score"]) == pytest.approx(history(run)[0]["val/accuracy"])
    assert (run / "fold_0" / "last.ckpt").is_file() and (run / "fold_0" / "best.ckpt").is_file()
    one_fold["trainer"]["callbacks"], one_fold["trainer"]["logger"] = None, False
    plain = history(cross_validate(one_fold, run="plain").path)
    assert [{k: metrics[k] for k in plain[0]} for metrics in history(run)] == plain  # they change nothing


def test_callbacks_that_the_module_configures(one_fold: dict[str, Any]) -> None:
    """Their state after an epoch is in its checkpoint, and the refit omits those that need held-out images."""
    one_fold["model"] = {"class_path": "users_modules.ConfiguresCallbacks"}
    run = cross_validate(one_fold, refit=True).path
    states = torch.load(run / "fold_0" / "last.ckpt", weights_only=True)["callbacks"]
    (own,) = (state for key, state in states.items() if key.startswith("ModelCheckpoint"))
    assert len(own["best_k_models"]) == 3  # of three epochs
    assert (run / "refit" / "last.ckpt").is_file()


def test_one_callback_need_not_be_a_list(one_fold: dict[str, Any]) -> None:
    one_fold["trainer"]["callbacks"] = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/loss", "mode": "max", "patience": 1},
    }
    (fold,) = cross_validate(one_fold).summary["folds"]
    assert (fold["epochs"], fold["stopped_early"]) == (2, True)


def test_gradients_are_clipped(one_fold: dict[str, Any]) -> None:
    one_fold["trainer"] |= {"gradient_clip_val": 1e-9, "max_epochs": 2}
    first, second = history(cross_validate(sgd(one_fold, 1.0), run="clipped").path)
    assert second["val/loss"] == pytest.approx(first["val/loss"], abs=1e-6)
    one_fold["trainer"]["gradient_clip_val"] = None
    first, second = history(cross_validate(one_fold, run="free").path)
    assert second["val/loss"] != pytest.approx(first["val/loss"], abs=1e-3)


def test_gradients_are_accumulated(one_fold: dict[str, Any]) -> None:
    one_fold["trainer"] |= {"accumulate_grad_batches": 3}
    run = cross_validate(one_fold).path
    checkpoint = torch.load(run / "fold_0" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3 * 3  # of 7 batches: 3, 3 and 1


def test_training_stops_when_patience_runs_out(one_fold: dict[str, Any]) -> None:
    one_fold["trainer"]["max_epochs"] = 9
    one_fold["selection"] = {"patience": 2}
    (fold,) = cross_validate(sgd(one_fold, 0.0)).summary["folds"]
    assert (fold["epochs"], fold["stopped_early"], fold["best_epoch"]) == (3, True, 0)


def test_patience_counts_epochs_however_seldom_a_module_validates_itself(one_fold: dict[str, Any]) -> None:
    one_fold["model"] = {"class_path": "users_modules.WithOwnValidation", "init_args": {"lr": 0.0}}
    one_fold["trainer"] |= {"max_epochs": 9, "check_val_every_n_epoch": 2}
    one_fold["selection"] = {"patience": 2}
    (fold,) = cross_validate(one_fold).summary["folds"]
    assert (fold["epochs"], fold["stopped_early"]) == (3, True)


def test_the_history_holds_the_rate_that_the_epoch_was_trained_with(one_fold: dict[str, Any]) -> None:
    sgd(one_fold, 0.1)["model"]["init_args"]["lr_scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 1, "gamma": 0.1},
    }
    assert [metrics["lr"] for metrics in history(cross_validate(one_fold).path)] == pytest.approx([0.1, 0.01, 0.001])


def test_limited_train_batches(one_fold: dict[str, Any]) -> None:
    one_fold["trainer"] |= {"limit_train_batches": 2, "max_epochs": 2}
    result = cross_validate(one_fold)
    assert torch.load(result.path / "fold_0" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert result.summary["folds"][0]["n_validation"] == 90  # all are scored


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/accuracy", "max"), ("train/loss", "min")])
def test_the_best_epoch_is_the_monitors(one_fold: dict[str, Any], monitor: str, mode: str) -> None:
    one_fold["selection"] = {"monitor": monitor, "mode": mode}
    one_fold["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}}
    run = cross_validate(one_fold).path
    metrics = read_json(run / "fold_0" / "metrics.json")
    scores = [epoch[monitor] for epoch in metrics["history"]]
    best = scores.index(max(scores) if mode == "max" else min(scores))
    assert metrics["best_epoch"] == metrics["best"]["epoch"] == best
    checkpoint = torch.load(run / "fold_0" / "best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == best
    if monitor.startswith("val"):
        name = monitor.removeprefix("val/")
        assert metrics["best"]["validation"][name] == pytest.approx(scores[best], rel=1e-6)


def test_a_checkpoint_that_cannot_be_read_is_named(
    one_fold: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, run = str(write_config(one_fold)), tmp_path / "logs" / "tiny" / "damaged"
    assert fit.main(["--config", config, "--run", "damaged"]) == OK
    (run / "fold_0" / "metrics.json").unlink()
    checkpoint = run / "fold_0" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert fit.main(["--config", config, "--resume", "damaged"]) == FAILED
    err = capsys.readouterr().err
    assert f"cannot read the checkpoint {checkpoint}" in err and "Traceback" not in err


def test_checkpoints_contain_plain_values_only(standard: Path) -> None:
    for path in standard.rglob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["SyntheticDataModule"]["scaling"] == {"shift": [0.0], "scale": [255.0]}
        assert len(checkpoint["SyntheticDataModule"]["class_names"]) == 10
