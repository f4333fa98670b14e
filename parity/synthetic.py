"""Drawn instances and the maps an instance decoder would give for them; integers throughout the drawing, so that the tests can
draw the same in Rust."""

import numpy as np
from scipy.ndimage import distance_transform_edt, uniform_filter


def draw(shapes, size):
    """One boolean mask per row of `shapes`: (0, y, x, radius, -) is a disc, (1, y0, x0, y1, x1) a half-open rectangle."""
    y, x = np.mgrid[: size[0], : size[1]]
    masks = []
    for kind, a, b, c, d in shapes:
        masks.append((y - a) ** 2 + (x - b) ** 2 <= c * c if kind == 0 else (y >= a) & (x >= b) & (y < c) & (x < d))
    return np.stack(masks) if masks else np.zeros((0, *size), bool)


def paint(shapes, size):
    """Label image, later shapes on top."""
    labels = np.zeros(size, "uint32")
    for index, mask in enumerate(draw(shapes, size)):
        labels[mask] = index + 1
    return labels


def decoder_maps(labels, noise, seed):
    """Foreground, centre distance and boundary distance as [3, H, W] uint8 (value / 255 is the map), with noise."""
    rng = np.random.RandomState(seed)
    foreground = (labels > 0).astype("float64")
    center, boundary = np.ones(labels.shape), np.ones(labels.shape)
    for label in np.unique(labels)[1:]:
        mask = labels == label
        depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        boundary[mask] = 1 - depth[mask] / depth.max()
        y, x = np.argwhere(mask).mean(axis=0)
        distance = np.hypot(*(np.indices(labels.shape) - np.array([y, x])[:, None, None]))
        center[mask] = distance[mask] / max(distance[mask].max(), 1)
    maps = np.stack([uniform_filter(m, 3) for m in (foreground, center, boundary)])
    maps += noise * rng.standard_normal(maps.shape)
    return np.round(np.clip(maps, 0, 1) * 255).astype("uint8")


def discs(size, count, radii, seed):
    rng = np.random.RandomState(seed)
    return [
        (0, rng.randint(-2, size[0] + 2), rng.randint(-2, size[1] + 2), rng.randint(*radii), 0) for _ in range(count)
    ]


# 97 x 131 with objects on every border; 150 x 200 with discs that touch in rows and columns; the first again, so noisy that
# components are ragged and thin.
CASES = {
    "borders": ((97, 131), discs((97, 131), 22, (4, 14), 1), 0.02, 11),
    "touching": ((150, 200), [(0, 14 + 24 * i, 14 + 24 * j, 12, 0) for i in range(6) for j in range(8)], 0.04, 12),
    "ragged": ((97, 131), discs((97, 131), 30, (2, 17), 3), 0.2, 13),
}


def case(name):
    size, shapes, noise, seed = CASES[name]
    return decoder_maps(paint(shapes, size), noise, seed)
