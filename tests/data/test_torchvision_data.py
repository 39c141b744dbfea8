"""torchvision's data sets as data modules: their own pictures and labels, decoded once; what does not fit is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fmnist_cv.data import TorchvisionDataModule, decoded_items, torchvision_data
from fmnist_cv.errors import DataNotFound, UserError

FAKE = {"size": 12, "image_size": [3, 8, 10], "num_classes": 3}


def fake(**arguments: Any) -> TorchvisionDataModule:
    return TorchvisionDataModule(
        "FakeData", **{"init_args": FAKE, "test": {"random_offset": 1, "size": 5}, **arguments}
    )


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """Two classes of RGB pictures in the layout of torchvision's EuroSAT, which has no argument train."""
    random = np.random.default_rng(0)
    for name in ("Forest", "River"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(random.integers(0, 256, (6 + i, 9, 3), dtype=np.uint8)).save(folder / f"{name}_{i}.png")
    return tmp_path


def idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """The files of a small MNIST: image i has the pixel value i everywhere."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        images = np.arange(n, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        idx(raw / f"{part}-images-idx3-ubyte", images)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return tmp_path


def test_pictures_and_labels_are_the_data_sets_own() -> None:
    from torchvision.datasets import FakeData

    data = fake()
    expected = FakeData(**FAKE)
    assert data.train_images.shape == (3, 8, 10) and data.data_name == "FakeData" and data.train_images.names is None
    for i, pixels in enumerate(data.train_images.images):
        picture, label = expected[i]
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(picture))
        assert int(label) == data.train_images.labels[i]
    assert data.test_images is not None and len(data.test_images) == 5


def test_train_and_test_are_told_by_the_argument_train(mnist: Path) -> None:
    data = TorchvisionDataModule("torchvision.datasets.MNIST", root=str(mnist), download=False)
    assert data.train_images.shape == (1, 28, 28)  # grey, as its pictures are
    assert data.train_images.images[:, 0, 0, 0].tolist() == [*range(20)]
    assert data.train_images.labels.tolist() == [i % 10 for i in range(20)]
    assert data.class_names[:2] == ("0 - zero", "1 - one")
    assert data.test_images is not None and len(data.test_images) == 10
    assert TorchvisionDataModule("MNIST", root=str(mnist), download=False, test=False).test_images is None


def test_pictures_of_several_sizes_are_brought_to_one(eurosat: Path) -> None:
    def made(**arguments: Any) -> TorchvisionDataModule:
        return TorchvisionDataModule("EuroSAT", root=str(eurosat), download=False, **arguments)

    data = made(image_size=[6, 9])
    assert data.train_images.names == tuple(
        f"eurosat/2750/{kind}/{kind}_{i}.png" for kind in ("Forest", "River") for i in range(4)
    )
    assert data.train_images.shape == (3, 6, 9) and data.class_names == ("Forest", "River")
    assert data.test_images is None  # it has no part for testing
    assert data.train_images.labels.tolist() == [0] * 4 + [1] * 4
    own = np.asarray(Image.open(eurosat / "eurosat/2750/Forest/Forest_0.png"))
    assert np.array_equal(data.train_images.images[0].permute(1, 2, 0).numpy(), own)
    assert made(image_size=5, channels=1).train_images.shape == (1, 5, 5)
    with pytest.raises(
        UserError, match=r"different sizes: image 0 is 6 pixels high and 9 wide, image 1 7 and 9; set data.image_size"
    ):
        made().train_images  # noqa: B018


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_file_is_decoded_as_the_data_sets_loader_does(tmp_path: Path, ending: str) -> None:
    """It ignores transparency, and a large JPEG is not decoded smaller."""
    folder = tmp_path / "eurosat" / "2750" / "Forest"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    Image.fromarray(pixels if ending == "png" else pixels[:, :, :3]).save(folder / f"0.{ending}")
    data = TorchvisionDataModule("EuroSAT", root=str(tmp_path), download=False, image_size=6)
    assert data.decode is not None
    assert np.array_equal(data.decode(folder / f"0.{ending}"), data.train_images.images[0].numpy())


@pytest.mark.parametrize("place", [0, 4, 7])
def test_a_broken_picture_is_named(eurosat: Path, place: int) -> None:
    """Also those whose labels are compared with the data set's list of labels."""
    path = sorted((eurosat / "eurosat" / "2750").glob("*/*.png"))[place]
    path.write_text("no picture")
    with pytest.raises(UserError, match=rf"EuroSAT: .*image {place} \(counted from 0\) is not an image"):
        TorchvisionDataModule("EuroSAT", root=str(eurosat), download=False, image_size=4).train_images  # noqa: B018


def test_pictures_are_decoded_once(eurosat: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> list[TorchvisionDataModule]:
        colour = TorchvisionDataModule("EuroSAT", root=str(eurosat), download=False, image_size=4)
        return [colour, TorchvisionDataModule("MNIST", root=str(mnist), download=False), fake()]

    first = [data.train_images for data in made()]
    monkeypatch.setattr(decoded_items, "pixels_of", None)  # fails if it is called
    for root in (eurosat, mnist):
        (root / "another").mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(root / "another" / "data_set.png")
    for data, expected in zip(made(), first, strict=True):
        assert data.train_images.stored_digest is not None
        assert data.train_images.fingerprint() == expected.fingerprint()
        assert torch.equal(data.train_images.images, expected.images)
        assert torch.equal(data.train_images.labels, expected.labels)


def test_files_that_a_data_set_does_not_list_are_all_those_below_its_folder(tmp_path: Path) -> None:
    class Unlisted:
        def __len__(self) -> int:
            return 1

    (tmp_path / "a").write_text("a")
    before = torchvision_data._content(Unlisted(), str(tmp_path))
    assert torchvision_data._content(Unlisted(), str(tmp_path)) == before
    (tmp_path / "b").write_text("b")
    assert torchvision_data._content(Unlisted(), str(tmp_path)) != before


def test_a_data_set_of_the_users_own_is_read_by_each_process() -> None:
    """Nothing tells whether it has changed."""
    items = [(grey(1), 0), (grey(2), 1)]
    arguments = {"dataset": f"{__name__}.Pairs", "init_args": {"items": items}}
    first = TorchvisionDataModule(**arguments).train_images
    assert first.stored_digest is None
    items[0] = (grey(3), 0)
    assert TorchvisionDataModule(**arguments).train_images.images[0, 0, 0, 0] == 3


def test_changed_files_are_read_again(eurosat: Path) -> None:
    def first() -> torch.Tensor:
        data = TorchvisionDataModule("EuroSAT", root=str(eurosat), download=False, image_size=4)
        return data.train_images.images[0]

    before = first()
    assert torch.equal(before, first())
    Image.new("RGB", (9, 6), "red").save(eurosat / "eurosat/2750/Forest/Forest_0.png")
    assert first().unique().tolist() == [0, 255] and not torch.equal(before, first())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "CIFAR11"}, "no class 'CIFAR11'; did you mean 'CIFAR1"),
        ({"dataset": "nowhere.Data"}, "nowhere cannot be imported"),
        ({"dataset": "FakeData", "init_args": {"sise": 3}}, "no argument 'sise'; did you mean 'size'"),
        ({"dataset": "FakeData", "init_args": {"transform": None}}, "decoded once, before any transform"),
        ({"dataset": "FakeData", "root": "x"}, "reads no files"),
        ({"dataset": "FakeData", "init_args": {"size": 0}}, "there are no images"),
        ({"dataset": "FakeData", "test": True}, "data.test is true"),
        ({"dataset": "FakeData", "image_size": [3]}, r"data.image_size is \[3\]"),
        ({"dataset": "FakeData", "channels": 2}, "data.channels is 2"),
        (
            {"dataset": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
            "no data set with a length",
        ),
        ({"dataset": "Flowers102", "download": True, "train": {"split": "training"}}, "cannot be made with"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TorchvisionDataModule(**arguments).train_images  # noqa: B018


def test_missing_files_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"CIFAR10 cannot be read .*--data.root"):
        TorchvisionDataModule("CIFAR10", root=str(tmp_path), download=False).train_images  # noqa: B018


class Pairs:
    """A data set of the user's own that follows torchvision's."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def grey(value: int = 0) -> Image.Image:
    return Image.new("L", (4, 4), value)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(grey(), 0), (grey(), "cat")], r"labels are number.* \(image 0\) and words \(image 1\)"),
        ([(grey(), 0), (grey(), -1)], "1 of 2 images have no class"),
        ([(grey(), [0, 1])], "labels are of type list"),
        ([(grey(), 0), (Image.new("RGB", (4, 4)), 1)], "image 1 .* is in colour, but image 0 is grey"),
        ([grey()], "no pairs of a picture and a class"),
        ([("text", 0)], "image 0 .* is str"),
        ([(Image.new("F", (4, 4)), 0)], "32 bits"),
    ],
)
def test_items_that_cannot_be_classified_are_refused(items: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TorchvisionDataModule(f"{__name__}.Pairs", init_args={"items": items}).train_images  # noqa: B018


def test_words_are_classes_in_alphabetical_order() -> None:
    items = [(grey(1), "dog"), (np.full((4, 4), 2, dtype=np.uint8), "cat"), (grey(3), "dog")]
    data = TorchvisionDataModule(f"{__name__}.Pairs", init_args={"items": items}, test={"items": items[1:2]})
    assert data.class_names == ("cat", "dog") and data.train_images.labels.tolist() == [1, 0, 1]
    assert data.test_images is not None and data.test_images.labels.tolist() == [0]
    assert data.train_images.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    data = TorchvisionDataModule(f"{__name__}.Pairs", init_args={"items": items}, test={"items": [(grey(), "cow")]})
    with pytest.raises(UserError, match="'cow' is not among the training images' classes"):
        data.test_images  # noqa: B018
