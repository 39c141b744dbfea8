"""Does bf16 cost accuracy? Two runs on the same splits, compared by the corrected resampled t-test.

    python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --cv.n_splits 5 --trainer.precision 32-true --run float32
    python -m fmnist_cv.fit --config configs/sharifi-cnn.yaml --cv.n_splits 5 --trainer.precision bf16-mixed --run bf16
    python experiments/precision/compare.py lightning_logs/sharifi-cnn

Copies the results of the two runs into this folder, or into the folder in it that a second argument names, and writes
comparison.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import corrected_t_test

HERE = Path(__file__).parent
MARGIN = 0.003  # 0.3 points of accuracy


def main() -> None:
    runs = {name: CrossValidationResult.load(f"{sys.argv[1]}/{name}") for name in ("float32", "bf16")}
    a, b = runs["bf16"], runs["float32"]
    if (
        a.summary["data"] != b.summary["data"]
        or a.summary["cv"] != b.summary["cv"]
        or a.summary["seed"] != b.summary["seed"]
    ):
        raise SystemExit("the runs are on other data, splits or seeds, and cannot be compared")
    fold = a.summary["folds"][0]
    test = corrected_t_test(a.accuracies.tolist(), b.accuracies.tolist(), fold["n_validation"] / fold["n_train"])
    assert test is not None  # of five folds
    comparison = {
        "what": "validation accuracy of the last epoch, bf16-mixed minus 32-true, same splits and seeds",
        "difference": test.difference,
        "corrected_interval_95": [test.low, test.high],
        "p": test.p,
        "margin": MARGIN,
        "inside_margin": test.low > -MARGIN and test.high < MARGIN,
        "bf16": a.accuracies.tolist(),
        "float32": b.accuracies.tolist(),
    }
    folder = HERE / sys.argv[2] if len(sys.argv) > 2 else HERE
    folder.mkdir(exist_ok=True)
    for name, run in runs.items():
        shutil.copyfile(run.path / "results.json", folder / f"{name}.json")
    (folder / "comparison.json").write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(comparison, indent=2))


if __name__ == "__main__":
    main()
