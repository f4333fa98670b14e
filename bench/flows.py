"""Flow dynamics against cellpose's, flows made from real labels, and peak memory of whole images: see bench/flows.sh.

Needs cellpose 4, torch, numpy, safetensors, tifffile; the program is $CYTOMASK (target/release/cytomask).
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import tifffile
from safetensors.numpy import save_file

CYTOMASK = os.environ.get("CYTOMASK", "target/release/cytomask")
THREADS = os.environ.get("THREADS", "2")
ROUNDS = int(os.environ.get("ROUNDS", "3"))


def cells(side, count, seed=0):
    """A label image of about `count` discs."""
    rng = np.random.RandomState(seed)
    labels = np.zeros((side, side), "int32")
    radius = int(side / np.sqrt(count) * 0.38)
    per_row = int(np.ceil(np.sqrt(count)))
    step = side / per_row
    y, x = np.mgrid[-radius - 3 : radius + 4, -radius - 3 : radius + 4]
    for index in range(count):
        cy, cx = ((np.array(divmod(index, per_row)) + 0.5) * step + rng.uniform(-2, 2, 2)).astype(int)
        inside = y**2 + x**2 < (radius * rng.uniform(0.7, 1.05)) ** 2
        yy, xx = cy + y[inside], cx + x[inside]
        good = (yy >= 0) & (yy < side) & (xx >= 0) & (xx < side)
        labels[yy[good], xx[good]] = index + 1
    return labels


def maps_of(labels):
    """Maps of a good network: flows with noise, and logits."""
    import torch
    from cellpose import dynamics
    from scipy.ndimage import gaussian_filter

    rng = np.random.RandomState(1)
    flows, _ = dynamics.masks_to_flows_gpu(labels, device=torch.device("cpu"))
    noise = np.stack([gaussian_filter(rng.standard_normal(labels.shape), 1) for _ in range(2)])
    logits = np.where(labels > 0, 5.0, -5.0) + 0.5 * rng.standard_normal(labels.shape)
    return (5 * flows + noise).astype("float32"), logits.astype("float32")


def ours(folder, maps, more=()):
    """Seconds of segmentation as the program counts them (maps in, labels out, no network), CPU seconds, labels."""
    height, width = maps[1].shape
    fields, image = folder / "maps.safetensors", folder / "blank.tif"
    save_file({"fields": np.ascontiguousarray(np.concatenate([maps[0], maps[1][None]]))}, fields)
    tifffile.imwrite(image, np.zeros((height, width), "uint8"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [CYTOMASK, "segment", image, "-o", folder / "out", "--mode", "flows", "--fields", fields, "--overwrite", "--json",
         "--export", "tiff", *more],
        check=True, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": THREADS},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = json.loads(done.stdout)["images"][0]["seconds"]
    return seconds, cpu, tifffile.imread(folder / "out" / "blank_labels.tif")


def spread(values):
    return f"{np.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def speed(arguments):
    import torch
    from cellpose import dynamics

    torch.set_num_threads(int(THREADS))
    labels = cells(arguments.side, arguments.cells)
    maps = maps_of(labels)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        seconds = {"cytomask": [], "cellpose": []}
        cpus = {"cytomask": [], "cellpose": []}
        for _ in range(ROUNDS):
            # The whole program, reading 12 bytes a pixel and writing and hashing labels included.
            wall, cpu, found = ours(folder, maps)
            seconds["cytomask"].append(wall)
            cpus["cytomask"].append(cpu)
            start, start_cpu = time.perf_counter(), time.process_time()
            expected = dynamics.resize_and_compute_masks(
                maps[0], maps[1], niter=200, cellprob_threshold=0.0, flow_threshold=0.4, min_size=15,
                max_size_fraction=0.4, device=torch.device("cpu"),
            )
            seconds["cellpose"].append(time.perf_counter() - start)
            cpus["cellpose"].append(time.process_time() - start_cpu)
    print(f"{arguments.side}² px, {labels.max()} cells, {THREADS} threads, {ROUNDS} rounds interleaved; seconds, CPU seconds")
    for name in seconds:
        print(f"  {name:9} {spread(seconds[name])}  {spread(cpus[name])}")
    ratio = np.median(seconds["cellpose"]) / np.median(seconds["cytomask"])
    print(f"  {ratio:.1f} times as fast; {int((found != expected).sum())} pixels differ, {found.max()} and {expected.max()} objects")


def real(arguments):
    """Labels → flows → labels."""
    import torch
    from cellpose import dynamics, metrics

    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for path in sorted(pathlib.Path(arguments.data).glob("*/labels/*.tif")):
            labels = tifffile.imread(path)
            if labels.ndim != 2 or labels.max() == 0 or labels.size > 2048**2:
                continue
            group = scores.setdefault(path.parent.parent.name, [])
            if len(group) >= arguments.images:
                continue
            _, labels = np.unique(labels, return_inverse=True)
            labels = labels.reshape(tifffile.imread(path).shape).astype("int32")
            flows, _ = dynamics.masks_to_flows_gpu(labels, device=torch.device("cpu"))
            maps = (5 * flows).astype("float32"), np.where(labels > 0, 5.0, -5.0).astype("float32")
            found = ours(folder, maps, ["--min_size", "1"])[2].astype("int32")
            both = [found]
            if not arguments.alone:
                reference = dynamics.resize_and_compute_masks(*maps, niter=200, min_size=1, device=torch.device("cpu"))
                both.append(reference.astype("int32"))
            thresholds = np.arange(0.5, 1.0, 0.05)
            group.append([metrics.average_precision(labels, other, threshold=thresholds)[0].mean() for other in both])
    print("flows made from labels give the labels back: mean mSA" + ("" if arguments.alone else " (and that of cellpose's own dynamics)"))
    for name, group in scores.items():
        print(f"  {name:24} {len(group):3} images  " + "  ".join(f"{score:.4f}" for score in np.mean(group, 0)))


PEER = """
import sys, numpy as np, tifffile, torch
torch.set_num_threads(int(sys.argv[3]))
from cellpose import models
path, image = sys.argv[1], tifffile.imread(sys.argv[2])
if path.endswith("cpsam_small.pt"):
    sys.path.insert(0, "parity")
    from cellpose_networks import load, model, small_cpsam
    made = model(*load(small_cpsam(), "cpsam_small.pt"))
