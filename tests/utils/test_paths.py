"""Whatever path a user can give, `~` and variables in it are expanded, once and in the same way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from experiments.products.data import ProductImagesDataModule, find_products
from experiments.replication import __main__ as replicate
from fmnist_cv import compare, evaluate, export, fit, predict, report
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.compare import compare_runs
from fmnist_cv.config.config_values import expand_config
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.cross_validation import cross_validate
from fmnist_cv.data import ArrayDataModule, KFoldDataModule, SyntheticDataModule
from fmnist_cv.data.sources import search_roots
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.engine.preparation import prepare_run
from fmnist_cv.engine.run_names import find_run
from fmnist_cv.errors import UserError
from fmnist_cv.inference import evaluate_run, export_run, load_exported
from fmnist_cv.inference.files import find_images
from fmnist_cv.inference.named_data import read_data
from fmnist_cv.models import LinearClassifier
from fmnist_cv.search.search import Search
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.utils.paths import argument, expand, user_path

TINY: dict[str, Any] = {
    "name": "tiny",
    "log_dir": "~/runs",
    "cv": {"n_splits": 2, "workers": 1},
    "model": {"class_path": "fmnist_cv.models.LinearClassifier"},
    "data": {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": "$SOMEWHERE/data.npz"}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true"},
}
RUN, AGAIN = "runs/tiny/r", "runs/tiny/again"
SEARCH: dict[str, Any] = {
    "name": "search",
    "space": {"model.label_smoothing": {"choices": [0.0, 0.1]}},
    "sampler": "grid",
    "confirm": None,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's home folder with a bit of everything; the working folder is another, and stays empty."""
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    images, labels = make_synthetic_images(60, seed=0)
    np.savez(home / "data.npz", images=images, labels=labels)
    other, other_labels = make_synthetic_images(30, seed=9)
    np.savez(home / "other.npz", images=other, labels=other_labels)
    (home / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    (home / "out.csv").write_text("index\n3\n5\n", encoding="utf-8")
    (home / "recoding.yaml").write_text("Top: [Shirts]\nOther: [Jeans]\n", encoding="utf-8")
    Image.fromarray(images[0]).save(home / "shirt.png")
    (home / "shop").mkdir()
    (home / "shop" / "styles.csv").write_text("id,articleType\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("SOMEWHERE", str(home))
        patch.delenv("UNSET", raising=False)
        patch.chdir(work)
        cross_validate(str(home / "tiny.yaml"), run="r")
        shutil.copytree(home / RUN, home / AGAIN, symlinks=True)
        yield home
        assert list(work.iterdir()) == [], "something was written under the name as it was given"


def data_of(options: dict[str, Any]) -> KFoldDataModule:
    return ArrayDataModule(images=np.zeros((8, 4, 4), np.uint8), labels=np.arange(8) % 2, **options)


def starts_from(path: str) -> bool:
    LinearClassifier(start_from=path).load_start()  # raises where there is no such checkpoint
    return True


def ran(main: Callable[[list[str]], int], *arguments: str, writes: Path | None = None) -> bool:
    if writes is not None:
        writes.unlink(missing_ok=True)
    return main(list(arguments)) == 0 and (writes is None or writes.is_file())


def config_of(home: Path) -> str:
    return f"--config={home / RUN / 'config.yaml'}"


def opened(storage: str, file: Path) -> bool:
    StudyStorage(storage, workers=1).close()
    return file.is_file()


def search(**settings: Any) -> Search:
    return Search.parse([f"--config={yaml.safe_dump({**SEARCH, 'experiment': '~/tiny.yaml', **settings})}"])


# what takes a path, and what it is given below the home folder; each checks that it found the file there
NO_RUN: Any = None  # only pictures are prepared as the run's are
TAKERS: dict[str, tuple[str, Callable[[str, Path], object]]] = {
    "log_dir": (
        "logs",
        lambda p, home: Experiment.parse(["--config=~/tiny.yaml", f"--log_dir={p}"]).log_dir == home / "logs",
    ),
    "--config": ("tiny.yaml", lambda p, home: Experiment.parse([f"--config={p}"]).name == "tiny"),
    "--config, apart": ("tiny.yaml", lambda p, home: Experiment.parse(["--config", p]).name == "tiny"),
    "experiment of a search": ("tiny.yaml", lambda p, home: search(experiment=p).base.name == "search"),
    "log_dir of a search": ("logs", lambda p, home: search(log_dir=p).folder == home / "logs" / "search"),
    "--storage": ("study.journal", lambda p, home: opened(p, home / "study.journal")),
    "--storage sqlite": ("study.db", lambda p, home: opened(f"sqlite:///{p}", home / "study.db")),
    "data.root": ("shop", lambda p, home: search_roots(p) == [home / "shop"] and find_products(p) == home / "shop"),
    "data.path": ("data.npz", lambda p, home: len(ArrayDataModule(p).train_images) == 60),
    "data.leave_out": ("out.csv", lambda p, home: data_of({"leave_out": p}).left_out.tolist() == [3, 5]),
    "data.recoding": (
        "recoding.yaml",
        lambda p, home: ProductImagesDataModule(recoding=p).recoding == home / "recoding.yaml",
    ),
    "data.cache": ("cache", lambda p, home: ProductImagesDataModule(cache=p).cache == home / "cache"),
    "model.start_from": (f"{RUN}/fold_0/last.ckpt", lambda p, home: starts_from(p)),
    "--resume": (RUN, lambda p, home: find_run(home, "tiny", p).path == home / RUN),
    "fit --resume, its own config": (RUN, lambda p, home: config_of(home) in fit._with_config_of_run(["--resume", p])),
    "fit --resume=, its own config": (
        RUN,
        lambda p, home: config_of(home) in fit._with_config_of_run([f"--resume={p}"]),
    ),
    "a run from Python": (RUN, lambda p, home: CrossValidationResult.load(p).path == home / RUN),
    "RUN of compare": (RUN, lambda p, home: compare_runs([p, str(home / AGAIN)]).runs),
    "compare --json": (
        "compared.json",
        lambda p, home: ran(compare.main, f"~/{RUN}", f"~/{AGAIN}", f"--json={p}", writes=home / "compared.json"),
    ),
    "RUN of report": (AGAIN, lambda p, home: ran(report.main, p)),
    "RUN of evaluate": (RUN, lambda p, home: ran(evaluate.main, p, "--data=~/other.npz", "--out=~/evaluated")),
    "evaluate --data": ("other.npz", lambda p, home: len(read_data(p, NO_RUN).train_images) == 30),
    "evaluate --data, YAML": ("tiny.yaml", lambda p, home: len(read_data(p, NO_RUN).train_images) == 60),
    "evaluate --out": (
        "out",
        lambda p, home: ran(
            evaluate.main, f"~/{RUN}", "--data=~/other.npz", f"--out={p}", writes=home / "out/evaluation.json"
        ),
    ),
    "evaluate_run(out)": ("out", lambda p, home: evaluate_run(f"~/{RUN}", "~/other.npz", out=p)[1] == home / "out"),
    "RUN of predict": (RUN, lambda p, home: ran(predict.main, p, "~/shirt.png")),
    "FILE of predict": ("shirt.png", lambda p, home: ran(predict.main, f"~/{RUN}", p)),
    "predict_files": ("shirt.png", lambda p, home: find_images([p]) == [home / "shirt.png"]),
    "predict --out": (
        "p.csv",
        lambda p, home: ran(predict.main, f"~/{RUN}", "~/shirt.png", "--out", p, writes=home / "p.csv"),
    ),
    "RUN of export": (
        RUN,
        lambda p, home: ran(export.main, p, "--format=safetensors", "--overwrite", "--out=~/exported"),
    ),
    "export --out, load_exported": (
        "exported",
        lambda p, home: export_run(f"~/{RUN}", "safetensors", out=p, overwrite=True) and load_exported(p),
    ),
    "replicate --out": (
        "out",
        lambda p, home: replicate._parser().parse_args(["--tables", f"--out={p}"]).out == home / "out",
    ),
    "replicate --log_dir": (
        "logs",
        lambda p, home: replicate._parser().parse_args(["--tables", f"--log_dir={p}"]).log_dir == home / "logs",
    ),
}


@pytest.mark.parametrize("spelling", ["~/{}", "${{SOMEWHERE}}/{}"], ids=["home", "variable"])
@pytest.mark.parametrize("what", TAKERS)
def test_every_path_is_expanded(home: Path, what: str, spelling: str) -> None:
    below, check = TAKERS[what]
    assert check(spelling.format(below), home)


@pytest.mark.parametrize("what", TAKERS)
def test_a_variable_that_is_not_set_is_named(home: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    below, check = TAKERS[what]
    try:
        assert not check(f"$UNSET/{below}", home)  # a command, which says so itself
        message = ""
    except (UserError, SystemExit) as refused:
        message = str(refused)
    message += capsys.readouterr().err
    assert "the environment variable UNSET is not set" in message


@pytest.mark.parametrize("place", ["~", "$HOME", "${SOMEWHERE}"])
def test_the_environments_folders_are_expanded(home: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("FMNIST_CV_DATA", f"{place}/data")
    assert search_roots() == [home / "data", Path("data")]
    monkeypatch.setenv("XDG_CACHE_HOME", f"{place}/caches")
    assert ProductImagesDataModule().cache == home / "caches" / "fmnist_cv"


def test_a_run_lies_in_one_place_and_its_config_says_where_whatever_the_shell(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = home / "runs/tiny/r"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "results.json", "fold_0", "fold_1"}
    assert (run / "fold_0/last.ckpt").is_file() and (run / "fold_0/metrics.json").is_file()
    assert not (home / "fold_0").exists()
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert saved["log_dir"] == str(home / "runs")
    assert saved["data"]["init_args"]["path"] == str(home / "data.npz")
    monkeypatch.delenv("SOMEWHERE")
    assert len(CrossValidationResult.load(run).data.train_images) == 60


def test_a_run_goes_on_under_another_spelling_and_not_with_another_file(home: Path) -> None:
    checkpoint = "runs/tiny/r/fold_0/last.ckpt"
    written, spelt, other = (
        Experiment.parse(["--config=~/tiny.yaml", f"--model.start_from={path}"])
        for path in (f"$SOMEWHERE/{checkpoint}", str(home / checkpoint), f"~/{checkpoint.replace('last', 'best')}")
    )
    assert written.differences(spelt) == []
    assert [line.split()[0] for line in other.differences(spelt)] == ["model.init_args.start_from"]


def test_paths_anywhere_in_a_config_are_expanded_and_other_text_is_not(home: Path) -> None:
    config = {
        "name": "~/x",
        "data": {"init_args": {"folder": Path("~/x"), "folders": [Path("$HOME/y")], "text": "$HOME"}},
        "trainer": {
            "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "~/c"}}],
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "$HOME/l", "name": "~"}},
        },
    }
    assert expand_config(config) == {
        "name": "~/x",
        "data": {"init_args": {"folder": home / "x", "folders": [home / "y"], "text": "$HOME"}},
        "trainer": {
            "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(home / "c")}}],
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(home / "l"), "name": "~"}},
        },
    }


