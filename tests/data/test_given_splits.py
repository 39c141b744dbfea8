"""Folds given by a splitter of scikit-learn, a file or the data: kept as they are, and refused where they are wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st
from sklearn.model_selection import RepeatedStratifiedKFold, TimeSeriesSplit

from fmnist_cv.config.experiment import Experiment
from fmnist_cv.data import ArrayDataModule, Images, Split, SplitPlan
from fmnist_cv.data.given_splits import fitted_plan, make_splitter, split_images
from fmnist_cv.data.group_sizes import describe_sizes, dominant_groups, sizes_of_groups
from fmnist_cv.errors import UserError

few = settings(max_examples=40, deadline=None)
NAMES = tuple(f"{'ab'[i % 2]}/case_{i:03}.png" for i in range(12))


def images(n: int = 12, *, names: tuple[str, ...] | None = None, folds: Any = None, groups: Any = None) -> Images:
    pixels, labels = np.zeros((n, 2, 2), dtype=np.uint8), np.arange(n) % 2
    made = Images.from_arrays(pixels, labels, groups=None if groups is None else np.asarray(groups))
    return replace(made, names=names, folds=None if folds is None else torch.as_tensor(folds))


def held_out(splits: list[Split]) -> list[list[int]]:
    return [split.validation.tolist() for split in splits]


def splitter(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"sklearn.model_selection.{name}", "init_args": arguments}


# -- splitters ----------------------------------------------------------------------------------------------

GROUPED = ["GroupKFold", "LeaveOneGroupOut", "StratifiedGroupKFold", "GroupShuffleSplit"]
PLAIN = ["KFold", "StratifiedKFold", "RepeatedStratifiedKFold", "RepeatedKFold", "ShuffleSplit", "TimeSeriesSplit"]


@few
@given(st.sampled_from([*GROUPED, *PLAIN]), st.integers(2, 4), st.integers(0, 2**32), st.integers(0, 2**32 - 1))
def test_parts_are_disjoint_groups_whole_and_each_image_held_out_once_a_repeat(
    name: str, k: int, seed: int, drawn: int
) -> None:
    rng = np.random.default_rng(drawn)
    groups = rng.permutation(np.arange(40) % 8) if name in GROUPED else None
    arguments = {} if name == "LeaveOneGroupOut" else {"n_splits": k}
    data = images(40, groups=groups)
    plan = fitted_plan(data, SplitPlan(splitter=splitter(name, **arguments), seed=seed))
    splits = split_images(data, plan)
    assert len(splits) == plan.n_folds
    assert [(split.repeat, split.fold) for split in splits] == [
        (repeat, fold) for repeat in range(plan.n_repeats) for fold in range(plan.n_splits)
    ]
    times = np.zeros((plan.n_repeats, 40), dtype=int)
    for split in splits:
        assert len(split.train) and len(split.validation)
        assert not np.intersect1d(split.train, split.validation).size
        assert groups is None or not np.intersect1d(groups[split.train], groups[split.validation]).size
        times[split.repeat, split.validation] += 1
    assert times.max() == 1
    if "Shuffle" not in name and name != "TimeSeriesSplit":
        assert times.min() == 1
    assert held_out(split_images(data, plan)) == held_out(splits)  # the seed decides


def test_a_splitter_that_draws_is_seeded_from_the_experiment_unless_it_has_a_seed() -> None:
    data, drawn = images(40), splitter("ShuffleSplit", n_splits=2)
    first, second = (split_images(data, SplitPlan(splitter=drawn, seed=seed)) for seed in (0, 1))
    assert held_out(first) != held_out(second)
    fixed = splitter("ShuffleSplit", n_splits=2, random_state=3)
    first, second = (split_images(data, SplitPlan(splitter=fixed, seed=seed)) for seed in (0, 1))
    assert held_out(first) == held_out(second)
    assert make_splitter("KFold", 0).random_state is None  # which does not shuffle


def test_arguments_of_a_splitter_may_stand_beside_its_class_as_options_put_them() -> None:
    assert make_splitter({"class_path": "KFold", "n_splits": 4}, 0).n_splits == 4
    with pytest.raises(UserError, match="is a class path, or a mapping of class_path and init_args"):
        make_splitter({"n_splits": 4}, 0)


def test_repeats_of_a_splitter_are_repeats_of_the_plan() -> None:
    data = images(20)
    plan = fitted_plan(data, SplitPlan(splitter=splitter("RepeatedStratifiedKFold", n_splits=4, n_repeats=3)))
    assert (plan.n_splits, plan.n_repeats) == (4, 3)
    seeded = splitter("RepeatedStratifiedKFold", n_splits=4, n_repeats=3, random_state=5)
    expected = RepeatedStratifiedKFold(n_splits=4, n_repeats=3, random_state=5).split(np.zeros(20), data.labels)
    assert held_out(split_images(data, SplitPlan(splitter=seeded))) == [part.tolist() for _, part in expected]


def test_images_that_a_splitter_never_holds_out_are_left_as_they_are_and_the_training_part_may_be_a_part() -> None:
    data = images(12)
    splits = split_images(data, SplitPlan(splitter="TimeSeriesSplit"))  # a name of sklearn.model_selection
    expected = [(a.tolist(), b.tolist()) for a, b in TimeSeriesSplit().split(np.zeros(12))]
    assert [(split.train.tolist(), split.validation.tolist()) for split in splits] == expected


def test_an_inner_holdout_is_cut_from_the_training_part_of_given_splits() -> None:
    plan = SplitPlan(splitter=splitter("GroupKFold", n_splits=3), inner_holdout=0.3)
    for split in split_images(images(40, groups=np.arange(40) % 10), plan):
        assert split.inner is not None
        parts = [split.train, split.inner, split.validation]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(40))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("GroupKfold", "did you mean 'GroupKFold'"),
        ("nowhere.Splitter", "cannot be imported; sklearn.model_selection has GroupKFold, .*TimeSeriesSplit"),
        ("collections.Counter", "is no splitter: it has no method split"),
        ({"class": "GroupKFold"}, "is a class path, or a mapping of class_path and init_args"),
        (splitter("KFold", folds=3), "cv.splitter KFold cannot be created: .*folds"),
        ("LeaveOneGroupOut", "cannot split these images: .*; the data have no groups"),
        (splitter("KFold", n_splits=13), "cannot split these images: .*n_splits=13"),
        (splitter("StratifiedKFold", n_splits=7), "cannot split these images: .*n_splits=7"),
    ],
)
def test_splitters_that_cannot_be_used_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_images(images(), SplitPlan(splitter=given))


def test_a_splitter_that_splits_groups_is_refused_by_name() -> None:
    data = images(groups=["p" if i < 6 else "q" for i in range(12)])
    message = "the group 'p' is on both sides of repeat 0, fold 0: image .* keeps groups whole, such as GroupKFold"
    with pytest.raises(UserError, match=message):
        split_images(data, SplitPlan(splitter=splitter("KFold", n_splits=3)))


# -- folds of the data --------------------------------------------------------------------------------------


def test_folds_of_the_data_are_used_and_some_images_may_be_trained_on_by_all() -> None:
    data = images(folds=[0, 1, 3, -1] * 3)
    plan = fitted_plan(data, SplitPlan())
    assert (plan.splits, plan.n_splits, plan.n_repeats) == ("data", 3, 1)
    assert fitted_plan(data, plan) == plan
    splits = split_images(data, plan)
    assert held_out(splits) == [[0, 4, 8], [1, 5, 9], [2, 6, 10]]
    assert splits[0].train.tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]


def test_a_fixed_validation_set_is_one_fold() -> None:
    data = images(folds=[-1] * 9 + [0] * 3)
    assert held_out(split_images(data, SplitPlan())) == [[9, 10, 11]]
    assert fitted_plan(data, SplitPlan()).n_folds == 1


@pytest.mark.parametrize(
    "plan",
    [
        SplitPlan(holdout=0.2),
        SplitPlan(splitter="KFold"),
        SplitPlan(splits="folds.csv"),
    ],
)
def test_folds_of_the_data_and_another_way_to_split_are_refused(plan: SplitPlan) -> None:
    with pytest.raises(UserError, match="but the data give the folds themselves"):
        split_images(images(folds=[0, 1] * 6), plan)


def test_plans_that_contradict_what_is_given_are_refused() -> None:
    with pytest.raises(UserError, match="contradict each other"):
        SplitPlan(splitter="KFold", splits="folds.csv")
    with pytest.raises(UserError, match="contradict each other"):
        SplitPlan(splitter="KFold", holdout=0.2)
    with pytest.raises(UserError, match="n_splits is 7, but there are 5 folds given by cv"):
        split_images(images(), SplitPlan(7, splitter="KFold"))
    with pytest.raises(
        UserError, match="n_repeats is 2, but there are 2 folds given by the data; set it to 1, or leave it out"
    ):
        split_images(images(folds=[0, 1] * 6), SplitPlan(n_repeats=2))
    with pytest.raises(UserError, match="but the data give no folds"):
        split_images(images(), SplitPlan(splits="data"))
    with pytest.raises(UserError, match="no fold given by the data holds an image out"):
        split_images(images(folds=[-1] * 12), SplitPlan())
    with pytest.raises(UserError, match="fold 0 given by the data trains on no image"):
        split_images(images(folds=[0] * 12), SplitPlan())


def test_a_data_module_used_alone_takes_the_folds_of_its_data() -> None:
    class WithFolds(ArrayDataModule):
        def load(self, train: bool) -> Images | None:
            loaded = super().load(train)
            return None if loaded is None else replace(loaded, folds=torch.tensor([0, 1, 2, -1]))

    arrays: dict[str, Any] = {"images": np.zeros((4, 2, 2), dtype=np.uint8), "labels": np.array([0, 1, 0, 1])}
    assert WithFolds(**arrays, fold=1).split.validation.tolist() == [1]
    with pytest.raises(UserError, match=r"repeat and fold are \(0, 3\), but the data give 3 folds"):
        _ = WithFolds(**arrays, fold=3).split


# -- files --------------------------------------------------------------------------------------------------


def csv_of(path: Path, names: Any, folds: Any, column: str = "name") -> Path:
    path.write_text("\n".join([f"{column},fold", *(f"{n},{f}" for n, f in zip(names, folds, strict=True))]) + "\n")
    return path


def test_a_csv_names_images_whatever_its_order(tmp_path: Path) -> None:
    folds = [0, 1, 2, -1] * 3
    order = np.random.default_rng(0).permutation(12)
    path = csv_of(tmp_path / "f.csv", [NAMES[i] for i in order], [folds[i] for i in order])
    splits = split_images(images(names=NAMES), SplitPlan(splits=str(path)))
    assert held_out(splits) == [[0, 4, 8], [1, 5, 9], [2, 6, 10]]
    by_index = csv_of(tmp_path / "i.csv", order, [folds[i] for i in order], "index")
    for names in (NAMES, None):
        assert held_out(split_images(images(names=names), SplitPlan(splits=str(by_index)))) == held_out(splits)


@pytest.mark.parametrize(
    "short", [lambda n: n, lambda n: n.removesuffix(".png"), lambda n: Path(n).name, lambda n: Path(n).stem]
)
def test_nnu_nets_json_names_images_with_or_without_folder_and_ending(tmp_path: Path, short: Any) -> None:
    path = tmp_path / "splits_final.json"
    parts = [(set(range(12)) - set(part), part) for part in ({0, 1, 2}, {3, 4, 5}, {6, 7})]
    named = [{"train": [short(NAMES[i]) for i in a], "val": [short(NAMES[i]) for i in b]} for a, b in parts]
    path.write_text(json.dumps(named))
    splits = split_images(images(names=NAMES), SplitPlan(splits=str(path)))
    assert [(set(split.train), set(split.validation)) for split in splits] == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,fold\n" + "".join(f"{n},0\n" for n in (*NAMES[:11], "c/other.png")), "'c/other.png', which the data do not"),
        ("name,fold\n" + "".join(f"{n},0\n" for n in (*NAMES, NAMES[3])), "names the image 'b/case_003.png' 2 times"),
        ("name,fold\n" + "".join(f"{n},0\n" for n in (*NAMES, "case_003")), "names the image 'b/case_003.png' 2 times"),
        ("name,fold\n" + "".join(f"{n},0\n" for n in NAMES[:10]), "lacks 2 of 12 images, the first is 'a/case_010.png'"),
        ("name,fold\n" + "".join(f"{n},x\n" for n in NAMES), "the column 'fold' has 'x'"),
        ("path,split\na,0\n", "has the columns path, split; it needs 'name'"),
        ("index,fold\na,0\n", "the column 'index' has 'a'"),
        ("index,fold\n99,0\n", "names the image '99', which the data do not have"),
        ('name,fold\n"a,0\n', "is not a CSV file"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_the_images_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        split_images(images(names=NAMES), SplitPlan(splits=str(tmp_path / "f.csv")))


A, B = [*NAMES[:6]], [*NAMES[6:]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": A, "val": B}, "is not a list of splits"),
        ([{"train": A, "validation": B}], "is not a list of splits"),
        ([], "no fold given by"),
        ([{"train": A, "val": [*B, A[0]]}], f"split 0 names the image '{A[0]}' in train and in val"),
        ([{"train": A, "val": [*B, B[0]]}], f"val of split 0 names the image '{B[0]}' 2 times"),
        ([{"train": A, "val": B[:5]}], f"split 0 lacks 1 of 12 images, the first is '{B[5]}'"),
        ([{"train": [*A, "z"], "val": B}], "train of split 0 names the image 'z', which the data do not have"),
        (
            [{"train": B, "val": A}, {"train": [*A[1:]], "val": [*B, A[0]]}],
            f"the image '{A[0]}' is in val of 2 splits, others in 1",
        ),
    ],
)
def test_json_that_does_not_fit_the_images_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(message)):
        split_images(images(names=NAMES), SplitPlan(splits=str(path)))


def test_ambiguous_names_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    names = tuple(f"{folder}/{i}.png" for folder in "ab" for i in range(6))
    path = csv_of(tmp_path / "f.csv", [f"{i}.png" for i in range(12)], [0] * 12)
    with pytest.raises(UserError, match=r"'0\.png', which may be 'a/0.png' and 'b/0.png'; give the whole name"):
        split_images(images(names=names), SplitPlan(splits=str(path)))
    for file, message in (("no.csv", "cannot read .*No such file"), ("f.txt", "give a .csv with the columns")):
        with pytest.raises(UserError, match=message):
            split_images(images(), SplitPlan(splits=str(tmp_path / file)))
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(UserError, match="is not a JSON file"):
        split_images(images(), SplitPlan(splits=str(tmp_path / "bad.json")))


# -- groups -------------------------------------------------------------------------------------------------


def test_sizes_of_groups_and_the_one_that_is_most_of_a_fold() -> None:
    data = images(groups=["big"] * 5 + list("abcdefg"))
    assert sizes_of_groups(data) == (8, 5) and sizes_of_groups(images()) is None
    assert describe_sizes(8, 5) == "8 groups, none split; the largest has 5 images"
    assert describe_sizes(1, 1) == "1 group, none split; the largest has 1 image"
    first, second = Split(np.arange(7, 12), np.arange(7)), Split(np.arange(7), np.arange(7, 12))
    assert dominant_groups(data, [first, second]) == [{"group": "big", "images": 5, "of": 7}, None]
    assert dominant_groups(images(), [first]) == [None]


@pytest.mark.parametrize("column", ["name", "index"])
@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_file_of_folds_may_name_images_that_are_left_out(
    tmp_path: Path, kind: str, column: str, is_whole: bool
) -> None:
    kept = np.array([0, 2, 3, 5, 6, 7, 8, 10, 11])
    named = range(12) if is_whole else kept.tolist()
    calls = {i: NAMES[i] if column == "name" else str(i) for i in named}
    file = tmp_path / f"folds.{kind}"
    if kind == "csv":
        csv_of(file, calls.values(), [i % 3 for i in named], column)
    else:
        sides = [[[calls[i] for i in named if (i % 3 == fold) == held] for held in (False, True)] for fold in range(3)]
        file.write_text(json.dumps([{"train": train, "val": val} for train, val in sides]))
    whole = images(names=NAMES if column == "name" else None)
    part = whole.without(np.array([1, 9])).without(np.array([3]))  # 1, 9 and 4 of the whole
    plan = fitted_plan(part, SplitPlan(splits=str(file)))
    assert held_out(split_images(part, plan)) == [np.flatnonzero(kept % 3 == fold).tolist() for fold in range(3)]
    assert part.fingerprint() == Images.from_arrays(np.zeros((9, 2, 2), dtype=np.uint8), kept % 2).fingerprint()


def test_an_option_that_replaces_a_splitters_name_is_refused_with_what_to_write(tiny: dict[str, Any]) -> None:
    given = [f"--config={yaml.safe_dump(tiny)}", "--cv.splitter=KFold", "--cv.splitter.n_splits=4", "--cv.n_splits=5"]
    way_out = "--cv.splitter.class_path NAME --cv.splitter.init_args.n_splits 4"
    with pytest.raises(UserError, match=f"without a name; .* write {way_out},"):
        fitted_plan(images(), Experiment.parse(given).plan)
    written = way_out.replace("NAME", "KFold").replace(" --", "\n--").replace(" ", "=").split("\n")
    plan = fitted_plan(images(), Experiment.parse([given[0], *written, given[-1]]).plan)
    assert plan.n_splits == 4
