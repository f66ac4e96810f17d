#!/usr/bin/env bash
# Writes secrets.env, with random values and everything else left empty, and postgresql.env into a folder of examples/.
# A file that is there stays. Needs bash and coreutils.
# usage: make-secrets.sh examples/postgresql-s3
set -euo pipefail
umask 077
folder=${1:?usage: make-secrets.sh FOLDER}
templates=$(dirname "$0")/examples
[ -d "$folder" ] || { echo "make-secrets: no folder $folder" >&2; exit 1; }

hex() { head -c "$1" /dev/urandom | od -An -vtx1 | tr -d ' \n'; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }

# usage: keep FILE, with its content on standard input; whole or not at all
keep() {
    if [ -e "$folder/$1" ]; then
        cat >/dev/null
        echo "make-secrets: $folder/$1 is there, and stays as it is" >&2
    else
        cat >"$folder/.$1" && mv "$folder/.$1" "$folder/$1"
        echo "make-secrets: wrote $folder/$1" >&2
    fi
}

if [ -e "$folder/postgresql.env" ]; then
    password=$(sed -n 's/^POSTGRES_PASSWORD=//p' "$folder/postgresql.env")
else
    password=$(hex 24)
fi
sed -e "s/^POSTGRES_PASSWORD=$/&$password/" "$templates/postgresql.env.example" | keep postgresql.env
sed -e "s/^SECRET_KEY=$/&$(hex 32)/" -e "s/^CREDENTIALS_KEYS=$/&$(fernet)/" -e "s/^API_TOKEN=$/&$(hex 24)/" \
    -e "s#^DATABASE_URL=\$#&postgres://capture:$password@postgresql:5432/capture#" "$templates/secrets.env.example" |
    keep secrets.env
