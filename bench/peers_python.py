"""The Python half of bench/peers.py: what upstream's Python does, one task a process, so that start and memory can be measured.

    python peers_python.py decoder CHECKPOINT BATCH...        seconds a prompt of the mask decoder, as one JSON object
    python peers_python.py apg|amg|import CHECKPOINT IMAGE OUT  from the image to a label TIFF, with micro_sam's own settings
    python peers_python.py craft CHECKPOINT TRAINED IMAGE OUT PROMPTS   see `craft`

micro_sam 1.8.14, torch_em 0.10.9, segment_anything 1.0, torch 2.15; for vit_t MobileSAM's `mobile_sam` must be importable.
`--precision bf16` runs the encoder and decoders under torch's autocast.
"""

import argparse
import contextlib
import json
import time
import warnings

warnings.filterwarnings("ignore")

# Standard deviation of the embedding that `craft` makes; that of a trained vit_t is 0.1.
EMBEDDING_SIZE = 0.1


def load(checkpoint, device="cpu"):
    """The predictor, the segmentation decoder (or None) and the model's name, which is read from the checkpoint's tensors."""
    import torch
    from micro_sam.util import get_sam_model

    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    keys = state.get("model_state", state)
    name = "vit_t" if "image_encoder.patch_embed.seq.0.c.weight" in keys else "vit_b"
    predictor, state = get_sam_model(name, checkpoint_path=checkpoint, device=device, return_state=True)
    decoder = None
    if "decoder_state" in state:
        from micro_sam.instance_segmentation import get_decoder

        decoder = get_decoder(predictor.model.image_encoder, state["decoder_state"], device=device)
    return predictor, decoder, name


def precision(name):
    import torch

    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else contextlib.nullcontext()


def time_decoder(arguments):
    """`predict_torch` without the step to full size: prompt encoder and mask decoder, one point a prompt, one mask."""
    import torch

    predictor, _, _ = load(arguments.paths[0])
    model = predictor.model
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn((1, 256, 64, 64), generator=generator)
    positions = model.prompt_encoder.get_dense_pe()
    found = {}
    for batch in map(int, arguments.paths[1:]):
        points = torch.rand((batch, 1, 2), generator=generator) * 1024
        labels = torch.ones((batch, 1), dtype=torch.int)

        def decode():
            sparse, dense = model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
            return model.mask_decoder(
                image_embeddings=embedding, image_pe=positions, sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense, multimask_output=False,
            )

        with torch.no_grad(), precision(arguments.precision):
            decode()
            repeats = max(1, 16 // batch)
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                decode()
            found[batch] = [
                (time.perf_counter() - start) / repeats / batch, (time.process_time() - cpu) / repeats / batch,
            ]
    print(json.dumps(found))


def segment(arguments):
    """As micro_sam's `automatic_segmentation` does: encode, decode, generate, write."""
    import imageio.v3 as iio
    import tifffile
    import torch
    from micro_sam.instance_segmentation import AutomaticMaskGenerator, AutomaticPromptGenerator
    from micro_sam.util import mask_data_to_segmentation, precompute_image_embeddings

    checkpoint, image, out = arguments.paths
    predictor, decoder, _ = load(checkpoint)
    pixels = iio.imread(image)
    with torch.no_grad(), precision(arguments.precision):
        embeddings = precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False)
        if arguments.task == "apg":
            generator = AutomaticPromptGenerator(predictor, decoder)
            generator.initialize(pixels, image_embeddings=embeddings)
            labels = generator.generate(batch_size=arguments.batch)
        else:
            generator = AutomaticMaskGenerator(predictor)
            generator.initialize(pixels, image_embeddings=embeddings)
            labels = generator.generate(pred_iou_thresh=0.0, stability_score_thresh=0.0)
            if isinstance(labels, list):  # older releases give the masks
                labels = mask_data_to_segmentation(labels, shape=pixels.shape[:2], min_object_size=0)
    tifffile.imwrite(out, labels.astype("uint32"), compression="zlib")


def craft(arguments):
    """Seeded weights give maps without a single prompt and masks of noise. Three things are put in their place, so that an image
    costs what an image of cells costs; both programs compute all of the network, and the same numbers:

    - the prompt encoder and mask decoder are a trained vit_t's,
    - the encoder's last norm is scaled so that its output has about the size that decoder was trained on and no mean: its masks
      are then blobs of some hundred to some thousand pixels around their point,
    - the last layer of the instance decoder: foreground everywhere, boundary distance small everywhere, and the centre distance
      one channel of the features against a threshold, chosen so that one image gives about as many prompts as wanted.
    """
    import imageio.v3 as iio
    import numpy as np
    import torch
    from micro_sam.util import precompute_image_embeddings
    from scipy.ndimage import label

    checkpoint, trained, image, out, wanted = arguments.paths
    wanted = int(wanted)
    pixels = iio.imread(image)
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    model = state["model_state"]
    decoders = torch.load(trained, map_location="cpu", weights_only=False)
    model.update({key: value for key, value in decoders.items() if key.startswith(("mask_decoder", "prompt_encoder"))})
    predictor, decoder, name = load(checkpoint)
    kept = {}
    last = decoder.out_conv
    hook = last.register_forward_pre_hook(lambda module, inputs: kept.update(features=inputs[0].detach()))
    norm = predictor.model.image_encoder.neck[3]
    with torch.no_grad():
        precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False)
        embedding = predictor.features
        mean = embedding.mean((0, 2, 3))
        norm.weight *= EMBEDDING_SIZE
        norm.bias.copy_((norm.bias - mean) * EMBEDDING_SIZE)
        embedding = (embedding - mean[:, None, None]) * EMBEDDING_SIZE
        decoder(embedding, tuple(predictor.input_size), tuple(predictor.original_size))
    hook.remove()
    for part in ("weight", "bias"):
        model[f"image_encoder.neck.3.{part}"] = getattr(norm, part).detach().clone()
    features = kept["features"][0].numpy()
    best = None
    # The features come out of a ReLU; where one is large, a centre is near.
    for channel, values in enumerate(features[:24]):
        for threshold in np.quantile(values[::4, ::4], np.arange(0.5, 0.99, 0.04)):
            count = label(values > threshold)[1] if threshold > 0 else 0
            if best is None or abs(count - wanted) < abs(best[0] - wanted):
                best = (count, channel, float(threshold))
    count, channel, threshold = best
    weight = torch.zeros_like(last.weight)
    weight[1, channel] = -1
    state["decoder_state"]["out_conv.weight"] = weight
    state["decoder_state"]["out_conv.bias"] = torch.tensor([10.0, threshold, -10.0])
    torch.save(state, out)
    print(json.dumps({"model": name, "prompts": count, "channel": channel}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("decoder", "apg", "amg", "craft", "import"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.task == "import":
        import micro_sam.instance_segmentation  # noqa: F401
    else:
        {"decoder": time_decoder, "apg": segment, "amg": segment, "craft": craft}[arguments.task](arguments)


if __name__ == "__main__":
    main()
