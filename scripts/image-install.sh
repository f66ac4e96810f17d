#!/usr/bin/env bash
# What the image installs, and all of it outside /app: a checkout may be mounted there.
# usage: image-install.sh requirements.txt...
set -euo pipefail

# The wheels of OpenCV and PyAV bring their libraries along; what else they need (libc, libstdc++, libgcc, zlib)
# is in every Debian image, apt itself needs it. So nothing is installed with apt.
python3 -m venv /opt/venv
/opt/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes "${@/#/--requirement=}"

useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin capture
# A volume that is mounted on one of these for the first time is given its owner and mode.
install --directory --owner 10001 --group 10001 /data /data/media
install --directory --owner 10001 --group 10001 --mode 0750 /keys

# No process in the image changes its user, so no program needs the set-user-id bit (mount, su, passwd and eight more).
find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
