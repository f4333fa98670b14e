#!/usr/bin/env bash
# Runs tiny networks on a software Vulkan driver and compares with the CPU. Slow to build: not part of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1; then
    apt-get update && apt-get install -y mesa-vulkan-drivers libvulkan1
fi
VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json | head -n 1)
export VK_DRIVER_FILES
cargo test --release -p cytomask-models --features wgpu --test wgpu -- --ignored --nocapture
