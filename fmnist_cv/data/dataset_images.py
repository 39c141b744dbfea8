"""Images of somebody's map-style data set, which a DataLoader reads anew in each epoch instead of storing them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fmnist_cv.data.images import Images
from fmnist_cv.data.map_datasets import labels_of, names_of
from fmnist_cv.data.sampling import Shares, epoch_order
from fmnist_cv.errors import UserError

N_SAMPLED = 32  # images that are read to identify a data set, and to check its views against each other


@dataclass(frozen=True)
class Loading:
    """How a DataLoader reads a data set; see torch's DataLoader.

    Attributes:
        batch_size: images per training step.
        drop_last: leave out a last training batch that is not full.
        options: further arguments of the DataLoader: num_workers, collate_fn, …
    """

    batch_size: int = 64
    drop_last: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetImages(Images):
    """Images that are read from a data set whenever they are needed.

    Its items are pairs (image, label), which the DataLoader collates to tensors (b, c, h, w) and (b,). The images are what
    the network takes: scaled by the data set's own transforms. Nothing is stored: `images` has the length 0.

    Attributes:
        view: the data set without augmentation; everything but training reads it.
        training: the same images in the same order, with augmentation.
        loading: how both are read.
    """

    view: Any = None
    training: Any = None
    loading: Loading = field(default_factory=Loading)

    @classmethod
    @isolate_rng()  # the random numbers that augmentation draws here are not missing in the training
    def of(
        cls,
        view: Any,
        training: Any = None,
        loading: Loading | None = None,
        class_names: Sequence[str] | None = None,
        source: str = "the data set",
    ) -> DatasetImages:
        """Find labels, classes and shape, and check that the views fit each other.

        Labels are read from an attribute (targets, labels) if its values are those of the items that are looked at, else from all
        items, which takes as long as an epoch. The fingerprint is that of all labels and of 32 images: reading all of them may take hours.

        Args:
            view: the data set without augmentation.
            training: the same images with augmentation; by default without.
            loading: how they are read.
            class_names: by default the data set's `classes`, else the numbers of the labels.
            source: what the data are called in messages.

        Raises:
            UserError: a view is no data set of pairs (image, class), is random or empty, or the views differ.
        """
        training, loading = view if training is None else training, loading or Loading()
        for data in (view, training):
            if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
                raise UserError(f"{source}: {type(data).__name__} has no length or no items by index; folds need both")
        if not len(view):
            raise UserError(f"{source}: there are no images")
        if len(training) != len(view):
            raise UserError(
                f"{source}: the training data have {len(training)} images and the data for evaluation {len(view)}; both must be "
                "the same images in the same order"
            )
        sampled = np.unique(np.linspace(0, len(view) - 1, N_SAMPLED).astype(np.int64))
        pixels, own = _read(view, sampled, loading, source)
        if not torch.equal(pixels, _read(view, sampled, loading, source)[0]):
            raise UserError(
                f"{source}: reading an image for evaluation twice gives different pixels; leave random transforms out of it"
            )
        labels = labels_of(view)
        if labels is None or len(labels) != len(view) or not torch.equal(labels[sampled], own):
            everything = _loader(view, np.arange(len(view)), loading.batch_size, loading)
            labels = torch.cat([_checked(batch, source)[1] for batch in everything])
        if training is not view and not torch.equal(_read(training, sampled, loading, source)[1], own):
            raise UserError(
                f"{source}: the same index has another label in the training data than in the data for evaluation; both must be "
                "the same images in the same order"
            )
        names = names_of(view) if class_names is None else tuple(map(str, class_names))
        if names is None:
            names = tuple(map(str, range(int(labels.max()) + 1)))
        if labels.min() < 0 or labels.max() >= len(names):
            raise UserError(
                f"{source}: labels run from {labels.min()} to {labels.max()}, but there are {len(names)} class names"
                f"{' in its attribute classes; give one for each class in data.class_names' if class_names is None else ''}"
            )
        digest = hashlib.blake2b(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes(), digest_size=16)
        return cls(
            pixels[:0].clone(),
            labels,
            names,
            rows=torch.arange(len(view)),
            stored_digest=digest.hexdigest(),
            view=view,
            training=training,
            loading=loading,
        )

    def pixels(self, indices: Tensor) -> Tensor:
        """Network input float32 (m, channels, height, width) of the images of these indices, without augmentation."""
        if not len(indices):
            return self.images
        return torch.cat([images for images, _ in self.batches(indices, self.loading.batch_size)])

    def chunks(self, size: int | None = None) -> Iterator[Tensor]:
        """All network inputs in order, at most `size` images at a time, by default about 32 MB."""
        size = size or max(1, 2**23 // int(np.prod(self.shape)))
        for images, _ in self.batches(torch.arange(len(self)), size):
            yield images

    def batches(self, indices: Tensor, size: int) -> DataLoader[Any]:
        """Batches (float32 (b, c, h, w), int64 (b,)) without augmentation, in the order of the indices."""
        return _loader(
            self.view, self._rows(indices), size, self.loading, _Checked(self.loading.options.get("collate_fn"))
        )

    def training_batches(self, indices: Tensor, seed: int) -> DataLoader[Any]:
        """The user's training batches of these images in this order; what workers draw depends on the seed."""
        size = self.loading.batch_size
        return _loader(self.training, self._rows(indices), size, self.loading, None, self.loading.drop_last, seed)

    def _rows(self, indices: Tensor) -> np.ndarray:
        rows = indices if self.rows is None else self.rows[indices.cpu()]
        return rows.cpu().numpy()


