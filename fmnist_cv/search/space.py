"""The search space: which keys of an experiment vary, over which values, and under which choice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_cv.errors import UserError, did_you_mean

KINDS = ("float", "int", "choices")
# Not searchable: trials would be compared on different folds or images, or run on different devices.
NOT_SEARCHED = {
    "cv": "the folds must be the same for all trials",
    "seed": "the folds and initial weights must be the same for all trials",
    "name": "it is the name of the trials' folder",
    "log_dir": "all trials are written to one folder",
    "report": "trials have no report",
    "synthetic_fallback": "all trials must use the same images",
    "trainer.accelerator": "all trials run on the same devices",
    "trainer.devices": "all trials run on the same devices",
}
# All other keys of data select the images, which all trials share.
SEARCHED_OF_DATA = ("batch_size", "eval_batch_size", "scaling", "augment", "drop_last")


@dataclass(frozen=True)
class CategoricalChoice:
    """One of a parameter's choices.

    Attributes:
        value: what the key is set to.
        space: parameters that exist only under this choice.
    """

    value: Any
    space: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        key: the experiment's dotted key.
        name: the parameter's name in the study: the key, preceded by the label of the choice under which it exists.
        distribution: of its values; of choices, of their labels.
        choices: the choices by label; empty for numbers.
    """

    key: str
    name: str
    distribution: BaseDistribution
    choices: dict[Any, CategoricalChoice] = field(default_factory=dict)

    def extremes(self) -> list[Any]:
        """The values to check: both ends, or every choice's label."""
        if isinstance(self.distribution, FloatDistribution | IntDistribution):
            return [self.distribution.low, self.distribution.high]
        return list(self.choices)


def read_space(content: Any, where: str = "space", prefix: str = "") -> tuple[Parameter, ...]:
    """Parameters from YAML: a mapping of dotted keys to `float: [low, high]`, `int: [low, high]` or `choices`.

    Args:
        content: e.g. {"model.dropout": {"float": [0.0, 0.5]}, "model.optimizer": {"choices": {...}}}.
        where: the place, for messages.
        prefix: of the parameters' names.

    Raises:
        UserError: it is invalid; the message names the place.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{where} is {content!r}; give a mapping of keys of the experiment to their ranges or choices")
    by_plain: dict[str, str] = {}
    for key in map(str, content):
        if (other := by_plain.setdefault(_plain(key), key)) != key:
            raise UserError(f"{where} has {other} and {key}, which are the same key; remove one of them")
    # A class before its arguments, which it would reset. Arguments that the config gives to another class are kept if the
    # new class has them, too, as on the command line of `fit`.
    keys = sorted(content, key=lambda key: _plain(str(key)).count("."))
    space = tuple(_parameter(str(key), content[key], f"{where}.{key}", prefix) for key in keys)
    _refuse_twice(space, where)
    return space


def _refuse_twice(space: tuple[Parameter, ...], where: str) -> None:
    """A key may be searched under several choices of one parameter, but only once in any trial."""
    seen: dict[str, str] = {}
    for parameter in space:
        for key, name in _keys(parameter).items():
            if key in seen:
                raise UserError(
                    f"{where} searches {key} twice in one trial, as {seen[key]} and {name}; remove one of them"
                )
            seen[key] = name


def _keys(parameter: Parameter) -> dict[str, str]:
    """The plain keys that a parameter and the spaces under its choices set, and their names in the study."""
    below = {key: name for choice in parameter.choices.values() for p in choice.space for key, name in _keys(p).items()}
    if (key := _plain(parameter.key)) in below:
        raise UserError(
            f"space searches {key} twice in one trial, as {parameter.name} and {below[key]}; remove one of them"
        )
    return {**below, key: parameter.name}


def _plain(key: str) -> str:
    return key.replace(".init_args", "")


def _parameter(key: str, entry: Any, where: str, prefix: str) -> Parameter:
    plain = _plain(key)
    for fixed, why in NOT_SEARCHED.items():
        if plain == fixed or plain.startswith(f"{fixed}."):
            raise UserError(f"{where} cannot be searched: {why}")
    if plain.split(".")[0] == "data" and plain.removeprefix("data.").split(".")[0] not in SEARCHED_OF_DATA:
        raise UserError(
            f"{where} cannot be searched: all trials must use the same images; searchable keys of data are "
            f"{', '.join(SEARCHED_OF_DATA)}"
        )
    kinds = [kind for kind in KINDS if isinstance(entry, Mapping) and kind in entry]
    if len(kinds) != 1:
        raise UserError(f"{where} is {entry!r}; give one of float: [low, high], int: [low, high], choices: [...]")
    kind = kinds[0]
    if kind == "choices":
        _only(entry, ("choices",), where)
        choices = _choices(entry["choices"], where, prefix)
        return Parameter(key, prefix + key, CategoricalDistribution(list(choices)), choices)
    _only(entry, (kind, "log", "step"), where)
    return Parameter(key, prefix + key, _range(kind, entry, where))


def _range(kind: str, entry: Mapping[str, Any], where: str) -> BaseDistribution:
    ends, log, step = entry[kind], entry.get("log", False), entry.get("step")
    numbers = (int,) if kind == "int" else (int, float)
    if not isinstance(ends, list) or len(ends) != 2 or not all(type(end) in numbers and isfinite(end) for end in ends):
        raise UserError(f"{where}.{kind} is {ends!r}; give [low, high]{', whole numbers' if kind == 'int' else ''}")
    if ends[0] >= ends[1]:
        raise UserError(f"{where}.{kind} is {ends!r}; the low end must be below the high one")
    if not isinstance(log, bool):
        raise UserError(f"{where}.log is {log!r}; give true or false")
    if step is not None and (type(step) not in numbers or not 0 < step <= ends[1] - ends[0]):
        raise UserError(f"{where}.step is {step!r}; it must be above 0 and fit between {ends[0]} and {ends[1]}")
    if log and step is not None:
        raise UserError(f"{where} has both log and step; remove one of them")
    if log and ends[0] <= 0:
        raise UserError(f"{where}.{kind} is {ends!r}; a logarithmic range begins above 0")
    try:
        if kind == "int":
            return IntDistribution(ends[0], ends[1], log=log, step=1 if step is None else step)
        return FloatDistribution(float(ends[0]), float(ends[1]), log=log, step=step)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _choices(entry: Any, where: str, prefix: str) -> dict[Any, CategoricalChoice]:
    """The choices by label: a mapping's keys; of a list, its values, or their JSON for lists and mappings."""
    if not isinstance(entry, list | Mapping) or len(entry) < 1:
        raise UserError(f"{where}.choices is {entry!r}; give a list of values, or a mapping of labels to values")
    if isinstance(entry, list):
        labels = [
            value if value is None or isinstance(value, str | int | float) else json.dumps(value) for value in entry
        ]
        if len(set(labels)) < len(labels):
            raise UserError(f"{where}.choices has a value twice: {entry!r}")
        return {label: CategoricalChoice(value) for label, value in zip(labels, entry, strict=True)}
    if len({str(label) for label in entry}) < len(entry):
        raise UserError(f"{where}.choices has a label twice: {', '.join(map(repr, entry))}")
    return {
        str(label): _choice(f"{prefix}{label}/", value, f"{where}.choices.{label}") for label, value in entry.items()
    }


