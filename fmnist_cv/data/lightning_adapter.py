"""A plain LightningDataModule, which knows nothing of folds, as the data of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from fmnist_cv.data.dataset_images import DatasetBatches, DatasetImages, Loading
from fmnist_cv.data.images import Images
from fmnist_cv.data.map_datasets import with_transform
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.sampling import shares_of
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import seed_everything

# of a DataLoader's settings, those that are kept; what orders and batches is the folds' own
_KEPT = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)


class DatasetDataModule(KFoldDataModule):
    """Folds of a map-style data set with transforms of its own; a subclass's `load` returns `DatasetImages`.

    What the data set gives is the network's input: it is neither scaled nor augmented here.

    Args:
        eval_batch_size: images per step without gradients; changes speed and memory only.
        kwargs: splits, see KFoldDataModule.
    """

    def __init__(self, eval_batch_size: int = 256, **kwargs: Any) -> None:
        super().__init__(
            eval_batch_size=eval_batch_size, batch_size=1, scaling="none", augment=None, drop_last=False, **kwargs
        )

    def setup(self, stage: str | None = None) -> None:
        """Read the data set's labels; the images stay where they are."""
        self.batch_size = self._images(self.train_images).loading.batch_size

    def train_dataloader(self) -> Any:
        """Shuffled in each epoch; order and augmentation depend on (seed, epoch) alone."""
        images, train = self._images(self.train_images), self.split.train
        return DatasetBatches(images, torch.from_numpy(train), None, self._shuffle_seed, shares_of(images, train))

    def _eval_batches(self, data: Images, indices: np.ndarray) -> Any:
        return DatasetBatches(self._images(data), torch.from_numpy(indices), self.eval_batch_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """All of the batch to the device; training labels may be of any kind."""
        return L.LightningDataModule.transfer_batch_to_device(self, batch, device, dataloader_idx)

    def prepare(self, images: Tensor, training: bool = False) -> Tensor:
        """The images as float32: all else is done by the data set's own transforms."""
        return images.float()

    @staticmethod
    def _images(images: Images) -> DatasetImages:
        assert isinstance(images, DatasetImages)
        return images


class LightningDataModuleAdapter(DatasetDataModule):
    """Your own LightningDataModule, unchanged: its training data are split into folds.

    Its training loader's batch size, workers and collate function are kept. What is held out must be read without
    augmentation: name where the module has it, in `eval_dataset` or `eval_transform`; without either it is refused. Its test
    loader's data are the test set; its validation data are not used, since folds take their place.

    Images are read anew in each epoch and are the network's input as the module makes it, so that data.scaling and data.augment
    do not exist here. The report shows this input, stretched to the range of pixels, and a model is exported without the transforms.
    Its `prepare_data` is called once, by the process that starts the run, on a module of its own; what it assigns is not there in
    `setup`, which each fold's process calls.

    Copies of images are not looked for, since that would read all of them: data.duplicates is "keep" unless it is set.

    Args:
        module: the class, with `class_path` and `init_args`.
        eval_dataset: name of an attribute or method of the module that gives the training data without augmentation, in the
            same order: a data set, or a DataLoader of it.
        eval_transform: name of an attribute of the module with the transform for evaluation, which replaces the attribute
            `transform` of a copy of the training data.
        class_names: by default the data set's `classes`, else the numbers of the labels.
        eval_batch_size: images per step without gradients; changes speed and memory only.
        kwargs: splits, see KFoldDataModule.
    """

    def __init__(
        self,
        module: Callable[[], L.LightningDataModule],
        eval_dataset: str | None = None,
        eval_transform: str | None = None,
        class_names: list[str] | None = None,
        eval_batch_size: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size, **kwargs)
        if (eval_dataset is None) == (eval_transform is None):
            raise UserError(
                "data needs either eval_dataset or eval_transform: held-out images would otherwise be scored with the training's "
                "augmentation; name the module's attribute or method with the training data without augmentation "
                "(eval_dataset), or its attribute with the transform for evaluation (eval_transform)"
            )
        self.module, self.own_class_names = module, class_names
        self.eval_dataset, self.eval_transform = eval_dataset, eval_transform
        self._made: L.LightningDataModule | None = None
        self._is_prepared = False

    @property
    def data_name(self) -> str:
        """The name of the module's class."""
        return type(self._module()).__name__.removesuffix("DataModule") or "data"

    def load(self, train: bool) -> Images | None:
        """Set the module up and take the data of its loaders.

        Raises:
            UserError: the module or its data cannot be used; the message says why.
        """
        module = self._module()
        name = type(module).__name__
        if not train and type(module).test_dataloader is L.LightningDataModule.test_dataloader:
            return None
        part = "train" if train else "test"
        if not (self.is_copy or self._is_prepared):
            with explained(f"{name}.prepare_data"), isolate_rng():
                seed_everything(0)
                self._new().prepare_data()
            self._is_prepared = True
        with explained(f"{name}.setup"), isolate_rng():
            seed_everything(0)  # a data set that is split at random is the same in every process
            module.setup("fit" if train else "test")
        with explained(f"{name}.{part}_dataloader"):
            loader = getattr(module, f"{part}_dataloader")()
        data = _data_of(loader, f"{name}.{part}_dataloader", splits=train)
        loading = Loading(loader.batch_size, loader.drop_last, _options(loader))
        if not train:
            return DatasetImages.of(data, None, loading, self.train_images.class_names, f"{name}'s test data")
        images = DatasetImages.of(self._view(module, data), data, loading, self.own_class_names, name)
        self.batch_size = loading.batch_size
        return images

    def _module(self) -> L.LightningDataModule:
        if self._made is None:
            with explained("data.module"), isolate_rng():
                seed_everything(0)
                self._made = self._new()
            kind = type(self._made)
            if not isinstance(self._made, L.LightningDataModule) or isinstance(self._made, KFoldDataModule):
                hint = "; name it in data.class_path itself" if isinstance(self._made, KFoldDataModule) else ""
                raise UserError(f"data.module is {kind.__name__}, which is no plain LightningDataModule{hint}")
            for hook in ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device"):
                if getattr(kind, hook) is not getattr(L.LightningDataModule, hook):
                    raise UserError(
                        f"{kind.__name__} overrides {hook}, which cannot be told apart for training and evaluation; move what it "
                        "does into the data sets' transforms, or write a KFoldDataModule with prepare(images, training)"
                    )
        return self._made

    def _new(self) -> L.LightningDataModule:
        return self.module if isinstance(self.module, L.LightningDataModule) else self.module()

    def _view(self, module: L.LightningDataModule, data: Any) -> Any:
        """The training data without augmentation."""
        if self.eval_transform is not None:
            transform = _attribute(module, self.eval_transform, "eval_transform")
            if not callable(transform):
                raise UserError(f"data.eval_transform names {type(transform).__name__}, which is no transform")
            return with_transform(data, transform, type(module).__name__)
        name = str(self.eval_dataset)
        found = _attribute(module, name, "eval_dataset")
        if callable(found) and not hasattr(found, "__getitem__"):
            with explained(f"{type(module).__name__}.{name}"):
                found = found()
        return found.dataset if isinstance(found, DataLoader) else found


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Errors of the user's code as a user's mistake, with where it was made."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        if where.endswith(".setup"):
            reason += (
                "; if it misses what prepare_data has made: that is called once for all folds, on another instance, so that "
                "both must use the same files, and attributes are assigned in setup"
            )
        raise UserError(f"{where} fails: {type(error).__name__}: {reason}") from error


def _attribute(module: Any, name: str, option: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"data.{option} is '{name}', but {type(module).__name__} has no '{name}' after setup")
        found = getattr(found, part)
    return found


def _data_of(loader: Any, where: str, splits: bool) -> Any:
    """The data set of a loader whose order may be replaced."""
    if not isinstance(loader, DataLoader):
        raise UserError(f"{where} returns {type(loader).__name__}; it must return one DataLoader of torch")
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        raise UserError(f"{where}: its data set has no items by index, or its loader no batch size; folds need both")
    is_plain = type(loader.sampler) in (RandomSampler, SequentialSampler)
    if splits and (not is_plain or getattr(loader.sampler, "replacement", False)):
        raise UserError(
            f"{where}: its loader has a {type(loader.sampler).__name__}, which would choose among all folds' images; leave it out"
        )
    return loader.dataset


def _options(loader: DataLoader[Any]) -> dict[str, Any]:
    """The loader's own settings, without torch's defaults, which depend on each other."""
    options = {key: getattr(loader, key) for key in _KEPT}
    default = torch.utils.data.default_collate
    return {key: value for key, value in options.items() if value and value is not default}
