"""Passwords of every kind open cameras, by the whole service; and afterwards nothing that it wrote or told has one.

The search goes through log, database, folders, answers, and what the system shows of the processes. It looks for each
secret as it was typed, percent-encoded, in JSON, in Python's spelling, in a page's, and in base64.
"""

import base64
import html
import io
import json
import os
import re
import signal
import sqlite3
import ssl
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import requests
import trustme

from tests.camera.clip import Clip, Scene, encode
from tests.camera.server import ScriptedCamera
from tests.camera.tls import TLSFront
from tests.e2e.service import Service, runserver, wait_for
from tests.e2e.test_journey import signed_in

SCENE = Scene(160, 120, (60.0, 120.0, 90.0), fps=5)
WRONG = "wr0ng-w0rd/@%é 1"


@dataclass(frozen=True, slots=True)
class Login:
    """How it is given: `url` has HOST in it; `fields` come beside it."""

    username: str | None
    password: str
    url: str = "rtsp://HOST/demo"
    fields: dict[str, str] = field(default_factory=dict)
    path: str = "demo"

    @property
    def secrets(self) -> set[str]:
        return {text for text in (self.username, self.password) if text}


def encoded(username: str, password: str) -> Login:
    return Login(username, password, f"rtsp://{quote(username, safe='')}:{quote(password, safe='')}@HOST/demo")


def raw(username: str, password: str) -> Login:
    return Login(username, password, f"rtsp://{username}:{password}@HOST/demo")


def apart(username: str, password: str) -> Login:
    return Login(username, password, fields={"username": username, "password": password})


def hidden(secret: str, path: str) -> Login:
    return Login(None, secret, f"rtsp://HOST/{path}", path=path)


LOGINS = [
    raw("us3r-one", "p@ss/w#rd?one&a=b"),
    raw("us3r@two.example", "Two:%zz+100%"),
    raw("us3r-three", "thr33 w0rds 'and' \"quotes\""),
    encoded("us3r/four#:", "f0ur;\\[]{}|^~<>`$(x)"),
    encoded("us3r-fünf", "pässwörd-fünf-日本"),
    apart("us3r:six@x", ' s1x%40 \\"\\u0041\\n/@#? '),
    apart("us3r-seven", "seven" + "@/%é" * 20),
    apart("", "nob0dys-w0rd,eight"),
    raw("us3r-nine", "https://n1ne@x/"),
    hidden("t0ken-v4lue-ten", "demo?token=t0ken-v4lue-ten"),
    hidden("el3ven-w0rd", "demo?channel=1&user=us3r-eleven&pwd=el3ven-w0rd"),
    hidden("tw3lve-w0rd", "user=admin_password=tw3lve-w0rd_channel=1"),
]
SECRETS = {"us3r-eleven", WRONG, "wr0ng-us3r"}.union(*(login.secrets for login in LOGINS))


def spellings(secret: str) -> set[str]:
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    coded = {base64.b64encode(secret.encode()).decode().rstrip("=")}
    pairs = {f"{login.username}:{login.password}" for login in LOGINS if login.username is not None}
    coded |= {base64.b64encode(pair.encode()).decode().rstrip("=") for pair in pairs}
    return {secret, html.escape(secret), secret.strip()} | quoted | escaped | coded


NEEDLES = {spelled.encode() for secret in SECRETS for spelled in spellings(secret)}
# Of the longest ones first: one pattern, and one pass over each thing that is searched.
PATTERN = re.compile(b"|".join(map(re.escape, sorted(NEEDLES, key=len, reverse=True))))


def found_in(things: dict[str, bytes]) -> dict[str, list[bytes]]:
    found = {name: sorted(set(PATTERN.findall(content))) for name, content in things.items()}
    found |= {f"name of {name}": sorted(set(PATTERN.findall(os.fsencode(name)))) for name in things}
    return {name: hits for name, hits in found.items() if hits}


