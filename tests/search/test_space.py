"""The search space: read from YAML, checked, sampled."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, strategies as st

from fmnist_cv.errors import UserError
from fmnist_cv.search.space import corners, grid, grid_size, read_space, suggest, values_of

BRANCHED = {
    "model.dropout": {"float": [0.0, 0.5], "step": 0.25},
    "model": {
        "choices": {
            "cnn": {"value": {"class_path": "CNN"}, "space": {"model.width": {"int": [8, 64], "log": True}}},
            "linear": {"value": {"class_path": "Linear"}},
        }
    },
    "data.batch_size": {"choices": [64, 128]},
    "model.hidden": {"choices": [[32], [64, 64], None]},
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "space is {}; give a mapping of keys"),
        ([1], "space is"),
        ({"model.dropout": 0.5}, "space.model.dropout is 0.5; give one of float"),
        ({"model.dropout": {"float": [0, 1], "int": [0, 1]}}, "give one of float"),
        ({"model.dropout": {"float": [0.5, 0.1]}}, "space.model.dropout.float is [0.5, 0.1]; the low end"),
        ({"model.dropout": {"float": [0.5, 0.5]}}, "the low end must be below"),
        ({"model.dropout": {"float": [0.1, "a"]}}, "give [low, high]"),
        ({"model.dropout": {"float": [True, 2]}}, "give [low, high]"),
        ({"model.width": {"int": [1, 2.5]}}, "give [low, high], whole numbers"),
        ({"model.dropout": {"float": [0.1, 0.5, 0.9]}}, "give [low, high]"),
        ({"model.dropout": {"float": [0.1, float("inf")]}}, "give [low, high]"),
        ({"model.lr": {"float": [0.0, 1.0], "log": True}}, "a logarithmic range begins above 0"),
        ({"model.lr": {"float": [0.1, 1.0], "log": "yes"}}, "space.model.lr.log is 'yes'"),
        ({"model.lr": {"float": [0.1, 1.0], "log": True, "step": 0.1}}, "both log and step"),
        ({"model.lr": {"float": [0.1, 1.0], "step": 2.0}}, "space.model.lr.step is 2.0"),
        (
            {"model.lr": {"float": [0.1, 1.0], "stepp": 0.1}},
            "space.model.lr.stepp is not an option; did you mean 'step'?",
        ),
        ({"model.hidden": {"choices": []}}, "space.model.hidden.choices is []"),
        ({"model.hidden": {"choices": [1, 1]}}, "has a value twice"),
        ({"model": {"choices": {"a": 3}}}, "space.model.choices.a is 3; give value"),
        ({"model": {"choices": {"a": {"value": 3, "spaces": {}}}}}, "did you mean 'space'?"),
        ({"model": {"choices": {"a": {"value": 3, "space": {"x": 1}}}}}, "space.model.choices.a.space.x is 1"),
        (
            {"model.a": {"int": [0, 1]}, "model.init_args.a": {"int": [0, 1]}},
            "which are the same key; remove one of them",
        ),
        ({"cv.n_splits": {"int": [3, 5]}}, "space.cv.n_splits cannot be searched: the folds must be the same"),
        ({"seed": {"int": [0, 5]}}, "cannot be searched"),
        ({"data": {"choices": {"a": {"value": {}}}}}, "all trials must use the same images"),
        (
            {"data.drawing_seed": {"int": [0, 5]}},
            "all trials must use the same images; searchable keys of data are batch_size, eval",
        ),
        ({"model": {"choices": {1: {"value": 3}, "1": {"value": 4}}}}, "space.model.choices has a label twice: 1, '1'"),
        (
            {"lr": {"float": [0, 1]}, "model": {"choices": {"a": {"value": 3, "space": {"lr": {"float": [0, 1]}}}}}},
            "space searches lr twice in one trial, as lr and a/lr; remove one of them",
        ),
        (
            {"model": {"choices": {"a": {"value": 3, "space": {"model": {"choices": [1, 2]}}}}}},
            "space searches model twice in one trial, as model and a/model",
        ),
        ({"data.init_args.root": {"choices": ["a"]}}, "all trials must use the same images"),
        ({"trainer.devices": {"choices": [1, 2]}}, "the same devices"),
    ],
)
def test_mistakes_are_named_with_their_place(content: Any, reason: str) -> None:
    with pytest.raises(UserError) as error:
        read_space(content)
    assert reason in str(error.value)


@given(st.integers(0, 2**31))
def test_a_trials_parameters_give_its_values_back(seed: int) -> None:
    space = read_space(BRANCHED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = suggest(space, trial)
    assert values == values_of(space, trial.params)
    assert (
        ("model.width" in values) == (values["model"] == {"class_path": "CNN"}) == ("cnn/model.width" in trial.params)
    )
    assert values["model.dropout"] in (0.0, 0.25, 0.5) and values["data.batch_size"] in (64, 128)
    assert values["model.hidden"] in ([32], [64, 64], None)
    keys = list(values)  # a class is chosen before its arguments are set
    assert "model.width" not in keys or keys.index("model") < keys.index("model.width")


def test_corners_try_both_ends_and_every_choice_and_what_is_below() -> None:
    tried = dict(corners(read_space(BRANCHED)))
    assert set(tried) == {
        "model.dropout = 0.0",
        "model.dropout = 0.5",
        "model = cnn",
        "model = linear",
        "cnn/model.width = 8",
        "cnn/model.width = 64",
        "data.batch_size = 64",
        "data.batch_size = 128",
        "model.hidden = [32]",
        "model.hidden = [64, 64]",
        "model.hidden = None",
    }
    assert tried["cnn/model.width = 64"]["model.width"] == 64
    assert "model.width" not in tried["model = linear"]
    assert all(
        set(values) >= {"model.dropout", "model", "data.batch_size", "model.hidden"} for values in tried.values()
    )


def test_a_grid_has_every_value() -> None:
    space = read_space(
        {
            "a": {"float": [0.0, 0.5], "step": 0.25},
            "b": {"int": [1, 3]},
            "c": {"choices": ["x", [1, 2]]},
        }
    )
    assert grid(space) == {"a": [0.0, 0.25, 0.5], "b": [1, 2, 3], "c": ["x", "[1, 2]"]}
    assert grid_size(space) == 18


def test_a_class_is_set_before_its_arguments() -> None:
    rate = {"model.optimizer.init_args.lr": {"float": [0.1, 0.2]}}
    space = read_space({**rate, "model.optimizer": {"choices": ["torch.optim.SGD"]}})
    values = values_of(space, {"model.optimizer.init_args.lr": 0.1, "model.optimizer": "torch.optim.SGD"})
    assert list(values) == ["model.optimizer", "model.optimizer.init_args.lr"]


@pytest.mark.parametrize("entry", [{"float": [0.0, 1.0]}, {"int": [1, 64], "log": True}])
def test_a_grid_needs_finitely_many_values(entry: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"space\.a has infinitely many values"):
        grid(read_space({"a": entry}))


def test_a_grid_has_no_branches() -> None:
    with pytest.raises(UserError, match="a grid does not support spaces under choices"):
        grid(read_space({"model": BRANCHED["model"]}))
