#!/usr/bin/env bash
# A large mosaic of real test images with their truth, segmented in tiles: peak memory, scores of objects at tile seams beside the same
# objects elsewhere, and a part of 2,048² tiled and untiled.
#
#   bench/mosaic.sh DATA [SIDE] [OUT] [extra flags of `cytomask segment`]
#
# DATA holds dsb2018_test/images and labels. SIDE is 16384 by default. Needs a PYTHON (python3) with numpy, tifffile and pillow.
set -euo pipefail
data=$(realpath "${1:?folder with dsb2018_test}")
side=${2:-16384}
out=${3:-out/mosaic}
shift $(($# > 3 ? 3 : $#))
here=$(dirname "$0")
cytomask=$(realpath "${CYTOMASK:-"$here/../target/release/cytomask"}")
exec "${PYTHON:-python3}" "$here/mosaic.py" --data "$data" --side "$side" --out "$out" --program "$cytomask" --mode "${MODE:-ais}" -- "$@"
