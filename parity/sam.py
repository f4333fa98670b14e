"""Writes fixtures/sam_small.safetensors: segment_anything with seeded weights, in a configuration small enough to store.

Pinned: segment_anything 1.0 (facebookresearch/segment-anything dca509f), torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/sam.py` writes the small file; `python parity/sam.py --full` also fixtures/sam_vit_b_1024.safetensors, the
embedding of one 1024 x 1024 input by the real ViT-B configuration with seeded weights (a minute, 4 GB).

The small encoder takes 160 x 160 (10 x 10 tokens, so that windows of 4 need padding); its first and last blocks are windowed,
the middle one is global. Inputs are seeded too: nothing but outputs is stored, f32.
"""

import argparse
import pathlib
from functools import partial

import numpy as np
import torch
from safetensors.numpy import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

from seeded import seeded
from subsample import network_input, subsample

ROOT = pathlib.Path(__file__).resolve().parent.parent
NORM = partial(torch.nn.LayerNorm, eps=1e-6)


def fill(module, prefix):
    state = {k: torch.from_numpy(seeded(prefix + k, tuple(v.shape))) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module.eval()


def encoder(side, dim, depth, heads, window, global_blocks, out):
    return fill(
        ImageEncoderViT(
            img_size=side, patch_size=16, embed_dim=dim, depth=depth, num_heads=heads, mlp_ratio=4, out_chans=out,
            qkv_bias=True, norm_layer=NORM, use_rel_pos=True, window_size=window, global_attn_indexes=global_blocks,
        ),
        "image_encoder.",
    )


def seeded_input(key, shape):
    return torch.from_numpy(network_input(key, shape))


def points(rows):
    """`(coordinates, labels)` with a batch axis from rows of `(x, y, label)` for each prompt."""
    array = torch.tensor(rows, dtype=torch.float32)
    return array[..., :2], array[..., 2].int()


def small():
    side, channels, grid = 160, 32, 10
    vit = encoder(side, 32, 3, 2, 4, (1,), channels)
    prompts = fill(PromptEncoder(channels, (grid, grid), (side, side), mask_in_chans=16), "prompt_encoder.")
    transformer = TwoWayTransformer(depth=2, embedding_dim=channels, num_heads=4, mlp_dim=64)
    decoder = fill(
        MaskDecoder(
            num_multimask_outputs=3, transformer_dim=channels, transformer=transformer, iou_head_depth=3,
            iou_head_hidden_dim=24,
        ),
        "mask_decoder.",
    )
    out = {}
    x = vit.patch_embed(seeded_input("input/image", (1, 3, side, side)))
    out["patch_embed"] = x
    x = x + vit.pos_embed
    for index, block in enumerate(vit.blocks):
        x = block(x)
        out[f"block{index}"] = x
    embedding = vit.neck(x.permute(0, 3, 1, 2))
    out["embedding"] = embedding
    out["dense_positions"] = prompts.get_dense_pe()

    one = points([[(40.0, 31.5, 1)], [(0.0, 159.0, 1)]])
    two = points([[(40.0, 31.5, 1), (90.25, 20.0, 0)], [(12.0, 100.0, 0), (70.0, 71.0, 1)]])
    boxes = torch.tensor([[12.0, 20.0, 90.0, 70.5], [100.0, 3.0, 159.0, 80.0]])
    masks = seeded_input("input/mask", (2, 1, 4 * grid, 4 * grid))
    cases = {
        "point": (one, None, None),
        "points": (two, None, None),
        "box": (None, boxes, None),
        "point_box": (one, boxes, None),
        "mask": (one, None, masks),
    }
    for name, (given, box, mask) in cases.items():
        sparse, dense = prompts(points=given, boxes=box, masks=mask)
        out[f"{name}/sparse"] = sparse
        if mask is not None:
            out[f"{name}/dense"] = dense
        logits, iou = decoder.predict_masks(
            image_embeddings=embedding, image_pe=prompts.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        out[f"{name}/logits"] = logits
        out[f"{name}/iou"] = iou
    return out


def full():
    vit = encoder(1024, 768, 12, 12, 14, (2, 5, 8, 11), 256)
    return {"embedding": vit(seeded_input("input/image", (1, 3, 1024, 1024)))}


def write(name, tensors):
    tensors = {key: subsample(value.numpy()) for key, value in tensors.items()}
    for key, value in tensors.items():
        print(key, value.size, float(np.abs(value).mean()), float(np.abs(value).max()))
    save_file(tensors, ROOT / "fixtures" / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    with torch.no_grad():
        write("sam_small.safetensors", small())
        if arguments.full:
            write("sam_vit_b_1024.safetensors", full())


if __name__ == "__main__":
    main()
