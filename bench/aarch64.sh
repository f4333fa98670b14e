#!/usr/bin/env bash
# The tests of the CPU loops on 64-bit ARM, emulated on another machine: with NEON, then with plain loops. Whether results are right is
# all that emulation says; it says nothing about time.
#
#   bench/aarch64.sh [TEST_FILTER…]
#
# Needs a Rust toolchain with the standard library for aarch64-unknown-linux-gnu, a C linker for it, and qemu's user-mode emulator.
# With rustup: `rustup target add aarch64-unknown-linux-gnu`, and Debian's gcc-aarch64-linux-gnu and qemu-user. With Debian alone
# (its rustc must be as new as `rust-version` in Cargo.toml):
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install rustc cargo gcc libstd-rust-dev:arm64 gcc-aarch64-linux-gnu qemu-user
# QEMU_CPU=cortex-a53 (or another of qemu's) emulates an older processor than qemu's newest.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${LINKER:-aarch64-linux-gnu-gcc}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${EMULATOR:-qemu-aarch64} -L ${SYSROOT:-/usr/aarch64-linux-gnu}"
for level in neon portable; do
    echo "CYTOMASK_SIMD=$level"
    CYTOMASK_SIMD=$level cargo test --release --locked -p cytomask-kernels --target "$target" --lib -- "$@"
done
