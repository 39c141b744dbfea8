"""Fashion Product Images (Small): photos of a shop's products, and their article types as Fashion-MNIST's classes."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from fmnist_cv.config.yaml_files import read_yaml
from fmnist_cv.data.images import Images
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.photos import (
    FORMATS,
    MAX_PIXELS,
    SIZE,
    Preprocessing,
    UnreadableImage,
    pixel_limit,
    preprocess,
    read_photo,
)
from fmnist_cv.data.sources import search_roots
from fmnist_cv.errors import DataNotFound, UserError
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, print_line

RECODING = Path(__file__).with_name("product_recoding.yaml")
FOLDERS = ("fashion-product-images", "fashion-product-images-small", ".")
COLUMNS = (
    "id",
    "gender",
    "masterCategory",
    "subCategory",
    "articleType",
    "baseColour",
    "season",
    "year",
    "usage",
    "productDisplayName",
)
N_DEVELOPMENT = 1_000
_CACHE_FORMAT = 1  # raised when preprocessing changes


@dataclass(frozen=True)
class Product:
    """A row of styles.csv that has one of the classes."""

    id: int
    label: int
    name: str


@dataclass
class ReadingReport:
    """What became of the rows of styles.csv and of their images; nothing of it is fatal."""

    rows: int = 0
    malformed: list[int] = field(default_factory=list)  # line numbers
    repeated: int = 0
    other_types: dict[str, int] = field(default_factory=dict)
    without_image: int = 0
    unreadable: list[str] = field(default_factory=list)
    grey: int = 0
    other_sizes: int = 0
    read: int = 0

    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{self.rows:,} rows in styles.csv; {sum(self.other_types.values()):,} of {len(self.other_types)} article "
            f"types that are none of the classes, {self.without_image:,} without an image; {self.read:,} images read, "
            f"{self.grey:,} of them grey, {self.other_sizes:,} not 60x80"
        ]
        if self.malformed:
            found.append(f"{len(self.malformed)} malformed rows left out, the first in line {self.malformed[0]}")
        if self.repeated:
            found.append(f"{self.repeated} rows left out whose id came before")
        if self.unreadable:
            found.append(
                f"{len(self.unreadable)} images left out that cannot be read: {'; '.join(self.unreadable[:3])}"
                + ("; ..." if len(self.unreadable) > 3 else "")
            )
        return found


OF_IMAGES = ("without_image", "unreadable", "grey", "other_sizes", "read")  # what the cache holds of a report


def find_products(root: str | None) -> Path:
    """The folder with styles.csv and images/: `root` or a folder in it; without one, in $FMNIST_CV_DATA or ./data.

    Raises:
        DataNotFound: it is nowhere there.
    """
    places = search_roots(root)
    for place in places:
        for folder in FOLDERS:
            if (place / folder / "styles.csv").is_file():
                return place / folder
    raise DataNotFound(
        f"Fashion Product Images: styles.csv not found under {' or '.join(map(str, places))} (looked in {', '.join(FOLDERS[:-1])} and the "
        "folder itself); get 'Fashion Product Images (Small)' by Param Aggarwal from Kaggle, unpack it, and give the "
        "folder with data.root"
    )


def read_recoding(path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes' names, and each article type's class.

    Raises:
        UserError: the file is no mapping of class names to lists of article types, or has a type twice.
    """
    content = read_yaml(path, "recoding")
    if not isinstance(content, dict) or not all(isinstance(types, list) for types in content.values()):
        raise UserError(f"{path} is no recoding: it must map class names to lists of article types")
    classes = {str(article): label for label, types in enumerate(content.values()) for article in types}
    if len(classes) < sum(map(len, content.values())):
        raise UserError(f"{path} has an article type in two classes")
    return tuple(map(str, content)), classes


def read_styles(path: Path, classes: dict[str, int], report: ReadingReport) -> list[Product]:
    """The rows of styles.csv that have one of the classes, by id.

    The published file has rows whose product name holds commas without quotes: these are whole but for the name. A line
    is a row: a quote that is never closed must not swallow the lines after it.
    """
    products: dict[int, Product] = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = _cells(next(file, ""))
        if not {"id", "articleType"} <= set(header):
            raise UserError(f"{path} has no columns id and articleType; its first line is {','.join(header)[:100]}")
        place = {name: header.index(name) for name in COLUMNS if name in header}
        for number_of_line, line in enumerate(file, 2):
            row = _cells(line)
            report.rows += 1
            if len(row) < len(header) or not re.fullmatch("[0-9]{1,12}", row[place["id"]]):
                report.malformed.append(number_of_line)
                continue
            article, number = row[place["articleType"]], int(row[place["id"]])
            if article not in classes:
                report.other_types[article] = report.other_types.get(article, 0) + 1
            elif number in products:
                report.repeated += 1
            else:
                name = ",".join(row[place["productDisplayName"] :]) if "productDisplayName" in place else str(number)
                products[number] = Product(number, classes[article], name)
    return [products[number] for number in sorted(products)]


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line.replace("\0", "").rstrip("\r\n")]), [])
    except csv.Error:  # a field of more than 131,072 characters
        return []


