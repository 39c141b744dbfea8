"""Storages of studies: torn journals, invalid storages, orphaned trials and re-queueing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings, strategies as st
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.errors import UserError
from fmnist_cv.search import storage
from fmnist_cv.search.journal import _Journal, cut_torn_line
from fmnist_cv.search.ownership import TrialOwnership, requeue_interrupted
from fmnist_cv.search.records import INTERRUPTED, OWNER, Owner
from fmnist_cv.search.storage import StudyStorage


def journal_study(path: Path) -> optuna.Study:
    store = StudyStorage(str(path), workers=2)
    return optuna.create_study(storage=store.storage, study_name="s", direction="maximize", load_if_exists=True)


def journal_ownership(path: Path) -> TrialOwnership:
    return TrialOwnership(StudyStorage(str(path), workers=2))


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    return trial


def running_trial(owner: Owner) -> FrozenTrial:
    return optuna.create_trial(state=TrialState.RUNNING, user_attrs={OWNER: owner})


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of three trials, one of them running."""
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    study = journal_study(path)
    for value in (0.1, 0.2):
        study.tell(ask(study), value)
    ask(study)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_journal_torn_anywhere_opens_and_can_be_written(
    journal: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(journal)))
    path = tmp_path_factory.mktemp("torn") / "study.journal"
    path.write_bytes(journal[:cut])
    study = journal_study(path)
    study.tell(ask(study), 0.3)
    again = journal_study(path)
    assert [t.value for t in again.trials if t.state == TrialState.COMPLETE][-1] == 0.3
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    complete = journal[:cut].rfind(b"\n") + 1
    assert path.read_bytes().startswith(journal[:complete])  # nothing but the torn line is taken off


def test_a_complete_journal_is_unchanged(journal: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(journal)
    cut_torn_line(path)
    assert path.read_bytes() == journal
    path.write_bytes(b"x" * 200_000)  # longer than one read, without a line's end
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_a_trial_is_orphaned_when_its_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    store = journal_ownership(path)
    reader, writer = os.pipe()
    if (other := os.fork()) == 0:
        running = journal_ownership(path)
        os.write(writer, json.dumps(running.me).encode())
        time.sleep(60)
        os._exit(0)
    owner = json.loads(os.read(reader, 10_000))
    mine, theirs = running_trial(store.me), running_trial(owner)
    assert store.is_mine(mine) and not store.is_orphaned(mine)
    assert not store.is_mine(theirs) and not store.is_orphaned(theirs)
    os.kill(other, signal.SIGKILL)  # not waited for: a zombie is dead, too
    deadline = time.monotonic() + 10
    while not store.is_orphaned(theirs) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.is_orphaned(theirs)
    os.waitpid(other, 0)
    os.close(reader), os.close(writer)
    store.close()
    again = journal_ownership(path)
    assert again.is_orphaned(mine)  # its owner was closed


def test_orphaned_trials_are_requeued_once_with_their_parameters(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study, store, gone = journal_study(path), journal_ownership(path), journal_ownership(path)
    mine, dead, orphan = ask(study), ask(study), ask(study)
    store.claim(mine)
    gone.claim(dead)
    gone.close()
    dead.set_user_attr("run", "trial_0001")
    store.interrupt(study, "its process died", store.is_orphaned)
    states = [t.state for t in study.get_trials()]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]
    assert study.trials[1].user_attrs[INTERRUPTED] == "its process died"

    for _ in range(3):  # the third finds nothing left to retry
        requeue_interrupted(study)
    waiting = [t for t in study.get_trials() if t.state == TrialState.WAITING]
    assert [RetryHeartbeatStaleTrialCallback.retried_trial_number(t) for t in waiting] == [1, 2]
    assert all(OWNER not in t.user_attrs for t in waiting)
    again = study.ask()
    store.claim(again)
    assert again.number == 3 and again.params == dead.params and again.user_attrs["run"] == "trial_0001"

    store.interrupt(study, "interrupted", store.is_mine)
    assert [t.state for t in study.get_trials()][:4] == [TrialState.FAIL] * 4
    requeue_interrupted(study)  # `mine`, which ended with it
    requeue_interrupted(study)  # retried again, with the whole history
    assert RetryHeartbeatStaleTrialCallback.retry_history(study.trials[-1]) == [1, 3]
    assert orphan.number == 2


def test_trials_of_a_database_without_heartbeats_are_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    opened = StudyStorage(f"sqlite:///{tmp_path}/a.db", workers=1)
    store = TrialOwnership(opened)
    study = optuna.create_study(storage=opened.storage, study_name="s")
    quiet, beating = ask(study), ask(study)
    store.claim(quiet)
    quiet.set_user_attr("run", "trial_0000")
    store.claim(beating)
    time.sleep(2.1)
    store.heartbeat([beating])
    store.interrupt_stale(study)
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL, TrialState.RUNNING]
    requeue_interrupted(study)
    assert study.trials[-1].params == quiet.params
    store.interrupt_stale(study)  # once is enough
    assert len(study.trials) == 3


