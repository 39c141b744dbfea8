"""The typed experiment: checked, saved resolved, and built afresh for every fold."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)

from fmnist_cv.config.class_paths import load_class
from fmnist_cv.config.options import CrossValidationSection, SelectionSection, make_parser, parse
from fmnist_cv.config.parser_messages import explain, reason_of_build
from fmnist_cv.data import KFoldDataModule, SplitPlan, make_splits
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.models import ImageClassifier
from fmnist_cv.runtime import LARGEST_SEED, Devices, find_devices, has_fast_bf16, seed_everything
from fmnist_cv.utils.paths import LONGEST_PART, check_name, expand_config, shortened, user_path

OWN_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")

PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "None")
SECTIONS = ("name", "seed", "log_dir", "synthetic_fallback", "report", "cv", "selection", "model", "data", "trainer")

# What may differ between a run and its resumption: where and how it runs, not what it computes.
NOT_IDENTITY = (
    "cv.workers",
    "cv.fold",
    "log_dir",
    "report",
    "trainer.accelerator",
    "trainer.devices",
    "data.init_args.root",
    "data.init_args.download",
    "data.init_args.path",
)


@dataclass
class FoldParts:
    """Everything that one fold owns, made afresh."""

    model: L.LightningModule
    data: KFoldDataModule
    trainer: dict[str, Any]

    @property
    def callbacks(self) -> list[Callback]:
        """The Trainer's callbacks that the experiment adds."""
        callbacks = self.trainer.get("callbacks") or []
        return callbacks if isinstance(callbacks, list) else [callbacks]


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """Refuse callbacks with which scores and checkpoints would not belong together.

    Raises:
        UserError: one that averages weights or that trains by itself, whatever its class is called.
    """
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise UserError(
                f"the callback {type(callback).__name__} swaps the weights after an epoch is scored and saved, "
                "so that scores and checkpoints would not be those of the average; leave it out"
            )
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            raise UserError(
                f"the callback {type(callback).__name__} trains by itself whenever a fold starts or is resumed, so "
                "that a resumed fold would end differently; search with python -m fmnist_cv.tune"
            )


