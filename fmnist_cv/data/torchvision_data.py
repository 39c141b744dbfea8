"""The data sets of torchvision, decoded once into stored images."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fmnist_cv.data.decoded_items import Pictures, PicturesDataModule, first_line
from fmnist_cv.data.decoding import Decoding
from fmnist_cv.data.images import Images
from fmnist_cv.data.map_datasets import labels_of
from fmnist_cv.data.photos import UnreadableImage
from fmnist_cv.data.sharing import file_states
from fmnist_cv.data.sources import search_roots
from fmnist_cv.errors import DataNotFound, UserError, did_you_mean
from fmnist_cv.utils.torchvision_import import make_torchvision_importable

_OF_TRANSFORMS = ("transform", "transforms", "target_transform", "loader")
# attributes in which torchvision's data sets have their pictures, as one array or as a list of files
_PICTURES = ("data", "samples", "imgs", "_samples", "_image_files", "_images")


class TorchvisionDataModule(PicturesDataModule):
    """Any data set of torchvision that gives a picture and one class: CIFAR-10, SVHN, EuroSAT, Flowers102, …

    Pictures are decoded and resized once, those of torchvision's own classes into the cache (see
    `python -m fmnist_cv.cache --help`), those of other classes in each process; scaling and augmentation are settings of the experiment (data.scaling,
    data.augment), not transforms of the data set. Which part is for training and which for testing is told by the
    data set's argument `train` or `split`; where it has neither, all images are for training and there is no test set.

    Args:
        dataset: the class: a name in torchvision.datasets (CIFAR10), or a class path, also of a data set of your own
            that follows torchvision's.
        root: folder of the files; otherwise $FMNIST_CV_DATA, or ./data.
        download: fetch files that are missing, where the class can.
        init_args: further arguments of the class, for both parts.
        train: arguments of the training part; by default {train: true} or {split: train}.
        test: arguments of the test part; by default {train: false} or {split: test}; false for none.
        kwargs: how pictures become pixels, see PicturesDataModule, and batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        download: bool = True,
        init_args: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
        test: dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if test is True:
            raise UserError("data.test is true; it is false for no test set, or the arguments of the test part")
        for part, given in (("init_args", init_args), ("train", train), ("test", test or None)):
            if transforms := [key for key in _OF_TRANSFORMS if key in (given or {})]:
                raise UserError(
                    f"data.{part} sets {transforms[0]}, but pictures are decoded once, before any transform; use data.image_size, "
                    "data.scaling and data.augment"
                )
        self.dataset, self.root, self.download = dataset, root, download
        self.init_args, self.parts = dict(init_args or {}), {"train": train, "test": test}

    @property
    def decode(self) -> Callable[[str | Path], np.ndarray] | None:
        """Decodes an image file as torchvision's data sets and this module do, where pictures are resized."""
        found = super().decode
        return replace(found, plain=True) if isinstance(found, Decoding) else found

    @property
    def data_name(self) -> str:
        """The name of the data set's class."""
        return self.dataset.rpartition(".")[2]

    def load(self, train: bool) -> Images | None:
        """Decode the pictures of one part.

        Raises:
            DataNotFound: the files are not there and cannot be fetched.
            UserError: there is no such data set, its arguments do not fit, or a picture cannot be decoded.
        """
        kind = _class_of(self.dataset)
        parameters = inspect.signature(kind).parameters
        arguments = self._arguments(parameters, train)
        if arguments is None:
            return None
        data = self._made(kind, arguments)
        names = _names(data) if train else self.train_images.class_names
        images = self._pictures(kind, data, arguments).images(self.decoding, self.channels, names)
        return replace(images, names=_file_names(data))

    def _arguments(self, parameters: Any, train: bool) -> dict[str, Any] | None:
        """The arguments of one part; None where there is no such part."""
        own = self.parts["train" if train else "test"]
        if own is False:
            return None
        if own is None:
            if "train" in parameters:
                own = {"train": train}
            elif "split" in parameters:
                own = {"split": "train" if train else "test"}
            elif train:
                own = {}
            else:
                return None
        arguments = {**self.init_args, **own}
        if "root" in parameters:
            arguments.setdefault("root", str(search_roots(self.root)[0]))
        elif self.root is not None:
            raise UserError(f"data.root is {self.root}, but {self.dataset} reads no files; leave it out")
        if "download" in parameters:
            arguments.setdefault("download", self.download)
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if not any_name and (unknown := [key for key in arguments if key not in parameters]):
            hint = did_you_mean(unknown[0], parameters, f"it takes {', '.join(parameters)}")
            raise UserError(f"{self.dataset} has no argument '{unknown[0]}'{hint}")
        return arguments

    def _made(self, kind: type, arguments: dict[str, Any]) -> Any:
        try:
            data = kind(**arguments)
        except (OSError, RuntimeError) as error:  # what torchvision raises where files are missing
            hint = "" if arguments.get("download") else "; --data.root names their folder"
            raise DataNotFound(f"{self.dataset} cannot be read ({first_line(error)}){hint}") from None
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(
                f"{self.dataset} cannot be made with {arguments}: {first_line(error)}; set its arguments in data.init_args, "
                "data.train and data.test (false for no test set)"
            ) from None
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise UserError(f"{self.dataset} is no data set with a length and items by index, which folds are cut from")
        return data

    def _pictures(self, kind: type, data: Any, arguments: dict[str, Any]) -> Pictures:
        def item(index: int) -> tuple[Any, Any]:
            return _pair(data[index], self.dataset)

        try:
            # where the files are and whether they may be fetched does not decide what they hold
            settings = json.dumps({k: v for k, v in arguments.items() if k not in ("root", "download")}, sort_keys=True)
        except TypeError:  # objects given from Python
            settings = None
        is_torchvisions = kind.__module__.startswith("torchvision.")
        labels = labels_of(data) if is_torchvisions else None
        if labels is not None and not len(labels) == len(data) > 0:
            labels = None
        pictures = Pictures(
            len(data),
            item,
            self.data_name,
            (kind.__name__, settings, _content(data, arguments.get("root"))) if is_torchvisions and settings else None,
            # FakeData sets the global seed for each item; of the data sets of others, nothing is known
            None if is_torchvisions and kind.__name__ != "FakeData" else 1,
        )
        if labels is None:
            return pictures
        try:
            if any(int(labels[i]) != pictures.read(i)[1] for i in {0, len(data) // 2, len(data) - 1}):
                return pictures  # the labels are of another kind than those of the items
        except UnreadableImage:  # which is said of all such pictures when they are decoded
            return pictures
        return replace(pictures, labels=labels.tolist())


def _class_of(path: str) -> type:
    """The class of a class path, or of a name in torchvision.datasets."""
    make_torchvision_importable()
    module, _, name = path.rpartition(".")
    try:
        found = import_module(module or "torchvision.datasets")
    except ImportError as error:
        raise UserError(f"data.dataset is '{path}', but {module} cannot be imported: {error}") from None
    kind = getattr(found, name, None)
    if not isinstance(kind, type):
        names = [key for key, value in vars(found).items() if isinstance(value, type)]
        raise UserError(
            f"data.dataset is '{path}', but {found.__name__} has no class '{name}'{did_you_mean(name, names)}"
        )
    return kind


def _content(data: Any, root: str | None) -> object:
    """What tells the pictures of one of torchvision's data sets from others: their pixels, or the state of their files.

    Where the data set does not list its files, all files below the folder count, of other data sets as well.
    """
    for name in _PICTURES:
        found = getattr(data, name, None)
        if isinstance(found, np.ndarray | Tensor) and len(found) == len(data):
            array = np.ascontiguousarray(found)
            return str(array.dtype), array.shape, hashlib.blake2b(array.data, digest_size=16).hexdigest()
        if isinstance(found, list | tuple) and len(found) == len(data):
            paths = [item[0] if isinstance(item, tuple) else item for item in found]
            if all(isinstance(path, str | Path) for path in paths):
                states = file_states(map(Path, paths))
                if len(states) == len(paths):
                    return states
    return file_states(sorted(path for path in Path(root).rglob("*") if path.is_file())) if root is not None else None


def _pair(item: Any, source: str) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"{source}: its items are no pairs of a picture and a class, but {type(item).__name__}")
    return item[0], item[1]


def _file_names(data: Any) -> tuple[str, ...] | None:
    """The files' paths below the folder of an ImageFolder and its like; None for other data sets."""
    from torchvision.datasets import DatasetFolder

    if not isinstance(data, DatasetFolder) or len(data.samples) != len(data):
        return None
    return tuple(Path(os.path.relpath(path, data.root)).as_posix() for path, _ in data.samples)


def _names(data: Any) -> list[str] | None:
    """The classes' names, where the data set has one for each."""
    classes = getattr(data, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    # ImageNet's are several names each
    names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in classes]
    return names if len(set(names)) == len(names) else None
