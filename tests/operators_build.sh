#!/usr/bin/env bash
# Builds the packages and features that operators build, and runs the program as they would: the demo until its first block.
#     tests/operators_build.sh
# The tests' builds have more features of dependencies, and fewer of our own: what breaks only without the former or with
# the latter shows here. The profile is that of the tests, with which most crates are shared; docs/contributing.md says why
# not `dist`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Blocks are ten seconds apart on average: one in a thousand takes longer than seventy.
demo_seconds=120

# The words of README.md, but for the profile.
cargo build --all-features
program=${CARGO_TARGET_DIR:-target}/debug/p2pool

"$program" --version

story=$(mktemp)
trap 'rm -f "$story"' EXIT
if ! timeout "$demo_seconds" "$program" demo --blocks 1 -w 127.0.0.1:0 >"$story" 2>&1 \
    || ! grep -q '^Block found at height 1 by ' "$story"; then
    cat "$story" >&2
    echo "The demo of the operators' build found no block in $demo_seconds s." >&2
    exit 1
fi
grep '^Block found at height 1 by ' "$story"
