"""The Python half of bench/metrics.sh: makes a pair of label images, or times elf on one.

    python metrics.py make SIDE OBJECTS TRUTH PREDICTED     raw little-endian uint32 ids
    python metrics.py time TRUTH PREDICTED                  one JSON object

Objects are blobs on a jittered grid; of the predicted ones most are moved by up to 3 pixels, some are missing, split or merged.
elf 0.9.2 (python-elf), numpy 2.4.6, scipy 1.17.1.
"""

import json
import sys
import time

import numpy as np


def make(side, objects):
    rng = np.random.default_rng(0)
    cells = int(np.ceil(np.sqrt(objects)))
    step = side / cells
    at = np.arange(side)
    row, column = np.minimum((at / step).astype(int), cells - 1)[:, None], np.minimum((at / step).astype(int), cells - 1)
    number = row * cells + column
    jitter = rng.uniform(-0.1, 0.1, (2, cells * cells))
    radius = rng.uniform(0.35, 0.5, cells * cells) * step

    def draw(moved, radius):
        y = (row + 0.5 + jitter[0][number]) * step + moved[0][number] - at[:, None]
        x = (column + 0.5 + jitter[1][number]) * step + moved[1][number] - at
        return np.where((np.hypot(y, x) < radius[number]) & (number < objects), number + 1, 0).astype("uint32")

    truth = draw(np.zeros((2, cells * cells)), radius)
    predicted = draw(rng.integers(-3, 4, (2, cells * cells)), radius * rng.uniform(0.8, 1.1, cells * cells))
    fate = rng.random(objects + 1)
    new = np.arange(objects + 1, dtype="uint32")
    new[fate < 0.05] = 0
    merged = (fate > 0.95) & (np.arange(objects + 1) > 1)
    new[merged] = np.arange(objects + 1)[merged] - 1
    new[0] = 0
    split = (predicted > 0) & (fate[predicted] > 0.4) & (fate[predicted] < 0.45) & (at % 7 < 3)
    return truth, np.where(split, predicted + objects, new[predicted]).astype("uint32")


def load(path):
    ids = np.fromfile(path, "<u4")
    return ids.reshape(int(np.sqrt(ids.size)), -1)


def main():
    what, *rest = sys.argv[1:]
    if what == "make":
        for path, labels in zip(rest[2:], make(int(rest[0]), int(rest[1]))):
            labels.tofile(path)
        return
    from elf.evaluation import mean_segmentation_accuracy

    truth, predicted = map(load, rest)
    start = time.perf_counter()
    msa = mean_segmentation_accuracy(predicted, truth)
    print(json.dumps({"msa": float(msa), "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
