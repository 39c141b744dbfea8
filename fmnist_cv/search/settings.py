"""The settings of a search and their parser: the keys of its YAML file are the command's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type

from fmnist_cv.config.options import HelpFormatter


class Tree:
    """A mapping that the parser leaves unchanged; it would add a class's defaults to each class_path in a plain one."""

    def __init__(self, content: object = None) -> None:
        if not isinstance(content, Mapping | None):
            raise ValueError(f"{content!r} is not a mapping of keys to values")
        self.content = dict(content or {})


register_type(Tree, serializer=lambda tree: tree.content, deserializer=Tree)


@dataclass
class PruningSection:
    """When a trial is pruned after some of its folds (Optuna's WilcoxonPruner).

    Attributes:
        p_threshold: prune a trial whose folds so far are worse than the best trial's with a p below this. The smallest p
            that n folds can have is 1/2^n: 0.25 after 2, 0.125 after 3, 0.0625 after 4.
        n_startup_folds: folds that each trial runs before it can be pruned.
    """

    p_threshold: float
    n_startup_folds: int = 2


@dataclass
class EpochRuleSection:
    """When a trial is pruned within a fold, after an epoch.

    The fold is compared with the same fold of fully evaluated trials. With `pruning` these are the better trials, so that
    both rules together prune more than the quantile says. The pruned trial's score is the mean of its completed folds'
    accuracies and this epoch's. With cv.inner_holdout, accuracies after epochs are measured on the inner part and compared
    with others of it, and the score is the mean of the completed folds; without a completed fold, it is as far below the
    best trial's score as the inner accuracy is below that trial's in the same fold after the same epoch.

    Attributes:
        min_epochs: epochs that each fold is trained before its trial can be pruned.
        quantile: prune a trial below this quantile of the fully evaluated trials' accuracies in the same fold after the same
            epoch.
        min_trials: number of fully evaluated trials before any is pruned.
    """

    min_epochs: int = 1
    quantile: float = 0.25
    min_trials: int = 5


@dataclass
class ConfirmSection:
    """How the best configurations are cross-validated again, on splits and seeds that the search did not use.

    The images are those of the search, so that some of its optimistic bias remains; only a nested estimate has none. The
    test set is scored, too, after the winner is settled.

    Attributes:
        top: number of configurations; the first is the winner, whatever the others score. 0 for none.
        n_splits: folds; null for as many as in the search, or, of a hold-out, for cv.n_splits.
        n_repeats: how often the cross-validation is repeated with new folds.
        seed: decides splits, initial weights and epochs; null for the experiment's seed + 1.
        baseline: cross-validate the experiment with the overrides alone on the same folds, and test the difference.
    """

    top: int = 1
    n_splits: int | None = None
    n_repeats: int = 2
    seed: int | None = None
    baseline: bool = True


@dataclass
class SearchSettings:
    """Search an experiment's hyperparameters.

    Attributes:
        name: names the study and its folder, log_dir/name.
        experiment: the experiment to search: a YAML file, or the name of one in configs/.
        space: dotted keys of the experiment and the range of each: float: [low, high] or int: [low, high] (with log: true or
            step: n), or choices, a list of values or a mapping of labels to value and space, which holds parameters that
            exist only under this choice.
        overrides: dotted keys of the experiment that are set for all trials and the baseline, e.g. cv.n_splits or
            trainer.max_epochs.
        trials: number of trials to complete, fully evaluated or pruned; null for the whole grid.
        seed: of the sampler. Interruptions do not change its draws, except those of TPESampler and GPSampler with several
            workers, which depend on the order in which trials end.
        sampler: TPESampler, RandomSampler or GPSampler of Optuna, or grid.
        sampler_options: the sampler's arguments.
        pruning: when a trial is pruned after some folds; null for never.
        epoch_rule: when a trial is pruned within a fold; null for never.
        confirm: how the best configurations are cross-validated again; null for not at all.
        nested: number of outer folds around the complete search, for an unbiased estimate; null for none.
        log_dir: folder that contains the study's folder.
    """

    name: str
    experiment: str
    space: Tree
    overrides: Tree = field(default_factory=Tree)
    trials: int | None = None
    seed: int = 0
    sampler: str = "TPESampler"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    pruning: PruningSection | None = None
    epoch_rule: EpochRuleSection | None = None
    confirm: ConfirmSection | None = field(default_factory=ConfirmSection)
    nested: int | None = None
    log_dir: str = "lightning_logs"


DESCRIPTION = """
Search an experiment's hyperparameters with Optuna. A trial is one configuration, cross-validated fold by fold; one
that is clearly worse than the best is pruned after some folds. Then the winner and the experiment with the search's
overrides alone (the baseline) are cross-validated on splits that the search did not use. Results are in
lightning_logs/<name>/.

  python -m fmnist_cv.tune --config configs/search/sharifi-cnn-tpe.yaml
  python -m fmnist_cv.tune --config configs/search/biswas-mlp-grid.yaml --workers 2
  python -m fmnist_cv.tune --config my-search.yaml --trials 100 --storage postgresql://user@host/studies

The same command again resumes the study: only missing trials are run.
"""


def make_parser(prog: str = "python -m fmnist_cv.tune") -> ArgumentParser:
    """The parser of a search: every option is also a key of the YAML file."""
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} --config CONFIG [--KEY VALUE ...] [--workers N] [--storage URL]",
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file; a bare name is also looked up in configs/search/."
    )
    parser.add_class_arguments(SearchSettings)
    return parser


def add_run_options(parser: ArgumentParser) -> None:
    """Add the options that select workers and storage, which are not part of the search."""
    parser.add_argument(
        "--workers",
        type=int,
        help="Trials that run in parallel; by default one per GPU or CPU core, and no more than trials. More share a GPU.",
    )
    parser.add_argument(
        "--storage",
        type=str,
        help="postgresql://... for several machines, or the path of a journal file; by default study.journal in the study's "
        "folder.",
    )
