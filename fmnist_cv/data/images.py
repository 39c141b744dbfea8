"""Labelled images in memory or in a memory-mapped file, and the checks that all of them pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmnist_cv.data.pixel_kinds import as_stored
from fmnist_cv.errors import UserError

_CHUNK_BYTES = 2**25


@dataclass(frozen=True)
class Whole:
    """The set that images were taken from.

    Attributes:
        n: number of its images.
        names: of all its images, or None.
        places: int64 (m,), where each of the images taken stands in it.
    """

    n: int
    names: tuple[str, ...] | None
    places: Tensor


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Everything but `pixels`, `chunks` and `shape` leaves the pixels alone, so that images in a file may exceed the memory.

    Attributes:
        images: uint8, uint16 or float32 (n_stored, channels, height, width); in memory, on a device or mapped from a file.
        labels: int64 (n,), values 0 to len(class_names) - 1.
        class_names: one name per class.
        groups: int64 (n,) or None; images of one group are never on both sides of a split.
        names: a name per image that stays the same wherever the image stands, such as its path; None where there is only
            its place.
        group_names: the name of each group; None for their numbers.
        folds: int64 (n,) or None; the fold that holds each image out according to the data themselves, from 0, or -1 for
            none.
        weights: float64 (n,), on the CPU, or None; how often each image is drawn in training, relative to others; 0 for never.
            Scores are not weighted.
        rows: int64 (n,), where each image stands in `images`; None where n is n_stored and the order the same.
        stored_digest: identifies the content of `images` where that is known without reading it.
        digests: uint8 (n, 16) or None; a digest of each image's pixels where that is known without reading them.
        part_of: the whole set of which these are a part; None where nothing was left out.
        copies: int64 (n,), equal for images that are copies of each other; None where there are none, or groups hold them.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    groups: Tensor | None = None
    names: tuple[str, ...] | None = None
    group_names: tuple[str, ...] | None = None
    folds: Tensor | None = None
    weights: Tensor | None = None
    rows: Tensor | None = None
    stored_digest: str | None = None
    digests: Tensor | None = None
    part_of: Whole | None = None
    copies: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray | Tensor,
        labels: np.ndarray | Tensor,
        class_names: Sequence[str] | None = None,
        groups: np.ndarray | Tensor | None = None,
    ) -> Images:
        """Check arrays and bring them into shape.

        Args:
            images: uint8, uint16, or finite floats, which are stored as float32; (n, h, w), (n, c, h, w) or (n, h, w, c). Of
                four axes, the second is the channels if it has 1 or 3, else the last if that has 1 or 3, else the shorter of
                the two.
            labels: integers (n,), counted from 0.
            class_names: by default "0", "1", ... up to the largest label; bytes are read as UTF-8.
            groups: any values (n,), one per image, none of them missing.

        Raises:
            UserError: a dtype, shape, length or label that does not fit.
        """
        images, labels = _channels_first(np.asarray(images)), np.asarray(labels)
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                f"labels must be {len(images)} integers, one per image, got {labels.dtype} of shape {labels.shape}"
            )
        if not len(images):
            raise UserError("there are no images")
        images, labels = as_stored(images), labels.astype(np.int64)
        names = _default_names(labels) if class_names is None else _names(class_names)
        if labels.min() < 0 or labels.max() >= len(names):
            raise UserError(f"labels run from {labels.min()} to {labels.max()}, but there are {len(names)} class names")
        numbers, group_names = (None, None) if groups is None else numbered(np.asarray(groups), len(labels))
        return cls(
            torch.from_numpy(np.array(images, order="C")),
            torch.from_numpy(labels),
            names,
            numbers,
            group_names=group_names,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def places(self) -> np.ndarray:
        """int64 (n,): where each image stands in the whole set, as `data.leave_out` counts."""
        return np.arange(len(self)) if self.part_of is None else self.part_of.places.numpy()

    @property
    def kept_together(self) -> np.ndarray | None:
        """int64 (n,) or None: the groups, or else the copies; images of one number are never on both sides of a split."""
        numbers = self.copies if self.groups is None else self.groups
        return None if numbers is None else numbers.cpu().numpy()

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored pixels: uint8, uint16 or float32."""
        return self.images.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    def pixels(self, indices: Tensor) -> Tensor:
        """The stored pixels (m, channels, height, width) of the images of these indices, int64 (m,), on their device."""
        indices = indices.to(self.images.device)
        if self.rows is not None:
            indices = self.rows.to(indices.device).index_select(0, indices)
        if not self.images.is_contiguous():  # flatten would copy all of them
            return self.images.index_select(0, indices)
        stored = self.images.flatten(1)  # rows are copied faster than blocks of several axes
        return stored.index_select(0, indices).view(-1, *self.images.shape[1:])

    def chunks(self, size: int | None = None) -> Iterator[Tensor]:
        """All stored pixels in order, at most `size` images (m, channels, height, width) at a time, by default 32 MB."""
        size = size or max(1, _CHUNK_BYTES // max(1, self.images[:1].nbytes))
        for indices in torch.split(torch.arange(len(self)), size):
            yield self.pixels(indices)

    def pixel_digests(self) -> list[bytes]:
        """16 bytes per image, equal for equal pixels; the stored ones where there are any, else all pixels are read."""
        if self.digests is not None:
            return [digest.tobytes() for digest in self.digests.numpy()]
        return [pixel_digest(image.tobytes()) for chunk in self.chunks() for image in chunk.cpu().numpy()]

    def subset(self, indices: Tensor) -> Images:
        """The images of these indices, int64 (m,), in their order; those in a file stay there."""
        names = None if self.names is None else tuple(self.names[i] for i in indices.tolist())
        of_each = ("labels", "groups", "folds", "weights", "digests", "copies")
        parts = {key: part[indices] for key in of_each if (part := getattr(self, key)) is not None}
        before = self.part_of or Whole(len(self), self.names, torch.arange(len(self)))
        chosen = replace(self, **parts, names=names, part_of=replace(before, places=before.places[indices.cpu()]))
        if self.stored_digest is None:
            return replace(chosen, images=self.pixels(indices), rows=None)
        return replace(chosen, rows=indices if self.rows is None else self.rows[indices])

    def to(self, device: torch.device) -> Images:
        """The same images with pixels and labels on a device."""
        rows = None if self.rows is None else self.rows.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), rows=rows)

    def without(self, indices: np.ndarray) -> Images:
        """All images except those of the indices int64 (m,).

        Raises:
            UserError: an index out of range, or no image is left.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise UserError(
                f"data.leave_out names images {indices.min()} to {indices.max()}, but there are {len(self)}, from 0"
            )
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[torch.tensor(indices)] = False
        if not kept.any():
            raise UserError("data.leave_out leaves no image")
        return self.subset(kept.nonzero()[:, 0])

    def fingerprint(self) -> str:
        """A digest of shape, class names, pixels, labels, groups or copies, and weights: equal fingerprints, equal results.

        Computed once per object: the tensors must not be changed in place.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(repr(((len(self), *self.shape), self.class_names)).encode(), digest_size=16)
        if self.stored_digest is None:
            for chunk in self.chunks():
                digest.update(chunk.cpu().numpy().tobytes())
        else:
            digest.update(repr((self.stored_digest, None if self.rows is None else self.rows.tolist())).encode())
        for part in (self.labels, self.copies if self.groups is None else self.groups):
            if part is not None:
                digest.update(part.cpu().numpy().tobytes())
        if self.weights is not None:
            digest.update(b"weights" + self.weights.numpy().tobytes())
        return digest.hexdigest()