def test_what_cannot_be_expanded_stands_for_itself_only_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMPTY", "")
    assert expand("cost $5.png", "FILE") == "cost $5.png" and expand("a~b/~", "FILE") == "a~b/~"
    assert expand("$HOME/x", "log_dir") == expand("~/x", "log_dir") == expand("${HOME}/x", "log_dir")
    for name in ("$UNSET.png", "~$UNSET.docx", "~nobody-here"):
        with pytest.raises(UserError, match=r"UNSET is not set|there is no user 'nobody-here'"):
            expand(name, "FILE")
        Path(name).touch()
        assert expand(name, "FILE") == name
    with pytest.raises(UserError, match="variable EMPTY is not set"):  # or else the file system's root
        expand("$EMPTY/runs", "log_dir")
    Path("~").mkdir()
    assert expand("~", "log_dir") == str(tmp_path / "home")
    # absolute, since others, such as Lightning, would take "~" for the home folder
    assert user_path("./~/x", "log_dir") == tmp_path / "~" / "x"
    with pytest.raises(
        UserError, match=r"log_dir is '~no-one/x', .*for a file or folder of that name write \./~no-one/x"
    ):
        user_path("~no-one/x", "log_dir")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "it is empty; give a path, or leave it out"),
        ("  ", "it is empty"),
        ("a\nb", r"it is 'a\\nb'; a path must not contain line breaks"),
        ("a\0b", "control characters"),
        ("x" * 300, "300 bytes, and file systems take no more than 255"),
        ("é" * 128, "256 bytes"),
        ("x/" * 2100, "give a path of at most 4000"),
    ],
)
def test_paths_that_no_file_system_takes_are_refused(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        user_path(given, "it")
    assert len(str(refused.value)) < 200


def test_a_name_with_a_line_break_is_taken_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").touch()
    assert user_path(tmp_path / "a\nb.png", "FILE") == tmp_path / "a\nb.png"


NAMES = {
    "empty": ("", "is empty; give a name"),
    "blank": ("   ", "is empty; give a name"),
    "a line break": ("a\nb", r"is 'a\\nb'; a name must not contain line breaks or unprintable characters"),
    "a tab": ("a\tb", "is .*; a name must not contain"),
    "no UTF-8": ("a\udcff", "is .*; a name must not contain"),
    "300 letters": ("x" * 300, "is '.*' with 300 bytes; a name has at most"),
    "90 Chinese letters": ("名" * 90, "is '.*' with 270 bytes; a name has at most"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_no_folder_can_have_are_refused(home: Path, kind: str) -> None:
    name, reason = NAMES[kind]
    experiment = Experiment.parse(["--config=~/tiny.yaml"])
    for what, do in (
        ("--run", lambda: prepare_run(experiment, run=name)),
        ("name", lambda: experiment.replaced(name=name)),
        (
            "name",
            lambda: Search.parse([f"--config={yaml.safe_dump(SEARCH)}", "--experiment=~/tiny.yaml", f"--name={name}"]),
        ),
    ):
        with pytest.raises(UserError, match=f"^{what} {reason}") as refused:
            do()
        assert len(str(refused.value)) < 200


def test_names_leave_room_for_what_is_added_to_them(home: Path) -> None:
    experiment = Experiment.parse(["--config=~/tiny.yaml"])
    assert experiment.replaced(name="x" * 255).name and search(name="x" * 200).name
    for do in (lambda: prepare_run(experiment, run="x" * 201), lambda: search(name="x" * 201)):
        with pytest.raises(UserError, match="with 201 bytes; a name has at most 200"):
            do()


@pytest.mark.parametrize("seed", [-1, 2**32, int("9" * 23)])
def test_seeds_out_of_range_are_refused(home: Path, seed: int) -> None:
    range_ = f"seed is {seed}; it must (be from 0 to 4294967295|not be negative)"
    for do in (
        lambda: Experiment.parse(["--config=~/tiny.yaml", f"--seed={seed}"]),
        lambda: search(seed=seed),
        lambda: search(confirm={"seed": seed}),
    ):
        with pytest.raises(UserError, match=range_):
            do()
    assert Experiment.parse(["--config=~/tiny.yaml", f"--seed={2**32 - 1}"]).build(2**32 - 1)
    for module, key in ((SyntheticDataModule, "drawing_seed"), (ProductImagesDataModule, "part_seed")):
        with pytest.raises(UserError, match=f"{key} is -1; it must not be negative"):
            module(**{key: -1})


def test_argparse_names_the_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        replicate._parser().parse_args(["--tables", "--out="])
    assert "argument --out: it is empty; give a path" in capsys.readouterr().err
    assert argument("a/b") == Path("a/b")
