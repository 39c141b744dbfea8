"""Data: sources, splits, batches, augmentation and the data modules."""

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
from fmnist_cv.data.products import ProductImagesDataModule
from fmnist_cv.data.splits import Split, SplitPlan, make_splits

__all__ = [
    "ArrayDataModule",
    "EMNISTDataModule",
    "FashionMNISTDataModule",
    "Images",
    "KFoldDataModule",
    "KMNISTDataModule",
    "MNISTDataModule",
    "ProductImagesDataModule",
    "QMNISTDataModule",
    "Split",
    "SplitPlan",
    "SyntheticDataModule",
    "make_splits",
]
