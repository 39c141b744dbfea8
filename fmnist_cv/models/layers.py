"""Layers and initialisations that PyTorch lacks, or for which it has a slower implementation."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fmnist_cv.errors import UserError

Activation = Literal["relu", "tanh", "gelu", "sigmoid"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}
Initialiser = Literal["torch", "glorot_uniform", "he_normal", "unit_normal", "small_normal"]


def check_size(key: str, *sizes: int, least: int = 1) -> None:
    """Refuse widths, counts and sizes in pixels that are too small: torch would create layers of width 0.

    Raises:
        UserError: one of the sizes is smaller than the least.
    """
    for size in sizes:
        if not size >= least:
            raise UserError(f"model.{key} {'is' if len(sizes) == 1 else 'holds'} {size}; it must be at least {least}")


def check_dropout(key: str, probability: float) -> None:
    """Refuse values that are not probabilities.

    Raises:
        UserError: it is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise UserError(f"model.{key} is {probability}; it is a probability, between 0 and 1")


def initialise(layer: nn.Linear | nn.Conv2d, how: Initialiser) -> None:
    """Initialise a layer's weights and set its biases to zero; "torch" leaves PyTorch's own initialisation.

    Args:
        layer: modified in place.
        how: "glorot_uniform", Keras's default for kernels (Glorot and Bengio 2010, eq. 16); "he_normal", a normal
            distribution truncated at two standard deviations, with variance 2 / fan_in after that, as in Keras
            (He et al. 2015, section 2.2); "unit_normal" and "small_normal", of standard deviation 1 and 0.01.
    """
    match how:
        case "torch":
            return
        case "glorot_uniform":
            nn.init.xavier_uniform_(layer.weight)
        case "he_normal":
            # the standard deviation of a standard normal distribution truncated at 2 is 0.8796
            std = math.sqrt(2 / layer.weight[0].numel()) / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        case "unit_normal":
            nn.init.normal_(layer.weight)
        case "small_normal":
            nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Dropout(nn.Dropout):
    """Dropout from uniform random numbers on the CPU, three times as fast as torch's own from Bernoulli ones.

    The distribution is the same, the random numbers differ; on any other device this is torch's dropout.

    Args:
        p: probability of dropping a unit.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape and float dtype; kept values are divided by 1 - p while training."""
        if not (self.training and 0 < self.p < 1 and input.device.type == "cpu"):
            return super().forward(input)
        # float32 also where the input is bf16, whose 256 steps would round the probability
        kept = torch.rand(input.shape).ge_(self.p).div_(1 - self.p)
        return input * kept.to(input.dtype)


class RBFOutput(nn.Module):
    """Output layer of radial basis functions, as logits: -gamma * ||x - mu||^2 for each class's centre mu.

    As a layer of a Keras model it returns exp(-gamma * ||x - mu||^2), which Keras's cross-entropy clips to
    [1e-7, 1 - 1e-7] and then divides by its sum over the classes: a softmax over these logits, except for the clipping.

    Args:
        in_features: width of the input.
        n_classes: number of classes.
        gamma: the width of the functions.
        clip: clip as Keras does, to logits in [log(1e-7), log(1 - 1e-7)]; a distance ||x - mu||^2 above 32 (for gamma
            0.5) then has no gradient.
    """

    def __init__(self, in_features: int, n_classes: int, gamma: float = 0.5, clip: bool = False) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.centres = nn.Parameter(torch.empty(n_classes, in_features).uniform_(-0.05, 0.05))

    def forward(self, features: Tensor) -> Tensor:
        """float32 (b, in_features) to logits (b, n_classes)."""
        squares = (features.float().unsqueeze(1) - self.centres).square().sum(2)
        logits = -self.gamma * squares
        return logits.clamp(math.log(1e-7), math.log1p(-1e-7)) if self.clip else logits
