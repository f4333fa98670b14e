#!/usr/bin/env bash
# The table of scores in the README: every mode of the built-in model on every test source.
#
#   bench/scores.sh DATA [OUT] [extra flags of `cytomask segment`]
#
# DATA holds SOURCE/images and SOURCE/labels with equal file stems. Per-image scores land in OUT/SOURCE-MODE.csv.
set -euo pipefail
data=${1:?folder with SOURCE/images and SOURCE/labels}
out=${2:-out/scores}
mkdir -p "$out"
shift $(($# > 1 ? 2 : 1))
cytomask=${CYTOMASK:-"$(dirname "$0")/../target/release/cytomask"}
sources=${SOURCES:-"dsb2018_test monuseg_test usiigaci_test cellpose_test"}
modes=${MODES:-"ais apg"}

printf '| source | mode | mSA | SA50 | SA75 | seconds |\n|---|---|---|---|---|---|\n'
for source in $sources; do
    for mode in $modes; do
        folder="$out/$source-$mode"
        rm -rf "$folder"
        start=$(date +%s)
        "$cytomask" segment "$data/$source/images" -o "$folder" --mode "$mode" --no-overlay "$@" 2>"$out/$source-$mode.log" ||
            { cat "$out/$source-$mode.log" >&2; exit 1; }
        seconds=$(($(date +%s) - start))
        line=$("$cytomask" evaluate "$data/$source/labels" "$folder" --compat --csv "$out/$source-$mode.csv" | tail -n 1)
        scores=$(sed -E 's/.*mSA ([0-9.]+), SA50 ([0-9.]+), SA75 ([0-9.]+).*/\1 | \2 | \3/' <<<"$line")
        printf '| %s | %s | %s | %s |\n' "$source" "$mode" "$scores" "$seconds"
    done
done
