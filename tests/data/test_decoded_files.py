"""The cache of decoded images: complete or absent, shared by processes, and never of other files or settings."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from filelock import FileLock
from PIL import Image

from fmnist_cv.data import cache, decoded_files as decoded_files_module
from fmnist_cv.data.cache import clear, entries
from fmnist_cv.data.decoded_files import Decoded, ImageFile, decoded_files
from fmnist_cv.data.decoding import Decoding
from fmnist_cv.data.images import pixel_digest
from fmnist_cv.errors import CannotWrite, UserError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the cache."""
    monkeypatch.setenv("FMNIST_CV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for i in range(5):
        Image.new("RGB", (6, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(5)]


def files_of(paths: list[Path]) -> list[ImageFile]:
    return [ImageFile.found(path.name, str(path)) for path in paths]


def decode(paths: list[Path], decoding: Decoding | None = None, source: str = "here") -> Decoded:
    return decoded_files(files_of(paths), source, decoding or Decoding())


class Counting(Decoding):
    """Counts the files that it decodes."""

    n = 0

    def __call__(self, path: str | Path) -> np.ndarray:
        Counting.n += 1
        return super().__call__(path)


def n_decoded(paths: list[Path], *settings: Any) -> int:
    """How many files are decoded."""
    Counting.n = 0
    decode(paths, Counting(*settings))
    return Counting.n


def test_pixels_are_mapped_and_decoded_once(paths: list[Path], folder: Path) -> None:
    assert n_decoded(paths) == 5 and n_decoded(paths) == 0
    found = decode(paths)
    assert isinstance(found.pixels, np.memmap) and found.pixels.shape == (5, 3, 4, 6)
    assert found.pixels[:, 0, 1, 1].tolist() == [0, 1, 2, 3, 4] and found.broken == {}
    assert [digest.tobytes() for digest in found.digests] == [pixel_digest(image.tobytes()) for image in found.pixels]
    found.pixels[:] = 9  # in this process alone
    assert decode(paths).pixels.max() == 4
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".lock"]


def test_other_files_and_settings_are_decoded_anew(paths: list[Path]) -> None:
    assert n_decoded(paths) == 5
    for settings in (((4, 4),), ((4, 4), "crop"), ((4, 4), "crop", 1), (None, "squeeze", 1)):
        assert n_decoded(paths, *settings) == 5
    os.utime(paths[2], ns=(0, 0))
    assert n_decoded(paths) == 5
    assert n_decoded(paths[:4]) == 4
    assert n_decoded([*reversed(paths)]) == 5
    assert decode(paths, source="elsewhere").digest == decode(paths).digest and len(entries()) == 9


def test_the_digest_is_of_the_pixels_alone(paths: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(path, tmp_path / f"copy{path.name}")) for path in paths]
    first = decode(paths).digest
    assert decode(copies).digest == first
    Image.new("RGB", (6, 4), (9, 0, 0)).save(paths[0])
    assert decode(paths).digest != first


def test_an_entry_of_another_version_or_a_damaged_one_is_made_again(
    paths: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_decoded(paths)
    (entry,) = (entry.path for entry in entries())
    for damage in (
        lambda: os.truncate(entry / "images.bin", 100),
        lambda: (entry / "info.json").write_text("{"),
        lambda: (entry / "info.json").write_text(json.dumps({"format": 0})),
        lambda: (entry / "images.bin").unlink(),
        lambda: (entry / "digests.bin").write_bytes(b""),
    ):
        damage()
        assert entries()[0].facts == {}
        assert n_decoded(paths) == 5 and n_decoded(paths) == 0
    monkeypatch.setattr(decoded_files_module, "FORMAT", 2)
    monkeypatch.setattr(cache, "FORMAT", 2)
    assert n_decoded(paths) == 5 and [bool(entry.facts) for entry in entries()].count(True) == 1


def test_broken_files_are_left_out_until_they_can_be_decoded(paths: list[Path]) -> None:
    whole = paths[1].read_bytes()
    state = paths[1].stat()
    paths[1].write_bytes(b"x" * len(whole))
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    found = decode(paths)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 2, 3, 4] and [*found.broken] == [1]
    assert "1.png is not an image" in found.broken[1]
    paths[1].write_bytes(whole)
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert decode(paths).broken == {} and decode(paths).pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_broken_files_are_remembered_as_long_as_they_stay_so(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:45])
    assert n_decoded(paths) == 5
    expected = decode(paths).broken
    assert [*expected] == [1] and "1.png" in expected[1]
    assert n_decoded(paths) == 0 and decode(paths).broken == expected
    assert entries()[0].facts["broken"]["1"][0] == expected[1]
    before = paths[1].stat()
    paths[1].chmod(0o600)
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert n_decoded(paths) == 1


