"""Cellpose-SAM at its real size: the network against cellpose's own class on one tile, with computed weights.

`python parity/full_size/cpsam.py --out DIR [--image FILE] [--cytomask BINARY] [--rounds N]`

Writes DIR/cpsam (1.2 GB, the official layout, weights by seeded.py), runs `CellposeModel.eval` of cellpose 4.2 in 32-bit floats (and
in bfloat16, its default) on a 240 × 240 part of the image (one tile of 256 × 256), and `cytomask dump` on the same file, interleaved.
Prints relative differences and seconds.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import tifffile
import torch
from safetensors.numpy import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from seeded import seeded  # noqa: E402


def write_network(path):
    from cellpose.vit import CPSAM

    net = CPSAM(dtype=torch.float32)
    state = {}
    for key, value in net.state_dict().items():
        if key in ("W2", "diam_mean", "diam_labels"):
            state[key] = value
        else:
            # The positions come from SAM's, by every second one: both sides have the same name.
            state[key] = torch.from_numpy(seeded(key, tuple(value.shape)))
    torch.save(state, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--cytomask", default="target/release/cytomask")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "cpsam"
    if not path.exists():
        write_network(path)
    if arguments.image:
        from PIL import Image

        image = np.array(Image.open(arguments.image).convert("RGB"))[:240, :240]
    else:
        image = np.random.RandomState(0).randint(0, 255, (240, 240, 3)).astype("uint8")
    tile = arguments.out / "tile.tif"
    tifffile.imwrite(tile, image, photometric="rgb")

    from cellpose import models

    made = {kind: models.CellposeModel(pretrained_model=str(path), use_bfloat16=kind == "bf16") for kind in ("f32", "bf16")}
    seconds, cpus, maps = {}, {}, {}

    def timed(name, run):
        start, cpu = time.perf_counter(), time.process_time()
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        spent = time.process_time() - cpu + after.ru_utime + after.ru_stime - child.ru_utime - child.ru_stime
        cpus.setdefault(name, []).append(spent)
        return result

    def ours():
        stages = arguments.out / "stages.safetensors"
        subprocess.run(
            [arguments.cytomask, "dump", tile, "-m", path, "--stages", stages], check=True, capture_output=True,
            env={**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)},
        )
        return load_file(stages)["maps"]

    def theirs(kind):
        _, flows, _ = made[kind].eval(image, compute_masks=False)
        return np.stack([*flows[1], flows[2]]).astype("float32")

    for _ in range(arguments.rounds):
        maps["cytomask (with loading)"] = timed("cytomask (with loading)", ours)
        for kind in made:
            maps[kind] = timed(f"cellpose {kind}", lambda kind=kind: theirs(kind))
    expected = maps["f32"]
    norm = np.linalg.norm
    for name, found in maps.items():
        print(f"{name:24} against f32: relative L2 {norm(found - expected) / norm(expected):.1e}, "
              f"largest {np.abs(found - expected).max() / np.abs(expected).max():.1e}")
    for name in seconds:
        print(f"{name:24} {np.median(seconds[name]):7.2f} s  {np.median(cpus[name]):7.2f} CPU s")


if __name__ == "__main__":
    sys.exit(main())
