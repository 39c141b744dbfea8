"""A data set with transforms of its own, made by a user's function: once with augmentation, and once without."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from fmnist_cv.data.dataset_images import DatasetImages, Loading
from fmnist_cv.data.images import Images
from fmnist_cv.data.lightning_adapter import DatasetDataModule, explained
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import seed_everything


class DatasetViewsDataModule(DatasetDataModule):
    """Your own data set with its own transforms, made by a function of yours: with augmentation, and without.

        def my_views():
            return Photos(transform=augmented), Photos(transform=plain)

    Folds train on the first; the second, the same images in the same order, is read for all else. A third, if the function
    returns one, is the test set.

    Images are read anew in each epoch and are the network's input as the transforms make it, so that data.scaling and
    data.augment do not exist here. Copies of images are not looked for, since that would read all of them: data.duplicates is
    "keep" unless it is set.

    Args:
        views: dotted path of the function, which takes no arguments.
        batch_size: images per training step.
        num_workers: processes that read the images of each fold.
        class_names: by default the data set's `classes`, else the numbers of the labels.
        eval_batch_size: images per step without gradients; changes speed and memory only.
        kwargs: splits, see KFoldDataModule.
    """

    def __init__(
        self,
        views: str,
        batch_size: int = 64,
        num_workers: int = 0,
        class_names: list[str] | None = None,
        eval_batch_size: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size, **kwargs)
        if batch_size < 1 or num_workers < 0:
            raise UserError(
                f"data.batch_size is {batch_size} and data.num_workers {num_workers}; at least 1, and at least 0"
            )
        self.views, self.own_class_names = views, class_names
        self.batch_size = batch_size
        self._loading = Loading(batch_size, options={"num_workers": num_workers} if num_workers else {})

    @property
    def data_name(self) -> str:
        """The function's name."""
        return self.views.rpartition(".")[2]

    def load(self, train: bool) -> Images | None:
        """The data sets that the function returns.

        Raises:
            UserError: the function or what it returns cannot be used; the message says why.
        """
        training, view, *test = self._made
        if train:
            return DatasetImages.of(view, training, self._loading, self.own_class_names, self.data_name)
        if not test or test[0] is None:
            return None
        names = self.train_images.class_names
        return DatasetImages.of(test[0], None, self._loading, names, f"the test data of {self.data_name}")

    @cached_property
    def _made(self) -> tuple[Any, ...]:
        module, _, name = self.views.rpartition(".")
        with explained(f"data.views {self.views}"), isolate_rng():
            seed_everything(0)  # data that are split at random are the same in every process
            made = getattr(import_module(module), name)()
        if not isinstance(made, tuple | list) or len(made) not in (2, 3):
            raise UserError(
                f"data.views is {self.views}, which returns {type(made).__name__}; it must return a pair, the data set with "
                "augmentation for training and the same without for evaluation, and may return a third, the test set"
            )
        return tuple(made)
