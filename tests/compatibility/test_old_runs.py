"""Runs and a study that an older version made still open, compare, and go on with the scores they would have had.

`made_at_14b8546.tar.gz` was made with commit 14b8546: `old.yaml` cross-validated (`finished`), the same with four epochs
and killed after the first epoch of fold_1 (`interrupted`), and `search.yaml` killed after the first fold of its second
trial. Uninterrupted, that version gave the accuracies below.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import optuna
import pytest

from fmnist_cv.analysis.compared_runs import compare_runs
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.cross_validation import cross_validate
from fmnist_cv.inference import evaluate_run
from fmnist_cv.search.journal import open_journal
from fmnist_cv.search.records import CompletedTrial, completed_trials, ranked, read_summary, read_table
from fmnist_cv.search.tuning import tune

OLD_STUDY = Path(__file__).parents[2] / "experiments" / "search" / "sharifi-cnn-tpe"  # "given_up" instead of "pruned"
ARCHIVE = Path(__file__).with_name("made_at_14b8546.tar.gz")
FINISHED = [6 / 30, 8 / 30, 7 / 30]
INTERRUPTED = [8 / 30, 10 / 30, 9 / 30]
TRIALS = {  # learning rate: accuracy of each fold
    0.04043878009515104: [4 / 45, 6 / 45],
    0.831130369212817: [6 / 45, 11 / 45],
    0.0489713531663473: [4 / 45, 8 / 45],
    0.027385487761399943: [3 / 45, 6 / 45],
}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the old files, as the working folder: old configs name their log folder relative to it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_finished_run_opens_and_scores_the_same(old: Path) -> None:
    run = CrossValidationResult.load(old / "runs/old/finished")
    assert list(run.accuracies) == pytest.approx(FINISHED)
    evaluation, _ = evaluate_run(run.path)
    test = [evaluation["scores"][f"fold_{i}"]["accuracy"] for i in range(3)]
    assert run.test_accuracies is not None and test == pytest.approx(list(run.test_accuracies))
    again = cross_validate("old.yaml", {"log_dir": "runs"}, resume="finished")
    assert list(again.accuracies) == pytest.approx(FINISHED)


def test_its_results_are_read_in_the_present_format(old: Path) -> None:
    path = old / "runs/old/finished/results.json"
    written = json.loads(path.read_text())
    assert written["format"] == 1 and written["cv"]["n_splits"] == 3
    summary = CrossValidationResult.load(path.parent).summary
    assert summary["format"] == 2 and summary["cv"]["folds_per_repeat"] == 3 and "n_splits" not in summary["cv"]
    older = {key: value for key, value in written.items() if key not in ("digest", "format", "untrained_classes")}
    del older["data"]["test_fingerprint"], older["cv"]["train_size"]
    path.write_text(json.dumps(older))
    summary = CrossValidationResult.load(path.parent).summary
    assert summary["untrained_classes"] == {}
    assert summary["data"]["test_fingerprint"] is summary["cv"]["train_size"] is None


def test_an_interrupted_run_goes_on_and_compares(old: Path) -> None:
    run = cross_validate("old.yaml", {"log_dir": "runs", "trainer.max_epochs": 4}, resume="interrupted")
    assert list(run.accuracies) == pytest.approx(INTERRUPTED)
    pair = compare_runs([old / "runs/old/finished", run]).pairs[0]
    assert pair.difference == pytest.approx(-2 / 30)


def test_an_interrupted_study_goes_on_with_the_same_draws(old: Path) -> None:
    result = tune("search.yaml", {"log_dir": "runs", "confirm": None}, workers=1)
    scores = {
        trial.params["model.optimizer.init_args.lr"]: CompletedTrial.read(trial).fold_scores
        for trial in result.study.trials
        if trial.state.name == "COMPLETE"
    }
    assert list(scores) == pytest.approx(list(TRIALS))
    assert list(scores.values()) == [pytest.approx(folds) for folds in TRIALS.values()]


def test_pruned_trials_of_an_old_study_are_read(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    shutil.copyfile(OLD_STUDY / "study.journal", journal)
    assert '"given_up":"after folds"' in journal.read_text(encoding="utf-8")
    study = optuna.load_study(study_name=OLD_STUDY.name, storage=open_journal(journal))
    trials, summary, table = (
        completed_trials(study.get_trials()),
        read_summary(OLD_STUDY / "search.json"),
        read_table(OLD_STUDY / "trials.csv"),
    )
    n_pruned = sum(trial.pruned == "after folds" for trial in trials)
    assert n_pruned == summary["trials"]["pruned_after_folds"] == table["pruned"].notna().sum() == 11
    best_first = ranked(trials)
    assert len(best_first) == len(trials) - n_pruned and best_first[0].number == summary["winner"]["trial"]
    assert best_first[0].fold_scores == summary["winner"]["folds"]
