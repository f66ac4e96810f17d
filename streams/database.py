"""What holds for every transaction: the order of locks, retries of deadlocks, events after the commit; and the clock.

A transaction locks rows in this order, and skips what it does not need:

1. hosts, by id;
2. captures in progress, by id;
3. streams, by id;
4. finished captures, by id;
5. frames and timelines: only under the lock of their capture, and then at any time.

A checkpoint begins with its capture, because that write is its fence, so captures in progress come before streams.
A transaction that begins with a stream (start, change, delete) only reads whether a capture is in progress. It waits
for none: a stream has one at most, and nobody can start it while the stream is locked. Finished captures come after
the streams: only a prune and the deletion of their stream lock them.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import Error as DatabaseFailed
from django.db import OperationalError, connection, transaction

from . import database_faults

P = ParamSpec("P")
T = TypeVar("T")

# PostgreSQL finds a deadlock after a second and ends one of the two: the other one is through by then.
PAUSES_S = (0.05, 0.2, 0.5, 1.0)
# The database is asked for the time again after this: a step of its clock is seen that late.
CLOCK_S = 10.0
TOLERANCE_S = 1.0


def retried(work: Callable[P, T]) -> Callable[P, T]:
    """Run `work`, which is one transaction, again after a deadlock. Inside a caller's transaction it is the caller's.

    `work` leaves nothing behind when it raises.
    """

    @wraps(work)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause_s in PAUSES_S:
            try:
                return work(*args, **kwargs)
            except OperationalError as error:
                if connection.in_atomic_block or not database_faults.is_deadlock(error):
                    raise
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
        return work(*args, **kwargs)

    return tried


def after_commit(event: Callable[[], object]) -> None:
    """Run `event` once the outermost transaction is committed; never if it is rolled back. Its errors are logged."""
    transaction.on_commit(event, robust=True)


def may_be_idle() -> None:
    """In a transaction: the server does not end it however long this process or its disk takes between statements.

    For a backup and a restore, which write to a pipe or read from one: what they hold keeps no capture waiting.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")


class Clock:
    """The database's time, asked for once in CLOCK_S. Between two answers the monotonic clock of this host goes on.

    SQLite has the clock of this host. While the database is away the last answer holds.
    """

    def __init__(self) -> None:
        self._answer: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        if connection.vendor != "postgresql":
            return datetime.now(UTC)
        now_s = time.monotonic()
        if self._answer is None or now_s - self._answer[1] > CLOCK_S:
            try:
                self._answer = exact_now(), now_s
            except DatabaseFailed:
                self._answer = self._answer or (datetime.now(UTC), now_s - CLOCK_S)
        moment, asked_s = self._answer
        return moment + timedelta(seconds=now_s - asked_s)


def exact_now() -> datetime:
    """The database's time, asked for now. Raises the database's errors."""
    if connection.vendor != "postgresql":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT STATEMENT_TIMESTAMP()")
        (moment,) = cursor.fetchone()
    found: datetime = moment.astimezone(UTC)
    return found


_clock = Clock()
now = _clock.now


def host_ahead_s() -> float:
    """By how much the clock of this host is ahead of the database's; 0 where the two differ by less than a second."""
    ahead_s = (datetime.now(UTC) - now()).total_seconds()
    return ahead_s if abs(ahead_s) > TOLERANCE_S else 0.0
