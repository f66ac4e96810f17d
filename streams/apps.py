"""The app's configuration."""

from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

# Less than a claim lasts, or a host that waits for the lock would lose its own captures.
IDLE_IN_TRANSACTION_S = 8


class StreamsConfig(AppConfig):
    name = "streams"
    verbose_name = "Streams"

    def ready(self) -> None:
        from . import checks  # noqa: F401  # registers them; it needs the settings

        connection_created.connect(_end_idle_transactions)


def _end_idle_transactions(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """A process that was paused, or cut off, in the middle of a transaction must not keep its locks for ever.

    Said with a statement: a pooler between us and the server refuses options that it does not know.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S}s'")
