"""Options and YAML keys of an experiment, and how they are parsed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.jsonargparse_internals.messages import explain, known_keys, unknown_key
from fmnist_cv.config.sections import COMMON, RESERVED_TRAINER_OPTIONS, TITLES, CrossValidationSection, SelectionSection
from fmnist_cv.config.yaml_files import check_yaml, load_yaml, read_yaml_text
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.plain_values import plain


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines as they are."""


DESCRIPTION = """
Cross-validate an image classifier: train one model per stratified fold, score each on its held-out images and on
the test set, and report mean, standard deviation and confidence interval. The run is written to
lightning_logs/<name>/<run>/.

  python -m fmnist_cv.fit --config configs/quickstart.yaml
  python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --cv.n_splits 10 --trainer.max_epochs 5
  python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --resume last
  python -m fmnist_cv.fit --config my.yaml --model my_module.MyNet --model.width 32 --print_config
"""


@cache
def experiment_parser() -> ArgumentParser:
    """The parser of an experiment, made once per process; it is not to be changed."""
    return make_parser()


def make_parser() -> ArgumentParser:
    """A parser of an experiment: every option is also a key of the YAML file."""
    import lightning as L  # here, since it takes seconds, and neither the short help nor a misspelt option needs it

    from fmnist_cv import data, models
    from fmnist_cv.data.module import SPLIT_ARGUMENTS

    for module in (data, models):
        for name in module.__all__:
            getattr(module, name)  # imported, so that suggestions and the help know it

    parser = _parser_of_own_options()
    parser.add_subclass_arguments(
        L.LightningModule,
        "model",
        required=True,
        help="Any LightningModule whose forward maps images to logits, log-probabilities or probabilities.",
    )
    parser.add_subclass_arguments(data.KFoldDataModule, "data", required=True, skip=set(SPLIT_ARGUMENTS))
    parser.add_class_arguments(
        L.Trainer, "trainer", instantiate=False, fail_untyped=False, skip=set(RESERVED_TRAINER_OPTIONS)
    )
    for option in private.options_of(parser):
        if option.dest.startswith("trainer."):
            private.set_type(option, integers_first(private.type_of(option)))
    private.title_groups(parser, TITLES)
    return parser


def make_short_parser() -> ArgumentParser:
    """The options that the short help shows: all of this package, and what is set most often of the others."""
    parser = _parser_of_own_options()
    for section, options in COMMON.items():
        group = parser.add_argument_group(TITLES[section])
        for name, (metavar, meaning) in options.items():
            group.add_argument(f"--{name}", metavar=metavar, help=meaning)
    add_run_options(parser)
    private.title_groups(parser, TITLES)
    return parser


def _parser_of_own_options() -> ArgumentParser:
    prog = "python -m fmnist_cv.fit"
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} --config CONFIG [--KEY VALUE ...] [--run NAME | --resume RUN] [--refit]",
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; a bare name is also looked up in configs/.")
    parser.add_argument("--name", type=str, required=True, help="Name of the experiment, the folder of its runs.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the splits, the initial weights and every epoch.")
    parser.add_argument("--log_dir", type=str, default="lightning_logs", help="Folder under which runs are written.")
    parser.add_argument(
        "--synthetic_fallback",
        type=bool,
        default=False,
        help="Run on synthetic images, marked SYNTHETIC, where the data are neither found nor downloadable.",
    )
    parser.add_argument(
        "--report",
        type=bool,
        default=True,
        help="Build report.html and label_issues.csv at the end; without, python -m fmnist_cv.report builds them later.",
    )
    parser.add_argument("--cv", type=CrossValidationSection, default=CrossValidationSection())
    parser.add_argument("--selection", type=SelectionSection, default=SelectionSection())
    return parser


def integers_first(hint: Any) -> Any:
    """The type with `int` tried before `float`, which would make of limit_train_batches 1, one batch, 1.0: all of them.

    In which order the Trainer has them depends on the modules imported before it: typing keeps one Union for both.
    """
    members = get_args(hint)
    if get_origin(hint) not in (Union, UnionType) or not {int, float} <= set(members):
        return hint
    return reduce(or_, sorted(members, key=lambda member: member is float))


def add_run_options(parser: ArgumentParser) -> None:
    """The options that choose the run and are not part of the experiment."""
    parser.add_argument("--run", type=str, help="Name of the run; by default the time. An existing name is refused.")
    parser.add_argument(
        "--resume", type=str, help="Continue this run of the experiment: its name, its path, or 'last'."
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="Then train a final model on all training images, for the median of the folds' best epochs.",
    )


