"""The data module for image files that a table names: paths, labels, and optionally groups, folds, parts and weights."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmnist_cv.data.files import FilesDataModule, Listing
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.optional import require
from fmnist_cv.utils.paths import user_path

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
PARQUET = (".parquet", ".pq")

_PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class ManifestDataModule(FilesDataModule):
    """Image files that a CSV, TSV or Parquet file names, one in each row, with their labels.

        path,label,patient
        scans/0001.png,benign,p17
        scans/0002.png,malignant,p17

    Images are sorted by their paths, so that the order of the rows changes nothing. `--data.group patient` keeps the images of
    each patient on one side of every split.

        python -m fmnist_cv.fit --data fmnist_cv.data.ManifestDataModule --data.path scans.csv --data.group patient \
            --data.image_size 96 ...

    Args:
        path: the .csv, .tsv or .parquet file (Parquet: pip install 'fmnist_cv[parquet]').
        image: the column with the image files' paths, relative to `root`.
        label: the column with the classes, all of them words or all of them whole numbers; they are sorted.
        group: a column whose equal values (patient, product, place) keep images on one side of every split.
        folds: a column with the fold, from 0, that holds each image out; empty or -1 for images that are never held out. It
            is not read for test images.
        split: a column with train, validation (or val) and test: a fixed validation set, in place of folds, and the test
            set. Without it all rows are for training.
        weight: a column with a weight of at least 0: each epoch draws as many images as the training part has, with replacement
            and with probabilities in proportion to the weights. An image of weight 0 is held out and scored, but never trained
            on. Scores are not weighted. It is not read for test images.
        root: the folder that the paths are relative to; by default the folder of the file.
        kwargs: how files become pixels, see FilesDataModule, and batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        path: str,
        image: str = "path",
        label: str = "label",
        group: str | None = None,
        folds: str | None = None,
        split: str | None = None,
        weight: str | None = None,
        root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = user_path(path, "data.path")
        self.root = self.path.parent if root is None else user_path(root, "data.root")
        self._columns = {
            "image": image,
            "label": label,
            "group": group,
            "folds": folds,
            "split": split,
            "weight": weight,
        }

    @property
    def source(self) -> Path:
        """The file."""
        return self.path

    def listing(self, train: bool) -> Listing | None:
        """The rows of one part."""
        names, labels, class_names, parts = self._checked
        chosen = np.flatnonzero((parts != "test") == train)
        if not len(chosen):
            if train:
                raise UserError(f"{self.path} has no row for training")
            return None
        rows = self._rows.iloc[chosen]
        return Listing(
            [names[i] for i in chosen],
            [os.path.join(self.root, names[i]) for i in chosen],
            labels[chosen],
            class_names,
            None if not train or "group" not in rows else rows["group"].to_numpy(object),
            self._folds(rows, parts[chosen]) if train else None,
            self._weights(rows) if train else None,
        )

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """The columns in use as strings, under the arguments' names; what is missing is empty."""
        table = read_table(self.path)
        rows = {}
        for argument, column in self._columns.items():
            if column is None:
                continue
            if column not in table:
                hint = did_you_mean(column, table.columns, f"its columns are {', '.join(map(repr, table.columns))}")
                raise UserError(f"{self.path} has no column '{column}' (data.{argument}){hint}")
            rows[argument] = table[column].map(_as_text)
        if table.empty:
            raise UserError(f"{self.path} has no rows; it needs one for each image")
        return pd.DataFrame(rows)

    @cached_property
    def _checked(self) -> tuple[list[str], np.ndarray, tuple[str, ...], np.ndarray]:
        """Of all rows: the images' names, labels, class names, and parts."""
        rows = self._rows
        for argument in rows.columns.intersection(["image", "label", "group"]):
            if (rows[argument] == "").any():
                raise self._refused(argument, rows[argument] == "", "is empty")
        names = [os.path.normpath(path).replace(os.sep, "/") for path in rows["image"]]
        twice = pd.Series(names).duplicated()
        if twice.any():
            raise self._refused("image", twice.to_numpy(), "names a file for the second time")
        labels, class_names = self._labels(rows["label"])
        if "split" not in rows:
            return names, labels, class_names, np.full(len(rows), "train", dtype=object)
        parts = rows["split"].str.lower().map(_PARTS)
        if parts.isna().any():
            raise self._refused("split", parts.isna(), "is not one of train, validation and test")
        is_test = (parts == "test").to_numpy()
        known = np.isin(labels, labels[~is_test])
        if not (known.all() or is_test.all()):
            first = int(np.argmin(known))
            raise UserError(
                f"{self.path}: the class '{class_names[labels[first]]}' has only test images, first '{names[first]}', and no network "
                "can learn it; move some of them to the training images, or remove them"
            )
        if "group" in rows:
            groups = rows["group"].groupby(parts == "test").unique()
            if len(groups) == 2 and (both := sorted({*groups[False]} & {*groups[True]})):
                raise UserError(
                    f"{self.path}: {len(both):,} groups have both test images and others, such as '{both[0]}', so that the test "
                    "set would be no test; move each group to one part"
                )
        return names, labels, class_names, parts.to_numpy(object)

    def _labels(self, column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
        """Numbers of the classes, int64 (n,), and their names: words in alphabetical order, numbers by size."""
        are_numbers = column.map(lambda text: bool(_NUMBER.fullmatch(text)))
        if are_numbers.any() and not are_numbers.all():
            number, word = int(are_numbers.argmax()), int((~are_numbers).argmax())
            raise UserError(
                f"{self.path}: the column '{self._columns['label']}' mixes numbers and words: '{column.iloc[number]}' in row "
                f"{number + 1} and '{column.iloc[word]}' in row {word + 1}; give all classes in one of the two ways"
            )
        if are_numbers.all():
            whole = column.map(lambda text: bool(_WHOLE.fullmatch(text)))
            if not whole.all():
                raise self._refused("label", ~whole, "is no whole number, and classes are counted")
            column = column.map(lambda text: int(float(text)))
        values, labels = np.unique(column.to_numpy(), return_inverse=True)
        return labels.astype(np.int64), tuple(map(str, values))

    def _folds(self, rows: pd.DataFrame, parts: np.ndarray) -> np.ndarray | None:
        """The fold that holds each image out, int64 (n,); -1 for none."""
        fixed = parts == "validation"
        if "folds" not in rows:
            return np.where(fixed, 0, -1) if fixed.any() else None
        if fixed.any():
            raise UserError(
                f"{self.path} has folds in the column '{self._columns['folds']}' and a fixed validation set in the column "
                f"'{self._columns['split']}'; leave out data.folds, or call the validation images train"
            )
        texts = rows["folds"].replace("", "-1")
        known = texts.map(lambda text: bool(_WHOLE.fullmatch(text)) and float(text) >= -1)
        if not known.all():
            raise self._refused(
                "folds", ~known.reindex(self._rows.index, fill_value=True), "is not a fold, counted from 0"
            )
        return texts.map(lambda text: int(float(text))).to_numpy(np.int64)

    def _weights(self, rows: pd.DataFrame) -> np.ndarray | None:
        """The weight of each image, float64 (n,)."""
        if "weight" not in rows:
            return None
        texts = rows["weight"]
        known = texts.map(lambda text: bool(_NUMBER.fullmatch(text)) and 0 <= float(text) < np.inf)
        if not known.all():
            what = "is not a finite number of at least 0"
            raise self._refused("weight", ~known.reindex(self._rows.index, fill_value=True), what)
        return texts.map(float).to_numpy(np.float64)

    def _refused(self, argument: str, where: Sequence[bool] | pd.Series | np.ndarray, what: str) -> UserError:
        """A complaint about some rows of a column, with their number and the first."""
        places = np.flatnonzero(np.asarray(where))
        value = self._rows[argument].iloc[places[0]]
        return UserError(
            f"{self.path}: the column '{self._columns[argument]}' (data.{argument}) {what} in {len(places):,} of "
            f"{len(self._rows):,} rows, first in row {places[0] + 1}{f': {value!r}' if value else ''}; correct the file"
        )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file; the cells of the first two are strings.

    Raises:
        UserError: it is missing, or of another kind than its ending says.
    """
    ending = path.suffix.lower()
    if ending not in (*SEPARATORS, *PARQUET):
        raise UserError(f"data.path is {path}; a manifest is a file that ends in {', '.join((*SEPARATORS, *PARQUET))}")
    if ending in PARQUET:
        require("A Parquet manifest", "pyarrow")
    try:
        regular_file(path)
        if ending in PARQUET:
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=SEPARATORS[ending], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"data.path: cannot read {path}: {error.strerror}") from None
        raise UserError(f"data.path: {path} is not a Parquet file: {error}") from None
    except ValueError as error:  # of pandas' parser, of the encoding, and of pyarrow
        kind = "a Parquet file" if ending in PARQUET else "a table of text in UTF-8"
        raise UserError(f"data.path: {path} is not {kind}: {error}") from None


def _as_text(value: Any) -> str:
    """A cell as text: "" for what is missing, and whole numbers without a decimal point."""
    if isinstance(value, str):
        return value.strip()
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