def test_what_the_system_refused_is_tried_again(paths: list[Path]) -> None:
    class Refused(Counting):
        def __call__(self, path: str | Path) -> np.ndarray:
            Counting.n += 1
            if str(path).endswith("3.png"):
                paths[3].rename(paths[3].with_suffix(".away"))
                try:
                    return super().__call__(path)
                finally:
                    paths[3].with_suffix(".away").rename(paths[3])
            return super().__call__(path)

    assert [*decode(paths, Refused()).broken] == [3]
    assert [*decode(paths, Refused()).broken] == [3]
    assert n_decoded(paths) > 0 and decode(paths).broken == {}


def test_another_pillow_decodes_anew(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert n_decoded(paths) == 5 and decoded_files_module.DECODERS[0] == PIL.__version__
    with monkeypatch.context() as patch:
        patch.setattr(decoded_files_module, "DECODERS", ("another",))
        assert n_decoded(paths) == 5
    assert n_decoded(paths) == 0


def test_no_image_at_all_leaves_nothing(paths: list[Path], folder: Path) -> None:
    paths[0].write_text("no image")
    with pytest.raises(UserError, match=r"none of the 1 images of here can be decoded: .*0.png is not an image"):
        decode(paths[:1])
    assert entries() == []


class FullDisk:
    """A file on a disk that is full after some writes."""

    def __init__(self, file: Any, left: int) -> None:
        self._file, self._left = file, left

    def write(self, content: bytes) -> None:
        if self._left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._left -= 1
        self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_disk_that_becomes_full_is_a_clear_error_and_leaves_nothing(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = decoded_files_module._decode
    with monkeypatch.context() as patch:
        patch.setattr(decoded_files_module, "_decode", lambda file, *rest: made(FullDisk(file, 3), *rest))  # type: ignore[arg-type]
        with pytest.raises(
            CannotWrite,
            match=r"the decoded images, which take 3.6e-07 GB, in .*cache: No space left on device; free some space .*FMNIST_CV_C",
        ):
            decode(paths)
    assert entries() == []
    assert n_decoded(paths) == 5


@pytest.mark.skipif(os.name != "posix", reason="the system has no limits of files")
def test_a_limit_of_the_system_is_a_clear_error_and_leaves_nothing(paths: list[Path], folder: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CannotWrite, match=r"take 0.0003 GB, in .*cache: File too large; free some space"):
            decode(paths, Decoding((100, 200)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries() == [] and [path.suffix for path in folder.iterdir()] == [".lock"]
    assert clear() == (0, []) and not [*folder.iterdir()]


def test_what_does_not_fit_is_refused_before(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(paths[0].parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=5 * 72 - 1))
    with pytest.raises(
        CannotWrite, match=r"the decoded images of here take 3.6e-07 GB, and .*cache has 3.59e-07 GB left"
    ):
        decode(paths)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=5 * 72))
    monkeypatch.setattr(decoded_files_module, "_TOLD_FROM", 0)
    decode(paths)
    assert "decoding 5 images of here once (4x6 pixels, RGB): 3.6e-07 GB in " in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMNIST_CV_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CannotWrite, match=r"cannot write the decoded images in .*file.*set \$FMNIST_CV_CACHE to"):
        decode(paths)


def test_a_decoding_that_is_interrupted_leaves_nothing(paths: list[Path]) -> None:
    class Interrupted(Decoding):
        def __call__(self, path: str | Path) -> np.ndarray:
            if str(path).endswith("3.png"):
                raise KeyboardInterrupt
            return super().__call__(path)

    with pytest.raises(KeyboardInterrupt):
        decode(paths, Interrupted())
    assert entries() == [] and n_decoded(paths) == 5


def _killed(paths: list[Path]) -> None:
    class Deadly(Decoding):
        def __call__(self, path: str | Path) -> np.ndarray:
            if str(path).endswith("3.png"):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(path)

    decode(paths, Deadly())


@pytest.mark.skipif(os.name != "posix", reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_decoding_is_begun_again(paths: list[Path], folder: Path) -> None:
    process = get_context("fork").Process(target=_killed, args=(paths,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    (left,) = entries()
    assert left.path.suffix == ".part" and left.facts == {}
    assert left.is_unfinished and not left.is_being_made
    shutil.copytree(left.path, other := folder / ("0" * 32 + ".part"))
    with FileLock(folder / ("1" * 32 + ".lock")):  # of a process that lives
        shutil.copytree(left.path, busy := folder / ("1" * 32 + ".part"))
        assert n_decoded(paths) == 5
        assert busy.exists() and not other.exists()
    assert clear(only_unfinished=True)[1] == []
    (entry,) = entries()
    assert entry.path.suffix == "" and decode(paths).pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_one_decodes_and_the_others_wait(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Counting):
        def __call__(self, path: str | Path) -> np.ndarray:
            begun.set()
            go_on.wait(10)
            return super().__call__(path)

    Counting.n = 0
    found: list[Decoded] = []
    first = threading.Thread(target=lambda: found.append(decode(paths, Slow())))
    first.start()
    begun.wait(10)
    assert clear() == (0, [entries()[0].path])  # it is being made
    second = threading.Thread(target=lambda: found.append(decode(paths, Slow())))
    second.start()
    second.join(0.2)
    go_on.set()
    first.join(10)
    second.join(10)
    assert Counting.n == 5 and len(found) == 2 and found[0].digest == found[1].digest


def test_the_cache_is_listed_and_cleared(paths: list[Path], folder: Path) -> None:
    assert entries() == [] and clear() == (0, [])
    decode(paths)
    decode(paths, Decoding((8, 8)), "there")
    (folder / "of_somebody_else").mkdir()
    last, first = entries()
    assert (last.facts["source"], first.facts["source"]) == ("there", "here")
    assert last.facts["settings"] == {"image_size": [8, 8], "resize": "squeeze", "channels": 3}
    assert last.size > 5 * 3 * 64 and last.facts["shape"] == [5, 3, 8, 8]
    os.utime(first.path / "info.json", (0, 0))
    assert [entry.facts["source"] for entry in entries()] == ["there", "here"]
    decode(paths)
    assert entries()[1].used > 0
    assert clear() == (first.size + last.size, []) and [path.name for path in folder.iterdir()] == ["of_somebody_else"]


def test_an_entry_that_is_cleared_while_it_is_opened_is_made_again(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_decoded(paths)
    cleared = []

    def read(entry: Path) -> dict[str, Any] | None:
        facts = cache.read_facts(entry)
        if not cleared:
            cleared.append(clear())
        return facts

    monkeypatch.setattr(decoded_files_module, "read_facts", read)
    assert n_decoded(paths) == 5 and cleared[0][0] > 0


def test_entries_that_vanish_while_they_are_listed_are_left_out(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(paths)
    decode(paths, source="there")
    here = next(entry.path for entry in entries() if entry.facts["source"] == "here")

    def vanishing(path: Path) -> bool:
        if path == here:
            shutil.rmtree(here)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_is_ours", lambda path: path.is_dir() and vanishing(path))
        assert [entry.facts["source"] for entry in entries()] == ["there"]
    left = entries()
    shutil.rmtree(left[0].path)
    monkeypatch.setattr(cache, "entries", lambda: left)
    assert clear() == (0, [])  # another process was first


def test_the_folder_is_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FMNIST_CV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, expected in (
        ("linux", tmp_path / "xdg" / "fmnist_cv"),
        ("darwin", tmp_path / "Library" / "Caches" / "fmnist_cv"),
    ):
        monkeypatch.setattr(cache.sys, "platform", platform)
        assert cache.cache_folder() == expected
    monkeypatch.setattr(cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.cache_folder() == tmp_path / "local" / "fmnist_cv"
