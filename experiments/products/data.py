"""Fashion Product Images (Small) as 28x28 grey images of the classes of Fashion-MNIST."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from experiments.products.preprocessing import Preprocessing, preprocess
from experiments.products.styles import (
    OF_IMAGES,
    RECODING,
    Product,
    ReadingReport,
    find_products,
    read_recoding,
    read_styles,
)
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.photos import FORMATS, MAX_PIXELS, SIZE, UnreadableImage, pixel_limit, read_photo
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, print_line

N_DEVELOPMENT = 1_000
_CACHE_FORMAT = 1  # raised when preprocessing changes


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
        preprocessing: "fashion-mnist" or "as-published", see `experiments.products.preprocessing`.
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
            raise UserError(f"data.part is '{self.part}', but of the {len(images)} images none is left for this part")
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
        """The images from the cache if the files are unchanged, else read and cached."""
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
            with tempfile.NamedTemporaryFile(dir=self.cache, suffix=".npz.tmp", delete=False) as temporary:
                ids = np.array([product.id for product in shown])
                np.savez(
                    temporary,
                    images=images,
                    ids=ids,
                    report=np.array(json.dumps({name: getattr(report, name) for name in OF_IMAGES})),
                )
            os.replace(temporary.name, path)
        except OSError as error:
            print_line(console, f"the read images cannot be kept in {self.cache}: {error.strerror}")
        return images, shown, report


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return list(os.scandir(folder / "images")) if (folder / "images").is_dir() else []
