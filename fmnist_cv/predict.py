"""`python -m fmnist_cv.predict`: classify photos and other image files with a run's models."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.table import Table

from fmnist_cv.command_line import FAILED, OK, CommandParser, command, number
from fmnist_cv.data.photos import MAX_PIXELS
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.writable import check_file_writable
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import AS_PUBLISHED, Preprocessing
from fmnist_cv.utils import paths
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.user_text import for_csv, make_console, plain

if TYPE_CHECKING:
    from fmnist_cv.inference.files import FilePredictions

FORMATS = ("table", "csv", "json")
ENDINGS = {"": "table", ".txt": "table", ".csv": "csv", ".json": "json"}  # of the file that is written

DESCRIPTION = """
Classify image files with the models of a finished run: the label of the soft-voting ensemble, its probability, and how
many of the folds agree. Files that cannot be read are reported and skipped; the exit status is then 1.

  python -m fmnist_cv.predict lightning_logs/sharifi-cnn/2026-01-31_12-00-00 shirt.jpg
  python -m fmnist_cv.predict RUN photos/ --out predictions.csv
  python -m fmnist_cv.predict RUN photos/ more/shoe.png --format json | jq '.[].label'
"""

EPILOG = """
preprocessing:
  auto           where the run was trained on image files, as these were: decoded and resized in the same way. Otherwise,
                 an image of exactly the models' size is used as it is: for 28x28, a light garment on black. Any other is
                 treated as a photo of a garment on a plain background, as by fashion-mnist; for models that take
                 another size or colours it is resized
  fashion-mnist  as Fashion-MNIST was made: trimmed, longest side 28 pixels, sharpened, centred, negated, grey
  none           resized where the size differs, and nothing else
  Models recognise what they were trained on: Fashion-MNIST's shoes all point to the left, and shoes that point to the
  right may be classified as bags.
"""


@command(if_interrupted="nothing was written")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 1 if files were skipped, 2 for a user error, 130 for Ctrl-C."""
    options = make_parser().parse(arguments)
    form = options.format or _format_of(options.out)
    _check_out(options.out, options.overwrite)

    # here, since --help and wrong options need no torch
    with heavy_imports():
        from fmnist_cv.analysis.finished_run import CrossValidationResult
        from fmnist_cv.inference import load_ensemble, predict_files
        from fmnist_cv.runtime import prepare_process

    prepare_process()
    run = CrossValidationResult.load(options.run)
    if "SYNTHETIC" in run.summary["data"]["name"]:
        print("SYNTHETIC: these networks were trained on synthetic images; do not trust their labels", file=sys.stderr)
    ensemble = load_ensemble(run, options.model, options.accelerator)
    found = predict_files(ensemble, options.paths, options.preprocessing, make_console(stderr=True), options.max_pixels)
    _write(found, form, options.out)
    for reason in found.unreadable.values():
        print(f"skipped: {reason}", file=sys.stderr)
    if found.unreadable:
        n_files = len(found.files) + len(found.unreadable)
        print(f"{len(found.unreadable)} of {n_files} files were skipped", file=sys.stderr)
    return FAILED if found.unreadable else OK


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser("predict", DESCRIPTION, EPILOG)
    parser.add_run()
    parser.add_argument(
        "paths",
        nargs="+",
        type=paths.argument,
        metavar="FILE|FOLDER",
        help="image files; of a folder, those in it and its subfolders, also linked ones",
    )
    parser.add_model()
    parser.add_argument(
        "--preprocessing",
        type=_preprocessing,
        choices=get_args(Preprocessing),
        default="auto",
        help="what is done to each image, see below (default: %(default)s)",
    )
    parser.add_argument(
        "--max_pixels",
        type=partial(number, kind=int, what="whole number"),
        default=MAX_PIXELS,
        metavar="N",
        help="skip images of more pixels; each takes up to 16 bytes of memory (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="default: as the file --out ends (.csv, .json, .txt), else a table"
    )
    parser.add_argument("--out", type=paths.argument, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--overwrite", action="store_true", help="replace the file --out")
    parser.add_accelerator()
    return parser


def _preprocessing(text: str) -> str:
    if text == "as-published":
        raise argparse.ArgumentTypeError(AS_PUBLISHED)
    return text


def _format_of(out: Path | None) -> str:
    ending = "" if out is None else out.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"--out {out}: its suffix names no format; use .csv, .json or .txt, or give --format")
    return ENDINGS[ending]


def _check_out(out: Path | None, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if out is not None and out.exists() and not overwrite:
        raise UserError(f"{out} exists; give another --out, or --overwrite")
    if out is not None:
        check_file_writable(out, "--out")


def _write(found: FilePredictions, form: str, out: Path | None) -> None:
    if form == "table" and out is None:
        make_console().print(_table(found))
        return
    text = {"table": as_text, "csv": as_csv, "json": as_json}[form](found)
    if out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        replace_file(out, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    print(f"{len(found.files)} predictions: {out}")


def as_text(found: FilePredictions) -> str:
    """The table without colours, 120 characters wide."""
    text = io.StringIO()
    Console(file=text, width=120).print(_table(found))
    return text.getvalue()


def as_csv(found: FilePredictions) -> str:
    """A row per file; probabilities and agreement with four decimals; see `for_csv`."""
    return for_csv(found.table).to_csv(index=False, float_format="%.4f", lineterminator="\n")


def as_json(found: FilePredictions) -> str:
    """A list with an object per file; the probabilities by class in an object of their own."""
    mean, agreement = found.mean, found.agreement  # properties that compute them each time
    rows = [
        {
            "file": row["file"],
            "prepared": row["prepared"],
            "label": row["label"],
            "probability": round(row["probability"], 6),
            "agreement": None if agreement is None else round(row["agreement"], 6),
            "probabilities": {name: round(float(p), 6) for name, p in zip(found.class_names, mean[i], strict=True)},
        }
        for i, row in enumerate(found.table.to_dict("records"))
    ]
    return json.dumps(rows, indent=2) + "\n"


def _table(found: FilePredictions) -> Table:
    """File, label with its probability, agreement, second class with its probability, and preprocessing."""
    rows = found.table.to_dict("records")
    folder = _common_folder([row["file"] for row in rows])
    table = Table(title=plain(f"files in {folder}") if folder else None, title_justify="left")
    for i, column in enumerate(("file", "label", "%", "folds that agree", "next", "%", "prepared")):
        table.add_column(
            column,
            justify="right" if column in ("%", "folds that agree") else "left",
            overflow="fold" if i == 0 else "ellipsis",
        )
    mean, agreement, n = found.mean, found.agreement, len(found.probabilities)
    for i, row in enumerate(rows):
        second = mean[i].argsort()[-2:][0]
        table.add_row(
            plain(os.path.relpath(row["file"], folder) if folder else row["file"]),
            plain(row["label"]),
            f"{100 * row['probability']:.1f}",
            "" if agreement is None else f"{round(agreement[i] * n)} of {n}",
            plain(found.class_names[second]),
            f"{100 * mean[i, second]:.1f}",
            row["prepared"],
        )
    return table


def _common_folder(files: list[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files])
    except ValueError:  # some are given from the root, some from the working folder
        return ""


if __name__ == "__main__":
    sys.exit(main())
