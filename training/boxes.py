"""Boxes of objects for cytomask-t's box decoder: targets, loss, and its own boxes as prompts.

A cell of stride 4 belongs to the object at its middle pixel.  Boxes are (x0, y0, x1, y1), edges in pixels of the input.
Needs torch, numpy, scipy.
Licence: MIT OR Apache-2.0.
"""
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage as ndi

from model import BOX_STRIDE, boxes_of

LEAST_FIT = 0.15


def at_cells(lab):
    """The labels [...,H,W] that the cells belong to, [...,h,w]."""
    middle = BOX_STRIDE // 2
    return lab[..., middle::BOX_STRIDE, middle::BOX_STRIDE]


def box_targets(lab):
    """Of one crop: boxes [4,h,w] of the objects at the cells (0 where none is) and weights [h,w]: every object's cells
    weigh together as the square root of their number."""
    ids = at_cells(lab)
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
    return shape + 2 * fit, (weight * iou).detach().sum() / total


def replace_prompts(batch, raw, slots, share=0.5):
    """Puts boxes that the decoder proposes in place of `share` of the boxes of the prompt slots `slots`, a slice: cells are
    drawn by their fit, each object as likely as another.  A box stands for the object it overlaps most, if its IoU is
    above 0.4, else for none.  Boxes of prompts go from the first to the last pixel; points are the cells' middles."""
    fit, boxes = boxes_of(raw.detach())
    n, h, w = fit.shape
    height, width = batch["label"].shape[1:]
    high = torch.tensor([width, height, width, height], device=fit.device, dtype=boxes.dtype).view(4, 1)
    boxes, fit = boxes.flatten(2).clamp_min(0).minimum(high), fit.flatten(1)
    target, weight = batch["box_targets"].flatten(2), batch["box_weights"].flatten(1)
    objects = (weight**2).sum(1, keepdim=True)
    # a cell of an object counts as one of its cells, one of the background as if objects there had the mean size
    per_cell = torch.where(weight > 0, weight**2, objects / (weight > 0).sum(1, keepdim=True).clamp_min(1))
    chance = torch.where(fit > LEAST_FIT, fit**4, torch.zeros_like(fit)) * per_cell
    count = slots.stop - slots.start
    cells = torch.multinomial(chance + 1e-12, count, replacement=True)
    chosen = boxes.gather(2, cells[:, None].expand(-1, 4, -1))
    iou = overlap(chosen[..., None], target[:, :, None], 1)[0] * (weight > 0)[:, None]
    best, where = iou.max(2)
    ids = at_cells(batch["label"]).flatten(1).gather(1, where).to(batch["ids"].dtype)
    own = (torch.rand(cells.shape, device=fit.device) < share) & (chance.gather(1, cells) > 0)
    point = torch.stack([cells % w, cells // w], 2) * BOX_STRIDE + (BOX_STRIDE - 1) / 2
    box = chosen.transpose(1, 2) - torch.tensor([0.0, 0, 1, 1], device=fit.device)
    batch["boxes"][:, slots] = torch.where(own[..., None], box, batch["boxes"][:, slots])
    batch["points"][:, slots] = torch.where(own[..., None], point, batch["points"][:, slots])
    batch["ids"][:, slots] = torch.where(own, torch.where(best > 0.4, ids, torch.zeros_like(ids)), batch["ids"][:, slots])
