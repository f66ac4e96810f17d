#!/usr/bin/env bash
# Three scripted cameras and the service that captures them, until Ctrl-C. All of it lies in a folder of its own, which is
# removed at the end: neither data/ nor media/ is touched.
# usage: [PYTHON=.venv/bin/python] [PORT=8000] [KEEP=folder] [LOOP=30] scripts/demo.sh
#   KEEP   this folder in place of a temporary one, and it stays
#   LOOP   seconds of each film; fewer are drawn sooner
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3} port=${PORT:-8000} host=${HOST:-127.0.0.1}
ready_within_s=120

say() { echo "demo: $*" >&2; }

command -v "$python" >/dev/null || { say "there is no $python: make demo"; exit 1; }
"$python" - "$host" "$port" 2>/dev/null <<'END' || { say "port $port is taken: PORT=8001 make demo"; exit 1; }
import socket, sys
family, kind, _, _, address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM)[0]
with socket.socket(family, kind) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(address)
END

if [ -n "${KEEP:-}" ]; then mkdir -p "$KEEP" && folder=$(cd "$KEEP" && pwd) || exit 1; else folder=$(mktemp -dt capture-demo-XXXXXX) || exit 1; fi
log=$folder/log cameras_of=$folder/cameras
# Whatever the environment says of another installation's database, queue, pictures and keys is not for this one.
for name in DATABASE_URL REDIS_URL S3_BUCKET SECRET_KEY CREDENTIALS_KEYS CAPTURE_SLOTS CAPTURE_KEEP_DAYS CAPTURE_ALLOWED_NETWORKS CAPTURE_REDIRECT_PORTS HTTPS DATA_DIR MEDIA_ROOT; do
    unset "$name" "${name}_FILE"
done
export PYTHON=$python PORT=$port HOST=$host DATA_DIR=$folder/data MEDIA_ROOT=$folder/media CAPTURE_HOST_NAME=demo PYTHONUNBUFFERED=1

cameras="" service="" stopping=""
trap 'stopping=yes' INT TERM HUP

# In a session of its own a child gets a Ctrl-C only from here; with pdeathsig it ends even if this script is killed.
start() { setsid setpriv --pdeathsig TERM "$@" </dev/null & }
alive() { kill -0 "$1" 2>/dev/null; }
end() {
    [ -n "$1" ] || return
    while kill -TERM "$1" 2>/dev/null; do sleep 1 & wait -n "$1" $!; done
}
leave() {
    trap '' INT TERM HUP
    say "taking it all down"
    end "$service"
    end "$cameras"
    if [ "$1" -ne 0 ]; then tail -n 20 "$log" >&2; fi
    # Not by `&& ... ||`: where the terminal is closed saying so fails.
    if [ -n "${KEEP:-}" ]; then say "kept in $folder"; else rm -rf "$folder"; fi
    exit "$1"
}

# usage: until_true WHAT COMMAND ...; leaves if that takes too long, if a part has ended, or at Ctrl-C
until_true() {
    local what=$1 deadline=$((SECONDS + ready_within_s))
    shift
    until "$@" >/dev/null 2>&1; do
        [ -z "$stopping" ] || leave 0
        alive "$service" || { say "the service ended by itself:"; leave 1; }
        alive "$cameras" || { say "the cameras ended by themselves:"; leave 1; }
        [ $SECONDS -lt $deadline ] || { say "waited $ready_within_s s for $what:"; leave 1; }
        sleep 0.3
    done
}
are_drawn() { wc -l <"$cameras_of" | grep -qx 3; } # no $( ): see scripts/serve.sh

say "drawing three films and starting the service (ten to twenty seconds)"
start "$python" -m tests.camera.demo --loop "${LOOP:-30}" >"$cameras_of" 2>"$log"
cameras=$!
start scripts/serve.sh >>"$log" 2>&1
service=$!
until_true "the service" "$python" scripts/healthcheck
until_true "the cameras" are_drawn
# What an earlier demo captured into a folder that was kept: its cameras are gone.
[ -z "${KEEP:-}" ] || "$python" manage.py streams stop --all </dev/null >/dev/null 2>>"$log" || leave 1
while read -r url; do
    [ -z "$stopping" ] || leave 0
    "$python" manage.py streams start "$url" </dev/null || { [ -n "$stopping" ] && leave 0 || leave 1; }
done <"$cameras_of"
say "open http://localhost:$port and watch; harbour-bad-wifi loses its connection now and then, on purpose"
say "Ctrl-C ends it all; the log is $log"
while [ -z "$stopping" ]; do
    alive "$service" || { say "the service ended by itself:"; leave 1; }
    alive "$cameras" || { say "the cameras ended by themselves:"; leave 1; }
    wait -n "$service" "$cameras"
done
leave 0
