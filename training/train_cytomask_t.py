"""Trains cytomask-t, the embedded default model, on the CPU or a GPU.

    python train_cytomask_t.py --data DATA --weights vit_t.safetensors --out RUN --steps 2950
    python train_cytomask_t.py --data DATA --continue-from RUN/state.pt --out RUN2 --steps 4500 --peak 0.6 --hold 0.65

DATA holds the sources dsb2018_train (CC0), tnbc (CC BY 4.0) and usiigaci_train (MIT), each with
images/*.png and labels/*.tif; 10 % of their images are left out for validation.  RUN gets
`cytomask_t.safetensors` (exponential moving average, f16), `log.jsonl` and `state.pt` (resume with
--resume).  --continue-from begins a further run at the averaged weights of another one.  The learning
rate rises, stays for the share --hold of all steps, and falls to zero; --peak scales it.

The three maps, the boxes and the prompted masks are trained jointly: in each step one batch of crops, one encoder
pass, losses of the maps and boxes, and (every `--prompt-every` steps) of point, box and point+box prompts.  With
--own-boxes a share of these are boxes that the box decoder proposes, as at inference: the mask decoder learns to mend
them, and to rate those that fit nothing.  --only-boxes trains the box decoder alone, on features as they are.

Needs torch, numpy, scipy, scikit-image, tifffile, pillow, safetensors.
Licence: MIT OR Apache-2.0.
"""
import argparse
import contextlib
import copy
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from boxes import box_loss, replace_prompts
from data import Crops, N_BOTH, N_BOX, N_POINT, load_source, to_device
from model import CytomaskT, STRIDE, export_state, init_from_sam, load_exported, up2

RECIPE = ("TinyViT SAM + UNETR-style decoder + mask refiner + box decoder; crops of 224 to 320 px, AdamW, EMA, joint maps, "
          "boxes and point/box/point+box prompts; DSB2018 train, TNBC, Usiigaci train")


def dice(p, t, dims):
    num = 2 * (p * t).sum(dims)
    return 1 - num / ((p * p).sum(dims) + (t * t).sum(dims)).clamp_min(1e-7)


def map_loss(logits, label, dist):
    """Dice of the three maps (distances inside the true foreground), BCE and smooth L1."""
    logits = logits.float()
    fg = (label > 0).float()
    p = logits.sigmoid()
    d = dice(p[:, 0], fg, (0, 1, 2))
    dd = [dice(p[:, 1 + i] * fg, dist[:, i] * fg, (0, 1, 2)) for i in (0, 1)]
    bce = F.binary_cross_entropy_with_logits(logits[:, 0], fg)
    n = fg.sum().clamp_min(1)
    l1 = sum((F.smooth_l1_loss(p[:, 1 + i], dist[:, i], beta=0.1, reduction="none") * fg).sum() / n for i in (0, 1))
    return d + dd[0] + dd[1] + 0.5 * bce + l1


def mask_loss(logits, target):
    """Dice + area-normalised BCE, logits [P,K,h,w], target [P,1,h,w] (soft) -> [P,K]."""
    logits = logits.float()
    area = target.sum((2, 3))
    bce = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").sum((2, 3))
    return dice(logits.sigmoid(), target, (2, 3)) + bce / (3 * area + 40)


def true_iou(logits, target):
    with torch.no_grad():
        a, b = logits > 0, target > 0.5
        return (a & b).sum((2, 3)) / (a | b).sum((2, 3)).clamp_min(1)


