#!/usr/bin/env bash
# One joint training step of cytomask-t (4 crops of 224², 8 prompts each, two rounds) by turns with the same step in PyTorch, and with
# all gradients left to the tensor framework: bench/train_step.sh [CROPS] [SIDE] [PROMPTS]. Seconds of CPU time, medians.
# PYTHON chooses the interpreter, TURNS (3), ROUNDS (3 steps a turn), THREADS (2), FRAMEWORK=0 leaves the third out.
# STEP: the built example, where it is not to be built here.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${STEP:-}" ]; then
    cargo build --release --workspace --example step
    STEP=target/release/examples/step
fi
sizes=("${1:-4}" "${2:-224}" "${3:-8}")
export THREADS=${THREADS:-2}
export RAYON_NUM_THREADS=$THREADS
for turn in $(seq "${TURNS:-3}"); do
    echo "== turn $turn: cytomask"
    "$STEP" "${ROUNDS:-3}" "${sizes[@]}"
    echo "== turn $turn: PyTorch"
    "${PYTHON:-python3}" bench/train_step.py "${ROUNDS:-3}" "${sizes[@]}"
    if [ "${FRAMEWORK:-1}" != 0 ]; then
        echo "== turn $turn: cytomask, gradients by the framework"
        CYTOMASK_GRADIENTS=framework "$STEP" 1 "${sizes[@]}"
    fi
done
