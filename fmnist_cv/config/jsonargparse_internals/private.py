"""jsonargparse's private attributes that have no public counterpart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace, _core, _loaders_dumpers, _subcommands


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All options, those of nested sections among them. argparse has them only in `_actions`."""
    return parser._actions


def find_option(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    """The option of that name, e.g. "--config"."""
    return parser._option_string_actions.get(name)


def takes_files(parser: argparse.ArgumentParser, name: str) -> bool:
    """Whether the option reads the file that its value names."""
    return bool(getattr(find_option(parser, name), "_enable_path", False))


def type_of(option: argparse.Action) -> Any:
    """The type that values of an option are converted to; None for an option without one."""
    return getattr(option, "_typehint", None)


def set_type(option: argparse.Action, hint: Any) -> None:
    """Change the type of an option that was made from a signature."""
    option._typehint = hint  # type: ignore[attr-defined]


def groups_of(parser: ArgumentParser) -> list[tuple[Any, list[argparse.Action]]]:
    """The groups of the help, each with its options."""
    return [(group, group._group_actions) for group in parser._action_groups]


def title_groups(parser: ArgumentParser, titles: dict[str, str]) -> None:
    """Give groups of options headings in words, by the section of their first option; jsonargparse shows the class."""
    for group, options in groups_of(parser):
        if options and (section := options[0].dest.partition(".")[0]) in titles:
            group.title = titles[section]


def default_yaml_loader() -> Any:
    """The class of the loader that jsonargparse reads YAML with; it takes 1e-3 for a number."""
    get_loader: Any = _loaders_dumpers.get_yaml_default_loader
    return get_loader()


def use_yaml_loader(loader: type) -> None:
    """Read YAML with this loader from now on: configs, options' values, and files that these name."""
    _loaders_dumpers.yaml_default_loader = loader  # type: ignore[assignment]


def parse_text(parser: ArgumentParser, text: str) -> Namespace:
    """Parse YAML without the validation at the end, which takes a quarter of the time: an `Experiment` does it again."""
    parsed: Namespace = parser.parse_string(text, _skip_validation=True)
    return parsed


def parse_arguments(parser: ArgumentParser, arguments: Sequence[str], validate: bool) -> Namespace:
    """Parse a command line, with or without the validation at the end."""
    parsed: Namespace = parser.parse_args(arguments, _skip_validation=not validate)
    return parsed


def remember_lookups() -> None:
    """Have every parser remember which option a key is of, and every namespace which keys are not nested.

    A third of the time of parsing goes into these two: for each key, at each level, all options are gone through, and the
    key is taken apart.
    """
    find, take_apart = _subcommands.find_action_and_subcommand, Namespace._parse_key
    plain: set[str] = set()

    def find_remembered(parser: Any, dest: str, exclude: Any = None) -> Any:
        if getattr(parser, "_subcommands_action", None) is not None:  # then parsers below it have options, too
            return find(parser, dest, exclude)
        options, found = vars(parser).get("_found_by_key", (None, {}))
        if options != parser._actions:
            options, found = vars(parser)["_found_by_key"] = ([*parser._actions], {})
        if (dest, exclude) not in found:
            found[dest, exclude] = find(parser, dest, exclude)
        return found[dest, exclude]

    def take_apart_remembered(namespace: Namespace, key: str) -> Any:
        if type(key) is str and key in plain:
            return key, namespace, ""
        taken = take_apart(namespace, key)
        if taken[:2] == (key, namespace):
            plain.add(key)
        return taken

    for module in (_core, _subcommands):
        vars(module)["find_action_and_subcommand"] = find_remembered
    Namespace._parse_key = take_apart_remembered  # type: ignore[assignment, method-assign]


remember_lookups()
