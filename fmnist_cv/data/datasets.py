"""Data modules for published data sets, for a user's own arrays, and for synthetic images."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fmnist_cv.data import medmnist
from fmnist_cv.data.images import Images
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.sharing import file_states, shared_images
from fmnist_cv.data.sources import EMNIST, SOURCES, load_emnist, load_source, stored_files
from fmnist_cv.data.synthetic_images import CLASS_NAMES, make_synthetic_images
from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.paths import user_path


class FashionMNISTDataModule(KFoldDataModule):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28 grey, ten classes (Zalando, 2017).

    Args:
        root: folder that holds the files, in torchvision's layout or flat; otherwise $FMNIST_CV_DATA, ./data.
        download: fetch files that are missing.
        kwargs: batches and splits, see KFoldDataModule.
    """

    source: ClassVar[str] = "FashionMNIST"

    def __init__(self, root: str | None = None, download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.download = root, download

    def load(self, train: bool) -> Images | None:
        """Read and verify the files (see `fmnist_cv.data.sources`)."""
        files = file_states(stored_files(SOURCES[self.source], train=train, root=self.root))
        return shared_images(
            (load_source, self.source, train, self.root, files),
            lambda: load_source(self.source, train=train, root=self.root, download=self.download),
        )


class MNISTDataModule(FashionMNISTDataModule):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits (LeCun, Cortes and Burges, 1998)."""

    source = "MNIST"


class KMNISTDataModule(FashionMNISTDataModule):
    """Kuzushiji-MNIST: 60,000 training and 10,000 test images of ten cursive Japanese characters (Clanuwat, 2018)."""

    source = "KMNIST"


class QMNISTDataModule(FashionMNISTDataModule):
    """QMNIST: the 60,000 digits of MNIST and 60,000 reconstructed test digits (Yadav and Bottou, 2019)."""

    source = "QMNIST"


class EMNISTDataModule(KFoldDataModule):
    """EMNIST: up to 814,255 images of handwritten digits and letters (Cohen, Afshar, Tapson and van Schaik, 2017).

    Args:
        split: the labelling: "balanced" (47 classes), "letters" (26), "digits", "mnist" (10), "byclass" (62) or
            "bymerge" (47).
        root: folder that holds the archive gzip.zip; otherwise $FMNIST_CV_DATA, ./data.
        download: fetch the archive (560 MB) if it is missing.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(self, split: str = "balanced", root: str | None = None, download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.emnist_split, self.root, self.download = split, root, download

    @property
    def data_name(self) -> str:
        """The name with the split, e.g. "EMNIST letters"."""
        return f"EMNIST {self.emnist_split}"

    def load(self, train: bool) -> Images | None:
        """Read and verify the archive (see `fmnist_cv.data.sources`)."""
        files = file_states(stored_files(EMNIST, train=train, root=self.root))
        return shared_images(
            (load_emnist, self.emnist_split, train, self.root, files),
            lambda: load_emnist(self.emnist_split, train=train, root=self.root, download=self.download),
        )


class ArrayDataModule(KFoldDataModule):
    """Your own images, from an `.npz` file or from arrays in memory.

    Args:
        path: an `.npz` with `images` (uint8, uint16 or floats; (n, h, w), (n, c, h, w) or (n, h, w, c)) and `labels`
            (integers from 0), and optionally `class_names`, `groups`, `test_images` and `test_labels`. Files of MedMNIST are
            understood: their `train_images` and `val_images` together are the training images.
        use_validation: the file's `val_images` are the only fold that is held out, instead of training images like the
            others.
        images, labels, class_names, groups, test_images, test_labels: the same as arrays or tensors, from Python.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        path: str | None = None,
        images: np.ndarray | Tensor | None = None,
        labels: np.ndarray | Tensor | None = None,
        class_names: Sequence[str] | None = None,
        groups: np.ndarray | Tensor | None = None,
        test_images: np.ndarray | Tensor | None = None,
        test_labels: np.ndarray | Tensor | None = None,
        use_validation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        arrays = (images, labels, class_names, groups, test_images, test_labels)
        if (path is None) == all(array is None for array in arrays) or (path is None and images is None):
            raise UserError("ArrayDataModule takes either a path to an .npz file or images and labels")
        if use_validation and path is None:
            raise UserError("use_validation is for the val_images of an .npz file; arrays have none")
        self.path = None if path is None else user_path(path, "data.path")
        self.use_validation = use_validation
        self._arrays: dict[str, Any] = {
            "images": images,
            "labels": labels,
            "class_names": class_names,
            "groups": groups,
            "test_images": test_images,
            "test_labels": test_labels,
        }

    @property
    def data_name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem if self.path else "arrays"

    def load(self, train: bool) -> Images | None:
        """Check the arrays and bring them into shape (see `Images.from_arrays`)."""
        if (path := self.path) is None:
            return self._checked(self._arrays, train)
        key = (ArrayDataModule, train, self.use_validation, file_states([path]))
        return shared_images(key, lambda: self._checked(self._read(path, train), train))

    def _checked(self, arrays: dict[str, Any], train: bool) -> Images | None:
        images, labels, groups = (
            (arrays.get("images"), arrays.get("labels"), arrays.get("groups"))
            if train
            else (arrays.get("test_images"), arrays.get("test_labels"), None)
        )
        source = self.path or "the arrays"
        if images is None and not train:
            if labels is not None:
                raise UserError(f"{source}: there are test_labels, but no test_images; give both or neither")
            return None
        if images is None or labels is None:
            raise UserError(f"{source}: images or labels are missing")
        names = arrays.get("class_names")
        if names is None and not train:
            names = self.train_images.class_names
        found = Images.from_arrays(images, labels, names, groups)
        folds = arrays.get("folds")
        return found if folds is None else replace(found, folds=torch.from_numpy(folds))

    def _read(self, path: Path, train: bool) -> dict[str, Any]:
        """The arrays of one part, by name."""
        part = {"images", "labels", "groups", *medmnist.TRAIN} if train else {*medmnist.TEST}
        arrays: dict[str, Any] = {}
        name = ""
        try:
            if not zipfile.is_zipfile(regular_file(path)):
                raise ValueError(
                    "it is damaged or of another kind; numpy.savez('my.npz', images=..., labels=...) writes one"
                )
            with np.load(path, allow_pickle=False) as file:
                names = set(file.files)
                for name in file.files:
                    if name in part | {"class_names"}:
                        arrays[name] = file[name]
        except FileNotFoundError:
            raise UserError(f"data file {path} does not exist") from None
        except Exception as error:  # a damaged file raises half a dozen kinds
            if "allow_pickle" in str(error):
                error = ValueError(f"{name} holds Python objects; save it as an array of numbers or of strings")
            raise UserError(f"cannot read {path} as an .npz file of plain arrays: {error}") from None
        of_medmnist = not names.isdisjoint(medmnist.TRAIN)
        known = {*medmnist.TRAIN, *medmnist.TEST, "class_names"} if of_medmnist else {*self._arrays}
        if unknown := names - known:
            raise UserError(f"{path} holds {sorted(unknown)}, which is not known; known are {sorted(known)}")
        if self.use_validation and not of_medmnist:
            raise UserError(f"data.use_validation is true, but {path} has no val_images; leave it out")
        return self._of_medmnist(path, arrays, train) if of_medmnist else arrays

    def _of_medmnist(self, path: Path, arrays: dict[str, Any], train: bool) -> dict[str, Any]:
        """The same by this class's names, with one label for each image."""
        try:
            if train:
                return arrays | medmnist.training_arrays(arrays, self.use_validation)
            return {name: medmnist.one_each(a) if name == "test_labels" else a for name, a in arrays.items()}
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


class SyntheticDataModule(KFoldDataModule):
    """Synthetic images of ten classes with Fashion-MNIST's names, generated from a seed; for tests and first steps.

    Scores on them say nothing about Fashion-MNIST; all results on them are marked SYNTHETIC.

    Args:
        n_train: training images.
        n_test: test images.
        drawing_seed: determines the images; independent of the splits' seed.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(self, n_train: int = 12_000, n_test: int = 2_000, drawing_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n_train < 0 or n_test < 0:
            raise UserError(f"data.n_train is {n_train} and data.n_test {n_test}; they must not be negative")
        if drawing_seed < 0:
            raise UserError(f"data.drawing_seed is {drawing_seed}; it must not be negative")
        self.n_train, self.n_test, self.drawing_seed = n_train, n_test, drawing_seed

    @property
    def data_name(self) -> str:
        """Marked as synthetic."""
        return "SYNTHETIC garments"

    def load(self, train: bool) -> Images | None:
        """Generate the images; training and test images have different seeds."""
        n, seed = (self.n_train, 2 * self.drawing_seed) if train else (self.n_test, 2 * self.drawing_seed + 1)
        return shared_images(
            (make_synthetic_images, n, seed), lambda: Images.from_arrays(*make_synthetic_images(n, seed), CLASS_NAMES)
        )
