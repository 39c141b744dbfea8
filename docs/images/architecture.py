"""Draws architecture.svg: the rooms of the package from top to bottom; each imports only from those below it.

    python docs/images/architecture.py

A test compares the rooms and their order with the imports of the package, and the drawing with this script.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

# From top to bottom: the rows of the drawing, each part as (name, what it does). Within a row, a part may import from those
# to its right.
ROWS: list[list[tuple[str, str]]] = [
    [("commands", "fit · tune · evaluate · predict · compare · report · export · cache")],
    [
        ("search", "studies, trials, pruning, winner, nested estimate"),
        ("reporting", "report.html, label issues, TensorBoard on request"),
        ("inference", "ensembles, evaluation, prediction, export"),
    ],
    [("cross_validation.py", "prepare the run, run the missing folds, gather the results")],
    [("analysis", "completed runs read back; statistics, comparison, results.json")],
    [("engine", "one fold: training and scoring; run folder, workers, progress")],
    [("config", "the typed experiment: options, checks, error messages, building the parts")],
    [("models", "ImageClassifier and the networks; schedules")],
    [("data", "sources, splits, batches, augmentation, data modules")],
    [("utils · runtime.py · errors.py", "paths, files, text; seeds, threads, devices; UserError")],
]
NOTES = {  # of a row: the question that it answers
    2: "all folds of a run",
    3: "where intervals and tests are computed:\nanalysis/statistics.py",
    4: "where a fold is trained: engine/fold.py\nwhere it is scored: engine/scoring.py",
    5: "where messages about options are worded:\nconfig/jsonargparse_internals",
}
COLOURS = ["#3949ab", "#5c6bc0", "#7986cb", "#26a69a", "#00897b", "#b7791f", "#ef6c00", "#d84315", "#78909c"]
WIDTH, ROW, GAP, LEFT, BOX = 980, 62, 14, 46, 620


def drawing() -> str:
    """The drawing as SVG."""
    height = len(ROWS) * (ROW + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" '
        'role="img" aria-label="Rooms of the package; imports run from top to bottom">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z" fill="#555"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<line x1="22" y1="20" x2="22" y2="{height - 30}" stroke="#555" stroke-width="2" marker-end="url(#tip)"/>',
        f'<text x="14" y="{height / 2}" font-size="13" fill="#555" text-anchor="middle" '
        f'transform="rotate(-90 14 {height / 2})">imports run downwards only</text>',
    ]
    for i, row in enumerate(ROWS):
        y = 15 + i * (ROW + GAP)
        width = (BOX - (len(row) - 1) * 10) / len(row)
        for j, (name, text) in enumerate(row):
            parts += _box(LEFT + j * (width + 10), y, width, COLOURS[i], name, text)
        for k, line in enumerate(NOTES.get(i, "").split("\n")):
            y_line = y + 28 + 18 * k if "\n" in NOTES.get(i, "") else y + 37
            parts.append(f'<text x="{LEFT + BOX + 18}" y="{y_line}" font-size="13" fill="#333">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _box(x: float, y: float, width: float, colour: str, name: str, text: str) -> list[str]:
    label = name if "." in name or name == "commands" else f"{name}/"
    lines = _wrapped(text, int(width / 6.3))
    top = y + (26 if len(lines) == 1 else 20)
    parts = [
        f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="7" fill="{colour}"/>',
        f'<text x="{x + 14:.0f}" y="{top}" font-size="15" font-weight="bold" fill="#fff">{escape(label)}</text>',
    ]
    for k, line in enumerate(lines):
        parts.append(f'<text x="{x + 14:.0f}" y="{top + 18 + 15 * k}" font-size="12" fill="#fff">{escape(line)}</text>')
    return parts


def _wrapped(text: str, length: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawing(), encoding="utf-8")
