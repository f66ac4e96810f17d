"""The headers of every answer: each address, also of the admin, by each method, and what reaches no view."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from streams import outcomes, pages
from streams.answers import PAGE_POLICY
from tests.streams.builders import BROWSER, SITE, Response, make_finished

pytestmark = pytest.mark.django_db
METHODS = ("GET", "OPTIONS", "PATCH", "POST", "DELETE")
OF_THE_ADMIN = ("GET", "POST")
EXPECTED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What a place in an address may hold; everything else is 1.
PLACES = {"name": "demo", "app_label": "streams", "url": "nowhere"}
INLINE = re.compile(
    r"<script(?![^>]*\b(?:src=|type=\"application/json\"))|<[^>]*\son\w+=|<[^>]*\sstyle=|javascript:", re.I
)


def faults(response: Any) -> list[str]:
    """What is wrong with the headers, and with the page that they are for."""
    found = [f"{name}: {response.get(name)}" for name, value in EXPECTED.items() if response.get(name) != value]
    policy = directives(response.get("Content-Security-Policy", ""))
    scripts = policy.get("script-src", policy.get("default-src", ""))
    is_page = response.get("Content-Type", "").startswith("text/html")
    if (
        policy.get("default-src") != "'none'"
        or policy.get("frame-ancestors") != "'none'"
        or not policy.get("base-uri")
    ):
        found.append(f"policy: {policy}")
    if scripts not in ("'none'", "'self'" if is_page else "'none'"):
        found.append(f"scripts: {scripts}")
    if "camera=()" not in response.get("Permissions-Policy", ""):
        found.append("Permissions-Policy")
    found += [name for name in ("Access-Control-Allow-Origin", "Server", "X-Powered-By") if name in response]
    if is_page and not response.streaming:
        page = response.content.decode()
        found += [f"inline: {inline}" for inline in INLINE.findall(page)]
        if "<style" in page and "'unsafe-inline'" not in policy.get("style-src", ""):
            found.append("its style is not shown")
    return found


def directives(policy: str) -> dict[str, str]:
    pairs = (part.strip().partition(" ") for part in policy.split(";") if part.strip())
    return {name: values for name, _, values in pairs}


def addresses(resolver: URLResolver | None = None, before: str = "/") -> Iterator[str]:
    """One for each pattern of the URLconf."""
    for pattern in (resolver or get_resolver()).url_patterns:
        text = re.sub(r"<(?:\w+:)?(\w+)>", lambda place: PLACES.get(place[1], "1"), str(pattern.pattern))
        text = before + re.sub(r"\(\?P(\w+)\.\*\)|[\\^$]", lambda found: "nowhere" if found[1] else "", text)
        if isinstance(pattern, URLPattern):
            yield text
        else:
            yield from addresses(pattern, text)


def test_every_answer_of_every_address_is_guarded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nobody and as an administrator: reading first, then what changes, ends the session, deletes."""
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.0)
    make_finished()
    user = User.objects.create_superuser("admin")
    admin = Client(raise_request_exception=False, headers={"host": SITE, "accept": BROWSER})
    every = sorted(addresses(), key=lambda address: "out" in address)
    assert {"/", "/stop", "/frames/1.jpg", "/api/docs", "/admin/login/", "/admin/auth/user/1/change/"} <= {*every}
    statuses = set()
    for method in METHODS:
        admin.force_login(user)
        for address in every:
            for asker in (client, admin) if method in OF_THE_ADMIN else (client,):
                response = asker.generic(method, address)
                statuses.add(response.status_code)
                assert faults(response) == [], f"{method} {address}: {response.status_code}"
    assert {200, 201, 302, 303, 400, 403, 404, 405} <= statuses


def test_what_reaches_no_view_is_guarded(client: Client) -> None:
    cases: dict[str, tuple[int, Response]] = {
        "file": (200, client.get("/static/streams/site.js")),
        "file of the admin": (200, client.get("/static/admin/js/core.js")),
        "same file": (304, client.get("/static/streams/site.js", headers={"if-modified-since": modified(client)})),
        "head of a page": (200, client.head("/", headers={"accept": BROWSER})),
        "head of a file": (200, client.head("/static/streams/site.js")),
        "no file": (404, client.get("/static/nowhere.js")),
        "wrong host": (400, client.get("/", headers={"host": "attacker.example"})),
        "wrong host, file": (200, client.get("/static/streams/site.css", headers={"host": "attacker.example"})),
        "nul": (404, client.get("/a%00b")),
        "nul in the query": (400, client.get("/?q=%00")),
        "no such page": (404, client.get("/nowhere", headers={"accept": BROWSER})),
        "cross-site": (403, client.post("/start", headers={"sec-fetch-site": "cross-site"})),
        "too large": (413, client.post("/api/start", "x" * 70_000, content_type="application/json")),
        "no token": (403, Client(enforce_csrf_checks=True, headers={"host": SITE}).post("/admin/login/")),
    }
    for name, (status, response) in cases.items():
        assert response.status_code == status, name
        assert faults(response) == [], name


def modified(client: Client) -> str:
    return client.get("/static/streams/site.js")["Last-Modified"]


def raising(error: Exception) -> Any:
    def view(request: HttpRequest, form: object) -> None:
        raise error

    return view


def test_a_fault_and_a_database_that_is_away_are_guarded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in ((RuntimeError("a fault"), 500), (OperationalError("away"), 503)):
        monkeypatch.setattr(pages, "_index", raising(error))
        response = client.get("/", headers={"accept": BROWSER})
        assert response.status_code == status
        assert faults(response) == []


def test_behind_https_browsers_are_told_to_stay_there(settings: Settings) -> None:
    """Also by what is answered before any other middleware."""
    settings.SECURE_HSTS_SECONDS, settings.SECURE_SSL_REDIRECT = 31_536_000, True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    client = Client(raise_request_exception=False, headers={"host": SITE})
    redirect = client.get("/")
    assert (redirect.status_code, redirect["Location"]) == (301, f"https://{SITE}/")
    assert faults(redirect) == []
    assert "Strict-Transport-Security" not in redirect, "by plain http it would be ignored"
    for host, status in ((SITE, 200), ("attacker.example", 400)):
        answer = client.get("/", headers={"host": host, "x-forwarded-proto": "https"})
        assert answer.status_code == status
        assert answer["Strict-Transport-Security"].startswith("max-age=31536000")


def test_without_https_no_header_of_a_client_is_believed(client: Client) -> None:
    """What a proxy would say is what anybody can say where there is none."""
    spoofed = {"x-forwarded-proto": "https", "x-forwarded-host": "attacker.example", "x-forwarded-for": "127.0.0.1"}
    answer = client.get("/api/", headers=spoofed)
    assert "Strict-Transport-Security" not in answer
    assert "attacker.example" not in f"{answer.headers} {client.get('/', headers=spoofed).content.decode()}"


def test_the_pages_have_one_policy_without_exceptions() -> None:
    assert "unsafe" not in PAGE_POLICY
    assert directives(PAGE_POLICY)["script-src"] == directives(PAGE_POLICY)["style-src"] == "'self'"
    assert configured.MIDDLEWARE[0] == "streams.middleware.SecureHeaders", "nothing is answered outside of it"
