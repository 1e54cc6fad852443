"""Draws pictures that show nothing known, and moves pictures about. Arrays are [n, size, size], from 0 to 1."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Greys = NDArray[np.float64]

_POINTS = 24  # of a stroke


def moved(
    pictures: NDArray[Any], random: np.random.Generator, degrees: float, pixels: float, stretch: float
) -> NDArray[np.float32]:
    """Each picture turned, shifted and stretched at random, up to so much; what comes in from outside is 0."""
    count, size, _ = pictures.shape
    angle = np.radians(random.uniform(-degrees, degrees, count))
    across, down = np.exp(random.uniform(-1, 1, (2, count)) * np.log1p(stretch))
    cos, sin = np.cos(angle), np.sin(angle)
    turns = np.array([[across * cos, -across * sin], [down * sin, down * cos]], np.float32)  # [2, 2, n]
    shift = random.uniform(-pixels, pixels, (2, count, 1, 1)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) - np.float32((size - 1) / 2)
    columns, rows = (turns[i, 0, :, None, None] * x + turns[i, 1, :, None, None] * y for i in (0, 1))
    middle = np.float32((size - 1) / 2)
    return _sampled(pictures.astype(np.float32), rows + middle + shift[1], columns + middle + shift[0])


def _sampled(
    pictures: NDArray[np.float32], down: NDArray[np.float32], across: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Bilinear values at these places, [n, size, size] each."""
    count, size, _ = pictures.shape
    wide = size + 3  # a border of zeros, one wide before and two behind
    flat = np.pad(pictures, ((0, 0), (1, 2), (1, 2))).ravel()
    down, across = (np.clip(each + 1, 0, size + 1) for each in (down, across))
    top, left = down.astype(np.int32), across.astype(np.int32)
    below, right = down - top, across - left
    first = (np.arange(count, dtype=np.int32)[:, None, None] * wide + top) * wide + left
    upper = flat[first] * (1 - right) + flat[first + 1] * right
    lower = flat[first + wide] * (1 - right) + flat[first + wide + 1] * right
    return upper * (1 - below) + lower * below


def scribbles(random: np.random.Generator, count: int, size: int) -> Greys:
    """One to three curved strokes, each a cubic Bézier curve through random points."""
    drawn = np.zeros((count, size, size))
    strokes = random.integers(1, 4, count)
    t = np.linspace(0, 1, _POINTS)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    pixels = np.arange(size)
    for i in range(count):
        ends = random.uniform(-0.1 * size, 1.1 * size, (strokes[i], 4, 2))
        points = (weights @ ends).reshape(-1, 2)
        squared = (pixels - points[:, :1])[:, :, None] ** 2 + (pixels - points[:, 1:])[:, None] ** 2
        radius = random.uniform(0.03, 0.09) * size
        drawn[i] = np.clip(radius + 0.5 - np.sqrt(squared.min(axis=0)), 0, 1)
    return drawn


def noise(random: np.random.Generator, count: int, size: int) -> Greys:
    """Every pixel drawn by itself: half the pictures evenly, half black or white."""
    drawn = random.random((count, size, size))
    share = random.uniform(0.1, 0.6, (count // 2, 1, 1))
    drawn[: count // 2] = drawn[: count // 2] < share
    return drawn


def waves(random: np.random.Generator, count: int, size: int) -> Greys:
    """Stripes and slopes: a wave of any direction and length."""
    y, x = np.mgrid[:size, :size] / size
    angle, cycles, phase = (
        random.uniform(low, high, (count, 1, 1)) for low, high in ((0, np.pi), (0.2, 3.5), (0, 2 * np.pi))
    )
    return 0.5 + 0.5 * np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)


def blobs(random: np.random.Generator, count: int, size: int) -> Greys:
    """One to four soft spots."""
    y, x = np.mgrid[:size, :size]
    drawn = np.zeros((count, size, size))
    for i, spots in enumerate(random.integers(1, 5, count)):
        for across, down, radius in random.uniform((0, 0, 0.08), (1, 1, 0.3), (spots, 3)) * size:
            drawn[i] = np.maximum(drawn[i], np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * radius**2)))
    return drawn


def halves(random: np.random.Generator, pictures: Greys, labels: NDArray[np.int64], count: int) -> Greys:
    """The upper or left half of one picture and the rest of another, of another class."""
    first, second = _pairs(random, labels, count)
    size = pictures.shape[1]
    drawn = pictures[first].copy()
    for i, cut in enumerate(random.integers(round(0.35 * size), round(0.65 * size) + 1, count)):
        where = (slice(cut, None), slice(None)) if random.random() < 0.5 else (slice(None), slice(cut, None))
        drawn[i][where] = pictures[second[i]][where]
    return drawn


def overlaid(random: np.random.Generator, pictures: Greys, labels: NDArray[np.int64], count: int) -> Greys:
    """Two pictures of different classes, one over the other."""
    first, second = _pairs(random, labels, count)
    return np.maximum(pictures[first], pictures[second])


def shuffled(random: np.random.Generator, pictures: Greys, count: int) -> Greys:
    """Pictures whose four quarters have changed places."""
    half = pictures.shape[1] // 2
    drawn = pictures[random.integers(len(pictures), size=count)].copy()
    corners = [(slice(a, a + half), slice(b, b + half)) for a in (0, half) for b in (0, half)]
    for picture in drawn:
        before = picture.copy()
        turn = random.integers(1, 4)
        for i, corner in enumerate(corners):
            picture[corner] = before[corners[(i + turn) % 4]]
    return drawn


def _pairs(random: np.random.Generator, labels: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], ...]:
    """Places of pairs whose labels differ."""
    first, second = random.integers(len(labels), size=(2, 8 * count))
    differ = labels[first] != labels[second]
    return first[differ][:count], second[differ][:count]