@dataclass
class Heard:
    """A client that keeps all that it is told."""

    service: Service
    session: requests.Session = field(default_factory=requests.Session)
    answers: dict[str, bytes] = field(default_factory=dict)

    def ask(self, method: str, path: str, accept: str = "*/*", **options: Any) -> requests.Response:
        headers = {"Accept": accept, "Referer": self.service.url}
        answer = self.session.request(
            method, self.service.url + path, headers=headers, timeout=60, allow_redirects=False, **options
        )
        key = f"answer {len(self.answers)}: {method} to {accept}"
        self.answers[key] = f"{answer.status_code} {dict(answer.headers)}\n".encode() + answer.content
        if zipfile.is_zipfile(io.BytesIO(answer.content)):
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                self.answers |= {f"{key} {name}": archive.read(name) for name in archive.namelist()}
        return answer

    def start(self, login: Login, host: str, **fields: str) -> requests.Response:
        data = {"rtsp_url": login.url.replace("HOST", host), **login.fields, **fields}
        return self.ask("POST", "/start", "application/json", data=data)


@contextmanager
def cameras(clip: Clip) -> Iterator[list[ScriptedCamera]]:
    with ExitStack() as stack:
        made = [stack.enter_context(ScriptedCamera(clip)) for _ in LOGINS]
        for number, (camera, login) in enumerate(zip(made, LOGINS, strict=True)):
            camera.ask_for(login.username, login.password, "basic" if number % 2 else "digest", path=login.path)
        yield made


def test_no_secret_is_anywhere_once_the_service_has_worked_with_it(tmp_path: Path) -> None:
    with (
        cameras(encode(SCENE)) as opened,
        ScriptedCamera(encode(SCENE), username="right", password="right") as shut,
        TLSFront(opened[5].port, unknown_certificate()) as trusted,
        TLSFront(opened[5].port, unknown_certificate()) as distrusted,
        runserver(tmp_path, LOG_LEVEL="DEBUG") as service,
    ):
        heard = Heard(service)
        captures = [
            int(
                heard.start(login, f"127.0.0.1:{camera.port}", name=f"cam-{number}", interval="0.5").json()["capture"]
            )
            for number, (login, camera) in enumerate(zip(LOGINS, opened, strict=True))
        ]
        refused = heard.start(raw("wr0ng-us3r", WRONG), f"127.0.0.1:{shut.port}", name="shut").json()["capture"]
        by_tls = replace(LOGINS[5], url="rtsps://HOST/demo")
        anyway = heard.start(by_tls, f"127.0.0.1:{trusted.port}", name="anyway", verify_certificate="false")
        captures.append(int(anyway.json()["capture"]))
        strict = int(heard.start(by_tls, f"127.0.0.1:{distrusted.port}", name="strict").json()["capture"])
        what_is_wrong_is_answered(heard, opened[0].port)
        for capture in captures:
            service.wait_for_samples(capture, 1)
        assert service.wait_for_error(int(refused), 60)["error"]["code"] == "auth_refused"
        assert service.wait_for_error(strict, 60)["error"]["code"] == "certificate_refused"
        a_recorder_is_killed(service)
        a_fault_of_ours_is_answered(heard)
        everything_is_looked_at(heard, captures)
        processes = seen_of_processes(service)
        assert len(processes) > 2 * len(LOGINS), "a command line and an environment of each recorder"
        for number in (0, 5, 9):
            heard.ask("POST", "/stop", data={"process_name": f"cam-{number}"})
            heard.ask("GET", f"/captures/{captures[number]}/capture.zip")
    assert service.log.count("recorder started") > len(LOGINS)
    assert "Traceback" in service.log
    assert found_in({"log": service.log.encode(), **files_below(tmp_path), **heard.answers, **processes}) == {}


def test_the_search_finds_what_is_there() -> None:
    for secret in SECRETS:
        for spelled in spellings(secret):
            assert found_in({"log": f"x{spelled}x".encode()}), spelled
    assert found_in({f"frames/{WRONG}.jpg": b""})


