"""The joint training step of `cytomask-train/examples/step.rs` in PyTorch: the same network, sizes, prompts, losses and optimizer.

    python bench/train_step.py [ROUNDS] [CROPS] [SIDE] [PROMPTS]

Prints CPU seconds by part and of the whole step, medians, in the same form. THREADS (2) sets the number of threads.
Needs torch and safetensors; the network is `training/model.py`. Licence: MIT OR Apache-2.0.
"""
import os
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "training"))
from model import CytomaskT, up2  # noqa: E402

ROUNDS_OF_PROMPTS = 2


def dice(p, t):
    return 1 - 2 * (p * t).sum(1) / ((p * p).sum(1) + (t * t).sum(1)).clamp_min(1e-7)


def map_loss(maps, targets):
    mask = torch.cat([torch.ones_like(targets[:, :1]), targets[:, :1], targets[:, :1]], 1)
    rows = lambda x: x.transpose(0, 1).flatten(1)  # noqa: E731
    return dice(rows(maps * mask), rows(targets * mask)).sum()


def mask_loss(logits, iou, truth):
    n, k = logits.shape[:2]
    t = truth[:, None].expand(-1, k, -1, -1).flatten(2).flatten(0, 1)
    p = logits.flatten(2).flatten(0, 1).sigmoid()
    with torch.no_grad():
        hit = (p > 0.5).float()
        actual = ((hit * t).sum(1) / ((hit + t).clamp_max(1).sum(1) + 1e-7)).view(n, k)
    return dice(p, t).view(n, k).min(1).values.mean() + ((iou - actual) ** 2).mean()


class Bench:
    def __init__(self, crops, side, prompts):
        torch.manual_seed(0)
        # Frozen batch norms, as the trainer has them; the encoder's weights of them are trained too.
        self.model = CytomaskT().eval().to(memory_format=torch.channels_last)
        for p in self.model.parameters():
            p.requires_grad_(True)
        self.crops, self.side, self.prompts = crops, side, prompts
        at = torch.arange(prompts) * side // (prompts + 1)
        self.points = torch.stack([at + 5.0, at + 9.0], 1)[:, None]
        self.boxes = torch.stack([at, at, at + 15, at + 20], 1).float()
        self.images = torch.randn(crops, 3, side, side).contiguous(memory_format=torch.channels_last)
        self.targets = (torch.randn(crops, 3, side, side) > 0).float()
        self.truth = (torch.randn(prompts, side, side) > 0.5).float()

    def decode(self, embedding, refiner, multimask):
        m = self.model
        n, _, h, w = embedding.shape
        sparse = m.prompt_encoder.sparse(self.points, torch.ones(self.prompts, 1), self.boxes)
        pe = m.prompt_encoder.dense_pe(h, w, (80, 48))[None]
        low, iou, weights = m.decode(embedding.expand(self.prompts, -1, -1, -1), pe, sparse)
        sel = slice(1, 4) if multimask else slice(0, 1)
        res = torch.einsum("pkc,chw->pkhw", weights[:, sel], refiner[0])
        logits = up2(low[:, sel]) + res
        return F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False), iou[:, sel]

    def encode(self):
        return self.model.image_encoder(self.images)

    def step(self, optimizer):
        taps = self.encode()
        maps, f4, f2 = self.model.instance_decoder(taps, self.images)
        refiner = self.model.mask_refiner.features(f4, f2)
        loss = map_loss(maps.sigmoid(), self.targets)
        parts = []
        for crop in range(self.crops):
            for r in range(ROUNDS_OF_PROMPTS):
                logits, iou = self.decode(taps["t16"][crop:crop + 1], refiner[crop:crop + 1], r == 0)
                parts.append(mask_loss(logits, iou, self.truth))
        loss = loss + torch.stack(parts).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for p in self.model.parameters():
            if p.grad is not None:
                torch.nn.utils.clip_grad_norm_([p], 5.0)
        optimizer.step()

    def parts(self, rounds):
        m, leaf = self.model, lambda x: x.detach().requires_grad_(True)
        print(f"{'CPU s':28} {'forward':>8} {'backward':>8}")
        taps = part("image encoder", rounds, lambda: (lambda t: (t, sum(x.sum() for x in t.values())))(self.encode()))

        def instance():
            maps, f4, f2 = m.instance_decoder({k: leaf(v) for k, v in taps.items()}, self.images)
            return (maps, f4, f2), maps.sum() + f4.sum() + f2.sum()

        maps, f4, f2 = part("instance decoder", rounds, instance)
        part("loss of the maps", rounds, lambda: (None, map_loss(leaf(maps).sigmoid(), self.targets)))
        refiner = part("refiner, features", rounds, lambda: (lambda g: (g, g.sum()))(m.mask_refiner.features(leaf(f4), leaf(f2))))

        def prompts():
            emb, g, kept, total = leaf(taps["t16"]), leaf(refiner), [], 0
            for i in range(self.crops * ROUNDS_OF_PROMPTS):
                c = i // ROUNDS_OF_PROMPTS
                kept.append(self.decode(emb[c:c + 1], g[c:c + 1], i % ROUNDS_OF_PROMPTS == 0))
                total = total + kept[-1][0].sum() + kept[-1][1].sum()
            return kept, total

        logits = part("prompts", rounds, prompts)
        part("loss of the masks", rounds,
             lambda: (None, sum(mask_loss(leaf(a), leaf(b), self.truth) for a, b in logits)))


def part(name, rounds, run):
    forward, backward = [], []
    for _ in range(rounds + 1):
        t0 = time.process_time()
        kept, loss = run()
        t1 = time.process_time()
        loss.backward()
        forward.append(t1 - t0)
        backward.append(time.process_time() - t1)
    print(f"{name:28} {statistics.median(forward[1:]):8.3f} {statistics.median(backward[1:]):8.3f}")
    return kept


def main():
    numbers = [int(a) for a in sys.argv[1:]] + [None] * 4
    rounds, crops, side, prompts = (n or d for n, d in zip(numbers, (3, 4, 224, 8)))
    torch.set_num_threads(int(os.environ.get("THREADS", 2)))
    bench = Bench(crops, side, prompts)
    bench.parts(rounds)
    optimizer = torch.optim.AdamW(bench.model.parameters(), lr=1e-4, weight_decay=0.01)
    seconds = []
    for _ in range(rounds + 1):
        t0 = time.process_time()
        bench.step(optimizer)
        seconds.append(time.process_time() - t0)
    print(f"{'whole step':28} {statistics.median(seconds[1:]):8.3f}")
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(f"{'peak memory, MiB':28} {int(peak.split()[1]) / 1024:8.0f}")


if __name__ == "__main__":
    main()
