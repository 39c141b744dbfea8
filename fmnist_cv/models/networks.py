"""The networks. Each says how images become logits; `ImageClassifier` does the rest."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fmnist_cv.models.classifier import ImageClassifier
from fmnist_cv.models.layers import Dropout

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}


class BatchNormCNN(ImageClassifier):
    """The batchnorm + dropout CNN of Sharifi, Hannesdottir and Dan (2021), sections 2.2 and 4.1.

    Convolution 3x3 to 32 channels (padding 1), batch normalisation, ReLU, 2x2 max pooling; convolution 3x3 to 64
    (no padding), batch normalisation, ReLU, 2x2 max pooling; three linear layers with one dropout. The account
    does not state the linear layers' widths, where the dropout sits, nor an activation between them; the defaults
    are this project's assumptions: 2304-600-120-10, dropout after the first layer, no activation.

    Args:
        dropout: probability of dropping a unit after the first linear layer.
        widths: outputs of the first two linear layers.
        linear_activation: put a ReLU after each of the first two linear layers.
        in_channels: 1 for grey, 3 for colour.
        image_size: height and width of the images in pixels.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(
        self,
        dropout: float = 0.25,
        widths: tuple[int, int] = (600, 120),
        linear_activation: bool = False,
        in_channels: int = 1,
        image_size: int = 28,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Pooling before ReLU gives the same outputs and gradients as after it, since ReLU keeps the order of the
        # four values, and works on a quarter of the numbers.
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.BatchNorm2d(64),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        pooled_size = (image_size // 2 - 2) // 2
        activation = nn.ReLU if linear_activation else nn.Identity
        self.classifier = nn.Sequential(
            nn.Linear(64 * pooled_size**2, widths[0]),
            activation(),
            Dropout(dropout),
            nn.Linear(widths[0], widths[1]),
            activation(),
            nn.Linear(widths[1], self.n_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, in_channels, image_size, image_size) to logits (b, n_classes)."""
        return self.classifier(self.features(images))


class DenseNetwork(ImageClassifier):
    """Fully connected layers over the flattened image; with no hidden layer, a linear classifier.

    Args:
        hidden: width of each hidden layer.
        activation: after each hidden layer.
        dropout: probability of dropping a unit, after each hidden layer's activation.
        in_features: channels * height * width of the images.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(
        self,
        hidden: list[int] = [128, 64],  # noqa: B006 -- read only, and YAML shows the default
        activation: Literal["relu", "tanh", "gelu", "sigmoid"] = "relu",
        dropout: float = 0.0,
        in_features: int = 784,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        layers: list[nn.Module] = [nn.Flatten()]
        width = in_features
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), _ACTIVATIONS[activation]()]
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.n_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, c, h, w) with c * h * w = in_features to logits (b, n_classes)."""
        return self.layers(images)


class LinearClassifier(DenseNetwork):
    """Multinomial logistic regression on the pixels: the baseline that any network must beat.

    Args:
        in_features: channels * height * width of the images.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(self, in_features: int = 784, **kwargs: Any) -> None:
        super().__init__(hidden=[], in_features=in_features, **kwargs)


class LogSoftmaxANN(DenseNetwork):
    """The ANN of Patel and Ganapathi Subramanian (2024), section 3: 784-128-64-10 with a LogSoftmax output.

    ReLU and dropout 0.25 after each hidden layer; trained with the negative log-likelihood.

    Args:
        hidden: width of each hidden layer.
        dropout: probability of dropping a unit, after each hidden layer's activation.
        in_features: channels * height * width of the images.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    returns_log_probabilities = True

    def __init__(
        self,
        hidden: list[int] = [128, 64],  # noqa: B006 -- read only, and YAML shows the default
        dropout: float = 0.25,
        in_features: int = 784,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden=hidden, dropout=dropout, in_features=in_features, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, c, h, w) with c * h * w = in_features to log-probabilities (b, n_classes)."""
        return F.log_softmax(self.layers(images), dim=1)
