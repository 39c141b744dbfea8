"""Commands and snippets in the documents: all are parsed, those marked to run are executed, on synthetic images."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from documents import PAGES, ROOT, blocks, command_lines, files, name_of, pages_with
from PIL import Image

from fmnist_cv import cross_validate
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.search.tuning import as_search

sys.path.append(str(ROOT / "docs" / "hooks"))

from parsers import parser_of

# What makes of an experiment in a document one that takes a second: few synthetic images, one fold and epoch, no processes.
SMALL: dict[str, Any] = {
    "cv.holdout": 0.5,
    "cv.workers": 1,
    "trainer.max_epochs": 1,
    "trainer.logger": False,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "report": False,
}
SMALL_OPTIONS = [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in SMALL.items()]
SYNTHETIC = {
    "class_path": "fmnist_cv.data.SyntheticDataModule",
    "init_args": {"n_train": 120, "n_test": 60, "batch_size": 60},
}


@pytest.fixture(scope="session")
def runs(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of two completed runs on the same splits, with the images of a file."""

    def fill(folder: Path) -> None:
        for name, hidden in (("first", [16]), ("second", [4])):
            network = {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": hidden}}
            settings = {
                **SMALL,
                "cv.holdout": None,
                "cv.n_splits": 2,
                "name": name,
                "log_dir": str(folder / "lightning_logs"),
            }
            cross_validate(None, settings, run="run", model=network, data=SYNTHETIC)

    return once("documented_runs", fill)


@pytest.fixture
def workspace(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like a checkout, in which the commands of a page are run: configs, two runs, images."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(runs / "lightning_logs", tmp_path / "lightning_logs")
    for link, run in (("RUN", "first"), ("OTHER_RUN", "second")):
        (tmp_path / link).symlink_to(tmp_path / "lightning_logs" / run / "run")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 10
    images = (rng.integers(0, 100, (120, 28, 28)) + 15 * labels[:, None, None]).astype(np.uint8)
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    np.savez(tmp_path / "my.npz", images=images, labels=labels, class_names=np.array(names))
    (tmp_path / "photos").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "photos" / "shirt.png")
    (tmp_path / "scans").mkdir()  # which a page fills
    (tmp_path / "scans" / "manifest.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


def write_files(page: Path, folder: Path) -> None:
    """The files that documents show; the page's own in place of others of the same name."""
    for name, text in [item for shown in (*PAGES, page) for item in files(shown).items()]:
        (folder / name).write_text(text, encoding="utf-8")


def run_command(command: str, arguments: list[str]) -> None:
    status = import_module(f"fmnist_cv.{command}").main(arguments)
    assert status == 0, f"python -m fmnist_cv.{command} {' '.join(arguments)}: exit status {status}"


def small(arguments: list[str]) -> list[str]:
    """A documented `fit` with a small network on few images, unless it names its own."""
    own = {name: any(argument.startswith(f"--{name}") for argument in arguments) for name in ("model", "data")}
    model = [] if own["model"] else ["--model=fmnist_cv.models.DenseNetwork", "--model.hidden=[8]"]
    data = [] if own["data"] else [f"--data={SYNTHETIC}"]
    return [*arguments, *model, *data, *SMALL_OPTIONS]


@pytest.mark.parametrize("page", pages_with("bash"), ids=name_of)
def test_every_command_is_parsed(page: Path, workspace: Path) -> None:
    """Options, class paths, configurations and files exist."""
    write_files(page, workspace)
    for block in blocks(page):
        if block.language == "bash":
            for command, arguments in command_lines(block.text):
                parse(command, arguments)


def parse(command: str, arguments: list[str]) -> None:
    line = f"python -m fmnist_cv.{command} {' '.join(arguments)}"
    try:
        if command in ("fit", "tune"):  # their own way to read configs comes before the parser's
            import_module(f"fmnist_cv.{command}").main([*arguments, "--print_config"])
        else:
            parser_of(command).parse_args(arguments)
    except SystemExit as ended:
        if ended.code not in (0, None):
            pytest.fail(f"{line}: {ended.code}")
    except Exception as error:
        pytest.fail(f"{line}: {error}")
    else:
        assert command not in ("fit", "tune"), f"{line}: it was refused"  # what is accepted is printed, and ends it


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=name_of)
def test_what_a_page_runs(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks marked to run are executed in the order of the page, Python with the same names throughout."""
    write_files(page, workspace)
    names: dict[str, Any] = {"__name__": "snippet"}
    monkeypatch.setattr("fmnist_cv.cross_validate", small_cross_validate)
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "python":
            exec(compile(block.text, f"{name_of(page)}, a snippet", "exec"), names)
            continue
        for command, arguments in command_lines(block.text):
            if "--print_config" in arguments:
                continue
            run_command(command, small(arguments) if command == "fit" else arguments)


def small_cross_validate(config: Any = None, overrides: dict[str, Any] | None = None, **objects: Any) -> Any:
    overrides = overrides or {}
    if objects:
        return cross_validate(config, {**overrides, **SMALL}, **objects)
    as_experiment(config, overrides)  # as it is written
    network = {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [8]}}
    return cross_validate(config, {**overrides, **SMALL}, model=network, data=SYNTHETIC)


@pytest.mark.parametrize("page", pages_with("yaml"), ids=name_of)
def test_fragments_of_yaml_fit_into_an_experiment(page: Path, workspace: Path) -> None:
    write_files(page, workspace)
    for block in blocks(page):
        if block.language == "yaml" and not block.title:
            assert isinstance(yaml.safe_load(block.text), dict)
            text = (workspace / "configs" / "sharifi-cnn.yaml").read_text(encoding="utf-8")
            experiment = yaml.safe_load(text) | yaml.safe_load(block.text)
            as_experiment({**experiment, "trainer": {"max_epochs": 1, **experiment.get("trainer", {})}})


def test_the_search_that_a_guide_shows_fits_its_experiment(workspace: Path) -> None:
    content = yaml.safe_load(files(ROOT / "docs" / "guides" / "search.md")["my-search.yaml"])
    content["overrides"]["data"] = SYNTHETIC  # the real images need not be there
    search = as_search({**content, "log_dir": str(workspace)})
    assert len(search.space) == 2 and search.n_trials == 30


def test_other_programs_in_documents_are_known() -> None:
    """Each line of a `bash` block starts with a program that the documents explain."""
    known = ("python", "fmnist-cv", "make", "pip", "tensorboard", "optuna-dashboard", ".")
    lines = [
        line.strip()
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    assert [line for line in lines if line and line.split()[0] not in known] == []
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [line for line in lines if line.startswith("make ") and line.split()[1] not in targets] == []
