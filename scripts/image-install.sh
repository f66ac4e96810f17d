#!/usr/bin/env bash
# What the image installs, and all of it outside /app: a checkout may be mounted there.
# usage: [IMAGE_ROOT=/some/folder] image-install.sh requirements.txt...
set -euo pipefail
root=${IMAGE_ROOT:-} # a test lays the image into a folder

# The wheels of OpenCV and PyAV bring their libraries along; what else they need (libc, libstdc++, libgcc, zlib)
# is in every Debian image, apt itself needs it. So nothing is installed with apt.
python3 -m venv "$root/opt/venv"
"$root/opt/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes "${@/#/--requirement=}"

useradd ${root:+--prefix "$root"} --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin capture
# A volume that is mounted on one of these for the first time is given its owner and mode.
install --directory --owner 10001 --group 10001 "$root/data" "$root/data/media"
install --directory --owner 10001 --group 10001 --mode 0750 "$root/keys"
