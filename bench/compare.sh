#!/usr/bin/env bash
# The built-in model by AMG, AIS and APG on the test sources, as one comparison with a group for each source: docs/compare.md.
#
#   bench/compare.sh DATA [OUT]
#
# DATA holds SOURCE/images and SOURCE/labels with equal file stems. A stopped run goes on when called again.
# AMG prompts everywhere and is by far the slowest: POINTS sets its grid (SAM's own is 32), and SOURCES takes the first N images of
# a source written as SOURCE:N, for all methods. All have the built-in model's own settings.
set -euo pipefail
data=$(realpath "${1:?folder with SOURCE/images and SOURCE/labels}")
out=${2:-out/compare}
cytomask=${CYTOMASK:-"$(dirname "$0")/../target/release/cytomask"}
sources=${SOURCES:-"dsb2018_test monuseg_test usiigaci_test cellpose_test"}
points=${POINTS:-16}
mkdir -p "$out"

# Images are taken in order of name.
{
    echo "image,labels,group"
    for entry in $sources; do
        source=${entry%%:*}
        count=$([[ $entry == *:* ]] && echo "${entry##*:}" || echo 1000000)
        find "$data/$source/images" -type f | sort | head -n "$count" | while read -r image; do
            stem=$(basename "${image%.*}")
            echo "$image,$data/$source/labels/$stem.tif,$source"
        done
    done
} >"$out/images_compared.csv"

methods=(
    --run "AMG=cytomask-t:amg:points_per_side=$points"
    --run "AIS=cytomask-t:ais"
    --run "APG=cytomask-t:apg"
)
"$cytomask" compare --table "$out/images_compared.csv" -o "$out" --title "cytomask-t by AMG, AIS and APG" "${methods[@]}"
