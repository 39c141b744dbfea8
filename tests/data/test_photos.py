"""Photos become 28x28 grey images with the garment light on black; what is no photo is refused with the reason."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from fmnist_cv.data.photos import FUZZ, UnreadableImage, pixel_limit, preprocess, read_photo, trim


def photo(size: tuple[int, int], box: tuple[int, int, int, int], background: str = "white") -> Image.Image:
    """A dark red rectangle, (left, top, right, bottom), before a plain background."""
    image = Image.new("RGB", size, background)
    image.paste((120, 20, 30), box)
    return image


def test_the_background_is_trimmed_whatever_its_colour() -> None:
    for background in ("white", "#f4f4f4", "navy"):
        assert trim(photo((60, 80), (10, 20, 50, 70), background)).size == (40, 50)
    assert trim(Image.new("RGB", (60, 80), "white")).size == (60, 80)


def trimmed_with_arrays(photo: Image.Image) -> Image.Image:
    """`trim` by its definition, with arrays of the photo's size."""
    pixels = np.asarray(photo, dtype=np.int16)
    background = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    garment = (np.abs(pixels - background) > 255 * FUZZ).any(axis=2)
    rows, columns = np.flatnonzero(garment.any(axis=1)), np.flatnonzero(garment.any(axis=0))
    if not len(rows):
        return photo
    return photo.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_box_is_exact(width: int, height: int, spread: int, seed: int) -> None:
    """Also where the corners differ from each other, and pixels differ from them by just the threshold."""
    pixels = np.random.default_rng(seed).integers(200, 200 + spread, (height, width, 3)).clip(0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    found, expected = trim(image), trimmed_with_arrays(image)
    assert found.size == expected.size and found.tobytes() == expected.tobytes()


def test_no_array_of_a_photos_size_is_made_of_it() -> None:
    large = photo((2000, 1500), (200, 300, 1500, 1300))
    tracemalloc.start()
    preprocess(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6  # 3 million pixels; it was 24 bytes and more for each


def test_images_beyond_the_limit_of_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "large.png"
    photo((60, 80), (10, 20, 50, 70)).save(path)
    path.write_bytes(path.read_bytes()[:100])  # the header, and little more
    for limit in (4799, 2399, 10):  # Pillow warns, then raises from twice its limit on
        with (
            pixel_limit(limit),
            pytest.raises(
                UnreadableImage, match=f"large.png has 4,800 pixels, more than the limit of {limit:,};.*--max_pixels"
            ),
        ):
            read_photo(path)
    photo((60, 80), (10, 20, 50, 70)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pixel_limit(4800):
        assert trim(read_photo(path)).size == (40, 50)
    assert Image.MAX_IMAGE_PIXELS == 1000 and not recwarn.list
    with pytest.raises(UnreadableImage, match="more than the limit of 1,000"):
        read_photo(path)


@pytest.mark.parametrize(
    ("name", "kind"), [("pipe.png", "a named pipe"), ("zero.png", "a device"), ("folder.png", "a folder")]
)
def test_only_regular_files_are_opened(tmp_path: Path, name: str, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnreadableImage, match=f"{name} is {kind}"):
        read_photo(tmp_path / name)


def test_a_garment_fills_28_pixels_and_is_centred_and_negated() -> None:
    image = preprocess(photo((60, 80), (5, 10, 33, 66)))  # 28 wide, 56 high
    assert image.shape == (28, 28) and image.dtype == np.uint8
    assert image[:, 7:21].min() > 150 and not image[:, :7].any() and not image[:, 21:].any()
    wide = preprocess(photo((80, 60), (10, 20, 66, 34)))  # 56 wide, 14 high: 28x7, from row 10
    assert wide[10:17].min() > 150 and not wide[:10].any() and not wide[17:].any()


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_a_photo_of_any_size_becomes_28x28(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert preprocess(Image.fromarray(pixels)).shape == (28, 28)


def test_modes_turns_and_transparency_are_undone(tmp_path: Path) -> None:
    grey = photo((60, 80), (5, 10, 33, 66)).convert("L")
    grey.save(tmp_path / "grey.png")
    assert read_photo(tmp_path / "grey.png").mode == "RGB"
    see_through = Image.new("RGBA", (60, 80), (0, 0, 0, 0))
    see_through.paste((120, 20, 30, 255), (5, 10, 33, 66))
    see_through.save(tmp_path / "see_through.png")
    assert (preprocess(read_photo(tmp_path / "see_through.png")) == preprocess(photo((60, 80), (5, 10, 33, 66)))).all()
    turned = photo((60, 80), (5, 10, 33, 66))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").size == (80, 60)


def test_what_is_no_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    photo((60, 80), (5, 10, 33, 66)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    (tmp_path / "empty.png").touch()
    (tmp_path / "program.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )  # for Ghostscript
    for name, reason in (
        ("text.jpg", "is not an image"),
        ("program.jpg", "is not an image"),
        ("cut.jpg", "[Tt]runcated"),
        ("empty.png", "is not an image"),
        ("missing.jpg", "No such file"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_photo(tmp_path / name)
