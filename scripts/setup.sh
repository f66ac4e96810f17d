#!/usr/bin/env bash
# Makes the virtual environment and installs pinned packages into it; does nothing where that is done.
# usage: [VENV=.venv] [PYTHON=python3] scripts/setup.sh requirements.txt [requirements-dev.txt]
set -euo pipefail
cd -P "$(dirname "$0")/.."
venv=${VENV:-.venv}

die() { echo "setup: $*" >&2; exit 1; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The first Python of 3.11 to 3.14, for which every pinned package is published as a wheel; else a newer one.
# A name may be a pyenv shim that leads nowhere, so each is run, not only looked for.
find_python() {
    local name version newer="" found=none
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
        version=$(version_of "$name") || continue
        case $version in
            3.1[1-4]) echo "$name"; return ;;
            3.1[5-9] | 3.[2-9]? | [4-9].*) newer=${newer:-$name} ;;
            *) found="$name $version" ;;
        esac
    done
    [ -n "$newer" ] || die "needs Python 3.11 or newer, found $found: install one, or name it: make PYTHON=/path/to/python3"
    echo "$newer"
}

# Not usable: half made, moved or copied (its scripts name the old place), or its Python gone or replaced.
is_usable() {
    "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -qF "$(cd "$venv" && pwd)" "$venv/bin/activate"
}

make_venv() {
    local python=$1 package said
    said=$("$python" -m venv --clear "$venv" 2>&1) && return
    rm -rf "$venv"
    "$python" -c 'import ensurepip' 2>/dev/null && die "$python cannot make $venv: $said"
    package=python$(version_of "$python")-venv # Debian keeps half of venv in a package of its own
    scripts/packages.sh "$package"
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    die "$python cannot make a virtual environment: apt-get install $package"
}

if ! is_usable; then
    # `venv --clear` would empty what the link leads to, which may be the environment of another checkout.
    [ ! -L "$venv" ] || die "$venv is a link, and is not used: remove it, or name the folder it leads to with VENV="
    # Everything below it goes: only a folder that was made for this.
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ "$venv" != .venv ]; then
        die "$venv is not a virtual environment: name another folder with VENV="
    fi
    python=$(find_python)
    echo "setup: making $venv with $python ($(version_of "$python"))"
    make_venv "$python"
fi

wanted=()
for file in "$@"; do cmp -s "$file" "$venv/installed-$file" || wanted+=(--requirement "$file"); done
[ ${#wanted[@]} -gt 0 ] || exit 0
echo "setup: installing $* (a minute or two)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes "${wanted[@]}"
for file in "$@"; do cp "$file" "$venv/installed-$file"; done # only now: an interrupted install is done again
