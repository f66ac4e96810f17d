"""Loaded before Django's settings: tests keep their data in a folder of their own.

With TEST_DATABASE=postgresql Django's test database is on a private PostgreSQL instead of SQLite, and only the tests
that use it are run: the second half of `make test`.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

if "TEST_DATA" not in os.environ:
    os.environ["TEST_RUN"] = str(os.getpid())  # the process that outlives its workers
    os.environ["TEST_DATA"] = tempfile.mkdtemp(prefix="streams-test-")
    atexit.register(shutil.rmtree, os.environ["TEST_DATA"], ignore_errors=True)

os.environ["DATA_DIR"] = os.path.join(os.environ["TEST_DATA"], "data")
os.environ["MEDIA_ROOT"] = os.path.join(os.environ["TEST_DATA"], "media", str(os.getpid()))
os.environ["CAPTURE_HOST_NAME"] = "test-host"
OURS = ("DATA_DIR", "MEDIA_ROOT", "CAPTURE_HOST_NAME")
# All that settings.py reads: a bucket or a database that is in use would lose what is in it.
OTHERS = """DATABASE_URL REDIS_URL S3_BUCKET S3_ENDPOINT_URL S3_REGION S3_ACCESS_KEY_ID S3_SECRET_ACCESS_KEY S3_PREFIX
    CAPTURE_SLOTS CAPTURE_KEEP_DAYS CAPTURE_ALLOWED_NETWORKS CAPTURE_REDIRECT_PORTS SECRET_KEY CREDENTIALS_KEYS
    API_TOKEN ALLOWED_HOSTS CSRF_TRUSTED_ORIGINS DEBUG HTTPS PORT CAPTURE_MAX_STREAMS CAPTURE_MEMORY_MB
    SECRET_KEY_FALLBACKS HOST WEB_THREADS LOG_FORMAT LOG_LEVEL Q_CLUSTER_NAME SSL_CERT_FILE"""
for name in (*OTHERS.split(), *(f"{name}_FILE" for name in (*OURS, *OTHERS.split()))):
    os.environ.pop(name, None)

if os.environ.get("TEST_DATABASE") not in (None, "", "sqlite", "postgresql"):
    raise pytest.UsageError("TEST_DATABASE is sqlite or postgresql")
IS_POSTGRESQL = os.environ.get("TEST_DATABASE") == "postgresql"
if IS_POSTGRESQL:
    from tests.servers import shared_postgresql

    os.environ["DATABASE_URL"] = shared_postgresql().url


# Cameras that were found wrong in the field; test_field_scripts.py runs them if they are there.
FIELD_SCRIPTS = Path(os.environ.get("FIELD_SCRIPTS") or Path(__file__).parents[2] / "shared" / "field")


def pytest_report_header() -> list[str]:
    left_out = ", ".join(ON_SQLITE_ALONE)
    only = f": only the tests that use Django's test database, without {left_out}" if IS_POSTGRESQL else ""
    scripts = len(list(FIELD_SCRIPTS.glob("fail_*.py")))
    return [
        f"database: {'PostgreSQL' if IS_POSTGRESQL else 'SQLite'}{only}",
        f"field scripts: {scripts}" if scripts else "field scripts: none beside the checkout, so none are run",
    ]


# What these ask of the database others do as well, and tests/e2e has whole services on PostgreSQL.
ON_SQLITE_ALONE = (
    "test_admin.py",
    "test_admin_costs.py",
    "test_api_docs.py",
    "test_api_schema.py",
    "test_backup.py",
    "test_bad_input.py",
    "test_page_costs.py",
    "test_pages.py",
    "test_reserve.py",
    "test_retention_life.py",
    "test_storage.py",
    "test_supervisor.py",
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What cannot be selected is not even imported."""
    others = ("bench", "camera", "e2e", "engine", *ON_SQLITE_ALONE)
    return True if IS_POSTGRESQL and collection_path.name in others else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if IS_POSTGRESQL:
        config.hook.pytest_deselected(items=[item for item in items if not _uses_database(item)])
        items[:] = filter(_uses_database, items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What was asked for may be among the tests that use no database."""
    if IS_POSTGRESQL and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


def _uses_database(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return bool(item.get_closest_marker("django_db")) or not {"db", "transactional_db"}.isdisjoint(fixtures)
