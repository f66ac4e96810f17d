"""Jobs that misbehave, named by tests as functions for django-q2."""

import signal
import time


def deaf(lasts_s: float) -> None:
    """Cannot be told that its time is over, as a call that hangs in C cannot."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(lasts_s)
