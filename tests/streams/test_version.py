"""The version stands in one place, and is shown wherever somebody looks for it."""

import platform
import subprocess
from pathlib import Path

import django
import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client

from rtspsite import __version__
from tests.streams.builders import make_finished
from tests.streams.processes import ROOT, manage
from tests.streams.test_metrics import scrape

FOOTER = f"Stream captures {__version__}"


@pytest.mark.django_db
def test_each_page_shows_it_in_its_footer(client: Client) -> None:
    capture = make_finished("rtsp://camera.example/demo", frames=9)
    for path in ("/", "/streams/demo/", f"/captures/{capture.pk}/", "/nowhere/"):
        page = client.get(path, headers={"Accept": "text/html"}).content.decode()
        assert page.count(f'<footer class="foot"><div class="wide">{FOOTER}</div></footer>') == 1, path
    stopped = client.post("/stop", {"process_name": "demo"})
    assert FOOTER in stopped.content.decode()
    assert FOOTER in render_to_string("500.html")


@pytest.mark.django_db
def test_the_admin_shows_it_to_those_who_are_signed_in(client: Client) -> None:
    assert __version__ not in client.get("/admin/login/").content.decode()
    client.force_login(User.objects.create_superuser("adm"))
    for path in ("/admin/", "/admin/streams/stream/"):
        assert f'<footer id="footer">{FOOTER}</footer>' in client.get(path).content.decode()


@pytest.mark.django_db
def test_api_and_metrics_tell_it(client: Client) -> None:
    assert client.get("/api/openapi.json").json()["info"]["version"] == __version__
    assert scrape(client)["build_info"] == {(("version", __version__),): 1.0}


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_command_prints_it_first_and_needs_no_settings(tmp_path: Path, argument: str) -> None:
    done = manage(tmp_path, argument, DATABASE_URL="nonsense")
    assert done.stdout == f"{__version__} (Django {django.get_version()}, Python {platform.python_version()})\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_no_second_place_holds_it() -> None:
    found = subprocess.run(
        ["git", "-c", "safe.directory=*", "grep", "--untracked", "-lF", __version__], cwd=ROOT,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.stdout.split() == ["rtspsite/__init__.py"]
