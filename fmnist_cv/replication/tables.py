"""The page `experiments/replication/README.md`: made from the rows' JSON files alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fmnist_cv.replication import figures, studies
from fmnist_cv.replication.rows import PUBLISHED, Row, load_rows
from fmnist_cv.replication.scores import RowResults, Score, load_results
from fmnist_cv.validation.run_folder import replace_file

MARGIN = 1.0  # points within which a number counts as reproduced

INTRODUCTION = f"""# The published systems, run

Made by `python -m fmnist_cv.replicate` from the JSON files beside it, which hold settings, seeds, device, versions,
times, curves and per-class scores of every run. Accuracies in %; mean ± standard deviation over seeds, each with its
own split, initial weights and order of images. What each row is: [published.yaml](../../configs/replication/published.yaml)
and the configs it names.

## As published

Each system under its account's own protocol. The compared epoch is the last one, or, where the account stopped early
or kept the best, the best by its held-out images; the test set chooses nothing. The verdict follows a rule: within
{MARGIN:g} point, or within two standard deviations, of the reported number it is *reproduced*, else *better* or *worse*.

"""


def write_tables(out: Path) -> Path:
    """Write the page and its pictures; returns the page."""
    rows = load_rows()
    results = load_results(rows, out)
    published = [row for row in rows.values() if row.table == PUBLISHED]
    for found in results.values():
        if found.row.table == PUBLISHED:
            figures.draw_row(found, out / "figures" / f"{found.row.name}.png")
    parts = [INTRODUCTION + "\n".join(published_table(published, results))]
    parts += [system_section(results[row.name]) for row in published if row.name in results]
    parts += studies.sections(results, out / "figures")
    page = out / "README.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, lambda file: file.write(("\n\n".join(parts).rstrip() + "\n").encode()))
    return page


def published_table(rows: Iterable[Row], results: dict[str, RowResults]) -> list[str]:
    """A line per row and reading."""
    lines = [
        "| system | reading | compared on | reported | ours | difference | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        name, reported = f"[{row.name}](#{row.name})", row.reported[row.compare]
        if row.name not in results:
            lines.append(f"| {row.name} | | {row.compare} | {reported:.2f} | not run yet | | |")
            continue
        for variant in row.variants:
            if variant not in results[row.name].variants:
                lines.append(
                    f"| {name} | {variant} | {row.compare}, {row.epoch} epoch | {reported:.2f} | not run yet | | |"
                )
                continue
            ours = results[row.name].accuracy(variant, row.compare, row.epoch)
            lines.append(
                f"| {name} | {variant} | {row.compare}, {row.epoch} epoch | {reported:.2f} | {ours} ({ours.n} seed{'s' if ours.n > 1 else ''}) | "
                f"{ours.mean - reported:+.2f} | {verdict(ours, reported)} |"
            )
            name = ""
    lines.append(
        "| sharifi-new-data | product photos | test | 11.00 | not run yet: reading product photos is work of its own | | |"
    )
    return lines


def verdict(ours: Score, reported: float) -> str:
    """What the difference says, by the page's rule."""
    difference = ours.mean - reported
    if abs(difference) <= max(MARGIN, 2 * (ours.sd or 0.0)):
        return "reproduced"
    return "better" if difference > 0 else "worse"


def system_section(results: RowResults) -> str:
    """All readings of a system with all their numbers, its pictures, and the printed per-class scores beside ours."""
    row = results.row
    config = f"[{row.config}.yaml](../../configs/{row.config}.yaml)"
    reported = ", ".join(f"{part} {value:g}" for part, value in row.reported.items())
    lines = [f"### {row.name}", "", f"{row.account}; {config}; reported: {reported}."]
    if row.claims:
        lines.append(f"Not what it claims: {row.claims}.")
    if row.reason:
        lines.append(row.reason)
    lines += [
        "",
        "| reading | train, last | validation, last | validation, best | test, last | test, best | epochs | best epoch | "
        "weights | s per epoch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for variant in results.variants:
        folds = [fold for run in results.runs(variant) for fold in run["folds"]]
        scores = [
            results.accuracy(variant, part, epoch) for part in ("validation", "test") for epoch in ("last", "best")
        ]
        lines.append(
            f"| {variant} | {results.accuracy(variant, 'train', 'last')} | {' | '.join(map(str, scores))} | "
            f"{_range(fold['epochs'] for fold in folds)} | {_range(fold['best_epoch'] for fold in folds)} | "
            f"{results.parameters(variant):,} | {results.seconds_per_epoch(variant):.1f} |"
        )
    if row.reported_per_class:
        lines += ["", *per_class_table(results)]
    run = results.runs(next(iter(results.variants)))[0]
    environment = run["environment"]
    lines += [
        "",
        f"![{row.name}: confusion matrix and curves](figures/{row.name}.png)",
        "",
        f"Run on {environment['device']}, {environment['precision']}, commit {environment['commit'][:12]}; "
        f"all numbers: [{row.name}.json](published/{row.name}.json).",
    ]
    return "\n".join(lines)


def per_class_table(results: RowResults) -> list[str]:
    """Printed precision and recall beside ours, on the test set, in %."""
    row, variants = results.row, list(results.variants)
    shown = variants if len(variants) <= 2 else variants[:6]
    lines = [
        "Per class on the test set, precision / recall in %:",
        "",
        f"| class | printed | {' | '.join(shown)} |",
        f"|---|---:|{'---:|' * len(shown)}",
    ]
    ours = {variant: results.per_class(variant) for variant in shown}
    for i, name in enumerate(ours[shown[0]]):
        printed = (
            f"{100 * row.reported_per_class['precision'][i]:.0f} / {100 * row.reported_per_class['recall'][i]:.0f}"
        )
        cells = [f"{100 * ours[v][name]['precision']:.0f} / {100 * ours[v][name]['recall']:.0f}" for v in shown]
        lines.append(f"| {i} {name} | {printed} | {' | '.join(cells)} |")
    return lines


def _range(numbers: Iterable[int]) -> str:
    values = sorted(set(numbers))
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
