"""Writes fixtures/flows.safetensors: cellpose's flow dynamics and flow targets on drawn objects.

Pinned: cellpose 4.2.1.1, torch 2.15, numpy 2.4.6, safetensors 0.8.0.
`python parity/flows.py`

Flows are stored as int8 (value / 16), cell probabilities as int8 (value / 8); both sides divide in float32.
"""

import pathlib

import numpy as np
import torch
from cellpose import dynamics
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from synthetic import CASES, paint

ROOT = pathlib.Path(__file__).resolve().parent.parent
SETTINGS = {
    "masks": dict(),
    "all": dict(flow_threshold=0.0, min_size=1),
    "short": dict(niter=40, cellprob_threshold=1.0),
}


def maps(labels, noise, seed):
    """What a network with some noise would give."""
    rng = np.random.RandomState(seed)
    flows, _ = dynamics.masks_to_flows_gpu(labels, device=torch.device("cpu"))
    flows = 5 * flows + noise * np.stack([gaussian_filter(rng.standard_normal(labels.shape), 1) for _ in range(2)]) * 3
    probability = np.where(labels > 0, 4.0, -4.0) + noise * rng.standard_normal(labels.shape)
    return np.round(np.clip(flows * 16, -127, 127)).astype("int8"), np.round(np.clip(probability * 8, -127, 127)).astype("int8")


def main():
    torch.manual_seed(0)
    out = {}
    for name, source, noise in [("discs", "touching", 0.5), ("noisy", "borders", 2.0), ("ragged", "ragged", 1.0)]:
        size, shapes, _, seed = CASES[source]
        labels = paint(shapes, size).astype("int32")
        _, labels = np.unique(labels, return_inverse=True)
        labels = labels.reshape(size).astype("int32")
        flows, probability = maps(labels, noise, seed)
        out[f"{name}/flow_y"], out[f"{name}/flow_x"], out[f"{name}/cellprob"] = flows[0], flows[1], probability
        for settings, arguments in SETTINGS.items():
            arguments = dict(min_size=15, niter=200, cellprob_threshold=0.0, flow_threshold=0.4) | arguments
            masks = dynamics.compute_masks(
                flows.astype("float32") / np.float32(16), probability.astype("float32") / np.float32(8), **arguments
            )
            assert masks.max() < 256
            out[f"{name}/{settings}"] = masks.astype("uint8")
            print(name, settings, labels.max(), masks.max())
        if name == "ragged":
            flows, _ = dynamics.masks_to_flows_gpu(labels, device=torch.device("cpu"))
            out["targets/labels"] = labels.astype("uint8")
            out["targets/y"], out["targets/x"] = flows[0].astype("float32"), flows[1].astype("float32")
    save_file({key: np.ascontiguousarray(value) for key, value in out.items()}, ROOT / "fixtures" / "flows.safetensors")


if __name__ == "__main__":
    main()
