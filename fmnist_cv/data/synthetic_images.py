"""Synthetic stand-in for Fashion-MNIST: random clothes drawn as polygons, then textured in bulk."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_SIZE = 28
_SUPERSAMPLE = 3
_CHUNK = 1000  # bounds the float working memory to tens of MB however many images are requested

_Points = Sequence[tuple[float, float]]
_Range = tuple[float, float]


class _Shape(NamedTuple):
    """A filled polygon, or an open line if ``width`` > 0; later shapes are painted over earlier ones.

    Points are (x, y) with y down, the garment filling [-1, 1] x [-1, 1]. ``shade`` is the reflectance in
    [0, 1], 0 cutting a hole. ``width`` is in supersampled pixels.
    """

    points: _Points
    shade: float
    width: int = 0


def _mirror(right_half: _Points) -> _Points:
    return [*right_half, *((-x, y) for x, y in reversed(right_half))]


def _both_sides(part: _Shape) -> list[_Shape]:
    return [part, part._replace(points=[(-x, y) for x, y in part.points])]


def _box(x: float, y: float, half_width: float, half_height: float) -> _Points:
    left, right, top, bottom = x - half_width, x + half_width, y - half_height, y + half_height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _top(
    rng: Generator, hem: float, flare: _Range, waist: _Range, neckline: _Range, sleeve: _Range, spread: _Range
) -> list[_Shape]:
    """Torso and sleeves shared by all tops: ``hem`` is its y, ``flare`` and ``waist`` half widths relative to
    the chest, ``neckline`` a depth, ``sleeve`` a length, ``spread`` the sleeve's angle from vertical."""
    u = rng.uniform
    shoulder, neck, depth = u(0.42, 0.56), u(0.15, 0.27), u(*neckline)
    chest = shoulder * u(0.85, 1.0)
    sides = [(chest, -0.3), (chest * u(*waist), 0.2), (chest * u(*flare), hem)]
    parts = [_Shape(_mirror([(neck, -0.92), (shoulder, -0.76), *sides]), 1.0)]
    length, angle = u(*sleeve), u(*spread)
    if length > 0:
        sin, cos = np.sin(angle), np.cos(angle)
        x, y = shoulder + length * sin, -0.7 + length * cos
        cuff = u(0.09, 0.15) if length > 0.8 else u(0.14, 0.22)
        end = [(x + cuff * cos, y - cuff * sin), (x - cuff * cos, y + cuff * sin)]
        arm = [(shoulder * 0.85, -0.82), (shoulder + 0.08, -0.7), *end, (chest, -0.3)]
        # Sleeves go behind the torso and a little darker, so that hanging ones stay visible.
        parts = [*_both_sides(_Shape(arm, u(0.65, 0.95))), *parts]
    hole = _mirror([(neck, -0.97), (neck * 0.7, -0.92 + 0.7 * depth), (0.0, -0.92 + depth)])
    return [*parts, _Shape(hole, 0.0)]


def _maybe_print(rng: Generator, probability: float) -> list[_Shape]:
    u = rng.uniform
    box = _box(u(-0.1, 0.1), u(-0.25, 0.1), u(0.1, 0.3), u(0.05, 0.3))
    return [_Shape(box, u(0.2, 0.7))] if rng.random() < probability else []


def _t_shirt(rng: Generator) -> list[_Shape]:
    sleeve = (0.25, 0.55) if rng.random() < 0.9 else (0.0, 0.0)
    hem = rng.uniform(0.7, 0.95)
    return _top(rng, hem, (0.95, 1.15), (0.85, 1.0), (0.1, 0.35), sleeve, (0.5, 1.0)) + _maybe_print(rng, 0.5)


