#!/usr/bin/env bash
# Provides the tests with a real bitcoind and prints where it is: $BITCOIND, else the one in PATH, else one built once
# from the Bitcoin Core source inside a Cargo package and kept in the user's cache folder. Debian has no bitcoind.
#     tests/bitcoind.sh [--packages]
# --packages only installs what building it needs, if it is to be built.
set -euo pipefail

# The source package; test-support's bitcoind.rs looks for the same version.
version=0.4.1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/packages.sh
source "$here/packages.sh"

say() { echo "bitcoind.sh: $*" >&2; }

if [[ -n ${BITCOIND:-} ]]; then
    if [[ ! -x $BITCOIND ]]; then
        say "\$BITCOIND is $BITCOIND, which cannot be run"
        exit 1
    fi
    echo "$BITCOIND"
    exit
fi
if command -v bitcoind; then
    exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/p2pool-tests
installed=$cache/libbitcoinkernel-sys-$version
if [[ -x $installed/bin/bitcoind ]]; then
    echo "$installed/bin/bitcoind"
    exit
fi

build_packages=(cmake g++ libboost-dev libevent-dev ninja-build pkg-config)
if [[ ${1:-} == --packages ]]; then
    need_packages "building bitcoind" "${build_packages[@]}"
    exit
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
    say "another run is building bitcoind; waiting for it"
    flock 9
fi
# The run that held the lock has built it.
if [[ -x $installed/bin/bitcoind ]]; then
    echo "$installed/bin/bitcoind"
    exit
fi

need_packages "building bitcoind" "${build_packages[@]}"

# Beside the goal, so that the last step is a rename within one file system.
work=$(mktemp --directory "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "fetching libbitcoinkernel-sys $version"
mkdir -p "$work/fetch/src"
touch "$work/fetch/src/lib.rs"
cat >"$work/fetch/Cargo.toml" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"

[dependencies]
libbitcoinkernel-sys = "=$version"

[workspace]
END
(cd "$work/fetch" && cargo vendor --quiet "$work/vendor" >/dev/null)
source_dir=$work/vendor/libbitcoinkernel-sys/bitcoin

say "configuring Bitcoin Core"
# No wallet: the tests make their own keys. -O1 halves the time to build, and regtest needs no speed.
options=(
    -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1
    -DBUILD_DAEMON=ON -DBUILD_CLI=ON -DBUILD_TX=OFF -DBUILD_UTIL=OFF -DBUILD_GUI=OFF -DBUILD_TESTS=OFF
    -DENABLE_WALLET=OFF -DENABLE_IPC=OFF -DWITH_EMBEDDED_ASMAP=OFF
)
if ! cmake -S "$source_dir" -B "$work/build" -G Ninja "${options[@]}" >"$work/configure.log" 2>&1; then
    tail -n 40 "$work/configure.log" >&2
    say "cmake failed; its last lines are above"
    exit 1
fi

say "building it: about six minutes on two cores, once"
# Ninja prints one line for each of several hundred steps when piped; a sign of life each half minute is enough.
ninja -C "$work/build" bitcoind bitcoin-cli >"$work/build.log" 2>&1 9>&- &
ninja=$!
trap 'kill "$ninja" 2>/dev/null || true; rm -rf "$work"' EXIT
while kill -0 "$ninja" 2>/dev/null; do
    for ((tick = 0; tick < 30; tick++)); do
        kill -0 "$ninja" 2>/dev/null || break
        sleep 1
    done
    progress=$(grep --only-matching '^\[[0-9]*/[0-9]*\]' "$work/build.log" | tail -n 1 || true)
    say "${progress:-starting}"
done
if ! wait "$ninja"; then
    tail -n 40 "$work/build.log" >&2
    say "ninja failed; its last lines are above"
    exit 1
fi

mkdir -p "$work/done/bin"
for program in bitcoind bitcoin-cli; do
    strip -o "$work/done/bin/$program" "$work/build/bin/$program"
done
"$work/done/bin/bitcoind" --version | head -n 1 >&2
# A folder without a daemon is the remains of something else.
rm -rf "$installed"
mv --no-target-directory "$work/done" "$installed"
echo "$installed/bin/bitcoind"
