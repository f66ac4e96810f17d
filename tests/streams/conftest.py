"""A database that threads can share, a media folder and hosts of one's own, clients that answer 500 for a crash."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.models.signals import post_migrate
from django.test import Client
from pytest_django import Settings

from tests.environment import IS_POSTGRESQL
from tests.streams.builders import SITE

# SQLite has no locks of rows, and ends no transaction that is idle.
collect_ignore = [] if IS_POSTGRESQL else ["test_locked_postgresql.py", "test_idle_postgresql.py"]

# In memory, SQLite's threads share one cache and its table locks, which no busy timeout waits for.
if connections["default"].vendor == "sqlite":
    connections["default"].settings_dict["TEST"]["NAME"] = os.path.join(os.environ["TEST_DATA"], "test.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """After each test that commits Django empties all tables; it would make permissions anew that nobody is given."""
    assert post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    assert post_migrate.disconnect(create_contenttypes)


@pytest.fixture(autouse=True)
def media(settings: Settings, tmp_path: Path) -> Path:
    """The folder of pictures, empty."""
    folder = tmp_path / "media"
    folder.mkdir()
    settings.MEDIA_ROOT = folder
    return folder


@pytest.fixture(autouse=True)
def content_types() -> Iterator[None]:
    """What a test that commits has made is gone after it; Django would remember its id."""
    yield
    ContentType.objects.clear_cache()


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False, headers={"host": SITE})


@pytest.fixture(autouse=True)
def site(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = [SITE]
    settings.WHITENOISE_AUTOREFRESH = True  # else each new client lists all files of the admin: 20 ms
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a safe one takes 0.2 s


@pytest.fixture
def own_process() -> Iterator[None]:
    """For commands that change what belongs to the process."""
    mask, handler = os.umask(0o077), signal.getsignal(signal.SIGTERM)
    yield
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)
