"""The second line: a secret that somebody would write all the same is stars, however it is spelled."""

import base64
import html
import json
import re
import threading
from urllib.parse import quote, quote_plus

import pytest

from streams.engine import masking
from streams.engine.address import parse
from streams.engine.masking import Masker
from tests.engine.credentials import TABLE

PASSWORD = "p@ss/w#rd:%é \"q'&<b>+\\?"
LINE = "2026-11-23 12:00:00,123 INFO stream=demo capture=12 reconnecting error=stalled attempt=1 next_attempt_s=0.7"


def masker(*secrets: str, username: str = "admin") -> Masker:
    masker = Masker()
    masker.remember(username, secrets)
    return masker


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SPELLED = {
    "raw": PASSWORD,
    "percent-encoded": quote(PASSWORD, safe=""),
    "percent-encoded but for slashes": quote(PASSWORD),
    "percent-encoded in lower case": re.sub("%..", lambda escape: escape[0].lower(), quote(PASSWORD, safe="")),
    "as a form": quote_plus(PASSWORD),
    "percent-encoded twice": quote(quote(PASSWORD, safe=""), safe=""),
    "in JSON": json.dumps(PASSWORD)[1:-1],
    "in JSON as UTF-8": json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
    "in JSON in JSON": json.dumps(json.dumps(PASSWORD)[1:-1])[1:-1],
    "repr": repr(PASSWORD)[1:-1],
    "ascii": ascii(PASSWORD)[1:-1],
    "repr of bytes": repr(PASSWORD.encode())[2:-1],
    "in a page": html.escape(PASSWORD),
    "base64": base64_of(PASSWORD),
    "base64 with the user": base64_of(f"admin:{PASSWORD}"),
    "base64 for URLs": base64.urlsafe_b64encode(f"admin:{PASSWORD}".encode()).decode(),
    "read as Latin-1": PASSWORD.encode().decode("latin-1"),
}


@pytest.mark.parametrize("spelled", SPELLED.values(), ids=SPELLED)
def test_a_known_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    for line in (spelled, f"{LINE} x={spelled}", f"{spelled}{spelled} and", f"<{spelled}>"):
        masked = masker(PASSWORD).mask(line)
        assert spelled.rstrip("=") not in masked
        assert "***" in masked


UNKNOWN = {
    "rtsp://me:W0rd@cam/x": "rtsp://***@cam/x",
    "'rtsps://me:W0 /rd@@cam/x'": "'rtsps://***@cam/x'",
    "RTSP://:W0rd@cam": "RTSP://***@cam",
    "http://me:W0rd@cam/x y": "http://***@cam/x y",
    "postgres://me:W0/rd@db:5432/name": "postgres://***@db:5432/name",
    "(redis://:W0rd@queue/0)": "(redis://***@queue/0)",
    "GET /x?rtsp_url=rtsp%3A%2F%2Fme%3AW0rd%40cam": "GET /x?rtsp_url=rtsp%3A%2F%2F***%40cam",
    "Authorization: Basic W0rd==, x": "Authorization: ***",
    "{'Authorization': 'Digest username=\"W0rd\"'}": "{'Authorization': ***",
    "Cookie: sessionid=W0rd": "Cookie: ***",
    "/x?a=1&pwd=W0rd&b=2": "/x?a=1&pwd=***&b=2",
    "{'password': 'W0 rd', 'b': 2}": "{'password': ***, 'b': 2}",
    '{"password": "W0\\" rd", "b": 2}': '{"password": ***, "b": 2}',
    '{\\"password\\": \\"W0 rd\\"}': '{\\"password\\": ***}',
    "Wish(password='W0 rd', count=9)": "Wish(password=***, count=9)",
    "[('password', 'W0rd'), ('b', 2)]": "[('password', ***), ('b', 2)]",
    "{&quot;password&quot;: &quot;W0 rd&quot;, &#x27;b&#x27;: 2}": "{&quot;password&quot;: ***, &#x27;b&#x27;: 2}",
    "user=W0rd_password=W0rd_channel=1": "user=***",
    "b'username=W0rd&x=1'": "b'username=***&x=1'",
}


