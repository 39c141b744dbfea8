"""`KFoldDataModule` used alone, with Lightning's own Trainer: splits, order, scaling, augmentation, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn

from fmnist_cv.data import ArrayDataModule, KFoldDataModule, SplitPlan, SyntheticDataModule, make_splits
from fmnist_cv.errors import UserError
from fmnist_cv.models import BatchNormCNN, DenseNetwork, ImageClassifier, LinearClassifier

MakeTrainer = Callable[..., L.Trainer]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loaders and logging


@pytest.fixture
def trainer(tmp_path: Path) -> MakeTrainer:
    def make(**options: Any) -> L.Trainer:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        return L.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path, **quiet, **options})

    return make


class Recorder(nn.Module):
    """An augmentation that changes nothing and keeps the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.clone())
        return images


def numbered(n: int = 200, **arguments: Any) -> ArrayDataModule:
    """Images whose top left pixel is their index, unscaled."""
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    images[:, 0, 0] = np.arange(n)
    return ArrayDataModule(images=images, labels=np.arange(n) % 10, **{"scaling": "none", **arguments})


def order(batches: list[Tensor]) -> list[int]:
    return torch.cat([images[:, 0, 0, 0] for images in batches]).int().tolist()


# -- with a plain Trainer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [BatchNormCNN, DenseNetwork])
def test_a_plain_trainer_fits_validates_tests_and_predicts(
    network: type[ImageClassifier], trainer: MakeTrainer
) -> None:
    data, model = SyntheticDataModule(n_train=200, n_test=50, n_splits=4, fold=1, eval_batch_size=30), network()
    plain = trainer(max_epochs=2)
    plain.fit(model, datamodule=data)
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= plain.callback_metrics.keys()
    assert plain.global_step == 2 * 3 and plain.num_val_batches == [2]
    assert plain.validate(model, datamodule=data, verbose=False)[0].keys() >= {"val/loss", "val/accuracy"}
    assert plain.test(model, datamodule=data, verbose=False)[0].keys() >= {"test/loss", "test/accuracy"}
    probabilities = torch.cat(plain.predict(model, datamodule=data))  # type: ignore[arg-type]
    assert probabilities.shape == (50, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))


def test_batches_reach_the_model_scaled_and_in_float(trainer: MakeTrainer) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(DenseNetwork):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    data = SyntheticDataModule(n_train=200, scaling="standardise")
    trainer().fit(Watching(), datamodule=data)
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert images.dtype == torch.float32 and images.shape == (160, 1, 28, 28) and labels.dtype == torch.int64
    assert abs(images.mean()) < 1e-5 and abs(images.std() - 1) < 1e-4
    assert torch.equal(labels.bincount(), data.class_counts()) and data.class_counts().tolist() == [16] * 10


# -- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        {"n_splits": 4, "fold": 2},
        {"n_splits": 3, "fold": 1, "repeat": 2, "seed": 7},
        {"n_splits": 3, "stratify": False, "seed": 1},
        {"n_splits": 3, "fold": 2, "inner_holdout": 0.25},
        {"holdout": 0.3, "seed": 3},
        {"holdout": 50, "repeat": 1},
        {"holdout": "first:40", "inner_holdout": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_module_draws_the_splits_that_make_splits_draws(plan: dict[str, Any], grouped: bool) -> None:
    groups = np.arange(200) // 5 if grouped else None
    data = numbered(200, groups=groups, **plan)
    repeat, fold = plan.get("repeat", 0), plan.get("fold", 0)
    rest = {key: value for key, value in plan.items() if key not in ("repeat", "fold")}
    splits = make_splits(np.arange(200) % 10, SplitPlan(n_repeats=repeat + 1, **rest), groups)
    expected = next(s for s in splits if (s.repeat, s.fold) == (repeat, fold))
    np.testing.assert_array_equal(data.split.train, expected.train)
    np.testing.assert_array_equal(data.split.validation, expected.validation)
    np.testing.assert_array_equal(data.split.inner, expected.inner)


@pytest.mark.parametrize("inner_holdout", [None, 0.25])
def test_each_loader_takes_its_part(inner_holdout: float | None) -> None:
    data = numbered(n_splits=4, inner_holdout=inner_holdout, eval_batch_size=15, batch_size=32)
    data.setup()
    parts = {
        name: order([images for images, _ in getattr(data, f"{name}_dataloader")()])
        for name in ("train", "val", "predict")
    }
    assert sorted(parts["train"]) == data.split.train.tolist() != parts["train"]
    assert parts["predict"] == data.split.validation.tolist()
    assert parts["val"] == (data.split.validation if data.split.inner is None else data.split.inner).tolist()
    assert [len(labels) for _, labels in data.predict_dataloader()] == [15, 15, 15, 5]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [64, 64, 22]), (True, [64, 64])])
