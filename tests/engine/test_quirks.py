"""What was learned about a camera, as text and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.quirks import MAX_LENGTH, Quirks

transports = st.sampled_from(["", "tcp", "udp"])
keepalives = st.sampled_from(["", "OPTIONS", "GET_PARAMETER"])


@given(st.builds(Quirks, transport=transports, keepalive=keepalives))
def test_what_was_learned_comes_back(quirks: Quirks) -> None:
    text = quirks.encode()
    assert Quirks.decode(text) == quirks
    assert len(text) <= MAX_LENGTH


def test_only_what_was_learned_is_written() -> None:
    assert Quirks().encode() == ""
    assert Quirks(transport="udp").encode() == '{"transport":"udp"}'


def test_what_another_version_learned_does_not_hide_what_this_one_knows() -> None:
    assert Quirks.decode('{"of_a_later_version":[1],"transport":"udp","keepalive":"PING"}') == Quirks(transport="udp")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '"udp"', "[" * 5000, '{"transport":[]}', '{"transport":{}}', '{"keepalive":1e999}']
)
def test_what_cannot_be_read_is_nothing_learned(text: str) -> None:
    assert Quirks.decode(text) == Quirks()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | json_values.map(json.dumps) | st.fixed_dictionaries({"transport": json_values}).map(json.dumps))
def test_no_text_is_an_error(text: str) -> None:
    quirks = Quirks.decode(text)
    assert quirks.transport in ("", "tcp", "udp")
    assert quirks.keepalive in ("", "OPTIONS", "GET_PARAMETER")
