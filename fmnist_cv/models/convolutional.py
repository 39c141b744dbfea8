"""Convolutional networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fmnist_cv.errors import UserError
from fmnist_cv.models.classifier import ImageClassifier
from fmnist_cv.models.layers import (
    ACTIVATIONS,
    Activation,
    Dropout,
    Initialiser,
    RBFOutput,
    check_dropout,
    check_size,
    initialise,
)

_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class BatchNormCNN(ImageClassifier):
    """The batchnorm + dropout CNN of Sharifi, Hannesdottir and Dan (2021), sections 2.2 and 4.1.

    Convolution 3x3 to 32 channels (padding 1), batch normalisation, ReLU, 2x2 max pooling; convolution 3x3 to 64
    (no padding), batch normalisation, ReLU, 2x2 max pooling; three linear layers with one dropout. The paper
    does not state the linear layers' widths, where the dropout sits, nor an activation between them; the defaults
    are this project's assumptions: 2304-600-120-10, dropout after the first layer, no activation.

    Args:
        dropout: probability of dropping a unit after the first linear layer.
        widths: outputs of the first two linear layers.
        linear_activation: put a ReLU after each of the first two linear layers.
        in_channels: 1 for grey, 3 for colour; null for the data's, 1 for a network made alone.
        image_size: height and width of the images in pixels; null for the data's, 28 for a network made alone.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(
        self,
        dropout: float = 0.25,
        widths: tuple[int, int] = (600, 120),
        linear_activation: bool = False,
        in_channels: int | None = None,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        in_channels = 1 if in_channels is None else in_channels
        image_size = 28 if image_size is None else image_size
        check_dropout("dropout", dropout)
        check_size("widths", *widths)
        check_size("in_channels", in_channels)
        check_size("image_size", image_size, least=8)  # of fewer pixels the second pooling leaves nothing
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
        logits: Tensor = self.classifier(self.features(images))
        return logits


@dataclass
class ConvBlock:
    """A convolution, its activation, and what follows before the next one.

    Attributes:
        channels: outputs of the convolution.
        kernel_size: its height and width in pixels.
        padding: "same" keeps the image's size (an even kernel gets its odd pixel of padding at the right and the
            bottom, as in Keras); "valid" pads nothing.
        pool: pooling over 2x2 pixels after the activation, or None.
        dropout: probability of dropping a unit at the block's end.
        initialiser: how the kernel is initialised; None uses the network's.
    """

    channels: int
    kernel_size: int = 3
    padding: Literal["same", "valid"] = "valid"
    pool: Literal["max", "average"] | None = None
    dropout: float = 0.0
    initialiser: Initialiser | None = None

    def __post_init__(self) -> None:
        check_size("blocks.channels", self.channels)
        check_size("blocks.kernel_size", self.kernel_size)
        check_dropout("blocks.dropout", self.dropout)


