"""The history in the admin: what it shows, who sees it, and that it changes nothing that is over."""

import re
from itertools import product

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from streams import services
from streams.models import Capture, Host, Stream
from tests.streams.builders import (
    SECRET,
    URL_WITH_SECRET,
    Response,
    make_capture,
    make_claim,
    make_finished,
    make_host,
)
from tests.streams.html import read
from tests.streams.staff import administrator, signed_in, viewer

pytestmark = pytest.mark.django_db
STREAMS, CAPTURES, HOSTS = (f"/admin/streams/{name}/" for name in ("stream", "capture", "host"))


@pytest.fixture
def admin() -> Client:
    return administrator()


def text_of(response: Response) -> str:
    assert response.status_code == 200
    return read(response.content.decode()).text


# --- pages ----------------------------------------------------------------------------------------


def test_a_list_without_rows_is_shown(admin: Client) -> None:
    assert [admin.get(path).status_code for path in (STREAMS, CAPTURES, HOSTS)] == [200] * 3


def test_streams_are_listed_with_what_they_do(admin: Client) -> None:
    make_finished()
    make_finished()
    text = text_of(admin.get(STREAMS))
    for words in ("demo", "rtsp://camera.example:8554/demo", "2 captures", "Idle"):
        assert words in text
    Stream.objects.update(error_code="stalled", error_text="It <stopped>.")
    assert "stalled: It <stopped>." in text_of(admin.get(STREAMS))


def test_a_streams_page_shows_what_was_learned_about_its_camera(admin: Client) -> None:
    """It is shown, not edited."""
    capture = make_finished()
    Stream.objects.update(quirks='{"transport":"udp"}')
    response = admin.get(f"{STREAMS}{capture.stream_id}/change/")
    assert '{"transport":"udp"}' in text_of(response)
    markup = response.content.decode()
    assert ('name="transport"' in markup, 'name="quirks"' in markup) == (True, False)


def test_a_streams_page_leads_to_its_captures(admin: Client) -> None:
    capture = make_finished()
    make_finished("rtsp://other.example/garden")
    page = read(admin.get(f"{STREAMS}{capture.stream_id}/change/").content.decode())
    (url,) = [href for href in page.values("a", "href") if href.startswith(f"{CAPTURES}?")]
    text = text_of(admin.get(url))
    assert "1 capture" in text
    assert f"{CAPTURES}{capture.pk}/change/" in admin.get(url).content.decode()


def test_captures_are_listed_with_their_grid(admin: Client) -> None:
    make_host("south")
    capture = make_finished(frames=4)
    running = make_capture("rtsp://other.example/garden")
    response = admin.get(CAPTURES)
    text = text_of(response)
    sources = read(response.content.decode()).values("img", "src")
    assert f"/captures/{capture.pk}/small.jpg" in sources
    assert f"/captures/{running.pk}/small.jpg" not in sources
    for words in ("4 of 9", "0 of 9", "Stopped", "finished", "in progress", "north"):
        assert words in text


def test_a_captures_page_shows_its_frames_with_rank_and_score(admin: Client) -> None:
    capture = make_finished(frames=4)
    response = admin.get(f"{CAPTURES}{capture.pk}/change/")
    page = read(response.content.decode())
    frames = list(capture.frames.order_by("-score"))
    sources = page.values("img", "src")
    shown = [source for source in sources if "frames" in source]
    assert shown == [f"/frames/{frame.pk}/small.jpg" for frame in frames]
    assert {f"/frames/{frame.pk}.jpg" for frame in frames} <= set(page.values("a", "href"))
    assert f"/captures/{capture.pk}/grid.jpg" in sources
    table = page.text.partition("Frames, best first")[2]
    scores = [word for word in table.split() if word in {"104.0", "103.0", "102.0", "101.0"}]
    assert scores == ["104.0", "103.0", "102.0", "101.0"]
    assert "32 x 24" in page.text


def test_the_admin_and_the_pages_lead_to_each_other(admin: Client) -> None:
    capture = make_finished(frames=1)
    page = read(admin.get(f"{CAPTURES}{capture.pk}/change/").content.decode())
    downloads = {f"/captures/{capture.pk}/grid.jpg?download", f"/captures/{capture.pk}/capture.zip"}
    hrefs = set(page.values("a", "href"))
    assert {f"/captures/{capture.pk}/", f"{STREAMS}{capture.stream_id}/change/"} | downloads <= hrefs
    page = read(admin.get(f"{STREAMS}{capture.stream_id}/change/").content.decode())
    assert "/streams/demo/" in page.values("a", "href")
    assert admin.get(f"/captures/{capture.pk}/").status_code == admin.get("/streams/demo/").status_code == 200


