"""Answers to a 401: against the RFCs' own examples, and challenges as cameras write them."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import rtsp_auth
from streams.engine.rtsp_auth import Authorizer, Challenge, challenges

NONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093"


def met(*values: str, username: str = "Mufasa", password: str = "Circle Of Life") -> Authorizer:
    authorizer = Authorizer(username, password)
    assert authorizer.meet(challenges(values))
    return authorizer


def fields(header: str) -> dict[str, str]:
    """Values as they stand, quotes taken off."""
    assert header.startswith("Digest ")
    return {
        name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"((?:\\.|[^"\\])*)"|([^",]+))', header)
    }


def hashed(algorithm: str, *parts: str) -> str:
    return hashlib.new(algorithm, ":".join(parts).encode()).hexdigest()


def test_the_example_of_rfc_2069_comes_out() -> None:
    """Section 2.4, with the response of erratum 749."""
    value = f'Digest realm="testrealm@host.com", nonce="{NONCE}", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    given_ = fields(met(value, password="CircleOfLife").header("GET", "/dir/index.html"))
    assert given_["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert given_["opaque"] == "5ccc069c403ebaf9f0171e9517f40e41"
    assert not {"qop", "nc", "cnonce", "algorithm"} & set(given_)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ("MD5", "md5"),
        ("MD5-sess", "md5"),
        ('"Md5"', "md5"),
        ("SHA-256", "sha256"),
        ("sha-256-SESS", "sha256"),
        ("SHA-512-256", "sha512_256"),
        ('"sha-512-256-Sess"', "sha512_256"),
    ],
)
@pytest.mark.parametrize("qop", ["", ', qop="auth"', ", qop=auth-int,auth", ', qop="auth-int, auth"'])
def test_each_algorithm_is_computed_as_rfc_7616_says(algorithm: str, name: str, qop: str) -> None:
    if qop == ", qop=auth-int,auth":
        qop = ', qop="auth-int,auth"'
    header = met(f'Digest realm="r", nonce="n", algorithm={algorithm}{qop}').header("PLAY", "rtsp://c/x")
    told = fields(header)
    identity = hashed(name, "Mufasa", "r", "Circle Of Life")
    if algorithm.lower().strip('"').endswith("-sess"):
        identity = hashed(name, identity, "n", told["cnonce"])
    middle = ["n", told["nc"], told["cnonce"], "auth"] if qop else ["n"]
    assert told["response"] == hashed(name, identity, *middle, hashed(name, "PLAY", "rtsp://c/x"))
    assert told["algorithm"] == algorithm.strip('"')
    assert ("qop=auth" in header) == bool(qop)


def test_a_nonce_is_counted_and_a_new_one_from_the_start() -> None:
    authorizer = met('Digest realm="r", nonce="one", qop="auth"')
    counts = [fields(authorizer.header("PLAY", "x"))["nc"] for _ in range(3)]
    authorizer.meet(challenges(['Digest realm="r", nonce="two", qop="auth"']))
    assert [*counts, fields(authorizer.header("PLAY", "x"))["nc"]] == ["00000001", "00000002", "00000003", "00000001"]


def test_basic_is_in_utf_8() -> None:
    token = met('Basic realm="x"', username="ü", password="a:b").header("PLAY", "x").removeprefix("Basic ")
    assert base64.b64decode(token).decode() == "ü:a:b"


BASIC = 'Basic realm="r"'
MD5 = 'Digest realm="r", nonce="m"'
SHA = 'Digest realm="r", nonce="s", algorithm=SHA-256'


@pytest.mark.parametrize(
    ("offered", "start"),
    [
        ([BASIC, MD5], "Digest"),
        ([MD5, BASIC], "Digest"),
        ([f"{BASIC}, {MD5}"], "Digest"),
        ([f"{MD5}, {BASIC}"], "Digest"),
        ([BASIC], "Basic"),
        (["Basic"], "Basic"),
        (["Negotiate", BASIC], "Basic"),
        (['Digest realm="r", nonce="n", algorithm=SHA-1', BASIC], "Basic"),
        (["Basic Digest"], "Basic"),
        (['Digest realm="r"', BASIC], "Basic"),
        (['Digest realm="r", nonce="n", qop="auth-int"', BASIC], "Basic"),
    ],
)
def test_basic_is_used_only_where_no_digest_can_be(offered: list[str], start: str) -> None:
    assert met(*offered).header("PLAY", "x").startswith(start + " ")


@pytest.mark.parametrize("offered", [[MD5, SHA], [SHA, MD5], [f"{MD5}, {SHA}"], [f"{SHA}, {MD5}", BASIC]])
def test_the_strongest_is_chosen(offered: list[str]) -> None:
    assert fields(met(*offered).header("PLAY", "x"))["nonce"] == "s"


@pytest.mark.parametrize("offered", [[], [""], ["Negotiate"], ["Digest"], ['Digest realm="r"'], ["gibberish, =,,="]])
def test_what_cannot_be_met_is_not(offered: list[str]) -> None:
    authorizer = Authorizer("me", "word")
    assert not authorizer.meet(challenges(offered))
    assert authorizer.header("PLAY", "x") == ""
    assert not authorizer.is_meeting


@pytest.mark.parametrize(
    ("value", "realm", "nonce"),
    [
        ("Digest realm=cam, nonce=abc==", "cam", "abc=="),
        ('Digest, realm="cam", nonce="abc"', "cam", "abc"),
        ("Digest realm=The front door, nonce=abc", "The front door", "abc"),
        ("Digest realm=The front door nonce=abc", "The front door", "abc"),
        ("Digest realm=Digest, nonce=abc", "Digest", "abc"),
        ('DIGEST  Realm = "cam" ,Nonce="abc"', "cam", "abc"),
        ('digest\trealm="a, b", nonce="abc", stale=FALSE', "a, b", "abc"),
        ('Digest realm="The "front" door", nonce="abc"', 'The "front" door', "abc"),
        (r'Digest realm="The \"front\" door", nonce="abc"', r"The \"front\" door", "abc"),
        ('Digest nonce="abc",realm="Basic realm"', "Basic realm", "abc"),
        ('Digest realm="", nonce="abc"', "", "abc"),
        ('Digest realm="K\udcfcche", nonce="abc"', "K\udcfcche", "abc"),
    ],
)
def test_challenges_are_read_as_cameras_write_them(value: str, realm: str, nonce: str) -> None:
    (challenge,) = challenges([value])
    assert challenge.scheme == "digest"
    assert (challenge.parameters["realm"], challenge.parameters["nonce"]) == (realm, nonce)


def test_schemes_without_parameters_and_with_bare_values_are_kept_apart() -> None:
    """GStreamer's tests have `Basic Digest`."""
    schemes = [challenge.scheme for challenge in challenges(["Basic Digest", "Basic realm=a b Digest, nonce=x"])]
    assert schemes == ["basic", "digest"] * 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('Digest realm="r", nonce="n", algorithm=SHA-1', "Digest with algorithm SHA-1"),
        ('Digest realm="r", nonce="n", algorithm="sha3-256-sess"', "Digest with algorithm sha3-256-sess"),
        ('Digest realm="r", nonce="n", qop="auth-int"', "Digest with qop auth-int"),
        ('Digest realm="r", nonce="n", algorithm="<script>"', ""),
        ("Negotiate x=y", "Negotiate"),
    ],
)
def test_what_cannot_be_met_is_named(value: str, words: str) -> None:
    (challenge,) = challenges([value])
    assert (challenge.strength, challenge.told) == (0, words)


