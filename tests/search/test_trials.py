"""Trials run fold by fold: completed, resumed, pruned, failed; the study stores every outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from fmnist_cv.cross_validation import FoldsFailed, cross_validate
from fmnist_cv.engine.fold import FoldJob
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.errors import CannotWrite, UserError
from fmnist_cv.search import dispatch, trials, tuning
from fmnist_cv.search.epoch_rule import score_if_pruned
from fmnist_cv.search.journal import open_journal
from fmnist_cv.search.records import CURVES, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUN, SECONDS, CompletedTrial
from fmnist_cv.search.space import values_of
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.search.study import open_study
from fmnist_cv.search.trials import TrialsFailed
from fmnist_cv.search.tuning import SearchResult, as_search, tune
from fmnist_cv.tune import main, show

DROPOUT = {"model.dropout": {"float": [0.0, 0.5]}}


def fold_scores(trial: FrozenTrial) -> list[float]:
    return CompletedTrial.read(trial).fold_scores


def states(result: SearchResult) -> list[TrialState]:
    return [trial.state for trial in result.study.get_trials(deepcopy=False)]


def test_a_trial_is_the_cross_validation_of_its_configuration(searched: dict[str, Any], tmp_path: Path) -> None:
    result = tune(searched | {"trials": 2, "space": DROPOUT}, workers=2)
    assert states(result) == [TrialState.COMPLETE] * 2
    trial = result.study.trials[1]
    alone = cross_validate(result.search.experiment(values_of(result.search.space, trial.params), name="alone"))
    assert fold_scores(trial) == [float(accuracy) for accuracy in alone.accuracies]
    assert trial.value == pytest.approx(alone.mean) and trial.user_attrs[PRUNED] is None
    assert sorted(result.table["seconds"]) == sorted(t.user_attrs[SECONDS] for t in result.study.trials)
    assert [len(curve) for curve in trial.user_attrs[CURVES]] == [1, 1, 1]
    assert result.winner.value == max(t.value for t in result.study.trials)
    assert not list((tmp_path / "logs" / "study").rglob("events.out*fold*"))
    runs = {path.parts[-3] for path in result.path.glob("trial_*/fold_*/best.ckpt")}
    assert runs == {f"trial_{result.winner.number:04}"}  # those of the others would fill the disk


def test_a_trials_seconds_do_not_depend_on_the_time_of_day() -> None:
    noon = datetime(2026, 1, 1, 12)
    trial = optuna.trial.create_trial(value=0.5, user_attrs={RUN: "trial", SECONDS: 7.5})
    trial.datetime_start, trial.datetime_complete = noon, noon + timedelta(days=10)
    assert CompletedTrial.read(trial).seconds == 7.5
    old = optuna.trial.create_trial(value=0.5, user_attrs={RUN: "trial"})
    old.datetime_start, old.datetime_complete = noon, noon + timedelta(seconds=9)
    assert CompletedTrial.read(old).seconds == 9


def test_a_full_disk_fails_no_trial(searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the search, also of a grid, whose points are not drawn again when they failed by themselves."""
    search = as_search(searched | {"sampler": "grid", "space": {"model.dropout": {"choices": [0.0, 0.5]}}, "trials": 2})
    with monkeypatch.context() as patch:
        patch.setattr(trials, "prepare_run", lambda *args, **options: full_disk())
        with pytest.raises(CannotWrite, match="No space left"):
            tune(search, workers=1)
    found = list(open_study(search, StudyStorage(str(search.folder / "study.journal"), 1)).get_trials())
    assert [(trial.state, trial.user_attrs[INTERRUPTED]) for trial in found] == [
        (TrialState.FAIL, "the search was interrupted")
    ]


def full_disk() -> None:
    raise CannotWrite("cannot write the run folder x: No space left on device")


def test_a_journal_on_a_full_disk_is_reported_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_journal(tmp_path / "study.journal")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(CannotWrite, match=f"cannot write the study's journal {tmp_path}/study.journal: No space left"):
        optuna.create_study(storage=storage)


def test_the_test_set_is_not_scored(searched: dict[str, Any], tmp_path: Path) -> None:
    tune(searched | {"trials": 1, "space": DROPOUT}, workers=1)
    metrics = list((tmp_path / "logs" / "study").glob("trial_0000/fold_*/metrics.json"))
    assert len(metrics) == 3
    assert all("test" not in json.loads(path.read_text())["last"] for path in metrics)


