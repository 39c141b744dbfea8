"""Copies of images stand on one side of each split, or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from fmnist_cv.data import ArrayDataModule, HuggingFaceDataModule, Images, SplitPlan, TorchvisionDataModule
from fmnist_cv.data.duplicates import handle_duplicates, refuse_shared
from fmnist_cv.data.given_splits import fitted_plan, split_images
from fmnist_cv.data.group_sizes import count_copies
from fmnist_cv.data.splits import make_splits
from fmnist_cv.errors import UserError


def images(values: Any, groups: Any = None, labels: Any = None, names: Any = None) -> Images:
    pixels = np.asarray(values, dtype=np.uint8)[:, None, None] * np.ones((3, 2), dtype=np.uint8)
    made = Images.from_arrays(
        pixels,
        np.arange(len(pixels)) % 2 if labels is None else np.asarray(labels),
        groups=None if groups is None else np.asarray(groups),
    )
    return replace(made, names=names)


def parted(numbers: torch.Tensor | None) -> list[list[int]]:
    assert numbers is not None
    return [np.flatnonzero(numbers.numpy() == number).tolist() for number in range(int(numbers.max()) + 1)]


def test_copies_are_marked_and_groups_that_share_an_image_are_joined(capsys: pytest.CaptureFixture[str]) -> None:
    plain = handle_duplicates(images([5, 6, 5, 7, 5], names=tuple("abcde")), "group", "photos")
    assert parted(plain.copies) == [[0, 2, 4], [1], [3]] and plain.groups is None
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 5 images of photos have the same pixels as another (1 different image), e.g. 'a' and 'c'." in said
    assert "Copies are kept together" in said and count_copies(plain) == {"images": 3, "different": 1}
    left = plain.without(np.array([0, 2]))
    assert parted(left.copies) == [[2], [0], [1]] and count_copies(left) is None
    grouped = handle_duplicates(images([5, 6, 5, 7, 8], groups=list("pqqrr")), "group", "photos")
    assert parted(grouped.groups) == [[0, 1, 2], [3, 4]] and grouped.copies is None and count_copies(grouped) is None
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
    if (together := data.kept_together) is None:
        assert len(np.unique(values)) == len(values)
        return
    for key in (values, *([given_groups] if grouped else [])):
        for value in np.unique(key):
            assert len(np.unique(together[key == value])) == 1
    if not grouped:
        assert len(np.unique(together)) == len(np.unique(values)) and data.groups is None
    else:
        assert data.group_names is not None and len(data.group_names) == len(np.unique(together))


def test_copies_are_refused_where_they_are_not_wanted() -> None:
    with pytest.raises(UserError, match=r"2 of 3 images of photos have the same pixels .*data.duplicates group"):
        handle_duplicates(images([1, 1, 2]), "refuse", "photos")
    refuse_shared(images([1, 2]), images([3, 4]))
    with pytest.raises(UserError, match=r"1 of 2 test images have the same pixels .*number 1 and number 0"):
        refuse_shared(images([2, 1]), images([3, 2]))


def test_folds_of_the_data_that_part_copies_are_refused() -> None:
    data = images([1, 1, 2, 3])
    data = handle_duplicates(replace(data, folds=data.labels), "group", "photos")
    with pytest.raises(
        UserError, match=r"images 1 and 0 have the same pixels, but are on both .*data.duplicates to keep"
    ):
        split_images(data, SplitPlan())


def with_copies(n: int, pairs: dict[int, int]) -> Images:
    """Of n different images of 2 classes; each key is a copy of its value."""
    values = np.arange(n)
    values[[*pairs]] = [*pairs.values()]
    pixels = np.stack([values // 200, values % 200], axis=1).astype(np.uint8)[:, None]
    return handle_duplicates(Images.from_arrays(pixels, np.arange(n) % 2), "group", "photos")


def test_copies_follow_the_folds_of_the_different_images() -> None:
    pairs = {7: 5, 31: 5, 300: 12}
    data = with_copies(400, pairs)
    different = np.setdiff1d(np.arange(400), [*pairs])
    plan = SplitPlan(4, n_repeats=2, seed=3, inner_holdout=0.25)
    expected = split_images(with_copies(400, {}).subset(torch.from_numpy(different)), replace(plan, inner_holdout=None))
    for split, alone in zip(split_images(data, plan), expected, strict=True):
        assert np.array_equal(np.intersect1d(split.validation, different), different[alone.validation])
        assert split.inner is not None and len(split.inner) == round(0.25 * (400 - len(split.validation)))
        side = np.zeros(400, dtype=int)
        side[split.inner], side[split.validation] = 1, 2
        assert all(side[copy] == side[original] for copy, original in pairs.items())


@pytest.mark.parametrize("splitter", ["StratifiedKFold", "KFold", "TimeSeriesSplit"])
def test_a_splitter_gets_the_different_images_alone(splitter: str) -> None:
    plan = SplitPlan(splitter=splitter)
    for split in split_images(with_copies(40, {39: 0, 21: 2}), plan):
        assert (39 in split.validation) == (0 in split.validation) and (21 in split.train) == (2 in split.train)
    with pytest.raises(UserError, match=r"cannot split these images: .*; the data have no groups"):
        fitted_plan(with_copies(40, {39: 0}), SplitPlan(splitter="GroupKFold"))


def test_a_splitter_that_knows_images_by_their_places_gets_all_of_them() -> None:
    def plan(test_fold: list[int]) -> SplitPlan:
        return SplitPlan(splitter={"class_path": "PredefinedSplit", "init_args": {"test_fold": test_fold}})

    splits = split_images(with_copies(12, {3: 1}), plan([0] * 4 + [1] * 4 + [2] * 4))
    assert [split.validation.tolist() for split in splits] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(
        UserError, match=r"the images 1 and 0 have the same pixels, but are .*; choose another splitter"
    ):
        split_images(with_copies(12, {1: 0}), plan([0, 1] * 6))


def test_a_sample_of_images_with_copies_has_the_exact_size() -> None:
    for split in split_images(with_copies(60, {i + 30: i for i in range(30)}), SplitPlan(3, train_size=17)):
        assert len(split.train) == 17 and not np.intersect1d(split.train % 30, split.validation % 30).size


def test_a_class_with_too_few_different_images_is_refused() -> None:
    data = images([1, 1, 1, 2, 3, 4], labels=[0, 0, 0, 1, 1, 1])
    with pytest.raises(UserError, match=r"class '0' has only 1 training images, copies counted once"):
        split_images(handle_duplicates(data, "group", "photos"), SplitPlan(2))


def test_splits_that_part_copies_are_refused() -> None:
    data = with_copies(20, {10: 0})
    with pytest.raises(UserError, match=r"copies of one image are on both sides"):
        split_images(data, SplitPlan(holdout="first:5"))


def test_copies_are_in_the_fingerprint_as_they_were_when_they_were_groups() -> None:
    data = images([5, 6, 5, 7], names=tuple("abcd"))
    marked = handle_duplicates(data, "group", "photos")
    assert marked.fingerprint() == replace(data, groups=torch.tensor([0, 1, 0, 2])).fingerprint() != data.fingerprint()


def test_folds_that_take_long_are_drawn_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    split = StratifiedGroupKFold.split
    monkeypatch.setattr(StratifiedGroupKFold, "split", lambda *a, **k: calls.append(1) or split(*a, **k))
    groups, labels = np.arange(60) // 2, np.arange(60) // 2 % 2
    for _ in range(2):
        for seed in (101, 102):
            make_splits(labels, SplitPlan(3, seed=seed), groups)
    assert len(calls) == 2


def test_the_data_module_takes_the_setting() -> None:
    arrays: dict[str, Any] = {"images": np.zeros((4, 2, 2), dtype=np.uint8), "labels": np.arange(4) % 2}
    assert ArrayDataModule(**arrays).train_images.copies is None
    assert ArrayDataModule(**arrays, duplicates="group").train_images.copies is not None
    with pytest.raises(UserError, match=r"data.duplicates is 'drop'; it is one of group, keep, refuse"):
        ArrayDataModule(**arrays, duplicates="drop")


def test_pictures_of_other_libraries_are_searched_for_copies(tmp_path: Path) -> None:
    """By default, as image files are."""
    raw = tmp_path / "EuroSAT" / "eurosat" / "2750"
    for i, value in enumerate((5, 6, 5)):
        (raw / str(i)).mkdir(parents=True)
        Image.new("RGB", (4, 3), (value, 0, 0)).save(raw / str(i) / "0.png")
    data = TorchvisionDataModule("EuroSAT", root=str(tmp_path / "EuroSAT"), download=False)
    assert parted(data.train_images.copies) == [[0, 2], [1]]
    kept = TorchvisionDataModule("EuroSAT", root=str(tmp_path / "EuroSAT"), download=False, duplicates="keep")
    assert kept.train_images.copies is None
    assert HuggingFaceDataModule("pets").duplicates == "group"
