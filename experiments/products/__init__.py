"""Fashion Product Images (Small): networks trained on Fashion-MNIST on photos of a shop's products."""

from experiments.products.data import ProductImagesDataModule

__all__ = ["ProductImagesDataModule"]
