"""After the search: the best configurations on splits and seeds that the search never saw, and what the search flattered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import corrected_t_test, summarise
from fmnist_cv.cross_validation import cross_validate
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.preparation import run_or_resume
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.errors import UserError
from fmnist_cv.search.outcomes import diverged, finished, fold_scores, ranked
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import values_of


def find_winner(search: Search, study: optuna.Study) -> FrozenTrial:
    """The trial with all folds whose mean is the highest.

    Raises:
        UserError: there is none.
    """
    if not (trials := ranked(study.get_trials(deepcopy=False))):
        reasons = [reason for trial in finished(study.get_trials(deepcopy=False)) if (reason := diverged(trial))]
        why = f"; {len(reasons)} diverged, the last one: {reasons[-1]}" if reasons else ""
        raise UserError(f"study {search.name} has no trial that ran all its folds{why}")
    return trials[0]


def write_winner(search: Search, winner: FrozenTrial) -> Path:
    """The winner's experiment as a config for `fit`, on other folds than those that chose it: log_dir/name/winner.yaml."""
    values = values_of(search.space, winner.params)
    experiment = search.experiment(values, name=f"{search.name}-winner", seed=search.fresh_seed)
    path = search.folder / "winner.yaml"
    notes = "".join(f"# {line}\n" for line in synthetic_warning(search.data.data_name))
    header = (
        f"{notes}# Trial {winner.number} of study {search.name}: accuracy {100 * float(winner.value or 0):.2f} % on the folds "
        f"that chose it; the seed makes others.\n#\n#   command   python -m fmnist_cv.fit --config {path}\n"
    )
    replace_file(path, lambda file: file.write((header + experiment.to_yaml()).encode()))
    return path


def confirm(search: Search, study: optuna.Study, workers: int | None, console: Console | None) -> dict[str, Any]:
    """Cross-validate the best configurations, and the config with the overrides alone, on fresh splits.

    Which of them is the winner is settled before: by the search. So the score here is not that of a choice among these
    splits; but the images are those that the search has seen, in other folds.

    Args:
        search: what was searched.
        study: with its finished trials.
        workers: folds side by side; None for the engine's choice.
        console: where progress is shown; None shows nothing.

    Returns:
        For the winner, the runners-up and the baseline: the search's score, the fresh one with its interval, and their
        gap; and the corrected t-test of winner against baseline, whose interval and p are None where the folds tell none.
    """
    section = search.confirm
    trials = ranked(study.get_trials(deepcopy=False))[: section.top]
    found: dict[str, Any] = {"seed": search.fresh_seed, "n_repeats": section.n_repeats, "configurations": []}
    runs = []
    for trial in trials:
        values = values_of(search.space, trial.params)
        runs.append(_cross_validate(search, f"trial_{trial.number:04}", values, workers, console))
        searched, fresh = (
            summarise(fold_scores(trial), search.ratio).as_dict(),
            runs[-1].summary["headline"]["accuracy"],
        )
        found["configurations"].append(
            {
                "trial": trial.number,
                "parameters": trial.params,
                "run": runs[-1].path.name,
                "search": searched,
                "fresh": fresh,
                "gap": searched["mean"] - fresh["mean"],
                "seconds": _seconds(runs[-1]),
            }
        )
    if section.baseline and runs:
        baseline = _cross_validate(search, "baseline", {}, workers, console)
        ratio = mean(fold["n_validation"] / fold["n_train"] for fold in runs[0].summary["folds"])
        test = corrected_t_test(list(runs[0].accuracies), list(baseline.accuracies), ratio)
        found["baseline"] = {
            "run": baseline.path.name,
            "fresh": baseline.summary["headline"]["accuracy"],
            "seconds": _seconds(baseline),
        }
        difference = float(np.mean(runs[0].accuracies - baseline.accuracies))
        none = {"difference": difference, "low": None, "high": None, "p": None}
        found["winner_against_baseline"] = asdict(test) if test else none
    return found


def _cross_validate(
    search: Search, name: str, values: dict[str, Any], workers: int | None, console: Console | None
) -> CrossValidationResult:
    section = search.confirm
    experiment = search.fresh_experiment(values, section.n_splits, section.n_repeats, workers)
    run = f"confirm_{name}_{experiment.cv.n_splits}x{section.n_repeats}_seed_{experiment.seed}"
    return cross_validate(experiment, **run_or_resume(experiment, run), console=console)


def _seconds(run: CrossValidationResult) -> float:
    """Wall time of its folds, one after another."""
    return sum(run.summary["times"]["fold_wall_seconds"])
