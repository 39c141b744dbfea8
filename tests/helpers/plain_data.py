"""A LightningDataModule as users write them, which knows nothing of folds."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, random_split

N = 90


class Squares(Dataset[Any]):
    """Images (1, 8, 8) of three classes; the class is the place of a bright column."""

    classes = ("left", "middle", "right")

    def __init__(self, n: int, transform: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        self.targets = [i % 3 for i in range(n)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.zeros(1, 8, 8)
        image[0, 0, 0] = index / 1000  # tells the images from each other
        image[0, :, 2 + 2 * self.targets[index]] = 1
        return image if self.transform is None else self.transform(image), self.targets[index]


def noisy(image: torch.Tensor) -> torch.Tensor:
    """Random by each of the three generators that transforms draw from."""
    shift = random.random() + np.random.random()
    return image + 0.1 * torch.randn_like(image) + 0.01 * shift


def plain(image: torch.Tensor) -> torch.Tensor:
    return image


class PlainData(L.LightningDataModule):
    """Training data with augmentation, of which a random tenth is set aside, and a test set."""

    def __init__(
        self, batch_size: int = 16, num_workers: int = 0, drop_last: bool = False, calls: str | None = None
    ) -> None:
        super().__init__()
        self.batch_size, self.num_workers, self.drop_last = batch_size, num_workers, drop_last
        self.plain, self.calls = plain, calls

    def prepare_data(self) -> None:
        if self.calls is not None:
            with open(self.calls, "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()}\n")

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train, self.val = random_split(Squares(N + 10, noisy), [N, 10])
        else:
            self.test = Squares(30, plain)

    def train_dataloader(self) -> DataLoader[Any]:
        options = {"num_workers": self.num_workers, "drop_last": self.drop_last}
        return DataLoader(self.train, self.batch_size, shuffle=True, **options)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test, self.batch_size)

    def without_augmentation(self) -> Dataset[Any]:
        return torch.utils.data.Subset(Squares(N + 10, None), self.train.indices)
