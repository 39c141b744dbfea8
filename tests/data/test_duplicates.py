"""Copies of images stand on one side of each split, or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from fmnist_cv.data import ArrayDataModule, HuggingFaceDataModule, Images, SplitPlan, TorchvisionDataModule
from fmnist_cv.data.duplicates import handle_duplicates, refuse_shared
from fmnist_cv.data.given_splits import split_images
from fmnist_cv.errors import UserError


def images(values: Any, groups: Any = None, labels: Any = None, names: Any = None) -> Images:
    pixels = np.asarray(values, dtype=np.uint8)[:, None, None] * np.ones((3, 2), dtype=np.uint8)
    made = Images.from_arrays(
        pixels,
        np.arange(len(pixels)) % 2 if labels is None else np.asarray(labels),
        groups=None if groups is None else np.asarray(groups),
    )
    return replace(made, names=names)


def parted(data: Images) -> list[list[int]]:
    assert data.groups is not None
    return [np.flatnonzero(data.groups.numpy() == group).tolist() for group in range(int(data.groups.max()) + 1)]


def test_copies_are_in_one_group_and_groups_that_share_an_image_are_joined(capsys: pytest.CaptureFixture[str]) -> None:
    plain = handle_duplicates(images([5, 6, 5, 7, 5], names=tuple("abcde")), "group", "photos")
    assert parted(plain) == [[0, 2, 4], [1], [3]]
    assert plain.group_names == ("a = c = e", "b", "d")
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 5 images of photos have the same pixels as another (1 different ones), e.g. 'a' and 'c'." in said
    grouped = handle_duplicates(images([5, 6, 5, 7, 8], groups=list("pqqrr")), "group", "photos")
    assert parted(grouped) == [[0, 1, 2], [3, 4]]
    assert grouped.group_names == ("p = q", "r")


def test_copies_with_several_labels_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    handle_duplicates(images([1, 1, 2, 2, 3], labels=[0, 1, 1, 1, 0]), "group", "photos")
    assert "1 of them have several labels" in " ".join(capsys.readouterr().err.split())


def test_images_without_copies_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    data = images(range(5))
    assert handle_duplicates(data, "group", "photos") is data and handle_duplicates(data, "refuse", "photos") is data
    copied = images([1, 1, 2])
    assert handle_duplicates(copied, "keep", "photos") is copied
    assert not capsys.readouterr().err


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=60), st.booleans())
def test_no_copy_and_no_group_is_in_two_groups(pairs: list[tuple[int, int]], grouped: bool) -> None:
    values, given_groups = (np.array(part) for part in zip(*pairs, strict=True))
    data = handle_duplicates(images(values, given_groups if grouped else None), "group", "photos")
    if data.groups is None:
        assert len(np.unique(values)) == len(values)
        return
    groups = data.groups.numpy()
    for key in (values, *([given_groups] if grouped else [])):
        for value in np.unique(key):
            assert len(np.unique(groups[key == value])) == 1
    if not grouped:
        assert len(np.unique(groups)) == len(np.unique(values))
    assert data.group_names is not None and len(data.group_names) == len(np.unique(groups))


def test_copies_are_refused_where_they_are_not_wanted() -> None:
    with pytest.raises(UserError, match=r"2 of 3 images of photos have the same pixels .*data.duplicates group"):
        handle_duplicates(images([1, 1, 2]), "refuse", "photos")
    refuse_shared(images([1, 2]), images([3, 4]))
    with pytest.raises(UserError, match=r"1 of 2 test images have the same pixels .*number 1 and number 0"):
        refuse_shared(images([2, 1]), images([3, 2]))


def test_folds_of_the_data_that_part_copies_are_refused() -> None:
    data = images([1, 1, 2, 3])
    data = handle_duplicates(replace(data, folds=data.labels), "group", "photos")
    with pytest.raises(UserError, match=r"the group '0 = 1' is on both sides .*data.duplicates is keep"):
        split_images(data, SplitPlan())


def test_the_data_module_takes_the_setting() -> None:
    arrays: dict[str, Any] = {"images": np.zeros((4, 2, 2), dtype=np.uint8), "labels": np.arange(4) % 2}
    assert ArrayDataModule(**arrays).train_images.groups is None
    assert ArrayDataModule(**arrays, duplicates="group").train_images.groups is not None
    with pytest.raises(UserError, match=r"data.duplicates is 'drop'; it is one of group, keep, refuse"):
        ArrayDataModule(**arrays, duplicates="drop")


def test_pictures_of_other_libraries_are_searched_for_copies(tmp_path: Path) -> None:
    """By default, as image files are."""
    raw = tmp_path / "EuroSAT" / "eurosat" / "2750"
    for i, value in enumerate((5, 6, 5)):
        (raw / str(i)).mkdir(parents=True)
        Image.new("RGB", (4, 3), (value, 0, 0)).save(raw / str(i) / "0.png")
    data = TorchvisionDataModule("EuroSAT", root=str(tmp_path / "EuroSAT"), download=False)
    assert parted(data.train_images) == [[0, 2], [1]]
    kept = TorchvisionDataModule("EuroSAT", root=str(tmp_path / "EuroSAT"), download=False, duplicates="keep")
    assert kept.train_images.groups is None
    assert HuggingFaceDataModule("pets").duplicates == "group"
