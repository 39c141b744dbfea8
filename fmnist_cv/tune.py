"""`python -m fmnist_cv.tune`: search an experiment's hyperparameters from the command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.console import Console

from fmnist_cv.analysis.tables import difference_of, interval_cell, interval_of, percent, rich_table
from fmnist_cv.command_line import FAILED, OK, USER_ERROR, command, print_files
from fmnist_cv.config.help import show_help_if_requested
from fmnist_cv.config.options import parse
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.search import settings
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.user_text import make_console, print_line

if TYPE_CHECKING:
    from fmnist_cv.search.tuning import SearchResult


@command(if_interrupted="run the same command again to resume the study")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 1 if trials failed, 2 for a user error, 130 for Ctrl-C."""
    show_help_if_requested(arguments, make_parser, make_parser)
    options = parse(make_parser(), arguments, "search")

    # here, since the help and wrong options need neither torch nor Lightning
    with heavy_imports():
        from fmnist_cv.cross_validation import FoldsFailed
        from fmnist_cv.search.search import Search
        from fmnist_cv.search.storage import STORAGE_UNAVAILABLE, first_line
        from fmnist_cv.search.trials import TrialsFailed
        from fmnist_cv.search.tuning import tune

    console = make_console()
    try:
        with console.status("checking the search space: the ends of each range and every choice"):
            search = Search.from_namespace(options)
        result = tune(search, workers=options.workers, storage=options.storage, console=console)
    except STORAGE_UNAVAILABLE as error:
        reason = f"the storage is unavailable ({first_line(error)})"
        print(f"error: {reason}; run the same command again to resume the study", file=sys.stderr)
        return USER_ERROR
    except (TrialsFailed, FoldsFailed) as error:
        print(f"\n{error}\nCompleted folds are kept; run the same command again to resume the study", file=sys.stderr)
        return FAILED
    show(result, console)
    return OK


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = settings.make_parser()
    settings.add_run_options(parser)
    return parser


def show(result: SearchResult, console: Console) -> None:
    """Print the winner, its score on fresh splits, and the paths of the study's files."""
    summary = result.summary
    trials = summary["trials"]
    console.print()
    for line in synthetic_warning(summary["data"]["name"]):
        print_line(console, line, style="yellow")
    print_line(
        console,
        f"{trials['finished']} trials; {trials['folds_run']} of {trials['folds_without_pruning']} folds were completed",
    )
    for outcome, problems in (("diverged", trials["diverged"]), ("could not be run", trials["failed"])):
        for trial in problems:
            values = ", ".join(f"{name} = {value}" for name, value in trial["parameters"].items())
            print_line(console, f"trial {trial['trial']} {outcome}: {trial['reason']} ({values})", style="yellow")
    if confirmed := summary.get("confirmed"):
        columns = ("configuration", "search", "fresh splits", "95 % interval", "difference")
        rows = [
            [
                f"trial {entry['trial']}" + (" (winner)" if i == 0 else ""),
                percent(entry["search"]["mean"]),
                percent(entry["fresh"]["mean"]),
                interval_cell(entry["fresh"]),
                f"{100 * entry['gap']:+.2f}",
            ]
            for i, entry in enumerate(confirmed["configurations"])
        ]
        if baseline := confirmed.get("baseline"):
            rows.append(["baseline", "", percent(baseline["fresh"]["mean"]), interval_cell(baseline["fresh"]), ""])
        console.print(rich_table(f"{summary['study']}: accuracy in %", columns, rows))
        fresh = [entry["fresh"] for entry in (*confirmed["configurations"], baseline) if entry]
        for line in dict.fromkeys(interval_of(score) for score in fresh if score["low"] is None):
            print_line(console, f"On fresh splits {line}")
        if test := confirmed.get("winner_against_baseline"):
            baseline_is = "the experiment with the search's overrides"
            print_line(console, f"Winner minus baseline ({baseline_is}): {difference_of(test)}")
    else:
        print_line(console, f"winner: trial {result.winner.number}, {percent(summary['winner']['accuracy'])} %")
    if nested := summary.get("nested"):
        mean = percent(nested["accuracy"]["mean"])
        print_line(
            console,
            f"Nested cross-validation, {nested['n_splits']} outer folds: {mean} %, {interval_of(nested['accuracy'])}, "
            "not biased by the search's choices",
        )
    for name, value in summary["winner"]["parameters"].items():
        print_line(console, f"  {name} = {value}")
    console.print()
    files = (("Page", "study.html"), ("Config", "winner.yaml"), ("Numbers", "search.json"))
    print_files(console, [("Study", result.path), *((title, result.path / file) for title, file in files)])


if __name__ == "__main__":
    sys.exit(main())
