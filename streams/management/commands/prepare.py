"""What has to be true before the service serves."""

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from environs import FileAwareEnv

from streams import checks, reserve, retention
from streams.terminal import mention

DATABASE_WAIT_S, WAIT_S = 60.0, 2.0
LOOK_S, SAY_AGAIN_S = 0.2, 15.0
_LOCK = 0x73747265616D  # any number that nothing else in the database locks


def _has_lock(cursor: Any) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
    return bool(cursor.fetchone()[0])


@contextmanager
def _one_at_a_time(stderr: Any) -> Iterator[None]:
    """Several containers start together against one database; SQLite's is behind one folder."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            said_s = -math.inf
            while not _has_lock(cursor):  # not waited for in the server, which gives it up after `lock_timeout`
                if time.monotonic() - said_s >= SAY_AGAIN_S:
                    said_s = time.monotonic()
                    stderr.write("waiting for another prepare")
                time.sleep(LOOK_S)
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        return
    folder = Path(settings.DATA_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "prepare.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Command(BaseCommand):
    help = (
        "Migrates the database, schedules the daily prune, and makes the first account if DJANGO_SUPERUSER_USERNAME "
        "and _PASSWORD are set."
    )
    requires_system_checks = [checks.TAG]

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # a SQLite file holds password hashes and is made here
        self._wait_for_server()
        with _one_at_a_time(self.stderr):
            self._prepare()
            if not reserve.restore():
                self.stderr.write("The disk of the database is nearly full: nothing is started until there is room.")

    @reserve.may_use  # on a full disk SQLite cannot even be opened, and nobody could make room through the service
    def _prepare(self) -> None:
        call_command("migrate", interactive=False, verbosity=0, stderr=self.stderr)
        retention.keep_schedule()
        retention.put_jobs_right()
        self._make_first_account()

    def _wait_for_server(self) -> None:
        """Right after a boot a database server takes a moment longer; a SQLite file is there or will not be."""
        limit_s = time.monotonic() + DATABASE_WAIT_S
        while connection.vendor != "sqlite":
            try:
                connection.ensure_connection()
                return
            except OperationalError as error:
                if time.monotonic() > limit_s:
                    raise CommandError(f"The database is away: {str(error).strip()}") from None
                mention(self.stderr, "waiting for the database")
                time.sleep(WAIT_S)

    def _make_first_account(self) -> None:
        env = FileAwareEnv(strip_whitespace=True)
        name = env.str("DJANGO_SUPERUSER_USERNAME", "")
        password = env.str("DJANGO_SUPERUSER_PASSWORD", "")
        users = get_user_model().objects
        if not name or not password or users.filter(username=name).exists():
            return
        email = env.str("DJANGO_SUPERUSER_EMAIL", f"{name}@localhost")
        users.create_superuser(username=name, email=email, password=password)
        mention(self.stdout, f"The account {name} was made.")
