"""From 11 % to what a network trained on Fashion-MNIST alone can say of product photos, step by step.

    python -m experiments.products.run steps         # trains each step's networks, scores them on the development images
    python -m experiments.products.run final         # scores all steps once on the other images
    python -m experiments.products.run own           # the product images as a data set of their own, and fine-tuned

Every step is chosen on 1,000 of the product images (part "development", seed 0); "final" refuses to score the others
twice. Writes steps.json and own.json into this folder; page.py generates README.md. Interrupted commands resume.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from experiments.products import ProductImagesDataModule
from experiments.products.preprocessing import Preprocessing
from fmnist_cv import CrossValidationResult, cross_validate
from fmnist_cv.analysis.statistics import corrected_t_test
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.data import Images
from fmnist_cv.engine.preparation import run_or_resume
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import load_ensemble

HERE = Path(__file__).parent
CONSOLE = Console()

FLIP = {"class_path": "kornia.augmentation.RandomHorizontalFlip"}
AFFINE = {
    "class_path": "kornia.augmentation.RandomAffine",
    "init_args": {"degrees": 15, "translate": [0.08, 0.08], "scale": [0.75, 1.1], "shear": [-10, 10], "p": 0.9},
}
GAMMA = {"class_path": "kornia.augmentation.RandomGamma", "init_args": {"gamma": [0.5, 2.0], "p": 0.8}}
WORN = {"class_path": "fmnist_cv.data.augmentation.Worn"}
ABOVE = {"class_path": "fmnist_cv.data.augmentation.SeenFromAbove"}
SHORT = {"trainer.max_epochs": 5, "model.lr_scheduler.init_args.T_max": 5}
MIRRORED_VOTE = "both ways"

# (name, what is new, preprocessing, run that is trained, its config, values of the config's keys)
Step = tuple[str, str, Preprocessing, str, str, dict[str, Any]]
STEPS: list[Step] = [
    (
        "as published",
        "the paper's network and preprocessing, done correctly",
        "as-published",
        "sharifi",
        "sharifi-cnn",
        {},
    ),
    ("made alike", "photos brought to how Fashion-MNIST was made", "fashion-mnist", "sharifi", "sharifi-cnn", {}),
    (
        "trained",
        "batch 250, ReLU between linear layers, cosine",
        "fashion-mnist",
        "plain",
        "photos",
        {**SHORT, "data.augment": None},
    ),
    ("mirrored", "shoes point either way", "fashion-mnist", "mirrored", "photos", {**SHORT, "data.augment": [FLIP]}),
    ("worn", "garments as someone wears them", "fashion-mnist", "worn", "photos", SHORT),
    ("longer", "10 epochs instead of 5", "fashion-mnist", "longer", "photos", {}),
    ("both ways", "the photo and its mirror image vote", "fashion-mnist", "longer", "photos", {}),
    (
        "moved",
        "turned, moved, sheared, smaller",
        "fashion-mnist",
        "moved",
        "photos",
        {**SHORT, "data.augment": [FLIP, WORN, AFFINE]},
    ),
    (
        "lighter and darker",
        "moved, and another gamma for each image",
        "fashion-mnist",
        "photos",
        "photos",
        {**SHORT, "data.augment": [FLIP, WORN, AFFINE, GAMMA]},
    ),
    (
        "from above",
        "all this, and shoes seen from above",
        "fashion-mnist",
        "above",
        "photos",
        {**SHORT, "data.augment": [FLIP, WORN, ABOVE, AFFINE, GAMMA]},
    ),
]


def main() -> None:
    match sys.argv[1:]:
        case ["steps"]:
            steps()
        case ["final"]:
            final()
        case ["own"]:
            own()
        case _:
            raise SystemExit(__doc__)


# -- trained on Fashion-MNIST alone -------------------------------------------------------------------------


def steps() -> None:
    """Train three folds per step on Fashion-MNIST; score their soft vote on the development images."""
    refuse_if_final()
    found: list[dict[str, Any]] = []
    for name, what, how, run, config, values in STEPS:
        result = trained(run, config, values)
        development = product_images(how, "development")
        ensemble = result.summary["ensemble"]
        assert ensemble is not None  # Fashion-MNIST has test images
        found.append(
            {
                "step": name,
                "what": what,
                "preprocessing": how,
                "config": config,
                "overrides": values,
                "fashion_mnist": result.summary["headline"]["accuracy"],
                "fashion_mnist_test": ensemble[result.summary["headline"]["epoch"]],
                "development": scores(result, development, name == MIRRORED_VOTE),
                "environment": result.summary["environment"],
                "seconds": sum(result.summary["times"]["fold_wall_seconds"]),
            }
        )
        CONSOLE.print(name, found[-1]["development"])
    labels = development.labels.numpy()
    best = max(found, key=lambda step: step["development"]["accuracy"] + step["development"]["balanced_accuracy"])
    write(
        "steps.json",
        {
            "seed": 0,
            "n_development": len(labels),
            "class_names": development.class_names,
            "majority_class": development.class_names[int(np.bincount(labels).argmax())],
            "majority": majority(labels),
            "chosen": best["step"],
            "steps": found,
        },
    )


def final() -> None:
    """Score every step's networks on all other images, once."""
    refuse_if_final()
    found = json.loads((HERE / "steps.json").read_text(encoding="utf-8"))
    scored = [(step["step"], step["preprocessing"], step["config"], step["overrides"]) for step in found["steps"]]
    if scored != [(name, how, config, values) for name, _, how, _, config, values in STEPS]:
        raise SystemExit("error: steps.json is of other steps; run steps again")
    for step, (name, _, how, run, config, values) in zip(found["steps"], STEPS, strict=True):
        rest = product_images(how, "rest")
        step["rest"] = scores(trained(run, config, values), rest, name == MIRRORED_VOTE)
        CONSOLE.print(name, step["rest"])
    write("steps.json", {**found, "n_rest": len(rest), "majority_rest": majority(rest.labels.numpy())})


