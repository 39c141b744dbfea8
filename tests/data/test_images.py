"""Arrays are checked and brought into one shape; the fingerprint tells any two data sets apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmnist_cv.data import Images
from fmnist_cv.data.named_images import read_left_out
from fmnist_cv.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("images", "shape", "expected"),
    [
        (PIXELS[:, 0], (1, 5, 4), PIXELS[:, :1]),
        (PIXELS[:, :1], (1, 5, 4), PIXELS[:, :1]),
        (PIXELS, (3, 5, 4), PIXELS),
        (PIXELS.transpose(0, 2, 3, 1), (3, 5, 4), PIXELS),
        (PIXELS[:, :1].transpose(0, 2, 3, 1), (1, 5, 4), PIXELS[:, :1]),
        (torch.from_numpy(PIXELS), (3, 5, 4), PIXELS),
    ],
    ids=["n h w", "n 1 h w", "n 3 h w", "n h w 3", "n h w 1", "tensor"],
)
def test_images_are_brought_into_one_shape(images: Any, shape: tuple[int, ...], expected: np.ndarray) -> None:
    data = Images.from_arrays(images, LABELS)
    assert data.shape == shape and len(data) == 6
    assert data.images.dtype == torch.uint8 and data.images.is_contiguous() and data.labels.dtype == torch.int64
    np.testing.assert_array_equal(data.images.numpy(), expected)


def test_digests_of_pixels_are_the_stored_ones_where_there_are_any() -> None:
    images = Images.from_arrays(PIXELS, LABELS)
    found = images.pixel_digests()
    assert len(set(found)) == 6 and found[2] == images.subset(torch.tensor([2])).pixel_digests()[0]
    stored = replace(images, digests=torch.arange(96, dtype=torch.uint8).view(6, 16))
    assert stored.subset(torch.tensor([1])).pixel_digests() == [bytes(range(16, 32))]


def with_pixel(value: float) -> np.ndarray:
    """Floats, one of which has this value in image 4."""
    images = PIXELS / 255
    images[4, 1, 2, 3] = value
    return images


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("last", [False, True])
def test_any_number_of_channels_is_taken(channels: int, last: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 9), dtype=np.uint8)
    data = Images.from_arrays(images.transpose(0, 2, 3, 1) if last else images, LABELS)
    assert data.shape == (channels, 8, 9)
    np.testing.assert_array_equal(data.images.numpy(), images)


@pytest.mark.parametrize(
    ("given", "stored"), [("u2", "u2"), (">u2", "u2"), ("f4", "f4"), (">f4", "f4"), ("f8", "f4"), ("f2", "f4")]
)
def test_16_bits_and_floats_are_taken(given: str, stored: str) -> None:
    images = (PIXELS * np.float64(3.0)).astype(given)
    data = Images.from_arrays(images, LABELS)
    assert data.images.numpy().dtype == stored and data.images.is_contiguous()
    np.testing.assert_array_equal(data.images.numpy(), images)
    np.testing.assert_array_equal(data.pixels(torch.tensor([4, 1])).numpy(), images[[4, 1]])
    np.testing.assert_array_equal(torch.cat([*data.chunks(4)]).numpy(), images)
    images[5, 2, 4, 3] += 1
    assert Images.from_arrays(images, LABELS).fingerprint() != data.fingerprint()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", ">i4", "u8", "i8"])
def test_labels_may_be_any_integers(dtype: str) -> None:
    data = Images.from_arrays(PIXELS, LABELS.astype(dtype))
    assert data.labels.tolist() == LABELS.tolist() and data.class_names == ("0", "1", "2")


@pytest.mark.parametrize(("dtype", "largest"), [("u1", 255), ("i1", 127)])
def test_the_largest_label_of_a_small_dtype_is_counted_rightly(dtype: str, largest: int) -> None:
    labels = np.array([0, 1, 2, 0, 1, largest], dtype=dtype)
    data = Images.from_arrays(PIXELS, labels, [f"class {i}" for i in range(largest + 1)])
    assert data.labels.max() == largest
    with pytest.raises(UserError, match=f"labels run to {largest}, but only 4 different values occur"):
        Images.from_arrays(PIXELS, labels)


def test_the_arrays_are_copied() -> None:
    pixels, labels = PIXELS.copy(), LABELS.copy()
    data = Images.from_arrays(pixels, labels)
    pixels[:], labels[:] = 0, 2
    np.testing.assert_array_equal(data.images.numpy(), PIXELS)
    assert data.labels.tolist() == LABELS.tolist()


def test_groups_may_be_names() -> None:
    data = Images.from_arrays(PIXELS, LABELS, groups=np.array(["b", "a", "b", "c", "c", "a"]))
    assert data.groups is not None and data.groups.tolist() == [1, 0, 1, 2, 2, 0]


@pytest.mark.parametrize(
    "names", [np.array([b"cat", b"dog", "M\u00f6we".encode()]), [b"cat", "dog", "M\u00f6we".encode()]]
)
def test_names_may_be_bytes(names: Any) -> None:
    assert Images.from_arrays(PIXELS, LABELS, names).class_names == ("cat", "dog", "M\u00f6we")


def test_a_class_may_be_without_images() -> None:
    assert Images.from_arrays(PIXELS, LABELS + 1).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            (PIXELS.astype(int), LABELS),
            r"images must be uint8, uint16 or floats, got int64; convert them.*astype\('uint8'\)",
        ),
        ((PIXELS > 9, LABELS), "images must be uint8, uint16 or floats, got bool"),
        ((PIXELS * 1j, LABELS), "images must be uint8, uint16 or floats, got complex128"),
        ((PIXELS.astype(str), LABELS), "images must be uint8, uint16 or floats, got <U"),
        ((with_pixel(np.nan), LABELS), "1 of 6 images have pixels that are NaN, infinite or .*the first at index 4"),
        ((with_pixel(-np.inf), LABELS), "1 of 6 images have pixels that are NaN, infinite or .*the first at index 4"),
        ((with_pixel(1e39), LABELS), "too large for float32, the first at index 4"),
        ((PIXELS.reshape(6, 5, 4, 3)[..., [0, 1, 2, 0, 1]], LABELS), r"\(6, 5, 4, 5\) may have their channels in"),
        ((PIXELS[:, :0], LABELS), r"images must have the shape .*got \(6, 0, 5, 4\)"),
        ((PIXELS[0, 0], LABELS), r"images must have the shape .*got \(5, 4\)"),
        ((PIXELS[None], LABELS), "images must have the shape"),
        ((PIXELS, LABELS[:5]), r"labels must be 6 integers, one per image.*\(5,\)"),
        ((PIXELS, LABELS[:, None]), r"labels must be 6 integers.*\(6, 1\)"),
        ((PIXELS, LABELS / 1), "labels must be 6 integers.*float64"),
        ((PIXELS, LABELS > 1), "labels must be 6 integers.*bool"),
        ((PIXELS, LABELS.astype(str)), "labels must be 6 integers.*<U"),
        ((PIXELS, LABELS - 1), "labels run from -1 to 1"),
        ((PIXELS, LABELS, ["one", "two"]), "labels run from 0 to 2, but there are 2 class names"),
        ((PIXELS[:0], LABELS[:0]), "there are no images"),
        (
            (PIXELS, LABELS * 1_500_000),
            "labels run to 3000000, but only 3 different values occur; count the classes from 0",
        ),
        ((PIXELS, LABELS, [b"cat", b"dog", b"\xff"]), "class_names holds bytes that are not UTF-8"),
        ((PIXELS, LABELS, [b"cat", "cat", "dog"]), "class_names must differ"),
        (
            (PIXELS, LABELS, None, np.array([1, np.nan, 2, np.nan, 2, 1])),
            "groups are missing .* for 2 of 6 images, the first at index 1; .*a group of their own each",
        ),
        (
            (PIXELS, LABELS, None, ["a", None, "b", "b", "a", "a"]),
            "groups are missing .* for 1 of 6 images, the first at index 1",
        ),
        ((PIXELS, LABELS, None, np.array(["2020", "NaT"] * 3, "M8[D]")), "groups are missing .* for 3 of 6"),
        ((PIXELS, LABELS, None, np.array(["a", 1] * 3, object)), "groups must be values of one kind"),
        ((PIXELS, LABELS, None, LABELS[:4]), r"groups must be 6 values, one per image, got shape \(4,\)"),
        ((PIXELS, LABELS, None, LABELS[:, None]), r"groups must be 6 values, one per image, got shape \(6, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Images.from_arrays(*arguments)


def test_the_fingerprint_is_the_same_for_the_same_data() -> None:
    assert Images.from_arrays(PIXELS, LABELS).fingerprint() == Images.from_arrays(PIXELS, LABELS).fingerprint()
    channels_last = Images.from_arrays(PIXELS.transpose(0, 2, 3, 1), LABELS.astype(np.uint8))
    assert channels_last.fingerprint() == Images.from_arrays(PIXELS, LABELS).fingerprint()


def test_the_fingerprint_changes_with_anything() -> None:
    pixels, labels = PIXELS.copy(), LABELS.copy()
    pixels[5, 2, 4, 3] ^= 1
    labels[5] = 0
    variants = [
        Images.from_arrays(PIXELS, LABELS),
        Images.from_arrays(pixels, LABELS),
        Images.from_arrays(PIXELS, labels),
        Images.from_arrays(PIXELS, LABELS, ["a", "b", "c"]),
        Images.from_arrays(PIXELS, LABELS, groups=np.arange(6)),
        Images.from_arrays(PIXELS, LABELS, groups=np.arange(6) // 2),
        Images.from_arrays(PIXELS.reshape(6, 3, 4, 5), LABELS),
        Images.from_arrays(PIXELS[:5], LABELS[:5]),
    ]
    assert len({data.fingerprint() for data in variants}) == len(variants)


def test_images_can_be_left_out(tmp_path: Path) -> None:
    images = Images.from_arrays(PIXELS, LABELS, groups=np.array([0, 0, 1, 1, 2, 2]))
    path = tmp_path / "suspects.csv"
    path.write_text("index,label,why\n4,1,blurred\n0,0,upside down\n4,1,twice\n")
    left = images.without(read_left_out(path, images))
    assert len(left) == 4 and left.labels.tolist() == [1, 2, 0, 2] and left.class_names == images.class_names
    assert torch.equal(left.images, images.images[[1, 2, 3, 5]])
    assert left.groups is not None and left.groups.tolist() == [0, 1, 1, 2]
    assert left.fingerprint() != images.fingerprint()
    path.write_text("index\n")
    assert len(images.without(read_left_out(path, images))) == 6


def test_images_are_left_out_by_name_wherever_they_stand(tmp_path: Path) -> None:
    names = ("a/=1.png", "a/2.png", "=b.png", "a/3.png", "NA", "b/3.png")
    images = replace(Images.from_arrays(PIXELS, LABELS), names=names)
    path = tmp_path / "suspects.csv"
    path.write_text("why,name\nblurred,b/3.png\nNA,NA\nfor a spreadsheet,'=b.png\ntwice,NA\nshort,2\n")
    assert read_left_out(path, images).tolist() == [1, 2, 4, 5]
    turned = images.subset(torch.arange(5, -1, -1))
    assert read_left_out(path, turned).tolist() == [0, 1, 3, 4]
    assert images.without(np.array([0])).subset(torch.tensor([1, 0])).places.tolist() == [2, 1]
    for text, reason in (
        ("4.png", "names the image '4.png', which the data do not have; they have 6, the first is 'a/=1.png'"),
        ("3.png", "names '3.png', which may be 'a/3.png' and 'b/3.png'; give the whole name"),
        ("", "names the image ''"),
    ):
        path.write_text(f"name,why\n{text},x\n")
        with pytest.raises(UserError, match=reason):
            read_left_out(path, images)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read"),
        ("number\n1\n", "is not a CSV file with a column 'index'"),
        ("", "is not a CSV file with a column 'index'"),
        ("index,name\n1,1\n", "has both a column 'index' and a column 'name'"),
        (
            "name\nx.png\n",
            "data.leave_out names the image 'x.png', which the data do not have; they have 6, the first is '0'",
        ),
        ("index\n1.5\n", "has values that are not whole numbers"),
        ("index\nfirst\n", "has values that are not whole numbers"),
        ("index\n6\n", "names images 6 to 6, but there are 6, from 0"),
        ("index\n-1\n", "names images -1 to -1"),
        ("index\n0\n1\n2\n3\n4\n5\n", "leaves no image"),
    ],
)
def test_a_list_of_images_that_will_not_do_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "suspects.csv"
    if text is not None:
        path.write_text(text)
    images = Images.from_arrays(PIXELS, LABELS)
    with pytest.raises(UserError) as error:
        images.without(read_left_out(path, images))
    assert reason in str(error.value)
