"""Writes fixtures/files.safetensors.gz: small files of many kinds with the pixels that belong in them, made by the ecosystem's own writers.

Versions: tifffile 2026.3.3, imagecodecs 2026.3.6, zarr 3.1.6, numcodecs 0.16.6, ome-zarr 0.18.0, pillow 13.0.0, numpy 2.4.6. No randomness.

Every tensor is a file, named by its path; `expected.json` lists for every file or folder its axes (t, z, c, y, x), type, channel names
pixel size in micrometres and resolutions;
the pixels themselves follow a formula that the test knows too (crates/cytomask-image/tests/formats.rs):
value(t, z, c, y, x) = (7 t + 11 z + 31 c + 3 y + 5 x + y x / 16) mod modulus, and a colour palette where there is one: (i, 255 - i, i // 2).
"""

import gzip
import json
import shutil
import tempfile
from pathlib import Path

import numcodecs
import numpy as np
import tifffile
import zarr
from PIL import Image
from safetensors.numpy import save
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

TARGET = Path(__file__).parent.parent / "fixtures" / "files.safetensors.gz"
H, W = 61, 83
folder = Path(tempfile.mkdtemp())
expected = {}


def pixels(times=1, depth=1, channels=1, dtype="uint8", size=(H, W), modulus=None):
    """[T, Z, C, Y, X] by the formula above."""
    t, z, c, y, x = np.ogrid[:times, :depth, :channels, : size[0], : size[1]]
    modulus = modulus or (200 if np.dtype(dtype).itemsize == 1 else 40_000)
    if dtype == "int8":
        modulus = 100
    return ((7 * t + 11 * z + 31 * c + 3 * y + 5 * x + y * x // 16) % modulus).astype(dtype)


def expect(name, times=1, depth=1, channels=1, dtype="uint8", size=(H, W), modulus=None, **more):
    dtype = str(np.dtype(dtype))
    modulus = modulus or (100 if dtype == "int8" else 200 if np.dtype(dtype).itemsize == 1 else 40_000)
    expected[name] = dict(times=times, depth=depth, channels=channels, dtype=dtype, size=list(size), modulus=modulus, **more)


def tiff(name, data, expectation, **options):
    tifffile.imwrite(folder / name, data, **options)
    expect(name, **expectation)


plain = lambda dtype="uint8", **more: pixels(dtype=dtype, **more)[0, 0, 0]

# Packings, predictors, byte orders, layouts.
for compression in ("lzw", "zlib", "zstd", "packbits", None):
    tiff(f"strips_{compression}.tif", plain("uint16"), dict(dtype="uint16"), compression=compression, rowsperstrip=16)
    tiff(f"tiles_{compression}.tif", plain(), {}, compression=compression, tile=(32, 48))
for dtype in ("uint8", "uint16", "int16", "uint32"):
    for order in "<>":
        name = f"predictor2_{dtype}_{'le' if order == '<' else 'be'}.tif"
        tiff(name, plain(dtype), dict(dtype=dtype), compression="zlib", predictor=2, tile=(48, 64), byteorder=order)
for dtype in ("float16", "float32", "float64"):
    modulus = 2000
    tiff(f"predictor3_{dtype}.tif", plain(dtype, modulus=modulus), dict(dtype=dtype, modulus=modulus), compression="zlib", predictor=3, byteorder="<")
    tiff(f"predictor3_{dtype}_be.tif", plain(dtype, modulus=modulus), dict(dtype=dtype, modulus=modulus), compression="zlib", predictor=3, byteorder=">")
tiff("big_endian_float32.tif", plain("float32"), dict(dtype="float32"), byteorder=">")
tiff("int8.tif", plain("int8"), dict(dtype="int8"))
tiff("bool.tif", plain(modulus=2).astype(bool), dict(dtype="bool", modulus=2), photometric="minisblack")
# tifffile calls the zeros of a mask white: as labels they are numbers all the same.
tifffile.imwrite(folder / "mask.tif", plain(modulus=2).astype(bool))
tiff("bigtiff.tif", plain("uint16"), dict(dtype="uint16"), bigtiff=True, compression="zlib")
rgb = np.moveaxis(pixels(channels=3)[0, 0], 0, -1)
tiff("rgb_chunky.tif", rgb, dict(channels=3, colour=True), photometric="rgb", compression="lzw", predictor=2)
tiff("rgb_planar.tif", pixels(channels=3)[0, 0], dict(channels=3, colour=True), photometric="rgb", planarconfig="separate", tile=(48, 48), compression="zlib")
tiff("five_planar.tif", pixels(channels=5, dtype="uint16")[0, 0], dict(channels=5, dtype="uint16"), photometric="minisblack", planarconfig="separate", compression="zstd")
tiff("five_chunky.tif", np.moveaxis(pixels(channels=5, dtype="uint16")[0, 0], 0, -1), dict(channels=5, dtype="uint16"), photometric="minisblack", planarconfig="contig", compression="lzw")
rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1)
tiff("rgba.tif", rgba, dict(channels=3, colour=True), photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
tiff("min_is_white.tif", 255 - plain(), {}, photometric="miniswhite", compression="zlib")
tiff("min_is_white_16.tif", 65_535 - plain("uint16"), dict(dtype="uint16"), photometric="miniswhite")
palette = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2]).astype(np.uint16) * 257
tiff("palette.tif", plain(), dict(channels=3, colour=True, palette=True), photometric="palette", colormap=palette)
tifffile.imwrite(folder / "jpeg.tif", rgb, photometric="rgb", compression="jpeg", tile=(48, 64))
expect("jpeg.tif", channels=3, colour=True, tolerance=16)
tifffile.imwrite(folder / "jpeg_grey.tif", plain(), compression="jpeg", rowsperstrip=32)
expect("jpeg_grey.tif", tolerance=12)
Image.fromarray(plain(), "L").save(folder / "pillow_lzw.tif", compression="tiff_lzw")
expect("pillow_lzw.tif")
Image.fromarray(plain(modulus=2).astype(bool)).save(folder / "pillow_1.tif")
expect("pillow_1.tif", dtype="bool", modulus=2)

