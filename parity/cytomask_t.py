"""Writes fixtures/cytomask_t.safetensors: cytomask-t's PyTorch definition (training/model.py) with seeded weights.

Pinned: torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/cytomask_t.py`

One input of 96 x 160; the maps, the two features kept for the mask refiner, the refiner's map, the box decoder's
output, and the masks of a point, two points of both signs, and a box. Prompts are in input pixels.
"""

import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

from seeded import seeded
from subsample import network_input, subsample

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))
from model import CytomaskT, up2  # noqa: E402


def main():
    model = CytomaskT()
    state = {k: torch.from_numpy(seeded(k, tuple(v.shape))).to(v.dtype) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    model.eval()
    # As in the exported file: no integer counters.
    keys = sorted(k for k in state if not k.endswith("num_batches_tracked"))

    def tensor(values):
        return torch.tensor(values, dtype=torch.float32)

    prompts = {
        "point": dict(points=tensor([[[40.0, 31.0]]]), labels=torch.tensor([[1]])),
        "two_points": dict(points=tensor([[[100.5, 20.25], [30.0, 80.0]]]), labels=torch.tensor([[1, 0]])),
        "box": dict(boxes=tensor([[12.0, 20.0, 90.0, 70.0]])),
    }
    out = {}
    with torch.no_grad():
        image = torch.from_numpy(network_input("input/cytomask_t", (1, 3, 96, 160)))
        taps = model.image_encoder(image)
        maps, f4, f2 = model.instance_decoder(taps, image)
        g = model.mask_refiner.features(f4, f2)
        out |= {"boxes": model.box_decoder(taps, f4), "maps": torch.sigmoid(maps), "f4": f4, "f2": f2, "g": g, "embedding": taps["t16"]}
        height, width = taps["t16"].shape[2:]
        pe = model.prompt_encoder.dense_pe(height, width)[None]
        for name, prompt in prompts.items():
            low, iou, weights = model.decode(taps["t16"], pe, model.prompt_encoder.sparse(**prompt))
            refined = up2(low) + torch.einsum("pkc,chw->pkhw", weights, g[0])
            out |= {f"{name}/low": low, f"{name}/iou": iou, f"{name}/refined": refined}
    out = {name: subsample(value.numpy()) for name, value in out.items()}
    for name, value in out.items():
        print(name, value.size, float(np.abs(value).mean()), float(np.abs(value).max()))
    save_file(out, ROOT / "fixtures" / "cytomask_t.safetensors", metadata={"keys": str(len(keys))})


if __name__ == "__main__":
    main()
