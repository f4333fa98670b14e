"""Opens a checkpoint that cytomask wrote in upstream's Python and compares what both make of one image.

    cytomask models export MODEL --to exported.pt
    python parity/full_size/opens_in_micro_sam.py exported.pt IMAGE --cytomask target/release/cytomask

Prints the same columns as `compare.py`; exit code 1 if micro_sam does not take the file or the numbers differ.
Without `--cytomask` it only opens the file; `--out` keeps the tensors (`embedding`, and `fields` if the file has a
decoder). The encoder's size is inferred from the file by micro_sam; for vit_t MobileSAM must be importable.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from compare import LIMITS, Table  # noqa: E402

warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", category=UserWarning)


def upstream_tensors(checkpoint: Path, image: Path, model_type: str) -> dict[str, np.ndarray]:
    """`embedding` and, where the file has a decoder, `fields`, as micro_sam computes them."""
    import imageio.v3 as iio
    import tifffile
    import torch
    from micro_sam.util import precompute_image_embeddings

    import upstream

    predictor, decoder = upstream.load_predictor(model_type, checkpoint)
    upstream.refresh_attention_biases(predictor)
    pixels = tifffile.imread(image) if image.suffix in (".tif", ".tiff") else iio.imread(image)
    with torch.no_grad():
        tensors = {"embedding": precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False)["features"]}
        if decoder is not None:
            maps = decoder(predictor.features, tuple(predictor.input_size), tuple(predictor.original_size))
            tensors["fields"] = maps[0].numpy()
    return tensors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model-type", default="vit_b", help="what micro_sam is told; it trusts the file more")
    parser.add_argument("--cytomask", type=Path, help="the program whose numbers are compared")
    parser.add_argument("--source", help="the model cytomask runs, if not the checkpoint itself")
    parser.add_argument("--out", type=Path, help="keep upstream's tensors (safetensors)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch
    from safetensors.numpy import load_file, save_file

    torch.set_num_threads(arguments.threads)
    expected = upstream_tensors(arguments.checkpoint, arguments.image, arguments.model_type)
    print(f"micro_sam opened {arguments.checkpoint}: " + ", ".join(f"{k} {list(v.shape)}" for k, v in expected.items()))
    if arguments.out:
        save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, str(arguments.out))
    if not arguments.cytomask:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        stages = Path(folder) / "stages.safetensors"
        model = arguments.source or str(arguments.checkpoint)
        command = [arguments.cytomask, "dump", arguments.image, "--model", model, "--stages", stages, "--compat"]
        subprocess.run([str(part) for part in command], check=True)
        found = load_file(str(stages))
    table = Table()
    for stage, value in expected.items():
        table.tensor(arguments.checkpoint.name, stage, found.get(stage), value, LIMITS[stage])
    return int(any(row["failed"] for row in table.rows))


if __name__ == "__main__":
    raise SystemExit(main())
