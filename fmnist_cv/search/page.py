"""The study to look at: an HTML page of Optuna's plots and the trials' fold scores, and TensorBoard's HParams."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial
from torch.utils.tensorboard import SummaryWriter

from fmnist_cv.analysis.tables import difference_of, interval_of
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.tensorboard import log_hyperparameters, note_synthetic
from fmnist_cv.search.outcomes import CURVES, diverged, finished, fold_scores, given_up
from fmnist_cv.search.search import Search
from fmnist_cv.utils.optional import require

TEMPLATE = Path(__file__).with_name("study.html.jinja")


def write_page(search: Search, study: optuna.Study, summary: dict[str, Any]) -> Path:
    """Write log_dir/name/study.html, which needs no network."""
    trials = finished(study.get_trials(deepcopy=False))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"brief": _brief, "interval": interval_of, "difference": difference_of}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        search=search,
        summary=summary,
        warnings=synthetic_warning(search.data.data_name),
        plots=_plots(study),
        trials=[_row(trial, search.n_folds) for trial in sorted(trials, key=lambda t: -float(t.value or 0))],
        n_folds=search.n_folds,
        parameters=sorted({name for trial in trials for name in trial.params}),
    )
    path = search.folder / "study.html"
    replace_file(path, lambda file: file.write(text.encode()))
    return path


def _plots(study: optuna.Study) -> list[tuple[str, str]]:
    """(title, HTML) of each plot that this study has enough trials for; the first brings plotly along."""
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
        except (ValueError, RuntimeError) as error:  # too few trials, or all of them alike
            made.append((title, f"<p>No plot: {escape(str(error))}</p>"))
            continue
        figure.update_layout(template="plotly_white", title=None, margin={"t": 20})
        made.append((title, figure.to_html(full_html=False, include_plotlyjs=not any("<script" in m for _, m in made))))
    return made


def _escaped(study: optuna.Study) -> optuna.Study:
    """A copy whose names and choices plotly shows as they are: it reads `<b>` in a text as bold."""

    def as_text(value: Any) -> Any:
        return escape(value) if isinstance(value, str) else value

    copy = optuna.create_study(directions=study.directions)
    for trial in study.get_trials():
        trial.distributions = {
            as_text(name): CategoricalDistribution([as_text(choice) for choice in drawn_from.choices])
            if isinstance(drawn_from, CategoricalDistribution)
            else drawn_from
            for name, drawn_from in trial.distributions.items()
        }
        trial.params = {as_text(name): as_text(value) for name, value in trial.params.items()}
        copy.add_trial(trial)
    return copy


def _brief(value: Any) -> str:
    """A parameter's value, a float of any size in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(trial: FrozenTrial, n_folds: int) -> dict[str, Any]:
    scores = fold_scores(trial)
    return {
        "number": trial.number,
        "mean": float(trial.value or 0),
        "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "folds": [*scores, *[None] * (n_folds - len(scores))],
        "given_up": given_up(trial),
        "diverged": diverged(trial),
        "parameters": trial.params,
    }


def write_tensorboard(search: Search, study: optuna.Study) -> None:
    """A run per finished trial under log_dir/name/tensorboard: its parameters, score, and mean curve."""
    for trial in finished(study.get_trials(deepcopy=False)):
        folder = search.folder / "tensorboard" / f"trial_{trial.number:04}"
        if folder.exists():  # a finished trial does not change
            continue
        with SummaryWriter(str(folder)) as writer:
            note_synthetic(writer, search.data.data_name)
            curves = [curve for curve in trial.user_attrs.get(CURVES, []) if curve]
            if curves:
                n = min(map(len, curves))
                for epoch, accuracy in enumerate(np.mean([curve[:n] for curve in curves], axis=0)):
                    writer.add_scalar("accuracy/held_out_mean_of_folds", accuracy, epoch)
            scores = {f"fold_{i}": score for i, score in enumerate(fold_scores(trial))}
            for name, score in {"accuracy": float(trial.value or 0), **scores}.items():
                writer.add_scalar(name, score)
            log_hyperparameters(writer, trial.params, folder.name)
