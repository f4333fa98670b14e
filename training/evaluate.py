"""mSA of an exported cytomask-t on a source folder: AIS and APG (automatic prompt generation).

    python evaluate.py --model cytomask_t.safetensors --data DATA --source dsb2018_test --modes ais,apg_box

AIS: seeds from the centre and boundary distances, watershed of the smoothed boundary distance.
APG: one prompt per AIS-style component: its point (maximum of the distance to the component's
border), its box (bounding box of the watershed instance) or both; score filter, mask NMS, painting.
true_box, true_point: prompts of the true objects instead, --jitter moves each edge of the boxes at random; found_box: of
those true objects alone that the point of some component lies in.  What limits APG (docs/decisions/0051-proposed-boxes.md).
The prompts are decoded on local windows of the embedding (the size of the training crops or larger
for large objects), which costs the same for any image size.

Scale rule: 1x, and again at 2x when the median predicted sqrt(area) is below --small (1/2 x when it
is above --large).  Needs torch, numpy, scipy, scikit-image, tifffile, pillow, safetensors.
Licence: MIT OR Apache-2.0.
"""
import argparse
import glob
import json
import os
import time

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage as ndi
from scipy.optimize import linear_sum_assignment
from skimage.measure import label as connected
from skimage.segmentation import find_boundaries, watershed

from data import MEAN, STD, is_val, stretch
from model import STRIDE, load_exported, up2


# ---------------------------------------------------------------------------------- metric

def accuracies(pred, true):
    """Segmentation accuracy TP / (TP + FP + FN) at IoU 0.50, 0.55 … 0.95."""
    thresholds = np.arange(0.5, 1.0, 0.05)
    n_p, n_t = int(pred.max()), int(true.max())
    if not n_p or not n_t:
        return np.zeros(len(thresholds))
    table = np.bincount(true.ravel().astype(np.int64) * (n_p + 1) + pred.ravel(), minlength=(n_t + 1) * (n_p + 1))
    table = table.reshape(n_t + 1, n_p + 1)
    areas_t, areas_p = table.sum(1)[1:], table.sum(0)[1:]
    n_t, n_p = int((areas_t > 0).sum()), int((areas_p > 0).sum())
    inter = table[1:, 1:]
    iou = inter / np.maximum(areas_t[:, None] + areas_p[None] - inter, 1)
    out = []
    for thr in thresholds:
        hit = iou >= thr
        if thr <= 0.5 + 1e-9:  # ties at exactly 0.5 need an assignment
            rows, cols = np.nonzero(hit.any(1))[0], np.nonzero(hit.any(0))[0]
            sub = hit[np.ix_(rows, cols)]
            tp = int(sub[linear_sum_assignment(-sub.astype(np.int8))].sum()) if sub.size else 0
        else:
            tp = int(hit.sum())
        out.append(tp / (n_p + n_t - tp))
    return np.array(out)


# ---------------------------------------------------------------------------------- segmenter

