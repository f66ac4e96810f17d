#!/usr/bin/env bash
# Makes a cluster with the user, the password and the database that the environment names, where there is none, and then
# runs PostgreSQL. Whoever comes by TCP needs the password. While the cluster is made only a socket is listened on.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" --auth-local trust --auth-host scram-sha-256
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options "-c listen_addresses=''" start
    createdb --username "$POSTGRES_USER" --maintenance-db postgres "$POSTGRES_DB"
    pg_ctl --wait --mode fast stop
fi
exec "$@"
