"""Data given from Python as objects, as an `ArrayDataModule`: arrays, lists of (image, label), data sets of other libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from fmnist_cv.data.dataset_images import N_SAMPLED
from fmnist_cv.data.datasets import ArrayDataModule
from fmnist_cv.data.decoded_items import Pictures
from fmnist_cv.data.decoding import Decoding
from fmnist_cv.data.huggingface_data import HuggingFaceDataModule
from fmnist_cv.data.images import Images
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.photos import UnreadableImage
from fmnist_cv.errors import UserError

PICTURES = ("image_size", "resize", "channels")  # how pictures become pixels: of `PicturesDataModule`
_AS_FUNCTION = "give a function of a module or script that makes the data set twice: def my_data(): return with_augmentation, without_it"
_GROUPED = {"duplicates": "group"}  # as for image files; a module says itself what is done about copies
_TRANSFORMS = ("transform", "transforms", "target_transform")


@dataclass(frozen=True)
class GivenData:
    """Data that a program gave as objects.

    Attributes:
        kind: what they are called: the type of the data set, "list" or "arrays".
        train, test: all images; None for those of a module that reads them from a file.
        settings: arguments of an `ArrayDataModule`, but for the images.
    """

    kind: str
    train: Images | None
    test: Images | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The kind and a digest of all images and labels: another name for other data."""
        prints = [None if part is None else part.fingerprint() for part in (self.train, self.test)]
        return f"{self.kind}-{hashlib.blake2b(repr(prints).encode(), digest_size=4).hexdigest()}.npz"

    def put_into(self, module: KFoldDataModule) -> None:
        """Make a data module return these images instead of reading them."""
        module.load = lambda train: self.train if train else self.test  # type: ignore[method-assign]

    def write(self, file: IO[bytes]) -> None:
        """Write the `.npz` from which an `ArrayDataModule` reads the same images, in other processes and later."""
        arrays: dict[str, Any] = {}
        if self.train is not None:
            arrays |= {"images": self.train.images, "labels": self.train.labels, "class_names": self.train.class_names}
            if self.train.groups is not None:
                arrays["groups"] = _group_values(self.train)
        if self.test is not None:
            arrays |= {"test_images": self.test.images, "test_labels": self.test.labels}
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def take_data(given: Any, form: Mapping[str, Any]) -> GivenData | None:
    """Data given as objects; None for what a config can hold, and for what is none of these.

    Args:
        given: an `ArrayDataModule`; a pair of arrays (images, labels); a list of (image, label), each image uint8 (h, w) or
            (h, w, 3) or of Pillow and each label a number or a word; or a map-style data set, of torchvision, of Hugging Face
            or another, that gives such pairs. What they give is read once, so they must give it without augmentation.
        form: how pictures become pixels, by `PICTURES`; for lists and data sets alone.

    Raises:
        UserError: transforms, a form, split arguments or augmentation that would be ignored; no pairs; items that are random;
            images that do not fit.
    """
    is_pair = isinstance(given, tuple) and len(given) == 2 and all(hasattr(part, "dtype") for part in given)
    if form and (is_pair or type(given) is ArrayDataModule):
        kind = "a pair of arrays" if is_pair else "an ArrayDataModule"
        raise UserError(
            f"data.{next(iter(form))} has no effect on {kind}, whose images are used as they are; leave it out, and give the "
            "images in the size and with the channels that the network is to see"
        )
    if type(given) is ArrayDataModule:
        return _configured(given)
    if is_pair:
        return GivenData("arrays", Images.from_arrays(*given), settings=_GROUPED)
    is_section = isinstance(given, Mapping) and not _is_huggingface(given)
    if is_section or isinstance(given, str | type) or not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        return None
    if hasattr(given, "dtype"):
        raise UserError("data is an array without labels; give data=(images, labels)")
    if isinstance(given, tuple) and given and all(_is_set(part) for part in given):
        raise UserError(f"data is a tuple of data sets, which other processes cannot make; {_AS_FUNCTION}")
    kind = "list" if isinstance(given, list | tuple) else type(given).__name__
    return GivenData(kind, _decoded(given, kind, form), settings=_GROUPED)


