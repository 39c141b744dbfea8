"""Makes README.md from the studies and measurements beside this file.

    python experiments/search/page.py

keep.py puts the studies there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from fmnist_cv.search.records import read_summary, read_table, upgraded_counts

HERE = Path(__file__).parent

INTRODUCTION = """# Searches, run

Made by `python experiments/search/page.py` from the files beside it. A folder per study: `search.json` (settings,
winner, its score on fresh splits, device, versions, commit), `trials.csv` (a row per trial) and `study.journal`, which
`optuna-dashboard experiments/search/<study>/study.journal` opens. Run one with
`python -m fmnist_cv.tune --config configs/search/<study>.yaml`. Accuracies on held-out images in %; the test set is not
scored while searching.

*Search* is the winner's mean on the folds that chose it, *fresh* the same configuration on splits and initial weights
that the search never saw; *baseline* the config with the search's overrides alone on these. A gap between the two first
ones is the optimistic bias of the choice, and, where the numbers of folds differ, the effect of the training part's size.
The images are the same, in other folds: only a nested estimate is unbiased. The interval and p are of the corrected resampled
t-test (Nadeau and Bengio 2003)."""


def main() -> None:
    (HERE / "README.md").write_text(page(HERE), encoding="utf-8")


def page(folder: Path) -> str:
    """The page's text, from the files in a folder."""
    studies = {path.parent.name: read_summary(path) for path in sorted(folder.glob("*/search.json"))}
    parts = [INTRODUCTION, *overview(studies)]
    for name, study in studies.items():
        parts += section(study, read_table(folder / name / "trials.csv"))
    for name, write in (("pruning", pruning), ("workers", workers), ("overhead", overhead)):
        if (path := folder / f"{name}.json").exists():
            parts += write(json.loads(path.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def overview(studies: dict[str, Any]) -> list[str]:
    """A line per study."""
    lines = [
        "| study | trials | folds run | search | fresh | baseline | difference, 95 % interval | p | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, study in studies.items():
        trials, confirmed = study["trials"], study.get("confirmed")
        cells = ["", "", "", ""]
        if confirmed:
            cells[0] = shown(confirmed["configurations"][0]["fresh"])
        if confirmed and "baseline" in confirmed:
            cells[1:] = [shown(confirmed["baseline"]["fresh"]), *tested(confirmed["winner_against_baseline"])]
        lines.append(
            f"| [{name}](#{name}) | {trials['finished']} | {trials['folds_run']} of {trials['folds_without_pruning']} | "
            f"{100 * study['winner']['accuracy']:.2f} | {' | '.join(cells)} | {minutes(study):.1f} |"
        )
    return ["\n".join(lines)]


def section(study: dict[str, Any], trials: pd.DataFrame) -> list[str]:
    """A study's winner and its best trials, of a grid all."""
    environment, settings = study["environment"], study["search"]
    folds = [column for column in trials if column.startswith("fold_")]
    parameters = [c for c in trials if c not in ("trial", "run", "accuracy", "pruned", "diverged", "seconds", *folds)]
    is_grid = settings["sampler"] == "grid"
    best = trials if is_grid else trials[trials["pruned"].isna()].head(10)
    names = [name.removeprefix("model.").replace("init_args.", "") for name in parameters]
    lines = [f"| {' | '.join(['trial', *names, 'accuracy', 'seconds'])} |", "|---:" * (len(names) + 3) + "|"]
    for row in best.to_dict("records"):
        values = [brief(row[name]) for name in parameters]
        lines.append(f"| {row['trial']} | {' | '.join(values)} | {100 * row['accuracy']:.2f} | {row['seconds']:.0f} |")
    counts = study["trials"]
    pruned = f"{counts['pruned_after_folds']} trials were pruned after some folds and {counts['pruned_in_an_epoch']} within a fold"
    return [
        f"## {settings['name']}",
        f"{environment['device']}, {environment['precision']}, {study['workers']} workers, seed {settings['seed']}, "
        f"at commit {environment['commit'][:12]}." + ("" if is_grid else f" {pruned}; the best of the others:"),
        "\n".join(lines),
    ]


def pruning(found: dict[str, Any]) -> list[str]:
    """The same search with and without pruning."""
    lines = [
        "| seed | arm | pruned | folds run | seconds of trials | search | fresh |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for seed in found["seeds"]:
        for arm, what in (("pruned", "as configured"), ("whole", "without pruning")):
            a = seed[arm]
            counts = upgraded_counts(a["trials"])
            n_pruned = counts["pruned_after_folds"] + counts["pruned_in_an_epoch"]
            lines.append(
                f"| {seed['seed']} | {what} | {n_pruned} | {a['trials']['folds_run']} of "
                f"{a['trials']['folds_without_pruning']} | {a['seconds']['trials']:.0f} | "
                f"{100 * a['winner']['accuracy']:.2f} | {shown(a['fresh'])} |"
            )
    differences = [
        f"seed {seed['seed']}: {' points, p = '.join(tested(seed['pruned_against_whole']))}" for seed in found["seeds"]
    ]
    return [
        "## What pruning saves",
        f"`python experiments/search/measure.py pruning`: {found['what']}. Pruning saved "
        f"{100 * found['share_of_time_saved']:.0f} % of the trials' time.",
        "\n".join(lines),
        f"Winner of the search with pruning against that of the search without, on the same fresh splits: {'; '.join(differences)}.",
    ]


def workers(found: dict[str, Any]) -> list[str]:
    """One worker on all cores against two."""
    environment, search = found["environment"], found["search"]
    return [
        "## What workers gain",
        f"`python experiments/search/measure.py workers`: {search['trials']} trials of {search['experiment']}, "
        f"{search['overrides']['cv.n_splits']} folds of {search['overrides']['trainer.max_epochs']} epochs, median of "
        f"{len(found['runs']) // 2} alternating rounds on {environment['device']}; {found['what']}. One worker took "
        f"{found['one_worker']:.0f} s, two took {found['two_workers']:.0f} s: {found['speedup']:.2f} times as fast.",
    ]


def overhead(found: dict[str, Any]) -> list[str]:
    """What a trial spends outside its folds."""
    return [
        "## What a search costs beside its training",
        f"`python experiments/search/measure.py overhead lightning_logs/{found['study']}`: its {found['trials']} trials that "
        f"ran all their folds spent {100 * found['share']:.1f} % of their time outside these: {found['what']}.",
    ]


def minutes(study: dict[str, Any]) -> float:
    """Of the trials and the confirmation, with the workers that there were."""
    confirmed = study.get("confirmed", {})
    runs = [*confirmed.get("configurations", []), *([confirmed["baseline"]] if "baseline" in confirmed else [])]
    return (study["trials"]["seconds"] + sum(run["seconds"] for run in runs)) / study["workers"] / 60


def expected(study: dict[str, Any]) -> str:
    """What a config's header says of its study."""
    best = f"{100 * study['winner']['accuracy']:.2f} %"
    if "confirmed" not in study:
        return f"{best} of the held-out images at best"
    confirmed = study["confirmed"]
    told = f"{best}; on fresh splits {shown(confirmed['configurations'][0]['fresh'])} %"
    return told + (f", baseline {shown(confirmed['baseline']['fresh'])} %" if "baseline" in confirmed else "")


def summary(folder: Path) -> str:
    """What the documentation states about the CNN's search, and about the cost of pruning, workers and bookkeeping."""
    study = read_summary(folder / "sharifi-cnn-tpe" / "search.json")
    gain, lost, beside = (
        json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in ("workers", "pruning", "overhead")
    )
    trials, confirmed = study["trials"], study["confirmed"]
    winner, test = confirmed["configurations"][0], confirmed["winner_against_baseline"]
    n_folds = study["trials"]["folds_without_pruning"] // study["trials"]["finished"]
    return (
        f"A search of {trials['finished']} trials of the CNN took {minutes(study):.0f} minutes, confirmation included, on two "
        f"cores that had other work, too. The winner has {100 * study['winner']['accuracy']:.2f} % on the {n_folds} folds that "
        f"chose it and {shown(winner['fresh'])} % on {winner['fresh']['n']} fresh ones; the baseline, with a learning rate of "
        f"1e-3 and the same {study['search']['overrides']['trainer.max_epochs']} epochs, has "
        f"{shown(confirmed['baseline']['fresh'])} %: a difference of {100 * test['difference']:+.2f} points, corrected 95 % "
        f"interval {100 * test['low']:+.2f} to {100 * test['high']:+.2f}, p = {test['p']:.2g}. Pruning saved "
        f"{100 * lost['share_of_time_saved']:.0f} % of the time of a study of dense networks; two workers complete a study of "
        f"small networks {gain['speedup']:.1f} times as fast as one worker on the same cores; {100 * beside['share']:.1f} % of "
        f"a trial's time is not spent in its folds."
    )


def tested(test: dict[str, float]) -> tuple[str, str]:
    """Difference with its interval in points, and p."""
    return (
        f"{100 * test['difference']:+.2f} ({100 * test['low']:+.2f} to {100 * test['high']:+.2f})",
        f"{test['p']:.2g}",
    )


def shown(summary: dict[str, float]) -> str:
    return f"{100 * summary['mean']:.2f} ± {100 * summary['sd']:.2f}"


def brief(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    main()
