"""Times cytomask and upstream's Python by turns, on the same weights, images and threads; prints Markdown tables.

    bench/peers.sh                           the ordinary way; this file is the harness behind it
    python peers.py NAME...                  some of: start decoder builtin apg amg

Everything is told by environment variables, see bench/peers.sh. Each process is measured from outside (wall time, CPU time of
all its threads, peak memory); rounds alternate between the programs, and the ratio is the median of the rounds' ratios.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENV = os.environ
ROUNDS = int(ENV.get("ROUNDS", "3"))
THREADS = ENV.get("THREADS", "2")
PYTHON = ENV.get("PYTHON", "python")
TARGET = Path(ENV.get("TARGET", Path(__file__).resolve().parents[1] / "target" / "release"))
CHILD = Path(__file__).resolve().with_name("peers_python.py")
PRECISIONS = ENV.get("PEER_PRECISIONS", "f32").split()
OURS = ENV.get("CYTOMASK_FLAGS", "").split()

# In the order of the work.
STAGES = ("open model", "read", "convert", "encoder", "instance decoder", "mask decoder", "prompts and masks",
          "suppress and paint", "write")


def run(command):
    """One process: wall seconds, CPU seconds, peak memory in GB, its stdout."""
    threads = {name: THREADS for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, env={**ENV, **threads})
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if child.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{err.read().decode()}\nexit status {child.returncode}")
        found = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "gb": usage.ru_maxrss / 1e6}
        return {**found, "out": out.read().decode(), "err": err.read().decode()}


def spread(values, scale=1.0, digits=2):
    low, middle, high = (f(values) * scale for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratio(theirs, ours, digits=1):
    ratios = [t / o for t, o in zip(theirs, ours)]
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f}–{max(ratios):.{digits}f})"


def needed(name):
    if not ENV.get(name):
        sys.exit(f"{name} is not set: see bench/peers.sh")
    return Path(ENV[name]).resolve()


def rounds(commands, count=None):
    """Runs each of `{name: command}` once a round."""
    found = {name: [] for name in commands}
    for number in range(count or ROUNDS):
        for name, command in commands.items():
            found[name].append(run(command))
            last = found[name][-1]
            print(f"round {number + 1}: {name}: {last['wall']:.2f} s, {last['cpu']:.2f} CPU s", file=sys.stderr, flush=True)
    return found


def processes(title, commands, count=None):
    """A table of whole processes; the first of `commands` is ours."""
    found = rounds(commands, count)
    ours = next(iter(commands))
    column = lambda name, key: [each[key] for each in found[name]]
    print(f"\n{title}, {len(found[ours])} rounds\n")
    print("| program | wall s | CPU s | peak GB | wall, times ours | CPU, times ours |\n|---|---|---|---|---|---|")
    for name in commands:
        times = ["", ""] if name == ours else [ratio(column(name, key), column(ours, key)) for key in ("wall", "cpu")]
        print(f"| {name} | {spread(column(name, 'wall'))} | {spread(column(name, 'cpu'))} | "
              f"{statistics.median(column(name, 'gb')):.2f} | {times[0]} | {times[1]} |")
    return found


def stages(found):
    """What `--timings` said on stderr of our runs, as a table of medians."""
    tables = [json.loads(line)["stages"] for each in found for line in each["err"].splitlines() if '"stages"' in line]
    if not tables:
        return
    print("\n| stage of cytomask | s | share |\n|---|---|---|")
    medians = {name: statistics.median(table[name] for table in tables) for name in STAGES if name in tables[0]}
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.3f} | {100 * seconds / sum(medians.values()):.0f} % |")


def start():
    start_of = {"`cytomask --version`": [TARGET / "cytomask", "--version"]}
    start_of["`import micro_sam.instance_segmentation`"] = [PYTHON, CHILD, "import"]
    found = rounds(start_of)
    print(f"\nStart, {ROUNDS} rounds\n\n| what | wall s | peak GB |\n|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {spread([one['wall'] for one in each], digits=3)} | "
              f"{statistics.median(one['gb'] for one in each):.3f} |")


def decoder():
    """Milliseconds a prompt. Seeded weights on our side; times do not depend on values."""
    batches = ENV.get("BATCHES", "1 8 32").split()
    commands = {"cytomask": [TARGET / "examples" / "time_mask_decoder", *batches]}
    for precision in PRECISIONS:
        name = f"segment_anything {precision}"
        commands[name] = [PYTHON, CHILD, "decoder", needed("VIT_B"), *batches, "--threads", THREADS, "--precision", precision]
    found = {name: [json.loads(each["out"]) for each in runs] for name, runs in rounds(commands).items()}
    print(f"\nMask decoder, ms a prompt, {ROUNDS} rounds\n")
    print("| program | batch | wall ms | CPU ms | wall, times ours at its best | CPU, times ours at its best |")
    print("|---|---|---|---|---|---|")
    of = lambda name, batch, index: [each[batch][index] for each in found[name]]
    best = min(batches, key=lambda batch: statistics.median(of("cytomask", batch, 1)))
    for name in commands:
        for batch in batches:
            wall, cpu = of(name, batch, 0), of(name, batch, 1)
            times = [""] * 2 if name == "cytomask" else [
                ratio(wall, of("cytomask", best, 0)), ratio(cpu, of("cytomask", best, 1))]
            print(f"| {name} | {batch} | {spread(wall, 1e3, 1)} | {spread(cpu, 1e3, 1)} | {times[0]} | {times[1]} |")
    image = [each["image"][1] for each in found["cytomask"]]
    print(f"\nOnce an image, cytomask: {spread(image, 1e3, 1)} CPU ms.")


def cytomask(image, model, mode, out, *more):
    return [TARGET / "cytomask", "segment", image, *model, "--mode", mode, "--export", "tiff", "--overwrite", "--timings",
            "--log", "json", "-o", Path(out) / f"ours_{mode}.tif", *more, *OURS]


def objects(folder):
    """How many objects each label image holds, counted by tifffile where the interpreter has it."""
    script = "import sys, tifffile, numpy; print({p: int(numpy.unique(tifffile.imread(p)).size - 1) for p in sys.argv[1:]})"
    paths = sorted(Path(folder).glob("*.tif"))
    print("\nObjects: " + run([PYTHON, "-c", script, *paths])["out"].strip().replace(str(folder) + "/", ""))


def builtin():
    with tempfile.TemporaryDirectory() as folder:
        title = "Built-in model, 512² image, APG, start to files"
        image = needed("IMAGE_512")
        found = processes(title, {"cytomask": cytomask(image, [], "apg", folder)})
        stages(found["cytomask"])


def apg():
    with tempfile.TemporaryDirectory() as folder:
        image, weights = needed("IMAGE"), needed("VIT_B_APG")
        commands = {"cytomask": cytomask(image, ["-m", weights], "apg", folder)}
        for precision in PRECISIONS:
            commands[f"micro_sam {precision}"] = [
                PYTHON, CHILD, "apg", weights, image, Path(folder) / f"theirs_{precision}.tif",
                "--threads", THREADS, "--precision", precision]
        found = processes("APG, vit_b layout with decoder, 1024² image, process start to file written", commands,
                          int(ENV.get("APG_ROUNDS", ROUNDS)))
        stages(found["cytomask"])
        objects(folder)


def amg():
    with tempfile.TemporaryDirectory() as folder:
        image, weights = needed("IMAGE"), needed("VIT_T")
        # No filter in either, so that all 3072 masks are made and compared.
        open_filters = ["--pred_iou_thresh", "0", "--stability_score_thresh", "0", "--min_size", "0"]
        commands = {
            "cytomask": cytomask(image, ["-m", weights], "amg", folder, *open_filters),
            "micro_sam f32": [PYTHON, CHILD, "amg", weights, image, Path(folder) / "theirs.tif", "--threads", THREADS],
        }
        found = processes("AMG, vit_t, 32 × 32 points, 1024² image, process start to file written", commands,
                          int(ENV.get("AMG_ROUNDS", "1")))
        stages(found["cytomask"])
        objects(folder)


if __name__ == "__main__":
    known = {f.__name__: f for f in (start, decoder, builtin, apg, amg)}
    for wanted in sys.argv[1:] or known:
        known[wanted]()
