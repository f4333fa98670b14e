"""Images with known objects, prompts for them, and decoder maps such as a trained decoder would give for them.

Everything is computed from fixed seeds, so that the comparison needs no data set. Folders of real images with
label images beside them (`DATA/<set>/images/NAME.png`, `DATA/<set>/labels/NAME.tif`) can be added.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeded import uniform  # noqa: E402


def _draw(seed: int, size: tuple[int, int], radius: tuple[float, float], spacing: float):
    """Ellipses on a jittered grid, close enough that some touch; ids `1..=n`, and each one's brightness."""
    height, width = size
    random = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint32)
    intensity = np.zeros(size)
    yy, xx = np.mgrid[:height, :width].astype(float)
    count = 0
    for cy in np.arange(spacing * 0.4, height, spacing):
        for cx in np.arange(spacing * 0.3, width, spacing):
            y, x = np.array([cy, cx]) + random.uniform(-0.3, 0.3, 2) * spacing
            a, b = random.uniform(*radius, 2)
            angle, bright, kept = random.uniform(0, np.pi), random.uniform(0.45, 1.0), random.uniform() > 0.2
            if not kept:
                continue
            dy, dx = yy - y, xx - x
            u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            inside = (u / a) ** 2 + (v / b) ** 2 < 1
            if inside.sum() < 12:
                continue
            count += 1
            labels[inside] = count
            intensity[inside] = bright
    return consecutive(labels), ndimage.gaussian_filter(intensity, 1.0), random


def consecutive(labels: np.ndarray) -> np.ndarray:
    """Connected pieces of equal label, numbered `1..=n`; pieces of fewer than 12 pixels become background."""
    result, count = np.zeros(labels.shape, np.uint32), 0
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
        if box is None:
            continue
        pieces, found = ndimage.label(labels[box] == index)
        for piece in range(1, found + 1):
            if (pieces == piece).sum() >= 12:
                count += 1
                result[box][pieces == piece] = count
    return result


def blobs_97x131():
    """Small and not square: purple blobs on a pale ground, 8-bit RGB."""
    labels, intensity, random = _draw(1, (97, 131), (6, 12), 24)
    stain = 1.0 - intensity[..., None] * np.array([0.45, 0.75, 0.25])
    noise = random.normal(0, 0.03, stain.shape)
    return (np.clip(stain * 0.92 + noise, 0, 1) * 255).astype(np.uint8), labels


def grey_300x417():
    """Bright nuclei on a dark ground with uneven light, 16-bit grey that uses a part of its range."""
    labels, intensity, random = _draw(2, (300, 417), (9, 18), 40)
    light = np.linspace(0.7, 1.1, 417)[None]
    value = 900 + 21_000 * intensity * light + random.normal(0, 350, intensity.shape)
    return np.clip(value, 0, 65_535).astype(np.uint16), labels


def large_1024():
    """As large as the network's frame (nothing is resized): two-coloured cells, 8-bit RGB."""
    labels, intensity, random = _draw(3, (1024, 1024), (24, 48), 105)
    nucleus = np.zeros(labels.shape)
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
        depth = ndimage.distance_transform_edt(np.pad(labels[box] == index, 1))[1:-1, 1:-1]
        nucleus[box] = np.maximum(nucleus[box], depth > 0.6 * depth.max())
    channels = np.stack([0.25 * intensity, 0.75 * intensity, ndimage.gaussian_filter(nucleus, 1.5)], axis=-1)
    noise = random.normal(0, 0.02, channels.shape)
    return (np.clip(0.05 + 0.9 * channels + noise, 0, 1) * 255).astype(np.uint8), labels


BUILT_IN = {"blobs_97x131": blobs_97x131, "grey_300x417": grey_300x417, "large_1024": large_1024}


def center_of(labels: np.ndarray, index: int) -> tuple[float, float]:
    """`(x, y)` of the pixel of object `index` that lies deepest inside it."""
    box = ndimage.find_objects(labels.astype(np.int64))[index - 1]
    depth = ndimage.distance_transform_edt(np.pad(labels[box] == index, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(depth), depth.shape)
    return float(box[1].start + x), float(box[0].start + y)


def prompts_for(labels: np.ndarray) -> list[dict]:
    """Six prompts, x first as SAM takes them: every mixture of points and box that the prompt encoder treats apart."""
    height, width = labels.shape
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    first, second, third = (int(index) for index in order[:3])
    boxes = ndimage.find_objects(labels.astype(np.int64))

    def bounds(index):
        y, x = boxes[index - 1]
        return [float(x.start), float(y.start), float(x.stop - 1), float(y.stop - 1)]

    (ax, ay), (bx, by), (cx, cy) = (center_of(labels, index) for index in (first, second, third))
    return [
        {"points": [[ax, ay, 1]], "box": None},
        {"points": [[ax, ay, 1], [bx, by, 0]], "box": None},
        {"points": [], "box": bounds(second)},
        {"points": [[bx, by, 1]], "box": bounds(second)},
        {"points": [[cx + 0.25, cy - 0.5, 1], [0.0, 0.0, 0], [width - 1.0, height - 1.0, 0]], "box": None},
        {"points": [], "box": [0.0, 0.0, float(width), float(height)]},
    ]


def fields_for(labels: np.ndarray, name: str) -> np.ndarray:
    """Foreground, centre distance and boundary distance `[3, H, W]` float32 of drawn objects.

    Distances are normalised per object (0 at the centre, 1 at the rim and outside); noise keyed by `name` splits
    seeds and roughens borders, so that smoothing, thresholds and suppression all have work to do.
    """
    center = np.ones(labels.shape)
    boundary = np.ones(labels.shape)
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
        if box is None:
            continue
        inside = labels[box] == index
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(np.argmax(depth), depth.shape)
        yy, xx = np.mgrid[: inside.shape[0], : inside.shape[1]]
        away = np.hypot(yy - y, xx - x)
        center[box][inside] = (away / max(away[inside].max(), 1.0))[inside]
        boundary[box][inside] = (1.0 - depth / depth.max())[inside]
    maps = np.stack([ndimage.gaussian_filter((labels > 0).astype(float), 1.0), center, boundary])
    noise = uniform(f"input/fields/{name}", maps.size).reshape(maps.shape)
    noise = ndimage.gaussian_filter(noise, (0, 1.0, 1.0)) * 2.0
    return np.clip(maps + noise * np.array([0.05, 0.25, 0.25])[:, None, None], 0.0, 1.0).astype(np.float32)
