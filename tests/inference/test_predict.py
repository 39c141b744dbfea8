"""The command `python -m fmnist_cv.predict`."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Commands

from fmnist_cv.inference.ensemble import load_ensemble
from fmnist_cv.inference.files import predict_files
from fmnist_cv.predict import main

Garments = Callable[[int], list[Path]]


def test_as_a_process_it_predicts_what_it_can_and_tells_of_the_rest(
    commands: Commands, run: Path, garments: Garments
) -> None:
    paths = garments(12)
    folder = paths[0].parent
    (folder / "text.png").write_text("I am no image")
    ended = commands.run(run, folder, "--format", "csv", command="predict")
    assert ended.status == 1
    assert ended.err.splitlines() == [
        "SYNTHETIC: these networks were trained on synthetic images; do not trust their labels",
        f"skipped: {folder}/text.png is not an image, or of another format than JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF",
        "1 of 13 files were skipped",
    ]
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    expected = predict_files(load_ensemble(run), paths)
    assert {row["file"]: row["label"] for row in rows} == dict(
        zip(map(str, paths), expected.table["label"], strict=True)
    )
    for row in rows:
        classes = [float(value) for key, value in row.items() if key.startswith("p(")]
        assert sum(classes) == pytest.approx(1, abs=1e-3) and max(classes) == float(row["probability"])
        assert row["agreement"] in ("0.0000", "0.3333", "0.6667", "1.0000") and row["prepared"] == "as it is"


def test_a_reader_that_stops_reading_is_no_error(run: Path, garments: Garments) -> None:
    command = [sys.executable, "-m", "fmnist_cv.predict", run, *garments(300), "--format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read().count("\n") == 1 and process.wait() == 0


def test_table_csv_and_json_say_the_same(
    run: Path, garments: Garments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in garments(4)]
    assert main([str(run), *paths]) == 0
    table = capsys.readouterr().out
    assert main([str(run), *paths, "--out", str(tmp_path / "found.csv")]) == 0
    assert capsys.readouterr().out == f"4 predictions: {tmp_path / 'found.csv'}\n"
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert main([str(run), *paths, "--format", "json"]) == 0
    objects = json.loads(capsys.readouterr().out)
    assert main([str(run), *paths, "--out", str(tmp_path / "found.txt")]) == 0
    assert (tmp_path / "found.txt").read_text() == table.replace("\x1b", "")
    assert main([str(run), *paths, "--out", str(tmp_path / "upper.CSV")]) == 0
    assert (tmp_path / "upper.CSV").read_text() == (tmp_path / "found.csv").read_text()
    for i, (row, found) in enumerate(zip(rows, objects, strict=True)):
        line = next(line for line in table.splitlines() if f" {i}.png " in line)
        assert row["file"] == found["file"] == paths[i]
        assert row["label"] == found["label"] == max(found["probabilities"], key=found["probabilities"].get)
        assert f" {row['label']} " in line and f"{100 * found['probability']:.1f}" in line
        assert f"{round(3 * found['agreement'])} of 3" in line
        assert float(row["probability"]) == pytest.approx(found["probability"], abs=1e-4)


def test_a_single_network_agrees_with_nobody(run: Path, garments: Garments, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(garments(1)[0])
    assert main([str(run), path, "--model", "refit", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["agreement"] is None
    assert main([str(run), path, "--model", "best", "--format", "csv"]) == 0
    assert ",as it is," in (row := capsys.readouterr().out.splitlines()[1]) and row.split(",")[4] == ""


def test_mistakes_end_with_status_2_and_a_reason(
    run: Path, garments: Garments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(garments(1)[0])
    (tmp_path / "text.png").write_text("I am no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("precious")

    def refused(reason: str, *arguments: object) -> None:
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        last = captured.err.splitlines()[-1]
        assert last.startswith("error: ") and reason in last and captured.out == ""

    refused("there is no run", tmp_path / "nowhere", path)
    refused("is not a run: it has neither", tmp_path, path)
    refused("no image can be read: ", run, tmp_path / "text.png")
    refused("contains no images", run, tmp_path / "empty")
    refused("there.csv exists; give another --out, or --overwrite", run, path, "--out", tmp_path / "there.csv")
    refused("there is no folder", run, path, "--out", tmp_path / "gone" / "there.csv")
    refused("names no format; use .csv, .json or .txt", run, path, "--out", tmp_path / "found.xlsx")
    refused(
        "has 784 pixels, more than the limit of 783; make it smaller, or, where predict reads it, raise --max_pixels",
        run,
        path,
        "--max_pixels",
        783,
    )
    refused("max_pixels is 0; it must be at least 1", run, path, "--max_pixels", 0)
    assert (tmp_path / "there.csv").read_text() == "precious"
    assert main([str(run), path, "--out", str(tmp_path / "there.csv"), "--overwrite"]) == 0
    assert (tmp_path / "there.csv").read_text().startswith("file,prepared,label,")
    capsys.readouterr()
    refused("--preprocessing: invalid choice: 'magic'", run, path, "--preprocessing", "magic")
    offered_before = "'as-published' is no longer offered; use 'fashion-mnist', or, in a checkout, apply as_published"
    refused(offered_before, run, path, "--preprocessing", "as-published")
