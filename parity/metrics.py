"""Writes fixtures/metrics.safetensors: label images, two of a kind, and what upstream's programs score them.

Pinned: python-elf 0.9.2, bioimage_cpp 0.10.0, stardist 0.9.2, cellpose 4.2.1.1, scikit-image 0.26.0, scipy 1.17.1, numpy 2.4.6,
safetensors 0.8.0. Seed 0. `python parity/metrics.py`

`CASE/truth` and `CASE/predicted` are label images of two or three dimensions, uint8 or uint32. Beside them, all float64:

- `accuracies`: elf's mean segmentation accuracy and its ten parts.
- `matching`: elf's precision, recall, segmentation accuracy and F1, a row for each of CRITERIA × ELF_THRESHOLDS. elf divides by the
  predicted object under "iot" and by the true object under "iop"; the names here say what is divided by.
- `symmetric_best_dice`: elf's.
- `stardist`: STARDIST_FIELDS of stardist's `matching`, a row for each of CRITERIA × STARDIST_THRESHOLDS. stardist's "iot" and "iop"
  are what they say. Its scores are float32.
- `average_precision`: Cellpose's AP, TP, FP and FN at 0.5, 0.75, 0.9; `aggregated_jaccard_cellpose`: its index. Cellpose takes for
  granted that 0 occurs in both images and counts one object too few where it does not, and its tables have a row for every id up to
  the largest; so it is given renumbered labels with one row of background added, which changes none of its definitions.
- `boundary`: precision and recall of the pixels of skimage's inner boundaries within BOUNDARY_TOLERANCES (scipy's distances).
- `contingency`: true id, predicted id, pixels (uint32), of skimage's contingency table, background left out.
- `components` (uint8 or uint32): skimage's `label` of the truth, left out of the random pairs.
- `from_masks`: aggregated Jaccard (Kumar), AJI+ (Graham), splits, merges, straight from the definitions on the objects' masks.
"""

import pathlib
import warnings

import numpy as np
from cellpose import metrics as cellpose
from elf.evaluation import matching, mean_segmentation_accuracy, symmetric_best_dice_score
from safetensors.numpy import save_file
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from scipy.optimize import linear_sum_assignment
from skimage.measure import label
from skimage.metrics import contingency_table
from skimage.segmentation import find_boundaries, relabel_sequential
from stardist.matching import matching as stardist_matching

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = (61, 79)
SMALL, VOLUME, NOISE = (37, 53), (6, 19, 23), (43, 47)
CRITERIA = {"iou": "iou", "over_predicted": "iot", "over_truth": "iop"}
ELF_THRESHOLDS = (0.05, 0.2, 0.35, 0.5, 0.75)
STARDIST_CRITERIA = {"iou": "iou", "over_predicted": "iop", "over_truth": "iot"}
STARDIST_THRESHOLDS = (0.1, 0.5, 0.8)
STARDIST_FIELDS = ("tp", "fp", "fn", "precision", "recall", "accuracy", "f1", "n_true", "n_pred", "mean_true_score",
                   "mean_matched_score", "panoptic_quality")
BOUNDARY_TOLERANCES = (0.0, 1.0, 2.0, 3.5)


def voronoi(rng, n, keep):
    """Cells around n points, of which a share `keep` is kept, cut to a disc of random size each."""
    centers = rng.uniform(0, 1, (n, 2)) * SIZE
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(yy[..., None] - centers[:, 0], xx[..., None] - centers[:, 1])
    nearest = distance.argmin(-1)
    radius = np.where(rng.random(n) < keep, rng.uniform(3, 12, n), 0)
    return np.where(distance.min(-1) < radius[nearest], rng.permutation(n)[nearest] + 1, 0).astype("uint8")


def cells(rng, size, n, reach):
    """Cells around n points, cut to balls of up to `reach`, in any dimension."""
    centers = rng.uniform(0, 1, (n, len(size))) * size
    at = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    distance = np.linalg.norm(at[..., None, :] - centers, axis=-1)
    nearest = distance.argmin(-1)
    radius = rng.uniform(0.4, 1, n) * reach
    return np.where(distance.min(-1) < radius[nearest], nearest + 1, 0).astype("uint8")


def some(rng, labels, share):
    ids = np.unique(labels[labels > 0])
    return ids[rng.random(len(ids)) < share]


