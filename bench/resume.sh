#!/usr/bin/env bash
# Kills `cytomask train` at random moments and compares its loss curve with that of a run that was left alone.
# usage: bench/resume.sh DATA [KILLS] [OPTIONS OF TRAIN…]     DATA holds images/ and labels/; TRAINER=PATH names the program
# Prints a line for every kill and the verdict; exits 1 when the curves differ.
set -euo pipefail
data=$1; kills=${2:-20}; shift $(( $# < 2 ? $# : 2 ))
program=${TRAINER:-target/release/cytomask}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
options=(--n_iterations 40 --batch_size 1 --patch_shape 64 --save_every 4 --warm_up 4 --ema 0.9 --lr_schedule plateau "$@")
train() { "$program" train "$data/images" "$data/labels" -o "$1" "${options[@]}" "${@:2}" 2>>"$work/words"; }

echo "unbroken run"
start=$(date +%s.%N)
train "$work/unbroken"
seconds=$(echo "$(date +%s.%N) - $start" | bc)
done_kills=0
while [ "$done_kills" -lt "$kills" ]; do
  train "$work/killed" --resume --output "$work/killed" & pid=$!
  # Anywhere between its start and a third of the whole run.
  sleep "$(echo "scale=3; $seconds * $RANDOM / 32768 / 3" | bc)"
  if kill -9 "$pid" 2>/dev/null; then
    wait "$pid" 2>/dev/null || true
    done_kills=$((done_kills + 1))
    [ -e "$work/killed/log.jsonl" ] || mkdir -p "$work/killed"
    touch "$work/killed/log.jsonl"
    echo "kill $done_kills after $(wc -l < "$work/killed/log.jsonl") lines, $(ls -d "$work"/killed/checkpoint-* 2>/dev/null | xargs -r -n1 basename | tr '\n' ' ')"
  else
    wait "$pid" || { echo "a resumed run failed:"; tail -3 "$work/words"; exit 1; }
    # Finished before the kill: the rest of the kills go to a run that begins anew.
    cmp_now=1
    break
  fi
done
train "$work/killed" --resume
python3 - "$work/unbroken/log.jsonl" "$work/killed/log.jsonl" <<'P'
import json, sys
def curve(path):
    lines = [json.loads(line) for line in open(path)]
    for line in lines:
        line.pop("seconds", None)
    return lines
one, other = (curve(path) for path in sys.argv[1:])
if one != other:
    pairs = [(a, b) for a, b in zip(one, other) if a != b]
    print(f"the curves differ: {len(one)} and {len(other)} lines, first at {pairs[:1]}")
    sys.exit(1)
print(f"the curves are equal: {len(one)} lines")
P
for model in last best; do cmp "$work/unbroken/$model.safetensors" "$work/killed/$model.safetensors" && echo "$model.safetensors is equal"; done
