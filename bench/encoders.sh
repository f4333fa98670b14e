#!/usr/bin/env bash
# Encoders and the instance decoder against PyTorch and ONNX Runtime on the same weights: bench/encoders.sh [FOLDER OF WEIGHTS].
# PYTHON chooses the interpreter, ROUNDS (5), THREADS (2), MODELS ("vit_b vit_t vit_l vit_h"), MOBILE_SAM (a clone, for vit_t).
# STAGES: the built example, where it is not to be built here.
set -euo pipefail
cd "$(dirname "$0")/.."
weights=${1:-${WEIGHTS:?expected a folder of weights}}
if [ -z "${STAGES:-}" ]; then
    cargo build --release --workspace --example stages
    STAGES=target/release/examples/stages
fi
# shellcheck disable=SC2086
exec "${PYTHON:-python3}" bench/encoders.py --weights "$weights" --stages "$(realpath "$STAGES")" \
    --models ${MODELS:-vit_b vit_t vit_l vit_h}
