"""Writes fixtures/measurements.safetensors: skimage's regionprops on label images with awkward objects.

Pinned: scikit-image 0.26.0, scipy 1.17, numpy 2.4.6, safetensors 0.8.0. Seed 0.
`python parity/measurements.py`

`CASE/labels` is uint32 [97, 131], `CASE/image` float32 [97, 131, 2] where there is one; `CASE/PROPERTY` has one row for each object
in ascending order of id, float64.
"""

import pathlib

import numpy as np
from safetensors.numpy import save_file
from skimage.draw import disk, ellipse, line
from skimage.measure import regionprops

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = (97, 131)
SHAPE = """label area bbox centroid perimeter axis_major_length axis_minor_length orientation eccentricity area_convex solidity
equivalent_diameter_area extent feret_diameter_max euler_number""".split()
INTENSITY = "intensity_mean intensity_min intensity_max intensity_std intensity_median".split()


def drawn():
    """Shapes whose answers one can think about; ids with gaps."""
    labels = np.zeros(SIZE, "uint32")
    labels[2, 3] = 5  # one pixel
    labels[2, 8:20] = 6  # lines: level, upright, diagonal
    labels[5:30, 3] = 9
    labels[line(6, 8, 26, 28)] = 11
    labels[line(6, 32, 14, 60)] = 12
    labels[disk((45, 15), 11)] = 40
    labels[disk((45, 15), 5)] = 0  # a hole ...
    labels[45, 15] = 40  # ... with an island
    labels[ellipse(45, 50, 6, 17, rotation=0.5)] = 41
    labels[0:9, 100:131] = 70_000  # in the corner
    labels[90:97, 0:12] = 70_001
    labels[60:80, 60:62] = 70_002  # an L and a U
    labels[78:80, 60:75] = 70_002
    labels[60:80, 80:83] = 70_003
    labels[60:80, 95:98] = 70_003
    labels[77:80, 80:98] = 70_003
    labels[30:40, 100:110] = 70_004  # two parts that touch at a corner
    labels[40:44, 110:125] = 70_004
    labels[50, 100] = labels[55, 128] = 70_005  # two far pixels
    labels[65:75:2, 105:125:2] = 70_006  # dots
    labels[85:95, 30:50] = 70_007  # a square and its neighbour, touching
    labels[85:95, 50:70] = 1_000_000
    labels[88:90, 33:36] = labels[92, 40] = 0
    return labels


def grown(rng, n, threshold):
    """Regions around n points, full of holes and crumbs."""
    centers = rng.uniform(0, 1, (n, 2)) * SIZE
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    nearest = np.hypot(yy[..., None] - centers[:, 0], xx[..., None] - centers[:, 1]).argmin(-1)
    return np.where(rng.random(SIZE) < threshold, nearest * 3 + 1, 0).astype("uint32")


def main():
    rng = np.random.default_rng(0)
    image = np.stack([rng.normal(100, 20, SIZE), rng.gamma(2.0, 500.0, SIZE).round()], axis=-1).astype("float32")
    cases = {"drawn": drawn(), "full": grown(rng, 40, 1.1), "holey": grown(rng, 60, 0.8), "crumbs": grown(rng, 30, 0.3)}
    out = {"image": image}
    for name, labels in cases.items():
        # float64, as skimage takes means in the type of the image.
        regions = regionprops(labels.astype("int64"), intensity_image=image.astype("float64"))
        out[f"{name}/labels"] = labels
        for prop in SHAPE + INTENSITY:
            out[f"{name}/{prop}"] = np.array([np.atleast_1d(region[prop]) for region in regions], dtype="float64")
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, ROOT / "fixtures" / "measurements.safetensors")


if __name__ == "__main__":
    main()
