"""Reads every kind of file cytomask exports with the library its users read it with, and compares the objects pixel by pixel.

Pinned: tifffile 2026.3.3, imagecodecs 2026.3.6, Pillow 12, zarr 3.1.6, ome-zarr 0.18.0, ome-zarr-models 1.7, geojson 3.3.0,
shapely 2.2.0, roifile 2026.2.10, pycocotools 2.0.11, pandas 3.1.1, pyarrow 26.0.1, scikit-image 0.26.0, numpy 2.4.6; cellpose
4.2.1.1 where it is installed.

`python parity/exports.py DIR` checks the results in DIR (STEM_labels.tif and what lies beside it).
`python parity/exports.py DIR --cytomask target/release/cytomask` makes them first: examples/nuclei.png and examples/tissue.png
segmented, and three drawn label images converted: 90,000 objects; 70,003 pixels wide; and the shapes of parity/measurements.py.
Prints a table and exits with 1 if anything differs.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree

import geojson
import numpy as np
import pandas
import pyarrow.parquet
import roifile
import shapely
import tifffile
import zarr
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from skimage.draw import disk, polygon
from skimage.measure import regionprops_table

import measurements

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALL = "tiff,png,ome-tiff,ome-zarr,geojson,roi,coco,cellpose,cellpose-png,csv,parquet,overlay,svg"
WIDE = "tiff,ome-tiff,ome-zarr,geojson,roi,coco,cellpose,csv,parquet,svg"
PIXEL_UM = 0.5
Image.MAX_IMAGE_PIXELS = None
COLUMNS = {  # ours: skimage's
    "area_px": "area",
    "centroid_y": "centroid-0",
    "centroid_x": "centroid-1",
    "perimeter_px": "perimeter",
    "major_axis_px": "axis_major_length",
    "minor_axis_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "convex_area_px": "area_convex",
    "equivalent_diameter_px": "equivalent_diameter_area",
    "extent": "extent",
    "feret_max_px": "feret_diameter_max",
    "euler_number": "euler_number",
}


class Raster:
    """A label image filled ring by ring; what an odd number of an object's rings hold belongs to it."""

    def __init__(self, shape):
        self.labels = np.zeros(shape, "uint32")

    def fill(self, label, rings):
        """Rings are [n, 2] arrays of x, y at corners of pixels."""
        rings = [np.asarray(ring, "float64") for ring in rings]
        low = np.floor(np.min([ring.min(0) for ring in rings], axis=0)).astype(int)
        high = np.ceil(np.max([ring.max(0) for ring in rings], axis=0)).astype(int)
        inside = np.zeros((high - low)[::-1], bool)
        for ring in rings:
            # Corners lie at halves when centres are whole: no centre is on an edge.
            inside[polygon(ring[:, 1] - low[1] - 0.5, ring[:, 0] - low[0] - 0.5, inside.shape)] ^= True
        region = self.labels[low[1] : high[1], low[0] : high[0]]
        assert not (region[inside] != 0).any(), f"object {label} lies over another"
        region[inside] = label


def read_tiff(path, truth):
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.dtype == ("uint16" if truth.max() < 65536 else "uint32"), page.dtype
        return page.asarray(), ""


def read_ome_tiff(path, truth):
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and file.series[0].axes == "YX"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (pixels["SizeX"], pixels["SizeY"]) == truth.shape[::-1]
        size = f"{pixels['PhysicalSizeX']} {pixels['PhysicalSizeXUnit']}" if "PhysicalSizeX" in pixels else ""
        return file.series[0].asarray(), size


def read_png(path, truth):
    return np.array(Image.open(path)), ""


def read_cellpose(path, truth):
    try:
        from cellpose.io import imread
    except ImportError:
        return (read_png if path.suffix == ".png" else read_tiff)(path, truth)
    return imread(str(path)), "cellpose.io"


def read_ome_zarr(path, truth):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    (node,) = Reader(parse_url(path))()
    levels = [np.asarray(level) for level in node.data]
    for index, level in enumerate(levels):
        assert (level == levels[0][:: 2**index, :: 2**index]).all(), f"level {index}"
    group = zarr.open_group(path, mode="r")
    version = "0.5" if "ome" in group.attrs else "0.4"
    if version == "0.4":
        from ome_zarr_models.v04.image_label import ImageLabel
    else:
        from ome_zarr_models.v05.image_label import ImageLabel
    ImageLabel.from_zarr(group)  # raises where the metadata does not follow the specification
    metadata = group.attrs["ome"] if version == "0.5" else group.attrs
    described = metadata["image-label"].get("properties", [])
    if described:
        assert [entry["label-value"] for entry in described] == np.unique(truth[truth > 0]).tolist()
    return levels[0], f"{version}, {len(levels)} levels"


