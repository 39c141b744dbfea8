"""MNIST-style data sets: found on disk or downloaded, and verified by checksum before they are read.

The data sets share file names (`train-images-idx3-ubyte.gz` is Fashion-MNIST's and the digits' alike), so a
file is identified by its MD5 alone. The checksums of the `.gz` files and the mirrors are
torchvision's; those of unpacked files were computed from files whose `.gz` matched.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torchvision.datasets as tv

from fmnist_cv.data.images import Images
from fmnist_cv.errors import DataNotFound, UserError
from fmnist_cv.utils.paths import user_path

DATA_VARIABLE = "FMNIST_CV_DATA"
DOWNLOAD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class IdxFile:
    """One published file: its `.gz` name and checksum, the checksum once unpacked (if known), and its addresses."""

    name: str
    md5: str
    unpacked_md5: str | None
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A published data set of 28x28 grey images in IDX files; `directory` is torchvision's name for it."""

    directory: str
    slug: str
    class_names: tuple[str, ...]
    train: tuple[IdxFile, ...]
    test: tuple[IdxFile, ...]


def _four_files(dataset: type[tv.MNIST], slug: str, unpacked: list[str | None]) -> Source:
    files = [
        IdxFile(name, md5, raw, tuple(mirror + name for mirror in dataset.mirrors))
        for (name, md5), raw in zip(dataset.resources, unpacked, strict=True)
    ]
    return Source(dataset.__name__, slug, tuple(dataset.classes), (files[0], files[1]), (files[2], files[3]))


def _qmnist() -> Source:
    pairs = {
        part: tuple(IdxFile(url.rsplit("/", 1)[1], md5, None, (url,)) for url, md5 in tv.QMNIST.resources[part])
        for part in ("train", "test")
    }
    return Source("QMNIST", "qmnist", tuple(tv.MNIST.classes), pairs["train"], pairs["test"])


SOURCES = {
    "FashionMNIST": _four_files(
        tv.FashionMNIST,
        "fashion-mnist",
        [
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ],
    ),
    "MNIST": _four_files(
        tv.MNIST,
        "mnist",
        [
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ],
    ),
    "KMNIST": _four_files(tv.KMNIST, "kmnist", [None] * 4),
    "QMNIST": _qmnist(),
}


def load_source(name: str, *, train: bool, root: str | Path | None = None, download: bool = True) -> Images:
    """Read one part of a published data set.

    Args:
        name: a key of `SOURCES`.
        train: the training part, or the test part.
        root: the only place to search; otherwise `$FMNIST_CV_DATA` and then `./data`.
        download: fetch what is missing into torchvision's layout under the first of those places.

    Returns:
        Images of shape (n, 1, 28, 28), uint8, and their labels.

    Raises:
        DataNotFound: the files are in none of the folders and cannot be downloaded.
        UserError: a file is truncated, corrupt, or part of another data set.
    """
    source = SOURCES[name]
    files = source.train if train else source.test
    images, labels = (parse_idx(_content(source, file, root, download)) for file in files)
    if labels.ndim == 2:  # QMNIST's labels carry the writer and more behind the digit
        labels = labels[:, 0]
    return Images.from_arrays(images, labels, source.class_names)


def stored_files(source: Source, *, train: bool, root: str | Path | None = None) -> list[Path]:
    """The files on disk from which one part of a data set may be read, in the order in which they are tried."""
    files = source.train if train else source.test
    return [path for file in files for path in _candidates(source, search_roots(root), file) if path.is_file()]


_EMNIST_ZIP = IdxFile("gzip.zip", tv.EMNIST.md5, None, (tv.EMNIST.url,))
EMNIST = Source("EMNIST", "emnist", (), (_EMNIST_ZIP,), (_EMNIST_ZIP,))


def load_emnist(split: str, *, train: bool, root: str | Path | None = None, download: bool = True) -> Images:
    """Read one part of a split of EMNIST ("balanced", "letters", "digits", "byclass", "bymerge", "mnist").

    EMNIST is published as one archive of all splits, with its images transposed and the letters counted from 1.

    Args:
        split: which labelling of the characters.
        train, root, download: as for `load_source`.

    Raises:
        DataNotFound: the archive is in none of the folders and cannot be downloaded.
        UserError: there is no such split, or the archive is damaged.
    """
    if split not in tv.EMNIST.splits:
        raise UserError(f"EMNIST has no split '{split}'; there are {', '.join(tv.EMNIST.splits)}")
    part = "train" if train else "test"
    with zipfile.ZipFile(io.BytesIO(_content(EMNIST, _EMNIST_ZIP, root, download))) as archive:
        images, labels = (
            parse_idx(gzip.decompress(archive.read(f"gzip/emnist-{split}-{part}-{kind}-ubyte.gz")))
            for kind in ("images-idx3", "labels-idx1")
        )
    names = [name for name in tv.EMNIST.classes_split_dict[split] if name != "N/A"]
    first = 1 if split == "letters" else 0
    return Images.from_arrays(images.transpose(0, 2, 1), labels.astype(np.int64) - first, names)


