"""styles.csv of Fashion Product Images (Small), and the recoding of its article types to the classes of Fashion-MNIST."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from fmnist_cv.config.yaml_files import load_yaml, read_yaml_text
from fmnist_cv.data.sources import search_roots
from fmnist_cv.errors import DataNotFound, UserError

RECODING = Path(__file__).with_name("recoding.yaml")
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
        UserError: the file is not a mapping of class names to lists of article types, or has a type twice.
    """
    content = load_yaml(read_yaml_text(path, "recoding"))
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
