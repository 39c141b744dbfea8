"""Data sets of Hugging Face's `datasets`, from the hub or from disk, decoded once into stored images."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fmnist_cv.data.decoded_items import Pictures, PicturesDataModule, first_line
from fmnist_cv.data.images import Images
from fmnist_cv.data.photos import FORMATS
from fmnist_cv.data.sharing import file_states
from fmnist_cv.errors import DataNotFound, UserError, did_you_mean
from fmnist_cv.utils.optional import require
from fmnist_cv.utils.paths import expand

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_IMAGE_NAMES = ("image", "img", "pixel_values")  # tried in turn where no column's type says what it is
_LABEL_NAMES = ("label", "labels")


class HuggingFaceDataModule(PicturesDataModule):
    """Any image data set of Hugging Face: by its name on the hub, or a folder or Parquet file on disk.

    Pictures are decoded and resized once, into the cache (see `python -m fmnist_cv.cache --help`). Needs the extra: pip install 'fmnist_cv[hf]'.

    Args:
        path: name on the hub ("user/name"), a folder written by `save_to_disk`, a folder that `load_dataset` reads (of
            Parquet files or of pictures), or a `.parquet` file.
        name: the configuration, where the data set has several.
        train: the part for training.
        test: the part for testing; by default "test" if there is one; false for none.
        image: the column of pictures; by default the one whose type says so, or "image" or "img".
        label: the column of classes; by default the one whose type says so, or "label".
        group: a column of groups, such as patients; images of one group are never on both sides of a split, and a group that the
            test part has, too, is refused.
        revision: branch, tag or commit on the hub.
        kwargs: how pictures become pixels, see PicturesDataModule, and batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        train: str = "train",
        test: str | bool | None = None,
        image: str | None = None,
        label: str | None = None,
        group: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if test is True:
            raise UserError("data.test is true; it is the name of the part for testing, or false for none")
        self.path, self.name, self.revision = expand(path, "data.path"), name, revision
        self.train_part, self.test_part = train, test
        self.image, self.label, self.group = image, label, group

    @property
    def data_name(self) -> str:
        """The data set's own name, without its user or folder."""
        return Path(self.path).name.removesuffix(".parquet")

    def load(self, train: bool) -> Images | None:
        """Read one part and decode its pictures.

        Raises:
            DataNotFound: it is neither on disk nor on the hub, or the hub cannot be reached.
            UserError: the package is missing, or there is no such part or column, or a picture cannot be decoded, or a group is
                in both parts.
        """
        require("HuggingFaceDataModule", "datasets")
        data = self._part(train)
        if data is None:
            return None
        if train and self.group is not None:
            self._refuse_shared_groups(data, self.group)
        return self.decoded(data, train, None if train else self.train_images.class_names)

    def _refuse_shared_groups(self, data: Dataset, group: str) -> None:
        test = self._part(train=False)
        if test is None or group not in test.features or group not in data.features:
            return
        values = ({str(value) for value in part[group] if value is not None} for part in (data, test))
        if both := sorted(set.intersection(*values)):
            raise UserError(
                f"{self.path}: {len(both):,} groups have both training and test images, such as '{both[0]}', so that the test part "
                "would be no test; name another part with --data.test, or none with --data.test false"
            )

    def _part(self, train: bool) -> Dataset | None:
        wanted = self.train_part if train else self.test_part
        if wanted is False:
            return None
        parts = _read(self.path, self.name, self.revision)
        if wanted is None and "test" not in parts:
            return None
        wanted = str(wanted or "test")
        if wanted not in parts:
            which = "train" if train else "test"
            hint = did_you_mean(wanted, parts, f"it has {', '.join(parts)}; --data.{which} names one")
            raise UserError(f"{self.path} has no part '{wanted}'{hint}")
        return parts[wanted]

    def decoded(self, data: Dataset, train: bool, names: tuple[str, ...] | None) -> Images:
        """The pictures of one part.

        Args:
            data: the part.
            train: whether it is for training, where groups count.
            names: the classes' names; None for those that the data set has.

        Raises:
            UserError: there is no such column, or a picture cannot be decoded.
        """
        import datasets

        image, label = self._image_column(data), self._label_column(data)
        feature = data.features[label]
        if isinstance(feature, datasets.ClassLabel) and names is None:
            names = tuple(feature.names)
        groups = None
        if train and self.group is not None:
            groups = np.asarray(data[self._known(data, self.group, "group")])
        if isinstance(data.features[image], datasets.Image):  # decoded here, by the rules for every other picture
            data = data.cast_column(image, datasets.Image(decode=False))
        pictures, labels = data.select_columns([image]), [*data[label]]

        def item(index: int) -> tuple[Any, Any]:
            return _picture(pictures[index][image]), labels[index]

        files = file_states(Path(file["filename"]) for file in data.cache_files)
        state = (image, data._fingerprint, files)
        found = Pictures(len(data), item, self.data_name, state, labels=labels).images(
            self.decoding, self.channels, names, groups
        )
        return replace(found, names=self._names(pictures, image))

    def _names(self, pictures: Dataset, image: str) -> tuple[str, ...] | None:
        """The paths of the pictures' files, below the folder of the data set; None where the data do not have them."""
        table, column, folder = pictures.with_format(None).flatten(), f"{image}.path", Path(self.path).absolute()
        names = []
        for path in table[column] if column in table.column_names else [None]:
            if path is None or "::" in path:  # in an archive
                return None
            file = Path(path)
            if file.is_absolute() and not file.is_relative_to(folder):  # in a cache
                return None
            names.append((file.relative_to(folder) if file.is_absolute() else file).as_posix())
        return tuple(names) if len(set(names)) == len(names) else None

    def _image_column(self, data: Dataset) -> str:
        import datasets

        if self.image is not None:
            return self._known(data, self.image, "image")
        return self._only(data, (datasets.Image,), _IMAGE_NAMES, "image")

    def _label_column(self, data: Dataset) -> str:
        import datasets

        if self.label is not None:
            return self._known(data, self.label, "label")
        return self._only(data, (datasets.ClassLabel,), _LABEL_NAMES, "label")

    def _known(self, data: Dataset, column: str, what: str) -> str:
        if column not in data.features:
            hint = did_you_mean(column, data.features, f"it has {', '.join(data.features)}")
            raise UserError(f"data.{what} is '{column}', but {self.path} has no such column{hint}")
        return column

    def _only(self, data: Dataset, kinds: tuple[type, ...], usual: tuple[str, ...], what: str) -> str:
        """The one column of these types, or the first of the usual names."""
        typed: list[str] = [name for name, feature in data.features.items() if isinstance(feature, kinds)]
        if len(typed) == 1:
            return typed[0]
        if not typed and (named := next((name for name in usual if name in data.features), None)):
            return named
        found = f"several: {', '.join(typed)}" if typed else f"none: {', '.join(data.features)}"
        raise UserError(
            f"which column of {self.path} holds the {what}s is not clear ({found}); name it with --data.{what}"
        )


