"""Nothing that a process says of itself holds a secret: its log, its warnings, its last words, its fault pages."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django_q.signals import post_execute_in_worker
from pytest_django import Settings

from rtspsite import logs
from rtspsite.faults import Reporter
from streams import services
from streams.engine import errors, masking
from tests.streams.builders import URL_WITH_SECRET, make_capture

SECRET = "m4sk-m3/é pl@ase"
# Not known to the process before it is written.
UNKNOWN = "unkn0wn"
LOCAL, TYPED, IN_QUERY, IN_ENVIRONMENT, IN_COOKIE = "l0cal-w0rd", "typ3d", "qu3ry-w0rd", "envir0n-w0rd", "c00kie-w0rd"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def known() -> None:
    masking.remember("admin", [SECRET])


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What a handler with a format of its own writes, as gunicorn and django-q bring them."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log = logging.getLogger("foreign")
    log.addHandler(handler)
    yield stream
    log.removeHandler(handler)


def fail(word: str) -> None:
    raise ValueError(f"cannot open rtsp://admin:{word}@camera")


def test_message_arguments_traceback_and_stack_are_masked_for_any_handler(said: io.StringIO) -> None:
    log = logging.getLogger("foreign")
    log.error(f"with {SECRET}")
    log.error("with %s and %r", SECRET, {"password": UNKNOWN})
    log.error("with %(word)s", {"word": SECRET})
    try:
        fail(SECRET)
    except ValueError:
        log.exception("failed", stack_info=True)
    try:
        fail(UNKNOWN)
    except ValueError as error:
        log.error("failed", exc_info=error)
    told = said.getvalue()
    assert SECRET not in told
    assert UNKNOWN not in told
    assert told.count("with ***") == 3
    assert told.count("ValueError: cannot open rtsp://***@camera") == 2


def test_the_services_own_sentence_is_not_masked_and_its_values_are(said: io.StringIO) -> None:
    """As the supervisor says it, when somebody's password is "password"."""
    masking.remember("us3r", ["password"])
    try:
        log = logging.getLogger("foreign")
        words = str(errors.AuthRefused())
        log.warning("stream=%s capture=%s %s error=%s words=%r", "password", 1, "reconnecting", "auth_refused", words)
    finally:
        masking._MASKER._forget(("us3r", "password"))
    assert said.getvalue() == (
        "WARNING stream=*** capture=1 reconnecting error=auth_refused "
        "words='The camera refused the user name or the password.'\n"
    )


def test_extra_values_are_masked_by_our_own_format() -> None:
    record = logging.makeLogRecord({"msg": "x", "word": SECRET})
    assert logs.Masked("%(message)s %(word)s").format(record) == "x ***"


def test_every_handler_of_ours_has_that_format(settings: Settings) -> None:
    configured: dict[str, Any] = settings.LOGGING
    formats = {handler["formatter"] for handler in configured["handlers"].values()}
    assert {configured["formatters"][name]["()"] for name in formats} == {"rtspsite.logs.Masked"}


SCRIPT = """
import os, sys, threading, warnings
os.environ["DJANGO_SETTINGS_MODULE"] = sys.argv[1]
import django
django.setup()
from streams.engine import errors, masking
secret = sys.argv[2]
masking.remember("admin", [secret])
warnings.warn(f"careful with {secret}")
class Odd:
    def __del__(self):
        raise ValueError(f"in del {secret}")
Odd()
thread = threading.Thread(target=lambda: open(f"/nowhere/{secret}"), name="t")
thread.start(); thread.join()
raise RuntimeError(f"at last {secret}")
"""


