"""Rows of the replication: each is there, builds what its paper describes, and can be run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.replication.records import RowRecords
from experiments.replication.rows import PUBLISHED, choose_rows, load_rows
from fmnist_cv.errors import UserError
from fmnist_cv.models import ImageClassifier

ROWS = load_rows()
VARIANTS = [(row.name, variant) for row in ROWS.values() for variant in row.variants]
KERAS_CHECK = Path(__file__).parents[3] / "experiments" / "replication" / "keras_check" / "results.json"

# weights of each network, counted by hand from the papers' listings and texts
PARAMETERS = {
    ("biswas-single-layer", "sum, Glorot"): 784 * 40 + 40 + 40 * 10 + 10,
    ("biswas-single-layer", "sum, Glorot, 10 nodes"): 784 * 10 + 10 + 10 * 10 + 10,
    ("biswas-mlp", "2 x 64"): 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10,
    ("biswas-mlp", "1 x 32"): 784 * 32 + 32 + 32 * 10 + 10,
    ("biswas-cnn", "1 conv, 2 dense, 64"): 640 + (13 * 13 * 64 + 1) * 64 + 65 * 64 + 650,
    ("biswas-cnn", "2 conv, 3 dense, 32"): 320 + 9248 + (5 * 5 * 32 + 1) * 32 + 2 * 33 * 32 + 330,
    ("patel-ann", "as described"): 109_386,
    ("patel-ann", "with batch normalisation"): 109_386 + 2 * 128 + 2 * 64,
    ("patel-cnn", "as described"): 320 + 18_496 + (7 * 7 * 64 + 1) * 10,
    ("smith-dense", "listing, 1 x 700"): 785 * 700 + 701 * 10,
    ("smith-dense", "prose, 10 x 500"): 785 * 500 + 9 * 501 * 500 + 501 * 10,
    ("smith-cnn", "listing"): 505 + 2 * 2505 + 2016 + 401 * 84 + 85 * 10,
    ("blog-dense", "pixels / 255"): 785 * 300 + 301 * 100 + 101 * 10,
    ("blog-cnn1", "as listed"): 320 + 18_496 + 36_928 + (4 * 4 * 64 + 1) * 10,
    ("blog-cnn2", "as listed"): 320 + 18_496 + 73_856 + (7 * 7 * 128 + 1) * 128 + 129 * 10,
    ("blog-lenet5", "cross-entropy over the logits"): 156 + 2416 + 48_120 + 1921 * 84 + 84 * 10,
    ("blog-lenet5-relu", "ReLU and softmax"): 156 + 2416 + 48_120 + 1921 * 84 + 85 * 10,
    ("sharifi-cnn", "no activation between the linear layers"): 1_475_338,
}


@pytest.mark.parametrize(("row", "variant"), VARIANTS)
def test_every_variant_builds_a_network_for_the_images(row: str, variant: str, tmp_path: Path) -> None:
    model = ROWS[row].experiment(variant, 0, tmp_path, 1).build(0).model
    assert model.eval()(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    model.configure_optimizers()
    if (row, variant) in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[row, variant]


def test_every_published_system_has_its_row() -> None:
    assert {row.name for row in ROWS.values() if row.table == PUBLISHED} == {
        "biswas-single-layer",
        "biswas-mlp",
        "biswas-cnn",
        "patel-ann",
        "patel-cnn",
        "smith-dense",
        "smith-dense-l2",
        "smith-dense-lr",
        "smith-cnn",
        "smith-cnn-digits",
        "blog-dense",
        "blog-cnn1",
        "blog-cnn2",
        "blog-lenet5",
        "blog-lenet5-relu",
        "sharifi-cnn",
        "sharifi-new-data",
    }
    assert {name for name, _ in PARAMETERS} >= {row.config for row in ROWS.values() if row.table == PUBLISHED}


def test_variants_of_a_row_are_runs_of_their_own() -> None:
    names = [ROWS[row].experiment_name(variant) for row, variant in VARIANTS]
    assert len(set(names)) == len(names)


def test_the_seed_changes_split_and_weights(tmp_path: Path) -> None:
    first, second = (ROWS["blog-dense"].experiment("pixels / 255", seed, tmp_path, 1) for seed in (0, 1))
    assert (first.plan.seed, second.plan.seed) == (0, 1)


def test_the_published_protocols_are_kept(tmp_path: Path) -> None:
    """What the texts say of splits, batches, epochs and optimisers, row by row."""
    said = {  # hold-out, batch, epochs, optimiser, learning rate
        "biswas-single-layer": (0.2, 48000, 1000, "SGD", 4.8),  # 1e-4, summed over 48,000 images
        "biswas-mlp": (0.2, 2048, 10, "Adam", 1e-3),
        "biswas-cnn": (0.2, 2048, 10, "Adam", 1e-3),
        "patel-ann": (0.2, 64, 25, "Adam", 3e-3),
        "patel-cnn": (0.2, 64, 25, "Adam", 1e-3),
        "smith-dense": ("first:5000", 32, 10, "Adam", 1e-4),
        "smith-cnn": ("first:5000", 32, 5, "Adam", 1e-4),
        "blog-dense": (0.1, 32, 5, "SGD", 1e-3),
        "blog-cnn1": (0.1, 32, 8, "NAdam", 1e-3),
        "blog-cnn2": (0.1, 32, 8, "Adam", 1e-3),
        "blog-lenet5": (0.1, 32, 3, "Adam", 1e-3),
        "sharifi-cnn": (None, 1000, 10, "Adam", 1e-3),
    }
    for name, (holdout, batch, epochs, optimiser, rate) in said.items():
        experiment = ROWS[name].experiment(next(iter(ROWS[name].variants)), 0, tmp_path, 1)
        parts = experiment.build(0)
        made = parts.model.configure_optimizers()
        assert (experiment.plan.holdout, experiment.plan.stratify) == (holdout, False), name
        assert (parts.data.batch_size, parts.trainer["max_epochs"]) == (batch, epochs), name
        assert (type(made).__name__, made.param_groups[0]["lr"]) == (optimiser, rate), name


def test_three_seeds_but_of_what_has_no_number_or_takes_long() -> None:
    assert ROWS["biswas-mlp"].seeds_of("2 x 64") == 3 and ROWS["biswas-mlp"].seeds_of("1 x 32") == 1
    assert ROWS["smith-dense-l2"].seeds_of("prose, L2 1e-2") == 1 and ROWS["smith-dense-l2"].seeds_of("L2 1e-2") == 3


@pytest.mark.parametrize(("variant", "penalty"), [("prose, 10 x 500", 0.51), ("listing, 1 x 700", 0.07)])
def test_smiths_first_loss_is_of_ten_layers(variant: str, penalty: float, tmp_path: Path) -> None:
    model = ROWS["smith-dense"].experiment(variant, 0, tmp_path, 1).build(seed=0).model
    assert isinstance(model, ImageClassifier)
    assert round(model.l2_penalty().item(), 2) == penalty and f"({penalty})" in ROWS["smith-dense"].note


def test_an_unknown_row_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"no row 'blog-cnn'.*did you mean"):
        choose_rows(["blog-cnn"], ROWS)


def test_a_row_that_another_experiment_measures_is_not_run_here() -> None:
    with pytest.raises(UserError, match=r"measured by another experiment.*products.*--tables takes its number"):
        choose_rows(["sharifi-new-data"], ROWS)


def test_keras_agrees_with_our_networks() -> None:
    found = json.loads(KERAS_CHECK.read_text())["systems"]
    assert {"smith-cnn", "blog-cnn2", "blog-lenet5"} <= found.keys()
    for name, differences in found.items():
        assert differences["outputs"] < 1e-5 and differences["gradients"] < 1e-5, name
    for name, variant in (("smith-cnn", "listing"), ("blog-cnn2", "as listed"), ("smith-dense", "listing, 1 x 700")):
        assert found[name]["parameters"] == PARAMETERS[name, variant]


def test_equal_terms_are_equal(tmp_path: Path) -> None:
    """All that is shared is the same, down to the optimiser's last setting."""
    row = ROWS["equal-terms"]
    shared = []
    for variant in row.variants:
        settings = yaml.safe_load(row.experiment(variant, 0, tmp_path, 1).to_yaml())
        model = settings["model"]["init_args"]
        shared.append(
            (model["optimizer"], model["lr_scheduler"], *(settings[key] for key in ("cv", "data", "trainer")))
        )
    assert all(other == shared[0] for other in shared[1:])


def test_every_sample_of_the_learning_curve_has_as_many_steps(tmp_path: Path) -> None:
    row = ROWS["learning-curve"]
    for variant in row.variants:
        experiment = row.experiment(variant, 0, tmp_path, 1)
        parts = experiment.build(0)
        assert experiment.cv.train_size * parts.trainer["max_epochs"] == 3000 * parts.data.batch_size


def changes(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key not in ("reported", "seeds")}


def test_what_is_recorded_was_run_as_the_rows_say(tmp_path: Path) -> None:
    for row in ROWS.values():
        records = RowRecords(row, KERAS_CHECK.parents[1])
        for variant, recorded in records.variants.items():
            seeds = [run["seed"] for run in records.runs(variant)]
            assert seeds == sorted(set(seeds))
            # the settings are shared by the seeds; of the other interpretations what they change is enough
            if variant == next(iter(records.variants)):
                assert records.has(variant, row.experiment(variant, seeds[0], tmp_path, 1))
            assert changes(recorded["overrides"]) == changes(row.variants[variant])
            for run in records.runs(variant):
                assert re.fullmatch("[0-9a-f]{40}", run["environment"]["commit"]), (row.name, variant)
