"""The parsers of the commands as Markdown: every option with its type, its default and its meaning."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from fmnist_cv.command_line import COMMANDS

NOT_OPTIONS = ("help", "print_config", "config")  # explained once, on top of the page


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    parser: argparse.ArgumentParser = import_module(f"fmnist_cv.{command}").make_parser()
    return parser


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a parser, without `--help`, `--config` and those that ask for help about a class."""
    for action in parser._actions:
        if action.dest not in NOT_OPTIONS and not action.dest.endswith(".help"):
            yield action


def commands_page() -> str:
    """One section per command: what it does, how it is called, and all its options."""
    parts = [
        "# Commands\n\nThis page is generated from the parsers of the commands.\n\n"
        "Each command is started as `fmnist-cv <command>` or, which is the same, as `python -m fmnist_cv.<command>`. "
        "`--help` explains it; `fit --help all` includes the options of Lightning's `Trainer`. `fit` and `tune` take "
        "`--config FILE`, where every key of the YAML file is an option and the other way round, and "
        "`--print_config`, which prints the resulting configuration and exits. An unknown option is refused, with "
        "the nearest known one.\n\n"
        "| exit status | meaning |\n|---|---|\n| 0 | success |\n"
        "| 1 | a fold, a trial or a file failed; the others are kept |\n| 2 | user error: the message names it and the way out |\n"
        "| 130 | interrupted with Ctrl-C |\n"
    ]
    for command in COMMANDS:
        parser = parser_of(command)
        description, epilog = (_raw(text) for text in (parser.description, parser.epilog))
        parts.append(f"## {command}\n\n{description}")
        if command in ("fit", "tune"):
            page = "configuration.md" if command == "fit" else "search-configuration.md"
            parts.append(f"The keys of the YAML file, which are options too, are listed in [{page[:-3]}]({page}).")
            run_options = [action for action in actions(parser) if not _is_key(command, action)]
            parts.append("Options that are not part of the YAML file:\n\n" + table(run_options))
        else:
            parts.append(table(actions(parser)))
        if epilog:
            parts.append(epilog)
    return "\n\n".join(parts) + "\n"


def configuration_page() -> str:
    """The keys of an experiment's YAML file, but for those of Lightning's Trainer."""
    keys = [action for action in actions(parser_of("fit")) if _is_key("fit", action)]
    sections: dict[str, list[argparse.Action]] = {"": [], "cv": [], "selection": [], "model": [], "data": []}
    for action in keys:
        section = action.dest.partition(".")[0]
        if section != "trainer":
            sections[section if section in sections else ""].append(action)
    for section in ("cv", "selection"):
        sections[section] = [action for action in sections[section] if action.dest != section]
    text = {
        "": "Every key is also an option of the command: `cv: {n_splits: 10}` is `--cv.n_splits 10`. Files named by "
        "`--config` and options are applied in the order in which they are given; the last one wins.",
        "cv": "How the training images are split and how the folds are run.",
        "selection": "Which epoch is the best, and when to stop. What may choose what is explained in "
        "[Selection](../concepts/selection.md).",
        "model": "A `class_path` with its `init_args`: a class of `fmnist_cv.models`, or any `LightningModule`. "
        "`--model.help CLASS` lists the arguments of a class; the classes of the package are described in the "
        "[Python API](api.md#networks).",
        "data": "A `class_path` with its `init_args`: a class of `fmnist_cv.data`, or a subclass of "
        "`KFoldDataModule`. `--data.help CLASS` lists the arguments of a class; the classes of the package are "
        "described in the [Python API](api.md#data).",
    }
    parts = ["# Keys of an experiment\n\nThis page is generated from the parser of `fmnist_cv.fit`."]
    for section, found in sections.items():
        parts.append(f"## {section}" if section else "## Top level")
        parts += [text[section], table(found, as_keys=True)]
    parts.append(
        "## trainer\n\nThe arguments of Lightning's `Trainer`: see [Keys of the Trainer](trainer.md). A few of them "
        "are set by the engine itself; they are refused with the reason."
    )
    return "\n\n".join(parts) + "\n"


def trainer_page() -> str:
    """The keys under `trainer`."""
    found = [action for action in actions(parser_of("fit")) if action.dest.startswith("trainer.")]
    return (
        "# Keys of the Trainer\n\nThis page is generated from the parser of `fmnist_cv.fit`: the arguments of "
        "Lightning's `Trainer`, as keys of the section `trainer` and as options `--trainer.…`. Their explanations are "
        "Lightning's.\n\n" + table(found, as_keys=True) + "\n"
    )


