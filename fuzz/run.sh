#!/usr/bin/env bash
# Fuzzes one target for a number of seconds: fuzz/run.sh source|zarr|weights SECONDS
# Needs a C++ compiler; the stable toolchain does. Inputs that fail are left in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=$2
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
-Ccodegen-units=1"
triple=$(rustc -vV | sed -n 's/host: //p')
cargo build --release --target "$triple" --bin "$target"
mkdir -p work/"$target" artifacts/"$target" corpus/"$target"
# What earlier runs found, one archive a target.
if [ -f found/"$target".tar.gz ]; then tar -xzf found/"$target".tar.gz -C work/"$target"; fi
binary=${CARGO_TARGET_DIR:-target}/$triple/release/$target
# 10 s an input, 2 GB of memory in all, 1 GB in one piece.
TMPDIR=/dev/shm "$binary" work/"$target" corpus/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
  -max_len=65536 -artifact_prefix=artifacts/"$target"/ -print_final_stats=1