def refuse_if_final() -> None:
    path = HERE / "steps.json"
    if path.exists() and "n_rest" in json.loads(path.read_text(encoding="utf-8")):
        raise SystemExit("error: the other images were scored before; they are scored once, after the last choice")


def trained(run: str, config: str, values: dict[str, Any]) -> CrossValidationResult:
    """The finished run of a step; resumed if it is incomplete."""
    return crossed(config, {**values, "name": "products-steps"}, run)


def crossed(config: str, values: dict[str, Any], run: str) -> CrossValidationResult:
    experiment: Experiment = as_experiment(config, values)
    return cross_validate(experiment, **run_or_resume(experiment, run), console=CONSOLE)


def product_images(how: Preprocessing, part: str) -> Images:
    return ProductImagesDataModule(preprocessing=how, part=part).train_images


def scores(result: CrossValidationResult, images: Images, both_ways: bool) -> dict[str, Any]:
    """Of the folds' soft vote; both ways, of their votes on the images and on their mirror images."""
    ensemble = load_ensemble(result)
    if ensemble.class_names != images.class_names:
        raise UserError(f"classes {images.class_names} are not the network's, {ensemble.class_names}")
    votes = ensemble.predict(images.images).mean
    if both_ways:
        votes = votes + ensemble.predict(images.images.flip(3)).mean
    return measures(images.labels.numpy(), votes.argmax(1))


def measures(labels: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    return {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "recall": recall_score(labels, predicted, average=None, zero_division=0).tolist(),
    }


def majority(labels: np.ndarray) -> dict[str, Any]:
    """Of calling everything what is most frequent."""
    return measures(labels, np.full_like(labels, np.bincount(labels).argmax()))


# -- a data set of their own --------------------------------------------------------------------------------


def own() -> None:
    """Five folds of the product images: trained from scratch, and from a network trained on Fashion-MNIST."""
    fashion = crossed("sharifi-cnn", {"name": "products-steps"}, "sharifi")
    arms: dict[str, CrossValidationResult] = {}
    for arm, values in (
        ("scratch", {}),
        ("fine_tuned", {"model.start_from": str(fashion.path / "best.ckpt")}),
    ):
        arms[arm] = crossed(str(HERE / "product-images.yaml"), {**values, "name": "products-own"}, arm)
    ratio = float(np.mean([f["n_validation"] / f["n_train"] for f in arms["scratch"].summary["folds"]]))
    test = corrected_t_test(list(arms["fine_tuned"].accuracies), list(arms["scratch"].accuracies), ratio)
    assert test is not None  # of five folds
    write(
        "own.json",
        {
            "arms": {arm: of_folds(result) for arm, result in arms.items()},
            "majority": majority(arms["scratch"].labels),
            "fine_tuned_against_scratch": vars(test),
            "n": len(arms["scratch"].labels),
            "environment": arms["scratch"].summary["environment"],
        },
    )


def of_folds(result: CrossValidationResult) -> dict[str, Any]:
    out_of_fold = measures(result.labels, result.out_of_fold()[0].argmax(1))
    return {
        "accuracy": result.summary["headline"]["accuracy"],
        "out_of_fold": out_of_fold,
        "commit": result.summary["environment"]["commit"],
    }


def write(name: str, content: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
