#!/usr/bin/env bash
# Serves the website and runs the supervisor beside it, until SIGTERM or SIGINT or until one of them dies.
# Both `make run` and the image end up here; the image keeps its own copy, so that a checkout mounted over /app
# cannot break it. Exit status: 0 after a wanted stop, else what the first one to die ended with.
set -u

python=${PYTHON:-python3}
# Longer than the last checkpoint and TEARDOWN of every capture take. (`docker stop` waits 10 s unless told otherwise.)
stop_within_s=${SERVE_STOP_WITHIN_S:-25}

say() { echo "serve: $*" >&2; }
die() { say "$@"; exit 1; }

cd "${APP_DIR:-$(dirname "$0")/..}" || exit 1
[ -r manage.py ] || die "cannot read $PWD/manage.py as uid $(id -u): mount the checkout, readable for that uid, over $PWD."

# A setting X may stand in the file that X_FILE names; the few that this script needs are read as rtspsite/settings.py does.
setting() {
    local file=$1_FILE
    if [ -n "${!file:-}" ]; then cat "${!file}"; else echo "${!1:-$2}"; fi
}

must_be_writable() {
    local folder=$2 probe owner
    if mkdir -p "$folder" 2>/dev/null && probe=$(mktemp "$folder/.writable-XXXXXX" 2>/dev/null); then rm -f "$probe"; return; fi
    while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
    owner=$(stat -c %u:%g "$folder")
    case $owner in 0:*) owner="" ;; *) owner=", or start the container as its owner, with --user $owner" ;; esac
    die "$1 $2 is not writable for uid $(id -u): run chown $(id -u) on the folder behind $folder$owner."
}

# Whatever the two start carries this in its environment, also a job cluster in a session of its own; a recorder,
# whose environment is emptied, is still in its supervisor's session.
run=SERVE_RUN=$$.$RANDOM$RANDOM
ours() {
    local sessions
    sessions=$(IFS='|' && echo "${children[*]}")
    grep -lzsxF "$run" /proc/[0-9]*/environ | cut -d/ -f3
    sed -nE "s/^([0-9]+) \(.*\) [^Z] [0-9]+ [0-9]+ ($sessions) .*/\1/p" /proc/[0-9]*/stat 2>/dev/null
}

signal_ours() { ours | xargs --no-run-if-empty kill -"$1" 2>/dev/null; }

all_gone_within() {
    local deadline=$((SECONDS + $1))
    while [ -n "$(ours)" ]; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

children=()
stopping=""
stop() { kill -TERM "${children[@]}" 2>/dev/null; }
trap 'stopping=yes; stop' TERM INT HUP

# In a session of its own a child gets a Ctrl-C only from here; with pdeathsig it ends even if this script is killed.
start() {
    env "$run" setsid setpriv --pdeathsig TERM "$@" </dev/null &
    children+=($!)
    [ -z "$stopping" ] || stop # the signal may have come before the child was on the list
}

alive() { kill -0 "$1" 2>/dev/null; }

must_be_writable DATA_DIR "$(setting DATA_DIR "$PWD/data")"
must_be_writable MEDIA_ROOT "$(setting MEDIA_ROOT "$PWD/media")"

start "$python" manage.py prepare
prepare=${children[0]}
while alive "$prepare"; do wait "$prepare"; done
wait "$prepare" || { [ -n "$stopping" ] || die "could not prepare the database, see above."; }
[ -z "$stopping" ] || exit 0

host=$(setting HOST 127.0.0.1) port=$(setting PORT 8000)
case $host in *:*) host="[$host]" ;; esac
heartbeats=/dev/shm # a worker's heartbeat file on a slow disk gets the worker killed for silence
[ -w "$heartbeats" ] || heartbeats=${TMPDIR:-/tmp}
children=()
# Threads: a /stop may hold one for 10 s. No access log: a query string can hold what no log should.
start "$python" -m gunicorn rtspsite.wsgi --bind "$host:$port" --worker-class gthread --threads 16 \
    --timeout 60 --graceful-timeout 8 --keep-alive 5 --worker-tmp-dir "$heartbeats" --no-control-socket
start "$python" manage.py supervise
website=${children[0]} supervisor=${children[1]}
say "the website is on http://$host:$port, the supervisor runs beside it."

while alive "$website" && alive "$supervisor"; do wait -n "$website" "$supervisor"; done

status=0 ended=$website who=website
if [ -z "$stopping" ]; then
    if alive "$website"; then ended=$supervisor who=supervisor; fi
    wait "$ended"
    status=$?
    say "the $who ended by itself with status $status, so everything stops."
    [ "$status" -ne 0 ] || status=1
    stop
    # What a killed supervisor leaves behind sees its pipe close; the rest has to be told.
    if [ "$who" = supervisor ] && ! all_gone_within 5; then signal_ours TERM; fi
fi

if ! all_gone_within "$stop_within_s"; then
    say "still there $stop_within_s s after the stop, so killed: $(ours | sort -u | tr '\n' ' ')"
    signal_ours KILL
    [ "$status" -ne 0 ] || status=1
fi
exit "$status"
