"""jsonargparse's private attributes that have no public counterpart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace, _loaders_dumpers


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
