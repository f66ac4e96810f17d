"""The snapshot that a backup reads its rows in, on both kinds of database."""

import pytest
from django.db import connection

from streams import backup
from streams.models import Stream
from tests.streams.builders import at_once, make_capture

pytestmark = pytest.mark.django_db(transaction=True)


def test_nobody_waits_for_the_rows_to_be_read() -> None:
    """Nor does the reader see what is written meanwhile."""
    make_capture()
    with backup.snapshot():
        assert Stream.objects.count() == 1
        [stream] = at_once(1, lambda: make_capture("rtsp://camera.example/second", name="second").stream)
        assert Stream.objects.count() == 1
    assert Stream.objects.get(name="second") == stream
    if connection.vendor == "sqlite":
        assert getattr(connection, "transaction_mode") == "IMMEDIATE"  # noqa: B009 only SQLite's has it
