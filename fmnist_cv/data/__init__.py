"""Data: sources, splits, batches, augmentation and the data modules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist_cv.data.dataset_views import DatasetViewsDataModule as DatasetViewsDataModule
    from fmnist_cv.data.datasets import (
        ArrayDataModule as ArrayDataModule,
        EMNISTDataModule as EMNISTDataModule,
        FashionMNISTDataModule as FashionMNISTDataModule,
        KMNISTDataModule as KMNISTDataModule,
        MNISTDataModule as MNISTDataModule,
        QMNISTDataModule as QMNISTDataModule,
        SyntheticDataModule as SyntheticDataModule,
    )
    from fmnist_cv.data.files import ImageFolderDataModule as ImageFolderDataModule
    from fmnist_cv.data.huggingface_data import HuggingFaceDataModule as HuggingFaceDataModule
    from fmnist_cv.data.images import Images as Images
    from fmnist_cv.data.lightning_adapter import LightningDataModuleAdapter as LightningDataModuleAdapter
    from fmnist_cv.data.manifest import ManifestDataModule as ManifestDataModule
    from fmnist_cv.data.module import KFoldDataModule as KFoldDataModule
    from fmnist_cv.data.splits import Split as Split, SplitPlan as SplitPlan, make_splits as make_splits
    from fmnist_cv.data.torchvision_data import TorchvisionDataModule as TorchvisionDataModule

# public name: its module; imported on first use, since most need torch and Lightning
_PUBLIC = {
    "ArrayDataModule": "datasets",
    "DatasetViewsDataModule": "dataset_views",
    "EMNISTDataModule": "datasets",
    "FashionMNISTDataModule": "datasets",
    "HuggingFaceDataModule": "huggingface_data",
    "ImageFolderDataModule": "files",
    "Images": "images",
    "KFoldDataModule": "module",
    "KMNISTDataModule": "datasets",
    "LightningDataModuleAdapter": "lightning_adapter",
    "MNISTDataModule": "datasets",
    "ManifestDataModule": "manifest",
    "QMNISTDataModule": "datasets",
    "Split": "splits",
    "SplitPlan": "splits",
    "SyntheticDataModule": "datasets",
    "TorchvisionDataModule": "torchvision_data",
    "make_splits": "splits",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    if name != "ProductImagesDataModule":  # which configs and runs from before it left the package name here
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module("experiments.products").ProductImagesDataModule
    except ImportError:
        raise AttributeError(
            f"{name} is no longer part of the package; write experiments.products.{name} and run the command in a "
            "checkout of the project, which has experiments/products"
        ) from None
