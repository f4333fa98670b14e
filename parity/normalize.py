"""Writes fixtures/normalize.safetensors: image conversion as micro_sam does it, and the percentile conversion with numpy.

Versions: micro_sam 1.8.14, numpy 2.4.6, safetensors 0.8.0. Seed 1.

grey [41, 53] u16 with a bright outlier; two [21, 23, 2] u8; four [11, 13, 4] f32 with negative values; flat [5, 7] u16 constant.
micro_sam_<name>: `micro_sam.util._to_image`, [H, W, 3] u8. percentile_<name>: per channel 0.1 and 99.9 percentile to 0 and 255,
clipped, f32.
"""

import warnings
from pathlib import Path

import numpy as np
from micro_sam.util import _to_image
from safetensors.numpy import save_file

SEED = 1
FILE = Path(__file__).parent.parent / "fixtures" / "normalize.safetensors"


def percentile(image):
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3].astype(np.float32)
    out = np.zeros((*image.shape[:2], 3), np.float32)
    for channel in range(image.shape[2]):
        values = image[..., channel]
        low, high = np.percentile(values, (0.1, 99.9))
        if high > low:
            out[..., channel] = np.clip((values - low) / max(high - low, 1e-6 * max(1.0, abs(high))), 0, 1) * 255
    return np.repeat(out[..., :1], 3, axis=2) if image.shape[2] == 1 else out


rng = np.random.default_rng(SEED)
images = {
    "grey": rng.poisson(900, (41, 53)).astype(np.uint16),
    "two": rng.integers(3, 256, (21, 23, 2), dtype=np.uint8),
    "four": rng.normal(0, 1e-3, (11, 13, 4)).astype(np.float32),
    "flat": np.full((5, 7), 1234, np.uint16),
}
images["grey"][17, 31] = 65_535
tensors = {}
for name, image in images.items():
    tensors[name] = image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four channels: "only the first three will be used"
        tensors[f"micro_sam_{name}"] = _to_image(image)
    tensors[f"percentile_{name}"] = percentile(image)
save_file(tensors, FILE)
