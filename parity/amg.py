"""Writes fixtures/amg.safetensors: the parts of SAM's automatic mask generator, and µSAM's generator as a whole.

Pinned: micro_sam 1.8.14, segment_anything 1.0, torch 2.15, opencv-python-headless 5.0, numpy 2.4.6, safetensors 0.8.0. Seed 0.
`python parity/amg.py`

The whole generator runs on the scripted network of cytomask-segment (`scripted.rs`): discs known by heart, whose image tells
each crop where it was taken.
"""

import pathlib

import numpy as np
import torch
from micro_sam.inference import _local_otsu_threshold
from micro_sam.instance_segmentation import AutomaticMaskGenerator
from safetensors.numpy import save_file
from segment_anything.utils import amg

ROOT = pathlib.Path(__file__).resolve().parent.parent


class ScriptedPredictor:
    """What AutomaticMaskGenerator asks of SamPredictor, answered as ScriptedModel::decode does."""

    def __init__(self, discs, sharpness, predicted_iou):
        self.discs, self.sharpness, self.predicted_iou = np.asarray(discs, dtype="float32"), sharpness, predicted_iou
        self.model = self.transform = self
        self.mask_threshold, self.device = 0.0, "cpu"

    def apply_coords(self, points, _size):
        return points

    def set_image(self, crop):
        self.origin, self.size = crop[0, 0, :2].astype("float32"), crop.shape[:2]

    def reset_image(self):
        pass

    def predict_torch(self, point_coords, point_labels, multimask_output, return_logits):
        yy, xx = np.mgrid[: self.size[0], : self.size[1]].astype("float32")
        yy, xx = yy + self.origin[0], xx + self.origin[1]
        masks, ious = [], []
        for x, y in point_coords[:, 0].numpy():
            y, x = y + self.origin[0], x + self.origin[1]
            distance = np.hypot(y - self.discs[:, 0], x - self.discs[:, 1])
            inside = np.where(distance < self.discs[:, 2])[0]
            if len(inside):
                index = inside[np.argmin(distance[inside])]
                (cy, cx, radius), iou = self.discs[index], np.float32(self.predicted_iou - index * 0.001)
            else:
                cy, cx, radius, iou = y, x, np.float32(0.6), np.float32(0.1)
            distance = np.hypot(yy - cy, xx - cx)
            masks.append([(radius * np.float32(s) - distance) * np.float32(self.sharpness) for s in (1.0, 0.5, 1.3)])
            ious.append([iou, iou - np.float32(0.5), iou - np.float32(0.3)])
        return torch.from_numpy(np.array(masks, dtype="float32")), torch.from_numpy(np.array(ious, dtype="float32")), None


def generator_cases(rng, out):
    for name, size, n_discs, layers, per_side in [("whole", (97, 131), 14, 0, 12), ("crops", (150, 200), 30, 1, 12)]:
        discs = np.stack([
            rng.uniform(0, size[0], n_discs), rng.uniform(0, size[1], n_discs), rng.uniform(3, 14, n_discs)
        ], axis=1).astype("float32")
        discs[0] = (size[0] / 2 + 0.3, size[1] / 2 + 0.2, size[0] * 0.45)  # large, and overlaps many
        predictor = ScriptedPredictor(discs, 12.0, 0.99)
        generator = AutomaticMaskGenerator(predictor, points_per_side=per_side, crop_n_layers=layers)
        yy, xx = np.mgrid[: size[0], : size[1]]
        image = np.stack([yy, xx, np.zeros_like(yy)], axis=-1).astype("float32")
        crop_boxes, layer_of_crop = amg.generate_crop_boxes(size, layers, 512 / 1500)
        generator._original_size = size
        generator._crop_list = [
            generator._process_crop(image, crop, layer, precomputed_embeddings=False)
            for crop, layer in zip(crop_boxes, layer_of_crop)
        ]
        generator._crop_boxes, generator._is_initialized = crop_boxes, True
        out[f"generate/{name}/discs"] = discs
        settings = {
            "default": dict(),
            "lenient": dict(pred_iou_thresh=0.6, stability_score_thresh=0.8, box_nms_thresh=0.9, with_background=False),
            "regions": dict(pred_iou_thresh=0.45, stability_score_thresh=0.6, min_mask_region_area=60),
        }
        for setting, arguments in settings.items():
            labels = generator.generate(**arguments)
            assert labels.max() < 256
            out[f"generate/{name}/{setting}"] = labels.astype("uint8")
            print(name, setting, labels.max(), np.bincount(labels.ravel())[:4])


