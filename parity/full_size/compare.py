"""Runs `cytomask` on what `reference.py` kept and prints how far it is from upstream; exit code 1 if too far.

    python parity/full_size/compare.py DIR --cytomask target/release/cytomask
    python parity/full_size/compare.py DIR --cytomask ... --only vit_t/blobs_97x131 --keep OUTPUTS

Needs numpy, scipy, safetensors and tifffile; neither torch nor micro_sam. Columns: `max` is max|a-b| / max|b|, `l2`
is |a-b| / |b| (b is upstream's), `limit` bounds both. For label images the mean over one side's objects of the best
IoU with any object of the other, both ways, and the two counts; `same` says that only the numbering differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from safetensors.numpy import load_file

# Largest accepted error of a stage, for both measures. `normalized` is exact up to the rounding of one division.
LIMITS = {
    "normalized": 1e-6,
    "embedding": 1e-3,
    "fields": 1e-3,
    "low_res_logits": 1e-3,
    "predicted_iou": 1e-3,
}
# Smallest accepted mean best IoU of label images, in both directions.
LABEL_LIMIT = 0.995

BOOLEAN_FLAGS = ("multimasking", "intersection_over_min", "refine_with_box_prompts")


class Table:
    """Prints a row as soon as it is known and remembers failures."""

    def __init__(self):
        self.rows: list[dict] = []
        print(f"{'what':<46}{'stage':<26}{'max':>11}{'l2':>11}{'limit':>10}  result", flush=True)

    def tensor(self, what: str, stage: str, found: np.ndarray | None, expected: np.ndarray, limit: float | None) -> None:
        if found is None or found.shape != expected.shape:
            shape = "absent" if found is None else f"shape {list(found.shape)}, not {list(expected.shape)}"
            return self.failure(what, stage, shape)
        if not np.isfinite(found).all():
            return self.failure(what, stage, f"{int((~np.isfinite(found)).sum())} values are not finite")
        difference = found.astype(np.float64) - expected
        largest = np.abs(difference).max() / max(np.abs(expected).max(), 1e-30)
        norm = np.linalg.norm(difference) / max(np.linalg.norm(expected.astype(np.float64)), 1e-30)
        good = limit is None or (largest <= limit and norm <= limit)
        self._row(what, stage, f"{largest:>11.2e}{norm:>11.2e}", limit, good, {"max": float(largest), "l2": float(norm)})

    def labels(self, what: str, found: np.ndarray, expected: np.ndarray, limit: float | None) -> None:
        if found.shape != expected.shape:
            return self.failure(what, "labels", f"shape {list(found.shape)}, not {list(expected.shape)}")
        recall, precision, counts, same = compare_labels(found, expected)
        good = limit is None or min(recall, precision) >= limit
        note = f"{counts[0]} / {counts[1]} objects" + (", same" if same else "")
        values = {"recall": recall, "precision": precision, "objects": counts[0], "expected": counts[1], "same": same}
        self._row(what, f"labels {note}", f"{precision:>11.5f}{recall:>11.5f}", limit, good, values)

    def failure(self, what: str, stage: str, message: str) -> None:
        self.rows.append({"what": what, "stage": stage, "failed": True, "message": message})
        print(f"{what:<46}{stage:<26}{'':>32}  FAILED: {message}", flush=True)

    def _row(self, what, stage, numbers, limit, good, values) -> None:
        result = "for information" if limit is None else "ok" if good else "FAILED"
        shown = "" if limit is None else f"{limit:g}"
        self.rows.append({"what": what, "stage": stage, "failed": not good, "limit": limit, **values})
        width = max(26, len(stage) + 1)
        print(f"{what:<46}{stage:<{width}}{numbers}{shown:>10}  {result}", flush=True)


def compare_labels(found: np.ndarray, expected: np.ndarray) -> tuple[float, float, tuple[int, int], bool]:
    """Mean best IoU of the expected objects, of the found objects, the counts, and equality up to numbering."""
    found_ids, found_index = np.unique(found, return_inverse=True)
    expected_ids, expected_index = np.unique(expected, return_inverse=True)
    table = np.zeros((len(found_ids), len(expected_ids)), np.int64)
    np.add.at(table, (found_index.ravel(), expected_index.ravel()), 1)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = (table / union)[np.ix_(found_ids > 0, expected_ids > 0)]
    counts = iou.shape
    if 0 in counts:
        both_empty = float(counts[0] == counts[1])
        return both_empty, both_empty, counts, bool(both_empty)
    # One cell in each row and column, and background meeting background only.
    same = bool(((table > 0).sum(0) == 1).all() and ((table > 0).sum(1) == 1).all() and (iou.max(1) == 1).all())
    return float(iou.max(0).mean()), float(iou.max(1).mean()), counts, same


class Cytomask:
    """The program under test. Everything that depends on its command line is here."""

    def __init__(self, binary: Path, root: Path, outputs: Path, extra: list[str]):
        self.binary, self.root, self.outputs, self.extra = binary, root, outputs, extra
        self.seconds = 0.0

    def run(self, *arguments: object) -> None:
        command = [str(self.binary), *map(str, arguments), *self.extra]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        self.seconds = time.perf_counter() - start
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["(no message)"])[-1]
            raise RuntimeError(f"exit code {done.returncode} from `{' '.join(command)}`: {last}")

    def dump(self, image: str, model: str, decoder: str | None, prompts: str | None, multimask: bool) -> dict:
        stages = self.outputs / "stages.safetensors"
        stages.unlink(missing_ok=True)
        arguments = ["dump", self.root / image, "--model", self.root / model, "--stages", stages, "--compat"]
        arguments += ["--decoder", self.root / decoder] if decoder else []
        arguments += ["--prompts", self.root / prompts] if prompts else []
        arguments += ["--multimask"] if multimask else []
        self.run(*arguments)
        return load_file(str(stages))

    def segment(self, image: str, model: str, mode: str, fields: str | None, settings: dict, name: str) -> np.ndarray:
        folder = self.outputs / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.rglob("*.tif"):
            old.unlink()
        arguments = ["segment", self.root / image, "--output", folder, "--model", self.root / model, "--mode", mode]
        arguments += ["--compat", "--no-overlay", "--tile_shape", "0"]
        arguments += ["--fields", self.root / fields] if fields else []
        # Upstream's mask generator drops no small objects.
        arguments += ["--min_size", "0"] if mode == "amg" else []
        for key, value in settings.items():
            if key in BOOLEAN_FLAGS:
                arguments += [f"--{key}"] if value else []
            else:
                arguments += [f"--{key}", value]
        self.run(*arguments)
        written = sorted(folder.rglob("*.tif"))
        if len(written) != 1:
            raise RuntimeError(f"expected one label TIFF below {folder}, found {[path.name for path in written]}")
        return tifffile.imread(written[0])


def compare_stages(table: Table, program: Cytomask, manifest: dict, key: str) -> None:
    """All stages of one model on one image."""
    case = manifest["stages"][key]
    expected = load_file(str(program.root / case["file"]))
    model, image = manifest["models"][case["model"]], manifest["images"][case["image"]]
    if case.get("transposed"):
        found = program.dump(image["file"], model["transposed"], None, None, multimask=False)
        table.tensor(key, "fields", found.get("fields"), expected["fields"], LIMITS["fields"])
        return
    found = program.dump(image["file"], model["main"], None, image["prompts"], multimask=False)
    print(f"  ({key}: {program.seconds:.1f} s)", flush=True)
    for stage in ("normalized", "embedding", "fields"):
        if stage in expected:
            table.tensor(key, stage, found.get(stage), expected[stage], LIMITS[stage])
    if "embedding_stale_biases" in expected:
        stale = expected["embedding_stale_biases"]
        table.tensor(key, "embedding, as micro_sam", found.get("embedding"), stale, None)
    # One mask a prompt is upstream's output 0, three are its outputs 1 to 3; four (all) would be fine as well.
    masks = {1: slice(0, 1), 3: slice(1, 4), 4: slice(0, 4)}
    first = found.get("low_res_logits")
    again = first is not None and first.shape[1] == 1
    runs = [found, program.dump(image["file"], model["main"], None, image["prompts"], multimask=True)] if again else [found]
    for run in runs:
        count = run["low_res_logits"].shape[1] if "low_res_logits" in run else 0
        for stage in ("low_res_logits", "predicted_iou"):
            chosen = expected[stage][:, masks.get(count, slice(0, 4))]
            table.tensor(key, f"{stage} x{count}", run.get(stage), chosen, LIMITS[stage])


def compare_layouts(table: Table, program: Cytomask, manifest: dict, name: str) -> None:
    """The same weights in the other files that upstream writes; embedding and decoder maps of the first image."""
    model = manifest["models"][name]
    image = next(iter(manifest["images"]))
    expected = load_file(str(program.root / manifest["stages"][f"{name}/{image}"]["file"]))
    for layout, (file, decoder) in model["layouts"].items():
        key = f"{name}/{image}/{layout}"
        try:
            found = program.dump(manifest["images"][image]["file"], file, decoder, None, multimask=False)
        except RuntimeError as error:
            table.failure(key, "layout", str(error))
            continue
        for stage in ("embedding", "fields"):
            table.tensor(key, stage, found.get(stage), expected[stage], LIMITS[stage])


def compare_case(table: Table, program: Cytomask, manifest: dict, key: str) -> None:
    """One label image."""
    case = manifest["labels"][key]
    model, image = manifest["models"][case["model"]], manifest["images"][case["image"]]
    fields = image["fields"] if case["maps"] == "known" else None
    found = program.segment(image["file"], model["main"], case["mode"], fields, case["settings"], key)
    expected = tifffile.imread(program.root / case["file"])
    table.labels(key, found, expected, None if case["information_only"] else LABEL_LIMIT)


def self_test() -> None:
    """The measures themselves, on cases small enough to check by hand."""
    expected = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    assert compare_labels(np.array([[7, 7, 0, 3], [7, 7, 0, 3]]), expected) == (1.0, 1.0, (2, 2), True)
    # Object 1 loses one of its four pixels, object 2 is missed: best IoUs 0.75 and 0 from one side, 0.75 from the other.
    assert compare_labels(np.array([[5, 5, 0, 0], [5, 0, 0, 0]]), expected) == (0.375, 0.75, (1, 2), False)
    # An object that covers everything meets object 1 in 4 of 8 pixels.
    assert compare_labels(np.ones((2, 4), int), expected) == ((0.5 + 0.25) / 2, 0.5, (1, 2), False)
    assert compare_labels(np.zeros((2, 4), int), expected)[:2] == (0.0, 0.0)
    assert compare_labels(np.zeros((2, 4), int), np.zeros((2, 4), int)) == (1.0, 1.0, (0, 0), True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the folder reference.py wrote")
    parser.add_argument("--cytomask", type=Path, required=True, help="the program to test")
    parser.add_argument("--only", nargs="+", default=[""], help="keys to run, by their beginning (vit_t, vit_t/blobs...)")
    parser.add_argument("--skip", nargs="+", default=[], help="words of keys to leave out (amg_32, vit_h, ...)")
    parser.add_argument("--no-stages", action="store_true", help="only label images")
    parser.add_argument("--no-labels", action="store_true", help="only stages")
    parser.add_argument("--keep", type=Path, help="folder for what cytomask writes")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--device", default="cpu", help="where cytomask runs the network")
    arguments = parser.parse_args()

    self_test()
    manifest = json.loads((arguments.directory / "manifest.json").read_text())
    root = arguments.directory.resolve()

    def chosen(key: str) -> bool:
        return any(key.startswith(start) for start in arguments.only) and not any(word in key for word in arguments.skip)

    with tempfile.TemporaryDirectory() as temporary:
        outputs = arguments.keep or Path(temporary)
        outputs.mkdir(parents=True, exist_ok=True)
        program = Cytomask(arguments.cytomask.resolve(), root, outputs, ["--device", arguments.device])
        table = Table()
        steps = []
        if not arguments.no_stages:
            steps += [(key, "stages", compare_stages) for key in manifest["stages"] if chosen(key)]
            for name, model in manifest["models"].items():
                first = f"{name}/{next(iter(manifest['images']))}"
                if model["layouts"] and first in manifest["stages"] and chosen(first):
                    steps.append((name, "layout", compare_layouts))
        if not arguments.no_labels:
            steps += [(key, "labels", compare_case) for key in manifest["labels"] if chosen(key)]
        for key, stage, step in steps:
            try:
                step(table, program, manifest, key)
            except (RuntimeError, OSError) as error:
                table.failure(key, stage, str(error))

    failures = sum(row["failed"] for row in table.rows)
    print(f"{len(table.rows)} comparisons, {failures} failed")
    if arguments.json:
        arguments.json.write_text(json.dumps(table.rows, indent=1) + "\n")
    if not table.rows:
        print("nothing was compared: see --only and --skip", file=sys.stderr)
        return 2
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
