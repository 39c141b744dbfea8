"""The page `experiments/replication/README.md`: made from the rows' JSON files alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from experiments.replication import plots, study_sections
from experiments.replication.rows import PUBLISHED, Row
from experiments.replication.scores import Measured, RowResults, Score, load_measured, load_results, score_of
from fmnist_cv.engine.run_folder import replace_file

MARGIN = 1.0  # points within which a number counts as reproduced

INTRODUCTION = f"""# The published systems, run

Made by `python -m experiments.replication` from the JSON files beside it, which hold settings, seeds, device, versions,
times, curves and per-class scores of every run. Accuracies in %; mean ± standard deviation over seeds (without ± there
is one seed), each with its own initial weights, order of images and, where it is drawn at random, split. What each row
is: [published.yaml](published.yaml) and the configs it names.

{{cost}}

## In short

{{short}}

Each system under its account's own protocol, in its first reading. In the last column every network has the same five
folds, optimiser, schedule and epochs, whatever its account had; ± is over the folds.

## As published

Each system under its account's own protocol. The compared epoch is the last one, or, where the account stopped early
or kept the best, the best by its held-out images: the highest accuracy on them, and for patel-* the lowest loss, by
which that account stops. The test set chooses nothing. The verdict follows a rule: within {MARGIN:g} point of the
reported number it is *reproduced*, else *better* or *worse*. Readings for which the account prints no number have no
verdict and one seed; so has what takes long (patel-cnn, and smith-dense's prose at other settings).

"""


def write_tables(rows: dict[str, Row], out: Path) -> Path:
    """Write the page of the rows and its pictures; returns the page.

    Raises:
        UserError: a row's JSON does not fit the row.
    """
    results = load_results(rows, out)
    published = [row for row in rows.values() if row.table == PUBLISHED]
    measured = {row.name: found for row in published if (found := load_measured(row, out))}
    short = "\n".join(short_table(published, results, measured))
    parts = [
        INTRODUCTION.format(cost=_cost(results), short=short) + "\n".join(published_table(published, results, measured))
    ]
    for row in published:
        if row.name in results:
            plots.draw_row(results[row.name], out / "figures" / f"{row.name}.png")
            parts.append(system_section(results[row.name]))
    parts += study_sections.sections(results, out / "figures")
    page = out / "README.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, lambda file: file.write(("\n\n".join(parts).rstrip() + "\n").encode()))
    return page


def _cost(results: dict[str, RowResults]) -> str:
    """How long everything took."""
    runs = sum(len(found.runs(variant)) for found in results.values() for variant in found.variants)
    hours = sum(found.seconds() for found in results.values()) / 3600
    return f"The folds of the {runs} runs took {hours:.1f} hours, added up; two ran side by side on two cores."


def short_table(rows: Iterable[Row], results: dict[str, RowResults], measured: dict[str, Measured]) -> list[str]:
    """A line per row: its first reading, and the network's validation score on equal terms."""
    lines = [
        "| system | compared on | reported | ours | seeds | verdict | equal terms: validation, 5 folds |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    equal = results.get("equal-terms")
    for row in rows:
        reported = row.reported[row.compare]
        if elsewhere := measured.get(row.name):
            judged = verdict(elsewhere.score, reported) + "; not what it claims" * bool(row.claims)
            lines.append(f"| {row.name} | {row.compare} | {reported:g} | {elsewhere.score} | 1 | {judged} |  |")
        if (found := results.get(row.name)) is None:
            continue
        variant = next(iter(row.variants))
        ours = found.accuracy(variant, row.compare, row.epoch)
        folds = equal.fold_accuracy(row.name) if equal and row.name in equal.variants else ""
        lines.append(f"| {row.name} | {row.compare} | {reported:g} | {ours} | {ours.n} | {_judged(found)} | {folds} |")
    return lines


def _judged(found: RowResults) -> str:
    """The first reading's verdict, and which other reading reproduces the number where it does not."""
    row, verdicts = found.row, {}
    for variant in row.variants:
        if variant in found.variants and (reported := row.reported_of(variant)) is not None:
            verdicts[variant] = verdict(found.accuracy(variant, row.compare, row.epoch), reported)
    first, *others = verdicts.items()
    agreeing = [variant for variant, judged in others if judged == "reproduced"]
    words = first[1] + (f"; reproduced as “{agreeing[0]}”" if first[1] != "reproduced" and agreeing else "")
    return words + ("; not what it claims" if row.claims else "")


def published_table(rows: Iterable[Row], results: dict[str, RowResults], measured: dict[str, Measured]) -> list[str]:
    """A line per row and reading."""
    lines = [
        "| system | reading | compared on | reported | ours | difference | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        if elsewhere := measured.get(row.name):
            number = row.reported[row.compare]
            lines.append(
                f"| [{row.name}]({row.measured['page']}) | {row.measured['step']} | {elsewhere.n_images:,} photos, "
                f"{row.epoch} epoch | {number:g} | {elsewhere.score} (1 seed) | {_compared(elsewhere.score, number)}"
                f"{_notes(row)} |"
            )
            continue
        found = results.get(row.name)
        name = f"[{row.name}](#{row.name}) ([picture](figures/{row.name}.png))" if found else row.name
        for variant in row.variants or {"": {}}:
            reported = row.reported_of(variant) if variant else row.reported[row.compare]
            shown = "" if reported is None else f"{reported:g}"
            line = f"| {name} | {variant} | {row.compare}, {row.epoch} epoch | {shown} |"
            if found is None or variant not in found.variants:
                lines.append(f"{line} not run yet | | |")
            else:
                ours = found.accuracy(variant, row.compare, row.epoch)
                seeds = f"{ours.n} seed{'s' if ours.n > 1 else ''}"
                notes = _notes(row) if variant == next(iter(row.variants)) else ""
                lines.append(f"{line} {ours} ({seeds}) | {_compared(ours, reported)}{notes} |")
            name = ""
    return lines


def _compared(ours: Score, reported: float | None) -> str:
    """The table's cells of difference and verdict."""
    return " | " if reported is None else f"{ours.mean - reported:+.2f} | {verdict(ours, reported)}"


def _notes(row: Row) -> str:
    """What goes with a row's verdict."""
    return "".join([f": {row.note}" * bool(row.note), f"; not what it claims: {row.claims}" * bool(row.claims)])


def verdict(ours: Score, reported: float) -> str:
    """What the difference says, by the page's rule."""
    difference = ours.mean - reported
    if abs(difference) <= MARGIN:
        return "reproduced"
    return "better" if difference > 0 else "worse"


# -- a section per system -----------------------------------------------------------------------------------


def system_section(results: RowResults) -> str:
    """All readings of a system with all their numbers, its pictures, and the printed per-class scores beside ours."""
    row = results.row
    config = f"[{row.config}.yaml](../../configs/{row.config}.yaml)"
    reported = ", ".join(f"{part} {value:g}" for part, value in row.reported.items())
    lines = [
        f"### {row.name}",
        "",
        f"{row.account}; {config}; reported: {reported}.",
        "",
        "*Train* is the accuracy while the last epoch was trained, dropout and all.",
        "",
        "| reading | train, last | validation, last | validation, best | test, last | test, best | epochs | best epoch | "
        "parameters | s per epoch, fastest | classes with recall below 1 %, last epoch, per seed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for variant in results.variants:
        folds = [fold for run in results.runs(variant) for fold in run["folds"]]
        scores = [results.accuracy(variant, p, e) for p in ("validation", "test") for e in ("last", "best")]
        never = results.never_found(variant)
        lines.append(
            f"| {variant} | {results.accuracy(variant, 'train', 'last')} | {' | '.join(map(str, scores))} | "
            f"{_range(fold['epochs'] for fold in folds)} | {_range(fold['best_epoch'] for fold in folds)} | "
            f"{results.parameters(variant):,} | {results.seconds_per_epoch(variant):.1f} | "
            f"{'; '.join(', '.join(map(str, classes)) or 'none' for classes in never) if any(never) else 'none'} |"
        )
    first = next(iter(results.variants))
    recalls = sorted(results.per_class(first).items(), key=lambda item: item[1]["recall"])
    lines += [
        "",
        f"Recall on the test set ({first}, {row.epoch} epoch, mean over seeds), from the lowest: "
        + ", ".join(f"{name} {100 * scores['recall']:.0f}" for name, scores in recalls)
        + ".",
    ]
    if len(results.runs(first)[0]["folds"]) > 1:
        best, vote = results.test_of_best_fold(first), results.test_of_ensemble(first)
        lines.append(
            f"On the test set the best fold's model has {score_of([*best.values()])}, the soft vote of the folds' models "
            f"{score_of([*vote.values()])}."
        )
    if row.reported_per_class:
        lines += ["", *per_class_table(results)]
    lines += [
        "",
        f"![{row.name}: confusion matrix and curves](figures/{row.name}.png)",
        "",
        f"{provenance(results)}; all numbers: [{row.name}.json](published/{row.name}.json).",
    ]
    return "\n".join(lines)


def per_class_table(results: RowResults) -> list[str]:
    """Printed precision and recall beside ours, in %."""
    row, printed = results.row, results.row.reported_per_class
    shown = [variant for variant in results.variants if row.reported_of(variant) is not None]
    lines = [
        f"Precision / recall per class on the test set, in %, printed and ours ({row.epoch} epoch, mean over seeds):",
        "",
        f"| class | printed | {' | '.join(shown)} |",
        f"|---|---:|{'---:|' * len(shown)}",
    ]
    ours = {variant: results.per_class(variant) for variant in shown}
    for i, name in enumerate(results.per_class(next(iter(results.variants)))):
        cells = [f"{100 * printed['precision'][i]:.0f} / {100 * printed['recall'][i]:.0f}"]
        cells += [f"{100 * ours[v][name]['precision']:.0f} / {100 * ours[v][name]['recall']:.0f}" for v in shown]
        lines.append(f"| {i} {name} | {' | '.join(cells)} |")
    recall = 100 * sum(printed["recall"]) / len(printed["recall"])
    return [*lines, "", f"The printed recalls average {recall:.1f}: the accuracy on 1,000 test images per class."]


def provenance(results: RowResults) -> str:
    """Devices, precisions and commits of a row's runs."""
    environments = [run["environment"] for runs in map(results.runs, results.variants) for run in runs]
    parts = [
        " and ".join(sorted({str(environment[key]) for environment in environments}))
        for key in ("device", "precision", "commit")
    ]
    return f"Run on {parts[0]}, in {parts[1]}, at commit {parts[2]}"


def _range(numbers: Iterable[int]) -> str:
    values = sorted(set(numbers))
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