@pytest.mark.parametrize("line", UNKNOWN)
def test_an_unknown_one_is_masked_where_it_stands(line: str) -> None:
    assert Masker().mask(line) == UNKNOWN[line]


KEYS = [
    "pass", "passwd", "password", "psw", "pwd", "PWD", "auth", "token", "access_token", "key", "api_key", "usr",
    "user", "sig", "secret", "loginpas",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_a_query_is_known(key: str) -> None:
    assert Masker().mask(f"/x?{key}=W0rd&b=2") == f"/x?{key}=***&b=2"


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        "stream=demo reconnecting error=auth_refused words='The camera refused the user name or the password.'",
        "host=north supervisor started slots=64 pid=71234",
        "GET /streams/monkey/?page=2 200",
        "rtsp://camera.example:8554/demo",
        "mail to keeper@example.org; see https://example.org/",
        "password authentication failed",
    ],
)
def test_a_line_without_a_secret_stays_as_it_is(line: str) -> None:
    assert masker("s3cr3t-w0rd", "1234").mask(line) == line


def test_a_short_secret_is_masked_only_by_itself_and_a_tiny_one_only_where_it_stands() -> None:
    known = masker("1234", "abc", "a")
    assert known.mask("pid=71234 pid=1234 x1234 (1234)") == "pid=71234 pid=*** x1234 (***)"
    assert known.mask("abc a rtsp://a:abc@cam ?pwd=a") == "abc a rtsp://***@cam ?pwd=***"


def test_a_secret_that_is_a_key_itself_hides_no_other_one() -> None:
    """Nor does the end of one place a secret that goes on behind it."""
    known = masker("password", "pa ss")
    assert known.mask("{'password': 'W0rd'} x?password=W0rd") == "{'***': ***} x?***=***"
    assert known.mask("x?pwd=pa ss, y") == "x?pwd=***, y"
    assert known.mask("rtsp://me:pa ss@cam rtsp://you:pa ss") == "rtsp://***@cam rtsp://you:***"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert masker("s3cr3t", "s3cr3t-w0rd").mask("<s3cr3t-w0rd> <s3cr3t>") == "<***> <***>"


def test_of_more_than_can_be_remembered_the_latest_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST", 10)
    known = Masker()
    for number in range(25):
        known.remember("admin", [f"w0rd-{number:04}"])
    lines = [known.mask(f"<w0rd-{number:04}>") for number in range(25)]
    assert lines == [f"<w0rd-{number:04}>" for number in range(15)] + ["<***>"] * 10
    assert sum(map(len, known._by_head.values())) < 100


def test_what_is_kept_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST", 2)
    known = Masker()
    known.keep(["s3rvice-key", "key"])
    for secret in ("s3rvice-key", "0ne", "tw00", "thr33", "f0ur"):
        known.remember("", [secret])
    assert known.mask("<s3rvice-key> <thr33> <f0ur> <tw00> key") == "<***> <***> <***> <tw00> key"


def test_what_a_client_sends_takes_a_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST_CHARACTERS", 2000)
    known = Masker()
    for number in range(40):
        known.remember(
            "é%" * 30_000 if number < 20 else "", [f"{number:04}" + 'é%<"' * size for size in (24, 15_000)]
        )
    assert sum(map(len, known._by_head.values())) < 1100
    assert max(len(literal) for same_head in known._by_head.values() for literal in same_head) < 10_000
    seen = [number for number in range(40) if "***" in known.mask(f"<{number:04}" + 'é%<"' * 24 + ">")]
    assert seen == list(range(20, 40))
    known.remember("x" * 60_000, ["0ne-more"])
    assert known.mask("<0039" + 'é%<"' * 24 + "> <0ne-more>") == "<***> <***>"


