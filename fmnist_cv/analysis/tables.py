"""Results as tables and sentences; accuracies in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fmnist_cv.analysis.statistics import DifferenceTest, ScoreSummary, unequal_folds, why_no_interval
from fmnist_cv.analysis.summary import Groups, Interval, RunSummary
from fmnist_cv.data.group_sizes import describe_sizes
from fmnist_cv.data.sampling import describe_sampling
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.utils.user_text import for_markdown, plain

if TYPE_CHECKING:
    from fmnist_cv.engine.scoring import ClassificationReport


def percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def wilson_text(interval: Interval) -> str:
    """ "95 % confidence interval 89.70 to 90.54"."""
    low, high = interval
    return f"95 % confidence interval {percent(low)} to {percent(high)}"


def fold_table(results: RunSummary) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: of each fold name, epochs, validation and, with a test set, test accuracy of last and best epoch."""
    columns = ["fold", "epochs", "validation, last", "validation, best"]
    if results["test"] is not None:
        columns += ["test, last", "test, best"]
    rows = []
    for fold in results["folds"]:
        last, best = fold["last"], fold["best"]
        row = [
            fold["name"],
            str(fold["epochs"]),
            percent(last["validation"]["accuracy"]),
            f"{percent(best['validation']['accuracy'])} (epoch {best['epoch'] + 1})",
        ]
        if results["test"] is not None:
            row += [percent(epoch["test"]["accuracy"]) for epoch in (last, best)]
        rows.append(row)
    return columns, rows


def untrained_lines(results: RunSummary) -> list[str]:
    """A sentence for each fold whose training part lacks a class; older runs did not record it."""
    cv = results["cv"]
    is_given = cv["splitter"] is not None or cv["splits"] is not None
    way_out = "change the folds that are given" if is_given else "lower cv.n_splits, set cv.stratify to true"
    return [
        f"Caveat: the training part of {fold} has no image of the class {', '.join(names)}: its model cannot learn it, but "
        f"its score counts these images; {way_out}, or add images."
        for fold, names in results["untrained_classes"].items()
    ]


def scored_lines(results: RunSummary) -> list[str]:
    """On how many images the scores stand, their groups, copies and sampling, and where folds differ in size."""
    lines, cv = [], results["cv"]
    n, held_out, groups = results["data"]["n_train"], results["held_out"], results["groups"]
    if held_out is not None and held_out < n:
        lines.append(
            f"Scored on {held_out:,} of {n:,} training images; the other {n - held_out:,} are never held out and have no "
            "out-of-fold prediction."
        )
    if groups is not None:
        n_folds, repeats = cv["folds_per_repeat"], cv["n_repeats"]
        folds = f"{n_folds} fold{'s' if n_folds != 1 else ''}{f' x {repeats}' if repeats > 1 else ''}"
        lines.append(f"{folds} of {n:,} images, {describe_sizes(groups['n'], groups['largest'])}.")
        lines += _dominant_lines(results, groups)
    if (sampling := results["sampling"]) is not None:
        lines.append(f"{describe_sampling(sampling).capitalize()}; no score is weighted.")
    if (copies := results["copies"]) is not None:
        lines.append(
            f"{copies['images']:,} of {n:,} training images are copies ({copies['different']:,} different), kept together on one "
            "side of each split."
        )
    if results["headline"]["accuracy"]["low"] is not None and (caveat := unequal_folds(results["folds"])) is not None:
        lines.append(caveat)
    return lines


def _dominant_lines(results: RunSummary, groups: Groups) -> list[str]:
    dominant = groups["dominant"]
    if len(dominant) == len(results["folds"]) > 1:
        return [
            "Caveat: each fold holds out mostly one group, so that its score says how well that group is predicted."
        ]
    return [
        f"Caveat: the group '{group['group']}' is {group['images']:,} of the {group['of']:,} images that {fold} holds out: its "
        "score is nearly that of this group alone."
        for fold, group in dominant.items()
    ]


def summary_lines(results: RunSummary) -> list[str]:
    """The results in sentences."""
    headline, optimism, best = results["headline"], results["optimism"], results["best_fold"]
    accuracy = accuracy_of(headline["accuracy"])
    if headline["accuracy"]["n"] == 1:
        accuracy += f" ({wilson_text(headline['wilson'][0])})"
    return [
        *synthetic_warning(results["data"]["name"]),
        f"Validation accuracy, {headline['epoch']} epoch: {accuracy}",
        *([f"Caveat: {headline['caveat']}."] if headline["caveat"] else []),
        *scored_lines(results),
        *untrained_lines(results),
        f"Best minus last epoch: {100 * optimism['accuracy']:+.2f} points ({optimism['what']}).",
        *_test_lines(results),
        f"Best fold by validation accuracy: {best['name']} ({percent(best['validation_accuracy'])}).",
        *_refit_lines(results),
    ]


