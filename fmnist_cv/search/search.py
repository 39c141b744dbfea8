"""A checked search: its space fits its experiment, and the steps after the search can be run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from statistics import mean
from typing import Any

import optuna
import yaml
from jsonargparse import Namespace
from optuna.samplers import BaseSampler

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fitted import fit_to_data
from fmnist_cv.config.fold_parts import check_parts
from fmnist_cv.config.identity import MAY_CHANGE_ON_RESUME, flatten
from fmnist_cv.config.options import as_arguments, parse, read_config
from fmnist_cv.data.given_splits import digest_of_splits, split_images
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.runtime import LARGEST_SEED, derive_seed
from fmnist_cv.search.optuna_internals import quiet_optuna
from fmnist_cv.search.settings import (
    ConfirmSection,
    EpochRuleSection,
    PruningSection,
    SearchSettings,
    Tree,
    make_parser,
)
from fmnist_cv.search.space import corners, grid, grid_size, read_space
from fmnist_cv.utils.paths import check_name, shortened

GRID = "grid"
SAMPLERS = ("TPESampler", "RandomSampler", "GPSampler")  # created anew for each trial
# Settings that may change when a study is resumed.
MAY_CHANGE = ("trials", "confirm", "nested", "experiment", "overrides", "log_dir")


class Search:
    """A checked search.

    Args:
        settings: what the parser returned.

    Raises:
        UserError: settings contradict each other, name something unknown, or lead to an experiment that cannot run.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.space = read_space(settings.space.content)
        self._check_settings()
        # read once: edits while the search runs must not affect later trials
        self._config = read_config(settings.experiment)
        self.base = self.experiment({})
        if settings.name == yaml.safe_load(self._config).get("name"):
            raise UserError(f"name is '{settings.name}', which is the experiment's: their runs would share a folder")
        self.folder = self.base.log_dir / self.name
        self._check_base()
        self._check_rules()
        self.data = check_parts(self.base).data
        self.base = fit_to_data(self.base, self.data)
        self._check_pruning()
        self._check_space()
        self._check_afterwards()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Search:
        """From command-line arguments, `--config` among them."""
        return cls.from_namespace(parse(make_parser(), arguments, "search"))

    @classmethod
    def from_namespace(cls, options: Namespace) -> Search:
        """From what the parser returned, other options included."""
        names = {f.name for f in fields(SearchSettings)}
        given = {key: value for key, value in options.as_dict().items() if key in names}
        sections = {"pruning": PruningSection, "epoch_rule": EpochRuleSection, "confirm": ConfirmSection}
        for key, section in sections.items():
            given[key] = None if given[key] is None else section(**given[key])
        return cls(SearchSettings(**given))

    def experiment(self, values: Mapping[str, Any], **overrides: Any) -> Experiment:
        """The experiment with these values of dotted keys; `overrides` come last, with `__` for the dots."""
        last = {key.replace("__", "."): value for key, value in overrides.items()}
        options = {
            **self.settings.overrides.content,
            **values,
            "name": self.name,
            "log_dir": self.settings.log_dir,
            **last,
        }
        return Experiment.parse([f"--config={self._config}", *as_arguments(options)])

    @property
    def confirm(self) -> ConfirmSection:
        """How the best configurations are confirmed."""
        return self.settings.confirm or ConfirmSection(top=0)

    @property
    def fresh_seed(self) -> int:
        """The seed of splits that the search does not use."""
        return (self.base.seed + 1) % (LARGEST_SEED + 1) if self.confirm.seed is None else self.confirm.seed

    @property
    def ratio(self) -> float:
        """Held-out images per training image, the mean over the folds."""
        splits = split_images(self.data.train_images, self.base.plan)
        return mean(len(split.validation) / len(split.train) for split in splits)

    def fresh_experiment(
        self, values: Mapping[str, Any], n_splits: int | None, n_repeats: int = 1, workers: int | None = None
    ) -> Experiment:
        """The experiment with these values and other splits, initial weights and orders of images than in the search."""
        return self.experiment(
            values,
            seed=self.fresh_seed,
            cv__n_splits=n_splits or self.base.cv.n_splits,
            cv__n_repeats=n_repeats,
            cv__holdout=None,
            cv__workers=workers,
        )

    @property
    def n_folds(self) -> int:
        return self.base.plan.n_folds

    @property
    def is_grid(self) -> bool:
        return self.settings.sampler == GRID

    @property
    def n_trials(self) -> int:
        """Trials to complete."""
        return self.settings.trials if self.settings.trials is not None else grid_size(self.space)

    def sampler(self, draw: int) -> BaseSampler:
        """The sampler for one draw of a configuration, which depends on (seed, draw) and the trials that have ended."""
        options = self.settings.sampler_options
        if self.is_grid:
            return optuna.samplers.GridSampler(grid(self.space), seed=self.settings.seed)
        make: Callable[..., BaseSampler] = getattr(optuna.samplers, self.settings.sampler)
        return make(**options, seed=derive_seed(self.settings.seed, draw))

    def pruner(self) -> optuna.pruners.BasePruner:
        """What prunes a trial after some folds."""
        pruning = self.settings.pruning
        if pruning is None:
            return optuna.pruners.NopPruner()
        return optuna.pruners.WilcoxonPruner(p_threshold=pruning.p_threshold, n_startup_steps=pruning.n_startup_folds)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {k: v.content if isinstance(v, Tree) else v for k, v in asdict(self.settings).items()}

    def identity(self) -> dict[str, Any]:
        """What must be equal to resume a study: the space, the sampler, the pruning, the experiment, and the data."""
        settings = {key: value for key, value in self.as_dict().items() if key not in MAY_CHANGE}
        experiment = {
            key: value
            for key, value in flatten(yaml.safe_load(self.base.to_yaml()))
            # images that are left out are covered by the fingerprint, wherever the file of their indices is
            if key not in ("name", "data.init_args.leave_out") and not key.startswith(MAY_CHANGE_ON_RESUME)
        }
        found = {**settings, "experiment": experiment, "data": self.data.train_images.fingerprint()}
        if self.base.plan.splits is not None:  # a file's or a column's content is no setting
            found["folds"] = digest_of_splits(split_images(self.data.train_images, self.base.plan))
        as_stored: dict[str, Any] = json.loads(json.dumps(found))
        return as_stored

    # -- checks ---------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        """Check what does not depend on the experiment, which takes longer to parse."""
        settings, confirm = self.settings, self.confirm
        check_name(settings.name, "name")  # from which longer names are made, of the winner and the outer folds
        for what, seed in (("seed", settings.seed), ("confirm.seed", confirm.seed or 0)):
            if not 0 <= seed <= LARGEST_SEED:
                raise UserError(f"{what} is {shortened(str(seed))}; it must be from 0 to {LARGEST_SEED}")
        if settings.trials is None and not self.is_grid:
            raise UserError("trials is not set; give the number of trials to complete, e.g. --trials 30")
        if settings.trials is not None and settings.trials < 1:
            raise UserError(f"trials is {settings.trials}; it must be at least 1")
        if self.is_grid and settings.sampler_options:
            raise UserError("sampler_options have no effect on a grid; leave them out")
        if self.is_grid and (size := grid_size(self.space)) < self.n_trials:
            raise UserError(f"trials is {settings.trials}, but the grid has {size} points; leave trials out for all")
        if settings.sampler not in (GRID, *SAMPLERS):
            known = f"choose from {', '.join((GRID, *SAMPLERS))}"
            raise UserError(f"sampler is '{settings.sampler}'{did_you_mean(settings.sampler, SAMPLERS, known)}")
        try:
            with quiet_optuna():
                self.sampler(0)
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(f"sampler {settings.sampler} cannot be created: {error}") from None
        for key in ("name", "log_dir", "cv.workers"):
            if key in settings.overrides.content:
                raise UserError(f"overrides.{key} cannot be set: the search sets it itself")
        if confirm.top < 0 or confirm.n_repeats < 1:
            raise UserError(
                f"confirm.top is {confirm.top} and confirm.n_repeats {confirm.n_repeats}; they must be at least 0 and 1"
            )
        if settings.nested is not None and settings.nested < 2:
            raise UserError(f"nested is {settings.nested}; it must be at least 2")

    def _check_base(self) -> None:
        """Check the settings against the experiment."""
        if self.base.cv.fold is not None:
            raise UserError(
                f"cv.fold is {self.base.cv.fold} in the experiment or the overrides, but a trial runs all folds; "
                "set overrides.cv.fold to null"
            )
        if self.fresh_seed == self.base.seed:
            raise UserError(
                f"confirm.seed is {self.confirm.seed}, the seed of the search, whose splits it would repeat"
            )
        if self.settings.nested is not None and self.base.cv.test is not None:
            raise UserError(
                "nested cannot be combined with cv.test: its outer folds are the test sets; set one to null"
            )
        if self.settings.nested is not None and self.base.config.data.init_args.get("leave_out") is not None:
            raise UserError("nested cannot be combined with data.leave_out, which it uses to remove each outer fold")

    def _check_rules(self) -> None:
        pruning, rule = self.settings.pruning, self.settings.epoch_rule
        if pruning is not None and not 0 < pruning.p_threshold <= 1:
            raise UserError(f"pruning.p_threshold is {pruning.p_threshold}; it must be above 0 and at most 1")
        if rule is not None and (rule.min_epochs < 1 or rule.min_trials < 1 or not 0 < rule.quantile <= 1):
            raise UserError(
                f"epoch_rule: min_epochs is {rule.min_epochs}, min_trials {rule.min_trials} and quantile {rule.quantile}; "
                "the first two must be at least 1, the last above 0 and at most 1"
            )
        n_epochs = self.base.config.trainer.max_epochs
        searched = any(parameter.key == "trainer.max_epochs" for parameter in self.space)
        if rule is not None and not searched and n_epochs is not None and rule.min_epochs >= n_epochs:
            raise UserError(
                f"epoch_rule.min_epochs is {rule.min_epochs}, but a fold has only {n_epochs}: no trial "
                "would ever be pruned"
            )
        if rule is not None and rule.min_trials >= self.n_trials:
            raise UserError(
                f"epoch_rule.min_trials is {rule.min_trials}, but trials only {self.n_trials}: no trial would "
                "ever be pruned"
            )

    def _check_pruning(self) -> None:
        """Check the pruning against the number of folds, which the data may decide."""
        pruning, n = self.settings.pruning, self.n_folds
        if pruning is None:
            return
        if n < 3:
            raise UserError(f"pruning has no effect with {n} fold(s): a trial is pruned after 2 at the earliest")
        if not 2 <= pruning.n_startup_folds < n:
            raise UserError(
                f"pruning.n_startup_folds is {pruning.n_startup_folds}; it must be from 2 to {n - 1}, one less "
                "than the number of folds"
            )
        if pruning.p_threshold <= 0.5 ** (n - 1):
            raise UserError(
                f"pruning.p_threshold is {pruning.p_threshold}, but after {n - 1} of {n} folds the smallest p is "
                f"{0.5 ** (n - 1):g}, so that no trial would ever be pruned; raise it, or use more folds"
            )

    def _check_space(self) -> None:
        """Check the experiment at the ends of each range and with each choice."""
        for what, values in corners(self.space):
            try:
                check_parts(self.experiment(values), self.data)
            except UserError as error:
                raise UserError(f"space: {what}: {error}") from None

    def _check_afterwards(self) -> None:
        """Check the steps after the search, which would otherwise fail after hours."""
        confirm, nested = self.confirm, self.settings.nested
        if self.base.plan.is_given and (confirm.top or nested is not None):
            given = "confirm.top to 0" if confirm.top else "nested to null"
            raise UserError(
                "the splits are given, by cv.splitter, cv.splits or the data, so that there are none which the search has not "
                f"seen; set {given}"
            )
        try:
            if confirm.top:
                check_parts(self.fresh_experiment({}, confirm.n_splits, confirm.n_repeats), self.data)
        except UserError as error:
            raise UserError(f"confirm: {error}") from None
        try:
            if nested is not None:
                check_parts(self.fresh_experiment({}, nested), self.data)
        except UserError as error:
            raise UserError(f"nested: {error}") from None
