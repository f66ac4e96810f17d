"""The job cluster, as the supervisor runs it."""

import ctypes
import multiprocessing
import os
import select
import signal
import socket
import stat
import threading
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from streams.sentinel import Sentinel

# A finish job composes one grid, far below a second; the supervisor waits half a second longer.
GRACE_S = 2.5
LOOK_S = 0.2
CONNECTION_S = None  # for good: at max_connections there may be no other
_PR_SET_PDEATHSIG = 1  # prctl.h of Linux


class Command(BaseCommand):
    help = "Runs the job cluster until SIGTERM, until stdin closes, or until a part of it dies or hangs."
    requires_system_checks: list[str] = []
    _is_stopping = False

    def handle(self, *args: Any, **options: Any) -> None:
        if os.getpgrp() != os.getpid():  # started by hand: what ends the group must not end the shell
            os.setpgid(0, 0)
        # django-q2's Cluster joins processes and sets events inside its signal handlers: it can deadlock (its
        # issue 346). All that is needed of it is to start a sentinel and to end it.
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _keep_connections()
        _at_end_of_parent(signal.SIGCONT)  # a leader that is paused wakes up, and sees that the supervisor is gone
        os.register_at_fork(after_in_child=lambda: _at_end_of_parent(signal.SIGKILL))
        context = multiprocessing.get_context("fork")
        stop, beats = context.Event(), context.RawValue("Q", 0)
        sentinel = context.Process(target=Sentinel, args=(stop, context.Event(), beats, context.RawValue("Q", 0)))
        sentinel.start()
        supervisor = _Supervisor()
        while sentinel.is_alive() and not self._is_stopping:
            supervisor.say(beats.value)
            if supervisor.is_gone(LOOK_S):
                self._is_stopping = True
        if not self._is_stopping:
            self.stderr.write("the sentinel of the job cluster died: ending the rest")
            os.killpg(0, signal.SIGKILL)
        # Running jobs may end, but not for ever. A sentinel that is paused can hold up even set().
        timer = threading.Timer(GRACE_S, os.killpg, (0, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        stop.set()
        sentinel.join()

    def _note(self, *_: Any) -> None:
        self._is_stopping = True


class _Supervisor:
    """Whoever runs this, at the other end of stdin: told that sentinel and leader live, if it is a socket."""

    def __init__(self) -> None:
        is_socket = stat.S_ISSOCK(os.fstat(0).st_mode)
        self._socket = socket.socket(fileno=0) if is_socket else None
        self._said = 0

    def say(self, beats: int) -> None:
        if self._socket and beats != self._said:
            self._said = beats
            with suppress(OSError):  # it is paused and has not listened for hours, or it is gone
                self._socket.send(b".", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def is_gone(self, wait_s: float) -> bool:
        return bool(select.select([0], [], [], wait_s)[0])


def _keep_connections() -> None:
    """The pusher looks five times a second and keeps its connection; all others close theirs after each use.

    A check before each look doubled what the pusher asks; a dead connection fails once and is replaced.
    """
    connections.close_all()  # none may be shared across the forks
    for connection in connections.all():
        connection.settings_dict |= {"CONN_MAX_AGE": CONNECTION_S, "CONN_HEALTH_CHECKS": False}


def _at_end_of_parent(number: signal.Signals) -> None:
    """Orphans would go on taking jobs. Where the system cannot do this, the supervisor ends the group."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
