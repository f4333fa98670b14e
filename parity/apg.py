"""Writes fixtures/apg.safetensors: the steps of µSAM's automatic prompt generation (APG) around the network.

Pinned: micro_sam 1.8.14, python-elf 0.9.2, bioimage_cpp 0.10.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/apg.py`

Points derived from the synthetic maps of fixtures/ais.safetensors; points of drawn components beyond the block size; boxes for
the refinement; suppression and merge of drawn masks. Shapes are integers, see synthetic.py.
"""

import pathlib

import numpy as np
import torch
from micro_sam.instance_segmentation import _derive_box_prompts, _derive_point_prompts, _get_centers
from micro_sam.util import apply_nms, mask_data_to_segmentation
from safetensors.numpy import save_file

from synthetic import CASES, case, discs, draw, paint

ROOT = pathlib.Path(__file__).resolve().parent.parent


def box_of(mask):
    """SAM's inclusive box as x, y, width, height."""
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(np.ptp(x)), int(np.ptp(y))]


def predictions_of(masks, iou, stability):
    return [
        {
            "segmentation": torch.from_numpy(mask), "area": int(mask.sum()), "bbox": box_of(mask),
            "predicted_iou": float(p), "stability_score": float(s),
        }
        for mask, p, s in zip(masks, iou, stability)
    ]


def main():
    out = {}
    for name in CASES:
        maps = case(name).astype("float32") / np.float32(255)
        for threshold in (0.5, 0.4):
            keywords = dict(center_distance_threshold=threshold, boundary_distance_threshold=threshold)
            prompts = _derive_point_prompts(*maps, **keywords)
            out[f"points/{name}/{threshold}"] = prompts["points"][:, 0].astype("int32")  # x, y
            print(name, threshold, len(prompts["points"]))

    # Nine blocks of which the middle one, with its halo, lies inside one component; and four with many components.
    large = {
        "covered": ((1060, 1070), [(1, 3, 3, 1057, 1067), (0, 200, 200, 40, 0), (1, 600, 0, 602, 400), (0, 1059, 9, 5, 0)]),
        "blocks": ((540, 600), discs((540, 600), 250, (1, 30), 5)),
    }
    for name, (size, shapes) in large.items():
        out[f"centers/{name}/size"] = np.array(size, "int32")
        out[f"centers/{name}/shapes"] = np.array(shapes, "int32")
        out[f"centers/{name}"] = _get_centers(paint(shapes, size)).astype("int32")  # y, x

    size = (97, 131)
    rng = np.random.RandomState(6)
    shapes = discs(size, 60, (3, 16), 7)
    # Near copies for the suppression, and masks one pixel wide or high, which it lets pass.
    shapes += [(0, y + rng.randint(-1, 2), x + rng.randint(-1, 2), r, 0) for _, y, x, r, _ in shapes[:25]]
    shapes += [(1, 5, 5, 6, 60), (1, 5, 5, 6, 61), (1, 20, 100, 80, 101), (1, 20, 100, 81, 101)]
    # Without what lies beyond the image, has no pixel.
    shapes = [shape for shape in shapes if draw([shape], size).any()]
    masks = draw(shapes, size)
    iou = rng.permutation(np.linspace(0.6, 0.99, len(masks))).astype("float32")
    stability = (0.9 + 0.1 * rng.rand(len(masks))).astype("float32")
    scores = iou * stability
    assert len(np.unique(scores)) == len(scores)
    out["nms/shapes"], out["nms/iou"], out["nms/stability"] = np.array(shapes, "int32"), iou, stability
    predictions = predictions_of(masks, iou, stability)
    out["boxes"] = _derive_box_prompts(predictions, 0.01)["boxes"].astype("float32")  # x0, y0, x1, y1
    for name, keywords in {
        "union": dict(min_size=25, nms_thresh=0.9),
        "strict": dict(min_size=25, nms_thresh=0.5),
        "minimum": dict(min_size=25, nms_thresh=0.7, intersection_over_min=True),
        "small": dict(min_size=0, nms_thresh=0.9),
    }.items():
        labels = apply_nms(predictions, **keywords)
        assert labels.max() < 256
        out[f"nms/{name}"] = labels.astype("uint8")
        print(name, labels.max())

    for name, keywords in {
        "exclusive": dict(min_object_size=25, merge_exclusively=True),
        "over": dict(min_object_size=10, merge_exclusively=False),
        "background": dict(min_object_size=0, merge_exclusively=False, with_background=True),
    }.items():
        labels = mask_data_to_segmentation(predictions, **keywords)
        assert labels.max() < 256
        out[f"paint/{name}"] = labels.astype("uint8")
        print(name, labels.max())
    # Nothing left to the background: the first object is lost.
    halves = draw([(1, 0, 0, 97, 60), (1, 0, 60, 97, 131)], size)
    out["paint/full"] = mask_data_to_segmentation(predictions_of(halves, [1, 1], [1, 1])).astype("uint8")
    print("full", np.unique(out["paint/full"]))
    save_file(out, ROOT / "fixtures" / "apg.safetensors")


if __name__ == "__main__":
    main()
