"""The supervisor: captures and jobs of this host."""

import fcntl
import logging
import os
import secrets
import signal
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from streams import checks, claims, locks
from streams.cluster import Cluster
from streams.models import Host
from streams.supervisor import Supervisor

log = logging.getLogger(__name__)

DATABASE_WAIT_S = 60.0
LEAVE_S = 12.0
FILE_S = 10
ALIVE_WAIT_S = claims.GAP_S + 2 * claims.HEARTBEAT_S


class Command(BaseCommand):
    help = "Runs the captures and jobs of this host until SIGTERM or SIGINT. One runs per host name."
    requires_system_checks = [checks.TAG]
    _is_stopping = False
    _told_s: float | None = None

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--parent",
            type=int,
            metavar="PID",
            help="End also when this process, which started this one, is gone.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name, slots = settings.CAPTURE_HOST_NAME, settings.CAPTURE_SLOTS
        with _only_one(name) as lock:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note)
            instance, parent = _instance(lock), options["parent"]
            while (host := self._register(name, slots, instance)) and not self._supervise(host, parent):
                log.warning("host=%s was forgotten: it registers again", name)

    def _supervise(self, host: Host, parent: int | None) -> bool:
        """Whether it left as it was told to; False if the database knows no host of its name any more."""
        # Four rounds a second: to open SQLite for each of them took a fifth of what a round takes. A server that is
        # full may have no other for it. Nor asked before each round whether it still holds: one that does not costs
        # a round, and is closed then. A file of SQLite that somebody has put aside would be written to for ever.
        is_sqlite = connection.vendor == "sqlite"
        connection.settings_dict["CONN_MAX_AGE"] = FILE_S if is_sqlite else None
        connection.settings_dict["CONN_HEALTH_CHECKS"] = False
        locks.wait_at_most(connection, locks.SUPERVISOR_SQLITE_WAIT_S if is_sqlite else locks.SUPERVISOR_WAIT_S)
        supervisor = Supervisor(host, Cluster())
        supervisor.is_told_to_leave = lambda: self._is_stopping
        log.info("host=%s supervisor started slots=%s pid=%s", host.name, host.slots, os.getpid())
        try:
            while not self._is_stopping and parent in (None, os.getppid()):
                self._tick(supervisor)
        except claims.HostTaken:
            supervisor.abandon()
            if Host.objects.filter(name=host.name).exists():
                raise CommandError(_running_elsewhere(host.name)) from None
            return False
        # Should the database hang, the kernel ends this process; recorders and jobs leave by themselves then.
        signal.setitimer(signal.ITIMER_REAL, LEAVE_S)
        supervisor.leave(self._told_s)
        log.info("host=%s supervisor left", host.name)
        return True

    def _tick(self, supervisor: Supervisor) -> None:
        try:
            supervisor.tick()
            supervisor.wait()
        except claims.HostTaken:
            raise
        except Exception:  # the outermost loop: one fault must not end a hundred captures
            log.exception("tick failed")
            time.sleep(1.0)

    def _register(self, name: str, slots: int, instance: str) -> Host | None:
        """Also right after a boot, when the database takes a moment longer; None if told to stop meanwhile."""
        begun_s = time.monotonic()
        while not self._is_stopping:
            try:
                return claims.register(name, slots, instance)
            except DatabaseError as error:
                if time.monotonic() - begun_s > DATABASE_WAIT_S:
                    raise CommandError(f"The database is away or not migrated: {error}") from None
                log.warning("host=%s waiting for the database error=%s", name, str(error).strip())
            except claims.HostAlive:  # until its next heartbeat is due, it may as well be dead
                if time.monotonic() - begun_s > ALIVE_WAIT_S:
                    raise CommandError(_running_elsewhere(name)) from None
                log.warning("host=%s waiting whether another machine has this name", name)
            time.sleep(1.0)
        return None

    def _note(self, *_: Any) -> None:
        self._is_stopping = True
        self._told_s = self._told_s or time.monotonic()


def _running_elsewhere(name: str) -> str:
    return f"Another machine runs a supervisor for the host name {name!r}: set CAPTURE_HOST_NAME to another one."


def _instance(lock: IO[str]) -> str:
    """What tells this machine from others: made once and kept in the lock's file, which only one of them can hold."""
    lock.seek(0)
    known = lock.read().strip()
    if known:
        return known
    fresh = secrets.token_hex(16)
    lock.write(fresh)
    lock.flush()
    return fresh


def _only_one(name: str) -> IO[str]:
    """A lock that the system takes back whatever happens to this process."""
    folder = Path(settings.DATA_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"supervise-{quote(name, safe='')}.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise CommandError(f"A supervisor for the host name {name!r} is running already.") from None
    return file
