"""Whatever comes in: an answer that names the mistake, nothing written, and never a 500."""

import json
from typing import Any, NamedTuple

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams import doors, outcomes
from streams.forms import StartForm, StopForm
from streams.links import LinkForm
from tests.streams.builders import API, BROWSER, CURL, SITE, URL, Response, make_capture, rows

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=x"


class Bad(NamedTuple):
    """One wrong call and how it is answered; `says` is a word that the sentence holds."""

    id: str
    says: str
    body: bytes
    content_type: str = FORM
    path: str = "/start"
    status: int = 400
    headers: dict[str, str] = {}  # noqa: B006, RUF100 - a NamedTuple's default, read only


def form(id_: str, says: str, *, path: str = "/start", status: int = 400, **fields: str) -> Bad:
    pairs = fields if path == "/stop" else {"rtsp_url": URL, **fields}
    body = "&".join(f"{name}={value}" for name, value in pairs.items())
    return Bad(id_, says, body.encode(), path=path, status=status)


def text(id_: str, says: str, *, path: str = "/start", **fields: Any) -> Bad:
    pairs = fields if path == "/stop" else {"rtsp_url": URL, **fields}
    return Bad(id_, says, json.dumps(pairs).encode(), JSON, path)


def part(name: str, value: bytes, head: bytes = b"") -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), head, value)


URLS = [
    ("empty", "", "rtsp_url is missing"),
    ("blanks", "+++", "rtsp_url is missing"),
    ("no scheme", "camera.example/demo", "rtsp://"),
    ("http", "http://camera.example/demo", "rtsp://"),
    ("file", "file:///etc/passwd", "rtsp://"),
    ("concat", "concat:rtsp://a/b|rtsp://c/d", "rtsp://"),
    ("one slash", "rtsp:/camera.example/demo", "rtsp://"),
    ("no host", "rtsp:///demo", "host"),
    ("only credentials", "rtsp://user:word@/demo", "host"),
    ("blank in the host", "rtsp://camera+example/demo", "host"),
    ("dots", "rtsp://a..b/demo", "host"),
    ("open bracket", "rtsp://[::1/demo", "host"),
    ("no IPv6 address", "rtsp://[12345::]/demo", "IPv6"),
    ("scoped address", "rtsp://[fe80::1%25eth0]/demo", "host"),
    ("port 0", "rtsp://camera.example:0/demo", "port"),
    ("port 65536", "rtsp://camera.example:65536/demo", "port"),
    ("port text", "rtsp://camera.example:rtsp/demo", "port"),
    ("fragment", "rtsp://camera.example/demo%23top", "#"),
    ("newline", "rtsp://camera.example/de%0Amo", "control character"),
    ("CR LF", "rtsp://camera.example/demo%0D%0AX-A:b/c", "control character"),
    ("tab", "rtsp://camera.example/de%09mo", "control character"),
    ("NUL", "rtsp://camera.example/de%00mo", "NUL"),
    ("10 kB", "rtsp://camera.example/" + "a" * 10_000, "longer than 1000"),
    ("long host", "rtsp://" + "a" * 500 + "/demo", "host name"),
    ("long password", "rtsp://user:" + "p" * 300 + "@camera.example/demo", "longer than 255"),
    ("NUL in the password", "rtsp://user:a%2500b@camera.example/demo", "control character"),
    ("long once encoded", "rtsp://camera.example/" + "%C3%A9" * 400, "longer than 1000"),
    ("metadata", "rtsp://169.254.169.254/latest", "169.254.169.254"),
    ("metadata in IPv6", "rtsp://[::ffff:a9fe:a9fe]/latest", "169.254.169.254"),
    ("link-local", "rtsp://[fe80::1]/demo", "fe80::1"),
    ("any", "rtsp://0.0.0.0/demo", "0.0.0.0"),
    ("multicast", "rtsp://239.1.2.3/demo", "239.1.2.3"),
]
INTERVALS = ["0", "-1", "nan", "inf", "-inf", "Infinity", "1e9", "1e400", "1_0", "%D9%A1", "%EF%BC%91", "x", "0x10"]
INTERVALS += ["1,5", "1+2", "1e", ".", "--1", "0.099", "86401", "9" * 5000, "%00", "1%002", "1;2"]
COUNTS = ["0", "-1", "101", "1.5", "1e1", "9" * 5000, "x", "%D9%A1", "1_0", "nan", "0x9", "9.0"]
NAMES = ["a+b", "%2F", "-a", "%0A", "a%0Ab", "%00", "a" * 65, "%C3%A4", "..", "%3Cb%3E"]

