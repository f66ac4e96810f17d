"""Django's development server with the supervisor beside it."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as RunServer
from django.core.management import CommandError, CommandParser, call_command
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

STOP_WITHIN_S = 15.0
RESTART_S = 1.0


class Command(RunServer):
    help = "Serves the site and runs the supervisor beside it: one, also with the autoreloader."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--no-supervise", action="store_true", help="Serve the site alone.")

    @property
    def default_port(self) -> str:  # type: ignore[override]
        return str(settings.PORT)

    @property
    def default_addr(self) -> str:  # type: ignore[override]
        return str(settings.HOST)

    def run(self, **options: Any) -> None:
        """Once in the process that the person started; the autoreloader's children come here again."""
        if os.environ.get(DJANGO_AUTORELOAD_ENV) == "true":
            super().run(**options)
            return
        _check_free(self.addr, int(self.port))  # type: ignore[attr-defined]  # `handle` has set them
        call_command("prepare")
        if options["no_supervise"]:
            super().run(**options)
            return
        with _supervisor():
            super().run(**options)


def _check_free(host: str, port: int) -> None:
    """Raises CommandError for a port that is taken: Django would say so beside a supervisor that runs already."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return  # Django has a sentence for each of the others
        words = f"Port {port} of {host} is taken: choose another one, for example manage.py runserver 8001."
        raise CommandError(words) from None


@contextmanager
def _supervisor() -> Iterator[None]:
    """A supervisor for as long as the context lasts. It also ends by itself should this process be killed."""
    signal.signal(signal.SIGTERM, _leave)
    keeper = _Keeper()
    keeper.start()
    try:
        yield
    finally:
        keeper.end()


class _Keeper(threading.Thread):
    """Runs a supervisor, and another one if it is killed. One that ends by itself has said why."""

    def __init__(self) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._is_leaving = threading.Event()
        self._starting = threading.Lock()
        self._process = _start()

    def run(self) -> None:
        while self._process.wait() < 0 and not self._is_leaving.wait(RESTART_S):
            with self._starting:
                if not self._is_leaving.is_set():
                    self._process = _start()

    def end(self) -> None:
        with self._starting:
            self._is_leaving.set()
        self._process.terminate()
        self.join(STOP_WITHIN_S)
        if self._process.poll() is None:
            self._process.kill()


def _start() -> "subprocess.Popen[bytes]":
    # In a session of its own: Ctrl-C in the terminal reaches it only from here, once.
    command = [sys.executable, sys.argv[0], "supervise", "--parent", str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _leave(*_: Any) -> None:
    raise SystemExit(0)