def prompt_loss(model, taps, batch):
    """Loss of the prompted masks and a few numbers for the log."""
    g, emb = taps["g"], taps["t16"]
    n, _, h, w = emb.shape
    room = int((1024 - STRIDE * max(h, w)) // STRIDE)
    offsets = torch.randint(0, room + 1, (n, 2), device=emb.device).float() * STRIDE
    pe = model.prompt_encoder.dense_pe(h, w, offsets)
    stats, parts, start = {}, [], 0
    for kind, count in (("point", N_POINT), ("box", N_BOX), ("both", N_BOTH)):
        sel = slice(start, start + count)
        start += count
        ids = batch["ids"][:, sel].reshape(-1)
        pts = (batch["points"][:, sel] + offsets[:, None]).reshape(-1, 1, 2)
        box = (batch["boxes"][:, sel] + offsets.repeat(1, 2)[:, None]).reshape(-1, 4)
        lab = torch.ones(len(pts), 1, device=pts.device)
        sparse = model.prompt_encoder.sparse(
            pts if kind != "box" else None, lab if kind != "box" else None, box if kind != "point" else None)
        low, iou, weights = model.decode(emb.repeat_interleave(count, 0), pe.repeat_interleave(count, 0), sparse)
        k = 4 if kind == "point" else 1
        low, iou = low[:, :k].float(), iou[:, :k].float()
        res = torch.einsum("npkc,nchw->npkhw", weights[:, :k].view(n, count, k, -1), g).flatten(0, 1)
        high = up2(low) + res.float()
        truth = (batch["label"].repeat_interleave(count, 0) == ids[:, None, None]).float()[:, None]
        truth = truth * (ids > 0).float().view(-1, 1, 1, 1)
        t2, t4 = F.avg_pool2d(truth, 2), F.avg_pool2d(truth, 4)
        real = (ids > 0).float()
        loss = mask_loss(high, t2) + 0.5 * mask_loss(low, t4)
        per = loss[:, 0] if k == 1 else loss[:, 0] + loss[:, 1:].min(1).values
        actual = true_iou(high, t2)
        parts.append((per * real).sum() / len(ids) / (1 if k == 1 else 2) + 2 * ((iou - actual) ** 2).mean())
        stats[kind] = (actual[:, 0] * real).sum() / real.sum().clamp_min(1)
        if k == 4:
            stats["point_best"] = (actual[:, 1:].max(1).values * real).sum() / real.sum().clamp_min(1)
    return sum(parts), stats


class Ema:
    """Exponential moving average of parameters and floating buffers."""

    def __init__(self, model, decay):
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0
        self.pairs = None

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        if self.pairs is None:
            src, dst = model.state_dict(), self.model.state_dict()
            keys = [k for k in src if src[k].is_floating_point()]
            self.pairs = [dst[k] for k in keys], [src[k] for k in keys]
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.pairs[0], self.pairs[1], 1 - decay)


