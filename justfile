# What the project runs on itself. `just check` is what CI runs.

default: check

# Formatting, lints, tests and docs.
check:
    bash .ci/run

test:
    cargo test --release --workspace

# Slow checks and timings; see docs/benchmarks.md.
bench:
    cargo test --release --workspace -- --ignored
    bash bench/run.sh

# Licences and advisories of dependencies (cargo install cargo-deny).
deny:
    cargo deny check

# Runs a tiny network on a software Vulkan driver (Debian: mesa-vulkan-drivers).
wgpu:
    bash bench/wgpu.sh
