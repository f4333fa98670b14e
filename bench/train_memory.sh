#!/usr/bin/env bash
# Peak memory of training and CPU seconds a step, with activations kept and with parts run again, by turns:
# bench/train_memory.sh DATA MODEL [OPTIONS OF TRAIN…]
# TRAINER=PATH names the program, RECOMPUTE="off on" what is compared, STEPS (3) after the first one, TURNS (1).
# DATA should hold three images at most: then nothing is held out, and no validation adds to the peak.
set -euo pipefail
export DATA=$1 MODEL=$2; shift 2
python3 - "$@" <<'P'
import os, subprocess, sys, tempfile

def run(steps, recompute):
    """Peak bytes and CPU seconds of a run of so many steps, its last checkpoint included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ.get("TRAINER", "target/release/cytomask"), "train", os.environ["DATA"], "-o", f"{folder}/run"]
        command += ["--model", os.environ["MODEL"], "--n_iterations", str(steps), "--recompute", recompute, *sys.argv[1:]]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        words = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(words)
        return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime

steps = int(os.environ.get("STEPS", 3))
for turn in range(int(os.environ.get("TURNS", 1))):
    for recompute in os.environ.get("RECOMPUTE", "off on").split():
        (_, first), (peak, all_of_them) = run(1, recompute), run(1 + steps, recompute)
        print(f"recompute {recompute:3}: {peak / 1e9:.2f} GB, {(all_of_them - first) / steps:.1f} CPU seconds a step", flush=True)
P
