"""Runs upstream's Python at full size and keeps its inputs, weights and outputs for `compare.py`.

    python parity/full_size/reference.py --out DIR
    python parity/full_size/reference.py --out DIR --models vit_t vit_b --weights vit_t=mobile_sam.pt --data DATA

Models without `--weights` get weights computed from the names of their tensors (`parity/seeded.py`), so nothing has
to be downloaded. vit_t and vit_b see every image, vit_l and vit_h the smallest one. What DIR already holds is not
computed again (it is named on the way); remove it or pass `--force` to begin anew.

DIR/manifest.json names everything else: images/, prompts/, fields/ (decoder maps of known objects), weights/,
reference/MODEL/IMAGE.safetensors (tensors of the stages) and labels/ (TIFF). Peak memory is about 1.5 times the
weights of the largest model plus 6 GB; `--threads` bounds the cores.

What is upstream's choice and looks odd is kept: the instance decoder runs with batch statistics. One oddity is
not: see `upstream.refresh_attention_biases`; the embedding as micro_sam gives it is kept beside the right one.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import scenes  # noqa: E402

warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", category=UserWarning)

# Real images used when --data is given: `<set>/<stem>`.
REAL_IMAGES = (
    "dsb2018_test/0ed3555a4bd48046",
    "dsb2018_test/0f1f896d9ae5a047",
    "tnbc/tnbc_01_1",
    "usiigaci_test/val_set46",
)
EVERY_IMAGE = ("vit_t",)
# Cases that real images run; drawn ones run all.
REAL_CASES = ("ais", "ais_lm", "apg", "apg_multimask", "amg_8_lm")
SMALLEST_ONLY = ("vit_l", "vit_h")

AIS_DEFAULTS = {
    "center_distance_threshold": 0.5,
    "boundary_distance_threshold": 0.5,
    "foreground_threshold": 0.5,
    "foreground_smoothing": 1.0,
    "distance_smoothing": 1.6,
    "min_size": 0,
}
APG_DEFAULTS = {
    "min_size": 25,
    "center_distance_threshold": 0.5,
    "boundary_distance_threshold": 0.5,
    "foreground_threshold": 0.5,
    "multimasking": False,
    "nms_threshold": 0.9,
    "intersection_over_min": False,
    "refine_with_box_prompts": False,
}
# Prompts decoded together; changes nothing but the time, and few are quickest on a CPU.
BATCH_SIZE = 4
AMG_DEFAULTS = {
    "points_per_side": 32,
    "pred_iou_thresh": 0.88,
    "stability_score_thresh": 0.95,
    "box_nms_thresh": 0.7,
    "min_mask_region_area": 0,
}
# name → (mode, changed settings). AIS and APG run on decoder maps of known objects, which need no trained decoder.
LABEL_CASES = {
    "ais": ("ais", {}),
    "ais_lm": ("ais", {"center_distance_threshold": 0.4, "distance_smoothing": 2.0, "min_size": 100}),
    "ais_raw": ("ais", {"foreground_smoothing": 0.0, "distance_smoothing": 0.0}),
    "apg": ("apg", {}),
    "apg_multimask": ("apg", {"multimasking": True, "nms_threshold": 0.5}),
    "apg_min": ("apg", {"intersection_over_min": True, "nms_threshold": 0.6, "min_size": 50}),
    "apg_refine": ("apg", {"refine_with_box_prompts": True}),
    "apg_auto": ("apg", {"mask_threshold": "auto"}),
    "amg_8": ("amg", {"points_per_side": 8}),
    "amg_8_lm": ("amg", {"points_per_side": 8, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.65}),
    "amg_8_clean": (
        "amg",
        {
            "points_per_side": 8,
            "pred_iou_thresh": 0.6,
            "stability_score_thresh": 0.65,
            "min_mask_region_area": 40,
        },
    ),
    "amg_32": ("amg", {}),
}
DEFAULTS = {"ais": AIS_DEFAULTS, "apg": APG_DEFAULTS, "amg": AMG_DEFAULTS}


class Store:
    """DIR and its manifest, which is written after every result so that an interrupted run can go on."""

    def __init__(self, root: Path, force: bool):
        self.root, self.force = root, force
        root.mkdir(parents=True, exist_ok=True)
        self.path = root / "manifest.json"
        empty = {"images": {}, "models": {}, "stages": {}, "labels": {}, "timings": {}, "versions": {}}
        self.data = json.loads(self.path.read_text()) if self.path.exists() and not force else empty

    def has(self, section: str, key: str, file: str) -> bool:
        """Whether a result is there already; says so."""
        there = key in self.data[section] and (self.root / file).exists()
        if there:
            print(f"  kept   {section[:-1]} {key}", flush=True)
        return there

    def add(self, section: str, key: str, value: dict) -> None:
        self.data[section][key] = value
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")

    def time(self, key: str, seconds: float) -> None:
        self.data["timings"][key] = round(seconds, 3)
        print(f"  {seconds:7.2f} s  {key}", flush=True)

    def file(self, relative: str) -> Path:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_image(store: Store, name: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Image, true labels, prompts and decoder maps of known objects."""
    import imageio.v3 as iio
    import tifffile
    from safetensors.numpy import save_file

    suffix = "tif" if pixels.dtype == np.uint16 else "png"
    files = {
        "file": f"images/{name}.{suffix}",
        "truth": f"truth/{name}.tif",
        "prompts": f"prompts/{name}.json",
        "fields": f"fields/{name}.safetensors",
    }
    if suffix == "tif":
        tifffile.imwrite(store.file(files["file"]), pixels, photometric="minisblack", compression="deflate")
    else:
        iio.imwrite(store.file(files["file"]), pixels)
    tifffile.imwrite(store.file(files["truth"]), labels.astype(np.uint32), compression="deflate")
    store.file(files["prompts"]).write_text(json.dumps(scenes.prompts_for(labels), indent=1) + "\n")
    save_file({"fields": scenes.fields_for(labels, name)}, str(store.file(files["fields"])))
    store.add("images", name, {**files, "shape": list(pixels.shape), "objects": int(labels.max())})


