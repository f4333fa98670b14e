#!/usr/bin/env bash
# Wall time of the program on the bundled image: start-up, AIS, APG. Medians of five runs; say what else the machine was doing.
set -euo pipefail
cd "$(dirname "$0")/.."
cytomask=${CYTOMASK:-target/release/cytomask}
[ -x "$cytomask" ] || cargo build --release -p cytomask-cli
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

median() {
    for _ in 1 2 3 4 5; do
        start=$(date +%s.%N)
        "$@" >/dev/null 2>&1
        awk "BEGIN { print $(date +%s.%N) - $start }"
    done | sort -n | sed -n 3p
}

printf '| what | seconds |\n|---|---|\n'
printf '| `cytomask --version` | %.3f |\n' "$(median "$cytomask" --version)"
for mode in ais apg; do
    printf '| `segment examples/nuclei.png --mode %s` (520 × 696) | %.2f |\n' "$mode" \
        "$(median "$cytomask" segment examples/nuclei.png -o "$work" --mode "$mode" --overwrite)"
done
