"""A recorder's main function that tries what a recorder under somebody else's control would, and says what worked.

Named by the test in place of streams.engine.recorder.record; the fork server imports it by this name.
"""

import ctypes
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.forkserver import _forkserver
from pathlib import Path

from streams.engine import limits, sandbox
from streams.engine.report import Seed, Settings, State, Status
from streams.engine.wire import encode

from .builders import a_report

_PTRACE_ATTACH = 16


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """`settings.address`: its path is a folder with a file in it, at its port somebody listens, and at the port that
    its query names, too. The answer's text names what could be done.
    """
    address = settings.address
    dials = {"camera": _dial(address.port), "website": _dial(int(address.query[0][0]))}
    with suppress(OSError):
        limits.limit(settings.memory_bytes)
        is_closed = sandbox.shut_in(*sandbox.ports_of(address.port))
        done = [name for name, way in (_WAYS | dials).items() if _works(way, Path(address.path))]
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


def _dial(port: int) -> Callable[[Path], object]:
    return lambda folder: socket.create_connection(("127.0.0.1", port))


def _ask_for_a_process(folder: Path) -> None:
    """Of the fork server, which makes one without limits."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(vars(_forkserver)["_forkserver_address"])


_WAYS: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: (folder / "secret").read_text(),
    "list": lambda folder: os.listdir(folder),
    "write": lambda folder: (folder / "secret").write_text("mine"),
    "make": lambda folder: (folder / "new").write_text("mine"),
    "remove": lambda folder: (folder / "secret").unlink(),
    "environ": lambda folder: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "attach": _attach,
    "run": lambda folder: os.execv("/bin/true", ["true"]),  # noqa: S606
    "fork": _ask_for_a_process,
    "listen": lambda folder: socket.create_server(("127.0.0.1", 0)),
    "import": lambda folder: Path(os.__file__).read_text(),
    "names": lambda folder: Path("/etc/hosts").read_text(),
}
