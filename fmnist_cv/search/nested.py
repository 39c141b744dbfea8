"""Nested cross-validation: a complete search inside each outer fold, whose winner is scored on that fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from fmnist_cv.analysis.statistics import mean_ratio, summarise
from fmnist_cv.cross_validation import FoldsFailed, fold_folders, fold_job
from fmnist_cv.data import Split, SplitPlan
from fmnist_cv.data.given_splits import split_images
from fmnist_cv.engine.events import Event, Failed
from fmnist_cv.engine.fold import FoldJob
from fmnist_cv.engine.preparation import prepare_run, run_or_resume
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.run_records import FoldMetrics
from fmnist_cv.engine.workers import run_jobs
from fmnist_cv.errors import UserError
from fmnist_cv.search.records import NestedEstimate, OuterFold
from fmnist_cv.search.search import Search
from fmnist_cv.search.settings import Tree
from fmnist_cv.search.space import values_of
from fmnist_cv.search.study import run_study
from fmnist_cv.search.winner import find_winner
from fmnist_cv.utils.user_text import print_line


def nested_estimate(search: Search, workers: int, storage: str | None, console: Console | None) -> NestedEstimate:
    """Estimate the accuracy of the whole procedure, search included (Cawley and Talbot, JMLR 11, 2010, section 5).

    For each outer fold, the search runs on the images of the other folds; its winner is trained on these and scored on the
    outer fold.

    Args:
        search: the search; `nested` is the number of outer folds.
        workers: trials that run in parallel.
        storage: where the inner studies are kept; None for a journal each.
        console: where progress is shown; None shows nothing.

    Returns:
        Mean, spread and corrected interval of the outer folds' accuracies, and each fold's winner.
    """
    train = search.data.train_images
    plan = SplitPlan(search.settings.nested or 0, stratify=search.base.cv.stratify, seed=search.fresh_seed)
    folds: list[OuterFold] = []
    for split in split_images(train, plan):
        if console is not None:
            print_line(console, f"\nouter fold {split.fold + 1} of {plan.n_splits}")
        inner = _without_fold(search, split)
        winner = find_winner(inner, run_study(inner, workers, storage, console))
        metrics = _train(search, values_of(search.space, winner.params), split)
        folds.append(
            {
                "fold": split.fold,
                "study": inner.name,
                "winner": {"trial": winner.number, "parameters": winner.params, "accuracy": winner.value},
                "accuracy": metrics[search.base.headline]["validation"]["accuracy"],
                "n_train": metrics["n_train"],
                "n_validation": metrics["n_validation"],
            }
        )
    ratio = mean_ratio(folds)
    return {
        "n_splits": plan.n_splits,
        "seed": plan.seed,
        "accuracy": summarise([fold["accuracy"] for fold in folds], ratio),
        "folds": folds,
    }


def _without_fold(search: Search, split: Split) -> Search:
    """The same search on the images outside the outer fold."""
    place = f"{split.fold}_of_{search.settings.nested}_seed_{search.fresh_seed}"
    path = search.folder / "nested" / f"outer_{place}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = pd.DataFrame({"index": split.validation}).to_csv(index=False)
    replace_file(path, lambda file: file.write(text.encode()))
    settings = search.settings
    return Search(
        replace(
            settings,
            name=f"{search.name}-outer_{place}",
            overrides=Tree({**settings.overrides.content, "data.leave_out": str(path)}),
            nested=None,
        )
    )


def _train(search: Search, values: dict[str, Any], split: Split) -> FoldMetrics:
    """Train the winner on all images outside the outer fold, and return its metrics on this fold."""
    experiment = search.fresh_experiment(values, search.settings.nested, workers=1)
    name = f"nested_{search.settings.nested}_seed_{search.fresh_seed}_outer_{split.fold}"
    prepared = prepare_run(experiment, **run_or_resume(experiment, name), same_data=search.data)
    if not np.array_equal(prepared.splits[split.fold].validation, split.validation):
        raise UserError(f"run {prepared.run.path} holds out other images than the outer fold; move it elsewhere")
    folder, failures = fold_folders(prepared)[split.fold], {}

    def handle(job: FoldJob, event: Event) -> None:
        if isinstance(event, Failed):
            failures[job.name] = (event.reason, event.traceback)

    if not folder.finished:
        run_jobs([replace(fold_job(prepared, split.fold), score_test=False)], 1, experiment.devices(), handle)
    if failures:
        raise FoldsFailed(prepared.run.path, failures)
    return folder.read_metrics()
