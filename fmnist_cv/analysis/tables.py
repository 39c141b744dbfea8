"""Results as tables and sentences to read; accuracies in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fmnist_cv.analysis.statistics import why_no_interval
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.utils.user_text import for_markdown, plain


def percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


def fold_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and per fold: name, epochs, last and best epoch's validation accuracy and, with a test set, test accuracy."""
    columns, rows = ["fold", "epochs", "val last", "val best"], []
    if results["test"] is not None:
        columns += ["test last", "test best"]
    for fold in results["folds"]:
        last, best = fold["last"], fold["best"]
        rows.append(
            [
                fold["name"],
                str(fold["epochs"]),
                percent(last["validation"]["accuracy"]),
                f"{percent(best['validation']['accuracy'])} (epoch {best['epoch'] + 1})",
                *([] if results["test"] is None else [percent(epoch["test"]["accuracy"]) for epoch in (last, best)]),
            ]
        )
    return columns, rows


def untrained_lines(results: dict[str, Any]) -> list[str]:
    """A sentence for each fold whose training part lacks a class; of older runs it is not known."""
    return [
        f"Caveat: no training image of {fold} is of the class {', '.join(names)}: its model cannot learn it, and its "
        "score counts these images; lower cv.n_splits, set cv.stratify to true, or add images."
        for fold, names in results.get("untrained_classes", {}).items()
    ]


def summary_lines(results: dict[str, Any]) -> list[str]:
    """The findings in sentences; accuracies in percent."""
    headline = results["headline"]
    accuracy, folds = headline["accuracy"], accuracy_of(headline["accuracy"])
    lines = synthetic_warning(results["data"]["name"])
    if accuracy["n"] == 1:
        low, high = headline["wilson"][0]
        folds += f" (95 % interval {percent(low)} to {percent(high)})"
    lines.append(f"Validation accuracy, {headline['epoch']} epoch: {folds}")
    if headline["caveat"]:
        lines.append(f"Caveat: {headline['caveat']}.")
    lines += untrained_lines(results)
    gap = results["optimism"]["accuracy"]
    lines.append(f"Best minus last epoch: {100 * gap:+.2f} points ({results['optimism']['what']}).")
    if results["test"]:
        test = results["test"][headline["epoch"]]["accuracy"]
        ensemble = results["ensemble"][headline["epoch"]]
        if accuracy["n"] == 1:
            low, high = test["wilson_per_fold"][0]
            lines.append(f"Test accuracy: {percent(test['mean'])} (95 % interval {percent(low)} to {percent(high)}).")
        else:
            lines.append(
                f"Test accuracy of the folds' models, {headline['epoch']} epoch: mean {percent(test['mean'])}, "
                f"sd {percent(test['sd'])}."
            )
            low, high = ensemble["wilson"]
            lines.append(
                f"Soft-vote ensemble of the {ensemble['n_models']} models on the test set: "
                f"{percent(ensemble['accuracy'])} (95 % interval {percent(low)} to {percent(high)})."
            )
    best = results["best_fold"]
    lines.append(f"Best fold by validation accuracy: {best['name']} ({percent(best['validation_accuracy'])}).")
    if refit := results["refit"]:
        line = f"Refit on all {refit['n_train']:,} training images for {refit['epochs']} epochs"
        if "test_accuracy" in refit:
            low, high = refit["wilson"]
            line += (
                f": test accuracy {percent(refit['test_accuracy'])} (95 % interval {percent(low)} to {percent(high)})"
            )
        lines.append(line + ".")
    return lines


def accuracy_of(summary: dict[str, Any]) -> str:
    """ "mean 90.12, sd 0.20, corrected 95 % interval 89.70 to 90.54 (3 scores)"."""
    if summary["n"] < 2:
        return percent(summary["mean"])
    spread = f"mean {percent(summary['mean'])}, sd {percent(summary['sd'])}"
    return f"{spread}, {interval_of(summary)} ({summary['n']} scores)"


def interval_of(summary: Mapping[str, Any]) -> str:
    """ "corrected 95 % interval 89.70 to 90.54", or why there is none."""
    if summary["low"] is None:
        return f"no interval: {why_no_interval(summary['n'], summary['sd'])}"
    return f"corrected 95 % interval {interval_cell(summary)}"


def interval_cell(summary: Mapping[str, Any]) -> str:
    """ "89.70 to 90.54", or nothing."""
    return "" if summary["low"] is None else f"{percent(summary['low'])} to {percent(summary['high'])}"


def difference_of(test: Mapping[str, Any]) -> str:
    """ "+0.31 points, corrected 95 % interval -0.10 to +0.72, p = 0.12", of `corrected_t_test`'s values."""
    points = f"{100 * test['difference']:+.2f} points"
    if test["low"] is None:
        return f"{points}; no interval and no test: two or equal differences say nothing about how much others would differ"
    return (
        f"{points}, corrected 95 % interval {100 * test['low']:+.2f} to {100 * test['high']:+.2f}, p = {test['p']:.3g}"
    )


def report_tables(results: dict[str, Any]) -> str:
    """Everything a reader asks for, as Markdown."""
    title = for_markdown(f"{results['experiment']} / {results['run']}")
    lines = [f"# {title}", "", *(f"- {for_markdown(line)}" for line in summary_lines(results)), ""]
    lines += ["## Folds (accuracy in %)", "", *markdown(*fold_table(results)), ""]
    for key, title in (
        ("out_of_fold_report", "Out of fold: each training image by the model that did not train on it"),
        ("test_report", "Test set, soft-vote ensemble of the folds"),
    ):
        if (report := results[key]) is None:
            continue
        lines += [f"## {title}", "", *report_lines(report)]
    environment = results["environment"]
    lines += [
        f"Seed {results['seed']}; {for_markdown(environment['device'])}; precision {environment['precision']}; threads per fold "
        f"{environment['threads_per_fold']}; "
        + ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        + f"; commit {environment['commit']}.",
        "",
    ]
    return "\n".join(lines)


def report_lines(report: dict[str, Any]) -> list[str]:
    """What `scoring.classification_report` says, as lines of Markdown."""
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


def class_rows(report: dict[str, Any]) -> list[list[str]]:
    """Per class: name, precision, recall, F1, support."""
    return [
        [name, f"{s['precision']:.4f}", f"{s['recall']:.4f}", f"{s['f1']:.4f}", str(s["support"])]
        for name, s in report["per_class"].items()
    ]


def markdown(columns: Sequence[str], rows: list[list[str]]) -> list[str]:
    """A table as lines of Markdown, of plain texts."""
    head, *body = ([for_markdown(cell) for cell in cells] for cells in (columns, *rows))
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(columns), *body)]


def rich_table(title: str, columns: Sequence[str], rows: list[list[str]], left: Sequence[str] = ()) -> Table:
    """A table of plain texts to print; the first column and those in `left` are aligned to the left."""
    table = Table(title=plain(title), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(plain(column), justify="left" if i == 0 or column in left else "right")
    for row in rows:
        table.add_row(*map(plain, row))
    return table
