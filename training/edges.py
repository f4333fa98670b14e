"""Where annotators draw the edge of a nucleus, by how soft that edge is.

    python edges.py DATA/dsb2018_train

For lone nuclei on dark ground: the mean grey value by distance from the drawn outline, the width over which it falls from three
quarters to a quarter of its height, and how far inside the outline it passes one half.  augment.py moves the outlines of blurred
objects by what this shows (a Gaussian of standard deviation s makes a sharp edge 1.35 s wide).

Needs numpy, scipy, scikit-image, tifffile, pillow.
Licence: MIT OR Apache-2.0.
"""
import glob
import multiprocessing
import os
import sys

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage as ndi
from skimage.measure import regionprops

MARGIN = 8
DISTANCES = np.arange(-5.5, 6.5, 1)  # pixels from the outline, outside positive


def profile(grey, lab, region):
    """Mean grey value at each of DISTANCES, 0 outside to 1 inside; None where other objects are too near or it does not show."""
    y0, x0, y1, x1 = region.bbox
    if min(y0, x0, lab.shape[0] - y1, lab.shape[1] - x1) <= MARGIN:
        return None
    around = np.s_[y0 - MARGIN:y1 + MARGIN, x0 - MARGIN:x1 + MARGIN]
    mask = lab[around] == region.label
    outside, inside = ndi.distance_transform_edt(~mask), ndi.distance_transform_edt(mask)
    distance = np.where(mask, 0.5 - inside, outside - 0.5)
    others = (lab[around] > 0) & ~mask
    to_others = ndi.distance_transform_edt(~others) if others.any() else np.full(mask.shape, np.inf)
    near = (distance > 0) & (distance < 5)
    if (to_others[near] < 5).mean() > 0.3:
        return None
    rings = [(to_others > 5) & (np.abs(distance - d) <= 0.55) for d in DISTANCES]
    if min(ring.sum() for ring in rings) <= 5:
        return None
    means = np.array([grey[around][ring].mean() for ring in rings])
    high, low = means[:3].max(), means[-2:].mean()
    return (means - low) / (high - low) if high - low >= 6 else None


def falls_below(heights, level):
    """The last distance at which a profile passes `level`; NaN if it never does."""
    at = np.flatnonzero((heights[:-1] >= level) & (heights[1:] < level))
    if not len(at):
        return np.nan
    i = at[-1]
    return DISTANCES[i] + (heights[i] - level) / (heights[i] - heights[i + 1])


def edges(path):
    """[n, 2]: width of the edge and distance at which half of the height is passed, of the lone nuclei of an image."""
    image = np.array(Image.open(path)).astype(np.float32)
    grey = image[..., :3].mean(-1) if image.ndim == 3 else image
    lab = tifffile.imread(path.replace(os.sep + "images" + os.sep, os.sep + "labels" + os.sep)[:-4] + ".tif").astype(np.int32)
    if np.median(grey) > 100:
        return np.zeros((0, 2))
    found = [profile(grey, lab, region) for region in regionprops(lab) if region.area >= 80]
    rows = [(falls_below(p, 0.25) - falls_below(p, 0.75), falls_below(p, 0.5)) for p in found if p is not None]
    rows = np.array(rows).reshape(-1, 2)
    return rows[~np.isnan(rows).any(1)]


def main():
    paths = sorted(glob.glob(os.path.join(sys.argv[1], "images", "*.png")))
    with multiprocessing.Pool() as pool:
        rows = np.concatenate(pool.map(edges, paths, chunksize=8))
    print("width of the edge, px | nuclei | half of the height, px from the outline (median)")
    bounds = [0, 1, 1.5, 2, 2.5, 3, 4, 5]
    for low, high in zip(bounds, bounds[1:]):
        half = rows[(rows[:, 0] >= low) & (rows[:, 0] < high), 1]
        if len(half) >= 10:
            print(f"{low} to {high} | {len(half)} | {np.median(half):+.2f}")
    slope = np.polyfit(rows[:, 0], rows[:, 1], 1)[0]
    print(f"slope {slope:.2f} px for a pixel of width: {-1.35 * slope:.2f} for a pixel of standard deviation")


if __name__ == "__main__":
    main()
