"""Data modules for image files: what all of them share, and folders of images with a folder per class."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fmnist_cv.data.decoded_files import Decoded, ImageFile, decoded_files
from fmnist_cv.data.decoding import Decoding, Resize
from fmnist_cv.data.duplicates import Duplicates
from fmnist_cv.data.images import Images, numbered
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.photos import ENDINGS, OTHER_ENDINGS
from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import files_in
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, one_line, print_line

_SHOWN = 3  # names in a message
_VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True)
class Listing:
    """Labelled files, not decoded yet.

    Attributes:
        names, paths: one per image; the names stay the same wherever the data are.
        labels: int64 (n,).
        class_names: one per class.
        groups: values (n,) or None.
        folds: int64 (n,), from 0, or -1 for images that are never held out; None where no folds are given.
        weights: float64 (n,), how often each image is drawn in training, relative to the others; None for equally often.
    """

    names: Sequence[str]
    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    folds: np.ndarray | None = None
    weights: np.ndarray | None = None


class FilesDataModule(KFoldDataModule):
    """Image files, decoded and resized once into a cache (see `python -m fmnist_cv.cache --help`) and read from there.

    A subclass lists the files. Photos are turned as their EXIF data say, transparent parts become white, of 16 bits per
    pixel the upper 8 are kept, palettes and CMYK become RGB, and of an animation the first image counts. Images are sorted
    by their names, so that neither the order of rows nor that of a folder matters.

    Args:
        image_size: pixels of the stored images, one number for squares or [height, width]; may be left out where all
            files have one size.
        resize: how files of another shape get that size: "squeeze" ignores the sides' ratio, "crop" cuts off what is left
            over on both sides, "pad" adds black borders.
        channels: 3 for RGB, 1 for grey.
        on_broken: what to do about files that are missing or cannot be decoded: "error", or "skip", which leaves them out
            with a warning.
        duplicates: what to do about images that are equal in every pixel: "group" keeps them together on one side of every
            split, and refuses copies in the test set; "keep" treats them as different ones; "refuse" is an error.
        eval_batch_size: images per step without gradients; changes speed and memory only. A network's outputs for 1000 photos, as
            many as other modules take, fill gigabytes.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        image_size: int | list[int] | None = None,
        resize: Resize = "squeeze",
        channels: int = 3,
        on_broken: Literal["error", "skip"] = "error",
        duplicates: Duplicates = "group",
        eval_batch_size: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(duplicates=duplicates, eval_batch_size=eval_batch_size, **kwargs)
        self.decoding = Decoding.checked(image_size, resize, channels)
        if on_broken not in ("error", "skip"):
            raise UserError(f"data.on_broken is '{on_broken}'; it is one of error, skip")
        self.on_broken = on_broken

    @property
    @abstractmethod
    def source(self) -> Path:
        """The folder or file that the user named."""

    @abstractmethod
    def listing(self, train: bool) -> Listing | None:
        """The files of one part, in any order; None where there is no test set.

        Raises:
            UserError: the files cannot be listed, or there are none.
        """

    @property
    def data_name(self) -> str:
        """The name of the folder or file."""
        return one_line(self.source.resolve().name)

    @property
    def decode(self) -> Callable[[str | Path], np.ndarray]:
        """Decodes one image file to pixels as these images are stored: uint8 (channels, height, width).

        Without `image_size`, they keep the size that the file has.
        """
        return self.decoding

    def load(self, train: bool) -> Images | None:
        """The files' images, mapped from the cache; they are decoded if they are not in it."""
        listed = self.listing(train)
        if listed is None:
            return None
        order = sorted(range(len(listed.names)), key=listed.names.__getitem__)
        files = [ImageFile.found(listed.names[i], listed.paths[i]) for i in order]
        self._check_present(files)
        stored = decoded_files(files, str(self.source.resolve()), self.decoding)
        self._report_broken(stored)
        kept = [i for i in range(len(files)) if i not in stored.broken]
        rows = np.asarray(order)[kept]
        groups, group_names = (None, None) if listed.groups is None else numbered(listed.groups[rows], len(rows))
        return Images(
            stored.tensor,
            torch.from_numpy(listed.labels[rows]),
            listed.class_names,
            groups,
            names=tuple(files[i].name for i in kept),
            group_names=group_names,
            folds=None if listed.folds is None else torch.from_numpy(listed.folds[rows]),
            weights=None if listed.weights is None else torch.from_numpy(listed.weights[rows]),
            stored_digest=stored.digest,
            digests=stored.known_digests,
        )

    def _check_present(self, files: Sequence[ImageFile]) -> None:
        """Refuse missing files before any other is decoded."""
        missing = [file.path for file in files if file.size < 0]
        if missing and self.on_broken == "error":
            raise UserError(
                f"{self.source} names {len(missing):,} of {len(files):,} files that are not there: {_first(missing)}; "
                "correct the paths, or leave these files out with data.on_broken skip"
            )

    def _report_broken(self, stored: Decoded) -> None:
        if not (reasons := [*stored.broken.values()]):
            return
        found = f"{len(reasons):,} image{'s'[: len(reasons) - 1]} of {self.source} cannot be decoded: {_first(reasons)}"
        if self.on_broken == "error":
            raise UserError(f"{found}; replace or remove them, or leave them out with data.on_broken skip")
        if len(reasons) > _SHOWN:
            found += f" (all are in {stored.record})"
        if self.warns:
            print_line(make_console(stderr=True), f"left out: {found}", style="yellow")