def make_images(store: Store, data: Path | None) -> None:
    import imageio.v3 as iio
    import tifffile

    for name, draw in scenes.BUILT_IN.items():
        if not store.has("images", name, f"fields/{name}.safetensors"):
            write_image(store, name, *draw())
    for entry in REAL_IMAGES if data else ():
        group, stem = entry.split("/")
        image, truth = data / group / "images" / f"{stem}.png", data / group / "labels" / f"{stem}.tif"
        if not image.exists():
            print(f"  absent {image}: skipped")
        elif not store.has("images", stem, f"fields/{stem}.safetensors"):
            write_image(store, stem, iio.imread(image), scenes.consecutive(tifffile.imread(truth).astype(np.uint32)))


def make_weights(store: Store, model_type: str, given: Path | None) -> None:
    """The weights in the official container, and for vit_t and vit_b in µSAM's layouts with a decoder."""
    import torch

    import upstream

    suffix = "pt" if model_type == "vit_t" else "pth"
    entry = {"type": model_type, "file": f"weights/{model_type}.{suffix}", "layouts": {}}
    if store.has("models", model_type, entry["file"]):
        return
    start = time.perf_counter()
    model, trained = upstream.read_state(given) if given else (upstream.seeded_sam(model_type), None)
    entry["origin"] = given.name if given else "seeded"
    entry["trained_decoder"] = trained is not None
    torch.save(model, store.file(entry["file"]))
    if model_type not in SMALLEST_ONLY:
        decoder = trained if trained is not None else upstream.seeded_decoder(transposed=False)
        files = {
            name: f"weights/{model_type}_{name}.pt" for name in ("with_decoder", "decoder", "training", "transposed")
        }
        torch.save({"model_state": model, "decoder_state": decoder}, store.file(files["with_decoder"]))
        torch.save(decoder, store.file(files["decoder"]))
        torch.save(upstream.training_checkpoint(model, decoder), store.file(files["training"]))
        torch.save(
            {"model_state": model, "decoder_state": upstream.seeded_decoder(transposed=True)},
            store.file(files["transposed"]),
        )
        # What compare.py opens for all stages, and the other layouts of the same weights, tried on the first image.
        entry["main"] = files["with_decoder"]
        entry["layouts"] = {
            "flat+decoder": [entry["file"], files["decoder"]],
            "training": [files["training"], None],
        }
        entry["transposed"] = files["transposed"]
    else:
        entry["main"] = entry["file"]
    store.time(f"{model_type}/write weights", time.perf_counter() - start)
    store.add("models", model_type, entry)


