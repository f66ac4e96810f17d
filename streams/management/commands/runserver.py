"""Django's development server with the supervisor beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as RunServer
from django.core.management import CommandParser, call_command
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

STOP_WITHIN_S = 15.0


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
        call_command("prepare")
        if options["no_supervise"]:
            super().run(**options)
            return
        with _supervisor():
            super().run(**options)


@contextmanager
def _supervisor() -> Iterator[None]:
    """A supervisor for as long as the context lasts. It also ends by itself should this process be killed."""
    signal.signal(signal.SIGTERM, _leave)
    # In a session of its own: Ctrl-C in the terminal reaches it only from here, once.
    command = [sys.executable, sys.argv[0], "supervise", "--parent", str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _leave(*_: Any) -> None:
    raise SystemExit(0)
