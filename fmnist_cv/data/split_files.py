"""splits.npz: the splits of a run, with their seed and the fingerprint of the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fmnist_cv.data.split_checks import check_splits
from fmnist_cv.data.splits import Split, SplitPlan
from fmnist_cv.data.splitter_folds import Indices
from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file


def save_splits(path: Path, splits: list[Split], plan: SplitPlan, fingerprint: str) -> None:
    """Write splits, seed and fingerprint to an `.npz` that needs no pickle."""
    arrays: dict[str, np.ndarray] = {"seed": np.array(plan.seed), "fingerprint": np.array(fingerprint)}
    for split in splits:
        name = f"repeat_{split.repeat}_fold_{split.fold}"
        arrays[f"{name}_train"] = split.train.astype(np.int32)
        arrays[f"{name}_validation"] = split.validation.astype(np.int32)
        if split.inner is not None:
            arrays[f"{name}_inner"] = split.inner.astype(np.int32)
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_splits(path: Path, labels: Indices, plan: SplitPlan, fingerprint: str, groups: Indices | None) -> list[Split]:
    """Read splits and check that they fit the plan and the data at hand.

    Raises:
        UserError: the file is damaged, of other data, or without the splits of the plan.
    """
    way_out = "restore it from a copy of the run, or start a new run"
    try:
        with np.load(regular_file(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file raises half a dozen kinds
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the splits {path}: {reason}; {way_out}") from None
    if missing := {"fingerprint", "seed"} - arrays.keys():
        raise UserError(f"{path} is not a file of splits: it lacks {', '.join(sorted(missing))}; {way_out}")
    if str(arrays["fingerprint"]) != fingerprint:
        raise UserError(
            f"{path} was made for other data (fingerprint {arrays['fingerprint']}, here {fingerprint}); "
            "resume with the data that the run was started on, or start a new run"
        )
    if str(arrays["seed"]) != str(plan.seed):
        raise UserError(f"{path} was made with seed {arrays['seed']}, but the seed is {plan.seed}; {way_out}")
    try:
        splits = [
            _read_split(arrays, repeat, fold)
            for repeat in range(plan.n_repeats)
            for fold in range(plan.folds_per_repeat)
        ]
        # runs of earlier versions, and of scikit-learn before 1.8, have splits of grouped images that are not stratified
        check_splits(splits, labels, plan if groups is None else replace(plan, stratify=False), groups)
    except (UserError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} does not hold the splits of this run: {error}; {way_out}") from None
    return splits


def _read_split(arrays: dict[str, np.ndarray], repeat: int, fold: int) -> Split:
    name = f"repeat_{repeat}_fold_{fold}"
    if not {f"{name}_train", f"{name}_validation"} <= arrays.keys():
        raise UserError(f"it has no split for repeat {repeat}, fold {fold}")
    train, validation, inner = (
        arrays[key].astype(np.int64) if (key := f"{name}_{part}") in arrays else None
        for part in ("train", "validation", "inner")
    )
    assert train is not None and validation is not None
    return Split(train, validation, inner, repeat, fold)