class Stopwatch:
    def __init__(self, store: Store, key: str):
        self.store, self.key = store, key

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        self.store.time(self.key, time.perf_counter() - self.start)


def decode_prompts(predictor, prompts: list[dict]):
    """All four mask logits `[P, 4, 256, 256]` and IoU estimates `[P, 4]`: output 0, then the multimask outputs."""
    import torch

    size = predictor.original_size
    logits, ious = [], []
    for prompt in prompts:
        coordinates = labels = box = None
        if prompt["points"]:
            points = np.array(prompt["points"], np.float64)
            coordinates = predictor.transform.apply_coords(points[:, :2], size)
            coordinates = torch.as_tensor(coordinates, dtype=torch.float)[None]
            labels = torch.as_tensor(points[:, 2], dtype=torch.int)[None]
        if prompt["box"] is not None:
            box = predictor.transform.apply_boxes(np.array(prompt["box"]), size)
            box = torch.as_tensor(box, dtype=torch.float)
        parts = [
            predictor.predict_torch(coordinates, labels, box, multimask_output=multimask, return_logits=True)
            for multimask in (False, True)
        ]
        logits.append(torch.cat([part[2] for part in parts], dim=1))
        ious.append(torch.cat([part[1] for part in parts], dim=1))
    return torch.cat(logits).numpy(), torch.cat(ious).numpy()


def preprocessed(predictor, pixels: np.ndarray) -> np.ndarray:
    """The network's input `[3, 1024, 1024]`: µSAM's conversion, SAM's resizing, normalisation and padding."""
    import torch
    from micro_sam.util import _to_image

    resized = predictor.transform.apply_image(_to_image(pixels))
    tensor = torch.as_tensor(resized).permute(2, 0, 1).contiguous()[None]
    return predictor.model.preprocess(tensor)[0].numpy()


def embed(predictor, pixels: np.ndarray):
    from micro_sam.util import precompute_image_embeddings

    return precompute_image_embeddings(predictor, pixels, ndim=2, verbose=False)


def run_stages(store: Store, model_type: str, image: str, predictor, decoder, stale) -> None:
    """Tensors of every stage of one model on one image; `stale` is a predictor with micro_sam's stale biases."""
    import torch
    from safetensors.numpy import save_file

    key = f"{model_type}/{image}"
    file = f"reference/{key}.safetensors"
    if store.has("stages", key, file):
        return
    entry = store.data["images"][image]
    pixels = read_pixels(store, image)
    tensors = {}
    with torch.no_grad():
        tensors["normalized"] = preprocessed(predictor, pixels)
        if stale is not None:
            tensors["embedding_stale_biases"] = embed(stale, pixels)["features"]
        with Stopwatch(store, f"{key}/encoder"):
            tensors["embedding"] = embed(predictor, pixels)["features"]
        if decoder is not None:
            with Stopwatch(store, f"{key}/decoder"):
                maps = decoder(predictor.features, tuple(predictor.input_size), tuple(predictor.original_size))
            tensors["fields"] = maps[0].numpy()
        prompts = json.loads((store.root / entry["prompts"]).read_text())
        with Stopwatch(store, f"{key}/{2 * len(prompts)} prompts one by one"):
            tensors["low_res_logits"], tensors["predicted_iou"] = decode_prompts(predictor, prompts)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, str(store.file(file)))
    store.add("stages", key, {"model": model_type, "image": image, "file": file})


