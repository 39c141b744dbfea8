"""`python -m fmnist_cv.report`: build a finished run's HTML report from the command line."""

from __future__ import annotations

import sys

from fmnist_cv.command_line import OK, CommandParser, command, print_files
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.user_text import make_console

DESCRIPTION = """
Build a finished run's report again: one HTML file that needs no network, with scores and intervals, curves, a
confusion matrix whose cells show their images, reliability, the most confident mistakes, and likely label errors,
near-duplicates and outliers, which label_issues.csv lists, too. `python -m fmnist_cv.fit` builds it after the last
fold.

  python -m fmnist_cv.report lightning_logs/quickstart/2025-01-31_12-00-00
  python -m fmnist_cv.report lightning_logs/quickstart/2025-01-31_12-00-00 --tensorboard

It reads the run's images again, from where its config.yaml says; start it in the folder where the run was started.
"""


@command(if_interrupted="files that were complete are kept")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 2 for a user error, 130 for Ctrl-C."""
    options = make_parser().parse(arguments)

    # here, since --help and wrong options need no torch
    with heavy_imports():
        from fmnist_cv.analysis.finished_run import CrossValidationResult
        from fmnist_cv.engine.run_folder import RunFolder
        from fmnist_cv.reporting.page import write_report

    console = make_console()
    result = CrossValidationResult.load(options.run)
    files = [("Report", write_report(result, console)), ("Label issues", RunFolder(result.path).label_issues)]
    if options.tensorboard:
        from fmnist_cv.reporting.tensorboard import write_tensorboard

        files.append(("TensorBoard", write_tensorboard(result)))
    print_files(console, files)
    return OK


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser("report", DESCRIPTION)
    parser.add_run()
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write confusion matrices, precision-recall curves and a projector of embeddings for TensorBoard",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