def test_the_last_batch_may_be_dropped(drop_last: bool, sizes: list[int]) -> None:
    data = numbered(n_splits=4, drop_last=drop_last)
    assert [len(labels) for _, labels in data.train_dataloader()] == sizes
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 50


def test_a_split_made_elsewhere_is_taken() -> None:
    data, [_, second] = numbered(), make_splits(np.arange(200) % 10, SplitPlan(2, seed=9))
    data.use_split(second, seed=1)
    data.setup()
    assert data.split is second and sorted(order([x for x, _ in data.train_dataloader()])) == second.train.tolist()


def test_a_new_split_gets_a_new_scaling() -> None:
    data = SyntheticDataModule(n_train=200, scaling="standardise", fold=0)
    data.setup()
    fresh = SyntheticDataModule(n_train=200, scaling="standardise", fold=3)
    fresh.setup()
    assert data.scaling != fresh.scaling
    data.use_split(fresh.split, seed=0)
    data.setup()
    assert data.scaling == fresh.scaling  # else the old one has seen the new held-out images


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"eval_batch_size": -1}, "data.eval_batch_size -1"),
        ({"fold": 5}, "fold is 5; with n_splits 5 it runs from 0 to 4"),
        ({"fold": -1}, "fold is -1"),
        ({"n_splits": 1}, "n_splits is 1"),
        ({"repeat": -1}, "repeat"),
        ({"holdout": 0.2, "fold": 1}, "fold is 1; .*holdout"),
        ({"holdout": "first:5", "repeat": 1}, "same split every time"),
        ({"scaling": "standardize"}, "scaling is 'standardize'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        SyntheticDataModule(**arguments)


def test_scaling_before_setup_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        numbered().scale(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


# -- order --------------------------------------------------------------------------------------------------


def training_order(
    trainer: MakeTrainer, epochs: int, ckpt_path: Path | None = None, **arguments: Any
) -> list[list[int]]:
    """The images of each epoch, in the order in which they were trained on."""
    recorder = Recorder()
    data = numbered(n_splits=4, augment=[recorder], **arguments)
    plain = trainer(max_epochs=epochs)
    plain.fit(LinearClassifier(), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    if ckpt_path is None:
        plain.save_checkpoint(Path(plain.default_root_dir) / "some.ckpt")
    seen = order(recorder.batches)
    return [seen[start : start + 150] for start in range(0, len(seen), 150)]


def test_each_epoch_shuffles_anew_and_by_the_seed_alone(trainer: MakeTrainer) -> None:
    first, second = training_order(trainer, 2)
    assert first != second and sorted(first) == sorted(second)
    torch.manual_seed(99)
    assert training_order(trainer, 2) == [first, second]
    assert training_order(trainer, 1, seed=1) != [first]


def test_a_resumed_epoch_gets_the_order_it_would_have_had(trainer: MakeTrainer, tmp_path: Path) -> None:
    whole = training_order(trainer, 3)
    assert training_order(trainer, 2) == whole[:2]
    assert training_order(trainer, 3, tmp_path / "some.ckpt") == whole[2:]


# -- augmentation -------------------------------------------------------------------------------------------


def test_augmentation_happens_in_training_only(trainer: MakeTrainer) -> None:
    recorder = Recorder()
    data, model = SyntheticDataModule(n_train=200, n_test=50, augment=[recorder]), DenseNetwork(hidden=[8])
    plain = trainer(max_epochs=2, num_sanity_val_steps=2)
    plain.fit(model, datamodule=data)
    assert [len(images) for images in recorder.batches] == [64, 64, 32] * 2
    plain.validate(model, datamodule=data, verbose=False)
    plain.test(model, datamodule=data, verbose=False)
    plain.predict(model, datamodule=data)
    assert len(recorder.batches) == 6


def test_augmentations_apply_in_turn_to_scaled_images(trainer: MakeTrainer) -> None:
    class Halve(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images / 2

    before, after = Recorder(), Recorder()
    data = SyntheticDataModule(n_train=200, scaling="minmax", augment=[before, Halve(), after])
    trainer().fit(DenseNetwork(hidden=[8]), datamodule=data)
    assert torch.cat(before.batches).min() == 0 and torch.cat(before.batches).max() == 1
    for one, other in zip(before.batches, after.batches, strict=True):
        torch.testing.assert_close(one / 2, other)


@pytest.mark.parametrize(
    ("augmentation", "least"), [(RandomHorizontalFlip(p=0.5), 2), (RandomCrop((28, 28), padding=4), 10)]
)
def test_kornias_augmentations_draw_anew_for_each_image(
    augmentation: nn.Module, least: int, trainer: MakeTrainer
) -> None:
    picture, recorder = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8), Recorder()
    data = ArrayDataModule(
        images=np.stack([picture] * 200), labels=np.arange(200) % 10, augment=[augmentation, recorder]
    )
    trainer(max_epochs=2).fit(DenseNetwork(hidden=[8]), datamodule=data)
    for images in recorder.batches:
        assert images.shape[1:] == (1, 28, 28)
        assert len(images.flatten(1).unique(dim=0)) >= least
    first, second = recorder.batches[0], recorder.batches[3]
    assert not torch.equal(first, second)


# -- checkpoints --------------------------------------------------------------------------------------------


def test_a_checkpoint_gives_back_the_scaling(trainer: MakeTrainer, tmp_path: Path) -> None:
    data, model, plain = SyntheticDataModule(200, 60, scaling="standardise"), DenseNetwork(hidden=[8]), trainer()
    plain.fit(model, datamodule=data)
    plain.save_checkpoint(tmp_path / "model.ckpt")
    [scores] = plain.test(model, datamodule=data, verbose=False)

    state = torch.load(tmp_path / "model.ckpt", weights_only=True)["SyntheticDataModule"]
    assert state["class_names"] == list(data.class_names) and state["image_shape"] == [1, 28, 28]
    other = SyntheticDataModule(200, 60, scaling="standardise", fold=3)
    other.setup()
    assert other.scaling != data.scaling
    other.load_state_dict(state)
    assert other.scaling == data.scaling

    elsewhere = SyntheticDataModule(200, 60, scaling="none")
    [again] = trainer().test(
        DenseNetwork(hidden=[8]), elsewhere, ckpt_path=tmp_path / "model.ckpt", weights_only=True, verbose=False
    )
    assert elsewhere.scaling == data.scaling
    assert all(again[name] == scores[name] for name in ("test/loss", "test/accuracy"))


def test_a_subclass_needs_load_alone(trainer: MakeTrainer) -> None:
    class Noise(KFoldDataModule):
        def load(self, train: bool) -> Any:
            return numbered().train_images if train else None

    data = Noise(n_splits=2)
    trainer().fit(LinearClassifier(), datamodule=data)
    assert data.data_name == "Noise" and data.test_images is None and len(data.split.train) == 100


def test_a_module_without_training_images_is_refused() -> None:
    class Nothing(KFoldDataModule):
        def load(self, train: bool) -> None:
            return None

    with pytest.raises(UserError, match="Nothing has no training images"):
        Nothing().setup()


def test_a_module_without_load_is_refused() -> None:
    class Unfinished(KFoldDataModule):
        pass

    with pytest.raises(UserError, match=r"Unfinished has no method load\(train\), which returns its images"):
        _ = Unfinished().train_images