# OME-TIFF.
ome = dict(ome=True, compression="zlib")
stack = pixels(2, 3, 2, "uint16", (33, 47))
meta = dict(axes="TZCYX", Channel=dict(Name=["DAPI", "actin"]), PhysicalSizeX=325.0, PhysicalSizeXUnit="nm", PhysicalSizeY=0.325, PhysicalSizeYUnit="µm", PhysicalSizeZ=1.5)
full = dict(times=2, depth=3, channels=2, dtype="uint16", size=(33, 47), names=["DAPI", "actin"], pixel_size_um=[0.325, 0.325], z_step_um=1.5)
tiff("tzcyx.ome.tif", stack, full, metadata=meta, **ome)
for axes in ("TCZYX", "CTZYX", "ZCTYX"):
    order = ["TZCYX".index(axis) for axis in axes]
    tiff(f"{axes.lower()}.ome.tif", stack.transpose(order), full, metadata=meta | dict(axes=axes), **ome)
tiff("rgb.ome.tif", rgb, dict(channels=3, colour=True), metadata=dict(axes="YXS"), photometric="rgb", **ome)
base = pixels(1, 1, 2, "uint16", (96, 128))[0, 0]
with tifffile.TiffWriter(folder / "pyramid.ome.tif", ome=True) as writer:
    options = dict(tile=(32, 32), compression="zlib", photometric="minisblack")
    writer.write(base, subifds=2, metadata=dict(axes="CYX", Channel=dict(Name=["a", "b"])), **options)
    writer.write(base[:, ::2, ::2], subfiletype=1, **options)
    writer.write(base[:, ::4, ::4], subfiletype=1, **options)
expect("pyramid.ome.tif", channels=2, dtype="uint16", size=(96, 128), levels=[[96, 128], [48, 64], [24, 32]], names=["a", "b"])
with tifffile.TiffWriter(folder / "pyramid_pages.tif") as writer:
    for step in (1, 2, 4):
        writer.write(plain(size=(96, 128))[::step, ::step].copy(), tile=(32, 32), compression="zlib", subfiletype=int(step > 1), metadata=None)
expect("pyramid_pages.tif", size=(96, 128), levels=[[96, 128], [48, 64], [24, 32]])
tiff("pages.tif", pixels(depth=4)[0, :, 0], dict(depth=4), metadata=None, compression="zlib", photometric="minisblack")
tiff("shaped_axes.tif", pixels(2, 1, 3, "uint16")[:, 0], dict(times=2, channels=3, dtype="uint16"), metadata=dict(axes="TCYX"), photometric="minisblack", compression="zlib")