def changed(kind, rng, truth):
    """A prediction that differs from the truth in one way."""
    predicted = truth.copy()
    if kind == "shifted":
        return np.roll(truth, rng.integers(-3, 4, truth.ndim), range(truth.ndim))
    if kind == "split":
        at = np.indices(truth.shape)[rng.integers(truth.ndim)]
        for count, number in enumerate(some(rng, truth, 0.6)):
            inside = truth == number
            predicted[inside & (at < np.quantile(at[inside], rng.uniform(0.2, 0.8)))] = 120 + count
    elif kind == "merged":
        for number in some(rng, truth, 0.6):
            predicted[predicted == number] = rng.choice(np.unique(truth[truth > 0]))
    elif kind == "missing":
        predicted[np.isin(truth, some(rng, truth, 0.5))] = 0
    elif kind == "extra":
        more = cells(rng, truth.shape, 12, 5)
        predicted = np.where(predicted == 0, np.where(more > 0, more + 150, 0), predicted).astype("uint8")
    elif kind in ("eroded", "dilated"):
        predicted[:] = 0
        change = binary_erosion if kind == "eroded" else binary_dilation
        for number in np.unique(truth[truth > 0]):
            predicted[change(truth == number, iterations=int(rng.integers(1, 3)))] = number
    elif kind == "renumbered":  # ids with gaps, out of order, beyond 16 and 31 bits
        ids = np.unique(truth)
        new = rng.choice(2**32 - 70_000, len(ids), replace=False).astype("uint32") + 70_000
        new[ids == 0] = 0
        return np.roll(new[np.searchsorted(ids, truth)], 1, 0)
    return predicted


KINDS = ("shifted", "split", "merged", "missing", "extra", "eroded", "dilated", "renumbered")


