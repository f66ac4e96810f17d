"""Pictures, small and whole, and the zip of a capture: what comes, what stays in the browser, what is not there."""

import json
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from streams import pictures, services
from streams.engine import sheet
from streams.engine.timeline import Timeline as EngineTimeline
from streams.models import Capture, Frame, Stream, Timeline
from tests.figures import Figure
from tests.streams.builders import (
    NOON,
    SECRET,
    URL_WITH_SECRET,
    Response,
    all_files,
    files,
    make_capture,
    make_finished,
    make_jpeg,
    record,
)

pytestmark = pytest.mark.django_db
WIDE = (1920, 1080)
HUGE_ID = 10**30


def noise(width: int, height: int) -> bytes:
    """As hard to compress as what a camera sees at night."""
    picture = np.random.default_rng(1).normal(128, 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    return sheet.encode_jpeg(picture, sheet.FRAME_QUALITY)


def replace(frame: Frame, data: bytes) -> None:
    frame.image.storage.delete(str(frame.image.name))
    frame.image.storage.save(str(frame.image.name), ContentFile(data))


def best(capture: Capture) -> Frame:
    return capture.frames.order_by("-score")[0]


def size_of(response: Response) -> tuple[int, int]:
    """Width and height."""
    assert (response.status_code, response["Content-Type"]) == (200, "image/jpeg")
    height, width = sheet.decode_jpeg(response.content).shape[:2]
    return width, height


def urls(capture: Capture) -> list[str]:
    """Of each kind of picture."""
    grid, frame = f"/captures/{capture.pk}", f"/frames/{best(capture).pk}"
    return [f"{grid}/grid.jpg", f"{grid}/small.jpg", f"{frame}.jpg", f"{frame}/small.jpg"]


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_come_as_they_are_kept(client: Client) -> None:
    capture = make_finished(frames=4)
    grid = client.get(f"/captures/{capture.pk}/grid.jpg")
    assert size_of(grid) == (3 * 32 + 4 * 8, 2 * 24 + 3 * 8)
    assert grid.content == capture.grid.read()
    for frame in capture.frames.all():
        answer = client.get(f"/frames/{frame.pk}.jpg")
        assert answer.content == frame.image.read()
        assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("size", "small"),
    [
        (WIDE, (480, 270)),
        ((1080, 1920), (480, 853)),
        ((704, 576), (480, 393)),
        ((481, 2), (480, 2)),
        ((4000, 3), (480, 1)),
    ],
)
def test_a_small_picture_is_480_wide_and_keeps_its_proportions(
    client: Client, size: tuple[int, int], small: tuple[int, int]
) -> None:
    frame = best(make_finished(frames=1))
    replace(frame, make_jpeg(200, *size))
    assert size_of(client.get(f"/frames/{frame.pk}/small.jpg")) == small


@pytest.mark.parametrize("size", [(480, 360), (32, 24)])
def test_what_is_small_already_stays_as_it_is(client: Client, size: tuple[int, int]) -> None:
    frame = best(make_finished(frames=1))
    replace(frame, make_jpeg(200, *size))
    assert client.get(f"/frames/{frame.pk}/small.jpg").content == make_jpeg(200, *size)


def test_a_small_picture_shows_what_the_large_one_shows(client: Client) -> None:
    """Red left, blue right: neither colours nor sides are swapped."""
    picture = np.zeros((1080, 1920, 3), np.uint8)
    picture[:, :960] = (0, 0, 220)
    picture[:, 960:] = (220, 0, 0)
    frame = best(make_finished(frames=1))
    replace(frame, sheet.encode_jpeg(picture, 95))
    shown = sheet.decode_jpeg(client.get(f"/frames/{frame.pk}/small.jpg").content)
    for column, colour in ((100, (0, 0, 220)), (380, (220, 0, 0))):
        assert np.abs(shown[135, column].astype(int) - colour).max() < 12


def test_the_grid_is_there_small_too(client: Client) -> None:
    capture = make_finished(frames=1)
    capture.grid.storage.delete(str(capture.grid.name))
    capture.grid.storage.save(str(capture.grid.name), ContentFile(make_jpeg(90, 1952, 1112)))
    assert size_of(client.get(f"/captures/{capture.pk}/small.jpg")) == (480, 273)


