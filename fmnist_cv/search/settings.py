"""A search as its YAML file and the command describe it: its settings and their parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import register_type

from fmnist_cv.config.options import HelpFormatter


class Tree:
    """A mapping that the parser takes as it is; it would fill a class_path in it with that class's defaults."""

    def __init__(self, content: object = None) -> None:
        if not isinstance(content, Mapping | None):
            raise ValueError(f"{content!r} is no mapping of keys to values")
        self.content = dict(content or {})


register_type(Tree, serializer=lambda tree: tree.content, deserializer=Tree)


@dataclass
class PruningSection:
    """When a trial is given up after some of its folds (Optuna's WilcoxonPruner).

    Attributes:
        p_threshold: given up when the folds so far are worse than the best trial's with a p below this. The smallest p
            that n folds can have is 1/2^n: 0.25 after 2, 0.125 after 3, 0.0625 after 4.
        n_startup_folds: folds that each trial runs.
    """

    p_threshold: float
    n_startup_folds: int = 2


@dataclass
class EpochRuleSection:
    """When a fold's training is cut off, and its trial given up, though no fold is finished.

    It is compared with trials that ran all their folds, which are the better ones where folds are pruned, too: the two
    rules together give up more than the quantile says. The trial's score is the mean of its finished folds and this
    epoch's accuracy. With cv.inner_holdout, where accuracies after epochs are of the inner part and are compared with
    others of it, the score is the mean of the finished folds; without a finished fold, it is as far below the best trial's
    score as the inner accuracy is below that trial's in the same fold after the same epoch.

    Attributes:
        min_epochs: epochs that each fold is trained.
        quantile: cut off below this quantile of what trials that ran all their folds had in the same fold after the same
            epoch.
        min_trials: how many of them there must be first.
    """

    min_epochs: int = 1
    quantile: float = 0.25
    min_trials: int = 5


@dataclass
class ConfirmSection:
    """How the best configurations are cross-validated again, on splits and seeds that the search never saw.

    The images are those of the search, so some of its optimism stays; a nested estimate alone has none. The test set is
    scored, too, after the winner is settled.

    Attributes:
        top: how many configurations; the first is the winner, whatever the others turn out to be. 0 for none.
        n_splits: folds; null for as many as the search had, of a hold-out as cv.n_splits says.
        n_repeats: how often the folds are drawn anew.
        seed: decides splits, initial weights and epochs; null for the experiment's seed + 1.
        baseline: cross-validate the config with the overrides alone on the same folds, and test the difference.
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
        experiment: the experiment that is searched: a YAML file, or the name of one in configs/.
        space: dotted keys of the experiment and what each is searched over: float: [low, high] or int: [low, high] (with
            log: true or step: n), or choices, a list of values or a mapping of labels to value and space, which holds
            what is searched under that choice alone.
        overrides: dotted keys of the experiment that are set for all trials and the baseline, e.g. cv.n_splits or
            trainer.max_epochs.
        trials: how many trials are to be finished, with all folds or given up; null for the whole grid.
        seed: decides what the sampler draws. Interruptions change no draw, except of TPESampler and GPSampler with several
            workers, which follow the order in which trials end.
        sampler: TPESampler, RandomSampler or GPSampler of Optuna's, or grid.
        sampler_options: its arguments.
        pruning: when a trial is given up after some folds; null for never.
        epoch_rule: when a fold's training is cut off; null for never.
        confirm: what follows the search; null for nothing.
        nested: put so many outer folds around the whole search, for an estimate that no choice has touched; null for none.
        log_dir: folder under which the study's folder is.
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
Search an experiment's hyperparameters with Optuna. A trial is one configuration, cross-validated fold by fold; one that
is clearly worse than the best is given up after some folds. Afterwards the winner is cross-validated again on splits the
search never saw, beside the config with the search's overrides alone. Everything lands in lightning_logs/<name>/.

  python -m fmnist_cv.tune --config configs/search/sharifi-cnn-tpe.yaml
  python -m fmnist_cv.tune --config configs/search/biswas-mlp-grid.yaml --workers 2
  python -m fmnist_cv.tune --config my-search.yaml --trials 100 --storage postgresql://user@host/studies

The same command again goes on with the study: only what is missing is run.
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
    """The options that say where the search runs, and are no part of it."""
    parser.add_argument(
        "--workers",
        type=int,
        help="Trials side by side; by default one per GPU or CPU core, no more than there are trials. More share a GPU.",
    )
    parser.add_argument(
        "--storage",
        type=str,
        help="postgresql://... for several machines, or the path of a journal file; by default study.journal in the "
        "study's folder.",
    )
