#!/usr/bin/env bash
# The table of docs/tune.md: default against tuned settings on images that had no part in the choice.
#
#   bench/tune.sh DATA [OUT]
#
# DATA holds SOURCE/images and SOURCE/labels with equal file stems. SOURCES and MODES choose others; MORE is handed to
# `cytomask tune`. OUT/SOURCE-MODE holds what `tune` wrote. The table's second line:
#
#   MODES=apg MORE="--held_out 0.5 --range boundary_distance_threshold=0.4:0.7:0.1 --range min_size=25,50,100,200 \
#       --range min_score=0.3:0.6:0.1" bench/tune.sh DATA
set -euo pipefail
data=${1:?folder with SOURCE/images and SOURCE/labels}
out=${2:-out/tune}
mkdir -p "$out"
cytomask=${CYTOMASK:-"$(dirname "$0")/../target/release/cytomask"}
sources=${SOURCES:-"cellpose_test"}
modes=${MODES:-"ais apg"}
more=${MORE:-"--held_out 0.5 --seed 0"}

json() { python3 -c 'import json, sys; found = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

printf '| source | mode | trials | images searched | default → tuned there | images held out | default → tuned there | gain (95 %% interval) | p | verdict | seconds | sampler: trials to within 0.002 |\n'
printf '|---|---|---|---|---|---|---|---|---|---|---|---|\n'
for source in $sources; do
    for mode in $modes; do
        start=$(date +%s)
        # shellcheck disable=SC2086
        found=$("$cytomask" tune "$data/$source/images" "$data/$source/labels" -o "$out/$source-$mode" --mode "$mode" $more --json \
            2>"$out/$source-$mode.log") || { cat "$out/$source-$mode.log" >&2; exit 1; }
        seconds=$(($(date +%s) - start))
        printf '| %s | %s | %s | %s |\n' "$source" "$mode" "$(json '"{0[trials]} | {1} | {2[default_msa]:.4f} → {2[tuned_msa]:.4f} | {3[images]} | {3[default_msa]:.4f} → {3[tuned_msa]:.4f} | {3[gain]:+.4f} ({3[low]:+.4f} to {3[high]:+.4f}) | {3[p]:.4f} | {0[verdict]}".format(found["tuned"], found["tuned"]["images"] - found["tuned"]["check"]["images"], found["tuned"]["searched"], found["tuned"]["check"])' <<<"$found")" \
            "$seconds | $(json '"{median} (at most {most})".format(**(found["sampler_trials"] or {"median": "–", "most": "–"}))' <<<"$found")"
    done
done
