"""`python -m fmnist_cv.compare`: which of several finished runs is better, how sure is that, and does it matter."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fmnist_cv.analysis.compared_runs import Comparisons, compare_runs
from fmnist_cv.analysis.comparison import Comparison, p_value, probability_in_words
from fmnist_cv.analysis.statistics import McNemarResult
from fmnist_cv.analysis.tables import percent, rich_table
from fmnist_cv.command_line import OK, CommandParser, command, number
from fmnist_cv.engine.run_folder import write_json
from fmnist_cv.engine.writable import check_file_writable
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, print_line

DESCRIPTION = """
Compare finished runs on the same data and splits, pair by pair: corrected resampled t-test on the shared folds, Bayesian
correlated t-test with a region of practical equivalence, McNemar's test on the held-out images and on the test set,
effect sizes, and the result in words. Runs on different data or splits cannot be compared. The images are not needed.

  python -m fmnist_cv.compare lightning_logs/patel-ann/a lightning_logs/sharifi-cnn/b
  python -m fmnist_cv.compare lightning_logs/*/k5 --rope 0.3 --json comparison.json

How to read it: the t-test compares the training procedures: would models trained on other samples of such images differ?
p-values of several pairs are adjusted by Holm's method. P(...) are posterior probabilities that the first run is better,
that both are practically equivalent, and that the second is better. McNemar's test compares these trained models; use
the test set as a check, not to choose a model. d is the mean over the standard deviation of the folds' differences
(Cohen's d), which depends on the size of the folds. All differences are in percentage points of accuracy.
"""


@command(if_interrupted="nothing was written")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 2 for a user error, 130 for Ctrl-C."""
    options = make_parser().parse(arguments)
    file = None if options.json is None else user_path(options.json, "--json")
    if file is not None and file.exists():
        raise UserError(f"{file} exists; give --json another name, or move it away")
    if file is not None:
        check_file_writable(file, "--json")
    found = compare_runs(options.runs, options.rope / 100)
    if file is not None:
        _write(file, found)
    show(found, make_console())
    return OK


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser("compare", DESCRIPTION)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folders of finished runs: lightning_logs/<experiment>/<run>"
    )
    parser.add_argument(
        "--rope",
        type=number,
        default=0.5,
        metavar="POINTS",
        help="region of practical equivalence: differences of at most this many percentage points do not matter "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all results to this new file")
    return parser


def show(found: Comparisons, console: Console) -> None:
    """Print the runs, the pairwise tests, remarks, and the result in words."""
    rows = [
        [
            str(i),
            run["name"],
            run["epoch"],
            percent(run["accuracy"]["mean"]),
            percent(run["accuracy"]["sd"]),
            _interval(run["accuracy"]["low"], run["accuracy"]["high"], ".2f"),
            percent(run["test_vote"]),
        ]
        for i, run in enumerate(found.runs, 1)
    ]
    columns = ["", "run", "epoch", "mean", "sd", "95 % confidence interval", "ensemble on the test set"]
    if all(run["test_vote"] is None for run in found.runs):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    console.print()
    console.print(rich_table("Accuracy in %", columns, rows, left=("run", "epoch")))
    numbers = {run["name"]: i for i, run in enumerate(found.runs, 1)}
    if any(pair.t_test is not None for pair in found.pairs):
        console.print(_t_tests(found.pairs, numbers))
    console.print(_mcnemars(found.pairs, numbers))
    for line in found.remarks:
        print_line(console, line)
    console.print()
    if len(found.pairs) > 1:
        for pair in found.pairs:
            print_line(console, f"- {pair.sentence}")
        console.print()
    print_line(console, found.sentence, style="bold")


def _t_tests(pairs: list[Comparison], numbers: dict[str, int]) -> Table:
    rope = f"{100 * pairs[0].rope:g}"
    columns = (
        "",
        "difference",
        "corrected 95 % confidence interval",
        "p",
        "d",
        f"P(first > {rope})",
        f"P(within {rope})",
        f"P(second > {rope})",
    )
    rows = []
    for pair in pairs:
        cells = [f"{numbers[pair.a]} - {numbers[pair.b]}", f"{100 * pair.difference:+.2f}"]
        if pair.t_test is not None and pair.chances is not None:
            chances = pair.chances
            cells += [_interval(pair.t_test.low, pair.t_test.high), p_value(pair.t_test.p), f"{pair.effect_size:+.2f}"]
            cells += [probability_in_words(chance) for chance in (chances.a_better, chances.equal, chances.b_better)]
        rows.append(cells)
    return rich_table(
        "Corrected resampled t-test and Bayesian correlated t-test on the shared folds; differences in percentage points",
        columns,
        rows,
    )


def _mcnemars(pairs: list[Comparison], numbers: dict[str, int]) -> Table:
    columns = (
        "",
        "images",
        "n",
        "only first correct",
        "only second correct",
        "difference",
        "95 % confidence interval",
        "p",
        "Cohen's g",
    )
    rows = [
        [f"{numbers[pair.a]} - {numbers[pair.b]}", what, *_mcnemar_cells(test)]
        for pair in pairs
        for what, test in (("held-out images", pair.out_of_fold), ("test set", pair.test))
        if test is not None
    ]
    return rich_table("McNemar's test; differences in percentage points", columns, rows, left=("images",))


def _mcnemar_cells(test: McNemarResult) -> list[str]:
    return [
        f"{test.n:,}",
        f"{test.only_a:,}",
        f"{test.only_b:,}",
        f"{100 * test.difference:+.2f}",
        _interval(test.low, test.high),
        p_value(test.p),
        "" if test.g is None else f"{test.g:+.3f}",
    ]


def _interval(low: float | None, high: float | None, form: str = "+.2f") -> str:
    return "" if low is None or high is None else f"{100 * low:{form}} to {100 * high:{form}}"


def _write(file: Path, found: Comparisons) -> None:
    try:
        write_json(file, found.as_dict())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; choose another file with --json") from None


if __name__ == "__main__":
    sys.exit(main())
