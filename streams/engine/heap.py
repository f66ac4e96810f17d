"""How glibc's malloc treats large blocks in a recorder. Other processes and other C libraries keep their own ways."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# A block of this size goes back to the system once it is freed. Left to itself glibc would keep all up to 32 MB.
_GIVEN_BACK_BYTES = 64 * 1024
# Above the bands that brightness is measured in, which are 0.7 MB (conversion.py).
_REUSED_BYTES = 4 << 20
# Of the heap's end, which stays with the process: a band and its grey picture. To get their pages anew for each
# sample would take 0.25 ms.
_KEPT_BYTES = 1 << 20

_mallopt: Callable[[int, int], object] | None = None


def give_back() -> None:
    """From now on this process returns large blocks to the system: a decoded 1080p frame is 3 MB."""
    global _mallopt
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        _mallopt = ctypes.CDLL(None).mallopt
        _mallopt(_M_ARENA_MAX, 1)
        _mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        _mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)


@contextlib.contextmanager
def reused() -> Iterator[None]:
    """Until the end large blocks are kept and used again, where `give_back` was called.

    The system takes 2 us for each page of 4 kB that it hands out (measured on a virtual machine). The bands of one
    1080p picture take 10 MB in turn, which is 5 ms.
    """
    if _mallopt is None:
        yield
        return
    _mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
    try:
        yield
    finally:
        _mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
