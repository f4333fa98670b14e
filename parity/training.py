"""Writes fixtures/training.safetensors: µSAM's joint training on a small SAM with UNETR decoder, losses, gradients and ten steps.

Pinned: micro_sam 1.8.14, torch_em 0.10.9, segment_anything 1.0, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0.
`python parity/training.py` (a minute)

The networks are upstream's classes with seeded weights (parity/seeded.py) in the sizes of parity/sam.py and a decoder of widths 64, 32, 16, 8;
the losses are those of `JointSamTrainer`, over two crops of 96 x 96 (seen at 160 x 160) with two objects each and two rounds of given
prompts: a point with three outputs, then a point and two clicks with the best mask of the first round.

Stored: both losses; for every parameter the gradient of their sum (in double precision); losses and parameters of ten AdamW steps at 1e-4, once with one step
for the sum and once with upstream's two steps, masks first. All thinned.
"""

import pathlib
from unittest import mock

import numpy as np
import torch
from micro_sam.training.joint_sam_trainer import JointSamTrainer
from micro_sam.training.trainable_sam import TrainableSAM
from safetensors.numpy import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch_em.loss import DiceBasedDistanceLoss, DiceLoss
from torch_em.model import UNETR
from torch_em.transform.label import PerObjectDistanceTransform

from sam import encoder
from seeded import seeded

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIDE, CHANNELS, GRID, CROP = 160, 32, 10, 96
STEPS, RATE = 10, 1e-4
# (y0, x0, y1, x1) of objects 1 and 2 of each crop.
OBJECTS = [[(10, 12, 50, 60), (60, 20, 90, 84)], [(5, 40, 45, 90), (52, 8, 88, 50)]]
# (x, y) of the first point of each object; then of a positive and a negative click.
POINTS = [[(30, 20), (50, 75)], [(60, 30), (20, 60)]]
CLICKS = [[[(50, 45), (70, 30)], [(25, 85), (40, 55)]], [[(85, 10), (20, 20)], [(45, 80), (60, 70)]]]


