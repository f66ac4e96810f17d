#!/usr/bin/env bash
# Sees to it that Debian packages are there: installs what is missing where it may, else names it in one line.
# usage: scripts/packages.sh NAME...
set -euo pipefail

is_installed() {
    dpkg-query --show --showformat '${Status}\n' "$1" 2>/dev/null | grep -q ' ok installed'
}

missing=()
for name in "$@"; do is_installed "$name" || missing+=("$name"); done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "setup: missing Debian packages, which only root may install: apt-get install ${missing[*]}" >&2
    exit 1
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

install() { apt install -y --no-install-recommends "${known[@]}"; }

# A fresh image comes without package lists. (No `grep -q` on a pipe: it would break off `find`.)
[ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ] || apt update

# Ubuntu has no chromium package, only a snap: what apt does not know is said, and does not stop the rest.
known=()
for name in "${missing[@]}"; do
    if apt-cache show "$name" >/dev/null 2>&1; then known+=("$name"); else echo "setup: apt does not know $name, going on without it" >&2; fi
done
[ ${#known[@]} -gt 0 ] || exit 0

# The lists may be older than what the servers still hold, so a failure is tried once more with new ones.
install || { apt update && install; } || {
    echo "setup: could not install: apt-get install ${known[*]}" >&2
    exit 1
}
