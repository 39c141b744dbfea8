"""`python -m fmnist_cv.evaluate`: score a run's models on its test set, or on other images of the same classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console

from fmnist_cv.command_line import OK, CommandParser, command, print_files
from fmnist_cv.inference.choices import DataPart
from fmnist_cv.utils import paths
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.user_text import make_console, print_line

if TYPE_CHECKING:
    from fmnist_cv.inference.evaluation_file import Evaluation

WIDEST_MATRIX = 16  # classes whose confusion matrix is printed

DESCRIPTION = """
Score the models of a finished run: each fold's, their soft-voting ensemble, and the baseline that always predicts the
most frequent class. Without --data, on the run's test set, whose scores must be reproduced; with --data, on new images.

  python -m fmnist_cv.evaluate lightning_logs/sharifi-cnn/2026-01-31_12-00-00
  python -m fmnist_cv.evaluate RUN --data my.npz
  python -m fmnist_cv.evaluate RUN --data photos/
  python -m fmnist_cv.evaluate RUN --data scans.csv --data.label diagnosis
  python -m fmnist_cv.evaluate RUN --data my-data.yaml --part train --model refit
  python -m fmnist_cv.evaluate RUN --data my_module.MyDataModule

evaluation.json and evaluation.md are written to evaluations/<data>-<part>/ in the run's folder, or to --out. Another
evaluation in that folder is not overwritten.
"""

DATA = """
data, as for --data of fmnist_cv.fit:
  photos/        a folder with a folder of images for each class
  scans.csv      a table of image files: .csv, .tsv or .parquet
  my.npz         arrays: images, labels, and class_names
  some.yaml      a section `data` with class_path and init_args, as in a config of fmnist_cv.fit
  module.Class   a data module
  --data.KEY VALUE sets an argument of its class. Image files are decoded and resized as the run's were; for a run on others they
  get the size and the channels of its images.
  The classes are those of the run or some of them; they are matched by name, in any order.
"""


@command(if_interrupted="nothing was written")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 2 for a user error, 130 for Ctrl-C."""
    options = make_parser().parse(arguments)

    with heavy_imports():  # here, since --help and wrong options need no torch
        from fmnist_cv.inference import evaluate_run
        from fmnist_cv.runtime import prepare_process

    console = make_console()
    prepare_process()
    evaluation, folder = evaluate_run(
        options.run,
        options.data,
        options.part,
        settings=options.settings,
        model=options.model,
        out=options.out,
        accelerator=options.accelerator,
        console=console,
    )
    show(evaluation, folder, console)
    return OK


class _Parser(CommandParser):
    """With `--data.KEY VALUE`, for any argument of a data module, in `settings`."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        rest, settings = list[str](), dict[str, str]()
        words = iter(sys.argv[1:] if args is None else args)
        for word in words:
            option, is_joined, value = word.partition("=")
            if not option.startswith("--data."):
                rest.append(word)
                continue
            if not is_joined and (value := next(words, "--")).startswith("--"):
                self.error(f"{option}: expected one argument")
            settings[option.removeprefix("--data.")] = value
        options, unknown = super().parse_known_args(rest, namespace)
        if settings and options.data is None:
            self.error(f"--data.{next(iter(settings))} has no effect without --data")
        options.settings = settings
        return options, unknown


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = _Parser("evaluate", DESCRIPTION, DATA)
    parser.add_run()
    parser.add_argument("--data", metavar="DATA", help="other images than the run's test set, see below")
    parser.add_argument(
        "--part", choices=get_args(DataPart), help="their test or training images (default: test, if there are any)"
    )
    parser.add_model()
    parser.add_argument(
        "--out", type=paths.argument, metavar="FOLDER", help="where evaluation.json and evaluation.md go"
    )
    parser.add_accelerator()
    return parser


def show(evaluation: Evaluation, folder: Path | None, console: Console) -> None:
    """Print scores, per-class report, confusion matrix, and the files' paths."""
    from fmnist_cv.analysis.tables import CLASS_COLUMNS, class_rows, rich_table
    from fmnist_cv.inference.evaluation_file import SCORE_COLUMNS, score_rows, sentences

    n, report = evaluation["n"], evaluation["report"]
    console.print(
        rich_table(
            f"{evaluation['data']}, {evaluation['part']} images: {n:,}; accuracies in %",
            SCORE_COLUMNS,
            score_rows(evaluation),
        )
    )
    console.print(rich_table(evaluation["voted"], CLASS_COLUMNS, class_rows(report)))
    names = list(report["per_class"])
    if len(names) <= WIDEST_MATRIX:
        rows = [[f"{i} {names[i]}", *map(str, row)] for i, row in enumerate(report["confusion_matrix"])]
        title = f"{evaluation['voted']}: true class in the row, prediction in the column"
        console.print(rich_table(title, ("", *map(str, range(len(names)))), rows))
    for line in sentences(evaluation):
        print_line(console, line)
    if folder is None:
        print_line(console, "The run's folder cannot be written: for evaluation.json and .md give another with --out.")
        return
    print_files(console, [("Report", folder / "evaluation.md"), ("Numbers", folder / "evaluation.json")])


if __name__ == "__main__":
    sys.exit(main())
