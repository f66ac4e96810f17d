"""Every page in every state: light and dark, on a desk and on a phone, to the eye, a keyboard and a screen reader."""

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone
from playwright.sync_api import Page
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from streams import queries, services
from streams.engine.notices import Notice
from streams.engine.timeline import Timeline as EngineTimeline
from streams.models import Capture, Ending, Host, Status, Stream, Timeline
from tests.e2e.browser import PHONE, WIDE, Visit, barriers, chromium, is_too_wide
from tests.e2e.prepared import ADMIN
from tests.streams.builders import make_capture, make_finished, make_wish, record

# In memory, SQLite's threads share one connection, and its transaction.
if connections["default"].vendor == "sqlite":
    connections["default"].settings_dict["TEST"]["NAME"] = os.path.join(os.environ["TEST_DATA"], "test.sqlite3")

CAMERA = "rtsp://camera.example:8554"
LONG = "a-name-as-long-as-names-may-be-without-a-place-to-break-the-line"
Scheme = Literal["light", "dark"]
PAINTED: tuple[tuple[tuple[int, int], Scheme], ...] = ((WIDE, "light"), (PHONE, "dark"))
PAGES = (
    "/",
    "/?q=nowhere",
    "/streams/capturing/",
    "/streams/reconnecting/",
    "/streams/queued/",
    "/streams/stopping/",
    "/streams/failed/",
    "/streams/complete/?page=2",
    "/streams/new/",
    f"/streams/{LONG}/",
    "/captures/reconnecting/",
    "/captures/stopping/",
    "/captures/failed/",
    "/captures/complete/",
    "/captures/few/",
    "/captures/none/",
    "/captures/gone/",
    "/streams/unheard-of/",
    "/start",
)
ADMIN_PAGES = (
    "/admin/",
    "/admin/streams/stream/",
    "/admin/streams/stream/reconnecting/change/",
    "/admin/streams/capture/",
    "/admin/streams/capture/complete/change/",
    "/admin/streams/host/",
    "/admin/django_q/ormq/",
    "/admin/django_q/failure/",
)
# One of each kind that has all its colours. To measure contrast takes longer than all the rest: these alone are
# looked at twice, and with contrast; the others have the same style sheet.
COLOURFUL = (
    "/",
    "/streams/capturing/",
    "/captures/reconnecting/",
    "/captures/complete/",
    "/start",
    "/admin/",
)
# Django's own templates: links in the breadcrumbs have no line below them, two heads of an inline's columns no words.
DJANGOS = (".breadcrumbs", ".inline-group thead")


@pytest.fixture
def site(live_server: LiveServer, settings: Settings, tmp_path: Path) -> str:
    """Its address. Whoever makes rows does it before a browser is there."""
    settings.MEDIA_ROOT = tmp_path
    return str(live_server.url)


def in_progress(name: str, status: Status, *, frames: int = 0, **fields: Any) -> Capture:
    """The capture of a stream of this name that has this status, and for which frames were saved."""
    capture = make_capture(f"{CAMERA}/{name}")
    if frames:
        record(capture, frames=frames)
    Stream.objects.filter(pk=capture.stream_id).update(status=status, **fields)
    return capture


def finished(name: str, *, frames: int) -> Capture:
    capture = make_finished(f"{CAMERA}/{name}", frames=frames)
    lives_a_minute(capture)
    return capture


def lives_a_minute(capture: Capture) -> None:
    """Up to now, with a gap, a failure and a second connection."""
    began = timezone.now() - timedelta(seconds=60)
    timeline = EngineTimeline.of_interval(began.timestamp(), 1.0)
    timeline.note_connection(began.timestamp())
    for second in (*range(25), *range(40, 58)):
        timeline.note_sample(began.timestamp() + second, 60.0 + second)
    timeline.note_error(began.timestamp() + 25, "stalled")
    timeline.note_connection(began.timestamp() + 39)
    Timeline.objects.update_or_create(capture=capture, defaults={"data": timeline.encode()})
    for frame in capture.frames.all():
        frame.captured_at = began + timedelta(seconds=frame.number)
        frame.save(update_fields=["captured_at"])
    over = timezone.now() if capture.finished_at else None
    Capture.objects.filter(pk=capture.pk).update(
        started_at=began, finished_at=over, last_sample_at=began + timedelta(seconds=57), samples=43, connections=2
    )


