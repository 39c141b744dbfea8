"""jsonargparse still has the private attributes, and still words its messages, as the package relies on.

A failure here means that a new version changed them: see `fmnist_cv.config.jsonargparse_internals`.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, _loaders_dumpers

from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.options import experiment_parser
from fmnist_cv.config.yaml_files import BoundedLoader

MODEL = "--model=fmnist_cv.models.DenseNetwork"


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return experiment_parser()


def test_options_and_their_types_are_reached(parser: ArgumentParser) -> None:
    by_name = {option.dest: option for option in private.options_of(parser)}
    assert {"name", "cv.n_splits", "model", "data", "trainer.max_epochs"} <= set(by_name)
    assert private.type_of(by_name["cv.n_splits"]) is int
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
        (["--cv.n_splits=x"], r"Expected an? .*Got value|Got value: "),
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
