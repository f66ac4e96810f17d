"""A recorder's main function that tries what a recorder under somebody else's control would, and says what worked.

Named by the test in place of streams.engine.recorder.record; the fork server imports it by this name.
"""

import ctypes
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from streams.engine import limits, sandbox
from streams.engine.report import Seed, Settings, State, Status
from streams.engine.wire import encode

from .builders import a_report

_PTRACE_ATTACH = 16


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """`settings.address`: its path is a folder with a file in it. The answer's text names what could be done."""
    with suppress(OSError):
        limits.limit(settings.memory_bytes)
        is_closed = sandbox.close_files()
        done = [name for name, way in _WAYS.items() if _works(way, Path(settings.address.path))]
        link.recv(65_536)
        told = f"closed={is_closed} {' '.join(done)}"
        link.sendall(encode(a_report(status=Status(State.CONNECTING, error_text=told), is_final=True)))
    os._exit(0)


def _works(way: Callable[[Path], object], folder: Path) -> bool:
    try:
        way(folder)
    except OSError:
        return False
    return True


def _attach(folder: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(_PTRACE_ATTACH, os.getppid(), None, None):
        raise OSError(ctypes.get_errno(), "ptrace")


_WAYS: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: (folder / "secret").read_text(),
    "list": lambda folder: os.listdir(folder),
    "write": lambda folder: (folder / "secret").write_text("mine"),
    "make": lambda folder: (folder / "new").write_text("mine"),
    "remove": lambda folder: (folder / "secret").unlink(),
    "environ": lambda folder: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "attach": _attach,
    "run": lambda folder: os.execv("/bin/true", ["true"]),  # noqa: S606
    "import": lambda folder: Path(os.__file__).read_text(),
    "names": lambda folder: Path("/etc/hosts").read_text(),
}
