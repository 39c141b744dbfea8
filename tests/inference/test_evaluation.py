"""A run's networks scored again: its own test set comes out the same, other images are matched by class and shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, strategies as st
from running import Commands

from fmnist_cv import evaluate
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.data import Images
from fmnist_cv.data.synthetic_images import CLASS_NAMES, make_synthetic_images
from fmnist_cv.errors import UserError
from fmnist_cv.inference import evaluation as evaluation_module
from fmnist_cv.inference.evaluation import evaluate_run
from fmnist_cv.inference.named_data import match_labels

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes synthetic images to new.npz, or the arrays given."""

    def write(name: str = "new.npz", **arrays: Any) -> Path:
        images, labels = make_synthetic_images(60, seed=9)
        named = {"images": images, "labels": labels, "class_names": np.array(CLASS_NAMES)} | arrays
        np.savez(tmp_path / name, **{key: value for key, value in named.items() if value is not None})
        return tmp_path / name

    return write


def test_images_seen_in_training_are_counted_without_reading_their_pixels_again(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CrossValidationResult.load(own_run)
    train = result.data.train_images
    digests = torch.from_numpy(np.frombuffer(b"".join(train.pixel_digests()), dtype=np.uint8).reshape(-1, 16).copy())
    result.data.train_images = stored = replace(train, digests=digests)
    monkeypatch.setattr(Images, "chunks", None)  # fails if it is called
    assert evaluation_module._n_seen(result, stored.subset(torch.arange(7))) == 7


def test_the_runs_own_test_scores_come_out_again(own_run: Path) -> None:
    evaluation, folder = evaluate_run(own_run)
    results = json.loads((own_run / "results.json").read_text())
    for fold in results["folds"]:
        assert evaluation["scores"][fold["name"]]["accuracy"] == pytest.approx(fold["last"]["test"]["accuracy"])
        assert evaluation["scores"][fold["name"]]["nll"] == pytest.approx(fold["last"]["test"]["loss"], rel=1e-4)
    assert evaluation["scores"]["ensemble"]["accuracy"] == pytest.approx(results["ensemble"]["last"]["accuracy"])
    assert evaluation["scores"]["ensemble"]["wilson"] == pytest.approx(results["ensemble"]["last"]["wilson"])
    for key, value in results["test_report"].items():
        assert evaluation["report"][key] == (
            value if isinstance(value, list | dict) else pytest.approx(value, rel=1e-4)
        )
    assert evaluation["baseline"]["accuracy"] == pytest.approx(0.1)  # the drawn classes are equally frequent
    assert evaluation["baseline"]["macro_f1"] == pytest.approx(2 * 0.1 / 1.1 / 10)
    own = evaluation["against_the_run"]
    assert own["other_answers"] == 0 and own["largest_difference_of_a_probability"] < 1e-5
    assert folder == own_run / "evaluations" / "SYNTHETIC_garments-test"
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(evaluation))
    page = (folder / "evaluation.md").read_text()
    assert "The run's own test scores are reproduced: equal predictions" in page and "| always " in page

    refit, folder = evaluate_run(own_run, model="refit")
    assert list(refit["scores"]) == ["refit"] == [refit["voted"]]
    assert refit["scores"]["refit"]["accuracy"] == pytest.approx(results["refit"]["test_accuracy"])
    assert folder.name == "SYNTHETIC_garments-test-refit"
    best, _ = evaluate_run(own_run, model="best")
    assert list(best["scores"]) == [results["best_fold"]["name"]]
    assert best["against_the_run"]["other_answers"] == refit["against_the_run"]["other_answers"] == 0


def test_scores_that_do_not_come_out_again_are_told(own_run: Path) -> None:
    shutil.copy(own_run / "fold_0" / "last.ckpt", own_run / "fold_1" / "last.ckpt")
    evaluation, folder = evaluate_run(own_run)
    own = evaluation["against_the_run"]
    assert own["other_answers"] > 0 and own["accuracies_then"] != own["accuracies_now"]
    text = (folder / "evaluation.md").read_text()
    assert f"are not reproduced: {own['other_answers']} predictions differ" in text


def test_new_images_are_matched_by_the_names_of_their_classes(own_run: Path, save: Save) -> None:
    plain, folder = evaluate_run(own_run, save())
    assert folder == own_run / "evaluations" / "new-train" and plain["against_the_run"] is None and plain["n"] == 60
    images, labels = make_synthetic_images(60, seed=9)
    order = np.random.default_rng(0).permutation(10)
    shuffled = save("shuffled.npz", labels=np.argsort(order)[labels], class_names=np.array(CLASS_NAMES)[order])
    mapped, _ = evaluate_run(own_run, shuffled)
    assert mapped["scores"] == plain["scores"] and mapped["report"] == plain["report"]
    few = labels < 4
    some = save("some.npz", images=images[few], labels=labels[few], class_names=np.array(CLASS_NAMES[:4]))
    report = evaluate_run(own_run, some)[0]["report"]
    assert report["n"] == few.sum() and report["per_class"]["Bag"]["support"] == 0


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), min_size=1))
def test_matched_labels_name_the_same_classes(order: list[int], labels: list[int]) -> None:
    known = ("a", "b", "c", "d", "e")
    names = tuple(known[i] for i in order)
    images = Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels), names)
    assert [known[i] for i in match_labels(images, known)] == [names[i] for i in labels]


