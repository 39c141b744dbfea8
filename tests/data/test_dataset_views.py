"""A data set with transforms of its own, as a function makes it: augmented in training alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_data import Squares, noisy, plain

from fmnist_cv.data import DatasetViewsDataModule
from fmnist_cv.errors import UserError

HERE = __name__


def views() -> Any:
    return Squares(30, noisy), Squares(30, plain)


def with_test() -> Any:
    return [*views(), Squares(6, None)]


def alone() -> Any:
    return Squares(30, plain)


def failing() -> Any:
    raise ValueError("no such\nfolder")


def other_length() -> Any:
    return Squares(30, noisy), Squares(29, plain)


def test_training_reads_the_first_view_and_all_else_the_second() -> None:
    module = DatasetViewsDataModule(f"{HERE}.views", batch_size=8)
    assert module.data_name == "views" and module.test_images is None and module.class_names == Squares.classes
    module.setup("fit")
    assert module.batch_size == 8
    augmented, labels = next(iter(module.train_dataloader()))
    held_out, _ = next(iter(module.val_dataloader()))
    assert augmented.shape == (8, 1, 8, 8) and labels.shape == (8,)
    assert not {*augmented.unique().tolist()} <= {*torch.arange(30).div(1000).tolist(), 1.0}
    assert torch.equal(held_out, module.train_images.pixels(torch.from_numpy(module.split.validation)))


def test_a_third_view_is_the_test_set() -> None:
    module = DatasetViewsDataModule(f"{HERE}.with_test")
    assert module.test_images is not None and len(module.test_images) == 6


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("alone", r"alone, which returns Squares; it must return a pair"),
        ("failing", r"failing fails: ValueError: no such folder"),
        ("gone", "gone fails: AttributeError"),
        ("other_length", "the training data have 30 images and the data for evaluation 29"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        _ = DatasetViewsDataModule(f"{HERE}.{name}").train_images


def test_sizes_of_batches_are_checked() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size is 0"):
        DatasetViewsDataModule("a.b", batch_size=0)
