"""`python -m fmnist_cv.fit`: cross-validate one experiment from the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.console import Console

from fmnist_cv.command_line import FAILED, OK, command, print_files
from fmnist_cv.config import options as experiment_options
from fmnist_cv.config.help import show_help_if_requested
from fmnist_cv.config.options import make_short_parser, parse, read_configs, refuse_unknown_keys
from fmnist_cv.config.sections import TRAINER_OPTIONS
from fmnist_cv.engine.run_folder import RunFolder
from fmnist_cv.engine.writable import is_writable
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, print_line

if TYPE_CHECKING:
    from fmnist_cv.analysis.finished_run import CrossValidationResult


@command(if_interrupted="continue from the last completed epochs with --resume last")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 1 if a fold failed, 2 for a user error, 130 for Ctrl-C."""
    show_help_if_requested(arguments, make_short_parser, make_parser)
    arguments = read_configs(arguments)
    refuse_unknown_keys(arguments, make_short_parser(), "trainer", *(f"trainer.{name}" for name in TRAINER_OPTIONS))

    # here, since the help and wrong options need neither torch nor Lightning
    with heavy_imports():
        from fmnist_cv.config.experiment import Experiment
        from fmnist_cv.config.short import write_out
        from fmnist_cv.cross_validation import FoldsFailed, FoldsMissing, cross_validate

        parser = make_parser()
    console = make_console()
    written = write_out(read_configs(_with_config_of_run(arguments)))
    options = parse(parser, written.arguments, validate=False)
    experiment = Experiment(options, parser)
    experiment.defaults = written.defaults
    try:
        result = cross_validate(
            experiment, run=options.run, resume=options.resume, refit=options.refit, console=console
        )
    except FoldsMissing as error:
        print_line(
            console,
            f"Done. The summary waits for {', '.join(error.missing)}: run them with --cv.fold, or all of them with "
            f"--resume {error.run.name}",
        )
        return OK
    except FoldsFailed as error:
        for name, (reason, traceback) in error.failures.items():
            print(f"\n{traceback}{name} failed: {reason}", file=sys.stderr)
        print(f"\nThe completed folds are kept. Try again with --resume {error.run.name}", file=sys.stderr)
        return FAILED
    show(result, console)
    if experiment.report:
        build_report(result, console)
    elif not RunFolder(result.path).html_report.exists():
        print_line(console, f"No report, as requested; to build it: python -m fmnist_cv.report {result.path}")
    show_files(result, console)
    return OK


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = experiment_options.make_parser()
    experiment_options.add_run_options(parser)
    return parser


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
    run.read_experiment()  # its errors name the run and the way out; the parser's would not
    return [f"--config={run.config}", *arguments]


def show(result: CrossValidationResult, console: Console) -> None:
    """Print the table of folds and the findings."""
    from fmnist_cv.analysis.tables import fold_table, rich_table, summary_lines

    console.print()
    title = f"{result.summary['experiment']}: accuracy in %"
    console.print(rich_table(title, *fold_table(result.summary)))
    for line in summary_lines(result.summary):
        print_line(console, line)


def build_report(result: CrossValidationResult, console: Console) -> None:
    """Build report.html where the run has changed since it was built.

    A report that cannot be built does not change the command's exit status: the run is complete.
    """
    from fmnist_cv.reporting.current import is_current
    from fmnist_cv.reporting.page import write_report

    if is_current(result):
        return
    if not is_writable(result.path):
        print_line(console, "\nThe run's folder cannot be written: its report is not updated.")
        return
    try:
        write_report(result, console)
    except Exception as error:
        print(
            f"the run is complete, but its report.html could not be built: {error}; try again with python -m "
            f"fmnist_cv.report {result.path}",
            file=sys.stderr,
        )


def show_files(result: CrossValidationResult, console: Console) -> None:
    """Print the paths of the run's files, and the command that shows its curves."""
    run = RunFolder(result.path)
    files = (
        ("Run", run.path),
        ("Report", run.html_report),
        ("As text", run.markdown_report),
        ("Labels", run.label_issues),
        ("Best model", run.best_checkpoint),
    )
    console.print()
    curves = ("Curves", f"tensorboard --logdir {run.path.parents[1]}")
    print_files(console, [*((title, path) for title, path in files if path.exists()), curves])


if __name__ == "__main__":
    sys.exit(main())
