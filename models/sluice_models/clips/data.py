"""Clips of one moving shape, drawn by seeded code. The class is the direction, and no single frame tells it.

The picture's edges are joined: what leaves on the right comes in on the left. A start that is equally likely everywhere
then makes the position in every later frame equally likely everywhere too, whatever the direction and the speed.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluice_models.clips.sheet import contact_sheet

# In a picture y goes down. Direction i is i eighths of a turn from the first.
DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
# How far a place is from the middle of each shape: across and down, both positive, and half the width of a cross's arm.
_DISTANCES: Mapping[str, Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], Any]] = {
    "disc": lambda x, y, _: np.hypot(x, y),
    "square": lambda x, y, _: np.maximum(x, y),
    "diamond": lambda x, y, _: (x + y) / np.float32(np.sqrt(2)),
    "cross": lambda x, y, arm: np.maximum(np.maximum(x, y), np.minimum(x, y) + arm),
}
SHAPES = tuple(_DISTANCES)
SIZE = 32
# Clips of up to so many frames are served in one group; the last number is the longest clip.
LENGTHS = (3, 6, 12, 24)

HELD_OUT_SEED = 1
HELD_OUT_CLIPS = 200

Frames = NDArray[np.float32]  # values from 0 to 1, in 255ths as in a picture file
Labels = NDArray[np.int32]  # indices of `DIRECTIONS`


@dataclass(frozen=True, slots=True)
class Scenes:
    """What n clips show, before they are drawn.

    Attributes:
        direction: int32 [n], an index of `DIRECTIONS`.
        start: of the shape's centre, x and y in pixels, [n, 2], from 0 to `SIZE`.
        speed: in pixels a frame, [n].
        shape: int [n], an index of `SHAPES`.
        radius: from the centre to the nearest edge, in pixels, [n].
        colours: of the background and of the shape, red, green and blue from 0 to 1, [n, 2, 3].
        noise: largest deviation of a value from its colour, [n].
    """

    direction: Labels
    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    shape: NDArray[np.int64]
    radius: NDArray[np.float64]
    colours: NDArray[np.float64]
    noise: NDArray[np.float64]

    @property
    def velocity(self) -> NDArray[np.float64]:
        """Pixels a frame in x and y, [n, 2]."""
        angle = self.direction * (2 * np.pi / len(DIRECTIONS))
        return self.speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def clips(count: int, frames: int, seed: tuple[int, ...], spread: float = 1.0) -> tuple[Frames, Labels]:
    """Clips and their directions, [count, frames, 32, 32, 3] and [count].

    Args:
        count: how many.
        frames: how many pictures each has.
        seed: the same clips for the same seed.
        spread: how much of the picture, from its middle, the start may be in. Only if it may be everywhere does a frame
            alone say nothing of the direction.
    """
    random = np.random.default_rng(seed)
    found = scenes(random, count)
    near = replace(found, start=SIZE / 2 + spread * (found.start - SIZE / 2))
    return drawn(near, frames, random), found.direction


def held_out(frames: int) -> tuple[Frames, Labels]:
    """The clips of this length that training never sees, the same every time."""
    found, pictures = _held_out(frames)
    return pictures, found.direction


def _held_out(frames: int) -> tuple[Scenes, Frames]:
    random = np.random.default_rng((HELD_OUT_SEED, frames))
    found = scenes(random, HELD_OUT_CLIPS)
    return found, drawn(found, frames, random)


def scenes(random: np.random.Generator, count: int) -> Scenes:
    """What `count` clips show; everything else is independent of the direction."""
    return Scenes(
        direction=random.integers(len(DIRECTIONS), size=count, dtype=np.int32),
        start=random.uniform(0, SIZE, (count, 2)),
        speed=random.uniform(1.5, 4, count),
        shape=random.integers(len(SHAPES), size=count),
        radius=random.uniform(3, 6, count),
        colours=_colours(random, count),
        noise=random.uniform(0, 0.15, count),
    )


def drawn(scenes: Scenes, frames: int, random: np.random.Generator) -> Frames:
    """The clips, float32 [n, frames, 32, 32, 3]."""
    times = np.arange(frames)[:, None]
    centres = scenes.start[:, None] + times * scenes.velocity[:, None]
    inside = _inside(scenes, centres.astype(np.float32))[..., None]
    background, foreground = scenes.colours.astype(np.float32).swapaxes(0, 1)[:, :, None, None, None]
    pictures = random.random((*inside.shape[:-1], 3), np.float32)
    pictures -= 0.5
    pictures *= 2 * scenes.noise.astype(np.float32)[:, None, None, None, None]
    pictures += background
    pictures += inside * (foreground - background)
    pictures *= 255
    np.rint(np.clip(pictures, 0, 255, out=pictures), out=pictures)
    pictures /= 255
    return pictures


def _inside(scenes: Scenes, centres: Frames) -> Frames:
    """How much of each pixel the shape covers, [n, frames, 32, 32]; `centres` are [n, frames, 2]."""
    pixels = np.arange(SIZE, dtype=np.float32)
    x, y = np.moveaxis(np.abs((pixels - centres[..., None] + SIZE / 2) % SIZE - SIZE / 2), 2, 0)
    x, y = x[:, :, None, :], y[:, :, :, None]
    radius = scenes.radius.astype(np.float32)[:, None, None, None]
    distance = np.empty((*centres.shape[:2], SIZE, SIZE), np.float32)
    for i, distances in enumerate(_DISTANCES.values()):
        those = scenes.shape == i
        distance[those] = distances(x[those], y[those], radius[those] / 2)
    return np.clip(radius - distance + 0.5, 0, 1)


def _colours(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Backgrounds and shapes, which differ by a third or more in each of the three colours."""
    background = random.uniform(0, 1, (count, 3))
    foreground = (background + random.uniform(1 / 3, 2 / 3, (count, 3))) % 1
    return np.stack([background, foreground], axis=1)


def write_csv(out: Path) -> Path:
    """Write what the held-out clips show to OUT/clips.csv, and beside it the clips themselves.

    clips.npz holds, for each number of frames, `frames_3` and so on, uint8 [clips, frames, 32, 32, 3], and
    `directions_3` and so on. clips.png shows one clip of each direction.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    parts = [(frames, *_held_out(frames)) for frames in LENGTHS]
    arrays: dict[str, Any] = {f"frames_{frames}": np.rint(255 * clips).astype(np.uint8) for frames, _, clips in parts}
    arrays |= {f"directions_{frames}": found.direction for frames, found, _ in parts}
    np.savez(out / "clips.npz", **arrays)
    firsts = [np.argmax(arrays["directions_12"] == i) for i in range(len(DIRECTIONS))]
    (out / "clips.png").write_bytes(contact_sheet(arrays["frames_12"][firsts]))
    file = out / "clips.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["frames", "clip", "direction", "shape", "speed", "radius", "noise"])
        rows.writerows([frames, *row] for frames, found, _ in parts for row in _rows(found))
    return file


def _rows(scenes: Scenes) -> Iterator[list[Any]]:
    for i, (direction, shape) in enumerate(zip(scenes.direction, scenes.shape, strict=True)):
        numbers = scenes.speed[i], scenes.radius[i], scenes.noise[i]
        yield [i, DIRECTIONS[direction], SHAPES[shape], *(f"{number:.3f}" for number in numbers)]
