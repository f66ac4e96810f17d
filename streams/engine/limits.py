"""What a recorder takes from itself before it hears its camera: memory, files, the system's trust. With Linux.

Each is for good, and what this system does not know is left out. What libav or OpenCV do under an attacker's hand
is done by a process that has next to nothing, and the lowest claim on the processor.
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

# Below the website and the supervisor, which answer people; equal among recorders.
NICE = 5
# Below all others.
NICE_OF_THE_HEAVY = 19
# A recorder has ten descriptors, with a TLS connection and a name server asked at once some twenty.
MAX_FILES = 64
_PR_SET_NO_NEW_PRIVS = 38


def limit(memory_bytes: int) -> None:
    """`memory_bytes` beside what the process has already, which it shares with all other recorders."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    _lower(resource.RLIMIT_CORE, 0)  # it would hold the camera's password
    _lower(resource.RLIMIT_NOFILE, MAX_FILES)
    if sys.platform.startswith("linux"):
        # Private memory that can be written, as it is asked for: neither libraries nor what is only reserved.
        _lower(resource.RLIMIT_DATA, _data_bytes() + memory_bytes)
    gain_nothing()


def gain_nothing() -> None:
    """No program that is run from now on has more rights than this process."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def make_no_processes() -> None:
    """Nor threads, from now on. Without effect for root."""
    _lower(resource.RLIMIT_NPROC, 0)


def step_back(thread_id: int) -> None:
    """Let all others go before this thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread_id, NICE_OF_THE_HEAVY)


def _lower(which: int, most: int) -> None:
    """The hard limit, too: who has taken over the process does not raise it again. One that is lower stays."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _data_bytes() -> int:
    """proc_pid_statm(5): the sixth number, in pages."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()