def of_yesterday(name: str) -> Stream:
    """A stream with more captures than a page of its history shows."""
    stream = services.create_stream(make_wish(f"{CAMERA}/{name}"))
    day = timezone.now() - timedelta(days=1)
    past = {"started_at": day, "finished_at": day + timedelta(minutes=1), "ending": Ending.STOPPED}
    Capture.objects.bulk_create(Capture(stream=stream, **past) for _ in range(queries.PAGE_LENGTH + 1))
    return stream


def a_site_in_every_state() -> dict[str, Capture]:
    """By the names of their streams."""
    in_an_hour = timezone.now() + timedelta(hours=1)
    error = {"error_code": "stalled", "error_text": "The camera sent nothing for 10 s."}
    attempt = {"attempt": 4, "next_attempt_at": in_an_hour}
    of_yesterday("new")
    of_yesterday("complete")
    found = {
        "few": finished("few", frames=4),
        "none": finished("none", frames=0),
        "gone": finished("gone", frames=9),
        "failed": finished("failed", frames=2),
        "complete": finished("complete", frames=9),
        "capturing": in_progress("capturing", Status.CAPTURING, frames=9, notices=",".join(Notice)),
        "connecting": in_progress("connecting", Status.CONNECTING),
        "reconnecting": in_progress("reconnecting", Status.RECONNECTING, frames=3, **attempt, **error),
        LONG: in_progress(LONG, Status.CAPTURING, frames=1),
        "queued": in_progress("queued", Status.QUEUED),
        "stopping": in_progress("stopping", Status.STOPPING, frames=9),
    }
    for name in ("capturing", "reconnecting", LONG):
        lives_a_minute(found[name])
    Capture.objects.filter(pk=found["stopping"].pk).update(stop_requested_at=timezone.now())
    Capture.objects.filter(pk=found["gone"].pk).update(grid="")
    Capture.objects.filter(pk=found["failed"].pk).update(ending=Ending.FAILED, **error)
    Stream.objects.filter(name="failed").update(status=Status.FAILED, **error)
    Stream.objects.filter(name=LONG).update(url=f"{CAMERA}/{'x' * 400}")
    Host.objects.update(slots=3, heartbeat_at=in_an_hour)
    get_user_model().objects.create_superuser(ADMIN[0], password=ADMIN[1])
    return found


def located(path: str, captures: dict[str, Capture]) -> str:
    """With ids in place of names, where addresses have ids."""

    def put(match: re.Match[str]) -> str:
        capture = captures[match["name"]]
        return f"{match['kind']}/{capture.stream_id if match['kind'] == 'stream' else capture.pk}/"

    return re.sub(r"(?P<kind>\b(captures?|stream))/(?P<name>[a-z]+)/", put, path)


def test_every_page_is_for_everybody_and_asks_nobody_else(site: str) -> None:
    captures = a_site_in_every_state()
    with chromium() as browser, Visit(browser, site) as visit:
        wrong = look_at_all(visit.page, PAGES, captures)
        visit.page.goto("/api/docs", wait_until="networkidle")  # its looks are its makers' own
        sign_in(visit.page)
        wrong += look_at_all(visit.page, ADMIN_PAGES, captures, DJANGOS)
        assert not wrong, "\n".join(wrong)


def sign_in(page: Page) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill(ADMIN[0])
    page.get_by_label("Password").fill(ADMIN[1])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")


def look_at_all(
    page: Page, paths: Sequence[str], captures: dict[str, Capture], outside: Sequence[str] = ()
) -> list[str]:
    """What is wrong with them, light on a desk, and dark on a phone with all that is folded away unfolded.

    `outside`: selectors of what is not looked at.
    """
    wrong = []
    for path in paths:
        page.goto(located(path, captures))
        for size, scheme in PAINTED:
            found = look(page, size, scheme, outside, with_contrast=path in COLOURFUL)
            wrong += [f"{path}: {size[0]} px, {scheme}: {words}" for words in found]
    return wrong


def look(
    page: Page, size: tuple[int, int], scheme: Scheme, outside: Sequence[str], *, with_contrast: bool
) -> list[str]:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    if size == PHONE:
        page.evaluate("document.querySelectorAll('main details').forEach(details => { details.open = true; })")
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.getAnimations().forEach(animation => animation.finish())")  # colours fade into each other
    wrong = ["it has to be scrolled sideways"] if is_too_wide(page) else []
    if with_contrast or size == PHONE:
        wrong += barriers(page, with_contrast=with_contrast, outside=outside)
    return wrong
