"""Tables of image files: columns by name, labels of words or numbers, groups, folds and parts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from fmnist_cv.data import Images, ManifestDataModule
from fmnist_cv.data.cache import entries
from fmnist_cv.errors import UserError

COLUMNS = {"path": [f"{i}.png" for i in range(6)], "label": [*"aabbab"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        Image.new("L", (3, 2), 10 * i).save(tmp_path / f"{i}.png")
    return tmp_path


def manifest(folder: Path, name: str = "m.csv", **columns: Any) -> Path:
    table = pd.DataFrame({**COLUMNS, **columns})
    path = folder / name
    if name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    return path


def greys(images: Images) -> list[int]:
    return images.pixels(torch.arange(len(images)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.parquet", "M.CSV"])
def test_each_kind_of_table_gives_the_same_images(folder: Path, name: str) -> None:
    train = ManifestDataModule(str(manifest(folder, name))).train_images
    assert train.names == tuple(COLUMNS["path"]) and greys(train) == [0, 10, 20, 30, 40, 50]
    assert train.labels.tolist() == [0, 0, 1, 1, 0, 1] and train.class_names == ("a", "b")
    assert train.groups is None and train.folds is None


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)))
def test_the_order_of_the_rows_changes_nothing(folder: Path, order: list[int]) -> None:
    patients = ["x", "y", "z", "x", "y", "w"]
    one, other = (
        ManifestDataModule(str(manifest(folder, **columns)), group="patient", folds="f").train_images
        for columns in (
            {"patient": patients, "f": [0, 1, 2, 0, 1, 2]},
            {
                key: [values[i] for i in order]
                for key, values in {**COLUMNS, "patient": patients, "f": [0, 1, 2, 0, 1, 2]}.items()
            },
        )
    )
    assert one.fingerprint() == other.fingerprint() and one.names == other.names
    assert one.groups is not None and other.groups is not None and one.folds is not None and other.folds is not None
    assert one.groups.tolist() == other.groups.tolist() == [1, 2, 3, 1, 2, 0] and one.group_names == (
        "w",
        "x",
        "y",
        "z",
    )
    assert one.folds.tolist() == other.folds.tolist() == [0, 1, 2, 0, 1, 2]


def test_columns_and_the_folder_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = manifest(tmp_path / "tables", file=[f"./{i}.png" for i in range(6)], kind=["x", "x", "y", "y", "x", "y"])
    data = ManifestDataModule(str(path), image="file", label="kind", root=str(folder))
    assert data.class_names == ("x", "y") and data.train_images.names == tuple(COLUMNS["path"])
    assert data.data_name == "m.csv"


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_labels_may_be_numbers(folder: Path, name: str) -> None:
    train = ManifestDataModule(str(manifest(folder, name, label=[10, 2, 2, 10, 7, 7]))).train_images
    assert train.class_names == ("2", "7", "10") and train.labels.tolist() == [2, 0, 0, 2, 1, 1]
    decimal = ManifestDataModule(str(manifest(folder, name, label=[1.0, 0.0, 0.0, 1.0, 1.0, 0.0])))
    assert decimal.class_names == ("0", "1")


def test_words_that_mean_nothing_to_pandas_are_words(folder: Path) -> None:
    train = ManifestDataModule(str(manifest(folder, label=["NA", "None", "NA", "nan", "null", "NA"]))).train_images
    assert train.class_names == ("NA", "None", "nan", "null")


def test_parts_make_a_test_set_and_a_fixed_validation_set(folder: Path) -> None:
    path = str(manifest(folder, part=["train", "Test", "val", "train", "test", "validation"]))
    data = ManifestDataModule(path, split="part")
    train, test = data.train_images, data.test_images
    assert train.names == ("0.png", "2.png", "3.png", "5.png") and train.folds is not None and test is not None
    assert train.folds.tolist() == [-1, 0, -1, 0]
    assert greys(test) == [10, 40] and test.labels.tolist() == [0, 0] and test.class_names == ("a", "b")
    only = ManifestDataModule(str(manifest(folder, part=["train"] * 5 + ["test"])), split="part")
    assert only.train_images.folds is None and only.test_images is not None
    assert ManifestDataModule(str(manifest(folder))).test_images is None


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_weights_are_read_for_training_images(folder: Path, name: str) -> None:
    part, weights = [*["train"] * 5, "test"], [0.25, 2, 0, 1e3, 5, None]
    data = ManifestDataModule(str(manifest(folder, name, part=part, w=weights)), split="part", weight="w")
    train, test = data.train_images, data.test_images
    assert train.weights is not None and train.weights.tolist() == [0.25, 2, 0, 1000, 5]
    assert test is not None and test.weights is None
    assert ManifestDataModule(str(folder / name), split="part").train_images.weights is None
    cut = ManifestDataModule(str(manifest(folder, name, w=[1, 2, 3, 4, 5, 6])), weight="w")
    cut.test_cut = 0.33
    names, found = cut.train_images.names, cut.train_images.weights
    assert names is not None and found is not None and len(names) == 4
    assert found.tolist() == [int(name[0]) + 1 for name in names]
    assert cut.test_images is not None and cut.test_images.weights is None  # scores are not weighted


def test_folds_may_be_missing_for_some_images(folder: Path) -> None:
    for name in ("m.csv", "m.parquet"):
        path = str(manifest(folder, name, fold=[0, None, 1, -1, 0, 1]))
        folds = ManifestDataModule(path, folds="fold").train_images.folds
        assert folds is not None and folds.tolist() == [0, -1, 1, -1, 0, 1]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({}, {"label": "lable"}, "m.csv has no column 'lable' .data.label.; did you mean 'label'"),
        ({}, {"group": "patient"}, "no column 'patient' .data.group.; its columns are 'path', 'label'"),
        ({"label": ["1", "cat"] * 3}, {}, "mixes numbers and words: '1' in row 1 and 'cat' in row 2"),
        (
            {"label": ["0.5", "1"] * 3},
            {},
            "'label' .data.label. is no whole number.* in 3 of 6 rows, first in row 1: '0.5'",
        ),
        ({"label": ["a", "", "b", "a", "", "b"]}, {}, "is empty in 2 of 6 rows, first in row 2; correct the file"),
        (
            {"path": ["0.png", "1.png", "./0.png", *["2.png"] * 3]},
            {},
            "for the second time in 3 of 6 rows, first in row 3",
        ),
        ({"p": ["x", " "] * 3}, {"group": "p"}, "'p' .data.group. is empty in 3 of 6 rows"),
        (
            {"f": ["0", "one"] * 3},
            {"folds": "f"},
            "'f' .data.folds. is not a fold.* in 3 of 6 rows, first in row 2: 'one'",
        ),
        (
            {"w": [1, "-0.5"] * 3},
            {"weight": "w"},
            "'w' .data.weight. is not a finite number of at least 0 in 3 of 6 rows",
        ),
        ({"w": [1, "much"] * 3}, {"weight": "w"}, "'w' .data.weight. is not a .* first in row 2: 'much'"),
        ({"w": [1, "1e999"] * 3}, {"weight": "w"}, "'w' .data.weight. is not a finite .* first in row 2: '1e999'"),
        (
            {"w": [1, None] * 3},
            {"weight": "w"},
            "'w' .data.weight. is not a .* in 3 of 6 rows, first in row 2; correct",
        ),
        ({"s": ["train", "dev"] * 3}, {"split": "s"}, "is not one of train, validation and test in 3 of 6 rows"),
        ({"s": ["test"] * 6}, {"split": "s"}, "m.csv has no row for training"),
        (
            {"s": ["train", "val"] * 3, "f": [0] * 6},
            {"split": "s", "folds": "f"},
            "folds in the column 'f' and a fixed validation set in the column 's'",
        ),
        (
            {"s": ["train", "test"] * 3, "p": ["x", "y", "z", "x", "x", "z"]},
            {"split": "s", "group": "p"},
            "2 groups have both test images and others, such as 'x'",
        ),
        (
            {"label": [*"aabbcc"], "s": ["train"] * 4 + ["test"] * 2},
            {"split": "s"},
            "the class 'c' has only test images, first '4.png'",
        ),
        (
            {"path": [f"{i}.png" for i in range(4, 10)]},
            {},
            r"names 4 of 6 files that are not there: .*6.png; .*7.png; .*8.png; …; correct the paths",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(
    folder: Path, columns: dict[str, Any], arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _ = ManifestDataModule(str(manifest(folder, **columns)), **arguments).train_images  # type: ignore[arg-type]
    assert not any(entry.facts.get("source", "").startswith(str(folder)) for entry in entries())


def test_missing_files_may_be_skipped(folder: Path) -> None:
    (folder / "3.png").unlink()
    train = ManifestDataModule(str(manifest(folder)), on_broken="skip").train_images
    assert greys(train) == [0, 10, 20, 40, 50] and train.labels.tolist() == [0, 0, 1, 0, 1]


def test_files_that_are_no_tables_are_refused(folder: Path) -> None:
    (folder / "empty.csv").touch()
    (folder / "header.csv").write_text("path,label\n")
    (folder / "latin.csv").write_bytes("path,label\n0.png,é\n".encode("latin-1"))
    (folder / "ragged.csv").write_text("path,label\n0.png,a\n1.png,a,b,c\n")
    (folder / "text.parquet").write_text("path,label\n")
    for name, message in (
        ("nowhere.csv", "cannot read .*nowhere.csv: No such file"),
        ("m.xlsx", "m.xlsx; a manifest is a file that ends in .csv, .tsv"),
        ("empty.csv", "empty.csv is not a table"),
        ("header.csv", "header.csv has no rows"),
        ("latin.csv", "latin.csv is not a table of text in UTF-8"),
        ("ragged.csv", "ragged.csv is not a table"),
        ("text.parquet", "text.parquet is not a Parquet file"),
    ):
        with pytest.raises(UserError, match=message):
            _ = ManifestDataModule(str(folder / name)).train_images


def test_a_parquet_manifest_without_its_package(folder: Path, without_package: Any) -> None:
    path = manifest(folder, "m.parquet")
    without_package("pyarrow")
    with pytest.raises(
        UserError, match=r"A Parquet manifest needs the package pyarrow: pip install 'fmnist_cv\[parquet\]'"
    ):
        _ = ManifestDataModule(str(path)).train_images


def test_values_of_a_parquet_file_are_read_as_they_are_written_in_a_csv_file(folder: Path) -> None:
    table = pd.DataFrame({**COLUMNS, "label": pd.Categorical([*"aabbab"]), "patient": np.array([3, 3, 1, 2, 1, 2])})
    table.to_parquet(folder / "typed.parquet")
    train = ManifestDataModule(str(folder / "typed.parquet"), group="patient").train_images
    assert train.class_names == ("a", "b") and train.group_names == ("1", "2", "3")
