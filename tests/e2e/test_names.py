"""Names of cameras: the file of the name servers is replaced under recorders that run."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.e2e.in_namespace import COUNT
from tests.e2e.prepared import ROOT
from tests.figures import Figure

AS_ROOT = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
ASKED_S = 90.0


@pytest.mark.timeout(400)
def test_recorders_with_names_go_on_when_resolv_conf_is_replaced(figure: Figure) -> None:
    """By rename in an open folder, with its whole folder, and by rename in a folder that stays closed."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # every user may look into that
        Path(folder).chmod(0o755)
        done = subprocess.run(
            ["unshare", "--mount", "--net", *AS_ROOT, sys.executable, "-m", "tests.e2e.in_namespace", folder],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=380, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for what, took_s in json.loads(done.stdout.splitlines()[-1]).items():
        figure(f"resolv.conf under {COUNT} recorders: {what}, all sampled again", took_s, ASKED_S)
        assert took_s < ASKED_S
