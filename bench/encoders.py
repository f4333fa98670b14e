"""Image encoders and the instance decoder on the CPU: cytomask against PyTorch, ONNX Runtime and rten, same weights, same
input.

`python bench/encoders.py --weights FOLDER [--models vit_b vit_t ...] [--rounds 5] [--threads 2] [--side 1024]`

FOLDER holds `vit_b_with_decoder.pt`, `vit_t_with_decoder.pt`, `vit_l.pth`, `vit_h.pth` (those that lack are left out).
Needs torch and segment_anything; vit_t also mobile_sam (`--mobile_sam CLONE` where it is not installed), the instance
decoder micro_sam and torch_em, the ONNX rows onnx and onnxruntime, the rten row `bench/rten` built
(`cargo build --release --manifest-path bench/rten/Cargo.toml`); both read the same ONNX
file of the ViT-B encoder.

Each round runs every contestant once, one after the other, each in a process of its own: it loads, computes once (which
prepares weights, fills caches) and is timed while it computes again. Medians over the rounds with their extremes; `CPU s`
counts all threads; `peak` is the most memory the process ever held. The last columns are PyTorch f32 over the contestant.
Largest differences of the outputs from PyTorch's and the root of their mean square over that of PyTorch's are said, so that all
are known to compute the same, those with fewer bits to their precision.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = {"vit_b": "vit_b_with_decoder.pt", "vit_t": "vit_t_with_decoder.pt", "vit_l": "vit_l.pth", "vit_h": "vit_h.pth"}
CONTESTANTS = ("cytomask", "cytomask-bf16", "cytomask-int8", "torch-f32", "torch-bf16", "onnx-f32", "rten-f32")
ONNX = ("onnx-f32", "rten-f32")


def worker(contestant, model, stage, path, side, save):
    """Times one computation of a peer; prints a line of JSON."""
    import numpy as np
    import torch

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    state = torch.load(path, map_location="cpu", weights_only=False)
    weights = state.get("model_state", state)
    numbers = (37 * np.arange(3 * side * side, dtype=np.int64) % 251).astype(np.float32) / 125 - 1
    network, inputs = build_encoder(model, weights), torch.from_numpy(numbers.reshape(1, 3, side, side))
    if stage == "instance_decoder":
        # Any embedding will do for the time; the encoder's own is not computed here.
        network = build_decoder(state["decoder_state"])
        inputs = torch.from_numpy(np.fromfile(save / "embedding.f32", np.float32).reshape(1, 256, side // 16, side // 16))
    file = save / f"{model}-{stage}.onnx"
    if contestant in ONNX and not file.exists():
        with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
            torch.onnx.export(network, (inputs,), file, dynamo=False, opset_version=17)
    if contestant == "rten-f32":
        inputs.numpy().tofile(file.with_suffix(".input"))
        return
    if contestant == "onnx-f32":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        del network
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        name, feed = session.get_inputs()[0].name, inputs.numpy()
        run = lambda: session.run(None, {name: feed})[0]
    else:
        half = contestant == "torch-bf16"
        kind = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()

        def run():
            with torch.inference_mode(), kind:
                return network(inputs).float().numpy()

    run()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    output = run()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    output.astype(np.float32).tofile(save / f"{contestant}-{stage}.f32")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mib": after.ru_maxrss / 1024}))


def build_encoder(model, weights):
    weights = {key.removeprefix("image_encoder."): value for key, value in weights.items() if key.startswith("image_encoder.")}
    if model == "vit_t":
        from mobile_sam import sam_model_registry
    else:
        from segment_anything import sam_model_registry
    encoder = sam_model_registry[model](checkpoint=None).image_encoder
    missing = encoder.load_state_dict(weights, strict=False).missing_keys
    assert all(key.startswith(("head.", "norm_head.")) or "attention_bias_idxs" in key for key in missing), missing
    return encoder.eval()


def build_decoder(weights):
    import torch
    from micro_sam.instance_segmentation import DecoderAdapter
    from torch_em.model import UNETR

    class NoEncoder(torch.nn.Module):
        in_chans = 3

    transposed = any("deconv1.block.0.block" in key for key in weights)
    unetr = UNETR(
        backbone="sam", encoder=NoEncoder(), out_channels=3, use_sam_stats=True, final_activation="Sigmoid",
        use_skip_connection=False, resize_input=True, use_conv_transpose=transposed, embed_dim=256,
    )
    decoder = DecoderAdapter(unetr)
    decoder.load_state_dict(weights)

    class Forward(torch.nn.Module):
        """What µSAM computes, as `forward`; in training mode, as µSAM leaves it."""

        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, x):
            return self.decoder._forward_impl(x)

    return Forward().train()


def measure(contestant, model, stage, path, options, folder):
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "RTEN_NUM_THREADS"):
        environment[name] = str(options.threads)
    ours = contestant.startswith("cytomask")
    if ours:
        command = [options.stages, path, "--side", options.side, "--runs", 2, "--stage", stage, "--save", folder / contestant]
        command += ["--precision", contestant.partition("-")[2] or "f32"]
    else:
        command = [sys.executable, __file__, "--worker", contestant, model, stage, path, options.side, folder]
        if options.mobile_sam:
            environment["PYTHONPATH"] = os.pathsep.join([str(options.mobile_sam), environment.get("PYTHONPATH", "")])
    if contestant == "rten-f32":
        # Python only makes the network's file and the input.
        file = folder / f"{model}-{stage}.onnx"
        if not file.with_suffix(".input").exists():
            subprocess.run([str(part) for part in command], env=environment, check=True)
        side = options.side // 16 if stage == "instance_decoder" else options.side
        command = [options.rten, file, file.with_suffix(".input"), side, folder / f"{contestant}-{stage}.f32"]
    done = subprocess.run([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not ours:
        return lines[-1]
    run = [line for line in lines if line.get("stage") == stage][-1]
    return {"wall_s": run["wall_s"], "cpu_s": run["user_s"] + run["system_s"], "peak_mib": lines[-1]["peak_mib"]}


def difference(folder, contestant, stage):
    import numpy as np

    ours = contestant.startswith("cytomask")
    file = folder / contestant / f"{stage}.f32" if ours else folder / f"{contestant}-{stage}.f32"
    expected = folder / f"torch-f32-{stage}.f32"
    if not (file.exists() and expected.exists()):
        return float("nan"), float("nan")
    found, expected = (np.fromfile(name, np.float32) for name in (file, expected))
    return float(np.abs(found - expected).max()), float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def compare(model, stage, path, options, folder):
    found = {name: [] for name in options.contestants if name not in ONNX or (model, stage) == ("vit_b", "encoder")}
    for _ in range(options.rounds):
        for name in list(found):
            try:
                found[name].append(measure(name, model, stage, path, options, folder))
            except (OSError, subprocess.CalledProcessError, json.JSONDecodeError, IndexError) as error:
                print(f"{model} {stage}: {name} left out: {error}", file=sys.stderr)
                del found[name]
    torch = found.get("torch-f32")
    for name, runs in found.items():
        column = lambda key, of=runs: [run[key] for run in of]
        largest, relative = difference(folder, name, stage)
        ratio = lambda key: statistics.median(a[key] / b[key] for a, b in zip(torch, runs)) if torch else float("nan")
        print(
            f"| {model} | {stage} | {name} | {spread(column('wall_s'))} | {spread(column('cpu_s'))} "
            f"| {max(column('peak_mib')):.0f} | {ratio('wall_s'):.2f} | {ratio('cpu_s'):.2f} | {largest:.1e} | {relative:.1e} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, default=os.environ.get("WEIGHTS"))
    parser.add_argument("--models", nargs="+", default=list(FILES))
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", 5)))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("THREADS", 2)))
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--mobile_sam", type=pathlib.Path, default=os.environ.get("MOBILE_SAM"))
    parser.add_argument("--stages", type=pathlib.Path, default=ROOT / "target" / "release" / "examples" / "stages")
    parser.add_argument("--rten", type=pathlib.Path, default=ROOT / "bench" / "rten" / "target" / "release" / "rten-peer")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        contestant, model, stage, path, side, save = options.worker
        return worker(contestant, model, stage, path, int(side), pathlib.Path(save))
    if options.weights is None:
        parser.error("--weights FOLDER (or WEIGHTS) is needed")
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        grid = 256 * (options.side // 16) ** 2
        np.sin(np.arange(grid, dtype=np.float64) * 0.37).astype(np.float32).tofile(folder / "embedding.f32")
        print("| model | stage | program | wall s | CPU s | peak MiB | × wall | × CPU | largest difference | relative error |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for model in options.models:
            path = options.weights / FILES[model]
            if not path.exists():
                continue
            compare(model, "encoder", path, options, folder)
            if path.suffix == ".pt" and model == "vit_b":
                compare(model, "instance_decoder", path, options, folder)


if __name__ == "__main__":
    main()