def test_a_study_resumes(searched: dict[str, Any]) -> None:
    first = tune(searched | {"trials": 1}, workers=1)
    more = tune(searched | {"trials": 3}, workers=2)
    assert states(more) == [TrialState.COMPLETE] * 3
    assert more.study.trials[0].params == first.study.trials[0].params
    assert len({str(trial.params) for trial in more.study.trials}) == 3
    again = tune(searched | {"trials": 2}, workers=1)  # fewer than there are: nothing to run
    assert len(again.study.trials) == 3


def test_a_study_of_another_search_is_refused(searched: dict[str, Any]) -> None:
    tune(searched | {"trials": 1, "space": DROPOUT}, workers=1)
    with pytest.raises(UserError, match=r"study study in .* was created with another space"):
        tune(searched | {"trials": 2}, workers=1)


def test_a_study_older_than_an_option_resumes_with_its_default(searched: dict[str, Any], tmp_path: Path) -> None:
    first = tune(searched | {"trials": 1, "space": DROPOUT}, workers=1)
    journal, option = first.path / "study.journal", '"model.init_args.lr_scheduler_monitor":"val/loss",'
    text = journal.read_text(encoding="utf-8")
    assert option in text
    journal.write_text(text.replace(option, ""), encoding="utf-8")
    assert len(tune(searched | {"trials": 1, "space": DROPOUT}, workers=1).study.trials) == 1
    changed = searched | {"overrides": {"model.lr_scheduler_monitor": "train/loss"}}
    with pytest.raises(UserError, match=r"was created with another experiment"):
        tune(changed | {"trials": 1, "space": DROPOUT}, workers=1)


def test_folders_of_a_lost_study_are_not_reused(searched: dict[str, Any]) -> None:
    first = tune(searched | {"trials": 1, "space": DROPOUT}, workers=1)
    (first.path / "study.journal").unlink()
    with pytest.raises(UserError, match=r"trial_0000 exists, but the study in .* has no such trial"):
        tune(searched | {"trials": 1, "space": DROPOUT}, workers=1)


