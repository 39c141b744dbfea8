"""`--help` of two screens; `--help all` has every option."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from jsonargparse import ArgumentParser

from fmnist_cv.config.jsonargparse_internals import private

WIDTH, COLUMN = 118, 36  # of a line, and where an option's meaning begins


def show_help_if_requested(
    arguments: Sequence[str], short: Callable[[], ArgumentParser], full: Callable[[], ArgumentParser]
) -> None:
    """With --help or -h, print the short help, or the full one for `--help all`, and exit with status 0."""
    for i, argument in enumerate(arguments):
        if argument in ("-h", "--help"):
            is_all = list(arguments[i + 1 : i + 2]) == ["all"]
            print(full().format_help() if is_all else short_help(short()), end="")
            sys.exit(0)


def short_help(parser: ArgumentParser) -> str:
    """Usage, description, and a line or two per option, by groups with headings."""
    parts = [f"usage: {parser.usage}\n{parser.description}"]
    for group, options in private.groups_of(parser):
        if lines := [line for option in options for line in _lines(option)]:
            parts.append("\n".join([f"{group.title}:", *lines]) + "\n")
    parts.append(
        f"Each option of the experiment is also a key of the YAML file. All options: {parser.prog} --help all\n"
    )
    return "\n".join(parts)


def _lines(option: argparse.Action) -> Iterator[str]:
    """The option with its meaning and default; nothing for options that show help or read a section from a file."""
    if option.dest == "help" or option.dest.endswith(".help") or not option.option_strings:
        return
    if option.help == "Path to a configuration file.":
        return
    metavar = "" if option.nargs == 0 else f" {option.metavar or option.dest.rpartition('.')[2].upper()}"
    if option.dest == "print_config":
        metavar, meaning = "", "print the configuration with all options applied, and exit"
    else:
        meaning = " ".join((option.help or "").split()).removesuffix(".")
        meaning = meaning[:1].lower() + meaning[1:] if meaning[1:2].islower() else meaning
        if isinstance(option.default, str | int | float) and option.nargs != 0:
            meaning += (
                f" (default: {str(option.default).lower() if isinstance(option.default, bool) else option.default})"
            )
    name = f"  {option.option_strings[-1]}{metavar}"
    meanings = textwrap.wrap(meaning, WIDTH - COLUMN) or [""]
    if len(name) > COLUMN - 2:
        yield name
        name = ""
    yield f"{name:{COLUMN}}{meanings[0]}"
    yield from (" " * COLUMN + line for line in meanings[1:])
