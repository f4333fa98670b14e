#!/usr/bin/env bash
# cytomask beside upstream's Python (micro_sam, segment_anything), by turns, on the same weights, image and threads.
#
#   WEIGHTS=DIR IMAGE=1024.png IMAGE_512=512.png PYTHON=python bench/peers.sh [start|decoder|builtin|apg|amg]...
#
# WEIGHTS holds what `parity/full_size/reference.py` made: vit_b.pth, vit_b_with_decoder.pt and vit_t.pt (MobileSAM's own weights;
# `mask_decoder` of it is what makes masks of cells' size). The first run crafts WEIGHTS/vit_b_apg.pt from them for IMAGE: see
# `craft` in bench/peers_python.py. PROMPTS (200), THREADS (2), ROUNDS (3), APG_ROUNDS, AMG_ROUNDS (1), BATCHES ("1 8 32"),
# PEER_PRECISIONS ("f32", may add "bf16") and CYTOMASK_FLAGS (handed to `cytomask segment`) may be set. For vit_t, `mobile_sam` must
# be importable. Encoder and instance decoder alone are bench/encoders.sh's.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python}
export VIT_B=${VIT_B:-${WEIGHTS:?folder with the weights}/vit_b.pth}
export VIT_T=${VIT_T:-$WEIGHTS/vit_t.pt}
export VIT_B_APG=${VIT_B_APG:-$WEIGHTS/vit_b_apg.pt}
: "${IMAGE:?an image of 1024 × 1024 pixels}"
if [ "${BUILD:-1}" = 1 ]; then
    cargo build --release -q --workspace
    cargo build --release -q --workspace --example time_mask_decoder
fi
if [ ! -f "$VIT_B_APG" ]; then
    "$PYTHON" bench/peers_python.py craft "$WEIGHTS/vit_b_with_decoder.pt" "$VIT_T" "$IMAGE" "$VIT_B_APG" "${PROMPTS:-200}" >&2
fi
exec "$PYTHON" bench/peers.py "$@"
