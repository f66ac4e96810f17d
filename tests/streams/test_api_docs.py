"""docs/api.md: each of its examples is run, in its order, and answers what the file says. And the docs page."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from pytest_django import Settings

from streams import services
from streams.api import schemas
from streams.api.urls import api
from streams.claims import Claim
from streams.engine.report import Counters
from streams.engine.timeline import Timeline
from streams.models import Capture
from tests.streams.builders import NOON, Response, make_claim, make_picture, make_report
from tests.streams.html import read

pytestmark = pytest.mark.django_db
DOCS = Path(__file__).parents[2] / "docs" / "api.md"
HOST = "http://localhost:8000"
_EXAMPLE = re.compile(r"^    (curl .*)\n\n(\d{3})(?: \w+)*:?\n(?:\n```json\n((?:.+\n)+)```\n)?", re.MULTILINE)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
_ID = re.compile(r"(?<=/captures/)\d+|(?<=/frames/)\d+")


class Example(NamedTuple):
    command: str
    status: int
    answer: str


class Call(NamedTuple):
    method: str
    path: str
    body: str


def examples() -> list[Example]:
    text = DOCS.read_text()
    found = [Example(command, int(status), answer) for command, status, answer in _EXAMPLE.findall(text)]
    assert len(found) == len(re.findall(r"^    curl ", text, re.MULTILINE))
    return found


def parse(command: str) -> Call:
    """curl with -X, --json and an address."""
    words = iter(shlex.split(command)[1:])
    method, body, url = "", "", ""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "--json":
            body = next(words)
        else:
            url = word
    assert url.startswith(HOST)
    return Call(method or ("POST" if body else "GET"), url.removeprefix(HOST), body)


def run(client: Client, call: Call) -> Response:
    return client.generic(call.method, call.path, call.body, "application/json" if call.body else "")


# --- the story of the file ------------------------------------------------------------------------


def recorded() -> None:
    """A host has taken the capture up, and so far has twelve samples of it."""
    capture = Capture.objects.get(finished_at=None)
    timeline = Timeline(NOON, 0.5)
    timeline.note_connection(NOON)
    for n in range(1, 13):
        timeline.note_sample(NOON + n, 100.0 + n)
    counters = Counters(12, 0, 1, 0, 1, NOON + 12, 0.02, 0.04)
    pictures = [replace(make_picture(n, score=100.0 + n), width=1920, height=1080) for n in range(4, 13)]
    claim = make_claim(capture)
    services.checkpoint(claim, services.Totals(), make_report(*pictures, counters=counters))
    services._save_timeline(claim, timeline.encode())


BEFORE: dict[str, Callable[[], None]] = {"/api/status": recorded}


@pytest.fixture
def finisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a stop has the recorder hand over and the job done."""

    def finish(_: float) -> None:
        capture = Capture.objects.select_related("claimed_by").get(finished_at=None)
        if capture.claimed_by:
            services.hand_over(Claim(capture.pk, capture.claimed_by.pk, capture.epoch))
        services.finish(capture.pk)

    monkeypatch.setattr("streams.outcomes.time.sleep", finish)


@pytest.fixture
def visitor(settings: Settings) -> Client:
    settings.ALLOWED_HOSTS = ["localhost"]
    return Client(headers={"host": HOST.removeprefix("http://")})


@pytest.mark.usefixtures("finisher")
def test_each_example_answers_what_the_file_says(visitor: Client) -> None:
    called = set()
    for example in examples():
        call = with_own_id(parse(example.command))
        BEFORE.get(call.path, lambda: None)()
        response = run(visitor, call)
        called.add((call.method.lower(), template_of(call.path)))
        assert response.status_code == example.status, example.command
        if example.answer:
            differences = list(differing(json.loads(example.answer), response.json(), ""))
            assert not differences, f"{example.command}\n" + "\n".join(differences)
        else:
            assert response.content == b"", example.command
    assert called == documented_calls()


def with_own_id(call: Call) -> Call:
    """The file's capture is number 12; here it is another one."""
    latest = Capture.objects.order_by("id").last()
    return call._replace(path=call.path.replace("/captures/12", f"/captures/{latest.pk if latest else 0}"))


def template_of(path: str) -> str:
    plain = re.sub(r"/captures/\d+", "/captures/{capture_id}", path.partition("?")[0])
    return re.sub(r"/streams/[^/]+", "/streams/{name}", plain)


def documented_calls() -> set[tuple[str, str]]:
    paths = api.get_openapi_schema()["paths"]
    return {(method, path) for path, methods in paths.items() for method in methods}


