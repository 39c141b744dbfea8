"""Labels, classes and transforms of data sets, also where these are wrapped."""

from __future__ import annotations

from typing import Any

import plain_data
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from fmnist_cv.data.map_datasets import labels_of, names_of, with_transform
from fmnist_cv.errors import UserError


def numbers(images: torch.Tensor) -> list[int]:
    return (1000 * images[:, 0, 0, 0]).round().int().tolist()


def test_labels_and_classes_are_found_in_what_is_wrapped() -> None:
    data = plain_data.Squares(6, None)
    wrapped: Any = ConcatDataset([Subset(data, [4, 2]), data])
    labels = labels_of(wrapped)
    assert labels is not None and labels.tolist() == [1, 2, 0, 1, 2, 0, 1, 2]
    assert names_of(wrapped) == ("left", "middle", "right")
    assert labels_of(ConcatDataset([data, TensorDataset(torch.zeros(2))])) is None  # of one part they are not known
    assert names_of(TensorDataset(torch.zeros(2))) is None


def test_a_transform_is_replaced_in_a_copy() -> None:
    data = plain_data.Squares(20, plain_data.noisy)
    wrapped = ConcatDataset([Subset(data, [3, 4]), data])
    changed = with_transform(wrapped, plain_data.plain, "data")
    assert numbers(torch.stack([changed[i][0] for i in (0, 1, 2)])) == [3, 4, 0]
    assert data.transform is plain_data.noisy and wrapped.datasets[1] is data
    with pytest.raises(UserError, match=r"no attribute 'transform' .* data.eval_dataset"):
        with_transform(TensorDataset(torch.zeros(2)), plain_data.plain, "data")


def test_torchvisions_joint_transform_is_replaced_as_well() -> None:
    from torchvision.datasets import FakeData

    data = FakeData(2, (3, 4, 4), 2, transform=lambda picture: "augmented", target_transform=lambda label: label + 7)
    changed = with_transform(data, lambda picture: "plain", "data")
    assert changed.transforms(None, 1) == ("plain", 8) and changed.transform(None) == "plain"
    assert data.transforms(None, 1) == ("augmented", 8) and data.transform(None) == "augmented"
