"""A database of many years: 200 streams with 10,000 captures and 90,000 frames, most of the streams capturing."""

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from streams.engine.timeline import MAX_BUCKETS, Timeline
from streams.models import Capture, Stream
from streams.models import Timeline as SavedTimeline

STREAMS, CAPTURES, FRAMES = 200, 10_000, 90_000
FAILING = 20


def fill() -> Stream:
    """The stream with the most to show: its latest capture is in progress and has a whole timeline."""
    now = timezone.now()
    streams = Stream.objects.bulk_create(
        Stream(
            name=f"camera-{n}",
            url=f"rtsp://camera-{n}.example/demo",
            credentials="admin:secret",
            status="reconnecting" if n < FAILING else "capturing",
            error_code="unreachable" if n < FAILING else "",
            error_text="No connection to the camera: nothing answers." if n < FAILING else "",
        )
        for n in range(STREAMS)
    )
    captures = Capture.objects.bulk_create(
        Capture(
            stream=streams[n % STREAMS],
            started_at=now - timedelta(hours=CAPTURES - n),
            finished_at=now - timedelta(hours=CAPTURES - n - 1) if n < CAPTURES - STREAMS else None,
            ending="stopped" if n < CAPTURES - STREAMS else "",
            samples=n,
            grid="grids/1/a.jpg",
        )
        for n in range(CAPTURES)
    )
    with connection.cursor() as cursor:  # ninety thousand objects of Django's take ten times as long
        cursor.execute(
            "INSERT INTO streams_frame (capture_id, number, score, captured_at, width, height, image) "
            "WITH n(value) AS (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9)) "
            "SELECT id, value, 100 + value, started_at, 1920, 1080, 'a.jpg' FROM streams_capture, n"
        )
    data = _timeline(captures[-1])
    SavedTimeline.objects.bulk_create(SavedTimeline(capture=capture, data=data) for capture in captures[-STREAMS:])
    return streams[-1]


def _timeline(capture: Capture) -> str:
    began_at = capture.started_at.timestamp()
    timeline = Timeline(began_at, 1.0)
    for second in range(MAX_BUCKETS):
        timeline.note_sample(began_at + second, 100 + second % 50 + 0.123)
    return timeline.encode()
