"""Copies studies into this folder: their numbers, and a journal of their trials without their processes.

    python -m experiments.search.keep lightning_logs/sharifi-cnn-tpe ...

Then regenerates README.md.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import optuna

from experiments.search import page
from fmnist_cv.search.optuna_internals import quiet_optuna
from fmnist_cv.search.records import OWNER
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.utils.paths import user_path

HERE = Path(__file__).parent


def main() -> None:
    for folder in (user_path(given, "the study's folder") for given in sys.argv[1:]):
        kept = HERE / folder.name
        kept.mkdir(exist_ok=True)
        for name in ("search.json", "trials.csv"):
            shutil.copyfile(folder / name, kept / name)
        (kept / "study.journal").unlink(missing_ok=True)
        with quiet_optuna():
            copy_study(folder.name, folder / "study.journal", kept / "study.journal")
    page.main()


def copy_study(name: str, source: Path, target: Path) -> None:
    """Copy all trials but for the processes that ran them."""
    stores = [StudyStorage(str(path), workers=1) for path in (source, target)]
    study = optuna.load_study(study_name=name, storage=stores[0].storage)
    copy = optuna.create_study(study_name=name, storage=stores[1].storage, direction=study.direction)
    for key, value in study.user_attrs.items():
        copy.set_user_attr(key, value)
    copy.set_metric_names(study.metric_names or ["accuracy"])
    for trial in study.get_trials():
        trial.user_attrs.pop(OWNER, None)
        copy.add_trial(trial)
    for store in stores:
        store.close()
    target.with_name(f".{target.name}.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
