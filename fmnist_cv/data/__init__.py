"""Data: sources, splits, batches, augmentation and the data modules."""

from importlib import import_module
from typing import Any

from fmnist_cv.data.datasets import (
    ArrayDataModule,
    EMNISTDataModule,
    FashionMNISTDataModule,
    KMNISTDataModule,
    MNISTDataModule,
    QMNISTDataModule,
    SyntheticDataModule,
)
from fmnist_cv.data.images import Images
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.splits import Split, SplitPlan, make_splits

__all__ = [
    "ArrayDataModule",
    "EMNISTDataModule",
    "FashionMNISTDataModule",
    "Images",
    "KFoldDataModule",
    "KMNISTDataModule",
    "MNISTDataModule",
    "QMNISTDataModule",
    "Split",
    "SplitPlan",
    "SyntheticDataModule",
    "make_splits",
]


def __getattr__(name: str) -> Any:
    """`ProductImagesDataModule`, which configs and runs from before it left the package name here."""
    if name != "ProductImagesDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module("experiments.products").ProductImagesDataModule
    except ImportError:
        raise AttributeError(
            f"{name} is no longer part of the package; write experiments.products.{name} and run the command in a "
            "checkout of the project, which has experiments/products"
        ) from None
