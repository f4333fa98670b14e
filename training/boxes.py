"""Boxes of objects for cytomask-t's box decoder: targets, loss, and the proposals that come of its output.

A cell of stride 4 belongs to the object at its middle pixel.  Boxes are (x0, y0, x1, y1), edges in pixels of the input.
Needs torch, numpy, scipy.
Licence: MIT OR Apache-2.0.
"""
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage as ndi

from model import BOX_STRIDE, boxes_of

MAX_CANDIDATES = 300


def box_targets(lab):
    """Of one crop: boxes [4,h,w] of the objects at the cells (0 where none is) and weights [h,w]: every object's cells
    weigh together as the square root of their number."""
    middle = BOX_STRIDE // 2
    ids = lab[middle::BOX_STRIDE, middle::BOX_STRIDE]
    table = np.zeros((int(lab.max()) + 1, 4), np.float32)
    for i, sl in enumerate(ndi.find_objects(lab)):
        if sl is not None:
            table[i + 1] = sl[1].start, sl[0].start, sl[1].stop, sl[0].stop
    cells = np.bincount(ids.ravel(), minlength=len(table))
    weight = np.where(np.arange(len(table)) > 0, 1 / np.sqrt(np.maximum(cells, 1)), 0).astype(np.float32)
    return table[ids].transpose(2, 0, 1).copy(), weight[ids]


def overlap(a, b, dim):
    """IoU and generalised IoU of boxes whose coordinates lie along `dim`."""
    a0, a1, a2, a3 = a.unbind(dim)
    b0, b1, b2, b3 = b.unbind(dim)
    inter = (torch.minimum(a2, b2) - torch.maximum(a0, b0)).clamp_min(0) * (torch.minimum(a3, b3) - torch.maximum(a1, b1)).clamp_min(0)
    union = (a2 - a0) * (a3 - a1) + (b2 - b0) * (b3 - b1) - inter
    hull = (torch.maximum(a2, b2) - torch.minimum(a0, b0)) * (torch.maximum(a3, b3) - torch.minimum(a1, b1))
    iou = inter / union.clamp_min(1e-6)
    return iou, iou - (hull - union) / hull.clamp_min(1e-6)


def box_loss(raw, target, weight):
    """Quality focal loss of the fit (Li et al. 2020; truth: the box's own IoU, 0 in the background), generalised IoU and the
    edges' errors as shares of the object's sides.  Also returns the mean IoU for the log."""
    _, boxes = boxes_of(raw)
    inside = weight > 0
    safe = torch.where(inside[:, None], target, boxes.detach())
    iou, giou = overlap(boxes, safe, 1)
    side = torch.stack([safe[:, 2] - safe[:, 0], safe[:, 3] - safe[:, 1]] * 2, 1).clamp_min(1)
    edges = ((boxes - safe).abs() / side).mean(1).clamp_max(4)
    total = weight.sum().clamp_min(1)
    shape = (weight * (1 - giou + 2 * edges)).sum() / total
    truth = torch.where(inside, iou.detach().clamp(0, 1), torch.zeros_like(iou))
    logit = raw[:, 0].float()
    focal = (logit.sigmoid() - truth).square() * F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    # the cells of objects as above; the background's as if they were objects of its size
    fit = (focal * torch.where(inside, weight, weight.sum() / inside.sum().clamp_min(1))).sum() / total
    return shape + 2 * fit, float((weight * iou).detach().sum() / total)


def suppress(boxes, scores, threshold, limit):
    """Indices of the kept boxes [K,4], best first."""
    order, kept = np.argsort(-scores, kind="stable"), []
    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0) * (y1 - y0)
    while len(order) and len(kept) < limit:
        i, order = order[0], order[1:]
        kept.append(i)
        inter = np.clip(np.minimum(x1[i], x1[order]) - np.maximum(x0[i], x0[order]), 0, None) * \
            np.clip(np.minimum(y1[i], y1[order]) - np.maximum(y0[i], y0[order]), 0, None)
        order = order[inter <= threshold * (area[i] + area[order] - inter)]
    return np.array(kept, np.int64)


def proposals(raw, extent, least, threshold, limit=10000):
    """Of one image: boxes [K,4] (cut to the extent [h,w]), points [K,2] (the cells, x and y) and fits [K]."""
    fit, boxes = boxes_of(raw[None])
    fit, boxes = fit[0].numpy(), boxes[0].numpy()
    h, w = (-(-s // BOX_STRIDE) for s in extent)
    fit, boxes = fit[:h, :w], boxes[:, :h, :w]
    ys, xs = np.nonzero(fit > least)
    scores, boxes = fit[ys, xs], boxes[:, ys, xs].T
    boxes = np.clip(boxes, 0, [extent[1], extent[0]] * 2)
    kept = suppress(boxes, scores, threshold, limit)
    points = np.stack([xs, ys], 1)[kept] * BOX_STRIDE + (BOX_STRIDE - 1) / 2
    return boxes[kept].reshape(-1, 4), points.astype(np.float32).reshape(-1, 2), scores[kept]


def replace_prompts(batch, raw, slots, rng, share=0.5):
    """Puts predicted boxes in place of `share` of the boxes of the prompt slots `slots`: each stands for the object it
    overlaps most, if its IoU is above 0.4, else for none.  Boxes of prompts go from the first to the last pixel."""
    raw = raw.detach().float()
    for n in range(len(raw)):
        lab = batch["label"][n].numpy()
        boxes, points, fits = proposals(raw[n], lab.shape, 0.15, 0.7, MAX_CANDIDATES)
        if not len(boxes):
            continue
        fits = fits.astype(np.float64)
        target = batch["box_targets"][n].flatten(1).numpy().T
        ids_at = lab[BOX_STRIDE // 2::BOX_STRIDE, BOX_STRIDE // 2::BOX_STRIDE].ravel()
        known, first = np.unique(ids_at, return_index=True)
        known, true = known[known > 0], target[first[known > 0]]
        for j in slots:
            if rng.random() >= share:
                continue
            k = int(rng.choice(len(boxes), p=fits**2 / (fits**2).sum()))
            b = boxes[k]
            iou = overlap(torch.from_numpy(b)[None].float(), torch.from_numpy(true).float(), 1)[0].numpy() if len(true) else np.zeros(1)
            best = int(iou.argmax())
            batch["boxes"][n, j] = torch.from_numpy(b - [0, 0, 1, 1])
            batch["points"][n, j] = torch.from_numpy(points[k])
            batch["ids"][n, j] = int(known[best]) if len(true) and iou[best] > 0.4 else 0
