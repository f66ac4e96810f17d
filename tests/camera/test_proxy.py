"""The bad line does to packets what it was told, and nothing else."""

import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path

import pytest

from tests.camera.clip import Scene, cached_mp4
from tests.camera.faults import Door, End
from tests.camera.gst import GstServer
from tests.camera.proxy import NO_TROUBLE, Proxy, Trouble
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import PlainClient, view, wait_until, watch

SCENE = Scene(160, 120, (40, 200), fps=50, gop_s=0.2, noise=6.0)
HEADER_BYTES = 12


@pytest.fixture(scope="module")
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE) as camera:
        yield camera


@pytest.fixture
def proxy(camera: ScriptedCamera) -> Iterator[Proxy]:
    with Proxy(camera.port) as proxy:
        yield proxy


def packets(port: int, count: int) -> list[bytes]:
    """The first RTP packets of a new client, without its RTCP; fewer where the line ends."""
    with PlainClient(f"rtsp://127.0.0.1:{port}/demo") as client:
        client.play()
        return list(islice(rtp(client), count))


def rtp(client: PlainClient) -> Iterator[bytes]:
    while True:
        try:
            channel, packet = client.packet()
        except (OSError, EOFError, ValueError):  # ValueError: half of a framing
            return
        if channel == 0:
            yield packet


def numbers(received: list[bytes]) -> list[int]:
    """Sequence numbers, from 1 on."""
    first = int.from_bytes(received[0][2:4])
    return [(int.from_bytes(packet[2:4]) - first) % 65_536 + 1 for packet in received]


def bodies(received: list[bytes]) -> list[bytes]:
    return [packet[HEADER_BYTES:] for packet in received]


def answer_to_options(proxy: Proxy, limit_bytes: int = 100) -> bytes:
    """As much of it as comes, up to the limit."""
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as client, client.makefile("rb") as answer:
        client.sendall(f"OPTIONS {proxy.url('demo')} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        return answer.read(limit_bytes)


def differences(one: bytes, other: bytes) -> int:
    assert len(one) == len(other)
    return sum(a != b for a, b in zip(one, other, strict=True))


# --- what it leaves alone ---


def test_without_trouble_nothing_changes(camera: ScriptedCamera, proxy: Proxy) -> None:
    assert bodies(packets(proxy.port, 60)) == bodies(packets(camera.port, 60))
    assert (proxy.dropped, proxy.damaged) == (0, 0)


def test_it_serves_many_at_once(proxy: Proxy) -> None:
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(lambda _: bodies(packets(proxy.port, 30)), range(8)))
    assert all(one == received[0] for one in received)
    assert proxy.connections == 8
    wait_until(lambda: proxy.clients == 0)


@pytest.mark.parametrize(
    "trouble",
    [Trouble(segment_bytes=7), Trouble(delay_s=0.2), Trouble(jitter_s=0.2), Trouble(bytes_per_s=40_000)],
    ids=["segments", "delay", "jitter", "slow"],
)
def test_what_comes_late_or_in_pieces_is_whole_and_in_order(proxy: Proxy, trouble: Trouble) -> None:
    clean = bodies(packets(proxy.port, 30))
    proxy.trouble = trouble
    assert bodies(packets(proxy.port, 30)) == clean


@pytest.mark.parametrize(
    ("trouble", "least_s"), [(Trouble(delay_s=0.4), 0.4), (Trouble(bytes_per_s=200), 0.5)], ids=["delay", "slow"]
)
def test_what_is_late_takes_its_time(proxy: Proxy, trouble: Trouble, least_s: float) -> None:
    """100 bytes; a loaded machine is slower, never faster."""
    proxy.trouble = trouble
    began_s = time.monotonic()
    assert len(answer_to_options(proxy)) == 100
    assert time.monotonic() - began_s >= least_s


def test_jitter_spreads_the_answers(proxy: Proxy) -> None:
    """Ten answers that are late by up to 0.3 s each: not all of them come at once."""
    proxy.trouble = Trouble(jitter_s=0.3)
    began_s = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        came_s = list(pool.map(lambda _: (answer_to_options(proxy), time.monotonic())[1], range(10)))
    assert max(came_s) - began_s > 0.1  # the chance that ten are all below: 0.000017


def test_small_pieces_are_segments_of_their_own(proxy: Proxy) -> None:
    proxy.trouble = Trouble(segment_bytes=7)
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as client, client.makefile("rb") as answer:
        client.sendall(f"OPTIONS {proxy.url('demo')} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        answer.read(100)
        assert data_segments(client) >= 100 // 7


def data_segments(connection: socket.socket) -> int:
    """That came in, by the kernel's count: tcpi_data_segs_in of struct tcp_info (linux/tcp.h)."""
    return int.from_bytes(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)[152:156], sys.byteorder)