def test_a_stream_is_listed_with_the_best_frame_of_its_latest_capture(admin: Client) -> None:
    make_finished(frames=9)
    latest = make_finished(frames=2)
    make_capture("rtsp://other.example/garden")
    best = latest.frames.order_by("-score")[0]
    for path in (STREAMS, f"{STREAMS}{latest.stream_id}/change/"):
        sources = read(admin.get(path).content.decode()).values("img", "src")
        assert [source for source in sources if "frames" in source] == [f"/frames/{best.pk}/small.jpg"]


def test_a_captures_page_shows_its_timeline(admin: Client) -> None:
    capture = make_finished(frames=4)
    markup = admin.get(f"{CAPTURES}{capture.pk}/change/").content.decode()
    assert markup.count('class="timeline-frame') == 4 + 1  # and one in its key
    empty = make_finished("rtsp://other.example/garden", frames=0)
    assert "timeline-frame" not in admin.get(f"{CAPTURES}{empty.pk}/change/").content.decode()


def test_the_rank_of_a_frame_counts_within_its_capture(admin: Client) -> None:
    make_finished("rtsp://other.example/garden", frames=9)
    capture = make_finished(frames=2)
    response = admin.get(f"{CAPTURES}{capture.pk}/change/")
    cells = response.content.decode().split('field-rank">')[1:]
    assert [read("<!doctype html>" + cell.split("</td>")[0]).text.split() for cell in cells] == [["1"], ["2"]]


@pytest.mark.parametrize("kind", ["queued", "claimed", "stopping", "failed", "finished"])
def test_a_captures_page_is_shown_in_each_state(admin: Client, kind: str) -> None:
    capture = make_finished() if kind == "finished" else make_capture()
    if kind in ("claimed", "failed"):
        claim = make_claim(capture)
        if kind == "failed":
            services.fail(claim, "address_refused", "Not there.")
    if kind == "stopping":
        services.stop(capture.stream)
    text_of(admin.get(f"{CAPTURES}{capture.pk}/change/"))
    text_of(admin.get(f"{STREAMS}{capture.stream_id}/change/"))


def test_hosts_are_listed_with_whether_they_live_and_what_they_do(admin: Client) -> None:
    host = make_host("north", slots=17)
    make_host("south", slots=3, silent_s=60)
    for name in ("a", "b"):
        make_claim(make_capture(f"rtsp://camera.example/{name}"), host)
    markup = admin.get(HOSTS).content.decode()
    assert "2 of 17" in markup
    assert "0 of 3" in markup
    assert [markup.count(f"icon-{answer}.svg") for answer in ("yes", "no")] == [1, 1]
    assert shown(admin, f"claimed_by__id__exact={host.pk}") == set(Capture.objects.values_list("pk", flat=True))
    assert shown(admin, f"claimed_by__id__exact={host.pk + 1}") == set()
    assert "2 of 17" in text_of(admin.get(f"{HOSTS}{host.pk}/change/"))


def test_the_first_page_of_the_admin_is_shown(admin: Client) -> None:
    assert "Captures" in text_of(admin.get("/admin/"))


# --- filters --------------------------------------------------------------------------------------


def shown(admin: Client, query: str) -> set[int]:
    response = admin.get(f"{CAPTURES}?{query}")
    assert response.status_code == 200
    hrefs = read(response.content.decode()).values("a", "href")
    return {int(href.split("/")[4]) for href in hrefs if href.startswith(CAPTURES) and "/change/" in href}


