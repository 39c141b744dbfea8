"""`python -m experiments.replication`: run published systems and compare their numbers with the reported ones."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from experiments.replication.rows import HERE, Row, choose_rows, load_rows
from experiments.replication.runs import RowsFailed, run_rows
from experiments.replication.tables import write_tables
from fmnist_cv.command_line import FAILED, OK, command
from fmnist_cv.engine.writable import check_writable, explain_disk_errors
from fmnist_cv.utils import paths
from fmnist_cv.utils.paths import shortened
from fmnist_cv.utils.user_text import make_console, print_line


@command(if_interrupted="run the same command again to continue from the last completed epochs")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 1 if a run failed, 2 for a user error, 130 for Ctrl-C."""
    console = make_console()
    options = _parser().parse_args(arguments)
    rows = load_rows(options.definitions)
    chosen = _chosen(options, rows)
    check_writable(options.out, "--out", "")
    if chosen:
        check_writable(options.log_dir)
    then = ", and run the same command again: all runs are kept"
    try:
        with explain_disk_errors(options.log_dir, then), explain_disk_errors(options.out, then):
            try:
                if chosen:
                    run_rows(chosen, options.seeds, options.workers, options.log_dir, options.out, console)
            finally:  # the page shows the finished runs, whatever failed
                page = write_tables(rows, options.out)
                print_line(console, f"tables: {page}")
    except RowsFailed as error:
        for name, (reason, traceback) in error.failures.items():
            print(f"\n{traceback}{name} failed: {reason}", file=sys.stderr)
        print("\nAll other runs are kept; run the same command again for the failed ones", file=sys.stderr)
        return FAILED
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.replication",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="rows and studies:\n" + "\n".join(f"  {line}" for line in map(_describe, load_rows().values())),
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--only", nargs="+", metavar="ROW", help="run these rows, in this order")
    what.add_argument("--all", action="store_true", help="run every row and study")
    what.add_argument(
        "--tables", action="store_true", help="run nothing; regenerate the page from the rows' JSON files"
    )
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help="seeds 0 to N-1 of each variant (default: 3; 1 in equal-terms, of interpretations without a printed number, and of what takes long)",
    )
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="folds in parallel (default: one per GPU or core)"
    )
    parser.add_argument(
        "--log_dir",
        type=paths.argument,
        default=Path("lightning_logs/replication"),
        metavar="DIR",
        help="where runs are kept and resumed (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=paths.argument,
        default=Path("experiments/replication"),
        metavar="DIR",
        help="where the rows' JSON files and the page go (default: %(default)s)",
    )
    parser.add_argument(
        "--definitions",
        type=paths.argument,
        default=HERE,
        metavar="DIR",
        help="folder of the rows' definitions, published.yaml and studies.yaml (default: experiments/replication)",
    )
    return parser


def _chosen(options: argparse.Namespace, rows: dict[str, Row]) -> list[Row]:
    if options.tables:
        return []
    if options.all:
        return [row for row in rows.values() if not row.measured]
    return choose_rows(options.only, rows)


def _describe(row: Row) -> str:
    if row.measured:
        return f"{row.name:20} measured by another experiment: {row.measured['file']}"
    runs = sum(row.seeds_of(variant) for variant in row.variants)
    return f"{row.name:20} {len(row.variants)} variants, {runs} runs, about {row.minutes * runs:.0f} min on one core"


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not a number from 1 to 9999")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
