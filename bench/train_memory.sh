#!/usr/bin/env bash
# Peak memory of a training step: bench/train_memory.sh DATA MODEL [OPTIONS OF TRAIN…]     TRAINER=PATH names the program
# DATA should hold three images at most: then nothing is held out, and no validation adds to the peak.
set -euo pipefail
data=$1; model=$2; shift 2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 - "${TRAINER:-target/release/cytomask}" train "$data" -o "$work/run" --model "$model" --n_iterations 1 --n_objects_per_batch 4 "$@" <<'P'
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE, text=True)
if done.returncode:
    sys.exit(done.stderr)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{used.ru_maxrss / 1e6:.2f} GB, {used.ru_utime + used.ru_stime:.0f} CPU seconds")
P
