"""The weighted average of exported models of one network.

    python average.py OUT.safetensors 0.7=A.safetensors 0.3=B.safetensors

Weights sum to 1; the first model's metadata are kept, with the average in their recipe.  Needs torch, safetensors.
Licence: MIT OR Apache-2.0.
"""
import os
import sys

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def main():
    out, *parts = sys.argv[1:]
    shares, files = zip(*(part.split("=", 1) for part in parts))
    shares = [float(share) for share in shares]
    if abs(sum(shares) - 1) > 1e-6:
        sys.exit(f"the shares {shares} sum to {sum(shares)}; expected 1")
    models = [load_file(file) for file in files]
    if any(model.keys() != models[0].keys() for model in models):
        sys.exit("the models have different tensors")
    average = {
        name: sum(share * model[name].float() for share, model in zip(shares, models)).to(first.dtype).contiguous()
        if first.is_floating_point() else first
        for name, first in models[0].items()
    }
    with safe_open(files[0], "pt") as file:
        meta = dict(file.metadata() or {})
    meta["recipe"] = meta.get("recipe", "") + f"; average of {len(models)} models, shares {shares}"
    save_file(average, out + ".tmp", metadata=meta)
    os.replace(out + ".tmp", out)


if __name__ == "__main__":
    main()
