"""Fully connected networks."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fmnist_cv.models.classifier import ImageClassifier
from fmnist_cv.models.layers import ACTIVATIONS, Activation, Dropout, Initialiser, check_dropout, check_size, initialise


class DenseNetwork(ImageClassifier):
    """Fully connected layers over the flattened image; with no hidden layer, a linear classifier.

    Args:
        hidden: width of each hidden layer.
        activation: after each hidden layer.
        batch_norm: normalise each hidden layer's output before the activation.
        dropout: probability of dropping a unit, after each hidden layer's activation.
        initialiser: how weights are initialised, see `layers.initialise`.
        in_features: channels * height * width of the images; null for the data's, 784 for a network made alone.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.

    Raises:
        UserError: a width below 1, or a dropout that is not a probability.
    """

    def __init__(
        self,
        hidden: list[int] = [128, 64],  # noqa: B006 -- read only, and YAML shows the default
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        initialiser: Initialiser = "torch",
        in_features: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        in_features = 784 if in_features is None else in_features
        check_size("hidden", *hidden)
        check_size("in_features", in_features)
        check_dropout("dropout", dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        width = in_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.n_classes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                initialise(layer, initialiser)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, c, h, w) with c * h * w = in_features to logits (b, n_classes)."""
        logits: Tensor = self.layers(images)
        return logits


class LinearClassifier(DenseNetwork):
    """Multinomial logistic regression on the pixels: a baseline for all networks.

    Args:
        in_features: channels * height * width of the images; null for the data's, 784 for a network made alone.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(self, in_features: int | None = None, **kwargs: Any) -> None:
        super().__init__(hidden=[], in_features=in_features, **kwargs)


class LogSoftmaxANN(DenseNetwork):
    """The ANN of Patel and Ganapathi Subramanian (2024), section 3: 784-128-64-10 with a LogSoftmax output.

    ReLU and dropout 0.25 after each hidden layer; trained with the negative log-likelihood.

    Args:
        hidden: width of each hidden layer.
        dropout: probability of dropping a unit, after each hidden layer's activation.
        in_features: channels * height * width of the images; null for the data's, 784 for a network made alone.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    returns_log_probabilities = True

    def __init__(
        self,
        hidden: list[int] = [128, 64],  # noqa: B006 -- read only, and YAML shows the default
        dropout: float = 0.25,
        in_features: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden=hidden, dropout=dropout, in_features=in_features, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, c, h, w) with c * h * w = in_features to log-probabilities (b, n_classes)."""
        return F.log_softmax(self.layers(images), dim=1)
