"""Locks of other sessions in the database: how long a statement waits for one, and what an error says of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from . import database_faults

# Of a website's thread, a job or a command. A request that waits longer is answered with 503; nobody queues for good.
WAIT_S = 3.0
# Of a supervisor: its one thread serves all captures, and its heartbeat is due every 2 s. With 64 captures that are
# all locked a round takes 16 s at most, and the heartbeat goes on between them.
SUPERVISOR_WAIT_S = 0.25
# SQLite has one writer at a time, so that waiting is ordinary there. It waits in C, where no signal is heard.
SUPERVISOR_SQLITE_WAIT_S = 2.0
# On the way out, where all has to be done within 5 s.
LEAVING_SQLITE_WAIT_S = 0.5
_KEY = "LOCK_WAIT_S"

_TUPLE = re.compile(r"\(\d+,\d+\)")  # the message around it is in the server's language
_KEEPS_OUT = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
_READS = "AccessShareLock"

_HOLDERS = """
SELECT c.relname, a.pid, COALESCE(NULLIF(a.application_name, ''), a.usename::text, '?'),
       COALESCE(EXTRACT(EPOCH FROM now() - a.xact_start), 0)::int
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_class c ON c.oid = l.relation
WHERE l.locktype = 'relation' AND c.relname = ANY(%s) AND l.mode = ANY(%s) AND a.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start NULLS LAST, c.relname
"""


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock that was not given in time. `table` is empty where the error does not name it."""

    table: str = ""
    is_row: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, for the log: a format string with keys, and its arguments."""

    format: str = "table=%s"
    values: tuple[object, ...] = ("?",)

    @classmethod
    def of(cls, tables: Iterable[str], session: int, program: str, transaction_s: int) -> "Holder":
        words = "table=%s session=%s program=%r transaction_s=%s"
        return cls(words, (",".join(sorted(set(tables))), session, program, transaction_s))

    def __str__(self) -> str:
        return self.format % self.values


def lock_in(error: BaseException) -> Locked | None:
    """The lock that this error tells of; None if it tells of something else."""
    if not database_faults.is_lock(error):
        return None
    context = getattr(getattr(error.__cause__ or error, "diag", None), "context", None) or ""
    # Only who waits for a row is told where: "while updating tuple (0,1) in relation ...".
    first = context.partition("\n")[0]
    if not _TUPLE.search(first):
        return Locked()
    known = _tables()
    return Locked(next((word for word in re.findall(r"\w+", first) if word in known), ""), is_row=True)


def is_row_lock(error: BaseException) -> bool:
    found = lock_in(error)
    return found is not None and found.is_row


def is_of_one_row(error: Error) -> bool:
    """Whether the database answers and only this transaction failed: the next one may as well succeed."""
    return database_faults.is_deadlock(error) or is_row_lock(error)


def wait_at_most(connection: BaseDatabaseWrapper, wait_s: float) -> None:
    """For the sessions that this connection opens from now on; the one that is open is closed."""
    connection.settings_dict[_KEY] = wait_s
    if connection.vendor == "sqlite":
        options = connection.settings_dict["OPTIONS"]
        connection.settings_dict["OPTIONS"] = {**options, "timeout": wait_s}
    connection.close()


def hurry(connection: BaseDatabaseWrapper) -> None:
    """A supervisor leaves: SQLite is waited for no longer than PostgreSQL."""
    if connection.vendor == "sqlite" and connection.connection:
        connection.connection.execute(f"PRAGMA busy_timeout = {1000 * LEAVING_SQLITE_WAIT_S:.0f}")


def limit_waits(connection: BaseDatabaseWrapper) -> None:
    """Called for each new session. A limit that the URL or the role sets holds, except in a supervisor.

    Said with a statement: a pooler between us and the server refuses options that it does not know.
    """
    own_s = connection.settings_dict.get(_KEY)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false) WHERE %s OR current_setting('lock_timeout') = '0'",
            [f"{1000 * (own_s or WAIT_S):.0f}ms", own_s is not None],
        )


def locked_tables(connection: BaseDatabaseWrapper) -> Holder:
    """The tables that another session keeps everybody out of, or is about to, and which session: for the log."""
    if connection.vendor != "postgresql":  # SQLite locks its file, and does not tell for whom
        return Holder("file=%s", (Path(str(connection.settings_dict["NAME"])).name,))
    return _first(_holders(connection, _tables(), _KEEPS_OUT))


def row_holder(connection: BaseDatabaseWrapper, table: str) -> Holder:
    """The session with the oldest transaction that may hold a row of this table: for the log."""
    modes = ("RowShareLock", "RowExclusiveLock", *_KEEPS_OUT)
    return _first(_holders(connection, [table], modes)[:1])


def table_users(connection: BaseDatabaseWrapper) -> Holder:
    """The session with the oldest transaction on any of our tables, reading or writing."""
    modes = (_READS, "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", *_KEEPS_OUT)
    return _first(_holders(connection, _tables(), modes)[:1])


def _holders(
    connection: BaseDatabaseWrapper, tables: Iterable[str], modes: Iterable[str]
) -> list[tuple[str, int, str, int]]:
    """(table, session, its program, seconds since its transaction began), the oldest first."""
    if connection.vendor != "postgresql":
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(_HOLDERS, [list(tables), list(modes)])
            rows: list[Any] = cursor.fetchall()
    except Error:
        return []
    return [tuple(row) for row in rows]


def _first(holders: list[tuple[str, int, str, int]]) -> Holder:
    if not holders:
        return Holder()
    _, session, program, transaction_s = holders[0]
    return Holder.of((table for table, *_ in holders), session, program, transaction_s)


def _tables() -> list[str]:
    return [model._meta.db_table for model in apps.get_models(include_auto_created=True)]
