"""Data sets of Hugging Face as data modules, from folders and Parquet files that are made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmnist_cv.data import HuggingFaceDataModule, decoded_items
from fmnist_cv.errors import DataNotFound, UserError

datasets = pytest.importorskip("datasets", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)


def table(n: int = 12, **columns: Any) -> Any:
    """n pictures, with two classes in turn and three patients."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features["patient"] = datasets.Value("string")
    values = {
        "image": [Image.fromarray(pixels) for pixels in PIXELS[:n]],
        "label": [i % 2 for i in range(n)],
        "patient": [f"p{i % 3}" for i in range(n)],
    }
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def test_a_saved_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    others = table(4).remove_columns("patient").add_column("patient", ["p7", "p7", "p8", "p9"])
    datasets.DatasetDict(train=table(), test=others).save_to_disk(str(folder))
    data = HuggingFaceDataModule(str(folder), group="patient")
    assert data.data_name == "pets" and data.class_names == ("cat", "dog")
    assert np.array_equal(data.train_images.images.permute(0, 2, 3, 1).numpy(), PIXELS)
    assert data.train_images.labels.tolist() == [0, 1] * 6
    assert data.train_images.group_names == ("p0", "p1", "p2")
    assert data.train_images.groups is not None and data.train_images.groups.tolist() == [0, 1, 2] * 4
    assert data.test_images is not None and len(data.test_images) == 4 and data.test_images.groups is None
    assert HuggingFaceDataModule(str(folder), test=False).test_images is None
    swapped = HuggingFaceDataModule(str(folder), train="test", test="train")
    assert len(swapped.train_images) == 4


@pytest.mark.parametrize("as_folder", [True, False])
def test_parquet_is_read(tmp_path: Path, as_folder: bool) -> None:
    path = tmp_path / "pets" / "train.parquet"
    path.parent.mkdir()
    table().to_parquet(path)
    data = HuggingFaceDataModule(str(path.parent if as_folder else path), image_size=4, channels=1)
    assert data.train_images.shape == (1, 4, 4) and data.class_names == ("cat", "dog")
    assert data.test_images is None


def test_pictures_are_named_by_their_files_where_these_are_below_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for i in range(6):
        path = folder / ("cat", "dog")[i % 2] / f"{i // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(path)
    train = HuggingFaceDataModule(str(folder)).train_images
    assert train.names is not None and sorted(train.names) == [
        f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)
    ]
    for name, pixels in zip(train.names, train.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(folder / name)), pixels.permute(1, 2, 0).numpy())
    cells = [{"bytes": (folder / name).read_bytes(), "path": f"{i}.png"} for i, name in enumerate(train.names)]
    for cells_now, names in ((cells, tuple(f"{i}.png" for i in range(6))), ([*cells[:5], cells[0]], None)):
        made = datasets.Dataset.from_dict({"image": cells_now, "label": train.labels.tolist()})
        made.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / f"saved{len(names or ())}"))
        data = HuggingFaceDataModule(str(tmp_path / f"saved{len(names or ())}"), duplicates="keep")
        assert data.train_images.names == names  # none where one comes twice


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().save_to_disk(str(tmp_path / "pets"))
    first = HuggingFaceDataModule(str(tmp_path / "pets"), image_size=4).train_images
    with monkeypatch.context() as patch:
        patch.setattr(decoded_items, "pixels_of", None)  # fails if it is called
        again = HuggingFaceDataModule(str(tmp_path / "pets"), image_size=4).train_images
        with pytest.raises(TypeError):
            HuggingFaceDataModule(str(tmp_path / "pets"), image_size=3).train_images  # noqa: B018
    assert again.stored_digest is not None and again.fingerprint() == first.fingerprint()
    assert np.array_equal(again.images.numpy(), first.images.numpy())


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_file_is_decoded_as_it_was_stored(tmp_path: Path, ending: str) -> None:
    """Also a large JPEG, which is decoded smaller in both cases."""
    paths = [str(tmp_path / f"{i}.{ending}") for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(PIXELS[i]).resize((70, 50)).save(path)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    made = datasets.Dataset.from_dict({"image": paths, "label": [0, 1, 0, 1]}, features=features)
    made.save_to_disk(str(tmp_path / "pets"))
    data = HuggingFaceDataModule(str(tmp_path / "pets"), image_size=6)
    for path, stored in zip(paths, data.train_images.images, strict=True):
        assert data.decode is not None and np.array_equal(data.decode(path), stored.numpy())
    assert HuggingFaceDataModule(str(tmp_path / "pets")).decode is None


def test_a_single_saved_table_and_plain_columns(tmp_path: Path) -> None:
    """Arrays and words, in columns with the usual names but without a type that says what they are."""
    features = datasets.Features({"img": datasets.Array2D((5, 7), "uint8"), "label": datasets.Value("string")})
    values = {"img": list(PIXELS[..., 0]), "label": ["dog", "cat"] * 6}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(tmp_path / "plain"))
    data = HuggingFaceDataModule(str(tmp_path / "plain"))
    assert data.class_names == ("cat", "dog") and data.train_images.labels.tolist() == [1, 0] * 6
    assert np.array_equal(data.train_images.images[:, 0].numpy(), PIXELS[..., 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "lable"}, "no such column; did you mean 'label'"),
        ({"image": "picture"}, "data.image is 'picture', but .* no such column"),
        ({"group": "patients"}, "did you mean 'patient'"),
        ({"train": "training"}, "no part 'training'; did you mean 'train'"),
        ({"test": True}, "data.test is true"),
        ({"label": "image"}, "labels are of type"),
    ],
)
def test_what_the_data_do_not_have_is_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    table().save_to_disk(str(tmp_path / "pets"))
    with pytest.raises(UserError, match=message):
        HuggingFaceDataModule(str(tmp_path / "pets"), **arguments).train_images  # noqa: B018


