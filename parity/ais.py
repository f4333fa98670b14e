"""Writes fixtures/ais.safetensors: µSAM's instance segmentation from decoder maps (AIS) on synthetic maps, and its smoothing.

Pinned: micro_sam 1.8.14, torch_em 0.10.9, bioimage_cpp 0.10.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/ais.py`

Maps are stored as uint8; both sides divide by 255 in float32.
"""

import pathlib

import bioimage_cpp
import numpy as np
from micro_sam.instance_segmentation import InstanceSegmentationWithDecoder
from safetensors.numpy import save_file

from synthetic import CASES, case

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Settings by name: those of the function itself, and two of the annotation tool's.
SETTINGS = {
    "default": dict(),
    "vit_b_lm": dict(center_distance_threshold=0.4, boundary_distance_threshold=0.5, distance_smoothing=2.0, min_size=100),
    "raw": dict(foreground_smoothing=0.0, distance_smoothing=0.0, min_size=10),
}


def segmenter(maps):
    generator = InstanceSegmentationWithDecoder.__new__(InstanceSegmentationWithDecoder)
    generator._foreground, generator._center_distances, generator._boundary_distances = maps
    generator._is_initialized = True
    return generator


def main():
    out = {}
    for name in CASES:
        quantised = case(name)
        out[f"{name}/maps"] = quantised
        maps = quantised.astype("float32") / np.float32(255)
        for settings, arguments in SETTINGS.items():
            if (name == "touching" and settings != "default") or (name == "borders" and settings == "raw"):
                continue  # the other cases tell settings apart; keeps the file small
            labels = segmenter(maps.copy()).generate(output_mode="instance_segmentation", **arguments)
            assert labels.max() < 256
            out[f"{name}/{settings}"] = labels.astype("uint8")
            print(name, settings, labels.max(), float((labels > 0).mean()))
    borders = out["borders/maps"][2].astype("float32") / np.float32(255)
    out["gaussian/1.6"] = bioimage_cpp.filters.gaussian_smoothing(borders, 1.6)[:24].copy()
    corner = np.ascontiguousarray(borders[:4, :9])
    out["gaussian/corner/2.0"] = bioimage_cpp.filters.gaussian_smoothing(corner, 2.0)
    save_file(out, ROOT / "fixtures" / "ais.safetensors")


if __name__ == "__main__":
    main()