def search_page() -> str:
    """The keys of a search's YAML file."""
    keys = [action for action in actions(parser_of("tune")) if _is_key("tune", action)]
    return (
        "# Keys of a search\n\nThis page is generated from the parser of `fmnist_cv.tune`. The guide is "
        "[Searching hyperparameters](../guides/search.md).\n\n" + table(keys, as_keys=True) + "\n"
    )


def table(found: Iterable[argparse.Action], as_keys: bool = False) -> str:
    """A row per option, or per key of the YAML file."""
    rows = [
        "| key | type | default | meaning |" if as_keys else "| option | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for action in found:
        name = action.dest if as_keys else _name(action)
        rows.append(f"| {_cell(name)} | {_cell(_type(action))} | {_cell(_default(action))} | {_help(action)} |")
        rows += [f"| {' | '.join(cells)} |" for cells in _fields(action)]
    return "\n".join(rows)


def _fields(action: argparse.Action) -> Iterator[list[str]]:
    """The keys below a key that may be null or a section, which the parser lists only once the section is there."""
    hint = getattr(action, "_typehint", None)
    for section in filter(dataclasses.is_dataclass, get_args(hint)):
        hints = get_type_hints(section)
        meanings = {p.arg_name: p.description or "" for p in docstring_parser.parse(section.__doc__ or "").params}
        for field in dataclasses.fields(section):
            default = "" if field.default is dataclasses.MISSING else _as_yaml(field.default)
            meaning = _escaped(" ".join(meanings[field.name].split()))
            yield [_cell(f"{action.dest}.{field.name}"), _cell(type_name(hints[field.name])), _cell(default), meaning]


def _is_key(command: str, action: argparse.Action) -> bool:
    """Whether an option is a key of the YAML file, too."""
    runs = {"fit": ("run", "resume", "refit"), "tune": ("workers", "storage")}
    return action.dest not in runs.get(command, ())


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    takes_value = action.nargs != 0
    value = action.metavar or ("" if action.choices else action.dest.rpartition(".")[2].upper())
    return " ".join(filter(None, [action.option_strings[-1], str(value) if takes_value and value else ""]))


def _type(action: argparse.Action) -> str:
    if action.choices:
        return ", ".join(map(str, action.choices))
    if action.option_strings and action.nargs == 0:
        return "flag"
    hint = getattr(action, "_typehint", None) or action.type
    if hint is None:
        return "str"
    if inspect.isroutine(hint):
        return "path"
    return type_name(hint)


def type_name(hint: Any) -> str:
    """A type as the page shows it: alternatives with a bar, classes without their modules, and null for None."""
    if hint is None or hint is NoneType:
        return "null"
    members = [type_name(member) for member in get_args(hint) if member is not ...]
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(members)
    if get_origin(hint) is Literal:
        return " | ".join("null" if value is None else str(value) for value in get_args(hint))
    if dataclasses.is_dataclass(hint):
        return "section"
    name = getattr(get_origin(hint) or hint, "__name__", str(hint)).replace("Tree", "mapping")
    return f"{name}[{', '.join(members)}]" if members else name


def _default(action: argparse.Action) -> str:
    return "" if action.required or action.nargs == 0 else _as_yaml(action.default)


def _as_yaml(default: Any) -> str:
    """A plain default as YAML writes it; nothing for None and for objects."""
    if isinstance(default, bool):
        return str(default).lower()
    plain = isinstance(default, str | int | float) and default != argparse.SUPPRESS
    return str(default) if plain else ""


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    text = "" if text == argparse.SUPPRESS else text
    with contextlib.suppress(KeyError, ValueError, TypeError):
        text = text % {**vars(action), "prog": ""}
    text = re.sub(r"\(default: [^)]*\)", "", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))
    return _escaped(re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text))


def _cell(text: str) -> str:
    return f"`{text}`" if text else ""  # a bar within code is no border of the table


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _raw(text: str | None) -> str:
    """A description: prose as prose, and indented lines, the examples, as code."""
    blocks: list[str] = []
    for block in filter(None, re.split(r"\n\s*\n", (text or "").strip("\n"))):
        lines = block.splitlines()
        if all(line.startswith("  ") for line in lines):
            blocks.append("```text\n" + "\n".join(line[2:] for line in lines) + "\n```")
        elif any(line.startswith("  ") for line in lines) or any("  " in line.strip() for line in lines):
            blocks.append("```text\n" + "\n".join(lines) + "\n```")
        else:
            blocks.append(_escaped(" ".join(lines)))
    return "\n\n".join(blocks)