TABLE = [
    *(form(f"url: {id_}", words, rtsp_url=value) for id_, value, words in URLS),
    *(form(f"interval: {value[:12]}", "interval", interval=value) for value in INTERVALS),
    *(form(f"count: {value[:12]}", "count", count=value) for value in COUNTS),
    *(form(f"name: {value[:12]}", "name", name=value) for value in NAMES),
    *(form(f"transport: {value}", "transport", transport=value) for value in ("http", "TCP", "tcp,udp", "%00")),
    # JSON that is not what a field takes
    text("json: url list", "rtsp_url", rtsp_url=[URL]),
    text("json: url object", "rtsp_url", rtsp_url={"url": URL}),
    text("json: url null", "rtsp_url is missing", rtsp_url=None),
    text("json: url number", "rtsp://", rtsp_url=5),
    text("json: url false", "rtsp_url", rtsp_url=False),
    text("json: url lone surrogate", "UTF-8", rtsp_url=URL + "\ud800"),
    text("json: url NUL", "NUL", rtsp_url=URL + "\0"),
    text("json: url newline", "control character", rtsp_url="rtsp://camera.example/a\nb"),
    text("json: interval true", "interval", interval=True),
    text("json: interval list", "interval", interval=[1]),
    text("json: interval object", "interval", interval={}),
    text("json: interval text", "interval", interval="soon"),
    text("json: interval NaN", "interval", interval=float("nan")),
    text("json: interval Infinity", "interval", interval=float("inf")),
    text("json: interval huge", "interval", interval=10**400),
    text("json: count float", "count", count=9.5),
    text("json: count huge", "count", count=10**30),
    text("json: count true", "count", count=True),
    text("json: surrogate in a field's name", "UTF-8", **{"a\udfff": "1"}),
    Bad("json: interval 1e400", "interval", f'{{"rtsp_url": "{URL}", "interval": 1e400}}'.encode(), JSON),
    Bad("json: int of 5000 digits", "JSON", f'{{"rtsp_url": "{URL}", "count": {"9" * 5000}}}'.encode(), JSON),
    Bad("json: empty", "JSON", b"", JSON),
    Bad("json: broken", "JSON", b'{"rtsp_url": "rtsp://', JSON),
    Bad("json: array", "object", b'["rtsp://camera.example/demo"]', JSON),
    Bad("json: text", "object", b'"rtsp://camera.example/demo"', JSON),
    Bad("json: number", "object", b"1", JSON),
    Bad("json: null", "object", b"null", JSON),
    Bad("json: empty object", "rtsp_url is missing", b"{}", JSON),
    Bad("json: deep", "JSON", b"[" * 20_000 + b"]" * 20_000, JSON),
    Bad("json: deep object", "JSON", b'{"a":' * 9_000 + b"1" + b"}" * 9_000, JSON),
    Bad("json: invalid UTF-8", "UTF-8", b'{"rtsp_url": "rtsp://camera.example/\xff"}', JSON),
    Bad("json: UTF-16", "JSON", json.dumps({"rtsp_url": URL}).encode("utf-16"), JSON),
    Bad("json: byte order mark", "JSON", b"\xef\xbb\xbf{}", JSON),
    Bad("json: 100 kB", "too large", b'{"rtsp_url": "' + b"a" * 100_000 + b'"}', JSON),
    Bad("json: single quotes", "JSON", b"{'rtsp_url': 'rtsp://camera.example/demo'}", JSON),
    Bad("json: twice, the last is wrong", "more than once", b'{"rtsp_url": "rtsp://a/b", "rtsp_url": "x"}', JSON),
    # bodies that are no form
    Bad("form: nothing", "rtsp_url is missing", b""),
    Bad("form: no type, no body", "rtsp_url is missing", b"", ""),
    Bad("form: no type", "form", f"rtsp_url={URL}".encode(), ""),
    Bad("form: text/plain", "form", f"rtsp_url={URL}".encode(), "text/plain"),
    Bad("form: xml", "form", b"<rtsp_url/>", "application/xml"),
    Bad("form: no type at all", "form", f"rtsp_url={URL}".encode(), "a; b; c"),
    Bad("form: json by another name", "form", b"{}", "text/json"),
    Bad("form: 100 kB", "too large", b"rtsp_url=" + b"a" * 100_000),
    Bad("form: 200 fields", "too large", b"&".join(b"a%d=1" % n for n in range(200))),
    Bad("form: percent-encoded, not UTF-8", "UTF-8", b"rtsp_url=rtsp://camera.example/%ff%fe"),
    Bad("form: raw bytes, not UTF-8", "UTF-8", b"rtsp_url=rtsp://camera.example/\xff\xfe"),
    Bad("form: a field's name, not UTF-8", "UTF-8", b"%ff=1&rtsp_url=" + URL.encode()),
    Bad("form: charset", "UTF-8", f"rtsp_url={URL}".encode("utf-16"), f"{FORM}; charset=utf-16"),
    Bad("form: no charset of text", "", f"rtsp_url={URL}".encode(), f"{FORM}; charset=hex"),
    Bad("form: json inside", "rtsp_url is missing", b'{"rtsp_url": "rtsp://camera.example/demo"}'),
    Bad("form: in the query", "rtsp_url is missing", b"", FORM, f"/start?rtsp_url={URL}"),
    Bad("form: twice, the last is wrong", "more than once", f"rtsp_url={URL}&rtsp_url=x".encode()),
    Bad("multipart: no boundary", "broken", part("rtsp_url", URL.encode()), "multipart/form-data"),
    Bad("multipart: wrong boundary", "broken", b"--x", "multipart/form-data; boundary=\u00ff"),
    Bad("multipart: cut off", "rtsp_url is missing", b"--x\r\nContent-Disposition: form-data; na", MULTIPART),
    Bad("multipart: empty", "rtsp_url is missing", b"", MULTIPART),
    Bad("multipart: not UTF-8", "UTF-8", part("rtsp_url", b"rtsp://a/\xff") + b"--x--\r\n", MULTIPART),
    Bad("multipart: not base64", "", part("rtsp_url", b"a", b"\r\nContent-Transfer-Encoding: base64"), MULTIPART),
    Bad("multipart: a file", "rtsp_url is missing", part("rtsp_url", b"rtsp://a/b", b'; filename="a"'), MULTIPART),
    Bad("multipart: 100 kB", "too large", part("rtsp_url", b"a" * 100_000) + b"--x--\r\n", MULTIPART),
    Bad(
        "multipart: 200 files",
        "too large",
        b"".join(part("f", b"", b'; filename="a"') for _ in range(200)),
        MULTIPART,
    ),
    Bad(
        "multipart: no charset of text",
        "",
        part("rtsp_url", b"rtsp://a/b") + b"--x--\r\n",
        MULTIPART + "; charset=hex",
    ),
    Bad("multipart: unknown charset", "", part("name", b"%") + b"--x--\r\n", MULTIPART + "; charset=klingon"),
    Bad("multipart: no charset of a name", "", part("a", b"b", b"; filename*=hex''b") + b"--x--\r\n", MULTIPART),
    form("form: misspelled", "no field intervall: did you mean interval?", intervall="30"),
    form("form: unknown", "no field colour. It takes rtsp_url,", colour="red"),
    text("json: an unknown list", "no field colours", colours=[1]),
    text("json: misspelled", "no field verify_certficate: did you mean verify_certificate?", verify_certficate=False),
    Bad("form: an address that holds an &", "write %26 for the &", f"rtsp_url={URL}?channel=1&subtype=0".encode()),
    # /stop
    form("stop: one field too many", "no field names", path="/stop", process_name="demo", names="demo"),
    text("stop: json: misspelled", "did you mean process_name?", path="/stop", process_nam="demo"),
    form("stop: missing", "process_name is missing", path="/stop"),
    form("stop: empty", "process_name is missing", path="/stop", process_name=""),
    form("stop: blanks", "process_name is missing", path="/stop", process_name="++"),
    form("stop: NUL", "NUL", path="/stop", process_name="demo%00"),
    form("stop: not UTF-8", "UTF-8", path="/stop", process_name="%ff"),
    form("stop: another field", "no field name. It takes process_name.", path="/stop", name="demo"),
    # 404: it is a name as good as any, but no stream's
    form("stop: unknown", "process_name", path="/stop", status=404, process_name="nobody"),
    form("stop: long", "process_name", path="/stop", status=404, process_name="a" * 10_000),
    form("stop: newline", "process_name", path="/stop", status=404, process_name="de%0Amo"),
    text("stop: list", "process_name", path="/stop", process_name=["demo"]),
    text("stop: object", "process_name", path="/stop", process_name={"$ne": ""}),
    text("stop: true", "process_name", path="/stop", process_name=True),
    text("stop: surrogate", "UTF-8", path="/stop", process_name="demo\ud800"),
    Bad("stop: array", "object", b"[]", JSON, "/stop"),
    Bad("stop: text/plain", "form", b"process_name=demo", "text/plain", "/stop"),
    Bad("stop: 100 kB", "too large", b"process_name=" + b"a" * 100_000, FORM, "/stop"),
    # a page of another site, and what is no Origin: 403
    Bad("origin: another", "another site", b"rtsp_url=rtsp://a/b", status=403, headers={"origin": "http://a"}),
    Bad("origin: broken", "another site", b"rtsp_url=rtsp://a/b", status=403, headers={"origin": "http://["}),
]