@pytest.mark.parametrize("module", ["rtspsite.settings", "rtspsite.bare"])
def test_warnings_and_last_words_are_masked(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, SECRET], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={"DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert SECRET not in done.stderr + done.stdout
    for words in ("careful with ***", "ValueError: in del ***", "RuntimeError: at last ***", "Exception in thread t"):
        assert words in done.stderr
    assert done.returncode == 1


OWN_KEY = "c3JlZGVudGlhbHMta2V5LW9mLXRoaXMtdGVzdC0zMiE="
OWN = {
    "API_TOKEN": "t0ken-of-the-api-t0ken,an0ther-t0ken-of-the-api",
    "SECRET_KEY": "s3cret-key-s3cret-key-s3cret-key-s3cret-key-s3cret-key",
    "SECRET_KEY_FALLBACKS": "0ld-secret-key",
    "CREDENTIALS_KEYS": OWN_KEY,
    "DATABASE_URL": "postgres://capture:d4tab%40se-w0rd@db/capture",
    "REDIS_URL": "redis://:r3d%40is-w0rd@queue/0",
    "S3_SECRET_ACCESS_KEY": "st0re-w0rd",
}
OWN_SECRETS = [
    *OWN["API_TOKEN"].split(","), OWN["SECRET_KEY"], "0ld-secret-key", OWN_KEY, "d4tab@se-w0rd", "r3d@is-w0rd",
    "st0re-w0rd",
]  # fmt: skip


def test_the_settings_own_secrets_are_known_whatever_clients_send(tmp_path: Path) -> None:
    program = (
        "import sys, rtspsite.settings; from streams.engine import masking; masking.MOST = 2;"
        "[masking.remember('', [f'b0gus-{number}']) for number in range(9)];"
        "print(masking.mask(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, " ".join(OWN_SECRETS)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={"DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **OWN},
    )  # fmt: skip
    assert done.stdout.split() == ["***"] * len(OWN_SECRETS), done.stderr


@pytest.mark.django_db
def test_what_is_read_or_written_is_known_from_then_on() -> None:
    make_capture(URL_WITH_SECRET.replace("s3cr3t-w0rd", "fr3sh-w0rd"))
    assert masking.mask("<fr3sh-w0rd>") == "<***>"


# --- Django's own pages about a fault -----------------------------------------------------------------


def report(request: HttpRequest, is_html: bool) -> str:
    try:
        password, fields = LOCAL, {"rtsp_url": f"rtsp://admin:{TYPED}@cam", "username": TYPED}
        raise ImproperlyConfigured(f"{SECRET} {len(password)} {json.dumps(fields)}")
    except ImproperlyConfigured:
        found = Reporter(request, *sys.exc_info())
    return str(found.get_traceback_html() if is_html else found.get_traceback_text())


@pytest.mark.parametrize("is_html", [True, False], ids=["page", "mail"])
@pytest.mark.parametrize("is_debug", [True, False], ids=["DEBUG", "without"])
def test_a_report_of_a_fault_holds_none(settings: Settings, is_debug: bool, is_html: bool) -> None:
    settings.DEBUG = is_debug
    fields = {"rtsp_url": f"rtsp://a:{TYPED}@cam", "password": TYPED, "note": TYPED}
    posted = RequestFactory().post(f"/start?pwd={IN_QUERY}", fields)
    posted.META |= {"CAMERA_PASSWORD": IN_ENVIRONMENT, "DATABASE_URL": IN_ENVIRONMENT}
    posted.META["HTTP_AUTHORIZATION"] = f"Bearer {IN_ENVIRONMENT}"
    posted.COOKIES["sessionid"] = IN_COOKIE
    told = report(posted, is_html)
    assert "ImproperlyConfigured" in told
    for secret in (SECRET, LOCAL, TYPED, IN_QUERY, IN_ENVIRONMENT, IN_COOKIE, settings.SECRET_KEY):
        assert secret not in told, secret


@pytest.mark.django_db
def test_a_fault_of_ours_is_logged_and_answered_without(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    def broken(wish: services.Wish) -> None:
        raise RuntimeError(f"{wish.address.url()} {wish.address.password}")

    monkeypatch.setattr(services, "start", broken)
    client.raise_request_exception = False
    for is_debug in (False, True):
        settings.DEBUG = is_debug
        answer = client.post(
            "/start", {"rtsp_url": "rtsp://camera.example/x", "username": "admin", "password": SECRET}
        )
        assert answer.status_code == 500
        assert SECRET not in answer.content.decode()
        assert "m4sk-m3" not in answer.content.decode()
    assert "RuntimeError" in caplog.text
    assert "m4sk-m3" not in caplog.text


# --- jobs -----------------------------------------------------------------------------------------------


def test_the_traceback_of_a_job_is_kept_without() -> None:
    task = {"result": f"cannot open rtsp://x:{UNKNOWN}@cam : Traceback ...\nwith {SECRET}", "success": False}
    post_execute_in_worker.send(sender="django_q", func=None, task=task)
    assert task["result"] == "cannot open rtsp://***@cam : Traceback ...\nwith ***"