def run_transposed(store: Store, model_type: str, image: str) -> None:
    """Decoder maps of the decoder that up-samples by transposed convolutions, on one image."""
    import torch
    from safetensors.numpy import save_file

    import upstream

    key = f"{model_type}_transposed/{image}"
    file = f"reference/{key}.safetensors"
    if store.has("stages", key, file):
        return
    predictor, decoder = upstream.load_predictor(model_type, store.root / store.data["models"][model_type]["transposed"])
    upstream.refresh_attention_biases(predictor)
    with torch.no_grad():
        embed(predictor, read_pixels(store, image))
        maps = decoder(predictor.features, tuple(predictor.input_size), tuple(predictor.original_size))
    save_file({"fields": maps[0].numpy()}, str(store.file(file)))
    store.add("stages", key, {"model": model_type, "image": image, "file": file, "transposed": True})


def read_pixels(store: Store, image: str) -> np.ndarray:
    import imageio.v3 as iio
    import tifffile

    path = store.root / store.data["images"][image]["file"]
    return tifffile.imread(path) if path.suffix == ".tif" else iio.imread(path)


def run_labels(store: Store, model_type: str, image: str, cases: list[str], predictor, maps: str, note: str = "") -> None:
    """Label images of `cases`. `maps` is "known" (drawn decoder maps) or "own" (the model's, if it was trained)."""
    import tifffile
    from safetensors.numpy import load_file

    from micro_sam.instance_segmentation import (
        AutomaticMaskGenerator,
        AutomaticPromptGenerator,
        InstanceSegmentationWithDecoder,
    )

    entry = store.data["images"][image]
    pixels, embeddings, grids = None, None, {}
    for case in cases:
        mode, changes = LABEL_CASES[case]
        if "min_mask_region_area" in changes and importlib.util.find_spec("cv2") is None:
            print(f"  skipped {case}: upstream's clean-up needs opencv (cv2), which is not installed", flush=True)
            continue
        settings = {**DEFAULTS[mode], **changes}
        key = f"{model_type}/{image}/{case}" + ("_own" if maps == "own" and mode != "amg" else "") + note
        file = f"labels/{key}.tif"
        if store.has("labels", key, file):
            continue
        if pixels is None and (mode != "ais" or maps == "own"):
            pixels = read_pixels(store, image)
            embeddings = embed(predictor, pixels)
        fields = load_file(str(store.root / entry["fields"]))["fields"]
        if maps == "own":
            fields = load_file(str(store.root / f"reference/{model_type}/{image}.safetensors"))["fields"]
        state = dict(zip(("foreground", "center_distances", "boundary_distances"), fields.copy()))
        if mode == "amg":
            side = settings["points_per_side"]
            if side not in grids:
                grids[side] = AutomaticMaskGenerator(predictor, points_per_side=side, points_per_batch=BATCH_SIZE)
                with Stopwatch(store, f"{model_type}/{image}/amg {side}x{side} initialize"):
                    grids[side].initialize(pixels, image_embeddings=embeddings)
            with Stopwatch(store, f"{key} generate"):
                chosen = {name: value for name, value in settings.items() if name != "points_per_side"}
                labels = grids[side].generate(**chosen)
        elif mode == "ais":
            segmenter = InstanceSegmentationWithDecoder(predictor, None)
            segmenter.set_state(state)
            with Stopwatch(store, f"{key} generate"):
                labels = segmenter.generate(**settings)
        else:
            segmenter = AutomaticPromptGenerator(predictor, None)
            segmenter.set_state(state)
            with Stopwatch(store, f"{key} generate"):
                labels = segmenter.generate(batch_size=BATCH_SIZE, **settings)
        labels = np.asarray(labels).astype(np.uint32)
        tifffile.imwrite(store.file(file), labels, compression="deflate")
        store.add(
            "labels",
            key,
            {
                "model": model_type,
                "image": image,
                "mode": mode,
                "maps": maps if mode != "amg" else None,
                "settings": settings,
                "file": file,
                "objects": int(len(np.unique(labels[labels > 0]))),
                "information_only": bool(note),
            },
        )


