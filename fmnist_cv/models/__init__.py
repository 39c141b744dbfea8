"""Networks: `ImageClassifier`, the base LightningModule, and its subclasses."""

from fmnist_cv.models.classifier import ImageClassifier
from fmnist_cv.models.networks import BatchNormCNN, DenseNetwork, LinearClassifier, LogSoftmaxANN

__all__ = ["BatchNormCNN", "DenseNetwork", "ImageClassifier", "LinearClassifier", "LogSoftmaxANN"]
