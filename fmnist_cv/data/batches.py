"""Batches of uint8 images: one index operation per batch, without any work per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fmnist_cv.data.images import Images

ScalingName = Literal["unit", "minmax", "standardise", "none"]


class ImageBatches:
    """Iterates over the chosen images in batches: (images uint8 (b, c, h, w), labels int64 (b,)).

    A plain iterable with a length, as `Trainer.fit` takes it. A torch DataLoader would collate
    single samples and add a profiler record to each step.

    Args:
        data: the images, on any device.
        indices: int64 (n,), the images to iterate over.
        batch_size: images per batch; the last one may be smaller.
        seed: called at the start of each pass; its value determines the order. None keeps the given order.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self,
        data: Images,
        indices: Tensor,
        batch_size: int,
        seed: Callable[[], int] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.data, self.indices = data, indices.to(data.images.device)
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.indices
        if self.seed is not None:
            # shuffled on the CPU, so that every device sees the same order
            generator = torch.Generator().manual_seed(self.seed())
            order = order[torch.randperm(len(order), generator=generator).to(order.device)]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = order[start : start + self.batch_size]
            yield self.data.pixels(batch), self.data.labels.index_select(0, batch)

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size)
        return full + bool(rest and not self.drop_last)

    @property
    def last_size(self) -> int:
        """Images in the last batch."""
        return len(self.indices) - (len(self) - 1) * self.batch_size if not self.drop_last else self.batch_size


@dataclass(frozen=True)
class Scaling:
    """Pixels to network input: (x - shift) / scale per channel. Plain numbers, stored in every checkpoint.

    Attributes:
        shift, scale: one number per channel, in pixel values 0 to 255.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, name: ScalingName, images: Tensor, indices: np.ndarray) -> Scaling:
        """Fit the scaling called `name` to the images of a training part.

        Args:
            name: "unit" is x / 255; "minmax" maps the part's smallest and largest pixel to 0 and 1;
                "standardise" gives mean 0 and standard deviation 1; "none" keeps 0 to 255.
            images: uint8 (n, c, h, w).
            indices: int64 (n_train,), the images of the training part.
        """
        channels = images.shape[1]
        if name == "unit":
            return cls((0.0,) * channels, (255.0,) * channels)
        if name == "none":
            return cls((0.0,) * channels, (1.0,) * channels)
        histogram = np.zeros((channels, 256), dtype=np.int64)  # exact, and small whatever the number of images
        for chunk in torch.split(torch.from_numpy(indices), 5_000):
            for channel, pixels in enumerate(images[chunk.to(images.device)].cpu().transpose(0, 1).flatten(1)):
                histogram[channel] += np.bincount(pixels.numpy(), minlength=256)
        values = np.arange(256.0)
        if name == "minmax":
            present = [values[counts > 0] for counts in histogram]
            shift, scale = [p[0] for p in present], [p[-1] - p[0] for p in present]
        else:
            shift = [float(np.average(values, weights=counts)) for counts in histogram]
            scale = [
                float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
                for mean, counts in zip(shift, histogram, strict=True)
            ]
        return cls(tuple(map(float, shift)), tuple(float(s) or 1.0 for s in scale))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (b, c, h, w) to float32 of the same shape."""
        if any(self.shift):
            return (images - self._column(self.shift, images)) / self._column(self.scale, images)
        if len(set(self.scale)) == 1:
            return images.float().div_(self.scale[0])  # in two steps: dividing bytes by a float is not vectorised
        return images / self._column(self.scale, images)

    @staticmethod
    def _column(values: tuple[float, ...], images: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Scaling:
        return cls(tuple(state["shift"]), tuple(state["scale"]))
