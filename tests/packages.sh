# shellcheck shell=bash
# Debian packages that the scripts beside this file need: installed when that is allowed, else named. Sourced, not run.

# need_packages WHAT_FOR PACKAGE...
need_packages() {
    local what_for=$1 package missing=()
    shift
    if ! command -v dpkg-query >/dev/null; then
        echo "Not a Debian system: if $what_for fails, install what Debian calls $*." >&2
        return
    fi
    for package in "$@"; do
        if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            missing+=("$package")
        fi
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "Missing for $what_for: ${missing[*]}. Run this and try again:" >&2
        echo "    sudo apt-get update && sudo apt-get install --yes --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing for $what_for: ${missing[*]}" >&2
    # dpkg's lock may be held by another run of ours or by the system's own updates: wait rather than fail.
    local apt=(apt-get -o DPkg::Lock::Timeout=300 --quiet=2)
    "${apt[@]}" update >&2
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >&2
}