def test_a_small_picture_is_cheap(figure: Figure) -> None:
    """Of a core; the bound says that it is not decoded in Python."""
    jpeg = noise(*WIDE)
    took_s = []
    for _ in range(9):
        before_s = time.thread_time()
        small = pictures.small(jpeg)
        took_s.append(time.thread_time() - before_s)
    assert len(small) < len(jpeg) / 10
    figure(f"small picture of 1080p, {len(jpeg) // 1024} kB", sorted(took_s)[4] * 1000, 20, "ms")
    assert sorted(took_s)[4] < 0.5


# --- what a browser keeps -------------------------------------------------------------------------


def test_a_picture_is_kept_by_the_browser_that_asks_again_and_by_nobody_on_the_way(client: Client) -> None:
    for url in urls(make_finished()):
        answer = client.get(url)
        kept = {rule.strip() for rule in answer["Cache-Control"].split(",")}
        assert kept == {"private", "no-cache"}
        assert not answer.has_header("Vary") or "Cookie" not in answer["Vary"]


@pytest.mark.parametrize("header", [("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since")])
def test_what_a_browser_has_is_not_sent_again(client: Client, header: tuple[str, str]) -> None:
    given, asked = header
    for url in urls(make_finished()):
        first = client.get(url)
        again = client.get(url, headers={asked: first[given]})
        assert (again.status_code, again.content) == (304, b"")
        assert (again["ETag"], again["Cache-Control"]) == (first["ETag"], first["Cache-Control"])


def test_no_two_pictures_have_one_tag(client: Client) -> None:
    captures = [make_finished(frames=2), make_finished("rtsp://other.example/garden", frames=2)]
    tags = [client.get(url)["ETag"] for capture in captures for url in urls(capture)]
    assert len(set(tags)) == len(tags) == 8


def test_another_picture_than_the_browser_has_is_sent(client: Client) -> None:
    for url in urls(make_finished()):
        assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


# --- how they are asked for -----------------------------------------------------------------------


def test_a_picture_can_be_downloaded_under_a_name_that_tells(client: Client) -> None:
    capture = make_finished()
    Capture.objects.update(started_at="2026-11-23T12:03:59Z")
    Frame.objects.update(captured_at="2026-11-23T12:04:05Z")
    grid, _, frame, _ = urls(capture)
    assert (
        client.get(f"{grid}?download")["Content-Disposition"]
        == 'attachment; filename="demo-2026-11-23-1203-grid.jpg"'
    )
    assert client.get(grid)["Content-Disposition"] == 'inline; filename="demo-2026-11-23-1203-grid.jpg"'
    assert (
        client.get(f"{frame}?download")["Content-Disposition"] == 'attachment; filename="demo-2026-11-23-120405.jpg"'
    )


def test_head_tells_what_get_would(client: Client) -> None:
    for url in urls(make_finished()):
        got, told = client.get(url), client.head(url)
        assert (told.status_code, told.content) == (200, b"")
        assert told.headers == got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_picture_is_only_read(client: Client, method: str) -> None:
    capture = make_finished()
    for url in (*urls(capture), f"/captures/{capture.pk}/capture.zip"):
        assert client.generic(method, url).status_code == 405


def test_a_picture_takes_one_query(client: Client) -> None:
    for url in urls(make_finished()):
        with CaptureQueriesContext(connection) as asked:
            assert client.get(url).status_code == 200
        assert len(asked) == 1
        assert "credentials" not in asked[0]["sql"]


# --- what is not there ----------------------------------------------------------------------------

GONE = {
    "missing": None,
    "empty": b"",
    "cut off": make_jpeg(120)[:-200],
    "without its beginning": make_jpeg(120)[200:],
    "no picture": b"\x89PNG\r\n\x1a\n" + 200 * b"x",
}


@pytest.mark.parametrize("data", GONE.values(), ids=GONE)
def test_a_file_that_is_gone_or_damaged_is_a_404(client: Client, data: bytes | None) -> None:
    capture = make_finished()
    found = urls(capture)
    for file in (capture.grid, best(capture).image):
        file.storage.delete(str(file.name))
        if data is not None:
            file.storage.save(str(file.name), ContentFile(data))
    for url in found:
        answer = client.get(url)
        assert answer.status_code == 404, url
        assert not answer.has_header("ETag")