class Segmenter:
    def __init__(self, path, args):
        self.model, self.args = load_exported(path), args

    @torch.no_grad()
    def encode(self, image, scale):
        """image: stretched [H,W,3].  Returns the features and the maps at image * scale resolution."""
        x = torch.from_numpy((image - MEAN) / STD).permute(2, 0, 1)[None]
        if scale != 1:
            size = [max(1, round(s * scale)) for s in image.shape[:2]]
            x = F.interpolate(x, size, mode="bilinear", antialias=scale < 1, align_corners=False)
        h, w = x.shape[2:]
        x = F.pad(x, (0, (-w) % 32, 0, (-h) % 32))
        taps = self.model.encode(x)
        maps = taps["maps"].sigmoid()[0, :, :h, :w].numpy()
        return dict(emb=taps["t16"], g=taps["g"], maps=maps, scale=scale, shape=(h, w))

    def components(self, maps):
        """Seeds and watershed instances (same ids)."""
        a = self.args
        def smooth(m, s):
            return ndi.gaussian_filter(m, s, mode="mirror", radius=int(np.ceil(3 * s))) if s > 0 else m
        fg = smooth(maps[0], 1.0) > a.fg
        cen, bnd = smooth(maps[1], a.smoothing), smooth(maps[2], a.smoothing)
        seeds = connected((cen < a.centre) & (bnd < a.boundary) & fg, connectivity=2)
        inst = watershed(bnd, seeds, mask=fg, connectivity=1)
        return seeds, inst

    def features(self, image):
        """Scale rule: encodes once, and again at another scale for small or large objects."""
        f = self.encode(image, self.args.scale or 1)
        f["seeds"], f["inst"] = self.components(f["maps"])
        if self.args.scale:
            return f
        counts = np.bincount(f["inst"].ravel())[1:]
        counts = counts[counts >= 12]
        if len(counts):
            size = float(np.median(np.sqrt(counts)))
            again = 2.0 if size < self.args.small else 0.5 if size > self.args.large else None
            if again:
                f = self.encode(image, again)
                f["seeds"], f["inst"] = self.components(f["maps"])
        return f

    def to_image(self, lab, shape):
        if lab.shape != tuple(shape):
            iy = np.minimum(((np.arange(shape[0]) + 0.5) * lab.shape[0] / shape[0]).astype(int), lab.shape[0] - 1)
            ix = np.minimum(((np.arange(shape[1]) + 0.5) * lab.shape[1] / shape[1]).astype(int), lab.shape[1] - 1)
            lab = lab[iy[:, None], ix[None]]
        return lab

    def finish(self, lab, min_size):
        counts = np.bincount(lab.ravel())
        lab = lab * (counts >= min_size)[lab]
        return np.unique(lab, return_inverse=True)[1].reshape(lab.shape) if not lab.all() else lab

    def ais(self, f, shape):
        return self.finish(self.to_image(f["inst"], shape), self.args.min_size)

    @torch.no_grad()
    def prompt(self, f, kind, points, boxes):
        """Masks (stride-1 logits on a window) for all prompts: list of (y0, x0, logits, iou)."""
        m, (h, w) = self.model, f["shape"]
        th, tw = f["emb"].shape[2:]
        out = [None] * len(points)
        groups = {}
        for i, b in enumerate(boxes):
            side = max(b[2] - b[0], b[3] - b[1]) + 1
            n = 14 if side < 110 else 20 if side < 190 else 32 if side < 330 else 64
            groups.setdefault((min(n, th), min(n, tw)), []).append(i)
        for (nh, nw), ids in groups.items():
            off = 448.0 if max(nh, nw) <= 32 else 0.0
            pe = m.prompt_encoder.dense_pe(nh, nw, (off, off))[None]
            for s in range(0, len(ids), 32):
                part = ids[s:s + 32]
                win = []
                for i in part:
                    cx, cy = (boxes[i][0] + boxes[i][2]) / 2, (boxes[i][1] + boxes[i][3]) / 2
                    win.append((int(np.clip(round(cy / STRIDE - nh / 2), 0, th - nh)),
                                int(np.clip(round(cx / STRIDE - nw / 2), 0, tw - nw))))
                emb = torch.cat([f["emb"][:, :, y:y + nh, x:x + nw] for y, x in win])
                g = torch.cat([f["g"][:, :, 8 * y:8 * (y + nh), 8 * x:8 * (x + nw)] for y, x in win])
                shift = torch.tensor([[x, y] for y, x in win]) * float(STRIDE)
                p = torch.tensor(points[part], dtype=torch.float32) - shift + off
                b = torch.tensor(boxes[part], dtype=torch.float32) - shift.repeat(1, 2) + off
                lab = torch.ones(len(part), 1)
                sparse = m.prompt_encoder.sparse(p[:, None] if kind != "box" else None, lab if kind != "box" else None,
                                                 b if kind != "point" else None)
                low, iou, wgt = m.decode(emb, pe.expand(len(part), -1, -1, -1), sparse)
                if kind == "point" and self.args.multimask:
                    k = 1 + iou[:, 1:].argmax(1)
                else:
                    k = torch.zeros(len(part), dtype=torch.long)
                r = torch.arange(len(part))
                high = up2(low[r, k][:, None])
                if not self.args.no_refiner:
                    high = high + torch.einsum("nc,nchw->nhw", wgt[r, k], g)[:, None]
                high = up2(high)[:, 0]
                for j, i in enumerate(part):
                    y, x = win[j][0] * STRIDE, win[j][1] * STRIDE
                    out[i] = (y, x, high[j, :h - y, :w - x].numpy(), float(iou[j, k[j]]))
        return out

    def derive(self, f):
        """Points (maximum of the distance to the border of the seed) and boxes of the components."""
        seeds, inst = f["seeds"], f["inst"]
        free = ~find_boundaries(seeds, mode="outer")
        free[[0, -1]] = False
        free[:, [0, -1]] = False
        dist = ndi.distance_transform_edt(free)
        points, boxes, ids = [], [], []
        for i, (a, b) in enumerate(zip(ndi.find_objects(seeds), ndi.find_objects(inst))):
            if a is None or b is None:
                continue
            d = dist[a] * (seeds[a] == i + 1)
            y, x = np.unravel_index(d.argmax(), d.shape)
            points.append((a[1].start + x, a[0].start + y))
            boxes.append((b[1].start, b[0].start, b[1].stop - 1, b[0].stop - 1))
            ids.append(i + 1)
        return np.array(points, np.float32).reshape(-1, 2), np.array(boxes, np.float32).reshape(-1, 4), ids

    def derive_true(self, f, true, only_found):
        """The same of the true objects: the deepest pixel and the bounding box, in the frame of the features."""
        rng, scale = np.random.default_rng(0), f["scale"]
        found = set()
        if only_found:
            at = np.minimum((self.derive(f)[0] + 0.5) / scale, np.array(true.shape)[::-1] - 1).astype(int)
            found = set(true[at[:, 1], at[:, 0]])
        points, boxes, ids = [], [], []
        for i, sl in enumerate(ndi.find_objects(true)):
            if sl is None or only_found and i + 1 not in found:
                continue
            depth = ndi.distance_transform_edt(np.pad(true[sl] == i + 1, 1))[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            box = np.array([sl[1].start, sl[0].start, sl[1].stop - 1, sl[0].stop - 1])
            box = box + rng.normal(0, self.args.jitter, 4) * np.tile(box[2:] - box[:2] + 1, 2)
            points.append((sl[1].start + x, sl[0].start + y))
            boxes.append(box)
            ids.append(i + 1)
        into = lambda rows, n: (np.array(rows, np.float32).reshape(-1, n) + 0.5) * scale - 0.5
        return into(points, 2), into(boxes, 4), ids

    def prompted_true(self, f, mode, true):
        points, boxes, ids = self.derive_true(f, true, mode.startswith("found"))
        return list(zip(ids, self.prompt(f, mode.split("_")[1], points, boxes))) if ids else []

    def prompted(self, f, kind):
        """Logits of all components: list of (id, (y0, x0, logits, iou))."""
        points, boxes, ids = self.derive(f)
        return list(zip(ids, self.prompt(f, kind, points, boxes))) if ids else []

    def records(self, f, prompted, prior):
        """Masks: (y0, x0, bool mask cut to its box, iou, stability).  `prior` is added to the logits inside
        the component's watershed instance and subtracted outside: it settles the uncertain pixels."""
        out = []
        for i, (y, x, logits, iou) in prompted:
            if prior:
                own = f["inst"][y:y + logits.shape[0], x:x + logits.shape[1]] == i
                logits = logits + np.where(own, np.float32(prior), np.float32(-prior))
            mask = logits > 0
            if not mask.any():
                continue
            stability = (logits > 1).sum() / max(1, (logits > -1).sum())
            ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            out.append((y + ys[0], x + xs[0], mask[ys[0]:ys[-1] + 1, xs[0]:xs[-1] + 1], iou, float(stability)))
        return out

    def paint(self, f, records, shape, score, nms):
        """Score filter, greedy NMS by score, larger masks first, 4-connected relabelling."""
        a, scale2 = self.args, f["scale"] ** 2
        rec = [r for r in records if r[3] >= score and r[2].sum() > a.min_size * scale2]
        rec.sort(key=lambda r: -r[3] * (r[4] if a.stability else 1.0))
        kept = []
        for r in rec:
            area = r[2].sum()
            for k in kept:
                y0, x0 = max(r[0], k[0]), max(r[1], k[1])
                y1 = min(r[0] + r[2].shape[0], k[0] + k[2].shape[0])
                x1 = min(r[1] + r[2].shape[1], k[1] + k[2].shape[1])
                if y1 <= y0 or x1 <= x0:
                    continue
                inter = (r[2][y0 - r[0]:y1 - r[0], x0 - r[1]:x1 - r[1]] &
                         k[2][y0 - k[0]:y1 - k[0], x0 - k[1]:x1 - k[1]]).sum()
                if inter / (area + k[2].sum() - inter) > nms:
                    break
            else:
                kept.append(r)
        lab = np.zeros(f["shape"], np.int64)
        kept.sort(key=lambda r: -r[2].sum())
        for i, (y, x, m, *_rest) in enumerate(kept):
            view = lab[y:y + m.shape[0], x:x + m.shape[1]]
            view[m & (view == 0)] = i + 1
        lab = connected(lab, connectivity=1)
        return self.finish(self.to_image(lab, shape), a.min_size)


def image_paths(root, source, split, val_fraction):
    paths = sorted(glob.glob(os.path.join(root, source, "images", "*.png")))
    name = lambda p: os.path.basename(p)[:-4]
    return [p for p in paths if split == "all" or is_val(name(p), val_fraction) == (split == "val")]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--source", default="dsb2018_test", help="comma-separated")
    ap.add_argument("--split", choices=("all", "val", "train"), default="all")
    ap.add_argument("--limit", type=int, default=0)
    ap.add_argument("--modes", default="ais,apg_point,apg_box,apg_both")
    ap.add_argument("--scores", default="0.3", help="score thresholds tried for APG")
    ap.add_argument("--nms", default="0.5", help="NMS thresholds tried for APG")
    ap.add_argument("--priors", default="0", help="weights of the watershed instance tried for APG")
    ap.add_argument("--fg", type=float, default=0.5)
    ap.add_argument("--centre", type=float, default=0.5)
    ap.add_argument("--boundary", type=float, default=0.5)
    ap.add_argument("--smoothing", type=float, default=1.6)
    ap.add_argument("--min-size", type=int, default=0)
    ap.add_argument("--small", type=float, default=13)
    ap.add_argument("--large", type=float, default=1e9)
    ap.add_argument("--scale", type=float, default=0, help="fixed scale instead of the rule")
    ap.add_argument("--multimask", action="store_true", help="best of tokens 1..3 for points instead of token 0")
    ap.add_argument("--jitter", type=float, default=0, help="standard deviation of the true boxes' edges, share of the side")
    ap.add_argument("--stability", action="store_true", help="rank by IoU x stability")
    ap.add_argument("--no-refiner", action="store_true")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--out", help="JSON lines of the results are appended here")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    seg = Segmenter(args.model, args)
    for source in args.source.split(","):
        paths = image_paths(args.data, source, args.split, 0.1)
        if args.limit and len(paths) > args.limit:
            paths = [paths[i] for i in np.linspace(0, len(paths) - 1, args.limit).astype(int)]
        scores, t0 = {}, time.time()
        for path in paths:
            image = stretch(np.array(Image.open(path)))
            true = tifffile.imread(path.replace(os.sep + "images" + os.sep, os.sep + "labels" + os.sep)[:-4] + ".tif")
            true = connected(true.astype(np.int32), connectivity=2)
            f = seg.features(image)
            for mode in args.modes.split(","):
                if mode == "ais":
                    scores.setdefault(mode, []).append(accuracies(seg.ais(f, true.shape), true))
                    continue
                if mode.startswith("apg"):
                    prompted = seg.prompted(f, mode.split("_")[1])
                else:
                    prompted = seg.prompted_true(f, mode, true)
                for wgt in args.priors.split(","):
                    rec = seg.records(f, prompted, float(wgt))
                    for s in args.scores.split(","):
                        for n in args.nms.split(","):
                            lab = seg.paint(f, rec, true.shape, float(s), float(n))
                            key = f"{mode} prior {wgt} score {s} nms {n}"
                            scores.setdefault(key, []).append(accuracies(lab, true))
        print(f"{source} {args.split} ({len(paths)} images, {time.time() - t0:.0f} s)")
        for mode, rows in scores.items():
            r = np.array(rows)
            print(f"  {mode:36s} mSA {r.mean():.4f}  SA50 {r[:, 0].mean():.4f}  SA75 {r[:, 5].mean():.4f}", flush=True)
            if args.out:
                with open(args.out, "a") as fh:
                    fh.write(json.dumps(dict(source=source, split=args.split, n=len(paths), mode=mode,
                                             msa=float(r.mean()), sa50=float(r[:, 0].mean()),
                                             sa75=float(r[:, 5].mean()), settings=vars(args))) + "\n")


if __name__ == "__main__":
    main()
