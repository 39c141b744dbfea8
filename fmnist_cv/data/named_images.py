"""Images that a file names: found by their stable names, or by their places in the data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file

if TYPE_CHECKING:
    from fmnist_cv.data.images import Images
    from fmnist_cv.data.splitter_folds import Indices


class ImageNames:
    """Finds images by the names that a file gives them. Folder and ending may be missing where that leaves a name unique.

    Args:
        path: the file, for messages.
        names: of all images of the data set; None where their places, counted from 0, are their names.
        n: number of all its images.
    """

    def __init__(self, path: Path, names: Sequence[str] | None, n: int) -> None:
        self.path = path
        self.names = [str(i) for i in range(n)] if names is None else [*names]
        self._exact = {name: i for i, name in enumerate(self.names)}
        self._short: dict[str, set[int]] = {}
        for i, name in enumerate(self.names if names is not None else ()):
            whole = PurePosixPath(name)
            for short in {str(whole.with_suffix("")), whole.name, whole.stem}:
                self._short.setdefault(short, set()).add(i)

    def find(self, given: Any, where: str) -> int:
        """The index of an image.

        Raises:
            UserError: there is none of that name, or several.
        """
        name = str(given)
        for known in (name, name.removeprefix("'")):  # which files of this package have before a spreadsheet's formula
            if (index := self._exact.get(known)) is not None:
                return index
        found = self._short.get(name, set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            some = " and ".join(f"'{self.names[i]}'" for i in sorted(found)[:2])
            raise UserError(f"{self.path}: {where} names '{name}', which may be {some}; give the whole name")
        raise UserError(
            f"{self.path}: {where} names the image '{name}', which the data do not have; they have {len(self.names):,}, "
            f"the first is '{self.names[0]}': correct the name, or remove it"
        )

    def find_all(self, given: Iterable[Any], where: str) -> Indices:
        """The indices of images, none of them twice, in the order given."""
        indices = [self.find(name, where) for name in given]
        for index, times in Counter(indices).items():
            if times > 1:
                raise UserError(
                    f"{self.path}: {where} names the image '{self.names[index]}' {times} times; keep one of them"
                )
        return np.array(indices, dtype=np.int64)


def read_left_out(path: Path, images: Images) -> Indices:
    """The images that a CSV file lists in its column `name`, or by their places in `index`: int64 (m,), ascending and unique.

    Args:
        path: the file.
        images: the whole data set.

    Raises:
        UserError: the file is missing, has neither column or both, or has a value that is no image's.
    """
    try:
        table = pd.read_csv(
            regular_file(path), usecols=lambda column: column in ("index", "name"), dtype=str, keep_default_na=False
        )
        if table.columns.empty:
            raise ValueError("there is none")
    except UserError as error:
        raise UserError(f"data.leave_out: {error}") from None
    except OSError as error:
        raise UserError(f"data.leave_out: cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # of pandas' parser and of the encoding, too
        raise UserError(f"data.leave_out: {path} is not a CSV file with a column 'index' or 'name': {error}") from None
    if len(table.columns) > 1:
        raise UserError(
            f"data.leave_out: {path} has both a column 'index' and a column 'name', which may contradict each other; remove one"
        )
    if "name" in table:
        known = ImageNames(path, images.names, len(images))
        return np.unique(np.array([known.find(name, "data.leave_out") for name in table["name"]], dtype=np.int64))
    if not table["index"].str.fullmatch(r"\s*[+-]?\d+\s*").all():
        raise UserError(f"data.leave_out: the column 'index' of {path} has values that are not whole numbers")
    return np.unique(table["index"].astype(np.int64).to_numpy())