def test_damage_in_the_middle_is_no_500(client: Client) -> None:
    """libjpeg makes of it what it can; a header that is spoilt is a 404."""
    frame = best(make_finished(frames=1))
    jpeg = bytearray(noise(*WIDE))
    jpeg[200_000:200_400] = bytes(400)
    replace(frame, bytes(jpeg))
    assert client.get(f"/frames/{frame.pk}/small.jpg").status_code == 200
    jpeg[2:200] = bytes(198)
    replace(frame, bytes(jpeg))
    assert client.get(f"/frames/{frame.pk}/small.jpg").status_code == 404


def test_a_header_that_claims_more_pixels_than_there_can_be_is_a_404(client: Client) -> None:
    frame = best(make_finished(frames=1))
    jpeg = bytearray(make_jpeg(120, 640, 480))
    at = jpeg.index(b"\xff\xc0") + 5  # SOF0: marker, length, precision, height, width
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    replace(frame, bytes(jpeg))
    assert client.get(f"/frames/{frame.pk}/small.jpg").status_code == 404


def test_what_never_was_is_a_404(client: Client) -> None:
    capture = make_finished(frames=0)
    running = make_capture("rtsp://other.example/garden")
    for pk in (capture.pk, running.pk, 99, HUGE_ID):
        assert [client.get(f"/captures/{pk}/{name}.jpg").status_code for name in ("grid", "small")] == [404, 404]
    for pk in (99, HUGE_ID):
        assert [client.get(f"/frames/{pk}{rest}").status_code for rest in (".jpg", "/small.jpg")] == [404, 404]
        assert client.get(f"/captures/{pk}/capture.zip").status_code == 404


def test_while_the_storage_is_away_it_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = make_finished()
    found = [*urls(capture), f"/captures/{capture.pk}/capture.zip"]
    monkeypatch.setattr(FileSystemStorage, "_open", away)
    for url in found:
        answer = client.get(url)
        assert (answer.status_code, answer["Retry-After"]) == (503, "5"), url
        assert answer["Cache-Control"] == "no-store"


def away(*_: object) -> None:
    raise OSError(5, "Input/output error")


# --- the zip --------------------------------------------------------------------------------------


def unzip(response: Response) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    """The archive, found to be sound, and its facts."""
    assert (response.status_code, response["Content-Type"]) == (200, "application/zip")
    streamed: Iterator[bytes] = response.streaming_content  # type: ignore[attr-defined]
    archive = zipfile.ZipFile(BytesIO(b"".join(streamed)))
    assert archive.testzip() is None
    return archive, json.loads(archive.read("capture.json"))


def get_zip(client: Client, capture: Capture) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    return unzip(client.get(f"/captures/{capture.pk}/capture.zip"))


def test_the_zip_has_the_grid_the_frames_best_first_and_the_facts(client: Client) -> None:
    capture = make_finished(URL_WITH_SECRET, frames=3, count=3)
    Capture.objects.update(samples=17, error_code="stalled", error_text="Nothing came.")
    Frame.objects.update(captured_at="2026-11-23T12:04:05Z")
    archive, facts = get_zip(client, capture)
    names = [
        "grid.jpg",
        *(f"{n}-20261123-120405-{score}.jpg" for n, score in (("01", "103.0"), ("02", "102.0"), ("03", "101.0"))),
    ]
    assert archive.namelist() == [*names, "capture.json"]
    assert archive.read("grid.jpg") == capture.grid.read()
    assert [archive.read(name) for name in names[1:]] == [f.image.read() for f in capture.frames.order_by("-score")]
    assert (facts["stream"], facts["url"], facts["samples"]) == ("demo", "rtsp://camera.example:8554/demo", 17)
    assert (facts["interval"], facts["count"], facts["ending"]) == (1.0, 3, "stopped")
    assert facts["error"] == {"code": "stalled", "message": "Nothing came."}
    assert [(frame["rank"], frame["file"], frame["score"]) for frame in facts["frames"]] == [
        (1, names[1], 103.0),
        (2, names[2], 102.0),
        (3, names[3], 101.0),
    ]
    assert facts["frames"][0]["captured_at"] == "2026-11-23T12:04:05Z"
    assert facts["missing_files"] == []
    assert SECRET.encode() not in b"".join(archive.read(name) for name in archive.namelist())


def test_the_zip_has_a_name_that_tells(client: Client) -> None:
    capture = make_finished(frames=1)
    Capture.objects.update(started_at="2026-11-23T12:03:59Z")
    answer = client.get(f"/captures/{capture.pk}/capture.zip")
    assert answer["Content-Disposition"] == 'attachment; filename="demo-2026-11-23-1203.zip"'
    assert answer["Cache-Control"] == "no-store"


