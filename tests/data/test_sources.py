"""Published files are found in every layout, known by checksum alone, and downloaded or refused with the reason."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import urllib.error
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.utils

from fmnist_cv.data import FashionMNISTDataModule, MNISTDataModule, sources
from fmnist_cv.data.images import Images
from fmnist_cv.data.sources import (
    DOWNLOAD_TIMEOUT_S,
    SOURCES,
    IdxFile,
    Source,
    load_emnist,
    load_source,
    parse_idx,
    search_roots,
)
from fmnist_cv.errors import DataNotFound, UserError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    """IDX bytes of a uint8 or int32 array."""
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    return (
        struct.pack(f">HBB{array.ndim}i", 0, kind, array.ndim, *array.shape)
        + array.astype(f">{array.dtype.str[1:]}").tobytes()
    )


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@dataclass
class Published:
    """A small data set with files of Fashion-MNIST's names, and what lies in them."""

    source: Source
    packed: dict[str, bytes]
    arrays: list[np.ndarray]

    @classmethod
    def make(cls, directory: str, slug: str, seed: int) -> Published:
        rng = np.random.default_rng(seed)
        arrays = [
            rng.integers(0, 256, (n, 4, 4), dtype=np.uint8) if part == 0 else rng.integers(0, 10, n, dtype=np.uint8)
            for n in (12, 6)
            for part in (0, 1)
        ]
        packed, files = {}, []
        for name, array in zip(NAMES, arrays, strict=True):
            packed[f"{name}.gz"] = gzip.compress(idx(array), mtime=0)
            urls = tuple(f"https://{mirror}.invalid/{slug}/{name}.gz" for mirror in ("one", "two"))
            files.append(IdxFile(f"{name}.gz", md5(packed[f"{name}.gz"]), md5(idx(array)), urls))
        classes = tuple("abcdefghij")
        return cls(Source(directory, slug, classes, (files[0], files[1]), (files[2], files[3])), packed, arrays)

    def put(self, folder: Path, *, unpacked: bool = False, names: tuple[str, ...] = NAMES) -> Path:
        """Write the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            content = self.packed[f"{name}.gz"]
            (folder / (name if unpacked else f"{name}.gz")).write_bytes(
                gzip.decompress(content) if unpacked else content
            )
        return folder

    def is_read(self, root: Path | None = None, download: bool = False) -> bool:
        """Whether both parts are found and are this data set's."""
        parts = [load_source(self.source.directory, train=t, root=root, download=download) for t in (True, False)]
        return all(
            np.array_equal(part.images.numpy()[:, 0], images) and np.array_equal(part.labels.numpy(), labels)
            for part, images, labels in zip(parts, self.arrays[::2], self.arrays[1::2], strict=True)
        )


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No data in the environment or the working folder."""
    if "slow" not in request.keywords:
        monkeypatch.delenv("FMNIST_CV_DATA", raising=False)
        monkeypatch.chdir(tmp_path)


@pytest.fixture
def clothes(monkeypatch: pytest.MonkeyPatch) -> Published:
    made = Published.make("TinyClothes", "tiny-clothes", 1)
    monkeypatch.setitem(SOURCES, "TinyClothes", made.source)
    return made


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Published:
    made = Published.make("TinyDigits", "tiny-digits", 2)
    monkeypatch.setitem(SOURCES, "TinyDigits", made.source)
    return made


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replace torchvision's download: serve these files, or leave `partial` and raise; returns the addresses asked."""

    def replace_by(
        files: dict[str, bytes] | None = None, error: BaseException | None = None, partial: bytes = b"", down: str = ""
    ) -> list[str]:
        asked: list[str] = []

        def download_url(url: str, root: str | Path, filename: str | None = None, md5: str | None = None) -> None:
            asked.append(url)
            path = Path(root) / str(filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            if error is not None or (down and down in url):
                path.write_bytes(partial)
                raise error or urllib.error.URLError("down for maintenance")
            assert files is not None
            path.write_bytes(files[str(filename)])

        monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
        return asked

    return replace_by


# -- found on disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("layout", ["TinyClothes/raw", "tiny-clothes", "TinyClothes", "."])
def test_every_layout_is_found_packed_and_unpacked(
    clothes: Published, tmp_path: Path, layout: str, unpacked: bool
) -> None:
    clothes.put(tmp_path / "root" / layout, unpacked=unpacked)
    assert clothes.is_read(tmp_path / "root")


def test_what_is_read_has_the_right_shape_and_names(clothes: Published, tmp_path: Path) -> None:
    data = load_source("TinyClothes", train=True, root=clothes.put(tmp_path / "root"), download=False)
    assert data.shape == (1, 4, 4) and len(data) == 12 and data.class_names == tuple("abcdefghij")


def test_packed_and_unpacked_files_may_lie_mixed(clothes: Published, tmp_path: Path) -> None:
    clothes.put(tmp_path / "root", names=NAMES[:1])
    clothes.put(tmp_path / "root" / "tiny-clothes", unpacked=True, names=NAMES[1:])
    assert clothes.is_read(tmp_path / "root")


def test_the_environment_variable_names_the_folder(
    clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_CV_DATA", str(clothes.put(tmp_path / "elsewhere")))
    assert clothes.is_read()


def test_the_working_folders_data_is_searched_last(
    clothes: Published, digits: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clothes.put(tmp_path / "data")
    assert clothes.is_read()
    monkeypatch.setenv("FMNIST_CV_DATA", str(digits.put(tmp_path / "elsewhere")))
    assert clothes.is_read() and digits.is_read()
    assert search_roots() == [tmp_path / "elsewhere", Path("data")]


def test_a_root_is_the_only_place_searched(clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_CV_DATA", str(clothes.put(tmp_path / "elsewhere")))
    clothes.put(tmp_path / "data")
    with pytest.raises(DataNotFound, match=f"not found under {tmp_path / 'root'} "):
        clothes.is_read(tmp_path / "root")


def test_a_root_in_the_home_folder_is_found(
    clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clothes.put(tmp_path / "root")
    assert clothes.is_read(Path("~/root"))


def test_data_sets_with_the_same_file_names_are_told_apart_by_checksum(
    clothes: Published, digits: Published, tmp_path: Path
) -> None:
    root = digits.put(tmp_path / "root")
    clothes.put(root / "tiny-clothes")
    assert clothes.is_read(root) and digits.is_read(root)
    clothes.put(root, unpacked=True)  # beside the digits' packed files
    for file in (root / "tiny-clothes").iterdir():
        file.unlink()
    assert clothes.is_read(root) and digits.is_read(root)


# -- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unpacked", [False, True])
def test_files_of_another_data_set_are_refused(
    clothes: Published, digits: Published, tmp_path: Path, downloads: Callable[..., list[str]], unpacked: bool
) -> None:
    asked, root = downloads(clothes.packed), digits.put(tmp_path / "root", unpacked=unpacked)
    with pytest.raises(UserError) as refusal:
        clothes.is_read(root, download=True)
    message, (wanted, found) = str(refusal.value), (clothes.source.train[0], digits.source.train[0])
    path = root / (NAMES[0] if unpacked else f"{NAMES[0]}.gz")
    assert str(path) in message and "TinyDigits" in message and "--data.root" in message
    for checksum in (found.unpacked_md5, wanted.unpacked_md5) if unpacked else (found.md5, wanted.md5):
        assert str(checksum) in message
    assert not asked and not isinstance(refusal.value, DataNotFound)


def test_a_truncated_file_is_refused_and_kept(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    asked, root = downloads(clothes.packed), clothes.put(tmp_path / "root")
    broken = root / f"{NAMES[1]}.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated, corrupt or of another data set") as refusal:
        clothes.is_read(root, download=True)
    assert str(broken) in str(refusal.value) and md5(broken.read_bytes()) in str(refusal.value)
    assert clothes.source.train[1].md5 in str(refusal.value)
    assert not asked and broken.is_file()


def test_an_unpacked_file_without_known_checksum_is_refused(
    clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (replace(file, unpacked_md5=None) for file in clothes.source.train)
    monkeypatch.setitem(SOURCES, "TinyClothes", replace(clothes.source, train=(first, second)))
    root = clothes.put(tmp_path / "root", unpacked=True)
    with pytest.raises(UserError, match=r"only the checksum of train-images-idx3-ubyte.gz is known"):
        clothes.is_read(root)
    clothes.put(root)
    assert clothes.is_read(root)


def test_an_unreadable_file_is_refused(clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    root = clothes.put(tmp_path / "root")
    monkeypatch.setattr(Path, "read_bytes", denied)  # permissions themselves do not stop the superuser
    with pytest.raises(UserError, match=f"cannot read {root / NAMES[0]}.gz: Permission denied"):
        clothes.is_read(root)


# -- downloaded ---------------------------------------------------------------------------------------------


def test_missing_files_are_downloaded_and_then_found(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    asked, root = downloads(clothes.packed), tmp_path / "new" / "root"
    assert clothes.is_read(root, download=True)
    assert asked == [file.urls[0] for file in (*clothes.source.train, *clothes.source.test)]
    assert sorted(p.name for p in (root / "TinyClothes" / "raw").iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    assert clothes.is_read(root, download=False) and len(asked) == 4


def test_only_what_is_missing_is_downloaded(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    asked, root = downloads(clothes.packed), clothes.put(tmp_path / "root", names=NAMES[:3])
    assert clothes.is_read(root, download=True)
    assert asked == [clothes.source.test[1].urls[0]]


def test_downloads_go_to_the_first_place_searched(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads(clothes.packed)
    assert clothes.is_read(download=True) and (tmp_path / "data" / "TinyClothes" / "raw").is_dir()
    monkeypatch.setenv("FMNIST_CV_DATA", str(tmp_path / "elsewhere"))
    (tmp_path / "data").rename(tmp_path / "away")
    assert clothes.is_read(download=True) and (tmp_path / "elsewhere" / "TinyClothes" / "raw").is_dir()


def test_the_second_mirror_is_asked_where_the_first_fails(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    asked = downloads(clothes.packed, down="//one.", partial=b"half")
    assert clothes.is_read(tmp_path / "root", download=True)
    assert [url.split("/")[2] for url in asked] == ["one.invalid", "two.invalid"] * 4


def test_without_network_the_message_names_the_places_and_nothing_is_left(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = downloads(error=urllib.error.URLError("no route to host"), partial=b"half a file")
    monkeypatch.setenv("FMNIST_CV_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataNotFound) as refusal:
        clothes.is_read(download=True)
    message, file = str(refusal.value), clothes.source.train[0]
    expected = (
        str(tmp_path / "elsewhere"),
        str(tmp_path / "data"),
        "TinyClothes/raw",
        "tiny-clothes",
        file.name,
        *file.urls,
        "no route to host",
        "--data.root",
        "FMNIST_CV_DATA",
        *(f"{n}.gz" for n in NAMES),
    )
    assert [part for part in expected if part not in message] == []
    assert asked == list(file.urls)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [TimeoutError("timed out"), RuntimeError("File not found or corrupted."), IncompleteRead(b"half")],
    ids=lambda e: type(e).__name__,
)
def test_whatever_a_download_fails_of_is_told_and_leaves_nothing(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]], error: Exception
) -> None:
    downloads(error=error, partial=b"half a file")
    with pytest.raises(DataNotFound, match="the download failed"):
        clothes.is_read(tmp_path / "root", download=True)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_no_partial_file(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    downloads(error=KeyboardInterrupt(), partial=b"half a file")
    with pytest.raises(KeyboardInterrupt):
        clothes.is_read(tmp_path / "root", download=True)
    downloads(clothes.packed)
    assert clothes.is_read(tmp_path / "root", download=True)


def test_a_failed_download_leaves_folders_that_were_there(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    downloads(error=urllib.error.URLError("no route to host"))
    (tmp_path / "root").mkdir()
    with pytest.raises(DataNotFound):
        clothes.is_read(tmp_path / "root", download=True)
    assert (tmp_path / "root").is_dir()


def test_a_root_that_is_a_file_is_refused(clothes: Published, tmp_path: Path) -> None:
    """With torchvision's own download, which cannot make its folder."""
    (tmp_path / "root").write_text("not a folder")
    with pytest.raises(UserError, match="root"):
        clothes.is_read(tmp_path / "root", download=True)
    assert (tmp_path / "root").read_text() == "not a folder"


def test_nothing_is_downloaded_where_that_is_switched_off(
    clothes: Published, tmp_path: Path, downloads: Callable[..., list[str]]
) -> None:
    asked = downloads(clothes.packed)
    with pytest.raises(DataNotFound, match="downloading is switched off"):
        clothes.is_read(tmp_path / "root", download=False)
    assert not asked and not (tmp_path / "root").exists()


def test_a_download_has_a_time_limit_and_the_default_comes_back(
    clothes: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []

    def download_url(url: str, root: str | Path, filename: str, md5: str) -> None:
        seen.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("slow")

    before = socket.getdefaulttimeout()
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
    with pytest.raises(DataNotFound):
        clothes.is_read(tmp_path / "root", download=True)
    assert seen == [DOWNLOAD_TIMEOUT_S] * 2 and socket.getdefaulttimeout() == before


# -- the data modules ---------------------------------------------------------------------------------------


class TinyClothesDataModule(FashionMNISTDataModule):
    """The published module, of another source."""

    source = "TinyClothes"


def test_a_data_module_reads_its_source(clothes: Published, tmp_path: Path) -> None:
    module = TinyClothesDataModule(root=str(clothes.put(tmp_path / "root")), download=False, n_splits=3, stratify=False)
    np.testing.assert_array_equal(module.train_images.images.numpy()[:, 0], clothes.arrays[0])
    assert module.test_images is not None and len(module.test_images) == 6
    assert module.data_name == "TinyClothes" and len(module.split.validation) == 4


def test_qmnists_labels_carry_more_than_the_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    labels = np.array([[7, 1, 900], [0, 2, 901], [9, 3, 902]], dtype=np.int32)
    contents = [gzip.compress(idx(array), mtime=0) for array in (images, labels)]
    names = ("qmnist-train-images-idx3-ubyte.gz", "qmnist-train-labels-idx2-int.gz")
    for name, content in zip(names, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    first, second = (IdxFile(name, md5(content), None, ()) for name, content in zip(names, contents, strict=True))
    monkeypatch.setitem(SOURCES, "QMNIST", replace(SOURCES["QMNIST"], train=(first, second)))
    data = load_source("QMNIST", train=True, root=tmp_path, download=False)
    assert data.labels.tolist() == [7, 0, 9] and data.class_names[7] == "7 - seven"


@pytest.mark.parametrize("name", ["FashionMNIST", "MNIST", "KMNIST", "QMNIST"])
def test_published_sources_are_complete(name: str) -> None:
    source = SOURCES[name]
    files = (*source.train, *source.test)
    assert source.directory == name and len(source.class_names) == 10
    assert len({file.md5 for file in files}) == 4 and all(len(file.md5) == 32 for file in files)
    assert all(file.urls and all(url.endswith("/" + file.name) for url in file.urls) for file in files)


def test_fashion_mnist_and_mnist_share_names_but_no_checksum() -> None:
    clothes, digits = ((*SOURCES[name].train, *SOURCES[name].test) for name in ("FashionMNIST", "MNIST"))
    assert [file.name for file in clothes] == [file.name for file in digits]
    theirs, others = ({*(f.md5 for f in files), *(f.unpacked_md5 for f in files)} for files in (clothes, digits))
    assert len(theirs) == len(others) == 8 and theirs.isdisjoint(others)


# -- IDX ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([3, -1, 70_000], dtype=np.int32)]
)
def test_idx_files_are_decoded(array: np.ndarray) -> None:
    np.testing.assert_array_equal(parse_idx(idx(array)), array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file"),
        (b"<html>not found</html>", "not an IDX file"),
        (b"\0\0\x07\1\0\0\0\2ab", "not an IDX file"),
        (b"\0\0\x08\1\0\0", "truncated"),
        (b"\0\0\x08\1\0\0\0\3ab", r"truncated IDX file: 10 bytes do not hold an array of shape \[3\]"),
        (b"\0\0\x08\1\0\0\0\1ab", "truncated"),
        (b"\0\0\x08\2" + b"\xff" * 8 + b"a", "IDX file"),
    ],
)
def test_what_is_no_idx_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_idx(content)


# -- the real data ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_root() -> str:
    shared = Path(__file__).parents[3] / "shared" / "data"
    root = os.environ.get("FMNIST_CV_DATA") or (str(shared) if shared.is_dir() else None)
    if root is None:
        pytest.skip(f"no real data: set FMNIST_CV_DATA to a folder that holds them, or put them into {shared}")
    return root


def real(module: type[FashionMNISTDataModule], root: str) -> tuple[Images, Images]:
    try:
        data = module(root=root, download=False)
        train, test = data.train_images, data.test_images
    except DataNotFound as error:
        pytest.skip(str(error))
    assert test is not None
    return train, test


@pytest.mark.slow
def test_fashion_mnist_is_whole(real_root: str) -> None:
    train, test = real(FashionMNISTDataModule, real_root)
    assert (len(train), len(test)) == (60_000, 10_000) and train.shape == test.shape == (1, 28, 28)
    assert train.labels.bincount().tolist() == [6_000] * 10 and test.labels.bincount().tolist() == [1_000] * 10
    assert train.class_names[0] == "T-shirt/top" and train.class_names[9] == "Ankle boot"
    assert train.labels[:4].tolist() == [9, 0, 0, 3]
    assert float(train.images.float().mean()) / 255 == pytest.approx(0.2860, abs=1e-4)  # the published mean


@pytest.mark.slow
def test_mnist_is_whole_and_another_data_set(real_root: str) -> None:
    train, test = real(MNISTDataModule, real_root)
    assert (len(train), len(test)) == (60_000, 10_000) and train.shape == (1, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.fingerprint() != real(FashionMNISTDataModule, real_root)[0].fingerprint()


def test_emnist_is_read_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are published transposed, and its letters counted from 1."""
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    archive = tmp_path / "root" / "EMNIST" / "raw" / "gzip.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        for kind, array in (("images-idx3", images), ("labels-idx1", np.array([1, 26], dtype=np.uint8))):
            file.writestr(f"gzip/emnist-letters-train-{kind}-ubyte.gz", gzip.compress(idx(array)))
    with pytest.raises(UserError, match=r"gzip\.zip is not EMNIST's"):  # not the published one, by its checksum
        load_emnist("letters", train=True, root=tmp_path / "root", download=False)
    published = replace(sources._EMNIST_ZIP, md5=md5(archive.read_bytes()))
    monkeypatch.setattr(sources, "_EMNIST_ZIP", published)
    data = load_emnist("letters", train=True, root=tmp_path / "root", download=False)
    np.testing.assert_array_equal(data.images[:, 0], images.transpose(0, 2, 1))
    assert data.labels.tolist() == [0, 25]
    assert len(data.class_names) == 26
    with pytest.raises(UserError, match="no split 'capitals'"):
        load_emnist("capitals", train=True)
