"""What would fail in the first epoch is refused before the run is created, in one line that names the option."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from running import HERE, outcome

from fmnist_cv import cross_validate
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.engine import preparation
from fmnist_cv.engine.preparation import prepare_run
from fmnist_cv.engine.run_folder import write_arrays
from fmnist_cv.errors import UserError

USERS_MODULES = HERE / "users_modules.py"
LIGHTNINGS = "lightning.pytorch.callbacks."


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"callbacks": [{"class_path": name, "init_args": arguments}]}


def augment(name: str, **arguments: Any) -> dict[str, Any]:
    return {"augment": [{"class_path": name, "init_args": arguments}]}


WRONG_TRAINER: dict[str, tuple[dict[str, Any], str]] = {
    "max_time": ({"max_time": "soon"}, r"trainer\.max_time is 'soon'.*DD:HH:MM:SS"),
    "max_time unit": ({"max_time": {"weekends": 1}}, r"trainer\.max_time is \{'weekends': 1\}.*\"hours\": 2"),
    "no time": ({"max_time": "00:00:00:00"}, r"trainer\.max_time is 00:00:00:00, in which no step is trained"),
    "max_steps": ({"max_steps": -7}, r"trainer\.max_steps is -7.*non-negative integer or -1"),
    "no steps": ({"max_steps": 0}, r"trainer\.max_steps is 0, with which no step is trained; increase it"),
    "min_epochs": ({"min_epochs": -1}, r"trainer\.min_epochs is -1; it must be at least 0"),
    "min_steps": ({"min_steps": -1}, r"trainer\.min_steps is -1; it must be at least 0"),
    "no batches": (
        {"limit_train_batches": 0},
        r"trainer\.limit_train_batches is 0, with which no step is trained",
    ),
    "batches": ({"limit_train_batches": -2}, r"trainer\.limit_train_batches is -2: .*in \[0\.0, 1\.0\] or an int"),
    "part of a batch": (
        {"limit_train_batches": 0.1},
        r"trainer\.limit_train_batches is 0\.1, which leaves none of the 7 batches of fold_0",
    ),
    "log_every_n_steps": ({"log_every_n_steps": -1}, r"trainer\.log_every_n_steps is -1; it must be at least 0"),
    "accumulation": ({"accumulate_grad_batches": 0}, r"trainer\.accumulate_grad_batches is 0; it must be at least 1"),
    "clipping": ({"gradient_clip_val": -1.0}, r"trainer\.gradient_clip_val is -1\.0; it must be at least 0"),
    "clipping by": (
        {"gradient_clip_algorithm": "l3"},
        r"trainer\.gradient_clip_algorithm is 'l3'.*Allowed algorithms: \['value', 'norm'\]",
    ),
    "profiler": ({"profiler": "fast"}, r"trainer\.profiler is 'fast'.*'simple'"),
    "reloading": ({"reload_dataloaders_every_n_epochs": -1}, r"trainer\.reload_dataloaders_every_n_epochs is -1.*>= 0"),
    "precision": (
        {"plugins": {"class_path": "lightning.pytorch.plugins.DoublePrecision"}},
        r"trainer\.plugins contains DoublePrecision.*give trainer\.precision instead",
    ),
    "cluster": (
        {"plugins": {"class_path": "lightning.pytorch.plugins.environments.LightningEnvironment"}},
        r"trainer\.plugins contains LightningEnvironment, but each fold is one process",
    ),
    "early stopping": (
        callback(LIGHTNINGS + "EarlyStopping", monitor="f1"),
        r"trainer\.callbacks: EarlyStopping: .*metric `f1` which is not available.*`val/accuracy`",
    ),
    "checkpoint": (
        callback(LIGHTNINGS + "ModelCheckpoint", monitor="f1"),
        r"trainer\.callbacks: ModelCheckpoint monitors 'f1', which nothing logs; there are .*val/accuracy",
    ),
    "progress bar": (
        callback(LIGHTNINGS + "RichProgressBar"),
        r"trainer\.callbacks: RichProgressBar: .*enable_progress_bar",
    ),
    "no logger": (
        callback(LIGHTNINGS + "LearningRateMonitor"),
        r"trainer\.callbacks: LearningRateMonitor: .*no logger",
    ),
}
WRONG_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "crop": (
        augment("kornia.augmentation.RandomCrop", size=[9, 9]),
        r"data\.augment turns images of shape \(1, 28, 28\) .* into \(1, 9, 9\), which .*DenseNetwork cannot take; augmented "
        r"images must be as large as the others",
    ),
    "augmentation": (
        augment("torch.nn.Linear", in_features=3, out_features=4),
        r"data\.augment: Linear: the first training step fails: RuntimeError: mat1 and mat2",
    ),
    "dropped": (
        {"drop_last": True, "batch_size": 500},
        r"fold_0 has 200 training images, less than one batch of data\.batch_size 500, and data\.drop_last is true; .*drop_last false",
    ),
}
VALIDATES_ITSELF: dict[str, tuple[dict[str, Any], str]] = {
    "interval": ({"val_check_interval": 0}, r"trainer\.val_check_interval is 0; it must be above 0"),
    "long interval": ({"val_check_interval": 100}, r"trainer: .*`val_check_interval` \(100\).*training batches \(7\)"),
    "epochs": ({"check_val_every_n_epoch": 0}, r"trainer\.check_val_every_n_epoch is 0; it must be at least 1"),
    "share": ({"limit_val_batches": 1.5}, r"trainer\.limit_val_batches is 1\.5"),
}


def refused(config: dict[str, Any]) -> str:
    """The error message, after checking that no files were left behind."""
    with pytest.raises(UserError) as refusal:
        cross_validate(config)
    assert not Path(config["log_dir"]).exists()
    return str(refusal.value)


@pytest.mark.parametrize(("options", "message"), WRONG_TRAINER.values(), ids=WRONG_TRAINER)
def test_wrong_trainer_options(quick: dict[str, Any], options: dict[str, Any], message: str) -> None:
    quick["trainer"] |= options
    assert re.match(message, refused(quick))


@pytest.mark.parametrize(("options", "message"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_batches(quick: dict[str, Any], options: dict[str, Any], message: str) -> None:
    quick["data"]["init_args"] |= options
    assert re.match(message, refused(quick))


@pytest.mark.parametrize(("options", "message"), VALIDATES_ITSELF.values(), ids=VALIDATES_ITSELF)
def test_wrong_options_of_a_validation_step(quick: dict[str, Any], options: dict[str, Any], message: str) -> None:
    quick["model"] = {"class_path": "users_modules.WithOwnValidation"}
    quick["trainer"] |= options
    assert re.match(message, refused(quick))


@pytest.mark.parametrize("options", [{"monitor": "val_f1"}, {"monitor": "val_f1", "patience": 2}])
def test_a_metric_that_nothing_logs(quick: dict[str, Any], options: dict[str, Any]) -> None:
    quick["model"] = {"class_path": "users_modules.Logits"}
    quick["selection"] = options
    assert re.match(r"selection\.monitor is 'val_f1', which nothing logs; there are .*val/accuracy", refused(quick))


@pytest.mark.parametrize("where", ["step", "epoch end", "validation", "optimizer"])
def test_an_exception_of_a_user_module_is_reported_with_its_line(quick: dict[str, Any], where: str) -> None:
    quick["model"] = {"class_path": "users_modules.FailsInTraining", "init_args": {"where": where}}
    line = next(i for i, text in enumerate(USERS_MODULES.read_text().splitlines(), 1) if "raise LookupError" in text)
    assert refused(quick) == (
        f"users_modules.FailsInTraining: the first training step fails: LookupError: no such {where} ({USERS_MODULES}:{line})"
    )


def test_a_checkpoint_that_could_not_be_loaded(quick: dict[str, Any]) -> None:
    quick["model"] = {"class_path": "users_modules.FailsInTraining", "init_args": {"where": "checkpoint"}}
    assert "the checkpoint contains objects that are not plain values" in refused(quick)


def test_classes_that_cannot_be_balanced(quick: dict[str, Any], tmp_path: Path) -> None:
    """The second class is in fold_0's training part only."""
    labels = torch.zeros(30, dtype=torch.int64)
    labels[[0]] = 1
    images = torch.zeros(30, 1, 28, 28, dtype=torch.uint8)
    write_arrays(tmp_path / "two.npz", {"images": images.numpy(), "labels": labels.numpy()})
    quick["data"] = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "two.npz")}}
    quick["model"] = {
        "class_path": "fmnist_cv.models.DenseNetwork",
        "init_args": {"n_classes": 2, "class_weights": "balanced"},
    }
    quick["cv"]["stratify"] = False
    assert re.match(
        r"fold_\d: class_weights 'balanced': the training part has \[20, 0\] images per class", refused(quick)
    )