def _trouser(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    waist, hip, stance, ankle = u(0.22, 0.36), u(0.32, 0.46), u(0.22, 0.36), u(0.12, 0.2)
    crotch, hem = u(-0.45, -0.15), u(0.7, 0.98)
    leg = [(waist, -0.95), (hip, -0.5), (stance + ankle, hem), (stance - ankle, hem), (0.02, crotch)]
    belt = _Shape([(-waist, -0.88), (waist, -0.88)], u(0.5, 0.9), 3)
    return [_Shape(_mirror(leg), 1.0), belt, _Shape([(0, -0.88), (0, crotch)], u(0.4, 0.8), 2)]


def _pullover(rng: Generator) -> list[_Shape]:
    hem = rng.uniform(0.65, 0.9)
    parts = _top(rng, hem, (0.9, 1.1), (0.9, 1.05), (0.03, 0.2), (1.1, 1.5), (0.12, 0.4))
    ribbing = _Shape([(-0.4, hem - 0.07), (0.4, hem - 0.07)], rng.uniform(0.6, 0.95), 3)
    return [*parts, ribbing, *_maybe_print(rng, 0.3)]


def _dress(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    sleeve = ((0.0, 0.0), (0.0, 0.0), (0.2, 0.5), (0.9, 1.2))[rng.integers(4)]
    parts = _top(rng, u(0.9, 1.0), (0.9, 1.7), (0.6, 0.95), (0.1, 0.5), sleeve, (0.15, 0.5))
    slim, belt = u(0.6, 0.8), u(-0.25, 0.05)  # a long garment is slimmer in a frame scaled to its height
    parts = [part._replace(points=[(slim * x, y) for x, y in part.points]) for part in parts]
    return parts + ([_Shape([(-0.25, belt), (0.25, belt)], u(0.3, 0.8), 3)] if rng.random() < 0.4 else [])


def _coat(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    hem, gap = u(0.85, 1.0), u(0.03, 0.15)
    parts = _top(rng, hem, (0.95, 1.3), (0.85, 1.05), (0.1, 0.3), (1.15, 1.5), (0.1, 0.35))
    lapel = _Shape([(0.22, -0.88), (0.25, -0.55), (0.02, -0.2)], u(0.5, 0.85), 3)
    pocket = _Shape([(0.16, 0.35), (0.34, 0.3)], u(0.4, 0.9), 2)
    front = _Shape(_mirror([(0.03, -0.55), (gap, hem)]), u(0.0, 0.5))
    return [*parts, *_both_sides(lapel), *_both_sides(pocket), front]


def _shirt(rng: Generator) -> list[_Shape]:
    hem, dark = rng.uniform(0.7, 0.95), rng.uniform(0.15, 0.7)
    sleeve, spread = ((1.1, 1.5), (0.12, 0.4)) if rng.random() < 0.65 else ((0.3, 0.6), (0.4, 0.9))
    parts = _top(rng, hem, (0.9, 1.15), (0.85, 1.0), (0.1, 0.2), sleeve, spread)
    collar = [(0.14, -0.98), (0.32, -0.78), (0.2, -0.58), (0.0, -0.72)]
    buttons = [_Shape(_box(0.0, y, 0.045, 0.045), dark) for y in np.arange(-0.5, hem - 0.1, 0.22)]
    return [*parts, *_both_sides(_Shape(collar, 1.0)), *_both_sides(_Shape(collar[1:], dark, 2)), *buttons]


def _sandal(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    rise = u(0.35, 0.75) if rng.random() < 0.5 else u(0.0, 0.1)
    ground, thick, spike = 0.6, u(0.08, 0.16), u(0.5, 0.86)
    bed = ground - thick  # top of the sole under the toes; `back` is the same under the heel
    back = bed - rise
    top = [(-0.95, bed), (-0.35, bed), (0.4, back), (0.92, back)]
    sole = [*top, (0.92, back + thick), (0.45, back + thick), (-0.3, ground), (-0.9, ground)]
    heel = [(spike - 0.1, back), (0.92, back), (0.92, ground), (spike, ground)]
    shade, width, ankle = u(0.6, 1.0), int(rng.integers(3, 8)), back - u(0.3, 0.6)
    straps = [[(0.86, back), (0.82, ankle), (0.4, ankle + 0.08), (0.3, ankle + 0.25), (0.84, back - 0.15)]]
    for x in np.linspace(-0.75, -0.3, rng.integers(1, 4)):
        arch = bed - u(0.25, 0.45)
        straps.append([(x, bed), (x + 0.08, arch), (x + 0.25, arch), (x + 0.45, bed)])
    if rng.random() < 0.5:
        straps.append([(0.32, ankle + 0.15), (-0.35, bed - 0.2)])
    base = [_Shape(sole, u(0.7, 1.0)), _Shape(heel, u(0.7, 1.0))]
    return base + [_Shape(strap, shade, width) for strap in straps]


def _sneaker(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    ground, top, toe, dark = 0.5, u(-0.4, -0.15), u(-0.05, 0.12), u(0.2, 0.7)
    welt, throat = ground - u(0.12, 0.22), u(0.0, 0.25)  # the laces run from the toe up to the throat
    front = [(-0.95, welt), (-0.9, toe + 0.1), (-0.55, toe), (throat, top)]
    upper = [*front, (throat + 0.2, top + 0.14), (0.7, top + 0.12), (0.88, top - 0.05), (0.93, welt)]
    sole = [(-0.98, welt), (0.96, welt), (0.94, ground), (-0.9, ground)]
    eyelets = [(-0.55 + t * (throat + 0.55), toe + t * (top - toe)) for t in (0.25, 0.5, 0.75)]
    laces = [_Shape([(x, y), (x + 0.12, y + 0.2)], dark, 2) for x, y in eyelets]
    swoosh = _Shape([(-0.1, 0.2), (0.3, 0.2), (0.85, u(-0.1, 0.15))], u(0.2, 1.0), int(rng.integers(2, 6)))
    return [_Shape(upper, u(0.6, 1.0)), *laces, swoosh, _Shape(sole, u(0.5, 1.0))]


def _bag(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    top, bottom, wide, base = u(-0.4, 0.0), u(0.6, 0.9), u(0.55, 0.9), u(0.6, 0.95)
    body = _mirror([(wide, top), (base, bottom - 0.1), (base - 0.08, bottom)])
    reach, rise, flap = wide * u(0.4, 0.9), u(0.3, top + 0.97), top + u(0.15, 0.5)
    handle = [(reach * np.cos(a), top + 0.05 - rise * np.sin(a)) for a in np.linspace(0, np.pi, 9)]
    seam = _Shape([(-wide, flap), (wide, flap)], u(0.3, 1.0), 2)
    clasp = _Shape(_box(0.0, flap, 0.09, 0.07), u(0.1, 1.0))
    return [_Shape(handle, u(0.6, 1.0), int(rng.integers(3, 7))), _Shape(body, 1.0), seam, clasp]


def _ankle_boot(rng: Generator) -> list[_Shape]:
    u = rng.uniform
    ground, top, toe, shin = 0.85, u(-0.95, -0.5), u(0.3, 0.5), u(-0.15, 0.15)
    heel = ground - u(0.05, 0.35)
    front = [(-0.95, 0.77), (-0.9, toe), (-0.45, toe - 0.12), (shin, 0.0), (shin - 0.05, top)]
    leather = [*front, (0.75, top + u(-0.05, 0.1)), (0.75, 0.2), (0.85, heel), (0.2, heel), (-0.2, 0.77)]
    upper_edge = [(-0.95, 0.75), (-0.2, 0.75), (0.2, heel - 0.02), (0.85, heel - 0.02)]
    sole = [*upper_edge, (0.85, ground), (0.45, ground), (0.4, heel + 0.08), (-0.15, ground), (-0.95, ground)]
    zipper = _Shape([(0.3, top), (0.35, 0.3)], u(0.3, 1.0), 2)
    return [_Shape(leather, 1.0), zipper, _Shape(sole, u(0.4, 0.9))]


_CLASSES: tuple[Callable[[Generator], list[_Shape]], ...] = (  # in the order of CLASS_NAMES
    _t_shirt,
    _trouser,
    _pullover,
    _dress,
    _coat,
    _sandal,
    _shirt,
    _sneaker,
    _bag,
    _ankle_boot,
)


def _rasterise(parts: list[_Shape], rng: Generator) -> NDArray[np.uint8]:
    """Paint the parts under one random rotation, scale and shift; returns reflectance * 255, (28, 28)."""
    angle = rng.normal(0.0, 0.1)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix *= rng.uniform(0.75, 1.0, 2) * (_SIZE * _SUPERSAMPLE / 2)
    centre = (_SIZE / 2 + rng.uniform(-2.0, 2.0, 2)) * _SUPERSAMPLE
    image = Image.new("L", (_SIZE * _SUPERSAMPLE, _SIZE * _SUPERSAMPLE))
    draw = ImageDraw.Draw(image)
    for points, shade, width in parts:
        xy = (np.asarray(points) @ matrix + centre).ravel().tolist()
        if width:
            draw.line(xy, fill=int(255 * shade), width=width)
        else:
            draw.polygon(xy, fill=int(255 * shade))
    return np.asarray(image.reduce(_SUPERSAMPLE))


def _photograph(reflectance: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Add fabric texture, lighting, contrast inversion and noise to drawings of shape (m, 28, 28)."""
    m = len(reflectance)

    def per_image(low: float, high: float, probability: float = 1.0) -> NDArray[np.float64]:
        return rng.uniform(low, high, (m, 1, 1)) * (rng.random((m, 1, 1)) < probability)

    y, x = np.mgrid[-1 : 1 : _SIZE * 1j, -1 : 1 : _SIZE * 1j]
    across, light = per_image(0, np.pi), per_image(0, 2 * np.pi)
    wave = per_image(4, 20) * (x * np.cos(across) + y * np.sin(across)) + per_image(0, 2 * np.pi)
    stripes = per_image(0.1, 0.5, 0.4) * np.sin(wave)
    patches = per_image(0.0, 0.3, 0.5) * rng.standard_normal((m, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    shading = per_image(0.1, 0.6, 0.5) * (x * np.cos(light) + y * np.sin(light))
    fabric = np.clip(per_image(0.3, 1.0) * (1 + stripes + patches + shading), 0.1, 1.2)
    image: NDArray[np.float64] = reflectance / 255 * fabric
    image = np.where(rng.random((m, 1, 1)) < 0.15, 0.9 - image, image)
    image += per_image(0.0, 0.1) * rng.standard_normal(image.shape)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def make_synthetic_images(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Generate ``n`` random images of the ten Fashion-MNIST classes.

    Args:
        n: Number of images, at least 0.
        seed: Seed of the random generator; the same ``(n, seed)`` gives bit-identical arrays.

    Returns:
        ``images``, uint8 of shape (n, 28, 28) in [0, 255], and ``labels``, int64 of shape (n,) in [0, 9],
        indexing ``CLASS_NAMES``. Class counts differ by at most one; the order is shuffled.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(CLASS_NAMES))
    images = np.empty((n, _SIZE, _SIZE), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i] = _rasterise(_CLASSES[label](rng), rng)
    for start in range(0, n, _CHUNK):
        images[start : start + _CHUNK] = _photograph(images[start : start + _CHUNK], rng)
    return images, labels


def synthetic_warning(data_name: str, what: str = "these scores") -> list[str]:
    """The warning shown with everything measured on synthetic images, as a list of lines; empty for real images."""
    if "SYNTHETIC" not in data_name:
        return []
    return [f"SYNTHETIC data: generated images, not Fashion-MNIST; {what} say nothing about real images."]
