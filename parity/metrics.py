"""Writes fixtures/metrics.safetensors: matching and mean segmentation accuracy of label images (elf.evaluation).

Pinned: python-elf 0.9.2, bioimage_cpp 0.10.0, scipy 1.17, numpy 2.4.6, safetensors 0.8.0. Seed 0.
`python parity/metrics.py`

`CASE/truth` and `CASE/predicted` are uint8 label images. elf divides by the predicted object under "iot" and by the true object
under "iop"; the names here say what is divided by.
"""

import pathlib

import numpy as np
from elf.evaluation import matching, mean_segmentation_accuracy
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = (61, 79)
CRITERIA = {"iou": "iou", "over_predicted": "iot", "over_truth": "iop"}


def voronoi(rng, n, keep):
    """Cells around n points, of which a share `keep` is kept, cut to a disc of random size each."""
    centers = rng.uniform(0, 1, (n, 2)) * SIZE
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(yy[..., None] - centers[:, 0], xx[..., None] - centers[:, 1])
    nearest = distance.argmin(-1)
    radius = np.where(rng.random(n) < keep, rng.uniform(3, 12, n), 0)
    return np.where(distance.min(-1) < radius[nearest], rng.permutation(n)[nearest] + 1, 0).astype("uint8")


def pairs(rng):
    for index in range(12):
        truth = voronoi(rng, int(rng.integers(5, 60)), 0.9)
        predicted = np.roll(truth, (index % 3, index // 4), (0, 1))
        for label in np.unique(predicted)[1:]:
            chance = rng.random()
            if chance < 0.15:
                predicted[predicted == label] = 0
            elif chance < 0.3:
                predicted[predicted == label] = rng.choice(np.unique(predicted))
            elif chance < 0.45:
                half = (predicted == label) & (np.arange(SIZE[1]) < np.where(predicted == label)[1].mean())
                predicted[half] = 200 + label % 50
        yield f"random_{index:02}", truth, predicted
    none, one = np.zeros((4, 6), "uint8"), np.zeros((4, 6), "uint8")
    one[1:3, 1:4] = 7
    yield "both_empty", none, none
    yield "empty_truth", none, one
    yield "empty_prediction", one, none
    yield "equal", one, one * 2
    yield "no_background", one + 1, one + 3
    for cells in range(1, 10):  # IoU of exactly cells / 10, where thresholds meet their floats
        truth, predicted = np.zeros((2, 10), "uint8"), np.zeros((2, 10), "uint8")
        truth[0], predicted[0, :cells] = 3, 5
        yield f"iou_{cells}_of_10", truth, predicted
    truth, predicted = np.zeros((1, 12), "uint8"), np.zeros((1, 12), "uint8")
    truth[0, :4], truth[0, 4:8], predicted[0, :8], predicted[0, 8:10] = 1, 2, 1, 2
    yield "one_over_two", truth, predicted
    truth, predicted = np.zeros((1, 12), "uint8"), np.zeros((1, 12), "uint8")
    truth[0, :4], truth[0, 4:8], truth[0, 8:], predicted[0, 2:6], predicted[0, 6:10] = 1, 2, 3, 1, 2
    yield "chain", truth, predicted


def main():
    rng = np.random.default_rng(0)
    out = {"thresholds": np.arange(0.5, 1.0, 0.05)}
    for name, truth, predicted in pairs(rng):
        out[f"{name}/truth"], out[f"{name}/predicted"] = truth, predicted
        mean, accuracies = mean_segmentation_accuracy(predicted, truth, return_accuracies=True)
        out[f"{name}/accuracies"] = np.array([mean, *accuracies], dtype="float64")
        rows = []
        for criterion in CRITERIA.values():
            for threshold in (0.05, 0.2, 0.35, 0.5, 0.75):
                scores = matching(predicted, truth, threshold=threshold, criterion=criterion)
                rows.append([scores[key] for key in ("precision", "recall", "segmentation_accuracy", "f1")])
        out[f"{name}/matching"] = np.array(rows, dtype="float64")
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, ROOT / "fixtures" / "metrics.safetensors")


if __name__ == "__main__":
    main()
