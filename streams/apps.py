"""The app's configuration."""

from typing import Any

from django.apps import AppConfig, apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from . import locks
from .engine import masking

# Less than a claim lasts, or a host that waits for the lock would lose its own captures.
IDLE_IN_TRANSACTION_S = 8


class StreamsConfig(AppConfig):
    name = "streams"
    verbose_name = "Streams"

    def ready(self) -> None:
        from . import checks  # noqa: F401  # registers them; it needs the settings

        connection_created.connect(_limit_transactions)
        self._mask_failures()

    def _mask_failures(self) -> None:
        """A job's traceback is kept in the database: in the worker, which knows what it has read, it is masked."""
        if apps.is_installed("django_q"):
            from django_q.signals import post_execute_in_worker

            post_execute_in_worker.connect(_mask_result)


def _mask_result(task: dict[str, Any], **_: Any) -> None:
    if isinstance(task.get("result"), str):
        task["result"] = masking.mask(task["result"])


def _limit_transactions(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """A process that was paused, or cut off, in the middle of a transaction must not keep its locks for ever, and
    none waits for a lock for ever.

    Said with a statement: a pooler between us and the server refuses options that it does not know.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S}s'")
        locks.limit_waits(connection)
