"""django-q2's brokers, made patient: what they talk to may be away for a while, and nobody hangs or dies of it."""

import logging
import threading
import time
from datetime import timedelta
from functools import cache
from typing import Any

from django.db import Error as DatabaseFailed
from django.db import close_old_connections, transaction
from django.db.models.functions import Now
from django_q.brokers import orm, redis_broker
from django_q.conf import Conf
from django_q.models import OrmQ
from redis import ConnectionPool, RedisError
from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

AWAY_S = 1.0
CONNECT_S = 1.0
# The pusher waits in BLPOP for 1 s; /start waits for the answer to an RPUSH.
ANSWER_S = 3.0
# After a failure no request waits for Redis: 16 threads that each wait 3 s are a website that hangs.
REST_S = 5.0


class _Outage:
    """Of this process: one line when the broker goes, one when it is back. No traceback, and no URL: it may hold
    a password."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._lock = threading.Lock()

    @property
    def is_recent(self) -> bool:
        return self._last_s is not None and time.monotonic() - self._last_s < REST_S

    def may_try(self) -> bool:
        """While the broker is away one thread every REST_S."""
        with self._lock:
            if self.is_recent:
                return False
            if self._last_s is not None:
                self._last_s = time.monotonic()
            return True

    def begins(self, error: Exception) -> None:
        if self._last_s is None:
            log.error("job broker away error=%s", type(error).__name__)
        self._last_s = time.monotonic()

    def ends(self) -> None:
        if self._last_s is not None:
            log.info("job broker back")
        self._last_s = None


_outage = _Outage()


class Orm(orm.ORM):  # type: ignore[misc]  # it comes without types
    """Looks again after a second, where the original ends the pusher after ten, and the monitor at once.

    A job that cannot be acknowledged is given out again after `retry`.
    """

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:
        """The rows of the queue. The original closes connections that are old, here: of a website's request, which is
        in the middle of its work and would have to open another one."""
        return OrmQ.objects.using(Conf.ORM)

    # The original writes and compares times of this host: what a clock that is ahead has queued would wait for it.

    def timeout(self, task: Any) -> Any:
        return Now() + timedelta(seconds=Conf.RETRY)

    def enqueue(self, task: Any) -> Any:
        key = self.list_key or Conf.CLUSTER_NAME
        return self.get_connection().create(key=key, payload=task, lock=Now()).pk

    def acknowledge(self, task_id: Any) -> None:
        try:
            super().acknowledge(task_id)
        except DatabaseFailed as error:
            _outage.begins(error)
        else:
            _outage.ends()

    def dequeue(self) -> Any:
        try:
            tasks = self._take()
        except DatabaseFailed as error:
            _outage.begins(error)
            time.sleep(AWAY_S)
            return None
        _outage.ends()
        return tasks

    def _take(self) -> Any:
        """The next jobs. The first cluster to lock a job gets it. If there are none, None after a pause."""
        if transaction.get_autocommit(using=Conf.ORM):
            close_old_connections()  # one that is broken
        due = self.get_connection().filter(key=self.list_key, lock__lte=Now())
        found = list(due[: Conf.BULK])
        if not found:
            time.sleep(Conf.POLL)
            return None
        return [
            (job.pk, job.payload)
            for job in found
            if self.get_connection().filter(id=job.id, lock__lte=Now()).update(lock=self.timeout(job))
        ]

    def queue_size(self) -> int:
        try:
            return int(self.get_connection().filter(key=self.list_key, lock__lte=Now()).count())
        except DatabaseFailed:
            return 0


class Redis(redis_broker.Redis):  # type: ignore[misc]  # it comes without types
    """One pool of connections for the process; each wait is bounded, and a job that cannot be queued is left out:
    the supervisor's tick does its work."""

    @staticmethod
    def get_connection(list_key: str | None = None) -> Client:
        return Client(connection_pool=_pool())

    def enqueue(self, task: Any) -> Any:
        if not _outage.may_try():
            return None
        return self._patiently(lambda: super(Redis, self).enqueue(task))

    def dequeue(self) -> Any:
        tasks = self._patiently(super().dequeue)
        if _outage.is_recent:
            time.sleep(AWAY_S)
        return tasks

    def queue_size(self) -> int:
        return int(self._patiently(super().queue_size) or 0)

    def ping(self) -> bool:
        return bool(self._patiently(lambda: self.connection.ping()))

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """The sentinel would write its state twice a second; nobody reads it."""

    def _patiently(self, command: Any) -> Any:
        """The command's answer; None if there is none."""
        try:
            answer = command()
        except RedisError as error:
            _outage.begins(error)
            return None
        _outage.ends()
        return answer


@cache
def _pool() -> ConnectionPool:
    """Without the client's own retries: they wait up to ten seconds."""
    return ConnectionPool.from_url(
        Conf.REDIS, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
    )