def search_roots(root: str | Path | None = None) -> list[Path]:
    """The folders searched for data, in order."""
    if root is not None:
        return [user_path(root, "data.root")]
    from_environment = os.environ.get(DATA_VARIABLE)
    return [*([user_path(from_environment, f"${DATA_VARIABLE}")] if from_environment else []), Path("data")]


def _candidates(source: Source, roots: list[Path], file: IdxFile) -> Iterator[Path]:
    """Every path at which the file may be found, packed or unpacked, in the order in which they are tried."""
    for root in roots:
        for folder in (root / source.directory / "raw", root / source.slug, root / source.directory, root):
            yield folder / file.name
            yield folder / file.name.removesuffix(".gz")


def _content(source: Source, file: IdxFile, root: str | Path | None, download: bool) -> bytes:
    """A file's verified content, without its `.gz` packing, from disk or from the network."""
    roots = search_roots(root)
    refused: list[str] = []
    for path in _candidates(source, roots, file):
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        expected = file.md5 if path.name == file.name else file.unpacked_md5
        if expected is None:
            refused.append(
                f"{path} is unpacked, and only the checksum of {file.name} is known; put the .gz file next to it"
            )
        elif (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != expected:
            refused.append(
                f"{path} is not {source.directory}'s {file.name}{_identify(found)}: "
                f"its MD5 is {found}, expected {expected}"
            )
        else:
            return gzip.decompress(content) if path.suffix == ".gz" else content
    if refused:
        raise UserError(
            f"{refused[0]}. Replace or remove the file (it is downloaded again when absent), "
            "or name another folder with --data.root"
        )
    if not download:
        raise DataNotFound(_not_found(source, roots, file, "downloading is switched off"))
    return _download(source, roots, file)


def _identify(md5: str) -> str:
    """What a file with the wrong checksum is, e.g. " (it is train-images-idx3-ubyte.gz of MNIST)"."""
    for source in SOURCES.values():
        for file in (*source.train, *source.test):
            if md5 in (file.md5, file.unpacked_md5):
                return f" (it is {file.name} of {source.directory})"
    return " (truncated, corrupt or of another data set)"


def _download(source: Source, roots: list[Path], file: IdxFile) -> bytes:
    errors = []
    folder = roots[0] / source.directory / "raw"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    timeout, download = socket.getdefaulttimeout(), tv.utils.download_url
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        for url in file.urls:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # into a temporary folder first: the next run would take an incomplete download for the user's file
                with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
                    download(url, scratch, filename=file.name, md5=file.md5)
                    os.replace(Path(scratch) / file.name, folder / file.name)
                content = (folder / file.name).read_bytes()
                return gzip.decompress(content) if file.name.endswith(".gz") else content
            except (OSError, RuntimeError, ValueError, HTTPException) as error:
                errors.append(f"{url}: {getattr(error, 'reason', error)}")
    finally:
        socket.setdefaulttimeout(timeout)
        _remove_if_empty(*made)
    raise DataNotFound(_not_found(source, roots, file, "the download failed (" + "; ".join(errors) + ")"))


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _not_found(source: Source, roots: list[Path], file: IdxFile, why: str) -> str:
    places = ", ".join(str(root.absolute()) for root in roots)
    return (
        f"{source.directory}: {file.name} not found under {places} (looked in {source.directory}/raw, "
        f"{source.slug}/, {source.directory}/ and the folder itself), and {why}. Put "
        f"{', '.join(dict.fromkeys(f.name for f in (*source.train, *source.test)))} into one of these folders, or name the "
        f"folder that holds them with --data.root or ${DATA_VARIABLE}"
    )


_IDX_TYPES: dict[int, str] = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def parse_idx(content: bytes) -> np.ndarray:
    """Decode an IDX file: two zero bytes, a type byte, a byte for the number of axes, their lengths, the data.

    Raises:
        UserError: the content is not an IDX file, or its length differs from the one in its header.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise UserError("not an IDX file: the header is wrong")
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4) if len(content) >= 4 + 4 * n_axes else np.array([-1])
    dtype = np.dtype(_IDX_TYPES[content[2]])
    if (shape < 0).any() or len(content) != 4 + 4 * n_axes + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise UserError(f"truncated IDX file: {len(content)} bytes do not hold an array of shape {shape.tolist()}")
    return np.frombuffer(content, dtype, offset=4 + 4 * n_axes).reshape(shape)