# -- a last batch of one image ------------------------------------------------------------------------------

BATCH_NORM = {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [8], "batch_norm": True}}


def test_a_last_batch_of_one_image(quick: dict[str, Any], tmp_path: Path) -> None:
    """Of 301 images two folds train on 201, in batches of 50."""
    quick["model"] = BATCH_NORM
    quick["data"]["init_args"] |= {"n_train": 301, "batch_size": 50}
    assert re.match(
        r"the last training batch of fold_[012] has one image \(201 training images, data\.batch_size 50\).*"
        r"--data\.drop_last true, or choose another --data\.batch_size.*Expected more than 1 value per channel",
        refused(quick),
    )
    for way_out in ({"drop_last": True}, {"batch_size": 51}):
        prepare_run(as_experiment(quick, {f"data.{key}": value for key, value in way_out.items()}), run=str(way_out))
    prepare_run(as_experiment(quick, {"trainer.limit_train_batches": 4}), run="does not reach it")
    quick["model"] = {"class_path": "fmnist_cv.models.BatchNormCNN"}
    prepare_run(as_experiment(quick), run="each channel has 784 values")


@pytest.mark.parametrize("cv", [{"inner_holdout": 0.245}, {"train_size": 151}, {"holdout": 149}])
def test_a_last_batch_of_one_image_by_the_plan(quick: dict[str, Any], cv: dict[str, Any]) -> None:
    quick["model"] = BATCH_NORM
    quick["data"]["init_args"]["batch_size"] = 50
    quick["cv"] |= cv
    assert "has one image (151 training images" in refused(quick)