def thin(values, most):
    """Every n-th value, n = size // most made odd."""
    flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
    return flat[:: max(1, flat.size // most) | 1].copy()


def fill(module, prefix):
    state = {k: torch.from_numpy(seeded(prefix + k, tuple(v.shape))).to(v.dtype) for k, v in module.state_dict().items()}
    module.load_state_dict(state)


def joint(model, unetr):
    """Seeds the decoder of `unetr`, readies both networks for training; µSAM's trainer with its mask losses, and the loss of the maps."""
    own = {k: v for k, v in unetr.state_dict().items() if not k.startswith("encoder")}
    values = {k: torch.from_numpy(seeded("decoder_state/" + k, tuple(v.shape))).to(v.dtype) for k, v in own.items()}
    unetr.load_state_dict(values, strict=False)
    model.train()
    unetr.train()
    trainer = JointSamTrainer.__new__(JointSamTrainer)
    trainer.loss, trainer.mse_loss = DiceLoss(reduce_channel=None), torch.nn.MSELoss()
    return trainer, DiceBasedDistanceLoss(mask_distances_in_bg=True)


class Run:
    def __init__(self, dtype=torch.float32):
        vit = encoder(SIDE, 32, 3, 2, 4, (1,), CHANNELS)
        prompts = PromptEncoder(CHANNELS, (GRID, GRID), (SIDE, SIDE), mask_in_chans=16)
        fill(prompts, "prompt_encoder.")
        transformer = TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=4, mlp_dim=64)
        decoder = MaskDecoder(
            num_multimask_outputs=3, transformer_dim=CHANNELS, transformer=transformer, iou_head_depth=3,
            iou_head_hidden_dim=24,
        )
        fill(decoder, "mask_decoder.")
        self.model = TrainableSAM(Sam(vit, prompts, decoder))
        self.unetr = UNETR(
            img_size=SIDE, backbone="sam", encoder=vit, out_channels=3, use_sam_stats=True, final_activation="Sigmoid",
            use_skip_connection=False, resize_input=True, use_conv_transpose=False, embed_dim=CHANNELS,
            initial_features=8,
        )
        self.trainer, self.instance_loss = joint(self.model, self.unetr)

        labels = np.zeros((2, CROP, CROP), "int64")
        for crop, objects in enumerate(OBJECTS):
            for index, (y0, x0, y1, x1) in enumerate(objects):
                labels[crop, y0:y1, x0:x1] = index + 1
        transform = PerObjectDistanceTransform(
            distances=True, boundary_distances=True, directed_distances=False, foreground=True, instances=True, min_size=25
        )
        self.targets = torch.from_numpy(np.stack([transform(part)[1:] for part in labels]).astype("float32"))
        self.one_hot = torch.from_numpy(np.stack([np.stack([part == 1, part == 2]) for part in labels])).float().unsqueeze(2)
        rgb = [127.5 + 1275 * seeded(f"input/crop{i}", (CROP * CROP * 3,)).reshape(CROP, CROP, 3) for i in range(2)]
        self.images = torch.from_numpy(np.stack([part.transpose(2, 0, 1) for part in rgb]).astype("float32"))
        self.model.to(dtype)
        self.unetr.to(dtype)
        self.images, self.targets, self.one_hot = (part.to(dtype) for part in (self.images, self.targets, self.one_hot))

    def parameters(self):
        """Names as cytomask's, every parameter once."""
        named = {name: p for name, p in self.model.sam.named_parameters()}
        named |= {"decoder." + name: p for name, p in self.unetr.named_parameters() if not name.startswith("encoder")}
        return named

    def mask_loss(self):
        factor = SIDE / CROP
        inputs = [
            {
                "image": image, "original_size": (CROP, CROP),
                "point_coords": torch.tensor(points, dtype=self.images.dtype).unsqueeze(1) * factor,
                "point_labels": torch.ones(2, 1),
            }
            for image, points in zip(self.images, POINTS)
        ]
        embeddings, inputs = self.model.image_embeddings_oft(inputs)
        outputs = self.model(inputs, embeddings, multimask_output=True)
        first, *_ = self.trainer._compute_loss(outputs, self.one_hot)
        ious = torch.stack([part["iou_predictions"] for part in outputs])
        with torch.no_grad():
            _, logits = self.trainer._get_best_masks(outputs, ious)
        for record, clicks, best in zip(inputs, CLICKS, logits):
            coords = torch.tensor(clicks, dtype=self.images.dtype) * factor
            record["point_coords"] = torch.cat([record["point_coords"], coords], dim=1)
            record["point_labels"] = torch.cat([record["point_labels"], torch.tensor([[1.0, 0.0]] * 2)], dim=1)
            record["mask_inputs"] = best
        second, *_ = self.trainer._compute_loss(self.model(inputs, embeddings, multimask_output=False), self.one_hot)
        return (first + second) / 2

    def map_loss(self):
        return self.instance_loss(self.unetr(self.images), self.targets)


def ten_steps(run, micro_sam):
    named = run.parameters()
    optimizer = torch.optim.AdamW(named.values(), lr=RATE, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        row = []
        if micro_sam:
            for loss in (run.mask_loss, run.map_loss):
                optimizer.zero_grad()
                value = loss()
                value.backward()
                optimizer.step()
                row.append(value.item())
        else:
            optimizer.zero_grad()
            masks, maps = run.mask_loss(), run.map_loss()
            (masks + maps).backward()
            optimizer.step()
            row = [masks.item(), maps.item()]
        losses.append(row)
    return np.array(losses, "float32"), named


def main():
    torch.manual_seed(0)
    # In double precision: sums over pixels that nearly cancel would otherwise be noise on both sides.
    torch.set_default_dtype(torch.float64)
    with mock.patch.object(torch, "float32", torch.float64), mock.patch.object(torch, "float", torch.float64):
        run = Run(torch.float64)
        masks, maps = run.mask_loss(), run.map_loss()
        (masks + maps).backward()
    torch.set_default_dtype(torch.float32)
    out = {"masks": np.array([masks.item()], "float32"), "maps": np.array([maps.item()], "float32")}
    without = []
    for name, parameter in run.parameters().items():
        if parameter.grad is None:
            without.append(name)
            continue
        out["gradient/" + name] = thin(parameter.grad.numpy(), 96)
    print("without gradient:", without)
    for name, micro_sam in (("summed", False), ("micro_sam", True)):
        losses, named = ten_steps(Run(), micro_sam)
        print(name, losses)
        out[f"{name}/losses"] = losses
        for key, parameter in named.items():
            out[f"{name}/{key}"] = thin(parameter.detach().numpy(), 24)
    save_file({key: np.ascontiguousarray(value) for key, value in out.items()}, ROOT / "fixtures" / "training.safetensors")


if __name__ == "__main__":
    main()