def test_files_in_the_zip_can_be_read_and_have_their_time(client: Client) -> None:
    capture = make_finished(frames=2)
    first, second = capture.frames.order_by("-score")
    Frame.objects.filter(pk=first.pk).update(captured_at=datetime(2026, 11, 23, 12, 4, 6, tzinfo=UTC))
    Frame.objects.filter(pk=second.pk).update(captured_at=datetime(1970, 1, 1, tzinfo=UTC))
    archive, _ = get_zip(client, capture)
    entries = archive.infolist()
    assert [entry.date_time for entry in entries[1:3]] == [(2026, 11, 23, 12, 4, 6), (1980, 1, 1, 0, 0, 0)]
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("captured_at", "date_time"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), (1980, 1, 1, 0, 0, 0)),
        (datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC), (2107, 12, 31, 23, 59, 58)),
        (datetime(2108, 1, 1, tzinfo=UTC), (2107, 12, 31, 23, 59, 58)),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), (2107, 12, 31, 23, 59, 58)),
    ],
    ids=["1", "2107", "2108", "9999"],
)
def test_a_date_that_no_zip_can_name_breaks_no_download_and_no_page(
    client: Client, captured_at: datetime, date_time: tuple[int, ...]
) -> None:
    """A camera's host may have a clock that is decades ahead."""
    capture = make_finished(frames=1, count=1)
    Frame.objects.update(captured_at=captured_at)
    Capture.objects.update(started_at=captured_at, stop_requested_at=captured_at, finished_at=captured_at)
    Capture.objects.update(last_sample_at=captured_at)
    Stream.objects.update(created_at=captured_at, status_at=captured_at, next_attempt_at=captured_at)
    archive, _ = get_zip(client, capture)
    assert [entry.date_time for entry in archive.infolist()] == [date_time] * 3
    pages = ["/", "/streams/demo/", f"/captures/{capture.pk}/", "/api/captures", f"/api/captures/{capture.pk}"]
    for path in [*pages, "/api/status", "/streams/demo/best.jpg", *urls(capture), "/metrics"]:
        assert client.get(path).status_code == 200, path


def test_the_zip_can_be_read_as_it_comes(client: Client) -> None:
    """From a pipe, without the directory at its end: each entry has to say before it how long it is."""
    capture = make_finished(frames=3)
    data = b"".join(client.get(f"/captures/{capture.pk}/capture.zip").streaming_content)  # type: ignore[attr-defined]
    found, at = [], 0
    while data[at : at + 4] == b"PK\x03\x04":  # APPNOTE.TXT 4.3.7
        checksum, size, _, name_length, extra_length = struct.unpack("<IIIHH", data[at + 14 : at + 30])
        begin = at + 30 + name_length + extra_length
        at = begin + size
        assert zlib.crc32(data[begin:at]) == checksum
        found.append(data[begin:at])
    assert data[at : at + 4] == b"PK\x01\x02"
    assert found[:-1] == [
        file.read() for file in (capture.grid, *(f.image for f in capture.frames.order_by("-score")))
    ]
    assert json.loads(found[-1])["stream"] == "demo"


def test_names_sort_by_rank_also_with_a_hundred_frames(client: Client) -> None:
    archive, facts = get_zip(client, make_finished(frames=100, count=100))
    names = [name for name in archive.namelist() if name[0].isdigit()]
    assert names == sorted(names) == [frame["file"] for frame in facts["frames"]]
    assert len(names) == 100


def test_a_missing_file_costs_the_zip_that_file_alone_and_it_says_so(client: Client) -> None:
    capture = make_finished(frames=3)
    gone, damaged, whole = capture.frames.order_by("-score")
    gone.image.storage.delete(str(gone.image.name))
    replace(damaged, b"\xff\xd8")
    archive, facts = get_zip(client, capture)
    names = [frame["file"] for frame in facts["frames"]]
    assert archive.namelist() == ["grid.jpg", names[2], "capture.json"]
    assert facts["missing_files"] == names[:2]
    assert archive.read(names[2]) == whole.image.read()


def test_a_capture_in_progress_gives_what_there_is_now(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=2)
    archive, facts = get_zip(client, capture)
    assert len(archive.namelist()) == 3
    assert (facts["grid"], facts["finished_at"], facts["ending"], len(facts["frames"])) == (None, None, None, 2)


