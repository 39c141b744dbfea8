"""The page and its data: complete, small, safe, of any kind of run."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from running import Commands

from fmnist_cv import CrossValidationResult
from fmnist_cv.analysis.tables import percent, summary_lines
from fmnist_cv.errors import UserError
from fmnist_cv.fit import show
from fmnist_cv.report import main
from fmnist_cv.reporting import page
from fmnist_cv.reporting.page import write_report

MakeRun = Callable[..., CrossValidationResult]
Noise = Callable[..., np.ndarray]


def data_of(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


class Nesting(HTMLParser):
    """Fails where a tag is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "input"):
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def check(result: CrossValidationResult) -> tuple[str, dict[str, Any]]:
    """Build the report; check that each cell's images are as many as the cell counts, all mistakes among them."""
    text = write_report(result).read_text()
    data = data_of(text)
    for name in ("out_of_fold", "test"):
        report, part = result.summary[f"{name}_report"], data["parts"].get(name)
        assert (report is None) == (part is None)
        if part is None:
            continue
        assert part["matrix"] == report["confusion_matrix"]
        counted = np.zeros_like(part["matrix"])
        np.add.at(counted, (part["label"], part["predicted"]), part["votes"])
        wrong = ~np.eye(len(counted), dtype=bool)
        assert (counted[wrong] == np.array(part["matrix"])[wrong]).all()
        assert (counted <= np.array(part["matrix"])).all()

    parser = Nesting()
    parser.feed(text)
    assert parser.opened == []
    return text, data


def test_the_page_tells_what_the_run_found_and_needs_nothing_else(garments: CrossValidationResult) -> None:
    text, data = check(garments)
    without_pictures = re.sub(r"url\(data:image/webp;base64,[\w+/=]+\)", "", text).replace(json.dumps(data), "")
    assert len(without_pictures) < len(text)
    assert re.findall(r"https?:|url\(|@import|\ssrc=|<link", without_pictures) == []
    summary, accuracy = garments.summary, garments.summary["headline"]["accuracy"]
    for number in (accuracy["mean"], accuracy["sd"], summary["ensemble"]["last"]["accuracy"]):
        assert f"{100 * number:.2f}" in text
    assert "SYNTHETIC data." in text and "<title>SYNTHETIC: garments / run" in text
    assert summary["environment"]["commit"] is None or summary["environment"]["commit"] in text
    for row in summary["out_of_fold_report"]["per_class"].values():
        assert f"<td>{100 * row['f1']:.2f}</td>" in text
    assert data["names"][0] == "T-shirt/top"


def test_a_class_that_a_fold_has_no_training_image_of_is_told(make_run: MakeRun, noise: Noise) -> None:
    labels = np.arange(60) % 2
    labels[17] = 2
    result = make_run({"images": noise(60, 6, 6), "labels": labels}, cv__stratify=False)
    fold = next(f"fold_{split.fold}" for split in result.splits if 17 in split.validation)
    assert result.summary["untrained_classes"] == {fold: ["2"]}
    sentence = f"the training part of {fold} has no image of the class 2: its model cannot learn it"
    for shown in (
        check(result)[0],
        (result.path / "report.md").read_text(),
        *map(str, [summary_lines(result.summary)]),
    ):
        assert sentence in shown.replace("\\_", "_")
    assert "may be mistakes of the model" in check(result)[0]  # noise: the model guesses


@pytest.mark.parametrize("n_splits", [2, 3])
def test_the_interval_is_a_possible_one_or_a_sentence_says_why_there_is_none(
    make_run: MakeRun, noise: Noise, n_splits: int
) -> None:
    """On the page, its chart, the terminal and in report.md; of runs of older versions, too."""
    result = make_run({"images": noise(60, 6, 6), "labels": np.arange(60) % 2}, cv__n_splits=n_splits)
    path = result.path / "results.json"
    results = json.loads(path.read_text())
    del results["digest"]  # as an older version wrote it
    results["headline"]["accuracy"] |= {"sd": 0.3, "low": -2.471, "high": 3.2510}
    path.write_text(json.dumps(results))
    for run in (result, CrossValidationResult.load(result.path)):
        accuracy = run.summary["headline"]["accuracy"]
        text = write_report(run).read_text()
        shown = [text, (result.path / "report.md").read_text(), *summary_lines(run.summary)]
        assert not any("-247" in place or "325.1" in place for place in shown)
        for place in shown[:3]:
            if n_splits == 2:
                assert "no interval: two scores give no reliable estimate of the spread" in place
                assert "corrected 95 % confidence interval" not in place
            elif place is not shown[1] or run is result:
                assert (
                    f"corrected 95 % confidence interval {percent(accuracy['low'])} to {percent(accuracy['high'])}"
                    in place
                )
        assert text.count('class="box interval"') == (n_splits == 3)
        assert n_splits == 2 or 0 <= accuracy["low"] <= accuracy["high"] <= 1


