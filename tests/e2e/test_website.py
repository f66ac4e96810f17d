"""The website as serve.sh runs it, asked by clients that are slow, greedy, broken or hostile, byte by byte."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
from django.conf import settings as django_settings

from rtspsite import worker
from tests.e2e.prepared import prepare_sqlite
from tests.e2e.service import ROOT, Service, free_port, wait_for
from tests.streams.test_headers import faults

THREADS, CONNECTIONS = 16, 800  # as serve.sh has them
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


def send_by_bytes(client: socket.socket, text: str) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for letter in text:
        client.sendall(letter.encode())


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
    "a length with zeros": head("/start", FORM + f"Content-Length: {'0' * 20}60000\r\n\r\n", method="POST") + "rtsp",
    "a head without an end": head("/", *[f"X-{n}: {'a' * 8000}" for n in range(5)]),
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
        wait_for(lambda: is_answered(website, 503), "all threads are held", 30)
        assert requests.get(f"{website.url}/livez", timeout=60).status_code == 200
        wait_for(lambda: is_answered(website, 200), "an answer to somebody else", 60)
    assert "Traceback" not in website.log


def is_answered(website: Service, status: int) -> bool:
    """To a request that needs a place; the files of our own pages need none."""
    return requests.get(f"{website.url}/static/streams/admin.css", timeout=60).status_code == status


def test_a_request_that_comes_in_pieces_is_answered(website: Service) -> None:
    """Also one that comes byte by byte, two that come at once, and one of the largest size that is taken."""
    whole = head("/livez", "Connection: close\r\n")
    with opened(website) as client:
        send_by_bytes(client, whole)
        assert answer(client).endswith("\r\n\r\nok\n")
    assert asked(website, head("/livez", "") + whole).count("\r\n\r\nok\n") == 2
    zeros = head("/stop", f"{FORM}Connection: close\r\nContent-Length: {'0' * 20}14\r\n", method="POST")
    with opened(website) as client:
        send_by_bytes(client, zeros + "process_name=a")
        assert answer(client).startswith("HTTP/1.1 404 ")
    largest = "process_name=" + "x" * (worker.BODY_BYTES - 13)
    lines = f"{FORM}Content-Length: {len(largest)}\r\nConnection: close\r\n"
    with opened(website, head("/stop", lines, method="POST") + largest[:10]) as client:
        client.sendall(largest[10:].encode())
        assert answer(client).startswith("HTTP/1.1 404 ")


def test_who_asks_before_sending_a_body_is_told(website: Service) -> None:
    """Once; who asks with one that is too large is told that instead."""
    expects = FORM + "Expect: 100-continue\r\nConnection: close\r\nContent-Length: "
    with opened(website, head("/stop", f"{expects}14\r\n", method="POST")) as client:
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        send_by_bytes(client, "process_name=a")
        assert answer(client).startswith("HTTP/1.1 404 ")
    assert asked(website, head("/stop", f"{expects}70000\r\n", method="POST")).startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize("sent", [head("/liv"), head("/stop", FORM + "Content-Length: 99\r\n", method="POST") + "a"])
def test_half_a_request_is_not_taken_for_one(website: Service, sent: str) -> None:
    """A client that was cut off has not said whose name begins like that."""
    with opened(website, sent) as client:
        client.shutdown(socket.SHUT_WR)
        said = answer(client)
    assert said.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert SAFE in said


def test_who_takes_an_answer_slowly_gets_all_of_it() -> None:
    """Though the kernel has room for more only after longer than the time within which something has to be taken."""
    size = 60 * worker.ANSWER_BYTES
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client, ThreadPoolExecutor(1) as pool:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, worker.ANSWER_BYTES)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size // 3)  # the kernel takes twice as much
            server.settimeout(0.5)
            sending = pool.submit(worker._send, server, b"x" * size)
            taken = 0
            while taken < size and not (sending.done() and sending.exception()):
                taken += len(client.recv(worker.ANSWER_BYTES))
                time.sleep(0.05)
            sending.result(30)
            with pytest.raises(TimeoutError):
                worker._send(server, b"x" * 10 * size)


# --- what is too much, or broken ------------------------------------------------------------------


def test_what_is_too_large_is_refused_without_reading_it(website: Service) -> None:
    length = "Content-Length: 10000000000\r\n\r\n"
    form = asked(website, head("/start", FORM + length, method="POST") + "x" * 1000)
    assert form.startswith("HTTP/1.1 400 ")
    assert "The body is too large" in form
    line = asked(website, f"GET /{'a' * 5000} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert line.startswith("HTTP/1.1 414 ")
    long = "".join(f"X-{n}: {'a' * 8000}\r\n" for n in range(5))
    for fields in ("X-A: b\r\n" * 100, f"X-A: {'b' * 9000}\r\n", long, long + "X-Slow: "):
        assert asked(website, head("/livez", fields)).startswith("HTTP/1.1 431 ")
    endless = asked(website, head("/livez", f"X-A: {'b' * 200_000}"))
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


CODINGS = [f"Content-Length: {worker.BODY_BYTES + 1}", "Transfer-Encoding: chunked"]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_that_is_not_read_is_no_second_request(website: Service, coding: str) -> None:
    """However it is sent: what a client behind a proxy puts into one would be answered as somebody else's."""
    with opened(website, head("/start", f"{FORM}{coding}\r\n", method="POST")) as client:
        said = client.recv(12)
        with suppress(OSError):
            client.sendall(head("/livez", "").encode())
        said += answer(client).encode()
    assert said.startswith(b"HTTP/1.1 400")
    assert b"\r\nConnection: close\r\n" in said
    assert said.count(b"HTTP/1.1 ") == 1


