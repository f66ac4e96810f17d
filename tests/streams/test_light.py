"""What each process of the service does without: its start and its memory."""

import json
from pathlib import Path

from tests.streams.processes import python

CODECS = {"av", "cv2", "numpy"}
PAGES = {"ninja", "pydantic", "rtspsite.urls", "streams.views"}
LOOK = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "rtspsite.settings"
import django
django.setup()
from django.core.management import load_command_class
loaded = {}
for name in ("supervise", "prepare", "prune"):
    command = load_command_class("streams", name)
    tags = command.requires_system_checks
    command.check(tags=None if tags == "__all__" else tags)
loaded["commands"] = [*sys.modules]
import rtspsite.urls
loaded["website"] = [*sys.modules]
load_command_class("streams", "jobs")
loaded["jobs"] = [*sys.modules]
print(json.dumps(loaded))
"""


def test_nobody_loads_opencv_and_only_the_website_its_pages(tmp_path: Path) -> None:
    """Recorders and what makes grids do: OpenCV and NumPy take 16 MB and a third of a second."""
    done = python(LOOK, tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = {who: set(names) for who, names in json.loads(done.stdout).items()}
    assert loaded["commands"] & (CODECS | PAGES) == set()
    assert "streams.supervisor" in loaded["commands"]
    assert loaded["website"] & CODECS == set()
    assert loaded["website"] >= PAGES
    assert loaded["jobs"] & CODECS == set()
