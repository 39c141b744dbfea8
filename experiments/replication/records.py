"""A row's JSON: a record per run, added as soon as the run is over. What is in it is not run again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any, TypedDict

import torch
import yaml

from experiments.replication.rows import Row
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fitted import fitted_as
from fmnist_cv.cross_validation import fold_folders
from fmnist_cv.engine.locks import locked
from fmnist_cv.engine.preparation import PreparedRun
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.engine.scoring import classification_report
from fmnist_cv.errors import UserError


class VariantRecord(TypedDict):
    """The runs of a variant, and what they were run with.

    `overrides` are those of the row's definition, `settings` the whole experiment without seed and log_dir; `runs` has a
    record per seed, see `_record`.
    """

    overrides: dict[str, Any]
    settings: dict[str, Any]
    runs: list[dict[str, Any]]


CURVE_POINTS = 100  # epochs kept of a longer history


class RowRecords:
    """The records of a row, by variant and seed.

    Args:
        row: the row.
        out: the folder of all rows' JSON files.
    """

    def __init__(self, row: Row, out: Path) -> None:
        self.row, self.path = row, out / row.table / f"{row.name}.json"
        self.variants: dict[str, VariantRecord] = {}
        self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if content["epoch"] != self.row.epoch:
            raise UserError(f"{self.path} reports the {content['epoch']} epoch, but the row says {self.row.epoch}")
        if strange := content["variants"].keys() - self.row.variants.keys():
            raise UserError(
                f"{self.path} has variants that the row does not have: {', '.join(sorted(strange))}; remove them"
            )
        self.variants = content["variants"]

    def runs(self, variant: str) -> list[dict[str, Any]]:
        """A record per seed, in the order of the seeds."""
        return self.variants[variant]["runs"]

    def has(self, variant: str, experiment: Experiment) -> bool:
        """Whether this variant was run with the experiment's seed.

        Raises:
            UserError: it was, with this or another seed, but with other settings.
        """
        if variant not in self.variants:
            return False
        settings = self.variants[variant]["settings"] | {"seed": experiment.seed}
        recorded = Experiment.from_yaml(yaml.safe_dump(settings))
        if differences := fitted_as(recorded, experiment).differences(recorded):
            raise UserError(
                f"{self.row.name} ({variant}) was run with other settings: {'; '.join(differences[:5])}; "
                f"remove it from {self.path}, and its folder from the log folder, to run it again"
            )
        return experiment.seed in [run["seed"] for run in self.runs(variant)]

    def add(self, variant: str, prepared: PreparedRun) -> None:
        """Add a finished run and write the file."""
        settings = yaml.safe_load(prepared.experiment.to_yaml())
        del settings["log_dir"], settings["seed"]
        record = _record(prepared, self.row.epoch)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock"), wait=True, what=str(self.path)):
            self._read()  # another command may have added to it
            self._add(variant, settings, record)

    def _add(self, variant: str, settings: dict[str, Any], record: dict[str, Any]) -> None:
        entry = self.variants.setdefault(variant, {"runs": [], "overrides": {}, "settings": {}})
        entry["overrides"], entry["settings"] = self.row.variants[variant], settings
        others = [
            run for run in entry["runs"] if run["seed"] != record["seed"]
        ]  # another command may have had the same
        entry["runs"] = sorted([*others, record], key=lambda run: run["seed"])
        ordered = {name: self.variants[name] for name in self.row.variants if name in self.variants}
        content = {
            "row": self.row.name,
            "epoch": self.row.epoch,
            "overrides": self.row.overrides,
            "variants": ordered,
        }
        # a line for each list of numbers, not for each number
        text = re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), json.dumps(content, indent=1))
        replace_file(self.path, lambda file: file.write(text.encode() + b"\n"))


def _record(prepared: PreparedRun, epoch: str) -> dict[str, Any]:
    """What the tables and pictures need of a finished run; the test report is of `epoch`, "last" or "best"."""
    results = CrossValidationResult.load(prepared.run.path).summary
    if prepared.test is None:
        raise UserError(f"{prepared.experiment.name}: its data have no test images to be compared on")
    test, folds = prepared.test, []
    for folder in fold_folders(prepared):
        metrics = folder.read_metrics()
        history = metrics["history"]
        step = max(1, len(history) // CURVE_POINTS)
        kept = history[step - 1 :: step]
        key, shape = f"{epoch}_test", (len(test), len(test.class_names))
        probabilities = torch.from_numpy(folder.read_probabilities({key: shape})[key])
        folds.append(
            {
                "name": folder.name,
                "n_train": metrics["n_train"],
                "n_validation": metrics["n_validation"],
                "epochs": metrics["epochs"],
                "seconds_per_epoch": mean(ended - began for began, ended, *_ in metrics["times"]["train_intervals"]),
                "best_epoch": metrics["best_epoch"] + 1,
                "last": metrics["last"],
                "best": metrics["best"],
                "train_accuracy": history[-1]["train/accuracy"],
                "test_report": classification_report(probabilities, test.labels.cpu(), test.class_names),
                "curves": {
                    "epoch": list(range(step, len(history) + 1, step)),
                    **{key: [round(e[key], 5) for e in kept] for key in kept[0] if key != "lr"},
                },
            }
        )
    model = prepared.experiment.build(seed=0).model
    return {
        "seed": prepared.experiment.seed,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": results["data"],
        "environment": results["environment"],
        "times": results["times"],
        "headline": results["headline"],
        "ensemble": results["ensemble"],
        "best_fold": results["best_fold"],
        "folds": folds,
    }
