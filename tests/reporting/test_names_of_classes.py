"""Class names that mean something in Markdown, CSV, HTML, Rich or matplotlib, through everything that shows a run."""

from __future__ import annotations

import csv
import html
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_cv import CrossValidationResult, evaluate as evaluate_command, predict as predict_command
from fmnist_cv.inference.evaluation import evaluate_run
from fmnist_cv.reporting.page import write_report
from fmnist_cv.reporting.tensorboard import write_tensorboard
from fmnist_cv.utils.user_text import one_line

NAMES = [
    "a|b",
    "x\ny",
    "[old] set",
    "<b>x</b>",
    "=1+1",
    "$10_$20",
    "{{7*7}}",
    "*x*",
    "`x`",
    "long " * 60 + "end",
    "قميص",
    "👕 T-shirt",
]
SHOWN = [one_line(name) for name in NAMES]


@pytest.fixture(scope="module")
def run(make_run_in: Callable[..., CrossValidationResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with such classes, in TensorBoard, too; its images differ from each other by class."""
    n = len(NAMES)
    labels = np.arange(6 * n) % n
    images = np.random.default_rng(0).integers(0, 256, (6 * n, 6, 6), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of letters that the font lacks
        return make_run_in(
            tmp_path_factory.mktemp("names"),
            {
                "images": images,
                "labels": labels,
                "class_names": np.array(NAMES),
                "test_images": images[:n],
                "test_labels": labels[:n],
            },
            trainer__logger=True,
        ).path


def cells(text: str) -> list[str]:
    """The texts of a Markdown page's table cells."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    return [html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, re.DOTALL)]


def test_markdown(run: Path, tmp_path: Path) -> None:
    evaluate_run(run, out=tmp_path)
    for file in (run / "report.md", tmp_path / "evaluation.md"):
        found = cells(file.read_text(encoding="utf-8"))
        for name in SHOWN:  # per class, and in the matrix's row and column
            assert found.count(name) >= 3, (file.name, name)


def test_tables_for_spreadsheets_and_files_of_such_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(CrossValidationResult.load(run))
    with open(run / "label_issues.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {row["label"] for row in rows} | {row["suggested"] for row in rows}
    assert labels <= {*NAMES, "'=1+1", ""} - {"=1+1"} and {"'=1+1", "x\ny"} <= labels
    monkeypatch.chdir(tmp_path)
    Path("[old] set").mkdir()
    for photo in ("=1.png", "[old] set/[i].png"):
        Image.new("L", (6, 6)).save(photo)
    assert predict_command.main([str(run), "=1.png", "--out", "found.csv"]) == 0
    with open("found.csv", encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert row[0] == "'=1.png" and [cell for cell in header + row if cell.startswith(("=", "+", "-", "@"))] == []
    capsys.readouterr()
    assert predict_command.main([str(run), "[old] set"]) == 0
    out = capsys.readouterr().out
    assert "files in [old] set" in out and "[i].png" in out


def test_pages(run: Path) -> None:
    text = write_report(CrossValidationResult.load(run)).read_text(encoding="utf-8")
    found = [html.unescape(cell) for cell in re.findall(r'<th scope="row">(.*?)</th>', text, re.DOTALL)]
    assert {*NAMES} <= {*found} and "<b>x</b>" not in text


def test_terminal(run: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=2000)
    evaluate_command.show(*evaluate_run(run, out=tmp_path), console)
    assert isinstance(console.file, io.StringIO)
    for name in SHOWN:
        assert name in console.file.getvalue()


def test_figures_and_tags(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        folder = write_tensorboard(CrossValidationResult.load(run))
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    assert {f"precision_recall_out_of_fold/{name}" for name in SHOWN} <= set(events.Tags()["tensors"])
    fold = EventAccumulator(str(run / "fold_0")).Reload().Tags()["images"]
    assert {*fold} == {"confusion_matrix/validation", "samples/training_images"}
