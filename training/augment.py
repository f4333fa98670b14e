"""Augmentation of cytomask-t's training crops: colour, light, shape, and objects put where there were none.

Images are float32 [h, w, 3] in 0..255, labels int32 [h, w].  Needs numpy, scipy, scikit-image, torch.
Licence: MIT OR Apache-2.0.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage as ndi
from skimage.measure import label as connected
from skimage.segmentation import expand_labels

# The true outline lies outside half of the light's height, the farther the softer the edge (measured on DSB's training images,
# training/edges.py): pixels for each pixel of the edge's standard deviation, and that of a usual edge.
OUTLINE_SHIFT, USUAL_EDGE = 0.38, 1.7

HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
HED /= np.linalg.norm(HED, axis=1, keepdims=True)
HED_INV = np.linalg.inv(HED).astype(np.float32)
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)
YIQ_INV = np.linalg.inv(YIQ).astype(np.float32)


def colour(x, grey, rng, sigma):
    """Intensity and colour augmentation of an image [H,W,3] in 0..255; between light and noise it is blurred by `sigma`."""
    x = x / 255.0
    if grey:
        g = x[..., :1]
        if rng.random() < 0.5:
            g = g ** math.exp(rng.normal(0, 0.45))
        if rng.random() < 0.06:
            g = 1 - g
        x = np.repeat(g, 3, 2)
        if rng.random() < 0.05:  # pseudo-colour
            x = x * rng.uniform(0.3, 1, 3).astype(np.float32)
    else:
        if rng.random() < 0.5:  # stain jitter in optical density space
            od = -np.log(np.maximum(x, 1 / 255)) @ HED_INV
            od = od * rng.normal(1, 0.2, 3).astype(np.float32) + rng.normal(0, 0.04, 3).astype(np.float32)
            x = np.exp(-np.clip(od @ HED, 0, 6))
        if rng.random() < 0.5:  # hue and saturation
            a, s = rng.normal(0, 0.25), math.exp(rng.normal(0, 0.3))
            r = np.array([[1, 0, 0], [0, s * math.cos(a), -s * math.sin(a)], [0, s * math.sin(a), s * math.cos(a)]],
                         np.float32)
            x = np.clip(x @ (YIQ_INV @ r @ YIQ).T, 0, 1)
        if rng.random() < 0.5:
            x = np.clip(x, 0, 1) ** math.exp(rng.normal(0, 0.25))
        if rng.random() < 0.5:
            x = x * rng.uniform(0.8, 1.15, 3).astype(np.float32) + rng.normal(0, 0.03, 3).astype(np.float32)
        if rng.random() < 0.06:
            x = np.repeat(x.mean(2, keepdims=True), 3, 2)
        if rng.random() < 0.02:
            x = 1 - x
    if rng.random() < 0.5:
        x = x * rng.uniform(0.75, 1.2) + rng.normal(0, 0.04)
    if sigma:
        x = ndi.gaussian_filter(x, (sigma, sigma, 0))
    if rng.random() < 0.25:
        n = rng.standard_normal(x.shape[:2] + (1 if grey else 3,)).astype(np.float32)
        x = x + n * rng.uniform(0.005, 0.08)
    return np.clip(x, 0, 1).astype(np.float32) * 255


def uneven(image, lab, rng):
    """Objects brighter or dimmer than they are: in one field some nuclei glow and others are next to dark.
    image [h,w,3] in 0..255, background dark."""
    base = np.percentile(image[::4, ::4], 10)
    factors = np.exp(np.clip(rng.normal(-0.2, 0.55, int(lab.max()) + 1), -1.6, 0.5)).astype(np.float32)
    factors[0] = 1
    change = ndi.gaussian_filter(factors[lab], 1.0)[..., None]
    return np.clip(base + (image - base) * change, 0, 255).astype(np.float32)


def defocus(image, lab, rng):
    """Some objects dim and out of focus, as if they lay at another depth: their light spreads, and their outlines with it.
    image [h,w,3] in 0..255, one grey value a pixel, background dark.  Returns image and labels."""
    ids = np.flatnonzero(np.bincount(lab.ravel()))[1:] if lab.any() else np.zeros(0, int)
    if not len(ids):
        return image, lab
    chosen = np.zeros(int(lab.max()) + 1, np.float32)
    chosen[ids] = rng.random(len(ids)) < rng.uniform(0.1, 0.6)
    size = math.sqrt((lab > 0).sum() / len(ids))
    gains = np.exp(rng.uniform(-1.6, 0.1, len(chosen))).astype(np.float32)
    grey = image[..., 0]
    base = np.percentile(grey[::4, ::4], 10).astype(np.float32)
    light = grey - base
    reach = 2 * max(2, round(size / 7)) + 1  # the light around an object goes with it
    gain = ndi.maximum_filter((chosen * gains)[lab], reach) * ((lab == 0) | (chosen[lab] > 0))
    taken = ndi.gaussian_filter((gain > 0).astype(np.float32), 1.5) * ((lab == 0) | (chosen[lab] > 0))
    sigma = min(size * rng.uniform(0.04, 0.2), 8.0)
    spread = ndi.gaussian_filter(light * gain, sigma)
    out = base + light * (1 - taken) + spread
    image = np.repeat(np.clip(out, 0, 255).astype(np.float32)[..., None], 3, 2)
    return image, spread_outlines(lab, sigma, rng, chosen > 0)


def spread_outlines(lab, sigma, rng, chosen=None):
    """Labels of objects blurred by `sigma` as one would draw them: grown onto free ground by a part of a pixel in the mean.
    `chosen`: which ids, by id; all without it."""
    grow = int(OUTLINE_SHIFT * (math.hypot(sigma, USUAL_EDGE) - USUAL_EDGE) + rng.random())
    if grow == 0:
        return lab
    grown = expand_labels(lab if chosen is None else lab * chosen[lab], grow)
    return np.where(lab == 0, grown, lab).astype(lab.dtype)


def smooth_field(h, w, knots, rng):
    """Smooth random field [h,w], about -1..1: `knots` x `knots` normal numbers, interpolated."""
    field = torch.from_numpy(rng.standard_normal((1, 1, knots, knots)).astype(np.float32))
    return F.interpolate(field, (h, w), mode="bicubic", align_corners=True)[0, 0].numpy()


def shade(image, rng):
    """Uneven illumination: a smooth gain and a smooth glow.  image [h,w,3] in 0..255."""
    h, w = image.shape[:2]
    gain = np.exp(smooth_field(h, w, 3, rng) * rng.uniform(0.05, 0.3))
    glow = smooth_field(h, w, 4, rng) * rng.uniform(0, 18)
    return np.clip(image * gain[..., None] + glow[..., None], 0, 255).astype(np.float32)


def warp(image, lab, dist, size, rng):
    """Any rotation, stretch, shear and a smooth elastic displacement: `size` pixels square out of a larger crop."""
    h, w = lab.shape
    angle, stretch, shear = rng.uniform(0, 2 * math.pi), math.exp(rng.normal(0, 0.16)), rng.normal(0, 0.12)
    c, s = math.cos(angle), math.sin(angle)
    m = np.array([[c, -s], [s, c]]) @ np.array([[stretch, shear], [0, 1 / stretch]])
    grid = (np.arange(size) + 0.5 - size / 2).astype(np.float32)
    dy, dx = (smooth_field(size, size, int(k), rng) * rng.uniform(0, 45 / k) for k in [rng.integers(4, 10)] * 2)
    gy, gx = grid[:, None] + dy, grid[None] + dx
    y, x = m[0, 0] * gy + m[0, 1] * gx, m[1, 0] * gy + m[1, 1] * gx
    at = torch.from_numpy(np.stack([2 * x / w, 2 * y / h], -1).astype(np.float32))[None]

    def take(a, mode):
        a = torch.from_numpy(np.ascontiguousarray(a, np.float32))[None]
        return F.grid_sample(a, at, mode=mode, padding_mode="reflection", align_corners=False)[0].numpy()

    return (take(image.transpose(2, 0, 1), "bilinear").transpose(1, 2, 0), take(lab[None], "nearest")[0].astype(np.int32),
            take(dist, "bilinear"))


def overlay(a, b, rng):
    """The objects of the dark field `b` among those of `a`, each (image, label) of one size, as if both had been
    in one field of a fluorescence microscope."""
    image = np.maximum(a[0], b[0] * math.exp(rng.normal(-0.2, 0.35)))
    before = np.bincount(a[1].ravel(), minlength=int(a[1].max()) + 1)
    lab = np.where(b[1] > 0, b[1] + a[1].max(), a[1])
    after = np.bincount(lab.ravel(), minlength=len(before))[: len(before)]
    covered = np.zeros(int(lab.max()) + 1, bool)
    covered[1 : len(before)] = after[1:] < 0.4 * before[1:]
    lab[covered[lab]] = 0
    return np.clip(image, 0, 255), connected(lab, connectivity=2).astype(np.int32)


def haze(image, other, rng):
    """Light of nuclei far out of focus: a blurred dark field laid under another one.  Both [h,w,3] in 0..255."""
    sigma = rng.uniform(6, 16)
    glow = ndi.gaussian_filter(other[..., 0], sigma) * rng.uniform(0.2, 0.9)
    return np.clip(image + glow[..., None], 0, 255).astype(np.float32)


def plant(image, lab, rng):
    """More objects between those there are: copies, turned and a little lighter or darker, on free ground."""
    slices, counts = ndi.find_objects(lab), np.bincount(lab.ravel())
    h, w = lab.shape
    whole = [i for i, s in enumerate(slices) if s is not None and counts[i + 1] >= 30
             and s[0].start > 2 and s[1].start > 2 and s[0].stop < h - 2 and s[1].stop < w - 2]
    if not whole:
        return image, lab
    new, out, following = image.copy(), lab.copy(), int(lab.max()) + 1
    for _ in range(int(rng.integers(4, 20))):
        i = int(rng.choice(whole))
        around = tuple(slice(s.start - 2, s.stop + 2) for s in slices[i])
        mask, patch, k = lab[around] == i + 1, image[around], int(rng.integers(4))
        mask, patch = np.rot90(mask, k), np.rot90(patch, k)
        if rng.random() < 0.5:
            mask, patch = mask[:, ::-1], patch[:, ::-1]
        ph, pw = mask.shape
        if ph >= h or pw >= w:
            continue
        y, x = int(rng.integers(h - ph)), int(rng.integers(w - pw))
        here = (slice(y, y + ph), slice(x, x + pw))
        free = mask & (out[here] == 0)
        if free.sum() < 0.85 * mask.sum():
            continue
        soft = (ndi.gaussian_filter(free.astype(np.float32), 0.8) * (out[here] == 0))[..., None]
        new[here] = (1 - soft) * new[here] + soft * np.clip(patch * math.exp(rng.normal(0, 0.12)), 0, 255)
        out[here][free] = following
        following += 1
    return new, connected(out, connectivity=2).astype(np.int32)
