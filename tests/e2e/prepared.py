"""Databases as `manage.py prepare` leaves them: it runs once for each kind in a test run, all others are copies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers import Database, PostgreSQL, locked

ROOT = Path(__file__).resolve().parents[2]
MANAGE = str(ROOT / "manage.py")
ADMIN = ("keeper", "a-long-enough-word")
_MODEL = "prepared"


def prepare_sqlite(path: Path) -> None:
    """A prepared database there, which only its owner may read."""
    with locked(Path(os.environ["TEST_DATA"]) / f"{_MODEL}.sqlite3") as model:
        if not model.exists():
            unfinished = model.with_suffix(".unfinished")
            _prepare(f"sqlite:///{unfinished}")
            unfinished.rename(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(model, path)


def prepared_database(server: PostgreSQL) -> Database:
    """Of the server that all processes of the test run share."""
    with locked(Path(os.environ["TEST_DATA"]) / f"{_MODEL}.{server.kind}"):
        if not server.execute(sql.SQL("SELECT 1 FROM pg_database WHERE datname = %s"), [_MODEL]):
            unfinished = server.new_database()
            _prepare(unfinished.url)
            names = map(sql.Identifier, (unfinished.name, _MODEL))
            server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
        return server.new_database(template=_MODEL)


def is_prepared(postgresql_url: str) -> bool:
    with psycopg.connect(postgresql_url, connect_timeout=10) as connection:
        return connection.execute("SELECT to_regclass('django_migrations')").fetchone() != (None,)


def _prepare(url: str) -> None:
    account = {"DJANGO_SUPERUSER_USERNAME": ADMIN[0], "DJANGO_SUPERUSER_PASSWORD": ADMIN[1]}
    done = subprocess.run(
        [sys.executable, MANAGE, "prepare"], cwd=ROOT, env={**os.environ, **account, "DATABASE_URL": url},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
