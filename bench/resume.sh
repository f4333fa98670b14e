#!/usr/bin/env bash
# Kills `cytomask train` at random moments and compares its loss curve with that of a run that was left alone.
# usage: bench/resume.sh DATA [KILLS] [OPTIONS OF TRAIN…]     DATA holds images/ and labels/; TRAINER=PATH names the program
# Prints a line for every kill and the verdict; exits 1 when the curves or the models differ.
set -euo pipefail
data=$1; kills=${2:-20}; shift $(( $# < 2 ? $# : 2 ))
program=${TRAINER:-target/release/cytomask}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
options=(--n_iterations 40 --batch_size 1 --patch_shape 64 --save_every 2 --warm_up 4 --ema 0.9 --lr_schedule plateau "$@")
train() { "$program" train "$data" -o "$1" "${options[@]}" "${@:2}" 2>>"$work/words"; }

start=$(date +%s.%N)
train "$work/unbroken"
seconds=$(echo "$(date +%s.%N) - $start" | bc)
echo "unbroken run: $seconds s"
mkdir "$work/killed"; : > "$work/killed/log.jsonl"
for kill in $(seq "$kills"); do
  "$program" train "$data" -o "$work/killed" "${options[@]}" --resume 2>>"$work/words" & pid=$!
  # Between the start of the program and a sixth of the whole run.
  sleep "$(echo "scale=3; $seconds * $RANDOM / 32768 / 6" | bc)"
  if kill -9 "$pid" 2>/dev/null; then wait "$pid" 2>/dev/null || true; fi
  checkpoint=$(ls "$work/killed" | grep -E '^checkpoint-[0-9]+$' | tail -1 || true)
  echo "kill $kill: $(wc -l < "$work/killed/log.jsonl") lines, ${checkpoint:-no checkpoint}, $(ls "$work/killed" | grep -c part || true) torn"
done
train "$work/killed" --resume
python3 - "$work/unbroken/log.jsonl" "$work/killed/log.jsonl" <<'P'
import json, sys
CLOCK = ("seconds", "waited", "images_per_second")
def curve(path):
    lines = [json.loads(line) for line in open(path)]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines if "run" not in line]
one, other = (curve(path) for path in sys.argv[1:])
if one != other:
    pairs = [(a, b) for a, b in zip(one, other) if a != b]
    sys.exit(f"the curves differ: {len(one)} and {len(other)} lines, first at {pairs[:1]}")
print(f"the curves are equal: {len(one)} lines")
P
for model in last best; do cmp "$work/unbroken/$model.safetensors" "$work/killed/$model.safetensors"; done
echo "the models are equal"