def test_probabilities_are_those_of_the_models_to_half_a_step(garments: CrossValidationResult) -> None:
    parts = data_of((garments.path / "report.html").read_text())["parts"]
    tests = garments.test_probabilities()
    assert tests is not None
    for name, truth in (
        ("out_of_fold", garments.out_of_fold()[0]),
        ("test", tests.mean(0)),
        ("suspects", garments.out_of_fold()[0]),
    ):
        part = parts[name]
        classes, steps = (
            np.frombuffer(base64.b64decode(part[key]), np.uint8).reshape(-1, 10) for key in ("classes", "probabilities")
        )
        numbers = np.array(part["number"])
        assert (
            np.abs(steps / 255 - np.take_along_axis(truth[numbers], classes.astype(int), 1)).max() <= 0.5 / 255 + 1e-6
        )
        assert (classes[:, 0] == part["predicted"]).all()
    folds = np.array(parts["out_of_fold"]["fold"])
    for i, split in enumerate(garments.splits):
        assert set(np.array(parts["out_of_fold"]["number"])[folds == i]) <= set(split.validation.tolist())


def test_the_page_stays_under_its_limit_and_says_what_is_missing(
    garments: CrossValidationResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if the limit were so low that only some mistakes fit: said on the page, and evenly from all cells."""
    monkeypatch.setattr(page, "LIMIT", 200_000)
    run = CrossValidationResult.load(shutil.copytree(garments.path, tmp_path / "run", symlinks=True))
    monkeypatch.setattr(page, "ERRORS", 5)
    monkeypatch.setattr(page, "GROUPS", 5)
    whole = write_report(run).stat().st_size
    assert whole <= 200_000
    monkeypatch.setattr(page, "LIMIT", whole - 25_000)
    text = write_report(run).read_text()
    assert len(text.encode()) <= whole - 25_000
    assert re.search(
        r"Out of fold: [\d,]+ of [\d,]+ misclassified images are included, the most confident ones of each cell", text
    )
    assert "compressed (WebP, quality 50)" in text


def test_names_cannot_break_out_of_the_page(make_run: MakeRun, noise: Noise) -> None:
    evil = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'&lt;"]
    result = make_run({"images": noise(30, 6, 6), "labels": np.arange(30) % 3, "class_names": np.array(evil)})
    text, data = check(result)
    assert data["names"] == evil
    assert evil[0] not in text and evil[1] not in text
    assert text.count("<script") == 2


def test_with_repeats_an_image_stands_once_in_each_cell_that_it_was_put_into(make_run: MakeRun, noise: Noise) -> None:
    result = make_run({"images": noise(60, 6, 6), "labels": np.arange(60) % 3}, cv__n_repeats=3)
    text, data = check(result)
    part = data["parts"]["out_of_fold"]
    seen = list(zip(part["number"], part["predicted"], strict=True))
    assert len(set(seen)) == len(seen)
    assert max(part["votes"]) > 1 and sum(map(sum, part["matrix"])) == 180
    assert "once in each cell" in text and "fold" not in part


def test_a_holdout_without_a_test_set(make_run: MakeRun, noise: Noise) -> None:
    images, labels = noise(60, 6, 6), np.arange(60) % 2
    images[59] = images[1]
    result = make_run({"images": images, "labels": labels}, cv__holdout="first:20")
    text, data = check(result)
    console = Console(file=io.StringIO(), width=200)
    show(result, console)
    assert isinstance(console.file, io.StringIO)
    for place in (text, (result.path / "report.md").read_text(), console.file.getvalue()):
        assert "validation, best" in place and "test, last" not in place and "test, best" not in place
    assert "no test set" in text and "the other 40 have no out-of-fold prediction" in text
    assert "One fold gives no estimate" in text and "test" not in data["parts"]
    assert max(data["parts"]["out_of_fold"]["number"]) < 20
    suspects = data["parts"]["suspects"]
    assert suspects["predicted"][suspects["number"].index(59)] == -1


SHUFFLED = {"class_path": "ShuffleSplit", "init_args": {"n_splits": 2, "test_size": 0.6}}


@pytest.mark.parametrize(
    ("cv", "said", "another_seed"),
    [
        ({"cv__splitter": "KFold"}, "5 folds given by cv.splitter KFold;", ", but the same folds"),
        ({"cv__splitter": SHUFFLED}, "1 fold given by cv.splitter ShuffleSplit, repeated 2 times;", "folds, "),
        ({}, "2 stratified folds;", "folds, "),
        ({"cv__holdout": "first:10"}, "hold-out first:10;", ", but the same folds"),
    ],
)
def test_how_the_folds_were_made_is_told(
    make_run: MakeRun, noise: Noise, cv: dict[str, Any], said: str, another_seed: str
) -> None:
    cv = {"cv__n_splits": None} | cv if "cv__splitter" in cv else cv
    result = make_run({"images": noise(60, 8, 8), "labels": np.arange(60) % 2}, report=False, **cv)
    text = " ".join(write_report(result).read_text().split())
    assert said in text and (" stratified folds" in text) == (not cv)
    shown = "initial weights and scores"
    shown = f"{another_seed}{shown}" if another_seed == "folds, " else f"{shown}{another_seed}"
    assert f"Another seed gives different {shown}." in text


def test_colours_many_classes_and_large_images(make_run: MakeRun, noise: Noise) -> None:
    labels = np.arange(186) % 62
    result = make_run(
        {
            "images": noise(186, 40, 60, 3),
            "labels": labels,
            "test_images": noise(62, 40, 60, 3),
            "test_labels": np.arange(62),
        }
    )
    text, data = check(result)
    assert data["tile"] | {"height": 21, "width": 32} == data["tile"] and "scaled to 32 × 21 px" in text
    assert data["likeliest"] == 10 and "for the 10 most probable classes" in text
    part = data["parts"]["out_of_fold"]
    classes = np.frombuffer(base64.b64decode(part["classes"]), np.uint8).reshape(-1, 10)
    assert (classes == np.array(part["label"])[:, None]).any(1).all()


def test_a_class_without_images_and_an_early_stop_with_its_caveat(make_run: MakeRun, noise: Noise) -> None:
    arrays = {"images": noise(40, 6, 6), "labels": np.arange(40) % 2, "class_names": np.array(["a", "b", "never"])}
    text, _ = check(make_run(arrays, trainer__max_epochs=4, selection__patience=1))
    assert "Caveat." in text and "arly stopping used the images that are scored" in text


def test_a_changed_run_is_refused_and_its_report_kept(garments: CrossValidationResult, tmp_path: Path) -> None:
    run = Path(shutil.copytree(garments.path, tmp_path / "run", symlinks=True))
    before = (run / "report.html").read_bytes()
    arrays = dict(np.load(run / "out_of_fold.npz"))
    arrays["last"][0, :50] = arrays["last"][0, 50:100]
    np.savez(run / "out_of_fold.npz", **arrays)
    with pytest.raises(UserError, match="do not add up to the confusion matrix"):
        write_report(CrossValidationResult.load(run))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("n_test: 200", "n_test: 100"))
    with pytest.raises(UserError, match="n_test is 100, but the run was started with 200"):
        write_report(CrossValidationResult.load(run))
    info = json.loads((run / "run.json").read_text())
    older = {key: value for key, value in info.items() if key not in ("settings", "digest")}
    (run / "run.json").write_text(json.dumps(older))
    with pytest.raises(UserError, match="was scored on other test images than SYNTHETIC garments has now"):
        write_report(CrossValidationResult.load(run))
    assert (run / "report.html").read_bytes() == before


# -- the command --------------------------------------------------------------------------------------------


def test_the_command_builds_the_same_report_anew(
    commands: Commands, garments: CrossValidationResult, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(garments.path, tmp_path / "run", symlinks=True))
    before = {name: (run / name).read_bytes() for name in ("report.html", "label_issues.csv")}
    for name in before:
        (run / name).unlink()
    ended = commands.run(run, command="report")
    assert (ended.status, ended.err) == (0, "")
    trust, *files = ended.out.splitlines()
    assert "may be mistakes of the model" in trust  # after an epoch or two
    assert files == [f"Report:        {run}/report.html", f"Label issues:  {run}/label_issues.csv"]
    assert {name: (run / name).read_bytes() for name in before} == before
    assert set(pd.read_csv(run / "label_issues.csv")["kind"]) <= {"label_error", "near_duplicate", "outlier"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["nowhere"], "there is no run nowhere"), (["."], "is not a run"), ([], "RUN"), (["a", "--best"], "best")],
)
def test_a_users_mistake_ends_with_status_2(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and reason in err and "Traceback" not in err


def test_help_shows_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m fmnist_cv.report lightning_logs/" in capsys.readouterr().out
