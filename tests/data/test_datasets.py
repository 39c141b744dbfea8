"""A user's own arrays, from memory or an `.npz`, and the synthetic images."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmnist_cv.data import ArrayDataModule, SyntheticDataModule
from fmnist_cv.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3
EVERYTHING = {
    "images": PIXELS,
    "labels": LABELS,
    "class_names": np.array(["cat", "dog", "owl"]),
    "groups": np.arange(30) // 2,
    "test_images": PIXELS[:7],
    "test_labels": LABELS[:7],
}


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "pets.npz", **arrays)
    return str(folder / "pets.npz")


@pytest.mark.parametrize("from_file", [True, False])
def test_images_labels_names_groups_and_test_set_are_taken(tmp_path: Path, from_file: bool) -> None:
    module = ArrayDataModule(npz(tmp_path, **EVERYTHING)) if from_file else ArrayDataModule(**EVERYTHING)
    train, test = module.train_images, module.test_images
    assert test is not None and len(train) == 30 and len(test) == 7 and train.shape == test.shape == (3, 6, 5)
    np.testing.assert_array_equal(train.images.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert train.labels.tolist() == LABELS.tolist() and train.class_names == test.class_names == ("cat", "dog", "owl")
    assert train.groups is not None and train.groups.tolist() == (np.arange(30) // 2).tolist()
    assert module.data_name == ("pets" if from_file else "arrays")


def test_tensors_are_taken() -> None:
    module = ArrayDataModule(images=torch.from_numpy(PIXELS), labels=torch.from_numpy(LABELS))
    np.testing.assert_array_equal(module.train_images.labels.numpy(), LABELS)


def test_names_are_the_numbers_where_none_are_given_and_cover_the_test_set(tmp_path: Path) -> None:
    module = ArrayDataModule(
        npz(tmp_path, images=PIXELS, labels=LABELS, test_images=PIXELS[:4], test_labels=LABELS[:4] * 0)
    )
    assert module.test_images is not None
    assert module.train_images.class_names == module.test_images.class_names == ("0", "1", "2")


@pytest.mark.parametrize("from_file", [True, False])
def test_a_test_set_need_not_be(tmp_path: Path, from_file: bool) -> None:
    arrays = {"images": PIXELS, "labels": LABELS}
    module = ArrayDataModule(npz(tmp_path, **arrays)) if from_file else ArrayDataModule(**arrays)
    assert module.test_images is None and len(module.train_images) == 30
    with pytest.raises(UserError, match="has no test images"):
        module.test_dataloader()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"labels": LABELS}, "images or labels are missing"),
        ({"images": PIXELS}, "images or labels are missing"),
        ({"images": PIXELS, "labels": LABELS, "label": LABELS}, r"holds \['label'\], which is not known; known are"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, "images must be uint8.*int64"),
        ({"images": np.full(PIXELS.shape, np.nan), "labels": LABELS}, "30 of 30 images have pixels that are NaN"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels must be 30 integers.*float64"),
        ({"images": PIXELS, "labels": LABELS.astype(str)}, "labels must be 30 integers"),
        ({"images": PIXELS, "labels": LABELS[:20]}, "labels must be 30 integers"),
        ({"images": PIXELS, "labels": LABELS[:0]}, "labels must be 30 integers"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "there are no images"),
        ({"images": PIXELS, "labels": LABELS - 1}, "labels run from -1 to 1"),
        ({"images": PIXELS, "labels": LABELS, "class_names": ["a", "b"]}, "labels run from 0 to 2, but there are 2"),
        ({"images": PIXELS, "labels": LABELS, "groups": LABELS[:5]}, "groups must be 30 values"),
        ({"images": PIXELS, "labels": LABELS, "class_names": "pets"}, "class.names"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    module = ArrayDataModule(npz(tmp_path, **arrays))
    with pytest.raises(UserError, match=reason):
        _ = module.train_images


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"test_images": PIXELS[:4]}, "images or labels are missing"),
        ({"test_labels": LABELS[:4]}, "there are test_labels, but no test_images; give both or neither"),
        ({"test_images": PIXELS[:4], "test_labels": LABELS[:4] + 3}, "labels run from 3 to 5, but there are 3 class"),
        ({"test_images": PIXELS[:4], "test_labels": LABELS[:3]}, "labels must be 4 integers"),
    ],
)
def test_a_wrong_test_set_is_refused(test: dict[str, Any], reason: str) -> None:
    module = ArrayDataModule(images=PIXELS, labels=LABELS, **test)
    with pytest.raises(UserError, match=reason):
        _ = module.test_images


@pytest.mark.parametrize(
    "arguments",
    [{}, {"labels": LABELS}, {"path": "pets.npz", "images": PIXELS}, {"path": "pets.npz", "labels": LABELS}],
    ids=lambda arguments: "+".join(arguments) or "nothing",
)
def test_either_a_path_or_arrays_are_wanted(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"either a path to an \.npz file or images and labels"):
        ArrayDataModule(**arguments)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data file .*pets\.npz does not exist"):
        _ = ArrayDataModule(str(tmp_path / "pets.npz")).train_images


@pytest.mark.parametrize("content", [b"", b"cat,dog,owl\n", b"PK\x03\x04 and no more"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pets.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*pets\.npz as an \.npz file"):
        _ = ArrayDataModule(str(tmp_path / "pets.npz")).train_images


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "pets.npy", PIXELS)
    with pytest.raises(UserError, match=r"cannot read .*pets\.npy as an \.npz file"):
        _ = ArrayDataModule(str(tmp_path / "pets.npy")).train_images


@pytest.mark.parametrize("name", ["text.png", "photo.png", "pickle.npz", "table.csv"])
def test_what_is_accepted_is_said_of_a_file_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("I am no image")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"images": PIXELS}))
    (tmp_path / "table.csv").write_text("label,pixel1\n")
    with pytest.raises(UserError) as error:
        _ = ArrayDataModule(str(tmp_path / name)).train_images
    assert str(error.value) == (
        f"cannot read {tmp_path / name} as an .npz file of plain arrays: it is damaged or of another kind; "
        "numpy.savez('my.npz', images=..., labels=...) writes one"
    )


def test_pipes_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path, kind in ((tmp_path / "pipe.npz", "a named pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=f"{path} is {kind}; give a regular file"):
            _ = ArrayDataModule(str(path)).train_images
        with pytest.raises(UserError, match=rf"data\.leave_out: {path} is {kind}; give a regular file"):
            _ = SyntheticDataModule(10, 10, leave_out=str(path)).train_images


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = Path(npz(tmp_path, images=PIXELS, labels=LABELS))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[500] ^= 0xFF
    path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot read .*pets\.npz as an \.npz file"):
        _ = ArrayDataModule(str(path)).train_images


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    path = npz(tmp_path, images=PIXELS, labels=np.array([Bomb()] * 30, dtype=object))
    with pytest.raises(UserError, match=r"cannot read .*labels holds Python objects; save it as an array of numbers"):
        _ = ArrayDataModule(path).train_images
    assert not (tmp_path / "exploded").exists()


def test_garments_are_drawn_from_their_own_seed() -> None:
    one, again, other = (SyntheticDataModule(40, 20, drawing_seed=seed, seed=i) for i, seed in enumerate((0, 0, 1)))
    assert one.train_images.fingerprint() == again.train_images.fingerprint() != other.train_images.fingerprint()
    assert one.test_images is not None and len(one.test_images) == 20 and len(one.train_images) == 40
    assert not torch.equal(one.test_images.images, one.train_images.images[:20])
    assert "SYNTHETIC" in one.data_name and one.class_names[9] == "Ankle boot"
