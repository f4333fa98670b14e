"""Writes fixtures/jpeg.safetensors: JPEG files made by Pillow and the pixels Pillow reads from them.

Versions: pillow 13.0.0, numpy 2.4.6, safetensors 0.8.0. No randomness.

file_grey, file_rgb: bytes of 97 × 131 files, quality 90, colour at half resolution (4:2:0); pixels_grey [97, 131] u8,
pixels_rgb [97, 131, 3] u8. Decoders may differ by a few grey values: the standard leaves the inverse transform's rounding open.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

FILE = Path(__file__).parent.parent / "fixtures" / "jpeg.safetensors"

y, x = np.mgrid[:97, :131]
grey = (127 + 60 * np.sin(y / 13) + 60 * np.cos(x / 17)).astype(np.uint8)
rgb = np.stack([grey, 255 - grey, (y + x).astype(np.uint8)], axis=-1)
tensors = {}
for name, image in (("grey", grey), ("rgb", rgb)):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling=2)
    tensors[f"file_{name}"] = np.frombuffer(buffer.getvalue(), np.uint8)
    tensors[f"pixels_{name}"] = np.asarray(Image.open(buffer))
save_file(tensors, FILE)