def test_captures_are_filtered(admin: Client) -> None:
    stopped, other = make_finished(), make_finished("rtsp://other.example/garden", frames=1)
    failed, running = make_capture("rtsp://third.example/x"), make_capture("rtsp://fourth.example/y")
    services.fail(make_claim(failed), "address_refused", "Not there.")
    Capture.objects.filter(pk=other.pk).update(started_at="2020-02-03T04:05:06Z")
    assert shown(admin, "") == {stopped.pk, other.pk, failed.pk, running.pk}
    assert shown(admin, f"stream__id__exact={stopped.stream_id}") == {stopped.pk}
    assert shown(admin, "ending__exact=failed") == {failed.pk}
    assert shown(admin, "error_code=address_refused") == {failed.pk}
    assert shown(admin, "error_code__exact=address_refused") == {failed.pk}
    assert shown(admin, "started_at__year=2020&started_at__month=2&started_at__day=3") == {other.pk}
    assert shown(admin, "started_at__gte=2021-01-01 00:00:00%2B00:00") == {stopped.pk, failed.pk, running.pk}
    assert shown(admin, "state=in progress") == {running.pk}
    assert shown(admin, "state=finished") == {stopped.pk, other.pk, failed.pk}
    assert shown(admin, "state=stopping") == set()
    assert shown(admin, "month=2020-02") == {other.pk}
    assert shown(admin, "month=2020-01") == shown(admin, "month=2020-03") == set()
    assert shown(admin, "month=nonsense") == {stopped.pk, other.pk, failed.pk, running.pk}
    assert shown(admin, "q=garden") == {other.pk}
    assert shown(admin, "q=fourth.example") == {running.pk}


def test_each_month_is_offered_from_the_latest_back_to_the_first(admin: Client) -> None:
    first, last = make_finished(frames=0), make_finished("rtsp://other.example/garden", frames=0)
    Capture.objects.filter(pk=first.pk).update(started_at="2025-11-30T23:59:59Z")
    Capture.objects.filter(pk=last.pk).update(started_at="2026-02-01T00:00:00Z")
    hrefs = read(admin.get(CAPTURES).content.decode()).values("a", "href")
    months = [href.removeprefix("?month=") for href in hrefs if href.startswith("?month=")]
    assert months == ["2026-02", "2026-01", "2025-12", "2025-11"]


def test_streams_are_filtered(admin: Client) -> None:
    make_finished()
    make_capture("rtsp://other.example/garden")
    assert "1 stream" in text_of(admin.get(f"{STREAMS}?status__exact=queued"))
    assert "garden" in text_of(admin.get(f"{STREAMS}?q=garden"))


def test_every_link_of_a_list_says_where_it_leads(admin: Client) -> None:
    services.fail(make_claim(make_capture()), "address_refused", "Not there.")
    make_finished("rtsp://other.example/garden")
    for path in (STREAMS, CAPTURES):
        markup = admin.get(path).content.decode()
        assert "address_refused" in markup
        assert re.findall(r'<a href="[^"]*">\s*</a>', markup) == []


def test_each_column_can_be_sorted_by_or_not_and_never_breaks(admin: Client) -> None:
    make_finished()
    for path, column in product((STREAMS, CAPTURES), range(1, 12)):
        assert admin.get(f"{path}?o={column}.-1").status_code == 200, (path, column)


# --- actions --------------------------------------------------------------------------------------


def act(client: Client, action: str, *streams: Stream) -> Response:
    fields = {"action": action, "_selected_action": [stream.pk for stream in streams]}
    return client.post(STREAMS, fields, follow=True)


def test_streams_are_started_with_the_settings_they_have(admin: Client) -> None:
    stream = make_finished(URL_WITH_SECRET, count=4, frames=4).stream
    Stream.objects.update(interval_s=7.5)
    stream.refresh_from_db()
    assert "Started: demo." in text_of(act(admin, "start", stream))
    capture = Capture.objects.get(finished_at=None)
    assert (capture.interval_s, capture.count, capture.stream.address.password) == (7.5, 4, SECRET)
    assert "Already running: demo." in text_of(act(admin, "start", stream))
    assert Capture.objects.filter(finished_at=None).count() == 1


def test_streams_are_stopped(admin: Client) -> None:
    running, idle = make_capture().stream, make_finished("rtsp://other.example/garden").stream
    text = text_of(act(admin, "stop", running, idle))
    assert "Stopping: demo." in text
    assert "Not running: garden." in text
    assert Capture.objects.get(stream=running).stop_requested_at is not None


def test_one_stream_that_is_refused_does_not_keep_the_others_from_starting(admin: Client) -> None:
    refused = make_finished().stream
    other = make_finished("rtsp://other.example/garden").stream
    Stream.objects.filter(pk=refused.pk).update(url="rtsp://169.254.169.254/demo")
    text = text_of(act(admin, "start", refused, other))
    assert "Cannot start demo: This service does not connect to 169.254.169.254" in text
    assert "Started: garden." in text


