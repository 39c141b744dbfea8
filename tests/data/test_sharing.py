"""Equal data modules of one process share their images, and files that changed are read again."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_cv.data import ArrayDataModule, Images, SyntheticDataModule, datasets, sharing
from fmnist_cv.data.sharing import file_states, shared_images
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.errors import UserError


@pytest.fixture(autouse=True)
def _nothing_shared_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_images", weakref.WeakValueDictionary())
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


def test_synthetic_images_are_generated_once_for_equal_arguments(calls: list[tuple[int, int]]) -> None:
    first, second = SyntheticDataModule(20, 10), SyntheticDataModule(20, 10, batch_size=5)
    assert second.train_images is first.train_images and second.test_images is first.test_images
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
    assert second.train_images is first.train_images and second.test_images is first.test_images
    np.savez(path, images=images[:10], labels=labels[:10])
    third = ArrayDataModule(str(path))
    assert len(third.train_images) == 10 and third.test_images is None and len(first.train_images) == 20
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        _ = ArrayDataModule(str(path)).train_images


def test_only_two_small_sets_outlive_their_data_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [weakref.ref(shared_images(key, lambda key=key: some_images(key))) for key in range(4)]  # type: ignore
    gc.collect()
    assert [reference() is not None for reference in made] == [False, False, True, True]
    monkeypatch.setattr(sharing, "LARGEST_KEPT", 31)
    large = weakref.ref(shared_images("large", some_images))  # type: ignore[arg-type]
    gc.collect()
    assert large() is None and made[3]() is not None


def test_a_part_that_does_not_exist_is_looked_for_again() -> None:
    assert shared_images("key", lambda: None) is None
    assert shared_images("key", some_images) is shared_images("key", lambda: pytest.fail("made again"))


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
