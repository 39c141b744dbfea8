"""YAML that would fill memory, hang, or silently drop half of itself is refused, wherever it comes from."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.products.styles import RECODING, read_recoding
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.yaml_files import MAX_BYTES, MAX_DEPTH, MAX_VALUES, load_yaml, read_yaml_text
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.errors import UserError
from fmnist_cv.inference.named_data import read_data
from fmnist_cv.search.search import Search

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + of] * 9)}]\n" for of, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "billion laughs": (
        LAUGHS,
        "line 4: YAML with more than 3,000 values, counting what aliases stand for, is not read",
    ),
    "merges": (LAUGHS + "z: {<<: *i}\n", "counting what aliases stand for"),
    "an alias of itself": ("a: &a [*a]\n", r"the alias \*a is a part of what it stands for"),
    "brackets": ("a: " + "[" * 20_000 + "\n", "line 1: YAML nested more than 30 deep is not read"),
    "braces": ("a: " + "{a: " * 20_000 + "\n", "nested more than 30 deep"),
    "dashes": ("- " * 20_000 + "\n", "nested more than 30 deep"),
    "many values": ("a: [" + "1, " * 300_000 + "]\n", "YAML with more than 3,000 values is not read"),
    "a large file": ("a: 1\n#" + "x" * MAX_BYTES + "\n", "YAML of more than 1,000,000 characters is not read"),
    "a key twice": (
        "cv: {n_splits: 3}\nname: x\ncv: {n_splits: 4}\n",
        "'cv' is given twice, in lines 1 and 3; keep one of them",
    ),
    "a key twice below": ("cv:\n  n_splits: 3\n  n_splits: 4\n", "'n_splits' is given twice, in lines 2 and 3"),
    "a value that its tag does not fit": ("a: !!int x\n", "a value does not fit its tag"),
    "an object": ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
}
NO_RUN: Any = None  # only pictures are prepared as the run's are
FILES: dict[str, Callable[[Path], Any]] = {
    "--config": lambda path: Experiment.parse([f"--config={path}"]),
    "tune --config": lambda path: Search.parse([f"--config={path}"]),
    "evaluate --data": lambda path: read_data(path, NO_RUN),
    "data.recoding": read_recoding,
    "--data": lambda path: Experiment.parse(["--config=quickstart", f"--data={path}"]),
}


def refusal(do: Callable[[], Any]) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        do()
    assert time.monotonic() - began < 10 and len(str(refused.value)) < 600
    return str(refused.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    text, reason = HOSTILE[kind]
    path = tmp_path / "hostile.yaml"
    path.write_text(text, encoding="utf-8")
    for what, take in FILES.items():
        message = refusal(lambda take=take: take(path))  # type: ignore[misc]
        assert str(path) in message, what
        with pytest.raises(UserError, match=reason):
            take(path)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_refused(kind: str) -> None:
    text, reason = HOSTILE[kind]
    for take in (Experiment.from_yaml, lambda text: Experiment.parse([f"--config={text}"])):
        with pytest.raises(UserError, match=reason):
            take(text)


@pytest.mark.parametrize("text", ["name: [a\n", "name: 'a\n"])
def test_what_is_no_yaml_says_where(text: str) -> None:
    message = refusal(lambda: Experiment.parse([f"--config={text}"]))
    assert re.fullmatch(r"--config cannot be read as YAML: while .* line \d, column \d", message)
    assert "not UTF-8" in refusal(lambda: Experiment.parse(["--config=name: a\udcff\n"]))


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--data.augment", "[" * 20_000, "--data.augment: line 1: YAML nested more than 30 deep"),
        ("--model.hidden", "[" + "1, " * 10_000 + "]", "--model.hidden: line 1: YAML with more than 3,000 values"),
        ("--model", "{class_path: a.B, class_path: a.C}", "--model: 'class_path' is given twice, in line 1"),
        ("--name", "x" * 2_000_000, "--name: YAML of more than 1,000,000 characters"),
    ],
)
def test_hostile_values_of_options_are_refused(option: str, value: str, reason: str) -> None:
    assert reason in refusal(lambda: Experiment.parse(["--config=quickstart", f"{option}={value}"]))
    assert reason in refusal(lambda: Experiment.parse(["--config=quickstart", option, value]))


def test_pipes_and_devices_are_no_configs(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for take in FILES.values():
        assert "is a named pipe; give a regular file" in refusal(lambda take=take: take(pipe))  # type: ignore[misc]
    assert "a device" in refusal(lambda: Experiment.parse(["--config=/dev/zero"]))


def test_what_is_within_the_bounds_is_read(tmp_path: Path, tiny: dict[str, Any]) -> None:
    shared = [1, 2]
    assert load_yaml(yaml.safe_dump({"a": shared, "b": shared})) == {"a": shared, "b": shared}
    assert load_yaml("base: &b {x: 1, y: 2}\nother: {<<: *b, x: 3}\nboth: {<<: *b, <<: *b}")["other"] == {
        "x": 3,
        "y": 2,
    }
    assert load_yaml("{a: {x: 1}, b: {x: 1}}") == {"a": {"x": 1}, "b": {"x": 1}}
    assert load_yaml("a: 1e-3") == {"a": 0.001}  # as jsonargparse reads it, unlike PyYAML
    depth, n = "[" * MAX_DEPTH + "]" * MAX_DEPTH, MAX_VALUES - 1
    assert load_yaml(depth) is not None and len(load_yaml(f"[{'1, ' * n}]")) == n
    same = tiny["data"]["init_args"] | {"n_test": 50}
    assert as_experiment({**tiny, "data": tiny["data"] | {"init_args": same}}).name == "tiny"


def test_files_are_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("a: Größe\n", encoding=encoding)
        assert load_yaml(read_yaml_text(path, "config")) == {"a": "Größe"}
    path.write_text("a: Größe\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"config .*x\.yaml cannot be read as YAML: 'utf-8' codec"):
        read_yaml_text(path, "config")
    with pytest.raises(UserError, match=r"config .*gone\.yaml cannot be read as YAML: No such file"):
        read_yaml_text(tmp_path / "gone.yaml", "config")


def test_the_shipped_recoding_is_read() -> None:
    names, classes = read_recoding(RECODING)
    assert len(names) == 10 and set(np.unique(list(classes.values()))) == set(range(10))
