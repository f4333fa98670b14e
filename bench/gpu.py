"""The measuring half of bench/gpu.sh: seconds an image by stage, as Markdown. Versions as in peers_python.py.

    python gpu.py CYTOMASK DEVICE CHECKPOINT IMAGE REPEATS

cytomask: `--timings` of one image against one more than REPEATS of it; the difference is what an image costs once everything is
compiled. A stage that leaves work on the card is paid for by the next one that reads a result; the sum is right in any case.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers_python


def cytomask(program, device, checkpoint, image, repeats):
    def stages(count):
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "in"
            images.mkdir()
            for index in range(count):
                shutil.copy(image, images / f"{index}{Path(image).suffix}")
            command = [program, "segment", images, "-m", checkpoint, "--mode", "apg", "--device", device, "--export", "tiff",
                       "--timings", "--log", "json", "-o", Path(folder) / "out"]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            return next(json.loads(line)["stages"] for line in done.stderr.splitlines() if '"stages"' in line)

    first, all_of_them = stages(1), stages(1 + repeats)
    return {name: (all_of_them[name] - first[name]) / repeats for name in first if name != "open model"}


def pytorch(checkpoint, image, repeats, half):
    import imageio.v3 as iio
    import torch
    from micro_sam.instance_segmentation import AutomaticPromptGenerator
    from micro_sam.util import precompute_image_embeddings

    predictor, decoder, _ = peers_python.load(checkpoint, "cuda")
    pixels = iio.imread(image)
    generator = AutomaticPromptGenerator(predictor, decoder)
    found = {}

    def stage(name, work):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = work()
        torch.cuda.synchronize()
        found.setdefault(name, []).append(time.perf_counter() - start)
        return result

    with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=half):
        for _ in range(1 + repeats):
            embeddings = stage("encoder", lambda: precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False))
            stage("instance decoder", lambda: generator.initialize(pixels, image_embeddings=embeddings))
            stage("prompts, masks, painting", lambda: generator.generate())
    return {name: sum(values[1:]) / repeats for name, values in found.items()}


def main():
    program, device, checkpoint, image, repeats = sys.argv[1:]
    repeats = int(repeats)
    tables = {f"cytomask {device} f32": cytomask(program, device, checkpoint, image, repeats)}
    for name, half in (("PyTorch f32", False), ("PyTorch float16 autocast", True)):
        tables[name] = pytorch(checkpoint, image, repeats, half)
    print("| program | stage | s an image |\n|---|---|---|")
    for name, table in tables.items():
        for stage, seconds in {**table, "**all**": sum(table.values())}.items():
            print(f"| {name} | {stage} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
