"""The job cluster, as the supervisor runs it."""

import os
import select
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections
from django_q.cluster import Cluster

GRACE_S = 4.0


class Command(BaseCommand):
    help = "Runs the job cluster until SIGTERM, until stdin closes, or until its sentinel is dead."
    requires_system_checks: list[str] = []
    _is_stopping = False

    def handle(self, *args: Any, **options: Any) -> None:
        connections.close_all()  # no connection may be shared across the forks
        cluster = Cluster()
        # Cluster's own handler joins processes and sets events inside the signal: it can deadlock (django-q2 #346).
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cluster.start()
        while cluster.sentinel.is_alive() and not self._is_stopping:
            if select.select([0], [], [], 0.2)[0]:  # end of file: the supervisor is gone
                self._is_stopping = True
        if self._is_stopping:
            # Running jobs may end, but not for ever.
            timer = threading.Timer(GRACE_S, os.killpg, (0, signal.SIGKILL))
            timer.daemon = True
            timer.start()
            cluster.stop()
            return
        self.stderr.write("the sentinel of the job cluster died: ending the rest")
        os.killpg(0, signal.SIGKILL)

    def _note(self, *_: Any) -> None:
        self._is_stopping = True
