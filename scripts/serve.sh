#!/usr/bin/env bash
# The one entry point, of `make run` and of the image, which keeps its own copy, so that a checkout mounted over /app
# cannot break it.
#   serve.sh [serve]        the website and the supervisor, until SIGTERM or SIGINT
#   serve.sh web            the website alone
#   serve.sh supervise      the supervisor alone
#   serve.sh COMMAND ...    any other command of manage.py, once
# What is killed by a signal (kill -9, the system short of memory) is started again, and the rest goes on meanwhile; what
# ends by itself has said why, and ends it all. Exit status: 0 after a wanted stop, else what the first one to end had.
set -u
umask 077 # what the service writes is for nobody else to read
ulimit -c 0 # nor what it has in memory when it crashes

python=${PYTHON:-python3}
# Longer than the last checkpoint and TEARDOWN of every capture take. (`docker stop` waits 10 s unless told otherwise.)
stop_within_s=${SERVE_STOP_WITHIN_S:-25}

# Whoever reads the output may go away (a log collector that is restarted, `| head`). Each line that is written then
# brings SIGPIPE: it is heard and means nothing. Not ignored, as each child would inherit that.
trap : PIPE
# A stream that is closed (`2>&-`) is given to the next file that is opened: bash's own, which is this script, or a
# child's database or socket, with the log in it.
for stream in 0 1 2; do
    case $stream:$(stat -c %A /proc/$$/fd/$stream 2>/dev/null) in
        0:lr* | [12]:l?w*) ;;
        *) eval "exec $stream<>/dev/null" ;;
    esac
done

say() { echo "${SERVE_IN_JSON:+<${level:-6}>}serve: $*" >&2; }
die() { level=3 say "$@"; exit 1; }

# With LOG_FORMAT=json this script runs itself below a program that turns every other line into a JSON object. It marks
# its own lines with a priority for that program.
case ${LOG_FORMAT:-}${LOG_FORMAT_FILE:+$(cat "$LOG_FORMAT_FILE")},${1:-serve}:$# in
    json,serve:[01] | json,web:1 | json,supervise:1)
        if [ -z "${SERVE_IN_JSON-}" ]; then
            export SERVE_IN_JSON=1 GUNICORN_CMD_ARGS="${GUNICORN_CMD_ARGS-} --logger-class=rtspsite.gunicorn_log.Logger"
            exec "$python" -I -S "$(dirname "$0")/json_lines.py" bash "$0" "$@"
        fi ;;
esac

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

case ${1:-serve}:$# in
    serve:[01]) parts=(website supervisor) ;;
    web:1) parts=(website) ;;
    supervise:1) parts=(supervisor) ;;
    *) exec "$python" manage.py "$@" ;;
esac

must_be_writable DATA_DIR "$(setting DATA_DIR "$PWD/data")"
must_be_writable MEDIA_ROOT "$(setting MEDIA_ROOT "$PWD/media")"
host=$(setting HOST 127.0.0.1) port=$(setting PORT 8000)
threads=$(setting WEB_THREADS 16)
export WEB_THREADS="$threads" # the website counts its requests by what its server has
# Before anything is prepared: gunicorn would try for five seconds, and log an error for each of them.
if [ "${parts[0]}" = website ]; then
    words=$("$python" - "$host" "$port" 2>/dev/null <<'END'
import errno, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
try:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
except OSError as error:
    if error.errno == errno.EADDRINUSE:
        print(f"port {port} of {host} is taken: choose another one, for example PORT={port + 1 if port < 65535 else 8001}.")
    else:
        print(f"cannot listen on port {port} of {host}: {error.strerror}.")
END
    )
    [ -z "$words" ] || die "$words"
fi
case $host in *:*) host="[$host]" ;; esac

# Whatever is started carries `run` in its environment, also a job cluster in a session of its own, and the number of its
# start; a recorder, whose environment is emptied, is still in its supervisor's session.
#
# From the trap below until a stop there is no $( ): bash 5.2 loses a signal that comes as one ends ("trap: unexpected EOF
# while looking for matching `)'"; one TERM in eighty during the first 100 ms did nothing).
run=$$.$RANDOM$RANDOM starts=0
declare -A current=() begun_s=() start_of=() killed=() is_pausing=()

# The processes of one start, or of all.
left_of() { left SERVE_START="$run.$1" "$2"; }
ours() { left SERVE_RUN="$run" "${current[@]}"; }
left() {
    local mark=$1 ids IFS='|'
    shift
    ids="$*"
    grep -lzsxF "$mark" /proc/[0-9]*/environ | cut -d/ -f3
    sed -nE "s/^([0-9]+) \(.*\) [^Z] [0-9]+ [0-9]+ ($ids) .*/\1/p" /proc/[0-9]*/stat 2>/dev/null
}

