"""Experiments: every YAML parses, what is wrong is refused by name with the way out, and parts depend on the seed alone."""

from __future__ import annotations

import copy
import pickle
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import check_parts
from fmnist_cv.config.identity import flatten
from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.options import integers_first, make_parser
from fmnist_cv.config.sections import RESERVED_TRAINER_OPTIONS, CrossValidationSection, SelectionSection
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.errors import UserError
from fmnist_cv.models import BatchNormCNN, DenseNetwork

ROOT = Path(__file__).parents[2]
CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), ROOT / "experiments" / "products" / "product-images.yaml"]

Config = dict[str, Any]


def changed(config: Config, **values: Any) -> Config:
    """A copy with other values of dotted keys, written with `__` for the dots; REMOVED takes one out."""
    config = copy.deepcopy(config)
    for key, value in values.items():
        *path, last = key.split("__")
        place = config
        for part in path:
            place = place.setdefault(part, {})
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return config


REMOVED = object()


def parsed(config: Config) -> Experiment:
    return Experiment.from_yaml(yaml.safe_dump(config))


def refusal(config: Config) -> str:
    with pytest.raises(UserError) as refused:
        parsed(config)
    return str(refused.value)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a user's module with networks, importable for the test's time."""
    name = "networks_of_a_user"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


MODULE = """
    import lightning as L
    import torch
    from torch import nn


    class Net(L.LightningModule):
        def __init__(self, width: int = 4, dropout: float | None = 0.5) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.dropout = dropout
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

        def forward(self, images):
            return self.layers(images)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)


    class Validating(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val/own", nn.functional.cross_entropy(self(batch[0]), batch[1]))


    class Averages(L.pytorch.callbacks.WeightAveraging):
        pass


    class NineClasses(Net):
        def forward(self, images):
            return self.layers(images)[:, :9]


    class Labels(Net):
        def forward(self, images):
            return self.layers(images).argmax(1)


    class Pair(Net):
        def forward(self, images):
            return self.layers(images), images


    class Nothing(Net):
        def forward(self, images):
            pass


    class WrongSize(Net):
        def forward(self, images):
            return self.layers(images[..., :20])


    class Unfinished(Net):
        def forward(self, images):
            raise NotImplementedError


    class Strict(Net):
        def forward(self, images):
            assert images.shape[1] == 3
            return self.layers(images)


    class KeepsObjects(Net):
        def __init__(self, width: int = 4) -> None:
            super().__init__(width)
            self.save_hyperparameters({"loss": nn.CrossEntropyLoss()})


    class Greedy(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)


    class NoNetwork:
        pass
"""


# -- the configs that come with the project -----------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=[str(p.relative_to(ROOT)) for p in CONFIGS])
def test_every_config_parses_and_survives_being_saved(path: Path) -> None:
    experiment = Experiment.parse([f"--config={path}"])
    saved = Experiment.from_yaml(experiment.to_yaml())
    assert experiment.differences(saved) == [] == saved.differences(experiment)
    assert saved.to_yaml() == experiment.to_yaml()
    assert experiment.name == path.stem


def test_configs_are_found_by_bare_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml", str(ROOT / "configs" / "quickstart.yaml")):
        assert Experiment.parse(["--config", name]).name == "quickstart"


def test_a_config_of_ones_own_goes_before_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Config
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text(yaml.safe_dump(tiny))
    monkeypatch.chdir(tmp_path)
    assert Experiment.parse(["--config", "quickstart"]).name == "tiny"


# -- parsing and saving -------------------------------------------------------------------------------------


def test_yaml_sets_every_section(tiny: Config) -> None:
    experiment = parsed(
        changed(
            tiny, seed=3, cv__n_repeats=2, cv__inner_holdout=0.1, selection__monitor="val/loss", selection__mode="min"
        )
    )
    assert experiment.cv == CrossValidationSection(n_splits=3, n_repeats=2, inner_holdout=0.1, workers=1)
    assert experiment.selection == SelectionSection("val/loss", "min") and experiment.seed == 3
    plan = experiment.plan
    assert (plan.n_splits, plan.n_repeats, plan.inner_holdout, plan.seed, plan.n_folds) == (3, 2, 0.1, 3, 6)
    assert experiment.precision() == "32-true" and experiment.devices().indices == (0,)


def test_options_go_before_the_config(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    experiment = Experiment.parse(
        ["--config", str(tmp_path / "tiny.yaml"), "--cv.n_splits", "7", "--model.hidden=[5, 4]", "--data.batch_size=9"]
    )
    assert experiment.cv.n_splits == 7
    parts = experiment.build(0)
    assert isinstance(parts.model, DenseNetwork) and parts.model.layers[1].out_features == 5
    assert parts.data.batch_size == 9


@pytest.mark.parametrize(("holdout", "n_held_out"), [(0.25, 75), (60, 60), ("first:50", 50)])
def test_holdouts_parse(tiny: Config, holdout: Any, n_held_out: int) -> None:
    assert parsed(changed(tiny, cv__holdout=holdout)).plan.n_held_out(300) == n_held_out


def test_a_rich_experiment_survives_being_saved(tiny: Config) -> None:
    rich = changed(
        tiny,
        model__init_args__optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        model__init_args__lr_scheduler={
            "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
            "init_args": {"T_max": 3},
        },
        model__init_args__l2={"layers.*.weight": 1e-4},
        model__init_args__class_weights="balanced",
        data__init_args__augment=[
            {"class_path": "kornia.augmentation.RandomHorizontalFlip", "init_args": {"p": 0.3}},
            {"class_path": "kornia.augmentation.RandomCrop", "init_args": {"size": [28, 28], "padding": 4}},
        ],
        trainer__callbacks=[{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}],
        trainer__max_time={"hours": 1},
        selection__patience=3,
    )
    experiment = parsed(rich)
    saved = Experiment.from_yaml(experiment.to_yaml())
    assert experiment.differences(saved) == [] and saved.to_yaml() == experiment.to_yaml()
    parts = check_parts(saved)
    assert isinstance(parts.model, DenseNetwork) and parts.model.l2 == {"layers.*.weight": 1e-4}
    optimizer = parts.model.configure_optimizers()["optimizer"]
    assert optimizer.defaults["momentum"] == 0.9 and [a.p for a in parts.data.augment] == [0.3, 1.0]


def test_what_is_null_stays_null_when_saved(tiny: Config, module: str) -> None:
    """Folds run from the saved config: a null that came back as the default would train another network."""
    experiment = parsed(changed(tiny, model={"class_path": f"{module}.Net", "init_args": {"dropout": None}}))
    saved = Experiment.from_yaml(experiment.to_yaml())
    assert experiment.build(0).model.dropout is None and saved.build(0).model.dropout is None
    assert experiment.differences(saved) == []
    assert experiment.differences(parsed(changed(tiny, model={"class_path": f"{module}.Net"})))


def test_the_saved_config_says_every_option(tiny: Config) -> None:
    settings = yaml.safe_load(parsed(tiny).to_yaml())
    assert settings["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.Adam"
    assert settings["seed"] == 0 and settings["selection"]["monitor"] == "val/accuracy"
    assert not {"run", "resume", "refit", "config"} & settings.keys()
    assert not settings["data"]["init_args"].keys() & {"n_splits", "fold", "seed"}


def test_differences_name_what_computes_and_not_what_merely_runs(tiny: Config) -> None:
    experiment = parsed(tiny)
    elsewhere = changed(
        tiny, log_dir="other", cv__workers=2, cv__fold=1, trainer__accelerator="auto", trainer__devices=1
    )
    assert experiment.differences(parsed(elsewhere)) == []
    other = parsed(changed(tiny, seed=1, cv__n_splits=4, model__init_args__dropout=0.3, trainer__max_epochs=4))
    assert experiment.differences(other) == [
        "cv.n_splits (4 in the run, 3 here)",
        "model.init_args.dropout (0.3 in the run, 0.2 here)",
        "seed (1 in the run, 0 here)",
        "trainer.max_epochs (4 in the run, 3 here)",
    ]


def test_replaced_values_hold_in_the_copy_only(tiny: Config) -> None:
    experiment = parsed(tiny)
    other = experiment.replaced(trainer__max_epochs=9, selection__patience=None)
    assert other.config.trainer.max_epochs == 9 and experiment.config.trainer.max_epochs == 3
    assert other.differences(experiment) == ["trainer.max_epochs (3 in the run, 9 here)"]
    with pytest.raises(UserError, match=r"cv\.n_splits is 1"):
        experiment.replaced(cv__n_splits=1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"cv__n_splits": "many"}, r"cv\.n_splits is 'many', but must be a whole number"),
        ({"trainer__max_epochs": 3, "model__init_args__dropout": "much"}, r"model\.init_args\.dropout is 'much'"),
        ({"trainer__max_epoch": 3}, r"'trainer\.max_epoch' is not an option; did you mean 'trainer\.max_epochs'"),
        ({"data__init_args__zzz": 3}, r"data: 'zzz' is not an option of fmnist_cv\.data\.SyntheticDataModule"),
        ({"seed": None}, "seed is null, but must be a whole number"),
        ({"name": None}, "the following are required: name"),
    ],
)
def test_replaced_values_are_checked(tiny: Config, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parsed(tiny).replaced(**values)


def test_what_is_not_replaced_is_not_checked_again(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, checked, validate = parsed(tiny), list[str](), ArgumentParser.validate

    def watched(parser: ArgumentParser, namespace: Namespace, **options: Any) -> None:
        if parser.prog == "python -m fmnist_cv.fit":  # and not that of a class
            checked.extend(vars(namespace))
        validate(parser, namespace, **options)

    monkeypatch.setattr(ArgumentParser, "validate", watched)
    experiment.replaced(cv__fold=1, seed=2)
    assert sorted(checked) == ["cv", "seed"]


def test_an_experiment_goes_to_another_process_without_being_parsed_again(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]
    experiment = parsed(tiny)
    sent = pickle.dumps(experiment)
    for name in ("parse_text", "parse_arguments"):
        monkeypatch.delattr(private, name)
    received = pickle.loads(sent)
    assert vars(received).keys() == vars(experiment).keys() and len(sent) < 10_000
    assert received.to_yaml() == experiment.to_yaml() and received.plan == experiment.plan
    assert torch.equal(weights(received, 0), weights(experiment, 0))
    assert received.replaced(cv__fold=1).cv.fold == 1


@pytest.mark.parametrize("augment", [None, [{"class_path": "kornia.augmentation.RandomHorizontalFlip"}]])
def test_synthetic_data_keep_the_batches_and_the_augmentation(tiny: Config, augment: Any) -> None:
    data = {
        "class_path": "fmnist_cv.data.FashionMNISTDataModule",
        "init_args": {"root": "nowhere", "batch_size": 17, "scaling": "minmax", "augment": augment, "drop_last": True},
    }
    synthetic = parsed(changed(tiny, data=data, cv__test=0.2)).with_synthetic_data()
    module = synthetic.build(0).data
    assert module.test_cut is None  # they have a test set
    assert type(module).__name__ == "SyntheticDataModule"
    assert (module.batch_size, module.scaling_name, module.drop_last) == (17, "minmax", True)
    assert len(module.augment) == (0 if augment is None else 1)


def test_mappings_and_experiments_take_overrides(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    overrides = {"name": "other", "cv.n_splits": 4, "data.batch_size": 11, "selection.patience": None}
    for config in (tiny, parsed(tiny), tmp_path / "tiny.yaml", str(tmp_path / "tiny.yaml")):
        experiment = as_experiment(config, overrides)
        assert experiment.cv.n_splits == 4 and experiment.name == "other" and experiment.build(0).data.batch_size == 11
        assert as_experiment(config).cv.n_splits == 3


def test_flattened_keys_are_dotted() -> None:
    tree = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": None}
    assert dict(flatten(tree)) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3, "e": None}


# -- misspelt, mistyped -------------------------------------------------------------------------------------

ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lrr": 0.1}}
STEP = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_sizes": 1}}
FLIP = {"class_path": "kornia.augmentation.RandomHorizontalFlip", "init_args": {"same_on_bach": True}}


@pytest.mark.parametrize(
    ("change", "wrong", "right"),
    [
        ({"modle": 3}, "modle", "model"),
        ({"log_dri": "x"}, "log_dri", "log_dir"),
        ({"cv__n_split": 4}, "cv.n_split", "cv.n_splits"),
        ({"selection__patiance": 4}, "selection.patiance", "selection.patience"),
        ({"trainer__max_epoch": 4}, "trainer.max_epoch", "trainer.max_epochs"),
        ({"model__init_args__hiden": [3]}, "'hiden' is not an option of fmnist_cv.models.DenseNetwork", "hidden"),
        ({"model__init_args__label_smothing": 0.1}, "label_smothing", "label_smoothing"),
        ({"model__init_args__optimizer": ADAM}, "optimizer: 'lrr' is not an option of torch.optim.Adam", "lr"),
        ({"model__init_args__lr_scheduler": STEP}, "lr_scheduler: 'step_sizes' is not an option", "step_size"),
        ({"data__init_args__batchsize": 3}, "'batchsize' is not an option", "batch_size"),
        ({"data__init_args__augment": [FLIP]}, "'same_on_bach' is not an option", "same_on_batch"),
        ({"model__class_path": "fmnist_cv.models.DenseNetwrk"}, "'DenseNetwrk'", "DenseNetwork"),
        ({"data__class_path": "fmnist_cv.data.SyntheticData"}, "'SyntheticData'", "SyntheticDataModule"),
        ({"selection__monitor": "val/acuracy"}, "selection.monitor is 'val/acuracy'", "val/accuracy"),
    ],
)
def test_a_misspelt_word_is_named_with_the_nearest_right_one(
    tiny: Config, change: Config, wrong: str, right: str
) -> None:
    message = refusal(changed(tiny, **change))
    assert wrong in message and f"did you mean '{right}'?" in message
    assert len(message) < 300 and "\n" not in message


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("--modle=3", "modle", "model"),
        ("--sed=3", "sed", "seed"),
        ("--cv.n_split=3", "cv.n_split", "cv.n_splits"),
        ("--model.hiden=[3]", "hiden", "hidden"),
        ("--model.optimizer.lrr=3", "lrr", "lr"),
        ("--data.batchsize=3", "batchsize", "batch_size"),
        ("--trainer.max_epoch=3", "trainer.max_epoch", "trainer.max_epochs"),
    ],
)
def test_a_misspelt_option_is_named_with_the_nearest_right_one(
    tiny: Config, tmp_path: Path, option: str, wrong: str, right: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    with pytest.raises(UserError, match=f"'{wrong}' is not an option.*; did you mean '{right}'"):
        Experiment.parse(["--config", str(tmp_path / "tiny.yaml"), option])


def test_an_option_that_a_class_fixes_is_not_suggested_for_itself(tiny: Config) -> None:
    linear = {"class_path": "fmnist_cv.models.LinearClassifier", "init_args": {"hidden": [4]}}
    message = refusal(changed(tiny, model=linear))
    assert "'hidden' is not an option of fmnist_cv.models.LinearClassifier" in message
    assert "did you mean 'hidden'" not in message


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"seed": "x"}, "seed", "is 'x', but must be a whole number"),
        ({"name": 5}, "name", 'is 5, but must be text; quote it, as in name: "5"'),
        ({"cv__n_splits": "many"}, "cv.n_splits", "is 'many', but must be a whole number or null"),
        ({"cv__n_splits": 2.5}, "cv.n_splits", "is 2.5, but must be a whole number or null"),
        ({"cv__stratify": "perhaps"}, "cv.stratify", "is 'perhaps', but must be true or false"),
        ({"cv__holdout": [1]}, "cv.holdout", r"is \[1\], but must be a number, a whole number, text, or null"),
        ({"selection__mode": "up"}, "selection.mode", "is 'up', but must be max, min, or null"),
        ({"selection__patience": "long"}, "selection.patience", "is 'long', but must be a whole number or null"),
        ({"model__init_args__hidden": "wide"}, "model.init_args.hidden", "is 'wide', but must be a list"),
        (
            {"model__init_args__activation": "step"},
            "model.init_args.activation",
            "is 'step', but must be relu, tanh, gelu, or sigmoid",
        ),
        ({"data__init_args__batch_size": "big"}, "data.init_args.batch_size", "is 'big', but must be a whole number"),
        (
            {"data__init_args__scaling": "standardize"},
            "data.init_args.scaling",
            "is 'standardize', but must be unit, minmax, standardise, or none",
        ),
        ({"trainer__max_epochs": "x"}, "trainer.max_epochs", "is 'x', but must be a whole number or null"),
        ({"trainer__precision": "8-bit"}, "trainer.precision", "is '8-bit', but must be 64, .*bf16-mixed.*, or null"),
    ],
)
def test_a_wrong_type_is_refused_with_the_key_and_what_is_expected(
    tiny: Config, change: Config, key: str, reason: str
) -> None:
    with pytest.raises(UserError, match=f"^{key} {reason}$"):
        parsed(changed(tiny, **change))


@pytest.mark.parametrize("section", ["cv", "selection", "trainer"])
@pytest.mark.parametrize("value", [3, [1], "text"], ids=str)
def test_a_section_that_is_no_mapping_is_refused(tiny: Config, section: str, value: Any) -> None:
    assert section in refusal(changed(tiny, **{section: value}))


@pytest.mark.parametrize("section", ["cv", "selection"])
def test_a_section_left_empty_is_refused_by_name_or_means_the_defaults(tiny: Config, section: str) -> None:
    try:
        experiment = parsed(changed(tiny, **{section: None}))
    except UserError as error:
        message = str(error)
    else:
        message = section
        assert getattr(experiment, section) in (CrossValidationSection(), SelectionSection())
    assert section in message


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "log_dir",
        "cv.stratify",
        "selection.monitor",
        "selection.min_delta",
        "trainer.accelerator",
    ],
)
def test_null_is_refused_by_name_where_a_value_is_needed(tiny: Config, key: str) -> None:
    assert key in refusal(changed(tiny, **{key.replace(".", "__"): None}))


@pytest.mark.parametrize("option", sorted(RESERVED_TRAINER_OPTIONS))
def test_trainer_options_of_the_engine_are_refused_with_the_reason(tiny: Config, option: str) -> None:
    message = refusal(changed(tiny, **{f"trainer__{option}": 1}))
    assert message == f"trainer.{option} is set by the engine and cannot be given: {RESERVED_TRAINER_OPTIONS[option]}"
    with pytest.raises(UserError, match=f"trainer.{option} is set by the engine"):
        Experiment.parse(["--config", "quickstart", f"--trainer.{option}", "1"])


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("n_splits", "cv.n_splits"),
        ("holdout", "cv.holdout"),
        ("fold", "cv.fold"),
        ("repeat", "cv.fold"),
        ("seed", "seed"),
    ],
)
def test_the_data_modules_own_split_is_refused(tiny: Config, option: str, instead: str) -> None:
    message = refusal(changed(tiny, **{f"data__init_args__{option}": 1}))
    assert message == f"data.init_args.{option} is taken from the section cv; set {instead} instead"


@pytest.mark.parametrize("missing", ["name", "model", "data"])
def test_what_must_be_given_is_named(tiny: Config, missing: str) -> None:
    assert f"required: {missing}" in refusal(changed(tiny, **{missing: REMOVED}))


# -- files --------------------------------------------------------------------------------------------------


def test_a_missing_config_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config quikstart does not exist; did you mean 'quickstart'\?.*patel-ann"):
        Experiment.parse(["--config", "quikstart"])
    with pytest.raises(UserError, match=r"config .*/my\.yaml does not exist"):
        Experiment.parse([f"--config={tmp_path / 'my.yaml'}"])


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"config {tmp_path} is a folder"):
        Experiment.parse(["--config", str(tmp_path)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name: [1",
        b"- 1\n- 2\n",
        b"42",
        b"name: x\n\tseed: 1",
        b"!!python/object/apply:os.system [exit]",
        b"\xff\xfe\x81",
    ],
    ids=["empty", "unclosed", "list", "number", "tab", "python", "binary"],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        Experiment.parse(["--config", str(tmp_path / "broken.yaml")])


@pytest.mark.parametrize("arguments", [[], ["--config"], ["quickstart"]])
def test_no_config_is_refused(arguments: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"required: data, model, name|expected one argument|'quickstart' is not an option"
    ):
        Experiment.parse(arguments)


SCHEDULES, TORCHS = "fmnist_cv.models.schedules.", "torch.optim.lr_scheduler."
CONSTANT = {"class_path": f"{TORCHS}ConstantLR"}


@pytest.mark.parametrize(
    ("name", "init_args", "message"),
    [
        (f"{TORCHS}SequentialLR", {"schedulers": [CONSTANT], "milestones": []}, "use {SCHEDULES}SequentialSchedule"),
        ("SequentialLR", {"schedulers": [CONSTANT], "milestones": []}, "use {SCHEDULES}SequentialSchedule"),
        (f"{TORCHS}ChainedScheduler", {"schedulers": [CONSTANT]}, "use {SCHEDULES}ChainedSchedule"),
        (
            f"{TORCHS}CosineAnnealingLR",
            {},
            "{TORCHS}CosineAnnealingLR needs T_max; give it in init_args, or use CosineSchedule",
        ),
        (f"{TORCHS}CosineAnnealingLR", {"T_max": None}, "{TORCHS}CosineAnnealingLR needs T_max"),
        (
            f"{SCHEDULES}SequentialSchedule",
            {"schedulers": [CONSTANT]},
            "{SCHEDULES}SequentialSchedule needs milestones",
        ),
        (
            f"{SCHEDULES}SequentialSchedule",
            {"schedulers": [CONSTANT, {"class_path": f"{TORCHS}StepLR"}], "milestones": [1]},
            "{TORCHS}StepLR needs step_size",
        ),
        (
            f"{SCHEDULES}SequentialSchedule",
            {
                "schedulers": [CONSTANT, {"class_path": f"{TORCHS}StepLR", "init_args": {"size": 1}}, CONSTANT],
                "milestones": [1, 2],
            },
            "'size' is not an option of {TORCHS}StepLR",
        ),
    ],
)
def test_what_a_schedule_lacks_is_said_in_a_line(tiny: Config, name: str, init_args: Config, message: str) -> None:
    said = refusal(changed(tiny, model__init_args__lr_scheduler={"class_path": name, "init_args": init_args}))
    assert said.startswith("model.init_args.lr_scheduler") and len(said) < 300 and "\n" not in said
    assert message.format(SCHEDULES=SCHEDULES, TORCHS=TORCHS) in said


# -- contradictions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "a/b"}, "name is 'a/b'; .*letters, digits"),
        ({"name": ""}, "name is empty; give a name"),
        ({"name": ".."}, r"name is '\.\.'"),
        ({"name": "."}, r"name is '\.'"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"cv__n_splits": 1}, "cv.n_splits is 1; .*at least 2"),
        ({"cv__n_repeats": 0}, "cv.n_repeats is 0; it must be at least 1"),
        ({"cv__workers": 0}, "cv.workers is 0; it must be at least 1"),
        ({"cv__fold": 3}, "cv.fold is 3; this experiment has folds 0 to 2"),
        ({"cv__fold": -1}, "cv.fold is -1; this experiment has folds 0 to 2"),
        ({"cv__fold": 6, "cv__n_repeats": 2}, "cv.fold is 6; this experiment has folds 0 to 5"),
        ({"cv__fold": 1, "cv__holdout": 0.2}, "cv.fold is 1; this experiment has folds 0 to 0"),
        ({"cv__holdout": "a fifth"}, "cv.holdout is 'a fifth'; give a fraction"),
        ({"cv__holdout": "first:5", "cv__n_repeats": 2}, "cv.n_repeats must be 1"),
        ({"cv__inner_holdout": 1.5}, "cv.inner_holdout is 1.5; it is a fraction"),
        ({"selection__patience": 0}, "selection.patience is 0; it must be at least 1, or null"),
        ({"selection__monitor": "test/accuracy"}, "selection.monitor is 'test/accuracy', but .* logs train/loss"),
        ({"trainer__max_epochs": REMOVED}, "trainer.max_epochs is not set; .*--trainer.max_epochs 10"),
        ({"trainer__max_epochs": 0}, "trainer.max_epochs is 0; it must be at least 1"),
        ({"trainer__max_epochs": -1}, "trainer.max_epochs is -1; it must be at least 1"),
    ],
)
def test_contradictions_are_refused(tiny: Config, change: Config, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parsed(changed(tiny, **change))


def test_a_count_of_batches_stays_a_count(tiny: Config) -> None:
    """1 is one batch and 1.0 all of them, whichever modules were imported before Lightning's."""
    for given in (1, 1.0, 0.5):
        assert repr(
            parsed(changed(tiny, trainer__limit_train_batches=given)).config.trainer.limit_train_batches
        ) == repr(given)
    assert [get_args(integers_first(hint)) for hint in (float | int | None, int | float, float | str)] == [
        (int, NoneType, float),
        (int, float),
        (float, str),
    ]
    hints = [get_args(action._typehint) for action in make_parser()._actions if action.dest.startswith("trainer.")]
    assert all(members.index(int) < members.index(float) for members in hints if {int, float} <= set(members))


NO_EFFECT = {"limit_val_batches": 3, "val_check_interval": 0.5, "check_val_every_n_epoch": 2}


@pytest.mark.parametrize("option", NO_EFFECT)
@pytest.mark.parametrize("own_step", [False, True])
def test_validation_options_are_refused_where_they_have_no_effect(
    tiny: Config, module: str, option: str, own_step: bool
) -> None:
    given = {f"trainer__{option}": NO_EFFECT[option]}
    with pytest.raises(UserError, match=f"trainer.{option} is {NO_EFFECT[option]}, but has no effect on DenseNetwork"):
        parsed(changed(tiny, **given))
    own = changed(tiny, model={"class_path": f"{module}.{'Validating' if own_step else 'Net'}"}, **given)
    if own_step:
        assert parsed(own).config.trainer[option] == NO_EFFECT[option]
    else:
        assert f"trainer.{option} is {NO_EFFECT[option]}, but has no effect on Net" in refusal(own)


@pytest.mark.parametrize("how_long", [{"max_steps": 10}, {"max_time": "00:00:01:00"}])
def test_steps_or_time_may_say_how_long(tiny: Config, how_long: Config) -> None:
    assert parsed(changed(tiny, trainer={"accelerator": "cpu", **how_long})).config.trainer.max_epochs is None


def test_a_monitor_of_ones_own_needs_a_module_of_ones_own(tiny: Config, module: str) -> None:
    own = changed(tiny, model={"class_path": f"{module}.Net"}, selection__monitor="val/top3")
    assert parsed(own).selection.monitor == "val/top3"


# -- parts --------------------------------------------------------------------------------------------------


def weights(experiment: Experiment, seed: int) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in experiment.build(seed).model.parameters()])


