"""Short ways to name data and network: a path, or any class or function that makes a network, written out in full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fmnist_cv.config.class_paths import parameters
from fmnist_cv.config.short_sections import SECTION_FILES, WRAPPED, full_data, full_model, label
from fmnist_cv.config.yaml_files import load_yaml, read_yaml_text
from fmnist_cv.errors import UserError

EPOCHS = 20  # where neither epochs, steps nor a time are given


@dataclass
class WrittenOut:
    """Arguments in which nothing is short.

    Attributes:
        arguments: of the command line.
        defaults: what was chosen for settings that are not given, in words.
    """

    arguments: list[str]
    defaults: list[str] = field(default_factory=list)


def write_out(arguments: Sequence[str]) -> WrittenOut:
    """Write the short forms in arguments out; without any, they stay as they are.

    A path as `data` becomes the data module that reads it, and a function a `DatasetViewsDataModule`; a class or function that
    makes a network becomes a `WrappedNetwork`, and options of the section `model` that this does not have become arguments of
    the network. Name and number of epochs then have defaults.

    Args:
        arguments: the command line's, with the configs' texts, see `options.read_configs`.

    Raises:
        UserError: the data or the network is nothing that can be used.
    """
    options = _Options()
    for argument in _pairs(arguments):
        options.take(argument)
    return options.written_out() if options.is_changed else WrittenOut([*arguments])


def write_out_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A config's content with its sections `data` and `model` written out, and whether one of them was short.

    Raises:
        UserError: as `write_out`.
    """
    written = dict(config)
    if (data := full_data(config.get("data"))) is not None:
        written["data"] = data
    if (model := full_model(config.get("model"))) is not None:
        written["model"] = model
    return written, data is not None or model is not None


def _pairs(arguments: Sequence[str]) -> list[list[str]]:
    """Each option with its value: ["--key=value"], ["--key", "value"] or ["--flag"]."""
    pairs: list[list[str]] = []
    for argument in arguments:
        is_value = not argument.startswith("--") and pairs and len(pairs[-1]) == 1 and "=" not in pairs[-1][0]
        if is_value:
            pairs[-1].append(argument)
        else:
            pairs.append([argument])
    return pairs


class _Options:
    """Options as they come, and what they set so far."""

    def __init__(self) -> None:
        self.is_short = self._has_network_options = self._has_optimizer = False
        self._written: list[str] = []
        self._given: dict[str, Any] = {}  # by dotted keys
        self._class, self._network = "", dict[str, Any]()  # of the section `model`, and arguments of the network in it

    @property
    def is_changed(self) -> bool:
        return self.is_short or self._has_network_options

    def take(self, pair: list[str]) -> None:
        """Take the next option with its value."""
        option, joined, value = pair[0].partition("=")
        value = value if joined else "".join(pair[1:])
        key = option.removeprefix("--")
        self._has_optimizer |= key.startswith(("model.optimizer", "model.init_args.optimizer"))
        if key == "config":
            self._take_config(value, pair)
        elif key in ("data", "model"):
            self._take_section(key, _value(value) if value.startswith("{") else value, pair)
        elif self._class == WRAPPED and (name := _network_argument(key)) is not None:
            self._has_network_options = True
            self._network |= {name: _value(value)} if name else _value(value)
        else:
            self._given[key] = value
            self._given |= {f"{key}.{inner}": item for inner, item in _section(value).items()}
            self._written += pair

    def _take_config(self, text: str, pair: list[str]) -> None:
        try:
            content = load_yaml(text)
        except (UserError, yaml.YAMLError):  # which the parser reports
            content = None
        if not isinstance(content, dict):
            self._written += pair
            return
        written, is_short = write_out_config(content)
        self.is_short |= is_short
        for section, values in written.items():
            self._given |= {f"{section}.{k}": v for k, v in values.items()} if isinstance(values, dict) else {}
            self._given[section] = values
        if "model" in written:
            self._note_model(written["model"])
        self._written += [f"--config={yaml.safe_dump(written)}\n"] if is_short else pair

    def _take_section(self, section: str, value: Any, pair: list[str]) -> None:
        full = full_data(value) if section == "data" else full_model(value)
        self._given[section] = value if full is None else full
        if section == "model":
            self._note_model(self._given[section])
        if full is None:
            self._written += pair
        else:
            self.is_short = True
            self._written.append(f"--{section}={full['class_path']}")
            self._written += [
                f"--{section}.{key}={item if isinstance(item, str) else json.dumps(item)}"
                for key, item in full["init_args"].items()
            ]

    def _note_model(self, model: Any) -> None:
        init_args = (model.get("init_args") or {}) if isinstance(model, dict) else {}
        self._class = str(model.get("class_path")) if isinstance(model, dict) else str(model)
        self._network = dict(init_args.get("arguments") or {}) if self._class == WRAPPED else {}
        self._has_optimizer |= "optimizer" in init_args

    def written_out(self) -> WrittenOut:
        """All options, and defaults for what is not given."""
        written, defaults = [*self._written], []
        if self._has_network_options:
            written.append(f"--model.arguments={json.dumps(self._network)}")
        if not self.is_short:
            return WrittenOut(written)
        if self._given.get("name") is None:
            name = "-".join(label(self._given[part]) for part in ("data", "model") if self._given.get(part))
            written.append(f"--name={name}")
            defaults.append(f"name {name}")
        if not self._has_optimizer and "optimizer" in parameters(self._class):
            defaults.append("Adam with learning rate 0.001")
        if all(self._given.get(f"trainer.{key}") is None for key in ("max_epochs", "max_steps", "max_time")):
            written.append(f"--trainer.max_epochs={EPOCHS}")
            defaults.append(f"{EPOCHS} epochs")
        return WrittenOut(written, defaults)


def _network_argument(key: str) -> str | None:
    """The network's argument that an option of a `WrappedNetwork` sets, "" for all of them, None for another option."""
    section, *names = (name for name in key.split(".") if name != "init_args")
    if section != "model" or not names:
        return None
    if names[0] == "arguments":
        return names[1] if len(names) == 2 else "" if len(names) == 1 else None
    own = {*parameters(WRAPPED)} - {"kwargs"} | {"help", "class_path"}
    return names[0] if len(names) == 1 and names[0] not in own else None


def _section(value: str) -> dict[str, Any]:
    """The content of a section that is given whole, as JSON or as the name of a file; of anything else, nothing."""
    try:
        if Path(value).suffix.lower() in SECTION_FILES and Path(value).is_file():
            value = read_yaml_text(Path(value), "file")
        content = load_yaml(value) if value.startswith("{") or "\n" in value else None
    except (UserError, yaml.YAMLError):  # the parser reports it
        return {}
    return content if isinstance(content, dict) else {}


def _value(text: str) -> Any:
    """An argument of a network as YAML reads it."""
    try:
        value = load_yaml(text)
        json.dumps(value)
    except (TypeError, UserError, yaml.YAMLError):  # the parser reports it
        return text
    return value
