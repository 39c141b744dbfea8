"""A study's page and table show names and choices unchanged, whatever characters they contain."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fmnist_cv.search.page import _plots
from fmnist_cv.search.records import PRUNED, RUN, CompletedTrial
from fmnist_cv.search.tuning import SearchResult
from fmnist_cv.utils.user_text import for_csv

NAMES = ["<b>x</b>", "=1+1", "</script><script>alert(1)</script>", "a|b\nc"]


def study() -> optuna.Study:
    made = optuna.create_study(direction="maximize")
    distributions = {NAMES[0]: CategoricalDistribution(NAMES), "lr": FloatDistribution(0, 1)}
    for i in range(8):
        drawn = {NAMES[0]: NAMES[i % 4], "lr": i / 8}
        made.add_trial(
            optuna.create_trial(
                params=drawn,
                distributions=distributions,
                value=0.5 + i / 100,
                user_attrs={PRUNED: None, RUN: "trial"},
                intermediate_values={0: 0.5 + i / 100},
            )
        )
    return made


def test_plotly_shows_names_and_choices_as_they_are() -> None:
    """It renders `<b>` in any text of a figure as bold."""
    plots = dict(_plots(study()))
    assert len(plots) == 4
    for title, plot in plots.items():
        assert "No plot" not in plot, title
        texts = json.dumps(plot).replace("\\\\u003c", "<").replace("\\\\u003e", ">")
        drawn = texts[texts.index("Plotly.newPlot(") :]  # after plotly's own code
        assert "<b>x" not in drawn and "<script>alert" not in drawn, title
        assert "&lt;b&gt;x" in drawn or title == "History", title


def test_the_table_of_trials_holds_no_formula(tmp_path: Path) -> None:
    made = study()
    result = SearchResult(None, made, CompletedTrial.read(made.best_trial), {}, tmp_path)  # type: ignore[arg-type]
    head, *rows = csv.reader(io.StringIO(for_csv(result.table).to_csv(index=False), newline=""))
    drawn = [row[head.index(NAMES[0])] for row in rows]
    assert {*drawn} == {NAMES[0], "'=1+1", *NAMES[2:]} and len(rows) == 8
