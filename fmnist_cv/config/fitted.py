"""What only the data know: filled into an experiment once they are there, and saved with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_cv.config.checks import check_fold
from fmnist_cv.config.class_paths import load_class
from fmnist_cv.data.given_splits import check_numbers, fitted_plan
from fmnist_cv.models import ImageClassifier

if TYPE_CHECKING:
    from fmnist_cv.config.experiment import Experiment
    from fmnist_cv.data import KFoldDataModule

_SIZES = ("n_classes", "in_channels", "image_size", "in_features")  # arguments of networks


def sizes_of(shape: tuple[int, int, int]) -> dict[str, int]:
    """What a network's arguments are for images of a shape (channels, height, width)."""
    channels, height, width = shape
    return {"in_channels": channels, "image_size": height, "in_features": channels * height * width}


def leaves_sizes_open(experiment: Experiment) -> bool:
    """Whether the experiment's network takes a size from the data."""
    return bool(_open_sizes(experiment))


def fit_to_data(experiment: Experiment, data: KFoldDataModule) -> Experiment:
    """Complete an experiment by what its data decide.

    Args:
        experiment: in which n_classes, in_channels, image_size and in_features of an ImageClassifier may be null, and
            whose splits may be given by a splitter, a file or the data.
        data: its data module.

    Returns:
        The same experiment if nothing is left open; else one in which these are the data's, and the numbers of folds and
        repeats those of the splits given, or the default ones.

    Raises:
        UserError: its section `cv` contradicts the splits that are given.
    """
    images = data.train_images
    fitted: dict[str, Any] = {}
    if missing := _open_sizes(experiment):
        fitting = {"n_classes": len(images.class_names), **sizes_of(images.shape)}
        fitted |= {f"model__init_args__{name}": fitting[name] for name in missing}
    plan, cv = fitted_plan(images, experiment.plan), experiment.cv
    if plan.is_given:
        check_numbers(plan, cv.n_splits, cv.n_repeats)
    found = {"n_splits": plan.n_splits, "n_repeats": plan.n_repeats, "splits": plan.splits}
    fitted |= {f"cv__{key}": value for key, value in found.items() if getattr(cv, key) != value}
    if fitted:
        experiment = experiment.replaced(**fitted)
    check_fold(experiment)
    return experiment


def fitted_as(run: Experiment, experiment: Experiment) -> Experiment:
    """An experiment that leaves sizes and numbers of folds to the data, with those of a run that has them."""
    found = run.config.model.get("init_args", {})
    fitted = {f"model__init_args__{name}": found[name] for name in _open_sizes(experiment) if name in found}
    plan = run.plan if run.plan.is_given else experiment.plan
    fitted |= {
        f"cv__{key}": getattr(plan, key) for key in ("n_splits", "n_repeats") if getattr(experiment.cv, key) is None
    }
    return experiment.replaced(**fitted) if fitted else experiment


def _open_sizes(experiment: Experiment) -> list[str]:
    model = experiment.config.model
    cls, given = load_class(model.class_path), model.get("init_args", {})
    # null may mean something else to a module of another kind
    if not (isinstance(cls, type) and issubclass(cls, ImageClassifier)):
        return []
    return [name for name in _SIZES if name in given and given[name] is None]