else:
    made = models.CellposeModel(pretrained_model=path)
print(made.eval(image)[0].max())
"""


def peak(command, **more):
    """Peak resident memory of a command, bytes, and its last line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **more)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return usage.ru_maxrss * 1024, text.strip().splitlines()[-1] if text.strip() else ""


def memory(arguments):
    """Peak memory of an image of many cells, whole programs."""
    labels = cells(arguments.side, arguments.side**2 // 2000)
    rng = np.random.RandomState(0)
    image = np.clip((labels > 0) * 120 + 40 + 12 * rng.standard_normal(labels.shape), 0, 255).astype("uint8")
    objects = labels.max()
    del labels
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "image.tif"
        tifffile.imwrite(path, image)
        threads = {**os.environ, "RAYON_NUM_THREADS": THREADS}
        command = [CYTOMASK, "segment", path, "-o", pathlib.Path(folder) / "out", "-m", arguments.model, "--export", "tiff"]
        mine, _ = peak(command, env=threads)
        found = tifffile.imread(pathlib.Path(folder) / "out" / "image_labels.tif").max()
        print(f"{arguments.side}² px, {objects} cells, {arguments.model}: peak memory")
        print(f"  cytomask  {mine / 1e9:.2f} GB, {found} objects")
        if not arguments.alone:
            theirs, last = peak([sys.executable, "-c", PEER, arguments.model, path, THREADS])
            print(f"  cellpose  {theirs / 1e9:.2f} GB, {last} objects; ours is {mine / theirs:.2f} of that")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("speed")
    one.add_argument("--side", type=int, default=2048)
    one.add_argument("--cells", type=int, default=2000)
    two = commands.add_parser("real")
    two.add_argument("data")
    two.add_argument("--images", type=int, default=10)
    two.add_argument("--alone", action="store_true", help="without cellpose's own dynamics")
    three = commands.add_parser("memory")
    three.add_argument("model", help="fixtures/cpsam_small.pt, or a file of the released size")
    three.add_argument("--side", type=int, default=4096)
    three.add_argument("--alone", action="store_true", help="without cellpose")
    arguments = parser.parse_args()
    {"speed": speed, "real": real, "memory": memory}[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(main())
