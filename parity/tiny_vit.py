"""Writes fixtures/tiny_vit.safetensors: MobileSAM's TinyViT encoder with seeded weights.

Pinned: MobileSAM 34bbbfd, torch 2.15.0, timm 1.0.31, numpy 2.4.6, safetensors 0.8.0.
MobileSAM is not on PyPI: `git clone https://github.com/ChaoningZhang/MobileSAM`, then
`python parity/tiny_vit.py PATH_OF_CLONE [--weights vit_t.safetensors --full OUT.safetensors]`.

The encoder is the real `vit_t` configuration at 96 x 160, where every stage needs window padding. With `--weights` it
writes instead the embedding of one 1024 x 1024 input with the weights of a file (the comparison made by hand).
"""

import argparse
import importlib.util
import pathlib
import sys
import types

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from seeded import seeded
from subsample import network_input, subsample

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_module(clone: pathlib.Path):
    """The two modelling files alone; the package's __init__ imports more than is needed here."""
    package = types.ModuleType("mobile_sam_modeling")
    package.__path__ = [str(clone / "mobile_sam" / "modeling")]
    sys.modules["mobile_sam_modeling"] = package
    path = clone / "mobile_sam" / "modeling" / "tiny_vit_sam.py"
    spec = importlib.util.spec_from_file_location("mobile_sam_modeling.tiny_vit_sam", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(module, size):
    return module.TinyViT(
        img_size=size, in_chans=3, num_classes=1000, embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10], window_sizes=[7, 7, 14, 7], mlp_ratio=4.0, drop_rate=0.0, drop_path_rate=0.0,
        use_checkpoint=False, mbconv_expand_ratio=4.0, local_conv_size=3, layer_lr_decay=0.8,
    )


def run(model, image):
    """`(taps, embedding)`; upstream's forward assumes 1024 x 1024 at the end, so that the stages are called one by one."""
    height, width = image.shape[2:]

    def grid(tokens, stride):
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height // stride, width // stride)

    taps = {"t2": model.patch_embed.seq[1](model.patch_embed.seq[0](image))}
    x = model.patch_embed.seq[2](taps["t2"])
    for index, (layer, stride) in enumerate(zip(model.layers, (4, 8, 16, 16))):
        for block in layer.blocks:
            x = block(x)
        taps[f"layer{index}"] = x if index == 0 else grid(x, stride)
        if layer.downsample is not None:
            x = layer.downsample(x)
    return taps, model.neck(grid(x, 16))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clone", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--full", type=pathlib.Path)
    arguments = parser.parse_args()
    module = load_module(arguments.clone)

    if arguments.weights:
        model = build(module, 1024)
        prefix = "image_encoder."
        state = {k[len(prefix) :]: torch.from_numpy(v) for k, v in load_file(arguments.weights).items() if k.startswith(prefix)}
        print(model.load_state_dict(state, strict=False))
        model.eval()
        with torch.no_grad():
            embedding = model(torch.from_numpy(network_input("input/full", (1, 3, 1024, 1024))))
        save_file({"embedding": embedding.numpy()}, arguments.full)
        return

    model = build(module, (96, 160))
    state = {k: torch.from_numpy(seeded("image_encoder." + k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.to(model.state_dict()[k].dtype) for k, v in state.items()})
    model.eval()
    with torch.no_grad():
        taps, embedding = run(model, torch.from_numpy(network_input("input/tiny_vit", (1, 3, 96, 160))))
    out = {name: subsample(value.numpy()) for name, value in {**taps, "embedding": embedding}.items()}
    for name, value in out.items():
        print(name, value.size, float(np.abs(value).mean()), float(np.abs(value).max()))
    save_file(out, ROOT / "fixtures" / "tiny_vit.safetensors")


if __name__ == "__main__":
    main()
