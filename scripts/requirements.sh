#!/usr/bin/env bash
# Compiles requirements.in, requirements-s3.in and requirements-dev.in into pins with the hashes of every published file.
# usage: scripts/requirements.sh [--upgrade | --upgrade-package NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."

# With the oldest Python that is supported: newer ones are given the same versions.
python=${PYTHON:-python3.11}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
    echo "requirements: needs Python 3.11, the oldest that is supported: make requirements PYTHON=/path/to/python3.11" >&2
    exit 1
}

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check pip-tools

# Without this machine's pip settings: folders of wheels would hide what is published, and their hashes with it.
compile=(env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND="make requirements"
    "$tools/bin/pip-compile" --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras)
"${compile[@]}" "$@" --output-file requirements.txt requirements.in
"${compile[@]}" "$@" --output-file requirements-s3.txt requirements-s3.in
"${compile[@]}" "$@" --output-file requirements-dev.txt requirements-dev.in
