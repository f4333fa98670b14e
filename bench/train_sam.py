"""The joint step of `cytomask-train/examples/joint_step.rs` with µSAM's own trainer classes: the same weights, crop and prompts.

    python bench/train_sam.py [SIDE] [OBJECTS] [STEPS]

`JointSamTrainer`'s two optimizer steps a batch, for the masks (two rounds of prompts) and then for the maps, each with its own pass of
ViT-B. Prints the losses, CPU seconds of the steps after the first and the largest resident memory. THREADS (2) sets the number of threads.
Needs micro_sam and what `parity/training.py` names; written for this repository. Licence: MIT OR Apache-2.0.
"""
import os
import pathlib
import statistics
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "parity"))
from micro_sam.training.trainable_sam import TrainableSAM  # noqa: E402
from sam import encoder  # noqa: E402
from seeded import seeded  # noqa: E402
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer  # noqa: E402
from torch_em.model import UNETR  # noqa: E402
from torch_em.transform.label import PerObjectDistanceTransform  # noqa: E402
from training import fill, joint  # noqa: E402


def numbers():
    given = [int(text) for text in sys.argv[1:]]
    return given + [512, 4, 3][len(given):]


class Bench:
    def __init__(self, side, objects):
        self.side, self.objects = side, objects
        vit = encoder(side, 768, 12, 12, 14, (2, 5, 8, 11), 256)
        prompts = PromptEncoder(256, (side // 16, side // 16), (side, side), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
        decoder = MaskDecoder(
            num_multimask_outputs=3, transformer_dim=256, transformer=transformer, iou_head_depth=3, iou_head_hidden_dim=256
        )
        fill(prompts, "prompt_encoder.")
        fill(decoder, "mask_decoder.")
        self.model = TrainableSAM(Sam(vit, prompts, decoder))
        self.unetr = UNETR(
            img_size=side, backbone="sam", encoder=vit, out_channels=3, use_sam_stats=True, final_activation="Sigmoid",
            use_skip_connection=False, resize_input=True, use_conv_transpose=False, embed_dim=256,
        )
        self.trainer, self.instance_loss = joint(self.model, self.unetr)
        named = {id(p): p for part in (self.model, self.unetr) for p in part.parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(named.values(), lr=1e-5, weight_decay=0.01)

        columns = next(n for n in range(1, objects + 1) if n * n >= objects)
        self.cell = side // columns
        self.corners = [(i // columns * self.cell, i % columns * self.cell) for i in range(objects)]
        labels = np.zeros((side, side), "int64")
        edge = self.cell // 8
        for index, (y, x) in enumerate(self.corners):
            labels[y + edge:y + self.cell - edge, x + edge:x + self.cell - edge] = index + 1
        transform = PerObjectDistanceTransform(
            distances=True, boundary_distances=True, directed_distances=False, foreground=True, instances=True, min_size=25
        )
        self.targets = torch.from_numpy(transform(labels)[1:][None].astype("float32"))
        one_hot = np.stack([labels == index + 1 for index in range(objects)])
        self.one_hot = torch.from_numpy(one_hot).float()[None, :, None]
        rgb = 127.5 + 1275 * seeded("input/crop0", (side * side * 3,)).reshape(side, side, 3)
        self.images = torch.from_numpy(rgb.transpose(2, 0, 1).astype("float32"))[None]

    def clicks(self, offset, label):
        """`[objects, 1, 2]` as (x, y), and their labels."""
        at = torch.tensor([[[x + offset, y + offset]] for y, x in self.corners], dtype=torch.float32)
        return at, torch.full((self.objects, 1), float(label))

    def mask_loss(self):
        coords, labels = self.clicks(self.cell // 2, 1)
        inputs = [{"image": self.images[0], "original_size": (self.side,) * 2, "point_coords": coords, "point_labels": labels}]
        embeddings, inputs = self.model.image_embeddings_oft(inputs)
        outputs = self.model(inputs, embeddings, multimask_output=True)
        first, *_ = self.trainer._compute_loss(outputs, self.one_hot)
        with torch.no_grad():
            _, logits = self.trainer._get_best_masks(outputs, torch.stack([part["iou_predictions"] for part in outputs]))
        parts = [(coords, labels), self.clicks(self.cell // 4, 1), self.clicks(2, 0)]
        inputs[0]["point_coords"], inputs[0]["point_labels"] = (torch.cat(part, 1) for part in zip(*parts))
        inputs[0]["mask_inputs"] = logits[0]
        second, *_ = self.trainer._compute_loss(self.model(inputs, embeddings, multimask_output=False), self.one_hot)
        return (first + second) / 2

    def map_loss(self):
        return self.instance_loss(self.unetr(self.images), self.targets)

    def step(self):
        found = []
        for loss in (self.mask_loss, self.map_loss):
            self.optimizer.zero_grad()
            value = loss()
            value.backward()
            self.optimizer.step()
            found.append(value.item())
        return found


def main():
    side, objects, steps = numbers()
    torch.set_num_threads(int(os.environ.get("THREADS", 2)))
    bench, seconds, losses = Bench(side, objects), [], None
    for _ in range(steps + 1):
        start = time.process_time()
        found = bench.step()
        seconds.append(time.process_time() - start)
        losses = losses or found
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(
        f"losses {losses[0]:.5f} {losses[1]:.5f}, {statistics.median(seconds[1:]):.2f} CPU seconds a step, "
        f"peak {int(peak.split()[1]) / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
