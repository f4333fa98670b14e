#!/usr/bin/env bash
# The built-in model from its data, in the stages of docs/default-model.md: about sixteen hours of one core.
#   training/retrain.sh DATA WEIGHTS OUT
# DATA holds dsb2018_train, tnbc and usiigaci_train (images/*.png, labels/*.tif), WEIGHTS is the SAM with TinyViT encoder to begin with
# (vit_t.safetensors). OUT gets a folder a stage, and cytomask_t.safetensors, the model (crates/cytomask/model/cytomask-t.safetensors). A stage that was stopped goes on, one that is done is passed by. PYTHON chooses the
# interpreter; it needs what train_cytomask_t.py names. The first stage of the shipped weights was run with interruptions and cannot be repeated
# exactly; this is the same length in one schedule.
set -euo pipefail
data=${1:?DATA} weights=${2:?WEIGHTS} out=${3:?OUT}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)

stage() { # NAME FIRST-WEIGHTS FLAGS…
    local folder="$out/$1" first=$2
    shift 2
    [ -e "$folder/done" ] && return
    if [ -e "$folder/state.pt" ]; then first="--resume"; fi
    # shellcheck disable=SC2086
    "$python" "$here/train_cytomask_t.py" --data "$data" --out "$folder" $first "$@"
    touch "$folder/done"
}

stage 1 "--weights $weights" --steps 2950 --seed 1
stage 2 "--continue-from $out/1/state.pt" --steps 400 --seed 2 --peak 0.65 --hold 0.99 --prompt-start 0 --prompt-every 4 \
    --sources dsb2018_train=0.58,tnbc=0.24,usiigaci_train=0.18
later=(--prompt-start 0 --prompt-every 3 --sources dsb2018_train=0.56,tnbc=0.22,usiigaci_train=0.22)
stage 3 "--continue-from $out/2/state.pt" --steps 2600 --seed 3 --peak 0.7 --hold 0.45 "${later[@]}"
stage 4 "--continue-from $out/3/state.pt" --steps 1750 --seed 5 --peak 0.7 --hold 0.45 "${later[@]}"
longer=(--peak 0.8 --hold 0.4 --ema 0.999 --crops "224x4,256x3,320x2" "${later[@]}")
stage 5 "--continue-from $out/4/state.pt" --steps 7000 --seed 6 "${longer[@]}"
stage 6 "--continue-from $out/5/state.pt" --steps 7500 --seed 7 "${longer[@]}"
"$python" "$here/average.py" "$out/maps.safetensors" "0.5=$out/6/cytomask_t.safetensors" "0.35=$out/5/cytomask_t.safetensors" \
    "0.15=$out/3/cytomask_t.safetensors"
# The box decoder alone, then all with it. Autocast to bf16 was used: with AMX it saves a third of the time.
stage 7 "--continue-from $out/maps.safetensors" --steps 1500 --stop-after 560 --seed 8 --hold 0.5 --ema 0.99 --only-boxes --bf16 \
    --crops "224x8,320x4" "${later[@]}"
stage 8 "--continue-from $out/7/state.pt" --steps 3950 --seed 9 --peak 0.7 --hold 0.4 --ema 0.999 --crops "224x4,256x3,320x2" --bf16 \
    "${later[@]}" --prompt-every 2 --box-weight 0.8 --own-boxes 0.7
stage 9 "--continue-from $out/8/cytomask_t.safetensors" --steps 3200 --seed 10 --peak 0.7 --hold 0.32 --ema 0.999 --crops "224x4,256x3,320x2" --bf16 \
    --prompt-start 0 --prompt-every 2 --sources dsb2018_train=0.54,tnbc=0.20,usiigaci_train=0.26 --box-weight 0.8 --own-boxes 0.7
"$python" "$here/average.py" "$out/boxes.safetensors" "0.5=$out/9/cytomask_t.safetensors" "0.5=$out/8/cytomask_t.safetensors"
stage 10 "--continue-from $out/boxes.safetensors" --steps 1500 --seed 12 --peak 0.7 --hold 0.46 --ema 0.998 --crops "224x4,256x3,320x2" \
    --prompt-start 0 --prompt-every 2 --sources dsb2018_train=0.50,tnbc=0.16,usiigaci_train=0.34 --box-weight 0.8 --own-boxes 0.7
"$python" "$here/average.py" "$out/phase.safetensors" "0.5=$out/boxes.safetensors" "0.5=$out/10/cytomask_t.safetensors"
stage 11 "--continue-from $out/phase.safetensors" --steps 2750 --seed 14 --peak 0.7 --hold 0.46 --ema 0.998 --crops "224x4,256x3,320x2" \
    --prompt-start 0 --prompt-every 2 --sources dsb2018_train=0.50,tnbc=0.22,usiigaci_train=0.28 --box-weight 0.8 --own-boxes 0.7
"$python" "$here/average.py" "$out/cytomask_t.safetensors" "0.5=$out/phase.safetensors" "0.5=$out/11/cytomask_t.safetensors"