def test_an_escaped_realm_is_sent_back_as_it_came_and_hashed_as_it_is_meant() -> None:
    told = met(r'Digest realm="a \"b\" \c", nonce="n"').header("PLAY", "x")
    assert r'realm="a \"b\" \c"' in told
    assert (
        hashed("md5", hashed("md5", "Mufasa", r'a "b" \c', "Circle Of Life"), "n", hashed("md5", "PLAY", "x")) in told
    )


def test_a_user_name_may_hold_quotes_and_backslashes() -> None:
    told = met(MD5, username='a"b\\c').header("PLAY", "x")
    assert r'username="a\"b\\c"' in told
    assert hashed("md5", hashed("md5", 'a"b\\c', "r", "Circle Of Life"), "m", hashed("md5", "PLAY", "x")) in told


def test_a_stale_nonce_is_told() -> None:
    assert [each.is_stale for each in challenges([MD5 + ", stale=TRUE", MD5 + ', stale="true"', MD5])] == [
        True,
        True,
        False,
    ]


def test_nothing_tells_the_password() -> None:
    authorizer = met(BASIC, username="me", password="s3cr3t")
    authorizer.header("PLAY", "x")
    assert "s3cr3t" not in repr(authorizer)
    assert "me" not in repr(authorizer).removeprefix("Authorizer")


@given(st.lists(st.text() | st.text(alphabet='Digest basrlmno=",\\ \t'), max_size=4))
def test_no_challenge_makes_it_fail(values: list[str]) -> None:
    authorizer = Authorizer("me", "word")
    found = challenges(values)
    assert all(isinstance(challenge, Challenge) for challenge in found)
    assert authorizer.meet(found) == bool(authorizer.header("PLAY", "x"))


def test_a_long_challenge_is_no_work() -> None:
    """Patterns that try everything twice would take for ever here: quotes, spaces and escapes in a row."""
    for part in ('"', '" ', "\\", " ", "a=", 'a="', ",", 'Digest a="'):
        challenges(["Digest realm=" + part * 60_000])


def test_a_word_without_an_end_is_read_once() -> None:
    """Not from each of its letters on, which is 0.6 s for each header of a camera that means harm."""
    assert rtsp_auth._PARAMETER.search('a-realm="r"')
    for begin in range(1, 7):
        assert not rtsp_auth._PARAMETER.search('a-realm="r"', begin)
