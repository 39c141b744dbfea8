"""Fashion Product Images: rows and images of every kind are read or counted, and a cache holds what was read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.products import ProductImagesDataModule
from experiments.products.styles import read_recoding
from fmnist_cv import fit
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.errors import DataNotFound, UserError

HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"


def row(number: object, article: str, name: str = "") -> str:
    return f"{number},Men,Apparel,Topwear,{article},Blue,Fall,2011,Casual,{name or f'Product {number}'}"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Twelve good products, and one of each kind of trouble."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    articles = ["Tshirts", "Jeans", "Sweaters", "Dresses", "Jackets", "Sandals"] * 2
    rows = [row(100 - i, article) for i, article in enumerate(articles)]
    for i in range(len(articles)):
        image = Image.new("RGB", (60, 80), "white")
        image.paste((10 * i, 60, 90), (10, 10, 40, 60))
        image.save(folder / "images" / f"{100 - i}.jpg", quality=95)
    Image.open(folder / "images" / "100.jpg").convert("L").save(folder / "images" / "100.jpg")
    Image.new("RGB", (60, 60), "navy").save(folder / "images" / "99.jpg")
    rows += [
        row(200, "Shirts"),  # without an image
        row(201, "Shirts"),  # of which the image is broken
        row(202, "Watches"),
        row(100, "Jeans"),  # an id that came before
        "203,Men,Apparel",
        "none,Men,Apparel,Topwear,Shirts,Blue,Fall,2011,Casual,Product",
        row(204, "Handbags", "A bag, red, with a strap"),  # commas that no quotes hold together
    ]
    (folder / "images" / "201.jpg").write_bytes((folder / "images" / "98.jpg").read_bytes()[:300])
    Image.new("RGB", (60, 80), "red").save(folder / "images" / "204.jpg")
    (folder / "images" / "notes.txt").write_text("no product")
    (folder / "styles.csv").write_text("\n".join([HEADER, *rows, ""]))
    return folder


def module(shop: Path, **options: object) -> ProductImagesDataModule:
    return ProductImagesDataModule(root=str(shop), cache=str(shop.parent / "cache"), **options)  # type: ignore[arg-type]


def test_every_row_and_image_is_read_or_counted(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = module(shop)
    images, report = data.train_images, data.report
    assert report is not None and images.shape == (1, 28, 28) and len(images) == 13
    assert (report.rows, report.malformed, report.repeated, report.other_types) == (19, [18, 19], 1, {"Watches": 1})
    assert (report.without_image, report.read, report.grey, report.other_sizes) == (1, 13, 1, 1)
    (broken,) = report.unreadable
    assert "201.jpg" in broken and data.test_images is None
    told = " ".join(capsys.readouterr().err.split())
    assert "1 images left out that cannot be read" in told and "2 malformed rows left out, the first in line 18" in told
    # by id: 89 is the last of the twelve, a pair of sandals
    assert images.labels[:3].tolist() == [5, 4, 3] and images.class_names[int(images.labels[-1])] == "Bag"


def test_what_was_read_is_kept_until_the_files_change(shop: Path) -> None:
    first = module(shop).train_images
    (cached,) = (shop.parent / "cache").glob("products-*.npz")
    again = module(shop)
    assert again.train_images.fingerprint() == first.fingerprint() and again.report is not None
    assert again.report.grey == 1
    assert module(shop, preprocessing="as-published").train_images.fingerprint() != first.fingerprint()
    Image.new("RGB", (60, 80), "green").save(shop / "images" / "204.jpg", quality=50)
    assert module(shop).train_images.fingerprint() != first.fingerprint()
    cached.write_bytes(cached.read_bytes()[:500])
    assert len(module(shop).train_images) == 13  # a damaged cache is read anew


def test_development_and_rest_are_all_images(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.products.data.N_DEVELOPMENT", 5)
    parts = [module(shop, part=part, part_seed=3).train_images for part in ("development", "rest")]
    assert [len(part) for part in parts] == [5, 8]
    both = np.sort(np.concatenate([part.images.numpy().reshape(len(part), -1) for part in parts]), axis=0)
    whole = module(shop).train_images.images.numpy().reshape(13, -1)
    assert (both == np.sort(whole, axis=0)).all()
    other = module(shop, part="development", part_seed=4).train_images
    assert other.fingerprint() != parts[0].fingerprint()


def test_photos_of_products_that_were_chosen_on_are_in_neither_part(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.products.data.N_DEVELOPMENT", 5)
    text = (shop / "styles.csv").read_text()
    for number in (89, 90, 91, 98, 99, 100):
        text = text.replace(f"Product {number}\n", "Product\n")
    (shop / "styles.csv").write_text(text)
    development, rest = (module(shop, part=part, part_seed=3).train_images for part in ("development", "rest"))
    assert len(development) == 5 and 0 < len(rest) < 8  # six have one name, and some of them are in development


def test_products_of_one_name_are_a_group(shop: Path) -> None:
    text = (shop / "styles.csv").read_text().replace("Product 100\n", "Product 99\n")
    (shop / "styles.csv").write_text(text)
    groups = module(shop).train_images.groups
    assert groups is not None and len(groups.unique()) == 12


def test_a_quote_that_is_never_closed_costs_no_other_row(shop: Path) -> None:
    text = (shop / "styles.csv").read_text().replace("Product 99\n", '"5 pocket jeans\n')
    (shop / "styles.csv").write_text("\ufeff" + text + "7" * 5000 + text.splitlines()[1][3:] + "\n", encoding="utf-8")
    data = module(shop)
    assert len(data.train_images) == 13 and data.report is not None and data.report.malformed == [18, 19, 21]
    with open(shop / "styles.csv", "a") as file:
        file.write(row(300, "Watches") + "\n")
    again = module(shop)  # whose images come from the cache
    assert len(again.train_images) == 13 and again.report is not None and again.report.other_types == {"Watches": 2}


def test_what_cannot_be_used_is_refused_with_the_reason(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"styles.csv not found under"):
        _ = module(tmp_path / "nowhere").train_images
    with pytest.raises(UserError, match=r"data.part is 'half'"):
        module(shop, part="half")
    with pytest.raises(UserError, match=r"data.part is 'rest', but of the 13 images none is left"):
        _ = module(shop, part="rest").train_images
    (shop / "styles.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no columns id and articleType"):
        _ = module(shop).train_images
    recoding = tmp_path / "recoding.yaml"
    recoding.write_text("Top: [Tshirts]\nShirt: [Tshirts]\n")
    with pytest.raises(UserError, match="has an article type in two classes"):
        read_recoding(recoding)
    recoding.write_text("- Tshirts\n")
    with pytest.raises(UserError, match="is no recoding"):
        read_recoding(recoding)


def config_of(class_path: str) -> list[str]:
    return ["--config=quickstart", f"--data={class_path}", "--data.batch_size=50"]


def test_old_configs_find_the_class_in_a_checkout() -> None:
    for module in ("fmnist_cv.data", "experiments.products"):
        data = Experiment.parse(config_of(f"{module}.ProductImagesDataModule")).build(0).data
        assert type(data) is ProductImagesDataModule and data.batch_size == 50


def test_without_a_checkout_old_configs_are_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "experiments", None)  # type: ignore[arg-type]
    assert fit.main(config_of("fmnist_cv.data.ProductImagesDataModule")) == 2
    error = capsys.readouterr().err
    assert "no longer part of the package; write experiments.products.ProductImagesDataModule" in error
    assert "Traceback" not in error
