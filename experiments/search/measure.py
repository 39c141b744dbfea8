"""What pruning saves and what workers gain, on real Fashion-MNIST.

    python experiments/search/measure.py workers    # one worker on all cores against two with half of them each
    python experiments/search/measure.py pruning    # configs/search/dense-tpe.yaml with its pruning, and with none
    python experiments/search/measure.py overhead lightning_logs/sharifi-cnn-tpe    # of a study that is finished

Writes workers.json, pruning.json or overhead.json into this folder. Run it on a quiet machine; an interrupted
measurement of pruning is resumed.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from fmnist_cv import tune
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import corrected_t_test
from fmnist_cv.search.records import completed_trials, read_summary, read_table
from fmnist_cv.search.tuning import SearchResult
from fmnist_cv.utils.paths import user_path

HERE = Path(__file__).parent
ROUNDS, SEEDS = 3, (0,)
# Trials of one cost, of a network so small that a step is far from filling two cores.
WORKERS = {
    "name": "workers",
    "experiment": "patel-ann",
    "overrides": {
        "cv.holdout": None,
        "cv.n_splits": 3,
        "cv.stratify": True,
        "selection.patience": None,
        "trainer.max_epochs": 3,
    },
    "space": {"model.optimizer.init_args.lr": {"float": [3e-4, 3e-3], "log": True}},
    "sampler": "RandomSampler",
    "trials": 4,
    "confirm": {"top": 0},
}


def main() -> None:
    if sys.argv[1:] == ["workers"]:
        write("workers.json", measure_workers())
    elif sys.argv[1:] == ["pruning"]:
        write("pruning.json", measure_pruning())
    elif len(sys.argv) == 3 and sys.argv[1] == "overhead":
        write("overhead.json", measure_overhead(user_path(sys.argv[2], "the study's folder")))
    else:
        raise SystemExit(__doc__)


def measure_workers() -> dict[str, Any]:
    """The same trials with one worker and with two, in rounds of alternating order."""
    runs = []
    for round_ in range(ROUNDS):
        for workers in (1, 2) if round_ % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                result = tune(WORKERS, {"log_dir": folder}, workers=workers)
                times = seconds(result)
            runs.append({"round": round_, "workers": workers, **times})
            print(runs[-1], flush=True)
    one, two = (statistics.median(run["study"] for run in runs if run["workers"] == n) for n in (1, 2))
    overheads = [1 - run["folds"] / run["trials"] for run in runs if run["workers"] == 1]
    return {
        "what": "seconds of a study from its first trial's start to its last one's end; each worker has its share of the cores",
        "search": WORKERS,
        "runs": runs,
        "one_worker": one,
        "two_workers": two,
        "speedup": one / two,
        "share_of_a_trial_outside_its_folds": statistics.median(overheads),
        "environment": result.summary["environment"],
    }


def seconds(result: SearchResult) -> dict[str, float]:
    """Seconds of the study, of its trials one after another, and of their folds one after another."""
    trials = result.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    began = min(t.datetime_start for t in trials if t.datetime_start)
    ended = max(t.datetime_complete for t in trials if t.datetime_complete)
    completed = completed_trials(trials)
    folds = sum(fold_seconds(result.path / t.run) for t in completed)
    return {"study": (ended - began).total_seconds(), "trials": sum(t.seconds for t in completed), "folds": folds}


def fold_seconds(run: Path) -> float:
    """Seconds that the folds of a run took, measured in their own processes, one after another."""
    folds = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("*/metrics.json")]
    return sum(fold["times"]["wall_seconds"] for fold in folds)


def measure_overhead(study: Path) -> dict[str, Any]:
    """What the trials that ran all their folds spent outside these; none of the study's may have been interrupted."""
    trials = read_table(study / "trials.csv")
    evaluated = trials[trials["pruned"].isna()]
    folds = sum(fold_seconds(study / run) for run in evaluated["run"])
    return {
        "what": "drawing, bookkeeping, preparing the run, and starting its folds' processes",
        "study": study.name,
        "trials": len(evaluated),
        "seconds": float(evaluated["seconds"].sum()),
        "seconds_of_folds": folds,
        "share": 1 - folds / float(evaluated["seconds"].sum()),
        "environment": read_summary(study / "search.json")["environment"],
    }


def measure_pruning() -> dict[str, Any]:
    """The same search with and without pruning; their winners on the same fresh splits."""
    seeds = []
    for seed in SEEDS:
        arms: dict[str, dict[str, Any]] = {}
        accuracies = {}
        for arm, options in (("pruned", {}), ("whole", {"pruning": None, "epoch_rule": None})):
            name = f"dense-tpe-{arm}-{seed}"
            confirm = {"confirm.baseline": False}
            result = tune("dense-tpe", {"name": name, "seed": seed, **options, **confirm})
            (found,) = result.summary["confirmed"]["configurations"]
            run = CrossValidationResult.load(result.path / found["run"])
            accuracies[arm] = [float(accuracy) for accuracy in run.accuracies]
            ratio = run.summary["folds"][0]["n_validation"] / run.summary["folds"][0]["n_train"]
            arms[arm] = {
                "trials": result.summary["trials"],
                "seconds": seconds(result),
                "winner": result.summary["winner"],
                "fresh": found["fresh"],
            }
            print(seed, arm, arms[arm], flush=True)
        test = corrected_t_test(accuracies["pruned"], accuracies["whole"], ratio)
        assert test is not None  # of as many folds
        seeds.append({"seed": seed, **arms, "pruned_against_whole": asdict(test)})
    saved = [1 - s["pruned"]["seconds"]["trials"] / s["whole"]["seconds"]["trials"] for s in seeds]
    return {
        "what": "configs/search/dense-tpe.yaml as it is, and without pruning and epoch rule; winners on the same fresh splits",
        "seeds": seeds,
        "share_of_time_saved": statistics.mean(saved),
        "environment": result.summary["environment"],
    }


def write(name: str, found: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
