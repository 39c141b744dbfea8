"""`python -m fmnist_cv.report`: build a finished run's HTML report from the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.options import HelpFormatter, parse
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.errors import UserError
from fmnist_cv.fit import INTERRUPTED, OK, USER_ERROR
from fmnist_cv.reporting.page import write_report
from fmnist_cv.reporting.tensorboard import write_tensorboard
from fmnist_cv.utils.streams import works_without_output
from fmnist_cv.utils.user_text import make_console, print_line

DESCRIPTION = """
Build a finished run's report anew: one HTML file that needs no network, with scores and intervals, curves, a confusion
matrix whose cells show their images, reliability, the most confident mistakes, and likely label errors, near-duplicates
and outliers, which label_issues.csv lists, too. `python -m fmnist_cv.fit` builds it at its end.

  python -m fmnist_cv.report lightning_logs/quickstart/2025-01-31_12-00-00
  python -m fmnist_cv.report lightning_logs/quickstart/2025-01-31_12-00-00 --tensorboard

It reads the run's images again, where its config.yaml says; start it in the folder where the run was started.
"""


@works_without_output
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    console = make_console()
    try:
        options = parse(_parser(), sys.argv[1:] if arguments is None else list(arguments))
        result = CrossValidationResult.load(options.run)
        report = write_report(result, console)
        folder = write_tensorboard(result) if options.tensorboard else None
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\ninterrupted; what is there is whole", file=sys.stderr)
        return INTERRUPTED
    print_line(console, f"Report:        {report}")
    print_line(console, f"Label issues:  {RunFolder(result.path).label_issues}")
    if folder is not None:
        print_line(console, f"TensorBoard:   {folder}")
    return OK


def _parser() -> ArgumentParser:
    prog = "python -m fmnist_cv.report"
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} RUN [--tensorboard]",
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=str, help="Folder of a finished run.")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="Also write confusion matrices, precision-recall curves and a projector of embeddings for TensorBoard.",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