def run_model(store: Store, model_type: str, arguments: argparse.Namespace) -> None:
    import upstream

    amg_image, stages_only = arguments.amg_image, arguments.stages_only
    entry = store.data["models"][model_type]
    images = list(store.data["images"])
    if model_type in SMALLEST_ONLY:
        images = images[:1]
    elif model_type not in EVERY_IMAGE:
        images = [image for image in images if image in scenes.BUILT_IN]
    if arguments.images:
        images = [image for image in images if image in arguments.images]
    if not images:
        return
    first = images[0] == next(iter(store.data["images"]))
    with Stopwatch(store, f"{model_type}/load"):
        predictor, decoder = upstream.load_predictor(model_type, store.root / entry["main"])
    was_stale = upstream.refresh_attention_biases(predictor)
    stale = upstream.load_predictor(model_type, store.root / entry["main"])[0] if was_stale else None
    for image in images:
        run_stages(store, model_type, image, predictor, decoder, stale)
    if entry.get("transposed") and first:
        run_transposed(store, model_type, images[0])
    if model_type in SMALLEST_ONLY or stages_only:
        return
    for image in images:
        if model_type in EVERY_IMAGE:
            drawn = image in scenes.BUILT_IN
            cases = [case for case in LABEL_CASES if case != "amg_32" and (drawn or case in REAL_CASES)]
            run_labels(store, model_type, image, cases, predictor, "known")
        if entry["trained_decoder"]:
            run_labels(store, model_type, image, ["ais", "ais_lm", "apg", "apg_multimask"], predictor, "own")
    if model_type not in EVERY_IMAGE and first:
        run_labels(store, model_type, images[0], ["apg", "amg_8_lm"], predictor, "known")
    if stale is not None and first:
        run_labels(store, model_type, images[0], ["apg", "amg_8_lm"], stale, "known", note="_stale_biases")
    if amg_image and model_type in EVERY_IMAGE:
        run_labels(store, model_type, amg_image, ["amg_32"], predictor, "known")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--models", nargs="+", default=["vit_t", "vit_b"], choices=["vit_t", "vit_b", "vit_l", "vit_h"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="TYPE=PATH", help="real weights for a model")
    parser.add_argument("--data", type=Path, help="folder of data sets (<set>/images, <set>/labels) for real images")
    parser.add_argument("--amg-image", help="image on which AMG runs with its default 32×32 grid as well (minutes)")
    parser.add_argument("--images", nargs="+", help="only these images (names without suffix)")
    parser.add_argument("--stages-only", action="store_true", help="no label images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="compute everything again")
    arguments = parser.parse_args()

    weights = dict(entry.split("=", 1) for entry in arguments.weights)
    if unknown := set(weights) - set(arguments.models):
        parser.error(f"--weights for models that do not run: {', '.join(sorted(unknown))}")
    store = Store(arguments.out, arguments.force)
    make_images(store, arguments.data)

    start = time.perf_counter()
    import torch

    import upstream
    import micro_sam.instance_segmentation  # noqa: F401

    store.time("import", time.perf_counter() - start)
    torch.set_num_threads(arguments.threads)
    store.data["versions"] = {**upstream.versions(), "threads": arguments.threads}

    for model_type in arguments.models:
        print(f"{model_type}:", flush=True)
        make_weights(store, model_type, Path(weights[model_type]) if model_type in weights else None)
        gc.collect()
        run_model(store, model_type, arguments)
        gc.collect()
    store.path.write_text(json.dumps(store.data, indent=1) + "\n")
    print(f"wrote {store.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
