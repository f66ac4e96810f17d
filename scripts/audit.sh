#!/usr/bin/env bash
# Whether a pinned package has a published vulnerability: asks OSV's database about each pin, and installs and resolves nothing.
# usage: [VENV=.venv] [AUDIT_WITHIN_S=120] scripts/audit.sh
# Exit status: 0 none is known, or the database was not reached, which is said; 1 there are some, or a pin cannot be read.
# PIP_AUDIT_OSV_URL names another database that answers as api.osv.dev does.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=(requirements.txt requirements-s3.txt requirements-dev.txt)
# What has no fix yet, and why it does no harm here: (--ignore-vuln ID) # since when, why
ignored=()

say() { echo "audit: $*"; }

found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
asking=(timeout "${AUDIT_WITHIN_S:-120}" "${VENV:-.venv}/bin/pip-audit" --vulnerability-service osv --timeout 10
    --disable-pip --require-hashes --strict --progress-spinner off "${ignored[@]}" "${pins[@]/#/--requirement=}")

"${asking[@]}" --dry-run 2>"$found/said" || { cat "$found/said"; say "the pins cannot be read."; exit 1; }
status=0
"${asking[@]}" --output "$found/list" >"$found/said" 2>&1 || status=$?
case $status:$(test -s "$found/list" && echo listed) in
    0:*) say "no vulnerability is known of what ${pins[*]} pin." ;;
    *:listed) cat "$found/list"; say "these pins have known vulnerabilities: make requirements ARGS='--upgrade-package NAME'"; exit 1 ;;
    124:) say "NOT CHECKED: no end within ${AUDIT_WITHIN_S:-120} s. Nothing is known of ${pins[*]}." ;;
    *) say "NOT CHECKED: $(tail -n 1 "$found/said" | cut -c1-300). Nothing is known of ${pins[*]}." ;;
esac
