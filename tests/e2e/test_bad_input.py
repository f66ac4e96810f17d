"""Bad input by plain HTTP, as the servers take it: each is answered with a sentence, and nothing is written."""

import http.client
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.service import Service, gunicorn, runserver
from tests.streams.test_bad_input import TABLE, Bad

# What Django's test client cannot send.
RAW = {
    "a length that is no number": b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: abc\r\n",
    "a length of 1e3": b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1e3\r\n",
    "chunks": b"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n",
}
ADDRESS_IN_QUERY = Bad("an address in the query", "", b"", path="/start?rtsp_url=rtsp://me:s3cr3tw0rd@cam/x")


@pytest.mark.parametrize("starter", [runserver, gunicorn])
def test_no_bad_input_is_a_500_and_none_leaves_a_row(starter: Callable[..., Service], tmp_path: Path) -> None:
    with starter(tmp_path) as service:
        wrong = [bad.id for bad in TABLE if answer(service, bad) != bad.status]
        raw = {name: raw_status(service.port, headers) for name, headers in RAW.items()}
        assert wrong == []
        assert set(raw.values()) == {400}, raw
        assert http_get(service, "/captures/1/") == 404
        assert answer(service, ADDRESS_IN_QUERY) == ADDRESS_IN_QUERY.status
    assert "Traceback" not in service.log
    assert "POST /start?" in service.log or starter is gunicorn  # which keeps no log of requests
    assert "s3cr3tw0rd" not in service.log


def answer(service: Service, bad: Bad) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    headers = {"Content-Type": bad.content_type} if bad.content_type else {}
    connection.request("POST", bad.path, bad.body, {**headers, **bad.headers})
    return connection.getresponse().status


def raw_status(port: int, headers: bytes) -> int:
    """Of a POST to /start with these headers and a body in one chunk."""
    request = b"POST /start HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as link:
        link.sendall(request + b"a\r\nrtsp_url=x\r\n0\r\n\r\n")
        return int(link.makefile("rb").readline().split()[1])


def http_get(service: Service, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().status
