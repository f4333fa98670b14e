"""Writes fixtures/postprocess_masks.safetensors: mask logits brought back to the image as SAM does it.

Versions: segment_anything 1.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0. Seed 2.

logits [2, 16, 16] → padded [64, 64] → input [48, 64] → image [97, 131]: image [2, 97, 131]. The first map is noise, the second a
disc. smaller [2, 31, 41]: the same with a smaller original size.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.numpy import save_file
from segment_anything.modeling import Sam

SEED = 2
FILE = Path(__file__).parent.parent / "fixtures" / "postprocess_masks.safetensors"

rng = np.random.default_rng(SEED)
y, x = np.mgrid[:16, :16]
logits = np.stack(
    [
        rng.normal(0, 4, (16, 16)),
        4 - 1.7 * np.hypot(y - 5.2, x - 9.1),
    ]
).astype(np.float32)
# Only the padded size is asked of the model.
model = SimpleNamespace(image_encoder=SimpleNamespace(img_size=64))


def postprocess(original):
    masks = Sam.postprocess_masks(model, torch.from_numpy(logits)[None], (48, 64), original)
    return np.ascontiguousarray(masks[0].numpy())


save_file({"logits": logits, "image": postprocess((97, 131)), "smaller": postprocess((31, 41))}, FILE)
