"""Writes fixtures/nms.safetensors: non-maximum suppression of boxes (torchvision) and of masks (µSAM's apply_nms).

Pinned: micro_sam 1.8.14, torch 2.15, torchvision 0.29.2, numpy 2.4.6, safetensors 0.8.0. Seed 0.
`python parity/nms.py`

Boxes are half-open y0, x0, y1, x1; upstream is given the first and last pixel. Masks are half-open runs y, x0, x1 with a count
of runs per mask, in a 97 × 131 image; among them masks one pixel wide, one pixel high and of one pixel. Scores are distinct:
upstream's order of equal scores is unspecified.
"""

import pathlib

import numpy as np
import torch
import torchvision
from micro_sam.util import _batched_mask_nms, _xywh_to_xyxy, apply_nms
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = (97, 131)
THRESHOLDS = [0.1, 0.3, 0.5, 0.7, 0.9]


def distinct_scores(rng, n):
    return ((rng.permutation(n) + 1) / (n + 1)).astype("float32")


def box_cases(rng, out):
    for case, n in enumerate([1, 80, 1200]):
        y0, x0 = rng.integers(0, 80, n), rng.integers(0, 110, n)
        h, w = rng.integers(1, 22, n), rng.integers(1, 22, n)
        boxes = np.stack([y0, x0, y0 + h, x0 + w], axis=1).astype("uint16")
        boxes[n // 2:] = boxes[: n - n // 2]  # duplicates, with and without area
        scores = distinct_scores(rng, n)
        xyxy = torch.from_numpy(boxes.astype("float32"))[:, [1, 0, 3, 2]] - torch.tensor([0.0, 0.0, 1.0, 1.0])
        out[f"box/{case}/boxes"], out[f"box/{case}/scores"] = boxes, scores
        for threshold in THRESHOLDS:
            kept = torchvision.ops.nms(xyxy, torch.from_numpy(scores), threshold).numpy()
            out[f"box/{case}/kept_{threshold}"] = kept.astype("uint16")


def draw_masks(rng, n):
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = []
    for index in range(n):
        cy, cx, radius = rng.uniform(0, SIZE[0]), rng.uniform(0, SIZE[1]), rng.uniform(1.5, 16)
        mask = (yy - cy) ** 2 + (xx - cx) ** 2 < radius**2
        if index % 8 == 0:
            mask &= yy == int(cy)
        if index % 8 == 1:
            mask &= xx == int(cx)
        if not mask.any():
            mask[min(int(cy), SIZE[0] - 1), min(int(cx), SIZE[1] - 1)] = True
        masks.append(mask)
        if index % 5 == 0:  # the same object again, moved by one pixel
            masks.append(np.roll(mask, 1, axis=1) & (xx > 0))
            if not masks[-1].any():
                masks.pop()
    return np.stack(masks)


def runs_of(mask):
    padded = np.pad(mask.astype("int8"), ((0, 0), (1, 1)))
    step = np.diff(padded, axis=1)
    starts, ends = np.argwhere(step == 1), np.argwhere(step == -1)
    return np.column_stack([starts, ends[:, 1]]).astype("uint16")


def mask_cases(rng, out):
    for case, n in enumerate([30, 70]):
        masks = draw_masks(rng, n)
        runs = [runs_of(mask) for mask in masks]
        predicted_iou = distinct_scores(rng, len(masks))
        out[f"mask/{case}/runs"] = np.concatenate(runs)
        out[f"mask/{case}/run_counts"] = np.array([len(r) for r in runs], dtype="uint16")
        out[f"mask/{case}/scores"] = predicted_iou
        predictions = []
        for mask, score in zip(masks, predicted_iou):
            y, x = np.where(mask)
            bbox = [int(x.min()), int(y.min()), int(x.max() - x.min()), int(y.max() - y.min())]
            predictions.append({
                "segmentation": torch.from_numpy(mask), "bbox": bbox, "predicted_iou": float(score), "stability_score": 1.0,
            })
        boxes = _xywh_to_xyxy(torch.tensor([p["bbox"] for p in predictions]))
        for minimum in (False, True):
            name = "iomin" if minimum else "iou"
            for threshold in THRESHOLDS:
                kept = _batched_mask_nms(torch.from_numpy(masks), boxes, predicted_iou, threshold, minimum)
                out[f"mask/{case}/kept_{name}_{threshold}"] = kept.numpy().astype("uint16")
            if case == 1:
                labels = apply_nms(predictions, min_size=25, nms_thresh=0.3, intersection_over_min=minimum)
                assert labels.max() < 256
                out[f"mask/{case}/labels_{name}"] = labels.astype("uint8")


def main():
    rng = np.random.default_rng(0)
    out = {}
    box_cases(rng, out)
    mask_cases(rng, out)
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, ROOT / "fixtures" / "nms.safetensors")


if __name__ == "__main__":
    main()