def send(client: Client, bad: Bad, accept: str = CURL) -> Response:
    headers = {"accept": accept, **({"content-type": bad.content_type} if bad.content_type else {}), **bad.headers}
    return client.generic("POST", bad.path, bad.body, content_type=bad.content_type, headers=headers)


def test_the_table_is_long_and_no_entry_is_there_twice() -> None:
    assert len({bad.id for bad in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize("bad", TABLE, ids=[bad.id for bad in TABLE])
def test_it_is_refused_with_a_sentence_and_nothing_is_written(client: Client, bad: Bad) -> None:
    make_capture("rtsp://other.example/demo")
    before = rows()
    for accept in (CURL, API):
        response = send(client, bad, accept)
        assert response.status_code == bad.status, response.content[:300]
        words = _words(response)
        assert bad.says in words
        assert words.rstrip().endswith(".")
    assert_page_says_so(send(client, bad, BROWSER), bad)
    assert rows() == before


def assert_page_says_so(response: Response, bad: Bad) -> None:
    assert (response.status_code, response["Content-Type"]) == (bad.status, "text/html; charset=utf-8")
    assert "That did not work" in response.content.decode()


def _words(response: Response) -> str:
    body = response.content.decode()
    if response["Content-Type"] == "application/json":
        return str(json.loads(body)["message"])
    if response["Content-Type"].startswith("text/html"):
        return " ".join(body.split('<p class="notice">')[1:]).split("</p>")[0]
    return body


def test_each_wrong_field_has_its_own_sentence(client: Client) -> None:
    fields = {"rtsp_url": "x", "interval": "x", "count": "x", "name": "x y", "transport": "x"}
    response = client.post("/start", fields)
    lines = response.content.decode().splitlines()
    assert response.status_code == 400
    assert len(lines) == 5
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("path", ["/start", "/stop"])
def test_a_field_that_a_call_does_not_have_has_a_code_of_its_own(client: Client, path: str) -> None:
    fields = {"rtsp_url": URL} if path == "/start" else {"process_name": "demo"}
    for body in ((fields | {"colour": "red"},), (fields | {"colour": "red"}, JSON)):
        answer = client.post(path, *body, headers={"accept": API})
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
        assert answer.json()["fields"]["colour"]["code"] == "unknown_field"
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize(("path", "field"), [("/start", "rtsp_url"), ("/stop", "process_name")])
def test_a_field_in_the_query_string_is_refused_and_not_left_unused(client: Client, path: str, field: str) -> None:
    answer = client.post(f"{path}?interval=5", {field: URL if path == "/start" else "demo"}, headers={"accept": API})
    words = "This call does not read the query string: send interval in the body."
    assert (answer.status_code, answer.json()["fields"]["interval"]["message"]) == (400, words)
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize("content_type", [FORM, JSON])
@pytest.mark.parametrize("path", ["/start", "/streams/"])
def test_a_field_that_is_given_twice_is_refused(client: Client, path: str, content_type: str) -> None:
    bodies = {FORM: f"rtsp_url={URL}&count=3&count=4", JSON: f'{{"rtsp_url": "{URL}", "count": 3, "count": 4}}'}
    answer = client.generic("POST", path, bodies[content_type], content_type, headers={"accept": API})
    assert (answer.status_code, answer.json()["message"]) == (400, "count is given more than once: give it once.")
    assert list(answer.json()["fields"]) == ["count"]
    assert rows() == (0, 0, 0)


def test_a_field_without_a_name_is_named_so(client: Client) -> None:
    answer = client.generic("POST", "/stop", "process_name=demo&=5", FORM, headers={"accept": API})
    assert answer.json()["message"] == "A field in it has no name. It takes process_name."


def test_the_token_that_django_adds_to_forms_is_no_mistake(client: Client) -> None:
    assert client.post("/start", {"rtsp_url": URL, "csrfmiddlewaretoken": "x"}).status_code == 201
    assert client.post("/stop", {"process_name": "demo", "csrfmiddlewaretoken": "x"}).status_code != 400


def test_what_follows_an_ampersand_in_a_password_is_not_told_again(client: Client) -> None:
    body = "rtsp_url=rtsp://admin:s3cr&t-w0rd@camera.example/x"
    answer = client.generic("POST", "/start", body, content_type=FORM)
    assert (answer.status_code, "t-w0rd" in answer.content.decode()) == (400, False)
    assert "no field ***" in answer.content.decode()


def test_the_door_knows_the_fields_of_all_calls() -> None:
    """Of any other field it does not ask what is in it: the call says that it has none of this name."""
    known = {name for form in (StartForm, StopForm, LinkForm) for name in form().fields}
    assert {*doors._TEXTS, *doors._TRUTHS} == known


def test_what_was_sent_is_not_told_as_markup(client: Client) -> None:
    body = json.dumps({"<script>alert(1)</script>": [1]})
    response = client.post("/start", body, content_type=JSON, headers={"accept": BROWSER})
    assert response.status_code == 400
    assert "<script>" not in response.content.decode()


def test_a_file_of_many_megabytes_is_refused_before_it_is_stored(client: Client) -> None:
    """Files in a form are no fields: Django's limit on the body does not count them."""
    body = part("f", b"a" * 3_000_000, b'; filename="f"') + part("rtsp_url", URL.encode()) + b"--x--\r\n"
    response = client.generic("POST", "/start", body, content_type=MULTIPART)
    assert response.status_code in (400, 413)
    assert rows() == (0, 0, 0)


# --- at random ------------------------------------------------------------------------------------

at_random = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
sane_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
near_urls = st.one_of(
    sane_text,
    st.builds(lambda rest: f"rtsp://{rest}", sane_text),
    st.text("rtsp:/@?#[]%.0aé\n\\", max_size=40).map(lambda rest: f"rtsp://{rest}"),
    st.builds("rtsp://{}:{}@{}:{}/{}".format, sane_text, sane_text, sane_text, st.integers(-1, 70_000), sane_text),
)
near_numbers = st.one_of(
    sane_text, st.floats().map(str), st.integers().map(str), st.text("0123456789+-.eE_ ", max_size=9)
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def make_client() -> Client:
    return Client(raise_request_exception=False, headers={"host": SITE})


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may by chance name a stream that a start made."""
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.0)


@pytest.mark.usefixtures("no_wait")
@at_random
@given(
    path=st.sampled_from(["/start", "/stop"]),
    content_type=st.sampled_from([FORM, JSON, MULTIPART, "text/plain", f"{FORM}; charset=latin-1"]),
    body=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda tail: b"rtsp_url=rtsp://" + tail),
        st.binary(max_size=100).map(lambda value: part("rtsp_url", value) + b"--x--\r\n"),
        st.binary(max_size=60).map(lambda tail: b'--x\r\nContent-Disposition: form-data; name="a"' + tail),
    ),
)
def test_random_bytes_are_answered(path: str, content_type: str, body: bytes) -> None:
    response = make_client().generic("POST", path, body, content_type=content_type)
    assert response.status_code < 500
    assert response.content


@pytest.mark.usefixtures("no_wait")
@settings(at_random, max_examples=25)
@given(url=near_urls, interval=near_numbers, count=near_numbers, name=sane_text, transport=sane_text)
def test_random_fields_are_answered(url: str, interval: str, count: str, name: str, transport: str) -> None:
    fields = {"rtsp_url": url, "interval": interval, "count": count, "name": name, "transport": transport}
    assert make_client().post("/start", fields).status_code < 500
    for field, value in fields.items():
        assert make_client().post("/start", {"rtsp_url": URL, field: value}).status_code < 500
    assert make_client().post("/stop", {"process_name": name}).status_code < 500


@pytest.mark.usefixtures("no_wait")
@at_random
@given(
    fields=st.dictionaries(st.sampled_from(["rtsp_url", "interval", "count", "name", "process_name"]), json_values)
)
def test_random_json_is_answered(fields: dict[str, Any]) -> None:
    for path in ("/start", "/stop"):
        response = make_client().post(path, json.dumps(fields), content_type=JSON)
        assert response.status_code < 500


@pytest.mark.usefixtures("no_wait")
@at_random
@given(
    headers=st.dictionaries(
        st.sampled_from(["origin", "sec-fetch-site", "accept", "accept-language", "cookie", "referer"]),
        st.one_of(
            st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30), st.just("http://[")
        ),
    )
)
def test_random_headers_are_answered(headers: dict[str, str]) -> None:
    assert make_client().post("/stop", {"process_name": "nobody"}, headers=headers).status_code < 500