def unknown_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def what_is_wrong_is_answered(heard: Heard, port: int) -> None:
    host = f"127.0.0.1:{port}"
    for number, login in enumerate(LOGINS[::2]):
        for accept in ("application/json", "text/html", "*/*")[: 1 if number % 4 else 3]:
            data = {"rtsp_url": login.url.replace("HOST", host), **login.fields}
            assert heard.ask("POST", "/start", accept, data=data | {"interval": "soon"}).status_code == 400
        assert heard.ask("POST", "/streams/", "text/html", data=data | {"count": "0"}).status_code == 200
        assert heard.ask("POST", "/api/streams", json={**data, "nonsense": login.password}).status_code == 400
    twice = {"rtsp_url": f"rtsp://wr0ng-us3r:{WRONG}@{host}/demo", "username": "wr0ng-us3r", "password": WRONG}
    assert heard.ask("POST", "/start", "application/json", json=twice).json()["code"] == "credentials_twice"
    unreadable = [
        f"rtsp://wr0ng-us3r:{WRONG}@{host}:99999/",
        f"http://wr0ng-us3r:{WRONG}@{host}/",
        f"wr0ng-us3r:{WRONG}",
    ]
    for url in unreadable:
        assert heard.ask("POST", "/start", "text/html", data={"rtsp_url": url}).status_code == 400
        assert heard.ask("POST", "/streams/", "text/html", data={"rtsp_url": url}).status_code == 200
        heard.ask("GET", f"/start?rtsp_url={quote(url)}")
        if "//" in url:
            heard.ask("GET", f"/{quote(url)}")
    heard.ask("PATCH", "/api/streams/cam-0", json={"username": "wr0ng-us3r", "password": WRONG})


def a_recorder_is_killed(service: Service) -> None:
    said = re.search(r"stream=cam-0 .*recorder started pid=(\d+)", service.log)
    assert said
    os.kill(int(said[1]), signal.SIGKILL)
    wait_for(lambda: "stream=cam-0 capture=1 recorder died" in service.log, "the recorder's death in the log")


def a_fault_of_ours_is_answered(heard: Heard) -> None:
    """A row that cannot be read, met with a password in hand."""
    with closing(sqlite3.connect(heard.service.folder / "data" / "db.sqlite3", timeout=30)) as database, database:
        database.execute("UPDATE streams_stream SET created_at = '2026-99-99 00:00:00' WHERE name = 'shut'")
    for accept in ("application/json", "text/html"):
        for method, path in (("GET", "/streams/shut/"), ("GET", "/api/streams/shut")):
            assert heard.ask(method, path, accept).status_code == 500


def everything_is_looked_at(heard: Heard, captures: list[int]) -> None:
    with closing(sqlite3.connect(heard.service.folder / "data" / "db.sqlite3", timeout=30)) as database, database:
        database.execute("UPDATE streams_stream SET created_at = status_at WHERE name = 'shut'")
    pages = [
        "/",
        "/metrics",
        "/readyz",
        "/api/streams",
        "/api/captures",
        "/api/status",
        "/api/openapi.json",
        "/api/docs",
    ]
    pages += ["/streams/cam-0/", "/streams/shut/", "/api/streams/cam-0", "/streams/cam-5/"]
    pages += [f"{path}{captures[0]}{rest}" for path in ("/captures/", "/api/captures/") for rest in ("", "/")]
    for page in pages:
        heard.ask("GET", page, "text/html")
    staff = Heard(heard.service, signed_in(heard.service), heard.answers)
    for model in (
        "streams/stream",
        "streams/capture",
        "streams/host",
        "django_q/success",
        "django_q/failure",
        "django_q/ormq",
    ):
        assert staff.ask("GET", f"/admin/{model}/", "text/html").status_code == 200
    for number in (1, 6, len(LOGINS)):
        for page in ("change", "history"):
            assert staff.ask("GET", f"/admin/streams/stream/{number}/{page}/", "text/html").status_code == 200
    token = staff.session.cookies["csrftoken"]
    typed = {"username": "wr0ng-us3r", "password": WRONG, "interval_s": "0", "csrfmiddlewaretoken": token}
    assert staff.ask("POST", "/admin/streams/stream/1/change/", "text/html", data=typed).status_code == 200


def seen_of_processes(service: Service) -> dict[str, bytes]:
    seen = {}
    for pid in service.family():
        for name in ("cmdline", "environ"):
            try:
                seen[f"/proc/{pid}/{name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:  # it is gone
                continue
    return seen


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
