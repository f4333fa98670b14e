#!/usr/bin/env bash
# Flow dynamics: `bench/flows.sh` times them against cellpose's on 2,000 cells, `bench/flows.sh DATA` also makes flows of the real
# labels DATA/*/labels/*.tif and counts how many objects come back. PYTHON, CYTOMASK, THREADS (2), ROUNDS (3),
# MODEL (for the peak memory of a 4096² image; a small network without it).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" bench/flows.py speed
"$python" bench/flows.py memory "${MODEL:-fixtures/cpsam_small.pt}"
if [ $# -gt 0 ]; then "$python" bench/flows.py real "$1"; fi