@pytest.mark.parametrize("action", ["start", "stop"])
def test_who_may_only_look_neither_starts_nor_stops(action: str) -> None:
    capture = make_capture() if action == "stop" else make_finished()
    act(viewer("view_stream", "view_capture"), action, capture.stream)
    assert not Capture.objects.filter(finished_at=None, stop_requested_at__isnull=False).exists()
    assert Capture.objects.count() == 1


def test_settings_of_a_stream_can_be_changed_and_nothing_else(admin: Client) -> None:
    stream = make_finished(URL_WITH_SECRET).stream
    fields = {"interval_s": "3", "count": "5", "transport": "udp", "name": "x", "url": "x", "status": "failed"}
    assert admin.post(f"{STREAMS}{stream.pk}/change/", fields).status_code == 302
    changed = Stream.objects.get()
    assert (changed.interval_s, changed.count, changed.transport) == (3.0, 5, "udp")
    assert (changed.name, changed.url, changed.status) == (stream.name, stream.url, stream.status)
    assert changed.address.password == SECRET


@pytest.mark.parametrize("fields", [{"interval_s": "0"}, {"interval_s": "1e9"}, {"count": "0"}, {"count": "101"}])
def test_settings_that_start_would_refuse_are_refused_here_too(admin: Client, fields: dict[str, str]) -> None:
    stream = make_finished().stream
    sent = {"interval_s": "1", "count": "9", "transport": "tcp", **fields}
    assert admin.post(f"{STREAMS}{stream.pk}/change/", sent).status_code == 200
    assert (Stream.objects.get().interval_s, Stream.objects.get().count) == (1.0, 9)


SETTINGS = {"interval_s": "1", "count": "9", "transport": "tcp", "verify_certificate": "on"}


@pytest.mark.parametrize(
    "change", [{"interval_s": "30"}, {"count": "4"}, {"transport": "udp"}, {"verify_certificate": ""}], ids=str
)
def test_settings_of_a_running_stream_are_refused_in_the_words_of_the_api(
    admin: Client, client: Client, change: dict[str, str]
) -> None:
    stream = make_capture(URL_WITH_SECRET).stream
    before = Stream.objects.values().get()
    response = admin.post(f"{STREAMS}{stream.pk}/change/", SETTINGS | change, follow=True)
    words = client.patch("/api/streams/demo", {"interval": 30}, "application/json").json()["message"]
    assert words in text_of(response)
    assert "changed successfully" not in response.content.decode()
    assert Stream.objects.values().get() == before


def test_a_running_stream_is_saved_as_it_is_without_a_refusal(admin: Client) -> None:
    stream = make_capture(URL_WITH_SECRET).stream
    before = Stream.objects.values().get()
    assert admin.post(f"{STREAMS}{stream.pk}/change/", SETTINGS).status_code == 302
    assert Stream.objects.values().get() == before


