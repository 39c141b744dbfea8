"""Whatever is wrong with an option: one line says which, what it was given, what is expected, and what to write."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from experiments.replication.rows import choose_rows, load_rows
from fmnist_cv import compare
from fmnist_cv.config.class_paths import parameters
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.jsonargparse_internals.messages import reason_of_build
from fmnist_cv.config.options import make_parser, parse
from fmnist_cv.config.sections import MODEL_WAYS
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.search import settings
from fmnist_cv.search.search import Search

CALLBACKS = "lightning.pytorch.callbacks"
OF_A_CLASS = "a class is written as its path, e.g. my_module.MyClass, or as class_path and init_args"


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    for module in ("torchvision.transforms", "kornia.augmentation"):  # two classes are called RandomHorizontalFlip
        import_module(module)
    return make_parser()


def refusal(parser: ArgumentParser, *arguments: str) -> str:
    with pytest.raises(UserError) as refused:
        parse(parser, arguments)
    return str(refused.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--cv.n_splits=abc", "cv.n_splits is 'abc', but must be a whole number or null"),
        ("--cv.n_splits=3.5", "cv.n_splits is '3.5', but must be a whole number or null"),
        ("--cv={n_splits: abc}", "cv.n_splits is 'abc', but must be a whole number or null"),
        ("--cv=", "cv is '', but must be a mapping of keys to values"),
        ("--selection.mode=up", "selection.mode is 'up', but must be max, min, or null"),
        ("--selection.patience=[1]", "selection.patience is [1], but must be a whole number or null"),
        ("--synthetic_fallback=maybe", "synthetic_fallback is 'maybe', but must be true or false"),
        ("--trainer.deterministic=foo", "trainer.deterministic is 'foo', but must be true or false, warn, or null"),
        (
            "--trainer.logger=foo",
            f"trainer.logger is 'foo', but must be a Logger, a list of Logger, true or false, or null; {OF_A_CLASS}",
        ),
        (
            "--trainer.callbacks=[3]",
            f"trainer.callbacks is [3], but must be a list of Callback, a Callback, or null; {OF_A_CLASS}",
        ),
        (
            "--trainer.callbacks=EarlyStoping",
            "trainer.callbacks is 'EarlyStoping', but must be a list of Callback, a Callback, or null; "
            f"did you mean '{CALLBACKS}.EarlyStopping'?",
        ),
        (
            "--trainer.callbacks=[EarlyStopping]",
            f"trainer.callbacks: {CALLBACKS}.EarlyStopping needs monitor; give it in init_args",
        ),
        (
            "--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: a, patience: x}}]",
            "trainer.callbacks.init_args.patience is 'x', but must be a whole number",
        ),
        (
            "--data.augment=[RandomHorizontalFlip]",
            "data.init_args.augment: there are several classes RandomHorizontalFlip; give the full "
            "path: kornia.augmentation.RandomHorizontalFlip",
        ),
        (
            "--data.augment=RandomHorizontalFlip",
            "data.init_args.augment is 'RandomHorizontalFlip', but must be a list of Module or null; "
            "did you mean 'kornia.augmentation.RandomHorizontalFlip'?",
        ),
        ("--data.batch_size=x", "data.init_args.batch_size is 'x', but must be a whole number"),
        ("--data.scaling=foo", "data.init_args.scaling is 'foo', but must be unit, minmax, standardise, or none"),
        ("--data.augment=[{class_path: os.path}]", "data.init_args.augment: 'os.path' is not a Module"),
        (
            "--data=fmnist_cv.data.ArrayDataModule --data.images=abc",
            "data.init_args.images is 'abc', but must be null; arrays are given from Python only",
        ),
        ("--model=3", f"model is '3', but must be a LightningModule; {MODEL_WAYS}"),
        (
            "--model=BatchNormCN",
            "model is 'BatchNormCN', but must be a LightningModule; did you mean 'fmnist_cv.BatchNormCNN'?",
        ),
        ("--model=torch.nn.Linear", f"model: 'torch.nn.Linear' is not a LightningModule; {MODEL_WAYS}"),
        ("--model={class_path: 3}", "model: class_path must be text, the path of a class such as my_module.MyClass"),
        ("--model={init_args: 3}", "model: init_args must be a mapping of keys to values"),
        ("--model.l2={a: b}", "model.init_args.l2 is {'a': 'b'}, but must be a mapping of names to numbers or null"),
        (
            "--cv.test=clinic_a",
            "cv.test is 'clinic_a', but must be a number, a list of texts or whole numbers, or null",
        ),
        (
            "--model.class_weights=[a]",
            "model.init_args.class_weights is ['a'], but must be a list of numbers, balanced, or null",
        ),
        ("--model.optimizer=3", f"model.init_args.optimizer is 3, but must be an Optimizer; {OF_A_CLASS}"),
        (
            "--model.optimizer=Adaam",
            "model.init_args.optimizer is 'Adaam', but must be an Optimizer; did you mean 'torch.optim.Adam'?",
        ),
        (
            "--model.optimizer=torch.optim.Adaam",
            "model.init_args.optimizer: module torch.optim has no 'Adaam'; did you mean 'Adam'?",
        ),
        ("--model.optimizer.init_args.lr=x", "model.init_args.optimizer.init_args.lr is 'x', but must be a number"),
        (
            "--model.lr=3",
            "model: 'lr' is not an option of fmnist_cv.models.DenseNetwork; did you mean 'model.optimizer.init_args.lr'?",
        ),
        ("--lr=3", "'lr' is not an option; did you mean 'model.optimizer.init_args.lr'?"),
        ("--trainer.lr=3", "'trainer.lr' is not an option; did you mean 'model.optimizer.init_args.lr'?"),
        ("--epochs=3", "'epochs' is not an option; did you mean 'trainer.max_epochs'?"),
        ("--batch_size=3", "'batch_size' is not an option; did you mean 'data.batch_size'?"),
        ("--cv.split_file=x", "'cv.split_file' is not an option; did you mean 'cv.splitter'?"),
        ("--cv.xylophone=x", "'cv.xylophone' is not an option; see python -m fmnist_cv.fit --help"),
        ("--cv.a=x", "'cv.a' is not an option; see python -m fmnist_cv.fit --help"),
        ("--zzz=x", "'zzz' is not an option; see python -m fmnist_cv.fit --help"),
        ("stray", "'stray' is not an option; an option begins with --, and takes one value"),
    ],
)
def test_a_wrong_option_is_explained_in_a_line(parser: ArgumentParser, option: str, message: str) -> None:
    base = [] if option.startswith("--model=") else ["--model=fmnist_cv.models.DenseNetwork"]
    assert refusal(parser, "--data=fmnist_cv.data.SyntheticDataModule", *base, *re.split(" (?=--)", option)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: 123", 'name is 123, but must be text; quote it, as in name: "123"'),
        ("name: yes", 'name is true, but must be text; quote it, as in name: "true"'),
        ("selection: {monitor: 1}", 'selection.monitor is 1, but must be text; quote it, as in monitor: "1"'),
        ("name: [a]", "name is ['a'], but must be text"),
        ("cv: {holdout: {a: 1}}", "cv.holdout is {'a': 1}, but must be a number, a whole number, text, or null"),
        (
            "trainer: {callbacks: {class_path: EarlyStopping}}",
            f"trainer.callbacks: {CALLBACKS}.EarlyStopping needs monitor; give it in init_args",
        ),
        ("name: x", "the following are required: data, model; give them as options, or in a file with --config"),
    ],
)
def test_a_wrong_value_in_yaml_is_explained_in_a_line(parser: ArgumentParser, text: str, message: str) -> None:
    assert refusal(parser, f"--config={text}\n") == message


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (
            {"logger": "lightning.pytorch.loggers.WandbLogger"},
            "lightning.pytorch.loggers.WandbLogger: Requirement 'wandb>=0.12.10' not met",
        ),
        (
            {"logger": ["lightning.pytorch.loggers.MLFlowLogger"]},
            "lightning.pytorch.loggers.MLFlowLogger: Requirement 'mlflow>=1.0.0' not met",
        ),
        (
            {"callbacks": {"class_path": "EarlyStopping", "init_args": {"monitor": "a", "mode": "up"}}},
            "`mode` can be min, max, got up",
        ),
    ],
)
def test_what_cannot_be_built_is_named_with_the_whole_reason(
    tiny: dict[str, Any], section: dict[str, Any], reason: str
) -> None:
    tiny["trainer"] |= section
    with pytest.raises(UserError) as refused:
        Experiment.from_yaml(yaml.safe_dump(tiny)).build(0)
    assert str(refused.value).startswith(f"the experiment cannot be built: {reason}")


def test_a_reason_is_found_whichever_type_was_tried_first() -> None:
    error = ValueError(
        "Does not validate\nSubtypes: [a.B]\nErrors:\n  - Expected a <class 'list'>\n  - what it says\nGiven value: 3"
    )
    assert reason_of_build(error) == "what it says"
    assert reason_of_build(ValueError("a\n  b")) == "a" and len(reason_of_build(ValueError("x" * 9000))) < 500


# -- words that are nearly right ----------------------------------------------------------------------------


def test_a_suggestion_is_a_question_and_what_follows_a_sentence() -> None:
    assert did_you_mean("see", ["seed"]) == "; did you mean 'seed'?"
    assert did_you_mean("see", ["seed"], "there are seed, fold") == "; did you mean 'seed'? There are seed, fold"
    assert did_you_mean("qqq", ["seed"], "there are seed, fold") == "; there are seed, fold"
    assert did_you_mean("qqq", ["seed"]) == ""


SEARCH = {"name": "s", "experiment": "quickstart", "sampler": "grid", "confirm": None}
LR = "model.optimizer.init_args.lr"
NEARLY: dict[str, tuple[Callable[[], object], str]] = {
    "config": (
        lambda: Experiment.parse(["--config=quickstrat"]),
        "config quickstrat does not exist; did you mean 'quickstart'? Give a YAML",
    ),
    "row": (
        lambda: choose_rows(["blog-lenett5"], load_rows()),
        "there is no row 'blog-lenett5'; did you mean 'blog-lenet5'? There are biswas",
    ),
    "sampler": (
        lambda: search(sampler="TPESampelr", space={LR: {"float": [0.1, 1.0]}}),
        "sampler is 'TPESampelr'; did you mean 'TPESampler'? Choose from grid, ",
    ),
    "space": (
        lambda: search(space={LR: {"float": [0.1, 1.0], "stepp": 0.1}}),
        ".stepp is not an option; did you mean 'step'? Choose from float, ",
    ),
    "monitor": (
        lambda: Experiment.parse(["--config=quickstart", "--selection.monitor=val/acuracy"]),
        "did you mean 'val/accuracy'?",
    ),
}


def search(**given: Any) -> Search:
    return Search.parse([f"--config={yaml.safe_dump({**SEARCH, 'trials': 3, **given})}"])


@pytest.mark.parametrize("what", NEARLY)
def test_every_suggestion_is_punctuated(what: str) -> None:
    do, message = NEARLY[what]
    with pytest.raises(UserError) as refused:
        do()
    assert message in str(refused.value) and "?;" not in str(refused.value) and "?." not in str(refused.value)


# -- the kind: every option, and every parameter of our classes ---------------------------------------------

WRONG = ("abc", "[abc]", "{a: b}", "3.5", "[{class_path: os.path}]", "é" * 3000)
CLASSES = {
    "model": ("ConvolutionalNetwork", "BatchNormCNN"),
    "data": ("ArrayDataModule", "ProductImagesDataModule"),
}


def options_of(parser: ArgumentParser, command: str) -> list[tuple[str, ...]]:
    """For each option that takes a value: the arguments that come before its own, and its name."""
    keys = [
        a.dest
        for a in parser._actions
        if a.option_strings and a.nargs != 0 and not re.search(r"(^|\.)(help|config)$", a.dest)
    ]
    found: list[tuple[str, ...]] = [(f"--{key}",) for key in keys if key != "print_config"]
    for section, names in CLASSES.items() if command == "fit" else ():
        for path in (f"fmnist_cv.{'models' if section == 'model' else 'data'}.{name}" for name in names):
            before = [f"--{section}={path}", *(["--model.blocks=[{channels: 4}]"] if "Convolutional" in path else [])]
            found += [(*before, f"--{section}.{key}") for key in parameters(path) if key != "kwargs"]
    return found


@pytest.mark.parametrize(
    ("command", "make"),
    [
        ("fit", make_parser),
        ("tune", settings.make_parser),
        ("compare", compare.make_parser),
    ],
)
def test_every_option_explains_every_wrong_value(command: str, make: Callable[[], Any]) -> None:
    parser, n = make(), 0
    read = parser.parse if command == "compare" else partial(parse, parser)
    for *before, option in options_of(parser, command):
        for value in WRONG:
            try:
                read([*before, f"{option}={value}"])
            except UserError as refused:
                message = str(refused)
            else:
                continue
            if message.startswith("the following are required"):  # this value is taken, and others are missing
                continue
            n += 1
            shown = f"{option}={value[:20]}: {message}"
            assert option.rpartition(".")[2].lstrip("-") in message, shown
            assert "\n" not in message and len(message) < 500, shown
            assert not re.search(
                r"Union|ypehint|NoneType|Namespace|NestedArg|<class|typing\.|Parser key|Got value", message
            ), shown
            assert re.search(r"[\w'\"?\])…}]$", message), shown
            assert "?;" not in message and message.count("'") % 2 == 0, shown
    assert n >= len(WRONG) - 3
