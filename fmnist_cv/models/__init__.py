"""Networks: the base LightningModule `ImageClassifier` and its subclasses."""

from fmnist_cv.models.classifier import ImageClassifier
from fmnist_cv.models.convolutional import BatchNormCNN, ConvBlock, ConvolutionalNetwork, LeNet5
from fmnist_cv.models.dense import DenseNetwork, LinearClassifier, LogSoftmaxANN
from fmnist_cv.models.wrapped import WrappedNetwork

__all__ = [
    "BatchNormCNN",
    "ConvBlock",
    "ConvolutionalNetwork",
    "DenseNetwork",
    "ImageClassifier",
    "LeNet5",
    "LinearClassifier",
    "LogSoftmaxANN",
    "WrappedNetwork",
]
