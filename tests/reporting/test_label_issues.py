"""Planted label errors and copies are found, and the CSV names images as data.leave_out does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.spatial.distance import cdist

from fmnist_cv.data import Images
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.reporting import near_duplicates, near_pairs
from fmnist_cv.reporting.label_issues import LabelIssues, find_label_issues
from fmnist_cv.reporting.near_duplicates import SHARE_OF_USUAL, find_near_duplicates
from fmnist_cv.reporting.page import write_report


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.reshape(len(images), -1, *images.shape[-2:]))


@pytest.fixture(scope="module")
def garments() -> np.ndarray:
    """300 garments of which 3 are copies of others, 2 of them with a pixel changed."""
    images, _ = make_synthetic_images(300, 0)
    images[100], images[200], images[299] = images[7], images[7], images[8]
    images[200, 3, 3] ^= 1
    images[299, 3, 3] ^= 2
    return images


@pytest.mark.parametrize("seen", [near_pairs.SEEN, 0])
def test_near_duplicates_are_the_pairs_that_a_search_over_all_pairs_finds(
    garments: np.ndarray, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tree, and by random cells."""
    monkeypatch.setattr(near_pairs, "SEEN", seen)
    found = find_near_duplicates(as_tensor(garments))
    distance = cdist(*[garments.reshape(300, -1).astype(np.float64)] * 2)
    np.fill_diagonal(distance, np.inf)
    distinct = np.delete(np.arange(300), 100)
    usual = np.median(distance[np.ix_(distinct, distinct)].min(1))
    near = {(i, j) for i, j in np.argwhere(distance < SHARE_OF_USUAL * usual) if i < j}
    assert {(7, 100), (7, 200), (100, 200), (8, 299)} <= near
    together = {(i, j) for group in found.groups for i in group for j in group if i < j}
    assert near <= together  # a group may join two images through a third
    by_image = dict(zip(found.image.tolist(), zip(found.other, found.distance, strict=True), strict=True))
    assert by_image[100] == (7, 0) and by_image[200][0] == 7 and by_image[299][0] == 8
    assert by_image[299][1] == pytest.approx(2 / usual, rel=0.1)
    assert [7, 100, 200] in [group.tolist() for group in found.groups]
    assert found.complete


