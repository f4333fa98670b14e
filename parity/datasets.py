"""Writes fixtures/datasets/: containers as h5py, numpy and zarr write them, and rasters and resampling by their libraries.

Versions: h5py 3.16.0, zarr 3.1.6, numpy 2.4.6, scikit-image 0.26.0, pycocotools 2.0.11, numcodecs 0.16.6, safetensors 0.8.0. Seed 0.

Pixels follow formulas that the tests repeat: raw(z, y, x) = (7 z + 3 y + x) % 250, labels(z, y, x) = 1 + z % 2 + y // 2 * 8 + x // 2,
0 in the first row, with label -1 in the last row of label_with_ignore.

image.h5      raw/serum_IgG/s0, raw/nuclei/s0 (raw at z = 0 and 1), labels/cells/s0, [12, 14]; gzip, as Covid-IF
volume.h5     raw, label, label_with_ignore, [101, 6, 18]; gzip, chunked, as PlantSeg and MouseEmbryos
tissuenet.npz X [3, 12, 14, 2] f32, y [3, 12, 14, 2] i32, meta (pickled), as tissuenet_v1.1_test.npz
images.zip    test/image_0000.zarr and image_0001.zarr: raw/rgb [3, 12, 14], labels/cell [12, 14]; version 2, gzip, one chunk; and
              tiles.zarr/raw [2, 12, 14] in chunks of [1, 5, 8], zlib
raster.safetensors  polygons, their masks by skimage.draw.polygon and pycocotools; resampling by skimage.transform.resize
"""

import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import zarr
from numcodecs import GZip, Zlib
from pycocotools import mask as coco
from safetensors.numpy import save_file
from skimage.draw import polygon
from skimage.transform import resize

OUT = Path(__file__).parent.parent / "fixtures" / "datasets"


def raw(depth, height, width):
    z, y, x = np.mgrid[:depth, :height, :width]
    return (7 * z + 3 * y + x) % 250


def labels(depth, height, width):
    z, y, x = np.mgrid[:depth, :height, :width]
    return np.where(y == 0, 0, 1 + z % 2 + y // 2 * 8 + x // 2)


def hdf5():
    with h5py.File(OUT / "image.h5", "w") as file:
        for number, key in enumerate(["raw/serum_IgG/s0", "raw/nuclei/s0"]):
            file.create_dataset(key, data=raw(2, 12, 14)[number].astype("uint16"), compression="gzip")
        file.create_dataset("labels/cells/s0", data=labels(1, 12, 14)[0].astype("uint32"), compression="gzip")
    with h5py.File(OUT / "volume.h5", "w") as file:
        file.create_dataset("raw", data=raw(101, 6, 18).astype("uint8"), compression="gzip", chunks=(20, 4, 18))
        own = labels(101, 6, 18)
        file.create_dataset("label", data=own.astype("uint16"), compression="gzip")
        own[:, -1] = -1
        file.create_dataset("label_with_ignore", data=own.astype("int64"), compression="gzip", shuffle=True)


def npz():
    images = np.stack([raw(3, 12, 14), raw(3, 12, 14) * 2.5 + 3], axis=-1).astype("float32")
    own = np.stack([labels(3, 12, 14), labels(3, 12, 14) % 3], axis=-1).astype("int32")
    meta = np.array([["filename", "tissue"], ["a", "b"]], dtype=object)
    np.savez_compressed(OUT / "tissuenet.npz", X=images, y=own, meta=meta)


def zarr_images():
    with tempfile.TemporaryDirectory() as folder:
        def write(path, data, chunks, compressor):
            array = zarr.create_array(
                store=str(Path(folder) / path), shape=data.shape, dtype=data.dtype, chunks=chunks, zarr_format=2,
                compressors=compressor, fill_value=0,
            )
            array[...] = data

        for number in range(2):
            image = f"test/image_{number:04}.zarr"
            cell, nucleus = (raw(4, 12, 14)[at + number].astype("float32") for at in (0, 1))
            write(f"{image}/raw/rgb", np.stack([cell, nucleus, np.zeros_like(cell)]), (3, 12, 14), GZip())
            write(f"{image}/labels/cell", labels(2, 12, 14)[number].astype("uint64"), (12, 14), GZip())
        write("tiles.zarr/raw", raw(2, 12, 14).astype(">u2"), (1, 5, 8), Zlib())
        with zipfile.ZipFile(OUT / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())


def rasters():
    random = np.random.default_rng(0)
    out = {}
    for number in range(12):
        corners = random.integers(3, 9)
        points = random.uniform(-15, 140, (corners, 2))
        if number % 2 == 0:  # whole numbers, so that borders are hit
            points = np.trunc(points)
        if number == 11:  # small, within the image
            points = 40 + points / 12
        x, y = points.T
        inside = np.zeros((97, 131), "uint8")
        inside[polygon(y, x, shape=inside.shape)] = 1
        runs = coco.frPyObjects([points.ravel().tolist()], 97, 131)
        out[f"points_{number}"] = points
        out[f"skimage_{number}"] = np.packbits(inside)
        out[f"coco_{number}"] = np.packbits(coco.decode(runs)[..., 0])
    for name, shape, size in [("down", (97, 97), 24), ("up", (21, 21), 40), ("rgb", (48, 48, 3), 12)]:
        image = random.integers(0, 256, shape, dtype="uint8")
        target = (size, size) + shape[2:]
        out[f"resize_{name}_in"] = image
        out[f"resize_{name}_smooth"] = resize(image, target, anti_aliasing=True, preserve_range=True).astype("uint8")
    ids = (np.indices((96, 96)).sum(0) // 9 * 37 % 400).astype("uint16")
    out["ids_in"] = ids
    out["ids"] = resize(ids, (24, 24), anti_aliasing=False, preserve_range=True).astype("uint16")
    save_file(out, OUT / "raster.safetensors")


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    hdf5()
    npz()
    zarr_images()
    rasters()
    for path in sorted(OUT.iterdir()):
        print(path.name, path.stat().st_size)
