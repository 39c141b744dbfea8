"""A test set that is cut off: the same whatever the seed, groups whole, and never part of what is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fmnist_cv.data import ArrayDataModule, Images
from fmnist_cv.data.cut_test import check_cut, test_indices as indices_of_test
from fmnist_cv.errors import UserError


def images(labels: np.ndarray, groups: np.ndarray | None = None) -> Images:
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((2, 2), dtype=np.uint8)
    return Images.from_arrays(pixels, labels, groups=groups)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.floats(0.15, 0.5), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_fraction_is_of_each_class_or_of_whole_groups(n: int, cut: float, grouped: bool, drawn: int) -> None:
    rng = np.random.default_rng(drawn)
    labels = rng.permutation(np.arange(n) % 3)
    groups = rng.permutation(np.arange(n) % 10) if grouped else None
    chosen = indices_of_test(images(labels, groups), cut)
    rest = np.setdiff1d(np.arange(n), chosen)
    assert len(rest) + len(chosen) == n and 0 < len(chosen) < n and (np.diff(chosen) > 0).all()
    if groups is not None:
        assert not np.intersect1d(groups[rest], groups[chosen]).size
    else:
        assert abs(len(chosen) - cut * n) <= 1
        assert np.abs(np.bincount(labels[chosen], minlength=3) - cut * np.bincount(labels)).max() <= 1.5
    np.testing.assert_array_equal(chosen, indices_of_test(images(labels, groups), cut))


def test_groups_are_cut_off_by_name() -> None:
    data = images(np.array([0, 0, 1, 1, 0, 1]), np.array(["p", "q", "p", "r", "s", "r"]))
    assert indices_of_test(data, ["r", "q"]).tolist() == [1, 3, 5]
    assert indices_of_test(images(np.arange(6) % 2, np.array([7, 8, 7, 9, 9, 8])), [7]).tolist() == [0, 2]
    assert not len(indices_of_test(data, None))


@pytest.mark.parametrize(
    ("cut", "groups", "message"),
    [
        (
            ["rr"],
            list("pqprsr"),
            "names the group 'rr', which the data do not have; did you mean 'r'\\? They have 4, the first are 'p', 'q', 'r'",
        ),
        (["r"], None, "names groups, but the data have none"),
        (list("pqrs"), list("pqprsr"), "names all groups"),
        (["s"], list("pqprrs"), "takes all images of the class '1', so that no model can learn it"),
        (0.2, list("pppppp"), "such a test set cannot be cut off"),
        (0.2, None, "such a test set cannot be cut off: .*class"),
    ],
)
def test_cuts_that_cannot_be_made_are_refused(cut: Any, groups: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        indices_of_test(images(np.array([0, 0, 0, 0, 0, 1]), None if groups is None else np.array(groups)), cut)


def test_a_fraction_is_of_images_not_of_groups() -> None:
    sizes = [30, 20, 20, *[1] * 30]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    chosen = indices_of_test(images(np.arange(100) % 2, groups), 0.3)
    assert abs(len(chosen) - 30) <= 5 and not np.intersect1d(groups[chosen], np.delete(groups, chosen)).size
    one_large = images(np.arange(100) % 2, np.array(["large"] * 90 + [f"{i}" for i in range(10)]))
    with pytest.raises(UserError, match="whole groups give a test set of 10 of 100 images: the group 'large' has 90"):
        indices_of_test(one_large, 0.2)
    assert indices_of_test(one_large, 0.1).tolist() == [*range(90, 100)]


def test_a_pair_of_copies_leaves_the_cut_stratified() -> None:
    labels = np.repeat([1, 0], [10, 190])
    pixels = np.arange(200, dtype=np.uint8)[:, None, None] * np.ones((2, 2), dtype=np.uint8)
    pixels[1] = pixels[0]
    data = ArrayDataModule(images=pixels, labels=labels, duplicates="group")
    data.test_cut = 0.2
    assert data.test_images is not None and data.test_images.labels.bincount().tolist() == [38, 2]


def test_numbers_of_groups_may_have_gaps() -> None:
    numbered = replace(images(np.arange(8) % 2), groups=torch.tensor([3, 3, 3, 3, 7, 7, 7, 7]))
    assert indices_of_test(numbered, [7]).tolist() == [4, 5, 6, 7]
    named = replace(numbered, groups=torch.tensor([0, 0, 0, 0, 2, 2, 2, 2]), group_names=("p", "empty", "r"))
    assert indices_of_test(named, ["r"]).tolist() == [4, 5, 6, 7]
    with pytest.raises(UserError, match="names the group 'empty', which the data do not have"):
        indices_of_test(named, ["empty"])


@pytest.mark.parametrize("cut", [0.0, 1.0, -0.1, 2.0])
def test_fractions_out_of_range_are_refused(cut: float) -> None:
    with pytest.raises(UserError, match="it is a fraction between 0 and 1"):
        check_cut(cut)
    with pytest.raises(UserError, match="empty list"):
        check_cut([])


def module(**arguments: Any) -> ArrayDataModule:
    labels = np.arange(20) % 2
    pixels = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((2, 2), dtype=np.uint8)
    return ArrayDataModule(images=pixels, labels=labels, **arguments)


def numbers(data: Images) -> list[int]:
    return data.images[:, 0, 0, 0].tolist()


def test_a_data_module_parts_its_images_into_training_and_test() -> None:
    whole, data = module(), module()
    data.test_cut = 0.3
    assert data.test_images is not None and whole.test_images is None
    assert sorted(numbers(data.train_images) + numbers(data.test_images)) == numbers(whole.train_images)
    assert len(data.test_images) == 6 and data.test_images.places.tolist() == numbers(data.test_images)
    assert data.train_images.places.tolist() == numbers(data.train_images)
    assert torch.equal(data.test_images.labels, torch.tensor(numbers(data.test_images)) % 2)


def test_images_left_out_are_in_neither_part_and_do_not_change_the_cut(tmp_path: Path) -> None:
    data = module()
    data.test_cut = 0.3
    assert data.test_images is not None
    test, train = numbers(data.test_images), numbers(data.train_images)
    (tmp_path / "out.csv").write_text(f"index\n{test[0]}\n{train[0]}\n")
    without = module(leave_out=str(tmp_path / "out.csv"))
    without.test_cut = 0.3
    assert without.test_images is not None
    assert (numbers(without.test_images), numbers(without.train_images)) == (test[1:], train[1:])
    assert without.train_images.places.tolist() == train[1:] and len(without.left_out) == 2


def test_data_with_a_test_set_are_not_cut() -> None:
    data = module(test_images=np.zeros((3, 2, 2), dtype=np.uint8), test_labels=np.zeros(3, dtype=np.int64))
    data.test_cut = 0.3
    with pytest.raises(UserError, match=r"cv.test is 0.3, but arrays has a test set of 3 images; leave cv.test out"):
        _ = data.test_images
