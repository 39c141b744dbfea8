"""Image files of every kind become uint8 pixels of one size, and what is no image is refused with the reason."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from fmnist_cv.data.decoding import Decoding, decoded
from fmnist_cv.data.photos import UnreadableImage
from fmnist_cv.errors import UserError

RED = (200, 30, 40)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def halves(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste((20, 30, 220), (size[0] // 2, 0, *size))
    return image.convert(mode)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_every_format_gives_the_same_picture(tmp_path: Path, ending: str) -> None:
    pixels = Decoding((8, 12))(saved(tmp_path / f"a.{ending}", halves((48, 32))))
    assert pixels.shape == (3, 8, 12) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.abs(pixels[:, 4, 1].astype(int) - RED).max() < 12
    assert np.abs(pixels[:, 4, -2].astype(int) - (20, 30, 220)).max() < 12


@pytest.mark.parametrize(
    ("mode", "ending"), [("L", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "png")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_has_the_channels_asked_for(tmp_path: Path, mode: str, ending: str, channels: int) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.new("RGB", (10, 6), "white").convert(mode))
    assert Decoding(None, channels=channels)(path).tolist() == np.full((channels, 6, 10), 255).tolist()


def test_choices_are_the_documented_ones(tmp_path: Path) -> None:
    """Transparent is white, 16 bits lose their lower 8, an animation shows its first image, EXIF turns."""
    clear = saved(tmp_path / "clear.png", Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert (Decoding()(clear) == 255).all()
    deep = saved(tmp_path / "deep.png", Image.fromarray(np.full((4, 4), 0x81FF, np.uint16)))
    assert (Decoding(channels=1)(deep) == 0x81).all()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    film = saved(tmp_path / "film.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (Decoding()(film) == 255).all()
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees, to the right
    turned = Decoding()(saved(tmp_path / "turned.jpg", halves((40, 20)), exif=exif, quality=95))
    assert turned.shape == (3, 40, 20) and turned[0, 4, 10] > 150 > turned[0, 35, 10]


def test_the_three_ways_to_resize(tmp_path: Path) -> None:
    wide = Image.new("RGB", (60, 20), "white")
    wide.paste((0, 0, 0), (0, 0, 20, 20))  # its left third
    path = saved(tmp_path / "wide.png", wide)
    squeezed, cropped, padded = (Decoding((12, 12), how, 1)(path)[0] for how in ("squeeze", "crop", "pad"))
    assert squeezed[:, :3].max() == 0 and squeezed[:, 5:].min() == 255
    assert cropped[:, 1:].min() == 255  # the middle
    assert padded[:4].max() == padded[8:].max() == 0 and padded[5:7, 6:].min() == 255


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(["squeeze", "crop", "pad"]),
    st.sampled_from([1, 3]),
)
def test_the_shape_is_the_one_asked_for(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], to: tuple[int, int], how: str, channels: int
) -> None:
    path = saved(tmp_path_factory.getbasetemp() / "any.png", Image.new("RGB", size, "white"))
    pixels = Decoding.checked([*to], how, channels)(path)
    assert pixels.shape == (channels, *to)
    if how != "pad":
        assert (pixels == 255).all()


def test_large_jpegs_decoded_smaller_stay_the_same_picture(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC)
    in_full = Decoding((30, 40))(saved(tmp_path / "a.png", image))
    smaller = Decoding((30, 40))(saved(tmp_path / "a.jpg", image, quality=95, subsampling=0))
    assert np.abs(in_full.astype(int) - smaller).mean() < 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page, not an image"),
        (b"\xef\xbb\xbf \n<HTML>", "is a web page"),
        (b"hello", "is not an image"),
        (b"", "is not an image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"a.jpg {reason}"):
        Decoding()(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "squeeze", 3), "data.image_size is 0; give one number"),
        (([32], "squeeze", 3), r"data.image_size is \[32\]"),
        ((32, "stretch", 3), "data.resize is 'stretch'; it is one of squeeze, crop, pad"),
        ((32, "pad", 4), "data.channels is 4"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: tuple[object, str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Decoding.checked(*arguments)  # type: ignore[arg-type]


def test_many_files_come_in_order_from_several_threads() -> None:
    threads = set()
    both = threading.Barrier(2)

    def decode(place: int) -> np.ndarray:
        if place in (0, 40):
            both.wait(10)  # neither ends before the other has begun
        threads.add(threading.current_thread().name)
        if place == 7:
            raise UnreadableImage("broken")
        return np.full(1, place)

    with decoded(300, decode, 2) as results:
        found = [-1 if isinstance(result, UnreadableImage) else int(result[0]) for result in results]
    assert found == [*range(7), -1, *range(8, 300)] and len(threads) == 2


def test_a_program_error_ends_the_decoding() -> None:
    def decode(place: int) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), decoded(100, decode, 2) as results:
        list(results)
