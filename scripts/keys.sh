#!/usr/bin/env bash
# Makes the passwords by which the containers of compose.yaml know each other, each once: what is there stays.
# usage: [KEYS_DIR=/keys] keys.sh
set -euo pipefail
cd "${KEYS_DIR:-/keys}"

# usage: keep NAME COMMAND...    Whole or not at all, whenever this is killed: an empty password would stay for good.
keep() {
    local name=$1
    shift
    [ -s "$name" ] || { "$@" >".$name" && mv ".$name" "$name"; }
}

random() { head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n'; }
passfile() { echo "database:5432:capture:capture:$(cat database)"; }

umask 0027 # for the group: PostgreSQL and the store run under users of their own
keep database random
keep store random
umask 0077 # libpq reads no password file that others may read
keep pgpass passfile