def test_a_farewell_reaches_the_server(camera: ScriptedCamera, proxy: Proxy) -> None:
    before = camera.teardowns
    assert view(proxy.url("demo"), frames=1).seconds == [0]
    wait_until(lambda: camera.teardowns == before + 1)


def test_gstreamers_server_plays_through_it(tmp_path: Path) -> None:
    with GstServer({"demo": cached_mp4(SCENE, tmp_path)}) as server, Proxy(server.port) as proxy:
        seen = view(proxy.url("demo"), frames=199)
        assert (len(seen.glimpses), seen.seconds, seen.error) == (100, [0, 1], "")
        proxy.trouble = Trouble(damages_each=3)
        view(proxy.url("demo"), frames=10)
        assert proxy.damaged > 3


# --- drop and damage ---


def test_each_nth_packet_is_left_out(proxy: Proxy) -> None:
    proxy.trouble = Trouble(drops_each=4)
    assert numbers(packets(proxy.port, 9)) == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert proxy.dropped >= 2


def test_the_first_of_them_may_come_earlier(proxy: Proxy) -> None:
    proxy.trouble = Trouble(drops_each=4, phase=2)
    assert numbers(packets(proxy.port, 5)) == [1, 3, 4, 5, 7]


def test_one_byte_of_each_nth_payload_is_flipped(proxy: Proxy) -> None:
    clean = packets(proxy.port, 40)
    proxy.trouble = Trouble(damages_each=10)
    received = packets(proxy.port, 40)
    changed = [differences(*pair) for pair in zip(bodies(clean), bodies(received), strict=True)]
    assert changed == [int(number % 10 == 0) for number in range(1, 41)]
    # headers as they were, but for what is a client's own: sequence, timestamp, source
    assert [one[:2] for one in received] == [one[:2] for one in clean]
    assert numbers(received) == list(range(1, 41))
    assert proxy.damaged >= 4


def test_headers_stay_as_they_were(proxy: Proxy) -> None:
    proxy.trouble = Trouble(damages_each=1)
    received = packets(proxy.port, 300)
    assert numbers(received) == list(range(1, 301))
    assert {one[0] for one in received} == {0x80}
    assert {one[8:12] for one in received} == {received[0][8:12]}


def test_headers_are_damaged_when_that_is_asked_for(proxy: Proxy) -> None:
    """A line that flips a byte of each packet anywhere meets its 12 header bytes soon: 1 in 30 of these packets."""
    proxy.trouble = Trouble(damages_each=1, damages_headers=True)
    assert numbers(received := packets(proxy.port, 400)) != list(range(1, len(received) + 1))


def test_a_seed_says_where_the_damage_is(camera: ScriptedCamera) -> None:
    def received(seed: int) -> list[bytes]:
        with Proxy(camera.port, Trouble(damages_each=5, seed=seed)) as proxy:
            return bodies(packets(proxy.port, 30))

    assert received(1) == received(1) != received(2)


def test_each_connection_is_damaged_in_its_own_way(proxy: Proxy) -> None:
    proxy.trouble = Trouble(damages_each=5)
    assert bodies(packets(proxy.port, 30)) != bodies(packets(proxy.port, 30))


def test_trouble_comes_and_goes_while_a_client_watches(proxy: Proxy) -> None:
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        before = list(islice(rtp(client), 3))
        proxy.trouble = Trouble(drops_each=2)
        wait_until(lambda: proxy.dropped > 0)
        proxy.trouble = None
        assert proxy.trouble is None
        received = numbers(before + list(islice(rtp(client), 300)))
    gaps = [second - first for first, second in pairwise(received)]
    assert set(gaps[:2]) == {1}
    assert set(gaps) == {1, 2}
    assert gaps[-1] == 1
    assert gaps.count(2) == proxy.dropped


# --- ends ---


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
def test_a_line_is_cut_after_so_many_packets(proxy: Proxy, end: End) -> None:
    proxy.trouble = Trouble(end=end, after_packets=25)
    assert len(packets(proxy.port, 99)) == 25
    wait_until(lambda: proxy.clients == 0)


@pytest.mark.parametrize(("end", "is_reset"), [(End.CLOSE, False), (End.RESET, True)])
def test_a_line_is_closed_or_reset(proxy: Proxy, end: End, is_reset: bool) -> None:
    proxy.trouble = Trouble(end=end, after_packets=3)
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        assert was_reset(client) == is_reset


