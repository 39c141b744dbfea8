"""The data module: stratified k-fold splits of any images, with batches cut from uint8 tensors on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from fmnist_cv.data.augmentation import refuse_batchwise
from fmnist_cv.data.batches import ImageBatches, Scaling, ScalingName
from fmnist_cv.data.cut_test import TestCut, test_indices
from fmnist_cv.data.duplicates import Duplicates, handle_duplicates
from fmnist_cv.data.given_splits import split_images
from fmnist_cv.data.images import Images
from fmnist_cv.data.named_images import read_left_out
from fmnist_cv.data.pixel_kinds import name_of
from fmnist_cv.data.sampling import drawn, shares_of
from fmnist_cv.data.splits import Split, SplitPlan
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import derive_seed
from fmnist_cv.utils.paths import user_path

# Arguments that determine the split of a module used alone; in an experiment the section `cv` replaces them.
SPLIT_ARGUMENTS = ("n_splits", "fold", "repeat", "stratify", "holdout", "inner_holdout", "seed")

# of a CUDA device's free memory, up to which the training images are kept on it, so that folds side by side and the
# network's activations have the rest; of larger ones, batches are copied ahead of use
SHARE_ON_DEVICE = 0.25

_SHUFFLE = 7  # keeps the shuffle's seeds apart from those of dropout and augmentation


class KFoldDataModule(L.LightningDataModule):
    """The data of one fold of a k-fold cross-validation; a subclass loads the images.

    A subclass implements `load(train)`, takes its own arguments, and passes `**kwargs` on to this class.
    Inside an experiment, the splits come from its `cv` section. Used alone, with any Trainer, the module
    makes the same splits itself::

        Trainer(max_epochs=5).fit(BatchNormCNN(), datamodule=FashionMNISTDataModule(n_splits=5, fold=0))

    Batches are (images float32 (b, c, h, w), labels int64 (b,)); `prepare` makes network input of stored pixels, and
    augments it while the model trains. Training, scoring, prediction, export and reports all call it and nothing else, so
    that a subclass that prepares its images otherwise overrides `prepare`.

    Args:
        batch_size: images per training step.
        scaling: "unit" (x / 255 for 8 bits, x / 65535 for 16; floats stay as they are), "minmax", "standardise" (both measured
            on the training part), or "none".
        augment: modules applied in turn to each scaled training batch; each must be random per image, as
            those of `kornia.augmentation` are (torchvision's are random per batch, and are refused).
        eval_batch_size: images per step without gradients; changes speed and memory only.
        drop_last: leave out the last training batch of an epoch when it is not full.
        leave_out: CSV file of training images that are left out of everything, by their names in a column `name`, or by their
            places, counted from 0, in a column `index`.
        duplicates: what to do about images that are equal in every pixel: "keep" treats them as different ones; "group" keeps
            them together, so that no fold trains on a copy of what it holds out; "refuse" ends with an error. Those two
            refuse copies of training images in the test set.
        n_splits: k.
        fold: which of the k folds is held out, from 0.
        repeat: which repetition of the k-fold, from 0.
        stratify: keep the classes' shares in every part.
        holdout: a single split instead: a fraction, a count, or "first:n".
        inner_holdout: fraction of the training part on which the epoch is chosen.
        seed: determines splits and shuffling.
    """

    def __init__(
        self,
        batch_size: int = 64,
        scaling: ScalingName = "unit",
        augment: list[nn.Module] | None = None,
        eval_batch_size: int = 1000,
        drop_last: bool = False,
        leave_out: str | None = None,
        duplicates: Duplicates = "keep",
        n_splits: int = 5,
        fold: int = 0,
        repeat: int = 0,
        stratify: bool = True,
        holdout: float | int | str | None = None,
        inner_holdout: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size} and data.eval_batch_size {eval_batch_size}; at least 1")
        self.batch_size, self.eval_batch_size, self.drop_last = batch_size, eval_batch_size, drop_last
        self.scaling_name, self.leave_out = scaling, leave_out
        self.augment = list(augment or [])
        if scaling not in get_args(ScalingName):
            raise UserError(f"data.scaling is '{scaling}'; it is one of {', '.join(get_args(ScalingName))}")
        if duplicates not in get_args(Duplicates):
            raise UserError(f"data.duplicates is '{duplicates}'; it is one of {', '.join(get_args(Duplicates))}")
        self.duplicates = duplicates
        self.test_cut: TestCut | None = None
        self._plan = SplitPlan(n_splits, repeat + 1, stratify, holdout, inner_holdout, seed)
        if not 0 <= fold < self._plan.folds_per_repeat:
            how = f"n_splits {n_splits}" if holdout is None else f"holdout {holdout}"
            raise UserError(f"fold is {fold}; with {how} it runs from 0 to {self._plan.folds_per_repeat - 1}")
        self._place = (repeat, fold)
        self._seed = derive_seed(seed, repeat, fold)
        self._split: Split | None = None
        self.scaling: Scaling | None = None
        self.stored_shape: tuple[int, ...] | None = None  # (channels, height, width) according to a checkpoint
        self._device: torch.device | None = None  # a CUDA device, to which batches are copied
        self.is_copy = False  # in a fold's own process: that of the run has prepared the same data
        self.warns = True  # about broken files and copies; not where a run has done so

    # -- to be overridden -----------------------------------------------------------------------------------

    def load(self, train: bool) -> Images | None:
        """Return the training images, or the test images (None where there is no test set).

        Raises:
            UserError: the subclass does not implement it.
        """
        raise UserError(f"{type(self).__name__} has no method load(train), which returns its images; implement it")

    @property
    def data_name(self) -> str:
        """The name of the data in results and reports."""
        return type(self).__name__.removesuffix("DataModule")

    @property
    def decode(self) -> Callable[[str | Path], np.ndarray] | None:
        """Decodes an image file to pixels as the stored images have them, uint8 (c, h, w); None where they are no files."""
        return None

    # -- data -----------------------------------------------------------------------------------------------

    @cached_property
    def train_images(self) -> Images:
        """All training images except those left out and those cut off for the test set; the split refers to them."""
        images = self._whole()
        self.left_out = self._left_out_of(images)
        absent = np.union1d(self.left_out, test_indices(images, self.test_cut))
        return images.without(absent) if len(absent) else images

    @cached_property
    def left_out(self) -> np.ndarray:
        """int64 (m,): indices, in the whole data set, of the training images left out; ascending and unique."""
        return self._left_out_of(self._whole())

    def _left_out_of(self, images: Images) -> np.ndarray:
        if self.leave_out is None:
            return np.empty(0, dtype=np.int64)
        return read_left_out(user_path(self.leave_out, "data.leave_out"), images)

    @cached_property
    def test_images(self) -> Images | None:
        """The test images, loaded on first access: by the evaluation, never by the fit.

        Raises:
            UserError: one is to be cut off, but the data have a test set.
        """
        images = self.load(train=False)
        if self.test_cut is None:
            return images
        if images is not None:
            raise UserError(
                f"cv.test is {self.test_cut}, but {self.data_name} has a test set of {len(images):,} images; leave cv.test out"
            )
        images = replace(self._whole(), weights=None)  # which are for training alone
        return images.subset(torch.from_numpy(np.setdiff1d(test_indices(images, self.test_cut), self.left_out)))

    def _whole(self) -> Images:
        images = self.load(train=True)
        if images is None:
            raise UserError(f"{self.data_name} has no training images")
        if images.part_of is not None:  # what `load` returns is the whole set, whatever it was taken from
            images = replace(images, part_of=None)
        return handle_duplicates(images, self.duplicates, self.data_name, tell=self.warns)

    def take_images(self, other: KFoldDataModule) -> None:
        """Take another module's images instead of loading them."""
        self.train_images, self.test_images = other.train_images, other.test_images

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.train_images.class_names

    @property
    def split(self) -> Split:
        """The split in use: the one given by `use_split`, or else one made from the module's own arguments."""
        if self._split is None:
            splits = split_images(self.train_images, self._plan)
            places = [(s.repeat, s.fold) for s in splits]
            if self._place not in places:
                raise UserError(f"repeat and fold are {self._place}, but the data give {len(splits)} folds, from 0")
            self._split = splits[places.index(self._place)]
        return self._split

    @property
    def has_split_arguments(self) -> bool:
        """Whether one of the arguments that determine the split of a module used alone is not the default."""
        return (self._plan, self._place) != (SplitPlan(5), (0, 0))

    def use_split(self, split: Split, seed: int) -> None:
        """Use a split made elsewhere, and the seed that determines the shuffling of its training part."""
        self._split, self._seed = split, seed
        self.scaling = None  # the old one has seen images that may now be held out

    def class_counts(self) -> Tensor:
        """(n_classes,): how many images of each class an epoch trains on, int64; as expected, float64, where they are drawn."""
        train, n_classes = self.split.train, len(self.class_names)
        labels, shares = self.train_images.labels[torch.from_numpy(train)].cpu(), shares_of(self.train_images, train)
        if shares is None:
            return torch.bincount(labels, minlength=n_classes)
        return len(train) * torch.bincount(labels, torch.from_numpy(shares), minlength=n_classes)

    # -- Lightning's hooks ----------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Load the training images, measure the scaling on the training part, and move the images to the device if they fit.

        Raises:
            UserError: an augmentation of torchvision, which is random per batch instead of per image.
        """
        data, split = self.train_images, self.split
        if self.scaling is None:
            seen = drawn(data, split.train)  # if it is none, the training loader refuses the fold, by its name
            self.scaling = Scaling.fit(self.scaling_name, data, seen if len(seen) else split.train)
        if stage in ("fit", None):
            refuse_batchwise(self.augment, self.prepare(data.pixels(torch.arange(1))))
        if self.trainer is not None and self.trainer.strategy.root_device.type == "cuda":
            self._device = device = self.trainer.strategy.root_device
            if data.images.nbytes <= SHARE_ON_DEVICE * torch.cuda.mem_get_info(device)[0]:
                self.train_images = data.to(device)

    def train_dataloader(self) -> ImageBatches:
        """Shuffled in each epoch, or drawn by their weights; the order depends on (seed, epoch) alone."""
        images, train = self.train_images, self.split.train
        return ImageBatches(
            images,
            torch.from_numpy(train),
            self.batch_size,
            self._shuffle_seed,
            self.drop_last,
            self._device,
            shares_of(images, train),
        )

    def val_dataloader(self) -> ImageBatches:
        """The images on which the epoch is chosen: the inner hold-out if there is one, else the held-out fold."""
        split = self.split
        chosen_on = split.validation if split.inner is None else split.inner
        return self._eval_batches(self.train_images, chosen_on)

    def test_dataloader(self) -> ImageBatches:
        """The test images."""
        if self.test_images is None:
            raise UserError(f"{self.data_name} has no test images")
        return self._eval_batches(self.test_images, np.arange(len(self.test_images)))

    def predict_dataloader(self) -> ImageBatches:
        """The held-out fold, in the order of its indices."""
        return self._eval_batches(self.train_images, self.split.validation)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Both tensors to the device, without the search through nested containers that Lightning does."""
        images, labels = batch
        return images.to(device), labels.to(device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Prepare the batch; not to be overridden, since predictions and exports do not call it: override `prepare`."""
        images, labels = batch
        return self.prepare(images, training=self.trainer is not None and bool(self.trainer.training)), labels

    def prepare(self, images: Tensor, training: bool = False) -> Tensor:
        """Make network input of stored pixels: the one place where this happens.

        Args:
            images: stored pixels (b, c, h, w), on any device.
            training: augment them as well.

        Returns:
            float32 (b, c, h, w).
        """
        images = self.scale(images)
        if training:
            for module in self.augment:
                images = module(images)
        return images

    def scale(self, images: Tensor) -> Tensor:
        """Stored pixels (b, c, h, w) to the float32 that the network expects, without augmentation."""
        if self.scaling is None:
            raise RuntimeError("call setup() first: the scaling is measured on the training part")
        return self.scaling(images)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a prediction from the checkpoint needs, as plain values."""
        scaling = self.scaling.state_dict() if self.scaling else None
        train = self.train_images
        return {
            "scaling": scaling,
            "class_names": list(train.class_names),
            "image_shape": list(train.shape),
            "dtype": name_of(train.dtype),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scaling, and the shape of the images, from a checkpoint."""
        self.stored_shape = tuple(state_dict["image_shape"])
        if state_dict["scaling"] is not None:
            self.scaling = Scaling.from_state_dict(state_dict["scaling"])

    def _eval_batches(self, data: Images, indices: np.ndarray) -> ImageBatches:
        return ImageBatches(data, torch.from_numpy(indices), self.eval_batch_size, device=self._device)

    def _shuffle_seed(self) -> int:
        # from the trainer, not counted here: a resumed epoch must get the same order
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return derive_seed(self._seed, epoch, _SHUFFLE)
