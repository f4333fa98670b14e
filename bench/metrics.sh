#!/usr/bin/env bash
# Seconds for the mean segmentation accuracy of one pair of label images, elf and cytomask by turns; then cytomask alone on 100,000
# objects.
#
#   bench/metrics.sh [SIDE OBJECTS ROUNDS]      default 4096 20000 1: elf needs 10 GB and minutes a round there
#
# Needs python-elf (PYTHON names the interpreter). Both read the same arrays; reading is not timed.
set -euo pipefail
cd "$(dirname "$0")/.."
side=${1:-4096} objects=${2:-20000} rounds=${3:-1}
python=${PYTHON:-python}
cargo build --release -q -p cytomask-eval --example time_metrics
ours=target/release/examples/time_metrics
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

field() { sed -E "s/.*\"$1\": ([-0-9.e]+).*/\1/"; }
"$python" bench/metrics.py make "$side" "$objects" "$work/truth" "$work/predicted"
for round in $(seq "$rounds"); do
    "$ours" "$work/truth" "$work/predicted" >"$work/ours"
    "$python" bench/metrics.py time "$work/truth" "$work/predicted" >"$work/elf"
    a=$(field msa_seconds <"$work/ours") b=$(field seconds <"$work/elf")
    echo "round $round: cytomask $a s (all metrics $(field all_seconds <"$work/ours") s), elf $b s," \
        "mSA $(field msa <"$work/ours") and $(field msa <"$work/elf")"
    awk "BEGIN { print $b / $a }" >>"$work/ratios"
done
echo "$side × $side, $objects objects: median ratio $(sort -n "$work/ratios" | sed -n "$(((rounds + 1) / 2))p")"

"$python" bench/metrics.py make 4096 100000 "$work/truth" "$work/predicted"
for _ in 1 2 3; do "$ours" "$work/truth" "$work/predicted"; done
