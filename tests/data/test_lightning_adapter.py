"""A plain LightningDataModule as data: what of it is kept, what is held out, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import plain_data
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from fmnist_cv import cross_validate
from fmnist_cv.cross_validation import as_experiment, fold_job
from fmnist_cv.data import LightningDataModuleAdapter, SyntheticDataModule
from fmnist_cv.engine.events import Event, Finished
from fmnist_cv.engine.fold import run_fold
from fmnist_cv.engine.preparation import prepare_run
from fmnist_cv.errors import UserError
from fmnist_cv.inference.evaluation import evaluate_run

ADAPTER = "fmnist_cv.data.LightningDataModuleAdapter"


def adapter(module: Any = plain_data.PlainData, **arguments: Any) -> LightningDataModuleAdapter:
    return LightningDataModuleAdapter(module, **({"eval_dataset": "without_augmentation"} | arguments))


@pytest.fixture
def config(quick: dict[str, Any]) -> dict[str, Any]:
    quick["data"] = {
        "class_path": ADAPTER,
        "init_args": {"module": {"class_path": "plain_data.PlainData"}, "eval_dataset": "without_augmentation"},
    }
    quick["trainer"]["max_epochs"] = 1
    return quick


def numbers(images: torch.Tensor) -> list[int]:
    return (1000 * images[:, 0, 0, 0]).round().int().tolist()


@pytest.mark.parametrize("view", [{"eval_dataset": "without_augmentation"}, {"eval_transform": "plain"}])
def test_its_training_data_are_split_and_held_out_without_augmentation(view: dict[str, str]) -> None:
    data = LightningDataModuleAdapter(lambda: plain_data.PlainData(batch_size=7), n_splits=3, fold=1, **view)
    data.setup("fit")
    train = data.train_images
    assert len(train) == plain_data.N and train.class_names == ("left", "middle", "right")
    assert data.data_name == "PlainData" and data.test_images is not None and len(data.test_images) == 30
    own = numbers(train.pixels(torch.arange(plain_data.N)))
    assert len(set(own)) == plain_data.N  # of 100, without those that the module sets aside

    held_out = torch.cat([images for images, _ in data.predict_dataloader()])
    assert numbers(held_out) == [own[i] for i in data.split.validation]
    batches = [*data.train_dataloader()]
    assert [len(labels) for _, labels in batches] == [7] * 8 + [4] and len(data.train_dataloader()) == 9
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(
        train.labels[data.split.train].tolist()
    )
    images = torch.cat([images for images, _ in batches])
    assert (images[:, 0, 4, 0] != 0).all() and (held_out[:, 0, 4, 0] == 0).all()  # noise in the training alone
    assert torch.equal(data.prepare(held_out), held_out)


def test_the_loaders_settings_are_kept() -> None:
    def collate(items: list[Any]) -> Any:
        images, labels = torch.utils.data.default_collate(items)
        return 2 * images, labels

    class Own(plain_data.PlainData):
        def train_dataloader(self) -> Any:
            return DataLoader(self.train, 8, True, collate_fn=collate, drop_last=True, timeout=0)

    data = adapter(Own, n_splits=3)
    data.setup("fit")
    batches = [*data.train_dataloader()]
    assert [len(labels) for _, labels in batches] == [8] * 7 and data.batch_size == 8
    assert data.train_images.pixels(torch.arange(3)).max() == 2


def test_a_module_that_splits_at_random_gives_every_process_the_same_data() -> None:
    torch.manual_seed(1)
    first = adapter().train_images
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = adapter().train_images
    assert torch.equal(torch.get_rng_state(), state)  # nothing of the fold's own randomness is used up
    assert first.fingerprint() == second.fingerprint() and torch.equal(first.labels, second.labels)
    every = torch.arange(plain_data.N)
    assert torch.equal(first.pixels(every), second.pixels(every))


def test_a_cross_validation_from_yaml(config: dict[str, Any]) -> None:
    result = cross_validate(config, run="plain")
    assert result.out_of_fold().shape == (1, plain_data.N, 3) and not np.isnan(result.out_of_fold()).any()
    assert result.summary["test"] is not None
    evaluation, _ = evaluate_run(result.path)
    assert evaluation["n"] == 30 and evaluation["against_the_run"] is not None
    settings = result.experiment.config.data.init_args
    assert settings.module.class_path == "plain_data.PlainData" and settings.module.init_args.batch_size == 16


def test_prepare_data_is_called_once_and_not_by_folds_in_other_processes(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["data"]["init_args"]["module"]["init_args"] = {"calls": str(tmp_path / "calls")}
    prepared = prepare_run(as_experiment(config), run="r")
    events: list[Event] = []
    run_fold(replace(fold_job(prepared, 0), loaded=None), events.append)
    assert isinstance(events[-1], Finished)
    assert (tmp_path / "calls").read_text(encoding="utf-8") == f"{os.getpid()}\n"


class Hook(plain_data.PlainData):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


class Several(plain_data.PlainData):
    def train_dataloader(self) -> Any:
        return [super().train_dataloader()]


class Streamed(plain_data.PlainData):
    def train_dataloader(self) -> Any:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter(())

        return DataLoader(Stream(), 4)


class Weighted(plain_data.PlainData):
    def train_dataloader(self) -> Any:
        return DataLoader(self.train, 4, sampler=WeightedRandomSampler([1.0] * 90, 90))


class Assigned(plain_data.PlainData):
    def prepare_data(self) -> None:
        self.n_images = 3

    def setup(self, stage: str) -> None:
        assert self.n_images


class Broken(plain_data.PlainData):
    def setup(self, stage: str) -> None:
        raise RuntimeError("no space")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (plain_data.PlainData, {"eval_dataset": None}, "held-out images would otherwise be scored with the training's"),
        (plain_data.PlainData, {"eval_transform": "plain"}, "either eval_dataset or eval_transform"),
        (plain_data.PlainData, {"eval_dataset": "clean"}, "PlainData has no 'clean' after setup"),
        (plain_data.PlainData, {"eval_dataset": "val"}, "have 90 images and the data for evaluation 10"),
        (plain_data.PlainData, {"eval_dataset": "train"}, "twice gives different pixels"),
        (plain_data.PlainData, {"eval_dataset": None, "eval_transform": "batch_size"}, "int, which is no transform"),
        (Hook, {}, "overrides on_after_batch_transfer"),
        (Several, {}, "train_dataloader returns list"),
        (Streamed, {}, "no items by index"),
        (Weighted, {}, "WeightedRandomSampler, which would choose among all folds' images"),
        (Broken, {}, "Broken.setup fails: RuntimeError: no space"),
        (Assigned, {}, "Assigned.setup fails: AttributeError: .*; if it misses what prepare_data has made"),
        (SyntheticDataModule, {}, "no plain LightningDataModule; name it in data.class_path itself"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused(module: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapter(module, **arguments).train_images  # noqa: B018


def test_a_module_without_test_data_has_no_test_set() -> None:
    class NoTest(plain_data.PlainData):
        test_dataloader = L.LightningDataModule.test_dataloader

    assert adapter(NoTest).test_images is None


def test_a_last_batch_of_one_image_is_found_before_training(config: dict[str, Any]) -> None:
    config["model"] = {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [8], "batch_norm": True}}
    module = config["data"]["init_args"]["module"]
    module["init_args"] = {"batch_size": 59}
    with pytest.raises(
        UserError, match=r"last training batch of fold_0 has one image .* the DataLoader's drop_last true"
    ):
        cross_validate(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_path": "plain_data.PlainData"}, "is not a KFoldDataModule, and its held-out images .* eval_transform"),
        ({"init_args": {"module": {"class_path": "plain_data.PlainData"}}}, "either eval_dataset or eval_transform"),
        ({"init_args": {"scaling": "unit"}}, "'scaling' is not an option of"),
    ],
)
def test_mistakes_in_a_config_are_explained(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    config["data"] = {"class_path": ADAPTER, **change}
    with pytest.raises(UserError, match=message):
        cross_validate(config)