def test_initial_weights_depend_on_the_seed_alone(tiny: Config) -> None:
    experiment = parsed(tiny)
    first = weights(experiment, 1)
    torch.manual_seed(77)
    torch.rand(5)
    assert torch.equal(weights(experiment, 1), first)
    assert torch.equal(weights(Experiment.from_yaml(experiment.to_yaml()), 1), first)
    assert not torch.equal(weights(experiment, 2), first)


def test_parts_are_made_afresh(tiny: Config) -> None:
    experiment = parsed(
        changed(tiny, trainer__callbacks=[{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}])
    )
    one, other = experiment.build(0), experiment.build(0)
    assert one.model is not other.model and one.data is not other.data
    assert one.trainer["callbacks"][0] is not other.trainer["callbacks"][0] and one.trainer["max_epochs"] == 3


def test_check_parts_gives_what_fits(tiny: Config) -> None:
    parts = check_parts(parsed(tiny))
    assert isinstance(parts.model, DenseNetwork) and len(parts.data.train_images) == 300


def test_a_class_of_ones_own_works_by_class_path(tiny: Config, module: str, tmp_path: Path) -> None:
    own = changed(tiny, model={"class_path": f"{module}.Net", "init_args": {"width": 6}})
    parts = check_parts(parsed(own))
    assert type(parts.model).__name__ == "Net" and dict(parts.model.hparams) == {"width": 6, "dropout": 0.5}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tiny))
    options = ["--config", str(tmp_path / "own.yaml"), "--model", f"{module}.Net", "--model.width=7"]
    assert Experiment.parse(options).build(0).model.hparams["width"] == 7


