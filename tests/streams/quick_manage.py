"""manage.py with a supervisor and a job cluster of little patience: what is tested is what comes, not when."""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # not this folder: it has an html.py
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rtspsite.settings")

import manage  # noqa: E402  # found by the lines above
from streams import cluster  # noqa: E402

STUCK_S = 3.0

cluster.RESTARTS_S = (0.0, 0.5)
cluster.SILENT_S = 2 * STUCK_S

if __name__ == "__main__":
    if "jobs" in sys.argv:
        from streams import sentinel
        from streams.management.commands import jobs

        sentinel.STUCK_S, sentinel.LOOK_S = STUCK_S, 0.5
        jobs.GRACE_S = 30.0  # not so here: on a busy machine this must not be what ends it
    manage.main()
