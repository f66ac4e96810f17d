"""What has to be true before the service serves."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection
from environs import FileAwareEnv

from streams import retention

_LOCK = 0x73747265616D  # any number that nothing else in the database locks


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Several containers start together against one database; SQLite's is behind one folder."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            yield
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

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # a SQLite file holds password hashes and is made here
        with _one_at_a_time():
            call_command("migrate", interactive=False, verbosity=0)
            retention.keep_schedule()
            self._make_first_account()

    def _make_first_account(self) -> None:
        env = FileAwareEnv(strip_whitespace=True)
        name = env.str("DJANGO_SUPERUSER_USERNAME", "")
        password = env.str("DJANGO_SUPERUSER_PASSWORD", "")
        users = get_user_model().objects
        if not name or not password or users.filter(username=name).exists():
            return
        email = env.str("DJANGO_SUPERUSER_EMAIL", f"{name}@localhost")
        users.create_superuser(username=name, email=email, password=password)
        self.stdout.write(f"The account {name} was made.")