def _channels_first(images: np.ndarray) -> np.ndarray:
    """Images of any accepted shape as (n, c, h, w)."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(f"images must have the shape (n, h, w), (n, c, h, w) or (n, h, w, c), got {images.shape}")
    first, last = images.shape[1], images.shape[3]
    if first in (1, 3) or (last not in (1, 3) and first < last):
        return images
    if last in (1, 3) or last < first:
        return images.transpose(0, 3, 1, 2)
    raise UserError(
        f"images of the shape {images.shape} may have their channels in the second or in the last axis, which are equally long; "
        "only images with fewer channels than rows and columns are taken"
    )


def pixel_digest(content: bytes) -> bytes:
    """16 bytes that stand for the pixels of an image, channel by channel and row by row."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _default_names(labels: np.ndarray) -> tuple[str, ...]:
    """The numbers up to the largest label; refuses sparse ones, which are rather product numbers than classes."""
    largest, n_different = labels.max(), len(np.unique(labels))
    if 2 * n_different <= largest:
        raise UserError(
            f"labels run to {largest}, but only {n_different} different values occur; count the classes from 0 without gaps "
            "(numpy.unique(labels, return_inverse=True)[1] does), or give the name of each class in class_names"
        )
    return tuple(map(str, range(largest + 1)))


def _names(given: Sequence[str]) -> tuple[str, ...]:
    if np.asarray(given, dtype=object).ndim != 1:
        raise UserError(f"class_names must be a list of names, got {given!r}")
    try:
        names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in given)
    except UnicodeDecodeError as error:
        raise UserError(f"class_names holds bytes that are not UTF-8, {error.object!r}; give strings") from None
    if len(set(names)) < len(names):
        raise UserError(f"class_names must differ from each other, got {[*names]}")
    return names


def numbered(groups: np.ndarray, n: int) -> tuple[Tensor, tuple[str, ...]]:
    """Groups of any values as int64 (n,), counted from 0, and the name of each.

    Raises:
        UserError: they are not n values of one kind, or some are missing.
    """
    if groups.shape != (n,):
        raise UserError(f"groups must be {n} values, one per image, got shape {groups.shape}")
    missing = np.flatnonzero(pd.isna(groups))
    if len(missing):
        raise UserError(
            f"groups are missing (NaN or None) for {len(missing)} of {n} images, the first at index {missing[0]}; give each "
            "image a group, and images that are in no group a group of their own each"
        )
    try:
        values, numbers = np.unique(groups, return_inverse=True)
    except TypeError:
        raise UserError("groups must be values of one kind, such as numbers or strings, got several kinds") from None
    return torch.from_numpy(numbers.astype(np.int64)), tuple(map(str, values))