def refuse_unknown_keys(arguments: Sequence[str], parser: ArgumentParser, *more: str) -> None:
    """Refuse unknown options and keys of configs before the full parser, and all that it imports, is needed.

    Args:
        arguments: the command line's, with the configs' texts, see `read_configs`.
        parser: one that has the options of this package.
        more: names of other options.

    Raises:
        UserError: a name is unknown.
    """
    known = [*known_keys(parser), "print_config", *more]
    known = [key for key in known if not key.endswith(".ARGUMENT")]  # the help's, for any argument of a class
    open_ended = tuple(f"{key}." for key in known if key not in ("cv", "selection", "trainer"))  # keys of classes
    for word in _keys_of(arguments):
        if word not in known and not word.startswith(open_ended):
            raise UserError(unknown_key(word, known, parser.prog))


def _keys_of(arguments: Sequence[str]) -> Iterator[str]:
    """The names of options, and the keys of configs down to those of a section."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--config":
            with suppress(UserError, yaml.YAMLError):  # which the parser reports
                content = load_yaml(value)
                for key, section in content.items() if isinstance(content, dict) else ():
                    yield from (f"{key}.{inner}" for inner in section) if isinstance(section, dict) else [str(key)]
        elif name.startswith("--"):
            yield name.removeprefix("--").removesuffix("+")


def parse(parser: ArgumentParser, arguments: Sequence[str], subfolder: str = "", *, validate: bool = True) -> Namespace:
    """Parse the command line.

    Args:
        parser: the parser.
        arguments: the command line's.
        subfolder: where in configs/ the bare name of a config is looked up.
        validate: false for an experiment, which validates what it is made of.

    Raises:
        UserError: an unknown key, a wrong type, a missing or unreadable config.
    """
    try:
        arguments = read_configs(arguments, subfolder)
        _check_values(parser, arguments)
        return private.parse_arguments(parser, arguments, validate)
    except (argparse.ArgumentError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise UserError(explain(error, parser)) from None


def read_configs(arguments: Sequence[str], subfolder: str = "") -> list[str]:
    """The arguments with the text of each config in the place of its name.

    Raises:
        UserError: there is no such config, or it is not a mapping of keys to values.
    """
    return [
        f"--config={read_config(argument.removeprefix('--config='), subfolder)}"
        if argument.startswith("--config=")
        else argument
        for argument in _joined(arguments)
    ]


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Values of dotted keys as command-line arguments; other values than strings are written as JSON, which is YAML.

    Raises:
        UserError: one is or holds an object.
    """
    values = plain(overrides)
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def config_folders() -> list[Path]:
    """Where bare names of configs are looked up: ./configs, then the configs that come with the package."""
    package = Path(__file__).parents[1]
    return [Path("configs"), package / "configs", package.parent / "configs"]


def read_config(name: str, subfolder: str = "") -> str:
    """The text of the config that `--config name` takes: the parser would read it in the locale's encoding.

    Raises:
        UserError: there is no such config, or it is not a mapping of keys to values.
    """
    if "\n" in name:  # the YAML itself
        return name
    given = user_path(name, "--config")
    if given.exists() and not given.is_dir():
        return _config_text(given)
    home = Path("configs", subfolder)
    relative = given.relative_to(home) if given.is_relative_to(home) else given
    folders = [folder / subfolder for folder in config_folders()]
    for folder in folders:
        for path in (folder / relative, folder / f"{relative}.yaml"):
            if path.is_file():
                return _config_text(path)
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    problem = "is a folder" if given.is_dir() else "does not exist"
    way_out = f"give a YAML file, or one of {', '.join(known)}"
    raise UserError(f"config {name} {problem}{did_you_mean(relative.stem, known, way_out)}")


def _check_values(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse values, and files that a section is read from, whose YAML exceeds the bounds."""
    for i, argument in enumerate(arguments):
        option, is_joined, value = argument.partition("=")
        if not option.startswith("--"):
            continue
        if not is_joined:
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
        try:
            if private.takes_files(parser, option) and os.path.exists(value) and not os.path.isdir(value):
                read_yaml_text(Path(value), "file")
            check_yaml(value)
        except UserError as error:
            raise UserError(f"{option}: {error}") from None
        except yaml.YAMLError as error:
            if option == "--config":
                raise UserError(f"--config cannot be read as YAML: {' '.join(str(error).split())}") from None


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--config X` as `--config=X`, so that one argument holds the name to look up."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--config":
            joined[-1] = f"--config={argument}"
        else:
            joined.append(argument)
    return joined


def _config_text(path: Path) -> str:
    text = read_yaml_text(path, "config")
    if not isinstance(load_yaml(text), dict):
        raise UserError(f"config {path} contains no options: it must be a mapping of keys to values")
    return text + "\n"  # with a line break it cannot be taken for a path
