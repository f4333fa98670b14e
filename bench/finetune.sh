#!/usr/bin/env bash
# Fine-tuning on ten images: mSA on the other images of the source before and after, and minutes.
#   bench/finetune.sh DATA [--model FILE] [--images N] [--evaluate N] [-- TRAIN FLAGS…]
# DATA holds images/ and labels/ of a source that may train. The model must not have seen it, or "before" is flattered: the built-in one
# has seen dsb2018_train, tnbc and usiigaci_train. The ten images are spread evenly by name; nothing else of the source is trained on, and
# the validation image is one of the ten.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${CYTOMASK:-target/release/cytomask}
data=${1:?DATA}; shift
model=cytomask-t; count=10; most=0; flags=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift 2 ;;
    --images) count=$2; shift 2 ;;
    --evaluate) most=$2; shift 2 ;;
    --) shift; flags=("$@"); break ;;
    *) echo "unknown flag $1" >&2; exit 2 ;;
  esac
done
case $(basename "$data") in *test*) echo "$data: test images never train" >&2; exit 2 ;; esac

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{few,rest}/{images,labels}
mapfile -t names < <(ls "$data/images")
total=${#names[@]}
[ "$total" -gt "$count" ] || { echo "$data: expected more than $count images, found $total" >&2; exit 2; }
place() { # PART NAME
  local stem=${2%.*}
  ln -s "$(realpath "$data/images/$2")" "$work/$1/images/$2"
  for file in "$data/labels/$stem".*; do ln -s "$(realpath "$file")" "$work/$1/labels/"; done
}
next=0; left=0
for index in "${!names[@]}"; do
  if [ "$next" -lt "$count" ] && [ "$index" -eq $((next * total / count)) ]; then
    place few "${names[$index]}"; next=$((next + 1))
  elif [ "$most" -eq 0 ] || [ $((left++ * most / (total - count))) -ne $((left * most / (total - count))) ]; then
    place rest "${names[$index]}"
  fi
done

score() { # MODEL: mean mSA of the other images by APG and AIS
  for mode in apg ais; do
    local out="$work/out_${2}_$mode"
    "$program" segment "$work/rest/images" -o "$out" --model "$1" --mode "$mode" --export tiff 2> "$out.log" || { cat "$out.log" >&2; exit 1; }
    "$program" evaluate "$work/rest/labels" "$out" --json 2>> "$out.log" > "$out.json"
    python3 -c 'import json, sys; scores = [image["msa"] for image in json.load(sys.stdin)["images"]]; print("%.4f" % (sum(scores) / len(scores)))' < "$out.json"
  done
}
echo "source $(basename "$data"): $count images to train on, $(ls "$work/rest/images" | wc -l) to score on; model $model"
mapfile -t before < <(score "$model" before)
start=$SECONDS
"$program" train "$work/few" -o "$work/run" --model "$model" ${flags[@]+"${flags[@]}"}
minutes=$(( (SECONDS - start + 59) / 60 ))
tuned="$work/run/best.safetensors"; [ -f "$tuned" ] || tuned="$work/run/last.safetensors"
mapfile -t after < <(score "$tuned" after)
if [ -n "${KEEP:-}" ]; then mkdir -p "$KEEP" && cp -r "$work/run/." "$KEEP"; fi
printf '%-6s %8s %8s\n' way before after apg "${before[0]}" "${after[0]}" ais "${before[1]}" "${after[1]}"
echo "training took $minutes minutes (rounded up) on $(nproc) cores"
