#!/usr/bin/env bash
# What number formats do to masks, scores and time: docs/benchmarks.md, "Number formats".
#
#   bench/precision.sh DATA [OUT] [extra flags of `cytomask segment`]
#
# DATA holds SOURCE/images and SOURCE/labels with equal file stems. Every format runs on the same images, image after image of one
# source before the next format (MODES, SOURCES, FORMATS and MODEL choose; REPEATS repeats, formats interleaved, and the least CPU
# seconds count). COUNT takes the first images of each source in order of name. Labels are compared with those of f32 by the mean
# over images of the mean best IoU. CPU seconds are those of all threads, from the start of the process to the last file.
set -euo pipefail
data=$(realpath "${1:?folder with SOURCE/images and SOURCE/labels}")
out=${2:-out/precision}
shift $(($# > 1 ? 2 : 1))
cytomask=${CYTOMASK:-"$(dirname "$0")/../target/release/cytomask"}
sources=${SOURCES:-"dsb2018_test monuseg_test usiigaci_test cellpose_test"}
modes=${MODES:-"ais apg"}
formats=${FORMATS:-"f32 bf16 int8"}
model=${MODEL:-cytomask-t}
mkdir -p "$out"

# CPU seconds of a command, which must not print to stdout.
seconds() {
    local TIMEFORMAT='%U %S'
    { time "$@" >/dev/null 2>"$out/log.txt"; } 2>&1 | awk '{ printf "%.1f", $1 + $2 }'
}

printf '| source | mode | format | mSA | labels against f32 | CPU s |\n|---|---|---|---|---|---|\n'
for source in $sources; do
    images="$out/$source-images" labels="$out/$source-labels"
    rm -rf "$images" "$labels"
    mkdir "$images" "$labels"
    find "$data/$source/images" -type f | sort | head -n "${COUNT:-1000000}" | while read -r image; do
        name=$(basename "$image")
        ln -s "$image" "$images/$name"
        ln -s "$data/$source/labels/${name%.*}.tif" "$labels/${name%.*}.tif"
    done
    for mode in $modes; do
        declare -A least=()
        for _ in $(seq "${REPEATS:-1}"); do
            for format in $formats; do
                folder="$out/$source-$mode-$format"
                rm -rf "$folder"
                took=$(seconds "$cytomask" segment "$images" -o "$folder" --model "$model" --mode "$mode" \
                    --precision "$format" --device cpu --no-overlay "$@") || { cat "$out/log.txt" >&2; exit 1; }
                least[$format]=$(printf '%s\n' "$took" "${least[$format]:-$took}" | sort -g | head -n 1)
            done
        done
        for format in $formats; do
            folder="$out/$source-$mode-$format"
            score=$("$cytomask" evaluate "$labels" "$folder" --compat | tail -n 1 | sed -E 's/.*mSA ([0-9.]+).*/\1/')
            alike=$("$cytomask" evaluate "$out/$source-$mode-f32" "$folder" --metrics mean_best_iou |
                awk '$1 == "mean_best_iou" { print $2 }')
            printf '| %s | %s | %s | %s | %s | %s |\n' "$source" "$mode" "$format" "$score" "$alike" "${least[$format]}"
        done
    done
done
