"""Runs compared, from their folders and by `python -m fmnist_cv.compare` as it is typed; what is refused, and why."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_cv import CrossValidationResult, cross_validate
from fmnist_cv.analysis.compared_runs import compare_runs
from fmnist_cv.analysis.comparison import adjusted
from fmnist_cv.compare import main
from fmnist_cv.errors import UserError


@pytest.fixture
def compared(tiny: dict[str, Any], once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of finished runs of several experiments, by their names; to be read only."""

    def fill(folder: Path) -> None:
        def run(name: str, **changes: Any) -> None:
            config = copy.deepcopy(tiny) | {"name": name.split("/")[0], "log_dir": str(folder)}
            config["trainer"] |= {"logger": False, "max_epochs": 1}
            for key, value in changes.items():
                *sections, last = key.split("__")
                inner = config
                for section in sections:
                    inner = inner[section]
                inner[last] = value
            cross_validate(config, run=name.split("/")[1])

        linear = {"class_path": "fmnist_cv.models.LinearClassifier"}
        run("dense/run")
        run("dense/again")
        run("linear/run", model=linear)
        run("inner/run", cv__inner_holdout=0.2)
        run("patient/run", selection={"patience": 1})
        run("dense/seed-1", seed=1)
        run("five/run", cv__n_splits=5)
        run("few/run", cv__train_size=100)
        run("drawn/otherwise", data__init_args__drawing_seed=1)
        run("relabelled/run", data__class_path="users_modules.OtherTestLabels", data__init_args__shift=1)
        for name, model in (("hold-out-dense", tiny["model"]), ("hold-out-linear", linear)):
            run(f"{name}/run", cv__holdout=0.3, model=model)
        for name, model in (("halves-dense", tiny["model"]), ("halves-linear", linear)):
            run(f"{name}/run", cv__n_splits=2, model=model)
        for name, model in (("twice-dense", tiny["model"]), ("twice-linear", linear)):
            run(f"{name}/run", cv__n_repeats=2, cv__n_splits=2, model=model)

    return once("compared", fill)


def test_two_runs_are_compared_without_their_images(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrossValidationResult, "data", property(lambda self: pytest.fail("the images were asked for")))
    found = compare_runs([compared / "dense" / "run", compared / "linear" / "run"])
    (pair,) = found.pairs
    dense, linear = (CrossValidationResult.load(compared / name / "run") for name in ("dense", "linear"))
    assert (pair.a, pair.b) == ("dense", "linear")
    assert pair.difference == pytest.approx(dense.mean - linear.mean)
    assert pair.t_test is not None and pair.test is not None
    right = [(run.out_of_fold()[0].argmax(1) == run.labels) for run in (dense, linear)]
    assert pair.out_of_fold.only_a == (right[0] & ~right[1]).sum() and pair.out_of_fold.n == 300
    votes = [run.summary["ensemble"]["last"]["accuracy"] for run in (dense, linear)]
    assert pair.test.difference == pytest.approx(votes[0] - votes[1]) and pair.test.n == 100
    assert found.sentence == pair.sentence
    assert found.remarks == [
        "SYNTHETIC data: generated images, not Fashion-MNIST; these differences say nothing about real images."
    ]
    assert found.as_dict()["pairs"][0]["sentence"] == pair.sentence
    assert [run["accuracy"] for run in found.runs] == [run.summary["headline"]["accuracy"] for run in (dense, linear)]


def test_runs_with_the_same_outcome_have_no_difference_and_no_nan(compared: Path) -> None:
    found = compare_runs([compared / "dense" / "run", compared / "dense" / "again"])
    (pair,) = found.pairs
    assert (pair.difference, pair.t_test, pair.p) == (0, None, 1)
    assert pair.sentence == ("dense/run and dense/again are correct on the same 300 held-out images: no difference.")
    assert any("no spread for a t-test" in line for line in found.remarks)
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_a_choice_of_the_epoch_is_part_of_a_run(compared: Path) -> None:
    """An inner hold-out takes images from the training part alone: the folds pair up, each at its own headline."""
    found = compare_runs([compared / "dense" / "run", compared / "inner" / "run"])
    assert [run["epoch"] for run in found.runs] == ["last", "best"]
    assert (
        "Each run is scored at its headline epoch: inner at the best epoch, chosen on an inner hold-out; dense at the last epoch."
        in found.remarks
    )
    inner = CrossValidationResult.load(compared / "inner" / "run")
    assert found.pairs[0].difference == pytest.approx(
        CrossValidationResult.load(compared / "dense" / "run").mean - inner.accuracies.mean()
    )
    t_test = found.pairs[0].t_test
    assert t_test is not None
    mine = CrossValidationResult.load(compared / "dense" / "run").accuracies - inner.accuracies
    half = 4.302653 * sqrt((1 / 3 + 100 / 160) * mine.var(ddof=1))  # the smaller training part's ratio
    assert t_test.high - t_test.difference == pytest.approx(half, rel=1e-5)


