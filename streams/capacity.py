"""How many requests of this process are answered at a time, and how many may wait: probes find a free thread.

serve.sh gives gunicorn 48 threads more than WEB_THREADS. A request holds one of WEB_THREADS places until its answer
is sent. If all places are taken, further requests wait in the other threads, but only while places become free: where
nothing moves for STUCK_S (a database that is locked, a store that hangs, clients that take no answer), they are
refused at once. So a health check, which needs no place, finds a thread at once, or after STUCK_S where more clients
wait than there are threads.
"""

import threading
import time
from collections.abc import Callable

from django.conf import settings

STUCK_S = 2.0  # a probe usually waits for 3 to 5 s
PROBES = ("/livez", "/readyz", "/metrics")  # each answers in bounded time, whatever hangs

# A page that says `busy` needs these, too. They fit into a socket's buffer, so no slow client holds a thread for one.
FILES = tuple(f"/static/streams/{name}" for name in ("site.css", "site.js", "icon.svg"))

# A /stop that waits for its grid does nothing but wait: half of the places are for pages and other calls.
WAITERS = threading.BoundedSemaphore(settings.WEB_THREADS // 2)


class Places:
    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.taken = 0
        self._count = count
        self._clock = clock
        self._moved_s = clock()
        self._change = threading.Condition()

    def take(self) -> bool:
        """Return True if a place was free, or became free while others did."""
        with self._change:
            while self.taken >= self._count:
                left_s = self._moved_s + STUCK_S - self._clock()
                if left_s <= 0:
                    return False
                self._change.wait(left_s)
            self.taken += 1
            self._moved_s = self._clock()
            return True

    def give_back(self) -> None:
        with self._change:
            self.taken -= 1
            self._moved_s = self._clock()
            self._change.notify()


PLACES = Places(settings.WEB_THREADS)
