"""Weights computed from their names, so that golden files need no stored weights.

`seeded(key, shape)` gives the same numbers as `cytomask_models::seeded`: a 64-bit FNV-1a hash of the tensor's
full name starts a SplitMix64 stream, one draw per element in row-major order, mapped to [-1, 1) with 24 bits
and scaled by a rule that depends on the name and the number of axes.

`python parity/seeded.py` checks this file against a scalar version and a few published values.
"""

from __future__ import annotations

import numpy as np

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
MASK = (1 << 64) - 1

# Tensors that are added to activations or to attention logits: their scale does not depend on a fan-in.
HALF_SCALE = (
    "pos_embed",
    "rel_pos",
    "attention_biases",
    "gaussian_matrix",
    "token.weight",
    "tokens.weight",
    "point_embeddings",
    "_embed.weight",
)


def fnv1a64(text: str) -> int:
    """64-bit FNV-1a hash of the UTF-8 bytes of `text`."""
    value = FNV_OFFSET
    for byte in text.encode("utf-8"):
        value = ((value ^ byte) * FNV_PRIME) & MASK
    return value


def uniform(key: str, count: int, first: int = 0) -> np.ndarray:
    """Draws `first` to `first + count` of the stream of `key`, float64 in [-1, 1)."""
    with np.errstate(over="ignore"):
        index = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        z = np.uint64(fnv1a64(key)) + index * np.uint64(GOLDEN_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0


def scale_and_offset(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """The `(scale, offset)` of the rule that `key` and `shape` fall under: value = offset + scale * draw."""
    if key.endswith("running_var"):
        return 0.5, 1.0
    if key.endswith("running_mean"):
        return 0.1, 0.0
    if key.endswith("num_batches_tracked"):
        return 0.0, 0.0
    if any(part in key for part in HALF_SCALE):
        return 0.5, 0.0
    if len(shape) >= 2:
        return float(np.sqrt(3.0 / np.prod(shape[1:], dtype=np.float64))), 0.0
    if len(shape) == 1 and key.endswith(".weight"):
        return 0.1, 1.0
    return 0.1, 0.0


def seeded(key: str, shape: tuple[int, ...] | list[int]) -> np.ndarray:
    """The float32 tensor of `shape` that belongs to `key`."""
    shape = tuple(int(size) for size in shape)
    count = int(np.prod(shape, dtype=np.int64))
    scale, offset = scale_and_offset(key, shape)
    values = np.empty(count, np.float32)
    # In pieces: the largest tensors of ViT-H would otherwise need several float64 copies at once.
    piece = 1 << 22
    for first in range(0, count, piece):
        size = min(piece, count - first)
        values[first : first + size] = offset + scale * uniform(key, size, first)
    return values.reshape(shape)


def seeded_state(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, np.ndarray]:
    """Seeded tensors for a whole state dict; `prefix` goes into the hashed name, not into the result's keys."""
    return {key: seeded(prefix + key, shape) for key, shape in shapes.items()}


def _scalar(key: str, index: int) -> float:
    """The slow twin of `uniform`: one draw in Python integers."""
    return (_splitmix64(fnv1a64(key), index) >> 40) / 2.0**23 - 1.0


def _splitmix64(seed: int, index: int) -> int:
    z = (seed + (index + 1) * GOLDEN_GAMMA) & MASK
    z = ((z ^ (z >> 30)) * MIX_1) & MASK
    z = ((z ^ (z >> 27)) * MIX_2) & MASK
    return z ^ (z >> 31)


def self_test() -> None:
    """Raises AssertionError where this file disagrees with its definition."""
    # Published test vectors of FNV-1a and of SplitMix64.
    assert fnv1a64("") == FNV_OFFSET
    assert fnv1a64("a") == 0xAF63DC4C8601EC8C
    assert fnv1a64("foobar") == 0x85944171F73967E8
    assert [_splitmix64(1234567, i) for i in range(2)] == [6457827717110365317, 3203168211198807973]

    key = "image_encoder.blocks.0.attn.qkv.weight"
    assert [_scalar(key, i) for i in range(64)] == uniform(key, 64).tolist()
    assert np.array_equal(uniform(key, 64)[40:50], uniform(key, 10, first=40))
    draws = uniform("input/image", 100_000)
    assert -1.0 <= draws.min() and draws.max() < 1.0 and abs(draws.mean()) < 0.01

    def rule(name, shape, scale, offset):
        expected = (offset + scale * uniform(name, int(np.prod(shape, dtype=int)))).astype(np.float32).reshape(shape)
        value = seeded(name, shape)
        assert value.dtype == np.float32 and value.shape == tuple(shape) and np.array_equal(value, expected), name

    rule("a.running_var", (5,), 0.5, 1.0)
    rule("a.running_mean", (5,), 0.1, 0.0)
    rule("a.num_batches_tracked", (), 0.0, 0.0)
    rule("image_encoder.pos_embed", (1, 4, 4, 8), 0.5, 0.0)
    rule("image_encoder.blocks.0.attn.rel_pos_h", (27, 64), 0.5, 0.0)
    rule("mask_decoder.iou_token.weight", (1, 256), 0.5, 0.0)
    rule("mask_decoder.mask_tokens.weight", (4, 256), 0.5, 0.0)
    rule("prompt_encoder.no_mask_embed.weight", (1, 256), 0.5, 0.0)
    rule("decoder_state/base.block.1.weight", (6, 4, 3, 3), np.sqrt(3.0 / 36.0), 0.0)
    rule("image_encoder.blocks.0.norm1.weight", (7,), 0.1, 1.0)
    rule("image_encoder.blocks.0.norm1.bias", (7,), 0.1, 0.0)


if __name__ == "__main__":
    self_test()
    name = "image_encoder.blocks.0.attn.qkv.weight"
    print("seeded.py: self-test passed")
    print(f"{name}[:4] of shape [6, 4] = {seeded(name, (6, 4)).ravel()[:4].tolist()}")