def main():
    rng = np.random.default_rng(0)
    out = {}

    for per_side, layers, factor in [(5, 2, 2), (12, 1, 1), (1, 0, 1)]:
        for layer, grid in enumerate(amg.build_all_layer_point_grids(per_side, layers, factor)):
            out[f"grid/{per_side}_{factor}/{layer}"] = grid
    for h, w in [(97, 131), (512, 512), (1000, 37), (3, 5), (4000, 2800)]:
        boxes, layers = amg.generate_crop_boxes((h, w), 3, 512 / 1500)
        out[f"crops/{h}_{w}"] = np.column_stack([layers, boxes]).astype("int32")

    crop, whole = [30, 40, 200, 240], [0, 0, 260, 240]
    x0, y0 = rng.integers(0, 120, 300), rng.integers(0, 140, 300)
    boxes = np.stack([x0, y0, np.minimum(x0 + rng.integers(1, 170, 300), 169), np.minimum(y0 + rng.integers(1, 200, 300), 199)], 1)
    out["edge/boxes"] = boxes.astype("uint16")
    near = amg.is_box_near_crop_edge(torch.from_numpy(boxes), crop, whole)
    out["edge/near"] = near.numpy().astype("uint8")

    yy, xx = np.mgrid[:61, :79].astype("float32")
    logits = [
        np.clip((rng.uniform(4, 20) - np.hypot(yy - 28, xx - 40)) * scale + rng.normal(0, 2, yy.shape), -15, 15)
        for scale in (0.2, 1.0, 4.0)
    ] + [np.full(yy.shape, -15.0)]
    quantised = np.round(np.stack(logits) * 8).astype("int8")
    out["stability/logits_times_8"] = quantised
    for threshold, offset in [(0.0, 1.0), (1.5, 0.5)]:
        score = amg.calculate_stability_score(torch.from_numpy(quantised.astype("float32") / 8), threshold, offset)
        out[f"stability/score_{threshold}_{offset}"] = score.numpy()

    yy, xx = np.mgrid[:40, :48].astype("float32")
    maps = np.stack([
        (12 - np.hypot(yy - 20, xx - 30)) * 0.7,
        np.clip((9 - np.hypot(yy - 30, xx - 12)) * 3 + rng.normal(0, 1, yy.shape), -20, 12),
        rng.normal(-3, 4, yy.shape),
        -np.hypot(yy, xx) - 1,
    ]).astype("float32")
    out["otsu/logits"] = maps
    out["otsu/thresholds"] = _local_otsu_threshold(torch.from_numpy(maps)[:, None]).numpy().reshape(-1)

    from scipy.ndimage import gaussian_filter
    masks = np.stack([gaussian_filter(rng.normal(size=(31, 43)), sigma) > 0 for sigma in (0.6, 1.0, 1.6)])
    out["regions/masks"] = masks.astype("uint8")
    for threshold in (3, 20, 90):
        for mode in ("holes", "islands"):
            done = [amg.remove_small_regions(mask, threshold, mode) for mask in masks]
            out[f"regions/{mode}_{threshold}"] = np.stack([mask for mask, _ in done]).astype("uint8")
            out[f"regions/{mode}_{threshold}_changed"] = np.array([changed for _, changed in done], dtype="uint8")

    generator_cases(rng, out)
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, ROOT / "fixtures" / "amg.safetensors")


if __name__ == "__main__":
    main()