def read_geojson(path, truth):
    raster = Raster(truth.shape)
    collection = geojson.loads(path.read_text())
    assert collection.is_valid, collection.errors()
    ids = set()
    for feature in collection["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid, shapely.is_valid_reason(shape)
        label = int(feature["properties"]["name"])
        parts = getattr(shape, "geoms", [shape])
        rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
        assert all(part.exterior.is_ccw for part in parts)  # the right-hand rule of RFC 7946
        assert shape.area == feature["properties"]["measurements"]["Area px^2"]
        raster.fill(label, [np.array(ring.coords) for ring in rings])
        ids.add(feature["id"])
    assert len(ids) == len(collection["features"])
    return raster.labels, feature["properties"]["objectType"]


def read_roi(path, truth):
    raster = Raster(truth.shape)
    rois = roifile.roiread(path)
    kinds = {}
    for roi in rois:
        composite = roi.roitype == roifile.ROI_TYPE.RECT
        kind = "composite" if composite else "32-bit" if roi.subpixelresolution else "16-bit"
        kinds[kind] = kinds.get(kind, 0) + 1
        raster.fill(int(roi.name), roi.coordinates(multi=True) if composite else [roi.coordinates()])
    return raster.labels, ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def read_coco(path, truth):
    labels = np.zeros(truth.shape, "uint32")
    coco = COCO(path)
    annotations = coco.loadAnns(coco.getAnnIds())
    # pycocotools unpacks every mask to the whole image: of very many, some; the others by area and box.
    every = len(annotations) * truth.size // 4_000_000_000 + 1
    for index, annotation in enumerate(annotations):
        x, y, w, h = map(int, annotation["bbox"])
        assert mask.area(annotation["segmentation"]) == annotation["area"]
        assert mask.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
        inside = truth[y : y + h, x : x + w] == annotation["id"]
        if index % every == 0:
            inside = coco.annToMask(annotation)[y : y + h, x : x + w].view(bool)
        assert inside.sum() == annotation["area"]
        labels[y : y + h, x : x + w][inside] = annotation["id"]
    return labels, "" if every == 1 else f"every {every}th unpacked"


def read_svg(path, truth):
    raster = Raster(truth.shape)
    for element in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}path"):
        rings = []
        for ring in element.get("d").split("Z")[:-1]:
            x, y = map(int, re.match(r"M(\d+) (\d+)", ring).groups())
            corners = [(x, y)]
            for axis, value in re.findall(r"([HV])(\d+)", ring):
                x, y = (int(value), y) if axis == "H" else (x, int(value))
                corners.append((x, y))
            rings.append(np.array(corners))
        raster.fill(int(element.get("id").removeprefix("object-")), rings)
    return raster.labels, ""


def largest_error(table, truth):
    """The largest relative difference to skimage's measurements, and where."""
    columns = dict(COLUMNS)
    if max(truth.shape) > 10_000:
        del columns["feret_max_px"]  # skimage compares all pairs of border points: 73 GB for the widest object
    properties = sorted({name.split("-")[0] for name in columns.values()})
    expected = pandas.DataFrame(regionprops_table(truth.astype("int64"), properties=["label", *properties]))
    assert (table["id"] == expected["label"]).all()
    errors = {
        ours: float((np.abs(table[ours] - expected[theirs]) / np.maximum(np.abs(expected[theirs]), 1)).max())
        for ours, theirs in columns.items()
    }
    worst = max(errors, key=errors.get)
    return errors[worst], f"{worst} differs by {errors[worst]:.0e}"


def check_table(table, truth, limit):
    assert len(table) == len(np.unique(truth[truth > 0]))
    if "area_um2" in table:
        assert np.allclose(table["area_um2"], table["area_px"] * PIXEL_UM**2, rtol=1e-6)
    error, words = largest_error(table, truth)
    assert error < limit, words
    return f"{len(table.columns)} columns, {words}"


def read_csv(path, truth):
    return None, check_table(pandas.read_csv(path), truth, 1e-5)  # seven digits; short axes of lines


def read_parquet(path, truth):
    assert pyarrow.parquet.read_metadata(path).num_rows == len(pandas.read_csv(path.with_suffix(".csv")))
    return None, check_table(pandas.read_parquet(path), truth, 1e-5)


