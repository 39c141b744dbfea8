"""Folders of image files: classes, parts, names, and messages about what is missing or broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fmnist_cv.data import ImageFolderDataModule, Images, TorchvisionDataModule
from fmnist_cv.data.cache import entries
from fmnist_cv.errors import UserError


def picture(path: Path, grey: int, size: tuple[int, int] = (10, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """root/<class>/…, with images in a folder below, and things that are no images."""
    root = tmp_path / "pets"
    for i in range(4):
        picture(root / "dog" / f"{i}.png", 10 + i)
        picture(root / "cat" / ("old" if i % 2 else ".") / f"{i}.PNG", 20 + i)
    picture(root / ".hidden" / "0.png", 0)
    picture(root / "cat" / ".thumbnail.png", 0)
    (root / "cat" / "notes.txt").write_text("")
    return root


def test_classes_are_folders_and_images_have_stable_names(pets: Path) -> None:
    data = ImageFolderDataModule(str(pets))
    train = data.train_images
    assert train.class_names == ("cat", "dog") and train.shape == (3, 8, 10) and data.test_images is None
    names = ["cat/0.PNG", "cat/2.PNG", "cat/old/1.PNG", "cat/old/3.PNG", *(f"dog/{i}.png" for i in range(4))]
    assert list(train.names or ()) == names and train.labels.tolist() == [0] * 4 + [1] * 4
    assert train.pixels(torch.arange(8))[:, 0, 0, 0].tolist() == [20, 22, 21, 23, 10, 11, 12, 13]
    assert data.data_name == "pets" and train.folds is None


def test_the_place_of_the_folder_changes_nothing(pets: Path, tmp_path: Path) -> None:
    before = ImageFolderDataModule(str(pets), image_size=6).train_images
    shutil.move(pets, tmp_path / "moved")
    after = ImageFolderDataModule(str(tmp_path / "moved"), image_size=6).train_images
    assert after.fingerprint() == before.fingerprint() and after.names == before.names


def test_train_and_test_folders_and_a_fixed_validation_set(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for part, grey in (("train", 10), ("test", 30)):
        for name in ("a", "b"):
            picture(root / part / name / "0.png", grey)
    data = ImageFolderDataModule(str(root))
    assert data.train_images.names == ("train/a/0.png", "train/b/0.png")
    assert data.test_images is not None and data.test_images.names == ("test/a/0.png", "test/b/0.png")
    assert data.test_images.pixels(torch.tensor([1]))[0, 0, 0, 0] == 30 and data.train_images.folds is None
    picture(root / "val" / "b" / "9.png", 50)
    train = ImageFolderDataModule(str(root)).train_images
    assert train.folds is not None
    assert dict(zip(train.names or (), train.folds.tolist(), strict=True)) == {
        "train/a/0.png": -1,
        "train/b/0.png": -1,
        "val/b/9.png": 0,
    }
    picture(root / "test" / "c" / "0.png", 0)
    with pytest.raises(UserError, match="test has the class 'c', of which there is no training image"):
        _ = ImageFolderDataModule(str(root)).test_images


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "car"):
        picture(tmp_path / "traffic" / name / "0.png", 0)
    assert ImageFolderDataModule(str(tmp_path / "traffic")).class_names == ("car", "train")


def test_parts_may_be_written_in_capitals(tmp_path: Path) -> None:
    for part in ("Train", "Test", "VAL"):
        picture(tmp_path / "signs" / part / "stop" / "0.png", 0)
    data = ImageFolderDataModule(str(tmp_path / "signs"))
    assert data.class_names == ("stop",) and data.train_images.names == ("Train/stop/0.png", "VAL/stop/0.png")
    assert data.train_images.folds is not None and data.train_images.folds.tolist() == [-1, 0]
    assert data.test_images is not None and data.test_images.names == ("Test/stop/0.png",)


@pytest.mark.parametrize("extra", ["Meta", "TRAIN", "Test"])
def test_a_folder_beside_the_parts_is_no_class(tmp_path: Path, extra: str) -> None:
    """As in the German traffic signs, which have Meta beside Train and Test; "Test" beside "test" is one too many."""
    signs = tmp_path / "signs"
    for part in ("Train", "TEST", extra):
        picture(signs / part / "stop" / "0.png", 0)
    named = "(TEST|Test)" if extra == "Test" else "(TRAIN|Train)" if extra == "TRAIN" else "Meta"
    with pytest.raises(
        UserError, match=f"has the folder '{named}' beside '(Train|TRAIN)', which holds a folder per class"
    ):
        _ = ImageFolderDataModule(str(signs)).train_images


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_part_without_labels_is_named(tmp_path: Path, part: str) -> None:
    picture(tmp_path / "pets" / "train" / "cat" / "0.png", 0)
    picture(tmp_path / "pets" / part / "0.png", 0)
    data = ImageFolderDataModule(str(tmp_path / "pets"))
    with pytest.raises(
        UserError, match=f"{part} has no images in folders of the classes.*such as {part}/cat, or move {part}"
    ):
        _ = data.test_images if part == "test" else data.train_images


def test_a_photo_is_decoded_as_the_stored_images_were(pets: Path) -> None:
    data = ImageFolderDataModule(str(pets), image_size=[6, 5], resize="pad", channels=1)
    names = data.train_images.names or ()
    stored = data.train_images.pixels(torch.tensor([5]))[0]
    assert np.array_equal(stored.numpy(), data.decode(pets / names[5])) and stored.shape == (1, 6, 5)


def test_folders_that_cannot_be_used_are_refused(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, message in (
        (tmp_path / "nowhere", "nowhere, which does not exist"),
        (pets / "dog" / "0.png", "0.png, which is not a folder"),
        (tmp_path / "empty", "empty holds no folders; it needs one for each class"),
    ):
        with pytest.raises(UserError, match=message):
            _ = ImageFolderDataModule(str(root)).train_images
    (pets / "bird").mkdir()
    with pytest.raises(UserError, match="has a folder 'bird' without images"):
        _ = ImageFolderDataModule(str(pets)).train_images


def test_broken_files_are_counted_and_named_and_may_be_skipped(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        (pets / "cat" / f"broken{i}.jpg").write_text("<html>")
    (pets / "dog" / "phone.heic").write_bytes(b"heic")
    for _ in range(2):  # decoding, and from the cache
        with pytest.raises(
            UserError, match=r"5 images of .*pets cannot be decoded: .*broken0.jpg is a web page.*; …; rep"
        ):
            _ = ImageFolderDataModule(str(pets)).train_images
    train = ImageFolderDataModule(str(pets), on_broken="skip").train_images
    assert len(train) == 8 and train.labels.tolist() == [0] * 4 + [1] * 4
    assert train.pixels(torch.arange(8))[:, 0, 0, 0].tolist() == [20, 22, 21, 23, 10, 11, 12, 13]
    assert "left out: 5 images of" in capsys.readouterr().err
    for path in pets.rglob("broken*"):
        path.unlink()
    (pets / "dog" / "phone.heic").unlink()
    assert ImageFolderDataModule(str(pets)).train_images.fingerprint() == train.fingerprint()


def test_sizes_that_differ_need_an_image_size(pets: Path) -> None:
    picture(pets / "dog" / "9.png", 0, (30, 20))
    with pytest.raises(
        UserError, match=r"cat/0.PNG is 8 pixels high and 10 wide, dog/9.png 20 and 30; set data.image_size"
    ):
        _ = ImageFolderDataModule(str(pets)).train_images
    assert ImageFolderDataModule(str(pets), image_size=4).train_images.shape == (3, 4, 4)
    assert [entry.facts["settings"]["image_size"] for entry in entries() if entry.facts["source"] == str(pets)] == [
        [4, 4]
    ]


def test_photos_are_scored_in_small_batches(pets: Path) -> None:
    """The outputs of a network's layers for 1000 photos, as many as other modules score at a time, fill gigabytes."""
    assert ImageFolderDataModule(str(pets)).eval_batch_size == 128
    assert TorchvisionDataModule("CIFAR10").eval_batch_size == 128
    assert ImageFolderDataModule(str(pets), eval_batch_size=7).eval_batch_size == 7