def differing(told: Any, found: Any, where: str) -> Iterator[str]:
    """Where they differ, but for moments and ids. The file shortens lists, long text, and objects with a "..."."""
    if isinstance(told, dict) and isinstance(found, dict):
        missing = told.keys() ^ found.keys() if "..." not in told else told.keys() - found.keys() - {"..."}
        if missing:
            yield f"{where}: {sorted(missing)} is on one side alone"
        for key in told.keys() & found.keys():
            yield from differing(told[key], found[key], f"{where}.{key}")
    elif isinstance(told, list) and isinstance(found, list):
        if bool(told) != bool(found) or len(told) > len(found):
            yield f"{where}: {len(told)} entries are {len(found)}"
        for n, (one, other) in enumerate(zip(told, found, strict=False)):
            yield from differing(one, other, f"{where}[{n}]")
    elif isinstance(told, str) and isinstance(found, str):
        if not (told.endswith("...") and found.startswith(told.removesuffix("..."))) and plain(told) != plain(found):
            yield f"{where}: {told} is {found}"
    elif type(told) is not type(found) or (told != found and not where.endswith((".id", ".capture"))):
        yield f"{where}: {told!r} is {found!r}"


def plain(text: str) -> str:
    return _ID.sub("N", _MOMENT.sub("MOMENT", text))


# --- OpenAPI and its page -------------------------------------------------------------------------


def operations() -> list[dict[str, Any]]:
    return [call for path in api.get_openapi_schema()["paths"].values() for call in path.values()]


def test_openapi_tells_of_each_call_what_it_takes_and_answers() -> None:
    names = [call["operationId"] for call in operations()]
    assert len(set(names)) == len(names) == len(documented_calls())
    writes = [
        call for path in api.get_openapi_schema()["paths"].values() for name, call in path.items() if name != "get"
    ]
    assert [call["operationId"] for call in writes if not {400, 403, 413, 415} <= call["responses"].keys()] == []
    for call in operations():
        assert call["summary"]
        assert call["tags"]
        assert {503} < call["responses"].keys()
        for parameter in call["parameters"]:
            assert parameter["description"], call["operationId"]
        for status, response in call["responses"].items():
            assert response["description"], call["operationId"]
            assert status == 204 or response["content"]["application/json"]["schema"]


def test_openapis_examples_are_what_is_answered_and_taken(client: Client) -> None:
    paths = api.get_openapi_schema()["paths"]
    for call in operations():
        for response in call["responses"].values():
            if example := response.get("content", {}).get("application/json", {}).get("example"):
                schemas.Error.model_validate(example, strict=True)
    for path in ("/api/streams", "/api/start"):
        content = paths[path]["post"]["requestBody"]["content"]
        assert client.post(path, content["application/json"]["example"], "application/json").status_code == 201
        client.delete("/api/streams/demo")


def test_openapi_is_worked_out_once() -> None:
    """It takes as long as ten pages."""
    assert api.get_openapi_schema() is api.get_openapi_schema()


def test_it_names_the_exceptions_of_its_rules() -> None:
    """The rules hold for all other calls: test_credentials.py has null, test_api.py the stop of too few frames."""
    text = " ".join(DOCS.read_text().split())
    assert '`null` means "not given". The one exception is PATCH' in text
    assert "4xx has changed nothing, with one exception: a stop that answers 409 `not_enough_frames`" in text


def test_openapi_has_the_ranges_of_the_forms_and_says_what_is_left_out() -> None:
    body = api.get_openapi_schema()["paths"]["/api/start"]["post"]["requestBody"]
    assert body["required"] is True
    schema = body["content"]["application/json"]["schema"]
    assert (schema["required"], schema["additionalProperties"]) == (["rtsp_url"], False)
    told = {name: {**field, "description": ""} for name, field in schema["properties"].items()}
    assert told["interval"] == {
        "type": ["number", "null"],
        "minimum": 0.1,
        "maximum": 86_400.0,
        "description": "",
    }
    assert "If left out: 1 for a new stream, otherwise as stored." in schema["properties"]["interval"]["description"]
    assert (told["count"]["minimum"], told["count"]["maximum"]) == (1, 100)
    assert told["transport"]["enum"] == ["tcp", "udp", None]
    assert told["name"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    change = api.get_openapi_schema()["paths"]["/api/streams/{name}"]["patch"]["requestBody"]
    assert change["required"] is False
    fields = change["content"]["application/json"]["schema"]["properties"]
    assert fields.keys() == told.keys()
    assert [name for name, field in (fields | told).items() if "default" in field] == []  # what is left out stays


def test_the_docs_page_loads_nothing_from_another_host(client: Client) -> None:
    response = client.get("/api/docs")
    page = response.content.decode()
    policy = dict(rule.split(" ", 1) for rule in response["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"(https?:)?//[a-z]", page)
    loaded = [link[2] for link in read(page).links if link[2].startswith("/static/")]
    assert any("swagger-ui-bundle.js" in link for link in loaded)
    assert [link for link in loaded if not finders.find(link.removeprefix("/static/"))] == []
    assert '"validatorUrl": null' in page  # Swagger UI would send the document's address to a service
    document = client.get("/api/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert client.get("/api/")["Location"] == "/api/docs"