READER = """
from gunicorn import util
from rtspsite import worker

worker.REQUEST_WITHIN_S = 100

def application(environ, start):
    environ["wsgi.input"].read()
    start("200 OK", [])
    return [util.write.__module__.encode()]
"""


def test_a_thread_waits_for_nothing_whatever_the_application_reads(tmp_path: Path) -> None:
    """Django reads no body that is too long, or in chunks. A stop does not wait for the rest of a request, either."""
    (tmp_path / "reader.py").write_text(READER)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "reader", "--chdir", str(tmp_path), "--bind", f"127.0.0.1:{port}"]
    options = ["--worker-class", "rtspsite.worker.Worker", "--threads", "1", "--graceful-timeout", "60"]
    options += ["--no-control-socket", "--log-file", str(tmp_path / "log")]
    with subprocess.Popen([*command, *options], cwd=ROOT) as served:
        try:
            wait_for(lambda: is_open(port), "somebody listens")
            with ExitStack() as stack:
                for lines in (*(f"{coding}\r\n" for coding in CODINGS), "X-Slow: "):
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                    client.sendall(head("/", lines, method="POST").encode())
                page = requests.get(f"http://127.0.0.1:{port}", timeout=15)
                assert page.text == "rtspsite.worker", "it sends what slow clients take"
                served.terminate()
                assert served.wait(30) == 0
        finally:
            served.kill()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_idle_clients_make_room_for_who_is_sending(website: Service) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS - THREADS):
            client = stack.enter_context(opened(website, head("/livez", "")))
            client.recv(4096)
        senders = [stack.enter_context(opened(website, head("/livez"))) for _ in range(THREADS)]
        assert is_answered(website, 200)
        for sender in senders:
            sender.sendall(b"Connection: close\r\n\r\n")
            assert answer(sender).endswith("\r\n\r\nok\n")


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
    sent = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Host": "attacker.example"}
    page = requests.get(website.url, headers={**sent, "Script-Name": "/evil", "Accept": "text/html"}, timeout=30)
    assert f"http://127.0.0.1:{website.port}" in page.text
    assert "https://127.0.0.1" not in page.text
    assert "attacker.example" not in page.text
    assert "/evil" not in page.text
    # By this another address would be asked than a proxy in front has seen.
    said = asked(website, head("/static/livez", "SCRIPT_NAME: /static", "Connection: close\r\n"))
    assert said.startswith("HTTP/1.1 404 ")


def test_a_wrong_name_of_the_host_is_one_line_in_the_log(website: Service) -> None:
    """However long it is: anybody can send as many as he likes."""
    before = len(website.log)
    for host in ("elsewhere.example", f"{'elsewhere' * 500}.example"):
        assert requests.get(website.url, headers={"Host": host}, timeout=30).status_code == 400
    said = website.log[before:].splitlines()
    assert [("Invalid HTTP_HOST header: 'elsewhere" in line, len(line) < 400) for line in said] == [(True, True)] * 2


def test_the_limits_of_both_are_the_same() -> None:
    assert worker.BODY_BYTES == django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE


# --- probes ---------------------------------------------------------------------------------------


def test_only_http_1_0_may_leave_the_host_out(website: Service) -> None:
    """RFC 9112, section 3.2."""
    said = asked(website, "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert said.startswith("HTTP/1.1 400 ")
    assert SAFE in said
    assert "bad_request" in asked(website, "GET / HTTP/1.1\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
    assert asked(website, "GET /livez HTTP/1.0\r\n\r\n").startswith("HTTP/1.0 200 ")


def test_no_probe_makes_a_line_in_the_log(website: Service) -> None:
    said_before = len(website.log)
    for path in ("/livez", "/readyz", "/metrics", "/"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            status = requests.request(method, website.url + path, timeout=30).status_code
            assert status == (405 if method in ("OPTIONS", "TRACE") else 403), (method, path)
        assert requests.head(website.url + path, timeout=30).status_code in (200, 503)
    lines = website.log[said_before:].splitlines()
    assert [line for line in lines if "not ready" not in line and "ready again" not in line] == []
