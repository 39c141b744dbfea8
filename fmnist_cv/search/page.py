"""A study's HTML page, with Optuna's plots and the trials' fold scores, and its TensorBoard HParams."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from statistics import stdev
from typing import Any

import jinja2
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from torch.utils.tensorboard import SummaryWriter

from fmnist_cv.analysis.tables import difference_of, interval_of, percent
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.tensorboard import log_hyperparameters, note_synthetic
from fmnist_cv.search.records import CompletedTrial, SearchSummary, completed_trials
from fmnist_cv.search.search import Search
from fmnist_cv.utils.optional import require

TEMPLATE = Path(__file__).with_name("study.html.jinja")


def write_page(search: Search, study: optuna.Study, summary: SearchSummary) -> Path:
    """Write log_dir/name/study.html, a single file that needs no network."""
    trials = completed_trials(study.get_trials(deepcopy=False))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "brief": _brief,
        "percent": percent,
        "sd": _sd,
        "interval": interval_of,
        "difference": difference_of,
    }
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        search=search,
        summary=summary,
        warnings=synthetic_warning(search.data.data_name),
        plots=_plots(study),
        trials=sorted(trials, key=lambda trial: -trial.value),
        n_folds=search.n_folds,
        parameters=sorted({name for trial in trials for name in trial.params}),
    )
    path = search.folder / "study.html"
    replace_file(path, lambda file: file.write(text.encode()))
    return path


def _plots(study: optuna.Study) -> list[tuple[str, str]]:
    """(title, HTML) of each plot, or of the reason why there is none; the first includes plotly's code."""
    require("Plotting a study", "plotly")
    from optuna import visualization

    makers: list[tuple[str, Callable[[optuna.Study], Any]]] = [
        ("History", visualization.plot_optimization_history),
        ("Importance of the parameters", visualization.plot_param_importances),
        ("Parallel coordinates", visualization.plot_parallel_coordinate),
        ("Slices", visualization.plot_slice),
    ]
    made: list[tuple[str, str]] = []
    study = _escaped(study)
    for title, make in makers:
        try:
            figure = make(study)
        except (ValueError, RuntimeError) as error:  # too few trials, or all of them equal
            made.append((title, f"<p>No plot: {escape(str(error))}</p>"))
            continue
        figure.update_layout(template="plotly_white", title=None, margin={"t": 20})
        made.append((title, figure.to_html(full_html=False, include_plotlyjs=not any("<script" in m for _, m in made))))
    return made


def _escaped(study: optuna.Study) -> optuna.Study:
    """A copy with escaped names and choices, since plotly renders `<b>` in a text as bold."""

    def as_text(value: Any) -> Any:
        return escape(value) if isinstance(value, str) else value

    copy = optuna.create_study(directions=study.directions)
    for trial in study.get_trials():
        trial.distributions = {
            as_text(name): CategoricalDistribution([as_text(choice) for choice in distribution.choices])
            if isinstance(distribution, CategoricalDistribution)
            else distribution
            for name, distribution in trial.distributions.items()
        }
        trial.params = {as_text(name): as_text(value) for name, value in trial.params.items()}
        copy.add_trial(trial)
    return copy


def _brief(value: Any) -> str:
    """A parameter's value, a float rounded to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sd(trial: CompletedTrial) -> float | None:
    return stdev(trial.fold_scores) if len(trial.fold_scores) > 1 else None


def write_tensorboard(search: Search, study: optuna.Study) -> None:
    """Write a TensorBoard run per completed trial, log_dir/name/tensorboard: its parameters, scores, and mean curve."""
    for trial in completed_trials(study.get_trials(deepcopy=False)):
        folder = search.folder / "tensorboard" / f"trial_{trial.number:04}"
        if folder.exists():  # a completed trial does not change
            continue
        with SummaryWriter(str(folder)) as writer:
            note_synthetic(writer, search.data.data_name)
            curves = [curve for curve in trial.curves if curve]
            if curves:
                n = min(map(len, curves))
                for epoch, accuracy in enumerate(np.mean([curve[:n] for curve in curves], axis=0)):
                    writer.add_scalar("accuracy/held_out_mean_of_folds", accuracy, epoch)
            scores = {f"fold_{i}": score for i, score in enumerate(trial.fold_scores)}
            for name, score in {"accuracy": trial.value, **scores}.items():
                writer.add_scalar(name, score)
            log_hyperparameters(writer, trial.params, folder.name)
