"""The website as serve.sh runs it, asked by clients that are slow, greedy, broken or hostile, byte by byte."""

import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
from django.conf import settings as django_settings

from rtspsite import worker
from tests.e2e.prepared import prepare_sqlite
from tests.e2e.service import ROOT, Service, wait_for
from tests.streams.test_headers import faults

THREADS = 16
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
SAFE = "\r\nX-Content-Type-Options: nosniff\r\n"


@pytest.fixture(scope="module")
def website(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("website")
    prepare_sqlite(folder / "data" / "db.sqlite3")
    settings = {"PYTHON": sys.executable, "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    service = Service(folder, (("bash", str(ROOT / "scripts/serve.sh"), "web"),), settings)
    service.start(until="/livez")
    with ended(service):
        yield service


@contextmanager
def ended(service: Service) -> Iterator[None]:
    try:
        yield
    finally:
        assert service.stop() == [0], service.log


def opened(website: Service, sent: str = "") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", website.port), timeout=60)
    client.sendall(sent.encode("latin-1"))
    return client


def head(path: str = "/livez", *lines: str, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, ""])


def answer(client: socket.socket) -> str:
    """All that comes until the website closes."""
    said = b""
    with suppress(ConnectionResetError):
        while more := client.recv(65536):
            said += more
    return said.decode("latin-1")


def asked(website: Service, sent: str) -> str:
    with opened(website, sent) as client:
        return answer(client)


# --- who is slow ----------------------------------------------------------------------------------

SLOW = {
    "nothing": "",
    "half a head": head("/", "X-Slow: "),
    "half a body": head("/start", FORM + "Content-Length: 60000\r\n\r\n", method="POST") + "rtsp",
    "endless chunks": head("/start", FORM + "Transfer-Encoding: chunked\r\n\r\n5\r\n", method="POST"),
    "ten gigabytes": head("/start", FORM + "Content-Length: 10000000000\r\n\r\n", method="POST"),
    "half of a second head": head("/livez", "") + head("/", "X-Slow: "),
    "one that stays": head("/livez", "Connection: close\r\n"),
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_slow_clients_hold_no_thread(website: Service, sent: str) -> None:
    """More of them than there are threads."""
    with ExitStack() as stack:
        for _ in range(2 * THREADS):
            stack.enter_context(opened(website, sent))
        assert requests.get(f"{website.url}/livez", timeout=4).status_code == 200


def test_who_takes_no_answer_is_given_up(website: Service) -> None:
    """It is longer than what the kernels of both take in advance, and holds a thread until then."""
    with ExitStack() as stack:
        for _ in range(THREADS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", website.port))
            client.sendall(head("/static/ninja/swagger-ui-bundle.js", "").encode() * 3)
        wait_for(lambda: not is_answered(website, 1), "all threads are held", 30)
        wait_for(lambda: is_answered(website, 5), "an answer to somebody else", 60)
    assert "Traceback" not in website.log


def is_answered(website: Service, within_s: float) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{website.url}/livez", timeout=within_s).status_code == 200
    return False


def test_a_request_that_comes_in_pieces_is_answered(website: Service) -> None:
    """Also one that comes byte by byte, two that come at once, and one of the largest size that is taken."""
    whole = head("/livez", "Connection: close\r\n")
    with opened(website) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for letter in whole:
            client.sendall(letter.encode())
        assert answer(client).endswith("\r\n\r\nok\n")
    assert asked(website, head("/livez", "") + whole).count("\r\n\r\nok\n") == 2
    largest = "process_name=" + "x" * (worker.BODY_BYTES - 13)
    lines = f"{FORM}Content-Length: {len(largest)}\r\nConnection: close\r\n"
    with opened(website, head("/stop", lines, method="POST") + largest[:10]) as client:
        client.sendall(largest[10:].encode())
        assert answer(client).startswith("HTTP/1.1 404 ")


# --- what is too much, or broken ------------------------------------------------------------------


def test_what_is_too_large_is_refused_without_reading_it(website: Service) -> None:
    length = "Content-Length: 10000000000\r\n\r\n"
    form = asked(website, head("/start", FORM + length, method="POST") + "x" * 1000)
    assert form.startswith("HTTP/1.1 400 ")
    assert "The body is too large" in form
    line = asked(website, f"GET /{'a' * 5000} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert line.startswith("HTTP/1.1 414 ")
    for fields in ("X-A: b\r\n" * 100, f"X-A: {'b' * 9000}\r\n"):
        assert asked(website, head("/livez", fields)).startswith("HTTP/1.1 431 ")
    endless = asked(website, head("/livez", f"X-A: {'b' * 2 * worker.REQUEST_BYTES}"))
    assert endless[:12] in ("HTTP/1.1 431", ""), "the client was still sending"


def test_no_file_of_a_form_is_put_on_the_disk(website: Service) -> None:
    """The page to sign in reads its form before it knows who sends it."""
    session = requests.Session()
    session.get(f"{website.url}/admin/login/", timeout=30)
    form = {"csrfmiddlewaretoken": session.cookies["csrftoken"], "username": "a", "password": "b"}
    for size, status in ((1000, 200), (3_000_000, 400)):
        with suppress(requests.ConnectionError):  # refused before all of it was sent
            page = session.post(f"{website.url}/admin/login/", form, files={"file": b"x" * size}, timeout=30)
            assert page.status_code == status
    assert list((website.folder / "tmp").iterdir()) == []


BROKEN = {
    "both lengths": FORM + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": FORM + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "signed length": FORM + "Content-Length: +5\r\n\r\nabcde",
    "space before the colon": FORM + "Content-Length : 5\r\n\r\nabcde",
    "unknown coding": FORM + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "folded line": "X-A: b\r\n c: d\r\nContent-Length: 0\r\n\r\n",
    "nul in a field": "X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("lines", BROKEN.values(), ids=BROKEN)
def test_what_a_proxy_could_read_in_another_way_is_refused(website: Service, lines: str) -> None:
    """Else a second request could be smuggled past it. Nothing of what was sent is repeated."""
    said = asked(website, f"POST /start HTTP/1.1\r\nHost: localhost\r\n{lines}{head('/livez', '')}\r\n")
    assert re.match(r"HTTP/1.1 (400|501) ", said), said
    assert said.count("HTTP/1.1 ") == 1
    assert SAFE in said
    assert "frame-ancestors 'none'" in said
    assert "xchunked" not in said


# --- what it says of itself -----------------------------------------------------------------------


def test_every_answer_is_guarded_here_too(website: Service) -> None:
    cases: list[tuple[int, Callable[[], requests.Response]]] = [
        (200, lambda: requests.get(f"{website.url}/static/streams/site.js", timeout=30)),
        (404, lambda: requests.get(f"{website.url}/static/nowhere.js", timeout=30)),
        (404, lambda: requests.get(f"{website.url}/nowhere", timeout=30)),
        (400, lambda: requests.get(website.url, headers={"Host": "attacker.example"}, timeout=30)),
        (405, lambda: requests.get(f"{website.url}/start", timeout=30)),
    ]
    for status, ask in cases:
        response = ask()
        assert response.status_code == status
        assert response.headers.pop("Server") == "gunicorn", "no version"
        response.streaming = True  # type: ignore[attr-defined]  # only the headers are looked at
        assert faults(WithGet(response)) == []


class WithGet:
    """The headers of an answer as Django's own answers give them."""

    streaming = True

    def __init__(self, response: requests.Response) -> None:
        self._headers = response.headers

    def get(self, name: str, default: str = "") -> str:
        return self._headers.get(name, default)

    def __contains__(self, name: str) -> bool:
        return name in self._headers


def test_nobody_is_believed_to_be_a_proxy(website: Service) -> None:
    """Not on this machine either, unless HTTPS=1 says that there is one."""
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Host": "attacker.example"}
    page = requests.get(website.url, headers={**said, "Script-Name": "/evil", "Accept": "text/html"}, timeout=30)
    assert f"http://127.0.0.1:{website.port}" in page.text
    assert "https://127.0.0.1" not in page.text
    assert "attacker.example" not in page.text
    assert "/evil" not in page.text


def test_the_limits_of_both_are_the_same() -> None:
    assert worker.BODY_BYTES == django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE


def test_a_stop_does_not_wait_for_those_who_say_nothing(tmp_path: Path) -> None:
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    service = Service(tmp_path, (("bash", str(ROOT / "scripts/serve.sh"), "web"),), {"PYTHON": sys.executable})
    service.start(until="/livez")
    with opened(service, head("/", "X-Slow: ")), opened(service):
        assert service.stop(signal.SIGTERM) == [0], service.log
    assert "still there" not in service.log
