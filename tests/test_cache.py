"""`python -m fmnist_cv.cache` lists what is decoded, and clears it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from fmnist_cv.cache import main
from fmnist_cv.command_line import FAILED, OK
from fmnist_cv.data.cache import entries
from fmnist_cv.data.decoded_files import ImageFile, decoded_files
from fmnist_cv.data.decoding import Decoding


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FMNIST_CV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_lists_and_clears(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == OK and capsys.readouterr().out == f"{folder}: 0.0 MB of decoded images\n"
    Image.new("RGB", (700, 700)).save(tmp_path / "a.png")
    files = [ImageFile.found("a.png", str(tmp_path / "a.png"))]
    decoded_files(files, "my/[bold]photos", Decoding((600, 700), "pad"))
    decoded_files(files, "grey", Decoding(channels=1))
    os.utime(entries()[0].path / "info.json", (0, 0))
    os.truncate(entries()[1].path / "images.bin", 10)
    part = shutil.copytree(entries()[0].path, folder / ("0" * 32 + ".part"))
    (part / "info.json").unlink()
    os.utime(part, (1, 1))
    assert main([]) == OK
    first, *rows = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("┏", "┡", "└"))]
    assert first.startswith(
        f"{folder}: 2.5 MB of decoded images; 1.3 MB of them were left by decodings that were killed, and are"
    )
    cells = [[cell.strip() for cell in row.strip("│┃").split("│")] for row in rows[1:]]
    assert cells[0][:4] == ["my/[bold]photos", "1", "600x700, RGB, pad", "1.3 MB"]
    assert " ".join(row[0] for row in cells[1:]) == "left by a killed decoding damaged or of another version"
    assert main(["--clear"]) == OK
    assert capsys.readouterr().out == f"2.5 MB freed in {folder}\n" and not [*folder.iterdir()]


def test_what_is_being_decoded_stays(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = folder / ("0" * 32 + ".part")
    part.mkdir(parents=True)
    with FileLock(folder / ("0" * 32 + ".lock")):
        assert main(["--clear"]) == FAILED
    assert f"kept, since another process is decoding into it: {part}\n" in capsys.readouterr().out and part.exists()


def test_entries_of_another_user_are_passed_over(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, listed = folder / ("1" * 32), Path.iterdir
    theirs.mkdir(parents=True)

    def refused(path: Path) -> Iterator[Path]:
        if path == theirs:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    Image.new("RGB", (7, 7)).save(tmp_path / "a.png")
    decoded_files([ImageFile.found("a.png", str(tmp_path / "a.png"))], "photos", Decoding())
    assert [entry.facts["source"] for entry in entries()] == ["photos"]