def test_a_last_batch_of_one_image_in_the_refit(quick: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Folds train on 200 or 201 of 301 images, in batches of 60; the refit's last batch has one."""
    quick["model"] = BATCH_NORM
    quick["data"]["init_args"] |= {"n_train": 301, "batch_size": 60}
    quick["trainer"]["max_epochs"] = 1
    message = r"the last training batch of the refit has one image \(301 training images, data\.batch_size 60\)"
    with pytest.raises(UserError, match=message):
        cross_validate(quick, refit=True)
    assert not Path(quick["log_dir"]).exists()
    cross_validate(quick, run="folds", console=Console(width=1000))
    assert re.search(f"A --refit of this run would fail: {message}", capsys.readouterr().out)
    with pytest.raises(UserError, match=message):
        cross_validate(quick, resume="folds", refit=True)


# -- what is right ------------------------------------------------------------------------------------------

RIGHT_TRAINER: dict[str, dict[str, Any]] = {
    "time": {"max_time": "00:01:00:00"},
    "at least": {"min_epochs": 2, "min_steps": 9},
    "accumulation": {"accumulate_grad_batches": 4},
    "batches": {"limit_train_batches": 1},
    "steps": {"max_steps": 2},
    "profiler": {"profiler": "simple"},
    "anomalies": {"detect_anomaly": True, "deterministic": True},
    "early stopping": callback(LIGHTNINGS + "EarlyStopping", monitor="val/loss"),
    "checkpoint": callback(LIGHTNINGS + "ModelCheckpoint", monitor="val/loss", dirpath="kept", save_last="link"),
}


@pytest.mark.parametrize("options", RIGHT_TRAINER.values(), ids=RIGHT_TRAINER)
def test_right_options_pass_and_leave_nothing(
    quick: dict[str, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick["trainer"] |= options
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tmp").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere / "tmp"))
    run = prepare_run(as_experiment(quick), run="r").run
    assert sorted(os.listdir(run.path)) == ["config.yaml", "run.json", "splits.npz"]
    assert [path.name for path in elsewhere.rglob("*")] == ["tmp"]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("how", "n"), [("turned", 100), ("shuffled", 100), ("rest", 64)])
def test_other_held_out_images_than_those_of_the_split(quick: dict[str, Any], how: str, n: int) -> None:
    quick["data"] = {"class_path": "users_modules.OwnLoader", "init_args": {"n_train": 300, "n_test": 10, "how": how}}
    expected = f"OwnLoader.predict_dataloader must yield the validation images in the order of the split, 100 of them; it yields {n}"
    assert expected in refused(quick)


def test_the_packages_own_batches_are_not_read_for_their_order(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        ImageBatches, "_read", lambda self, i, of=ImageBatches._read: read.append(len(i)) or of(self, i)
    )
    prepare_run(as_experiment(quick), run="r")
    assert read == [32, 100]  # a training batch, and a batch of held-out images, which the epoch is chosen by
    quick["data"]["class_path"] = "users_modules.OwnLoader"
    prepare_run(as_experiment(quick), run="own")
    assert read[2:] == [32, 100, 64, 36]


@pytest.mark.parametrize("name", ["Manual", "NeedsManyImages", "WithOwnValidation", "Softmax", "LogSoftmax"])
def test_users_modules_pass(tiny: dict[str, Any], name: str) -> None:
    tiny["model"] = {"class_path": f"users_modules.{name}"}
    run = prepare_run(as_experiment(tiny), run="r").run
    assert sorted(os.listdir(run.path)) == ["config.yaml", "run.json", "splits.npz"]  # no events of TensorBoard


def test_a_callbacks_metric_may_be_monitored_and_its_file_is_removed(quick: dict[str, Any], tmp_path: Path) -> None:
    quick["model"] = {"class_path": "users_modules.Logits"}
    quick["selection"] = {"monitor": "f1"}
    quick["trainer"] |= callback("users_modules.LogsInACallback")
    run = prepare_run(as_experiment(quick), run="r").run
    assert sorted(os.listdir(run.path)) == ["config.yaml", "run.json", "splits.npz"]


def test_the_sanity_check_does_not_change_the_folds(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    quick["data"]["init_args"]["scaling"] = "standardise"
    quick["cv"] |= {"inner_holdout": 0.2}
    checked = outcome(cross_validate(quick, run="checked").path)
    monkeypatch.setattr(preparation, "run_sanity_check", lambda *_: None)
    assert outcome(cross_validate(quick, run="not").path) == checked