def read_images(
    folder: Path, products: Sequence[Product], how: Preprocessing, report: ReadingReport, console: Console
) -> tuple[np.ndarray, list[Product]]:
    """Read and preprocess the photos, with a progress bar; what cannot be read is counted and left out.

    Returns:
        uint8 (n, 28, 28), and the products that they show.
    """
    there = {entry.name for entry in _entries(folder)}
    with_image = [product for product in products if f"{product.id}.jpg" in there]
    report.without_image = len(products) - len(with_image)

    def read(product: Product) -> tuple[np.ndarray, bool, tuple[int, int]] | str:
        path = folder / "images" / f"{product.id}.jpg"
        try:
            photo = read_photo(path)
        except UnreadableImage as error:
            return str(error)
        with Image.open(path, formats=FORMATS) as file:
            return preprocess(photo, how), file.mode == "L", photo.size

    images, shown = [], []
    with pixel_limit(MAX_PIXELS), ThreadPoolExecutor(os.cpu_count()) as pool:
        what = "reading product images"
        for product, found in zip(
            with_image, track(pool.map(read, with_image), what, len(with_image), console=console), strict=True
        ):
            if isinstance(found, str):
                report.unreadable.append(found)
                continue
            image, is_grey, size = found
            report.grey += is_grey
            report.other_sizes += size != (60, 80)
            images.append(image)
            shown.append(product)
    report.read = len(images)
    return np.stack(images) if images else np.empty((0, SIZE, SIZE), np.uint8), shown


class ProductImagesDataModule(KFoldDataModule):
    """Fashion Product Images (Small): up to 44,441 photos of 60x80 pixels, recoded to ten classes, as 28x28 grey images.

    Products of one name (a shirt in three photos, say) stay on one side of every split. There is no test set.

    Args:
        root: folder that holds styles.csv and images/<id>.jpg; otherwise $FMNIST_CV_DATA, ./data.
        preprocessing: "fashion-mnist" or "as-published", see `fmnist_cv.data.photos.preprocess`.
        recoding: YAML file that maps class names to article types; None for that of Sharifi, Hannesdottir and Dan.
        part: "all" images; "development", 1,000 to choose on; or "rest", all others but those of products whose name is
            among the 1,000.
        part_seed: decides the 1,000.
        cache: folder for the read images, so that they are read once; None for $XDG_CACHE_HOME/fmnist_cv.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        root: str | None = None,
        preprocessing: Preprocessing = "fashion-mnist",
        recoding: str | None = None,
        part: str = "all",
        part_seed: int = 0,
        cache: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if part not in ("all", "development", "rest"):
            raise UserError(f"data.part is '{part}'; it is one of all, development, rest")
        if part_seed < 0:
            raise UserError(f"data.part_seed is {part_seed}; it must not be negative")
        self.root, self.preprocessing, self.part, self.part_seed = root, preprocessing, part, part_seed
        self.recoding = RECODING if recoding is None else user_path(recoding, "data.recoding")
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.cache = user_path(f"{caches}/fmnist_cv" if cache is None else cache, "data.cache")
        self.report: ReadingReport | None = None

    @property
    def data_name(self) -> str:
        """With its part."""
        return "Fashion Product Images" + ("" if self.part == "all" else f", {self.part}")

    def load(self, train: bool) -> Images | None:
        """Read the photos, or take them from the cache; says what was left out and why.

        Raises:
            DataNotFound: there is no styles.csv.
            UserError: no image is left.
        """
        if not train:
            return None
        folder, console = find_products(self.root), make_console(stderr=True)
        class_names, classes = read_recoding(self.recoding)
        report = ReadingReport()
        products = read_styles(folder / "styles.csv", classes, report)
        images, products, self.report = self._cached(folder, products, report, console)
        for line in self.report.lines():
            print_line(console, line)
        if not len(images):
            raise UserError(f"{folder} has no image that can be read of any of the classes")
        labels, names = np.array([p.label for p in products]), np.array([p.name for p in products])
        chosen = self._chosen(names)
        if not chosen.any():
            raise UserError(
                f"data.part is '{self.part}', but of the {len(images)} images none is left beside the other part"
            )
        return Images.from_arrays(images[chosen], labels[chosen], class_names, names[chosen])

    def _chosen(self, names: np.ndarray) -> np.ndarray:
        """bool (n,), whether each image belongs to the part."""
        if self.part == "all":
            return np.ones(len(names), dtype=bool)
        development = np.zeros(len(names), dtype=bool)
        development[np.random.default_rng(self.part_seed).permutation(len(names))[:N_DEVELOPMENT]] = True
        if self.part == "development":
            return development
        return ~np.isin(names, names[development])  # another photo of the same product has been chosen on, too

    def _cached(
        self, folder: Path, products: list[Product], report: ReadingReport, console: Console
    ) -> tuple[np.ndarray, list[Product], ReadingReport]:
        """The images from the cache, as long as the files are as they were; else read and put there."""
        files = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in _entries(folder)]
        what = repr((_CACHE_FORMAT, self.preprocessing, products, sorted(files)))
        path = self.cache / f"products-{hashlib.blake2b(what.encode(), digest_size=10).hexdigest()}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                by_id = {product.id: product for product in products}
                kept = replace(report, **json.loads(str(file["report"])))
                return file["images"], [by_id[number] for number in file["ids"].tolist()], kept
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):  # none, or damaged
            images, shown = read_images(folder, products, self.preprocessing, report, console)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.cache, suffix=".npz.tmp", delete=False) as beside:
                ids = np.array([product.id for product in shown])
                np.savez(
                    beside,
                    images=images,
                    ids=ids,
                    report=np.array(json.dumps({name: getattr(report, name) for name in OF_IMAGES})),
                )
            os.replace(beside.name, path)
        except OSError as error:
            print_line(console, f"the read images cannot be kept in {self.cache}: {error.strerror}")
        return images, shown, report


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return list(os.scandir(folder / "images")) if (folder / "images").is_dir() else []