def test_on_broken_has_two_values(pets: Path) -> None:
    with pytest.raises(UserError, match=r"data\.on_broken is 'ignore'; it is one of error, skip"):
        ImageFolderDataModule(str(pets), on_broken="ignore")  # type: ignore[arg-type]


def test_copies_are_found_without_reading_the_pixels(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(pets / "dog" / "1.png", pets / "dog" / "copy.png")
    shutil.copy(pets / "dog" / "1.png", pets / "dog" / "again.png")
    train = ImageFolderDataModule(str(pets)).train_images
    with monkeypatch.context() as patch:
        patch.setattr(Images, "chunks", lambda images, size=0: pytest.fail("the pixels are read"))
        train = ImageFolderDataModule(str(pets)).train_images
    assert train.copies is not None and train.names is not None
    same = [name for name, number in zip(train.names, train.copies.tolist(), strict=True) if number == train.copies[5]]
    assert same == ["dog/1.png", "dog/again.png", "dog/copy.png"] and len(set(train.copies.tolist())) == 8
    assert ImageFolderDataModule(str(pets), duplicates="keep").train_images.copies is None
    chosen = train.subset(torch.tensor([9, 5]))
    assert chosen.digests is not None and chosen.digests[0].tolist() == chosen.digests[1].tolist()