def test_a_torn_line_is_cut_off_while_others_go_on_writing(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = journal_study(path)
    study.tell(ask(study), 0.1)
    with open(path, "ab") as file:  # another process is killed in the middle of its line
        file.write(b'{"op_code":5,"worker_id":"torn')
    study.tell(ask(study), 0.2)
    assert [t.value for t in journal_study(path).trials] == [0.1, 0.2]


def test_a_dead_process_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if (child := os.fork()) == 0:
        _Journal(Path("logs.journal"))._line_lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    began = time.monotonic()
    study = journal_study(Path("logs.journal"))
    study.tell(ask(study), 0.1)
    assert time.monotonic() - began < 10


def test_a_failed_configuration_is_not_requeued(tmp_path: Path) -> None:
    study = journal_study(tmp_path / "study.journal")
    study.tell(ask(study), state=TrialState.FAIL)
    requeue_interrupted(study)
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL]


@pytest.mark.parametrize(
    ("where", "workers", "reason"),
    [
        ("sqlite:///{tmp}/a.db", 2, "SQLite locks the whole file"),
        ("mysql://localhost/a", 1, "give postgresql://"),
        ("{tmp}", 1, "is a folder; give a regular file, or leave it out"),
        ("{tmp}/pipe", 1, "pipe is a named pipe; give a regular file"),
        ("sqlite:///{tmp}/pipe", 1, "pipe is a named pipe; give a regular file"),
        ("/dev/zero", 1, "/dev/zero is a device; give a regular file"),
        ("{tmp}/link", 1, "link is a device; give a regular file"),
        ("postgresql://a:b/c", 1, "--storage is not a valid URL"),
        ("{tmp}/no.journal", 1, "is not an Optuna journal"),
        ("/proc/none/study.journal", 1, "cannot open the journal /proc/none/study.journal"),
        ("postgresql://me:secret@127.0.0.1:1/a", 1, "cannot open the storage postgresql://me:***@127.0.0.1:1/a"),
    ],
)
def test_invalid_storages_are_refused(tmp_path: Path, where: str, workers: int, reason: str) -> None:
    (tmp_path / "no.journal").write_text("this is\nno journal\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(UserError) as error:
        StudyStorage(where.format(tmp=tmp_path), workers)
    assert reason in str(error.value) and "secret" not in str(error.value)


def test_sqlite_serves_one_worker(tmp_path: Path) -> None:
    store = StudyStorage(f"sqlite:///{tmp_path}/a.db", workers=1)
    study = optuna.create_study(storage=store.storage, study_name="s")
    with store.dispatch_lock("s"):
        trial = ask(study)
    TrialOwnership(store).heartbeat([trial])
    study.tell(trial, 1.0)
    assert os.path.exists(tmp_path / "a.db") and study.best_value == 1.0
    with pytest.raises(UserError, match="another process uses sqlite:"):
        StudyStorage(f"sqlite:///{tmp_path}/a.db", workers=1)
    store.close()
    StudyStorage(f"sqlite:///{tmp_path}/a.db", workers=1)
