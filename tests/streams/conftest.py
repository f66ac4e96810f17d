"""A database that threads can share, a media folder and hosts of one's own, clients that answer 500 for a crash."""

import os
from pathlib import Path

import pytest
from django.db import connections
from django.test import Client
from pytest_django import Settings

from tests.streams.builders import SITE

# In memory, SQLite's threads share one cache and its table locks, which no busy timeout waits for.
if connections["default"].vendor == "sqlite":
    connections["default"].settings_dict["TEST"]["NAME"] = os.path.join(os.environ["TEST_DATA"], "test.sqlite3")


@pytest.fixture(autouse=True)
def media(settings: Settings, tmp_path: Path) -> Path:
    """The folder of pictures, empty."""
    folder = tmp_path / "media"
    folder.mkdir()
    settings.MEDIA_ROOT = folder
    return folder


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False, headers={"host": SITE})


@pytest.fixture(autouse=True)
def site(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = [SITE]
