"""The command `python -m fmnist_cv.fit`: its output, its exit status and its error messages."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from running import Commands

from fmnist_cv import cross_validation, fit
from fmnist_cv.command_line import OK, USER_ERROR
from fmnist_cv.data import datasets
from fmnist_cv.data.synthetic_images import make_synthetic_images

ROOT = Path(__file__).parents[1]

Main = Callable[..., tuple[int, str, str]]
Change = Callable[[dict[str, Any], Path], list[str]]  # changes the config in place, returns further arguments


@pytest.fixture(autouse=True)
def _one_core(one_core: None) -> None:
    """See `one_core`."""


@pytest.fixture
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    """One fold, without TensorBoard and report."""
    tiny["report"] = False
    tiny["trainer"] |= {"logger": False, "max_epochs": 1}
    tiny["cv"]["holdout"] = 0.3
    return tiny


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """Runs the command in this process: status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = fit.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write(config: dict[str, Any], folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "fmnist_cv.fit", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def files_under(folder: Path) -> set[Path]:
    return set(folder.rglob("*")) if folder.exists() else set()


# -- what goes well -----------------------------------------------------------------------------------------


def test_the_command_prints_table_findings_and_paths(tiny: dict[str, Any], tmp_path: Path) -> None:
    """As a process of its own, from another folder, with folds side by side."""
    tiny["log_dir"] = "runs"
    tiny["cv"]["workers"] = 2
    tiny["trainer"] |= {"logger": False, "max_epochs": 2}
    ended = command("--config", write(tiny, tmp_path), "--run", "first", cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("tiny: 3 folds of SYNTHETIC garments (300 images), ")
    assert lines[1] == "run: runs/tiny/first"
    for fold in range(3):
        for epoch in (1, 2):
            (line,) = (line for line in lines if line.startswith(f"fold_{fold}: epoch {epoch}/2, train loss "))
            assert ", val loss " in line
        assert sum(line.startswith(f"fold_{fold}: finished, val accuracy ") for line in lines) == 1
        assert sum(line.startswith(f"│ fold_{fold} │      2 │ ") for line in lines) == 1
    assert any(line.startswith("SYNTHETIC data: ") for line in lines)
    assert any(line.startswith("Validation accuracy, last epoch: mean ") for line in lines)
    assert "Report:      runs/tiny/first/report.html" in lines
    assert "As text:     runs/tiny/first/report.md" in lines
    assert "Labels:      runs/tiny/first/label_issues.csv" in lines
    assert all((tmp_path / "runs" / "tiny" / "first" / name).is_file() for name in ("report.html", "label_issues.csv"))
    assert "Best model:  runs/tiny/first/best.ckpt" in lines
    assert "Curves:      tensorboard --logdir runs" in lines
    assert (tmp_path / "runs" / "tiny" / "first" / "best.ckpt").resolve().is_file()


def test_a_report_that_cannot_be_made_leaves_the_run_finished_and_says_how_to_try_again(
    main: Main, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = make_synthetic_images(60, 0)
    np.savez(tmp_path / "my.npz", images=images, labels=labels)
    arguments = {"path": str(tmp_path / "my.npz"), "batch_size": 32}
    quick["data"] = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": arguments}
    quick["report"] = True

    cross_validate = cross_validation.cross_validate

    def without_images(*arguments: Any, **options: Any) -> Any:
        result = cross_validate(*arguments, **options)
        (tmp_path / "my.npz").unlink()
        return result

    monkeypatch.setattr(cross_validation, "cross_validate", without_images)
    status, out, err = main("--config", write(quick, tmp_path), "--run", "first")
    run = tmp_path / "logs" / "tiny" / "first"
    assert status == OK and "Validation accuracy" in out and "Best model:" in out
    assert err.startswith("the run is complete, but its report.html could not be built: data file ")
    assert err.rstrip().endswith(f"try again with python -m fmnist_cv.report {run}")
    assert (run / "results.json").is_file() and not (run / "report.html").exists()


def test_a_run_is_called_after_the_time(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    assert main("--config", write(quick, tmp_path))[0] == OK
    (run,) = (tmp_path / "logs" / "tiny").iterdir()
    assert len(run.name.split("_")) == 2 and run.name[:2] == "20"


def test_the_saved_config_repeats_the_run(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    runs = tmp_path / "logs" / "tiny"
    options = ("--trainer.max_epochs=2", "--model.hidden=[16]")
    assert main("--config", write(quick, tmp_path), "--run", "first", *options)[0] == OK
    assert main("--config", runs / "first" / "config.yaml", "--run", "again")[0] == OK
    first, again = ((runs / name / "out_of_fold.npz").read_bytes() for name in ("first", "again"))
    assert first == again


@pytest.mark.parametrize("how", ["--resume {run}", "--resume={run}", "--config {run}/config.yaml --resume first"])
def test_a_run_is_resumed_by_its_path_or_name(main: Main, quick: dict[str, Any], tmp_path: Path, how: str) -> None:
    run = tmp_path / "logs" / "tiny" / "first"
    assert main("--config", write(quick, tmp_path), "--run", "first")[0] == OK
    (run / "fold_0" / "metrics.json").unlink()
    status, out, err = main(*how.format(run=run).split())
    assert status == OK, err
    assert f"run: {run}\n" in out and "fold_0: finished" in out and "epoch 1/1" not in out


def test_resume_last_takes_the_run_made_last(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    config = write(quick, tmp_path)
    for name in ("z_older", "a_newer"):
        assert main("--config", config, "--run", name)[0] == OK
    status, out, _ = main("--config", config, "--resume", "last")
    assert status == OK and "tiny/a_newer\n" in out


def test_where_a_run_lies_is_printed_as_it_is(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    """Square brackets are markup to what prints it."""
    quick["log_dir"] = str(tmp_path / "logs [old]")
    status, out, _ = main("--config", write(quick, tmp_path), "--run", "first")
    assert status == OK
    assert f"run: {tmp_path}/logs [old]/tiny/first\n" in out
    assert f"Run:         {tmp_path}/logs [old]/tiny/first\n" in out


# -- synthetic images where there are no data ----------------------------------------------------------------


@pytest.fixture
def few_synthetic_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "make_synthetic_images", lambda n, seed: make_synthetic_images(min(n, 300), seed))


@pytest.fixture
def no_data(tmp_path: Path) -> list[str]:
    """Arguments with which quickstart finds none."""
    (tmp_path / "empty").mkdir()
    return [
        "--config=quickstart",
        f"--data.root={tmp_path / 'empty'}",
        "--data.download=false",
        "--cv.workers=1",
        f"--log_dir={tmp_path / 'logs'}",
        "--trainer.max_epochs=1",
        "--trainer.precision=32-true",
        "--trainer.logger=false",
        "--model.widths=[16, 12]",
    ]


@pytest.mark.usefixtures("few_synthetic_images")
def test_quickstart_falls_back_to_synthetic_images_and_says_so(main: Main, no_data: list[str], tmp_path: Path) -> None:
    status, out, err = main(*no_data)
    assert status == OK, err
    assert "train-images-idx3-ubyte.gz not found" in out and "Running on SYNTHETIC images instead." in out
    assert "quickstart: 3 folds of SYNTHETIC garments (300 images)" in out
    assert "SYNTHETIC data: generated images, not Fashion-MNIST" in out
    (run,) = (tmp_path / "logs" / "quickstart").iterdir()
    assert run.name.endswith("_SYNTHETIC")
    assert '"name": "SYNTHETIC garments"' in (run / "results.json").read_text()
    assert "SYNTHETIC" in (run / "report.md").read_text()
    status, out, err = main(*no_data, "--resume", "last")
    assert status == OK, err
    assert "epoch 1/1" not in out


@pytest.mark.usefixtures("few_synthetic_images")
def test_folds_on_synthetic_images_join_the_run_that_was_named(main: Main, no_data: list[str], tmp_path: Path) -> None:
    for fold in range(3):
        status, _, err = main(*no_data, "--run", "parts", f"--cv.fold={fold}")
        assert status == OK, err
    assert [run.name for run in (tmp_path / "logs" / "quickstart").iterdir()] == ["parts_SYNTHETIC"]


def test_without_the_fallback_missing_data_are_an_error(main: Main, no_data: list[str], tmp_path: Path) -> None:
    status, _, err = main(*no_data, "--synthetic_fallback=false")
    assert status == USER_ERROR
    assert err.startswith("error: FashionMNIST: train-images-idx3-ubyte.gz not found under ")
    assert "--data.root" in err and "FMNIST_CV_DATA" in err
    assert not (tmp_path / "logs").exists()


# -- user errors --------------------------------------------------------------------------------------------


def options(*arguments: str) -> Change:
    return lambda config, folder: list(arguments)


def put(*keys: str, value: Any) -> Change:
    """Sets a key of the config."""

    def change(config: dict[str, Any], folder: Path) -> list[str]:
        for key in keys[:-1]:
            config = config.setdefault(key, {})
        config[keys[-1]] = value
        return []

    return change


def own_data(content: bytes | None, *options: str) -> Change:
    """An .npz with this content, and options."""

    def change(config: dict[str, Any], folder: Path) -> list[str]:
        if content is not None:
            (folder / "own.npz").write_bytes(content)
        path = str(folder / "own.npz")
        config["data"] = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": path}}
        return [*options]

    return change


def arrays(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


IMAGES = np.zeros((40, 8, 8), dtype=np.uint8)
LABELS = np.arange(40) % 4
MODEL, DATA = ("model", "init_args"), ("data", "init_args")

USER_ERRORS: dict[str, tuple[Change, str]] = {
    # keys and values
    "misspelt_section": (put("trainner", value={"max_epochs": 3}), "did you mean 'trainer.max_epochs'"),
    "misspelt_trainer_key": (put("trainer", "max_epoch", value=3), "did you mean 'trainer.max_epochs'"),
    "misspelt_model_key": (put(*MODEL, "hiden", value=[3]), "did you mean 'hidden'"),
    "misspelt_data_key": (put(*DATA, "batchsize", value=3), "did you mean 'batch_size'"),
    "misspelt_option": (options("--trainer.max_epoch", "3"), "did you mean 'trainer.max_epochs'"),
    "misspelt_monitor": (put("selection", "monitor", value="val/acuracy"), "did you mean 'val/accuracy'"),
    "unknown_model": (put("model", value={"class_path": "fmnist_cv.models.DenseNet"}), "DenseNetwork"),
    "unknown_module": (put("model", value={"class_path": "my_nets.Net"}), "there is no module 'my_nets'"),
    "a_model_that_is_none": (put("model", value={"class_path": "torch.nn.Linear"}), "model"),
    "wrong_type": (options("--trainer.max_epochs", "three"), "trainer.max_epochs"),
    "wrong_type_in_yaml": (put("cv", "n_splits", value=2.5), "cv.n_splits"),
    "wrong_type_of_model": (put(*MODEL, "hidden", value="wide"), "hidden"),
    "wrong_choice": (options("--selection.mode", "maximum"), "selection.mode"),
    "wrong_scaling": (put(*DATA, "scaling", value="unity"), "scaling"),
    "engines_option": (options("--trainer.strategy", "ddp"), "trainer.strategy is set by the engine"),
    "split_of_the_module": (put(*DATA, "n_splits", value=3), "cv.n_splits"),
    "name_of_a_path": (options("--name", "a/b"), "name is 'a/b'"),
    "name_of_the_folder_above": (options("--name", ".."), "name is '..'"),
    "negative_seed": (options("--seed", "-1"), "seed is -1"),
    "batch_of_nothing": (put(*DATA, "batch_size", value=0), "batch_size is 0"),
    "no_epochs": (put("trainer", "max_epochs", value=0), "trainer.max_epochs is 0"),
    "endless": (put("trainer", "max_epochs", value=None), "trainer.max_epochs is not set"),
    "no_workers": (put("cv", "workers", value=0), "cv.workers is 0"),
    "no_patience": (put("selection", "patience", value=0), "selection.patience is 0"),
    "fold_that_is_not": (options("--cv.fold", "7"), "cv.fold is 7"),
    "schedulers_that_yaml_cannot_make": (
        put(
            *MODEL,
            "lr_scheduler",
            value={
                "class_path": "torch.optim.lr_scheduler.SequentialLR",
                "init_args": {"schedulers": [{"class_path": "torch.optim.lr_scheduler.ConstantLR"}], "milestones": []},
            },
        ),
        "model.init_args.lr_scheduler: SequentialLR takes schedulers that are created already, which YAML cannot write; "
        "use fmnist_cv.models.schedules.SequentialSchedule",
    ),
    # the config itself
    "missing_config": (options("--config", "no/such.yaml"), "config no/such.yaml does not exist"),
    "nearly_a_config": (options("--config", "quickstrat"), "did you mean 'quickstart'"),
    "config_is_a_folder": (options("--config", "{folder}"), "is a folder"),
    "config_of_no_yaml": (options("--config", "{folder}/broken.yaml"), "broken.yaml"),
    "config_of_bytes": (options("--config", "{folder}/bytes.yaml"), "bytes.yaml"),
    "config_of_a_list": (options("--config", "{folder}/list.yaml"), "list.yaml"),
    # splits
    "one_fold": (put("cv", value={"n_splits": 1}), "cv.n_splits is 1"),
    "more_folds_than_a_class_has_images": (put("cv", value={"n_splits": 31}), "training images"),
    "more_folds_than_images": (put("cv", value={"n_splits": 301, "stratify": False}), "cv.n_splits is 301"),
    "holdout_of_everything": (put("cv", "holdout", value=300), "cv.holdout is 300"),
    "holdout_of_nonsense": (put("cv", "holdout", value="last:5"), "cv.holdout is 'last:5'"),
    "inner_holdout_of_everything": (put("cv", "inner_holdout", value=1.0), "cv.inner_holdout is 1.0"),
    # data
    "truncated_data": (own_data(arrays(images=IMAGES, labels=LABELS)[:1500]), "own.npz"),
    "damaged_data": (
        own_data(arrays(images=IMAGES, labels=LABELS).replace(bytes(64), b"\x55" * 64, 5)),
        "own.npz",
    ),
    "data_of_text": (own_data(b"images, labels\n1, 2\n"), "own.npz"),
    "empty_data_file": (own_data(b""), "own.npz"),
    "missing_data": (own_data(None), "own.npz does not exist"),
    "data_without_labels": (own_data(arrays(images=IMAGES)), "labels are missing"),
    "pickled_data": (own_data(arrays(images=IMAGES, labels=np.array([{}] * 40))), "own.npz"),
    "more_labels_than_images": (own_data(arrays(images=IMAGES, labels=np.arange(41) % 4)), "labels must be 40"),
    "images_of_whole_numbers": (
        own_data(arrays(images=IMAGES.astype(np.int64), labels=LABELS)),
        "images must be uint8",
    ),
    "images_of_another_size": (
        own_data(arrays(images=IMAGES, labels=LABELS), "--model.in_features", "784"),
        "cannot take images of shape",
    ),
    "broken_test_data": (
        own_data(arrays(images=IMAGES, labels=LABELS, test_images=IMAGES.astype(np.int64), test_labels=LABELS)),
        "images must be uint8",
    ),
    "test_images_of_another_type": (
        own_data(arrays(images=IMAGES, labels=LABELS, test_images=IMAGES / 2, test_labels=LABELS)),
        "training and test images have pixels of different types, float32 and uint8",
    ),
    # what the machine lacks
    "devices_that_are_not_there": (options("--trainer.devices", "4"), "no device"),
    "unwritable_log_folder": (options("--log_dir", "{folder}/file/logs"), "cannot write runs under"),
    "log_folder_is_a_file": (options("--log_dir", "{folder}/file"), "cannot write runs under"),
    # runs
    "run_is_a_path": (options("--run", "a/b"), "--run is 'a/b'"),
    "run_last": (options("--run", "last"), "--run is 'last'"),
    "run_and_resume": (options("--run", "a", "--resume", "b"), "either --run"),
    "nothing_to_resume": (options("--resume", "last"), "there is no run to resume"),
    "no_such_run": (options("--resume", "monday"), "there is no run 'monday'"),
    # what would fail while training
    "negative_learning_rate": (
        put(*MODEL, "optimizer", value={"class_path": "torch.optim.Adam", "init_args": {"lr": -1.0}}),
        "learning rate",
    ),
}


@pytest.mark.parametrize("case", USER_ERRORS)
def test_a_user_error_is_one_message_before_any_work(
    main: Main, quick: dict[str, Any], tmp_path: Path, case: str
) -> None:
    change, message = USER_ERRORS[case]
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.yaml").write_text("name: [unclosed\ncv: }")
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "list.yaml").write_text("- name\n- cv\n")
    arguments = [argument.format(folder=tmp_path) for argument in change(quick, tmp_path)]
    if "--config" not in arguments:
        arguments = ["--config", str(write(quick, tmp_path)), *arguments]
    before = files_under(tmp_path)
    status, out, err = main(*arguments)
    assert status == USER_ERROR, (status, out, err)
    assert err.startswith("error: ") and message in err
    assert "Traceback" not in err and len(err) < 1500
    assert "epoch" not in out
    assert files_under(tmp_path) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu", "tpu", "cdua"])
def test_an_accelerator_that_is_not_there(main: Main, quick: dict[str, Any], tmp_path: Path, accelerator: str) -> None:
    config = write(quick, tmp_path)
    status, _, err = main("--config", config, "--trainer.accelerator", accelerator)
    assert status == USER_ERROR
    assert err.startswith(f"error: trainer.accelerator is '{accelerator}'") and "cpu" in err
    assert files_under(tmp_path) == {config}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run it as another user")
def test_a_log_folder_without_permission(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    status, _, err = main("--config", write(quick, tmp_path), "--log_dir", tmp_path / "locked" / "logs")
    assert status == USER_ERROR and "Permission denied" in err


def test_a_runs_name_is_used_once(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    config = write(quick, tmp_path)
    assert main("--config", config, "--run", "first")[0] == OK
    before = {path: path.lstat().st_mtime_ns for path in files_under(tmp_path / "logs")}
    status, _, err = main("--config", config, "--run", "first")
    assert status == USER_ERROR
    assert "exists; resume it with --resume first" in err
    assert {path: path.lstat().st_mtime_ns for path in files_under(tmp_path / "logs")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (options("--trainer.max_epochs=4"), "trainer.max_epochs (1 in the run, 4 here)"),
        (options("--seed=5"), "seed (0 in the run, 5 here)"),
        (options("--cv.holdout=0.2"), "cv.holdout"),
        (options("--model.dropout=0.5"), "model.init_args.dropout"),
        (options("--data.drawing_seed=5"), "drawing_seed"),
        (options("--name=other"), "there is no run"),
    ],
)
def test_a_run_is_not_resumed_with_another_config(
    main: Main, quick: dict[str, Any], tmp_path: Path, change: Change, message: str
) -> None:
    config = write(quick, tmp_path)
    assert main("--config", config, "--run", "first")[0] == OK
    before = {path: path.lstat().st_mtime_ns for path in files_under(tmp_path)}
    status, out, err = main("--config", config, "--resume", "first", *change(quick, tmp_path))
    assert status == USER_ERROR
    assert err.startswith("error: ") and message in err
    assert "epoch" not in out
    assert {path: path.lstat().st_mtime_ns for path in files_under(tmp_path)} == before


def test_a_run_is_not_resumed_with_other_data(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    quick["model"]["init_args"] |= {"in_features": 64, "n_classes": 4}
    own_data(arrays(images=IMAGES, labels=LABELS))(quick, tmp_path)
    config = write(quick, tmp_path)
    assert main("--config", config, "--run", "first")[0] == OK
    own_data(arrays(images=IMAGES + 1, labels=LABELS))(quick, tmp_path)
    status, _, err = main("--config", config, "--resume", "first")
    assert status == USER_ERROR
    assert "was made on other data" in err and "fingerprint" in err


def test_where_it_runs_may_differ_when_resumed(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    config = write(quick, tmp_path)
    assert main("--config", config, "--run", "first")[0] == OK
    assert main("--config", config, "--resume", "first", "--cv.workers=3", "--trainer.accelerator=auto")[0] == OK


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_run_with_damaged_splits_is_refused(main: Main, quick: dict[str, Any], tmp_path: Path, damage: str) -> None:
    config, splits = write(quick, tmp_path), tmp_path / "logs" / "tiny" / "first" / "splits.npz"
    assert main("--config", config, "--run", "first")[0] == OK
    if damage == "missing":
        splits.unlink()
    else:
        splits.write_bytes(splits.read_bytes()[:200])
    status, _, err = main("--config", config, "--resume", "first")
    assert status == USER_ERROR
    assert f"cannot read the splits {splits}" in err


def test_a_folder_that_is_no_run_does_not_stand_in_the_way(main: Main, quick: dict[str, Any], tmp_path: Path) -> None:
    """Such as one that was copied in part."""
    config = write(quick, tmp_path)
    assert main("--config", config, "--run", "first")[0] == OK
    other = tmp_path / "logs" / "tiny" / "copied_in_part"
    other.mkdir()
    (other / "config.yaml").write_text("name: tiny\n")
    assert main("--config", config, "--resume", "last")[0] == OK


@pytest.mark.parametrize("case", ["misspelt_trainer_key", "truncated_data"])
def test_user_errors_in_a_process_of_its_own(
    commands: Commands, quick: dict[str, Any], tmp_path: Path, case: str
) -> None:
    change, message = USER_ERRORS[case]
    change(quick, tmp_path)
    ended = commands.run("--config", write(quick, tmp_path), folder=tmp_path)
    assert ended.status == USER_ERROR
    assert ended.err.startswith("error: ") and message in ended.err
    assert ended.err.count("\n") == 1 and "Traceback" not in ended.out
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["--help", "all"], ["--config=quickstart", "--print_config"]])
def test_help_and_the_config_in_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fit.main(arguments)
    assert ended.value.code == 0
    assert "n_splits" in capsys.readouterr().out