def test_a_runs_caveat_stands_beside_the_comparison(compared: Path) -> None:
    found = compare_runs([compared / "patient" / "run", compared / "linear" / "run"])
    (caveat,) = (line for line in found.remarks if line.startswith("Caveat: patient: early stopping used"))
    assert caveat.endswith("The comparison is biased in favour of the runs with this caveat.")


def test_hold_outs_have_mcnemars_test_alone(compared: Path) -> None:
    found = compare_runs([compared / "hold-out-dense" / "run", compared / "hold-out-linear" / "run"])
    (pair,) = found.pairs
    assert pair.t_test is None and pair.out_of_fold.n == 90 and pair.p == pair.out_of_fold.p
    assert pair.difference == pytest.approx(pair.out_of_fold.difference)
    assert any(line.startswith("A hold-out has one score, so there is no t-test.") for line in found.remarks)


def test_two_folds_have_neither_interval_nor_t_test(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_runs([compared / "halves-dense" / "run", compared / "halves-linear" / "run"])
    (pair,) = found.pairs
    assert pair.t_test is None and pair.p == pair.out_of_fold.p
    assert [run["accuracy"]["low"] for run in found.runs] == [None, None]
    assert found.remarks[1].startswith("Two folds give no reliable estimate of the spread, so there is neither")
    assert main([str(compared / "halves-dense" / "run"), str(compared / "halves-linear" / "run")]) == 0
    assert "Corrected resampled t-test" not in capsys.readouterr().out


def test_of_repeats_mcnemars_test_takes_the_first_and_the_t_test_all(compared: Path) -> None:
    found = compare_runs([compared / "twice-dense" / "run", compared / "twice-linear" / "run"])
    (pair,) = found.pairs
    assert pair.out_of_fold.n == 300 and pair.t_test is not None
    runs = [CrossValidationResult.load(compared / f"twice-{name}" / "run") for name in ("dense", "linear")]
    differences = runs[0].accuracies - runs[1].accuracies
    assert len(differences) == 4
    half = 3.182446 * sqrt((1 / 4 + 1) * differences.var(ddof=1))
    assert pair.t_test.high - pair.t_test.difference == pytest.approx(half, rel=1e-5)
    assert (
        "McNemar's test on the held-out images uses the first repeat: the other repeats hold out the same images."
        in found.remarks
    )


def test_repeats_that_hold_out_other_images_are_told_apart(compared: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("twice-dense", "twice-linear")]
    for run in runs:
        shutil.copytree(compared / run.name / "run", run, symlinks=True)
        with np.load(run / "out_of_fold.npz") as file:
            arrays = {name: file[name] for name in file.files}
        arrays["last"][1, :5] = np.nan  # as of a splitter whose repeats hold out images of their own
        np.savez(run / "out_of_fold.npz", **arrays)
    expected = "uses the first repeat: the other repeats hold out wholly or partly other images."
    assert any(line.endswith(expected) for line in compare_runs(runs).remarks)


def test_three_runs_make_three_pairs(compared: Path) -> None:
    found = compare_runs([compared / "dense" / "run", compared / "linear" / "run", compared / "inner" / "run"])
    assert [(pair.a, pair.b) for pair in found.pairs] == [("dense", "linear"), ("dense", "inner"), ("linear", "inner")]
    assert found.sentence.startswith("Of 3 runs, ")
    alone = [
        compare_runs([compared / a / "run", compared / b / "run"]).pairs[0]
        for a, b in (("dense", "linear"), ("dense", "inner"), ("linear", "inner"))
    ]
    assert found.pairs == adjusted(alone)
    assert any("adjusted by Holm's method for 3 pairs" in line for line in found.remarks)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (["dense/run"], "a comparison needs at least two runs, got 1"),
        (["dense/run", "linear/run", "dense/run"], "run .*dense/run is given twice"),
        (["dense/run", "nowhere/run"], "there is no run .*nowhere/run"),
        (
            ["dense/run", "drawn/otherwise"],
            r"dense and drawn were made on different images: SYNTHETIC garments \(300 training",
        ),
        (["dense/run", "relabelled/run"], "dense and relabelled were scored on different test images"),
        (
            ["dense/run", "dense/seed-1"],
            r"dense/run and dense/seed-1 were made on different splits: repeat 0 fold 0 holds out "
            r"different images \(seed 0 and 1\); .* run both with the same seed",
        ),
        (["dense/run", "five/run"], r"different splits: 3 and 5 folds"),
        (["dense/run", "few/run"], r"repeat 0 fold 0 trains on different images \(cv.train_size None and 100\)"),
        (["dense/run", "hold-out-dense/run"], r"3 and 1 folds \(cv.holdout None and 0.3\)"),
        (["linear/run", "dense/run", "dense/seed-1"], "linear/run and dense/seed-1 were made on different splits"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(compared: Path, runs: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        compare_runs([compared / run for run in runs])


def test_other_splits_are_noticed_by_their_indices_whatever_the_settings_say(compared: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(compared / "linear" / "run", tmp_path / "run", symlinks=True))
    with np.load(run / "splits.npz") as file:
        arrays = {name: file[name] for name in file.files}
    first, second = "repeat_0_fold_1_validation", "repeat_0_fold_2_validation"
    arrays[first], arrays[second] = arrays[second], arrays[first]
    np.savez(run / "splits.npz", **arrays)
    with pytest.raises(UserError, match="repeat 0 fold 1 holds out different images; scores are paired by fold"):
        compare_runs([compared / "dense" / "run", run])


def test_a_run_without_its_test_labels_says_how_to_add_them(compared: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(compared / "linear" / "run", tmp_path / "run", symlinks=True))
    with np.load(run / "out_of_fold.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "test_labels"}
    np.savez(run / "out_of_fold.npz", **arrays)
    found = compare_runs([compared / "dense" / "run", run])
    assert found.pairs[0].test is None and found.pairs[0].t_test is not None
    (line,) = (line for line in found.remarks if line.startswith("Not compared on the test set: linear,"))
    assert line.endswith(f"python -m fmnist_cv.fit --resume {run}")


@pytest.mark.parametrize("rope", [0, -0.005, 1, float("nan")])
def test_a_region_of_equivalence_that_is_none_is_refused(compared: Path, rope: float) -> None:
    with pytest.raises(
        UserError, match=r"the region of practical equivalence is .* points; it must be between 0 and 100"
    ):
        compare_runs([compared / "dense" / "run", compared / "linear" / "run"], rope)


def test_a_wider_region_of_equivalence_makes_runs_more_equal(compared: Path) -> None:
    runs = [compared / "dense" / "run", compared / "linear" / "run"]
    narrow, wide = (compare_runs(runs, rope).pairs[0] for rope in (0.001, 0.2))
    assert narrow.chances is not None and wide.chances is not None
    assert wide.chances.equal > narrow.chances.equal
    assert replace(wide, rope=0.001, chances=None) == replace(narrow, chances=None)


# -- the command --------------------------------------------------------------------------------------------


def test_the_command_as_a_process(compared: Path, tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"

    def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fmnist_cv.compare", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=compared)

    found = compare("dense/run", "linear/run", "--rope", "1", "--json", str(file))
    assert (found.returncode, found.stderr) == (0, "")
    (pair,) = json.loads(file.read_text())["pairs"]
    assert found.stdout.rstrip().endswith(pair["sentence"])
    assert pair["rope"] == 0.01 and "within 1" in found.stdout
    assert f"{100 * pair['difference']:+.2f}" in found.stdout
    for what in ("dense", "linear", "held-out images", "test set", "Cohen's g", "SYNTHETIC"):
        assert what in found.stdout, what
    refused = compare("dense/run", "dense/seed-1")
    assert refused.returncode == 2 and refused.stdout == ""
    assert (
        refused.stderr.startswith("error: dense/run and dense/seed-1 were made on different splits")
        and "Traceback" not in refused.stderr
    )


def two(compared: Path) -> list[str]:
    return [str(compared / name / "run") for name in ("dense", "linear")]


def test_several_runs_have_a_sentence_each_and_one_of_all(compared: Path, capsys: Any) -> None:
    assert main([str(compared / name / "run") for name in ("dense", "linear", "inner")]) == 0
    out = capsys.readouterr().out
    assert out.count("\n- ") == 3 and "\nOf 3 runs, " in out and "1 - 2" in out and "2 - 3" in out


def test_nothing_is_overwritten(compared: Path, capsys: Any) -> None:
    results = compared / "dense" / "run" / "results.json"
    before = results.read_bytes()
    assert main([*two(compared), "--json", str(results)]) == 2
    assert "results.json exists; give --json another name" in capsys.readouterr().err
    assert results.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "a comparison needs at least two runs, got 0"),
        (["nowhere", "there"], "there is no run nowhere"),
        (
            ["nowhere", "there", "--rope", "wide"],
            "--rope: 'wide' is not a number; see python -m fmnist_cv.compare --help",
        ),
        (["nowhere", "there", "--rope", "0"], "the region of practical equivalence is 0 points"),
        (["nowhere", "there", "--ropes", "1"], "'ropes' is not an option; did you mean 'rope'?"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], reason: str, capsys: Any) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and reason in error and error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_told(compared: Path, tmp_path: Path, capsys: Any) -> None:
    assert main([*two(compared), "--json", str(tmp_path / "nowhere" / "comparison.json")]) == 2
    error = capsys.readouterr().err
    assert f"comparison.json: there is no folder {tmp_path / 'nowhere'}; choose another with --json" in error
