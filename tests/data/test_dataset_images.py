"""Images that are read from a data set: which, in which order, with which labels, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import plain_data
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from fmnist_cv.data.dataset_images import DatasetBatches, DatasetImages, Loading
from fmnist_cv.errors import UserError


def squares(n: int = 20, **loading: Any) -> DatasetImages:
    """Images whose top left pixel is their index / 1000."""
    augmented, plain = plain_data.Squares(n, plain_data.noisy), plain_data.Squares(n, None)
    return DatasetImages.of(plain, augmented, Loading(**loading))


def numbers(images: torch.Tensor) -> list[int]:
    return (1000 * images[:, 0, 0, 0]).round().int().tolist()


def test_labels_classes_shape_and_pixels_are_the_data_sets() -> None:
    images = squares()
    assert len(images) == 20 and images.shape == (1, 8, 8) and images.class_names == ("left", "middle", "right")
    assert images.labels.tolist() == [i % 3 for i in range(20)]
    assert numbers(images.pixels(torch.tensor([7, 3, 3]))) == [7, 3, 3]
    assert numbers(torch.cat([*images.chunks(6)])) == numbers(torch.cat([*images.chunks()])) == [*range(20)]
    assert images.pixels(torch.arange(0)).shape == (0, 1, 8, 8)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=20), st.data())
def test_a_subset_is_as_the_images_of_its_indices(chosen: list[int], data: st.DataObject) -> None:
    images = squares()
    subset = images.subset(torch.tensor(chosen))
    assert subset.labels.tolist() == [i % 3 for i in chosen]
    again = data.draw(st.lists(st.integers(0, len(chosen) - 1), min_size=1))
    assert numbers(subset.pixels(torch.tensor(again))) == [chosen[i] for i in again]
    assert numbers(subset.subset(torch.tensor(again)).pixels(torch.arange(len(again)))) == [chosen[i] for i in again]


def test_training_batches_depend_on_the_seed_alone() -> None:
    images, indices = squares(batch_size=4, drop_last=True), torch.arange(5, 15)

    def epoch(seed: int) -> list[int]:
        batches = DatasetBatches(images, indices, None, lambda: seed)
        assert len(batches) == 2
        torch.manual_seed(seed)
        read = list(batches)
        assert [len(labels) for _, labels in read] == [4, 4]
        return torch.cat([labels for _, labels in read]).tolist()

    assert epoch(1) == epoch(1)
    assert len({tuple(epoch(seed)) for seed in range(4)}) > 1
    plain = DatasetBatches(images, indices, 3)
    assert len(plain) == 4 and numbers(torch.cat([pixels for pixels, _ in plain])) == indices.tolist()


def test_the_fingerprint_tells_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    same = squares().fingerprint()
    assert squares().fingerprint() == same
    assert squares(21).fingerprint() != same
    assert squares().subset(torch.arange(19)).fingerprint() != same
    changed = DatasetImages.of(plain_data.Squares(20, lambda image: 2 * image), class_names=plain_data.Squares.classes)
    assert torch.equal(changed.labels, squares().labels) and changed.fingerprint() != same


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def items(labels: list[int]) -> list[Any]:
    return [(torch.zeros(1, 2, 2), label) for label in labels]


def test_labels_of_an_attribute_are_used_if_they_are_the_items() -> None:
    labels = [0, 1, 2, 1] * 10

    def found(data: Any) -> list[int]:
        return DatasetImages.of(data).labels.tolist()

    assert found(Listed(items(labels))) == labels
    assert found(Listed(items(labels), targets=np.array(labels))) == labels
    assert found(Listed(items(labels), targets=[0] * 40)) == labels  # of a target_transform, say
    assert found(Listed(items(labels), targets="of no use")) == labels
    assert found(Subset(Listed(items(labels), labels=labels), [2, 3])) == [2, 1]
    assert found(ConcatDataset([Listed(items(labels)), Listed(items([2]))])) == [*labels, 2]
    assert found(TensorDataset(torch.zeros(40, 1, 2, 2), torch.tensor(labels))) == labels


def test_the_labels_of_an_attribute_are_not_read_from_the_items() -> None:
    read: list[int] = []

    class Watched(plain_data.Squares):
        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return super().__getitem__(index)

    assert len(DatasetImages.of(Watched(500, None))) == 500
    assert len(set(read)) == 32


@pytest.mark.parametrize(
    ("view", "training", "message"),
    [
        (plain_data.Squares(20, plain_data.noisy), None, "twice gives different pixels"),
        (plain_data.Squares(20, None), plain_data.Squares(21, None), "have 21 images .* for evaluation 20"),
        (Listed(items([0, 1])), Listed(items([1, 0])), "another label in the training data"),
        (Listed([]), None, "there are no images"),
        (iter([]), None, "no length"),
        (Listed([("text", 0)]), None, "must be a pair of tensors"),
        (Listed([(torch.zeros(1, 2, 2), 0.5)]), None, "must be a pair of tensors"),
        (Listed([torch.zeros(1, 2, 2)]), None, "must be a pair of tensors"),
        (Listed([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 2), 1)]), None, "cannot be read: RuntimeError"),
        (Listed(items([0, -1])), None, "labels run from -1"),
        (
            Listed(items([0, 2]), classes=["a", "b"]),
            None,
            "labels run from 0 to 2, but there are 2 class names in its attr",
        ),
    ],
)
def test_data_that_cannot_be_used_are_refused(view: Any, training: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DatasetImages.of(view, training)