def _first(items: Sequence[str]) -> str:
    return "; ".join(items[:_SHOWN]) + ("; …" if len(items) > _SHOWN else "")


class ImageFolderDataModule(FilesDataModule):
    """Image files in a folder per class: root/cat/1.jpg, root/dog/2.png, …

    Or root/train/cat/1.jpg with root/test/cat/2.jpg, the test set, and, if there is root/val/cat/3.jpg, a fixed validation
    set. JPEG, PNG, WebP, BMP, TIFF, GIF, PPM and AVIF are read, also from folders within a class's folder; other kinds of files
    are ignored, and so is everything whose name begins with a dot. The parts' folders may be written in capitals (Train, TEST).

        python -m fmnist_cv.fit --data fmnist_cv.data.ImageFolderDataModule --data.root photos/ --data.image_size 96 ...

    Args:
        root: the folder.
        kwargs: how files become pixels, see FilesDataModule, and batches and splits, see KFoldDataModule.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = user_path(root, "data.root")

    @property
    def source(self) -> Path:
        """The folder."""
        return self.root

    def listing(self, train: bool) -> Listing | None:
        """The files in each class's folder; the classes are sorted by name."""
        parts = self._parts()
        classes = sorted({name for part in parts["train"] for name in _folders(self.root / part)})
        if not classes:
            raise UserError(f"{self.root} holds no folders; it needs one for each class, with its images")
        if not parts["test"] and not train:
            return None
        names, paths, labels, folds = list[str](), list[str](), list[int](), list[int]()
        for part in parts["train" if train else "test"]:
            folder = self.root / part
            if unknown := sorted(set(_folders(folder)) - set(classes)):
                raise UserError(f"{folder} has the class '{unknown[0]}', of which there is no training image")
            before = len(names)
            for label, name in enumerate(classes):
                inside = _images_in(folder / name) if (folder / name).is_dir() else []
                names += [os.path.relpath(path, self.root).replace(os.sep, "/") for path in inside]
                paths += inside
                labels += [label] * len(inside)
                folds += [0 if part.lower() in _VALIDATION else -1] * len(inside)
            if part != parts["train"][0] and len(names) == before:
                raise UserError(
                    f"{folder} has no images in folders of the classes, so that their labels are not known; sort them into a "
                    f"folder for each class, such as {part}/{classes[0]}, or move {part} out of {self.root}"
                )
        present = set(labels)
        if not names or (train and len(present) < len(classes)):
            empty = next((name for i, name in enumerate(classes) if i not in present), "")
            raise UserError(
                f"{self.root} has a folder '{empty}' without images, and each folder is a class; no file in it has the ending "
                ".jpg, .png or similar"
            )
        fixed = train and len(parts["train"]) > 1
        return Listing(names, paths, np.array(labels), tuple(classes), folds=np.array(folds) if fixed else None)

    def _parts(self) -> dict[str, list[str]]:
        """The folders, below the root, that hold the classes' folders of the training and of the test images."""
        if not self.root.is_dir():
            what = "is not a folder" if self.root.exists() else "does not exist"
            raise UserError(f"data.root is {self.root}, which {what}; give the folder that holds a folder per class")
        folders = sorted(
            _folders(self.root), reverse=True
        )  # of names that differ in capitals alone, the first one counts
        inside = {name.lower(): name for name in folders}
        if "train" not in inside or not _folders(self.root / inside["train"]):
            return {"train": ["."], "test": []}
        known = [inside[name] for name in ("train", *_VALIDATION, "test") if name in inside]
        if extra := sorted(set(folders) - set(known)):
            raise UserError(
                f"{self.root} has the folder '{extra[0]}' beside '{inside['train']}', which holds a folder per class; only train, "
                f"val and test may stand there: move '{extra[0]}' elsewhere, or, if '{inside['train']}' is a class itself, put its "
                "images directly into its folder"
            )
        return {
            "train": [name for name in known if name.lower() != "test"],
            "test": [name for name in known if name.lower() == "test"],
        }


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, but for hidden ones."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from None


def _images_in(folder: Path) -> list[str]:
    def known(files: Iterator[str]) -> Iterator[str]:
        return (path for path in files if os.path.splitext(path)[1].lower() in ENDINGS | OTHER_ENDINGS)

    return list(known(files_in(folder)))
