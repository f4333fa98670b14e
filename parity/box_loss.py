"""Writes fixtures/box_loss.safetensors: targets, loss and gradient of cytomask-t's box decoder (training/boxes.py).

Pinned: torch 2.15.0, numpy 2.4.6, scipy 1.17.1, safetensors 0.8.0.
`python parity/box_loss.py`

Two crops of 96 x 128 pixels: ellipses that touch each other and the border, one of them smaller than a cell; and none. What the
decoder gives is seeded: distances of about 16 pixels.
"""

import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

from seeded import seeded

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))
from boxes import box_loss, box_targets  # noqa: E402

ELLIPSES = ((20, 30, 12, 18), (20, 66, 12, 17), (50, 40, 17, 9), (90, 100, 20, 22), (62, 121, 3, 30), (70, 14.5, 1.2, 1.2))


def labels():
    y, x = np.mgrid[:96, :128]
    lab = np.zeros((96, 128), np.int32)
    for i, (cy, cx, ry, rx) in enumerate(ELLIPSES):
        lab[(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1) & (lab == 0)] = i + 1
    return lab


def main():
    crops = [labels(), np.zeros((96, 128), np.int32)]
    edges, weights = (np.stack(part) for part in zip(*(box_targets(lab) for lab in crops)))
    raw = torch.from_numpy(10 * seeded("box_loss/raw", (2, 5, 24, 32))).requires_grad_()
    loss, _ = box_loss(raw, torch.from_numpy(edges), torch.from_numpy(weights))
    loss.backward()
    out = {"labels": crops[0].astype(np.float32), "raw": raw.detach().numpy(), "edges": edges, "weights": weights,
           "loss": loss.detach().numpy()[None], "gradient": raw.grad.numpy()}
    print({name: (value.shape, float(np.abs(value).mean())) for name, value in out.items()})
    save_file({name: np.ascontiguousarray(value) for name, value in out.items()}, ROOT / "fixtures" / "box_loss.safetensors")


if __name__ == "__main__":
    main()
