#!/usr/bin/env bash
# A joint training step of SAM's ViT-B with instance decoder by turns with µSAM's own trainer classes, on the same seeded weights, crop and
# prompts, two optimizer steps a batch: bench/train_sam.sh [SIDE] [OBJECTS]. CPU seconds a step and peak memory.
# PYTHON chooses the interpreter, TURNS (3), STEPS (2) a turn, THREADS (2). STEP: the built example, where it is not to be built here.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${STEP:-}" ]; then
    cargo build --release --workspace --example joint_step
    STEP=target/release/examples/joint_step
fi
sizes=("${1:-512}" "${2:-4}" "${STEPS:-2}")
export THREADS=${THREADS:-2}
export RAYON_NUM_THREADS=$THREADS
for turn in $(seq "${TURNS:-3}"); do
    printf 'turn %s, µSAM: ' "$turn"; "${PYTHON:-python3}" bench/train_sam.py "${sizes[@]}" 2>/dev/null
    printf 'turn %s, cytomask, activations kept: ' "$turn"; "$STEP" "${sizes[@]}" micro-sam off
    printf 'turn %s, cytomask, parts run again: ' "$turn"; "$STEP" "${sizes[@]}" micro-sam on
    printf 'turn %s, cytomask, one step for both losses: ' "$turn"; "$STEP" "${sizes[@]}" summed on
done
