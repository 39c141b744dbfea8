"""The report of a finished run as a single HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.tables import fold_table, interval_of, percent, scored_lines, untrained_lines
from fmnist_cv.data.given_splits import given_by, is_fixed
from fmnist_cv.data.pixel_kinds import as_pictures
from fmnist_cv.engine.locks import locked
from fmnist_cv.engine.run_folder import RunFolder, replace_file
from fmnist_cv.errors import UserError
from fmnist_cv.reporting import charts, sprites
from fmnist_cv.reporting.current import NAME, inputs
from fmnist_cv.reporting.label_issues import LabelIssues, Progress, find_label_issues
from fmnist_cv.reporting.page_data import ScoredImages, packed, scored_images, script_data
from fmnist_cv.reporting.predictions import PredictionTable, mean_over_repeats
from fmnist_cv.utils.user_text import for_csv, print_line

LIMIT = 4_900_000  # bytes of the page
MOST_SHOWN = 12_000  # rows of predictions to begin with, before the size of their pictures is known

# how many of each kind are on the page; label_issues.csv has all
MISTAKES, ERRORS, OUTLIERS, GROUPS, GROUP_SIZE = 36, 36, 24, 24, 6

HERE = Path(__file__).parent


def write_report(result: CrossValidationResult, console: Console | None = None) -> Path:
    """Write report.html and label_issues.csv into a finished run's folder.

    Args:
        result: the run.
        console: where progress is shown; None shows nothing.

    Returns:
        The path of report.html.

    Raises:
        UserError: the run's images are missing or have changed, its files are damaged, or its folder cannot be written.
    """
    run = RunFolder(result.path)
    with _shown_on(console) as progress:
        progress("reading the images", 0)
        made_of = inputs(result)
        train = result.data.train_images
        parts = scored_images(result)
        mean = mean_over_repeats(result.out_of_fold())
        issues = find_label_issues(train, mean, lambda step, share: progress(step, 0.1 + 0.8 * share))
        predicted = np.where(np.isnan(mean[:, 0]), -1, mean.argmax(1))
        table = issues.table(train, predicted, result.data.left_out)
        progress("drawing the page", 0.9)
        text = _page(result, parts, issues, mean, predicted, made_of)
    try:
        with locked(run.path / ".summary.lock", wait=True, what="the summary"):
            replace_file(run.label_issues, lambda file: for_csv(table).to_csv(file, index=False))
            replace_file(run.html_report, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write the report into {run.path}: {error.strerror}") from None
    trust, is_weak = issues.trust(result.summary["out_of_fold_report"]["accuracy"])
    if is_weak and console is not None:
        print_line(console, trust, style="yellow")
    return run.html_report


@contextmanager
def _shown_on(console: Console | None) -> Iterator[Progress]:
    """A progress bar with the time left, removed at the end; without a terminal, nothing."""
    if console is None or not console.is_terminal:
        yield lambda step, share: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("report", total=1.0)
        yield lambda step, share: bar.update(task, description=f"report: {step}", completed=share)


def _page(
    result: CrossValidationResult,
    parts: dict[str, ScoredImages],
    issues: LabelIssues,
    mean: np.ndarray,
    predicted: np.ndarray,
    made_of: str,
) -> str:
    """The page's text, with as many pictures in as high a quality as its size limit allows."""
    shown = {name: part.predictions.shown() for name, part in parts.items()}
    train = parts["out_of_fold"].images
    findings = _findings(issues, train.labels.cpu().numpy())
    suspects = np.unique(
        np.concatenate(
            [np.empty(0, dtype=np.int64), *findings["errors"], *findings["duplicates"], *findings["outliers"]]
        )
    )
    labels = train.labels.cpu().numpy()[suspects]
    of_suspects = PredictionTable(suspects, labels, predicted[suspects], np.ones_like(suspects), mean[suspects])
    template = _template()
    context = _context(result, parts, issues) | {
        "inputs_name": NAME,
        "inputs": made_of,
        "findings": {
            kind: [np.searchsorted(suspects, group).tolist() for group in groups] for kind, groups in findings.items()
        },
        "conflicts": [len(set(train.labels[torch.from_numpy(g)].tolist())) > 1 for g in findings["duplicates"]],
    }
    share = min(1.0, MOST_SHOWN / sum(map(len, shown.values())))
    while True:
        kept = {name: part.thinned(int(share * len(part)), MISTAKES) for name, part in shown.items()}
        pictured = np.unique(np.concatenate([kept["out_of_fold"].image, suspects]))
        tiles = sprites.thumbnails_of(train, torch.from_numpy(pictured))
        packed_parts = {
            "out_of_fold": packed(kept["out_of_fold"], np.searchsorted(pictured, kept["out_of_fold"].image), train),
            "suspects": packed(of_suspects, np.searchsorted(pictured, suspects), train),
        }
        if test := kept.get("test"):
            test_images = parts["test"].images
            packed_parts["test"] = packed(test, len(tiles) + np.arange(len(test)), replace(test_images, part_of=None))
            of_test = sprites.thumbnails_of(test_images, torch.from_numpy(test.image))
            tiles = torch.cat([tiles, of_test])
        tiles = as_pictures(tiles)
        context["mistakes"] = np.flatnonzero(kept["out_of_fold"].wrong)[:MISTAKES].tolist()
        context["kept"] = {name: (int(part.wrong.sum()), int(shown[name].wrong.sum())) for name, part in kept.items()}
        context["data"] = script_data(result, packed_parts, tiles)
        fixed = len(template.render(context, sheets=sprites.Sheets([], None)).encode())
        sheets = sprites.pack_within(tiles, LIMIT - fixed)
        if fixed + sheets.size <= LIMIT or share < 1e-3:
            return template.render(context, sheets=sheets)
        share *= 0.95 * max(0.1, (LIMIT - fixed) / sheets.size)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval_of}
    environment.globals["file"] = lambda name: (HERE / name).read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja")