def _choice(prefix: str, entry: Any, where: str) -> CategoricalChoice:
    if not isinstance(entry, Mapping) or "value" not in entry:
        raise UserError(
            f"{where} is {entry!r}; give value: ..., and space: ... for parameters that exist only under this choice"
        )
    _only(entry, ("value", "space"), where)
    space = read_space(entry["space"], f"{where}.space", prefix) if "space" in entry else ()
    return CategoricalChoice(entry["value"], space)


def _only(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            hint = did_you_mean(str(key), known, f"choose from {', '.join(known)}")
            raise UserError(f"{where}.{key} is not an option{hint}")


# -- values -------------------------------------------------------------------------------------------------


def suggest(space: tuple[Parameter, ...], trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """The trial's values by dotted key, in an order in which they can be set one after another."""
    values: dict[str, Any] = {}
    for parameter in space:
        drawn = _draw(trial, parameter)
        values |= _value(parameter, drawn)
        if parameter.choices:
            values |= suggest(parameter.choices[drawn].space, trial)
    return values


def values_of(space: tuple[Parameter, ...], params: Mapping[str, Any]) -> dict[str, Any]:
    """The values by dotted key of a finished trial's parameters."""
    return suggest(space, optuna.trial.FixedTrial(dict(params)))


def _draw(trial: optuna.trial.BaseTrial, parameter: Parameter) -> Any:
    match parameter.distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(parameter.name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(parameter.name, low, high, log=log, step=step)
    return trial.suggest_categorical(parameter.name, list(parameter.choices))


def _value(parameter: Parameter, drawn: Any) -> dict[str, Any]:
    return {parameter.key: parameter.choices[drawn].value if parameter.choices else drawn}


def corners(space: tuple[Parameter, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each parameter at its extremes while the others stay at their first: (description, values by dotted key)."""
    for i, parameter in enumerate(space):
        before, after = _first(space[:i]), _first(space[i + 1 :])
        for drawn in parameter.extremes():
            here = _value(parameter, drawn)
            below = parameter.choices[drawn].space if parameter.choices else ()
            yield f"{parameter.name} = {drawn}", {**before, **here, **_first(below), **after}
            for what, values in corners(below):
                yield what, {**before, **here, **values, **after}


def _first(space: tuple[Parameter, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for parameter in space:
        drawn = parameter.extremes()[0]
        values |= _value(parameter, drawn)
        if parameter.choices:
            values |= _first(parameter.choices[drawn].space)
    return values


def grid(space: tuple[Parameter, ...]) -> dict[str, list[Any]]:
    """Every parameter's values, for a grid.

    Raises:
        UserError: a parameter has infinitely many values, or exists only under a choice.
    """
    values: dict[str, list[Any]] = {}
    for parameter in space:
        distribution = parameter.distribution
        if any(choice.space for choice in parameter.choices.values()):
            raise UserError(f"space.{parameter.key}: a grid does not support spaces under choices; use another sampler")
        if isinstance(distribution, CategoricalDistribution):
            values[parameter.name] = list(distribution.choices)
        elif isinstance(distribution, IntDistribution) and not distribution.log:
            values[parameter.name] = list(range(distribution.low, distribution.high + 1, distribution.step))
        elif isinstance(distribution, FloatDistribution) and distribution.step is not None:
            n = round((distribution.high - distribution.low) / distribution.step) + 1
            values[parameter.name] = [
                min(distribution.low + i * distribution.step, distribution.high) for i in range(n)
            ]
        else:
            raise UserError(
                f"space.{parameter.key} has infinitely many values; give it a step or choices, or use another sampler"
            )
    return values


def grid_size(space: tuple[Parameter, ...]) -> int:
    """Number of points of the grid."""
    return prod(map(len, grid(space).values()))
