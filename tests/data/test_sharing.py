"""Equal data modules of one process copy each other's images, and files that changed are read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmnist_cv.data import ArrayDataModule, Images, SyntheticDataModule, datasets, sharing
from fmnist_cv.data.sharing import file_states, shared_images
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.errors import UserError


@pytest.fixture(autouse=True)
def _nothing_shared_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_kept", type(sharing._kept)(maxlen=2))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(n, seed) of each time that images are generated."""
    made: list[tuple[int, int]] = []

    def counted(n: int, seed: int) -> Any:
        made.append((n, seed))
        return make_synthetic_images(n, seed)

    monkeypatch.setattr(datasets, "make_synthetic_images", counted)
    return made


def some_images(value: int = 0) -> Images:
    return Images.from_arrays(np.full((2, 4, 4), value, np.uint8), np.array([0, 1]))


def are_equal(a: Images | None, b: Images | None) -> bool:
    return a is not None and b is not None and a is not b and a.fingerprint() == b.fingerprint()


def test_synthetic_images_are_generated_once_for_equal_arguments(calls: list[tuple[int, int]]) -> None:
    first, second = SyntheticDataModule(20, 10), SyntheticDataModule(20, 10, batch_size=5)
    assert are_equal(second.train_images, first.train_images) and are_equal(second.test_images, first.test_images)
    assert calls == [(20, 0), (10, 1)]
    del first, second
    assert len(SyntheticDataModule(20, 10).train_images) == 20 and len(calls) == 2
    assert len(SyntheticDataModule(20, 10, drawing_seed=1).train_images) == 20 and calls[2:] == [(20, 2)]


def test_images_left_out_are_left_out_of_one_module_alone(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("index\n3\n")
    assert len(SyntheticDataModule(20, 10, leave_out=str(tmp_path / "out.csv")).train_images) == 19
    assert len(SyntheticDataModule(20, 10).train_images) == 20


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.npz"
    images, labels = make_synthetic_images(20, 0)
    np.savez(path, images=images, labels=labels, test_images=images[:5], test_labels=labels[:5])
    first, second = (ArrayDataModule(str(path), batch_size=size) for size in (4, 5))
    assert len(first.train_images) == 20 and first.test_images is not None
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", lambda *args, **options: pytest.fail("read again"))
        assert are_equal(second.train_images, first.train_images) and are_equal(second.test_images, first.test_images)
    np.savez(path, images=images[:10], labels=labels[:10])
    third = ArrayDataModule(str(path))
    assert len(third.train_images) == 10 and third.test_images is None and len(first.train_images) == 20
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        _ = ArrayDataModule(str(path)).train_images


class InvertedDataModule(SyntheticDataModule):
    """Changes in place what `load` returns."""

    def load(self, train: bool) -> Images | None:
        images = super().load(train)
        assert images is not None
        images.images.bitwise_not_()
        images.labels.zero_()
        return images


def test_images_changed_in_place_are_changed_in_one_module_alone(calls: list[tuple[int, int]]) -> None:
    plain = SyntheticDataModule(20, 10)
    before = plain.train_images.fingerprint()
    inverted = [InvertedDataModule(20, 10).train_images for _ in range(2)]
    assert len(calls) == 1 and are_equal(*inverted) and inverted[0].fingerprint() != before
    assert torch.equal(inverted[1].images, ~plain.train_images.images)
    plain.train_images.images.zero_()
    assert SyntheticDataModule(20, 10).train_images.fingerprint() == before and len(calls) == 1


def test_the_last_two_small_sets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(key: int) -> None:
        shared_images(key, lambda: (made.append(key), some_images(key))[1])

    for key in (0, 1, 0, 1, 2, 1, 2, 0):
        make(key)
    assert made == [0, 1, 2, 0]
    monkeypatch.setattr(sharing, "LARGEST_KEPT", 31)
    make(3), make(3), make(2)
    assert made[4:] == [3, 3]


def test_a_part_that_does_not_exist_is_looked_for_again() -> None:
    assert shared_images("key", lambda: None) is None
    assert are_equal(shared_images("key", some_images), shared_images("key", lambda: pytest.fail("made again")))


def test_the_state_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert file_states([path]) == ()
    path.write_text("a")
    before = file_states([path, tmp_path / "gone"])
    assert before == file_states([path])
    path.write_text("ab")
    assert file_states([path]) != before


def test_a_fingerprint_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_images()
    first = images.fingerprint()
    monkeypatch.setattr("hashlib.blake2b", lambda *_, **__: pytest.fail("computed again"))
    assert images.fingerprint() == first
