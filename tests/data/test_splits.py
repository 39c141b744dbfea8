"""Whatever the labels and the plan, splits are disjoint, complete, stratified, and decided by the seed alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fmnist_cv.data.group_cut import cut_groups, images_in_groups
from fmnist_cv.data.split_checks import check_splits
from fmnist_cv.data.split_files import load_splits, save_splits
from fmnist_cv.data.splits import Split, SplitPlan, make_splits
from fmnist_cv.data.splitter_folds import Indices
from fmnist_cv.errors import UserError

Problem = tuple[Indices, SplitPlan, Indices | None]

few = settings(max_examples=60, deadline=None)


@st.composite
def problems(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("k-fold", "holdout", "first"),
    grouped: bool | None = None,
    stratify: bool | None = None,
) -> Problem:
    """Labels, plan and groups that can be split: at least 12 images per class, three groups per fold."""
    counts = draw(st.lists(st.integers(12, 20), min_size=2, max_size=6))
    n, k, kind = sum(counts), draw(st.integers(2, 6)), draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    by_class = draw(st.booleans()) if stratify is None else stratify
    holdout: float | int | str | None = None
    if kind == "holdout":
        fraction = draw(st.floats(0.2, 0.4))
        holdout = draw(st.sampled_from([fraction, round(fraction * n)]))
    elif kind == "first":
        holdout = f"first:{draw(st.integers(1, n // 3))}"
    wants_inner = draw(st.booleans()) and not (kind == "first" and by_class)
    inner = draw(st.floats(0.2, 0.5)) if wants_inner else None
    plan = SplitPlan(
        k, 1 if kind == "first" else draw(st.integers(1, 3)), by_class, holdout, inner, draw(st.integers(0, 2**40))
    )
    groups: Indices | None = None
    if kind != "first" and (draw(st.booleans()) if grouped is None else grouped):
        groups = rng.permutation(np.arange(n) % draw(st.integers(3 * k, n)))
    return labels, plan, groups


def parts_of(split: Split) -> list[Indices]:
    return [split.train, split.validation] + ([] if split.inner is None else [split.inner])


def same(a: list[Split], b: list[Split]) -> bool:
    return len(a) == len(b) and all(
        (x.repeat, x.fold) == (y.repeat, y.fold)
        and len(parts_of(x)) == len(parts_of(y))
        and all(np.array_equal(p, q) for p, q in zip(parts_of(x), parts_of(y), strict=True))
        for x, y in zip(a, b, strict=True)
    )


def class_counts(labels: Indices, part: Indices) -> Indices:
    return np.bincount(labels[part], minlength=labels.max() + 1)


def assert_disjoint_and_complete(splits: list[Split], labels: Indices, plan: SplitPlan) -> None:
    per_repeat = 1 if plan.holdout is not None else plan.n_splits
    places = [(repeat, fold) for repeat in range(plan.n_repeats) for fold in range(per_repeat)]
    assert [(s.repeat, s.fold) for s in splits] == places and plan.n_folds == len(places)
    held_out = np.zeros((plan.n_repeats, len(labels)), dtype=int)
    for split in splits:
        parts = parts_of(split)
        assert (split.inner is None) == (plan.inner_holdout is None)
        assert all(len(part) and (np.diff(part) > 0).all() for part in parts)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
        held_out[split.repeat, split.validation] += 1
    if plan.holdout is None:
        assert (held_out == 1).all()


# -- properties ---------------------------------------------------------------------------------------------


@few
@given(problems())
def test_parts_are_disjoint_and_complete_and_each_image_is_held_out_once_per_repeat(problem: Problem) -> None:
    labels, plan, groups = problem
    splits = make_splits(labels, plan, groups)
    assert_disjoint_and_complete(splits, labels, plan)
    check_splits(splits, labels, plan, groups)


@few
@given(problems(grouped=False, stratify=True, kinds=("k-fold", "holdout")))
def test_stratified_parts_keep_the_classes_shares_within_rounding(problem: Problem) -> None:
    labels, plan, _ = problem
    everything = np.arange(len(labels))
    for split in make_splits(labels, plan):
        rest = np.setdiff1d(everything, split.validation)
        share = len(split.validation) / len(labels) if plan.holdout is not None else 1 / plan.n_splits
        assert np.abs(class_counts(labels, split.validation) - share * class_counts(labels, everything)).max() <= 1
        if split.inner is not None:
            share = len(split.inner) / len(rest)
            assert np.abs(class_counts(labels, split.inner) - share * class_counts(labels, rest)).max() <= 1


@few
@given(problems(grouped=True))
def test_a_group_never_stands_on_two_sides(problem: Problem) -> None:
    labels, plan, groups = problem
    assert groups is None or all(
        np.intersect1d(groups[a], groups[b]).size == 0
        for split in make_splits(labels, plan, groups)
        for i, a in enumerate(parts_of(split))
        for b in parts_of(split)[:i]
    )


@few
@given(problems(kinds=("k-fold", "holdout")))
def test_the_seed_decides(problem: Problem) -> None:
    labels, plan, groups = problem
    splits = make_splits(labels, plan, groups)
    np.random.seed(len(labels))
    assert same(splits, make_splits(labels, plan, groups))
    if groups is None:  # a handful of groups may fall the same way twice
        assert not same(splits, make_splits(labels, replace(plan, seed=plan.seed + 1), groups))


@few
@given(problems(kinds=("k-fold", "holdout")))
def test_the_draws_of_a_repeat_do_not_depend_on_the_number_of_repeats(problem: Problem) -> None:
    labels, plan, groups = problem
    three, one = replace(plan, n_repeats=3), replace(plan, n_repeats=1)
    assert same(make_splits(labels, three, groups)[: one.n_folds], make_splits(labels, one, groups))


@few
@given(problems(kinds=("k-fold", "holdout"), grouped=False))
def test_an_inner_holdout_leaves_the_outer_parts_alone(problem: Problem) -> None:
    labels, plan, _ = problem
    without = make_splits(labels, replace(plan, inner_holdout=None))
    for split, outer in zip(make_splits(labels, replace(plan, inner_holdout=0.3)), without, strict=True):
        np.testing.assert_array_equal(split.validation, outer.validation)
        assert split.inner is not None and len(split.inner) == round(0.3 * len(outer.train))


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    plan=st.fixed_dictionaries(
        {
            "n_splits": st.integers(2, 6),
            "n_repeats": st.integers(1, 3),
            "stratify": st.booleans(),
            "holdout": st.none()
            | st.floats(0, 1.2, allow_subnormal=False)
            | st.integers(-1, 130)
            | st.integers(0, 130).map("first:{}".format),
            "inner_holdout": st.none() | st.floats(0.01, 0.99),
        }
    ),
    n_groups=st.none() | st.integers(1, 40),
)
def test_anything_is_either_split_rightly_or_refused(
    labels: list[int], plan: dict[str, Any], n_groups: int | None
) -> None:
    classes = np.array(labels)
    groups = None if n_groups is None else np.random.default_rng(0).integers(0, n_groups, len(labels))
    try:
        made = SplitPlan(**plan)
        splits = make_splits(classes, made, groups)
    except UserError:
        return
    assert_disjoint_and_complete(splits, classes, made)


@few
@given(problems())
def test_save_and_load_give_the_same_splits(tmp_path_factory: pytest.TempPathFactory, problem: Problem) -> None:
    labels, plan, groups = problem
    splits, path = make_splits(labels, plan, groups), tmp_path_factory.mktemp("splits") / "splits.npz"
    save_splits(path, splits, plan, "fingerprint")
    assert same(splits, load_splits(path, labels, plan, "fingerprint", groups))


# -- examples -----------------------------------------------------------------------------------------------


def test_repeats_differ_and_plain_folds_differ_in_size_by_at_most_one() -> None:
    labels = np.arange(103) % 3
    splits = make_splits(labels, SplitPlan(n_splits=5, n_repeats=3, stratify=False))
    sizes = [len(s.validation) for s in splits]
    assert min(sizes) == 20 and max(sizes) == 21
    assert len({tuple(s.validation) for s in splits}) == 15


@pytest.mark.parametrize(
    ("holdout", "held_out"), [(0.25, 25), (30, 30), (30.0, 30), ("first:10", 10), ("first: 10", 10)]
)
def test_a_holdout_is_one_split_of_the_size_asked_for(holdout: float | int | str, held_out: int) -> None:
    [split] = make_splits(np.arange(100) % 4, SplitPlan(holdout=holdout))
    assert (len(split.train), len(split.validation)) == (100 - held_out, held_out)
    if isinstance(holdout, str):
        np.testing.assert_array_equal(split.validation, np.arange(held_out))


def test_n_splits_does_not_matter_to_a_holdout() -> None:
    assert same(*(make_splits(np.arange(60) % 3, SplitPlan(n_splits=k, holdout=0.2)) for k in (1, 5)))


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"n_splits": 1}, "cv.n_splits is 1.*at least 2"),
        ({"n_splits": 0}, "cv.n_splits is 0.*at least 2"),
        ({"n_repeats": 0}, "cv.n_repeats is 0.*at least 1"),
        ({"seed": -1}, "seed is -1.*negative"),
        ({"n_splits": 21}, "cv.n_splits is 21, but class 0 has only 20 training images.*cv.stratify"),
        ({"n_splits": 61, "stratify": False}, "cv.n_splits is 61, but there are only 60 training images"),
        ({"holdout": 0}, "cv.holdout is 0.*between 0 and 1.*between 1 and 59"),
        ({"holdout": 0.0}, "cv.holdout is 0.0.*between 0 and 1"),
        ({"holdout": 1.5}, "cv.holdout is 1.5.*between 0 and 1"),
        ({"holdout": -5}, "cv.holdout is -5"),
        ({"holdout": 60}, "cv.holdout is 60.*between 1 and 59"),
        ({"holdout": float("nan")}, "cv.holdout is nan"),
        ({"holdout": float("inf")}, "cv.holdout is inf"),
        ({"holdout": "a fifth"}, "cv.holdout is 'a fifth'.*first:5000"),
        ({"holdout": "first:-1"}, "cv.holdout is 'first:-1'.*first:5000"),
        ({"holdout": "first:0"}, "cv.holdout is first:0"),
        ({"holdout": "first:60"}, "cv.holdout is first:60.*between 1 and 59"),
        ({"holdout": "first:5", "n_repeats": 2}, "same split every time; cv.n_repeats must be 1"),
        ({"inner_holdout": 0}, "cv.inner_holdout is 0.*fraction between 0 and 1"),
        ({"inner_holdout": 1}, "cv.inner_holdout is 1.*fraction between 0 and 1"),
        ({"inner_holdout": float("nan")}, "cv.inner_holdout is nan"),
        ({"inner_holdout": 0.001}, "a hold-out of 0 of 48 images cannot be cut"),
        ({"inner_holdout": 0.999}, "a hold-out of 48 of 48 images cannot be cut"),
        ({"holdout": 2}, "a hold-out of 2 of 60 images cannot be cut.*number of classes = 3"),
    ],
)
def test_nonsense_is_refused_with_the_reason(settings_: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make_splits(np.arange(60) % 3, SplitPlan(**settings_))


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_of_copies_leaves_every_part_stratified(seed: int) -> None:
    labels, groups = np.repeat([0, 1], [190, 10]), np.arange(200)
    groups[1] = 0
    [split] = make_splits(labels, SplitPlan(holdout=0.2, inner_holdout=0.25, seed=seed), groups)
    assert [class_counts(labels, part).tolist() for part in parts_of(split)] == [[114, 6], [38, 2], [38, 2]]
    plan = SplitPlan(2)
    splits = [Split(b, a, None, 0, i) for i, (a, b) in enumerate([np.split(np.arange(200), 2)] * 2)]
    splits[1] = replace(splits[1], train=splits[0].validation, validation=splits[0].train)
    with pytest.raises(UserError, match=r"not stratified: \[100, 0\] images per class"):
        check_splits(splits, labels, plan, groups)


def test_grouped_splits_that_are_not_stratified_are_read_since_earlier_versions_made_them(tmp_path: Path) -> None:
    labels, groups, plan = np.repeat([0, 1], 20), np.arange(40), SplitPlan(holdout=10)
    split = Split(np.arange(10, 40), np.arange(10))
    save_splits(tmp_path / "splits.npz", [split], plan, "abc")
    assert same(load_splits(tmp_path / "splits.npz", labels, plan, "abc", groups), [split])
    with pytest.raises(UserError, match="not stratified"):
        check_splits([split], labels, plan, groups)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(0, 40), st.integers(1, 6))
def test_a_cut_of_groups_misses_a_class_by_no_more_than_its_grouped_images(
    seed: int, share: float, n_groups: int, n_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    n_alone = int(rng.integers(2, 100))
    groups = np.r_[rng.integers(0, n_groups + 1, 3 * n_groups), np.arange(100, 100 + n_alone)]
    labels = rng.integers(0, n_classes, len(groups))
    n_held_out = min(max(round(share * len(groups)), 1), len(groups) - 1)
    rest, held_out = cut_groups(labels, groups, n_held_out, seed)
    assert np.array_equal(np.sort(np.r_[rest, held_out]), np.arange(len(groups))) and len(rest) and len(held_out)
    assert not np.intersect1d(groups[rest], groups[held_out]).size
    wanted = np.bincount(labels, minlength=n_classes) * n_held_out / len(groups)
    found = np.bincount(labels[held_out], minlength=n_classes)
    assert (np.abs(found - wanted) < 1 + images_in_groups(labels, groups, n_classes)).all()


def test_copies_are_cut_off_as_often_as_other_images() -> None:
    labels, groups = np.arange(1600) % 8, np.arange(1600)
    groups[:800] //= 16
    _, held_out = cut_groups(labels, groups, 320, 0)
    assert len(held_out) == 320 and abs((held_out < 800).sum() - 160) <= 16
    assert not np.array_equal(held_out, cut_groups(labels, groups, 320, 1)[1])


@pytest.mark.parametrize(("n_held_out", "sizes"), [(2, {5}), (9, {10})])
def test_groups_that_are_all_too_large_give_the_nearest_part(n_held_out: int, sizes: set[int]) -> None:
    _, held_out = cut_groups(np.zeros(15, dtype=np.int64), np.arange(15) // 5, n_held_out, 0)
    assert len(held_out) in sizes
    with pytest.raises(ValueError, match="all images are in one group"):
        cut_groups(np.zeros(5, dtype=np.int64), np.zeros(5, dtype=np.int64), 2, 0)


@pytest.mark.parametrize("stratify", [True, False])
def test_fewer_groups_than_folds_are_refused(stratify: bool) -> None:
    with pytest.raises(UserError, match=r"cv\.n_splits is 5, but the data have only 4 groups, .*; lower cv\.n_splits"):
        make_splits(np.arange(60) % 3, SplitPlan(5, stratify=stratify), np.arange(60) % 4)


def test_groups_that_cannot_be_spread_over_the_folds_name_the_way_out() -> None:
    sizes = [17, 16, 6, 21, 19]
    labels, groups = np.repeat([0, 0, 1, 1, 1], sizes), np.repeat(np.arange(5), sizes)
    with pytest.raises(
        UserError, match=r"a part is empty; whole groups .* of 5 folds .*lower cv\.n_splits, or set cv\.str"
    ):
        make_splits(labels, SplitPlan(5), groups)
    assert len(make_splits(labels, SplitPlan(5, stratify=False), groups)) == 5
    assert len(make_splits(labels, SplitPlan(2), groups)) == 2


def test_the_first_n_are_refused_where_they_tear_a_group() -> None:
    with pytest.raises(UserError, match="a group is on both sides"):
        make_splits(np.arange(20) % 2, SplitPlan(holdout="first:5"), np.arange(20) // 4)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda s: s[:-1], "there are 2 splits, but the plan asks for 3"),
        (lambda s: [Split(s[0].train[1:], s[0].validation), *s[1:]], "repeat 0, fold 0: its parts overlap or leave"),
        (lambda s: [s[0], Split(np.arange(30), s[1].validation, fold=1), s[2]], "fold 1: its parts overlap or leave"),
        (lambda s: [Split(np.arange(30), np.arange(0)), *s[1:]], "fold 0: a part is empty"),
        (lambda s: [s[0], replace(s[0], fold=1), s[2]], "not held out exactly once"),
        (lambda s: [Split(np.arange(20), np.arange(20, 30)), *s[1:]], "fold 0: not stratified"),
    ],
)
def test_broken_splits_are_refused(broken: Any, reason: str) -> None:
    labels, plan = np.arange(30) // 10, SplitPlan(3)
    with pytest.raises(UserError, match=reason):
        check_splits(broken(make_splits(labels, plan)), labels, plan)


# -- files --------------------------------------------------------------------------------------------------

LABELS, PLAN = np.arange(60) % 3, SplitPlan(3, n_repeats=2, inner_holdout=0.2, seed=4)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "splits.npz"
    save_splits(path, make_splits(LABELS, PLAN), PLAN, "abc")
    return path


def rewrite(path: Path, **arrays: np.ndarray | None) -> None:
    """Replace arrays of an .npz, or leave those out that are None."""
    with np.load(path) as file:
        kept = {**{name: file[name] for name in file.files}, **arrays}
    np.savez(path, allow_pickle=False, **{name: array for name, array in kept.items() if array is not None})


@pytest.mark.parametrize(
    ("plan", "fingerprint", "labels", "reason"),
    [
        (PLAN, "xyz", LABELS, "was made for other data.*fingerprint abc, here xyz"),
        (replace(PLAN, seed=5), "abc", LABELS, "was made with seed 4, but the seed is 5"),
        (replace(PLAN, n_repeats=3), "abc", LABELS, "has no split for repeat 2, fold 0"),
        (replace(PLAN, n_splits=4), "abc", LABELS, "has no split for repeat 0, fold 3"),
        (replace(PLAN, n_splits=2), "abc", LABELS, "not held out exactly once"),
        (PLAN, "abc", LABELS[:50], "overlap or leave images out"),
        (PLAN, "abc", np.sort(LABELS), "not stratified"),
    ],
)
def test_splits_of_another_plan_or_other_data_are_refused(
    saved: Path, plan: SplitPlan, fingerprint: str, labels: Indices, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        load_splits(saved, labels, plan, fingerprint, None)


@pytest.mark.parametrize("inner_holdout", [None, 0.2])
def test_splits_with_an_inner_part_are_refused_without_one_in_the_plan_and_conversely(
    tmp_path: Path, inner_holdout: float | None
) -> None:
    plan = replace(PLAN, inner_holdout=inner_holdout)
    other = replace(PLAN, inner_holdout=0.2 if inner_holdout is None else None)
    save_splits(tmp_path / "splits.npz", make_splits(LABELS, plan), plan, "abc")
    with pytest.raises(UserError, match="inner"):
        load_splits(tmp_path / "splits.npz", LABELS, other, "abc", None)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"splits\.npz"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_a_flipped_byte_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(b"repeat_0_fold_0_train.npy") + 60] ^= 0xFF  # within the array's compressed bytes
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"splits\.npz"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the splits .*nowhere\.npz"):
        load_splits(tmp_path / "nowhere.npz", LABELS, PLAN, "abc", None)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY"])
def test_a_file_of_another_kind_is_refused(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"splits\.npz"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", LABELS)
    with pytest.raises(UserError, match=r"array\.npy"):
        load_splits(tmp_path / "array.npy", LABELS, PLAN, "abc", None)


@pytest.mark.parametrize("missing", ["fingerprint", "seed", "repeat_0_fold_1_train", "repeat_0_fold_1_validation"])
def test_a_file_that_lacks_an_array_is_refused(saved: Path, missing: str) -> None:
    rewrite(saved, **{missing: None})
    with pytest.raises(UserError, match=r"splits\.npz"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_pickled_arrays_are_never_loaded(saved: Path) -> None:
    np.savez(saved, seed=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot read the splits"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_a_tampered_split_is_refused(saved: Path) -> None:
    split = make_splits(LABELS, PLAN)[0]
    rewrite(saved, repeat_0_fold_0_train=np.append(split.train[1:], split.validation[:1]))
    with pytest.raises(UserError, match="repeat 0, fold 0: its parts overlap or leave images out"):
        load_splits(saved, LABELS, PLAN, "abc", None)


def test_a_refit_trains_on_all_and_says_so() -> None:
    """An empty validation part alone does not make a refit."""
    split = Split.refit(4)
    assert split.is_refit and split.train.tolist() == [0, 1, 2, 3] and not len(split.validation)
    empty = Split(np.arange(4), np.arange(0))
    assert not empty.is_refit
    with pytest.raises(UserError, match="a part is empty"):
        check_splits([empty], np.arange(4), SplitPlan(holdout=1, stratify=False))