def _picture(value: Any) -> Any:
    """A cell of a column of pictures, as `Pictures` takes it."""
    if isinstance(value, dict) and {"bytes", "path"} <= value.keys():
        if value["bytes"] is None and value["path"] is None:
            raise OSError("it has no picture")
        return Image.open(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"]), formats=FORMATS)
    if value is None:
        raise OSError("it has no picture")
    array = np.asarray(value)
    if array.dtype == np.int64 and array.size and array.min() >= 0 and array.max() <= 255:  # lists have no width
        array = array.astype(np.uint8)
    return array


def _read(path: str, name: str | None, revision: str | None) -> DatasetDict:
    """All parts, memory-mapped; a single one is called "train"."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    place = Path(path)
    is_saved = any((place / marker).is_file() for marker in ("state.json", "dataset_dict.json"))
    if name is not None and (is_saved or place.suffix == ".parquet"):
        kind = "a folder written by save_to_disk" if is_saved else "a Parquet file"
        raise UserError(f"data.name is '{name}', but {path} is {kind}, which has no configurations; leave it out")
    if revision is not None and (place.exists() or place.suffix == ".parquet"):
        raise UserError(
            f"data.revision is '{revision}', but {path} is on disk, and only data sets on the hub have revisions; leave it out"
        )
    try:
        if is_saved:
            data = datasets.load_from_disk(path)
        elif place.suffix == ".parquet":
            if not place.is_file():
                raise DataNotFound(f"data file {path} does not exist")
            data = datasets.load_dataset("parquet", data_files={"train": path})
        elif path.endswith((".csv", ".zip", ".arrow", ".npz")) or (place.is_absolute() and not place.exists()):
            raise DataNotFound(f"{path} is no folder of a data set, no .parquet file and no name on the hub")
        else:
            data = datasets.load_dataset(path, name, revision=revision)
    except (ConnectionError, FileNotFoundError, HfHubHTTPError) as error:
        raise DataNotFound(
            f"the data set '{path}' is neither a folder here nor to be had from the hub: {first_line(error)}"
        ) from None
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"the data set '{path}' cannot be read: {first_line(error)}") from None
    return data if isinstance(data, dict) else datasets.DatasetDict(train=data)
