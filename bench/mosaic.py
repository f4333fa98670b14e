"""The work of mosaic.sh. Needs numpy, tifffile and pillow."""

import argparse
import pathlib
import resource
import shutil
import subprocess
import time

import numpy as np
import tifffile
from PIL import Image

TILE, HALO = 1120, 224  # of the built-in model at scale 1
SEAM_PX = 12  # an object this near to a seam counts as one at the seam
JOINT_PX = 24  # joints of source images stay this far from seams, so that one is not taken for the other
THRESHOLDS = np.arange(0.5, 1.0, 0.05)


def sources(data):
    """Grey fluorescence images, stretched to 8 bit one by one, with labels."""
    found = []
    for path in sorted((data / "dsb2018_test" / "images").glob("*.png")):
        image = np.asarray(Image.open(path))
        if image.ndim == 3:
            if np.ptp(image[..., :3].astype(int), axis=2).max() > 12:
                continue  # stained tissue
            image = image[..., 0]
        if image.mean() > 100:
            continue  # dark on bright
        low, high = np.percentile(image, [0.1, 99.9])
        image = np.clip((image - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
        labels = tifffile.imread(data / "dsb2018_test" / "labels" / (path.stem + ".tif")).astype(np.uint32)
        found.append((image, labels))
    return found


def clear_of_seams(edge, side):
    """Moves a joint up to keep away from the seams between tiles."""
    off = edge % TILE
    if edge < side and min(off, TILE - off) < JOINT_PX and edge > TILE // 2:
        return edge - (off + JOINT_PX if off < JOINT_PX else off - (TILE - JOINT_PX))
    return edge


def build(images, side, seed):
    """Rows of source images; the mosaic, its truth, and for each true object (source, label)."""
    random = np.random.default_rng(seed)
    mosaic, truth = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint32)
    objects, y = [(-1, -1)], 0
    while y < side:
        height = int(random.choice([image.shape[0] for image, _ in images]))
        end = clear_of_seams(min(y + height, side), side)
        x = 0
        while x < side:
            index = int(random.integers(len(images)))
            image, labels = images[index]
            if image.shape[0] < end - y:
                continue
            stop = clear_of_seams(min(x + image.shape[1], side), side)
            part = labels[: end - y, : stop - x]
            mosaic[y:end, x:stop] = image[: end - y, : stop - x]
            ids = np.unique(part[part > 0])
            lookup = np.zeros(int(labels.max()) + 1, np.uint32)
            lookup[ids] = np.arange(len(objects), len(objects) + len(ids))
            truth[y:end, x:stop] = lookup[part]
            # Objects cut at a joint are no longer those of the source.
            whole = np.bincount(labels.ravel(), minlength=len(lookup))
            left = np.bincount(part.ravel(), minlength=len(lookup))
            objects += [(index, int(i)) if whole[i] == left[i] else (-1, -1) for i in ids]
            x = stop
        y = end
    return mosaic, truth, np.array(objects)


def boxes(labels, count):
    """[n + 1, 4] of y0, x0, y1, x1, half-open."""
    box = np.zeros((count + 1, 4), np.int64)
    box[:, :2] = np.iinfo(np.int64).max
    for y0 in range(0, labels.shape[0], 512):
        band = labels[y0 : y0 + 512]
        y, x = np.nonzero(band)
        ids = band[y, x]
        np.minimum.at(box[:, 0], ids, y + y0)
        np.minimum.at(box[:, 1], ids, x)
        np.maximum.at(box[:, 2], ids, y + y0 + 1)
        np.maximum.at(box[:, 3], ids, x + 1)
    return box


def best_iou(one, other):
    """For each object of `one` its best intersection over union with one of `other`."""
    n, m = int(one.max()), int(other.max())
    areas = [np.zeros(n + 1, np.int64), np.zeros(m + 1, np.int64)]
    pairs, counts = [], []
    for y0 in range(0, one.shape[0], 512):
        a, b = one[y0 : y0 + 512].ravel().astype(np.int64), other[y0 : y0 + 512].ravel().astype(np.int64)
        areas[0] += np.bincount(a, minlength=n + 1)
        areas[1] += np.bincount(b, minlength=m + 1)
        both = (a > 0) & (b > 0)
        found, count = np.unique(a[both] * (m + 1) + b[both], return_counts=True)
        pairs.append(found)
        counts.append(count)
    found, where = np.unique(np.concatenate(pairs), return_inverse=True)
    common = np.bincount(where.ravel(), weights=np.concatenate(counts))
    a, b = found // (m + 1), found % (m + 1)
    best = np.zeros(n + 1)
    np.maximum.at(best, a, common / (areas[0][a] + areas[1][b] - common))
    return best


def seam_distance(box, side):
    """Pixels between a box and the nearest seam; 0 when it lies across one."""
    distance = np.full(len(box), np.inf)
    for seam in range(TILE, side, TILE):
        for low, high in ((box[:, 0], box[:, 2]), (box[:, 1], box[:, 3])):
            distance = np.minimum(distance, np.maximum(np.maximum(low - seam, seam - high), 0))
    return distance


def segment(arguments, image, out, *more):
    command = [arguments.program, "segment", image, "-o", out, "--mode", arguments.mode, "--no-overlay", "--overwrite", *more]
    start = time.time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(part) for part in command], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The peak of all children so far: the largest image is run first.
    return tifffile.imread(out), time.time() - start, cpu, after.ru_maxrss / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--mode", default="ais")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no_part", action="store_true", help="leave out the part of 2,048²")
    parser.add_argument("more", nargs="*")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    images, side = sources(arguments.data), arguments.side
    mosaic, truth, objects = build(images, side, arguments.seed)
    tifffile.imwrite(arguments.out / "mosaic.tif", mosaic, tile=(512, 512))
    part = mosaic[:2048, :2048].copy()
    del mosaic

    tiles = ["--scale", "1", "--tile_shape", f"{TILE},{TILE}", "--halo", f"{HALO},{HALO}"]
    found, seconds, cpu, peak = segment(arguments, arguments.out / "mosaic.tif", arguments.out / "tiled.tif", *tiles, *arguments.more)
    print("| what | number |\n|---|---|")
    print(f"| mosaic | {side} × {side}, {len(objects) - 1} true objects of {len(images)} images |")
    print(f"| mode | {arguments.mode} |")
    print(f"| found | {int(found.max())} objects |")
    print(f"| wall time, CPU time | {seconds:.0f} s, {cpu:.0f} s |")
    print(f"| peak memory | {peak:.2f} GB |")

    iou = best_iou(truth, found)
    score = (iou[:, None] >= THRESHOLDS[None] - 1e-9).mean(1)
    distance = seam_distance(boxes(truth, len(objects) - 1), side)
    whole = objects[:, 0] >= 0
    at_seam = whole & (distance <= SEAM_PX)
    inner = whole & (distance > HALO)
    # The same source objects elsewhere: seams and inner parts then hold the same mixture.
    key = objects[:, 0] * 100_000 + objects[:, 1]
    names, where = np.unique(key, return_inverse=True)
    where = where.ravel()
    count = np.bincount(where[inner], minlength=len(names))

    def twin(values):
        mean = np.bincount(where[inner], weights=values[inner], minlength=len(names)) / np.maximum(count, 1)
        return mean[where]

    paired = at_seam & (count[where] > 0)
    difference = score[paired] - twin(score)[paired]
    print(f"| true objects at seams, with the same object elsewhere | {at_seam.sum()}, {paired.sum()} |")
    print(f"| mean share of IoU thresholds 0.5–0.95 reached: at seams, the same objects elsewhere | {score[paired].mean():.4f}, {twin(score)[paired].mean():.4f} |")
    print(f"| difference, its standard error | {difference.mean():+.4f}, {difference.std() / max(len(difference), 1) ** 0.5:.4f} |")
    print(f"| mean best IoU: at seams, the same objects elsewhere | {iou[paired].mean():.4f}, {twin(iou)[paired].mean():.4f} |")
    print(f"| all inner objects (not paired) | {score[inner].mean():.4f} |")
    found_distance = seam_distance(boxes(found, int(found.max())), side)[1:]
    ratio = lambda near: near(found_distance).sum() / max((near(distance[1:])).sum(), 1)  # noqa: E731
    print(f"| objects found for each true one: at seams, inner | {ratio(lambda d: d <= SEAM_PX):.3f}, {ratio(lambda d: d > HALO):.3f} |")
    del found, truth

    if not arguments.no_part:
        tifffile.imwrite(arguments.out / "part.tif", part, tile=(512, 512))
        tiled, *_ = segment(arguments, arguments.out / "part.tif", arguments.out / "part_tiled.tif", *tiles, *arguments.more)
        untiled, *_ = segment(arguments, arguments.out / "part.tif", arguments.out / "part_untiled.tif", "--scale", "1", "--tile_shape", "0", *arguments.more)
        iou = best_iou(untiled, tiled)[1:]
        distance = seam_distance(boxes(untiled, int(untiled.max())), 2048)[1:]
        for name, chosen in (("away from seams", distance > HALO), ("at seams", distance <= SEAM_PX)):
            print(f"| 2,048² part: objects of the untiled result {name}; mean best IoU with the tiled one, share above 0.9 | {chosen.sum()}; {iou[chosen].mean():.4f}, {(iou[chosen] > 0.9).mean():.4f} |")


if __name__ == "__main__":
    main()
