#!/usr/bin/env bash
# Checks everything that can be checked, as CI does: format, lints, documentation, and all tests against a real bitcoind.
#     tests/run.sh [--full] [ARGUMENT...]
# Installs what is missing when it may (root and apt), else says what to install. Arguments go to the test runner.
#
# --full adds what takes too long for every change: the tests marked `#[ignore = "long: tests/run.sh --full"]` (large
# simulations among them) and a quarter of an hour of fuzzing.
# FUZZ_SECONDS is the time that fuzzing gets, summed over cores; without it, 240 in CI, 900 with --full, and none otherwise.
# tests/quick.sh is the one to run after each edit.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

full=
if [[ ${1:-} == --full ]]; then
    full=yes
    shift
fi

step() {
    printf '\n== %s\n' "$*"
    local started=$SECONDS
    "$@"
    printf '== took %d s\n' $((SECONDS - started))
}

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

# In CI nothing is built twice, and what makes a second build faster makes the first one slower.
if [[ -n ${CI:-} ]]; then
    export CARGO_INCREMENTAL=0
fi

step cargo fmt --all --check

# Prometheus's package has promtool; systemd's has systemd-analyze.
need_packages "testing boards, containers and the service" docker-compose prometheus systemd
# A node on Litecoin is tested with the coin's own daemon.
if [[ -z ${LITECOIND:-} ]] && ! command -v litecoind >/dev/null; then
    need_packages "testing with litecoind" litecoind
fi
# The pages are looked at in a real browser.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    need_packages "the pages' tests" chromium fonts-dejavu-core
fi
tests/bitcoind.sh --packages >/dev/null

# Where bitcoind has to be built, Cargo's steps leave cores idle that can build it. It has no claim on them before that.
bitcoind_log=$(mktemp)
nice -n 10 tests/bitcoind.sh >"$bitcoind_log" 2>&1 &
bitcoind=$!
# The script cleans up after itself when it is told to end.
trap 'kill "$bitcoind" 2>/dev/null || true; rm -f "$bitcoind_log"' EXIT
await_bitcoind() {
    local status=0
    wait "$bitcoind" || status=$?
    cat "$bitcoind_log"
    return "$status"
}

step cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps
# Proves that the core of the Stratum crate does no I/O.
step cargo check -p stratum --no-default-features
step cargo test --doc --workspace
# Tries all orders of threads, for the concurrency written by hand.
step cargo test -p stratum --features loom --lib model_
# The program as operators build it, but for the profile.
step tests/operators_build.sh

fuzz_seconds=${FUZZ_SECONDS:-}
if [[ -z $fuzz_seconds && -n $full ]]; then
    fuzz_seconds=900
elif [[ -z $fuzz_seconds && -n ${CI:-} ]]; then
    fuzz_seconds=240
fi
if [[ -n $fuzz_seconds ]]; then
    step tests/fuzz.sh "$fuzz_seconds"
fi

step await_bitcoind
# Last, so that the runner's own summary closes the output.
if cargo nextest --version >/dev/null 2>&1; then
    if [[ -n $full ]]; then
        step cargo nextest run --workspace --profile full --run-ignored all "$@"
    else
        step cargo nextest run --workspace --profile ci "$@"
    fi
else
    step cargo test --workspace --lib --bins --tests --no-fail-fast "$@" ${full:+-- --include-ignored}
fi