def test_a_trial_whose_dispatch_was_not_acknowledged_is_requeued(
    searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    suggest, dropped = dispatch.suggest, []

    def drop(*arguments: Any) -> None:
        suggest(*arguments)
        if not dropped:
            dropped.append(1)
            raise StorageInternalError("the connection was lost")

    monkeypatch.setattr(dispatch, "suggest", drop)
    monkeypatch.setattr(StudyStorage, "is_server", property(lambda self: True))  # as for a database
    result = tune(searched | {"trials": 2, "space": DROPOUT}, workers=1)
    assert states(result) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert result.study.trials[0].params == result.study.trials[1].params


def test_a_failure_that_the_machine_may_have_caused_is_retried_by_this_and_the_next_command(
    searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trial: trials.RunningTrial) -> FoldJob:
        job = plain(trial)
        return replace(job, accelerator="nowhere") if trial.trial.params["model.dropout"] == 0.25 else job

    plain = trials.RunningTrial.make_job
    monkeypatch.setattr(trials.RunningTrial, "make_job", broken)
    grid = searched | {"space": {"model.dropout": {"choices": [0.0, 0.25]}}, "sampler": "grid", "trials": None}
    first = tune(grid, workers=1)
    assert states(first).count(TrialState.COMPLETE) == 1
    assert states(first).count(TrialState.FAIL) == dispatch.MAX_ATTEMPTS
    (failed,) = first.summary["trials"]["failed"]
    assert failed["parameters"] == {"model.dropout": 0.25} and "nowhere" in failed["reason"]
    monkeypatch.undo()
    second = tune(grid, workers=1)
    assert states(second).count(TrialState.COMPLETE) == 2 and not second.summary["trials"]["failed"]


RATE = "model.optimizer.init_args.lr"


def queued(searched: dict[str, Any], *rates: float) -> SearchResult:
    """A search whose trials have these learning rates, one after another."""
    search = as_search(searched | {"space": {RATE: {"float": [1e-9, 1e30]}}, "trials": len(rates)})
    study = open_study(search, StudyStorage(str(search.folder / "study.journal"), 1))
    for rate in rates:
        study.enqueue_trial({RATE: rate})
    return tune(search, workers=1)


def test_a_clearly_worse_trial_is_pruned_and_never_wins(searched: dict[str, Any]) -> None:
    result = queued(searched | {"pruning": {"p_threshold": 0.3}}, 1e-2, 1e-9, 1e-2)
    good, bad, same = result.study.trials
    assert bad.user_attrs[PRUNED] == "after folds" and len(fold_scores(bad)) == 2
    assert bad.state == TrialState.COMPLETE and bad.value == pytest.approx(sum(fold_scores(bad)) / 2)
    assert fold_scores(same) == fold_scores(good) and same.user_attrs[PRUNED] is None
    assert result.winner.number == good.number  # of equals the first
    counted = result.summary["trials"]
    assert (counted["finished"], counted["pruned_after_folds"], counted["folds_run"]) == (3, 1, 8)
    assert counted["folds_without_pruning"] == 9
    assert list(result.table["pruned"].fillna("")) == ["", "", "after folds"]


def test_the_epoch_rule_prunes_a_trial(searched: dict[str, Any]) -> None:
    rule = {"overrides": {"trainer.max_epochs": 3}, "epoch_rule": {"quantile": 0.5, "min_trials": 1, "min_epochs": 2}}
    result = queued(searched | rule, 1e-2, 1e-9)
    good, bad = result.study.trials
    assert good.user_attrs[PRUNED] is None and [len(curve) for curve in good.user_attrs[CURVES]] == [3, 3, 3]
    assert bad.user_attrs[PRUNED] == "in an epoch" and bad.state == TrialState.COMPLETE
    assert bad.intermediate_values == {}  # an epoch's score is never reported as a fold's
    assert 0 < bad.value < good.value and result.winner.number == good.number
    metrics = list(result.path.glob("trial_0001/fold_*/metrics.json"))
    assert metrics == []  # its first fold was cut off after its second epoch


def test_inner_accuracies_stay_among_themselves(searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    def judge(rule: Any, best_first: Any, scores: Any, epoch: int, accuracy: float, is_inner: bool) -> float | None:
        score = score_if_pruned(rule, best_first, scores, epoch, accuracy, is_inner)
        judged.append((score, epoch, accuracy, is_inner))
        return score

    monkeypatch.setattr(trials, "score_if_pruned", judge)
    rule = {"epoch_rule": {"quantile": 0.5, "min_trials": 1}}
    overrides = {"overrides": {"trainer.max_epochs": 2, "cv.inner_holdout": 0.3}}
    result = queued(searched | rule | overrides, 1e-2, 1e-9)
    good, bad = result.study.trials
    score, epoch, accuracy, is_inner = judged[-1]
    assert is_inner and bad.user_attrs[PRUNED] == "in an epoch" and bad.value == score
    assert score == pytest.approx(good.value - (good.user_attrs[CURVES][0][epoch] - accuracy))


def test_a_diverged_trial_has_the_worst_score_and_never_wins(
    searched: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    space = {RATE: {"choices": [1e-2, 1e30]}}
    result = tune(searched | {"space": space, "sampler": "grid", "trials": None}, workers=2)
    by_rate = {trial.params[RATE]: trial for trial in result.study.trials}
    diverged = by_rate[1e30]
    assert diverged.state == TrialState.COMPLETE and diverged.value == 0.0
    assert "loss became" in diverged.user_attrs[DIVERGED] and FAILED not in diverged.user_attrs
    assert len(result.study.trials) == 2 and result.winner.params[RATE] == 1e-2
    (problem,) = result.summary["trials"]["diverged"]
    assert (
        problem["trial"] == diverged.number
        and "loss became" in problem["reason"]
        and problem["parameters"] == {RATE: 1e30}
    )
    assert not result.summary["trials"]["failed"] and result.summary["trials"]["finished"] == 2
    row = result.table.set_index("trial").loc[diverged.number]
    assert row["accuracy"] == 0.0 and "loss became" in row["diverged"]
    assert "diverged: the training loss became" in (result.path / "study.html").read_text(encoding="utf-8")
    show(result, Console())
    assert f"trial {diverged.number} diverged: the training loss became" in capsys.readouterr().out


def test_a_search_whose_trials_all_diverge_completes_them(
    searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MAX_FAILED_IN_A_ROW", 2)
    search = as_search(searched | {"space": {RATE: {"float": [1e29, 1e30]}}, "trials": 3})
    with pytest.raises(UserError, match="no trial that ran all its folds; 3 diverged, the last one: the training loss"):
        tune(search, workers=1)
    found = open_study(search, StudyStorage(str(search.folder / "study.journal"), 1)).trials
    assert [(trial.state, trial.value) for trial in found] == [(TrialState.COMPLETE, 0.0)] * 3
    assert len({trial.params[RATE] for trial in found}) == 3


def test_results_are_written_when_the_winner_diverges_on_fresh_splits(
    searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise FoldsFailed(Path("confirm_trial_0000"), {"fold_0": ("the training loss became nan", "")})

    monkeypatch.setattr(tuning, "confirm", diverge)
    search = as_search(searched | {"space": DROPOUT, "trials": 1, "confirm": {"top": 1}})
    with pytest.raises(FoldsFailed, match="the training loss became nan"):
        tune(search, workers=1)
    summary = json.loads((search.folder / "search.json").read_text(encoding="utf-8"))
    assert summary["trials"]["finished"] == 1 and "confirmed" not in summary
    assert (search.folder / "study.html").is_file() and (search.folder / "trials.csv").is_file()


def test_trials_are_not_compared_with_a_diverged_one(searched: dict[str, Any]) -> None:
    rule = {"epoch_rule": {"quantile": 1.0, "min_trials": 1}, "pruning": {"p_threshold": 0.5, "n_startup_folds": 2}}
    result = queued(searched | rule | {"overrides": {"trainer.max_epochs": 2}}, 1e30, 1e-9, 1e-2)
    first, second, third = result.study.trials
    assert first.user_attrs[DIVERGED]
    assert second.user_attrs[PRUNED] is None and len(fold_scores(second)) == 3  # no fully evaluated one before it
    assert result.winner.number == third.number


def test_a_combination_that_cannot_be_parsed_fails_alone(searched: dict[str, Any]) -> None:
    # each is fine beside the other's first choice, but a loss is not to be maximised
    space = {
        "selection.monitor": {"choices": ["val/accuracy", "val/loss"]},
        "selection.mode": {"choices": [None, "max"]},
    }
    result = tune(searched | {"space": space, "sampler": "grid", "trials": None}, workers=2)
    failed = [trial for trial in result.study.trials if trial.state == TrialState.FAIL]
    assert [trial.params for trial in failed] == [{"selection.monitor": "val/loss", "selection.mode": "max"}]
    assert "selection.mode is 'max'" in failed[0].user_attrs[FAILED] and len(result.study.trials) == 4


def test_one_failure_after_another_ends_the_search(
    searched: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trials, "MAX_FAILED_IN_A_ROW", 2)
    monkeypatch.setattr(dispatch, "MAX_ATTEMPTS", 1)
    plain = trials.RunningTrial.make_job
    monkeypatch.setattr(trials.RunningTrial, "make_job", lambda running: replace(plain(running), accelerator="nowhere"))
    with pytest.raises(TrialsFailed, match=r"2 trials failed one after another; the last one: .*nowhere"):
        tune(searched | {"space": DROPOUT}, workers=1)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "logs" / "study" / "study.journal"))
    )
    found = optuna.load_study(study_name="study", storage=storage).trials
    assert [trial.state for trial in found] == [TrialState.FAIL] * 2


def test_a_damaged_file_of_a_fold_is_named(
    searched: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = FoldFolder.read_metrics

    def damage_and_read(self: FoldFolder) -> dict[str, Any]:
        self.metrics.write_bytes(self.metrics.read_bytes()[:100])
        return read(self)

    monkeypatch.setattr(FoldFolder, "read_metrics", damage_and_read)
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(searched))
    assert main(["--config", str(tmp_path / "search.yaml"), "--workers", "1"]) == 2
    err = capsys.readouterr().err
    metrics = tmp_path / "logs" / "study" / "trial_0000" / "fold_0" / "metrics.json"
    assert err.startswith(f"error: cannot read {metrics}: ") and "Traceback" not in err
    assert err.endswith("; delete it and resume the run, which scores the fold again from its checkpoints\n")
