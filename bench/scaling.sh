#!/usr/bin/env bash
# How the time of an encoder and of the instance decoder grows with the side of the image and with threads.
#
#   bench/scaling.sh CHECKPOINT [CHECKPOINT…]
#
# Each row is the median of RUNS (3) runs after the one that brings the weights into order. SIDES ("256 512 768 1024"; SAM's ViTs
# take 1024 only), THREADS ("1 2"), PRECISION (f32), STAGES: the built example `stages`.
set -euo pipefail
[ $# -gt 0 ] || { echo "bench/scaling.sh: expected a checkpoint" >&2; exit 2; }
stages=${STAGES:-}
if [ -z "$stages" ]; then
    (cd "$(dirname "$0")/.." && cargo build --release --workspace --example stages) >&2
    stages=$(dirname "$0")/../target/release/examples/stages
fi
printf '| weights | side | threads | stage | wall s | CPU s | peak MiB |\n|---|---|---|---|---|---|---|\n'
for checkpoint in "$@"; do
    for side in ${SIDES:-256 512 768 1024}; do
        for threads in ${THREADS:-1 2}; do
            RAYON_NUM_THREADS=$threads "$stages" "$checkpoint" --side "$side" --runs $((${RUNS:-3} + 1)) \
                --precision "${PRECISION:-f32}" | python3 -c '
import json, statistics, sys
name, side, threads = sys.argv[1:]
rows = [json.loads(line) for line in sys.stdin]
peak = rows[-1]["peak_mib"]
for stage in dict.fromkeys(row["stage"] for row in rows if "stage" in row):
    runs = [row for row in rows if row.get("stage") == stage][1:]
    wall = statistics.median(run["wall_s"] for run in runs)
    cpu = statistics.median(run["user_s"] + run["system_s"] for run in runs)
    print(f"| {name} | {side} | {threads} | {stage} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |")
' "$(basename "$checkpoint")" "$side" "$threads"
        done
    done
done
