#!/usr/bin/env bash
# cytomask beside PyTorch on the same graphics card: encoder, instance decoder, mask decoder and APG end to end, f32 and half.
#
#   WEIGHTS=DIR IMAGE=1024.png PYTHON=python bench/gpu.sh [cuda|wgpu]
#
# WEIGHTS as for bench/peers.sh, with vit_b_apg.pt crafted there. Built into a folder of its own (TARGET_DIR). Without a card that
# the driver shows it says so and ends with status 2. REPEATS (4) images are segmented beyond the first, whose time holds the
# compilation of the kernels. cytomask computes in f32 on cards so far; PyTorch in f32 and under autocast to float16.
set -euo pipefail
cd "$(dirname "$0")/.."
feature=${1:-cuda}
: "${WEIGHTS:?folder with the weights}" "${IMAGE:?an image of 1024 × 1024 pixels}"
export PYTHON=${PYTHON:-python}
if [ "$feature" = cuda ] && ! nvidia-smi -L >/dev/null 2>&1; then
    echo "no NVIDIA card here (nvidia-smi finds none): nothing was measured" >&2
    exit 2
fi
"$PYTHON" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "PyTorch sees no card: nothing was measured")' || exit 2
target=${TARGET_DIR:-target/gpu}
cargo build --release -q -p cytomask-cli --features "$feature" --target-dir "$target"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
exec "$PYTHON" bench/gpu.py "$target/release/cytomask" "$feature" "$WEIGHTS/vit_b_apg.pt" "$IMAGE" "${REPEATS:-4}"