# ImageJ.
hyper = pixels(2, 3, 2, "uint16", (33, 47))
imagej = dict(imagej=True, resolution=(1 / 0.325, 1 / 0.325), metadata=dict(axes="TZCYX", unit="um", spacing=1.5))
tiff("imagej.tif", hyper, dict(times=2, depth=3, channels=2, dtype="uint16", size=(33, 47), pixel_size_um=[0.325, 0.325], z_step_um=1.5), **imagej)
tiff("imagej_rgb.tif", np.moveaxis(pixels(1, 3, 3, size=(33, 47))[0], 1, -1), dict(depth=3, channels=3, colour=True, size=(33, 47)), imagej=True, metadata=dict(axes="ZYXS"))
# The form ImageJ writes above 4 GB: one page, all planes behind it.
description = "ImageJ=1.53t\nimages=12\nchannels=2\nslices=3\nframes=2\nhyperstack=true\nunit=\\u00B5m\nspacing=1.5\n"
with tifffile.TiffWriter(folder / "imagej_contiguous.tif", byteorder=">") as writer:
    writer.write(hyper[0, 0, 0], description=description, metadata=None, resolution=(1 / 0.325, 1 / 0.325), resolutionunit=1, software=False)
with open(folder / "imagej_contiguous.tif", "r+b") as file:
    with tifffile.TiffFile(folder / "imagej_contiguous.tif") as read:
        start = read.pages[0].dataoffsets[0]
        tags = read.pages[0].tags
        assert start + hyper[0, 0, 0].nbytes == Path(folder / "imagej_contiguous.tif").stat().st_size
    file.seek(start)
    file.write(hyper.astype(">u2").tobytes())
expect("imagej_contiguous.tif", times=2, depth=3, channels=2, dtype="uint16", size=(33, 47), pixel_size_um=[0.325, 0.325], z_step_um=1.5)

# PNG, BMP, NPY.
Image.fromarray(rgb).save(folder / "rgb.png")
expect("rgb.png", channels=3, colour=True)
Image.fromarray(plain("uint16")).save(folder / "grey16.png")
expect("grey16.png", dtype="uint16")
Image.fromarray(rgb).save(folder / "rgb.bmp")
expect("rgb.bmp", channels=3, colour=True)
for name, array, expectation in [
    ("yx.npy", plain("uint16"), dict(dtype="uint16")),
    ("yx_fortran.npy", np.asfortranarray(plain("float32")), dict(dtype="float32")),
    ("yx_be.npy", plain("uint32").astype(">u4"), dict(dtype="uint32")),
    ("yxc.npy", rgb, dict(channels=3, colour=True)),
    ("zyx.npy", pixels(depth=5)[0, :, 0], dict(depth=5)),
    ("zcyx.npy", pixels(1, 5, 2, size=(33, 47))[0], dict(depth=5, channels=2, size=(33, 47))),
    ("zyxc_fortran.npy", np.asfortranarray(np.moveaxis(pixels(1, 5, 2, size=(33, 47))[0], 1, -1)), dict(depth=5, channels=2, size=(33, 47))),
]:
    np.save(folder / name, array)
    expect(name, **expectation)
np.save(folder / "object.npy", np.array([[{}, []], [1, 2]], dtype=object), allow_pickle=True)