def test_in_noise_too_large_for_a_tree_near_pairs_are_found_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree compared all pairs of noise: four times as long for twice as many."""
    compared: list[int] = []
    distances = near_pairs.pair_distances
    monkeypatch.setattr(near_pairs, "pair_distances", lambda *a: (compared.append(len(a[1])), distances(*a))[1])
    told: list[float] = []
    for n in (6000, 12000):
        random = np.random.default_rng(n)
        images = random.integers(0, 256, (n, 64), dtype=np.uint8)
        first, second = random.choice(n, (2, 100), replace=False)
        images[second] = (images[first].astype(int) + random.integers(-18, 19, (100, 64))).clip(0, 255)
        found = find_near_duplicates(torch.from_numpy(images.reshape(n, 1, 8, 8)), told.append)
        assert found.complete and {*zip(found.image, found.other, strict=True)} == {
            (max(pair), min(pair)) for pair in zip(first, second, strict=True)
        }
        assert sum(compared) < 200 * n
        compared.clear()
    assert told[-1] == 1.0 and all(0 < share <= 1 for share in told)


@given(st.floats(0.2, 20))
def test_the_chance_to_share_a_cell_is_that_of_a_random_grid(distance: float) -> None:
    random = np.random.default_rng(0)
    along, shift = distance * random.normal(size=20_000), random.random(20_000)
    expected = (np.floor(along + shift) == 0).mean()
    assert near_pairs.share_of_cells(distance) == pytest.approx(expected, abs=0.02)


def test_large_images_are_compared_as_thumbnails(noise: Callable[..., np.ndarray]) -> None:
    images = noise(30, 3, 90, 60)
    images[20] = images[4]
    found = find_near_duplicates(torch.from_numpy(images))
    assert found.image.tolist() == [20] and found.other.tolist() == [4] and found.distance.tolist() == [0]


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_equal_images_form_one_group(n: int) -> None:
    found = find_near_duplicates(torch.full((n, 1, 8, 8), 7, dtype=torch.uint8))
    assert found.image.tolist() == list(range(1, n)) and set(found.other) <= {0}


def test_where_almost_all_are_alike_only_equal_ones_are_looked_for(
    garments: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 0)
    found = find_near_duplicates(as_tensor(garments))
    assert not found.complete
    assert found.image.tolist() == [100]


def test_planted_label_errors_are_found_and_hardly_anything_else() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, 600)
    probabilities = random.dirichlet(np.ones(5), 600) * 0.15
    probabilities[np.arange(600), truth] += 0.85
    labels, flipped = truth.copy(), random.choice(600, 20, replace=False)
    labels[flipped] = (truth[flipped] + 1) % 5
    images = Images.from_arrays(random.integers(0, 256, (600, 8, 8), dtype=np.uint8), labels)
    probabilities[flipped[0]] = np.nan  # never held out
    issues = find_label_issues(images, probabilities.astype(np.float32))
    assert set(issues.errors) <= set(flipped[1:]) and len(issues.errors) >= 17
    assert (np.diff(issues.quality[issues.errors]) >= 0).all()
    assert len(issues.outliers) == 10 and np.isnan(issues.typicality[flipped[0]])


@given(st.integers(1, 12), st.integers(2, 4), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
def test_any_small_data_set_is_judged(n: int, k: int, seed: int, never: float) -> None:
    """Classes without an image, one image alone, no prediction at all."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    probabilities = random.dirichlet(np.ones(k), n).astype(np.float32)
    probabilities[random.random(n) < never] = np.nan
    images = Images.from_arrays(random.integers(0, 256, (n, 4, 4), dtype=np.uint8), labels, [f"c{i}" for i in range(k)])
    issues = find_label_issues(images, probabilities)
    held_out = set(np.flatnonzero(~np.isnan(probabilities[:, 0])))
    assert set(issues.errors) <= held_out and set(issues.outliers) <= held_out
    predicted = np.where(np.isnan(probabilities[:, 0]), -1, np.nan_to_num(probabilities).argmax(1))
    assert set(issues.table(images, predicted, np.empty(0, dtype=np.int64))["index"]) <= set(range(n))


def test_the_file_counts_as_leave_out_does_and_holds_what_the_run_left_out(
    make_run: Callable[..., object], noise: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    """Images 3 and 39 (the last) are left out; 20 copies 10; a run without all that is listed can be made."""
    images, labels = noise(40, 6, 6), np.arange(40) % 2
    images[20] = images[10]
    pd.DataFrame({"index": [39, 3, 3]}).to_csv(tmp_path / "first.csv", index=False)
    first = make_run({"images": images, "labels": labels}, data__leave_out=str(tmp_path / "first.csv"))
    write_report(first)
    table = pd.read_csv(first.path / "label_issues.csv", dtype={"label": str, "suggested": str}).set_index("index")
    assert table.index[table["kind"] == "left_out"].tolist() == [3, 39]
    assert table[table["kind"] == "near_duplicate"][["other", "score"]].to_dict("index") == {
        20: {"other": 10, "score": 0}
    }
    for index, row in table[table["kind"] == "label_error"].iterrows():
        assert row["label"] == str(labels[index]) and row["suggested"] != row["label"]
    second = make_run({"images": images, "labels": labels}, data__leave_out=str(first.path / "label_issues.csv"))
    left_out = second.data.left_out
    assert {3, 20, 39} <= set(left_out)
    assert second.summary["data"]["n_train"] == 40 - len(left_out)


@pytest.mark.parametrize(
    ("n_errors", "accuracy", "weak"), [(34, 0.6, True), (34, 0.89, True), (34, 0.91, False), (0, 0.6, False)]
)
def test_findings_of_a_model_that_is_often_wrong_are_not_to_be_believed(
    n_errors: int, accuracy: float, weak: bool
) -> None:
    duplicates = find_near_duplicates(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    nothing = np.empty(0, dtype=np.int64)
    issues = LabelIssues(np.arange(n_errors), np.linspace(0, 1, 400), duplicates, nothing, np.ones(400))
    sentence, is_weak = issues.trust(accuracy)
    assert is_weak == weak and ("may be mistakes of the model" in sentence) == weak
    assert f"misclassifies {100 * (1 - accuracy):.1f} % of the 400 images" in sentence
