"""jsonargparse still has the private attributes, and still words its messages, as the package relies on.

A failure here means that a new version changed them: see `fmnist_cv.config.jsonargparse_internals`.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, Namespace, _core, _loaders_dumpers, _namespace, _subcommands, _typehints

from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.options import experiment_parser
from fmnist_cv.config.yaml_files import BoundedLoader

MODEL = "--model=fmnist_cv.models.DenseNetwork"


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return experiment_parser()


def test_options_and_their_types_are_reached(parser: ArgumentParser) -> None:
    by_name = {option.dest: option for option in private.options_of(parser)}
    assert {"name", "seed", "model", "data", "trainer.max_epochs"} <= set(by_name)
    assert private.type_of(by_name["seed"]) is int
    assert private.find_option(parser, "--config") is by_name["config"]
    assert private.takes_files(parser, "--model") and not private.takes_files(parser, "--seed")


def test_no_other_module_uses_private_attributes() -> None:
    """argparse's are among them, which jsonargparse keeps."""
    attributes = re.compile(r"\._(actions|action_groups|group_actions|option_string_actions|typehint|enable_path)\b")
    for path in Path(private.__file__).parents[2].rglob("*.py"):
        assert path.name == "private.py" or not attributes.search(path.read_text(encoding="utf-8")), path


def test_yaml_is_read_by_the_bounded_loader(parser: ArgumentParser) -> None:
    assert _loaders_dumpers.get_yaml_default_loader() is BoundedLoader
    assert _loaders_dumpers.yaml_load("a: 1e-3") == {"a": 0.001}


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--zzz=1"], r"[Uu]nrecognized arguments: (-*)([^\s=]*)"),
        (["--config=zzz: 1\n"], r"[Kk]ey '([\w.]+)' is not expected|does not accept option '([\w.]+)'|not accepted"),
        (["--name=a"], r"the following arguments are required: (.*)"),
        ([MODEL, "--model.zzz=1"], r"[Oo]ption '([\w.]+)' is not accepted|[Kk]ey '([\w.]+)' is not expected"),
        (["--model=nowhere.Net"], r"No module named '([\w.]+)'"),
        (["--model=torch.nn.Zzz"], r"module '([\w.]+)' has no attribute '(\w+)'"),
        (["--model=torch.nn.Linear"], r"Import path (\S+ )?does not correspond to a subclass of (\w+)"),
        (["--seed=x"], r"Expected an? .*Got value|Got value: "),
        (["--selection.mode=up"], r"Expected|Does not validate"),
        (["--trainer.logger=foo"], r"Subtypes: .*Errors:.*Given value type: <class 'str'>"),
    ],
)
def test_messages_are_worded_as_the_package_reads_them(
    parser: ArgumentParser, arguments: list[str], pattern: str
) -> None:
    with pytest.raises((ArgumentError, TypeError, ValueError)) as refused:
        parser.parse_args(arguments)
    assert re.search(pattern, str(refused.value), re.DOTALL), str(refused.value)


def test_equal_yaml_is_parsed_once_and_every_caller_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist_cv.config import yaml_files

    parsed: list[str] = []
    check = yaml_files.check_yaml

    def counted(text: str) -> None:
        parsed.append(text)
        check(text)

    monkeypatch.setattr(yaml_files, "check_yaml", counted)
    text = "a_text_of_this_test: {list: [1]}"
    first: Any = yaml_files.load_yaml(text)
    first["a_text_of_this_test"]["list"].append(2)
    assert yaml_files.load_yaml(text) == {"a_text_of_this_test": {"list": [1]}}
    assert parsed == [text]


def test_options_are_found_once_and_later_ones_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for an option gets it from what the parser remembers."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--a.b", type=int)
    gone_through: list[object] = []
    filtered = _subcommands.filter_non_parsing_actions

    def counted(actions: Any) -> Any:
        gone_through.append(actions)
        return filtered(actions)

    monkeypatch.setattr(_subcommands, "filter_non_parsing_actions", counted)
    asked = [_core.find_action, _typehints.find_action, _typehints.find_parent_action]
    found = [find(parser, "a.b") for find in asked for _ in range(3)]
    found += [vars(module)["find_action_and_subcommand"](parser, "a.b")[0] for module in (_core, _subcommands)]
    assert {option.dest for option in found} == {"a.b"} and len(gone_through) == 1
    assert _core.find_action(parser, "c") is None
    later = parser.add_argument("--c", type=int)
    assert _core.find_action(parser, "c") is later
    assert _core.find_action(parser, "c", exclude=type(later)) is None
    parser._actions[-1] = other = ArgumentParser().add_argument("--c", type=str)
    assert _core.find_action(parser, "c") is other


def test_options_of_subcommands_are_found_when_they_come_later() -> None:
    parser, inner = ArgumentParser(exit_on_error=False), ArgumentParser(exit_on_error=False)
    parser.add_subcommands().add_subcommand("go", inner)
    assert _core.find_action(parser, "go.far") is None
    added = inner.add_argument("--far", type=int)
    assert _core.find_action(parser, "go.far") is added
    assert parser.parse_args(["go", "--far=3"]).go.far == 3


@pytest.mark.parametrize(
    "key", ["plain", "a.b", "a.b.c", "items", "a.items", "items.a", "", "a.", ".a", "a b", 3, ["a"]]
)
def test_keys_of_namespaces_are_taken_apart_as_ever(key: Any) -> None:
    by_the_library = Namespace._parse_key.__closure__  # the original is what is called at first
    (original,) = [cell.cell_contents for cell in by_the_library if callable(cell.cell_contents)]
    namespace = Namespace(a=Namespace(b=1), plain=2)
    for _ in range(2):
        try:
            expected = original(namespace, key)
        except KeyError as error:
            with pytest.raises(_namespace.NSKeyError, match=re.escape(str(error))):
                Namespace._parse_key(namespace, key)
        else:
            leaf, parent, parent_key = Namespace._parse_key(namespace, key)
            assert (leaf, parent_key) == (expected[0], expected[2]) and parent is expected[1]
