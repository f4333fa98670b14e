"""Makes fixtures/cpsam_small.pt, fixtures/cyto3_small.pt and fixtures/size_cyto3_small.npy: small networks of Cellpose's own classes.

Pinned: cellpose 4.2.1.1 (CPSAM), cellpose 3.1.1.3 (CPnet, on PYTHONPATH for the second), torch 2.15, numpy 2.4.6.
`python parity/cellpose_small.py cpsam` and `PYTHONPATH=CELLPOSE_3 python parity/cellpose_small.py cyto3`; a few minutes each.

Files of the official layouts, only narrower and less deep, trained for a few hundred steps on drawn ellipses, so that their flows are
flows and their masks are objects. Stored as 16-bit floats; both sides widen them.
"""

import argparse
import pathlib
import time
from types import SimpleNamespace

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIDE = 256


def small_cpsam():
    """Cellpose-SAM of three blocks of 32 channels, tile and patch as upstream's."""
    from functools import partial

    from cellpose import vit
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=1024, patch_size=16, embed_dim=32, depth=3, num_heads=2, mlp_ratio=4, out_chans=32, qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=14, global_attn_indexes=(1,),
    )
    vit.sam_model_registry = {"vit_l": lambda _: SimpleNamespace(image_encoder=encoder)}
    return vit.CPSAM(rdrop=0.0, dtype=torch.float32)


def small_cyto3():
    """Cellpose 3's residual U-Net, a quarter as wide."""
    from cellpose.resnet_torch import CPnet

    return CPnet([2, 8, 16, 16, 16], 3, 3)


def ellipses(rng, channels):
    """An image `[channels, SIDE, SIDE]` and its labels."""
    y, x = np.mgrid[:SIDE, :SIDE].astype("float32")
    labels = np.zeros((SIDE, SIDE), "int32")
    image = np.zeros((channels, SIDE, SIDE), "float32")
    for index in range(1, 40):
        cy, cx = rng.uniform(0, SIDE, 2)
        a, b = rng.uniform(7, 17, 2)
        angle = rng.uniform(0, np.pi)
        u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
        v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        inside = (u / a) ** 2 + (v / b) ** 2 < 1
        if labels[inside].any() or inside.sum() < 40:
            continue
        labels[inside] = index
        image[0][inside] = rng.uniform(0.5, 1.0)
    if channels > 1:
        image[1] = (image[0] > 0) * rng.uniform(0, 0.5)
    image += rng.normal(0, 0.08, image.shape)
    _, labels = np.unique(labels, return_inverse=True)
    return image.astype("float32"), labels.reshape(SIDE, SIDE).astype("int32")


def train(net, channels, steps, rate):
    from cellpose import dynamics

    rng = np.random.RandomState(0)
    pool = []
    for _ in range(48):
        image, labels = ellipses(rng, channels)
        low, high = np.percentile(image[0], (1, 99))
        flows = dynamics.masks_to_flows_gpu(labels, device=torch.device("cpu"))
        flows = flows[0] if isinstance(flows, tuple) else flows
        image[0] = (image[0] - low) / (high - low)
        pool.append((image, 5 * flows, labels > 0))
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    start = time.time()
    for step in range(steps):
        chosen = [pool[i] for i in rng.randint(0, len(pool), 2)]
        images, flows, inside = (torch.from_numpy(np.stack(part).astype("float32")) for part in zip(*chosen))
        out = net(images)[0]
        loss = torch.nn.functional.mse_loss(out[:, :2], flows) / 2
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(out[:, 2], inside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(step + 1, round(float(loss), 3), round(time.time() - start), "s", flush=True)
    return net.eval()


def save(net, name):
    state = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    torch.save(state, ROOT / "fixtures" / name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["cpsam", "cyto3"])
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.network == "cpsam":
        net = small_cpsam()
        with torch.no_grad():
            net.encoder.pos_embed.normal_(0, 0.02)
        save(train(net, 3, arguments.steps, 3e-3), "cpsam_small.pt")
    else:
        save(train(small_cyto3(), 2, arguments.steps, 5e-3), "cyto3_small.pt")
        rng = np.random.RandomState(1)
        size = dict(A=rng.normal(0, 0.3, 16), smean=rng.uniform(0, 0.5, 16), diam_mean=30.0, ymean=-0.05)
        np.save(ROOT / "fixtures" / "size_cyto3_small.npy", size)


if __name__ == "__main__":
    main()