# OME-Zarr.
def ome_zarr(name, data, version, axes="tczyx", names=("DAPI", "actin"), expectation=full, **options):
    """Two resolutions; `data` has the order of `axes`."""
    path = folder / name
    path.mkdir()
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    transforms = []
    for level, step in enumerate((1, 2)):
        small = data[..., ::step, ::step]
        keys = dict(options)
        chunks = keys.pop("chunks")
        array = group.create_array(str(level), shape=small.shape, dtype=small.dtype, chunks=chunks, **keys)
        array[...] = small
        scale = [dict(t=1.0, c=1.0, z=1.5, y=0.325 * step, x=0.325 * step)[axis] for axis in axes]
        transforms.append(dict(path=str(level), coordinateTransformations=[dict(type="scale", scale=scale)]))
    kinds = dict(t="time", c="channel", z="space", y="space", x="space")
    described = [dict(name=axis, type=kinds[axis]) | (dict(unit="micrometer") if kinds[axis] == "space" else {}) for axis in axes]
    attributes = dict(multiscales=[dict(name="image", axes=described, datasets=transforms)], omero=dict(channels=[dict(label=n) for n in names]))
    if version == "0.4":
        attributes["multiscales"][0]["version"] = "0.4"
        group.attrs.update(attributes)
    else:
        group.attrs["ome"] = dict(version="0.5") | attributes
    h, w = data.shape[-2:]
    levels = [[h, w], [-(-h // 2), -(-w // 2)]]
    expect(name, **(expectation | dict(levels=levels)))


tczyx = pixels(2, 3, 2, "uint16", (33, 47)).transpose(0, 2, 1, 3, 4)
small = (1, 1, 2, 20, 24)
v2 = dict(chunks=small, chunk_key_encoding={"name": "v2", "separator": "/"})
ome_zarr("v2_none.zarr", tczyx, "0.4", compressors=None, **v2)
ome_zarr("v2_zlib.zarr", tczyx, "0.4", compressors=numcodecs.Zlib(), **v2)
ome_zarr("v2_gzip.zarr", tczyx, "0.4", compressors=numcodecs.GZip(), **v2)
ome_zarr("v2_zstd.zarr", tczyx, "0.4", compressors=numcodecs.Zstd(), **v2)
ome_zarr("v2_lz4.zarr", tczyx, "0.4", compressors=numcodecs.LZ4(), order="F", **v2)
for codec in ("lz4", "lz4hc", "zlib", "zstd", "blosclz"):
    for shuffle in (0, 1, 2):
        flat = dict(dtype="uint16", size=(H, W), names=["DAPI"], pixel_size_um=[0.325, 0.325])
        ome_zarr(f"v2_blosc_{codec}_{shuffle}.zarr", plain("uint16"), "0.4", axes="yx", names=["DAPI"], expectation=flat,
                 compressors=numcodecs.Blosc(codec, clevel=9, shuffle=shuffle, blocksize=2048 if shuffle == 1 else 0), chunks=(64, 80))
v3 = dict(chunks=small)
ome_zarr("v3_zstd.zarr", tczyx, "0.5", compressors=ZstdCodec(), **v3)
ome_zarr("v3_gzip_be.zarr", tczyx, "0.5", compressors=GzipCodec(), serializer=BytesCodec(endian="big"), **v3)
ome_zarr("v3_blosc.zarr", tczyx, "0.5", compressors=BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=2), **v3)
ome_zarr("v3_transpose.zarr", tczyx, "0.5", filters=TransposeCodec(order=(1, 0, 4, 2, 3)), compressors=[ZstdCodec(), Crc32cCodec()], **v3)
ome_zarr("v3_sharded.zarr", tczyx, "0.5", compressors=ZstdCodec(), shards=(1, 2, 4, 40, 48), **v3)
first = dict(full, size=(33, 47))
path = folder / "v3_shard_index_first.zarr"
codec = ShardingCodec(chunk_shape=(20, 24), codecs=[BytesCodec(), GzipCodec()], index_location="start")
array = zarr.create_array(path, shape=(33, 47), dtype="uint16", chunks=(40, 48), serializer=codec, compressors=None, dimension_names=("y", "x"))
array[...] = plain("uint16", size=(33, 47))
expect("v3_shard_index_first.zarr", dtype="uint16", size=(33, 47))
path = folder / "v2_fill.zarr"
array = zarr.create_array(path, shape=(33, 47), dtype="float32", chunks=(16, 16), zarr_format=2, fill_value=7.0)
expect("v2_fill.zarr", dtype="float32", size=(33, 47), constant=7.0)

# Files that must be refused, by what their error must say.
tifffile.imwrite(folder / "jpeg2000.tif", plain(), compression="jpeg2000")
(folder / "fake.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
refused = {"object.npy": "pickle", "jpeg2000.tif": "JPEG 2000", "fake.czi": "bioformats2raw"}

files = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
files["expected.json"] = json.dumps(dict(files=expected, refused=refused)).encode()
tensors = {name: np.frombuffer(data, np.uint8) for name, data in files.items()}
TARGET.write_bytes(gzip.compress(save(tensors), 9, mtime=0))
print(len(expected), "files,", TARGET.stat().st_size, "bytes")
shutil.rmtree(folder)
