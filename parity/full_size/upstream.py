"""What the scripts of this folder need of upstream's Python, and how its models are built and saved.

Versions these scripts were written against: micro_sam 1.8.14, torch_em 0.10.9, python-elf 0.9.2,
bioimage-cpp 0.10.0, segment_anything 1.0, MobileSAM at 34bbbfd (`mobile_sam` importable, for vit_t),
torch 2.15 on the CPU, numpy 2.4, scikit-image 0.26, safetensors 0.8, tifffile 2026.3.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeded import seeded  # noqa: E402

MODEL_TYPES = ("vit_t", "vit_b", "vit_l", "vit_h")

# With random weights mask logits hover around zero: every mask is unstable and every score ties. Larger last layers
# of the hypernetworks and a shifted IoU give masks that filters and suppression can tell apart.
HYPERNETWORK_GAIN = 60.0
IOU_SHIFT = 0.75


def versions() -> dict[str, str]:
    """Installed versions of everything that can change a number."""
    names = ("micro_sam", "torch_em", "python-elf", "bioimage-cpp", "segment_anything", "torch", "torchvision")
    names += ("numpy", "scipy", "scikit-image", "pillow", "timm", "safetensors")
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _meta_sam(model_type: str):
    """The model without memory for its tensors."""
    if model_type == "vit_t":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mobile_sam import sam_model_registry
        return sam_model_registry["vit_t"]()  # small, and its window indices are computed on construction
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        return sam_model_registry[model_type]()


def seeded_sam(model_type: str) -> OrderedDict[str, torch.Tensor]:
    """A state dict with the official keys of `model_type`, computed from the keys."""
    state = OrderedDict()
    for key, tensor in _meta_sam(model_type).state_dict().items():
        value = torch.from_numpy(seeded(key, tuple(tensor.shape))).to(tensor.dtype)
        if ".output_hypernetworks_mlps." in key and ".layers.2." in key:
            value *= HYPERNETWORK_GAIN
        if key == "mask_decoder.iou_prediction_head.layers.2.bias":
            value += IOU_SHIFT
        state[key] = value
    return state


def seeded_decoder(transposed: bool) -> OrderedDict[str, torch.Tensor]:
    """A state dict of µSAM's UNETR decoder, up-sampling by interpolation or by transposed convolutions."""
    from torch_em.model import UNETR

    unetr = UNETR(
        backbone="sam",
        encoder=_meta_sam("vit_t").image_encoder,
        out_channels=3,
        use_sam_stats=True,
        final_activation="Sigmoid",
        use_skip_connection=False,
        resize_input=True,
        use_conv_transpose=transposed,
    )
    state = OrderedDict()
    for key, tensor in unetr.state_dict().items():
        if not key.startswith("encoder"):
            value = torch.from_numpy(np.array(seeded("decoder_state/" + key, tuple(tensor.shape))))
            state[key] = value.to(tensor.dtype)
    return state


def read_state(path: Path) -> tuple[OrderedDict, OrderedDict | None]:
    """`(model_state, decoder_state or None)` of a safetensors file or a checkpoint in one of µSAM's layouts."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=False)
    decoder = state.get("decoder_state")
    model = state.get("model_state", state)
    return OrderedDict((key.removeprefix("sam."), value) for key, value in model.items()), decoder


class ForeignObject:
    """Stands in for the trainer objects that training checkpoints carry: a reader must not need this class."""

    def __init__(self):
        self.note = "pickled by a module the reader does not have"


def training_checkpoint(model: OrderedDict, decoder: OrderedDict) -> dict:
    """The layout µSAM's trainer writes: prefixed keys, the decoder, and much that is not weights."""
    return {
        "iteration": 1000,
        "epoch": 3,
        "best_metric": np.float64(0.25),
        "model_state": OrderedDict(("sam." + key, value) for key, value in model.items()),
        "optimizer_state": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": []},
        "decoder_state": decoder,
        "init": {"trainer": ForeignObject(), "device": torch.device("cpu"), "early_stopping": None},
        "timestamp": "2025-01-01-00-00",
    }


def load_predictor(model_type: str, path: Path):
    """`(predictor, decoder or None, state)` as micro_sam opens them on the CPU."""
    from micro_sam import util
    from micro_sam.instance_segmentation import get_decoder

    predictor, state = util.get_sam_model(model_type, device="cpu", checkpoint_path=str(path), return_state=True)
    decoder = None
    if "decoder_state" in state:
        decoder = get_decoder(predictor.model.image_encoder, state["decoder_state"], "cpu")
    return predictor, decoder


def refresh_attention_biases(predictor) -> bool:
    """Brings TinyViT's cached attention biases up to date; true if they were stale.

    MobileSAM's blocks copy `attention_biases` into a buffer when switched to evaluation mode. Its constructor does
    that while the biases are still zero, and micro_sam loads the weights afterwards and never switches again: its
    vit_t runs WITHOUT attention biases. MobileSAM's own instructions call `.eval()` after loading, as done here.
    """
    stale = False
    for module in predictor.model.image_encoder.modules():
        if hasattr(module, "attention_biases") and hasattr(module, "ab"):
            stale |= not torch.equal(module.ab, module.attention_biases[:, module.attention_bias_idxs])
    predictor.model.eval()
    return stale
