"""Cameras that cannot be captured: the status and the last error say why, and the capture still ends cleanly."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from tests.camera.clip import Scene, cached_mp4
from tests.camera.gst import GstServer
from tests.e2e.page import Page
from tests.e2e.service import Service, free_port, runserver

SCENE = Scene(320, 240, (60.0,) * 20, fps=10)
TOLD_WITHIN_S = 30.0


@contextmanager
def nobody(clips: Path) -> Iterator[str]:
    yield f"rtsp://127.0.0.1:{free_port()}/feed"


@contextmanager
def unknown_host(clips: Path) -> Iterator[str]:
    yield "rtsp://camera.invalid/feed"


@contextmanager
def wrong_password(clips: Path) -> Iterator[str]:
    with GstServer({"feed": cached_mp4(SCENE, clips)}, "viewer", "right") as server:
        yield f"rtsp://viewer:wr0ng-secret@127.0.0.1:{server.port}/feed"


@contextmanager
def unknown_path(clips: Path) -> Iterator[str]:
    with GstServer({"other": cached_mp4(SCENE, clips)}) as server:
        yield server.url("feed")


@contextmanager
def http_server(clips: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield f"rtsp://127.0.0.1:{server.server_port}/feed"
        server.shutdown()


TROUBLES = (
    (nobody, "unreachable", "nothing answers"),
    (unknown_host, "unreachable", "cannot be resolved"),
    (wrong_password, "auth_refused", "refused the user name or the password"),
    (unknown_path, "not_found", "knows no stream of this path"),
    (http_server, "not_rtsp", "does not speak RTSP"),
)
PASSWORD = "p@ss/w#rd:%é ?!"


def test_it_says_what_is_wrong_and_still_stops(tmp_path: Path, clips: Path) -> None:
    """All beside each other, and beside a camera that opens with the right password."""
    with (
        ExitStack() as stack,
        GstServer({"feed": cached_mp4(SCENE, clips)}, "viewer", PASSWORD) as server,
        runserver(tmp_path) as service,
    ):
        right = service.begin(server.url_with_credentials("feed"), interval="0.5")
        urls = {camera.__name__: stack.enter_context(camera(clips)) for camera, *_ in TROUBLES}
        captures = {name: service.begin(url, name=name) for name, url in urls.items()}
        for camera, code, words in TROUBLES:
            is_told_and_stops(service, camera.__name__, captures[camera.__name__], code, words)
        service.wait_for_samples(right, 3)
        assert service.capture(right)["error"] is None
    assert PASSWORD not in service.log
    assert "wr0ng-secret" not in service.log


def is_told_and_stops(service: Service, name: str, capture: int, code: str, words: str) -> None:
    found = service.wait_for_error(capture, TOLD_WITHIN_S)
    assert found["error"]["code"] == code
    assert words in found["error"]["message"]
    assert found["status"] == "reconnecting"
    assert words in requests.get(service.url, timeout=30).text
    answer = service.end(name)
    assert answer.status_code == 409
    assert "0 of 9" in Page(answer.text).words
    assert words in Page(answer.text).words
    ended = service.capture(capture)
    assert (ended["status"], ended["code"]) == ("finished", "not_enough_frames")
    assert re.search(rf"capture={capture} .*error={code}", service.log)
