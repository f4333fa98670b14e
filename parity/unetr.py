"""Writes fixtures/unetr.safetensors: torch-em's UNETR decoder as µSAM runs it, with seeded weights.

Pinned: micro_sam 1.8.14, torch_em 0.10.9, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/unetr.py`

Both up-sampler variants, each with batch statistics of the current images (upstream's way at inference) and with running
statistics. Widths 64, 32, 16, 8 instead of 512, 256, 128, 64; two embeddings of 256 x 4 x 6 in one batch, so that
statistics that do not pool over the batch are found out.
"""

import pathlib

import numpy as np
import torch
from micro_sam.instance_segmentation import DecoderAdapter
from safetensors.numpy import save_file
from torch_em.model import UNETR

from seeded import seeded
from subsample import network_input, subsample

ROOT = pathlib.Path(__file__).resolve().parent.parent


class NoEncoder(torch.nn.Module):
    in_chans = 3


def main():
    out = {}
    for variant, transposed in (("bilinear", False), ("transposed", True)):
        unetr = UNETR(
            backbone="sam", encoder=NoEncoder(), out_channels=3, use_sam_stats=True, final_activation="Sigmoid",
            use_skip_connection=False, resize_input=True, use_conv_transpose=transposed, embed_dim=256, initial_features=8,
        )
        decoder = DecoderAdapter(unetr)
        state = {
            k: torch.from_numpy(seeded("decoder_state/" + k, tuple(v.shape))).to(v.dtype)
            for k, v in decoder.state_dict().items()
        }
        embedding = torch.from_numpy(network_input("input/unetr", (2, 256, 4, 6)))
        for statistics in ("current", "running"):
            decoder.load_state_dict(state)
            decoder.train(statistics == "current")
            with torch.no_grad():
                maps = decoder._forward_impl(embedding).numpy()
            name = f"{variant}_{statistics}"
            out[name] = subsample(maps)
            print(name, maps.shape, float(maps.min()), float(maps.max()), float(np.std(maps)))
    save_file(out, ROOT / "fixtures" / "unetr.safetensors")


if __name__ == "__main__":
    main()
