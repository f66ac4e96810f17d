"""Django's migrate, for a service that goes on meanwhile."""

import time
from typing import Any

from django.core.management.commands.migrate import Command as Migrate
from django.db import OperationalError, connections

from streams import locks

# A migration that waits for a table makes all others wait behind it: a supervisor gives a statement up after as long.
LOCK_WAIT_S = 0.2
TRY_AGAIN_S: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0)
SAY_AGAIN_S = 15.0


class Command(Migrate):
    """On PostgreSQL a migration never queues for a lock: it gives up soon, rolls back and tries again.

    Each migration is a transaction, so what was applied before stays applied, and the next try goes on from there.
    """

    def handle(self, *args: Any, **options: Any) -> str | None:
        connection = connections[options["database"]]
        if connection.vendor != "postgresql":
            return super().handle(*args, **options)
        (before,) = _asked(connection, "SELECT current_setting('lock_timeout')")
        _asked(connection, "SELECT set_config('lock_timeout', %s, false)", f"{1000 * LOCK_WAIT_S:.0f}ms")
        try:
            return self._until_unlocked(args, options)
        finally:
            if connection.connection and not connection.connection.closed:
                _asked(connection, "SELECT set_config('lock_timeout', %s, false)", before)

    def _until_unlocked(self, args: Any, options: dict[str, Any]) -> str | None:
        tries, begun_s, said_s = 0, time.monotonic(), -SAY_AGAIN_S
        while True:
            try:
                return super().handle(*args, **options)
            except OperationalError as error:
                if locks.lock_in(error) is None:
                    raise
            now_s = time.monotonic()
            if now_s - begun_s - said_s >= SAY_AGAIN_S:
                said_s = now_s - begun_s
                holder = locks.table_users(connections[options["database"]])
                self.stderr.write(
                    f"migrate: waiting for a lock, {said_s:.0f} s so far; the service goes on. {holder}"
                )
            time.sleep(TRY_AGAIN_S[min(tries, len(TRY_AGAIN_S) - 1)])
            tries += 1


def _asked(connection: Any, query: str, *values: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        row: tuple[Any, ...] = cursor.fetchone()
        return row
