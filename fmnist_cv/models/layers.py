"""Layers and initialisations that PyTorch does not have, or has slower."""

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
    """Refuse widths, counts and sizes in pixels that no network can have: torch makes layers of width 0.

    Raises:
        UserError: one of the sizes is smaller than the least.
    """
    for size in sizes:
        if not size >= least:
            raise UserError(f"model.{key} {'is' if len(sizes) == 1 else 'holds'} {size}; it must be at least {least}")


def check_dropout(key: str, probability: float) -> None:
    """Refuse what is no probability.

    Raises:
        UserError: it is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise UserError(f"model.{key} is {probability}; it is a probability, between 0 and 1")


def initialise(layer: nn.Linear | nn.Conv2d, how: Initialiser) -> None:
    """Draw a layer's weights; biases become zero, except for "torch", which leaves the layer as PyTorch made it.

    Args:
        layer: changed in place.
        how: "glorot_uniform", Keras's default for kernels (Glorot and Bengio 2010, eq. 16); "he_normal", a normal
            distribution cut off at two standard deviations, with variance 2 / fan_in after the cut, as Keras has it
            (He et al. 2015, section 2.2); "unit_normal" and "small_normal", of standard deviation 1 and 0.01.
    """
    match how:
        case "torch":
            return
        case "glorot_uniform":
            nn.init.xavier_uniform_(layer.weight)
        case "he_normal":
            # a standard normal distribution cut off at 2 has the standard deviation 0.8796
            std = math.sqrt(2 / layer.weight[0].numel()) / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        case "unit_normal":
            nn.init.normal_(layer.weight)
        case "small_normal":
            nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Dropout(nn.Dropout):
    """Dropout that draws uniform numbers on the CPU, where torch's own draws Bernoulli ones, three times as slowly.

    The same distribution, from other random numbers; on any other device it is torch's own.

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
    [1e-7, 1 - 1e-7] and then divides by its sum over the classes: a softmax over these logits, but for the clipping.

    Args:
        in_features: width of the input.
        n_classes: number of classes.
        gamma: the width of the functions.
        clip: clip as Keras does, to logits in [log(1e-7), log(1 - 1e-7)]. A distance ||x - mu||^2 over 32 (for gamma
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