def _findings(issues: LabelIssues, labels: np.ndarray) -> dict[str, list[np.ndarray]]:
    """The label issues on the page, as groups of images; near-duplicates with different labels come first."""
    groups = sorted(issues.duplicates.groups, key=lambda group: len(set(labels[group])) == 1)
    return {
        "errors": [issues.errors[:ERRORS]],
        "duplicates": [group[:GROUP_SIZE] for group in groups[:GROUPS]],
        "outliers": [issues.outliers[:OUTLIERS]],
    }


def _context(result: CrossValidationResult, parts: dict[str, ScoredImages], issues: LabelIssues) -> dict[str, Any]:
    """The template's variables that do not depend on how many pictures fit."""
    summary = result.summary
    columns, rows = fold_table(summary)
    headline = summary["headline"]
    accuracy, names = headline["accuracy"], [fold["name"] for fold in summary["folds"]]
    low, mean, high = accuracy["low"], accuracy["mean"], accuracy["high"]
    interval = None if low is None or high is None else (low, mean, high)
    held_out = "held-out fold" if summary["cv"]["inner_holdout"] is None else "inner hold-out"
    titles = {"out_of_fold": "Out of fold", "test": "Test set"}
    reports, plan = result.reports, result.experiment.plan
    return {
        "results": summary,
        "synthetic": "SYNTHETIC" in summary["data"]["name"],
        "given_by": given_by(plan) if plan.is_given else None,
        "is_fixed": is_fixed(plan),
        "columns": columns,
        "rows": rows,
        "spread": charts.fold_spread(names, result.accuracies.tolist(), headline["wilson"], interval),
        "curves": charts.learning_curves([fold.read_metrics()["history"] for fold in result.folds], held_out),
        "held_out": held_out,
        "reports": reports,
        "titles": titles,
        "recalls": _recall_of_folds(result),
        "reliability": [
            charts.reliability(part.probabilities, part.labels, titles[name], reports[name]["calibration_error"])
            for name, part in parts.items()
        ],
        "issues": issues,
        "trust": issues.trust(summary["out_of_fold_report"]["accuracy"]),
        "scored": scored_lines(summary),
        "untrained": untrained_lines(summary),
        "n_predicted": int(np.isfinite(issues.quality).sum()),
        "n_left_out": len(result.data.left_out),
    }


def _recall_of_folds(result: CrossValidationResult) -> list[tuple[float, float] | None]:
    """For each class, lowest and highest recall among the folds that hold out images of it; None where none does."""
    n_classes, out_of_fold = len(result.summary["data"]["class_names"]), result.out_of_fold()
    recalls = []
    for split in result.splits:
        labels = result.labels[split.validation]
        correct = out_of_fold[split.repeat, split.validation].argmax(1) == labels
        support = np.bincount(labels, minlength=n_classes)
        with np.errstate(invalid="ignore"):
            recalls.append(np.bincount(labels[correct], minlength=n_classes) / support)
    by_class = [[float(r) for r in column if not np.isnan(r)] for column in np.transpose(recalls)]
    return [(min(folds), max(folds)) if folds else None for folds in by_class]
