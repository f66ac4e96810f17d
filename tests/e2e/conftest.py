"""Databases for one test alone: hosts of two sites must not meet in one."""

from collections.abc import Iterator

import pytest

from tests.e2e.prepared import prepared_database
from tests.servers import Database, PostgreSQL


@pytest.fixture
def own_database(postgresql: PostgreSQL) -> Iterator[Database]:
    """As `manage.py prepare` leaves it, on the PostgreSQL of the test run."""
    database = prepared_database(postgresql)
    yield database
    database.drop()


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest) -> str:
    """Of a database of each kind; empty for SQLite in the site's own folder."""
    if request.param == "sqlite":
        return ""
    database: Database = request.getfixturevalue("own_database")
    return database.url