@pytest.mark.parametrize(
    ("name", "got"),
    [("NineClasses", r"\(2, 9\)"), ("Labels", r"\(2,\)"), ("Pair", "tuple"), ("Nothing", "NoneType")],
)
def test_a_forward_of_the_wrong_shape_is_refused(tiny: Config, module: str, name: str, got: str) -> None:
    reason = (
        rf"forward of {module}.{name} must return a tensor \(images, classes\) = \(2, 10\) for this data, got {got}"
    )
    with pytest.raises(UserError, match=reason):
        check_parts(parsed(changed(tiny, model={"class_path": f"{module}.{name}"})))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0] * 12, "^there is one class, 'cat'; a classifier needs two: give images of another$"),
        ([0, 1, 1] * 4, r"= \(2, 3\) for this data, got \(2, 2\); no training image is of the class 'owl'$"),
        ([0, 1, 2] * 4, r"= \(2, 3\) for this data, got \(2, 2\)$"),
    ],
)
def test_classes_without_images_are_named(tiny: Config, tmp_path: Path, labels: list[int], reason: str) -> None:
    images, names = np.zeros((12, 28, 28), np.uint8), np.array([b"cat", b"dog", b"owl"])
    np.savez(tmp_path / "pets.npz", images=images, labels=labels, class_names=names)
    data = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "pets.npz")}}
    experiment = parsed(changed(tiny, data=data, model__init_args__n_classes=2, cv={"n_splits": 2}))
    with pytest.raises(UserError, match=reason):
        check_parts(experiment)


