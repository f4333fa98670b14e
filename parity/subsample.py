"""What the golden scripts of large outputs share: a fixed thinning rule and the input maker.

The Rust tests apply the same two rules (`crates/cytomask-models/src/tiny_vit/tests.rs` and its neighbours).
"""

from __future__ import annotations

import numpy as np

from seeded import seeded

SAMPLES = 2048


def subsample(values: np.ndarray) -> np.ndarray:
    """Every n-th element in row-major order, n = max(1, size // 2048) made odd, so that all channels and rows take part."""
    flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
    return flat[:: max(1, flat.size // SAMPLES) | 1].copy()


def network_input(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A network input with the range of a normalised image: the one-dimensional seeded tensor (0.1 u), times 20."""
    return (np.float32(20) * seeded(key, (int(np.prod(shape)),))).reshape(shape)
