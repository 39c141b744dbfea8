"""After the search: the winner, and the best configurations' scores on splits and seeds that the search did not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import DifferenceTest, corrected_t_test, mean_ratio, summarise
from fmnist_cv.analysis.tables import percent
from fmnist_cv.config.fitted import fit_to_data
from fmnist_cv.cross_validation import cross_validate
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.preparation import run_or_resume
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.errors import UserError
from fmnist_cv.search.records import CompletedTrial, Confirmation, completed_trials, ranked
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import values_of


def find_winner(search: Search, study: optuna.Study) -> CompletedTrial:
    """The fully evaluated trial with the highest mean.

    Raises:
        UserError: there is none.
    """
    completed = completed_trials(study.get_trials(deepcopy=False))
    if not (best_first := ranked(completed)):
        reasons = [trial.diverged for trial in completed if trial.diverged]
        why = f"; {len(reasons)} diverged, the last one: {reasons[-1]}" if reasons else ""
        raise UserError(f"study {search.name} has no trial that ran all its folds{why}")
    return best_first[0]


def write_winner(search: Search, winner: CompletedTrial) -> Path:
    """Write the winner's experiment as a config for `fit` with another seed than the search's: log_dir/name/winner.yaml."""
    values = values_of(search.space, winner.params)
    experiment = search.experiment(values, name=f"{search.name}-winner", seed=search.fresh_seed)
    experiment = fit_to_data(experiment, search.data)
    path = search.folder / "winner.yaml"
    warnings = "".join(f"# {line}\n" for line in synthetic_warning(search.data.data_name))
    header = (
        f"{warnings}# Trial {winner.number} of study {search.name}: accuracy {percent(winner.value)} % on the folds that "
        "selected it;\n# the seed below makes other folds.\n#\n"
        f"#   command   python -m fmnist_cv.fit --config {path}\n"
    )
    replace_file(path, lambda file: file.write((header + experiment.to_yaml()).encode()))
    return path


def confirm(search: Search, study: optuna.Study, workers: int | None, console: Console | None) -> Confirmation:
    """Cross-validate the best configurations, and the experiment with the overrides alone, on fresh splits.

    The search has settled the winner before, so its score here is not biased by a choice among these splits. But the images
    are those of the search, in other folds.

    Args:
        search: what was searched.
        study: with its completed trials.
        workers: folds that run in parallel; None for the engine's default.
        console: where progress is shown; None shows nothing.

    Returns:
        For the winner and the runners-up, the search's score, the fresh one with its interval, and the search's minus the
        fresh one; the baseline's score; and the corrected t-test of winner minus baseline, whose interval and p are None
        where there are too few scores.
    """
    section = search.confirm
    best_first = ranked(completed_trials(study.get_trials(deepcopy=False)))[: section.top]
    found: Confirmation = {"seed": search.fresh_seed, "n_repeats": section.n_repeats, "configurations": []}
    runs = []
    for trial in best_first:
        values = values_of(search.space, trial.params)
        run = _cross_validate(search, f"trial_{trial.number:04}", values, workers, console)
        searched = summarise(trial.fold_scores, search.ratio)
        fresh = run.summary["headline"]["accuracy"]
        runs.append(run)
        found["configurations"].append(
            {
                "trial": trial.number,
                "parameters": trial.params,
                "run": run.path.name,
                "search": searched,
                "fresh": fresh,
                "gap": searched["mean"] - fresh["mean"],
                "seconds": _seconds(run),
            }
        )
    if section.baseline and runs:
        baseline = _cross_validate(search, "baseline", {}, workers, console)
        found["baseline"] = {
            "run": baseline.path.name,
            "fresh": baseline.summary["headline"]["accuracy"],
            "seconds": _seconds(baseline),
        }
        found["winner_against_baseline"] = _difference(runs[0], baseline)
    return found


def _difference(winner: CrossValidationResult, baseline: CrossValidationResult) -> DifferenceTest:
    ratio = mean_ratio(winner.summary["folds"])
    test = corrected_t_test(list(winner.accuracies), list(baseline.accuracies), ratio)
    if test is not None:
        return {"difference": test.difference, "low": test.low, "high": test.high, "p": test.p}
    difference = float(np.mean(winner.accuracies - baseline.accuracies))
    return {"difference": difference, "low": None, "high": None, "p": None}


def _cross_validate(
    search: Search, name: str, values: dict[str, Any], workers: int | None, console: Console | None
) -> CrossValidationResult:
    section = search.confirm
    experiment = search.fresh_experiment(values, section.n_splits, section.n_repeats, workers)
    run = f"confirm_{name}_{experiment.cv.n_splits}x{section.n_repeats}_seed_{experiment.seed}"
    return cross_validate(experiment, **run_or_resume(experiment, run), console=console)


def _seconds(run: CrossValidationResult) -> float:
    """Sum of its folds' wall times."""
    return float(sum(run.summary["times"]["fold_wall_seconds"]))
