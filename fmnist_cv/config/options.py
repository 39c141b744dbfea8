"""Options and YAML keys of an experiment: what there is, how it is parsed, and what is said of mistakes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import lightning as L
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from fmnist_cv.config.parser_messages import RESERVED_TRAINER_OPTIONS, explain
from fmnist_cv.config.yaml_files import check_yaml, load_yaml, read_yaml_text
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.plain_values import plain


@dataclass
class CrossValidationSection:
    """How the training images are split and the folds are run.

    Attributes:
        n_splits: k; 3, 5 and 10 are usual.
        n_repeats: draw the k folds anew this many times.
        stratify: keep the classes' shares in every part; false for plain shuffled splits.
        holdout: a single split instead of k folds: a fraction (0.2), a count (5000), or the first n ("first:5000").
        inner_holdout: fraction of each training part on which the epoch is chosen, so that the held-out fold chooses
            nothing; the best epoch then becomes the headline.
        train_size: train on a sample of this many images of each training part, for learning curves; null for all.
        workers: folds run side by side; by default one per GPU, or one per CPU core.
        fold: run this fold alone (repeats counted through), into the run named by --run; the last one to finish
            writes the summary.
    """

    n_splits: int = 5
    n_repeats: int = 1
    stratify: bool = True
    holdout: float | int | str | None = None
    inner_holdout: float | None = None
    train_size: int | None = None
    workers: int | None = None
    fold: int | None = None


@dataclass
class SelectionSection:
    """Which epoch is the best, and when to stop.

    Attributes:
        monitor: the metric that decides: val/accuracy, val/loss, or one that the model logs. `val` is the held-out
            fold, or the inner hold-out where cv.inner_holdout is set.
        mode: whether more ("max") or less ("min") of it is better; by default less of a loss, more of all else.
        patience: stop after this many epochs without improvement; null trains all epochs.
        min_delta: the least change that counts as improvement for the patience.
    """

    monitor: str = "val/accuracy"
    mode: Literal["max", "min"] | None = None
    patience: int | None = None
    min_delta: float = 0.0


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines as they are."""


DESCRIPTION = """
Cross-validate an image classifier: train one model per stratified fold, score each on the images it never saw and
once on the test set, and report mean, spread and interval. The run lands in lightning_logs/<name>/<run>/.

  python -m fmnist_cv.fit --config configs/quickstart.yaml
  python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --cv.n_splits 10 --trainer.max_epochs 5
  python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --resume last
  python -m fmnist_cv.fit --config my.yaml --model my_module.MyNet --model.width 32 --print_config
"""


def make_parser(prog: str = "python -m fmnist_cv.fit") -> ArgumentParser:
    """The parser of an experiment: every option is also a key of the YAML file."""
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
    parser.add_argument("--seed", type=int, default=0, help="Decides splits, initial weights and every epoch.")
    parser.add_argument("--log_dir", type=str, default="lightning_logs", help="Folder under which runs are written.")
    parser.add_argument(
        "--synthetic_fallback",
        type=bool,
        default=False,
        help="Run on drawn garments, marked SYNTHETIC, where the data are neither found nor downloadable.",
    )
    parser.add_argument(
        "--report",
        type=bool,
        default=True,
        help="Build report.html and label_issues.csv at the end; without, python -m fmnist_cv.report builds them later.",
    )
    parser.add_argument("--cv", type=CrossValidationSection, default=CrossValidationSection())
    parser.add_argument("--selection", type=SelectionSection, default=SelectionSection())
    parser.add_subclass_arguments(
        L.LightningModule,
        "model",
        required=True,
        help="Any LightningModule whose forward maps images to logits, log-probabilities or probabilities.",
    )
    parser.add_subclass_arguments(KFoldDataModule, "data", required=True, skip=set(SPLIT_ARGUMENTS))
    parser.add_class_arguments(
        L.Trainer, "trainer", instantiate=False, fail_untyped=False, skip=set(RESERVED_TRAINER_OPTIONS)
    )
    for action in parser._actions:
        if action.dest.startswith("trainer."):
            action._typehint = integers_first(action._typehint)  # type: ignore[attr-defined]
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
    """The options that say which run, and are no part of the experiment."""
    parser.add_argument("--run", type=str, help="Name of the run; by default the time. An existing name is refused.")
    parser.add_argument("--resume", type=str, help="Go on with this run of the experiment: its name, path, or 'last'.")
    parser.add_argument(
        "--refit",
        action="store_true",
        help="Then train a final model on all training images, for the folds' median best epoch.",
    )


def parse(parser: ArgumentParser, arguments: Sequence[str], subfolder: str = "") -> Namespace:
    """Parse, with one clear message for whatever is wrong.

    Args:
        parser: the parser.
        arguments: the command line's.
        subfolder: where in configs/ the bare name of a config is looked up.

    Raises:
        UserError: an unknown key, a wrong type, a missing or unreadable config.
    """
    try:
        arguments = [_find_config(a, subfolder) for a in _joined(arguments)]
        _check_values(parser, arguments)
        return parser.parse_args(arguments)
    except (argparse.ArgumentError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise UserError(explain(error, parser)) from None


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Values of dotted keys as command-line arguments; what is no string is written as JSON, which is YAML.

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
    """The text of the config that `--config name` would take, for `--config` to take it again.

    Raises:
        UserError: there is none.
    """
    return _find_config(f"--config={name}", subfolder).removeprefix("--config=")


def _check_values(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse values that are YAML beyond the bounds, and files in the place of a section that are no small files."""
    for i, argument in enumerate(arguments):
        option, is_joined, value = argument.partition("=")
        if not option.startswith("--"):
            continue
        if not is_joined:
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
        takes_files = getattr(parser._option_string_actions.get(option), "_enable_path", False)
        try:
            if takes_files and os.path.exists(value) and not os.path.isdir(value):
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


def _find_config(argument: str, subfolder: str) -> str:
    """The argument with the file's text in place of its name: the parser would read it in the locale's encoding."""
    if not argument.startswith("--config="):
        return argument
    name = argument.removeprefix("--config=")
    if "\n" in name:  # the YAML itself
        return argument
    given = user_path(name, "--config")
    if given.exists() and not given.is_dir():
        return f"--config={_config_text(given)}"
    home = Path("configs", subfolder)
    relative = given.relative_to(home) if given.is_relative_to(home) else given
    folders = [folder / subfolder for folder in config_folders()]
    for folder in folders:
        for path in (folder / relative, folder / f"{relative}.yaml"):
            if path.is_file():
                return f"--config={_config_text(path)}"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    problem = "is a folder" if given.is_dir() else "does not exist"
    way_out = f"give a YAML file, or one of {', '.join(known)}"
    raise UserError(f"config {name} {problem}{did_you_mean(relative.stem, known, way_out)}")


def _config_text(path: Path) -> str:
    text = read_yaml_text(path, "config")
    if not isinstance(load_yaml(text), dict):
        raise UserError(f"config {path} holds no options: it must be a mapping of keys to values")
    return text + "\n"  # with a line break it cannot be taken for a path
