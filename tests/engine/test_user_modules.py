"""Any LightningModule that maps images to scores of the classes can be cross-validated, and is scored right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from running import outcome, read_json

from fmnist_cv import SyntheticDataModule, cross_validate, fit
from fmnist_cv.command_line import USER_ERROR
from fmnist_cv.cross_validation import FoldsFailed


def images_and_labels(config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    data = SyntheticDataModule(n_train=config["data"]["init_args"]["n_train"])
    return data.train_images.images.float() / 255, data.train_images.labels


@pytest.mark.parametrize("name", ["Logits", "LogSoftmax", "Softmax"])
def test_scores_are_right_whatever_the_output_means(quick: dict[str, Any], name: str) -> None:
    """A softmax is neither taken twice nor left out: the loss is the one computed here from the saved weights."""
    quick["model"] = {"class_path": f"users_modules.{name}"}
    result = cross_validate(quick)
    images, labels = images_and_labels(quick)
    for fold in range(3):
        folder = result.path / f"fold_{fold}"
        with np.load(result.path / "splits.npz") as splits:
            validation = splits[f"repeat_0_fold_{fold}_validation"]
        weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        logits = images[validation].flatten(1) @ weights["layer.weight"].T + weights["layer.bias"]
        expected_loss = float(F.cross_entropy(logits, labels[validation]))
        expected_accuracy = float((logits.argmax(1) == labels[validation]).float().mean())

        metrics = read_json(folder / "metrics.json")
        scores = metrics["last"]["validation"]
        assert scores["loss"] == pytest.approx(expected_loss, rel=1e-5)
        assert scores["accuracy"] == pytest.approx(expected_accuracy)
        assert metrics["history"][-1]["val/loss"] == pytest.approx(expected_loss, rel=1e-5)
        assert metrics["history"][-1]["val/accuracy"] == pytest.approx(expected_accuracy)
        np.testing.assert_allclose(result.out_of_fold()[0][validation], logits.softmax(1), atol=1e-6)


def test_the_three_kinds_of_outputs_give_the_same_training(quick: dict[str, Any]) -> None:
    """They are one model, written in three ways."""
    results = {}
    for name in ("Logits", "LogSoftmax", "Softmax"):
        quick["model"] = {"class_path": f"users_modules.{name}"}
        results[name] = cross_validate(quick, run=name).out_of_fold()
    np.testing.assert_allclose(results["LogSoftmax"], results["Logits"], atol=1e-4)
    np.testing.assert_allclose(results["Softmax"], results["Logits"], atol=1e-4)


def test_a_module_that_logs_nothing_still_has_curves(quick: dict[str, Any]) -> None:
    """The training loss is the mean of what the training step returned; with one batch that is the loss before it."""
    quick["model"] = {"class_path": "users_modules.Logits", "init_args": {"lr": 0.0}}
    quick["cv"]["holdout"] = 0.3
    result = cross_validate(quick)
    images, labels = images_and_labels(quick)
    with np.load(result.path / "splits.npz") as splits:
        train = splits["repeat_0_fold_0_train"]
    weights = torch.load(result.path / "fold_0" / "last.ckpt", weights_only=True)["state_dict"]
    logits = images[train].flatten(1) @ weights["layer.weight"].T + weights["layer.bias"]
    for metrics in read_json(result.path / "fold_0" / "metrics.json")["history"]:
        assert metrics.keys() == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"}
        assert metrics["train/loss"] == pytest.approx(float(F.cross_entropy(logits, labels[train])), rel=1e-5)
        assert metrics["train/accuracy"] == pytest.approx(float((logits.argmax(1) == labels[train]).float().mean()))


@pytest.mark.parametrize("class_path", ["users_modules.Logits", "fmnist_cv.models.LinearClassifier"])
def test_the_training_loss_does_not_depend_on_accumulation(quick: dict[str, Any], class_path: str) -> None:
    """Lightning divides what a training step returns by the number of batches it accumulates."""
    quick["cv"]["holdout"] = 0.3
    quick["trainer"] |= {"max_epochs": 1, "accumulate_grad_batches": 4}
    quick["model"] = {"class_path": class_path}
    if class_path.endswith("Logits"):
        quick["model"]["init_args"] = {"lr": 0.0}
    else:
        quick["model"]["init_args"] = {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}}
    result = cross_validate(quick)
    (metrics,) = read_json(result.path / "fold_0" / "metrics.json")["history"]
    assert metrics["train/loss"] == pytest.approx(metrics["val/loss"], rel=0.1)


def test_its_own_validation_metric_can_choose_the_epoch(quick: dict[str, Any]) -> None:
    quick["model"] = {"class_path": "users_modules.WithOwnValidation"}
    quick["selection"] = {"monitor": "val_f1"}
    result = cross_validate(quick)
    for fold in range(3):
        metrics = read_json(result.path / f"fold_{fold}" / "metrics.json")
        assert [epoch["val_f1"] for epoch in metrics["history"]] == pytest.approx([0.5, 0.25, 0.5 / 3])
        assert (metrics["monitor"], metrics["best_epoch"], metrics["epochs"]) == ("val_f1", 0, 3)
        assert metrics["best"]["epoch"] == 0 and metrics["last"]["epoch"] == 2
        best = torch.load(result.path / f"fold_{fold}" / "best.ckpt", weights_only=True)
        assert best["epoch"] == 0


def test_its_own_metric_can_stop_the_training(quick: dict[str, Any]) -> None:
    quick["cv"]["holdout"] = 0.3
    quick["model"] = {"class_path": "users_modules.WithOwnValidation"}
    quick["selection"] = {"monitor": "val_f1", "patience": 2}
    quick["trainer"]["max_epochs"] = 10
    result = cross_validate(quick)
    (fold,) = result.summary["folds"]
    assert (fold["epochs"], fold["stopped_early"], fold["best_epoch"]) == (3, True, 0)
    assert "optimistic" in result.summary["headline"]["caveat"]


def test_a_module_without_an_optimizer_learns(quick: dict[str, Any]) -> None:
    quick["cv"]["holdout"] = 0.3
    quick["model"] = {"class_path": "users_modules.NearestMean"}
    quick["trainer"]["max_epochs"] = 1
    result = cross_validate(quick)
    (metrics,) = read_json(result.path / "fold_0" / "metrics.json")["history"]
    assert metrics.keys() == {"val/loss", "val/accuracy"} and metrics["val/accuracy"] > 0.2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("KeepsAFunction", "hyperparameters that are not plain values"),
        ("FiveClasses", r"(2, 10)"),
    ],
)
def test_unusable_modules_are_refused_before_training(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    reason: str,
) -> None:
    quick["model"] = {"class_path": f"users_modules.{name}"}
    assert fit.main(["--config", str(write_config(quick))]) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and reason in captured.err and name in captured.err
    assert "Traceback" not in captured.err and "epoch" not in captured.out
    assert not (tmp_path / "logs").exists()


def test_torchvisions_resnet18_runs_and_resumes(quick: dict[str, Any]) -> None:
    quick["cv"] |= {"n_splits": 2}
    quick["model"] = {"class_path": "users_modules.ResNet18"}
    quick["data"]["init_args"] |= {"n_train": 40, "n_test": 20, "batch_size": 20}
    quick["trainer"]["max_epochs"] = 1
    result = cross_validate(quick, run="resnet")
    assert np.isfinite(result.out_of_fold()).all()
    assert result.summary["folds"][0]["n_train"] == 20
    before = outcome(result.path)
    (result.path / "fold_1" / "metrics.json").unlink()
    assert outcome(cross_validate(quick, resume="resnet").path) == before


def test_a_module_that_uses_view_keeps_the_default_memory_layout(quick: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "colour.npz", images=rng.integers(0, 256, (60, 3, 28, 28), np.uint8), labels=np.arange(60) % 3)
    quick["data"] = {
        "class_path": "fmnist_cv.data.ArrayDataModule",
        "init_args": {"path": str(tmp_path / "colour.npz"), "batch_size": 16},
    }
    quick["model"] = {"class_path": "users_modules.Viewer"}
    result = cross_validate(quick)
    assert result.summary["test"] is None
    assert not np.isnan(result.out_of_fold()).any()


def test_a_fold_that_predicts_nan_fails_and_names_the_image(quick: dict[str, Any]) -> None:
    quick["model"] = {"class_path": "users_modules.PredictsNaN"}
    with pytest.raises(
        FoldsFailed, match=r"fold_0: the model predicts NaN for \d+ of 100 images, the first .* number \d+"
    ):
        cross_validate(quick)