@pytest.mark.parametrize("name", ["WrongSize", "Unfinished", "Strict"])
def test_a_forward_that_fails_on_the_images_is_refused(tiny: Config, module: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"{module}.{name} cannot take images of shape \(2, 1, 28, 28\)"):
        check_parts(parsed(changed(tiny, model={"class_path": f"{module}.{name}"})))


def test_hyperparameters_that_are_not_plain_values_are_refused(tiny: Config, module: str) -> None:
    with pytest.raises(UserError, match=r"hyperparameters that are not plain values.*ignore="):
        check_parts(parsed(changed(tiny, model={"class_path": f"{module}.KeepsObjects"})))


@pytest.mark.parametrize(
    ("class_path", "reason"),
    [
        ("no_such_module.Net", "there is no module 'no_such_module'"),
        ("networks_of_a_user.Nett", "has no 'Nett'; did you mean 'Net'"),
        ("networks_of_a_user.NoNetwork", "NoNetwork.*LightningModule"),
        ("networks_of_a_user.Greedy", "width"),
        ("torch.nn.Linear", "torch.nn.Linear.*LightningModule"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_class_path_that_leads_nowhere_is_refused(tiny: Config, class_path: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"^model: .*{reason}"):
        parsed(changed(tiny, model={"class_path": class_path}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model__init_args__label_smoothing": 1.5}, "label_smoothing is 1.5; it must be in"),
        ({"model__init_args__class_weights": [1.0, 2.0]}, "class_weights has 2 values for 10 classes"),
        ({"model__init_args__dropout": 1.5}, "model.dropout is 1.5; it is a probability, between 0 and 1"),
        ({"data__init_args__batch_size": 0}, "data.batch_size is 0"),
        ({"data": {"class_path": "fmnist_cv.data.ArrayDataModule"}}, "either a path to an .npz file or images"),
    ],
)
def test_values_that_a_part_refuses_are_reported_in_one_line(tiny: Config, change: Config, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        check_parts(parsed(changed(tiny, **change)))
    message = str(refused.value)
    assert "\n" not in message and "Namespace" not in message and len(message) < 300


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model__init_args__n_classes": 9}, r"= \(2, 10\) for this data, got \(2, 9\)"),
        (
            {"model__init_args__in_features": 100},
            r"DenseNetwork cannot take images of shape \(2, 1, 28, 28\): model.init_args.in_features is 100, set it to 784",
        ),
        ({"model__init_args__l2": {"classifier.*": 1e-4}}, "model.l2 names 'classifier.*', which matches no parameter"),
        ({"data__init_args__n_train": 0}, "there are no images"),
        ({"data__init_args__n_train": -5}, "n_train"),
        ({"data__init_args__n_train": 20}, "cv.n_splits is 3, but class 'T-shirt/top' has only 2 training images"),
        ({"cv__n_splits": 31}, "cv.n_splits is 31, but class 'T-shirt/top' has only 30 training images"),
        ({"cv__inner_holdout": 0.001}, "a hold-out of 0 of 200 images cannot be cut"),
        ({"trainer__accelerator": "cuda"}, "trainer.accelerator is 'cuda', but this machine has no such device"),
        ({"trainer__accelerator": "tpu"}, "trainer.accelerator is 'tpu'"),
        ({"trainer__devices": 2}, "trainer.devices is 2.*--cv.workers"),
        (
            {"data": {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": "nowhere.npz"}}},
            "data file nowhere.npz does not exist",
        ),
    ],
)
@pytest.mark.usefixtures("_no_gpu")
def test_what_would_fail_in_training_is_refused_before(tiny: Config, change: Config, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        check_parts(parsed(changed(tiny, **change)))


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    "cv", [{"n_splits": 3}, {"n_splits": 3, "stratify": False}, {"holdout": 0.5}, {"holdout": "first:20"}], ids=str
)
def test_a_plan_that_fits_few_images_is_not_refused(tiny: Config, cv: Config) -> None:
    """Three images per class: too few for five folds, which were not requested."""
    assert check_parts(parsed(changed(tiny, cv=cv, data__init_args__n_train=30))).data.train_images


def test_test_images_of_another_shape_are_refused(tiny: Config, tmp_path: Path) -> None:
    images, labels = np.zeros((60, 28, 28), np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "pets.npz", images=images, labels=labels, test_images=images[:, :20, :20], test_labels=labels)
    data = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "pets.npz")}}
    with pytest.raises(UserError, match=r"test.*\(1, 20, 20\)"):
        check_parts(parsed(changed(tiny, data=data)))


def test_colour_images_take_a_colour_network(tiny: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "pets.npz", images=images, labels=np.arange(30) % 3, class_names=["cat", "dog", "owl"])
    config = changed(
        tiny,
        model={
            "class_path": "fmnist_cv.models.BatchNormCNN",
            "init_args": {"in_channels": 3, "image_size": 32, "n_classes": 3},
        },
        data={"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "pets.npz")}},
    )
    parts = check_parts(parsed(config))
    assert isinstance(parts.model, BatchNormCNN) and parts.data.class_names == ("cat", "dog", "owl")
    with pytest.raises(UserError, match="cannot take images of shape"):
        check_parts(parsed(changed(config, model__init_args__in_channels=1)))


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_is_what_the_device_does_well(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, fast: bool, precision: str
) -> None:
    monkeypatch.setattr("fmnist_cv.config.experiment.has_fast_bf16", lambda accelerator: fast)
    assert parsed(changed(tiny, trainer__precision=REMOVED)).precision() == precision
    assert parsed(changed(tiny, trainer__precision=16)).precision() == "16"


@pytest.mark.parametrize("precision", [64, "64-true", "bf16-true", "16-true"])
def test_precisions_that_do_not_fit_scaled_images_are_refused(tiny: Config, precision: object) -> None:
    with pytest.raises(UserError, match=r"trainer\.precision is"):
        parsed(changed(tiny, trainer__precision=precision))


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("train/loss", "min"), ("val/accuracy", "max")])
def test_the_mode_follows_from_the_monitor(tiny: Config, monitor: str, mode: str) -> None:
    assert parsed(changed(tiny, selection__monitor=monitor)).selection.mode == mode
    wrong = {"min": "max", "max": "min"}[mode]
    with pytest.raises(UserError, match=r"selection\.mode is"):
        parsed(changed(tiny, selection__monitor=monitor, selection__mode=wrong))


