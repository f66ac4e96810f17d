"""The snapshot that a backup reads its rows in, on both kinds of database."""

import pytest
from django.db import connection

from streams import backup
from streams.models import Stream
from tests.streams.builders import at_once, make_capture

pytestmark = pytest.mark.django_db(transaction=True)


def idle_limit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        (limit,) = cursor.fetchone()
    return str(limit)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite ends no transaction")
def test_it_may_be_idle_for_longer_than_other_transactions() -> None:
    """A backup into a pipe that nobody reads for a while, a process that is paused."""
    connection.close()
    with backup.snapshot():
        assert idle_limit() == "0"
    assert idle_limit() == "8s"


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
