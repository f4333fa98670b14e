"""Training data of cytomask-t: image cache, target maps, crops, prompt sampling; augment.py has what changes the crops.

A source is a folder with `images/*.png` and `labels/*.tif` of the same stem (0 background, ids 1..N).
Needs numpy, scipy, scikit-image, tifffile, pillow, torch.
Licence: MIT OR Apache-2.0.
"""
import collections
import functools
import glob
import math
import multiprocessing
import os
import pickle
import zlib

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage as ndi
from skimage.measure import label as connected, regionprops
from skimage.segmentation import find_boundaries, watershed

from augment import colour, defocus, haze, overlay, plant, shade, spread_outlines, uneven, warp
from boxes import box_targets

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def stretch(image):
    """Image conversion of the model: per channel 0.1 / 99.9 percentile -> float32 in 0..255, [H,W,3]."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3].astype(np.float32)
    out = np.zeros(image.shape, np.float32)
    for c in range(image.shape[2]):
        lo, hi = np.percentile(image[..., c], (0.1, 99.9))
        if hi > lo:
            out[..., c] = np.clip((image[..., c] - lo) / max(hi - lo, 1e-6 * max(1.0, abs(hi))), 0, 1) * 255
    return np.repeat(out, 3, 2) if out.shape[2] == 1 else out


def split_merged(lab, solidity=0.88, min_peak=3.0):
    """Splits touching nuclei of a binary truth: components of low solidity are cut by a watershed of
    the smoothed distance transform; a cut is kept when it has parts of reasonable size."""
    out, nxt = lab.copy(), int(lab.max()) + 1
    for r in regionprops(lab):
        if r.area < 120 or r.solidity >= solidity:
            continue
        mask = np.pad(r.image, 1)
        dist = ndi.gaussian_filter(ndi.distance_transform_edt(mask), 1.5)
        peaks = (dist == ndi.maximum_filter(dist, size=11)) & (dist > min_peak) & mask
        seeds, n = ndi.label(peaks, np.ones((3, 3)))
        if n < 2:
            continue
        parts = watershed(-dist, seeds, mask=mask)[1:-1, 1:-1]
        if np.bincount(parts.ravel())[1:].min() < 40:
            continue
        view = out[r.slice]
        for i in range(2, n + 1):
            view[parts == i] = nxt
            nxt += 1
    return out


def distance_maps(lab):
    """[2,H,W] float32: centre distance and boundary distance per object, both 0..1 (1 in the background)."""
    out = np.ones((2,) + lab.shape, np.float32)
    inner = find_boundaries(lab, mode="inner")
    for i, sl in enumerate(ndi.find_objects(lab)):
        if sl is None:
            continue
        m = lab[sl] == i + 1
        free = ~inner[sl]
        d = ndi.distance_transform_edt(free) * m if not free.all() else np.zeros(m.shape)
        ys, xs = np.nonzero(m)
        cy, cx = int(round(ys.mean())), int(round(xs.mean()))
        if not m[cy, cx]:
            cy, cx = np.unravel_index(d.argmax(), d.shape)
        c = np.hypot(ys - cy, xs - cx)
        out[0][sl][m] = c / (c.max() + 1e-7)
        b = d.max() - d[m]
        out[1][sl][m] = b / (b.max() + 1e-7)
    return out


def load_item(path, split_touching):
    lab = tifffile.imread(path.replace(os.sep + "images" + os.sep, os.sep + "labels" + os.sep)[:-4] + ".tif")
    lab = lab.astype(np.int32)
    if split_touching:
        lab = split_merged(lab)
    lab = connected(lab, connectivity=2)
    counts = np.bincount(lab.ravel())
    lab[(counts < 10)[lab]] = 0
    sizes = np.sqrt(counts[1:][counts[1:] >= 10])
    image = np.rint(stretch(np.array(Image.open(path)))).astype(np.uint8)
    return {
        "name": os.path.basename(path)[:-4], "image": image, "label": lab.astype(np.uint16),
        "dist": distance_maps(lab).astype(np.float16), "size": float(np.median(sizes)) if len(sizes) else 20.0,
        "grey": bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()),
    }


def is_val(name, fraction):
    """Deterministic split by the file name."""
    return zlib.crc32(name.encode()) % 1000 < fraction * 1000


def load_source(root, source, val_fraction=0.1, cache=None, workers=1, log=print):
    """Training items of a source (the validation images are left out).  `cache`: folder for a pickle."""
    file = os.path.join(cache, f"cache_{source}.pkl") if cache else None
    if file and os.path.exists(file):
        with open(file, "rb") as f:
            return pickle.load(f)
    paths = sorted(glob.glob(os.path.join(root, source, "images", "*.png")))
    paths = [p for p in paths if not is_val(os.path.basename(p)[:-4], val_fraction)]
    if not paths:
        raise FileNotFoundError(f"no images in {os.path.join(root, source)}")
    with multiprocessing.Pool(workers) as pool:
        items = pool.map(functools.partial(load_item, split_touching=source == "tnbc"), paths, chunksize=4)
    items = [i for i in items if i["label"].any()]
    if file:
        with open(file, "wb") as f:
            pickle.dump(items, f, protocol=4)
    log(f"{source}: {len(items)} training images")
    return items


# ------------------------------------------------------------------------------------- crops

def sample_zoom(size, rng):
    """Mostly the scale seen at inference (1x, 2x for small objects, 1/2 for very large), else a random
    target size of the objects."""
    if rng.random() < 0.6:
        base = 2.0 if size < 14 else (0.5 if size > 34 and rng.random() < 0.5 else 1.0)
        z = base * math.exp(rng.uniform(math.log(0.72), math.log(1.38)))
    else:
        z = math.exp(rng.uniform(math.log(13), math.log(52))) / size
    return min(max(z, 0.25), 4.0)


def resize_index(n_out, n_in):
    return np.minimum(((np.arange(n_out) + 0.5) * (n_in / n_out)).astype(np.int64), n_in - 1)


def plain_crop(item, size, rng):
    """Random zoomed crop, at most `size` pixels a side: image [h,w,3] in 0..255, label [h,w], distances [2,h,w]."""
    h, w = item["label"].shape
    z = max(sample_zoom(item["size"], rng), 0.6 * size / max(h, w))
    zy, zx = z * math.exp(rng.normal(0, 0.05)), z * math.exp(rng.normal(0, 0.05))
    ch, cw = min(int(round(size / zy)), h), min(int(round(size / zx)), w)
    y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
    oh, ow = min(size, max(8, int(round(ch * zy)))), min(size, max(8, int(round(cw * zx))))
    if ch < h:
        oh = size
    if cw < w:
        ow = size
    sl = (slice(y, y + ch), slice(x, x + cw))
    image = torch.from_numpy(item["image"][sl].astype(np.float32)).permute(2, 0, 1)[None]
    image = F.interpolate(image, (oh, ow), mode="bilinear", antialias=True, align_corners=False)[0]
    image = image.permute(1, 2, 0).numpy()
    dist = torch.from_numpy(item["dist"][(slice(None),) + sl].astype(np.float32))[None]
    dist = F.interpolate(dist, (oh, ow), mode="bilinear", align_corners=False)[0].numpy()
    lab = item["label"][sl][resize_index(oh, ch)[:, None], resize_index(ow, cw)[None]].astype(np.int32)
    if rng.random() < 0.5:
        image, dist, lab = image[:, ::-1], dist[..., ::-1], lab[:, ::-1]
    k = int(rng.integers(4))
    image, dist, lab = np.rot90(image, k), np.rot90(dist, k, (1, 2)), np.rot90(lab, k)
    return np.ascontiguousarray(image), np.ascontiguousarray(lab), np.ascontiguousarray(dist)


def warped_crop(item, size, rng):
    """A random crop, in half of the cases warped: image, label and distances as of `plain_crop`."""
    if rng.random() < 0.5:
        return plain_crop(item, size, rng)
    image, lab, dist = plain_crop(item, size * 10 // 7, rng)
    if min(lab.shape) < 0.8 * size:
        return plain_crop(item, size, rng)
    return warp(image, lab, dist, size, rng)


def crop(item, size, rng, other=None):
    """An augmented crop: image [3,s,s] (0..255, padded with the mean), label [s,s], distances [2,s,s], valid [h,w].  Objects
    of `other`, a dark field like `item`, are put among its own, or shine through from another depth."""
    image, lab, dist = warped_crop(item, size, rng)
    before = lab
    if item["grey"] and rng.random() < 0.3:
        image = uneven(image, lab, rng)
    if item["dark"] and rng.random() < 0.35:
        image, lab = defocus(image, lab, rng)
    if other is not None:
        second = warped_crop(other, size, rng)
        h, w = (min(a, b) for a, b in zip(lab.shape, second[1].shape))
        image, lab, dist, second = image[:h, :w], lab[:h, :w], dist[:, :h, :w], (second[0][:h, :w], second[1][:h, :w])
        before = before[:h, :w]
        if rng.random() < 0.6:
            image, lab = overlay((image, lab), second, rng)
        else:
            image = haze(image, second[0], rng)
    if not item["grey"] and rng.random() < 0.25:
        image, lab = plant(image, lab, rng)
    if rng.random() < 0.25:
        image = shade(image, rng)
    sigma = rng.uniform(0.4, 2.4) if rng.random() < 0.2 else 0.0
    lab = spread_outlines(lab, sigma, rng)
    if not np.array_equal(lab, before):
        dist = distance_maps(lab)
    oh, ow = lab.shape
    padded = np.empty((3, size, size), np.uint8)
    padded[:] = np.rint(MEAN).astype(np.uint8)[:, None, None]
    padded[:, :oh, :ow] = np.rint(colour(image, item["grey"], rng, sigma)).transpose(2, 0, 1)
    pad = ((0, size - oh), (0, size - ow))
    return padded, np.pad(lab, pad), np.pad(dist, ((0, 0),) + pad, constant_values=1.0), (oh, ow)


# --------------------------------------------------------------------------------- prompts

N_POINT, N_BOX, N_BOTH = 3, 3, 2


def sample_prompts(lab, dist, extent, rng, min_area=16):
    """Prompts of one crop.  Returns points [P,2], boxes [P,4], object ids [P] (0 = no object), ordered
    point-only, box-only, point+box.  Unused parts are zero."""
    n = N_POINT + N_BOX + N_BOTH
    points, boxes, ids = np.zeros((n, 2), np.float32), np.zeros((n, 4), np.float32), np.zeros(n, np.int64)
    s = lab.shape[0]
    slices = ndi.find_objects(lab)
    counts = np.bincount(lab.ravel(), minlength=len(slices) + 1)
    objects = [i for i in range(1, len(slices) + 1) if counts[i] >= min_area]
    order = rng.permutation(objects) if objects else []
    for j in range(n):
        background = not len(order) or (j < N_POINT and rng.random() < 0.12) or rng.random() < 0.01
        if background:
            for _ in range(10):
                y, x = int(rng.integers(extent[0])), int(rng.integers(extent[1]))
                if lab[y, x] == 0:
                    break
            else:
                if not len(order):
                    pass
            r = np.exp(rng.uniform(np.log(5), np.log(30), 2))
            points[j] = x, y
            boxes[j] = np.clip([x - r[0], y - r[1], x + r[0], y + r[1]], 0, s - 1)
            if lab[y, x] == 0:
                continue
            i = int(lab[y, x])
            if counts[i] < min_area:
                continue
        else:
            i = int(order[j % len(order)])
        sl = slices[i - 1]
        m = lab[sl] == i
        y0, x0 = sl[0].start, sl[1].start
        ys, xs = np.nonzero(m)
        if rng.random() < 0.8:
            wgt = (1 - np.clip(dist[1][sl][m], 0, 1)) ** 3 + 1e-3
            p = rng.choice(len(ys), p=wgt / wgt.sum())
        else:
            p = rng.integers(len(ys))
        points[j] = x0 + xs[p], y0 + ys[p]
        b = np.array([x0, y0, sl[1].stop - 1, sl[0].stop - 1], np.float32)
        side = np.array([b[2] - b[0] + 1, b[3] - b[1] + 1] * 2)
        sd = 0.15 if rng.random() < 0.15 else 0.05
        b = np.clip(b + np.clip(rng.normal(0, sd, 4), -0.35, 0.35) * side, 0, s - 1)
        boxes[j] = b
        ids[j] = i
    return points, boxes, ids


class Crops(torch.utils.data.IterableDataset):
    """Endless batches: dictionaries of stacked tensors.  Images are uint8; `to_device` makes numbers of them."""

    def __init__(self, sources, weights, shapes, seed):
        """`shapes`: (side of the crops, crops in a batch), one of which is drawn for each batch."""
        self.sources, self.shapes, self.seed = sources, shapes, seed
        self.weights = np.array(weights, np.float64) / sum(weights)
        self.image_weights = []
        for items in sources:
            kinds = collections.Counter(self.kind(i) for i in items)
            w = np.array([(i["label"].size / 65536) ** 0.35 * kinds[self.kind(i)] ** -0.5 for i in items])
            self.image_weights.append(np.cumsum(w / w.sum()))
            for i in items:
                i["dark"] = i["grey"] and bool(np.median(i["image"]) < 70)

    @staticmethod
    def kind(item):
        """Images of one size and colour mostly come from one experiment: the sampler sees to it that the many images
        of one do not drown the few of another."""
        return item["label"].shape, item["grey"]

    def pick(self, k, rng):
        return min(int(np.searchsorted(self.image_weights[k], rng.random())), len(self.sources[k]) - 1)

    def one(self, size, rng):
        k = rng.choice(len(self.sources), p=self.weights)
        for _ in range(4):
            item, other = self.sources[k][self.pick(k, rng)], None
            if item["dark"] and rng.random() < 0.3:
                other = self.sources[k][self.pick(k, rng)]
            image, lab, dist, extent = crop(item, size, rng, other if other and other["dark"] else None)
            if (lab > 0).sum() > 40:
                break
        p, b, ids = sample_prompts(lab, dist, extent, rng)
        target, weight = box_targets(lab)
        return dict(image=image, label=lab.astype(np.int32), dist=dist.astype(np.float16), points=p, boxes=b, ids=ids,
                    box_targets=target, box_weights=weight)

    def __iter__(self):
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            size, batch = self.shapes[rng.integers(len(self.shapes))]
            items = [self.one(size, rng) for _ in range(batch)]
            yield {k: torch.from_numpy(np.stack([i[k] for i in items])) for k in items[0]}


def to_device(batch, device):
    """A batch of `Crops` there, its images normalised [N,3,s,s] f32 and channels last."""
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    mean, std = (torch.from_numpy(a).to(device).view(1, 3, 1, 1) for a in (MEAN, STD))
    batch["image"] = ((batch["image"].float() - mean) / std).contiguous(memory_format=torch.channels_last)
    batch["dist"] = batch["dist"].float()
    return batch
