"""Predictions for image files of any format and size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.console import Console

from fmnist_cv.data.photos import (
    ENDINGS,
    MAX_PIXELS,
    OTHER_ENDINGS,
    SIZE,
    UnreadableImage,
    pixel_limit,
    preprocess,
    read_photo,
)
from fmnist_cv.data.pixel_kinds import name_of
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import AS_PUBLISHED, Preprocessing
from fmnist_cv.inference.ensemble import Ensemble, Predictions
from fmnist_cv.inference.progress import tracked
from fmnist_cv.utils.files import files_in
from fmnist_cv.utils.paths import user_path


@dataclass(frozen=True)
class FilePredictions(Predictions):
    """Predictions for image files.

    Attributes:
        files: those that were read, in order.
        prepared: the preprocessing of each: "as in training", "as it is", "resized" or "fashion-mnist".
        unreadable: the reason for each file that could not be read.
    """

    files: tuple[Path, ...]
    prepared: tuple[str, ...]
    unreadable: dict[Path, str]

    @property
    def table(self) -> pd.DataFrame:
        """One row per file: name, preprocessing, label, probability, agreement, and the probability of each class."""
        table = super().table
        table.insert(0, "file", [_printable(path) for path in self.files])
        table.insert(1, "prepared", self.prepared)
        return table


def predict_files(
    ensemble: Ensemble,
    paths: Sequence[str | Path],
    preprocessing: Preprocessing = "auto",
    console: Console | None = None,
    max_pixels: int = MAX_PIXELS,
) -> FilePredictions:
    """Classify image files.

    Args:
        ensemble: the models.
        paths: files, and folders, which are searched with their subfolders.
        preprocessing: see `read_and_preprocess`.
        console: where progress is shown.
        max_pixels: images with more pixels are skipped: each pixel takes up to 16 bytes of memory while it is read.

    Raises:
        UserError: no image can be read, or the preprocessing does not suit the models.
    """
    if max_pixels < 1:
        raise UserError(f"max_pixels is {max_pixels}; it must be at least 1")
    if ensemble.dtype != torch.uint8:
        raise UserError(
            f"image files are read with 8 bits, but the models were trained on pixels of {name_of(ensemble.dtype)}; give arrays "
            "to load_ensemble(run).predict"
        )
    files = find_images(paths)
    images, prepared, read, unreadable = [], [], [], {}
    with pixel_limit(max_pixels):
        for path in tracked(files, "reading", console):
            try:
                image, how = read_and_preprocess(path, ensemble.image_shape, preprocessing, ensemble.decode)
            except UnreadableImage as error:
                unreadable[path] = str(error)
                continue
            images.append(image)
            prepared.append(how)
            read.append(path)
    if not read:
        reasons = "; ".join([*unreadable.values()][:3]) + ("; ..." if len(unreadable) > 3 else "")
        raise UserError(f"no image can be read: {reasons}")
    found = ensemble.predict(np.stack(images), console)
    return FilePredictions(found.probabilities, found.class_names, tuple(read), tuple(prepared), unreadable)


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The files, with each folder replaced by the sorted images in it and its subfolders, without duplicates.

    In folders, images are recognised by their extension, including those of formats that cannot be read, such as .heic,
    so that they are reported. Hidden files and folders are skipped. Links to folders are followed; no folder is searched
    twice.

    Raises:
        UserError: a folder without images, or one that cannot be read.
    """
    found: dict[Path, None] = {}
    for path in (user_path(given, "an image's path") for given in paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(file for file in map(Path, files_in(path)) if file.suffix.lower() in ENDINGS | OTHER_ENDINGS)
        if not inside:
            raise UserError(f"the folder {path} contains no images: no file has the extension .jpg, .png or similar")
        found |= dict.fromkeys(inside)
    return list(found)


def read_and_preprocess(
    path: Path,
    image_shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    decode: Callable[[str | Path], np.ndarray] | None = None,
) -> tuple[np.ndarray, str]:
    """Read an image file and preprocess it for the models.

    Args:
        path: the file.
        image_shape: (channels, height, width).
        preprocessing: "fashion-mnist", for photos of garments on a plain background and models that take 28x28 grey pixels
            (see `fmnist_cv.data.photos.preprocess`); "none", resized where its size differs, converted to grey where the
            models take grey images, and nothing else; "auto", as in training where there is `decode`; otherwise unchanged where
            its size fits, else "fashion-mnist" for models that take 28x28 grey pixels, and "none" for all others.
        decode: how the models' training images were made of files. Where these all had one size and none was set, it keeps the
            size of a file, and a file of another size is "resized".

    Returns:
        uint8 (channels, height, width), and the preprocessing: "as in training", "as it is", "resized" or "fashion-mnist".

    Raises:
        UnreadableImage: the file is not a readable image.
        UserError: the preprocessing does not suit the models.
    """
    if str(preprocessing) == "as-published":
        raise UserError(AS_PUBLISHED)
    if preprocessing not in get_args(Preprocessing):
        raise UserError(f"preprocessing is '{preprocessing}'; it is one of {', '.join(get_args(Preprocessing))}")
    channels, height, width = image_shape
    garments = image_shape == (1, SIZE, SIZE)
    if preprocessing == "fashion-mnist" and not garments:
        raise UserError(
            f"preprocessing '{preprocessing}' makes {SIZE}x{SIZE} grey pixels, but the models take "
            f"{channels} channel(s) of {height}x{width}; use none"
        )
    if channels not in (1, 3):
        raise UserError(
            f"image files have 1 or 3 channels, but the models take {channels}; give arrays to load_ensemble(run).predict"
        )
    if preprocessing == "auto" and decode is not None:
        pixels = decode(path)
        if pixels.shape == image_shape:
            return pixels, "as in training"
    photo = read_photo(path)
    fits = photo.size == (width, height)
    if preprocessing == "fashion-mnist" or (preprocessing == "auto" and decode is None and garments and not fits):
        return preprocess(photo)[None], "fashion-mnist"
    if not fits:
        photo = photo.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(photo.convert("L"))[None] if channels == 1 else np.asarray(photo).transpose(2, 0, 1)
    return pixels, "as it is" if fits else "resized"


def _printable(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
