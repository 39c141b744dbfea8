"""Image files of any kind and size reach the networks as they should; files that are not images are reported and skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_cv.data.photos import UnreadableImage, preprocess
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import load_ensemble
from fmnist_cv.inference.files import find_images, predict_files, read_and_preprocess

Garments = Callable[[int], list[Path]]
GREY = (1, 28, 28)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """60x80, a dark shirt before white."""
    pixels = np.full((80, 60, 3), 255, np.uint8)
    pixels[20:70, 15:45] = (40, 60, 120)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_files_of_the_networks_size_get_the_predictions_of_their_pixels(run: Path, garments: Garments) -> None:
    paths, ensemble = garments(5), load_ensemble(run)
    found = predict_files(ensemble, paths)
    assert found.files == tuple(paths) and set(found.prepared) == {"as it is"} and not found.unreadable
    assert (found.probabilities == ensemble.predict(make_synthetic_images(5, seed=5)[0]).probabilities).all()
    assert found.table["file"].tolist() == [str(path) for path in paths]


def test_what_is_done_to_an_image(photo: Path, garments: Garments) -> None:
    with Image.open(photo) as file:
        original = file.convert("RGB")
    for asked, done in (("auto", "fashion-mnist"), ("fashion-mnist", "fashion-mnist")):
        pixels, how = read_and_preprocess(photo, GREY, asked)  # type: ignore[arg-type]
        assert how == done and pixels.shape == GREY and pixels.dtype == np.uint8
        assert (pixels[0] == preprocess(original)).all()
    pixels, how = read_and_preprocess(photo, GREY, "none")
    assert how == "resized" and pixels[0, 0, 0] == 255  # not negated
    pixels, how = read_and_preprocess(photo, (3, 32, 40), "auto")
    assert how == "resized" and pixels.shape == (3, 32, 40)
    assert (pixels[:, 0, 0] == 255).all() and np.abs(pixels[:, 16, 20].astype(int) - (40, 60, 120)).max() <= 1
    pixels, how = read_and_preprocess(photo, (3, 80, 60), "auto")
    assert how == "as it is" and (pixels == np.asarray(original).transpose(2, 0, 1)).all()
    pixels, how = read_and_preprocess(garments(1)[0], GREY, "fashion-mnist")  # whoever asks for it gets it
    assert how == "fashion-mnist"
    with pytest.raises(UserError, match="makes 28x28 grey pixels, but the models take 3 channel"):
        read_and_preprocess(photo, (3, 32, 32), "fashion-mnist")
    with pytest.raises(
        UserError, match=r"'as-published' is no longer offered; use 'fashion-mnist', or, .* as_published"
    ):
        read_and_preprocess(photo, GREY, "as-published")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="preprocessing is 'best'; it is one of auto"):
        read_and_preprocess(photo, GREY, "best")  # type: ignore[arg-type]


def test_pixels_of_16_bits_keep_their_range_and_those_of_32_are_refused(tmp_path: Path) -> None:
    pixels = np.arange(784, dtype=np.uint16).reshape(28, 28) * 83
    Image.fromarray(pixels).save(tmp_path / "16.png")
    assert (read_and_preprocess(tmp_path / "16.png", GREY, "auto")[0] == pixels >> 8).all()
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "32.tif")
    with pytest.raises(UnreadableImage, match=r"32\.tif: it has pixels of 32 bits"):
        read_and_preprocess(tmp_path / "32.tif", GREY, "auto")


def test_folders_are_searched_for_images_in_order_and_each_file_is_taken_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.gif", "sub/notes.txt", ".hidden/d.png", "._a.jpg", "labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "b.png", tmp_path, tmp_path / "sub" / "notes.txt", tmp_path / "gone.png"])
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["b.png", "a.JPG", "sub/c.gif", "sub/notes.txt", "gone.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder .*empty contains no images"):
        find_images([tmp_path, tmp_path / "empty"])


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    """Also where they lead round in a circle, and where their target is searched anyway."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for name in ("inside/z/1.png", "inside/z/sub/2.png", "outside/3.png", "outside/deep/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (inside / "a").symlink_to(inside / "z")
    (inside / "out").symlink_to(outside)
    (inside / "z" / "up").symlink_to(inside)
    (outside / "back").symlink_to(inside / "z" / "sub")
    (inside / "gone").symlink_to(tmp_path / "nowhere")
    names = [str(path.relative_to(inside)) for path in find_images([inside])]
    assert names == ["out/3.png", "out/deep/4.png", "z/1.png", "z/sub/2.png"]
    (tmp_path / "link").symlink_to(outside)
    assert find_images([tmp_path / "link"])[0] == tmp_path / "link" / "3.png"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "1.png").touch()
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder .*closed: Permission denied"):
        find_images([tmp_path])


def test_image_files_of_other_formats_are_skipped_by_name(run: Path, garments: Garments) -> None:
    good = garments(2)
    folder = good[0].parent
    for name in ("a.heic", "b.HEIF", "c.dng", "d.svg", "notes.txt"):
        (folder / name).write_bytes(b"\0\0\0 ftypheic")
    good[1].rename(folder / "really_a_png.heic")
    found = predict_files(load_ensemble(run), [folder])
    assert [path.name for path in found.files] == ["0.png", "really_a_png.heic"]
    assert {path.name for path in found.unreadable} == {"a.heic", "b.HEIF", "c.dng", "d.svg"}
    for path, reason in found.unreadable.items():
        assert reason == f"{path} is of a format that is not supported; convert it to JPEG or PNG"


def test_what_is_no_image_is_skipped_with_the_reason(run: Path, garments: Garments) -> None:
    good = garments(3)
    folder = good[0].parent
    (folder / "text.png").write_text("I am no image")
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:200])
    (folder / "empty.jpg").touch()
    ensemble = load_ensemble(run)
    found = predict_files(ensemble, [folder, folder / "gone.png"])
    assert found.files == tuple(good) and len(found.table) == 3
    assert {path.name for path in found.unreadable} == {"text.png", "cut.png", "empty.jpg", "gone.png"}
    assert "text.png is not an image" in found.unreadable[folder / "text.png"]
    assert "gone.png: No such file" in found.unreadable[folder / "gone.png"]
    with pytest.raises(UserError, match=r"no image can be read: .*text.png is not an image"):
        predict_files(ensemble, [folder / "text.png"])
