#!/usr/bin/env bash
# Checks what changed since BASE (HEAD unless named): format, lints and unit tests, within a minute after an edit.
#     tests/quick.sh [BASE]
# Needs no root, no daemon and no network. Of Rust it checks only the packages that changed, and of those only library,
# programs and the test binaries that were edited; tests/run.sh checks everything.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s\n' "$*"; "$@"; }

base=${1:-HEAD}
if ! git rev-parse --quiet --verify "$base^{commit}" >/dev/null; then
    echo "Unknown commit: $base. Name a commit or branch that the changes are counted from, or none for HEAD." >&2
    exit 1
fi
mapfile -t changed < <(
    git diff --name-only --no-renames "$base"
    git ls-files --others --exclude-standard
)

declare -A packages=() binaries=()
scripts=()
pages=
for path in "${changed[@]}"; do
    case $path in
        # Workspaces of their own, which only fuzzing builds.
        stratum/fuzz/* | tests/fuzz/*) ;;
        p2p/* | sharechain/* | stratum/*) packages[${path%%/*}]=yes ;;
        tests/support/*) packages[test-support]=yes ;;
        *.sh | .ci/*) [[ ! -f $path ]] || scripts+=("$path") ;;
        tests/*/*.rs)
            packages[p2pool]=yes
            name=${path#tests/}
            [[ ! -f tests/${name%%/*}/main.rs && ! -f tests/${name%%/*}.rs ]] || binaries[${name%%/*}]=yes
            ;;
        tests/*.rs)
            packages[p2pool]=yes
            [[ ! -f $path ]] || binaries[$(basename "$path" .rs)]=yes
            ;;
        src/* | benches/*) packages[p2pool]=yes ;;
        *.md) pages=yes ;;
        # What all packages are built by.
        Cargo.toml | Cargo.lock | .clippy.toml | .cargo/*)
            packages[p2p]=yes packages[p2pool]=yes packages[sharechain]=yes packages[stratum]=yes packages[test-support]=yes
            ;;
    esac
done

step cargo fmt --all --check
for script in "${scripts[@]}"; do
    step bash -n "$script"
done
if ((${#scripts[@]} > 0)) && command -v shellcheck >/dev/null; then
    step shellcheck --external-sources "${scripts[@]}"
fi
for package in "${!packages[@]}"; do
    targets=(--lib)
    if [[ $package == p2pool ]]; then
        targets+=(--bins)
        for binary in "${!binaries[@]}"; do
            targets+=(--test "$binary")
        done
    fi
    step cargo clippy --package "$package" "${targets[@]}" -- -D warnings
done
# Links, citations and messages in the documentation.
if [[ -n $pages ]]; then
    step cargo test --quiet --package p2pool --test tidy
fi
# The tests of the test support start daemons.
tested=()
for package in p2p p2pool sharechain stratum; do
    [[ -z ${packages[$package]:-} ]] || tested+=("$package")
done
if ((${#tested[@]} > 0)) && cargo nextest --version >/dev/null 2>&1; then
    # Of the whole workspace, so that dependencies have the features that they have in tests/run.sh, and are built once.
    step cargo nextest run --workspace --lib --filterset "$(printf 'package(%s) or ' "${tested[@]}")none()"
elif ((${#tested[@]} > 0)); then
    for package in "${tested[@]}"; do
        step cargo test --package "$package" --lib
    done
fi
if ((${#packages[@]} == 0)); then
    packages[none]=yes
fi
printf '\n== %d files changed since %s; packages checked: %s\n' "${#changed[@]}" "$base" "${!packages[*]}"