def test_a_stream_that_is_started_after_its_form_was_checked_is_not_changed(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_finished().stream
    check = services.check_change

    def check_and_start(checked: Stream, change: services.Change) -> None:
        check(checked, change)
        services.start_again(checked)

    monkeypatch.setattr(services, "check_change", check_and_start)
    response = admin.post(f"{STREAMS}{stream.pk}/change/", SETTINGS | {"interval_s": "30"}, follow=True)
    assert "Nothing was changed. demo is being captured: stop it first." in text_of(response)
    assert "changed successfully" not in response.content.decode()
    assert Stream.objects.get().interval_s == 1.0


def test_what_is_shown_of_a_running_stream_are_its_captures_own_settings(admin: Client, client: Client) -> None:
    """An earlier version of the admin changed the stream beneath a running capture."""
    stream = make_capture(interval_s=2.5, count=4).stream
    Stream.objects.update(interval_s=30, count=7, transport="udp")
    shown = admin.get(f"{STREAMS}{stream.pk}/change/").content.decode()
    attributes = read(shown).attributes
    assert (attributes["id_interval_s"]["value"], attributes["id_count"]["value"]) == ("2.5", "4")
    assert '<option value="tcp" selected>' in shown
    listed = admin.get(STREAMS).content.decode()
    assert ('field-interval_now">2.5<' in listed, 'field-count_now">4<' in listed) == (True, True)
    page = read(client.get("/streams/demo/").content.decode()).words
    assert "Interval 2.5 s Frames to keep 4 Transport TCP" in page


def test_a_change_does_not_write_a_status_that_is_older(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor writes the status between the form's read and its save."""
    stream = make_finished().stream
    full_clean = Stream.full_clean

    def full_clean_slowly(self: Stream, *args: object, **kwargs: object) -> None:
        full_clean(self, *args, **kwargs)  # type: ignore[arg-type]
        Stream.objects.filter(pk=self.pk).update(status="failed", error_code="stalled")

    monkeypatch.setattr(Stream, "full_clean", full_clean_slowly)
    fields = {"interval_s": "3", "count": "9", "transport": "tcp", "verify_certificate": "on"}
    admin.post(f"{STREAMS}{stream.pk}/change/", fields)
    changed = Stream.objects.get()
    assert (changed.interval_s, changed.status, changed.error_code) == (3.0, "failed", "stalled")


# --- what nobody may do ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [STREAMS, CAPTURES, HOSTS])
def test_nothing_is_added_or_deleted(admin: Client, path: str) -> None:
    make_finished()
    (pk,) = {STREAMS: Stream, CAPTURES: Capture, HOSTS: Host}[path].objects.values_list("pk", flat=True)  # type: ignore[attr-defined]
    assert admin.get(f"{path}add/").status_code == 403
    assert admin.post(f"{path}{pk}/delete/", {"post": "yes"}).status_code == 403
    admin.post(path, {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert (Stream.objects.count(), Capture.objects.count(), Host.objects.count()) == (1, 1, 1)


@pytest.mark.parametrize("path", [CAPTURES, HOSTS])
def test_what_is_over_is_read_only(admin: Client, path: str) -> None:
    make_finished()
    (pk,) = {CAPTURES: Capture, HOSTS: Host}[path].objects.values_list("pk", flat=True)  # type: ignore[attr-defined]
    before = (Capture.objects.values().get(), Host.objects.values().get())
    markup = admin.get(f"{path}{pk}/change/").content.decode()
    assert 'name="_save"' not in markup
    assert admin.post(f"{path}{pk}/change/", {"samples": "1", "slots": "1"}).status_code == 403
    assert (Capture.objects.values().get(), Host.objects.values().get()) == before


# --- who sees it ----------------------------------------------------------------------------------


def paths() -> list[str]:
    capture = make_finished(frames=1)
    return [
        "/admin/",
        STREAMS,
        CAPTURES,
        HOSTS,
        f"{STREAMS}{capture.stream_id}/change/",
        f"{CAPTURES}{capture.pk}/change/",
    ]


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    for path in paths():
        response = client.get(path)
        assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={path}")


def test_who_is_no_staff_is_sent_to_the_login() -> None:
    user = signed_in(User.objects.create_user("guest"))
    for path in paths():
        response = user.get(path)
        assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


def test_no_page_shows_a_credential(admin: Client) -> None:
    stream = make_finished(f"{URL_WITH_SECRET}?token=t0ken-v4lue", frames=1).stream
    act(admin, "start", stream)
    for path in [*paths(), f"{STREAMS}{stream.pk}/change/", f"{STREAMS}{stream.pk}/history/", "/"]:
        markup = admin.get(path).content.decode()
        assert SECRET not in markup
        assert "t0ken-v4lue" not in markup


# --- queries --------------------------------------------------------------------------------------


def queries_of(client: Client, path: str) -> int:
    """Once Django knows the ids of content types."""
    client.get(path)
    with CaptureQueriesContext(connection) as context:
        assert client.get(path).status_code == 200
    return len(context)


def test_longer_lists_take_no_more_queries(admin: Client) -> None:
    counts = {"/admin/": 11, STREAMS: 6, CAPTURES: 9, HOSTS: 5}
    make_finished("rtsp://camera-0.example/demo", frames=1)
    assert {path: queries_of(admin, path) for path in counts} == counts
    for n in range(1, 20):
        make_host(f"host-{n}")
        make_finished(f"rtsp://camera-{n}.example/demo", frames=2)
    assert {path: queries_of(admin, path) for path in counts} == counts


def test_more_frames_take_no_more_queries(admin: Client) -> None:
    few, many = make_finished(frames=2), make_finished("rtsp://other.example/garden", frames=9)
    first = queries_of(admin, f"{CAPTURES}{few.pk}/change/")
    assert queries_of(admin, f"{CAPTURES}{many.pk}/change/") == first
