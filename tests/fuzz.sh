#!/usr/bin/env bash
# Fuzzes every parser for SECONDS in all, from the committed corpora, guided by coverage; fails on a crash.
#     tests/fuzz.sh [SECONDS [TARGET...]]
# Targets run at the same time on different cores, so on two cores that takes half of SECONDS, and building.
# The compiler's coverage flags are stable ones, so this needs neither a nightly compiler nor cargo-fuzz.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

seconds=${1:-180}
shift || true
workspaces=(stratum/fuzz tests/fuzz)

# libFuzzer itself is C++.
if ! command -v c++ >/dev/null; then
    need_packages "fuzzing" g++
fi

host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, build scripts and macros are built without these flags. Debug assertions are on by the profile.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
for workspace in "${workspaces[@]}"; do
    RUSTFLAGS="--cfg fuzzing $coverage" CARGO_TARGET_DIR=$PWD/target/fuzz \
        cargo build --release --quiet --target "$host" --manifest-path "$workspace/Cargo.toml"
done

targets=()
for workspace in "${workspaces[@]}"; do
    for source in "$workspace"/src/*.rs; do
        name=$(basename "$source" .rs)
        if (($# == 0)) || [[ " $* " == *" $name "* ]]; then
            targets+=("$workspace:$name")
        fi
    done
done
if ((${#targets[@]} == 0)); then
    echo "No fuzz target is named $*" >&2
    exit 1
fi
share=$((seconds / ${#targets[@]}))
((share > 0)) || share=1

# Targets that write files would mostly wait for a disk: memory, where there is some.
shm=/dev/shm
[[ -w $shm ]] || shm=${TMPDIR:-/tmp}
work=$(mktemp -d -p "$shm")

fuzz() {
    local workspace=${1%%:*} name=${1##*:} verdict=ok executions covered
    local found=$work/$name artifacts=target/fuzz/artifacts/$name
    mkdir -p "$found" "$artifacts"
    # What is new goes into the first folder, and away with it; the committed corpus stays as it is.
    TMPDIR=$work "target/fuzz/$host/release/$name" "$found" "$workspace/corpus/$name" \
        -max_total_time="$share" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$artifacts/" >"$work/$name.log" 2>&1 || verdict=CRASHED
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log")
    covered=$(grep -o 'cov: [0-9]*' "$work/$name.log" | tail -n 1 || true)
    printf '%-13s %3d seeds  %9s executions in %d s  %-10s  %s\n' "$name" \
        "$(find "$workspace/corpus/$name" -type f | wc -l)" "${executions:-?}" "$share" "$covered" "$verdict"
    if [[ $verdict != ok ]]; then
        tail -n 40 "$work/$name.log"
        echo "The input is in $artifacts/; run it with: target/fuzz/$host/release/$name FILE"
        return 1
    fi
}

running=()
# Each target is a group of processes, and none outlives this script.
set -m
end() {
    local pid
    for pid in "${running[@]}"; do
        kill -- "-$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap end EXIT
cores=$(nproc)
crashes=0
# Waits for the one that began first: all take the same time.
await_one() {
    wait "${running[0]}" || crashes=$((crashes + 1))
    running=("${running[@]:1}")
}
for target in "${targets[@]}"; do
    ((${#running[@]} < cores)) || await_one
    fuzz "$target" &
    running+=($!)
done
while ((${#running[@]} > 0)); do
    await_one
done
if ((crashes > 0)); then
    echo "$crashes of ${#targets[@]} fuzz targets crashed" >&2
    exit 1
fi
echo "${#targets[@]} fuzz targets, no crash"
