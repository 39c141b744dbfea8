"""A complete search: run the missing trials, find the winner, confirm it, write the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from rich.console import Console

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fitted import fit_to_data
from fmnist_cv.config.options import as_arguments
from fmnist_cv.engine.best_effort import best_effort, warn_on
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.engine.locks import locked
from fmnist_cv.engine.processes import reason_against_processes, warm_up
from fmnist_cv.engine.run_folder import replace_file, write_json
from fmnist_cv.engine.workers import default_workers
from fmnist_cv.engine.writable import check_writable, explain_disk_errors
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import cpu_cores
from fmnist_cv.search.nested import nested_estimate
from fmnist_cv.search.optuna_internals import quiet_optuna
from fmnist_cv.search.page import write_page, write_tensorboard
from fmnist_cv.search.records import FORMAT, CompletedTrial, SearchSummary, completed_trials, failed_trials
from fmnist_cv.search.search import Search
from fmnist_cv.search.space import values_of
from fmnist_cv.search.study import run_study
from fmnist_cv.search.winner import confirm, find_winner, write_winner
from fmnist_cv.utils.plain_values import plain
from fmnist_cv.utils.user_text import for_csv


@dataclass
class SearchResult:
    """A finished search.

    Attributes:
        search: what was searched.
        study: Optuna's study.
        winner: the fully evaluated trial with the highest mean.
        summary: what search.json holds: the winner, its score on fresh splits, the baseline's, times, versions.
        path: the study's folder.
    """

    search: Search
    study: optuna.Study
    winner: CompletedTrial
    summary: SearchSummary
    path: Path

    @property
    def experiment(self) -> Experiment:
        """The winner's experiment, as the search ran it."""
        experiment = self.search.experiment(values_of(self.search.space, self.winner.params))
        return fit_to_data(experiment, self.search.data)

    @property
    def table(self) -> pd.DataFrame:
        """A row per completed trial, best first.

        Columns: trial, run (its folder), a column per parameter, accuracy (from 0 to 1), fold_0 ..., pruned, diverged (the
        reason), and seconds (of a trial that was re-queued, those of its last attempt).
        """
        rows = []
        for trial in completed_trials(self.study.get_trials(deepcopy=False)):
            scores = {f"fold_{i}": score for i, score in enumerate(trial.fold_scores)}
            outcome = {"pruned": trial.pruned, "diverged": trial.diverged, "seconds": trial.seconds}
            first = {"trial": trial.number, "run": trial.run}
            rows.append({**first, **trial.params, "accuracy": trial.value, **scores, **outcome})
        return pd.DataFrame(rows).sort_values("accuracy", ascending=False, ignore_index=True)


def tune(
    config: str | Path | Mapping[str, Any] | Search,
    overrides: Mapping[str, Any] | None = None,
    *,
    workers: int | None = None,
    storage: str | None = None,
    console: Console | None = None,
) -> SearchResult:
    """Search an experiment's hyperparameters, as `python -m fmnist_cv.tune` does; an existing study is resumed.

    Trials run in processes of their own, which import the calling script: guard its top level with
    `if __name__ == "__main__":`.

    Args:
        config: a YAML file or the name of one in configs/search/, its content as a mapping, or a Search.
        overrides: values of the search's keys, e.g. {"trials": 50}.
        workers: trials that run in parallel; None for one per GPU or core.
        storage: postgresql://... or the path of a journal file; None for study.journal in the study's folder.
        console: where progress is shown; None shows nothing.

    Raises:
        UserError: the search, the data or the storage cannot be used as requested.
        TrialsFailed: several trials failed one after another.
        FoldsFailed: a fold of a confirmation failed.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers is {workers}; it must be at least 1")
    search = as_search(config, overrides)
    check_writable(search.base.log_dir)
    if why := reason_against_processes(search.base):
        raise UserError(
            f"a search runs its folds in separate processes, but {why}; start it from a file, in an ordinary process, "
            "and define such classes in a module"
        )
    warm_up()
    given_workers, workers = workers, workers or min(default_workers(None, search.base.devices()), search.n_trials)
    study = run_study(search, workers, storage, console)
    then = ", and run the same command again: all trials are kept"
    # other commands of the same study wait for this lock, and then find the results
    lock = search.folder / ".afterwards.lock"
    with explain_disk_errors(search.base.log_dir, then), quiet_optuna():
        search.folder.mkdir(parents=True, exist_ok=True)
        with locked(lock, wait=True, what="the study's results", console=console):
            winner = find_winner(search, study)
            write_winner(search, winner)
            summary = _summary(search, study, winner, workers)
            result = SearchResult(search, study, winner, summary, search.folder)
            try:
                if search.confirm.top:
                    summary["confirmed"] = confirm(search, study, given_workers, console)
                if search.settings.nested is not None:
                    summary["nested"] = nested_estimate(search, workers, storage, console)
            finally:  # a winner may diverge on fresh splits; the results until then are written in any case
                _write(result, console)
    return result


def _write(result: SearchResult, console: Console | None) -> None:
    """Write search.json, trials.csv, study.html, and TensorBoard's files."""
    write_json(result.path / "search.json", result.summary)
    table = for_csv(result.table).to_csv(index=False)
    replace_file(result.path / "trials.csv", lambda file: file.write(table.encode()))
    with best_effort("TensorBoard's pages of the study", warn_on(console)):
        write_tensorboard(result.search, result.study)
    with best_effort(str(result.path / "study.html"), warn_on(console)):
        write_page(result.search, result.study, result.summary)


def as_search(config: str | Path | Mapping[str, Any] | Search, overrides: Mapping[str, Any] | None = None) -> Search:
    """A Search from a file, a mapping, or a Search, with some of its keys replaced."""
    if isinstance(config, Search) and not overrides:
        return config
    content = yaml.safe_dump(plain(config)) if isinstance(config, Mapping) else config
    if isinstance(config, Search):
        content = yaml.safe_dump(config.as_dict())
    return Search.parse([f"--config={content}", *as_arguments(overrides or {})])


def _summary(search: Search, study: optuna.Study, winner: CompletedTrial, workers: int) -> SearchSummary:
    trials = study.get_trials(deepcopy=False)
    completed = completed_trials(trials)
    devices = search.base.devices()
    threads = max(1, cpu_cores() // workers)
    return {
        "format": FORMAT,
        "study": search.name,
        "search": search.as_dict(),
        "data": {"name": search.data.data_name, "fingerprint": search.data.train_images.fingerprint()},
        "winner": {
            "trial": winner.number,
            "parameters": winner.params,
            "accuracy": winner.value,
            "folds": winner.fold_scores,
        },
        "trials": {
            "finished": len(completed),
            "pruned_after_folds": sum(t.pruned == "after folds" for t in completed),
            "pruned_in_an_epoch": sum(t.pruned == "in an epoch" for t in completed),
            "diverged": [
                {"trial": t.number, "parameters": t.params, "reason": t.diverged} for t in completed if t.diverged
            ],
            "failed": [{"trial": t.number, "parameters": t.params, "reason": t.reason} for t in failed_trials(trials)],
            "folds_run": sum(len(t.fold_scores) for t in completed),
            "folds_without_pruning": len(completed) * search.n_folds,
            "seconds": sum(t.seconds for t in completed),
        },
        "workers": workers,
        "environment": describe_environment(devices.description, threads, search.base.precision()),
    }
