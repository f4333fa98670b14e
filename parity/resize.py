"""Writes fixtures/resize.safetensors: resizing as Pillow and torch do it.

Versions: pillow 13.0.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0. Seed 0.

input [97, 131, 3] u8; pil_64, pil_160: `Image.resize(..., BILINEAR)` with the longest side 64 and 160, as SAM's
`ResizeLongestSide.apply_image`; antialiased: `interpolate(..., antialias=True)` of the input as float to [41, 80];
map [37, 29] f32; map_*: `interpolate(mode="bilinear", align_corners=False)`, no antialiasing, to the size in the name.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file

SEED = 0
FILE = Path(__file__).parent.parent / "fixtures" / "resize.safetensors"


def longest_side(image, target):
    scale = target / max(image.shape[:2])
    height, width = (int(extent * scale + 0.5) for extent in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def interpolate(values, size, **kwargs):
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None]
    return F.interpolate(tensor, size, mode="bilinear", align_corners=False, **kwargs)[0].numpy()


rng = np.random.default_rng(SEED)
image = rng.integers(0, 256, (97, 131, 3), dtype=np.uint8)
image[20:60, 30:90] = image[20:60, 30:90] // 8 + 200  # a bright object with edges
chw = image.astype(np.float32).transpose(2, 0, 1)
values = rng.normal(0, 5, (1, 37, 29)).astype(np.float32)

save_file(
    {
        "input": image,
        "pil_64": longest_side(image, 64),
        "pil_160": longest_side(image, 160),
        "antialiased": np.ascontiguousarray(interpolate(chw[:1], (41, 80), antialias=True)[0]),
        "map": values[0],
        "map_61x50": interpolate(values, (61, 50))[0],
        "map_11x64": interpolate(values, (11, 64))[0],
    },
    FILE,
)
