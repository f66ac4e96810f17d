"""Starts VLC as an RTSP server for a test, and ends it. It serves one film, by UDP alone, from wherever it is."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_READY_S = 60.0  # a first start scans the plugins
_END_S = 10.0
_NOBODY = 65534  # VLC refuses to run as root


class VlcUnavailable(RuntimeError):
    """VLC is not installed, or does not start: `make setup-dev` installs it."""


class VlcServer:
    """Plays the file again and again from its start on; a client joins where it is."""

    def __init__(self, film: Path) -> None:
        self._film = film
        self._folder = Path(tempfile.mkdtemp(prefix="vlc-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def __enter__(self) -> Self:
        program = shutil.which("cvlc")
        if program is None:
            raise VlcUnavailable("there is no cvlc")
        self._folder.chmod(0o777)  # also for VLC's own user
        copy = self._folder / "film.mp4"
        shutil.copyfile(self._film, copy)
        copy.chmod(0o644)
        sout = f"#rtp{{sdp=rtsp://127.0.0.1:{self.port}/live}}"
        self._process = subprocess.Popen(
            # It ends with the test run, however that ends.
            [
                "setpriv",
                "--pdeathsig",
                "TERM",
                program,
                "--quiet",
                "--intf=dummy",
                "--no-audio",
                "--loop",
                str(copy),
                "--sout",
                sout,
                "--sout-keep",
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=_NOBODY if os.geteuid() == 0 else None,
        )
        try:
            self._wait_until_ready(self._process)
        except VlcUnavailable:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def close(self) -> None:
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """It answers DESCRIBE with 404 until the film has begun."""
        deadline_s = time.monotonic() + _READY_S
        while time.monotonic() < deadline_s and process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(f"DESCRIBE {self.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
                if connection.recv(4096).startswith(b"RTSP/1.0 200"):
                    return
            time.sleep(0.05)
        raise VlcUnavailable("VLC did not start")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
