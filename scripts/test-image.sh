#!/usr/bin/env bash
# Builds the image from the Dockerfile, runs it and compose.yaml's services, and tests them (tests/image). A Docker engine
# is not needed: buildah, podman and runc are in Debian. Registries are not asked: the images that ours stand on are made
# from Debian's packages, once, and kept below $home. Everything else that a run makes is removed when it ends.
# usage: [VENV=.venv] scripts/test-image.sh [ARGUMENTS OF PYTEST...]
#        scripts/test-image.sh --clean    end and remove what a killed run left; does nothing beside a run
#        scripts/test-image.sh --purge    and remove the kept images
set -euo pipefail
cd -P "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
home=/var/lib/containers/exercise-test
run_home=/run/exercise-test
suite=trixie # has the Python that the Dockerfile asks for
python_image=docker.io/library/python:3.13-slim
postgresql_image=docker.io/library/postgres:17

die() { echo "test-image: $*" >&2; exit 1; }
say() { echo "test-image: $*"; }

[ "$(id -u)" = 0 ] || die "needs root, to build and run containers: start it as root."

# The storage is our own: images with public names that we made ourselves must not be among other people's.
choose_storage() {
    mkdir -p "$home" "$run_home"
    driver=${TEST_IMAGE_DRIVER:-vfs} # copies every layer; overlay needs a kernel and a file system that can
    if [ -z "${TEST_IMAGE_DRIVER:-}" ] && mounts_overlay; then driver=overlay; fi
    mine="$home/$driver"
    storage=(--root "$mine/storage" --runroot "$run_home/$driver" --storage-driver "$driver")
    # crun refuses hybrid cgroups. Without systemd there is no other manager of cgroups, and no journal.
    podman=(podman "${storage[@]}" --tmpdir "$run_home/$driver/tmp" --network-config-dir "$run_home/networks"
        --cgroup-manager cgroupfs --events-backend none --runtime "$(command -v runc || true)")
    making=$mine/making
}

mounts_overlay() {
    local try
    try=$(mktemp -d "$home/try-XXXXXX")
    mkdir "$try/lower" "$try/upper" "$try/work" "$try/all"
    unshare --mount mount -t overlay overlay "$try/all" \
        -o "lowerdir=$try/lower,upperdir=$try/upper,workdir=$try/work" 2>/dev/null
    local status=$?
    rm -rf "$try"
    return $status
}

# One run at a time. Only this script holds the lock: it is free again when it ends, however it ends.
lock() {
    exec 9>"$home/lock"
    flock "$@" 9
}

quietly() { "$@" >/dev/null 2>&1 9>&- || true; }

# Everything in the storage but the kept images belongs to the run that holds the lock.
clean() {
    local name kept=(-e none)
    command -v podman >/dev/null || return 0
    [ -d "$mine" ] || return 0
    quietly "${podman[@]}" rm --all --force --volumes --time 0
    quietly "${podman[@]}" volume rm --all --force
    quietly buildah "${storage[@]}" rm --all
    for name in "$python_image" "$postgresql_image"; do
        kept+=(-e "$("${podman[@]}" image inspect --format 'sha256:{{.Id}}' "$name" 2>/dev/null 9>&-)") || true
    done
    "${podman[@]}" images --all --quiet --no-trunc 2>/dev/null 9>&- | grep -vxF "${kept[@]}" |
        xargs --no-run-if-empty "${podman[@]}" rmi --force >/dev/null 2>&1 9>&- || true
    if [ -d "$making" ]; then
        # debootstrap that was killed leaves mounts.
        for name in proc sys; do umount --recursive --lazy "$making/base/$name" 2>/dev/null || true; done
        rm -rf --one-file-system "$making"
    fi
    umount "$mine/storage/overlay" 2>/dev/null || true
}

purge() {
    clean
    rm -rf --one-file-system "$home" "$run_home"
}

# --- the images that ours stand on ------------------------------------------------------------------

is_made() { "${podman[@]}" image exists "$1" 9>&-; }

# What takes long runs in a session of its own, so that a signal ends it, and all that it started, at once.
child=""
held() {
    local status=0
    setsid "$@" </dev/null 9>&- &
    child=$!
    wait "$child" || status=$?
    child=""
    return $status
}

end_child() {
    [ -n "$child" ] || return 0
    kill -TERM -- "-$child" 2>/dev/null || return 0
    local round
    for round in {1..50}; do
        kill -0 -- "-$child" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$child" 2>/dev/null || true
}

# usage: logged NAME COMMAND...    What it printed is shown only if it fails.
logged() {
    local log="$making/log"
    held "${@:2}" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "could not make $1, see above."
    }
}

mirror_of() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | sort -u; }

