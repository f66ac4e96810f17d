"""How long PostgreSQL lets a transaction of a backup or a restore wait for a slow disk or pipe."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.db import connection

from streams import backup
from streams import restore as restore_module
from tests.streams.builders import make_finished
from tests.streams.test_backup import back_up, file, quick_grids, restore, wipe

__all__ = ("file", "quick_grids")  # fixtures

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("own_process")]


def idle_limit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        (limit,) = cursor.fetchone()
    return str(limit)


def test_a_snapshot_may_be_idle_for_longer_than_other_transactions() -> None:
    """A backup into a pipe that nobody reads for a while, a process that is paused."""
    connection.close()
    with backup.snapshot():
        assert idle_limit() == "0"
    assert idle_limit() == "8s"


def test_a_restore_may_be_idle_for_longer_than_other_transactions(file: Path, media: Path) -> None:
    make_finished()
    back_up(file)
    wipe(media)
    seen = []

    def note(*given: Any) -> None:
        seen.append(idle_limit())
        set_statuses(*given)

    set_statuses = restore_module._set_statuses
    with patch.object(restore_module, "_set_statuses", note):
        restore(file)
    assert (seen, idle_limit() != "0") == (["0"], True)
