"""A database that cannot be reached, for tests of what is answered meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection


@contextmanager
def database_out_of_reach(folder: Path) -> Iterator[None]:
    """No connection to it can be made: its file's folder is not there, its server's port is closed."""
    connection.close()
    kept = dict(connection.settings_dict)
    if connection.vendor == "sqlite":
        connection.settings_dict["NAME"] = str(folder / "away" / "db.sqlite3")
    else:
        connection.settings_dict.update(HOST="127.0.0.1", PORT="9")
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(kept)
