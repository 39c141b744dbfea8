"""Rows of the replication: a config, what its paper reported, and the variants to run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.options import as_arguments
from fmnist_cv.config.yaml_files import load_yaml, read_yaml_text
from fmnist_cv.errors import UserError, did_you_mean

HERE = Path(__file__).parent
PUBLISHED, STUDIES = "published", "studies"


@dataclass(frozen=True)
class Row:
    """One row, as `experiments/replication/*.yaml` describes it.

    Attributes:
        name: the system's id, or the study's.
        table: "published" or "studies".
        variants: overrides of dotted keys for each variant; the key "config" names another config, the key "reported"
            other reported accuracies, None where the paper prints none for it, and "seeds" another number of seeds.
        config: the config that variants start from; by default the row's name.
        overrides: what holds for all variants.
        paper: its authors, or "blog post".
        reported: accuracies in %, by "train", "validation" and "test".
        compare: which of the reported numbers the difference is taken of.
        epoch: "last" or "best", the epoch that is compared.
        seeds: how many seeds are run where the command does not say; of a variant for which the paper prints no
            number, one.
        minutes: about how long one seed of a variant takes on one core.
        claims: what the paper claims beyond its numbers.
        note: why ours differs, as far as the other interpretations show it, and where the paper contradicts itself.
        measured: of a row that another experiment measures: its `file` of steps, counted from the page's folder, `step` and
            `part` of the images, and its `page`.
        reported_per_class: precision and recall of the ten classes on the test set, in [0, 1].
    """

    name: str
    table: str
    variants: dict[str, dict[str, Any]]
    config: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: str = ""
    reported: dict[str, float] = field(default_factory=dict)
    compare: str = "test"
    epoch: str = "last"
    seeds: int = 3
    minutes: float = 1.0
    claims: str = ""
    note: str = ""
    measured: dict[str, str] = field(default_factory=dict)
    reported_per_class: dict[str, list[float]] = field(default_factory=dict)

    def experiment(self, variant: str, seed: int, log_dir: Path, workers: int) -> Experiment:
        """The experiment of one variant and seed; its folds have the threads that `workers` at a time leave them."""
        overrides = self.overrides | self.variants[variant]
        config = overrides.pop("config", self.config)
        for key in ("reported", "seeds"):
            overrides.pop(key, None)
        overrides |= {
            "name": self.experiment_name(variant),
            "seed": seed,
            "log_dir": str(log_dir),
            "cv.workers": workers,
        }
        return Experiment.parse([f"--config={config}", *as_arguments(overrides)])

    def experiment_name(self, variant: str) -> str:
        """The name under which the variant's runs are kept."""
        return re.sub(r"[^\w.+-]+", "-", f"{self.name}.{variant}").strip("-")

    def reported_of(self, variant: str) -> float | None:
        """The number that a variant is compared with, in %; None where none was printed for it."""
        reported = self.variants[variant].get("reported", self.reported)
        return None if reported is None else reported[self.compare]

    def seeds_of(self, variant: str) -> int:
        """How many seeds of a variant are run where the command does not say."""
        seeds = self.seeds if self.variants[variant].get("reported", self.reported) is not None else 1
        return int(self.variants[variant].get("seeds", seeds))


def load_rows(folder: Path = HERE) -> dict[str, Row]:
    """All rows that `published.yaml` and `studies.yaml` in the folder describe, published ones first, by name."""
    rows: dict[str, Row] = {}
    for table in (PUBLISHED, STUDIES):
        for name, entry in load_yaml(read_yaml_text(folder / f"{table}.yaml", "table")).items():
            rows[name] = Row(name=name, table=table, **{"config": name, **entry})
    return rows


def choose_rows(names: Iterable[str], rows: dict[str, Row]) -> list[Row]:
    """The rows of these names, in this order.

    Raises:
        UserError: there is no such row.
    """
    for name in names:
        if name not in rows:
            raise UserError(f"there is no row '{name}'{did_you_mean(name, rows, 'there are ' + ', '.join(rows))}")
        if rows[name].measured:
            raise UserError(
                f"row {name} is measured by another experiment, whose page is {rows[name].measured['page']} "
                "(from experiments/replication); --tables takes its number from there"
            )
    return [rows[name] for name in dict.fromkeys(names)]