class Experiment:
    """One parsed and checked experiment.

    Args:
        config: what the parser returned, run options and all.
        parser: the parser that made it.

    Raises:
        UserError: settings that contradict each other or that this machine cannot do.
    """

    def __init__(self, config: Namespace, parser: ArgumentParser | None = None) -> None:
        self._parser = parser or make_parser()
        self.config = expand_config(_plain(config))
        self._check_types()
        self.name: str = config.name
        self.seed: int = config.seed
        self.log_dir = user_path(self.config.log_dir, "log_dir")
        self.synthetic_fallback: bool = config.synthetic_fallback
        self.report: bool = config.report
        self.cv = CrossValidationSection(**config.cv.as_dict())
        self.selection = SelectionSection(**config.selection.as_dict())
        natural_mode: Literal["max", "min"] = "min" if self.selection.monitor.endswith("loss") else "max"
        if self.selection.monitor in OWN_METRICS and self.selection.mode not in (None, natural_mode):
            raise UserError(
                f"selection.mode is '{self.selection.mode}', but of {self.selection.monitor} the best is "
                f"the {natural_mode}; leave selection.mode out"
            )
        self.selection.mode = self.selection.mode or natural_mode
        self.plan = SplitPlan(
            self.cv.n_splits,
            self.cv.n_repeats,
            self.cv.stratify,
            self.cv.holdout,
            self.cv.inner_holdout,
            self.seed,
            self.cv.train_size,
        )
        self._check()

    # -- parsing --------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Experiment:
        """Parse command-line arguments, `--config` among them, without run options."""
        parser = make_parser()
        return cls(parse(parser, arguments), parser)

    @classmethod
    def from_yaml(cls, text: str) -> Experiment:
        """Parse a resolved config, as `to_yaml` wrote it."""
        parser = make_parser()
        try:
            return cls(parser.parse_string(text), parser)
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            raise UserError(explain(error, parser)) from None

    def to_yaml(self) -> str:
        """The resolved config: every option with its value, enough to repeat the run."""
        return self._parser.dump(
            Namespace({key: self.config[key] for key in SECTIONS}), skip_validation=True, skip_unset=False
        )

    def replaced(self, **values: Any) -> Experiment:
        """The same experiment with other values of dotted keys, given with `__` for the dots."""
        config = self.config.clone()
        for key, value in values.items():
            config[key.replace("__", ".")] = value
        return Experiment(config, self._parser)

    def with_synthetic_data(self) -> Experiment:
        """The same experiment on drawn garments."""
        settings = yaml.safe_load(self.to_yaml())
        shared = ("batch_size", "scaling", "augment", "eval_batch_size", "drop_last")
        kept = {key: value for key, value in settings["data"]["init_args"].items() if key in shared}
        settings["data"] = {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": kept}
        return Experiment.from_yaml(yaml.safe_dump(settings))

    def differences(self, other: Experiment) -> list[str]:
        """The dotted keys whose values make two experiments compute different things."""
        mine, theirs = (identity(yaml.safe_load(e.to_yaml())) for e in (self, other))
        return [
            f"{key} ({theirs.get(key)!r} in the run, {mine.get(key)!r} here)"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    # -- checks ---------------------------------------------------------------------------------------------

    def _check_types(self) -> None:
        """The parser lets null and a value in a section's place pass."""
        for section in ("cv", "selection", "trainer"):
            if not isinstance(self.config[section], Namespace):
                raise UserError(f"{section} is {self.config[section]!r}; it is a section with keys of its own")
        try:
            self._parser.validate(Namespace({key: self.config[key] for key in SECTIONS}), skip_unset=False)
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            raise UserError(explain(error, self._parser)) from None

    def _check(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed is {shortened(str(self.seed))}; it is a number from 0 to {LARGEST_SEED}")
        check_name(self.name, "name", LONGEST_PART)
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise UserError(
                f"name is '{self.name}'; it names a folder: letters, digits, '.', '_', '+' and '-', a letter or digit first"
            )
        if self.cv.workers is not None and self.cv.workers < 1:
            raise UserError(f"cv.workers is {self.cv.workers}; it must be at least 1")
        if self.cv.fold is not None and not 0 <= self.cv.fold < self.plan.n_folds:
            raise UserError(f"cv.fold is {self.cv.fold}; this experiment has folds 0 to {self.plan.n_folds - 1}")
        if self.selection.patience is not None and self.selection.patience < 1:
            raise UserError(f"selection.patience is {self.selection.patience}; it must be at least 1, or null")
        epochs, steps = self.config.trainer.max_epochs, self.config.trainer.max_steps
        if epochs is None and steps == -1 and self.config.trainer.max_time is None:
            raise UserError("trainer.max_epochs is not set; say how long to train, e.g. --trainer.max_epochs 10")
        if epochs is not None and epochs < 1:
            raise UserError(f"trainer.max_epochs is {epochs}; it must be at least 1")
        model = self.config.model.class_path
        if model.startswith("fmnist_cv.") and self.selection.monitor not in OWN_METRICS:
            raise UserError(
                f"selection.monitor is '{self.selection.monitor}', but {model} logs {', '.join(OWN_METRICS)}"
                + did_you_mean(self.selection.monitor, OWN_METRICS)
            )
        self._check_validation_options()
        if str(self.config.trainer.precision) not in PRECISIONS:
            raise UserError(
                f"trainer.precision is {self.config.trainer.precision}; images are scaled to float32 for "
                f"{', '.join(PRECISIONS[:-1])} only"
            )

    def _check_validation_options(self) -> None:
        """Lightning's own validation loop runs only for a module that brings a validation step."""
        model = load_class(self.config.model.class_path)
        if model.validation_step not in (L.LightningModule.validation_step, ImageClassifier.validation_step):
            return
        for option, default in (
            ("limit_val_batches", None),
            ("val_check_interval", None),
            ("check_val_every_n_epoch", 1),
        ):
            if self.config.trainer[option] != default:
                raise UserError(
                    f"trainer.{option} is {self.config.trainer[option]}, but has no effect on {model.__name__}: "
                    "the engine scores all held-out images after each epoch"
                )

    def check_parts(self, same_data: KFoldDataModule | None = None) -> FoldParts:
        """Build the parts once, on the CPU, and refuse what would only fail in the middle of training.

        Args:
            same_data: a data module with the same images, which need not be read again.
        """
        self.devices()
        parts = self.build(seed=self.seed)
        check_callbacks(parts.callbacks)
        if same_data is not None:
            parts.data.take_images(same_data)
        name, data = self.config.model.class_path, parts.data
        train, test = data.train_images, data.test_images  # a broken test file must be found before training
        if test is not None and test.shape != train.shape:
            raise UserError(f"the test images have the shape {test.shape}, but the training images {train.shape}")
        present = train.labels.unique().tolist()
        if len(present) < 2:
            raise UserError(f"there is one class, '{train.class_names[present[0]]}'; a classifier needs two")
        groups = None if train.groups is None else train.groups.numpy()
        data.use_split(make_splits(train.labels.numpy(), self.plan, groups)[0], seed=0)
        data.setup("fit")
        images = data.scale(data.train_images.images[:2])
        try:
            with torch.inference_mode():
                outputs = parts.model.eval()(images)
            if isinstance(parts.model, ImageClassifier):
                parts.model.l2_penalty()  # refuses patterns that match nothing
                parts.model.load_start()
        except UserError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = _other_sizes(self.config.model.get("init_args", {}), train.shape)
            raise UserError(f"{name} cannot take images of shape {tuple(images.shape)}: {hint or reason}") from None
        expected = (2, len(data.class_names))
        if not isinstance(outputs, torch.Tensor) or outputs.shape != expected:
            got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            absent = [f"'{name}'" for i, name in enumerate(train.class_names) if i not in present]
            also = f"; no training image is of the class {', '.join(absent[:5])}" if absent else ""
            raise UserError(
                f"the forward of {name} must return a tensor (images, classes) = {expected} for this data, got {got}{also}"
            )
        try:
            parts.model.configure_optimizers()
        except (TypeError, ValueError) as error:
            raise UserError(f"the optimizer or scheduler of {name} cannot be made: {error}") from None
        except RuntimeError:
            pass  # one that asks for its Trainer, which there is none of yet
        hyperparameters = dict(parts.model.hparams)
        try:
            buffer = io.BytesIO()
            torch.save(hyperparameters, buffer)
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except Exception as error:
            raise UserError(
                f"{name} saves hyperparameters that are not plain values ({type(error).__name__}), so that its "
                "checkpoints could not be loaded safely; leave them out with save_hyperparameters(ignore=[...])"
            ) from None
        return parts

    # -- building -------------------------------------------------------------------------------------------

    def build(self, seed: int) -> FoldParts:
        """Make model, data module and Trainer arguments; the initial weights depend on `seed` alone."""
        seed_everything(seed)
        try:
            made = self._parser.instantiate(self.config)
        except (TypeError, ValueError) as error:
            raise UserError(f"the experiment cannot be built: {reason_of_build(error)}") from None
        return FoldParts(made.model, made.data, made.trainer.as_dict())

    @property
    def headline(self) -> Literal["last", "best"]:
        """The epoch whose score stands for a fold: the best one only where other images than the fold's chose it."""
        return "last" if self.cv.inner_holdout is None else "best"

    def devices(self) -> Devices:
        """The devices that folds run on, checked to exist."""
        return find_devices(self.config.trainer.accelerator, self.config.trainer.devices)

    def precision(self) -> str:
        """The Trainer's precision; where none is given, bf16 where the device has it natively, else float32."""
        asked = self.config.trainer.precision
        if asked is not None:
            return str(asked)
        return "bf16-mixed" if has_fast_bf16(self.devices().accelerator) else "32-true"


def identity(config: Any) -> dict[str, Any]:
    """The settings of a resolved config, by their dotted keys, that decide what is computed, not where."""
    elsewhere = re.compile(rf"({'|'.join(map(re.escape, NOT_IDENTITY))})(\.|$)")
    return {key: value for key, value in flatten(config) if not elsewhere.match(key)}


def _other_sizes(model: Mapping[str, Any] | Namespace, shape: tuple[int, int, int]) -> str:
    """What to set of a network's arguments where they fit images of another shape (channels, height, width)."""
    channels, height, width = shape
    fitting = {"in_channels": channels, "image_size": height, "in_features": channels * height * width}
    given = {key: model[key] for key in fitting if key in model}
    if "image_size" in given and height != width:
        return f"it takes square images only, and these are {height} pixels high and {width} wide; make them square"
    return " and ".join(
        f"model.init_args.{key} is {value}, set it to {fitting[key]}"
        for key, value in given.items()
        if value != fitting[key]
    )


def _plain(value: Any) -> Any:
    """Defaults of Lightning's callbacks that YAML cannot hold, members of string enumerations and devices, as strings."""
    if isinstance(value, Namespace):
        return Namespace({key: _plain(item) for key, item in vars(value).items()})
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, torch.device):
        return str(value)
    return value.value if isinstance(value, Enum) and isinstance(value, str) else value


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves of nested dicts and lists."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from flatten(value, f"{prefix}.{i}")
    else:
        yield prefix, tree
