"""What all tests share: clips, and servers that are started when a test first asks for one."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.order import spread
from tests.servers import Database, PostgreSQL, Redis, shared_postgresql, shared_redis

# Beside those of e2e: half a minute and more, most of it waiting.
LONG = frozenset(
    f"test_{name}"
    for name in (
        *("cluster", "storage", "supervisor", "prune", "capture_command", "field", "footage", "run"),
        *("differential", "field_scripts"),
    )
)

pytest_plugins = ("tests.figures",)
# By itself an example that takes 200 ms fails, on whatever machine that is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests stay until the end: to look for garbage among them took a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """xdist's workers begin with equal stretches of the list, and whoever is done takes the end of another's."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1 and len(items) > 100 * workers:
        items[:] = spread(items, workers, lambda item: item.path, _waits)


def _waits(item: pytest.Item) -> bool:
    return "e2e" in item.path.parts or item.path.stem in LONG


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of encoded clips, one for all processes of a test run."""
    return Path(os.environ["TEST_DATA"]) / "clips"


@pytest.fixture(scope="session")
def postgresql() -> PostgreSQL:
    """The one of all processes of the test run: take a database of your own, and do not stop it."""
    return shared_postgresql()


@pytest.fixture(scope="session")
def redis() -> Redis:
    """The one of all processes of the test run: take a database of your own, and neither stop nor flush it."""
    return shared_redis()


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL) -> Iterator[Database]:
    """An empty PostgreSQL database for the test's module."""
    database = postgresql.new_database()
    yield database
    database.drop()


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that the test may stop, start and kill."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that the test may stop, start, kill and flush."""
    with Redis() as server:
        yield server
