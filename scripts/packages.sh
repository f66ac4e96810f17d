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

install_known() { apt install -y --no-install-recommends "${known[@]}"; }

# A server comes for its program, which the tests run in a folder of their own. By itself Debian would start Redis, now
# and with each boot, and make a PostgreSQL cluster. Both files are there only for as long as apt runs.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/no-main-cluster.conf
made=()
write() { # FILE MODE LINES, unless it is there
    [ ! -e "$1" ] || return 0
    made+=("$1")
    "${as_root[@]}" install -D -m "$2" /dev/stdin "$1" <<<"$3"
}
keep_servers_off() {
    trap 'if [ ${#made[@]} -gt 0 ]; then "${as_root[@]}" rm -f "${made[@]}"; fi' EXIT
    write "$policy" 755 $'#!/bin/sh\nexit 101'
    write "$no_cluster" 644 'create_main_cluster = false'
}

# A fresh image comes without package lists. (No `grep -q` on a pipe: it would break off `find`.)
[ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ] || apt update

# Ubuntu has no chromium package, only a snap: what apt does not know is said, and does not stop the rest.
known=()
for name in "${missing[@]}"; do
    if apt-cache show "$name" >/dev/null 2>&1; then known+=("$name"); else echo "setup: apt does not know $name, going on without it" >&2; fi
done
[ ${#known[@]} -gt 0 ] || exit 0

case " ${known[*]} " in *" postgresql "* | *" redis-server "*) keep_servers_off ;; esac

# The lists may be older than what the servers still hold, so a failure is tried once more with new ones.
install_known || { apt update && install_known; } || {
    echo "setup: could not install: apt-get install ${known[*]}" >&2
    exit 1
}
not_at_boot='if command -v update-rc.d >/dev/null; then update-rc.d redis-server disable; fi'
case " ${known[*]} " in *" redis-server "*) "${as_root[@]}" sh -c "$not_at_boot" ;; esac
