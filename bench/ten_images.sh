#!/usr/bin/env bash
# What fine-tuning on ten images gives, trained wholly and by adapters: a table of mSA on other images of the source before and after.
#   bench/ten_images.sh DATA MODEL OUT [STEPS] [METHOD…]
# DATA holds images/ and labels/ of a source that may train and that the model has not seen; MODEL is a checkpoint; OUT gets each run's folder.
# STEPS: 300. METHODs: frozen (the decoders alone), full, lora, fact, ssf, or any other that --peft takes; the first five. Twelve images are scored (EVALUATE=N: N), by APG and AIS.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?DATA}; model=${2:?MODEL}; out=${3:?OUT}; steps=${4:-300}
methods=("${@:5}"); [ ${#methods[@]} -gt 0 ] || methods=(frozen full lora fact ssf)
mkdir -p "$out"
rows=()
for method in "${methods[@]}"; do
  flags=(--n_iterations "$steps")
  case $method in
    full) ;;
    frozen) flags+=(--freeze image_encoder) ;;
    *) flags+=(--peft "$method") ;;
  esac
  KEEP="$out/$method" bash bench/finetune.sh "$data" --model "$model" --evaluate "${EVALUATE:-12}" -- "${flags[@]}" 2>&1 | tee "$out/$method.txt"
  trained=$(grep -oE 'of the image encoder .*' "$out/$method.txt" | head -1)
  scores=$(awk '$1 == "apg" { apg = $2 ", " $3 } $1 == "ais" { ais = $2 ", " $3 } END { print apg " | " ais }' "$out/$method.txt")
  minutes=$(awk '/^training took/ { print $3 }' "$out/$method.txt")
  rows+=("| $method | ${trained#of the image encoder } | $scores | $minutes |")
done
echo
echo "| method, $steps steps | millions of the encoder's values trained | APG: mSA before, after | AIS | minutes |"
echo "|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
