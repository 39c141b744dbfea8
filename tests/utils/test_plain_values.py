"""Configs from Python are plain values; what is an object is refused with what to write instead."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from fmnist_cv import ArrayDataModule, DenseNetwork, SyntheticDataModule, cross_validate
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.errors import UserError
from fmnist_cv.search.tuning import as_search
from fmnist_cv.utils.plain_values import plain


def test_plain_values_are_as_yaml_holds_them() -> None:
    given = {
        "n": np.int64(3),
        "lr": np.float32(0.5),
        "on": np.bool_(True),
        "log_dir": Path("a/b"),
        "day": datetime.date(2026, 1, 31),
        "size": (28, [None, "x"]),
    }
    found = plain(given)
    assert found == {"n": 3, "lr": 0.5, "on": True, "log_dir": "a/b", "day": "2026-01-31", "size": [28, [None, "x"]]}
    assert [type(found[key]) for key in ("n", "lr", "on")] == [int, float, bool]


DATA = ArrayDataModule(images=np.zeros((4, 2, 2), np.uint8), labels=np.arange(4) % 2)
WAY = r"numpy\.savez\('my\.npz', images=\.\.\., labels=\.\.\.\) and give data={'class_path': 'fmnist_cv\.data\.Array"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"data": SyntheticDataModule()},
            r"data is an object \(SyntheticDataModule\), which a config cannot hold: .*write {'class_path': 'fmnist_cv\.data\.",
        ),
        (
            {"data": {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"images": np.zeros((4, 2, 2))}}},
            rf"data\.init_args\.images is the array or tensor of shape \(4, 2, 2\).*{WAY}",
        ),
        (
            {"model": DenseNetwork()},
            r"model is an object \(DenseNetwork\).*write {'class_path': 'fmnist_cv\.models\.dense\.DenseNetwork', 'init_args'",
        ),
        (
            {"model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"optimizer": torch.optim.SGD}}},
            r"model\.init_args\.optimizer is the class SGD.*write its dotted name, 'torch\.optim\.sgd\.SGD'",
        ),
        (
            {"trainer": {"callbacks": [EarlyStopping("val/loss")]}},
            r"trainer\.callbacks\.0 is an object \(EarlyStopping\)",
        ),
    ],
)
def test_objects_are_refused_wherever_they_are_given(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        as_experiment({"name": "mine", **changes})
    with pytest.raises(UserError, match=reason):
        as_experiment("quickstart", changes)
    with pytest.raises(UserError, match=reason):
        cross_validate("quickstart", **changes)
    with pytest.raises(UserError, match=reason):
        cross_validate(**changes)


def test_an_experiment_alone_refuses_data_that_cross_validate_takes() -> None:
    reason = rf"data is an object \(ArrayDataModule\), which a config cannot hold: .*{WAY}"
    with pytest.raises(UserError, match=reason):
        as_experiment("quickstart", {"data": DATA})


def test_an_object_in_the_place_of_the_config_is_refused() -> None:
    with pytest.raises(UserError, match=r"the config is an object \(ArrayDataModule\)"):
        cross_validate(DATA)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"overrides\.model is an object \(DenseNetwork\)"):
        as_search({"name": "mine", "experiment": "quickstart", "overrides": {"model": DenseNetwork()}})


def test_sections_stand_in_the_place_of_the_configs(tmp_path: Path) -> None:
    garments = {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_train": 60, "n_test": 10}}
    dense = {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [4]}}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "logger": False}
    result = cross_validate(
        name="mine", log_dir=tmp_path, cv={"n_splits": 2, "workers": 1}, data=garments, model=dense, trainer=trainer
    )
    assert result.summary["data"]["n_train"] == 60 and result.path.parent == tmp_path / "mine"
    with pytest.raises(UserError, match="'modle' is not an option; did you mean 'model'"):
        cross_validate("quickstart", modle=dense)