def test_a_group_in_both_parts_is_refused(tmp_path: Path) -> None:
    datasets.DatasetDict(train=table(), test=table(2)).save_to_disk(str(tmp_path / "pets"))
    with pytest.raises(UserError, match="2 groups have both training and test images, such as 'p0'"):
        HuggingFaceDataModule(str(tmp_path / "pets"), group="patient").train_images  # noqa: B018
    assert len(HuggingFaceDataModule(str(tmp_path / "pets"), group="patient", test=False).train_images) == 12


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("saved", {"name": "large"}, "data.name is 'large', but .*saved is a folder written by save_to_disk"),
        ("pets/a.parquet", {"name": "large"}, "data.name is 'large', but .*a.parquet is a Parquet file"),
        ("saved", {"revision": "main"}, "data.revision is 'main', but .*saved is on disk"),
        ("pets/a.parquet", {"revision": "main"}, "data.revision is 'main', but .*a.parquet is on disk"),
        ("pets", {"revision": "main"}, "data.revision is 'main', but .*pets is on disk"),
    ],
)
def test_what_only_data_sets_on_the_hub_have_is_refused(
    tmp_path: Path, path: str, arguments: dict[str, str], message: str
) -> None:
    table().save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "pets").mkdir()
    table().to_parquet(tmp_path / "pets" / "a.parquet")
    with pytest.raises(UserError, match=message):
        HuggingFaceDataModule(str(tmp_path / path), **arguments).train_images  # type: ignore[arg-type]  # noqa: B018


def test_a_test_part_that_is_not_there_is_refused_where_it_was_named(tmp_path: Path) -> None:
    table().save_to_disk(str(tmp_path / "pets"))
    with pytest.raises(UserError, match="no part 'validation'"):
        HuggingFaceDataModule(str(tmp_path / "pets"), test="validation").test_images  # noqa: B018
    assert HuggingFaceDataModule(str(tmp_path / "pets")).test_images is None


def test_columns_that_are_not_clear_must_be_named(tmp_path: Path) -> None:
    made = table()
    made = made.add_column("breed", made["label"]).cast_column("breed", datasets.ClassLabel(names=["a", "b"]))
    made.save_to_disk(str(tmp_path / "pets"))
    with pytest.raises(UserError, match=r"holds the labels is not clear \(several: label, breed\); .*--data.label"):
        HuggingFaceDataModule(str(tmp_path / "pets")).train_images  # noqa: B018
    assert HuggingFaceDataModule(str(tmp_path / "pets"), label="breed").class_names == ("a", "b")


def test_a_broken_and_a_missing_picture_are_named(tmp_path: Path) -> None:
    for bad, message in (
        (b"<html>", "1 of 12 images cannot be decoded: image 3 .*is not an image"),
        (None, "image 3 .*no picture"),
    ):
        cells = table().cast_column("image", datasets.Image(decode=False))["image"][:]
        cells[3] = None if bad is None else {"bytes": bad, "path": None}
        made = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 6})
        made = made.cast_column("image", datasets.Image())
        folder = tmp_path / str(bad is None)
        made.save_to_disk(str(folder))
        with pytest.raises(UserError, match=message):
            HuggingFaceDataModule(str(folder)).train_images  # noqa: B018


@pytest.mark.parametrize("path", ["nobody/no-such-data", "/no/such/folder", "/no/such.parquet"])
def test_data_that_are_nowhere(path: str) -> None:
    with pytest.raises(DataNotFound, match=path):
        HuggingFaceDataModule(path).train_images  # noqa: B018


def test_the_package_is_an_extra(without_package: Callable[[str], None]) -> None:
    without_package("datasets")
    with pytest.raises(UserError, match=r"pip install 'fmnist_cv\[hf\]'"):
        HuggingFaceDataModule("a/b").train_images  # noqa: B018
