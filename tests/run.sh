#!/usr/bin/env bash
# Checks everything that can be checked, as CI does: format, lints, documentation, and all tests against a real bitcoind.
# Installs what is missing when it may (root and apt), else says what to install. Arguments go to the test runner.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

step() { printf '\n== %s\n' "$*"; "$@"; }

if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
    PATH=$HOME/.cargo/bin:$PATH
fi
if ! command -v cargo >/dev/null; then
    echo "Missing: Rust. Install it from https://rustup.rs and try again." >&2
    exit 1
fi
for component in rustfmt:fmt clippy:clippy; do
    if ! cargo "${component#*:}" --version >/dev/null 2>&1; then
        if ! command -v rustup >/dev/null; then
            echo "Missing: cargo ${component#*:}. Install your Rust's package ${component%:*} and try again." >&2
            exit 1
        fi
        rustup component add "${component%:*}"
    fi
done
# Cargo links with cc; secp256k1 and jemalloc are written in C.
if ! command -v cc >/dev/null || ! command -v make >/dev/null || ! echo '#include <stdlib.h>' | cc -E -x c - >/dev/null 2>&1; then
    need_packages "compiling" gcc libc6-dev make
fi

# Prometheus's package has promtool; systemd's has systemd-analyze.
need_packages "testing boards, containers and the service" docker-compose prometheus systemd

step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
# Proves that the core of the Stratum crate does no I/O.
step cargo check -p stratum --no-default-features

step tests/bitcoind.sh
# The pages are looked at in a real browser.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    need_packages "the pages' tests" chromium fonts-dejavu-core
fi
step cargo test --doc --workspace
# In CI, or for as long as FUZZ_SECONDS says.
if [[ -n ${FUZZ_SECONDS:-${CI:-}} ]]; then
    step tests/fuzz.sh "${FUZZ_SECONDS:-180}"
fi
# Last, so that the runner's own summary closes the output.
if cargo nextest --version >/dev/null 2>&1; then
    step cargo nextest run --workspace --profile ci "$@"
else
    step cargo test --workspace --lib --bins --tests --no-fail-fast "$@"
fi