class ConvolutionalNetwork(ImageClassifier):
    """Convolution blocks, then fully connected layers.

    Args:
        blocks: the convolutions, in order.
        hidden: width of each hidden fully connected layer.
        activation: after each convolution and each hidden layer.
        batch_norm: normalise each convolution's output before the activation.
        initialiser: how weights are initialised, see `layers.initialise`.
        in_channels: 1 for grey, 3 for colour; null for the data's, 1 for a network made alone.
        image_size: height and width of the images in pixels; null for the data's, 28 for a network made alone.
        input_padding: zeros put around the image, in pixels on each side.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.

    Raises:
        UserError: the image is too small for the blocks; a width below 1, a padding larger than the image, or a dropout
            that is not a probability.
    """

    def __init__(
        self,
        blocks: list[ConvBlock],
        hidden: list[int] = [],  # noqa: B006 -- read only, and YAML shows the default
        activation: Activation = "relu",
        batch_norm: bool = False,
        initialiser: Initialiser = "torch",
        in_channels: int | None = None,
        image_size: int | None = None,
        input_padding: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        in_channels = 1 if in_channels is None else in_channels
        image_size = 28 if image_size is None else image_size
        check_size("hidden", *hidden)
        check_size("in_channels", in_channels)
        check_size("image_size", image_size)
        check_size("input_padding", input_padding, least=0)
        if input_padding > image_size:
            raise UserError(f"model.input_padding is {input_padding}, more than the image has pixels ({image_size})")
        layers: list[nn.Module] = [nn.ZeroPad2d(input_padding)] if input_padding else []
        channels = in_channels
        for block in blocks:
            before, after = (block.kernel_size - 1) // 2, block.kernel_size // 2
            if block.padding == "same" and before != after:  # torch would do so, too, with a warning
                layers.append(nn.ZeroPad2d((before, after, before, after)))
            padding = before if block.padding == "same" and before == after else 0
            convolution = nn.Conv2d(channels, block.channels, block.kernel_size, padding=padding)
            initialise(convolution, block.initialiser or initialiser)
            layers.append(convolution)
            if batch_norm:
                layers.append(nn.BatchNorm2d(block.channels))
            layers.append(ACTIVATIONS[activation]())
            if block.pool:
                layers.append(_POOLS[block.pool](2))
            if block.pool == "max" and activation != "gelu":
                # the largest value stays the largest, and the activation has a quarter of the work
                layers[-2:] = reversed(layers[-2:])
            if block.dropout:
                layers.append(Dropout(block.dropout))
            channels = block.channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        try:
            with torch.no_grad():
                width = self.features.eval()(torch.zeros(1, in_channels, image_size, image_size)).shape[1]
        except RuntimeError:
            raise UserError(f"an image of {image_size} pixels is too small for these {len(blocks)} blocks") from None
        self.features.train()
        dense: list[nn.Module] = []
        for next_width in hidden:
            dense += [nn.Linear(width, next_width), ACTIVATIONS[activation]()]
            width = next_width
        self.classifier = nn.Sequential(*dense, nn.Linear(width, self.n_classes))
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                initialise(layer, initialiser)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, in_channels, image_size, image_size) to logits (b, n_classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class LeNet5(ConvolutionalNetwork):
    """LeNet-5 as the blog post of `configs/blog-lenet5.yaml` lists it; its second convolution is padded.

    Two zeros around the image; convolutions 5x5 to 6 and 16 channels that keep the image's size, each with 2x2
    average pooling; a convolution 5x5 to 120 channels without padding; a hidden layer of 84; 212,896 weights. The
    LeNet-5 of LeCun et al. (1998) has no padding in its second convolution, and some 61,700 weights.

    Args:
        activation: after each convolution and the hidden layer.
        output: "rbf", see RBFOutput; "linear" for a softmax.
        gamma: width of the radial basis functions.
        clip: clip the radial basis functions' values as Keras does.
        initialiser: how weights are initialised, see `layers.initialise`.
        in_channels: 1 for grey, 3 for colour; null for the data's, 1 for a network made alone.
        image_size: height and width of the images in pixels; null for the data's, 28 for a network made alone.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.
    """

    def __init__(
        self,
        activation: Activation = "tanh",
        output: Literal["rbf", "linear"] = "rbf",
        gamma: float = 0.5,
        clip: bool = False,
        initialiser: Initialiser = "glorot_uniform",
        in_channels: int | None = None,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            blocks=[
                ConvBlock(6, 5, "same", pool="average"),
                ConvBlock(16, 5, "same", pool="average"),
                ConvBlock(120, 5, "valid"),
            ],
            hidden=[84],
            activation=activation,
            initialiser=initialiser,
            in_channels=in_channels,
            image_size=image_size,
            input_padding=2,
            **kwargs,
        )
        if not 0 < gamma < math.inf:
            raise UserError(f"model.gamma is {gamma}; it must be greater than 0")
        if output == "rbf":
            self.classifier[-1] = RBFOutput(84, self.n_classes, gamma, clip)