def _test_lines(results: RunSummary) -> list[str]:
    if results["test"] is None or results["ensemble"] is None:
        return []
    epoch = results["headline"]["epoch"]
    test, ensemble = results["test"][epoch]["accuracy"], results["ensemble"][epoch]
    n, cut = results["data"]["n_test"], []
    if results["cv"]["test"] is not None:
        cut = [f"The test set of {n:,} images was cut off from the training images before any fold (cv.test)."]
    if ensemble["n_models"] == 1:
        return [*cut, f"Test accuracy: {percent(test['mean'])} ({wilson_text(test['wilson_per_fold'][0])})."]
    return [
        *cut,
        f"Test accuracy of the folds' models, {epoch} epoch: mean {percent(test['mean'])}, sd {percent(test['sd'])}.",
        f"Soft-voting ensemble of the {ensemble['n_models']} models on the test set: {percent(ensemble['accuracy'])} "
        f"({wilson_text(ensemble['wilson'])}).",
    ]


def _refit_lines(results: RunSummary) -> list[str]:
    refit = results["refit"]
    if refit is None:
        return []
    line = f"Refit on all {refit['n_train']:,} training images for {refit['epochs']} epochs"
    if "test_accuracy" in refit:
        line += f": test accuracy {percent(refit['test_accuracy'])} ({wilson_text(refit['wilson'])})"
    return [line + "."]


def accuracy_of(summary: ScoreSummary) -> str:
    """ "mean 90.12, sd 0.20, corrected 95 % confidence interval 89.70 to 90.54 (3 scores)"."""
    if summary["n"] < 2:
        return percent(summary["mean"])
    spread = f"mean {percent(summary['mean'])}, sd {percent(summary['sd'])}"
    return f"{spread}, {interval_of(summary)} ({summary['n']} scores)"


def interval_of(summary: ScoreSummary) -> str:
    """ "corrected 95 % confidence interval 89.70 to 90.54", or the reason why there is none."""
    if summary["low"] is None:
        return f"no interval: {why_no_interval(summary['n'], summary['sd'])}"
    return f"corrected 95 % confidence interval {interval_cell(summary)}"


def interval_cell(summary: ScoreSummary) -> str:
    """ "89.70 to 90.54", or nothing."""
    return "" if summary["low"] is None else f"{percent(summary['low'])} to {percent(summary['high'])}"


def difference_of(test: DifferenceTest) -> str:
    """ "+0.31 points, corrected 95 % confidence interval -0.10 to +0.72, p = 0.12"."""
    points = f"{100 * test['difference']:+.2f} points"
    low, high, p = test["low"], test["high"], test["p"]
    if low is None or high is None or p is None:
        return f"{points}; no interval and no test: two or equal differences give no estimate of the spread"
    return f"{points}, corrected 95 % confidence interval {100 * low:+.2f} to {100 * high:+.2f}, p = {p:.3g}"


def markdown_report(results: RunSummary) -> str:
    """The text of report.md."""
    title = for_markdown(f"{results['experiment']} / {results['run']}")
    lines = [f"# {title}", "", *(f"- {for_markdown(line)}" for line in summary_lines(results)), ""]
    lines += ["## Folds (accuracy in % after the last and the best epoch)", "", *markdown(*fold_table(results)), ""]
    title = "Out of fold: each training image predicted by the model that did not train on it"
    lines += [f"## {title}", "", *report_lines(results["out_of_fold_report"])]
    if results["test_report"] is not None:
        title = "Test set: soft-voting ensemble of the folds' models"
        lines += [f"## {title}", "", *report_lines(results["test_report"])]
    environment = results["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    facts = [
        f"Seed {results['seed']}",
        for_markdown(environment["device"]),
        f"precision {environment['precision']}",
        f"threads per fold {environment['threads_per_fold']}",
        versions,
        f"commit {environment['commit']}",
    ]
    return "\n".join([*lines, "; ".join(facts) + ".", ""])


def report_lines(report: ClassificationReport) -> list[str]:
    """A `classification_report` as lines of Markdown."""
    names = list(report["per_class"])
    confusion = [[name, *map(str, row)] for name, row in zip(names, report["confusion_matrix"], strict=True)]
    return [
        f"{report['n']:,} images: accuracy {percent(report['accuracy'])} %, balanced accuracy "
        f"{percent(report['balanced_accuracy'])} %, macro F1 {report['macro_f1']:.4f}, "
        f"NLL {report['nll']:.4f}, Brier score {report['brier']:.4f}, "
        f"calibration error {report['calibration_error']:.4f}.",
        "",
        *markdown(CLASS_COLUMNS, class_rows(report)),
        "",
        "True class in the row, prediction in the column:",
        "",
        *markdown(("", *names), confusion),
        "",
    ]


CLASS_COLUMNS = ("class", "precision", "recall", "F1", "support")


def class_rows(report: ClassificationReport) -> list[list[str]]:
    """Per class: name, precision, recall, F1, support."""
    return [
        [name, f"{s['precision']:.4f}", f"{s['recall']:.4f}", f"{s['f1']:.4f}", str(s["support"])]
        for name, s in report["per_class"].items()
    ]


def markdown(columns: Sequence[str], rows: list[list[str]]) -> list[str]:
    """A table of plain text as lines of Markdown."""
    head, *body = ([for_markdown(cell) for cell in cells] for cells in (columns, *rows))
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(columns), *body)]


def rich_table(title: str, columns: Sequence[str], rows: list[list[str]], left: Sequence[str] = ()) -> Table:
    """A table of plain text to print; the first column and those in `left` are left-aligned."""
    table = Table(title=plain(title), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(plain(column), justify="left" if i == 0 or column in left else "right")
    for row in rows:
        table.add_row(*map(plain, row))
    return table