def was_reset(client: PlainClient) -> bool:
    try:
        client.read_all()
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("with_reset", [False, True])
def test_a_cut_and_a_reset_are_told_apart(proxy: Proxy, with_reset: bool) -> None:
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        next(rtp(client))
        proxy.cut(with_reset=with_reset)
        assert proxy.clients == 0
        assert was_reset(client) == with_reset
    assert view(proxy.url("demo"), frames=1).seconds == [0]


def test_a_line_can_be_cut_in_the_middle_of_a_packet(proxy: Proxy) -> None:
    [whole, _] = packets(proxy.port, 2)
    proxy.trouble = Trouble(end=End.CLOSE, splits_packet=True)
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        received = client.read_all()
    assert received[-(len(whole) + 4) // 2 :][:2] == b"$\0"
    assert received.endswith(whole[HEADER_BYTES : len(whole) // 2 - 2])


@pytest.mark.parametrize("after_bytes", [0, 1, 100, 5_000])
def test_a_line_can_be_cut_at_any_byte(proxy: Proxy, after_bytes: int) -> None:
    """Counted are the answers too: those to OPTIONS and DESCRIBE come first."""
    proxy.trouble = Trouble(end=End.CLOSE, after_bytes=after_bytes)
    seen = view(proxy.url("demo"))
    assert len(seen.glimpses) < 2
    assert len(answer_to_options(proxy)) == min(after_bytes, 100)


def test_a_line_that_stalled_goes_on(proxy: Proxy) -> None:
    proxy.trouble = Trouble(end=End.STALL, after_packets=5, splits_packet=True)
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        before = list(islice(rtp(client), 5))
        assert proxy.clients == 1
        proxy.trouble = None
        after = list(islice(rtp(client), 10))
    # the one that was cut in half is whole again; what came in between is lost
    assert numbers(before + after)[:6] == [1, 2, 3, 4, 5, 6]
    assert len(after) == 10


def test_a_line_that_stalled_may_be_cut_then(proxy: Proxy) -> None:
    proxy.trouble = Trouble(end=End.STALL, after_packets=5)
    with PlainClient(proxy.url("demo")) as client:
        client.play()
        next(rtp(client))
        proxy.trouble = Trouble(end=End.CLOSE)
        client.read_all()
    wait_until(lambda: proxy.clients == 0)


def test_what_a_server_sent_before_it_closed_still_arrives() -> None:
    """However late it is delivered."""
    with ScriptedCamera(SCENE, fault="close_after:0.2") as camera, Proxy(camera.port) as proxy:
        direct = len(packets(camera.port, 999))
        proxy.trouble = Trouble(delay_s=0.5)
        assert len(packets(proxy.port, 999)) == direct > 20


# --- the door ---


def test_nobody_is_let_in_and_those_inside_stay(proxy: Proxy) -> None:
    watching = watch(proxy.url("demo"))
    next(watching)
    proxy.trouble = Trouble(door=Door.REFUSES)
    assert view(proxy.url("demo")).error == "ConnectionRefusedError"
    assert next(watching).second == 0
    proxy.trouble = None
    assert view(proxy.url("demo"), frames=1).seconds == [0]


def test_a_silent_door_says_nothing(camera: ScriptedCamera, proxy: Proxy) -> None:
    before = camera.connections
    proxy.trouble = Trouble(door=Door.SILENT)
    assert view(proxy.url("demo"), timeout="300000").error != ""
    assert camera.connections == before


def test_another_protocol_may_answer(proxy: Proxy) -> None:
    proxy.trouble = Trouble(door=Door.HTTP)
    assert answer_to_options(proxy).startswith(b"HTTP/1.1 400")


def test_a_server_that_is_gone_ends_its_clients() -> None:
    with ScriptedCamera(SCENE) as camera, Proxy(camera.port) as proxy, PlainClient(proxy.url("demo")) as client:
        client.play()
        next(rtp(client))
        camera.stop()
        client.read_all()
        wait_until(lambda: proxy.clients == 0)
        assert view(proxy.url("demo")).error != ""


def test_its_trouble_is_what_it_was_told(proxy: Proxy) -> None:
    assert proxy.trouble is None
    proxy.trouble = Trouble(delay_s=1.0)
    assert proxy.trouble == Trouble(delay_s=1.0)
    proxy.trouble = NO_TROUBLE
    assert proxy.trouble is None
