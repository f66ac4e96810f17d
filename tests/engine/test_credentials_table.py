"""Each way to write credentials opens a camera that asks for exactly these; and what is shown holds none of them."""

from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from streams.engine.address import Address, join, parse
from streams.engine.clock import Stop
from streams.engine.errors import AuthRefused, NotFound
from streams.engine.rtsp import open_session
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.engine.credentials import TABLE, Given

SCENE = Scene(160, 120, (60.0, 90.0), fps=5)
ASKS = {
    "basic": {"auth": "basic"},
    "digest": {"auth": "digest"},
    "digest with qop": {"auth": "digest", "has_qop": True},
    "digest with SHA-256": {"auth": "digest", "has_qop": True, "algorithm": "SHA-256"},
}


@pytest.fixture(scope="module")
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE) as camera:
        yield camera


@pytest.fixture(scope="module")
def other_camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, host="::1") as camera:
        yield camera


def stored(text: str) -> Address:
    """As it comes back from the database."""
    address = parse(text)
    return join(address.public, address.secret)


def opens(camera: ScriptedCamera, address: Address) -> bool:
    try:
        open_session(address, "tcp", Stop()).close()
    except (AuthRefused, NotFound):
        return False
    return True


def test_the_table_is_long_and_nothing_is_in_it_twice() -> None:
    assert len({given.text for given in TABLE}) == len(TABLE) > 60


@pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)
def test_each_opens_a_camera_that_asks_for_exactly_these(camera: ScriptedCamera, asks: dict[str, object]) -> None:
    refused = []
    for given in TABLE:
        path = unquote(given.path)  # the camera reads it so
        camera.ask_for(given.username, given.password, path=path, **asks)  # type: ignore[arg-type]
        if not opens(camera, stored(given.url(f"127.0.0.1:{camera.port}"))):
            refused.append(given.text)
    assert refused == []


@pytest.mark.parametrize("asks", ASKS.values(), ids=ASKS)
def test_none_opens_with_other_ones(camera: ScriptedCamera, asks: dict[str, object]) -> None:
    """The camera is no open door: one character more, and it is shut."""
    for given in TABLE[:: len(TABLE) // 6]:
        path = given.path if given.username is not None else f"{given.path}x"
        camera.ask_for(given.username, f"{given.password}x", path=path, **asks)  # type: ignore[arg-type]
        assert not opens(camera, stored(given.url(f"127.0.0.1:{camera.port}"))), given.text


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_a_host_of_ipv6_is_told_them_too(other_camera: ScriptedCamera, scheme: str) -> None:
    for given in TABLE[:: len(TABLE) // 4]:
        other_camera.ask_for(given.username, given.password, scheme, path=given.path)  # type: ignore[arg-type]
        assert opens(other_camera, stored(given.url(f"[::1]:{other_camera.port}"))), given.text


@pytest.mark.parametrize("given", [given for given in TABLE if given.password], ids=lambda given: given.text)
def test_given_apart_they_are_the_same_without_any_escape(given: Given) -> None:
    whole = parse(given.url("camera.example"))
    query = given.path.removeprefix("demo")
    apart = parse(f"rtsp://camera.example/demo{query}").with_credentials(given.username, given.password)
    assert apart == whole
    assert join(apart.public, apart.secret) == whole


@pytest.mark.parametrize("given", TABLE, ids=lambda given: given.text)
def test_what_is_shown_holds_none_of_them(given: Given) -> None:
    address = parse(given.url("camera.example:8554"))
    shown = f"{address.public} {address!r} {address.name}"
    secrets = [given.username or "", given.password, *given.secrets]
    # A single character may stand in the rest of the address by right.
    assert [secret for secret in secrets if len(secret) > 2 and secret in shown] == []
    assert shown.startswith("rtsp://camera.example:8554/")
