"""Writes fixtures/training_flows.safetensors: Cellpose's training loss and its gradients on the small Cellpose-SAM of the repository.

Pinned: cellpose 4.2.1.1, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/training_flows.py`

Two tiles of seeded noise; stochastic depth with the draws given (block 1 left out of the first tile, block 2 of the second). Stored:
the loss without and with it, the gradients of the second, thinned, and which parameters have none.
"""

import pathlib
from unittest import mock

import numpy as np
import torch
from cellpose.train import _loss_fn_seg
from safetensors.numpy import save_file

from cellpose_small import small_cpsam
from seeded import seeded
from training import thin

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIDE = 256


def main():
    net = small_cpsam()
    state = torch.load(ROOT / "fixtures" / "cpsam_small.pt", weights_only=True)
    net.load_state_dict({key: value.float() for key, value in state.items()})
    images = torch.from_numpy(10 * seeded("input/tiles", (2 * 3 * SIDE * SIDE,)).reshape(2, 3, SIDE, SIDE))
    noise = torch.from_numpy(10 * seeded("input/flows", (2 * 3 * SIDE * SIDE,)).reshape(2, 3, SIDE, SIDE))
    # Cellpose's order: inside, y, x.
    labels = torch.cat([(noise[:, 2:] > 0).float(), noise[:, :2]], dim=1)
    out = {"plain": np.array([_loss_fn_seg(labels, net.eval()(images)[0], "cpu").item()], "float32")}
    net.rdrop = 0.4
    draws = torch.tensor([[0.5, 0.1, 0.9], [0.5, 0.3, 0.3]])
    with mock.patch("cellpose.vit.torch.rand", lambda *_, **__: draws):
        loss = _loss_fn_seg(labels, net.train()(images)[0], "cpu")
    loss.backward()
    out["skipping"] = np.array([loss.item()], "float32")
    for name, parameter in net.named_parameters():
        if parameter.grad is None:
            print("without gradient:", name)
        else:
            out["gradient/" + name] = thin(parameter.grad.numpy(), 96)
    print({key: out[key] for key in ("plain", "skipping")})
    save_file(out, ROOT / "fixtures" / "training_flows.safetensors")


if __name__ == "__main__":
    main()