@pytest.mark.parametrize(
    ("class_path", "init_args", "reason"),
    [
        ("lightning.pytorch.callbacks.StochasticWeightAveraging", {"swa_lrs": 0.1}, "swaps the weights"),
        ("lightning.pytorch.callbacks.EMAWeightAveraging", {}, "swaps the weights"),
        ("Averages", {}, "swaps the weights"),
        ("lightning.pytorch.callbacks.LearningRateFinder", {}, "trains by itself"),
        ("lightning.pytorch.callbacks.BatchSizeFinder", {}, "trains by itself"),
    ],
)
@pytest.mark.parametrize("in_a_list", [True, False])
def test_callbacks_that_break_a_promise_are_refused_whatever_their_name(
    tiny: Config,
    module: str,
    class_path: str,
    init_args: Config,
    reason: str,
    in_a_list: bool,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    named = class_path if "." in class_path else f"{module}.{class_path}"
    callback = {"class_path": named, "init_args": init_args}
    experiment = parsed(changed(tiny, trainer__callbacks=[callback] if in_a_list else callback))
    with pytest.raises(UserError, match=f"the callback {class_path.rpartition('.')[2]} {reason}"):
        check_parts(experiment)
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_help_names_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    text = make_parser().format_help()
    for option in ("--config", "--name", "--seed", "--cv.n_splits", "--selection.patience", "--trainer.max_epochs"):
        assert option in text
    assert not any(f"--trainer.{option} " in text for option in RESERVED_TRAINER_OPTIONS)


SIZES = {
    ("BatchNormCNN", (28, 28, 3)): "model.init_args.in_channels is 1, set it to 3",
    ("BatchNormCNN", (32, 32, 3)): "in_channels is 1, set it to 3 and model.init_args.image_size is 28, set it to 32",
    ("BatchNormCNN", (20, 28)): "it takes square images only, and these are 20 pixels high and 28 wide",
    ("BatchNormCNN", (32, 32)): "model.init_args.image_size is 28, set it to 32",
    ("LogSoftmaxANN", (32, 32, 3)): "model.init_args.in_features is 784, set it to 3072",
    ("LinearClassifier", (20, 28)): "model.init_args.in_features is 784, set it to 560",
}


@pytest.mark.parametrize(("name", "shape"), SIZES)
def test_what_to_set_for_images_of_another_size_is_said(
    tiny: Config, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "pets.npz", images=np.zeros((30, *shape), dtype=np.uint8), labels=np.arange(30) % 3)
    data = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "pets.npz")}}
    given = {"in_channels": 1, "image_size": 28} if name == "BatchNormCNN" else {"in_features": 784}
    model = {"class_path": f"fmnist_cv.models.{name}", "init_args": given}
    with pytest.raises(
        UserError, match=f"fmnist_cv.models.{name} cannot take images of shape .*: .*{SIZES[name, shape]}"
    ):
        check_parts(parsed(changed(tiny, model=model, data=data)))