def pairs(rng):
    for index in range(12):
        truth = voronoi(rng, int(rng.integers(5, 60)), 0.9)
        predicted = np.roll(truth, (index % 3, index // 4), (0, 1))
        for number in np.unique(predicted)[1:]:
            chance = rng.random()
            if chance < 0.15:
                predicted[predicted == number] = 0
            elif chance < 0.3:
                predicted[predicted == number] = rng.choice(np.unique(predicted))
            elif chance < 0.45:
                half = (predicted == number) & (np.arange(SIZE[1]) < np.where(predicted == number)[1].mean())
                predicted[half] = 200 + number % 50
        yield f"random_{index:02}", truth, predicted
    none, one = np.zeros((4, 6), "uint8"), np.zeros((4, 6), "uint8")
    one[1:3, 1:4] = 7
    yield "both_empty", none, none
    yield "empty_truth", none, one
    yield "empty_prediction", one, none
    yield "equal", one, one * 2
    yield "no_background", one + 1, one + 3
    yield "no_background_in_the_prediction", one, one + 3
    yield "one_object_fills_the_image", none + 1, none + 9
    for count in range(1, 10):  # IoU of exactly count / 10, where thresholds meet their floats
        truth, predicted = np.zeros((2, 10), "uint8"), np.zeros((2, 10), "uint8")
        truth[0], predicted[0, :count] = 3, 5
        yield f"iou_{count}_of_10", truth, predicted
    truth, predicted = np.zeros((1, 12), "uint8"), np.zeros((1, 12), "uint8")
    truth[0, :4], truth[0, 4:8], predicted[0, :8], predicted[0, 8:10] = 1, 2, 1, 2
    yield "one_over_two", truth, predicted
    truth, predicted = np.zeros((1, 12), "uint8"), np.zeros((1, 12), "uint8")
    truth[0, :4], truth[0, 4:8], truth[0, 8:], predicted[0, 2:6], predicted[0, 6:10] = 1, 2, 3, 1, 2
    yield "chain", truth, predicted
    truth, predicted = np.zeros((9, 9), "uint8"), np.zeros((9, 9), "uint8")
    truth[0, 0], truth[8, 4:], predicted[:2, 0], predicted[7:, 5:] = 4, 9, 4, 9
    yield "touching_the_border", truth, predicted

    rng = np.random.default_rng(1)
    for kind in KINDS:
        for index in range(3):
            truth = cells(rng, SMALL, int(rng.integers(6, 40)), 8)
            yield f"{kind}_{index}", truth, changed(kind, rng, truth)
        truth = cells(rng, VOLUME, 14, 6)
        yield f"{kind}_3d", truth, changed(kind, rng, truth)
    for ids in (5, 14):  # objects of scattered pixels: everything overlaps everything
        yield f"noise_{ids}", *(rng.integers(0, ids, NOISE).astype("uint8") for _ in range(2))


def cellpose_scores(truth, predicted):
    def given(labels):
        labels = relabel_sequential(labels.astype("int64"))[0].reshape(-1, labels.shape[-1])
        return np.pad(labels, ((0, 1), (0, 0)))

    truth, predicted = given(truth), given(predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0 / 0 where both are empty
        precision = np.stack(cellpose.average_precision(truth, predicted, threshold=[0.5, 0.75, 0.9]))
        return precision.astype("float64"), cellpose.aggregated_jaccard_index([truth], [predicted])


def boundary_scores(truth, predicted):
    truth, predicted = find_boundaries(truth, mode="inner"), find_boundaries(predicted, mode="inner")
    rows = []
    for tolerance in BOUNDARY_TOLERANCES:
        def near(these, others):
            if not these.any() or not others.any():
                return np.nan if these.any() == others.any() else 0.0
            return (distance_transform_edt(~others)[these] <= tolerance).mean()

        rows.append([near(predicted, truth), near(truth, predicted)])
    return np.array(rows, dtype="float64")


def overlaps(truth, predicted):
    table = contingency_table(truth, predicted).tocoo()
    rows = np.stack([table.row, table.col, table.data], 1)
    return rows[(rows[:, 0] > 0) & (rows[:, 1] > 0)].astype("uint32")


def from_masks(truth, predicted):
    trues = [truth == number for number in np.unique(truth[truth > 0])]
    founds = [predicted == number for number in np.unique(predicted[predicted > 0])]
    shared = np.array([[(t & p).sum() for p in founds] for t in trues]).reshape(len(trues), len(founds))
    union = np.array([[(t | p).sum() for p in founds] for t in trues]).reshape(shared.shape)
    iou = shared / np.maximum(union, 1)

    def index(pairs):
        lone = [t.sum() for i, t in enumerate(trues) if i not in {i for i, _ in pairs}]
        lone += [p.sum() for j, p in enumerate(founds) if j not in {j for _, j in pairs}]
        whole = sum(union[pair] for pair in pairs) + sum(lone)
        return sum(shared[pair] for pair in pairs) / whole if whole else np.nan

    best = [(i, int(row.argmax())) for i, row in enumerate(iou) if len(row) and row.max() > 0]
    assigned = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(-iou)) if iou[i, j] > 0]
    pieces = sum(max(sum((p & t).sum() > p.sum() / 2 for p in founds) - 1, 0) for t in trues)
    swallowed = sum(max(sum((p & t).sum() > t.sum() / 2 for t in trues) - 1, 0) for p in founds)
    return np.array([index(best), index(assigned), pieces, swallowed], dtype="float64")


def main():
    rng = np.random.default_rng(0)
    out = {"thresholds": np.arange(0.5, 1.0, 0.05)}
    for name, truth, predicted in pairs(rng):
        out[f"{name}/truth"], out[f"{name}/predicted"] = truth, predicted
        truth, predicted = truth.astype("int64"), predicted.astype("int64")
        mean, accuracies = mean_segmentation_accuracy(predicted, truth, return_accuracies=True)
        out[f"{name}/accuracies"] = np.array([mean, *accuracies], dtype="float64")
        rows = []
        for criterion in CRITERIA.values():
            for threshold in ELF_THRESHOLDS:
                scores = matching(predicted, truth, threshold=threshold, criterion=criterion)
                rows.append([scores[key] for key in ("precision", "recall", "segmentation_accuracy", "f1")])
        out[f"{name}/matching"] = np.array(rows, dtype="float64")
        out[f"{name}/symmetric_best_dice"] = np.array([symmetric_best_dice_score(predicted, truth)], dtype="float64")
        rows = []
        renumbered = [relabel_sequential(labels)[0] for labels in (truth, predicted)]  # stardist's memory grows with the ids
        for criterion in STARDIST_CRITERIA.values():
            for threshold in STARDIST_THRESHOLDS:
                scores = stardist_matching(*renumbered, thresh=threshold, criterion=criterion)
                rows.append([getattr(scores, field) for field in STARDIST_FIELDS])
        out[f"{name}/stardist"] = np.array(rows, dtype="float64")
        out[f"{name}/average_precision"], out[f"{name}/aggregated_jaccard_cellpose"] = cellpose_scores(truth, predicted)
        out[f"{name}/boundary"] = boundary_scores(truth, predicted)
        if max(truth.max(), predicted.max()) < 1000:  # scikit-image's table has a row for every id
            out[f"{name}/contingency"] = overlaps(truth, predicted)
        if not name.startswith("random"):
            components = label(truth)
            out[f"{name}/components"] = components.astype("uint8" if components.max() < 256 else "uint32")
        out[f"{name}/from_masks"] = from_masks(truth, predicted)
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, ROOT / "fixtures" / "metrics.safetensors")


if __name__ == "__main__":
    main()
