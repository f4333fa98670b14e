"""Writes fixtures/checkpoint_*.pt: checkpoints as torch.save makes them, for the reader of crates/cytomask-weights.

Pinned: torch 2.15.0.
`python parity/checkpoint.py`: writes the fixtures
`python parity/checkpoint.py --check CONVERT`: writes them anew with the program CONVERT (`cargo build -p cytomask-weights
--example convert`) and opens the results with torch.load(weights_only=True) and safetensors.

Values are small whole numbers, so that the test in Rust can name them.
"""

import argparse
import collections
import pathlib
import subprocess
import sys
import tempfile
import types

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"


def numbers(*shape, dtype=torch.float32):
    return torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float32).reshape(shape).to(dtype)


def flat():
    """A flat state dict: all number types, views, a parameter, shared storage."""
    base = numbers(24)
    state = collections.OrderedDict()
    state["image_encoder.patch_embed.proj.weight"] = numbers(768, 1, 1, 1)
    state["transposed"] = numbers(3, 4).t()
    state["offset"] = base[5:11].reshape(2, 3)
    state["strided"] = base[1::2]
    state["scalar"] = torch.tensor(7, dtype=torch.int64)
    state["empty"] = numbers(0, 3)
    state["parameter"] = torch.nn.Parameter(numbers(2, 2))
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        state[f"types.{str(dtype)[6:]}"] = numbers(5, dtype=dtype)
    state["types.bool"] = torch.tensor([True, False, True])
    return state


def decoder():
    names = ["base.block.1.weight", "deconv1.block.1.weight", "decoder.blocks.0.block.1.weight", "out_conv.weight"]
    return collections.OrderedDict((name, numbers(2, 3) + index) for index, name in enumerate(names))


def foreign_object():
    """An object of a class in a module that no reader knows."""
    module = types.ModuleType("trainer_of_somebody")
    exec("class Settings:\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    settings = module.Settings()
    settings.rate, settings.nested = 0.5, {"a": [1, (2, 3)], "self": settings}
    return settings


def joint():
    """A training checkpoint: prefixed model, decoder, and what trainers save besides."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(numbers(3))])
    model = {"sam.image_encoder.patch_embed.proj.weight": numbers(1024, 1, 1, 1), "sam.mask_decoder.iou_token.weight": numbers(1, 4)}
    unetr = dict(decoder())
    unetr["encoder.pos_embed"] = numbers(2)
    return {
        "epoch": 3,
        "loss": 0.25,
        "large": 2**100,
        "negative": -5,
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "none": None,
        "init": {"class": foreign_object(), "path": pathlib.PurePosixPath("a/b"), "types": [int, torch.optim.AdamW]},
        "model_state": model,
        "decoder_state": unetr,
        "optimizer_state": optimizer.state_dict(),
    }


def write():
    torch.save(flat(), FIXTURES / "checkpoint_flat.pt")
    torch.save(joint(), FIXTURES / "checkpoint_joint.pt")
    torch.save(joint(), FIXTURES / "checkpoint_joint_protocol4.pt", pickle_protocol=4)
    torch.save(decoder(), FIXTURES / "checkpoint_decoder.pt")
    torch.save(decoder(), FIXTURES / "checkpoint_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(foreign_object(), FIXTURES / "checkpoint_object.pt")


def same(found, expected):
    assert sorted(found) == sorted(expected), (sorted(found), sorted(expected))
    for name in expected:
        assert found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]), name


def check(convert):
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        for name in ("flat", "joint", "decoder"):
            source = FIXTURES / f"checkpoint_{name}.pt"
            target = pathlib.Path(folder, f"{name}.pt")
            subprocess.run([convert, source, target], check=True)
            found = torch.load(target, map_location="cpu", weights_only=True)
            if name == "joint":
                expected = joint()
                same(found["model_state"], {key.removeprefix("sam."): value for key, value in expected["model_state"].items()})
                same(found["decoder_state"], decoder())
            else:
                same(found, {"flat": flat, "decoder": decoder}[name]())
        target = pathlib.Path(folder, "flat.safetensors")
        subprocess.run([convert, FIXTURES / "checkpoint_flat.pt", target], check=True)
        same(load_file(target), flat())
    print("all equal")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", metavar="CONVERT")
    arguments = parser.parse_args()
    check(arguments.check) if arguments.check else write()