def _configured(module: ArrayDataModule) -> GivenData:
    if module.has_split_arguments:
        raise UserError(
            "data is an ArrayDataModule with n_splits or other arguments of splits, which are taken from the section cv; give "
            "them there, e.g. cv={'n_splits': 10}"
        )
    if module.augment:
        raise UserError(
            "data is an ArrayDataModule with augment, whose modules a config cannot hold; leave it out, and give overrides="
            "{'data.augment': [{'class_path': 'kornia.augmentation.RandomHorizontalFlip'}]}"
        )
    values = {
        "batch_size": (module.batch_size, 64),
        "scaling": (module.scaling_name, "unit"),
        "eval_batch_size": (module.eval_batch_size, 1000),
        "drop_last": (module.drop_last, False),
        "leave_out": (module.leave_out, None),
        "duplicates": (module.duplicates, "keep"),
        "use_validation": (module.use_validation, False),
        "path": (None if module.path is None else str(module.path), None),
    }
    settings = {key: value for key, (value, default) in values.items() if value != default}
    parts = (None, None) if module.path else (module.load(train=True), module.load(train=False))
    return GivenData(module.data_name, *parts, settings)


def _decoded(data: Any, kind: str, form: Mapping[str, Any]) -> Images:
    if _is_huggingface(data):
        if isinstance(data, Mapping):
            raise UserError(f"data is a {kind} of {', '.join(data)}; give one of them, e.g. data=my_data['train']")
        if data.format["type"] == "custom":
            raise UserError(f"data is a {kind} with a transform, {_reason()}; give it after data.reset_format()")
        found = HuggingFaceDataModule(kind, **form).decoded(data, train=True, names=None)
        # without the digest of the cache, which an .npz does not keep
        return Images.from_arrays(found.images, found.labels, found.class_names)
    for part in _parts(data):
        for name in _TRANSFORMS:
            if getattr(part, name, None) is not None:
                raise UserError(
                    f"data is a {kind} with a {name}, {_reason()}; give it without, and scale and augment with data.scaling and "
                    f"data.augment, or {_AS_FUNCTION}"
                )
    if not len(data):
        raise UserError(f"data is an empty {kind}; there are no images")
    first = data[0]
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise UserError(
            f"data is a {kind} whose items are no pairs (image, label): the first is a {type(first).__name__}"
        )
    names = getattr(data, "classes", None)
    is_named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    channels = form.get("channels")
    decoding = Decoding.checked(
        form.get("image_size"), form.get("resize", "squeeze"), 3 if channels is None else channels
    )
    pictures = Pictures(
        len(data), lambda i: tuple(data[i]), kind, state=None, threads=1
    )  # of others, which may know no threads
    _refuse_random(pictures)
    return pictures.images(decoding, channels, names if is_named else None)


@isolate_rng()
def _refuse_random(pictures: Pictures) -> None:
    """Refuse items that differ when they are read again: what was drawn once would be kept for all epochs."""
    for index in np.unique(np.linspace(0, pictures.n - 1, N_SAMPLED).astype(np.int64)).tolist():
        try:
            first, again = pictures.read(index), pictures.read(index)
        except UnreadableImage:  # which is said of all such images later
            continue
        # a picture that the data hold is not decoded here: it could not be decoded smaller afterwards
        same = first[0] is again[0] and isinstance(first[0], Image.Image)
        if not (same or np.array_equal(np.asarray(first[0]), np.asarray(again[0]))):
            raise UserError(
                f"data is a {pictures.source} whose items are random: reading image {index} twice gives different pixels, and they "
                f"are read once; leave random transforms out of it, and augment with data.augment, or {_AS_FUNCTION}"
            )


def _is_set(data: Any) -> bool:
    """Whether it is a data set rather than one of its items."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, tuple | list | str)


def _is_huggingface(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets"


def _reason() -> str:
    return "which held-out images would get as training images do"


def _parts(data: Any) -> Iterator[Any]:
    """A data set, and those that it takes a part of or joins."""
    yield data
    for inner in [getattr(data, "dataset", None), *(getattr(data, "datasets", None) or ())]:
        if inner is not None:
            yield from _parts(inner)


def _group_values(images: Images) -> np.ndarray:
    """The groups' names where these have the order of their numbers, which they get again when they are read."""
    assert images.groups is not None
    names, numbers = images.group_names, images.groups.cpu().numpy()
    return numbers if names is None or [*names] != sorted(names) else np.array(names)[numbers]