class DatasetBatches:
    """Iterates over chosen images of a data set; the counterpart of `ImageBatches`.

    Workers start anew in each pass, since their seeds depend on it.

    Args:
        data: the images.
        indices: int64 (n,), the images to iterate over.
        batch_size: images per batch without augmentation; None for training batches, which have the user's size.
        seed: called at the start of each pass; its value determines order and augmentation. None keeps the given order.
        shares: with a seed, the probabilities with which images are drawn, see `epoch_order`.
    """

    def __init__(
        self,
        data: DatasetImages,
        indices: Tensor,
        batch_size: int | None,
        seed: Callable[[], int] | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.data, self.indices, self.seed, self.shares = data, indices, seed, shares
        self._is_training = batch_size is None
        self.batch_size = data.loading.batch_size if batch_size is None else batch_size

    def __iter__(self) -> Iterator[Any]:
        if not self._is_training:
            yield from self.data.batches(self.indices, self.batch_size)
            return
        seed = 0 if self.seed is None else self.seed()
        order = self.indices if self.seed is None else epoch_order(self.indices, seed, self.shares)
        yield from self.data.training_batches(order, seed)

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size)
        return full + bool(rest and not self._drop_last)

    @property
    def last_size(self) -> int:
        """Images in the last batch."""
        return self.batch_size if self._drop_last else len(self.indices) - (len(self) - 1) * self.batch_size

    @property
    def _drop_last(self) -> bool:
        return self._is_training and self.data.loading.drop_last


class _Checked:
    """A collate function whose batches are pairs of network input and classes."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self._collate = collate or torch.utils.data.default_collate

    def __call__(self, items: list[Any]) -> tuple[Tensor, Tensor]:
        return _checked(self._collate(items), "the data set")


def _checked(batch: Any, source: str) -> tuple[Tensor, Tensor]:
    """A batch as float32 (b, c, h, w) and int64 (b,)."""
    if isinstance(batch, Sequence) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        images, labels = batch
        whole = not labels.is_floating_point() and not labels.is_complex()
        if images.ndim == 4 and labels.shape == (len(images),) and whole:
            return images.float(), labels.long()
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        parts = [f"{type(part).__name__} {tuple(getattr(part, 'shape', ()))}" for part in batch]
    else:
        parts = [type(batch).__name__]
    raise UserError(
        f"{source}: a batch for evaluation must be a pair of tensors, images (b, c, h, w) and whole numbers (b,), got "
        f"{', '.join(parts)}; the transforms for evaluation must make tensors of one size"
    )


def _read(data: Any, rows: np.ndarray, loading: Loading, source: str) -> tuple[Tensor, Tensor]:
    """Images and labels of few rows, read in this process."""
    here = Loading(options=_in_this_process(loading.options))
    try:
        return _checked(next(iter(_loader(data, rows, len(rows), here))), source)
    except UserError:
        raise
    except Exception as error:  # of the user's code
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{source}: its images cannot be read: {type(error).__name__}: {reason}") from None


def _loader(
    data: Any,
    rows: np.ndarray,
    batch_size: int,
    loading: Loading,
    collate: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = False,
    seed: int = 0,
) -> DataLoader[Any]:
    options = loading.options | ({} if collate is None else {"collate_fn": collate})
    if collate is not None and len(rows) <= batch_size:  # a batch is read by one worker, whose start takes longer
        options = _in_this_process(options)
    # a generator of its own: the loader draws its workers' seed from it instead of from the global one
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(Subset(data, rows.tolist()), batch_size, drop_last=drop_last, generator=generator, **options)


def _in_this_process(options: dict[str, Any]) -> dict[str, Any]:
    """A DataLoader's options without those that concern workers."""
    return {key: value for key, value in options.items() if key in ("collate_fn", "pin_memory")}