def test_threads_that_learn_the_same_secret_count_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST", 1)
    known, both = Masker(), threading.Barrier(2)
    spell = masking._spellings

    def spell_together(username: str, secret: str) -> set[str]:
        if secret == "sh4red":
            both.wait(30)
        return spell(username, secret)

    monkeypatch.setattr(masking, "_spellings", spell_together)
    threads = [threading.Thread(target=known.remember, args=("one", ["sh4red"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known.remember("two", ["0ther"])
    assert known.mask("<sh4red> <0ther>") == "<sh4red> <***>"


def test_a_secret_that_two_users_share_is_forgotten_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST", 2)
    known = Masker()
    for username, secret in (("one", "sh4red"), ("two", "sh4red"), ("three", "0ther")):
        known.remember(username, [secret])
    assert known.mask("<sh4red>") == "<***>"
    known.remember("four", ["an0ther"])
    assert known.mask("<sh4red>") == "<sh4red>"


def test_all_of_an_address_is_learned() -> None:
    for given in TABLE:
        masking.learn(parse(given.url("camera.example")).secret)
    line = " ".join(
        f"<{secret}>" for given in TABLE for secret in (given.password, *given.secrets) if len(secret) > 3
    )
    assert set(masking.mask(line)) <= set("<*> "), masking.mask(line)


OWN = (
    "stream=demo capture=12 reconnecting error=auth_refused attempt=1 next_attempt_s=0.7 "
    "words='The camera refused the user name or the password.'",
    "stream=demo capture=12 queued interval_s=1",
    "stream=demo capture=12 capturing codec=h264 size=1920x1080",
    "interval must be a number of seconds from 0.1 to 86400.",
    "The user name or password holds a control character.",
    'words="The camera\'s certificate cannot be verified."',
    "The camera has sent no key frame for 120 s.",
)


@pytest.mark.parametrize("secret", ["password", "the", "camera", "interval", "stream", "capture", "the password"])
def test_a_password_that_is_a_plain_word_masks_no_sentence_of_the_service(secret: str) -> None:
    for line in OWN:
        assert masker(secret).mask(line) == line


@pytest.mark.parametrize("secret", ["password", "camera", "interval", "the password"])
def test_it_is_masked_in_what_a_camera_or_a_client_says(secret: str) -> None:
    """Also between the words of a sentence, and where a client sends a field's name."""
    known = masker(secret)
    assert (
        known.mask(f"stream={secret} capture=12 queued interval_s=1") == "stream=*** capture=12 queued interval_s=1"
    )
    assert known.mask(f"The stream's video is {secret}: it cannot be decoded.") == (
        "The stream's video is ***: it cannot be decoded."
    )
    assert known.mask(f"401 wrong {secret}") == "401 wrong ***"
    assert known.mask(f"x?a={quote(secret)}&b") == "x?a=***&b"
    assert known.mask(f'realm="{secret}"') == 'realm="***"'
    assert known.mask(f"Basic {base64_of(f'admin:{secret}').rstrip('=')}") == "Basic ***"


def test_a_real_password_is_masked_in_the_middle_of_a_sentence_of_the_service() -> None:
    for spelled in SPELLED.values():
        line = masker(PASSWORD).mask(f"The host name {spelled} cannot be resolved.")
        assert line.replace("=", "") == "The host name *** cannot be resolved."


def test_a_secret_that_begins_within_a_sentence_and_goes_on_after_it_is_masked() -> None:
    assert masker("password. Lamp").mask("The user name or the password. Lamp") == "The user name or the ***"
    assert masker("password", "word.Lamp").mask("The camera refused the user name or the password.Lamp") == (
        "The camera refused the user name or the pass***"
    )


@pytest.mark.parametrize(
    "piece",
    [
        "rtsp://",
        "@rtsp://",
        "pas-",
        "key=",
        "'key':",
        'key="\\',
        "a%3a%2f%2f",
        "x",
        "p@ss",
        "password ",
        " the password",
    ],
)
def test_no_text_is_read_more_than_a_few_times(piece: str) -> None:
    """What a camera or a client can send must not hold the log up: a quadratic pattern would take minutes here."""
    masker("p@ss/w0rd", "password").mask(piece * (60_000 // len(piece)))
