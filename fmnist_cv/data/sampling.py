"""Which images an epoch trains on, and in which order: each once, or drawn by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from fmnist_cv.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from fmnist_cv.data.images import Images
    from fmnist_cv.data.splitter_folds import Indices

Shares = NDArray[np.float64]  # (n_train,), the probabilities with which images are drawn; their sum is 1


class Sampling(TypedDict):
    """What training images are drawn by, and how many of them are never drawn."""

    by: Literal["weight"]
    n_never: int


def epoch_order(indices: Tensor, seed: int, shares: Shares | None = None) -> Tensor:
    """The images of an epoch in order, int64 (n,), on the device of the indices; every device gets the same.

    Args:
        indices: int64 (n,), the images to train on.
        seed: determines the order.
        shares: draw as many images as there are, with replacement, with these probabilities; None takes each once.
    """
    import torch  # here, since a comparison of runs needs only the words

    if shares is None:
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))
    else:  # not by torch.multinomial, which takes no more than 2**24 images
        order = torch.from_numpy(np.random.default_rng(seed).choice(len(shares), len(shares), p=shares))
    return indices[order.to(indices.device)]


def shares_of(images: Images, indices: Indices) -> Shares | None:
    """The probability with which each image of a training part is drawn; None where an epoch trains on each once.

    Raises:
        UserError: weights are negative or not finite, or all of them are 0.
    """
    if images.weights is None:
        return None
    weights = images.weights.numpy()[indices]
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise UserError("the images' weights are not all finite numbers of at least 0; correct them")
    if not weights.any():
        raise UserError(
            f"all {len(weights):,} training images have the weight 0, so that there is none to train on; give one of them another"
        )
    weights = weights / weights.max()  # the sum of large ones may exceed float64
    shares: Shares = weights / weights.sum()
    return shares


def drawn(images: Images, indices: Indices) -> Indices:
    """Those images of a training part that may be trained on: all but those of weight 0."""
    return indices if images.weights is None else indices[images.weights.numpy()[indices] > 0]


def sampling_of(images: Images) -> Sampling | None:
    """How training images are drawn; None where an epoch trains on each once."""
    return None if images.weights is None else {"by": "weight", "n_never": int((images.weights == 0).sum())}


def describe_sampling(sampling: Sampling) -> str:
    """ "training images are drawn by weight, 3 of them never"."""
    never = f", {sampling['n_never']:,} of them never" if sampling["n_never"] else ""
    return f"training images are drawn by {sampling['by']}{never}"
