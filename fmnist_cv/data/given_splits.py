"""Splits of images: drawn by the plan, or given by a splitter of scikit-learn, by a file, or by the data themselves."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import KFold, TimeSeriesSplit

from fmnist_cv.data.split_lists import parts_of_folds, read_split_file
from fmnist_cv.data.splits import Split, SplitPlan, finish_splits, make_splits
from fmnist_cv.data.splitter_folds import Indices, Parts, draw_folds
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.runtime import derive_seed
from fmnist_cv.utils.paths import user_path

if TYPE_CHECKING:
    from fmnist_cv.data.images import Images

FROM_DATA = "data"  # the value of cv.splits for folds that the data give

_SKLEARN = "sklearn.model_selection"
_SPLITTER = 4_000  # keeps the splitter's seed apart from those of other splits


def split_images(images: Images, plan: SplitPlan) -> list[Split]:
    """Make all splits of images, in the order repeat 0 fold 0, repeat 0 fold 1, ...

    Args:
        images: the training images; a splitter gets their labels and groups, and of copies the first one, which the others
            follow.
        plan: what to draw, or what gives the splits; see `fitted_plan`.

    Raises:
        UserError: the images cannot be split like this, or the plan has not as many splits as are given.
    """
    labels, together, are_copies = images.labels.cpu().numpy(), images.kept_together, images.groups is None
    plan, parts = _fitted(images, plan)
    if parts is None:
        return make_splits(labels, plan, together, are_copies, images.class_names)
    outer = [Split(*sides, None, *divmod(i, plan.folds_per_repeat)) for i, sides in enumerate(parts)]
    if together is not None:
        _check_together(outer, images, together, plan)
    return finish_splits(outer, labels, plan, together, are_copies)


def fitted_plan(images: Images, plan: SplitPlan) -> SplitPlan:
    """The plan with what only the images tell: whether they give folds, and how many splits are given.

    Raises:
        UserError: the plan contradicts what is given.
    """
    return _fitted(images, plan)[0]


def _fitted(images: Images, plan: SplitPlan) -> tuple[SplitPlan, Parts | None]:
    """The fitted plan, and the splits that are given, if any are."""
    if images.folds is not None and plan.splits != FROM_DATA:
        settings = {"cv.holdout": plan.holdout, "cv.splitter": plan.splitter, "cv.splits": plan.splits}
        for key, value in settings.items():
            if value is not None:
                raise UserError(f"{key} is {value}, but the data give the folds themselves; leave out one of the two")
        plan = replace(plan, splits=FROM_DATA)
    if not plan.is_given:
        return plan, None
    parts = _given(images, plan)
    n_repeats = _repeats(parts)
    fitted = replace(plan, n_splits=len(parts) // n_repeats, n_repeats=n_repeats)
    check_numbers(
        fitted,
        None if plan.n_splits == SplitPlan.n_splits else plan.n_splits,
        None if plan.n_repeats == SplitPlan.n_repeats else plan.n_repeats,
    )
    return fitted, parts


def check_numbers(plan: SplitPlan, n_splits: int | None, n_repeats: int | None) -> None:
    """Refuse numbers of folds and repeats, None for any, that are not those of the splits given.

    Raises:
        UserError: with the right number.
    """
    for key, asked, found in (("n_splits", n_splits, plan.n_splits), ("n_repeats", n_repeats, plan.n_repeats)):
        if asked not in (None, found):
            are = "is 1 fold" if plan.n_splits == 1 else f"are {plan.n_splits} folds"
            repeats = f" in each of {plan.n_repeats} repeats" if plan.n_repeats > 1 else ""
            raise UserError(
                f"cv.{key} is {asked}, but there {are}{repeats} given by {given_by(plan)}; set it to {found}, or leave it out"
            )


def given_by(plan: SplitPlan) -> str:
    """What decides the splits of a plan that does not draw them itself: "cv.splitter GroupKFold"."""
    if plan.splitter is not None:
        return f"cv.splitter {_name(plan.splitter)}"
    return "the data" if plan.splits == FROM_DATA else f"cv.splits {plan.splits}"


def is_fixed(plan: SplitPlan) -> bool:
    """Whether the outer splits are the same with each seed."""
    if plan.splitter is not None:
        made, other = (make_splitter(plan.splitter, seed) for seed in (0, 1))
        return getattr(made, "random_state", None) == getattr(other, "random_state", None)
    return plan.is_given or isinstance(plan.holdout, str)


def goes_by_order(plan: SplitPlan) -> bool:
    """Whether a splitter takes the images as they come: in blocks, or as a time series."""
    if plan.splitter is None:
        return False
    made = make_splitter(plan.splitter, plan.seed)
    return isinstance(made, TimeSeriesSplit) or (isinstance(made, KFold) and not made.shuffle)


def digest_of_splits(splits: Sequence[Split]) -> str:
    """A digest of which images each split trains on and holds out."""
    digest = hashlib.blake2b(digest_size=16)
    for split in splits:
        for part in (split.train, split.validation):
            digest.update(len(part).to_bytes(8, "little") + part.astype("<i8").tobytes())
    return digest.hexdigest()


def shown_name(images: Images, index: int) -> str:
    """How messages call an image: by its name, or by its place."""
    return f"'{images.names[index]}'" if images.names is not None else f"{index}"


def _given(images: Images, plan: SplitPlan) -> Parts:
    """The sorted training and validation parts that splitter, file or data give, none of them empty."""
    if plan.splitter is not None:
        parts = _of_splitter(images, plan.splitter, plan.seed)
    elif plan.splits == FROM_DATA:
        if images.folds is None:
            raise UserError("cv.splits is 'data', but the data give no folds; name the column of the folds, or a file")
        parts = parts_of_folds(images.folds.cpu().numpy())
    else:
        path = user_path(str(plan.splits), "cv.splits")
        whole = images.part_of
        parts = (
            read_split_file(path, images.names, len(images))
            if whole is None
            else read_split_file(path, whole.names, whole.n, whole.places.numpy())
        )
    if not parts:
        raise UserError(f"no fold given by {given_by(plan)} holds an image out")
    for i, (train, validation) in enumerate(parts):
        if not len(train) or not len(validation):
            empty = "trains on no image" if not len(train) else "holds no image out"
            raise UserError(f"fold {i} given by {given_by(plan)} {empty}")
    return parts


def _repeats(parts: Parts) -> int:
    """Into how many equal runs of splits, none of which holds an image out twice, the splits fall; as few as possible."""
    n = len(parts)
    for n_repeats in (r for r in range(1, n + 1) if n % r == 0):
        size = n // n_repeats
        runs = (np.concatenate([part for _, part in parts[i : i + size]]) for i in range(0, n, size))
        if all(len(np.unique(run)) == len(run) for run in runs):
            return n_repeats
    return n


def _check_together(splits: list[Split], images: Images, together: Indices, plan: SplitPlan) -> None:
    """Refuse splits with a group, or copies of an image, on both sides."""
    for split in splits:
        shared = np.intersect1d(together[split.train], together[split.validation])
        if not len(shared):
            continue
        one, other = (
            shown_name(images, part[together[part] == shared[0]][0]) for part in (split.train, split.validation)
        )
        place = f"both sides of repeat {split.repeat}, fold {split.fold}"
        if images.groups is None:
            change = "correct the folds" if plan.splitter is None else "choose another splitter"
            raise UserError(
                f"the images {one} and {other} have the same pixels, but are on {place}; {change}, or set data.duplicates to keep"
            )
        name = str(shared[0]) if images.group_names is None else images.group_names[shared[0]]
        way_out = "correct the folds"
        if plan.splitter is not None:
            way_out = "choose a splitter that keeps groups whole, such as GroupKFold"
        raise UserError(
            f"the group '{name}' is on {place}: image {one} is trained on and {other} held out; {way_out}, or leave the "
            "groups out (those that share copies of an image are one, unless data.duplicates is keep)"
        )


# -- splitters ----------------------------------------------------------------------------------------------


def _name(splitter: str | dict[str, Any] | None) -> str:
    path = splitter.get("class_path") if isinstance(splitter, dict) else splitter
    return str(path).rpartition(".")[2]


def _of_splitter(images: Images, splitter: str | dict[str, Any], seed: int) -> Parts:
    made = make_splitter(splitter, seed)
    labels, are_copies = images.labels.cpu().numpy(), images.groups is None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of ignored groups and rare classes: the result is checked
            return draw_folds(made, labels, images.kept_together, are_copies)
    except (TypeError, ValueError) as error:
        hint = "; the data have no groups" if images.groups is None and "group" in str(error).lower() else ""
        raise UserError(f"cv.splitter {_name(splitter)} cannot split these images: {error}{hint}") from None


def make_splitter(splitter: str | dict[str, Any], seed: int) -> Any:
    """A splitter of scikit-learn's interface; one that shuffles and has no random_state of its own is seeded.

    Args:
        splitter: a class path, a class's name in sklearn.model_selection, or {"class_path": ..., "init_args": {...}}.
        seed: determines what it draws.

    Raises:
        UserError: there is no such class, it is no splitter, or its arguments do not fit.
    """
    if isinstance(splitter, dict) and not isinstance(splitter.get("class_path"), str):
        others = {key: value for key, value in splitter.items() if key not in ("class_path", "init_args")}
        arguments = others | (splitter.get("init_args") or {})
        options = " ".join(f"--cv.splitter.init_args.{key} {value}" for key, value in arguments.items())
        raise UserError(
            f"cv.splitter is {splitter}, without a name; it is a class path, or a mapping of class_path and init_args. As options, "
            f"write --cv.splitter.class_path NAME {options}".rstrip()
            + ", since --cv.splitter NAME is replaced by these"
        )
    path: Any = splitter
    arguments = {}
    if isinstance(splitter, dict):
        # options such as --cv.splitter.init_args.n_splits arrive beside class_path
        others = {key: value for key, value in splitter.items() if key not in ("class_path", "init_args")}
        path, arguments = splitter["class_path"], {**(splitter.get("init_args") or {}), **others}
    cls = _load(str(path))
    try:
        made = cls(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"cv.splitter {_name(splitter)} cannot be created: {error}") from None
    if getattr(made, "random_state", 0) is None and getattr(made, "shuffle", True):
        made.random_state = derive_seed(seed, _SPLITTER)
    return made


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(import_module(module or _SKLEARN), name)
    except (ImportError, AttributeError, ValueError):
        found = vars(import_module(_SKLEARN))
        known = sorted(
            key
            for key, value in found.items()
            if inspect.isclass(value) and hasattr(value, "get_n_splits") and not key.startswith("Base")
        )
        raise UserError(
            f"cv.splitter is '{path}', which cannot be imported"
            + did_you_mean(name, known, f"sklearn.model_selection has {', '.join(known)}")
        ) from None
    if not inspect.isclass(cls) or not callable(getattr(cls, "split", None)):
        raise UserError(f"cv.splitter is '{path}', which is no splitter: it has no method split(X, y, groups)")
    return cls
