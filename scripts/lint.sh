#!/usr/bin/env bash
# Everything that is checked without running a test.
# usage: [VENV=.venv] scripts/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

# The settings of a deployment behind HTTPS, so that what `check --deploy` still finds is the code's fault; and a
# folder to throw away, as whatever imports the settings makes keys in it (mypy does).
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
export DATA_DIR=$data MEDIA_ROOT=$data/media DATABASE_URL=sqlite:///$data/db.sqlite3
export ALLOWED_HOSTS=cameras.example HTTPS=1 DEBUG=0 API_TOKEN=for-the-check-of-deployment-alone

step() { echo "lint: $*"; "$@"; }

step "$bin/ruff" check .
step "$bin/ruff" format --check .
step "$bin/mypy"
step "$bin/lint-imports" --no-logo
step "$bin/python" manage.py makemigrations --check --dry-run
step "$bin/python" manage.py check --deploy --fail-level WARNING
step "$bin/python" -m tests.kubernetes
step scripts/audit.sh
