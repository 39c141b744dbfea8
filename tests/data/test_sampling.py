"""Which images an epoch trains on: each once, or drawn by weights; what is drawn follows the weights, seed and epoch alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_data
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fmnist_cv.data import ArrayDataModule, Images, Split
from fmnist_cv.data.dataset_images import DatasetBatches, DatasetImages
from fmnist_cv.data.sampling import describe_sampling, drawn, epoch_order, sampling_of, shares_of
from fmnist_cv.errors import UserError

WEIGHTS = st.lists(st.just(0.0) | st.floats(1e-3, 1e3), min_size=1, max_size=30).filter(any)


def images(weights: Any, n: int | None = None) -> Images:
    """Image i has the pixels i, and the label i % 2."""
    n = len(weights) if n is None else n
    pixels = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((2, 2), dtype=np.uint8)
    found = Images.from_arrays(pixels, np.arange(n) % 2, ["a", "b"])
    return found if weights is None else replace(found, weights=torch.tensor(weights, dtype=torch.float64))


class Weighted(ArrayDataModule):
    """The images of `images`."""

    def __init__(self, weights: Any, **arguments: Any) -> None:
        super().__init__(images=np.zeros((1, 2, 2), np.uint8), labels=np.zeros(1, np.int64), **arguments)
        self._images = images(weights)

    def load(self, train: bool) -> Images | None:
        return self._images if train else None


@given(st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_without_weights_each_image_comes_once_in_the_order_that_runs_have_always_had(n: int, seed: int) -> None:
    indices = 3 * torch.arange(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(epoch_order(indices, seed), indices[order])


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, st.integers(0, 2**32 - 1))
def test_how_often_an_image_is_drawn_follows_its_weight(weights: list[float], seed: int) -> None:
    n, n_epochs = len(weights), 400
    shares = shares_of(images(weights), np.arange(n))
    assert shares is not None
    epochs = [epoch_order(torch.arange(n), seed ^ epoch, shares) for epoch in range(n_epochs)]
    assert all(len(epoch) == n for epoch in epochs)
    counts, expected = torch.cat(epochs).bincount(minlength=n).numpy(), np.array(weights) / sum(weights)
    total = n * n_epochs
    assert (np.abs(counts - total * expected) <= 7 * np.sqrt(total * expected * (1 - expected)) + 7).all()
    assert (counts[np.array(weights) == 0] == 0).all()
    assert torch.equal(epoch_order(torch.arange(n), seed, shares), epochs[0])


@pytest.mark.parametrize("weights", [[1e308, 1e308, 0.0, 0.0], [1e-300, 1e-300, 0.0, 0.0]])
def test_only_the_ratio_of_weights_counts(weights: list[float]) -> None:
    shares = shares_of(images(weights), np.arange(4))
    assert shares is not None and shares.tolist() == [0.5, 0.5, 0, 0]


def test_weights_are_those_of_the_images_of_the_training_part() -> None:
    shares = shares_of(images([1, 2, 3, 0, 1]), np.array([1, 3, 4]))
    assert shares is not None and shares.tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert drawn(images([1, 2, 3, 0, 1]), np.array([1, 3, 4])).tolist() == [1, 4]
    assert drawn(images(None, 5), np.array([1, 3, 4])).tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 1], "not all finite numbers of at least 0"),
        ([1, float("nan"), 1], "not all finite numbers of at least 0"),
        ([1, float("inf"), 1], "not all finite numbers of at least 0"),
        ([1, 0, 0], "all 2 training images have the weight 0, so that there is none to train on"),
    ],
)
def test_weights_that_will_not_do_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        shares_of(images(weights), np.array([1, 2]))


def test_weights_go_with_their_images() -> None:
    whole = images([0, 1, 2, 3])
    part = whole.subset(torch.tensor([3, 1]))
    assert part.weights is not None and part.weights.tolist() == [3, 1]
    rest = whole.without(np.array([0])).to(torch.device("cpu"))
    assert rest.weights is not None and rest.weights.tolist() == [1, 2, 3]
    prints = {images(weights, 4).fingerprint() for weights in ([0, 1, 2, 3], [1, 1, 1, 1], [0, 1, 2, 4], None)}
    assert len(prints) == 4 and replace(whole, weights=None).fingerprint() in prints


def test_what_is_drawn_is_said() -> None:
    assert sampling_of(images(None, 4)) is None
    found = [sampling_of(images(weights)) for weights in ([0, 0, 1, 2], [1, 2, 3, 4])]
    assert [one and describe_sampling(one) for one in found] == [
        "training images are drawn by weight, 2 of them never",
        "training images are drawn by weight",
    ]


# -- in a data module -------------------------------------------------------------------------------------------


def epochs_of(data: Weighted, epochs: list[int]) -> list[list[int]]:
    """The images of each epoch in their order."""
    found = []
    for epoch in epochs:
        data.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        found.append(torch.cat([pixels[:, 0, 0, 0] for pixels, _ in data.train_dataloader()]).tolist())
    return found


def test_an_epoch_is_drawn_by_seed_and_epoch_alone_so_that_a_resumed_one_is_the_same() -> None:
    weights = [0.0, *range(1, 20)]
    whole = epochs_of(Weighted(weights, n_splits=4, batch_size=4), [0, 1, 2])
    assert epochs_of(Weighted(weights, n_splits=4, batch_size=4), [2, 1]) == [whole[2], whole[1]]
    assert len({*map(tuple, whole)}) == 3 and all(len(epoch) == 15 for epoch in whole)
    data = Weighted(weights, n_splits=4)
    train, validation = set(data.split.train.tolist()), data.split.validation.tolist()
    assert all(set(epoch) <= train - {0} for epoch in whole)
    scored = torch.cat([pixels[:, 0, 0, 0] for pixels, _ in data.predict_dataloader()])
    assert scored.tolist() == validation  # each once, whatever its weight


def test_images_of_weight_0_count_neither_for_the_scaling_nor_for_balanced_classes() -> None:
    data = Weighted([3, 1, 1, 0, 0, 0], scaling="minmax")
    data.use_split(Split(np.array([0, 1, 2, 4, 5]), np.array([3])), seed=0)
    data.setup("validate")
    assert data.scaling is not None and (data.scaling.shift, data.scaling.scale) == ((0,), (2,))
    assert data.class_counts().tolist() == pytest.approx([5 * 4 / 5, 5 * 1 / 5])


@pytest.mark.parametrize("scaling", ["unit", "minmax", "standardise"])
def test_a_training_part_without_weight_is_refused(scaling: Any) -> None:
    data = Weighted([0, 0, 1, 1], scaling=scaling)
    data.use_split(Split(np.array([0, 1]), np.array([2, 3])), seed=0)
    data.setup("fit")
    with pytest.raises(UserError, match="all 2 training images have the weight 0"):
        data.train_dataloader()


def test_a_data_set_that_a_loader_reads_is_drawn_from_as_well() -> None:
    data = DatasetImages.of(plain_data.Squares(20, None), class_names=plain_data.Squares.classes)
    shares = np.zeros(10)
    shares[[2, 7]] = 0.5
    pixels = torch.cat([p for p, _ in DatasetBatches(data, torch.arange(5, 15), None, lambda: 1, shares)])
    numbers = (1000 * pixels[:, 0, 0, 0]).round().int().tolist()
    assert len(numbers) == 10 and {*numbers} == {7, 12}
