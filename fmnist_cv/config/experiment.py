"""The typed experiment: parsed, checked, saved with all defaults, and built separately for every fold."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from fmnist_cv.config.checks import check_settings
from fmnist_cv.config.config_values import as_yaml_values, expand_config
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.config.identity import identity, same_setting
from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.jsonargparse_internals.messages import explain, known_keys, reason_of_build, unknown_key
from fmnist_cv.config.options import experiment_parser, parse, read_configs
from fmnist_cv.config.sections import OWN_METRICS, SECTIONS, CrossValidationSection, SelectionSection
from fmnist_cv.config.short import write_out
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import KFoldDataModule, SplitPlan
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import Devices, find_devices, has_fast_bf16, seed_everything
from fmnist_cv.utils.paths import user_path


class Experiment:
    """One parsed and checked experiment.

    Args:
        config: what the parser returned, run options and all.
        parser: the parser that made it.
        changed: the sections whose values are to be checked, since the others are those of another experiment.

    Raises:
        UserError: settings that contradict each other or that this machine cannot do.
    """

    def __init__(
        self, config: Namespace, parser: ArgumentParser | None = None, changed: Collection[str] = SECTIONS
    ) -> None:
        self._parser = parser or experiment_parser()
        self._yaml: str | None = None
        self.defaults: list[str] = []  # chosen for what a short form leaves out, in words
        self.config = expand_config(as_yaml_values(config))
        self._check_types(changed)
        self.config = _sections(self.config, SECTIONS)
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
                f"selection.mode is '{self.selection.mode}', but the best value of {self.selection.monitor} "
                f"is the {natural_mode}; leave selection.mode out"
            )
        self.selection.mode = self.selection.mode or natural_mode
        self.plan = SplitPlan(
            SplitPlan.n_splits if self.cv.n_splits is None else self.cv.n_splits,
            SplitPlan.n_repeats if self.cv.n_repeats is None else self.cv.n_repeats,
            self.cv.stratify,
            self.cv.holdout,
            self.cv.inner_holdout,
            self.seed,
            self.cv.train_size,
            self.cv.splitter,
            self.cv.splits,
        )
        check_settings(self)

    # -- parsing --------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Experiment:
        """Parse command-line arguments, `--config` among them, without run options."""
        parser = experiment_parser()
        written = write_out(read_configs(arguments))
        experiment = cls(parse(parser, written.arguments, validate=False), parser)
        experiment.defaults = written.defaults
        return experiment

    @classmethod
    def from_yaml(cls, text: str) -> Experiment:
        """Parse a resolved config, as `to_yaml` wrote it."""
        parser = experiment_parser()
        try:
            return cls(private.parse_text(parser, text), parser)
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            raise UserError(explain(error, parser)) from None

    def to_yaml(self) -> str:
        """The resolved config: every option with its value, enough to repeat the run."""
        if self._yaml is None:
            self._yaml = str(self._parser.dump(self.config, skip_validation=True, skip_unset=False))
        return self._yaml

    def replaced(self, **values: Any) -> Experiment:
        """The same experiment with other values of dotted keys, given with `__` for the dots."""
        config = self.config.clone()
        for key, value in values.items():
            config[key.replace("__", ".")] = value
        experiment = Experiment(config, self._parser, {key.partition("__")[0] for key in values})
        experiment.defaults = self.defaults
        return experiment

    def with_synthetic_data(self) -> Experiment:
        """The same experiment on synthetic images."""
        settings = load_yaml(self.to_yaml())
        shared = ("batch_size", "scaling", "augment", "eval_batch_size", "drop_last")
        kept = {key: value for key, value in settings["data"]["init_args"].items() if key in shared}
        settings["cv"]["test"] = None  # they have a test set
        if self.plan.is_given:  # for other images
            settings["cv"] |= {"splitter": None, "splits": None, "n_splits": max(2, self.plan.n_splits)}
        settings["data"] = {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": kept}
        return Experiment.from_yaml(yaml.safe_dump(settings))

    def differences(self, other: Experiment) -> list[str]:
        """The dotted keys, with both values, by which this experiment and a run's compute different things."""
        mine, theirs = (identity(load_yaml(experiment.to_yaml())) for experiment in (self, other))
        return [
            f"{key} ({theirs.get(key)!r} in the run, {mine.get(key)!r} here)"
            for key in sorted(mine.keys() | theirs.keys())
            if not same_setting(key, mine.get(key), theirs.get(key))
        ]

    def __getstate__(self) -> dict[str, Any]:
        """For the process of a fold, which has a parser of its own."""
        return {**vars(self), "_parser": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _parser=experiment_parser())

    # -- checks ---------------------------------------------------------------------------------------------

    def _check_types(self, changed: Collection[str]) -> None:
        """The parser accepts null, and a value in place of a section, and does not validate what `from_yaml` parses."""
        known = known_keys(self._parser)
        for key, value in vars(self.config).items():
            if key not in known and key not in SECTIONS:
                inner = next(iter(value.keys()), "") if isinstance(value, Namespace) else ""
                raise UserError(unknown_key(f"{key}.{inner}".rstrip("."), known, self._parser.prog))
        if missing := [key for key in ("data", "model", "name") if self.config.get(key) is None]:
            required = TypeError(
                f"the following arguments are required: {', '.join(missing)}"
            )  # as jsonargparse says it
            raise UserError(explain(required, self._parser))
        for section in ("cv", "selection", "trainer"):
            if not isinstance(self.config[section], Namespace):
                raise UserError(f"{section} is {self.config[section]!r}; it is a section with keys of its own")
        try:
            self._parser.validate(_sections(self.config, changed), skip_unset=False, skip_required=True)
        except (argparse.ArgumentError, KeyError, TypeError, ValueError) as error:
            raise UserError(explain(error, self._parser)) from None

    # -- building -------------------------------------------------------------------------------------------

    def build(self, seed: int) -> FoldParts:
        """Make model, data module and Trainer arguments; the initial weights depend on `seed` alone."""
        seed_everything(seed)
        try:
            made = self._parser.instantiate(self.config)
        except (TypeError, ValueError) as error:
            raise UserError(f"the experiment cannot be built: {reason_of_build(error)}") from None
        made.data.test_cut = self.cv.test
        return FoldParts(made.model, made.data, made.trainer.as_dict())

    def build_data(self) -> KFoldDataModule:
        """Make the data module alone."""
        seed_everything(self.seed)
        try:
            part = Namespace(data=self.config.data)  # type: ignore[no-untyped-call]
            data: KFoldDataModule = self._parser.instantiate(part).data
        except (TypeError, ValueError) as error:
            raise UserError(f"the experiment cannot be built: {reason_of_build(error)}") from None
        data.test_cut = self.cv.test
        return data

    @property
    def headline(self) -> Literal["last", "best"]:
        """The epoch whose score is reported for a fold: "best" only where the choice used other images than the fold's."""
        return "last" if self.cv.inner_holdout is None else "best"

    def devices(self) -> Devices:
        """The devices that folds run on, checked to exist."""
        return find_devices(self.config.trainer.accelerator, self.config.trainer.devices)

    def precision(self) -> str:
        """The Trainer's precision; by default bf16 where the device has it natively, else float32."""
        precision = self.config.trainer.precision
        if precision is not None:
            return str(precision)
        return "bf16-mixed" if has_fast_bf16(self.devices().accelerator) else "32-true"


def _sections(config: Namespace, names: Collection[str]) -> Namespace:
    """The part of a config that these sections are."""
    return Namespace({name: config[name] for name in SECTIONS if name in names})  # type: ignore[no-untyped-call]
