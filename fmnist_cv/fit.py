"""`python -m fmnist_cv.fit`: cross-validate one experiment from the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.tables import fold_table, rich_table, summary_lines
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.options import add_run_options, make_parser, parse
from fmnist_cv.cross_validation import FoldsFailed, FoldsMissing, cross_validate
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.engine.writable import is_writable
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.streams import works_without_output
from fmnist_cv.utils.user_text import make_console, print_line

OK, FOLD_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


@works_without_output
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 if a fold failed, 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = make_console()
    try:
        parser = make_parser()
        add_run_options(parser)
        options = parse(parser, _with_config_of_run(arguments))
        experiment = Experiment(options)
        result = cross_validate(
            experiment, run=options.run, resume=options.resume, refit=options.refit, console=console
        )
        show(result, console)
        if experiment.report:
            report(result, console)
        elif not RunFolder(result.path).html_report.exists():
            print_line(console, f"No report, as asked; to build it: python -m fmnist_cv.report {result.path}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except FoldsMissing as error:
        print_line(
            console,
            f"Done. The summary waits for {', '.join(error.missing)}: run them with --cv.fold, or all with "
            f"--resume {error.run.name}",
        )
        return OK
    except FoldsFailed as error:
        for name, (reason, traceback) in error.failures.items():
            print(f"\n{traceback}{name} failed: {reason}", file=sys.stderr)
        print(f"\nThe other folds are kept. Try again with --resume {error.run.name}", file=sys.stderr)
        return FOLD_FAILED
    except KeyboardInterrupt:
        print("\ninterrupted; go on from the last finished epochs with --resume last", file=sys.stderr)
        return INTERRUPTED
    show_files(result, console)
    return OK


def _with_config_of_run(arguments: Sequence[str]) -> list[str]:
    """With `--resume PATH` and no `--config`, the run's own config.

    Raises:
        UserError: that is missing or damaged.
    """
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--resume=") else [a])]
    if "--resume" not in arguments[:-1] or any(a == "--config" or a.startswith("--config=") for a in arguments):
        return arguments
    run = RunFolder(user_path(arguments[arguments.index("--resume") + 1], "--resume"))
    if not run.path.is_dir():
        return arguments
    run.read_experiment()  # says what the parser's messages would not: which run, and the way out
    return [f"--config={run.config}", *arguments]


def show(result: CrossValidationResult, console: Console) -> None:
    """Print the table of folds and the findings."""
    console.print()
    title = f"{result.summary['experiment']}: accuracy in %"
    console.print(rich_table(title, *fold_table(result.summary)))
    for line in summary_lines(result.summary):
        print_line(console, line)


def report(result: CrossValidationResult, console: Console) -> None:
    """Build report.html where the run has changed since it was built.

    Where it cannot be built, the run is finished all the same, and its status is not of that.
    """
    from fmnist_cv.reporting.current import is_current  # here, since each fold's process imports this module
    from fmnist_cv.reporting.page import write_report

    if is_current(result):
        return
    if not is_writable(result.path):
        print_line(console, "\nThe run's folder cannot be written: its report is left as it is.")
        return
    try:
        write_report(result, console)
    except Exception as error:
        print(
            f"the run is finished, but its report.html could not be made: {error}; try again with python -m "
            f"fmnist_cv.report {result.path}",
            file=sys.stderr,
        )


def show_files(result: CrossValidationResult, console: Console) -> None:
    """Print where everything lies."""
    run = RunFolder(result.path)
    console.print()
    for title, what in (
        ("Run:", run.path),
        ("Report:", run.html_report),
        ("As text:", run.markdown_report),
        ("Labels:", run.label_issues),
        ("Best model:", run.best_checkpoint),
        ("Look at it:", f"tensorboard --logdir {run.path.parents[1]}"),
    ):
        if isinstance(what, str) or what.exists():
            print_line(console, f"{title:12} {what}")


if __name__ == "__main__":
    sys.exit(main())