# usage: gone_within SECONDS, and a command that lists what has to be gone
gone_within() {
    local deadline=$((SECONDS + $1))
    shift
    while "$@" | grep -q .; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# usage: signal NAME, and a command that lists what it is for
signal() {
    local name=$1
    shift
    "$@" | xargs --no-run-if-empty kill -"$name" 2>/dev/null
}

stopping=""
stop() { [ ${#current[@]} -eq 0 ] || kill -TERM "${current[@]}" 2>/dev/null; }
trap 'stopping=yes; stop' TERM INT HUP

# In a session of its own a child gets a Ctrl-C only from here; with pdeathsig it ends even if this script is killed, and
# with the look at its parent also if that was before pdeathsig was set.
start() {
    local part=$1
    shift
    starts=$((starts + 1))
    env SERVE_RUN="$run" SERVE_START="$run.$starts" setsid setpriv --pdeathsig TERM \
        sh -c '[ "$PPID" = "$0" ] && exec "$@"' $$ "$@" </dev/null &
    current[$part]=$! start_of[$part]=$starts begun_s[$part]=$SECONDS
    [ -z "$stopping" ] || stop # the signal may have come before the child was on the list
}

alive() { kill -0 "$1" 2>/dev/null; }

begin() {
    case $1 in
        # 48 threads more than requests that are answered at a time: streams/capacity.py has requests wait in them, so that
        # health checks find one. An idle one costs nothing: each is made when it is first needed.
        # No access log: a query string can hold what no log should. What a proxy says of its client is believed by Django
        # with HTTPS=1, and by nobody else.
        website) start website "$python" -m gunicorn rtspsite.wsgi --bind "$host:$port" --threads $((10#$threads + 48)) \
            --worker-class rtspsite.worker.Worker --worker-connections 800 --no-sendfile \
            --limit-request-line 4094 --limit-request-fields 64 --limit-request-field_size 8190 --forwarded-allow-ips "" \
            --timeout 60 --graceful-timeout 12 --keep-alive 5 --worker-tmp-dir "$heartbeats" --no-control-socket ;;
        supervisor) start supervisor "$python" manage.py supervise ;;
    esac
}

# What a killed part leaves behind sees its pipe close, or its parent gone, and ends by itself; what does not is ended:
# the next one would find its port or its camera taken.
restart() {
    local part=$1 pause_s
    gone_within 4 left_of "${start_of[$part]}" "${current[$part]}" || signal KILL left_of "${start_of[$part]}" "${current[$part]}"
    [ -z "$stopping" ] || return
    [ $((SECONDS - begun_s[$part])) -lt 60 ] || killed[$part]=0
    pause_s=$((killed[$part] == 0 ? 0 : killed[$part] < 4 ? 1 << killed[$part] - 1 : 10))
    killed[$part]=$((killed[$part] + 1))
    level=4 say "the $part was killed, status $2: starting it again in $pause_s s."
    if [ $pause_s -eq 0 ]; then begin "$part"; else start "$part" sleep $pause_s; is_pausing[$part]=yes; fi
}

start prepare "$python" manage.py prepare
prepare=${current[prepare]}
while alive "$prepare"; do wait "$prepare"; done
wait "$prepare" || { [ -n "$stopping" ] || die "could not prepare the database, see above."; }
[ -z "$stopping" ] || exit 0
current=()

heartbeats=/dev/shm # a worker's heartbeat file on a slow disk gets the worker killed for silence
[ -w "$heartbeats" ] || heartbeats=${TMPDIR:-/tmp}
for part in "${parts[@]}"; do killed[$part]=0; begin "$part"; done
case ${parts[*]} in
    website*) say "the website is on http://$host:$port${parts[1]:+, the supervisor runs beside it}." ;;
    *) say "the supervisor runs." ;;
esac

status=0 ended=""
while [ -z "$stopping$ended" ]; do
    wait -n "${current[@]}"
    for part in "${parts[@]}"; do
        alive "${current[$part]}" && continue
        wait "${current[$part]}"
        status=$?
        [ -z "$stopping" ] || break
        if [ -n "${is_pausing[$part]:-}" ]; then is_pausing[$part]="" && begin "$part"
        elif [ $status -gt 128 ]; then restart "$part" $status
        else ended=$part && break; fi
    done
done

if [ -n "$stopping" ]; then
    status=0
else
    level=3 say "the $ended ended by itself with status $status, so everything stops."
    [ "$status" -ne 0 ] || status=1
    stop
    # What the supervisor leaves behind sees its pipe close; the rest has to be told.
    if [ "$ended" = supervisor ] && ! gone_within 5 ours; then signal TERM ours; fi
fi

if ! gone_within "$stop_within_s" ours; then
    level=4 say "still there $stop_within_s s after the stop, so killed: $(ours | sort -u | tr '\n' ' ')"
    signal KILL ours
    [ "$status" -ne 0 ] || status=1
fi
exit "$status"
