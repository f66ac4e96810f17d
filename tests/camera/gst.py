"""Starts GStreamer's RTSP server (gst_server.py) for a test, and ends it."""

import functools
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.camera.auth import Scheme

_PROGRAM = Path(__file__).with_name("gst_server.py")
_READY_S = 60.0  # a first start scans the plugins
_END_S = 10.0
_IMPORTS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class GstUnavailable(RuntimeError):
    """No Python here has gi and GStreamer's RTSP server, or it does not start."""


class GstServer:
    """Serves mp4 files (h264, hevc, mpeg4) by name; a name may hold slashes. With a username asks for it."""

    def __init__(
        self,
        files: Mapping[str, Path],
        username: str | None = None,
        password: str | None = None,
        auth: Scheme = "digest",
    ) -> None:
        self._files = files
        self._credentials = None if username is None else (username, password or "")
        self._auth = auth
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        command = [*gst_command(self._files), *self._options()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.port = self._wait_until_ready(self._process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.terminate()
            _end(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def url(self, name: str) -> str:
        """Without credentials."""
        return f"rtsp://127.0.0.1:{self.port}/{name}"

    def url_with_credentials(self, name: str) -> str:
        """Percent-encoded."""
        username, password = (quote(text, safe="") for text in self._credentials or ("", ""))
        return f"rtsp://{username}:{password}@127.0.0.1:{self.port}/{name}"

    def _options(self) -> list[str]:
        if self._credentials is None:
            return []
        return [
            f"--user={self._credentials[0]}",
            f"--password={self._credentials[1]}",
            f"--auth={self._auth}",
        ]

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        assert process.stdout
        killer = threading.Timer(_READY_S, process.kill)
        killer.start()
        words = process.stdout.readline().split()
        killer.cancel()
        if len(words) != 2 or words[0] != "ready":
            process.kill()
            _end(process)
            raise GstUnavailable("GStreamer's RTSP server did not start")
        return int(words[1])


@functools.cache
def gst_python() -> str:
    """Raises GstUnavailable: `make test` installs what is missing."""
    for python in ("/usr/bin/python3", sys.executable):
        try:
            subprocess.run([python, "-c", _IMPORTS], check=True, capture_output=True, timeout=_READY_S)
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    raise GstUnavailable("no Python with gi and GstRtspServer")


def gst_command(files: Mapping[str, Path]) -> list[str]:
    """Without credentials, on any port. Raises GstUnavailable."""
    return [gst_python(), str(_PROGRAM), *(f"{name}={path.resolve()}" for name, path in files.items())]


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