def read_overlay(path, truth):
    height, width = np.array(Image.open(path)).shape[:2]
    assert height % truth.shape[0] == 0 and height // truth.shape[0] == width // truth.shape[1]
    return None, f"{height} × {width}"


READERS = {  # ending: library, reader
    "_labels.tif": ("tifffile", read_tiff),
    "_labels.ome.tif": ("tifffile (OME)", read_ome_tiff),
    "_labels.png": ("Pillow", read_png),
    "_labels.ome.zarr": ("ome-zarr, ome-zarr-models", read_ome_zarr),
    "_objects.geojson": ("geojson, shapely", read_geojson),
    "_rois.zip": ("roifile", read_roi),
    "_coco.json": ("pycocotools", read_coco),
    "_cp_masks.tif": ("cellpose", read_cellpose),
    "_cp_masks.png": ("cellpose", read_cellpose),
    "_contours.svg": ("ElementTree", read_svg),
    "_objects.csv": ("pandas", read_csv),
    "_objects.parquet": ("pandas, pyarrow", read_parquet),
    "_overlay.png": ("Pillow", read_overlay),
}


def many():
    """90,000 objects of one to nine pixels, touching."""
    rng = np.random.default_rng(1)
    ids = np.arange(1, 90_001, dtype="uint32").reshape(300, 300).repeat(3, 0).repeat(3, 1)
    holes = rng.random(ids.shape) < 0.3
    holes[1::3, 1::3] = False
    ids[holes] = 0
    return ids


def wide():
    """70,003 pixels wide: discs everywhere, a comb of 80,000 corners, rings, parts far apart."""
    rng = np.random.default_rng(2)
    labels = np.zeros((220, 70_003), "uint32")
    for label, x in enumerate(range(40, 69_960, 400), start=1):
        y, radius = rng.uniform(30, 120), rng.uniform(5, 25)
        labels[disk((y, x), radius)] = label
        if label % 3 == 0:
            labels[disk((y, x), radius / 2)] = 0
    labels[150, :] = 1000
    labels[151, ::2] = 1000
    labels[160:170, 100:103] = labels[160:170, 69_990:70_003] = 1001
    labels[180:215, 65_000:66_000] = 1002
    labels[190:200, 65_500:65_600] = 1003
    return labels


def make(binary, folder):
    folder.mkdir(parents=True, exist_ok=True)

    def run(*arguments):
        start = time.monotonic()
        subprocess.run([binary, *map(str, arguments)], check=True)
        print(f"{' '.join(map(str, arguments[:2]))}: {time.monotonic() - start:.1f} s")

    for name in ("nuclei", "tissue"):
        run("segment", ROOT / "examples" / f"{name}.png", "-o", folder, "--export", ALL)
    sources = folder / "drawn"
    sources.mkdir(exist_ok=True)
    drawn = {"many": (many(), WIDE), "wide": (wide(), WIDE), "shapes": (measurements.drawn(), WIDE)}
    for name, (labels, exports) in drawn.items():
        tifffile.imwrite(sources / f"{name}.tif", labels, compression="zlib")
        run("convert", sources / f"{name}.tif", "-o", folder, "--to", exports, "--pixel_size", PIXEL_UM)
    small = sources / "shapes.tif"
    run("convert", small, "-o", folder / "version05_labels.ome.zarr", "--to", "ome-zarr-0.5")
    run("convert", small, "-o", folder / "version05_labels.tif")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--cytomask", type=pathlib.Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.cytomask:
        make(arguments.cytomask, arguments.folder)
    failed = 0
    print("| image | objects | file | read with | result |\n|---|---:|---|---|---|")
    for path in sorted(arguments.folder.glob("*_labels.tif")):
        stem = path.name.removesuffix("_labels.tif")
        truth = tifffile.imread(path)
        source = arguments.folder / "drawn" / f"{stem}.tif"
        if source.exists():
            assert (truth == tifffile.imread(source)).all(), f"{path} is not what was converted"
        count = len(np.unique(truth[truth > 0]))
        for ending, (library, reader) in READERS.items():
            file = arguments.folder / f"{stem}{ending}"
            if not file.exists():
                continue
            try:
                labels, words = reader(file, truth)
                if labels is not None:
                    differing = int((labels != truth).sum())
                    words = f"equal{', ' if words else ''}{words}" if differing == 0 else f"{differing} PIXELS DIFFER"
                    failed += differing > 0
            except Exception as error:  # noqa: BLE001: the table tells all of them
                words, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
            print(f"| {stem} | {count} | {file.name.removeprefix(stem)} | {library} | {words} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