def test_data_are_named_by_file_config_or_class(own_run: Path, save: Save, tmp_path: Path) -> None:
    both = save(
        "both.npz", test_images=make_synthetic_images(20, seed=8)[0], test_labels=make_synthetic_images(20, seed=8)[1]
    )
    assert evaluate_run(own_run, both)[0]["n"] == 20  # test images where there are any
    whole, folder = evaluate_run(own_run, both, "train")
    assert whole["n"] == 60 and folder.name == "both-train"
    config = {
        "data": {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_test": 30, "drawing_seed": 3}}
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
    assert evaluate_run(own_run, tmp_path / "data.yaml", out=tmp_path / "elsewhere")[0]["n"] == 30
    named = evaluate_run(own_run, "fmnist_cv.data.SyntheticDataModule", out=tmp_path / "named")[0]
    assert named["n"] == 2000 and (tmp_path / "named" / "evaluation.md").is_file()


def test_data_that_do_not_fit_are_refused_with_the_reason(own_run: Path, save: Save, tmp_path: Path) -> None:
    def refused(reason: str, data: str | Path | None, **how: Any) -> None:
        with pytest.raises(UserError, match=reason):
            evaluate_run(own_run, data, **how)

    refused("was trained on, so that their scores would be optimistically biased", None, part="train")
    weighted = CrossValidationResult.load(own_run).data
    weighted.train_images = replace(weighted.train_images, weights=torch.ones(len(weighted.train_images)))
    refused("was trained on", weighted, part="train")
    refused("classes 0, 1, .* which the models do not know; they know T-shirt/top", save(class_names=None))
    refused(
        r"new have the shape \(1, 32, 32\), but the run's models take \(1, 28, 28\)",
        save(images=np.zeros((60, 32, 32), np.uint8)),
    )
    refused("new has no test images; leave out --part test", save(), part="test")
    refused("data file .*gone.npz does not exist", tmp_path / "gone.npz")
    (tmp_path / "empty").mkdir()
    refused("empty holds no folders; it needs one for each class", tmp_path / "empty")
    refused("there is no such folder or file; give a folder", "photoz/")
    (tmp_path / "text.png").write_text("I am no image")
    refused(
        "text.png contains no options: it must be a mapping of keys to values; give a folder",
        tmp_path / "text.png",
    )
    refused("data file .*gone.NPZ does not exist", tmp_path / "gone.NPZ")
    refused("config .*gone.yaml does not exist", tmp_path / "gone.yaml")
    refused("config quickstrat does not exist; did you mean 'quickstart'", "quickstrat")
    refused("there is no module 'my_gone_module'", "my_gone_module.MyData")
    (tmp_path / "no.yaml").write_text("name: x")
    refused("no.yaml has no section data", tmp_path / "no.yaml")
    misspelt = {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_tset": 3}}
    (tmp_path / "misspelt.yaml").write_text(yaml.safe_dump({"data": misspelt}))
    refused("'n_tset' is not an option of .*did you mean 'n_test'", tmp_path / "misspelt.yaml")
    assert not (own_run / "evaluations").exists()


def test_another_evaluation_is_not_overwritten(own_run: Path, save: Save) -> None:
    _, folder = evaluate_run(own_run, save())
    first = (folder / "evaluation.json").read_text()
    evaluate_run(own_run, save())  # the same again
    images, labels = make_synthetic_images(60, seed=10)
    with pytest.raises(UserError, match="holds another evaluation and is not overwritten; give another folder"):
        evaluate_run(own_run, save(images=images, labels=labels))
    with pytest.raises(UserError, match="holds another evaluation"):
        evaluate_run(own_run, out=folder)
    assert json.loads((folder / "evaluation.json").read_text())["fingerprint"] == json.loads(first)["fingerprint"]


def test_the_command_as_a_process(commands: Commands, own_run: Path, tmp_path: Path) -> None:
    ended = commands.run(own_run, "--out", tmp_path / "out", command="evaluate")
    assert ended.status == 0, ended.err
    for text in ("fold_2", "ensemble", "always T-shirt/top", "9 Ankle boot", "are reproduced", "SYNTHETIC"):
        assert text in ended.out
    assert str(tmp_path / "out" / "evaluation.md") in ended.out


def test_mistakes_of_the_command_end_with_status_2(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run")
    assert evaluate.main([str(own_run), "--part", "train"]) == 2
    (tmp_path / "file").touch()
    assert evaluate.main([str(own_run), "--out", str(tmp_path / "file" / "below")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err
