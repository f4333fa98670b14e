#!/usr/bin/env bash
# A batch of 300 real images of mixed kinds with 10 broken files among them: all good ones done, the broken ones named; killed at a
# random moment and started again it does no finished work twice and ends with the same files.
#
#   bench/batch.sh DATA [OUT]
#
# DATA holds SOURCE/images/*.png. COUNT (300) images are taken; JOBS (2), SEED (by the clock) and MODE (ais) may be set. Needs bash,
# coreutils and awk; as root also setpriv (util-linux), as root may read everything.
set -euo pipefail
data=$(realpath "${1:?folder with SOURCE/images}")
out=$(realpath -m "${2:-out/batch}")
cytomask=$(realpath "${CYTOMASK:-"$(dirname "$0")/../target/release/cytomask"}")
count=${COUNT:-300}
jobs=${JOBS:-2}
mode=${MODE:-ais}
RANDOM=${SEED:-$(date +%s)}
rm -rf "$out"
mkdir -p "$out/in"

# The smaller sources whole, large slides a few, and nuclei to fill up.
{
    ls "$data"/{cellpose_test,usiigaci_test,dsb2018_test}/images/*.png
    ls "$data"/monuseg_test/images/*.png | sed -n 1,4p
    ls "$data"/tnbc/images/*.png | sed -n 1,20p
    ls "$data"/usiigaci_train/images/*.png | sed -n 1,20p
    ls "$data"/dsb2018_train/images/*.png
} | sed -n "1,${count}p" >"$out/list"
while read -r image; do
    source=$(basename "$(dirname "$(dirname "$image")")")
    mkdir -p "$out/in/$source"
    cp "$image" "$out/in/$source/"
done <"$out/list"
good=$(wc -l <"$out/list")

broken="$out/in/broken"
mkdir -p "$broken"
first=$(head -n 1 "$out/list")
head -c 3000 "$first" >"$broken/truncated.png"
: >"$broken/empty.tif"
echo "exposure 20 ms, 63x" >"$broken/text.tif"
# A PNG header of 0 × 0 pixels with its right checksum, and an end chunk.
printf '\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\0\x08\0\0\0\0\x1e\xe0\x23\xce\0\0\0\0IEND\xaeB`\x82' >"$broken/zero_size.png"
# A TIFF of one strip: width, height, bits per sample, sample format (1 integer, 3 float), bytes of the strip.
tiff() {
    le() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24 & 255)))"; }
    entry() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8)))\\x04\\x00\\x01\\x00\\x00\\x00"; le "$2"; }
    printf 'II*\0\x08\0\0\0\x09\0'
    entry 256 "$1"; entry 257 "$2"; entry 258 "$3"; entry 259 1; entry 262 1; entry 273 122; entry 278 "$2"; entry 279 "$5"; entry 339 "$4"
    printf '\0\0\0\0'
}
{ tiff 8 8 32 3 256; for _ in $(seq 64); do printf '\0\0\xc0\x7f'; done; } >"$broken/nan.tif"
{ tiff 1000000 1000000 8 1 1000; head -c 1000 /dev/zero; } >"$broken/huge.tif"
printf 'PK\x03\x04\x14\0\0\0\x08\0 a zip archive by another name' >"$broken/archive.png"
cp "$first" "$broken/unreadable.png"
chmod 000 "$broken/unreadable.png"
ln -s /nowhere/at/all.tif "$broken/dangling.tif"
mkfifo "$broken/pipe.tif"
bad=$(ls "$broken" | wc -l)

as_user=()
if [ "$(id -u)" = 0 ]; then
    as_user=(setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-all)
fi
segment=("${as_user[@]}" "$cytomask" segment "$out/in" --recursive --mode "$mode" --jobs "$jobs" --log json -o)
events() { grep -c "\"event\":\"$1\"" "$2" || true; }
fail() { echo "FAILED: $*" >&2; exit 1; }
hashes() { (cd "$1" && find . -type f | sort | xargs -d '\n' sha256sum); }

start=$(date +%s)
"${segment[@]}" "$out/whole" 2>"$out/whole.log" && fail "exit status 0 although $bad files are broken"
[ "$(tail -n 1 "$out/whole.log" | grep -c '"event":"summary"')" = 1 ] || fail "no summary: $(tail -n 1 "$out/whole.log")"
seconds=$(($(date +%s) - start))
[ "$(events finished "$out/whole.log")" = "$good" ] || fail "$(events finished "$out/whole.log") of $good good images done"
[ "$(events failed "$out/whole.log")" = "$bad" ] || fail "$(events failed "$out/whole.log") of $bad broken files named"
for file in "$broken"/*; do
    grep -q "\"input\": \"$file\"" "$out/whole/failures.json" || fail "$file is not in failures.json"
done
! grep -q '"program_fault": true' "$out/whole/failures.json" || fail "a broken file met a fault in the program"

# Killed somewhere between a tenth and nine tenths of the time.
wait_s=$(awk "BEGIN { print $seconds * (0.1 + 0.8 * $((RANDOM % 1000)) / 1000) }")
"${segment[@]}" "$out/killed" 2>"$out/killed.log" &
program=$!
sleep "$wait_s"
kill -9 "$program"
wait "$program" 2>/dev/null || true
finished=$(find "$out/killed" -name '*_provenance.json' | wc -l)
halves=$(find "$out/killed" -name '.*.partial' | wc -l)
touch "$out/moment"
sleep 1.1
"${segment[@]}" "$out/killed" 2>"$out/again.log" && fail "exit status 0 after the restart"
skipped=$(events skipped "$out/again.log")
[ "$skipped" = "$finished" ] || fail "$finished images were finished, $skipped skipped"
[ "$(events finished "$out/again.log")" = $((good - finished)) ] || fail "the rest was not done"
# Nothing of a finished image was written again.
untouched=$(find "$out/killed" -name '*_provenance.json' ! -newer "$out/moment" | wc -l)
[ "$untouched" = "$finished" ] || fail "of $finished finished images $untouched were left alone"
hashes "$out/whole" >"$out/whole.sha256"
hashes "$out/killed" >"$out/killed.sha256"
cmp "$out/whole.sha256" "$out/killed.sha256" || fail "other files after the restart"

printf '| what | number |\n|---|---|\n'
printf '| good images, all done | %s |\n' "$good"
printf '| broken files, all named | %s |\n' "$bad"
printf '| seconds without a stop (%s jobs) | %s |\n' "$jobs" "$seconds"
printf '| killed (-9) after | %.0f s |\n' "$wait_s"
printf '| images finished then, half-written files left | %s, %s |\n' "$finished" "$halves"
printf '| images skipped / done by the restart | %s / %s |\n' "$skipped" "$((good - finished))"
printf '| result files, equal by SHA-256 to those of the run without a stop | %s |\n' "$(wc -l <"$out/whole.sha256")"
