"""Batches of stored images: one index operation per batch, without any work per image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from fmnist_cv.data.images import Images
from fmnist_cv.data.pixel_kinds import UNIT
from fmnist_cv.data.sampling import Shares, epoch_order

ScalingName = Literal["unit", "minmax", "standardise", "none"]

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 2  # batches that are read and copied before they are used
_FIT_PIXELS = 2**22  # per channel, that are counted at a time: 32 MB as int64


class ImageBatches:
    """Iterates over the chosen images in batches: (stored pixels (b, c, h, w), labels int64 (b,)).

    A plain iterable with a length, as `Trainer.fit` takes it. A torch DataLoader would collate
    single samples and add a profiler record to each step.

    Args:
        data: the images, on any device.
        indices: int64 (n,), the images to iterate over.
        batch_size: images per batch; the last one may be smaller.
        seed: called at the start of each pass; its value determines the order. None keeps the given order.
        drop_last: leave out a last batch that is not full.
        device: a CUDA device to which batches are copied ahead of their use, where the images are not on it.
        shares: with a seed, the probabilities with which images are drawn, see `epoch_order`.
    """

    def __init__(
        self,
        data: Images,
        indices: Tensor,
        batch_size: int,
        seed: Callable[[], int] | None = None,
        drop_last: bool = False,
        device: torch.device | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.data, self.indices = data, indices.to(data.images.device)
        self.batch_size, self.seed, self.drop_last, self.shares = batch_size, seed, drop_last, shares
        self._copied_to = device if data.images.device.type == "cpu" else None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.indices if self.seed is None else epoch_order(self.indices, self.seed(), self.shares)
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        parts = (order[start : start + self.batch_size] for start in starts)
        yield from map(self._read, parts) if self._copied_to is None else self._copied_ahead(parts, self._copied_to)

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.data.pixels(indices), self.data.labels.index_select(0, indices)

    def _copied_ahead(self, parts: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches on a CUDA device, copied on a stream of their own while the device works on those before."""
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call, unused-ignore]

        def copy(indices: Tensor) -> tuple[list[Tensor], torch.cuda.Event]:
            with torch.cuda.stream(stream):
                batch = [part.pin_memory().to(device, non_blocking=True) for part in self._read(indices)]
                return batch, stream.record_event()

        for (images, labels), is_copied in made_ahead(copy, parts):
            used_on = torch.cuda.current_stream(device)
            used_on.wait_event(is_copied)
            for part in (images, labels):
                part.record_stream(used_on)  # its memory is not given to a later copy before it has been used
            yield images, labels

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size)
        return full + bool(rest and not self.drop_last)

    @property
    def last_size(self) -> int:
        """Images in the last batch."""
        return len(self.indices) - (len(self) - 1) * self.batch_size if not self.drop_last else self.batch_size


def made_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`map(make, items)`, in order, with `make` called in a thread up to AHEAD items before their results are asked for."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            waiting.append(thread.submit(make, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class Scaling:
    """Pixels to network input: (x - shift) / scale per channel. Plain numbers, stored in every checkpoint.

    Attributes:
        shift, scale: one number per channel, in stored pixel values.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, name: ScalingName, images: Images, indices: np.ndarray) -> Scaling:
        """Fit the scaling called `name` to the images of a training part.

        Args:
            name: "unit" is x / 255 for 8 bits, x / 65535 for 16 bits, and leaves floats as they are; "minmax" maps the part's
                smallest and largest pixel to 0 and 1; "standardise" gives mean 0 and standard deviation 1; "none" keeps the
                stored values.
            images: the images, which are read in parts.
            indices: int64 (n_train,), the images of the training part.
        """
        channels = images.shape[0]
        if name == "unit":
            return cls((0.0,) * channels, (UNIT.get(images.dtype, 1.0),) * channels)
        if name == "none":
            return cls((0.0,) * channels, (1.0,) * channels)
        size = max(1, _FIT_PIXELS // (images.shape[1] * images.shape[2]))
        chunks = (images.pixels(part).cpu() for part in torch.split(torch.from_numpy(indices), size))
        measure = _of_floats if images.dtype.is_floating_point else _of_whole_numbers
        low, high, mean, deviation = measure(chunks, channels, int(UNIT.get(images.dtype, 0)) + 1)
        shift, scale = (low, high - low) if name == "minmax" else (mean, deviation)
        return cls(tuple(map(float, shift)), tuple(float(s) or 1.0 for s in scale))

    def __call__(self, images: Tensor) -> Tensor:
        """Stored pixels (b, c, h, w) to float32 of the same shape."""
        if any(self.shift):
            return (images - self._column(self.shift, images)) / self._column(self.scale, images)
        if len(set(self.scale)) == 1:
            # in two steps, since dividing bytes by a float is not vectorised; out of place for floats, which are not copied
            floats = images.float()
            return floats / self.scale[0] if floats is images else floats.div_(self.scale[0])
        return images / self._column(self.scale, images)

    @staticmethod
    def _column(values: tuple[float, ...], images: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Scaling:
        return cls(tuple(state["shift"]), tuple(state["scale"]))


_Statistics = tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray
]  # smallest, largest, mean, deviation of each channel


def _of_whole_numbers(chunks: Iterable[Tensor], channels: int, n_values: int) -> _Statistics:
    """Exact, from histograms, which are small whatever the number of images."""
    histogram = np.zeros((channels, n_values), dtype=np.int64)
    for chunk in chunks:
        for channel, pixels in enumerate(chunk.transpose(0, 1).flatten(1)):
            histogram[channel] += np.bincount(pixels.numpy(), minlength=n_values)
    values = np.arange(float(n_values))
    present = [values[counts > 0] for counts in histogram]
    means = [np.average(values, weights=counts) for counts in histogram]
    deviations = [
        np.sqrt(np.average((values - mean) ** 2, weights=counts)) for mean, counts in zip(means, histogram, strict=True)
    ]
    return np.array([p[0] for p in present]), np.array([p[-1] for p in present]), np.array(means), np.array(deviations)


def _of_floats(chunks: Iterable[Tensor], channels: int, n_values: int) -> _Statistics:
    """In float64, part by part (Chan, Golub and LeVeque, "Updating formulae", 1979), so that no sum loses digits."""
    n, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    for chunk in chunks:
        pixels = chunk.transpose(0, 1).flatten(1).numpy().astype(np.float64)
        low, high = np.minimum(low, pixels.min(1)), np.maximum(high, pixels.max(1))
        own_n, own_mean = pixels.shape[1], pixels.mean(1)
        apart = own_mean - mean
        squares += ((pixels - own_mean[:, None]) ** 2).sum(1) + apart**2 * n * own_n / (n + own_n)
        mean += apart * own_n / (n + own_n)
        n += own_n
    return low, high, mean, np.sqrt(squares / n)