def test_a_capture_without_frames_gives_its_facts(client: Client) -> None:
    archive, facts = get_zip(client, make_finished(frames=0))
    assert archive.namelist() == ["capture.json"]
    assert facts["frames"] == []


def test_a_capture_that_is_pruned_while_it_is_read_gives_what_was_read(client: Client) -> None:
    capture = make_finished(frames=3)
    answer = client.get(f"/captures/{capture.pk}/capture.zip")
    parts: Iterator[bytes] = iter(answer.streaming_content)  # type: ignore[attr-defined]
    begun = next(parts) + next(parts)
    names = all_files(capture)
    Capture.objects.all().delete()
    for name in names:
        capture.grid.storage.delete(name)
    archive = zipfile.ZipFile(BytesIO(begun + b"".join(parts)))
    assert archive.testzip() is None
    facts = json.loads(archive.read("capture.json"))
    assert archive.namelist() == ["grid.jpg", facts["frames"][0]["file"], "capture.json"]
    assert facts["missing_files"] == [frame["file"] for frame in facts["frames"][1:]]


def test_the_zip_comes_in_parts_of_one_picture_and_asks_no_database_meanwhile(client: Client) -> None:
    capture = make_finished(frames=9)
    with CaptureQueriesContext(connection) as asked:
        answer = client.get(f"/captures/{capture.pk}/capture.zip")
    assert len(asked) == 3
    largest = max(frame.image.size for frame in capture.frames.all())
    with CaptureQueriesContext(connection) as asked:
        sizes = [len(part) for part in answer.streaming_content]  # type: ignore[attr-defined]
    assert len(asked) == 0
    assert len(sizes) == 11
    assert max(sizes[1:-1]) < largest + 200


def test_an_abort_leaves_nothing_behind(client: Client, media: Path) -> None:
    capture = make_finished(frames=9)
    before = files(media)
    answer = client.get(f"/captures/{capture.pk}/capture.zip")
    next(iter(answer.streaming_content))  # type: ignore[attr-defined]
    answer.close()
    assert files(media) == before
    assert not any(str(media) in opened for opened in open_files())


def open_files() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists
            found.append(str(entry.readlink()))
    return found


def test_the_facts_hold_the_timeline(client: Client) -> None:
    capture = make_finished(frames=1)
    timeline = EngineTimeline.of_interval(NOON, 1.0)
    timeline.note_sample(NOON, 101.5)
    timeline.note_error(NOON + 60, "stalled")
    timeline.note_connection(NOON + 60)
    Timeline.objects.update_or_create(capture=capture, defaults={"data": timeline.encode()})
    _, facts = get_zip(client, capture)
    first, second = facts["timeline"]["buckets"]
    assert (first["samples"], first["low"], first["high"], first["error"]) == (1, 101.5, 101.5, None)
    assert (second["samples"], second["low"], second["connections"], second["error"]) == (0, None, 1, "stalled")
    assert 0 <= datetime.fromisoformat(first["at"]).timestamp() - NOON < 1


@pytest.mark.parametrize("data", [None, "nonsense"])
def test_a_capture_without_a_timeline_has_its_zip(client: Client, data: str | None) -> None:
    capture = make_finished(frames=1)
    Timeline.objects.all().delete()
    if data:
        Timeline.objects.create(capture=capture, data=data)
    assert get_zip(client, capture)[1]["timeline"] is None


def test_a_stream_that_was_never_stopped_by_hand_tells_why_it_ended(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=1)
    Capture.objects.update(
        error_code="address_refused",
        error_text="Not there.",
        ending="failed",
        stop_requested_at="2026-11-23T12:00:00Z",
    )
    assert services.finish(capture.pk)
    _, facts = get_zip(client, capture)
    assert (facts["ending"], facts["error"]["code"]) == ("failed", "address_refused")
    assert cv2.imdecode(np.frombuffer(get_zip(client, capture)[0].read("grid.jpg"), np.uint8), 1) is not None


def test_a_picture_that_is_a_bomb_is_not_made_small() -> None:
    """One of 8000 x 8000 that says so in a kilobyte: nothing is decoded of it."""
    jpeg = sheet.encode_jpeg(np.zeros((480, 640, 3), np.uint8), 90)
    at = jpeg.index(b"\xff\xc0") + 5
    pictures.small(jpeg)
    with pytest.raises(pictures.NoPicture):
        pictures.small(jpeg[:at] + struct.pack(">HH", 8000, 8000) + jpeg[at + 4 :])