def parameter_groups(model, args):
    groups = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        lr = args.lr_decoder if name.startswith(("instance_decoder", "mask_refiner", "box_decoder")) else \
            args.lr_encoder if name.startswith("image_encoder") else args.lr_sam
        wd = 0.02 if p.ndim >= 2 and "embed" not in name and "token" not in name and "biases" not in name else 0.0
        groups.setdefault((lr, wd), []).append(p)
    return [dict(params=p, lr=lr, base=lr, weight_decay=wd) for (lr, wd), p in groups.items()]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True, help="folder of the sources")
    ap.add_argument("--weights", help="vit_t SAM weights (safetensors) to start from")
    ap.add_argument("--continue-from", help="state.pt or exported model of an earlier run to start from instead")
    ap.add_argument("--out", required=True, help="output folder")
    ap.add_argument("--steps", type=int, default=3000, help="steps of this run")
    ap.add_argument("--stop-after", type=int, default=0, help="end early after so many steps (smoke test)")
    ap.add_argument("--hold", type=float, default=0.0, help="share of the steps at the full learning rate")
    ap.add_argument("--peak", type=float, default=1.0, help="factor on all learning rates")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--sources", default="dsb2018_train=0.62,tnbc=0.22,usiigaci_train=0.16")
    ap.add_argument("--crops", default="224x4", help="side of the crops x crops in a batch; of several, one is drawn for each batch")
    ap.add_argument("--lr-decoder", type=float, default=1.5e-3)
    ap.add_argument("--lr-encoder", type=float, default=2.5e-4)
    ap.add_argument("--lr-sam", type=float, default=2.5e-4)
    ap.add_argument("--clip", type=float, default=5.0)
    ap.add_argument("--warmup", type=int, default=80)
    ap.add_argument("--ema", type=float, default=0.998)
    ap.add_argument("--prompt-start", type=float, default=0.04, help="share of the steps with maps only")
    ap.add_argument("--prompt-every", type=int, default=2, help="prompts every so many steps in the first three quarters")
    ap.add_argument("--box-weight", type=float, default=0.3)
    ap.add_argument("--own-boxes", type=float, default=0.0, help="share of the prompts' boxes that are those of the box decoder")
    ap.add_argument("--only-boxes", action="store_true", help="trains the box decoder alone")
    ap.add_argument("--prompt-weight", type=float, default=0.4)
    ap.add_argument("--export-minutes", type=float, default=8)
    ap.add_argument("--threads-file", help="file with the number of threads, read at every step")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--device", default="cpu", help="cpu or cuda")
    ap.add_argument("--workers", type=int, default=1, help="processes that make crops")
    ap.add_argument("--bf16", action="store_true", help="autocast; faster with AMX, slower than f32 on many other CPUs: measure")
    ap.add_argument("--log-every", type=int, default=50)
    ap.add_argument("--resume", action="store_true")
    args = ap.parse_args()

    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    if not args.resume and bool(args.weights) == bool(args.continue_from):
        ap.error("one of --weights and --continue-from is needed")
    model = CytomaskT()
    if args.weights:
        init_from_sam(model, load_file(args.weights))
    if args.continue_from:
        if args.continue_from.endswith(".safetensors"):
            model = load_exported(args.continue_from)
        else:
            model.load_state_dict(torch.load(args.continue_from, weights_only=True, map_location="cpu")["ema"])
    if args.only_boxes:
        model.requires_grad_(False)
        model.box_decoder.requires_grad_(True)
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = model.to(device, memory_format=torch.channels_last).train()
    if args.only_boxes:
        model.eval().box_decoder.train()
    ema = Ema(model, args.ema)
    opt = torch.optim.AdamW(parameter_groups(model, args), betas=(0.9, 0.999), fused=True)
    step, before = 0, 0.0
    state_file = os.path.join(args.out, "state.pt")
    if args.resume:
        state = torch.load(state_file, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        ema.model.load_state_dict(state["ema"])
        opt.load_state_dict(state["opt"])
        step, before, ema.steps = state["step"], state["minutes"], state["step"]

    names, weights = zip(*[s.split("=") for s in args.sources.split(",")])
    sources = [load_source(args.data, n, cache=args.out, workers=args.workers) for n in names]
    shapes = [tuple(int(n) for n in shape.split("x")) for shape in args.crops.split(",")]
    crops = Crops(sources, [float(w) for w in weights], shapes, args.seed + 1000 * step)
    loader = iter(torch.utils.data.DataLoader(crops, batch_size=None, num_workers=args.workers, prefetch_factor=4,
                                              pin_memory=device.type == "cuda"))
    log = open(os.path.join(args.out, "log.jsonl"), "a")

    def save(minutes):
        path = os.path.join(args.out, "cytomask_t.safetensors")
        meta = dict(recipe=RECIPE, step=str(step), minutes=f"{minutes:.1f}", seed=str(args.seed))
        save_file({k: v.cpu() for k, v in export_state(ema.model).items()}, path + ".tmp", metadata=meta)
        os.replace(path + ".tmp", path)
        torch.save(dict(model=model.state_dict(), ema=ema.model.state_dict(), opt=opt.state_dict(), step=step,
                        minutes=minutes), state_file + ".tmp")
        os.replace(state_file + ".tmp", state_file)

    t0 = last_log = time.time()
    cpu0, next_export, sums, threads, first = time.process_time(), before + args.export_minutes, {}, 0, step
    while True:
        minutes = before + (time.time() - t0) / 60
        frac = step / args.steps
        if frac >= 1 or (args.stop_after and step - first >= args.stop_after):
            break
        want = args.threads
        if args.threads_file:
            with contextlib.suppress(OSError, ValueError):
                want = max(1, int(open(args.threads_file).read()))
        if want != threads:
            threads = want
            torch.set_num_threads(threads)
        fall = max(0.0, frac - args.hold) / (1 - args.hold)
        factor = args.peak * min(1.0, (step + 1) / args.warmup) * (1 - fall) ** 0.9
        for group in opt.param_groups:
            group["lr"] = group["base"] * factor

        batch = to_device(next(loader), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            taps = model.encode(batch["image"])
            loss_boxes, box_iou = box_loss(taps["boxes"], batch["box_targets"], batch["box_weights"])
            loss_maps = map_loss(taps["maps"], batch["label"], batch["dist"])
            loss, stats = args.box_weight * loss_boxes + loss_maps, dict(boxes=loss_boxes.detach(), box_iou=box_iou)
            if not args.only_boxes and frac >= args.prompt_start and (frac >= 0.75 or step % args.prompt_every == 0):
                if args.own_boxes:
                    replace_prompts(batch, taps["boxes"], slice(N_POINT, N_POINT + N_BOX + N_BOTH), args.own_boxes)
                loss_prompts, found = prompt_loss(model, taps, batch)
                stats.update(found, prompts=loss_prompts.detach())
                loss = loss + args.prompt_weight * loss_prompts
        opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip))
        if np.isfinite(norm):
            opt.step()
            ema.update(model)
        step += 1

        stats.update(maps=loss_maps.detach(), norm=norm)
        for k, v in stats.items():
            s = sums.setdefault(k, [0.0, 0])
            s[0], s[1] = s[0] + v, s[1] + 1
        if step % args.log_every == 0:
            now = time.time()
            row = dict(step=step, minutes=round(minutes, 2), cpu_minutes=round((time.process_time() - cpu0) / 60, 2),
                       s_per_step=round((now - last_log) / args.log_every, 3), factor=round(factor, 4), threads=threads,
                       **{k: round(float(a / b), 4) for k, (a, b) in sums.items()})
            log.write(json.dumps(row) + "\n")
            log.flush()
            sums, last_log = {}, now
        if minutes >= next_export:
            next_export += args.export_minutes
            save(minutes)
    save(before + (time.time() - t0) / 60)


if __name__ == "__main__":
    main()
