"""Writes fixtures/cpsam.safetensors and fixtures/cyto3.safetensors: Cellpose's own classes, stage by stage and end to end.

Pinned: cellpose 4.2.1.1 (`cpsam`), cellpose 3.1.1.3 on PYTHONPATH (`cyto3`), torch 2.15, numpy 2.4.6, opencv 4.
`python parity/cellpose_networks.py cpsam` and `PYTHONPATH=CELLPOSE_3 python parity/cellpose_networks.py cyto3`.

The networks are those of cellpose_small.py, in 32-bit floats. Stages of one tile are thinned by subsample.py. End to end: the maps
(thinned) and the masks of `CellposeModel.eval` on drawn images, 8-bit, stored beside them.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

from cellpose_small import ROOT, ellipses, small_cpsam, small_cyto3
from subsample import network_input, subsample

FIXTURES = ROOT / "fixtures"


def picture(seed, size, channels):
    """8-bit `[h, w, channels]` cut from drawn ellipses."""
    rng = np.random.RandomState(seed)
    parts = [np.concatenate([ellipses(rng, channels)[0] for _ in range(2)], 2) for _ in range(2)]
    image = np.concatenate(parts, 1)[:, : size[0], : size[1]]
    return np.clip(40 + 150 * image, 0, 255).astype("uint8").transpose(1, 2, 0)


def packed(masks):
    assert masks.max() < 256
    return masks.astype("uint8")


def model(net, path):
    """`CellposeModel` around a network that is not of the released size."""
    from cellpose import models

    made = models.CellposeModel.__new__(models.CellposeModel)
    made.net, made.device, made.gpu, made.pretrained_model = net, torch.device("cpu"), False, str(path)
    made.backbone, made.net_ortho, made.nchan = "sam_vitl", None, 2
    made.diam_mean, made.diam_labels = float(net.diam_mean), float(net.diam_labels)
    return made


def load(net, name):
    path = FIXTURES / name
    net.load_model(str(path), device=torch.device("cpu"))
    return net.eval(), path


def run(made, out, name, image, arguments, channel):
    image = image[..., 0] if image.shape[-1] == 1 else image
    masks, flows, styles = made.eval(image, **channel, **arguments)
    print(name, image.shape, "masks", masks.max())
    out[f"{name}/maps"] = np.stack([*flows[1], flows[2]]).astype("float32")
    out[f"{name}/masks"] = packed(masks)
    return styles


def seg_file():
    """A small `*_seg.npy`."""
    masks = np.array([[0, 1, 1, 0], [0, 1, 2, 2], [3, 0, 2, 2]], "uint16")
    held = dict(
        masks=np.asfortranarray(masks), filename="cells.tif", diameter=12.5, big=np.array([-2, 300], ">i4"),
        flows=[masks.astype("float32"), None], ismanual=np.zeros(3, bool),
    )
    np.save(FIXTURES / "cells_seg.npy", held)


def cpsam(out):
    seg_file()
    net, path = load(small_cpsam(), "cpsam_small.pt")
    with torch.no_grad():
        x = torch.from_numpy(network_input("input/tile", (1, 3, 256, 256)))
        out["tile/maps"] = subsample(net(x)[0].numpy())
        x = net.encoder.patch_embed.proj(x).permute(0, 2, 3, 1) + net.encoder.pos_embed
        for index, block in enumerate(net.encoder.blocks):
            x = block(x)
            out[f"tile/block{index}"] = subsample(x.numpy())
        out["tile/neck"] = subsample(net.encoder.neck(x.permute(0, 3, 1, 2)).numpy())
    made = model(net, path)
    cases = {
        "grey": ((97, 131), 1, {}),
        "large": ((280, 301), 1, {}),
        "between": ((243, 270), 1, {}),
        "small_cells": ((150, 140), 3, dict(diameter=18.0)),
        "large_cells": ((270, 150), 1, dict(diameter=41.5)),
        "augment": ((300, 150), 1, dict(augment=True)),
        "overlap": ((270, 130), 1, dict(tile_overlap=0.3, niter=120, cellprob_threshold=-0.5, flow_threshold=0.0)),
    }
    for seed, (name, (size, channels, arguments)) in enumerate(cases.items()):
        image = picture(seed, size, channels)
        out[f"{name}/image"] = image
        run(made, out, name, image, arguments, {})
    volume(made, out, {})


def volume(made, out, channel):
    """A stack whose objects grow and shrink along z."""
    rng = np.random.RandomState(5)
    z, y, x = np.mgrid[:20, :66, :72].astype("float32")
    stack = np.zeros(z.shape, "float32")
    for cz, cy, cx, radius in [(7, 18, 20, 12), (12, 44, 50, 13), (9, 52, 16, 10), (14, 16, 56, 12)]:
        inside = (2 * (z - cz)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        stack[inside] = 0.8
    stack = np.clip(40 + 150 * (stack + rng.normal(0, 0.06, stack.shape)), 0, 255).astype("uint8")
    out["volume/image"] = stack
    runs = {
        "volume3d": dict(do_3D=True, z_axis=0, anisotropy=2.0),
        "volume3d_plain": dict(do_3D=True, z_axis=0, flow3D_smooth=1),
    }
    for name, arguments in runs.items():
        masks, flows, _ = made.eval(stack, **channel, **arguments)
        print(name, stack.shape, masks.shape, masks.max())
        out[f"{name}/maps"] = subsample(np.stack([*flows[1], flows[2]]))
        out[f"{name}/masks"] = packed(masks)
    masks, _, _ = made.eval(stack, z_axis=0, stitch_threshold=0.25, **channel)
    print("stitched", masks.shape, masks.max())
    out["stitched/masks"] = packed(masks)


def cyto3(out):
    from cellpose import models

    net, path = load(small_cyto3(), "cyto3_small.pt")
    with torch.no_grad():
        x = torch.from_numpy(network_input("input/tile", (2, 2, 224, 96)))
        maps, style, _ = net(x)
        out["tile/maps"], out["tile/style"] = subsample(maps.numpy()), style.numpy()
        for index, level in enumerate(net.downsample(x)):
            out[f"tile/level{index}"] = subsample(level.numpy())
    # Styles have 16 channels here; upstream's arrays have 256.
    import cellpose.core

    source = cellpose.core.run_net.__code__
    assert 256 in source.co_consts
    cellpose.core.run_net.__code__ = source.replace(
        co_consts=tuple(16 if constant == 256 else constant for constant in source.co_consts)
    )
    made = model(net, path)
    cases = {
        "grey": ((97, 131), 1, dict(diameter=30.0), [0, 0]),
        "two": ((260, 131), 2, dict(diameter=22.0), [1, 2]),
        "mean": ((131, 150), 3, dict(diameter=34.0), [0, 0]),
    }
    for seed, (name, (size, channels, arguments, chosen)) in enumerate(cases.items()):
        image = picture(seed, size, channels)
        out[f"{name}/image"] = image
        run(made, out, name, image, arguments, dict(channels=chosen))
    size_model = models.SizeModel(made, pretrained_size=str(FIXTURES / "size_cyto3_small.npy"))
    image = out["grey/image"][..., 0]
    diameter, by_style = size_model.eval(image, channels=[0, 0])
    print("diameters", diameter, by_style)
    out["grey/diameters"] = np.array([float(np.ravel(by_style)[0]), float(diameter)], "float64")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["cpsam", "cyto3"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    out = {}
    {"cpsam": cpsam, "cyto3": cyto3}[arguments.network](out)
    # Maps and masks are whole while they are small.
    for name in [name for name in out if name.endswith("/maps") and not name.startswith(("tile", "volume"))]:
        out[name] = subsample(out[name])
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, FIXTURES / f"{arguments.network}.safetensors")


if __name__ == "__main__":
    sys.exit(main())
