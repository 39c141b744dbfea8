"""What the commands share: exit codes, error messages, arguments, lists of files; and `fmnist-cv COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn, Protocol, get_args

from rich.console import Console

from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.inference.choices import ModelChoice
from fmnist_cv.utils import paths
from fmnist_cv.utils.paths import shortened
from fmnist_cv.utils.streams import lasting_output
from fmnist_cv.utils.user_text import print_line

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "fit": "cross-validate an experiment",
    "tune": "search an experiment's hyperparameters",
    "evaluate": "score a finished run on its test set or on other images",
    "predict": "classify image files with a finished run",
    "compare": "compare finished runs: is the difference real?",
    "report": "build a finished run's HTML report again",
    "export": "write a finished run's networks as ONNX or safetensors",
    "cache": "list or clear the cache of decoded images",
}

DESCRIPTION = """
k-fold cross-validation for image classifiers.

  fmnist-cv fit --config configs/quickstart.yaml
  fmnist-cv compare lightning_logs/patel-ann/a lightning_logs/sharifi-cnn/b

Each command explains itself with --help; python -m fmnist_cv.COMMAND is the same.
"""


class Main(Protocol):
    """A command's `main`: takes the command line's arguments, returns the exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def command(if_interrupted: str) -> Callable[[Callable[[list[str]], int]], Main]:
    """Make a command's `main` of a function that takes the arguments and returns the exit status.

    A user error is shown in one line (exit status 2), Ctrl-C as `if_interrupted` (130), and output that is closed, full or
    without a reader does not stop the command: `fit ... | head -1` trains all folds.
    """

    def decorate(run: Callable[[list[str]], int]) -> Main:
        @wraps(run)
        def main(arguments: Sequence[str] | None = None) -> int:
            with lasting_output():
                try:
                    return run(sys.argv[1:] if arguments is None else list(arguments))
                except UserError as error:
                    print(f"error: {error}", file=sys.stderr)
                    return USER_ERROR
                except KeyboardInterrupt:
                    print(f"\ninterrupted; {if_interrupted}", file=sys.stderr)
                    return INTERRUPTED

        return main

    return decorate


def print_files(console: Console, files: Iterable[tuple[str, object]]) -> None:
    """Print titles and paths in two columns."""
    files = list(files)
    width = max(12, *(len(title) + 2 for title, _ in files))
    for title, path in files:
        print_line(console, f"{title + ':':{width}} {path}")


class CommandParser(argparse.ArgumentParser):
    """The arguments of a command that works on finished runs.

    Args:
        command: the command's name.
        description: what it does, with examples; printed as it is.
        epilog: what follows the options; printed as it is.
    """

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m fmnist_cv.{command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments.

        Raises:
            UserError: one is unknown, missing or cannot be used.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            from fmnist_cv.config.jsonargparse_internals.private import options_of  # here, since few commands need it

            word = unknown[0].partition("=")[0].lstrip("-")
            known = [name.lstrip("-") for option in options_of(self) for name in option.option_strings]
            hint = did_you_mean(word, known, f"see {self.prog} --help")
            raise UserError(f"'{shortened(word)}' is not an option{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def add_run(self) -> None:
        """RUN, the folder of a finished run."""
        self.add_argument("run", type=paths.argument, metavar="RUN", help="folder of a finished run")

    def add_model(self) -> None:
        """--model, which of the run's networks."""
        self.add_argument(
            "--model",
            choices=get_args(ModelChoice),
            default="ensemble",
            help="the folds' networks, the best fold's alone, or the refit (default: %(default)s)",
        )

    def add_accelerator(self) -> None:
        """--accelerator, where the networks run."""
        self.add_argument("--accelerator", help="cpu, gpu, mps or auto (default: as in the run)")


def number(text: str, kind: Callable[[str], float] = float, what: str = "number") -> float:
    """A command-line argument that is a number, for argparse's `type`.

    Raises:
        argparse.ArgumentTypeError: it is not one of this kind.
    """
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not a {what}") from None


# -- fmnist-cv COMMAND --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fmnist-cv COMMAND ...`, importing that command alone; returns its exit status."""
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in COMMANDS:
        run: Main = import_module(f"fmnist_cv.{name}").main
        return run(rest)
    return _without_command([name, *rest])


@command(if_interrupted="nothing was done")
def _without_command(arguments: list[str]) -> int:
    """--help, --version, --print_completion, or an error."""
    if arguments[0] in ("-h", "--help"):
        print(f"usage: fmnist-cv COMMAND ...\n{DESCRIPTION}\ncommands:")
        for name, what in COMMANDS.items():
            print(f"  {name:10} {what}")
        print("\noptions:\n  --version\n  --print_completion bash|zsh    a script for the shell; see its first lines")
        return OK
    if arguments[0] == "--version":
        print(f"fmnist-cv {version('fmnist_cv')}")
        return OK
    if arguments[0].partition("=")[0] == "--print_completion":
        from fmnist_cv.completion import script

        print(script(" ".join(arguments).replace("=", " ").split()[1:], COMMANDS), end="")
        return OK
    hint = did_you_mean(arguments[0], COMMANDS, f"the commands are {', '.join(COMMANDS)}")
    raise UserError(f"'{shortened(arguments[0])}' is not a command of fmnist-cv{hint}")
