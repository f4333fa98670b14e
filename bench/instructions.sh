#!/usr/bin/env bash
# Instructions the CPU loops execute, by valgrind, beside those of bench/instructions.txt: a guard against losses that a clock on a
# busy machine does not show.
#
#   bench/instructions.sh [--keep]
#
# Valgrind knows no AVX-512, so the loops run with AVX2 (CYTOMASK_SIMD, may be set to `portable`), on one thread. The counts of a
# program and compiler do not change from run to run by more than a few parts in a thousand; more than TOLERANCE (0.02) above the kept
# count fails. `--keep` writes the file anew. Instructions are not time: a loop that misses the cache executes no more of them.
set -euo pipefail
cd "$(dirname "$0")/.."
kept=bench/instructions.txt
tolerance=${TOLERANCE:-0.02}
export CYTOMASK_SIMD=${CYTOMASK_SIMD:-avx2} RAYON_NUM_THREADS=1
[ -f "$kept" ] || : >"$kept"
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 1; }
cargo build --release -q -p cytomask-kernels --example instructions
program=$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')/release/examples/instructions
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Callgrind's own total of one call more, so that start-up and inputs cancel out.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$work/out" "$program" "$1" "$2" 2>&1 | sed -nE 's/.*Collected : ([0-9]+).*/\1/p'
}
"$program" | while read -r name; do
    echo "$name $(($(count "$name" 2) - $(count "$name" 1)))"
done >"$work/found"
if [ "${1:-}" = --keep ]; then
    cp "$work/found" "$kept"
fi
printf '| loop | instructions | kept | change |\n|---|---|---|---|\n'
status=0
while read -r name found; do
    before=$(awk -v name="$name" '$1 == name { print $2 }' "$kept")
    change=$(awk "BEGIN { printf \"%+.2f\", 100 * ($found / ${before:-$found} - 1) }")
    printf '| %s | %s | %s | %s %% |\n' "$name" "$found" "${before:-new}" "$change"
    awk "BEGIN { exit !($found > ${before:-$found} * (1 + $tolerance)) }" && status=1
done <"$work/found"
[ "$status" = 0 ] || echo "more instructions than kept by over $tolerance" >&2
exit "$status"