make_python() {
    local mirror proxy keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ "$(sed -n 's/^FROM //p' Dockerfile)" = "${python_image#docker.io/library/}" ] ||
        die "the Dockerfile stands on another image than $python_image: say in $0 which release of Debian has its Python."
    mirror=$(mirror_of)
    if [ -z "$mirror" ]; then
        apt-get -qq update 9>&- || true
        mirror=$(mirror_of)
    fi
    mirror=$(head -n 1 <<<"$mirror")
    [ -n "$mirror" ] || die "apt knows no mirror of Debian here, and the base image is made from Debian's packages."
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "${proxy:-}" ] || export http_proxy=$proxy
    say "making $python_image from Debian $suite, once"
    logged "$python_image" debootstrap --variant=minbase --keyring="$keys" \
        --include=python3,python3-venv,python3-pip,ca-certificates "$suite" "$making/base" "$mirror"
    rm -rf "$making"/base/var/cache/apt/archives/*.deb "$making"/base/var/lib/apt/lists/*
    tar -C "$making/base" -c . | "${podman[@]}" import - "$python_image" >/dev/null 2>&1 9>&-
    rm -rf --one-file-system "$making/base"
}

make_postgresql() {
    say "making $postgresql_image from Debian $suite, once"
    logged "$postgresql_image" buildah "${storage[@]}" bud --isolation chroot --format docker --pull-never \
        --build-arg "BASE=$python_image" --tag "$postgresql_image" tests/image/postgresql
}

# --- ours -------------------------------------------------------------------------------------------

# pip asks in the build what it asks here: its settings as one file, and the files and folders of this machine that they
# name, mounted where they are. usage: pip_here FILE    writes FILE, prints the paths
pip_here() {
    "$VENV/bin/python" - "$1" <<'END'
import ast, configparser, os, subprocess, sys
said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
settings = {}
for line in said.splitlines():
    name, _, value = line.partition("=")
    section, _, option = name.partition(".")
    settings.setdefault(section, {})[option] = ast.literal_eval(value)
from_environment = settings.pop(":env:", {})
for options in settings.values():
    for option in from_environment:
        options.pop(option, None)
settings["global"] = settings.get("global", {}) | from_environment
authorities = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
for path in filter(None, authorities):
    settings["global"].setdefault("cert", path)
config = configparser.RawConfigParser()
config.read_dict(settings)
with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    config.write(file)
paths = {"/etc/ssl/certs"}
for options in settings.values():
    for option, value in options.items():
        for word in value.split():
            path = word.removeprefix("file://").partition("#")[0].rstrip("/")
            # The pages of an index link to files beside it.
            path = os.path.dirname(path) if option.endswith("index-url") else path
            if path.count("/") > 1 and path.startswith("/") and os.path.exists(path):
                paths.add(path)
# Not what lies in another one: it is mounted with it.
print(*sorted(path for path in paths if not any(path.startswith(f"{other}/") for other in paths)), sep="\n")
END
}

build() { # CONTEXT NAME
    logged "$2" buildah "${storage[@]}" bud --isolation chroot --format docker --layers --pull-never \
        "${volumes[@]}" --tag "$2" "$1"
}

# The context is a copy of the checkout with what the image must not hold laid into it.
copy_checkout() {
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        while IFS= read -rd '' name; do [ ! -f "$name" ] || printf '%s\0' "$name"; done |
        tar --null --files-from=- -c | tar -C "$1" -x
    local name
    for name in .env .env.production .git/config .venv/lib/x data/secret_key media/frames/1/x.jpg db.sqlite3 \
        db.sqlite3-wal streams/__pycache__/x.pyc .mypy_cache/x .coverage; do
        mkdir -p "$1/$(dirname "$name")"
        echo "planted-$name" >>"$1/$name"
    done
}

run() {
    scripts/packages.sh buildah podman runc crun netavark catatonit debootstrap >&2
    local tool
    for tool in buildah podman runc catatonit debootstrap; do
        command -v "$tool" >/dev/null || die "needs $tool: apt-get install buildah podman runc crun netavark catatonit debootstrap."
    done
    choose_storage
    lock --nonblock || {
        say "waiting for another run on this machine"
        lock --timeout 1200 || die "another run still goes on."
    }
    trap 'status=$?; trap "" INT TERM HUP; end_child; clean; exit $status' EXIT
    trap 'exit 130' INT TERM HUP
    clean
    mkdir -p "$making/context"
    is_made "$python_image" || make_python
    is_made "$postgresql_image" || make_postgresql
    local volumes=() path paths
    paths=$(pip_here "$making/pip.conf")
    for path in $paths; do volumes+=(--volume "$path:$path:ro"); done
    volumes+=(--volume "$making/pip.conf:/etc/pip.conf:ro")
    copy_checkout "$making/context"
    say "building the image ($driver)"
    build "$making/context" exercise
    echo '# another source' >>"$making/context/manage.py"
    build "$making/context" exercise-changed
    TEST_IMAGE=$(printf '%q ' "${podman[@]}") TEST_IMAGE_CONTEXT="$making/context" \
        held "$VENV/bin/python" -m pytest tests/image "$@"
}

: "${VENV:=.venv}"
case ${1:-} in
    --clean | --purge)
        choose_storage
        lock --nonblock || { say "a run goes on, nothing is removed."; exit 0; }
        "${1#--}" ;;
    *) run "$@" ;;
esac
