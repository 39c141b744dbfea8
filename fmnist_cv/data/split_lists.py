"""Folds from a file: a CSV with the fold of each image, or nnU-Net's JSON with the names of each split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fmnist_cv.data.named_images import ImageNames
from fmnist_cv.data.splitter_folds import Indices, Parts
from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file


def parts_of_folds(folds: Indices) -> Parts:
    """From the fold of each image, -1 for one that all folds train on, the parts of each fold in ascending order."""
    return [
        (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds[folds >= 0]).tolist()
    ]


def read_split_file(path: Path, names: Sequence[str] | None, n: int, present: Indices | None = None) -> Parts:
    """The training and validation part of each split in a file, as sorted indices.

    A CSV has the columns `name` (or `index`, counted from 0) and `fold`: the fold that holds the image out, and -1 where
    all folds train on it. A JSON is nnU-Net's list of {"train": [names], "val": [names]}. Names may lack folder and ending
    where that leaves them unique; images without names are named by their index. The file may name images of the whole data
    set that are left out or cut off for the test set; they are passed over.

    Args:
        path: the file; its ending decides how it is read.
        names: of all images of the data set, or None.
        n: number of all its images.
        present: int64 (m,), those of them to split, ascending; by default all. The parts count these from 0.

    Raises:
        UserError: it cannot be read, names an unknown image or one twice, or leaves one out.
    """
    read = {".csv": _read_csv, ".json": _read_json}.get(path.suffix.lower())
    if read is None:
        raise UserError(f"cv.splits is {path}; give a .csv with the columns name and fold, or nnU-Net's .json")
    images = _Names(path, names, np.arange(n) if present is None else present, n)
    try:
        return read(path, images)
    except OSError as error:
        raise UserError(f"cv.splits: cannot read {path}: {error.strerror or error}") from None


class _Names(ImageNames):
    """Finds images by the names that a file of splits gives them; `present` are those to split."""

    def __init__(self, path: Path, names: Sequence[str] | None, present: Indices, n: int) -> None:
        super().__init__(path, names, n)
        self.present = present

    def check_complete(self, indices: Indices, where: str) -> None:
        """Refuse images that the file does not name."""
        if len(missing := np.setdiff1d(self.present, indices)):
            raise UserError(
                f"{self.path}: {where} lacks {len(missing)} of {len(self.present)} images, the first is "
                f"'{self.names[missing[0]]}'; name each image, or leave it out of the data"
            )

    def among_present(self, indices: Indices) -> Indices:
        """Those of the images that are to be split, counted among these, ascending."""
        return np.flatnonzero(np.isin(self.present, indices))


def _read_csv(path: Path, images: _Names) -> Parts:
    try:
        table = pd.read_csv(regular_file(path), dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"cv.splits: {path} is not a CSV file: {error}") from None
    column = next((name for name in ("name", "index") if name in table), None)
    if column is None or "fold" not in table:
        raise UserError(f"{path} has the columns {', '.join(map(str, table))}; it needs 'name' (or 'index') and 'fold'")
    if column == "index":
        numbers = table["index"]
        if len(bad := numbers[~numbers.str.fullmatch(r"\d+")]):
            raise UserError(f"{path}: the column 'index' has '{bad.iloc[0]}', which is not a number counted from 0")
        images = _Names(path, None, images.present, len(images.names))
    indices = images.find_all(table[column], "the file")
    images.check_complete(indices, "the file")
    if len(bad := table["fold"][~table["fold"].str.fullmatch(r"-1|\d+")]):
        raise UserError(
            f"{path}: the column 'fold' has '{bad.iloc[0]}'; it holds the numbers of folds, or -1 where all folds train on "
            "the image"
        )
    folds = np.empty(len(images.names), dtype=np.int64)
    folds[indices] = table["fold"].astype(np.int64)
    return parts_of_folds(folds[images.present])


def _read_json(path: Path, images: _Names) -> Parts:
    try:
        content = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"cv.splits: {path} is not a JSON file: {error}") from None
    if not isinstance(content, list) or not all(
        isinstance(split, dict) and all(isinstance(split.get(part), list) for part in ("train", "val"))
        for split in content
    ):
        raise UserError(f'{path} is not a list of splits {{"train": [names], "val": [names]}}')
    parts: Parts = []
    for i, split in enumerate(content):
        where = f"split {i}"
        train, validation = (images.find_all(split[part], f"{part} of {where}") for part in ("train", "val"))
        if len(both := np.intersect1d(train, validation)):
            raise UserError(f"{path}: {where} names the image '{images.names[both[0]]}' in train and in val")
        images.check_complete(np.concatenate([train, validation]), where)
        parts.append((train, validation))
    _check_held_out(parts, images)
    return [(images.among_present(train), images.among_present(validation)) for train, validation in parts]


def _check_held_out(parts: Parts, images: _Names) -> None:
    """Refuse images held out more often than others: once in each repeat is a repeated cross-validation, else a mistake."""
    times = np.zeros(len(images.names), dtype=np.int64)
    for _, validation in parts:
        times[validation] += 1
    usual = np.bincount(times[times > 0]).argmax() if times.any() else 1
    if len(odd := np.flatnonzero(times > usual)):
        raise UserError(
            f"{images.path}: the image '{images.names[odd[0]]}' is in val of {times[odd[0]]} splits, others in {usual}"
        )
